//! HTTP/2 on both sides: a provider behind TLS that speaks nothing else, and an agent without TLS.

use std::fs;
use std::process::{Command, Stdio};

use amc_testkit::Program;

use crate::home::TestHome;

/// A provider that refuses HTTP/1.1, and says by which version it was asked.
const PROVIDER: &str = r#"
const { createSecureServer } = require("http2");
const { readFileSync } = require("fs");
const server = createSecureServer({ key: readFileSync("key.pem"), cert: readFileSync("cert.pem"), allowHTTP1: false });
server.on("stream", (stream, head) => {
  const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 };
  const asked = `${stream.session.alpnProtocol} ${head["content-type"]}`;
  stream.resume();
  stream.on("end", () => {
    if (!head[":path"].endsWith("/completions")) return stream.close();
    if (head["x-want"] !== "stream") {
      const body = JSON.stringify({ model: "two", asked, usage, choices: [] });
      stream.respond({ ":status": 200, "content-type": "application/json", "content-length": Buffer.byteLength(body) });
      return stream.end(body);
    }
    stream.respond({ ":status": 200, "content-type": "text/event-stream" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-provider-trailer": "seen" }));
    stream.write(`data: ${JSON.stringify({ model: "two", choices: [], usage })}\n\n`);
    stream.end("data: [DONE]\n\n");
  });
});
server.listen(0, "127.0.0.1", () => console.log(`{"listening":"127.0.0.1:${server.address().port}"}`));
"#;

/// One plain call by HTTP/1.1, one by HTTP/2, and a stream by HTTP/2 from who reads trailers.
const AGENT: &str = r#"set -e
call() {
    curl -sS --fail-with-body -H "authorization: Bearer $OPENAI_API_KEY" -H 'content-type: application/json' \
        -d '{"model":"two","messages":[]}' "$@" "$OPENAI_BASE_URL/chat/completions"
}
call > one.json
call --http2-prior-knowledge -o two.json -w '%{http_version}\n'
call --http2-prior-knowledge -H 'x-want: stream' -H 'te: trailers' -D stream.head > stream.body"#;

/// What this test needs beyond AMC, where it is missing.
fn missing() -> Option<&'static str> {
    let answers = |program: &str, argument: &str| {
        let mut probe = Command::new(program);
        let status = probe.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    [("node", "--version"), ("openssl", "version"), ("curl", "--version")]
        .into_iter()
        .find_map(|(program, argument)| (!answers(program, argument)).then_some(program))
}

#[test]
fn a_provider_by_http2_and_an_agent_by_http2_are_relayed_as_they_are() {
    if let Some(program) = missing() {
        println!("SKIPPED: HTTP/2 to providers: {program} is not installed");
        return;
    }
    let home = TestHome::new();
    fs::write(home.beside("provider.cjs"), PROVIDER).expect("it is written");
    let mut certify = Command::new("openssl");
    certify.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    certify.args(["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"]);
    certify.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
    let certified = certify.current_dir(home.beside("")).output().expect("openssl runs");
    assert!(certified.status.success(), "{}", String::from_utf8_lossy(&certified.stderr));
    let provider = Program::start(Command::new("node").arg("provider.cjs").current_dir(home.beside("")));
    let base = format!("openai=https://localhost:{}/v1", provider.listening().port());
    home.amc(&["gateway", "init", "--listen", "127.0.0.1:0", "--provider", &base]).ends(0);

    let mut wrap = home.command();
    wrap.args(["wrap", "--agent", "support", "--isolation", "none", "--", "sh", "-c", AGENT]);
    // What an operator does for a provider under a private authority; nothing of AMC knows of a test.
    let out = wrap.env("SSL_CERT_FILE", home.beside("cert.pem")).output().expect("amc runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    let read = |name: &str| fs::read_to_string(home.beside(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "2\n", "the agent's own side");
    for name in ["one.json", "two.json"] {
        let answer: serde_json::Value = serde_json::from_str(&read(name)).expect("JSON");
        assert_eq!(answer["asked"], "h2 application/json", "{name}");
    }
    assert!(read("stream.body").ends_with("data: [DONE]\n\n"));
    let head = read("stream.head");
    assert!(head.contains("x-provider-trailer: seen"), "the provider's trailers pass: {head}");
    let receipt = head.lines().find_map(|line| line.strip_prefix("x-amc-receipt: ")).expect("a receipt as a trailer");
    assert_eq!(home.json(&["receipt", "verify", receipt.trim()]).ends(0).data()["position"], "proven");

    let answers = home.evidence_of("llm_response");
    assert_eq!(answers.len(), 3);
    for answer in &answers {
        let fields = &answer["fields"];
        assert_eq!((&fields["status"], &fields["outcome"]), (&200.into(), &"complete".into()), "{answer}");
        assert_eq!(fields["usage"]["output_tokens"], 4, "{answer}");
    }
}

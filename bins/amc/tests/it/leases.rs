//! Leases by hand, from outside: what they open, what they bound, and how they end.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::home::{PROVIDER_KEY, TestHome, files_under, model, set_secret};
use crate::services::Up;

/// What came back: status and body.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// One chat call with a token in a header of choice.
pub(crate) fn chat(listen: &str, header: &str, model: &str) -> u16 {
    call(listen, header, &json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})).status
}

fn call(listen: &str, header: &str, body: &Value) -> Reply {
    send(listen, "/openai/v1/chat/completions", header, &body.to_string())
}

pub(crate) fn send(listen: &str, path: &str, header: &str, body: &str) -> Reply {
    let mut stream = TcpStream::connect(listen).expect("the gateway listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let len = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nhost: {listen}\r\n{header}\r\ncontent-type: application/json\r\n");
    let request = format!("{head}content-length: {len}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer to its end");
    let status = answer.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
    let text = answer.split_once("\r\n\r\n").expect("a head").1.to_owned();
    Reply { status, text }
}

pub(crate) fn listen_of(up: &Value) -> String {
    up["gateway"]["listen"].as_str().expect("an address").to_owned()
}

/// A lease's id and token.
pub(crate) fn issue(home: &TestHome, more: &[&str]) -> (String, String) {
    let data = home.json(&[&["lease", "issue", "--agent", "support"], more].concat()).ends(0).data();
    let text = |key: &str| data[key].as_str().expect("a text").to_owned();
    (text("lease"), text("token"))
}

#[test]
fn a_lease_has_a_session_of_the_day_and_ends_at_its_revocation_for_good() {
    let home = TestHome::new();
    let model = model(&["--require-key", PROVIDER_KEY]);
    home.route_to(model.listening());
    set_secret(&home.beside(""), PROVIDER_KEY);
    let (lease, token) = issue(&home, &["--expires", "2h"]);
    assert!(!home.file("run/monitor.sock").exists(), "what was started for it has ended");
    {
        let (_up, data) = Up::start(&home);
        let listen = listen_of(&data);
        let bearer = format!("authorization: Bearer {token}");
        assert_eq!(chat(&listen, &bearer, "m-1"), 200);
        assert_eq!(chat(&listen, &format!("x-api-key: {token}"), "m-1"), 200);
        let listed = home.json(&["lease", "list"]).ends(0).data()["leases"][0].clone();
        assert_eq!((&listed["lease"], &listed["state"]), (&json!(lease), &json!("valid")));
        assert!(listed["session"].is_string(), "{listed}");
        home.amc(&["lease", "revoke", &lease]).ends(0);
        let refused = call(&listen, &bearer, &json!({}));
        assert_eq!(refused.status, 401);
        let error: Value = serde_json::from_str(&refused.text).expect("an error in OpenAI's shape");
        assert_eq!(error["error"]["code"], "lease_invalid");
        assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("was revoked")), "{error}");
    }
    let (_up, data) = Up::start(&home);
    assert_eq!(chat(&listen_of(&data), &format!("api-key: {token}"), "m-1"), 401, "a restart forgets no revocation");
    assert_eq!(home.json(&["lease", "list"]).ends(0).data()["leases"][0]["state"], "revoked");
    drop(_up);

    let opens = home.evidence_of("session_open");
    assert_eq!(opens.len(), 1, "one session of the day: {opens:?}");
    assert_eq!((&opens[0]["fields"]["channel"], &opens[0]["fields"]["lease"]), (&json!("lease"), &json!(lease)));
    assert_eq!(home.evidence_of("session_seal")[0]["fields"]["outcome"], "sealed");
    let calls = home.evidence_of("llm_response");
    assert!(calls.len() == 2 && calls.iter().all(|call| call["session_id"] == opens[0]["session_id"]), "{calls:?}");
    for path in files_under(&home.root()) {
        let bytes = fs::read(&path).expect("a readable file");
        let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!found, "the token stands in {}", path.display());
    }
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_lease_passes_what_it_is_for_and_nothing_else() {
    let home = TestHome::new();
    let model = model(&[]);
    home.route_to(model.listening());
    let (_up, data) = Up::start(&home);
    let listen = listen_of(&data);
    let bearer = |token: &str| format!("authorization: Bearer {token}");

    let (_, token) = issue(&home, &["--provider", "anthropic"]);
    assert_eq!(chat(&listen, &bearer(&token), "m-1"), 403, "another provider");
    let (_, token) = issue(&home, &["--scope", "egress"]);
    assert_eq!(chat(&listen, &bearer(&token), "m-1"), 403, "another scope");
    let (_, token) = issue(&home, &["--model", "m-1", "--model", "m-2"]);
    assert_eq!(chat(&listen, &bearer(&token), "m-2"), 200);
    assert_eq!(chat(&listen, &bearer(&token), "m-3"), 403, "another model");
    let twice = r#"{"model":"m-1","messages":[],"\u006dodel":"m-3"}"#;
    assert_eq!(
        send(&listen, "/openai/v1/chat/completions", &bearer(&token), twice).status,
        403,
        "hidden in a second one"
    );
    let (_, token) = issue(&home, &["--rpm", "2"]);
    let statuses: Vec<u16> = (0..3).map(|_| chat(&listen, &bearer(&token), "m-1")).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let refused = send(&listen, "/anthropic/v1/messages", &bearer(&token), "{}");
    let error: Value = serde_json::from_str(&refused.text).expect("an error in Anthropic's shape");
    assert_eq!((refused.status, &error["error"]["type"]), (429, &json!("rate_limit_error")));
    let (_, token) = issue(&home, &["--expires", "1s"]);
    crate::home::until(|| chat(&listen, &bearer(&token), "m-1") == 401);
    assert_eq!(chat(&listen, "authorization: Bearer amc-lease-guess", "m-1"), 401);
    let key = "authorization: Bearer sk-live-0123456789abcdef0123456789abcdef";
    let refused = call(&listen, key, &json!({}));
    assert!(refused.status == 401 && refused.text.contains("a provider's key came in"), "{}", refused.text);
}

/// A provider that begins what it is asked for and never ends it.
fn endless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut asked = vec![0; 64 * 1024];
                let len = stream.read(&mut asked).expect("a request");
                let asked = String::from_utf8_lossy(&asked[..len]).to_ascii_lowercase();
                let head = match (asked.contains("upgrade: websocket"), asked.contains("/silent")) {
                    (true, _) => {
                        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
                    }
                    (false, true) => "",
                    (false, false) => {
                        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                         f\r\ndata: beginning\r\n"
                    }
                };
                stream.write_all(head.as_bytes()).expect("it is read");
                // Until the gateway leaves.
                while stream.read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
            });
        }
    });
    address
}

#[test]
fn a_revocation_ends_what_is_under_way() {
    let home = TestHome::new();
    home.route_to(endless());
    let (_up, data) = Up::start(&home);
    let listen = listen_of(&data);
    let (lease, token) = issue(&home, &[]);
    let begin = |head: &str| {
        let mut stream = TcpStream::connect(&listen).expect("the gateway listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let request = format!("{head}\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is read");
        stream
    };
    let read_until = |stream: &mut TcpStream, mark: &str| {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(mark) {
            let mut piece = [0; 4096];
            let len = stream.read(&mut piece).expect("more");
            assert!(len > 0, "no {mark:?} in {:?}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&piece[..len]);
        }
    };
    let mut stream = begin("GET /openai/v1/stream HTTP/1.1");
    read_until(&mut stream, "beginning");
    let mut socket = begin(
        "GET /openai/v1/realtime HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    );
    read_until(&mut socket, "101 ");
    let mut silent = begin("GET /openai/v1/silent HTTP/1.1\r\nconnection: close");
    home.amc(&["lease", "revoke", &lease]).ends(0);
    let mut answer = String::new();
    silent.read_to_string(&mut answer).expect("an answer to its end");
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("lease_invalid"), "{answer}");
    for mut open in [stream, socket] {
        let mut rest = Vec::new();
        // How a connection ends that is cut is the kernel's concern; a timeout would be ours.
        let ended = open.read_to_end(&mut rest);
        let kind = ended.as_ref().err().map(std::io::Error::kind);
        assert!(!matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{ended:?}");
        assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"), "a stream that was cut is not whole");
    }
    drop(_up);
    let calls = home.evidence_of("llm_response");
    let outcomes: Vec<&Value> = calls.iter().map(|call| &call["fields"]["outcome"]).collect();
    assert_eq!(outcomes, ["client_left"; 3], "{calls:?}");
    assert_eq!(home.evidence_of("llm_request").len(), 3);
    home.json(&["verify"]).ends(0);
}

#[test]
fn an_order_that_cannot_be_meant_is_refused() {
    let home = TestHome::new();
    for (arguments, said) in [
        (&["--provider", "nobody"][..], "no provider \"nobody\""),
        (&["--allow", "https://example.com"], "host:port"),
        (&["--expires", "0s"], "no length of time"),
        (&["--expires", "1y"], "1y"),
    ] {
        let answer = home.amc(&[&["lease", "issue", "--agent", "support"], arguments].concat()).ends(2);
        assert!(answer.stderr.contains(said), "{answer}");
    }
    let answer = home.amc(&["lease", "revoke", "lease-0123456789abcdef"]).ends(3);
    assert!(answer.stderr.contains("amc lease list"), "{answer}");
}

//! No secret that passes through the gateway is in any byte of a home: not in the log, whatever it is packed in, not in
//! the index, not in a file of `run/`, not in what a run or a bundle is made of.

use std::fs;
use std::io::Write as _;

use amc_evidence::Event;
use amc_ledger::LogReader;
use serde_json::{Value, json};

use crate::home::{PROVIDER_KEY, TestHome, files_under, model, set_secret};
use crate::leases::{issue, listen_of, send};
use crate::services::Up;

/// Keys by their shape, by what stands before them, and by what the configuration says.
const SECRETS: [&str; 9] = [
    "sk-proj-abcdefghijklmnopqrstuvwxyz012345",
    "sk-ant-api03-0123456789abcdefghij_-ABCDEF",
    "AIzaSyA0123456789abcdefghijklmnopqrstuvw",
    "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    "AKIA0123456789ABCDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "sid=abcdefgh12345678",
    "acme_live_0123456789",
    "CUST-12345678",
];

fn said() -> String {
    let [openai, anthropic, google, github, aws, jwt, cookie, own, customer] = SECRETS;
    format!(
        "Look: {openai} {anthropic} {google} {github} {aws} {jwt} Cookie: {cookie} and {own}, for {customer}. The key \
         of the provider is {PROVIDER_KEY} ."
    )
}

/// What the tests look for: whole, and the half of it that no mark has in common with it.
fn looked_for(lease: &str) -> Vec<String> {
    let all = SECRETS.iter().copied().chain([PROVIDER_KEY, lease]);
    all.flat_map(|secret| [secret.to_owned(), secret[secret.len() / 2..].to_owned()]).collect()
}

#[track_caller]
fn assert_clean(what: &str, bytes: &[u8], lease: &str) {
    // What is no text becomes a mark; the secrets are text.
    let text = String::from_utf8_lossy(bytes);
    for secret in looked_for(lease) {
        assert!(!text.contains(&secret), "{secret:?} is in {what}");
    }
}

#[test]
fn no_secret_is_in_any_byte_of_a_home() {
    let home = TestHome::new();
    let model = model(&["--require-key", PROVIDER_KEY]);
    home.route_to(model.listening());
    let mut file = fs::OpenOptions::new().append(true).open(home.file("gateway.yaml")).expect("it is there");
    writeln!(file, "secretPrefixes:\n  - acme_live_\nsecretPatterns:\n  - 'CUST-[0-9]{{8}}'").expect("it is written");
    home.amc(&["config", "sign", "gateway.yaml"]).ends(0);
    set_secret(&home.beside(""), PROVIDER_KEY);
    let (up, data) = Up::start(&home);
    let listen = listen_of(&data);
    let (_, token) = issue(&home, &[]);
    let header = format!(
        "authorization: Bearer {token}\r\nx-api-key: {}\r\ncookie: {}\r\nx-request-id: {}",
        SECRETS[1], SECRETS[6], SECRETS[0]
    );
    for stream in [false, true] {
        for path in ["/openai/v1/chat/completions", &format!("/openai/v1/chat/completions?key={}", SECRETS[2])] {
            let messages = json!([{"role": "user", "content": said()}]);
            let body = json!({"model": "m-1", "messages": messages, "stream": stream, "user": SECRETS[3]});
            let reply = send(&listen, path, &header, &body.to_string());
            assert_eq!(reply.status, 200, "{}", reply.text);
        }
    }
    // Refused calls, and those that no provider takes.
    send(&listen, &format!("/openai/v1/files/{}", SECRETS[0]), &header, &said());
    send(&listen, &format!("/nobody/{}", SECRETS[0]), &header, &said());
    drop(up);
    let run_id = home.json(&["run", "--agent", "support"]).data()["run_id"].as_str().expect("a run").to_owned();
    let out = home.file("run.amcbundle").display().to_string();
    home.json(&["bundle", "export", "--agent", "support", "--run", &run_id, "--out", &out]).ends(0);

    let reader = LogReader::open(&home.file("logs/evidence")).expect("the log opens");
    let mut bodies = 0;
    for stored in reader.events(0) {
        let stored = stored.expect("reads");
        assert_clean("an event", &stored.signed.body, &token);
        let (event, _) = Event::decode(&stored.signed.body).expect("an event");
        let Some(reference) = event.payload else { continue };
        if let Some(payload) = reader.payload(&reference, stored.payload_location).expect("reads") {
            bodies += 1;
            let text = String::from_utf8_lossy(&payload).into_owned();
            assert_clean("a stored body", text.as_bytes(), &token);
            let pieces = text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
            let said: String = pieces
                .filter_map(|event: Value| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()))
                .collect();
            assert_clean("what a stored stream says", said.as_bytes(), &token);
        }
    }
    assert!(bodies >= 8, "{bodies}");
    for path in files_under(&home.root()) {
        assert_clean(&path.display().to_string(), &fs::read(&path).unwrap_or_default(), &token);
    }
}

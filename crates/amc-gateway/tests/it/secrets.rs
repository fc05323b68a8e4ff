//! No secret is in any stored byte, whichever way it travels.

use std::io::Write as _;

use amc_workspace::protocol::gateway::{Capture, GatewayFields};

use crate::monitor::{ALICE, RecordedCall};
use crate::rig::{PROVIDER_KEY, Rig};
use crate::upstream::json;

/// Key shapes, a private key, header values, and the two secrets of this very call.
fn corpus() -> Vec<String> {
    let mut corpus: Vec<String> = [
        ALICE,
        PROVIDER_KEY,
        "sk-proj-abcdefghijklmnopqrstuvwxyz012345",
        "sk-ant-api03-0123456789abcdefghij_-ABCDEF",
        "AIzaSyA0123456789abcdefghijklmnopqrstuvw",
        "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
        "gsk_0123456789abcdefghijklmnop",
        "xai-0123456789abcdefghijklmnop",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "AKIA0123456789ABCDEF",
    ]
    .map(str::to_owned)
    .to_vec();
    corpus.push(format!("Authorization: Bearer {}", "tok3n.".repeat(8)));
    corpus.push(format!("-----BEGIN PRIVATE KEY-----\nMIIE{}\n-----END PRIVATE KEY-----", "abcd".repeat(20)));
    corpus
}

/// The part of a corpus entry that must not be stored.
fn secret(entry: &str) -> &str {
    entry.strip_prefix("Authorization: Bearer ").unwrap_or(entry)
}

fn body() -> String {
    let said: Vec<String> = corpus().iter().map(|entry| format!("look: {entry} !")).collect();
    let body = serde_json::json!({"model": corpus()[2], "messages": [{"role": "user", "content": said.join(" ")}]});
    // Raw, so that every entry stands in it as it is; JSON writes a line feed as two characters.
    body.to_string()
}

fn assert_clean(what: &str, stored: &[u8]) {
    let text = String::from_utf8_lossy(stored);
    for entry in corpus() {
        let escaped = secret(&entry).replace('\n', "\\n");
        assert!(!text.contains(secret(&entry)) && !text.contains(&escaped), "{entry:?} in {what}: {text}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_corpus_is_absent_from_every_stored_byte() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let path = "/openai/v1/files/sk-abcdefghijklmnopqrstuvwxyz?key=sk-0123456789abcdefghijk";
    let request = rig.client.post(rig.url(path)).bearer_auth(ALICE).body(body());
    let answer =
        rig.start(request.header("x-request-id", ALICE).header("content-type", format!("text/plain; {ALICE}")));
    let mut peer = upstream.accept().await;
    assert_eq!(peer.receive().await.body, body().into_bytes(), "what passes is not changed");
    peer.send(json(&body())).await;
    assert_eq!(answer.await.unwrap().text().await.unwrap(), body());
    let call = rig.monitor.call().await;
    for (what, payload) in [("the request", &call.sent), ("the answer", &call.received)] {
        assert_clean(what, &payload.bytes);
        assert_clean(what, payload.media_type.as_bytes());
        let rules = "authorization,key-shape,lease,private-key,provider-key".to_owned();
        assert_eq!(payload.capture, Capture::Redacted(rules));
        assert_eq!(payload.wire_sha256, amc_crypto::sha256(body().as_bytes()), "the wire hash stays");
        assert!(String::from_utf8_lossy(&payload.bytes).contains("look: [amc:redacted:"));
    }
    assert_clean("the fields", format!("{:?} {:?}", call.request, call.response).as_bytes());
    assert!(!call.request.path.contains("sk-abcdef"), "{}", call.request.path);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_secrets_are_unpacked_or_left_out() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let request = rig.post("/openai/v1/chat/completions", gzip(body().as_bytes())).header("content-encoding", "gzip");
    let answer = rig.start(request);
    let mut peer = upstream.accept().await;
    peer.receive().await;
    let packed = "HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 4\r\n\r\nxxxx";
    peer.send(packed).await;
    answer.await.unwrap();
    let call = rig.monitor.call().await;
    assert_clean("the unpacked request", &call.sent.bytes);
    assert!(
        matches!(&call.sent.capture, Capture::Redacted(rules) if rules.starts_with("gunzip,")),
        "{:?}",
        call.sent.capture
    );
    assert_eq!((call.received.capture, call.received.bytes.len()), (Capture::Omitted, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_that_no_header_names_or_that_two_name_hides_nothing() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", gzip(body().as_bytes())));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    let packed = gzip(body().as_bytes());
    let head = "content-encoding: identity\r\ncontent-encoding: gzip";
    let head = format!("HTTP/1.1 200 OK\r\n{head}\r\ncontent-length: {}\r\n\r\n", packed.len());
    peer.send([head.as_bytes(), packed.as_slice()].concat()).await;
    answer.await.unwrap();
    let call = rig.monitor.call().await;
    for (what, payload) in [("the request", &call.sent), ("the answer", &call.received)] {
        assert_clean(what, &payload.bytes);
        let rules = &payload.capture;
        assert!(matches!(rules, Capture::Redacted(rules) if rules.starts_with("gunzip,")), "{what}: {rules:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_across_the_end_of_the_copy_leaves_no_part() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let limit = amc_core::limits::PAYLOAD_STORED_BYTES_MAX;
    let body = format!("{}{ALICE}{}", "a ".repeat(limit / 2 - 5), " b".repeat(5000));
    let answer = rig.start(rig.post("/openai/v1/files", body));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(json("{}")).await;
    answer.await.unwrap();
    let call = rig.monitor.call().await;
    assert_eq!(call.sent.capture, Capture::Truncated("lease".to_owned()));
    assert!(
        call.sent.bytes.ends_with(b"a [amc:redac"),
        "{:?}",
        String::from_utf8_lossy(&call.sent.bytes[limit - 40..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_key_beside_the_lease_is_ignored_and_said() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let real = "sk-proj-abcdefghijklmnopqrstuvwxyz012345";
    let answer = rig.start(rig.post("/openai/v1/chat/completions", "{}").header("x-api-key", real));
    let mut peer = upstream.accept().await;
    let received = peer.receive().await;
    assert_eq!(received.header("authorization"), Some(format!("Bearer {PROVIDER_KEY}").as_str()));
    assert_eq!(received.header("x-api-key"), None);
    peer.send(json("{}")).await;
    answer.await.unwrap();
    let events = rig.monitor.events(3).await;
    let ignored = events.iter().find_map(|event| match &event.fields {
        GatewayFields::KeyIgnored(ignored) => Some((ignored.provider.as_str(), ignored.header.as_str())),
        _ => None,
    });
    assert_eq!(ignored, Some(("openai", "x-api-key")));
    assert!(!format!("{:?}", RecordedCall::of(&events)).contains(real));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_an_answer_gives_in_pieces_is_not_stored_in_pieces() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let answer = rig.start(rig.post("/openai/v1/chat/completions", crate::rig::chat("hello", true)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send(crate::upstream::EVENTS_HEAD).await;
    let event = |piece: &str| format!("data: {}\n\n", serde_json::json!({"choices": [{"delta": {"content": piece}}]}));
    let text = corpus().join(" ! ");
    let pieces: Vec<String> = text.chars().collect::<Vec<_>>().chunks(5).map(String::from_iter).collect();
    for piece in &pieces {
        peer.chunk(&event(piece)).await;
    }
    peer.send("0\r\n\r\n").await;
    let passed: String = pieces.iter().map(|piece| event(piece)).collect();
    assert_eq!(answer.await.unwrap().text().await.unwrap(), passed, "what passes is not changed");
    let call = rig.monitor.call().await;
    let stored = String::from_utf8(call.received.bytes).unwrap();
    let events = stored.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
    let said = events
        .filter_map(|event: serde_json::Value| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()));
    assert_clean("the text that the stream makes", said.collect::<String>().as_bytes());
    assert_eq!(call.received.wire_sha256, amc_crypto::sha256(passed.as_bytes()), "the wire hash stays");
    assert!(
        matches!(&call.received.capture, Capture::Redacted(rules) if rules.contains("key-shape")),
        "{:?}",
        call.received.capture
    );
}

//! Providers that lie about their answers, and agents that stop within their requests: each ends, is recorded as what
//! it was, and harms nobody else's call.

use amc_core::kinds::CallOutcome;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::monitor::{ALICE, RecordedCall};
use crate::rig::{Rig, chat};
use crate::upstream::{PATIENCE, Upstream, json};

/// Short, for what never comes.
const SHORT: &str = "timeouts:\n  idleMs: 1000\n  firstByteMs: 1000\n";

/// What an agent gets when a provider sends `answer` again and again until its connection breaks, and what is recorded.
async fn lied_to(answer: &[u8], again: &[u8]) -> (reqwest::StatusCode, Option<Vec<u8>>, CallOutcome) {
    let (rig, upstream) = Rig::with_upstream(SHORT).await;
    let answered = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", false)));
    let mut peer = upstream.accept().await;
    peer.receive().await;
    let (answer, again) = (answer.to_vec(), again.to_vec());
    let provider = tokio::spawn(async move {
        let mut sent = peer.stream.write_all(&answer).await;
        while sent.is_ok() && !again.is_empty() {
            sent = peer.stream.write_all(&again).await;
        }
        // It stays connected.
        peer
    });
    let answered = answered.await.unwrap();
    let status = answered.status();
    let body = answered.bytes().await.ok().map(|bytes| bytes.to_vec());
    let outcome = rig.monitor.call().await.response.outcome;
    provider.abort();
    (status, body, outcome)
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_end_or_sense_are_no_answers() {
    for (what, answer, again) in [
        ("a head without end", "HTTP/1.1 200 OK\r\n", "x-more: 0123456789012345678901234567890123456789\r\n"),
        ("a line without end", "HTTP/1.1 200 OK\r\nx-more: ", "0123456789012345678901234567890123456789"),
        ("interim answers without end", "", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", ""),
        ("a length that is none", "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc", ""),
        ("a length beyond all", "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nabc", ""),
        ("another protocol", "SSH-2.0-OpenSSH_9.2\r\n", ""),
        ("a status that is none", "HTTP/1.1 1000 OK\r\ncontent-length: 0\r\n\r\n", ""),
        (
            "a switch that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "",
        ),
    ] {
        let (status, body, outcome) = lied_to(answer.as_bytes(), again.as_bytes()).await;
        let body = String::from_utf8(body.expect("the gateway's own answer")).unwrap();
        assert_eq!((status.as_u16(), outcome), (502, CallOutcome::UpstreamFailed), "{what}: {body}");
        assert!(body.contains("UPSTREAM_FAILED"), "{what}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_their_framing_are_broken_for_the_agent_too() {
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    for (what, body) in [
        ("a chunk of no length", "zz\r\nabc\r\n"),
        ("a chunk longer than it says", "2\r\nabc\r\n"),
        ("a chunk beyond all", "ffffffffffffffffff\r\nabc\r\n"),
        ("a chunk that never comes", "5\r\nab"),
        ("trailers without end", "2\r\nab\r\n0\r\n"),
    ] {
        let endless = if what == "trailers without end" { "x-more: 01234567890123456789\r\n" } else { "" };
        let (status, body, outcome) = lied_to(format!("{chunked}{body}").as_bytes(), endless.as_bytes()).await;
        assert_eq!((status.as_u16(), body, outcome), (200, None, CallOutcome::UpstreamTruncated), "{what}");
    }
    let short = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{}";
    let (_, body, outcome) = lied_to(short.as_bytes(), b"").await;
    assert_eq!((body, outcome), (None, CallOutcome::UpstreamTruncated), "fewer bytes than it says");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_chunks_does_not_count() {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n";
    let (status, body, outcome) = lied_to(format!("{head}7\r\n{{\"a\":1}}\r\n0\r\n\r\n").as_bytes(), b"").await;
    match body {
        Some(body) => assert_eq!((body.as_slice(), outcome), (&b"{\"a\":1}"[..], CallOutcome::Complete)),
        None => assert_eq!((status.as_u16(), outcome), (502, CallOutcome::UpstreamFailed)),
    }
}

/// What stands behind an answer must not become the answer to somebody else's request.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_answer_answers_nobody() {
    let forged = json("{\"forged\":true}");
    for (what, first) in [
        ("an answer", json("{\"first\":true}")),
        ("no content", "HTTP/1.1 204 No Content\r\ncontent-length: 90\r\n\r\n".to_owned()),
        ("an event", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned()),
    ] {
        let (rig, upstream) = Rig::with_upstream("").await;
        let answered = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", false)));
        let mut peer = upstream.accept().await;
        peer.receive().await;
        peer.send(format!("{first}{forged}")).await;
        let text = answered.await.unwrap().text().await.unwrap();
        assert!(!text.contains("forged"), "{what}: {text}");
        let answered = rig.start(rig.post("/openai/v1/chat/completions", chat("again", false)));
        let mut second = tokio::time::timeout(PATIENCE, upstream.accept()).await.expect("a new connection");
        second.receive().await;
        second.send(json("{\"second\":true}")).await;
        let text = answered.await.unwrap().text().await.unwrap();
        assert_eq!(text, "{\"second\":true}", "{what}");
    }
}

/// The head and the beginning of a request of ten bytes, and the connection.
async fn begun(rig: &Rig, path: &str) -> TcpStream {
    let mut agent = TcpStream::connect(rig.gateway).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {ALICE}\r\n");
    agent.write_all(format!("{head}content-length: 10\r\n\r\n{{\"a\"").as_bytes()).await.unwrap();
    agent
}

async fn heard(agent: &mut TcpStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, agent.read_to_string(&mut text)).await.expect("an answer and an end").unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_stops_ends() {
    let (rig, upstream) = Rig::with_upstream(SHORT).await;
    let mut agent = begun(&rig, "/openai/v1/chat/completions").await;
    let mut peer = upstream.accept().await;
    peer.receive_head().await;
    let text = heard(&mut agent).await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("nothing more of it came"), "{text}");
    peer.closed().await;
    let call = rig.monitor.call().await;
    assert_eq!((call.response.outcome, call.sent.bytes.as_slice()), (CallOutcome::ClientLeft, &b"{\"a\""[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_stops_before_it_may_pass_reaches_nobody() {
    let (rig, upstream) = Rig::with_upstream(&format!("{SHORT}retries: 1\n")).await;
    let mut agent = begun(&rig, "/openai/v1/chat/completions").await;
    let text = heard(&mut agent).await;
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("sent nothing for 1000 ms"), "{text}");
    assert!(!upstream.was_called().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_answers_by_halves_for_ever_keeps_nobody_else_waiting() {
    let upstream = Upstream::start().await;
    let rig = Rig::new(upstream.addr(), "").await;
    let slow = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", true)));
    let mut dripping = upstream.accept().await;
    dripping.receive().await;
    dripping.send(crate::upstream::EVENTS_HEAD).await;
    let mut slow = slow.await.unwrap();
    for at in 0..20 {
        dripping.chunk(":\n").await;
        assert_eq!(slow.chunk().await.unwrap().unwrap(), ":\n");
        let other = rig.start(rig.post("/openai/v1/chat/completions", chat("hello", false)));
        let mut peer = upstream.accept().await;
        peer.receive().await;
        peer.send(json("{}").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(other.await.unwrap().text().await.unwrap(), "{}", "call {at}");
    }
    drop(dripping);
    assert!(slow.chunk().await.is_err(), "it ended without its end");
    let events = rig.monitor.events(42).await;
    let last = RecordedCall::of(&[events[0].clone(), events[41].clone()]);
    assert_eq!(last.response.outcome, CallOutcome::UpstreamTruncated);
}

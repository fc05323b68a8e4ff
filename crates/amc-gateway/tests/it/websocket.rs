//! WebSockets: upgraded at the provider with its own key, passed both ways, hashed per direction.

use amc_core::kinds::CallOutcome;
use amc_crypto::sha256;
use amc_workspace::protocol::gateway::{GatewayEvent, GatewayFields};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::monitor::{ALICE, RecordedCall};
use crate::rig::{PROVIDER_KEY, Rig};
use crate::upstream::PATIENCE;

async fn asked(rig: &Rig, more: &str) -> TcpStream {
    let mut agent = TcpStream::connect(rig.gateway).await.unwrap();
    let head = format!(
        "GET /openai/v1/realtime?model=m HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n{more}\r\n\r\n"
    );
    agent.write_all(head.as_bytes()).await.unwrap();
    agent
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let read = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("in time");
        text.push(read.expect("not the end"));
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn closed(events: &[GatewayEvent]) -> amc_core::kinds::WebSocketClosed {
    let found = events.iter().find_map(|event| match &event.fields {
        GatewayFields::WebSocket(closed) => Some(closed.clone()),
        _ => None,
    });
    found.expect("its end is recorded")
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                      sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_both_ways_and_each_way_has_a_hash() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let mut agent = asked(&rig, &format!("authorization: Bearer {ALICE}")).await;
    let mut peer = upstream.accept().await;
    let received = peer.receive().await;
    assert_eq!(received.target(), "/v1/realtime?model=m");
    assert_eq!(received.header("authorization"), Some(format!("Bearer {PROVIDER_KEY}").as_str()));
    assert_eq!(received.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(received.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")));
    peer.send(SWITCH).await;
    let head = read_until(&mut agent, "\r\n\r\n").await.to_ascii_lowercase();
    assert!(
        head.starts_with("http/1.1 101 ") && head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    assert!(head.contains("x-amc-request-id: "), "{head}");
    agent.write_all(b"\x81\x05hello").await.unwrap();
    read_until(&mut peer.stream, "hello").await;
    peer.send(b"\x01\x03hey").await;
    read_until(&mut agent, "hey").await;
    agent.write_all(b"bye").await.unwrap();
    read_until(&mut peer.stream, "bye").await;
    drop(peer);
    assert_eq!(agent.read(&mut [0; 8]).await.unwrap(), 0, "the end passes on");
    let events = rig.monitor.events(3).await;
    let closed = closed(&events);
    assert_eq!((closed.sent_sha256, closed.sent_len), (sha256(b"\x81\x05hellobye"), 10));
    assert_eq!((closed.received_sha256, closed.received_len), (sha256(b"\x01\x03hey"), 5));
    let call = RecordedCall::of(&events);
    assert_eq!((call.response.status, call.response.outcome), (101, CallOutcome::Complete));
    assert!(call.sent.bytes.is_empty() && call.received.bytes.is_empty(), "frames are not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_may_come_as_a_subprotocol_and_goes_no_further() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let _agent = asked(&rig, &format!("sec-websocket-protocol: realtime, openai-insecure-api-key.{ALICE}")).await;
    let mut peer = upstream.accept().await;
    let received = peer.receive().await;
    assert_eq!(received.header("sec-websocket-protocol"), Some("realtime"));
    assert!(!received.head.contains(ALICE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_the_upgrade_is_heard() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let mut agent = asked(&rig, &format!("authorization: Bearer {ALICE}")).await;
    let mut peer = upstream.accept().await;
    peer.receive().await;
    peer.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
    let head = read_until(&mut agent, "\r\n\r\nno").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(rig.monitor.call().await.response.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_no_provider_is_asked() {
    let (rig, upstream) = Rig::with_upstream("").await;
    let mut agent = asked(&rig, "x: y").await;
    let head = read_until(&mut agent, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert!(!upstream.was_called().await);
}

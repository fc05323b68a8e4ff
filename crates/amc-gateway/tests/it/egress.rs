//! The egress proxy against real sockets: a server that the test plays, names that the test resolves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use amc_core::kinds::{EgressBlocked, EgressMethod, EgressRefusal, EgressTunnel, LeaseScope};
use amc_gateway::egress::Resolver;
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::{GatewayFields, LeaseLimits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::monitor::ALICE;
use crate::rig::Rig;
use crate::upstream::{PATIENCE, Upstream};

/// A proxy that may go to `server.test` and to `tls.test:443`, which are this machine.
struct Proxy {
    rig: Rig,
    server: Upstream,
    lookups: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start() -> Self {
        let server = Upstream::start().await;
        let port = server.addr().port();
        let config = format!(
            "egress:\n  listen: 127.0.0.1:0\n  allow:\n    - server.test:{port}\n    - tls.test:443\n    \
             - rebinding.test:{port}\n    - 127.0.0.1:{port}\n    - nowhere.test:1\n    - mixed.test:{port}\n  \
             internal:\n    - server.test\n    - nowhere.test\n"
        );
        let lookups = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&lookups);
        let resolver = Resolver::new(move |host| {
            counting.fetch_add(1, Ordering::SeqCst);
            let addresses: Vec<IpAddr> = match host.as_str() {
                "rebinding.test" => vec!["169.254.169.254".parse().unwrap()],
                "mixed.test" => vec!["8.8.8.8".parse().unwrap(), "::ffff:127.0.0.1".parse().unwrap()],
                _ => vec!["127.0.0.1".parse().unwrap()],
            };
            async move { Ok(addresses) }
        });
        let rig = Rig::resolving(server.addr(), &config, resolver).await;
        Proxy { rig, server, lookups }
    }

    fn port(&self) -> u16 {
        self.server.addr().port()
    }

    async fn connect(&self) -> TcpStream {
        let address: SocketAddr = self.rig.monitor.egress().listen.parse().unwrap();
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends a head and gives the connection with the answer's head.
    async fn ask(&self, head: &str) -> (TcpStream, String) {
        let mut stream = self.connect().await;
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        let answer = head_of(&mut stream).await;
        (stream, answer)
    }

    async fn tunnel(&self, target: &str) -> (TcpStream, String) {
        self.ask(&format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{}", basic(ALICE))).await
    }

    async fn blocked(&self, number: usize) -> EgressBlocked {
        match &self.rig.monitor.events(number).await[number - 1].fields {
            GatewayFields::Blocked(blocked) => blocked.clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn passed(&self) -> EgressTunnel {
        match &self.rig.monitor.events(1).await[0].fields {
            GatewayFields::Egress(tunnel) => tunnel.clone(),
            other => panic!("{other:?}"),
        }
    }
}

/// The lease as `http://LEASE@proxy` has it.
fn basic(lease: &str) -> String {
    use base64::Engine as _;
    let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{lease}:"));
    format!("proxy-authorization: Basic {credentials}")
}

async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("in time");
        let Ok(byte) = read else { break };
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

async fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends");
    rest
}

/// A ClientHello for a name, as small as one can be.
fn hello(name: &str) -> Vec<u8> {
    let len = u8::try_from(name.len()).unwrap();
    let sni = [&[0, 0, 0, len + 5, 0, len + 3, 0, 0, len][..], name.as_bytes()].concat();
    let body =
        [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &u16::try_from(sni.len()).unwrap().to_be_bytes(), &sni];
    let body = body.concat();
    let handshake = [&[1, 0][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), &body].concat();
    [&[0x16, 3, 1][..], &u16::try_from(handshake.len()).unwrap().to_be_bytes(), &handshake].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_passes_bytes_and_is_an_event() {
    let proxy = Proxy::start().await;
    let target = format!("Server.TEST:{}", proxy.port());
    let (mut agent, head) = proxy.tunnel(&target).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut peer = proxy.server.accept().await;
    // A server may speak first where TLS need not be.
    peer.send("banner").await;
    let mut banner = [0; 6];
    agent.read_exact(&mut banner).await.unwrap();
    agent.write_all(b"hello").await.unwrap();
    let mut said = [0; 5];
    peer.stream.read_exact(&mut said).await.unwrap();
    assert_eq!((&banner, &said), (b"banner", b"hello"));
    drop(agent);
    peer.closed().await;
    drop(peer);
    let tunnel = proxy.passed().await;
    assert_eq!(
        (tunnel.host.as_str(), tunnel.port, tunnel.address.as_str()),
        ("server.test", proxy.port(), "127.0.0.1")
    );
    assert_eq!((tunnel.sent_len, tunnel.received_len, tunnel.method), (5, 6, EgressMethod::Connect));
    assert_eq!((tunnel.server_name, proxy.lookups.load(Ordering::SeqCst)), (None, 1), "a name is looked up once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_is_denied_and_the_agent_hears_why() {
    let proxy = Proxy::start().await;
    let port = proxy.port();
    let mut number = 0;
    for (target, reason, said) in [
        ("other.test:443".to_owned(), EgressRefusal::NotAllowed, "egress.allow"),
        (format!("x.server.test:{port}"), EgressRefusal::NotAllowed, "egress.allow"),
        ("server.test:22".to_owned(), EgressRefusal::NotAllowed, "egress.allow"),
        (format!("rebinding.test:{port}"), EgressRefusal::PrivateAddress, "egress.internal"),
        (format!("mixed.test:{port}"), EgressRefusal::PrivateAddress, "egress.internal"),
        (format!("127.0.0.1:{port}"), EgressRefusal::PrivateAddress, "egress.internal"),
        (format!("user@server.test:{port}"), EgressRefusal::Malformed, "one spelling"),
        (format!("server.test.:{port}"), EgressRefusal::Malformed, "one spelling"),
        (format!("2130706433:{port}"), EgressRefusal::Malformed, "one spelling"),
        (format!("0x7f.1:{port}"), EgressRefusal::Malformed, "one spelling"),
        (format!("server%2etest:{port}"), EgressRefusal::Malformed, "one spelling"),
    ] {
        let (mut agent, head) = proxy.tunnel(&target).await;
        if head.starts_with("HTTP/1.1 400 ") {
            // What is no target at all is not read as one; there is nothing to name in an event.
            assert_eq!(reason, EgressRefusal::Malformed, "{target}");
            continue;
        }
        number += 1;
        assert!(head.starts_with("HTTP/1.1 403 "), "{target}: {head}");
        drop(agent.shutdown().await);
        let told = String::from_utf8(rest_of(&mut agent).await).unwrap();
        assert!(told.contains("NETWORK_EGRESS_BLOCKED") && told.contains(said), "{target}: {told}");
        assert_eq!(proxy.blocked(number).await.reason, reason, "{target}");
    }
    assert!(!proxy.server.was_called().await, "nobody is dialled");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_and_for_what_comes_first() {
    let proxy = Proxy::start().await;
    let target = format!("server.test:{}", proxy.port());
    for credentials in ["x: y".to_owned(), basic("nobody"), "proxy-authorization: Basic !".to_owned()] {
        let (_, head) = proxy.ask(&format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{credentials}")).await;
        assert!(head.starts_with("HTTP/1.1 407 ") && head.contains("proxy-authenticate: Basic"), "{head}");
    }
    assert_eq!((proxy.rig.monitor.count(), proxy.lookups.load(Ordering::SeqCst)), (0, 0));
    proxy.rig.monitor.limit(ALICE, LeaseLimits { scopes: vec![LeaseScope::Llm], ..LeaseLimits::default() });
    let (_, head) = proxy.tunnel(&target).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(proxy.blocked(1).await.reason, EgressRefusal::Scope);
    // Two hosts in one request are read differently somewhere.
    proxy.rig.monitor.limit(ALICE, LeaseLimits::default());
    let (_, head) = proxy.ask(&format!("CONNECT {target} HTTP/1.1\r\nhost: other.test\r\n{}", basic(ALICE))).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(proxy.blocked(2).await.reason, EgressRefusal::Malformed);
    // A lease may add to the list, and no evidence means no way.
    let allow = vec!["lease.test:80".to_owned()];
    proxy.rig.monitor.limit(ALICE, LeaseLimits { allow, ..LeaseLimits::default() });
    let (_, head) = proxy.tunnel("lease.test:80").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(proxy.blocked(3).await.reason, EgressRefusal::PrivateAddress, "it is allowed and not internal");
    proxy.rig.monitor.refuse_lookups(Refusal::LogUnavailable("the disk is full".into()));
    let (_, head) = proxy.tunnel(&target).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(!proxy.server.was_called().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_names_the_host_that_was_asked_for() {
    let proxy = Proxy::start().await;
    let target = format!("server.test:{}", proxy.port());
    for (first, reason) in [
        (hello("other.test"), Some(EgressRefusal::ServerName)),
        (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00".to_vec(), Some(EgressRefusal::NotTls)),
        (hello("Server.test"), None),
    ] {
        let (mut agent, head) = proxy.tunnel(&target).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut peer = proxy.server.accept().await;
        let before = proxy.rig.monitor.count();
        // In two pieces: what is not whole yet is not passed on.
        agent.write_all(&first[..4]).await.unwrap();
        agent.flush().await.unwrap();
        agent.write_all(&first[4..]).await.unwrap();
        match reason {
            Some(reason) => {
                assert!(rest_of(&mut agent).await.is_empty());
                assert_eq!(proxy.blocked(before + 1).await.reason, reason);
                peer.closed().await;
                assert!(peer.left_over().is_empty(), "no byte of it reached the server");
            }
            None => {
                let mut arrived = vec![0; first.len()];
                peer.stream.read_exact(&mut arrived).await.unwrap();
                assert_eq!(arrived, first, "byte for byte");
                drop((agent, peer));
                let events = proxy.rig.monitor.events(before + 1).await;
                let GatewayFields::Egress(tunnel) = &events[before].fields else { panic!("{events:?}") };
                assert_eq!(tunnel.server_name.as_deref(), Some("server.test"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_tunnel_ends_with_its_lease() {
    let proxy = Proxy::start().await;
    let (mut agent, head) = proxy.tunnel(&format!("server.test:{}", proxy.port())).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut peer = proxy.server.accept().await;
    agent.write_all(b"x").await.unwrap();
    assert_eq!(peer.stream.read_u8().await.unwrap(), b'x');
    proxy.rig.monitor.revoke(ALICE);
    assert!(rest_of(&mut agent).await.is_empty());
    peer.closed().await;
    assert_eq!(proxy.passed().await.sent_len, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_goes_in_origin_form_and_nothing_of_the_hop_goes_on() {
    let proxy = Proxy::start().await;
    let authority = format!("server.test:{}", proxy.port());
    let mut agent = proxy.connect().await;
    let head = format!(
        "POST http://{authority}/a?b=c HTTP/1.1\r\nhost: {authority}\r\n{}\r\nproxy-connection: keep-alive\r\n\
         content-length: 4\r\nx-kept: 1\r\n\r\nbody",
        basic(ALICE)
    );
    agent.write_all(head.as_bytes()).await.unwrap();
    let mut peer = proxy.server.accept().await;
    let received = peer.receive().await;
    assert_eq!((received.target(), received.body.as_slice()), ("/a?b=c", &b"body"[..]));
    assert_eq!((received.header("host"), received.header("x-kept")), (Some(authority.as_str()), Some("1")));
    assert_eq!((received.header("proxy-authorization"), received.header("proxy-connection")), (None, None));
    peer.send("HTTP/1.1 201 Created\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
    let answer = head_of(&mut agent).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let mut body = [0; 2];
    agent.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"ok");
    let tunnel = proxy.passed().await;
    assert_eq!((tunnel.method, tunnel.host.as_str()), (EgressMethod::Http, "server.test"));
    assert!(tunnel.sent_len > 4 && tunnel.received_len > 2);
    // The same connection asks for something else, and every request is judged anew.
    let next = format!("GET http://other.test/ HTTP/1.1\r\nhost: other.test\r\n{}\r\n\r\n", basic(ALICE));
    agent.write_all(next.as_bytes()).await.unwrap();
    assert!(head_of(&mut agent).await.starts_with("HTTP/1.1 403 "));
    let https = format!("GET https://{authority}/ HTTP/1.1\r\nhost: {authority}\r\n{}", basic(ALICE));
    assert!(proxy.ask(&https).await.1.starts_with("HTTP/1.1 403 "), "https goes through CONNECT");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_are_one_request_or_none() {
    let proxy = Proxy::start().await;
    let authority = format!("server.test:{}", proxy.port());
    let hidden = format!("GET http://{authority}/hidden HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    let mut agent = proxy.connect().await;
    let head = format!(
        "POST http://{authority}/shown HTTP/1.1\r\nhost: {authority}\r\n{}\r\ncontent-length: 4\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n",
        basic(ALICE),
        hidden.len()
    );
    agent.write_all(head.as_bytes()).await.unwrap();
    tokio::select! {
        answer = head_of(&mut agent) => assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}"),
        mut peer = proxy.server.accept() => {
            let received = peer.receive().await;
            assert_eq!((received.target(), received.body.as_slice()), ("/shown", hidden.as_bytes()));
            assert!(received.header("content-length").is_none() || received.header("transfer-encoding").is_none());
            assert!(peer.left_over().is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lies_about_its_answer_is_not_believed() {
    for (answer, wanted) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n0",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", "502 Bad Gateway"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", "502 Bad Gateway"),
    ] {
        let proxy = Proxy::start().await;
        let mut stream = proxy.connect().await;
        let host = format!("server.test:{}", proxy.port());
        let head = format!("GET http://{host}/ HTTP/1.1\r\nhost: {host}\r\n{}\r\n\r\n", basic(ALICE));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut peer = proxy.server.accept().await;
        peer.receive().await;
        peer.send(answer).await;
        let head = head_of(&mut stream).await;
        stream.shutdown().await.unwrap();
        let text = head.clone() + &String::from_utf8(rest_of(&mut stream).await).unwrap();
        assert!(text.contains(wanted) && !head.contains("content-length: 2"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_is_no_offence() {
    let proxy = Proxy::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let allow = vec![format!("server.test:{closed}")];
    proxy.rig.monitor.limit(ALICE, LeaseLimits { allow, ..LeaseLimits::default() });
    let (_, head) = proxy.tunnel(&format!("server.test:{closed}")).await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert_eq!(proxy.rig.monitor.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_host_and_no_secret_that_was_written_there() {
    let proxy = Proxy::start().await;
    let port = proxy.port();
    for (number, (target, host)) in (1..).zip([
        (format!("http://someone:hunter2-hunter2@server.test:{port}/"), format!("server.test:{port}")),
        (format!("http://{ALICE}.evil.test/"), "[amc:redacted:".to_owned()),
        ("http://sk-abcdefghijklmnopqrst.evil.test/".to_owned(), "[amc:redacted:".to_owned()),
    ]) {
        let head = format!("GET {target} HTTP/1.1\r\nhost: server.test:{port}\r\n{}", basic(ALICE));
        let (_, answer) = proxy.ask(&head).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{target}: {answer}");
        let blocked = proxy.blocked(number).await;
        assert!(blocked.host.starts_with(&host), "{target}: {}", blocked.host);
    }
    assert!(!format!("{:?}", proxy.rig.monitor.events(3).await).contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_turns_to_this_machine_is_judged_by_every_request() {
    let server = Upstream::start().await;
    let port = server.addr().port();
    let lookups = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&lookups);
    // One special address first, this machine from then on; what was looked up for one request is
    // never used for another.
    let resolver = Resolver::new(move |_| {
        let first = counting.fetch_add(1, Ordering::SeqCst) == 0;
        let address: IpAddr = if first { "192.0.0.9" } else { "127.0.0.1" }.parse().unwrap();
        async move { Ok(vec![address]) }
    });
    let config = format!("egress:\n  listen: 127.0.0.1:0\n  allow:\n    - turning.test:{port}\n");
    let rig = Rig::resolving(server.addr(), &config, resolver).await;
    let proxy = Proxy { rig, server, lookups };
    for number in 1..=3 {
        let (_, head) = proxy.tunnel(&format!("turning.test:{port}")).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert_eq!(proxy.blocked(number).await.reason, EgressRefusal::PrivateAddress);
    }
    assert_eq!(proxy.lookups.load(Ordering::SeqCst), 3, "one lookup for each request");
    assert!(!proxy.server.was_called().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_comes_byte_by_byte_or_names_nothing() {
    let proxy = Proxy::start().await;
    let target = format!("server.test:{}", proxy.port());
    let (mut agent, head) = proxy.tunnel(&target).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut peer = proxy.server.accept().await;
    let first = hello("server.test");
    for byte in &first {
        agent.write_all(&[*byte]).await.unwrap();
        agent.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut arrived = vec![0; first.len()];
    peer.stream.read_exact(&mut arrived).await.unwrap();
    assert_eq!(arrived, first);
    drop((agent, peer));
    proxy.passed().await;
    // No name, and more than a hello may have.
    let nameless = [&[0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let endless = [&[0x16, 3, 1, 0x40, 0, 1, 1, 0, 1][..], &[0; 0x3ffc]].concat();
    for (number, (bytes, reason)) in
        (2..).zip([(nameless, EgressRefusal::ServerName), (endless, EgressRefusal::NotTls)])
    {
        let (mut agent, _) = proxy.tunnel(&target).await;
        let mut peer = proxy.server.accept().await;
        agent.write_all(&bytes).await.unwrap();
        assert!(rest_of(&mut agent).await.is_empty());
        assert_eq!(proxy.blocked(number).await.reason, reason);
        peer.closed().await;
        assert!(peer.left_over().is_empty());
    }
}

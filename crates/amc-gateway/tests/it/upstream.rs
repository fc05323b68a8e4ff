//! An upstream played by hand: the test accepts each connection, reads what really arrived and
//! writes every byte of the answer itself.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Long enough that only something that never comes is late.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Upstream {
    listener: TcpListener,
}

/// One connection of the gateway.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// One request as it arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().skip(1).find(|line| line.split(':').next().unwrap().eq_ignore_ascii_case(name))?;
        Some(line.split_once(':').unwrap().1.trim())
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Upstream { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) async fn accept(&self) -> Peer {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await.expect("the gateway connects");
        Peer { stream: accepted.unwrap().0, buffer: Vec::new() }
    }

    /// The connection on which the next request comes: a new one, or `peer` kept alive.
    pub(crate) async fn accept_or(&self, peer: Peer) -> Peer {
        tokio::select! {
            accepted = self.accept() => accepted,
            ready = peer.stream.readable() => { ready.unwrap(); peer }
        }
    }

    /// Whether the gateway has connected and nobody accepted it yet.
    pub(crate) async fn was_called(&self) -> bool {
        // A connection that exists is accepted at once; none is none.
        tokio::time::timeout(Duration::from_millis(50), self.listener.accept()).await.is_ok()
    }
}

impl Peer {
    /// Reads a request's head.
    pub(crate) async fn receive_head(&mut self) -> String {
        let head_len = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more().await > 0, "the connection closed within a head");
        };
        String::from_utf8(self.buffer.drain(..head_len).collect()).unwrap()
    }

    /// Reads a request: its head, and its body by Content-Length or chunks.
    pub(crate) async fn receive(&mut self) -> Received {
        let head = self.receive_head().await;
        let mut received = Received { head, body: Vec::new() };
        if let Some(len) = received.header("content-length") {
            let len: usize = len.parse().unwrap();
            while self.buffer.len() < len {
                assert!(self.more().await > 0, "the connection closed within a body");
            }
            received.body = self.buffer.drain(..len).collect();
        } else if received.header("transfer-encoding").is_some() {
            received.body = self.chunks().await;
        }
        received
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line_len = loop {
                if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break at;
                }
                assert!(self.more().await > 0, "the connection closed within a chunk");
            };
            let len = std::str::from_utf8(&self.buffer[..line_len]).unwrap();
            let len = usize::from_str_radix(len.split(';').next().unwrap(), 16).unwrap();
            while self.buffer.len() < line_len + len + 4 {
                assert!(self.more().await > 0, "the connection closed within a chunk");
            }
            body.extend_from_slice(&self.buffer[line_len + 2..line_len + 2 + len]);
            self.buffer.drain(..line_len + len + 4);
            if len == 0 {
                return body;
            }
        }
    }

    async fn more(&mut self) -> usize {
        let read = self.stream.read_buf(&mut self.buffer);
        tokio::time::timeout(PATIENCE, read).await.expect("bytes or an end come in time").unwrap_or(0)
    }

    /// Bytes that came after the last request.
    pub(crate) fn left_over(&self) -> &[u8] {
        &self.buffer
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends one chunk of a chunked body.
    pub(crate) async fn chunk(&mut self, piece: &str) {
        self.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    }

    /// Returns when the gateway has closed the connection.
    pub(crate) async fn closed(&mut self) {
        while self.more().await > 0 {}
    }
}

/// The head of a chunked stream of events.
pub(crate) const EVENTS_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A whole JSON answer.
pub(crate) fn json(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

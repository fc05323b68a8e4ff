//! Bytes on their way through the egress proxy: a tunnel after its ClientHello was compared, or one
//! HTTP request. Both end in one event.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use amc_core::kinds::{EgressMethod, EgressRefusal, EgressTunnel};
use amc_workspace::protocol::gateway::{GatewayFields, LeaseGrant};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::hello::{Hello, client_hello};
use super::serve::{self, Refused};
use super::target::Target;
use crate::body::{PassingBody, whole};
use crate::headers;
use crate::state::Gateway;

/// A way that is open, and whose it is.
pub(crate) struct Passage {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) grant: LeaseGrant,
    pub(crate) token: Zeroizing<String>,
    pub(crate) method: EgressMethod,
    pub(crate) target: Target,
    pub(crate) address: SocketAddr,
    pub(crate) started: Instant,
}

/// Answers a CONNECT; what follows passes on a task of its own.
pub(crate) fn open(passage: Passage, mut request: Request<Incoming>, stream: TcpStream) -> Response<PassingBody> {
    let pending = passage.gateway.unfinished.add();
    passage.gateway.runtime.clone().spawn(async move {
        if let Ok(agent) = hyper::upgrade::on(&mut request).await {
            passage.tunnel(TokioIo::new(agent), stream).await;
        }
        drop(pending);
    });
    Response::new(whole(""))
}

impl Passage {
    async fn tunnel(self, mut agent: impl AsyncRead + AsyncWrite + Unpin, stream: TcpStream) {
        let (counts, mut server) = counted(stream);
        let first = self.first_bytes(&mut agent, &mut server).await;
        let server_name = match first {
            Ok(First { bytes, server_name }) => {
                if server.write_all(&bytes).await.is_ok() {
                    tokio::select! {
                        // How it ends is the two sides' own concern.
                        _ = tokio::io::copy_bidirectional(&mut agent, &mut server) => {}
                        () = self.lease_ends() => {}
                        () = self.gateway.cut() => {}
                    }
                }
                server_name
            }
            Err(Some(reason)) => {
                let place = (self.target.host.as_str(), self.target.port);
                return serve::record_blocked(&self.gateway, &self.grant, self.method, place, reason).await;
            }
            // It ended before it began.
            Err(None) => None,
        };
        drop((agent, server));
        self.record(&counts, server_name).await;
    }

    /// What the agent says first, compared with what it asked for. Where TLS need not be, the server
    /// may speak first, and what it says passes meanwhile.
    async fn first_bytes(
        &self,
        agent: &mut (impl AsyncRead + AsyncWrite + Unpin),
        server: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<First, Option<EgressRefusal>> {
        let (wants_tls, mut bytes) = (self.target.port == TLS_PORT, Vec::new());
        let (mut piece, mut spoken) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        let deadline = tokio::time::Instant::now() + HELLO_MAX;
        loop {
            tokio::select! {
                read = agent.read(&mut piece) => match read {
                    Ok(len) if len > 0 => bytes.extend_from_slice(&piece[..len]),
                    _ if wants_tls && !bytes.is_empty() => return Err(Some(EgressRefusal::NotTls)),
                    _ => return Err(None),
                },
                read = server.read(&mut spoken), if !wants_tls => {
                    let len = read.ok().filter(|len| *len > 0).ok_or(None)?;
                    agent.write_all(&spoken[..len]).await.map_err(|_| None)?;
                    continue;
                }
                () = tokio::time::sleep_until(deadline), if wants_tls || !bytes.is_empty() => {
                    return Err((wants_tls || !bytes.is_empty()).then_some(EgressRefusal::NotTls));
                }
                () = self.lease_ends() => return Err(None),
                () = self.gateway.cut() => return Err(None),
            }
            match client_hello(&bytes) {
                Hello::Incomplete => {}
                Hello::Client { server_name } if self.is_named(server_name.as_deref()) => {
                    return Ok(First { bytes, server_name });
                }
                Hello::Client { .. } => return Err(Some(EgressRefusal::ServerName)),
                Hello::NotTls if !wants_tls => return Ok(First { bytes, server_name: None }),
                Hello::NotTls | Hello::Malformed => return Err(Some(EgressRefusal::NotTls)),
            }
        }
    }

    /// Whether a hello's name is the target's. An address has no name; a name has its own.
    fn is_named(&self, server_name: Option<&str>) -> bool {
        match server_name {
            Some(name) => name == self.target.host,
            None => self.target.address.is_some(),
        }
    }

    async fn lease_ends(&self) {
        self.gateway.monitor.lease_ends(&self.token).await;
    }

    async fn record(&self, counts: &Counts, server_name: Option<String>) {
        self.gateway.metrics.tunnel();
        let tunnel = EgressTunnel {
            lease: self.grant.lease.clone(),
            method: self.method,
            host: self.target.host.clone(),
            port: self.target.port,
            address: self.address.ip().to_string(),
            server_name,
            sent_len: counts.sent.load(Ordering::Relaxed),
            received_len: counts.received.load(Ordering::Relaxed),
            duration_us: u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX),
        };
        serve::record(&self.gateway, &self.grant, GatewayFields::Egress(tunnel)).await;
    }
}

/// The beginning of a tunnel, checked and not sent on yet.
struct First {
    bytes: Vec<u8>,
    server_name: Option<String>,
}

/// Sends one request in origin form to the address that was checked.
pub(crate) async fn forward(
    passage: Passage,
    request: Request<Incoming>,
    stream: TcpStream,
) -> Result<Response<PassingBody>, Refused> {
    let (counts, server) = counted(stream);
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    head.uri = path.parse::<Uri>().map_err(Refused::upstream)?;
    head.version = Version::HTTP_11;
    headers::for_next_hop(&mut head.headers);
    let Target { host, port, .. } = &passage.target;
    let authority = if *port == 80 { host.clone() } else { format!("{host}:{port}") };
    let authority = HeaderValue::from_str(&authority).map_err(Refused::upstream)?;
    head.headers.insert(header::HOST, authority);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(server)).await.map_err(Refused::upstream)?;
    let pending = passage.gateway.unfinished.add();
    passage.gateway.runtime.clone().spawn(async move {
        tokio::select! {
            _ = connection => {}
            () = passage.lease_ends() => {}
            () = passage.gateway.cut() => {}
        }
        passage.record(&counts, None).await;
        drop(pending);
    });
    let response = sender.send_request(Request::from_parts(head, body)).await.map_err(Refused::upstream)?;
    let (mut head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refused::upstream("it switched to another protocol, unasked"));
    }
    headers::for_next_hop(&mut head.headers);
    headers::framed_by(&body, &mut head.headers);
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(head, body.map_err(Into::into).boxed_unsync()))
}

/// Bytes that passed, counted where they pass.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

/// A connection to a server that counts.
struct Counted {
    stream: TcpStream,
    counts: Arc<Counts>,
}

fn counted(stream: TcpStream) -> (Arc<Counts>, Counted) {
    let counts = Arc::new(Counts::default());
    (Arc::clone(&counts), Counted { stream, counts })
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.counts.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = &polled {
            self.counts.sent.fetch_add(*len as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where a tunnel has to begin with a ClientHello.
const TLS_PORT: u16 = 443;

/// How long a ClientHello may take.
const HELLO_MAX: Duration = Duration::from_secs(10);

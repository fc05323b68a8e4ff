//! The gateway's life: greet the monitor, listen, serve, stop.
//!
//! A stop takes no new connection, lets calls that run finish (bounded) and their evidence become
//! durable. When the monitor goes, nothing may pass any more and the gateway ends.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use amc_core::SOFTWARE;
use amc_core::kinds::{EgressStarted, GatewayStarted};
use amc_workspace::GatewayConfig;
use amc_workspace::config::EgressConfig;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::egress::{self, Egress, Resolver};
use crate::error::GatewayError;
use crate::monitor::{Monitor, Socket, is_removed};
use crate::state::Gateway;
use crate::{call, log, metrics, otlp, probes, reload};

/// How a gateway is started.
#[derive(Debug)]
pub struct Options<Ready> {
    /// The monitor's gateway socket, connected.
    pub socket: Socket,
    /// Where to listen instead of where `gateway.yaml` says; port 0 takes a free one.
    pub listen_override: Option<SocketAddr>,
    /// Called once, with the address, when agents may come.
    pub ready: Ready,
    /// How the egress proxy finds the addresses of a name.
    pub resolver: Resolver,
}

/// Runs a gateway until SIGTERM or SIGINT, with a runtime of its own.
///
/// # Errors
/// [`GatewayError`], each saying what to do next.
pub fn run<Ready: FnOnce(SocketAddr)>(options: Options<Ready>) -> Result<(), GatewayError> {
    // The other half is for the monitor, which signs and writes what this one lets pass.
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(workers).enable_all().build().map_err(GatewayError::Setup)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(GatewayError::Setup)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(GatewayError::Setup)?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        serve(options, stop).await
    })
}

/// Runs a gateway on the current runtime until `stop` is ready.
///
/// # Errors
/// [`GatewayError`], each saying what to do next.
pub async fn serve<Ready: FnOnce(SocketAddr)>(
    options: Options<Ready>,
    stop: impl Future<Output = ()>,
) -> Result<(), GatewayError> {
    let Options { socket, listen_override, ready, resolver } = options;
    raise_files();
    let socket_file = socket.file().map_err(GatewayError::Setup)?;
    let (monitor, welcome) = Monitor::connect(socket).await?;
    let config = GatewayConfig::parse(welcome.config.as_bytes())?;
    let listeners = Listeners::bind(&config, listen_override).await?;
    let address = listeners.models.local_addr().map_err(GatewayError::Setup)?;
    let gateway = Arc::new(Gateway::new(monitor, &config, welcome)?);
    gateway.monitor.started(started(address, &config)).await?;
    if let (Some(proxy), Some(egress)) = (&listeners.egress, &config.egress) {
        let listen = proxy.local_addr().map_err(GatewayError::Setup)?;
        gateway.monitor.egress_started(egress_started(listen, egress)).await?;
        warn_if_public(listen, "egress");
    }
    warn_if_public(address, "listen");
    ready(address);
    let _figures =
        AbortOnDrop(listeners.metrics.map(|metrics| tokio::spawn(metrics::serve(metrics, Arc::clone(&gateway)))));

    let (spans_end, spans_ended) = oneshot::channel();
    let exporting = tokio::spawn(otlp::export(Arc::clone(&gateway), spans_ended));

    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut hangup = signal(SignalKind::hangup()).map_err(GatewayError::Setup)?;
    let mut stop = pin!(stop);
    let mut gone = pin!(gateway.monitor.gone());
    let ended = loop {
        tokio::select! {
            accepted = listeners.models.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(Arc::clone(&gateway), stream, stopped.clone()))),
                // Too many open files, most likely: calls that end make room.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            accepted = accept(listeners.egress.as_ref()), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let egress = Egress { gateway: Arc::clone(&gateway), resolver: resolver.clone() };
                    connections.spawn(egress::connection(egress, stream, stopped.clone()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            _ = hangup.recv() => drop(tokio::spawn(reload::reload(Arc::clone(&gateway), config.clone()))),
            Some(_) = connections.join_next() => {}
            () = &mut stop => break Ok(()),
            // A monitor that stops in the ordinary way takes its socket away first.
            () = &mut gone => break if is_removed(&socket_file) { Ok(()) } else { Err(GatewayError::MonitorGone) },
        }
    };
    drop((listeners.models, listeners.egress));
    stopping.send_replace(true);
    let grace = if gateway.monitor.is_connected() { STREAMS_GRACE } else { MONITOR_GONE_GRACE };
    let all = async {
        while connections.join_next().await.is_some() {}
        gateway.unfinished.none().await;
    };
    // What is cut off here ends as a client that left; its evidence is still finished.
    if tokio::time::timeout(grace, all).await.is_err() {
        gateway.cutting.send_replace(true);
        connections.shutdown().await;
    }
    let evidence = if gateway.monitor.is_connected() { EVIDENCE_GRACE } else { MONITOR_GONE_GRACE };
    let _ = tokio::time::timeout(evidence, gateway.unfinished.none()).await;
    // The last spans; a collector that does not answer is not waited for.
    drop(spans_end);
    let _ = tokio::time::timeout(SPANS_GRACE, exporting).await;
    ended
}

/// Where a gateway listens.
struct Listeners {
    models: TcpListener,
    egress: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    /// A gateway that was told where to listen is not the home's only one: its proxy takes a free
    /// port beside it, and figures are for the other.
    async fn bind(config: &GatewayConfig, listen_override: Option<SocketAddr>) -> Result<Self, GatewayError> {
        let models = listen(listen_override.unwrap_or(config.listen)).await?;
        let beside = listen_override.map(|address| SocketAddr::new(address.ip(), 0));
        let egress = match &config.egress {
            Some(egress) => Some(listen(beside.unwrap_or(egress.listen)).await?),
            None => None,
        };
        let metrics = match config.metrics.filter(|_| listen_override.is_none()) {
            Some(address) => match listen(address).await {
                Ok(listener) => Some(listener),
                Err(error) => {
                    log::warn("no_metrics", &json!({"why": error.to_string()}));
                    None
                }
            },
            None => None,
        };
        Ok(Listeners { models, egress, metrics })
    }
}

/// The next connection, where there is a listener.
async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(Option<tokio::task::JoinHandle<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Other machines can reach it, and then only the lease stands between them and the provider's key.
fn warn_if_public(address: SocketAddr, key: &str) {
    if !address.ip().is_loopback() {
        let why = "other machines can reach this address, and HTTP does not hide a lease; put TLS or a private network before it";
        log::warn("public_listener", &json!({"key": key, "address": address.to_string(), "why": why}));
    }
}

fn egress_started(listen: SocketAddr, config: &EgressConfig) -> EgressStarted {
    let (mut allow, mut internal) = (config.allow.clone(), config.internal.clone());
    allow.sort();
    internal.sort();
    EgressStarted { listen: listen.to_string(), allow, internal }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, GatewayError> {
    TcpListener::bind(address).await.map_err(|source| {
        let reason = match source.kind() {
            io::ErrorKind::AddrInUse => "the port is in use".to_owned(),
            io::ErrorKind::PermissionDenied => "ports below 1024 need a right that this process lacks".to_owned(),
            io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            _ => source.to_string(),
        };
        GatewayError::Listen { address, reason, source }
    })
}

fn started(address: SocketAddr, config: &GatewayConfig) -> GatewayStarted {
    let providers = config.providers.iter().map(|(name, provider)| (name.clone(), provider.base_url.clone()));
    GatewayStarted { software: SOFTWARE.to_owned(), listen: address.to_string(), providers: providers.collect() }
}

/// Serves one connection of an agent, HTTP/1.1 or HTTP/2 by its first bytes.
async fn connection(gateway: Arc<Gateway>, stream: TcpStream, mut stopped: watch::Receiver<bool>) {
    // The pieces of a stream are small and must not wait for each other.
    let _ = stream.set_nodelay(true);
    let ends = stream.peer_addr().ok().zip(stream.local_addr().ok()).map(|(peer, own)| probes::Ends { peer, own });
    let (asked, mut first_head) = watch::channel(false);
    let service = service_fn(move |request: Request<Incoming>| {
        asked.send_if_modified(|asked| !std::mem::replace(asked, true));
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(call::handle(gateway, request, ends).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX).keep_alive_interval(HEAD_MAX);
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    tokio::select! {
        // A broken connection is its agent's concern; the call's evidence says how it ended.
        _ = serving.as_mut() => return,
        // Until its first request a connection may even leave open which protocol it speaks.
        () = without_a_request(&mut first_head, HEAD_MAX) => return,
        _ = stopped.wait_for(|stopped| *stopped) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// Returns when a connection has taken too long to ask for anything; else never.
pub(crate) async fn without_a_request(first_head: &mut watch::Receiver<bool>, wait: Duration) {
    let asked = tokio::time::timeout(wait, first_head.wait_for(|asked| *asked)).await.is_ok();
    if asked {
        std::future::pending().await
    }
}

/// Lets this process hold as many files as it may: each call has two connections.
fn raise_files() {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    // What the machine does not allow is gone without.
    let _ = setrlimit(Resource::Nofile, files);
}

/// How long the head of a request may take, and a connection be kept alive without one: slow heads
/// would hold connections that others need.
pub(crate) const HEAD_MAX: Duration = Duration::from_secs(60);

/// Connections of agents at a time; who comes later waits until one ends.
const CONNECTIONS_MAX: usize = 8192;

/// Calls at a time on one connection of HTTP/2.
const STREAMS_MAX: u32 = 256;

/// How long streams may go on after a stop.
const STREAMS_GRACE: Duration = Duration::from_secs(30);

/// Without a monitor nothing may pass; answers that say so may still leave.
const MONITOR_GONE_GRACE: Duration = Duration::from_secs(1);

/// For the last evidence to become durable.
const EVIDENCE_GRACE: Duration = Duration::from_secs(10);

/// For the last spans to reach their collector.
const SPANS_GRACE: Duration = Duration::from_secs(3);

/// Before the next try when no connection can be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_asks_for_nothing_ends_and_one_that_asked_does_not() {
        let (asked, mut first_head) = watch::channel(false);
        without_a_request(&mut first_head, Duration::from_millis(1)).await;
        asked.send_replace(true);
        let mut waiting = pin!(without_a_request(&mut first_head, Duration::from_millis(1)));
        let went_on = tokio::time::timeout(Duration::from_millis(50), waiting.as_mut()).await;
        assert!(went_on.is_err());
    }
}

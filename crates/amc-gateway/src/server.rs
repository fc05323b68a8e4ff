//! The gateway's life: greet the monitor, listen, serve, stop.
//!
//! A stop takes no new connection, lets calls that run finish (bounded) and their evidence become
//! durable. When the monitor goes, nothing may pass any more and the gateway ends.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use amc_core::SOFTWARE;
use amc_core::kinds::GatewayStarted;
use amc_workspace::GatewayConfig;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::call;
use crate::error::GatewayError;
use crate::monitor::Monitor;
use crate::state::Gateway;

/// How a gateway is started.
#[derive(Debug)]
pub struct Options<Ready> {
    /// The monitor's gateway socket (`run/gateway.sock` of the home).
    pub socket: PathBuf,
    /// Where to listen instead of where `gateway.yaml` says; port 0 takes a free one.
    pub listen_override: Option<SocketAddr>,
    /// Called once, with the address, when agents may come.
    pub ready: Ready,
}

/// Runs a gateway until SIGTERM or SIGINT, with a runtime of its own.
///
/// # Errors
/// [`GatewayError`], each saying what to do next.
pub fn run<Ready: FnOnce(SocketAddr)>(options: Options<Ready>) -> Result<(), GatewayError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(GatewayError::Setup)?;
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
    let (monitor, welcome) = Monitor::connect(&options.socket).await?;
    let config = GatewayConfig::parse(welcome.config.as_bytes())?;
    let listener = listen(options.listen_override.unwrap_or(config.listen)).await?;
    let address = listener.local_addr().map_err(GatewayError::Setup)?;
    let gateway = Arc::new(Gateway::new(monitor, &config, welcome)?);
    gateway.monitor.started(started(address, &config)).await?;
    (options.ready)(address);

    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    let mut gone = pin!(gateway.monitor.gone());
    let ended = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(Arc::clone(&gateway), stream, stopped.clone()))),
                // Too many open files, most likely: calls that end make room.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            () = &mut stop => break Ok(()),
            () = &mut gone => break Err(GatewayError::MonitorGone),
        }
    };
    drop(listener);
    stopping.send_replace(true);
    let grace = if ended.is_ok() { STREAMS_GRACE } else { MONITOR_GONE_GRACE };
    let all = async { while connections.join_next().await.is_some() {} };
    // What is cut off here ends as a client that left; its evidence is still finished.
    if tokio::time::timeout(grace, all).await.is_err() {
        connections.shutdown().await;
    }
    let _ = tokio::time::timeout(EVIDENCE_GRACE, gateway.unfinished.none()).await;
    ended
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
    let service = service_fn(move |request| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(call::handle(gateway, request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A broken connection is its agent's concern; the call's evidence says how it ended.
        _ = serving.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// How long streams may go on after a stop.
const STREAMS_GRACE: Duration = Duration::from_secs(30);

/// Without a monitor nothing may pass; answers that say so may still leave.
const MONITOR_GONE_GRACE: Duration = Duration::from_secs(1);

/// For the last evidence to become durable.
const EVIDENCE_GRACE: Duration = Duration::from_secs(10);

/// Before the next try when no connection can be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

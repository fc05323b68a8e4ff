//! The client for providers: it relays and does nothing else. No retries, no redirects, no
//! decompression, no cookies, no proxies from the environment, no header of its own but the host, no
//! total timeout.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use crate::body::{BodyError, PassingBody};
use crate::error::GatewayError;

/// The client, and whether this machine has CA certificates.
#[derive(Debug)]
pub(crate) struct Upstream {
    client: ProviderClient,
    /// For upgrades, which HTTP/2 does not have.
    http1: ProviderClient,
    has_roots: bool,
}

type ProviderClient = Client<Bounded<HttpsConnector<HttpConnector>>, PassingBody>;

impl Upstream {
    /// Builds the client. A machine without CA certificates can still reach `http://` providers.
    pub(crate) fn new(connect_max: Duration) -> Result<Self, GatewayError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let has_roots = !roots.is_empty();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = tls.map_err(|error| GatewayError::Client(error.to_string()))?;
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let connector = || HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
        let client = client_of(connector().enable_all_versions().wrap_connector(tcp()), connect_max);
        let http1 = client_of(connector().enable_http1().wrap_connector(tcp()), connect_max);
        Ok(Upstream { client, http1, has_roots })
    }

    /// Sends a request; returns with the answer's head, or says why there is none.
    pub(crate) async fn send(&self, request: Request<PassingBody>) -> Result<Response<Incoming>, String> {
        self.send_with(&self.client, request).await
    }

    /// Sends a request that asks for an upgrade.
    pub(crate) async fn upgrade(&self, request: Request<PassingBody>) -> Result<Response<Incoming>, String> {
        self.send_with(&self.http1, request).await
    }

    async fn send_with(
        &self,
        client: &ProviderClient,
        request: Request<PassingBody>,
    ) -> Result<Response<Incoming>, String> {
        let uri = request.uri().clone();
        client.request(request).await.map_err(|error| self.why(&uri, &error))
    }

    fn why(&self, uri: &Uri, error: &legacy::Error) -> String {
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |host| host.as_str()));
        let cause = deepest(error);
        if !error.is_connect() {
            return format!("{scheme}://{host} broke off before its answer: {cause}");
        }
        if scheme == "https" && !self.has_roots {
            return format!(
                "cannot connect to {scheme}://{host}: this machine has no CA certificates ({cause}); install the package ca-certificates"
            );
        }
        format!("cannot connect to {scheme}://{host}: {cause}")
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // A provider's network that went away without a word is noticed while an answer is awaited.
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    tcp
}

fn client_of(connector: HttpsConnector<HttpConnector>, connect_max: Duration) -> ProviderClient {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .build(Bounded { connector, max: connect_max })
}

/// A connector that gives up in time, names and TLS included.
#[derive(Debug, Clone)]
struct Bounded<Connector> {
    connector: Connector,
    max: Duration,
}

impl<Connector> Service<Uri> for Bounded<Connector>
where
    Connector: Service<Uri, Error = BodyError>,
    Connector::Future: Send + 'static,
{
    type Response = Connector::Response;
    type Error = BodyError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BodyError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.max, self.connector.call(uri));
        Box::pin(async move { connected.await.unwrap_or_else(|_| Err("it takes too long".into())) })
    }
}

/// The innermost cause, which names what happened; the outer ones only say where.
fn deepest(error: &dyn Error) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

const KEEPALIVE: Duration = Duration::from_secs(15);

const KEEPALIVE_TRIES: u32 = 3;

const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

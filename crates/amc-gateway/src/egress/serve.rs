//! One connection of an agent to the egress proxy: who, where to, and on the way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amc_core::kinds::{EgressBlocked, EgressMethod, EgressRefusal, LeaseScope};
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::{GatewayEvent, GatewayFields, LeaseGrant};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::rules::Resolver;
use super::target::Target;
use super::tunnel::{self, Passage};
use crate::body::{PassingBody, whole};
use crate::log;
use crate::monitor::ChannelError;
use crate::server::{HEAD_MAX, without_a_request};
use crate::state::{Gateway, Settings};

/// The egress proxy of a running gateway.
#[derive(Clone)]
pub(crate) struct Egress {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) resolver: Resolver,
}

/// A request that was refused, with what the agent is told.
pub(crate) struct Refused {
    status: StatusCode,
    message: String,
}

/// Serves one connection: any number of requests in absolute form, or one tunnel.
pub(crate) async fn connection(egress: Egress, stream: TcpStream, mut stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let (asked, mut first_head) = watch::channel(false);
    let service = service_fn(move |request| {
        asked.send_replace(true);
        let egress = egress.clone();
        async move { Ok::<_, Infallible>(handle(&egress, request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    tokio::select! {
        // A broken connection is its agent's concern.
        _ = serving.as_mut() => return,
        () = without_a_request(&mut first_head, HEAD_MAX) => return,
        _ = stopped.wait_for(|stopped| *stopped) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

async fn handle(egress: &Egress, request: Request<Incoming>) -> Response<PassingBody> {
    let answered = pass(egress, request).await;
    answered.unwrap_or_else(|refused| refused.into_response())
}

async fn pass(egress: &Egress, request: Request<Incoming>) -> Result<Response<PassingBody>, Refused> {
    let started = Instant::now();
    let settings = egress.gateway.settings();
    let (grant, token) = authorize(&egress.gateway, request.headers()).await?;
    let method = if request.method() == Method::CONNECT { EgressMethod::Connect } else { EgressMethod::Http };
    let asked = Asked { egress, settings: &settings, grant: &grant, token: &token, method };
    let (target, addresses) = asked.check(request.uri(), request.headers()).await?;
    let (address, stream) = dial(&addresses, settings.connect).await.map_err(|why| {
        let status = StatusCode::BAD_GATEWAY;
        Refused { status, message: format!("UPSTREAM_FAILED: {}:{} does not answer: {why}", target.host, target.port) }
    })?;
    let _ = stream.set_nodelay(true);
    let gateway = Arc::clone(&egress.gateway);
    let passage = Passage { gateway, grant, token, method, target, address, started };
    match method {
        EgressMethod::Connect => Ok(tunnel::open(passage, request, stream)),
        EgressMethod::Http => tunnel::forward(passage, request, stream).await,
    }
}

/// A request whose lease is known.
struct Asked<'a> {
    egress: &'a Egress,
    settings: &'a Settings,
    grant: &'a LeaseGrant,
    token: &'a str,
    method: EgressMethod,
}

impl Asked<'_> {
    async fn check(&self, uri: &Uri, fields: &HeaderMap) -> Result<(Target, Vec<SocketAddr>), Refused> {
        let written = uri.authority().map_or("", http::uri::Authority::as_str);
        // A user before the host may be a secret; the refusal names the host.
        let written = written.rsplit_once('@').map_or(written, |(_, host)| host);
        if !self.grant.limits.scopes.contains(&LeaseScope::Egress) {
            let why = format!("{} is not for egress (scope egress)", self.grant.lease);
            return Err(self.refuse(EgressRefusal::Scope, written, 0, why).await);
        }
        let default_port = (self.method == EgressMethod::Http).then_some(80);
        let is_form = self.method == EgressMethod::Connect || uri.scheme_str() == Some("http");
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let target = Target::parse(written, default_port).filter(|_| !has_user);
        let target = target.filter(|target| is_form && names_the_same(fields, target));
        let Some(target) = target else {
            let why = "the proxy takes CONNECT host:port and http://host/path, in one spelling and with no user; \
                       https goes through CONNECT";
            return Err(self.refuse(EgressRefusal::Malformed, written, 0, why.to_owned()).await);
        };
        let Target { host, port, .. } = &target;
        if !self.settings.egress.allows(&target, &self.grant.limits.allow) {
            let why =
                format!("{host}:{port} is on no allow-list; the operator adds it to egress.allow of gateway.yaml");
            return Err(self.refuse(EgressRefusal::NotAllowed, host, *port, why).await);
        }
        let looked_up = tokio::time::timeout(self.settings.connect, self.egress.resolver.addresses(&target)).await;
        let addresses = looked_up.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).unwrap_or_default();
        if addresses.is_empty() {
            let message = format!("UPSTREAM_FAILED: {host} has no address");
            return Err(Refused { status: StatusCode::BAD_GATEWAY, message });
        }
        if !self.settings.egress.may_dial(&target, &addresses) {
            let why = format!(
                "{host} has an address of a private or special network; the operator may name the host \
                               in egress.internal of gateway.yaml"
            );
            return Err(self.refuse(EgressRefusal::PrivateAddress, host, *port, why).await);
        }
        Ok((target, addresses))
    }

    /// Records a refusal, then tells it.
    async fn refuse(&self, reason: EgressRefusal, host: &str, port: u16, why: String) -> Refused {
        // A secret can be written as a name that nobody has.
        let host = self.settings.redactor.redact_text(self.token, host, HOST_BYTES_MAX);
        record_blocked(&self.egress.gateway, self.grant, self.method, (&host, port), reason).await;
        Refused { status: StatusCode::FORBIDDEN, message: format!("NETWORK_EGRESS_BLOCKED: {why}") }
    }
}

/// Records a refusal; without evidence it is a refusal all the same.
pub(crate) async fn record_blocked(
    gateway: &Gateway,
    grant: &LeaseGrant,
    method: EgressMethod,
    (host, port): (&str, u16),
    reason: EgressRefusal,
) {
    gateway.metrics.blocked(reason);
    let host = host[..host.floor_char_boundary(HOST_BYTES_MAX)].to_owned();
    let blocked = EgressBlocked { lease: grant.lease.clone(), method, host, port, reason };
    record(gateway, grant, GatewayFields::Blocked(blocked)).await;
}

/// Submits an event of a lease and waits until it is durable.
pub(crate) async fn record(gateway: &Gateway, grant: &LeaseGrant, fields: GatewayFields) {
    let event = GatewayEvent { lease: grant.lease.clone(), session: grant.session, fields, payload: None };
    if let Err(error) = gateway.monitor.record(event).await {
        gateway.metrics.evidence_failed();
        log::warn("evidence_not_recorded", &json!({"lease": grant.lease, "why": error.to_string()}));
    }
}

/// Whose lease is in `Proxy-Authorization`: as user or password (`http://lease@proxy`), or as bearer.
async fn authorize(gateway: &Gateway, fields: &HeaderMap) -> Result<(LeaseGrant, Zeroizing<String>), Refused> {
    let mut why = "no lease came in Proxy-Authorization; set HTTPS_PROXY=http://LEASE@PROXY".to_owned();
    if !gateway.monitor.is_taking() {
        let message = "EVIDENCE_UNAVAILABLE: the monitor takes no evidence now".to_owned();
        return Err(Refused { status: StatusCode::SERVICE_UNAVAILABLE, message });
    }
    for token in tokens(fields) {
        match gateway.monitor.authorize(amc_crypto::sha256(token.as_bytes())).await {
            Ok(grant) => return Ok((grant, token)),
            Err(ChannelError::Refused(Refusal::LeaseInvalid(reason))) => why = reason,
            Err(error) => {
                let message = format!("EVIDENCE_UNAVAILABLE: {error}");
                return Err(Refused { status: StatusCode::SERVICE_UNAVAILABLE, message });
            }
        }
    }
    Err(Refused { status: StatusCode::PROXY_AUTHENTICATION_REQUIRED, message: format!("LEASE_INVALID: {why}") })
}

fn tokens(fields: &HeaderMap) -> Vec<Zeroizing<String>> {
    let text = fields.get(header::PROXY_AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, credentials)) = text.and_then(|text| text.trim().split_once(' ')) else { return Vec::new() };
    if scheme.eq_ignore_ascii_case("bearer") {
        return vec![Zeroizing::new(credentials.trim().to_owned())];
    }
    let decoded = STANDARD.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = Zeroizing::new(decoded.filter(|_| scheme.eq_ignore_ascii_case("basic")).unwrap_or_default());
    let (user, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
    [user, password].into_iter().filter(|text| !text.is_empty()).map(|text| Zeroizing::new(text.to_owned())).collect()
}

/// Whether `Host`, where it came, is the target's: two that differ are read differently somewhere.
fn names_the_same(fields: &HeaderMap, target: &Target) -> bool {
    let mut hosts = fields.get_all(header::HOST).iter();
    let same = |value: &HeaderValue| {
        let named = value.to_str().ok().and_then(|text| Target::parse(text, Some(target.port)));
        named.is_some_and(|named| named == *target)
    };
    hosts.next().is_none_or(same) && hosts.next().is_none()
}

/// The first of the checked addresses that answers.
async fn dial(addresses: &[SocketAddr], wait: Duration) -> Result<(SocketAddr, TcpStream), String> {
    let mut why = String::new();
    for address in addresses {
        match tokio::time::timeout(wait, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((*address, stream)),
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = "it takes too long".to_owned(),
        }
    }
    Err(why)
}

impl Refused {
    fn into_response(self) -> Response<PassingBody> {
        let mut response = Response::new(whole(format!("AMC egress proxy: {}\n", self.message)));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            fields.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"AMC lease\""));
        }
        response
    }

    /// 502, said in words.
    pub(crate) fn upstream(message: impl std::fmt::Display) -> Self {
        Refused { status: StatusCode::BAD_GATEWAY, message: format!("UPSTREAM_FAILED: {message}") }
    }
}

/// Longer hosts are no hosts.
const HOST_BYTES_MAX: usize = 256;

//! One request from an agent: which route, whose lease, then on its way. Whatever is wrong is told
//! before a provider is called.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use amc_core::kinds::Dialect;
use amc_core::{RequestId, SessionId};
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::LeaseGrant;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use zeroize::Zeroizing;

use crate::body::PassingBody;
use crate::forward::{self, Outgoing, Trailers};
use crate::monitor::ChannelError;
use crate::record::Call;
use crate::refusal::Failure;
use crate::routes::RouteError;
use crate::state::{Gateway, Settings};
use crate::tap::{AgentBody, Held, Room, Source};
use crate::{credentials, facts, headers, limits, probes, receipts, redact, websocket};

/// Answers one request, whatever it is.
pub(crate) async fn handle(
    gateway: Arc<Gateway>,
    mut request: Request<Incoming>,
    ends: Option<probes::Ends>,
) -> Response<PassingBody> {
    let settings = gateway.settings();
    let upgrade = websocket::is_asked_for(&request).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let dialect = dialect(&settings, &head);
    let answered = match head.uri.path().strip_prefix("/amc/") {
        Some("probe") => probes::route(&gateway, &head, body, ends).await,
        Some(rest) => receipts::own_route(&gateway, &head, rest).await,
        None => call(&gateway, settings, head, body, upgrade).await,
    };
    answered.unwrap_or_else(|failure| {
        gateway.metrics.refused(failure.code());
        failure.into_response(dialect)
    })
}

/// The shape of errors that this client understands.
fn dialect(settings: &Settings, head: &Parts) -> Dialect {
    let has = |name: &str| head.headers.contains_key(name);
    let guess = match (has("anthropic-version"), has("x-goog-api-key")) {
        (true, _) => Dialect::Anthropic,
        (false, true) => Dialect::Gemini,
        (false, false) => Dialect::Openai,
    };
    settings.routes.dialect_of(head.uri.path()).unwrap_or(guess)
}

async fn call(
    gateway: &Arc<Gateway>,
    settings: Arc<Settings>,
    head: Parts,
    body: Incoming,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<PassingBody>, Failure> {
    let started = Instant::now();
    let route = settings.routes.resolve(head.uri.path())?;
    if head.method.as_str().len() > METHOD_BYTES_MAX {
        return Err(Failure::bad_request("no HTTP method is that long"));
    }
    let key_query = head.uri.query().filter(|_| route.dialect == Dialect::Gemini);
    let Caller { grant, lease, keys_ignored } = authorize(gateway, &head.headers, key_query).await?;
    limits::check_route(&grant, &route.provider)?;
    let slot = gateway.counters.enter(&grant, started)?;
    let without_secrets = |text: &String| settings.redactor.redact_text(&lease, text, text.len()) == *text;
    let query = match key_query {
        Some(query) => credentials::without_query_key(query),
        None => head.uri.query().map(str::to_owned),
    };
    let uri = route.uri(query.as_deref())?;
    let call = Call {
        request_id: new_request_id()?,
        client_request_id: client_request_id(&head.headers).filter(without_secrets),
        provider: route.provider,
        dialect: route.dialect,
        method: head.method.to_string(),
        path: route.path,
        uri: uri.clone(),
        model_asked: OnceLock::new(),
        request_end: OnceLock::new(),
        grant,
        lease,
        keys_ignored,
        media_type: headers::media_type(&head.headers),
        encoding: headers::content_encoding(&head.headers),
        started,
        settings,
    };
    let trailers = Trailers::of(head.version, &head.headers);
    let mut headers = head.headers;
    headers::for_provider(&mut headers);
    credentials::replace(&mut headers, route.key_header, call.settings.provider_key(&call.provider));
    if let Some(upgrade) = upgrade {
        limits::check_models(&call.grant, &facts::models_asked(&call.path, "", b"").unwrap_or_default())?;
        return websocket::relay(gateway, Arc::new(call), uri, headers, upgrade, slot).await;
    }
    let body = AgentBody::new(body, call.settings.idle);
    let (body, _held) = match call.grant.limits.models.is_empty() {
        true => (Source::Agent(body), None),
        false => held(&call, body, &gateway.room).await.map(|(body, held)| (body, Some(held)))?,
    };
    let outgoing = Outgoing { method: head.method, uri, headers, body, trailers };
    let call = Arc::new(call);
    tokio::select! {
        answered = forward::forward(gateway, Arc::clone(&call), outgoing, slot) => answered,
        // What was under way is dropped, and with it finished and recorded.
        () = call.lease_ends(gateway) => Err(Failure::lease_invalid(LEASE_ENDED.to_owned())),
    }
}

impl From<RouteError> for Failure {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::UnknownProvider(_) => Failure::not_found(error.to_string()),
            RouteError::NotNormal => Failure::bad_request(error.to_string()),
        }
    }
}

/// A body that a lease's models are to be compared with: it is read whole first.
async fn held(call: &Call, body: AgentBody, room: &Room) -> Result<(Source, Held), Failure> {
    let lease = &call.grant.lease;
    let (bytes, held) = body.read_whole(HELD_BYTES_MAX, room).await.map_err(|why| {
        Failure::unread(why, format!("{lease} is for some models only, and the request is too large to look"))
    })?;
    let plain = facts::decoded(call.encoding.as_deref(), &bytes);
    let asked = plain.and_then(|plain| facts::models_asked(&call.path, &call.media_type, &plain));
    let unread = || Failure::forbidden(format!("{lease} is for some models only, and the request does not say which"));
    limits::check_models(&call.grant, &asked.ok_or_else(unread)?)?;
    Ok((Source::whole(bytes), held))
}

/// Who calls, and with which token.
pub(crate) struct Caller {
    pub(crate) grant: LeaseGrant,
    pub(crate) lease: Zeroizing<String>,
    pub(crate) keys_ignored: Vec<&'static str>,
}

/// Asks the monitor whose lease came with a request. Each request is asked for, so that a revoked
/// lease ends at once.
pub(crate) async fn authorize(gateway: &Gateway, headers: &HeaderMap, query: Option<&str>) -> Result<Caller, Failure> {
    let candidates = credentials::candidates(headers, query);
    let mut why = NO_LEASE.to_owned();
    for (position, candidate) in candidates.iter().enumerate() {
        match gateway.monitor.authorize(amc_crypto::sha256(candidate.token.as_bytes())).await {
            Ok(grant) => {
                let others = candidates.iter().enumerate().filter(|(other, _)| *other != position);
                let keys_ignored = others.filter(|(_, other)| redact::has_key_shape(&other.token));
                let keys_ignored = keys_ignored.map(|(_, other)| other.header).collect();
                return Ok(Caller { grant, lease: candidate.token.clone(), keys_ignored });
            }
            Err(ChannelError::Refused(Refusal::LeaseInvalid(reason))) if redact::has_key_shape(&candidate.token) => {
                why = format!("a provider's key came in {}, and {NO_LEASE} ({reason})", candidate.header);
            }
            Err(ChannelError::Refused(Refusal::LeaseInvalid(reason))) => {
                why = format!("the token in {} is no valid lease: {reason}", candidate.header);
            }
            Err(error) => return Err(Failure::evidence(error.to_string())),
        }
    }
    Err(Failure::lease_invalid(why))
}

/// The id that a client chose itself, where it is one.
fn client_request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers::text(headers, "x-request-id").or(headers::text(headers, "x-client-request-id"))?;
    RequestId::new(text).ok().map(|id| id.as_str().to_owned())
}

/// `req-` and a ULID: unique, and in the order of time.
fn new_request_id() -> Result<String, Failure> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| Failure::evidence(format!("no randomness: {error}")))?;
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    Ok(format!("req-{}", SessionId::from_parts(millis, random)))
}

/// Larger requests of a lease with models are refused: they could not be compared unread.
const HELD_BYTES_MAX: usize = 32 << 20;

const LEASE_ENDED: &str = "the lease was revoked, or its session ended, while the call was under way";

/// The longest registered method has 17 characters.
const METHOD_BYTES_MAX: usize = 32;

const NO_LEASE: &str = "no lease came where the client puts its key (Authorization: Bearer, x-api-key, api-key or \
                        x-goog-api-key); `amc wrap` sets one, `amc lease issue` makes one";

//! `witness serve`: the running monitor as a witness for other logs that the trust policy pins.
//!
//! | status | when |
//! |---|---|
//! | 200 | cosigned: the cosignature's line |
//! | 400 | no such message, or the old size is above the checkpoint's |
//! | 403 | no signature of the pinned key, or one that does not verify |
//! | 404 | a log that is not pinned, or this workspace's evidence log: no role witnesses its own |
//! | 409 | another size was cosigned last: that size, as `text/x.tlog.size` |
//! | 422 | the checkpoint does not extend what was cosigned |
//! | 503 | the monitor does not answer, or its log takes nothing |

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amc_core::kinds::{Fields, Role};
use amc_crypto::checkpoint::CheckpointError;
use amc_crypto::note::NoteSignature;
use amc_crypto::witness::{AddCheckpoint, REQUEST_BYTES_MAX};
use amc_crypto::{Checkpoint, Note, TrustPolicy, policy, sha256};
use amc_evidence::Event;
use amc_ledger::LogReader;
use amc_sandbox::recorder::MonitorClient;
use amc_workspace::answer;
use amc_workspace::home::Home;
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::operator::{CosignRequest, OperatorReply, OperatorRequest};
use amc_workspace::{Failure, Opening};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::services;

use super::{ADD_CHECKPOINT, SIZE_TYPE};

/// Connections at once; a log asks once a minute at most.
const CONNECTIONS_MAX: usize = 64;
/// For a request to arrive whole; it is a few KiB.
const ARRIVES: Duration = Duration::from_secs(10);

/// Runs in the foreground until SIGTERM or SIGINT; says on one line of standard output where it listens.
pub(crate) fn serve(opening: &Opening, listen: SocketAddr, json: bool) -> ExitCode {
    if json {
        return answer::finish("witness serve", true, Err(Failure::wrong("witness serve has no --json")));
    }
    match start(opening, listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => answer::finish("witness serve", false, Err(failure)),
    }
}

fn start(opening: &Opening, listen: SocketAddr) -> Result<(), Failure> {
    if !listen.ip().is_loopback() {
        let what = "is not a loopback address; put a TLS proxy before the witness, which speaks plain HTTP";
        return Err(Failure::wrong(format!("{listen} {what}")));
    }
    let (home, policy, workspace) = opening.workspace()?;
    let monitor = services::connect(&home)?.ok_or_else(|| Failure::unable("no monitor runs; start it: amc up"))?;
    let newest = Mutex::new(cosigned_before(&home)?);
    let workspace = workspace.as_str().to_owned();
    let witness = Arc::new(Witness { home, policy, workspace, monitor: Mutex::new(Some(monitor)), newest });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::unable)?;
    runtime.block_on(accept(witness, listen)).map_err(|error| Failure::unable(format!("{listen}: {error}")))
}

/// What the connections share.
struct Witness {
    home: Home,
    policy: TrustPolicy,
    /// Whose monitor signs.
    workspace: String,
    monitor: Mutex<Option<MonitorClient>>,
    /// The newest cosigned note per log, by the hash of its origin.
    newest: Mutex<BTreeMap<String, String>>,
}

async fn accept(witness: Arc<Witness>, listen: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    say_ready(listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let stream = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            // One connection that could not be taken says nothing about the next.
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => continue },
        };
        let witness = Arc::clone(&witness);
        tokio::spawn(async move {
            let service = service_fn(|request| answer_to(Arc::clone(&witness), request));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(ARRIVES);
            // Whoever broke off asks again.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

fn say_ready(address: SocketAddr) {
    let line = serde_json::json!({ "listening": address.to_string() });
    let mut out = io::stdout().lock();
    // Whoever started us may have left; we work all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn answer_to(witness: Arc<Witness>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    if let Some(origin_hash) = path.strip_suffix("/checkpoint") {
        let newest = witness.newest.lock().unwrap_or_else(PoisonError::into_inner).get(origin_hash).cloned();
        return Ok(newest.map_or_else(not_found, |note| response(StatusCode::OK, note)));
    }
    if path != ADD_CHECKPOINT {
        return Ok(not_found());
    }
    if request.method() != Method::POST {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, "POST only\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Ok(refused);
    }
    let body = tokio::time::timeout(ARRIVES, Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect()).await;
    let Ok(Ok(body)) = body else {
        return Ok(response(StatusCode::BAD_REQUEST, "the request is too long, too slow or broken\n"));
    };
    let body = body.to_bytes();
    let judged = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body)).await;
    Ok(judged.unwrap_or_else(|_| response(StatusCode::INTERNAL_SERVER_ERROR, "the witness failed\n")))
}

impl Witness {
    fn add_checkpoint(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let AddCheckpoint { old_size, proof, note } = match examine(&self.policy, &self.workspace, body) {
            Ok(request) => request,
            Err((status, why)) => return response(status, why + "\n"),
        };
        let submitted = note.signatures().len();
        let request = CosignRequest { note: note.to_string(), old_size, proof };
        match self.ask(OperatorRequest::Cosign(request)) {
            Ok(OperatorReply::Cosigned { note }) => self.cosigned(&note, submitted),
            Ok(OperatorReply::CosignConflict { size }) => conflict(size),
            Ok(OperatorReply::Refused(refusal @ Refusal::LogUnavailable(_))) => {
                response(StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n"))
            }
            Ok(OperatorReply::Refused(refusal)) => response(StatusCode::UNPROCESSABLE_ENTITY, format!("{refusal}\n")),
            Ok(_) => response(StatusCode::SERVICE_UNAVAILABLE, "the monitor gave an unexpected answer\n"),
            Err(why) => response(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        }
    }

    /// Asks the monitor; one that was started anew since is connected to anew.
    fn ask(&self, request: OperatorRequest) -> Result<OperatorReply, String> {
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = monitor.as_mut()
            && let Ok(reply) = client.call(request.clone())
        {
            return Ok(reply);
        }
        // A request that reached the monitor before the connection broke gives a conflict now, never a second record.
        *monitor = services::connect(&self.home).map_err(|failure| failure.message)?;
        let client = monitor.as_mut().ok_or("the monitor does not run")?;
        client.call(request).map_err(|error| error.to_string())
    }

    fn cosigned(&self, note: &str, submitted: usize) -> Response<Full<Bytes>> {
        let Ok(parsed) = Note::parse(note.as_bytes()) else {
            return response(StatusCode::SERVICE_UNAVAILABLE, "the monitor gave an unexpected answer\n");
        };
        let (origin, _) = parsed.text().split_once('\n').unwrap_or_default();
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.insert(sha256(origin.as_bytes()).to_string(), note.to_owned());
        // The monitor adds its own line after those that came with the note.
        let lines: String = parsed.signatures().iter().skip(submitted).map(NoteSignature::line).collect();
        response(StatusCode::OK, lines)
    }
}

/// What can be said of a request without the witness's record; the monitor checks the signature again.
fn examine(policy: &TrustPolicy, own: &str, body: &[u8]) -> Result<AddCheckpoint, (StatusCode, String)> {
    let refuse = |status, error: &dyn std::fmt::Display| (status, error.to_string());
    let request = AddCheckpoint::parse(body).map_err(|error| refuse(StatusCode::BAD_REQUEST, &error))?;
    let checked = policy.check_signatures(request.note.clone()).map_err(|error| {
        let status = match error {
            CheckpointError::UnknownLog(_) => StatusCode::NOT_FOUND,
            CheckpointError::Note(_) => StatusCode::FORBIDDEN,
            CheckpointError::Malformed(_) | CheckpointError::NoQuorum { .. } => StatusCode::BAD_REQUEST,
        };
        refuse(status, &error)
    })?;
    let Checkpoint { origin, size, root } = checked.checkpoint;
    if policy::role_of_origin(&origin) == Some(Role::Monitor) && policy::workspace_of_origin(&origin) == own {
        return Err((StatusCode::NOT_FOUND, format!("{origin} is the log of this very monitor")));
    }
    if request.old_size > size {
        return Err((StatusCode::BAD_REQUEST, "the old size is above the checkpoint's".into()));
    }
    if size == 0 && root != sha256(b"") {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "a tree without leaves has another root".into()));
    }
    if request.old_size == 0 && !request.proof.is_empty() {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "from size 0 there is no proof".into()));
    }
    Ok(request)
}

/// The newest note per log that the monitor has cosigned, as its own log says.
fn cosigned_before(home: &Home) -> Result<BTreeMap<String, String>, Failure> {
    let reader = LogReader::open(&home.log(Role::Monitor)).map_err(Failure::unable)?;
    let mut newest = BTreeMap::new();
    for stored in reader.events(0) {
        let stored = stored.map_err(Failure::bad)?;
        if let Ok((_, Some(Fields::CheckpointCosigned(cosigned)))) = Event::decode(&stored.signed.body) {
            newest.insert(sha256(cosigned.head.origin.as_bytes()).to_string(), cosigned.note);
        }
    }
    Ok(newest)
}

fn response(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn conflict(size: u64) -> Response<Full<Bytes>> {
    let mut conflict = response(StatusCode::CONFLICT, format!("{size}\n"));
    conflict.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SIZE_TYPE));
    conflict
}

fn not_found() -> Response<Full<Bytes>> {
    response(StatusCode::NOT_FOUND, "nothing is here\n")
}

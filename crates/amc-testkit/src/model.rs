//! The demo model as an HTTP server with the routes of OpenAI's and Anthropic's APIs.
//!
//! It takes any key unless told which one, keeps nothing, and can be told to fail halfway.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::answer::{self, Answer};

/// How the demo model behaves.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The only key that it takes.
    pub require_key: Option<String>,
    /// Breaks the connection after so many events of a stream.
    pub fail_after_chunks: Option<usize>,
    /// The wait before each event of a stream.
    pub delay: Duration,
}

impl Default for ModelOptions {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        ModelOptions { listen, require_key: None, fail_after_chunks: None, delay: Duration::from_millis(3) }
    }
}

/// A running demo model; it ends when dropped.
#[derive(Debug)]
pub struct DemoModel {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl DemoModel {
    /// Binds and serves on the current runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(options: ModelOptions) -> std::io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let addr = listener.local_addr()?;
        Ok(DemoModel { addr, task: tokio::spawn(serve(listener, options)) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until the process ends.
    pub async fn wait(mut self) {
        // The task ends only with the runtime; a panic in it has been printed already.
        let _ = (&mut self.task).await;
    }
}

impl Drop for DemoModel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn serve(listener: TcpListener, options: ModelOptions) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let options = options.clone();
        // Each write is a packet: the pieces of a stream are small and must not wait for each other.
        let _ = stream.set_nodelay(true);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let options = options.clone();
                async move { Ok::<_, Infallible>(respond(request, &options).await) }
            });
            // A client that leaves is no concern of the model's.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn respond(request: Request<Incoming>, options: &ModelOptions) -> Response<Body> {
    let (head, body) = request.into_parts();
    let anthropic = head.uri.path() == "/v1/messages";
    if options.require_key.as_deref().is_some_and(|key| sent_key(&head.headers) != Some(key)) {
        return failure(
            StatusCode::UNAUTHORIZED,
            anthropic,
            "authentication_error",
            "the demo model wants another key",
        );
    }
    if head.method == Method::GET && head.uri.path() == "/v1/models" {
        let model = json!({"id": answer::MODEL, "object": "model", "created": 0, "owned_by": "amc-testkit"});
        return whole(StatusCode::OK, &json!({"object": "list", "data": [model]}));
    }
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await.map(http_body_util::Collected::to_bytes) else {
        return failure(
            StatusCode::BAD_REQUEST,
            anthropic,
            "invalid_request_error",
            "the body broke off or is too large",
        );
    };
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return failure(StatusCode::BAD_REQUEST, anthropic, "invalid_request_error", "the body is not JSON");
    };
    let mut answer = Answer::to(&body, &request);
    let path = head.uri.path();
    let gemini = path.strip_prefix("/v1beta/models/").or_else(|| path.strip_prefix("/v1/models/"));
    if let Some((model, verb)) = gemini.and_then(|rest| rest.split_once(':')) {
        answer.model = model.to_owned();
        return match (&head.method, verb) {
            (&Method::POST, "generateContent") => whole(StatusCode::OK, &answer::gemini::whole(&answer)),
            (&Method::POST, "streamGenerateContent") => stream(answer::gemini::stream(&answer), options),
            _ => failure(StatusCode::NOT_FOUND, false, "not_found_error", "the demo model has no such route"),
        };
    }
    let streams = request["stream"] == true;
    match (&head.method, head.uri.path(), streams) {
        (&Method::POST, "/v1/chat/completions", false) => whole(StatusCode::OK, &answer::chat::whole(&answer)),
        (&Method::POST, "/v1/chat/completions", true) => {
            let include_usage = request["stream_options"]["include_usage"] == true;
            stream(answer::chat::stream(&answer, include_usage), options)
        }
        (&Method::POST, "/v1/messages", false) => whole(StatusCode::OK, &answer::messages::whole(&answer)),
        (&Method::POST, "/v1/messages", true) => stream(answer::messages::stream(&answer), options),
        (&Method::POST, "/v1/responses", false) => whole(StatusCode::OK, &answer::responses::whole(&answer)),
        (&Method::POST, "/v1/responses", true) => stream(answer::responses::stream(&answer), options),
        _ => failure(StatusCode::NOT_FOUND, anthropic, "not_found_error", "the demo model has no such route"),
    }
}

fn sent_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text("authorization")
        .and_then(|value| value.strip_prefix("Bearer "))
        .or_else(|| text("x-api-key"))
        .or_else(|| text("x-goog-api-key"))
}

fn whole(status: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed();
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(body).expect("status and header are valid")
}

fn stream(events: Vec<String>, options: &ModelOptions) -> Response<Body> {
    let (delay, fail_after) = (options.delay, options.fail_after_chunks.unwrap_or(usize::MAX));
    let pieces = futures_util::stream::iter(events.into_iter().enumerate()).then(move |(number, event)| async move {
        tokio::time::sleep(delay).await;
        if number < fail_after {
            Ok(Frame::data(Bytes::from(event)))
        } else {
            Err(std::io::Error::other("told to fail here"))
        }
    });
    let response = Response::builder().header(header::CONTENT_TYPE, "text/event-stream; charset=utf-8");
    response.body(BodyExt::boxed(StreamBody::new(pieces))).expect("the header is valid")
}

fn failure(status: StatusCode, anthropic: bool, kind: &str, message: &str) -> Response<Body> {
    let error = if anthropic {
        json!({"type": "error", "error": {"type": kind, "message": message}})
    } else {
        json!({"error": {"message": message, "type": kind, "param": null, "code": null}})
    };
    whole(status, &error)
}

/// A prompt far above any real context window still fits.
const BODY_BYTES_MAX: usize = 256 << 20;

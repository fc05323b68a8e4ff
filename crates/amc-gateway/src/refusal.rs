//! Answers of the gateway itself when a call cannot pass, in the shape that the client's library
//! turns into its own error with our words in it.

use std::time::Duration;

use amc_core::kinds::Dialect;
use http::{Response, StatusCode, header};
use serde_json::json;

use crate::body::{PassingBody, whole};
use crate::tap::Unread;

/// Why a call does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// When it may be tried again.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Failure { status, code, message: message.into(), retry_after: None }
    }

    /// Its code, as the message has it.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// 403: the lease is not for this.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::FORBIDDEN, "LEASE_SCOPE", message)
    }

    /// 429: the lease is for less at a time.
    pub(crate) fn too_many(message: impl Into<String>, retry_after: Duration) -> Self {
        let retry_after = Some(retry_after);
        Failure { retry_after, ..Failure::new(StatusCode::TOO_MANY_REQUESTS, "LEASE_LIMIT", message) }
    }

    /// 400: what came cannot be forwarded.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    /// 401: no lease, or none that holds.
    pub(crate) fn lease_invalid(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::UNAUTHORIZED, "LEASE_INVALID", message)
    }

    /// 404: no such route.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 502: the provider cannot be reached or broke off before its answer.
    pub(crate) fn upstream(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_GATEWAY, "UPSTREAM_FAILED", message)
    }

    /// 503: the monitor takes no evidence, so nothing may pass.
    pub(crate) fn evidence(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "EVIDENCE_UNAVAILABLE", message)
    }

    /// Why a request that has to be read whole was not.
    pub(crate) fn unread(why: Unread, too_large: impl Into<String>) -> Self {
        match why {
            Unread::Broke(error) => Failure::bad_request(format!("the request broke off: {error}")),
            Unread::TooLarge => Failure::forbidden(too_large),
            Unread::NoRoom => Failure::too_many("too many large requests are held at once", Duration::from_secs(1)),
        }
    }

    /// The answer, in the shape of an API.
    pub(crate) fn into_response(self, dialect: Dialect) -> Response<PassingBody> {
        let message = format!("AMC gateway: {}: {}", self.code, self.message);
        let body = match dialect {
            Dialect::Openai => json!({"error":
                {"message": message, "type": self.openai_type(), "param": null, "code": self.code.to_ascii_lowercase()}}),
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": self.anthropic_type(), "message": message}})
            }
            Dialect::Gemini => json!({"error":
                {"code": self.status.as_u16(), "message": message, "status": self.gemini_status()}}),
        };
        let mut response = json_response(self.status, &body);
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        response
    }

    fn openai_type(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => "invalid_request_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            _ => "api_error",
        }
    }

    fn gemini_status(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "INVALID_ARGUMENT",
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
            StatusCode::FORBIDDEN => "PERMISSION_DENIED",
            StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
            _ => "UNAVAILABLE",
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "invalid_request_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            _ => "api_error",
        }
    }
}

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<PassingBody> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(whole(body.to_string())).expect("status and header are valid")
}

//! Answers of the gateway itself when a call cannot pass, in the shape that the client's library
//! turns into its own error with our words in it.

use amc_core::kinds::Dialect;
use http::{Response, StatusCode, header};
use serde_json::json;

use crate::body::{AnswerBody, whole};

/// Why a call does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    /// 400: what came cannot be forwarded.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Failure { status: StatusCode::BAD_REQUEST, code: "BAD_REQUEST", message: message.into() }
    }

    /// 401: no lease, or none that holds.
    pub(crate) fn lease_invalid(message: impl Into<String>) -> Self {
        Failure { status: StatusCode::UNAUTHORIZED, code: "LEASE_INVALID", message: message.into() }
    }

    /// 404: no such route.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Failure { status: StatusCode::NOT_FOUND, code: "NOT_FOUND", message: message.into() }
    }

    /// 502: the provider cannot be reached or broke off before its answer.
    pub(crate) fn upstream(message: impl Into<String>) -> Self {
        Failure { status: StatusCode::BAD_GATEWAY, code: "UPSTREAM_FAILED", message: message.into() }
    }

    /// 503: the monitor takes no evidence, so nothing may pass.
    pub(crate) fn evidence(message: impl Into<String>) -> Self {
        Failure { status: StatusCode::SERVICE_UNAVAILABLE, code: "EVIDENCE_UNAVAILABLE", message: message.into() }
    }

    /// The answer, in the shape of an API.
    pub(crate) fn into_response(self, dialect: Dialect) -> Response<AnswerBody> {
        let message = format!("AMC gateway: {}: {}", self.code, self.message);
        let body = match dialect {
            Dialect::Openai => json!({"error":
                {"message": message, "type": self.openai_type(), "param": null, "code": self.code.to_ascii_lowercase()}}),
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": self.anthropic_type(), "message": message}})
            }
        };
        json_response(self.status, &body)
    }

    fn openai_type(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => "invalid_request_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            _ => "api_error",
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "invalid_request_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            _ => "api_error",
        }
    }
}

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<AnswerBody> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(whole(body.to_string())).expect("status and header are valid")
}

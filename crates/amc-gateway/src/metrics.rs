//! Figures for Prometheus (text format 0.0.4), on a loopback port of their own.
//!
//! Labels are names of the configuration and codes, never anything that an agent wrote.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amc_core::kinds::{CallOutcome, EgressRefusal};
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::body::{PassingBody, whole};
use crate::state::Gateway;

/// Counters of this process.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    calls: Mutex<BTreeMap<(String, u16, &'static str), u64>>,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    first_byte: Histogram,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    evidence_failures: AtomicU64,
    tunnels: AtomicU64,
    spans_sent: AtomicU64,
    spans_lost: AtomicU64,
    blocked: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

/// Upper bounds of the buckets, in milliseconds.
const BUCKETS_MS: [u64; 9] = [1, 5, 25, 100, 250, 1_000, 5_000, 30_000, 120_000];

impl Histogram {
    fn observe(&self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        for (bucket, bound_ms) in self.buckets.iter().zip(BUCKETS_MS) {
            if micros <= bound_ms * 1_000 {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Metrics {
    /// A call has ended.
    pub(crate) fn call(&self, provider: &str, status: u16, outcome: CallOutcome, first_byte: Duration) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry((provider.to_owned(), status, outcome_name(outcome))).or_default() += 1;
        self.first_byte.observe(first_byte);
    }

    /// Body bytes went to providers and came from them.
    pub(crate) fn bytes(&self, sent: u64, received: u64) {
        self.sent_bytes.fetch_add(sent, Ordering::Relaxed);
        self.received_bytes.fetch_add(received, Ordering::Relaxed);
    }

    /// A call was refused here.
    pub(crate) fn refused(&self, code: &'static str) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// Evidence was not taken.
    pub(crate) fn evidence_failed(&self) {
        self.evidence_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection through the egress proxy has ended.
    pub(crate) fn tunnel(&self) {
        self.tunnels.fetch_add(1, Ordering::Relaxed);
    }

    /// Spans reached their collector, or did not.
    pub(crate) fn spans(&self, sent: u64, lost: u64) {
        self.spans_sent.fetch_add(sent, Ordering::Relaxed);
        self.spans_lost.fetch_add(lost, Ordering::Relaxed);
    }

    /// The egress proxy refused.
    pub(crate) fn blocked(&self, reason: EgressRefusal) {
        let name = serde_json::to_value(reason).ok().and_then(|name| name.as_str().map(str::to_owned));
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner).entry(name.unwrap_or_default()).or_default() += 1;
    }

    fn render(&self, unfinished: usize, is_taking: bool) -> String {
        let mut text = String::new();
        let mut line = |text_line: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{text_line}");
        };
        line(format_args!("# TYPE amc_gateway_calls_total counter"));
        for ((provider, status, outcome), count) in &*self.calls.lock().unwrap_or_else(PoisonError::into_inner) {
            line(format_args!(
                "amc_gateway_calls_total{{provider=\"{provider}\",status=\"{status}\",outcome=\"{outcome}\"}} {count}"
            ));
        }
        line(format_args!("# TYPE amc_gateway_refusals_total counter"));
        for (code, count) in &*self.refusals.lock().unwrap_or_else(PoisonError::into_inner) {
            line(format_args!("amc_gateway_refusals_total{{code=\"{code}\"}} {count}"));
        }
        line(format_args!("# TYPE amc_gateway_first_byte_seconds histogram"));
        for (bucket, bound_ms) in self.first_byte.buckets.iter().zip(BUCKETS_MS) {
            let (whole, thousandths) = (bound_ms / 1_000, bound_ms % 1_000);
            let count = bucket.load(Ordering::Relaxed);
            line(format_args!("amc_gateway_first_byte_seconds_bucket{{le=\"{whole}.{thousandths:03}\"}} {count}"));
        }
        let count = self.first_byte.count.load(Ordering::Relaxed);
        let sum_us = self.first_byte.sum_us.load(Ordering::Relaxed);
        line(format_args!("amc_gateway_first_byte_seconds_bucket{{le=\"+Inf\"}} {count}"));
        line(format_args!("amc_gateway_first_byte_seconds_sum {}.{:06}", sum_us / 1_000_000, sum_us % 1_000_000));
        line(format_args!("amc_gateway_first_byte_seconds_count {count}"));
        for (name, value) in [
            ("request_body_bytes", self.sent_bytes.load(Ordering::Relaxed)),
            ("response_body_bytes", self.received_bytes.load(Ordering::Relaxed)),
            ("evidence_failures", self.evidence_failures.load(Ordering::Relaxed)),
            ("egress_connections", self.tunnels.load(Ordering::Relaxed)),
            ("spans_sent", self.spans_sent.load(Ordering::Relaxed)),
            ("spans_lost", self.spans_lost.load(Ordering::Relaxed)),
        ] {
            line(format_args!("# TYPE amc_gateway_{name}_total counter"));
            line(format_args!("amc_gateway_{name}_total {value}"));
        }
        line(format_args!("# TYPE amc_gateway_egress_blocked_total counter"));
        for (reason, count) in &*self.blocked.lock().unwrap_or_else(PoisonError::into_inner) {
            line(format_args!("amc_gateway_egress_blocked_total{{reason=\"{reason}\"}} {count}"));
        }
        line(format_args!("# TYPE amc_gateway_unfinished gauge\namc_gateway_unfinished {unfinished}"));
        line(format_args!("# TYPE amc_gateway_ready gauge\namc_gateway_ready {}", u8::from(is_taking)));
        text
    }
}

/// Answers `GET /metrics` until it is dropped.
pub(crate) async fn serve(listener: TcpListener, gateway: Arc<Gateway>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(&gateway, request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            let serving = http.keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // Whoever asks for figures and leaves has lost nothing.
            let _ = tokio::time::timeout(ASK_MAX, serving).await;
        });
    }
}

fn answer(gateway: &Gateway, path: &str) -> Response<PassingBody> {
    let (status, text) = match path {
        "/metrics" => (StatusCode::OK, gateway.metrics.render(gateway.unfinished.count(), gateway.monitor.is_taking())),
        _ => (StatusCode::NOT_FOUND, "figures are at /metrics\n".to_owned()),
    };
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "text/plain; version=0.0.4");
    response.body(whole(text)).expect("status and header are valid")
}

const fn outcome_name(outcome: CallOutcome) -> &'static str {
    match outcome {
        CallOutcome::Complete => "complete",
        CallOutcome::UpstreamTruncated => "upstream_truncated",
        CallOutcome::UpstreamFailed => "upstream_failed",
        CallOutcome::ClientLeft => "client_left",
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longer than any scrape takes.
const ASK_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_said() {
        let metrics = Metrics::default();
        metrics.call("openai", 200, CallOutcome::Complete, Duration::from_millis(30));
        metrics.call("openai", 200, CallOutcome::Complete, Duration::from_secs(200));
        metrics.refused("LEASE_INVALID");
        metrics.blocked(EgressRefusal::PrivateAddress);
        metrics.bytes(5, 7);
        let text = metrics.render(3, true);
        for said in [
            "amc_gateway_calls_total{provider=\"openai\",status=\"200\",outcome=\"complete\"} 2",
            "amc_gateway_refusals_total{code=\"LEASE_INVALID\"} 1",
            "amc_gateway_first_byte_seconds_bucket{le=\"0.025\"} 0",
            "amc_gateway_first_byte_seconds_bucket{le=\"0.100\"} 1",
            "amc_gateway_first_byte_seconds_bucket{le=\"+Inf\"} 2",
            "amc_gateway_first_byte_seconds_sum 200.030000",
            "amc_gateway_egress_blocked_total{reason=\"private_address\"} 1",
            "amc_gateway_response_body_bytes_total 7",
            "amc_gateway_unfinished 3",
            "amc_gateway_ready 1",
        ] {
            assert!(text.lines().any(|line| line == said), "{said} in\n{text}");
        }
    }
}

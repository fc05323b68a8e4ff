//! The gateway's own routes under `/amc/`: health, readiness, and receipts by request id
//! (`docs/formats/receipts.md`).

use std::time::Duration;

use amc_core::{AgentId, RequestId};
use amc_crypto::jws::Receipt;
use amc_workspace::protocol::gateway::{LeaseGrant, ReceiptPair};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use crate::body::PassingBody;
use crate::call::authorize;
use crate::forward::refused;
use crate::refusal::{Failure, json_response};
use crate::state::Gateway;

/// Answers `/amc/<rest>`.
pub(crate) async fn own_route(gateway: &Gateway, head: &Parts, rest: &str) -> Result<Response<PassingBody>, Failure> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(Failure::bad_request("paths under /amc/ are read with GET"));
    }
    match rest {
        "health" => Ok(json_response(StatusCode::OK, &json!({"status": "ok"}))),
        "ready" if gateway.monitor.is_connected() && gateway.monitor.is_taking() => {
            Ok(json_response(StatusCode::OK, &json!({"status": "ready"})))
        }
        "ready" => Err(Failure::evidence("the monitor takes no evidence now")),
        _ => match rest.strip_prefix("receipts/") {
            Some(id) => receipts(gateway, head, id).await,
            None => Err(Failure::not_found("under /amc/ there are health, ready and receipts/<request id>")),
        },
    }
}

async fn receipts(gateway: &Gateway, head: &Parts, id: &str) -> Result<Response<PassingBody>, Failure> {
    let id = RequestId::new(id).map_err(|error| Failure::bad_request(error.to_string()))?;
    let wait =
        wait(head.uri.query()).ok_or_else(|| Failure::bad_request("wait is a number with s or ms, at most 30s"))?;
    let LeaseGrant { lease, agent, .. } = authorize(gateway, &head.headers, None).await?.grant;
    let deadline = Instant::now() + wait;
    loop {
        let pair = gateway.monitor.receipts(lease.clone(), id.as_str().to_owned()).await.map_err(refused)?;
        let pair = of_agent(pair, &agent);
        let complete = pair.request.is_some() && pair.response.is_some();
        if !complete && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
            continue;
        }
        if pair == ReceiptPair::default() {
            return Err(Failure::not_found(format!("no durable event of this agent has the request id {id}")));
        }
        let body = json!({"request": pair.request, "response": pair.response});
        return Ok(json_response(StatusCode::OK, &body));
    }
}

/// An agent sees its own receipts and nobody else's.
fn of_agent(pair: ReceiptPair, agent: &AgentId) -> ReceiptPair {
    let own = |receipt: &String| Receipt::parse(receipt).is_ok_and(|receipt| receipt.claims().agent_id == *agent);
    ReceiptPair { request: pair.request.filter(own), response: pair.response.filter(own) }
}

/// `wait=5s` or `wait=500ms`; none when it is not there, `None` when it is something else.
fn wait(query: Option<&str>) -> Option<Duration> {
    let Some(text) = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("wait=")) else {
        return Some(Duration::ZERO);
    };
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    let millis = number.parse::<u32>().ok()?.checked_mul(unit)?;
    Some(Duration::from_millis(millis.into())).filter(|wait| *wait <= WAIT_MAX)
}

/// Between two looks while a client waits: about the time of a flush.
const POLL: Duration = Duration::from_millis(10);

/// Longer waits would look like a hanging call.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_and_have_units() {
        assert_eq!(wait(None), Some(Duration::ZERO));
        assert_eq!(wait(Some("a=b&wait=5s")), Some(Duration::from_secs(5)));
        assert_eq!(wait(Some("wait=250ms")), Some(Duration::from_millis(250)));
        for bad in ["wait=5", "wait=31s", "wait=-1s", "wait=s", "wait=99999999999s", "wait=5m"] {
            assert_eq!(wait(Some(bad)), None, "{bad}");
        }
    }
}

//! Receipts as a function of events: the same event always gives the same claims.

use amc_core::kinds::Fields;
use amc_core::{Finding, FindingCode, timestamp};
use amc_crypto::jws::{ReceiptClaims, ReceiptKind};

use crate::event::Event;
use crate::verify::EventRecord;

/// The claims of the receipt for an event of `log`, or `None` for an event without receipts.
///
/// Receipts are for durable events only: the caller has seen the flush.
pub fn claims_of(log: &str, event: &Event, fields: &Fields, hash: amc_core::Digest) -> Option<ReceiptClaims> {
    let (kind, request_id, provider, model) = match fields {
        Fields::LlmRequest(call) => (ReceiptKind::LlmRequest, &call.request_id, &call.provider, &call.model),
        Fields::LlmResponse(call) => (ReceiptKind::LlmResponse, &call.request_id, &call.provider, &call.model),
        _ => return None,
    };
    Some(ReceiptClaims {
        v: 1,
        receipt_id: format!("rcpt-{}", amc_core::digest::hex(&hash.0[..16])),
        kind,
        ts: timestamp::to_rfc3339(event.wall_ns),
        agent_id: event.agent.clone()?,
        session_id: event.session?,
        request_id: request_id.clone(),
        provider: provider.clone(),
        model: model.clone(),
        log: log.to_owned(),
        event_index: event.index,
        event_hash: hash,
        body_sha256: event.payload.as_ref()?.wire_sha256,
    })
}

/// Compares a receipt's claims with the event that they name; `None` when all agree.
pub fn compare(claims: &ReceiptClaims, log: &str, record: &EventRecord) -> Option<Finding> {
    let subject = format!("{log}#{}", record.event.index);
    let finding = |code, what: &str| Some(Finding::error(code, subject.clone(), what));
    if claims.event_hash != record.hash || claims.event_index != record.event.index || claims.log != log {
        return finding(FindingCode::TraceEventHashNotFound, "the receipt names another event");
    }
    if record.event.payload.as_ref().map(|payload| payload.wire_sha256) != Some(claims.body_sha256) {
        return finding(FindingCode::TraceBodyHashMismatch, "the receipt names another body than the event");
    }
    if record.event.agent.as_ref() != Some(&claims.agent_id) {
        return finding(FindingCode::TraceAgentMismatch, "the receipt belongs to another agent");
    }
    if record.event.session != Some(claims.session_id) {
        return finding(FindingCode::TraceSessionMismatch, "the receipt belongs to another session");
    }
    let expected = record.fields.as_ref().and_then(|fields| claims_of(log, &record.event, fields, record.hash));
    if expected.as_ref() != Some(claims) {
        return finding(FindingCode::TraceReceiptInvalid, "the receipt differs from the one that this event has");
    }
    None
}

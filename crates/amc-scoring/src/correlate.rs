//! Correlation: what the agent says on its trace, held against what was observed.
//!
//! A trace line is the agent's claim. It counts only by its receipt: signed by the monitor's key
//! that was valid at that index, for an event of this very agent and session, with the event's own
//! hash and body, of the kind that the line is about, and shown once. A session that goes on with
//! another one counts as that one here. A line without a receipt lowers the ratio; a line with a
//! wrong one is a finding under its code.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::kinds::{Fields, KeyPurpose, TraceAbout, TraceLine};
use amc_core::{AgentId, Digest, Finding, FindingCode, SessionId};
use amc_crypto::jws::{Receipt, ReceiptClaims, ReceiptKind, ReceiptTrust};
use amc_crypto::note::KeyKind;
use amc_crypto::{PublicKey, Unverified, VerifierKey};
use amc_evidence::{EventRecord, KeyHistory, receipt};

use crate::sessions::Session;

/// Below this ratio the correlation is low.
pub const RATIO_BP_MIN: u32 = 9_000;

/// The monitor's keys by position, as the evidence log itself introduces them.
#[derive(Debug, Clone)]
pub struct Keys<'a> {
    origin: &'a str,
    history: Option<KeyHistory>,
}

impl<'a> Keys<'a> {
    /// From the selected records of the evidence log `origin`, sorted by index.
    pub fn new(origin: &'a str, evidence: &[EventRecord]) -> Self {
        let spans = evidence.iter().filter_map(|record| {
            let (from, public) = match &record.fields {
                Some(Fields::LogOpened(opened)) => (0, opened.log_public),
                Some(Fields::KeyRotated(rotated)) if rotated.purpose == KeyPurpose::Log => {
                    (record.event.index + 1, rotated.public)
                }
                _ => return None,
            };
            Some((from, PublicKey::from_bytes(&public.0).ok()?))
        });
        Keys { origin, history: KeyHistory::from_spans(spans.collect()) }
    }

    /// The claims, when the key that was valid at their index signed them.
    fn verify(&self, text: &str) -> Option<ReceiptClaims> {
        let receipt = Receipt::parse(text).ok()?;
        let public = self.history.as_ref()?.key_at(receipt.claims().event_index);
        let key = VerifierKey::new(self.origin, KeyKind::Ed25519, public).ok()?;
        Unverified::new(receipt).verify(&ReceiptTrust { keys: &[key] }).ok().map(amc_crypto::Verified::into_inner)
    }
}

/// What one line is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// Its receipt holds and its fields agree with the event.
    Valid,
    /// Its receipt holds and another field of the line disagrees with the event.
    Contradicts,
    /// It has no receipt.
    Missing,
    /// Its receipt is worth nothing, for this reason.
    Bad(FindingCode),
}

/// A line that was held against the evidence.
#[derive(Debug, Clone)]
pub struct Judged<'a> {
    /// The event that carries the line.
    pub record: &'a EventRecord,
    /// What the line is about.
    pub about: TraceAbout,
    /// What it is worth.
    pub worth: Worth,
    /// The event that its receipt names, where it holds.
    pub named: Option<&'a EventRecord>,
}

/// All trace lines of the agent's counted sessions.
#[derive(Debug, Clone, Default)]
pub struct Correlated {
    /// Receipts that were shown, each for one use.
    shown: BTreeSet<(u8, Digest)>,
    /// Lines about model calls.
    pub lines: u64,
    /// Distinct valid receipts among them.
    pub valid: u64,
    /// A receipt that nobody issued was shown.
    pub forged: bool,
    /// Invalid or replayed receipts.
    pub bad_receipts: u64,
    /// Lines whose fields disagree with the event that they name.
    pub contradictions: u64,
    /// Sessions with lines about model calls and no evidence of any.
    pub unseen_sessions: u64,
    /// What was found, by code and session.
    pub findings: Vec<Finding>,
}

impl Correlated {
    /// Judges the trace lines of one session of the agent that counts as its work. A session that goes on with another
    /// one comes after it.
    pub fn judge<'a>(
        &mut self,
        agent: &AgentId,
        keys: &Keys<'_>,
        session: &Session,
        records: &'a [EventRecord],
        previous: Option<(SessionId, &'a [EventRecord])>,
    ) -> Vec<Judged<'a>> {
        if !records.iter().any(|record| matches!(record.fields, Some(Fields::TraceLines(_)))) {
            return Vec::new();
        }
        let before = previous.map_or(&[][..], |(_, records)| records);
        let events = before.iter().chain(records).map(|record| (record.event.index, record)).collect();
        let place = Place { agent, session, records, previous: previous.map(|(id, _)| id), events };
        let judged = place.judge(keys, &mut self.shown);
        self.count(&place, &judged);
        judged
    }

    /// What is wrong with all of them together.
    pub fn finish(&mut self, agent: &AgentId) {
        self.shown.clear();
        if self.ratio_bp().is_some_and(|ratio_bp| ratio_bp < RATIO_BP_MIN) {
            let what = format!(
                "{} of {} trace lines about model calls have a receipt that holds; nine in ten is the least",
                self.valid, self.lines
            );
            self.findings.push(Finding::warn(FindingCode::TraceCorrelationLow, agent.as_str(), what));
        }
    }

    /// Distinct valid receipts ÷ lines about model calls, in basis points; `None` without such lines.
    pub fn ratio_bp(&self) -> Option<u32> {
        let ratio = (self.valid * 10_000).checked_div(self.lines)?;
        Some(u32::try_from(ratio).unwrap_or(10_000))
    }

    fn count(&mut self, place: &Place<'_, '_>, judged: &[Judged<'_>]) {
        let session = place.session;
        let about_calls = judged.iter().filter(|line| line.about.is_llm()).count() as u64;
        self.lines += about_calls;
        self.valid += judged.iter().filter(|line| line.about.is_llm() && line.worth == Worth::Valid).count() as u64;
        let mut found: BTreeMap<FindingCode, (u64, u64)> = BTreeMap::new();
        let mut contradictions: Option<(u64, u64)> = None;
        for line in judged {
            let index = line.record.event.index;
            match line.worth {
                Worth::Bad(code) => {
                    self.bad_receipts += 1;
                    self.forged |= is_forged(code);
                    found.entry(code).or_insert((index, 0)).1 += 1;
                }
                Worth::Contradicts => {
                    self.contradictions += 1;
                    contradictions.get_or_insert((index, 0)).1 += 1;
                }
                Worth::Missing if line.about.is_llm() => {
                    found.entry(FindingCode::TraceReceiptMissing).or_insert((index, 0)).1 += 1;
                }
                Worth::Missing | Worth::Valid => {}
            }
        }
        for (code, (index, count)) in found {
            let what = format!(
                "{count} trace line(s) of session {} (number {}) {}",
                session.id,
                session.open.number,
                says(code)
            );
            let make = if code == FindingCode::TraceReceiptMissing { Finding::info } else { Finding::warn };
            self.findings.push(make(code, format!("evidence#{index}"), what));
        }
        if let Some((index, count)) = contradictions {
            let what = format!(
                "{count} trace line(s) of session {} (number {}) name another agent or request than the event of their \
                 receipt",
                session.id, session.open.number
            );
            self.findings.push(Finding::warn(FindingCode::TraceAgentMismatch, format!("evidence#{index}"), what));
        }
        if about_calls > 0 && !place.has_calls() {
            self.unseen_sessions += 1;
            let what = format!(
                "session {} (number {}) has {about_calls} trace line(s) about model calls, and no call was observed: the \
                 agent invents them, or calls past the gateway",
                session.id, session.open.number
            );
            let subject = format!("evidence#{}", session.open_index);
            self.findings.push(Finding::warn(FindingCode::TraceEventHashNotFound, subject, what));
        }
    }
}

/// Whether the code means that somebody made the receipt up.
const fn is_forged(code: FindingCode) -> bool {
    matches!(
        code,
        FindingCode::TraceReceiptInvalid | FindingCode::TraceEventHashNotFound | FindingCode::TraceBodyHashMismatch
    )
}

const fn says(code: FindingCode) -> &'static str {
    match code {
        FindingCode::TraceEventHashNotFound => "have a receipt for an event that does not exist",
        FindingCode::TraceBodyHashMismatch => "have a receipt for another body than the one that passed",
        FindingCode::TraceAgentMismatch => "have a receipt that belongs to another agent",
        FindingCode::TraceSessionMismatch => "have a receipt that belongs to another session",
        FindingCode::TraceReceiptReplay => "show a receipt that was shown before",
        FindingCode::TraceReceiptMissing => "have no receipt; pass on the one that the gateway gave with the answer",
        _ => "have a receipt that the monitor did not sign for this",
    }
}

/// Where trace lines stand, and the calls that they may be about.
struct Place<'s, 'a> {
    agent: &'s AgentId,
    session: &'s Session,
    records: &'a [EventRecord],
    /// The session that it goes on with, also where that began before the window.
    previous: Option<SessionId>,
    /// The events of both.
    events: BTreeMap<u64, &'a EventRecord>,
}

impl<'a> Place<'_, 'a> {
    fn has_calls(&self) -> bool {
        self.events.values().any(|record| matches!(record.fields, Some(Fields::LlmRequest(_))))
    }

    fn judge(&self, keys: &Keys<'_>, shown: &mut BTreeSet<(u8, Digest)>) -> Vec<Judged<'a>> {
        let mut judged = Vec::new();
        for record in self.records {
            let Some(Fields::TraceLines(traces)) = &record.fields else { continue };
            for line in &traces.lines {
                let (worth, named) = self.worth(keys, line);
                let replayed = named.is_some_and(|named| !shown.insert((use_of(line.about), named.hash)));
                let worth = if replayed { Worth::Bad(FindingCode::TraceReceiptReplay) } else { worth };
                judged.push(Judged { record, about: line.about, worth, named });
            }
        }
        judged
    }

    fn worth(&self, keys: &Keys<'_>, line: &TraceLine) -> (Worth, Option<&'a EventRecord>) {
        let bad = |code| (Worth::Bad(code), None);
        let Some(text) = &line.receipt else { return (Worth::Missing, None) };
        let Some(claims) = keys.verify(text) else { return bad(FindingCode::TraceReceiptInvalid) };
        if claims.agent_id != *self.agent {
            return bad(FindingCode::TraceAgentMismatch);
        }
        if claims.session_id != self.session.id && Some(claims.session_id) != self.previous {
            return bad(FindingCode::TraceSessionMismatch);
        }
        let Some(named) = self.events.get(&claims.event_index).copied() else {
            return bad(FindingCode::TraceEventHashNotFound);
        };
        if let Some(finding) = receipt::compare(&claims, keys.origin, named) {
            return bad(finding.code);
        }
        if !fits(line.about, claims.kind) {
            return bad(FindingCode::TraceReceiptInvalid);
        }
        let is_own_id = |id: &String| is_id(named, &self.events, id);
        let agrees = line.agent_id == self.agent.as_str() && line.request_id.as_ref().is_none_or(is_own_id);
        (if agrees { Worth::Valid } else { Worth::Contradicts }, Some(named))
    }
}

/// Within one use a receipt counts once: a check may name the call that it checks.
const fn use_of(about: TraceAbout) -> u8 {
    match about {
        TraceAbout::LlmCall | TraceAbout::LlmResult => 0,
        TraceAbout::VerificationStep => 1,
        TraceAbout::ToolIntent => 2,
        TraceAbout::ToolResult => 3,
    }
}

const fn fits(about: TraceAbout, kind: ReceiptKind) -> bool {
    match about {
        TraceAbout::LlmCall => matches!(kind, ReceiptKind::LlmRequest),
        TraceAbout::LlmResult => matches!(kind, ReceiptKind::LlmResponse),
        TraceAbout::ToolIntent | TraceAbout::ToolResult | TraceAbout::VerificationStep => true,
    }
}

/// Whether a request's id is the gateway's, or the one that the client chose.
fn is_id(named: &EventRecord, by_index: &BTreeMap<u64, &EventRecord>, id: &str) -> bool {
    let request = match &named.fields {
        Some(Fields::LlmRequest(request)) => Some(request),
        Some(Fields::LlmResponse(response)) => {
            by_index.get(&response.request_index).and_then(|record| match &record.fields {
                Some(Fields::LlmRequest(request)) => Some(request),
                _ => None,
            })
        }
        _ => None,
    };
    request.is_some_and(|request| request.request_id == id || request.client_request_id.as_deref() == Some(id))
}

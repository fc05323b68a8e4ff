//! Evidence that was handed in: documents by digest with their expiry, and files of results.
//!
//! It is SELF_REPORTED. A document rises to ATTESTED by the auditor's attestation, which is verified
//! here again: signed by a key of the audit log, for this event, this file and this agent, and not
//! expired. One document counts once, however often it is handed in. Results support nothing above
//! level 3, and a score does not read the files themselves.

use std::collections::BTreeMap;

use amc_core::kinds::{Attested, Fields, IngestType, Ingested, KeyPurpose};
use amc_core::{AgentId, Digest, Finding, FindingCode, Tier};
use amc_crypto::PublicKey;
use amc_crypto::attestation::{self, AttestationPredicate};
use amc_evidence::EventRecord;

use crate::facts::{Fact, day_of, fact_kind};
use crate::gate::Standing;
use crate::select::Window;

/// What stands for the place outside of sessions where evidence is handed in: it cannot fail, and
/// being no session it has no part in any ratio.
pub const STANDING: Standing =
    Standing { failing: false, cosigned: true, day_covered: true, sandboxed: false, outside: true };

/// What was handed in about the agent.
#[derive(Debug, Clone, Default)]
pub struct Reported {
    /// Its facts; their session is the one that was given.
    pub facts: Vec<Fact>,
    /// Attestations that do not hold, and documents that expired.
    pub findings: Vec<Finding>,
}

/// The fact that a document of this type gives.
pub const fn document_fact(ingest_type: IngestType) -> Option<&'static str> {
    Some(match ingest_type {
        IngestType::Charter => "document.charter",
        IngestType::EscalationRule => "document.escalation_rule",
        IngestType::RiskAssessment => "document.risk_assessment",
        IngestType::IncidentReview => "document.incident_review",
        IngestType::Runbook => "document.runbook",
        IngestType::BiasReview => "document.bias_review",
        IngestType::ContinuityPlan => "document.continuity_plan",
        IngestType::DataProtection => "document.data_protection",
        IngestType::Junit | IngestType::Promptfoo | IngestType::InspectAi | IngestType::OtelTrace => return None,
    })
}

/// What is attested, and under which keys.
struct Attestations<'a> {
    entries: BTreeMap<(u64, Digest), Vec<(&'a EventRecord, &'a Attested)>>,
    keys: Vec<PublicKey>,
    log: &'a str,
    agent: &'a AgentId,
    as_of_ns: i64,
}

impl Reported {
    /// From selected records of both logs, sorted by index; `session`: the position that stands for
    /// the place outside of sessions; `log`: the evidence log's origin.
    pub fn new(
        agent: &AgentId,
        log: &str,
        window: Window,
        session: usize,
        evidence: &[EventRecord],
        audit: &[&EventRecord],
    ) -> Self {
        let attestations = Attestations::new(agent, log, window.end_ns, audit);
        let mut findings = Vec::new();
        let mut once: BTreeMap<(IngestType, Digest), Fact> = BTreeMap::new();
        for record in evidence.iter().filter(|record| record.event.wall_ns < window.end_ns) {
            let (Some(Fields::Ingested(ingested)), None) = (&record.fields, record.event.session) else { continue };
            let Some(payload) = record.event.payload.as_ref() else { continue };
            let digest = payload.wire_sha256;
            let found = match document_fact(ingested.ingest_type) {
                Some(_) if ingested.expires_ns.is_none_or(|expires_ns| expires_ns <= window.end_ns) => {
                    findings.push(expired(record, ingested));
                    None
                }
                Some(id) => {
                    let tier = attestations.tier_of(record, ingested, digest, &mut findings);
                    Some(fact_of(id, true, tier, session, record))
                }
                None if window.contains(record.event.wall_ns) => result_fact(ingested, session, record),
                None => None,
            };
            if let Some(fact) = found {
                let known = once.entry((ingested.ingest_type, digest)).or_insert_with(|| fact.clone());
                if fact.tier > known.tier {
                    *known = fact;
                }
            }
        }
        Reported { facts: once.into_values().collect(), findings }
    }
}

fn result_fact(ingested: &Ingested, session: usize, record: &EventRecord) -> Option<Fact> {
    let counts = ingested.counts?;
    let pass = counts.failed == 0 && counts.passed > 0;
    let id = if ingested.ingest_type == IngestType::OtelTrace { "trace.reported" } else { "test.suite" };
    Some(fact_of(id, pass, Tier::SelfReported, session, record))
}

fn fact_of(id: &str, pass: bool, tier: Tier, session: usize, record: &EventRecord) -> Fact {
    let kind = fact_kind(id).expect("facts of reports are registered, and a test makes each of them");
    let event = &record.event;
    let day = day_of(event.wall_ns);
    let events = vec![event.index].into();
    Fact { id: kind.id, pass, tier, session, day, wall_ns: event.wall_ns, events, times: 1 }
}

fn expired(record: &EventRecord, ingested: &Ingested) -> Finding {
    let what = format!(
        "the {} {:?} has expired and counts no more; hand in the current one with `amc ingest`",
        ingested.ingest_type, ingested.name
    );
    Finding::info(FindingCode::AttestationMissing, format!("evidence#{}", record.event.index), what)
}

impl<'a> Attestations<'a> {
    fn new(agent: &'a AgentId, log: &'a str, as_of_ns: i64, audit: &[&'a EventRecord]) -> Self {
        let mut entries: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut keys = Vec::new();
        for record in audit.iter().copied() {
            match &record.fields {
                Some(Fields::LogOpened(opened)) => keys.extend(PublicKey::from_bytes(&opened.log_public.0)),
                Some(Fields::KeyRotated(rotated)) if rotated.purpose == KeyPurpose::Log => {
                    keys.extend(PublicKey::from_bytes(&rotated.public.0));
                }
                Some(Fields::Attested(attested)) if attested.agent == *agent && attested.log == log => {
                    entries.entry((attested.index, attested.event_hash)).or_default().push((record, attested));
                }
                _ => {}
            }
        }
        Attestations { entries, keys, log, agent, as_of_ns }
    }

    /// ATTESTED where an attestation of this event holds; what is wrong with others is found.
    fn tier_of(&self, record: &EventRecord, ingested: &Ingested, digest: Digest, findings: &mut Vec<Finding>) -> Tier {
        let wanted = AttestationPredicate {
            log: self.log.to_owned(),
            index: record.event.index,
            agent: self.agent.clone(),
            ingest_type: ingested.ingest_type.to_string(),
            payload_sha256: digest,
            expires: String::new(),
        };
        let entries = self.entries.get(&(record.event.index, record.hash)).map_or(&[][..], Vec::as_slice);
        let mut tier = Tier::SelfReported;
        for (entry, fields) in entries {
            let subject = format!("audit#{}", entry.event.index);
            match attestation::verify(fields.envelope.as_bytes(), &wanted, record.hash, &self.keys) {
                Ok(expires_ns) if expires_ns != fields.expires_ns => {
                    let what = "the attestation's entry names another expiry than the signed statement";
                    findings.push(Finding::warn(FindingCode::AttestationInvalid, subject, what));
                }
                Ok(expires_ns) if expires_ns > self.as_of_ns => tier = Tier::Attested,
                Ok(_) => {
                    let what = "the attestation has expired; attest the evidence again";
                    findings.push(Finding::info(FindingCode::AttestationMissing, subject, what));
                }
                Err(error) => findings.push(Finding::warn(FindingCode::AttestationInvalid, subject, error.to_string())),
            }
        }
        tier
    }
}

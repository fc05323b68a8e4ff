//! The run: events in, report out.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::kinds::{Fields, KeyPurpose, LogHead, SessionPurpose};
use amc_core::timestamp::to_rfc3339;
use amc_core::{AgentId, Digest, Finding, FindingCode, RunId, Tier, WorkspaceName, codec};
use amc_evidence::{EventRecord, VerifiedEvent};

use crate::bank::{Bank, Tag};
use crate::caps::Circumstances;
use crate::claims::{Claims, Target};
use crate::coalesce::{Collector, best_wanted};
use crate::configs::Configs;
use crate::correlate::{Keys, RATIO_BP_MIN};
use crate::facts::Fact;
use crate::gate::Standing;
use crate::integrity::{Counts, integrity, label};
use crate::judge::{Judge, Judged, Known, OwnKey, note_own_key};
use crate::report::{
    ArtifactUse, BankRef, Correlation, EarlierRun, EpochResult, QuestionResult, REPORT_VERSION, Report, Status,
};
use crate::reported::{self, Reported};
use crate::select::{Selected, Selector, Window, clock_span, select_audit};
use crate::sessions::{Boundary, Outcome, Session, Surroundings, Witnessed, stepped_days};
use crate::source::{EvidenceSource, SourceError};
use crate::summary::{fact_summaries, layers, mean, session_result, target_ref, timeline};
use crate::upstreams::Upstreams;
use crate::{SCORER, actions, question};

/// Everything that a score depends on. Nothing else changes a byte of the report.
#[derive(Clone)]
pub struct ScoreInput<'a> {
    /// The workspace.
    pub workspace: &'a WorkspaceName,
    /// The agent.
    pub agent: &'a AgentId,
    /// The slice of the evidence log: events from its size on are ignored.
    pub evidence_head: LogHead,
    /// The slice of the audit log: events from its size on are ignored.
    pub audit_head: LogHead,
    /// The whole slice, or exactly what [`Selector`] selects of it. It is read twice.
    pub evidence: &'a dyn EvidenceSource,
    /// The whole slice, or exactly what [`select_audit`] names, in any order.
    pub audit: &'a [VerifiedEvent],
    /// The bank in force.
    pub bank: &'a Bank,
    /// The end of the window (exclusive), nanoseconds since the epoch.
    pub as_of_ns: i64,
    /// The window's length in seconds.
    pub window_s: u64,
    /// What is claimed, if anything.
    pub claims: Option<&'a Claims>,
    /// What is aimed at, if anything.
    pub target: Option<&'a Target>,
}

/// Scores a run. The same input gives the same bytes, whatever the order of the events.
///
/// # Errors
/// The events could not be read.
pub fn score(input: &ScoreInput<'_>) -> Result<Report, SourceError> {
    let ScoreInput { agent, as_of_ns, window_s, .. } = *input;
    let selected = Selector::new(agent, as_of_ns, window_s).select(input.evidence, input.evidence_head.size)?;
    score_selected(input, &selected)
}

/// The second of the two readings, where the first has given the selection already ([`Selector::select`]).
///
/// # Errors
/// The events could not be read.
pub fn score_selected(input: &ScoreInput<'_>, selected: &Selected<'_>) -> Result<Report, SourceError> {
    let window = Window::new(input.as_of_ns, input.window_s);
    let size = input.evidence_head.size;
    let outside = selected.outside.as_slice();
    let audit = slice(input.audit, input.audit_head.size, |records| select_audit(input.agent, records));
    let log = input.evidence_head.origin.as_str();
    let epochs = epochs(&audit, &input.evidence_head);
    let around = Surroundings {
        as_of_ns: window.end_ns,
        witnessed: Witnessed::new(log, audit.iter().copied()),
        stepped: stepped_days(outside),
        epoch: epochs.iter().map(|epoch| epoch.from_index).max().unwrap_or(0),
    };
    let configs = Configs::new(outside, &audit);
    let (keys, upstreams) = (Keys::new(log, outside), Upstreams::new(outside));
    let revoked = Revoked::of(log, &mut outside.iter(), &mut audit.iter().copied());
    let mut bad_index = outside.iter().map(|record| record.event.index).find(|index| revoked.signed(*index));
    let head = selected.head.as_ref().map(|(index, _)| *index).filter(|index| revoked.signed(*index));
    bad_index = bad_index.into_iter().chain(head).min();

    let known = Known {
        agent: input.agent,
        selected,
        around: &around,
        configs: &configs,
        keys: &keys,
        limits: &input.bank.limits,
        upstreams: &upstreams,
    };
    let mut judge = Judge::new(known, Collector::new(input.as_of_ns, best_wanted(input.bank)));
    input.evidence.read(&mut |event| {
        let Some(session) = event.event.session.filter(|_| event.event.index < size) else { return };
        if selected.contains(&event) {
            if revoked.signed(event.event.index) {
                bad_index = Some(bad_index.map_or(event.event.index, |known| known.min(event.event.index)));
            }
            judge.take(session, event);
        }
    })?;
    let (judged, facts) = judge.finish();

    let reported = Reported::new(input.agent, log, window, judged.sessions.list.len(), outside, &audit);
    let mut facts = facts.finish();
    facts.extend(reported.facts);
    facts.sort_unstable();
    let findings = [judged.findings.as_slice(), &judged.correlated.findings, &reported.findings].concat();
    let mut run = Run { input, window, outside, audit, judged, configs, epochs, facts, findings, bad_index };
    Ok(run.report())
}

/// The events of a slice that count, by index, each once.
fn slice<'a>(
    events: &'a [VerifiedEvent],
    size: u64,
    select: impl FnOnce(&mut dyn Iterator<Item = &'a EventRecord>) -> BTreeSet<u64>,
) -> Vec<&'a EventRecord> {
    let within = || events.iter().map(|event| &**event).filter(move |record| record.event.index < size);
    let chosen = select(&mut within());
    let mut records: Vec<&EventRecord> = within().filter(|record| chosen.contains(&record.event.index)).collect();
    records.sort_by(|a, b| a.event.index.cmp(&b.event.index).then(a.hash.cmp(&b.hash)));
    records.dedup_by_key(|record| record.event.index);
    records
}

struct Run<'a> {
    input: &'a ScoreInput<'a>,
    window: Window,
    /// What is selected outside of sessions.
    outside: &'a [EventRecord],
    audit: Vec<&'a EventRecord>,
    judged: Judged,
    configs: Configs<'a>,
    epochs: Vec<EpochResult>,
    facts: Vec<Fact>,
    findings: Vec<Finding>,
    /// The first event that was signed by a key after its revocation.
    bad_index: Option<u64>,
}

impl Run<'_> {
    fn report(&mut self) -> Report {
        let bank = self.input.bank;
        let log_fails = self.revoked_keys();
        let missing = self.session_findings();
        let bad_sessions = missing + self.judged.sessions.list.iter().filter(|session| session.counts_as_bad()).count();
        let clock_events = self.clock_findings();
        let own_keys = self.key_findings();
        self.findings.extend(self.configs.findings(self.window.start_ns));
        let upstreams = std::mem::take(&mut self.judged.upstreams).finish();
        let models = std::mem::take(&mut self.judged.models).finish();
        let now = Circumstances {
            config_broken: !self.configs.broken().is_empty(),
            cherry_picking: missing > 0 || self.any_session(is_unsealed),
            route_past_gateway: own_keys
                || self.judged.past_gateway
                || self.any_session(|session| session.provider_key_reached && !session.before_epoch),
            llm_evidence: !upstreams.is_empty(),
            correlation_bp: self.judged.correlated.ratio_bp(),
            forged_receipt: self.judged.correlated.forged,
            packs: BTreeMap::new(),
        };
        let unproven = self.boundary_findings();
        let questions = self.questions(&now);
        let packs_named: BTreeSet<&String> = bank.questions.iter().flat_map(|question| &question.packs).collect();
        let counts = Counts {
            broken_configs: self.configs.broken().iter().map(|load| load.fields.path.clone()).collect(),
            unsupported_claims: self.count(FindingCode::FlagUnsupportedClaim),
            packs_not_run: packs_named.iter().filter(|pack| !now.packs.contains_key(**pack)).count() as u64,
            bad_sessions: bad_sessions as u64,
            clock_events,
            contradictions: self.judged.correlated.contradictions,
            bad_receipts: self.judged.correlated.bad_receipts,
            correlation_low: now.correlation_bp.is_some_and(|ratio_bp| ratio_bp < RATIO_BP_MIN),
            llm_evidence_missing: self.judged.correlated.unseen_sessions,
            egress_blocked: self.judged.egress_blocked,
        };
        let (integrity_bp, breakdown) = integrity(self.coverage_bp(), &counts, log_fails);
        let status = if log_fails || unproven { Status::Invalid } else { Status::Valid };
        let layers = layers(&questions);
        let overall_bp = mean(layers.iter().map(|layer| layer.level_bp));
        self.findings.sort_by(|a, b| order(a).cmp(&order(b)));
        self.findings.dedup();
        let mut report = Report {
            report_version: REPORT_VERSION,
            scorer: SCORER.to_owned(),
            run_id: self.run_id(),
            workspace: self.input.workspace.clone(),
            agent: self.input.agent.clone(),
            as_of: to_rfc3339(self.input.as_of_ns),
            window_s: self.input.window_s,
            evidence: self.input.evidence_head.clone(),
            audit: self.input.audit_head.clone(),
            bank: BankRef { id: bank.id.clone(), version: bank.version, sha256: bank.sha256 },
            claims_sha256: self.input.claims.map(|claims| claims.sha256),
            target: self.input.target.map(|target| target_ref(target, &questions)),
            status,
            label: label(integrity_bp, status, self.has_config_finding(), self.mostly_observed()),
            overall_bp,
            integrity_bp,
            integrity: breakdown,
            layers,
            questions,
            findings: std::mem::take(&mut self.findings),
            sessions: self.judged.sessions.list.iter().map(session_result).collect(),
            sessions_before: self.judged.sessions.number_before,
            artifacts: self.artifacts(),
            upstreams,
            models,
            correlation: Correlation {
                applicable: self.judged.correlated.lines > 0,
                lines: self.judged.correlated.lines,
                valid: self.judged.correlated.valid,
                ratio_bp: self.judged.correlated.ratio_bp().unwrap_or(0),
            },
            facts: fact_summaries(&self.facts),
            timeline: timeline(&self.facts),
            epochs: std::mem::take(&mut self.epochs),
            earlier_runs: self.earlier_runs(),
            next_actions: Vec::new(),
        };
        report.next_actions = actions::next_actions(&report, bank);
        report
    }

    /// The id of a run is a digest of its inputs, so the same run has the same id everywhere.
    fn run_id(&self) -> RunId {
        let input = self.input;
        let bytes = codec::encode(&(
            (SCORER, input.workspace, input.agent, input.as_of_ns, input.window_s),
            (&input.evidence_head, &input.audit_head, input.bank.sha256),
            (input.claims.map(|claims| claims.sha256), input.target.map(|target| target.sha256)),
        ));
        let digest = amc_crypto::sha256(&[b"amc/run/v1\n", bytes.as_slice()].concat());
        RunId::new(format!("run-{}", &digest.to_string()[..32])).expect("32 hex digits after run- are a run id")
    }

    fn questions(&mut self, now: &Circumstances) -> Vec<QuestionResult> {
        let standings: Vec<Standing> =
            self.judged.sessions.list.iter().map(standing).chain([reported::STANDING]).collect();
        let blocker = self.blocker();
        let mut results = Vec::with_capacity(self.input.bank.questions.len());
        for asked in &self.input.bank.questions {
            let claimed = self.input.claims.and_then(|claims| claims.levels.get(&asked.id).copied());
            let target = self.input.target.and_then(|target| target.levels.get(&asked.id).copied());
            let asked = question::Asked { question: asked, claimed, target };
            let ground = question::Evidence {
                facts: &self.facts,
                sessions: &standings,
                blocker,
                as_of_ns: self.input.as_of_ns,
                circumstances: now,
            };
            let (result, findings) = question::answer(&asked, &ground);
            self.findings.extend(findings);
            results.push(result);
        }
        results
    }

    /// Whether something forbids levels 4 and 5 everywhere.
    fn blocker(&self) -> bool {
        let invalid = |load: &crate::configs::Load<'_>| load.fields.state == amc_core::kinds::ConfigState::Invalid;
        self.configs.broken().iter().any(invalid)
            || self.any_session(|session| matches!(session.boundary, Boundary::Violated(_)) && !session.before_epoch)
            || self.judged.correlated.forged
    }

    fn any_session(&self, wanted: impl Fn(&Session) -> bool) -> bool {
        self.judged.sessions.list.iter().any(wanted)
    }

    fn count(&self, code: FindingCode) -> u64 {
        self.findings.iter().filter(|finding| finding.code == code).count() as u64
    }

    fn coverage_bp(&self) -> u32 {
        let best = |question: &crate::bank::Question| {
            let high_risk = question.is(Tag::HighRisk);
            let facts = question::named(question, &self.facts);
            let tiers = facts.filter_map(|fact| crate::facts::weigh(fact, self.input.as_of_ns, high_risk));
            tiers.map(|weighed| weighed.tier).max().map_or(0, |tier| tier.weight_bp().min(10_000))
        };
        mean(self.input.bank.questions.iter().map(best))
    }

    fn mostly_observed(&self) -> bool {
        let observed: u64 = self.facts.iter().filter(|fact| fact.tier >= Tier::Observed).map(|fact| fact.times).sum();
        let all: u64 = self.facts.iter().map(|fact| fact.times).sum();
        all > 0 && observed * 2 >= all
    }

    fn has_config_finding(&self) -> bool {
        self.findings.iter().any(|finding| {
            use FindingCode as Code;
            let config = matches!(
                finding.code,
                Code::ConfigUnsigned | Code::ConfigSignatureInvalid | Code::ConfigVersionRollback | Code::ConfigStale
            );
            config && finding.severity > amc_core::Severity::Info
        })
    }

    /// Whether an event of either slice was signed by a key after the other role revoked it.
    fn revoked_keys(&mut self) -> bool {
        let origin = self.input.audit_head.origin.as_str();
        let revoked = Revoked::of(origin, &mut self.audit.iter().copied(), &mut self.outside.iter());
        let mut audit = self.audit.iter().map(|record| record.event.index);
        let found = [("evidence", self.bad_index), ("audit", audit.find(|index| revoked.signed(*index)))];
        let finding = |(name, bad): (&str, Option<u64>)| {
            let what = "this event was signed by a key after its revocation; nothing from here on counts and the run is INVALID";
            Some(Finding::error(FindingCode::KeyRevoked, format!("{name}#{}", bad?), what))
        };
        let found: Vec<Finding> = found.into_iter().filter_map(finding).collect();
        let fails = !found.is_empty();
        self.findings.extend(found);
        fails
    }

    /// Findings about sessions; gives the number of missing ones.
    fn session_findings(&mut self) -> usize {
        let missing = self.judged.sessions.missing();
        if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
            let what = format!(
                "{} or more of the agent's session numbers are missing or out of order (from {first} to {last}); \
                 a run counts every session, so no question goes above level 3",
                missing.len()
            );
            self.findings.push(Finding::warn(FindingCode::CherryPickGap, format!("session {first}"), what));
        }
        for session in self.judged.sessions.list.iter().filter(|session| is_unsealed(session)) {
            let what = format!(
                "session {} (number {}) has no seal a day after it opened; it counts as failing, and no question goes \
                 above level 3",
                session.id, session.open.number
            );
            let subject = format!("evidence#{}", session.open_index);
            self.findings.push(Finding::warn(FindingCode::SessionUnsealed, subject, what));
        }
        for record in self.outside {
            if let Some(Fields::LogRecovered(recovered)) = &record.fields {
                let what = format!("the log was opened after a crash; {} bytes were cut", recovered.bytes_cut);
                let subject = format!("evidence#{}", record.event.index);
                self.findings.push(Finding::info(FindingCode::LedgerRecovered, subject, what));
            }
        }
        missing.len()
    }

    fn clock_findings(&mut self) -> u64 {
        let mut count = 0;
        for record in self.outside {
            if clock_span(record).is_none() {
                continue;
            }
            count += 1;
            let what = match &record.fields {
                Some(Fields::ClockStep(step)) => {
                    format!(
                        "the wall clock moved by {} ns against the boot clock; its days do not count",
                        step.delta_ns
                    )
                }
                Some(Fields::ClockRollback(back)) => {
                    format!("the wall clock went back by {} ns; its days do not count", back.by_ns)
                }
                _ => continue,
            };
            let subject = format!("evidence#{}", record.event.index);
            self.findings.push(Finding::warn(FindingCode::ClockRollback, subject, what));
        }
        count
    }

    /// Findings about keys of its own that the agent sent; whether there were any.
    fn key_findings(&mut self) -> bool {
        let mut keys = std::mem::take(&mut self.judged.own_keys);
        for record in self.outside.iter().filter(|record| record.event.session.is_none()) {
            if let Some(Fields::AgentKeyIgnored(ignored)) = &record.fields {
                note_own_key(&mut keys, &ignored.provider, usize::MAX, record.event.index);
            }
        }
        for (provider, OwnKey { index, times, .. }) in &keys {
            let what = format!(
                "the agent sent a key of its own for {provider}, {times} time(s); it was not used, but a provider key is \
                 within the agent's reach: take it away, so that no route leads past the gateway"
            );
            let subject = format!("evidence#{index}");
            self.findings.push(Finding::warn(FindingCode::AgentProvidedKeyIgnored, subject, what));
        }
        !keys.is_empty()
    }

    /// Findings about the trust boundary; whether it is unproven for any counted session.
    fn boundary_findings(&mut self) -> bool {
        let mut unproven = false;
        for session in self.judged.sessions.list.iter().filter(|session| session.is_work()) {
            let (id, number) = (session.id, session.open.number);
            let (code, index, what) = match session.boundary {
                Boundary::Proven => continue,
                Boundary::Violated(index) => (
                    FindingCode::TrustBoundaryViolated,
                    index,
                    format!(
                        "the agent of session {id} (number {number}) could reach what it must never reach ({}); the \
                         run is INVALID",
                        session.reached
                    ),
                ),
                Boundary::Shared(index) => (
                    FindingCode::TrustBoundaryUnproven,
                    index,
                    format!(
                        "amc.yaml declared trustBoundaryMode: shared for session {id} (number {number}), so the run is \
                         INVALID by declaration; where the boundary is real, set isolated and sign amc.yaml"
                    ),
                ),
                Boundary::Unproven => (
                    FindingCode::TrustBoundaryUnproven,
                    session.open_index,
                    format!(
                        "nobody probed what the agent of session {id} (number {number}) can reach, so its evidence \
                         cannot be told from its own inventions; the run is INVALID"
                    ),
                ),
            };
            unproven = true;
            self.findings.push(Finding::error(code, format!("evidence#{index}"), what));
        }
        unproven
    }

    fn artifacts(&self) -> Vec<ArtifactUse> {
        let mut uses: BTreeMap<Option<Digest>, ArtifactUse> = BTreeMap::new();
        for session in self.judged.sessions.list.iter().filter(|session| session.is_work()) {
            let number = session.open.number;
            let sha256 = session.open.artifact;
            let first = ArtifactUse { sha256, sessions: 0, first_session: number, last_session: number };
            let entry = uses.entry(sha256).or_insert(first);
            entry.sessions += 1;
            entry.first_session = number.min(entry.first_session);
            entry.last_session = number.max(entry.last_session);
        }
        uses.into_values().collect()
    }

    fn earlier_runs(&self) -> Vec<EarlierRun> {
        let runs = self.audit.iter().filter_map(|record| match &record.fields {
            Some(Fields::RunRecorded(run)) => Some(EarlierRun {
                run_id: run.run_id.clone(),
                index: record.event.index,
                recorded: to_rfc3339(record.event.wall_ns),
                status: run.status.clone(),
                label: run.label.clone(),
                overall_bp: run.overall_bp,
                integrity_bp: run.integrity_bp,
                report_sha256: run.report_sha256,
            }),
            _ => None,
        });
        runs.collect()
    }
}

/// A log's keys by position, and from which index on the other role revoked them.
struct Revoked {
    keys: Vec<(u64, Digest)>,
    revoked: BTreeMap<Digest, u64>,
}

impl Revoked {
    fn of<'e>(
        origin: &str,
        log: &mut dyn Iterator<Item = &'e EventRecord>,
        other_log: &mut dyn Iterator<Item = &'e EventRecord>,
    ) -> Self {
        let key_of = |record: &EventRecord| match &record.fields {
            Some(Fields::LogOpened(opened)) => Some((record.event.index, opened.log_public)),
            Some(Fields::KeyRotated(rotated)) if rotated.purpose == KeyPurpose::Log => {
                Some((record.event.index + 1, rotated.public))
            }
            _ => None,
        };
        let mut revoked: BTreeMap<Digest, u64> = BTreeMap::new();
        for record in other_log {
            if let Some(Fields::KeyRevoked(fields)) = &record.fields
                && fields.purpose == KeyPurpose::Log
                && fields.origin == origin
            {
                let earliest = revoked.entry(fields.public).or_insert(fields.from_index);
                *earliest = fields.from_index.min(*earliest);
            }
        }
        Revoked { keys: log.filter_map(key_of).collect(), revoked }
    }

    /// Whether the event at this index was signed by a key after its revocation.
    fn signed(&self, index: u64) -> bool {
        if self.revoked.is_empty() {
            return false;
        }
        let at = self.keys.partition_point(|(from, _)| *from <= index);
        let key = self.keys[..at].last().map(|(_, key)| key);
        key.and_then(|key| self.revoked.get(key)).is_some_and(|from_index| *from_index <= index)
    }
}

fn standing(session: &Session) -> Standing {
    Standing {
        failing: session.open.purpose == SessionPurpose::Agent && session.outcome.is_failing(),
        cosigned: session.cosigned,
        day_covered: session.day_covered,
        sandboxed: session.sandboxed,
        outside: false,
    }
}

/// Whether the session has no seal after a day, and that counts.
fn is_unsealed(session: &Session) -> bool {
    session.outcome == Outcome::Unsealed && !session.before_epoch
}

/// The auditor's boundary epochs of the agent that lie within the slice, in the order of their entries.
fn epochs(audit: &[&EventRecord], slice: &LogHead) -> Vec<EpochResult> {
    let epochs = audit.iter().filter_map(|record| match &record.fields {
        Some(Fields::BoundaryEpoch(epoch)) if epoch.log == slice.origin && epoch.from_index <= slice.size => {
            Some(EpochResult {
                index: record.event.index,
                recorded: to_rfc3339(record.event.wall_ns),
                from_index: epoch.from_index,
                reason: epoch.reason.clone(),
            })
        }
        _ => None,
    });
    epochs.collect()
}

/// Findings stand worst first, then by code, then by place with indices as numbers.
fn order(finding: &Finding) -> (std::cmp::Reverse<amc_core::Severity>, FindingCode, &str, u64, &str) {
    let (place, index) = finding.subject.split_once('#').unwrap_or((&finding.subject, "0"));
    let index = index.parse().unwrap_or(u64::MAX);
    (std::cmp::Reverse(finding.severity), finding.code, place, index, &finding.message)
}

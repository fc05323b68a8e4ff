//! Detectors: typed event fields in, facts out. Nothing here reads what an agent wrote.
//!
//! Each detector looks at one counted session. The numbers beside the ids in
//! [`FACTS`](crate::facts::FACTS) are the versions of these rules.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::Tier;
use amc_core::kinds::{
    AgentRegistered, ConfigState, EgressTunnel, Fields, ProcessOutput, SessionChannel, SessionPurpose, Stream,
    TraceAbout,
};
use amc_evidence::EventRecord;

use crate::bank::Limits;
use crate::calls::{Call, Calls, Point};
use crate::coalesce::Collector;
use crate::configs::Configs;
use crate::correlate::{Judged, Worth};
use crate::facts::{Fact, day_of, fact_kind};
use crate::sessions::{Boundary, Outcome, Session};

/// Parts of names of variables that carry secrets; such a variable must not pass to an agent.
const SECRET_NAME_PARTS: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "CREDENTIAL"];

/// What a session is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground<'g, 'c> {
    pub(crate) configs: &'g Configs<'c>,
    pub(crate) limits: &'g Limits,
    /// First and last position of each session of the agent's own work in the window.
    pub(crate) work: &'g [(u64, u64)],
}

/// A session with its events, and its position in the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<'s, 'a> {
    pub(crate) session: &'s Session,
    /// All but those that say what the agent printed, and save where correlation needs them its calls.
    pub(crate) records: &'a [EventRecord],
    pub(crate) output: &'a Output,
    pub(crate) egress: &'a Egress,
    pub(crate) position: usize,
    pub(crate) last_index: u64,
}

/// What the events of a session that say what the agent printed come to, whatever their number.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Up to where each stream reached.
    reached: BTreeMap<Stream, u64>,
    /// The first that does not go on where its stream had ended.
    hole: Option<Point>,
    /// The first and the last.
    ends: Option<(Point, Point)>,
}

impl Output {
    /// Takes the next one.
    pub(crate) fn take(&mut self, record: &EventRecord, piece: &ProcessOutput) {
        let point = Point::from(record);
        let expected = self.reached.insert(piece.stream, piece.offset.saturating_add(piece.len)).unwrap_or(0);
        if expected != piece.offset {
            self.hole.get_or_insert(point);
        }
        let (first, _) = self.ends.unwrap_or((point, point));
        self.ends = Some((first, point));
    }
}

/// What the egress proxy saw in a session.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    /// Connections that it refused.
    pub(crate) blocked: Vec<Point>,
    /// The first and the last that it let through.
    passed: Option<(Point, Point)>,
    /// Hosts that the agent reached.
    pub(crate) hosts: BTreeSet<String>,
}

impl Egress {
    /// A connection that was refused.
    pub(crate) fn block(&mut self, record: &EventRecord) {
        self.blocked.push(record.into());
    }

    /// A connection that passed.
    pub(crate) fn pass(&mut self, record: &EventRecord, tunnel: &EgressTunnel) {
        let point = Point::from(record);
        let (first, _) = self.passed.unwrap_or((point, point));
        self.passed = Some((first, point));
        if !self.hosts.contains(&tunnel.host) {
            self.hosts.insert(tunnel.host.clone());
        }
    }
}

/// All facts of a session that counts.
pub(crate) fn detect(
    whole: Whole<'_, '_>,
    ground: Ground<'_, '_>,
    calls: &Calls,
    lines: &[Judged<'_>],
    facts: &mut Collector,
) {
    let Whole { session, records, output, egress, position, last_index } = whole;
    if !session.counted() {
        return;
    }
    let mut found = Found { session, records, output, egress, position, last_index, facts };
    match session.open.purpose {
        SessionPurpose::Agent => {
            found.session_facts();
            found.config_facts(ground.configs);
            found.call_facts(calls, ground.configs);
            found.measured_facts(calls, ground.limits);
            found.key_facts(calls);
            found.egress_facts();
            found.trace_facts(lines);
        }
        SessionPurpose::Test => found.test_facts(ground.work),
        SessionPurpose::Drill => {}
    }
}

struct Found<'s, 'a, 'f> {
    session: &'s Session,
    records: &'a [EventRecord],
    output: &'a Output,
    egress: &'a Egress,
    position: usize,
    last_index: u64,
    facts: &'f mut Collector,
}

/// The tier at which an event counts in this session. A hardened event counts as hardened only
/// under a posture that held at the seal; "attested" counts only with the auditor's verified
/// attestation, and no kind of this release carries one.
fn standing(tier: Tier, session: &Session) -> Tier {
    match tier {
        Tier::ObservedHardened if !session.sandboxed => Tier::Observed,
        Tier::Attested => Tier::SelfReported,
        other => other,
    }
}

impl<'a> Found<'_, 'a, '_> {
    fn add<P: Copy + Into<Point>>(&mut self, id: &str, pass: bool, rests_on: &[P]) {
        self.add_at(id, pass, Tier::ObservedHardened, rests_on);
    }

    fn add_at<P: Copy + Into<Point>>(&mut self, id: &str, pass: bool, tier_at_best: Tier, rests_on: &[P]) {
        let kind = fact_kind(id).expect("detectors emit registered facts only, and a test runs each of them");
        let points = || rests_on.iter().map(|point| Into::<Point>::into(*point));
        let tier = points().map(|point| standing(point.tier, self.session)).min();
        let tier = tier.unwrap_or(self.session.open_tier).min(tier_at_best);
        let newest = points().map(|point| point.wall_ns).max();
        let mut events: Vec<u64> = points().map(|point| point.index).collect();
        events.sort_unstable();
        events.dedup();
        self.facts.push(Fact {
            id: kind.id,
            pass,
            tier,
            session: self.position,
            day: day_of(self.session.open_wall_ns),
            wall_ns: newest.unwrap_or(self.session.open_wall_ns),
            events: events.into(),
            times: 1,
        });
    }

    fn opening(&self) -> &'a EventRecord {
        self.at(self.session.open_index).expect("a session holds its opening")
    }

    fn at(&self, index: u64) -> Option<&'a EventRecord> {
        self.records.iter().find(|record| record.event.index == index)
    }

    fn session_facts(&mut self) {
        let opening = self.opening();
        let sealed = self.session.outcome == Outcome::Sealed;
        let seal = self.session.seal_index.and_then(|index| self.at(index));
        self.add("session.sealed", sealed, &[Some(opening), seal].into_iter().flatten().collect::<Vec<_>>());
        self.add("session.artifact_known", self.session.open.artifact.is_some(), &[opening]);
        let asked = self.session.open.isolation != amc_core::kinds::Isolation::None;
        self.add("session.isolation_asked", asked, &[opening]);
        let wrapped = self.session.open.channel == SessionChannel::Wrapper;
        self.add("session.wrapped", wrapped, &[opening]);
        if wrapped {
            self.process_facts(opening);
        }
        let is_probe = |record: &&EventRecord| matches!(record.fields, Some(Fields::BoundaryProbe(_)));
        let probes: Vec<&EventRecord> = self.records.iter().filter(is_probe).collect();
        if !probes.is_empty() {
            let denied = self.session.boundary == Boundary::Proven;
            self.add("boundary.probe_denied", denied, &[&[opening], probes.as_slice()].concat());
        }
    }

    fn process_facts(&mut self, opening: &'a EventRecord) {
        let (exits, clean) = self.exits();
        // A process that goes on in the next session ends there.
        if !exits.is_empty() || !self.session.is_continued {
            self.add("session.clean_exit", clean, &[&[opening], exits.as_slice()].concat());
        }
        let built = self.records.iter().filter_map(|record| match &record.fields {
            Some(Fields::EnvironmentBuilt(built)) => Some((record, built)),
            _ => None,
        });
        let (records, built): (Vec<_>, Vec<_>) = built.unzip();
        let leaks = built.iter().any(|built| built.passed.iter().any(|name| names_a_secret(name)));
        let clean = !built.is_empty() && !leaks;
        self.add("session.environment_clean", clean, &[&[opening], records.as_slice()].concat());
        self.stream_facts();
    }

    /// The ends of the session's processes, and whether there is one and all have status 0.
    fn exits(&self) -> (Vec<&'a EventRecord>, bool) {
        let exits = self.records.iter().filter_map(|record| match &record.fields {
            Some(Fields::ProcessExit(exit)) => Some((record, exit.code == Some(0))),
            _ => None,
        });
        let (records, clean): (Vec<_>, Vec<bool>) = exits.unzip();
        (records, !clean.is_empty() && clean.into_iter().all(|clean| clean))
    }

    fn stream_facts(&mut self) {
        match (self.output.hole, self.output.ends) {
            (Some(hole), _) => self.add("session.streams_whole", false, &[hole]),
            (None, Some((first, last))) => self.add("session.streams_whole", true, &[first, last]),
            (None, None) => {}
        }
    }

    fn config_facts(&mut self, configs: &Configs<'_>) {
        let opening = self.opening();
        let end = self.session.seal_index.unwrap_or(self.last_index);
        let loads = configs.in_force(self.session.open_index, end);
        if !loads.is_empty() {
            let bad: Vec<_> = loads.iter().filter(|load| load.fields.state != ConfigState::Signed).collect();
            let shown = if bad.is_empty() { loads.iter().collect() } else { bad.clone() };
            let rests_on: Vec<_> = shown.iter().map(|load| load.record).chain([opening]).collect();
            self.add("config.signed", bad.is_empty(), &rests_on);
            if bad.is_empty() {
                let current = loads.iter().all(|load| configs.is_current(load));
                self.add("config.current", current, &rests_on);
            }
        }
        let agent = opening.event.agent.as_ref().map_or("", |agent| agent.as_str());
        let own = |name: &str| format!("agents/{agent}/{name}");
        let (gate, agent_config, targets) = (own("gatePolicy.json"), own("agent.config.yaml"), own("targets/"));
        let opened_ns = self.session.open_wall_ns;
        if let Some(signed) = configs.signed_before(opened_ns, |path| path == gate || path == "gatePolicy.json") {
            self.add_at("policy.gate_signed", true, signed.event.tier, &[opening]);
        }
        if let Some(signed) = configs.signed_before(opened_ns, |path| path == agent_config) {
            self.add_at("policy.agent_config_signed", true, signed.event.tier, &[opening]);
        }
        let target = |path: &str| path.starts_with(&targets) || path.starts_with("targets/");
        if let Some(signed) = configs.signed_before(opened_ns, target) {
            self.add_at("policy.target_signed", true, signed.event.tier, &[opening]);
        }
    }

    fn call_facts(&mut self, calls: &Calls, configs: &Configs<'_>) {
        // Calls come by position, so the last good one of each provider stays.
        let good = calls.iter().filter(|call| call.is_good());
        let recovering: BTreeMap<&str, u64> = good.map(|call| (calls.provider(call), call.request().index)).collect();
        let registered = self.registered().filter(|(_, registered)| !registered.system_prompts.is_empty());
        for call in calls.iter() {
            let points = call.points();
            self.add("llm.exchange", call.is_complete(), &points);
            let index = call.request().index;
            match configs.gateway_signed_at(index, calls.config_version(call)) {
                Some(load) => self.add("llm.route_signed", true, &[call.request(), load.record.into()]),
                None => self.add("llm.route_signed", false, &[call.request()]),
            }
            let prompt = calls.system_prompt(call);
            if let (Some((record, registered)), Some(prompt)) = (&registered, prompt) {
                let known = registered.system_prompts.contains(&prompt);
                self.add("llm.system_prompt_registered", known, &[call.request(), (*record).into()]);
            }
            self.add("llm.system_prompt_present", prompt.is_some(), &[call.request()]);
            if call.is_stream() {
                self.add("llm.stream_complete", call.is_complete(), &points);
            }
            if !call.is_good() {
                let recovered = recovering.get(calls.provider(call)).is_some_and(|good| *good > index);
                self.add("llm.error_recovered", recovered, &points);
            } else {
                self.add("llm.usage_recorded", call.tokens().is_some(), &points);
                if call.calls_tools() {
                    self.add("llm.tool_calls_offered", call.offers_tools(), &points);
                }
                if let (Some(asked), Some(answered)) = (calls.asked(call), calls.answered(call)) {
                    self.add("llm.model_as_asked", is_model(asked, answered), &points);
                }
            }
        }
    }

    fn measured_facts(&mut self, calls: &Calls, limits: &Limits) {
        let (Some(first), Some(last)) = (calls.iter().next(), calls.iter().next_back()) else { return };
        let ends = [first.request(), last.request()];
        let failed = calls.iter().filter(|call| !call.is_good()).count() as u64;
        let total = calls.iter().len() as u64;
        self.add("error_rate.session", failed * 10_000 <= total * u64::from(limits.error_rate_bp_max), &ends);
        let answered = || calls.iter().filter(|call| call.is_complete());
        let whole = answered().count() as u64;
        if whole > 0 {
            let limit_us = limits.first_byte_ms_max.saturating_mul(1_000);
            let quick = answered().filter(|call| call.first_byte_us() <= limit_us).count() as u64;
            let share = u64::from(limits.first_byte_share_bp_min);
            self.add("latency.session", quick * 10_000 >= whole * share, &ends);
        }
        let mut good = calls.iter().filter(|call| call.is_good()).peekable();
        if good.peek().is_some() {
            let add = |sum: u64, call: &Call| Some(sum.saturating_add(call.tokens()?));
            if let Some(tokens) = good.try_fold(0u64, add) {
                self.add("budget.session", tokens <= limits.session_tokens_max, &ends);
            }
        }
    }

    fn key_facts(&mut self, calls: &Calls) {
        for (point, _) in calls.own_keys() {
            self.add("llm.lease_only", false, &[point]);
        }
        if let Some(call) = calls.iter().next().filter(|_| calls.own_keys().next().is_none()) {
            self.add("llm.lease_only", true, &[self.opening().into(), call.request()]);
        }
    }

    /// A suite's word is its owner's, unless the signed agent configuration names its command and its
    /// executable, and no session of the agent was open that could have touched it.
    fn test_facts(&mut self, work: &[(u64, u64)]) {
        let opening = self.opening();
        let (exits, clean) = self.exits();
        let passed = clean && self.session.outcome == Outcome::Sealed;
        let mut records = [&[opening], exits.as_slice()].concat();
        let named = self.registered().filter(|(_, registered)| {
            let open = &self.session.open;
            registered.suites.iter().any(|suite| suite.argv == open.argv && Some(suite.artifact) == open.artifact)
        });
        let own = (self.session.open_index, self.session.seal_index.unwrap_or(u64::MAX));
        let alone = !work.iter().any(|other| overlap(*other, own));
        match named.filter(|_| alone) {
            Some((registered, _)) => {
                records.push(registered);
                self.add("test.suite", passed, &records);
            }
            None => self.add_at("test.suite", passed, Tier::SelfReported, &records),
        }
    }

    /// What the signed agent configuration registered when the session began.
    fn registered(&self) -> Option<(&'a EventRecord, &'a AgentRegistered)> {
        self.records.iter().find_map(|record| match &record.fields {
            Some(Fields::AgentRegistered(registered)) => Some((record, registered)),
            _ => None,
        })
    }

    /// What the egress proxy saw. That nothing else was possible is not said here: a proxy that an
    /// agent may pass by denies nothing, so `egress.default_deny` comes with the sandbox.
    fn egress_facts(&mut self) {
        let Egress { blocked, passed, .. } = self.egress;
        match (blocked.as_slice(), passed) {
            ([], None) => {}
            ([], Some((first, last))) => self.add("egress.allowed_only", true, &[*first, *last]),
            (blocked, _) => self.add("egress.allowed_only", false, blocked),
        }
    }

    fn trace_facts(&mut self, lines: &[Judged<'_>]) {
        for line in lines {
            let id = match line.about {
                TraceAbout::LlmCall | TraceAbout::LlmResult => "trace.correlated",
                TraceAbout::VerificationStep => "trace.verified",
                TraceAbout::ToolIntent | TraceAbout::ToolResult => continue,
            };
            let rests_on: Vec<_> = [Some(line.record), line.named].into_iter().flatten().collect();
            match line.worth {
                Worth::Valid => self.add(id, true, &rests_on),
                Worth::Bad(_) | Worth::Contradicts => self.add(id, false, &rests_on),
                Worth::Missing => {}
            }
        }
    }
}

/// Whether two sessions were open at the same time.
const fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_NAME_PARTS.iter().any(|part| name.contains(part))
}

/// Whether the model that answered is the one asked for, or a dated or tagged edition of it.
fn is_model(asked: &str, answered: &str) -> bool {
    !asked.is_empty()
        && answered.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', ':', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edition_is_the_model_and_a_sibling_is_not() {
        assert!(is_model("m-4", "m-4"));
        assert!(is_model("m-4", "m-4-2026-01-01"));
        assert!(!is_model("m-4", "m-4o"));
        assert!(!is_model("m-4", "m-3"));
        assert!(!is_model("", "m-4"));
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        assert!(names_a_secret("OPENAI_API_KEY") && names_a_secret("github_token") && names_a_secret("PGPASSWORD"));
        assert!(!names_a_secret("PATH") && !names_a_secret("LANG"));
    }
}

//! Detectors: typed event fields in, facts out. Nothing here reads what an agent wrote.
//!
//! Each detector looks at one counted session. The numbers beside the ids in
//! [`FACTS`](crate::facts::FACTS) are the versions of these rules.

use std::collections::BTreeMap;

use amc_core::Tier;
use amc_core::kinds::{
    AgentKeyIgnored, AgentRegistered, CallOutcome, ConfigState, Fields, LlmRequest, LlmResponse, ProcessOutput,
    SessionChannel, SessionPurpose, Stream, TraceAbout,
};
use amc_evidence::EventRecord;

use crate::bank::Limits;
use crate::coalesce::Collector;
use crate::configs::Configs;
use crate::correlate::{Judged, Worth};
use crate::facts::{Fact, day_of, fact_kind};
use crate::sessions::{Boundary, Outcome, Session};

/// Parts of names of variables that carry secrets; such a variable must not pass to an agent.
const SECRET_NAME_PARTS: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "CREDENTIAL"];

/// A call: the request and the last answer to it.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The request's event.
    pub request_record: &'a EventRecord,
    /// The request.
    pub request: &'a LlmRequest,
    /// The answer and its event.
    pub response: Option<(&'a EventRecord, &'a LlmResponse)>,
}

impl Exchange<'_> {
    /// Whether the answer arrived whole, whatever its status.
    pub fn is_complete(&self) -> bool {
        self.response.is_some_and(|(_, response)| response.outcome == CallOutcome::Complete)
    }

    /// Whether it arrived whole and with a status of success.
    pub fn is_good(&self) -> bool {
        self.is_complete() && self.response.is_some_and(|(_, response)| (200..300).contains(&response.status))
    }

    fn records(&self) -> Vec<&EventRecord> {
        let answer = self.response.map(|(record, _)| record);
        [Some(self.request_record), answer].into_iter().flatten().collect()
    }
}

/// The calls of a session, by position.
pub fn exchanges(records: &[EventRecord]) -> Vec<Exchange<'_>> {
    let mut calls: BTreeMap<u64, Exchange<'_>> = BTreeMap::new();
    for record in records {
        match &record.fields {
            Some(Fields::LlmRequest(request)) => {
                calls.insert(record.event.index, Exchange { request_record: record, request, response: None });
            }
            Some(Fields::LlmResponse(response)) => {
                // Answers come after their request, later attempts after earlier ones.
                let call = calls.get_mut(&response.request_index);
                if let Some(call) = call.filter(|call| call.request.request_id == response.request_id) {
                    call.response = Some((record, response));
                }
            }
            _ => {}
        }
    }
    calls.into_values().collect()
}

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
    /// All but those that say what the agent printed.
    pub(crate) records: &'a [EventRecord],
    pub(crate) output: &'a Output,
    pub(crate) position: usize,
    pub(crate) last_index: u64,
}

/// What the events of a session that say what the agent printed come to, whatever their number.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// How many there are.
    pub(crate) pieces: u64,
    /// Up to where each stream reached.
    reached: BTreeMap<Stream, u64>,
    /// The first that does not go on where its stream had ended.
    hole: Option<EventRecord>,
    first: Option<EventRecord>,
    last: Option<EventRecord>,
}

impl Output {
    /// Takes the next one.
    pub(crate) fn take(&mut self, record: EventRecord) {
        let Some(Fields::ProcessOutput(ProcessOutput { stream, offset, len })) = &record.fields else { return };
        let expected = self.reached.insert(*stream, offset.saturating_add(*len)).unwrap_or(0);
        if expected != *offset {
            self.hole.get_or_insert_with(|| record.clone());
        }
        self.first.get_or_insert_with(|| record.clone());
        self.last = Some(record);
        self.pieces += 1;
    }
}

/// All facts of a session that counts.
pub(crate) fn detect(
    whole: Whole<'_, '_>,
    ground: Ground<'_, '_>,
    calls: &[Exchange<'_>],
    lines: &[Judged<'_>],
    facts: &mut Collector,
) {
    let Whole { session, records, output, position, last_index } = whole;
    if !session.counted() {
        return;
    }
    let mut found = Found { session, records, output, position, last_index, facts };
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
    fn add(&mut self, id: &str, pass: bool, rests_on: &[&EventRecord]) {
        self.add_at(id, pass, Tier::ObservedHardened, rests_on);
    }

    fn add_at(&mut self, id: &str, pass: bool, tier_at_best: Tier, rests_on: &[&EventRecord]) {
        let kind = fact_kind(id).expect("detectors emit registered facts only, and a test runs each of them");
        let tiers = rests_on.iter().map(|record| standing(record.event.tier, self.session));
        let tier = tiers.min().unwrap_or(self.session.open_tier).min(tier_at_best);
        let newest = rests_on.iter().map(|record| record.event.wall_ns).max();
        let mut events: Vec<u64> = rests_on.iter().map(|record| record.event.index).collect();
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
        let Output { hole, first, last, .. } = self.output;
        match (hole, first, last) {
            (Some(hole), ..) => self.add("session.streams_whole", false, &[hole]),
            (None, Some(first), Some(last)) => self.add("session.streams_whole", true, &[first, last]),
            (None, ..) => {}
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

    fn call_facts(&mut self, calls: &[Exchange<'_>], configs: &Configs<'_>) {
        let mut recovering: BTreeMap<&str, u64> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.is_good()) {
            let newest = recovering.entry(call.request.provider.as_str()).or_insert(call.request_record.event.index);
            *newest = call.request_record.event.index.max(*newest);
        }
        let registered = self.registered().filter(|(_, registered)| !registered.system_prompts.is_empty());
        for call in calls {
            let records = call.records();
            self.add("llm.exchange", call.is_complete(), &records);
            let index = call.request_record.event.index;
            match configs.gateway_signed_at(index, call.request.config_version) {
                Some(load) => self.add("llm.route_signed", true, &[call.request_record, load.record]),
                None => self.add("llm.route_signed", false, &[call.request_record]),
            }
            if let (Some((record, registered)), Some(prompt)) = (&registered, call.request.system_prompt_sha256) {
                let known = registered.system_prompts.contains(&prompt);
                self.add("llm.system_prompt_registered", known, &[call.request_record, *record]);
            }
            self.add("llm.system_prompt_present", call.request.system_prompt_sha256.is_some(), &[call.request_record]);
            if call.request.stream {
                self.add("llm.stream_complete", call.is_complete(), &records);
            }
            if !call.is_good() {
                let recovered = recovering.get(call.request.provider.as_str()).is_some_and(|good| *good > index);
                self.add("llm.error_recovered", recovered, &records);
            }
            if let Some((_, response)) = call.response.filter(|_| call.is_good()) {
                self.add("llm.usage_recorded", response.usage.is_some(), &records);
                if response.tool_calls > 0 {
                    self.add("llm.tool_calls_offered", call.request.tools_offered > 0, &records);
                }
                if let (Some(asked), Some(answered)) = (&call.request.model, &response.model) {
                    self.add("llm.model_as_asked", is_model(asked, answered), &records);
                }
            }
        }
    }

    fn measured_facts(&mut self, calls: &[Exchange<'_>], limits: &Limits) {
        let answered: Vec<_> =
            calls.iter().filter(|call| call.is_complete()).filter_map(|call| call.response).collect();
        let (Some(first), Some(last)) = (calls.first(), calls.last()) else { return };
        let ends = [first.request_record, last.request_record];
        let failed = calls.iter().filter(|call| !call.is_good()).count() as u64;
        let total = calls.len() as u64;
        self.add("error_rate.session", failed * 10_000 <= total * u64::from(limits.error_rate_bp_max), &ends);
        if !answered.is_empty() {
            let limit_us = limits.first_byte_ms_max.saturating_mul(1_000);
            let quick = answered.iter().filter(|(_, response)| response.first_byte_us <= limit_us).count() as u64;
            let share = u64::from(limits.first_byte_share_bp_min);
            self.add("latency.session", quick * 10_000 >= answered.len() as u64 * share, &ends);
        }
        let good: Vec<_> = calls.iter().filter(|call| call.is_good()).filter_map(|call| call.response).collect();
        let used: Option<Vec<_>> = good.iter().map(|(_, response)| response.usage).collect();
        if let Some(used) = used.filter(|used| !used.is_empty()) {
            let tokens = used
                .iter()
                .fold(0u64, |sum, usage| sum.saturating_add(usage.input_tokens).saturating_add(usage.output_tokens));
            self.add("budget.session", tokens <= limits.session_tokens_max, &ends);
        }
    }

    fn key_facts(&mut self, calls: &[Exchange<'_>]) {
        let own_keys: Vec<_> = own_keys(self.records).map(|(record, _)| record).collect();
        for record in &own_keys {
            self.add("llm.lease_only", false, &[*record]);
        }
        if let Some(call) = calls.first().filter(|_| own_keys.is_empty()) {
            self.add("llm.lease_only", true, &[self.opening(), call.request_record]);
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
        let all = self.records.iter();
        let blocked: Vec<_> = egress_blocked(self.records).collect();
        let tunnels: Vec<_> = all.filter(|record| matches!(record.fields, Some(Fields::EgressTunnel(_)))).collect();
        match (blocked.as_slice(), tunnels.as_slice()) {
            ([], []) => {}
            ([], [only]) => self.add("egress.allowed_only", true, &[only]),
            ([], [first, .., last]) => self.add("egress.allowed_only", true, &[first, last]),
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

/// The connections that the egress proxy refused in this session.
pub fn egress_blocked(records: &[EventRecord]) -> impl Iterator<Item = &EventRecord> {
    records.iter().filter(|record| matches!(record.fields, Some(Fields::EgressBlocked(_))))
}

/// Hosts that the agent reached through the egress proxy in this session.
pub fn egress_hosts(records: &[EventRecord]) -> impl Iterator<Item = &str> {
    records.iter().filter_map(|record| match &record.fields {
        Some(Fields::EgressTunnel(tunnel)) => Some(tunnel.host.as_str()),
        _ => None,
    })
}

/// Whether two sessions were open at the same time.
const fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.1 && b.0 < a.1
}

/// The keys of its own that the agent sent in this session.
pub fn own_keys(records: &[EventRecord]) -> impl Iterator<Item = (&EventRecord, &AgentKeyIgnored)> {
    records.iter().filter_map(|record| match &record.fields {
        Some(Fields::AgentKeyIgnored(ignored)) => Some((record, ignored)),
        _ => None,
    })
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

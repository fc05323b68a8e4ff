//! Facts: what detectors say about typed event fields, and the registry of all that a gate may name.
//!
//! A fact never rests on text that the agent wrote. It inherits the weakest tier among the events
//! that it rests on, and it belongs to one session. Names that stand here without an emitter are
//! *pending*: a gate may name them, and until something collects them the gate is out of reach.

use amc_core::Tier;
use amc_core::timestamp::{NS_PER_S, utc_day};

use crate::bank::is_document;

/// Evidence drops one tier after this many seconds: 90 days.
pub const HORIZON_S: u64 = 90 * 86_400;
/// Freshness of new evidence, in basis points.
pub const FRESH_BP: u32 = 10_000;
/// Freshness at the end of the horizon and after it, in basis points.
pub const STALE_BP: u32 = 5_000;

/// A fact that the bank may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FactKind {
    /// Its id, `family.name`.
    pub id: &'static str,
    /// What it says when it passes.
    pub title: &'static str,
    /// The detector's version; 0 while nothing emits it.
    pub detector: u32,
}

impl FactKind {
    /// The part of the id before the first point.
    pub fn family(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(family, _)| family)
    }

    /// Whether a detector of this release emits it.
    pub const fn is_emitted(&self) -> bool {
        self.detector > 0
    }
}

macro_rules! facts {
    ($($id:literal $detector:literal $title:literal),+ $(,)?) => {
        /// Every fact, ascending by id.
        pub const FACTS: &[FactKind] = &[$(FactKind { id: $id, detector: $detector, title: $title }),+];
    };
}

facts! {
    "assurance.bias" 0 "a drill about unequal treatment of like people held",
    "assurance.data_loss" 0 "a drill that tries to take data out held",
    "assurance.hallucination" 0 "a drill that tempts to invent held",
    "assurance.over_reach" 0 "a drill that tempts to act beyond the task held",
    "assurance.prompt_injection" 0 "a drill that plants instructions in content held",
    "assurance.unsafe_tool" 0 "a drill that tempts to misuse a tool held",
    "boundary.probe_denied" 1 "the agent's side could not reach keys, logs, sockets or trusted processes",
    "budget.session" 1 "the session's tokens stayed within the bank's limit",
    "config.current" 1 "the configuration in force was the newest signed one",
    "config.signed" 1 "every trust-bearing configuration in force was signed",
    "document.bias_review" 1 "a review of unequal treatment is on record",
    "document.charter" 1 "a charter says what the agent is for",
    "document.continuity_plan" 1 "a plan for the loss of the agent or its provider is on record",
    "document.data_protection" 1 "an assessment of personal data is on record",
    "document.escalation_rule" 1 "a rule says when a person decides",
    "document.incident_review" 1 "a review of an incident is on record",
    "document.risk_assessment" 1 "a risk assessment is on record",
    "document.runbook" 1 "a runbook is on record",
    "egress.allowed_only" 1 "every connection that the agent tried through the proxy was on the allow-list",
    "egress.default_deny" 0 "the session ran with default deny",
    "error_rate.session" 1 "the session's share of failed calls stayed within the bank's limit",
    "latency.session" 1 "first bytes came within the bank's limit",
    "llm.error_recovered" 1 "a failed call was followed by a good one to the same provider",
    "llm.exchange" 1 "a call got its whole answer",
    "llm.lease_only" 1 "the session called with its lease and no key of its own",
    "llm.model_as_asked" 1 "the model that answered is the one asked for",
    "llm.route_signed" 1 "the call took a route of the signed gateway configuration",
    "llm.stream_complete" 1 "a stream ran to its end",
    "llm.system_prompt_present" 1 "the call carried a system prompt",
    "llm.system_prompt_registered" 1 "the system prompt is the registered one",
    "llm.tool_calls_offered" 1 "tools were called only where tools were offered",
    "llm.usage_recorded" 1 "the provider's token count is on record",
    "policy.agent_config_signed" 1 "a signed agent configuration was in force",
    "policy.gate_signed" 1 "a signed release gate was in force",
    "policy.target_signed" 1 "a signed target profile was in force",
    "sandbox.posture" 0 "the sandbox posture was attested for this session",
    "session.artifact_known" 1 "the executable's digest is on record",
    "session.clean_exit" 1 "the agent's process ended with status 0",
    "session.environment_clean" 1 "the agent's environment was built by AMC and carries no secret by name",
    "session.isolation_asked" 1 "the session asked for isolation from its operator",
    "session.sealed" 1 "the session was sealed in the ordinary way",
    "session.streams_whole" 1 "the agent's streams are recorded without a hole",
    "session.wrapped" 1 "the monitor started the agent and saw its process",
    "test.suite" 1 "a test suite run under the monitor passed",
    "trace.correlated" 1 "a trace line's receipt matches the evidence",
    "trace.reported" 1 "a trace file that was handed in has no failed model call",
    "trace.verified" 1 "a verification step on the agent's trace matches the evidence",
}

/// The fact with this id.
pub fn fact_kind(id: &str) -> Option<&'static FactKind> {
    FACTS.binary_search_by(|fact| fact.id.cmp(id)).ok().map(|at| &FACTS[at])
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// What it is about, from [`FACTS`].
    pub id: &'static str,
    /// Whether it holds.
    pub pass: bool,
    /// The weakest tier among its events, after the channel's own limits.
    pub tier: Tier,
    /// Position of its session among [`Sessions::list`](crate::sessions::Sessions::list); one past the
    /// last for what was handed in outside of sessions.
    pub session: usize,
    /// UTC day on which its session opened, or on which it was handed in.
    pub day: i32,
    /// When its newest event was recorded, nanoseconds since the epoch.
    pub wall_ns: i64,
    /// The events that it rests on, ascending. Those of the audit log are not among them.
    pub events: Indices,
    /// How many facts this one stands for: itself, and others that are alike to every rule and no
    /// better ([`coalesce`](crate::coalesce)).
    pub times: u64,
}

/// Indices of events. Most facts rest on one or two, and there are millions of facts: those need no
/// memory of their own.
#[derive(Debug, Clone)]
pub struct Indices(Kept);

#[derive(Debug, Clone)]
enum Kept {
    One(u64),
    Two([u64; 2]),
    Many(Box<[u64]>),
}

impl From<Vec<u64>> for Indices {
    fn from(indices: Vec<u64>) -> Self {
        Indices(match indices.as_slice() {
            [one] => Kept::One(*one),
            [one, two] => Kept::Two([*one, *two]),
            _ => Kept::Many(indices.into_boxed_slice()),
        })
    }
}

impl std::ops::Deref for Indices {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match &self.0 {
            Kept::One(one) => std::slice::from_ref(one),
            Kept::Two(two) => two,
            Kept::Many(many) => many,
        }
    }
}

impl PartialEq for Indices {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Indices {}

impl PartialOrd for Indices {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Indices {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

/// A fact as one question sees it: at its effective tier and weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weighed<'a> {
    /// The fact.
    pub fact: &'a Fact,
    /// Its tier after ageing.
    pub tier: Tier,
    /// Tier weight × freshness, in basis points.
    pub weight_bp: u32,
}

/// The UTC day of a moment, in days since the epoch. A fact keeps it in four bytes, since there are
/// millions of facts.
pub fn day_of(wall_ns: i64) -> i32 {
    i32::try_from(utc_day(wall_ns)).expect("64 bits of nanoseconds reach 106,752 days from the epoch")
}

/// Whole seconds from `wall_ns` to `as_of_ns`; 0 for what lies ahead.
pub fn age_s(wall_ns: i64, as_of_ns: i64) -> u64 {
    let age_ns = i128::from(as_of_ns) - i128::from(wall_ns);
    u64::try_from(age_ns / i128::from(NS_PER_S)).unwrap_or(0)
}

/// The tier of evidence that is `age_s` old; `None` when it is discarded.
pub fn aged_tier(tier: Tier, age_s: u64, horizon_s: u64) -> Option<Tier> {
    if age_s <= horizon_s {
        return Some(tier);
    }
    tier.code().checked_sub(1).and_then(Tier::from_code)
}

/// Freshness in basis points: whole up to a third of the horizon, then down to half at its end.
pub fn freshness_bp(age_s: u64, horizon_s: u64) -> u32 {
    let third = horizon_s / 3;
    if age_s <= third {
        return FRESH_BP;
    }
    if age_s >= horizon_s {
        return STALE_BP;
    }
    let lost = u64::from(FRESH_BP - STALE_BP) * (age_s - third);
    // Rounding the loss up rounds the freshness down.
    let lost_bp = lost.div_ceil(horizon_s - third);
    FRESH_BP - u32::try_from(lost_bp).unwrap_or(FRESH_BP - STALE_BP)
}

/// The fact at its effective tier and weight; `None` when it is too old to count.
pub fn weigh(fact: &Fact, as_of_ns: i64, high_risk: bool) -> Option<Weighed<'_>> {
    if is_document(fact.id) {
        // Documents have an expiry of their own, and an expired one gives no fact.
        return Some(Weighed { fact, tier: fact.tier, weight_bp: fact.tier.weight_bp() });
    }
    let horizon_s = if high_risk { HORIZON_S / 2 } else { HORIZON_S };
    let age_s = age_s(fact.wall_ns, as_of_ns);
    let tier = aged_tier(fact.tier, age_s, horizon_s)?;
    let weight_bp = tier.weight_bp() * freshness_bp(age_s, horizon_s) / 10_000;
    Some(Weighed { fact, tier, weight_bp })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn the_registry_is_sorted_and_documented() {
        assert!(FACTS.is_sorted_by(|a, b| a.id < b.id));
        for fact in FACTS {
            assert_eq!(fact_kind(fact.id), Some(fact));
            assert!(fact.id.contains('.') && !fact.title.is_empty(), "{}", fact.id);
        }
        assert_eq!(fact_kind("llm.nothing"), None);
    }

    #[test]
    fn evidence_drops_a_tier_after_ninety_days_and_self_reports_are_discarded() {
        assert_eq!(aged_tier(Tier::Observed, 90 * DAY, HORIZON_S), Some(Tier::Observed));
        assert_eq!(aged_tier(Tier::Observed, 90 * DAY + 1, HORIZON_S), Some(Tier::Attested));
        assert_eq!(aged_tier(Tier::ObservedHardened, 90 * DAY + 1, HORIZON_S), Some(Tier::Observed));
        assert_eq!(aged_tier(Tier::Attested, 90 * DAY + 1, HORIZON_S), Some(Tier::SelfReported));
        assert_eq!(aged_tier(Tier::SelfReported, 90 * DAY, HORIZON_S), Some(Tier::SelfReported));
        assert_eq!(aged_tier(Tier::SelfReported, 90 * DAY + 1, HORIZON_S), None);
    }

    #[test]
    fn freshness_falls_from_a_third_of_the_horizon_to_its_end() {
        assert_eq!(freshness_bp(0, HORIZON_S), 10_000);
        assert_eq!(freshness_bp(30 * DAY, HORIZON_S), 10_000);
        assert_eq!(freshness_bp(30 * DAY + 1, HORIZON_S), 9_999, "rounds down");
        assert_eq!(freshness_bp(60 * DAY, HORIZON_S), 7_500);
        assert_eq!(freshness_bp(90 * DAY - 1, HORIZON_S), 5_000, "rounds down");
        assert_eq!(freshness_bp(90 * DAY, HORIZON_S), 5_000);
        assert_eq!(freshness_bp(900 * DAY, HORIZON_S), 5_000);
        assert_eq!(freshness_bp(45 * DAY, HORIZON_S / 2), 5_000, "high risk: half the horizon");
        assert_eq!(freshness_bp(15 * DAY, HORIZON_S / 2), 10_000);
    }

    #[test]
    fn days_of_all_moments_fit() {
        assert_eq!((day_of(0), day_of(-1), day_of(86_400_000_000_000)), (0, -1, 1));
        assert_eq!((day_of(i64::MIN), day_of(i64::MAX)), (-106_752, 106_751));
    }

    #[test]
    fn ages_are_whole_seconds_and_never_negative() {
        assert_eq!(age_s(0, 1_999_999_999), 1);
        assert_eq!(age_s(5, 4), 0);
        assert_eq!(age_s(i64::MIN, i64::MAX), 18_446_744_073);
    }
}

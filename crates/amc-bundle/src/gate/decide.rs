//! The decision: every rule of a policy against a verified bundle, all of them listed.

use std::fmt::Display;

use amc_core::timestamp::{self, NS_PER_S};
use amc_crypto::Verified;
use amc_scoring::{Label, Status};
use serde::{Deserialize, Serialize};

use super::policy::{GatePolicy, SignedPolicy};
use super::upstream::Origin;
use crate::verify::{BundleVerdict, VerifiedBundle};

/// A time of the bundle may lie this much ahead of the gate's clock; more denies.
const CLOCK_SKEW_NS: i64 = 300 * NS_PER_S;
const NS_PER_HOUR: i64 = 3_600 * NS_PER_S;
const S_PER_DAY: u64 = 86_400;

/// May it be released?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Every rule holds.
    Allow,
    /// Some rule does not hold.
    Deny,
}

/// A rule with what it wants and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRule {
    /// The policy's key; `verified` for the bundle itself; `minLayerBp.<layer>`, `assurance.<pack>`.
    pub rule: String,
    /// What the policy asks for, in words.
    pub wanted: String,
    /// What the bundle has, in words.
    pub found: String,
    /// Whether the rule holds.
    pub pass: bool,
}

/// A decision with every rule that led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateDecision {
    /// The decision.
    pub decision: Decision,
    /// Every rule, in the order of the specification.
    pub rules: Vec<GateRule>,
}

/// Decides. `now_ns` is the gate's clock, nanoseconds since the epoch.
///
/// A verdict without a verified bundle denies, and still lists every rule.
pub fn decide(verdict: &BundleVerdict, policy: &Verified<SignedPolicy>, now_ns: i64) -> GateDecision {
    let mut rules = Rules { bundle: verdict.bundle(), rules: Vec::new() };
    let found = match verdict.findings.iter().find(|finding| finding.is_error()) {
        Some(finding) => finding.to_string(),
        None => "verified".to_owned(),
    };
    rules.push("verified", "an authentic bundle whose score recomputes", found, verdict.is_good());
    rules.about_the_run(&policy.policy);
    rules.about_levels(&policy.policy);
    rules.about_time(&policy.policy, now_ns);
    rules.about_sources(&policy.policy);
    rules.about_findings(&policy.policy, verdict);
    let all = rules.rules.iter().all(|rule| rule.pass);
    GateDecision { decision: if all { Decision::Allow } else { Decision::Deny }, rules: rules.rules }
}

struct Rules<'a> {
    bundle: Option<&'a VerifiedBundle>,
    rules: Vec<GateRule>,
}

const NOT_ASKED: &str = "not asked for";
const UNKNOWN: &str = "unknown, since the bundle does not verify";

impl Rules<'_> {
    fn push(&mut self, rule: &str, wanted: impl Display, found: impl Display, pass: bool) {
        let (wanted, found) = (wanted.to_string(), found.to_string());
        self.rules.push(GateRule { rule: rule.to_owned(), wanted, found, pass });
    }

    /// A rule about the bundle: without one it never holds, save when nothing is asked.
    fn rule<F: Display>(
        &mut self,
        rule: &str,
        wanted: Option<String>,
        check: impl FnOnce(&VerifiedBundle) -> (F, bool),
    ) {
        match (self.bundle, wanted) {
            (Some(bundle), Some(wanted)) => {
                let (found, pass) = check(bundle);
                self.push(rule, wanted, found, pass);
            }
            (Some(bundle), None) => {
                let (found, _) = check(bundle);
                self.push(rule, NOT_ASKED, found, true);
            }
            (None, Some(wanted)) => self.push(rule, wanted, UNKNOWN, false),
            (None, None) => self.push(rule, NOT_ASKED, UNKNOWN, true),
        }
    }

    fn about_the_run(&mut self, policy: &GatePolicy) {
        self.rule("agentId", policy.agent_id.as_ref().map(ToString::to_string), |bundle| {
            let agent = &bundle.report.agent;
            (agent.clone(), policy.agent_id.as_ref() == Some(agent))
        });
        self.rule("requireStatusValid", Some(Status::Valid.to_string()), |bundle| {
            (bundle.report.status, bundle.report.status == Status::Valid)
        });
        self.rule("denyIfLowTrust", policy.deny_if_low_trust.then(|| Label::High.to_string()), |bundle| {
            (bundle.report.label, bundle.report.label == Label::High)
        });
    }

    fn about_levels(&mut self, policy: &GatePolicy) {
        let at_least = |least: Option<u32>| least.map(|least| format!("at least {least}"));
        self.rule("minIntegrityBp", at_least(policy.min_integrity_bp), |bundle| {
            let found = bundle.report.integrity_bp;
            (found, policy.min_integrity_bp.is_none_or(|least| found >= least))
        });
        self.rule("minOverallBp", at_least(policy.min_overall_bp), |bundle| {
            let found = bundle.report.overall_bp;
            (found, policy.min_overall_bp.is_none_or(|least| found >= least))
        });
        if policy.min_layer_bp.is_empty() {
            self.push("minLayerBp", NOT_ASKED, "no layer is named", true);
        }
        for (layer, least) in &policy.min_layer_bp {
            self.rule(&format!("minLayerBp.{layer}"), at_least(Some(*least)), |bundle| {
                let found = bundle.report.layers.iter().find(|found| found.id == *layer);
                match found {
                    Some(found) => (found.level_bp.to_string(), found.level_bp >= *least),
                    None => ("the report has no such layer".to_owned(), false),
                }
            });
        }
        let wanted =
            policy.require_observed_for_level5.then(|| "OBSERVED-class events behind every level 5".to_owned());
        self.rule("requireObservedForLevel5", wanted, |bundle| {
            let others = &bundle.level5_not_observed;
            let found = if others.is_empty() { "no other level 5".to_owned() } else { others.join(", ") };
            (found, others.is_empty())
        });
        if policy.assurance.is_empty() {
            self.push("assurance", NOT_ASKED, "no pack is named", true);
        }
        for (pack, least) in &policy.assurance {
            // Reports of this version carry no packs: what is not there does not pass.
            self.rule(&format!("assurance.{pack}"), at_least(Some(*least)), |_| ("the report has no such pack", false));
        }
    }

    fn about_time(&mut self, policy: &GatePolicy, now_ns: i64) {
        let at_most = |most: Option<u32>| most.map(|most| format!("at most {most} hours"));
        self.rule("maxAgeHours", at_most(policy.max_age_hours), |bundle| {
            age(Some(bundle.recorded_ns), policy.max_age_hours, now_ns)
        });
        self.rule("maxAsOfAgeHours", at_most(policy.max_as_of_age_hours), |bundle| {
            age(bundle.report.as_of_ns(), policy.max_as_of_age_hours, now_ns)
        });
        self.rule("minWindowDays", Some(format!("at least {} days", policy.min_window_days)), |bundle| {
            let seconds = bundle.report.window_s;
            let found = format!("{} days and {} seconds", seconds / S_PER_DAY, seconds % S_PER_DAY);
            (found, seconds >= u64::from(policy.min_window_days) * S_PER_DAY)
        });
    }

    fn about_sources(&mut self, policy: &GatePolicy) {
        let banks: Vec<String> = policy.allowed_banks.iter().map(ToString::to_string).collect();
        self.rule("allowedBanks", Some(one_of(&banks)), |bundle| {
            let found = bundle.report.bank.sha256;
            (found, policy.allowed_banks.contains(&found))
        });
        let wanted = policy.allowed_upstreams.as_ref();
        let listed = wanted.map(|origins| one_of(&origins.iter().map(ToString::to_string).collect::<Vec<_>>()));
        self.rule("allowedUpstreams", listed, |bundle| {
            let mut found = Vec::new();
            let mut pass = true;
            for upstream in &bundle.report.upstreams {
                let origin = upstream.base_url.as_deref().and_then(|url| Origin::of_url(url).ok());
                pass &= origin.as_ref().is_some_and(|origin| wanted.is_none_or(|allowed| allowed.contains(origin)));
                found.push(
                    origin.map_or_else(|| format!("{} at an unknown place", upstream.provider), |at| at.to_string()),
                );
            }
            (if found.is_empty() { "no calls".to_owned() } else { found.join(", ") }, pass)
        });
        let quorum = policy.witness_quorum;
        let wanted = (quorum > 0).then(|| format!("at least {quorum} on each log"));
        self.rule("witnessQuorum", wanted, |bundle| {
            let (evidence, audit) = (bundle.evidence.witnesses.len(), bundle.audit.witnesses.len());
            let enough = usize::try_from(quorum).is_ok_and(|quorum| evidence >= quorum && audit >= quorum);
            (format!("evidence {evidence}, audit {audit}"), enough)
        });
    }

    fn about_findings(&mut self, policy: &GatePolicy, verdict: &BundleVerdict) {
        let forbidden: Vec<String> = policy.forbid_findings.iter().map(ToString::to_string).collect();
        let wanted = (!forbidden.is_empty()).then(|| format!("none of {}", forbidden.join(", ")));
        self.rule("forbidFindings", wanted, |bundle| {
            let all = bundle.report.findings.iter().chain(&verdict.findings);
            let mut hits: Vec<String> = all
                .filter(|finding| policy.forbid_findings.contains(&finding.code))
                .map(|finding| format!("{} at {}", finding.code, finding.subject))
                .collect();
            hits.sort();
            hits.dedup();
            (if hits.is_empty() { "none".to_owned() } else { hits.join(", ") }, hits.is_empty())
        });
    }
}

fn one_of(list: &[String]) -> String {
    match list {
        [] => "none is allowed".to_owned(),
        [one] => one.clone(),
        more => format!("one of {}", more.join(", ")),
    }
}

/// The age of a moment, and whether it is at most so many hours. A moment ahead of the clock denies.
fn age(moment_ns: Option<i64>, most_hours: Option<u32>, now_ns: i64) -> (String, bool) {
    let Some(moment_ns) = moment_ns else { return ("an unknown time".to_owned(), false) };
    let when = timestamp::to_rfc3339(moment_ns);
    let age_ns = now_ns.saturating_sub(moment_ns);
    if age_ns < -CLOCK_SKEW_NS {
        return (format!("{when}, which is in the future"), false);
    }
    let whole_hours = age_ns.max(0) / NS_PER_HOUR;
    let pass = most_hours.is_none_or(|most| age_ns <= i64::from(most).saturating_mul(NS_PER_HOUR));
    (format!("{whole_hours} hours ({when})"), pass)
}

//! The decision: every rule of a policy against a verified bundle, all of them listed.

use std::fmt::Display;

use amc_core::timestamp;
use amc_crypto::Verified;
use amc_scoring::{Label, Status};
use serde::{Deserialize, Serialize};

use super::policy::{GatePolicy, SignedPolicy};
use super::upstream::Origin;
use crate::verify::{BundleVerdict, CLOCK_SKEW_NS, VerifiedBundle};

const NS_PER_HOUR: i64 = 3_600 * timestamp::NS_PER_S;
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
    decide_plain(verdict, &policy.policy, now_ns)
}

/// The same under a policy whose signature somebody else answers for, as a certificate's issuer does.
pub(crate) fn decide_plain(verdict: &BundleVerdict, policy: &GatePolicy, now_ns: i64) -> GateDecision {
    let mut rules = Rules { bundle: verdict.bundle(), rules: Vec::new() };
    let found = match verdict.findings.iter().find(|finding| finding.is_error()) {
        Some(finding) => finding.to_string(),
        None => "verified".to_owned(),
    };
    rules.push("verified", "an authentic bundle whose score recomputes", found, verdict.is_good());
    rules.about_the_run(policy);
    rules.about_levels(policy);
    rules.about_time(policy, now_ns);
    rules.about_sources(policy);
    rules.about_findings(policy, verdict);
    let all = rules.rules.iter().all(|rule| rule.pass);
    GateDecision { decision: if all { Decision::Allow } else { Decision::Deny }, rules: rules.rules }
}

struct Rules<'a> {
    bundle: Option<&'a VerifiedBundle>,
    rules: Vec<GateRule>,
}

pub(crate) const NOT_ASKED: &str = "not asked for";
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

#[cfg(test)]
mod tests {
    use amc_core::kinds::LogHead;
    use amc_core::timestamp::NS_PER_S;
    use amc_core::{AgentId, Digest, Finding, FindingCode, WorkspaceName};
    use amc_crypto::config::{self, ConfigPredicate};
    use amc_crypto::dsse::{self, Envelope};
    use amc_crypto::{PublicKey, Signature, Unverified};
    use amc_scoring::report::{LevelResult, Upstream};
    use amc_scoring::{Bank, SHIPPED_BANK, ScoreInput, score};
    use ed25519_dalek::{Signer, SigningKey};

    use super::super::policy::{PolicyFile, PolicyTrust};
    use super::*;
    use crate::manifest::Payloads;
    use crate::verify::{Issuer, LogCoverage};

    const NOW_NS: i64 = 1_772_323_200 * NS_PER_S;

    /// A bundle that passes everything that a gate can ask, save assurance packs.
    fn ideal() -> VerifiedBundle {
        let head = |log: &str| LogHead { origin: format!("ws/{log}"), size: 9, root: Digest([1; 32]) };
        let mut report = score(&ScoreInput {
            workspace: &WorkspaceName::new("ws").expect("a name"),
            agent: &AgentId::new("alpha").expect("an id"),
            evidence_head: head("evidence"),
            audit_head: head("audit"),
            evidence: &Vec::new(),
            audit: &[],
            bank: &Bank::parse(SHIPPED_BANK).expect("the shipped bank"),
            as_of_ns: NOW_NS - 2 * NS_PER_HOUR,
            window_s: 14 * S_PER_DAY,
            claims: None,
            target: None,
        })
        .expect("nothing has to be read");
        report.status = Status::Valid;
        report.label = Label::High;
        report.integrity_bp = 9_000;
        report.overall_bp = 42_000;
        report.findings.clear();
        report.layers.iter_mut().for_each(|layer| layer.level_bp = 41_000);
        let provider = "demo".to_owned();
        report.upstreams = vec![Upstream { provider, base_url: Some("https://api.example.com/v1".into()), calls: 3 }];
        let coverage = |log: &str| LogCoverage {
            origin: format!("ws/{log}"),
            size: 9,
            events: 3,
            witnesses: vec![("w1".into(), 1), ("w2".into(), 1)],
        };
        VerifiedBundle {
            report,
            issuer: Issuer { origin: Some("ws/audit".into()), fingerprint: "00".into() },
            evidence: coverage("evidence"),
            audit: coverage("audit"),
            recorded_ns: NOW_NS - NS_PER_HOUR,
            level5_not_observed: Vec::new(),
            payloads: Payloads::Included,
            payloads_absent: 0,
            key: PublicKey::from_bytes(&SigningKey::from_bytes(&[5; 32]).verifying_key().to_bytes()).expect("a key"),
            revoked: Vec::new(),
            certificate: None,
        }
    }

    fn signed(text: &str) -> Verified<SignedPolicy> {
        let key = SigningKey::from_bytes(&[5; 32]);
        let public = PublicKey::from_bytes(&key.verifying_key().to_bytes()).expect("a good key");
        let predicate = ConfigPredicate { path: "gatePolicy.json".into(), version: 1, agent: None };
        let payload = config::statement(&predicate, amc_crypto::sha256(text.as_bytes())).to_json();
        let signature = Signature(key.sign(&dsse::pae(dsse::PAYLOAD_TYPE, &payload)).to_bytes());
        let signature = Envelope::new(&payload, public, &signature).to_json();
        let file = PolicyFile { bytes: text.as_bytes(), signature: Some(signature.as_bytes()) };
        Unverified::new(file).verify(&PolicyTrust { keys: &[public], digest: None }).expect("signed")
    }

    /// The rules that fail for the ideal bundle after a change.
    fn failing(policy: &str, change: impl FnOnce(&mut VerifiedBundle)) -> Vec<String> {
        let mut bundle = ideal();
        change(&mut bundle);
        let decision = decide(&BundleVerdict::assumed(bundle), &signed(policy), NOW_NS);
        let failing: Vec<String> = decision.rules.into_iter().filter(|rule| !rule.pass).map(|rule| rule.rule).collect();
        assert_eq!(decision.decision == Decision::Allow, failing.is_empty(), "one failing rule denies");
        failing
    }

    const STRICT: &str = r#"{"agentId": "alpha", "minIntegrityBp": 9000, "minOverallBp": 42000,
        "minLayerBp": {"skills": 41000}, "requireObservedForLevel5": true, "denyIfLowTrust": true,
        "requireStatusValid": true, "maxAgeHours": 1, "maxAsOfAgeHours": 2, "minWindowDays": 14,
        "allowedUpstreams": ["https://api.example.com"], "forbidFindings": ["SESSION_GAP"], "witnessQuorum": 2}"#;

    #[test]
    fn the_ideal_bundle_passes_at_every_bound() {
        assert_eq!(failing(STRICT, |_| {}), Vec::<String>::new());
        assert_eq!(failing("{}", |_| {}), Vec::<String>::new(), "the defaults");
    }

    #[test]
    fn each_rule_alone_denies() {
        type Change = fn(&mut VerifiedBundle);
        let cases: [(&str, Change); 16] = [
            ("agentId", |bundle| bundle.report.agent = AgentId::new("beta").expect("an id")),
            ("requireStatusValid", |bundle| bundle.report.status = Status::Invalid),
            ("denyIfLowTrust", |bundle| bundle.report.label = Label::Moderate),
            ("minIntegrityBp", |bundle| bundle.report.integrity_bp -= 1),
            ("minOverallBp", |bundle| bundle.report.overall_bp -= 1),
            ("minLayerBp.skills", |bundle| bundle.report.layers.iter_mut().for_each(|layer| layer.level_bp -= 1)),
            ("minLayerBp.skills", |bundle| bundle.report.layers.clear()),
            ("requireObservedForLevel5", |bundle| bundle.level5_not_observed.push("q1".into())),
            ("maxAgeHours", |bundle| bundle.recorded_ns -= 1),
            ("maxAgeHours", |bundle| bundle.recorded_ns = NOW_NS + CLOCK_SKEW_NS + 1),
            ("maxAsOfAgeHours", |bundle| bundle.report.as_of = timestamp::to_rfc3339(NOW_NS - 3 * NS_PER_HOUR)),
            ("minWindowDays", |bundle| bundle.report.window_s -= 1),
            ("allowedBanks", |bundle| bundle.report.bank.sha256 = Digest([9; 32])),
            ("witnessQuorum", |bundle| drop(bundle.audit.witnesses.pop())),
            ("witnessQuorum", |bundle| bundle.evidence.witnesses.clear()),
            ("forbidFindings", |bundle| {
                bundle.report.findings.push(Finding::info(FindingCode::SessionGap, "evidence#1", "gap"));
            }),
        ];
        for (rule, change) in cases {
            assert_eq!(failing(STRICT, change), [rule]);
        }
    }

    #[test]
    fn an_upstream_that_is_not_listed_or_not_known_denies() {
        for url in [Some("https://api.example.com.evil.example/v1"), Some("http://api.example.com/v1"), Some("x"), None]
        {
            let set = |bundle: &mut VerifiedBundle| bundle.report.upstreams[0].base_url = url.map(str::to_owned);
            assert_eq!(failing(STRICT, set), ["allowedUpstreams"], "{url:?}");
            assert_eq!(failing("{}", set), Vec::<String>::new(), "{url:?} when nothing is asked");
        }
        assert_eq!(failing(r#"{"allowedUpstreams": []}"#, |_| {}), ["allowedUpstreams"]);
        assert_eq!(
            failing(r#"{"allowedUpstreams": []}"#, |bundle| bundle.report.upstreams.clear()),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_pack_or_layer_that_is_not_there_denies() {
        assert_eq!(failing(r#"{"assurance": {"injection": 0}}"#, |_| {}), ["assurance.injection"]);
        assert_eq!(failing(r#"{"minLayerBp": {"nowhere": 0}}"#, |_| {}), ["minLayerBp.nowhere"]);
        assert_eq!(failing(r#"{"allowedBanks": []}"#, |_| {}), ["allowedBanks"]);
    }

    #[test]
    fn findings_of_the_verification_count_as_well() {
        let mut verdict = BundleVerdict::assumed(ideal());
        verdict.findings.push(Finding::warn(FindingCode::ClockRollback, "ws/evidence#3", "back"));
        let policy = signed(r#"{"forbidFindings": ["CLOCK_ROLLBACK"]}"#);
        assert_eq!(decide(&verdict, &policy, NOW_NS).decision, Decision::Deny);
    }

    #[test]
    fn every_key_of_a_policy_is_a_rule_in_every_decision() {
        let value = serde_json::to_value(&signed(STRICT).policy).expect("serialises");
        let keys = value.as_object().expect("an object").keys();
        assert_eq!(keys.len(), 15, "STRICT sets every key that can be left out");
        for policy in ["{}", STRICT, r#"{"assurance": {"a": 1, "b": 2}}"#] {
            let decision = decide(&BundleVerdict::assumed(ideal()), &signed(policy), NOW_NS);
            for key in keys.clone() {
                let listed = decision.rules.iter().any(|rule| rule.rule.split('.').next() == Some(key));
                assert!(listed, "{key} under {policy}");
            }
        }
    }

    #[test]
    fn a_level_behind_which_no_event_stands_is_not_observed() {
        let mut report = ideal().report;
        let question = &mut report.questions[0];
        question.final_level = 5;
        question.levels = vec![LevelResult { level: 5, holds: true, events: Vec::new() }];
        let wanted = vec![question.id.clone()];
        assert_eq!(crate::verify::level5_not_observed(&report, |_| None), wanted);
        report.questions[0].levels.clear();
        assert_eq!(crate::verify::level5_not_observed(&report, |_| None), wanted);
    }
}

//! The next actions: what raises the overall value the most.

use std::collections::BTreeMap;

use crate::bank::Bank;
use crate::caps;
use crate::report::{NextAction, QuestionResult, Report, Status};

/// As many actions as a person takes on at once.
const ACTIONS_MAX: usize = 3;

/// The three best actions, best first. Levels that need facts which nothing collects yet are no
/// action.
pub fn next_actions(report: &Report, bank: &Bank) -> Vec<NextAction> {
    let mut actions = cap_actions(report);
    actions.extend(evidence_action(report));
    actions.extend(question_actions(report, bank));
    actions.retain(|action| action.gain_bp > 0);
    actions.sort_by(|a, b| b.gain_bp.cmp(&a.gain_bp).then_with(|| a.subject.cmp(&b.subject)));
    if report.status == Status::Invalid {
        actions.insert(0, boundary_action(report));
    }
    actions.truncate(ACTIONS_MAX);
    actions
}

/// What one question's gain means for the overall value.
fn share_bp(report: &Report, question: &QuestionResult, gain_bp: u32) -> u32 {
    let peers = report.questions.iter().filter(|other| other.layer == question.layer).count().max(1);
    let layers = report.layers.len().max(1);
    gain_bp / u32::try_from(peers * layers).unwrap_or(u32::MAX)
}

fn boundary_action(report: &Report) -> NextAction {
    let error = report.findings.iter().find(|finding| finding.is_error());
    NextAction {
        subject: error.map_or_else(|| "status".to_owned(), |finding| finding.code.to_string()),
        action: "Make the run VALID first: an INVALID run passes no gate, whatever its levels. Run the agent isolated \
                 from the keys (`amc wrap --isolation auto`) and have its trust boundary probed in every session."
            .to_owned(),
        gain_bp: report.overall_bp,
    }
}

fn cap_actions(report: &Report) -> Vec<NextAction> {
    let mut gains: BTreeMap<&str, u32> = BTreeMap::new();
    for question in &report.questions {
        for cap in &question.caps {
            let others: Vec<_> = question.caps.iter().filter(|other| *other != cap).cloned().collect();
            let without = question.supported.min(question.claimed.unwrap_or(5)).min(caps::limit(&others));
            let levels = u32::from(without.saturating_sub(question.final_level));
            *gains.entry(&cap.rule).or_default() += share_bp(report, question, levels * 10_000);
        }
    }
    let action = |(rule, gain_bp): (&str, u32)| NextAction {
        subject: rule.to_owned(),
        action: cap_remedy(rule).to_owned(),
        gain_bp,
    };
    gains.into_iter().map(action).collect()
}

/// What lifts a cap, by its rule.
pub(crate) fn cap_remedy(rule: &str) -> &'static str {
    match rule.split(':').next().unwrap_or(rule) {
        "only_self_reported" => "Have the work observed: run it under `amc wrap` instead of ingesting reports of it.",
        "level_5_needs_observed" => "Replace attested evidence with observed sessions.",
        "sandbox_required" => "Run the agent's sessions with `amc sandbox run`, so that their posture is attested.",
        "config_untrusted" => {
            "Sign the configuration that the findings name (`amc config sign PATH`) and load it again."
        }
        "correlation_low" => "Let the agent attach to each trace line the receipt that the gateway gave it.",
        "forged_receipt" => "Find out why the agent showed a receipt that nobody issued, and stop it.",
        "assurance_not_run" => "Run the assurance pack against the agent within the window.",
        "assurance_below_80" | "assurance_below_90" => "Mend what fell in the assurance pack and run it again.",
        "cherry_picking" => "Keep every session: number without gap, each one sealed; old gaps leave with the window.",
        "route_past_gateway" => "Take provider keys and direct routes away from the agent; the gateway has the key.",
        "no_llm_evidence" => "Send the agent's model calls through the gateway (`amc wrap` sets the base URLs).",
        _ => "Read the rule of this cap in the scoring guide.",
    }
}

/// Whether the next level waits for more of the same evidence and nothing else.
fn waits_for_more(question: &QuestionResult) -> bool {
    !question.held_back.is_empty()
        && question.supported < caps::limit(&question.caps)
        && question.held_back.iter().all(|gap| gap.have > 0 && gap.pending.is_empty())
}

fn rise_bp(question: &QuestionResult) -> u32 {
    ((u32::from(question.supported) + 1) * 10_000).saturating_sub(question.value_bp)
}

fn evidence_action(report: &Report) -> Option<NextAction> {
    let waiting: Vec<_> = report.questions.iter().filter(|question| waits_for_more(question)).collect();
    let gaps = |word: &str| {
        let all = waiting.iter().flat_map(|question| &question.held_back).filter(|gap| gap.what.starts_with(word));
        all.map(|gap| gap.need - gap.have).max().unwrap_or(0)
    };
    let (sessions, days) = (gaps("sessions").max(1), gaps("days"));
    let on_days = if days > 0 { format!(" on {days} more day(s)") } else { String::new() };
    (!waiting.is_empty()).then(|| NextAction {
        subject: "more evidence".to_owned(),
        action: format!(
            "Keep the agent at work under `amc wrap`, as it is: {sessions} or more further session(s){on_days} can lift \
             {} question(s) by a level.",
            waiting.len()
        ),
        gain_bp: waiting.iter().map(|question| share_bp(report, question, rise_bp(question))).sum(),
    })
}

fn question_actions(report: &Report, bank: &Bank) -> Vec<NextAction> {
    let reachable = |question: &&QuestionResult| {
        !waits_for_more(question)
            && question.supported < caps::limit(&question.caps)
            && !question.held_back.is_empty()
            && question.held_back.iter().all(|gap| gap.facts.is_empty() || gap.pending.len() < gap.facts.len())
    };
    let action = |question: &QuestionResult| NextAction {
        subject: question.id.clone(),
        action: bank.question(&question.id).map(|asked| asked.next.clone()).unwrap_or_default(),
        gain_bp: share_bp(report, question, rise_bp(question)),
    };
    report.questions.iter().filter(reachable).map(action).collect()
}

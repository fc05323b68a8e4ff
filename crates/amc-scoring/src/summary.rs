//! Parts of the report that sum up: sessions, layers, facts, days, models.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::Tier;
use amc_core::kinds::SessionPurpose;
use amc_core::timestamp::{NS_PER_DAY, to_rfc3339};

use crate::bank::Layer;
use crate::calls::Calls;
use crate::claims::Target;
use crate::facts::{Fact, fact_kind};
use crate::report::{
    DayTiers, FactSummary, LayerResult, MODEL_CHARS_MAX, MODELS_MAX, ModelUse, QuestionResult, SessionResult, TargetRef,
};
use crate::sessions::{Outcome, Session};

/// Calls by provider, model asked for and model that answered; names are cut.
#[derive(Debug, Default)]
pub(crate) struct Models(BTreeMap<(String, Option<String>, Option<String>), u64>);

impl Models {
    /// Counts the calls of a session.
    pub(crate) fn count(&mut self, calls: &Calls) {
        let cut = |name: &String| name.chars().take(MODEL_CHARS_MAX).collect::<String>();
        let mut said: BTreeMap<_, u64> = BTreeMap::new();
        for call in calls.iter() {
            *said.entry((calls.provider(call), calls.asked(call), calls.answered(call))).or_default() += 1;
        }
        // Names are cut once each; some that differ become one.
        for ((provider, asked, answered), calls) in said {
            *self.0.entry((provider.to_owned(), asked.map(cut), answered.map(cut))).or_default() += calls;
        }
    }

    /// Most used first.
    pub(crate) fn finish(self) -> Vec<ModelUse> {
        let named = |((provider, asked, answered), calls)| ModelUse { provider, asked, answered, calls };
        let mut models: Vec<ModelUse> = self.0.into_iter().map(named).collect();
        models.sort_by_key(|model| std::cmp::Reverse(model.calls));
        models.truncate(MODELS_MAX);
        models
    }
}

/// A session as the report shows it.
pub(crate) fn session_result(session: &Session) -> SessionResult {
    let (purpose, reason) = match session.open.purpose {
        _ if session.before_epoch => (session.open.purpose, "listed only: it opened before the boundary epoch"),
        _ if session.outcome == Outcome::Open => (session.open.purpose, "still open and younger than a day"),
        SessionPurpose::Drill => (SessionPurpose::Drill, "a drill: only assurance facts come from it"),
        SessionPurpose::Test => (SessionPurpose::Test, "a test: only test facts come from it"),
        SessionPurpose::Agent if session.outcome.is_failing() => {
            (SessionPurpose::Agent, "counts as failing: it has no ordinary seal")
        }
        SessionPurpose::Agent if !session.cosigned => {
            (SessionPurpose::Agent, "counts up to level 3: not cosigned within a day of its seal")
        }
        SessionPurpose::Agent => (SessionPurpose::Agent, "counts"),
    };
    let purpose = match purpose {
        SessionPurpose::Agent => "agent",
        SessionPurpose::Test => "test",
        SessionPurpose::Drill => "drill",
    };
    SessionResult {
        id: session.id,
        number: session.open.number,
        purpose: purpose.to_owned(),
        opened: to_rfc3339(session.open_wall_ns),
        open_index: session.open_index,
        seal_index: session.seal_index,
        outcome: session.outcome.as_str().to_owned(),
        boundary: session.boundary.as_str().to_owned(),
        cosigned: session.cosigned,
        events: session.events,
        counted: session.counted(),
        reason: reason.to_owned(),
    }
}

/// The target, and what is missing to it.
pub(crate) fn target_ref(target: &Target, questions: &[QuestionResult]) -> TargetRef {
    let missing = questions.iter().map(|question| {
        let wanted = question.target.unwrap_or(0);
        u32::from(wanted.saturating_sub(question.final_level)) * 10_000
    });
    TargetRef { id: target.id.clone(), sha256: target.sha256, distance_bp: missing.sum() }
}

/// The five layers from their questions.
pub(crate) fn layers(questions: &[QuestionResult]) -> Vec<LayerResult> {
    let of = |layer: Layer| {
        let own = || questions.iter().filter(move |question| question.layer == layer.id());
        LayerResult {
            id: layer.id().to_owned(),
            title: layer.title().to_owned(),
            level_bp: mean(own().map(|question| question.value_bp)),
            raw_bp: mean(own().map(|question| u32::from(question.final_level) * 10_000)),
        }
    };
    Layer::ALL.into_iter().map(of).collect()
}

/// Facts by id; they come sorted.
pub(crate) fn fact_summaries(facts: &[Fact]) -> Vec<FactSummary> {
    // Facts are sorted, so those of one id stand together.
    let groups = facts.chunk_by(|a, b| a.id == b.id);
    let summary = |group: &[Fact]| FactSummary {
        fact: group[0].id.to_owned(),
        detector: fact_kind(group[0].id).map_or(0, |kind| kind.detector),
        pass: group.iter().filter(|fact| fact.pass).map(|fact| fact.times).sum(),
        fail: group.iter().filter(|fact| !fact.pass).map(|fact| fact.times).sum(),
        sessions: group.iter().map(|fact| fact.session).collect::<BTreeSet<_>>().len() as u64,
        days: group.iter().map(|fact| fact.day).collect::<BTreeSet<_>>().len() as u64,
        best_tier: group.iter().map(|fact| fact.tier).max().unwrap_or(Tier::SelfReported),
    };
    groups.map(summary).collect()
}

/// Facts by UTC day and tier.
pub(crate) fn timeline(facts: &[Fact]) -> Vec<DayTiers> {
    let mut days: BTreeMap<i32, [u64; 4]> = BTreeMap::new();
    for fact in facts {
        days.entry(fact.day).or_default()[usize::from(fact.tier.code())] += fact.times;
    }
    let line = |(day, [self_reported, attested, observed, observed_hardened]): (i32, [u64; 4])| DayTiers {
        day: to_rfc3339(i64::from(day).saturating_mul(NS_PER_DAY)).chars().take(10).collect(),
        observed_hardened,
        observed,
        attested,
        self_reported,
    };
    days.into_iter().map(line).collect()
}

/// Mean, rounded down; 0 of nothing.
pub(crate) fn mean(values: impl Iterator<Item = u32>) -> u32 {
    let (sum, count) = values.fold((0u64, 0u64), |(sum, count), value| (sum + u64::from(value), count + 1));
    sum.checked_div(count).and_then(|mean| u32::try_from(mean).ok()).unwrap_or(0)
}

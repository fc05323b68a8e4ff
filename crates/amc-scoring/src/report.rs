//! The report: what a run says, as canonical JSON. `docs/formats/report.md` is its specification.
//!
//! Field order is declaration order, there are no floats and no maps of unknown order, and the
//! bytes end in a newline, so one report has one spelling. Reading one back does not verify it:
//! only recomputing does.

use amc_core::kinds::LogHead;
use amc_core::{AgentId, Digest, Finding, RunId, SessionId, Tier, WorkspaceName, timestamp};
use serde::{Deserialize, Serialize};

/// The version of the report's format.
pub const REPORT_VERSION: u32 = 1;

/// Distinct models that a report lists; an agent can invent names without end.
pub const MODELS_MAX: usize = 20;
/// Characters of a model's name that a report keeps.
pub const MODEL_CHARS_MAX: usize = 128;

/// Whether the run may be relied on at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// The logs verify and the trust boundary is proven for every counted session.
    Valid,
    /// Something that the score rests on does not hold; the levels are shown and pass no gate.
    Invalid,
}

impl Status {
    /// `VALID` or `INVALID`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Valid => "VALID",
            Status::Invalid => "INVALID",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far the evidence as a whole can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Label {
    /// Below 4,000 bp, or the run is INVALID.
    #[serde(rename = "UNRELIABLE")]
    Unreliable,
    /// From 4,000 bp.
    #[serde(rename = "LOW TRUST")]
    Low,
    /// From 6,000 bp.
    #[serde(rename = "MODERATE TRUST")]
    Moderate,
    /// From 8,000 bp, without a configuration finding, and with half of the facts observed.
    #[serde(rename = "HIGH TRUST")]
    High,
}

impl Label {
    /// The label as reports write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Label::Unreliable => "UNRELIABLE",
            Label::Low => "LOW TRUST",
            Label::Moderate => "MODERATE TRUST",
            Label::High => "HIGH TRUST",
        }
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One run's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Always [`REPORT_VERSION`].
    pub report_version: u32,
    /// The scorer that made it.
    pub scorer: String,
    /// Derived from the inputs.
    pub run_id: RunId,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The agent.
    pub agent: AgentId,
    /// The end of the window, RFC 3339 in UTC.
    pub as_of: String,
    /// The window's length in seconds.
    pub window_s: u64,
    /// The slice of the evidence log that the run covers.
    pub evidence: LogHead,
    /// The slice of the audit log that the run covers.
    pub audit: LogHead,
    /// The question bank.
    pub bank: BankRef,
    /// SHA-256 of the claims file, where there was one.
    pub claims_sha256: Option<Digest>,
    /// The target profile, where there was one.
    pub target: Option<TargetRef>,
    /// Whether the run may be relied on.
    pub status: Status,
    /// How far the evidence can be trusted.
    pub label: Label,
    /// Mean of the layers, in basis points of a level (0 to 50,000).
    pub overall_bp: u32,
    /// IntegrityIndex, in basis points (0 to 10,000).
    pub integrity_bp: u32,
    /// How the IntegrityIndex came about.
    pub integrity: IntegrityBreakdown,
    /// The five layers, in the bank's order.
    pub layers: Vec<LayerResult>,
    /// Every question, in the bank's order.
    pub questions: Vec<QuestionResult>,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
    /// The agent's sessions in the window, by number.
    pub sessions: Vec<SessionResult>,
    /// Number of the agent's sessions before the window: the age of the id, in sessions.
    pub sessions_before: u64,
    /// What ran in the counted sessions.
    pub artifacts: Vec<ArtifactUse>,
    /// Where the counted sessions' calls went.
    pub upstreams: Vec<Upstream>,
    /// Models asked for and answering, most used first, at most [`MODELS_MAX`].
    pub models: Vec<ModelUse>,
    /// Trace lines against receipts.
    pub correlation: Correlation,
    /// What the detectors found, by fact.
    pub facts: Vec<FactSummary>,
    /// Facts by day and tier.
    pub timeline: Vec<DayTiers>,
    /// Boundary epochs of the agent; sessions before the last one are listed and not counted.
    pub epochs: Vec<EpochResult>,
    /// Every run of this agent that the audit log records before this one.
    pub earlier_runs: Vec<EarlierRun>,
    /// What raises the most, best first, at most three.
    pub next_actions: Vec<NextAction>,
}

/// Which bank asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankRef {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u32,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
}

/// Which target was aimed at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRef {
    /// Its id.
    pub id: String,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Sum over questions of what is missing to the target, in basis points of a level.
    pub distance_bp: u32,
}

/// IntegrityIndex = coverage − penalties, clamped to 0..10,000.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntegrityBreakdown {
    /// Mean over the questions of the best tier's weight, at most 10,000 each.
    pub coverage_bp: u32,
    /// Every rule, in the order of the specification.
    pub penalties: Vec<Penalty>,
}

/// One row of the penalty table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Penalty {
    /// The rule's name.
    pub rule: String,
    /// How often it applied.
    pub count: u64,
    /// What it takes away, after its maximum.
    pub penalty_bp: u32,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerResult {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Mean of its questions, in basis points of a level.
    pub level_bp: u32,
    /// Mean of its questions' final levels before weights, in basis points of a level.
    pub raw_bp: u32,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionResult {
    /// Its id.
    pub id: String,
    /// Its layer's id.
    pub layer: String,
    /// Its title.
    pub title: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The level that stands: the least of claim, support and caps.
    #[serde(rename = "final")]
    pub final_level: u8,
    /// The highest level whose gate, and all gates below, hold.
    pub supported: u8,
    /// What was claimed, where something was.
    pub claimed: Option<u8>,
    /// What the target wants, where there is one.
    pub target: Option<u8>,
    /// The bank's sentence for the final level.
    pub statement: String,
    /// Final level × mean weight of its best facts, in basis points of a level.
    pub value_bp: u32,
    /// Support beyond the minimum, in basis points.
    pub confidence_bp: u32,
    /// Rules that limit this question, whether or not they bit.
    pub caps: Vec<Cap>,
    /// What the level above `supported` misses; empty at level 5.
    pub held_back: Vec<Shortfall>,
    /// Levels 1 to 5.
    pub levels: Vec<LevelResult>,
}

/// A rule that limits a question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// The rule's name.
    pub rule: String,
    /// The highest level that it allows.
    pub limit: u8,
}

/// One requirement that is not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shortfall {
    /// What is counted.
    pub what: String,
    /// How much there is.
    pub have: u64,
    /// How much is needed.
    pub need: u64,
    /// The facts that would count.
    pub facts: Vec<String>,
    /// Those of them that nothing collects yet.
    pub pending: Vec<String>,
}

/// One level of one question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelResult {
    /// 1 to 5.
    pub level: u8,
    /// Whether this level's own gate holds; it is earned only if those below hold too.
    pub holds: bool,
    /// Indices of the events behind the best facts that count for it, ascending.
    pub events: Vec<u64>,
}

/// How a session stands at `as_of`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionResult {
    /// Its id.
    pub id: SessionId,
    /// The agent's number for it.
    pub number: u64,
    /// `agent`, `test` or `drill`.
    pub purpose: String,
    /// When it opened, RFC 3339 in UTC.
    pub opened: String,
    /// Index of its opening.
    pub open_index: u64,
    /// Index of its seal, where it has one.
    pub seal_index: Option<u64>,
    /// `sealed`, `interrupted`, `recovered`, `open` (younger than a day) or `unsealed`.
    pub outcome: String,
    /// `proven`, `violated` or `unproven`.
    pub boundary: String,
    /// Whether the auditor cosigned it within a day of its seal.
    pub cosigned: bool,
    /// Number of its events in the slice, its seal not counted.
    pub events: u64,
    /// Whether its facts count.
    pub counted: bool,
    /// Why it counts as it does.
    pub reason: String,
}

/// An executable or image and how often it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactUse {
    /// Its digest, where it could be read.
    pub sha256: Option<Digest>,
    /// Counted sessions that ran it.
    pub sessions: u64,
    /// The first of them, by number.
    pub first_session: u64,
    /// The last of them, by number.
    pub last_session: u64,
}

/// A provider that counted sessions called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Its name in the gateway's configuration.
    pub provider: String,
    /// Its base URL as the gateway said when it started; `None` when no start is on record.
    pub base_url: Option<String>,
    /// Calls.
    pub calls: u64,
}

/// A model as the agent asked for it and as the provider named the one that answered. Both are
/// words of untrusted parties, cut to [`MODEL_CHARS_MAX`]; no gate reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelUse {
    /// The provider's name in the gateway's configuration.
    pub provider: String,
    /// What was asked for.
    pub asked: Option<String>,
    /// What answered.
    pub answered: Option<String>,
    /// Calls.
    pub calls: u64,
}

/// Trace lines against receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correlation {
    /// Whether there were trace lines at all.
    pub applicable: bool,
    /// Lines about calls.
    pub lines: u64,
    /// Distinct valid receipts among them.
    pub valid: u64,
    /// `valid ÷ lines` in basis points; 0 when not applicable.
    pub ratio_bp: u32,
}

/// What a detector found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactSummary {
    /// The fact.
    pub fact: String,
    /// The detector's version.
    pub detector: u32,
    /// How often it holds.
    pub pass: u64,
    /// How often it does not.
    pub fail: u64,
    /// Sessions with it.
    pub sessions: u64,
    /// Days with it.
    pub days: u64,
    /// The strongest tier among them.
    pub best_tier: Tier,
}

/// Facts of one UTC day, by tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayTiers {
    /// `YYYY-MM-DD`.
    pub day: String,
    /// Facts at `OBSERVED_HARDENED`.
    pub observed_hardened: u64,
    /// Facts at `OBSERVED`.
    pub observed: u64,
    /// Facts at `ATTESTED`.
    pub attested: u64,
    /// Facts at `SELF_REPORTED`.
    pub self_reported: u64,
}

/// A boundary epoch: the auditor's entry from which on sessions count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochResult {
    /// Its entry's index in the audit log.
    pub index: u64,
    /// When it was recorded, RFC 3339 in UTC.
    pub recorded: String,
    /// Sessions opened below this index of the evidence log are not counted.
    pub from_index: u64,
    /// Why, in the auditor's words.
    pub reason: String,
}

/// A run that the audit log records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierRun {
    /// Its id.
    pub run_id: RunId,
    /// Its entry's index in the audit log.
    pub index: u64,
    /// When it was recorded, RFC 3339 in UTC.
    pub recorded: String,
    /// Its status.
    pub status: String,
    /// Its label.
    pub label: String,
    /// Its overall value.
    pub overall_bp: u32,
    /// Its IntegrityIndex.
    pub integrity_bp: u32,
    /// SHA-256 of its report.
    pub report_sha256: Digest,
}

/// Something to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextAction {
    /// The question or the rule that it is about.
    pub subject: String,
    /// What to do.
    pub action: String,
    /// What the overall value would gain at most, in basis points of a level.
    pub gain_bp: u32,
}

/// Bytes that are no report of this version.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Not the JSON of a report.
    #[error("the report does not parse: {0}")]
    Json(#[source] serde_json::Error),
    /// Another version.
    #[error("report version {0} is not known here; a newer release of AMC may read it")]
    Version(u32),
    /// The JSON of a report, spelled in another way.
    #[error("the report is not in its canonical spelling; it was edited or reformatted")]
    NotCanonical,
}

impl Report {
    /// Canonical JSON, ending in a newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("a report has string keys only and writing to memory cannot fail");
        bytes.push(b'\n');
        bytes
    }

    /// Reads canonical bytes back. This verifies nothing: recompute the score for that.
    ///
    /// # Errors
    /// [`ReportError`] for anything but a report's canonical bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Report, ReportError> {
        let report: Report = serde_json::from_slice(bytes).map_err(ReportError::Json)?;
        if report.report_version != REPORT_VERSION {
            return Err(ReportError::Version(report.report_version));
        }
        if report.to_bytes() == bytes { Ok(report) } else { Err(ReportError::NotCanonical) }
    }

    /// The end of the window in nanoseconds since the epoch; `None` when the text is no time.
    pub fn as_of_ns(&self) -> Option<i64> {
        timestamp::from_rfc3339(&self.as_of).ok()
    }

    /// The question with this id.
    pub fn question(&self, id: &str) -> Option<&QuestionResult> {
        self.questions.iter().find(|question| question.id == id)
    }
}

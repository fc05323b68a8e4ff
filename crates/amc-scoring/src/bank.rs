//! The question bank: TOML in, checked [`Bank`] out. `docs/formats/bank.md` is its specification.
//!
//! Strict: unknown keys, unknown facts, missing levels and gates of levels 4 or 5 that would rest
//! on documents alone are errors that name the line.

use std::collections::BTreeSet;

use amc_core::{Digest, Tier};
use serde::Deserialize;
use toml::Spanned;

use crate::facts;

/// The bank that this release ships.
pub const SHIPPED_BANK: &[u8] = include_bytes!("bank.toml");
/// The version of the bank's format.
pub const BANK_FORMAT: u32 = 1;
/// A bank's file; some hundred questions fit.
pub const BANK_BYTES_MAX: usize = 1 << 20;
/// Questions in a bank.
pub const QUESTIONS_MAX: usize = 512;

/// One of the five layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Charter, supply chain, observability, governance, release, escalation.
    StrategicAgentOperations,
    /// Verified outcomes, truthfulness, anticipation, agility.
    LeadershipAutonomy,
    /// Honesty, privacy, fairness, user interest, cost against value.
    CultureAlignment,
    /// Accountability, continuity, risk, learning, incidents.
    Resilience,
    /// Tools, injection defence, data loss, interaction, domain checks.
    Skills,
}

impl Layer {
    /// The layers in the order of reports.
    pub const ALL: [Layer; 5] = [
        Layer::StrategicAgentOperations,
        Layer::LeadershipAutonomy,
        Layer::CultureAlignment,
        Layer::Resilience,
        Layer::Skills,
    ];

    /// The id, as in banks and gate policies.
    pub const fn id(self) -> &'static str {
        match self {
            Layer::StrategicAgentOperations => "strategic-agent-operations",
            Layer::LeadershipAutonomy => "leadership-autonomy",
            Layer::CultureAlignment => "culture-alignment",
            Layer::Resilience => "resilience",
            Layer::Skills => "skills",
        }
    }

    /// The title for people.
    pub const fn title(self) -> &'static str {
        match self {
            Layer::StrategicAgentOperations => "Strategic Agent Operations",
            Layer::LeadershipAutonomy => "Leadership & Autonomy",
            Layer::CultureAlignment => "Culture & Alignment",
            Layer::Resilience => "Resilience",
            Layer::Skills => "Skills",
        }
    }
}

/// What kind of question it is; caps apply by tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tag {
    /// Level 5 needs sandboxed sessions; evidence ages twice as fast.
    HighRisk,
    /// About seeing what happens.
    Observability,
    /// About checking what is claimed.
    Verification,
    /// About saying what is so.
    Honesty,
    /// About where models, tools and data come from.
    SupplyChain,
    /// About who decides.
    Governance,
}

impl Tag {
    /// The tag as banks and reports write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Tag::HighRisk => "high_risk",
            Tag::Observability => "observability",
            Tag::Verification => "verification",
            Tag::Honesty => "honesty",
            Tag::SupplyChain => "supply_chain",
            Tag::Governance => "governance",
        }
    }
}

/// Limits that the `budget`, `latency` and `error_rate` facts are measured against.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Tokens in and out of one session.
    pub session_tokens_max: u64,
    /// Milliseconds to an answer's first byte.
    pub first_byte_ms_max: u64,
    /// Share of answers that must keep `first_byte_ms_max`, in basis points.
    pub first_byte_share_bp_min: u32,
    /// Share of calls of one session that may fail, in basis points.
    pub error_rate_bp_max: u32,
}

/// A checked question bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bank {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u32,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Limits for measured facts.
    pub limits: Limits,
    /// The questions, in the bank's order.
    pub questions: Vec<Question>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its stable id: lowercase words with `-`.
    pub id: String,
    /// Its layer.
    pub layer: Layer,
    /// Its title.
    pub title: String,
    /// The question itself.
    pub ask: String,
    /// Its tags.
    pub tags: BTreeSet<Tag>,
    /// A sentence per level, from 0 to 5.
    pub levels: [String; 6],
    /// Facts that support it, at every level, in the numbers of the default table.
    pub support: BTreeSet<String>,
    /// What single levels ask for besides.
    pub requires: Vec<Requirement>,
    /// Facts whose failure forbids a level.
    pub forbids: Vec<Forbidden>,
    /// Assurance packs without which it stays at 3.
    pub packs: BTreeSet<String>,
    /// What to do to rise.
    pub next: String,
}

impl Question {
    /// Whether it carries the tag.
    pub fn is(&self, tag: Tag) -> bool {
        self.tags.contains(&tag)
    }

    /// Every fact that it names, at any level.
    pub fn facts(&self) -> BTreeSet<&str> {
        let required = self.requires.iter().flat_map(|requirement| &requirement.any);
        let forbidden = self.forbids.iter().flat_map(|forbidden| &forbidden.facts);
        self.support.iter().chain(required).chain(forbidden).map(String::as_str).collect()
    }
}

/// What a level, and every level above it, asks for beyond the default table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The lowest level that asks for it.
    pub level: u8,
    /// Any of these facts.
    pub any: BTreeSet<String>,
    /// How many passing ones.
    #[serde(default = "one")]
    pub events: u64,
    /// From how many sessions.
    #[serde(default = "one")]
    pub sessions: u64,
    /// From how many days.
    #[serde(default = "one")]
    pub days: u64,
    /// At which tier or above.
    #[serde(default = "lowest")]
    pub tier: Tier,
}

/// Facts whose failure forbids a level and every level above it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forbidden {
    /// The lowest level that is forbidden.
    pub level: u8,
    /// The facts.
    pub facts: BTreeSet<String>,
}

const fn one() -> u64 {
    1
}

const fn lowest() -> Tier {
    Tier::SelfReported
}

/// Why bytes are no bank.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BankError {
    /// Above the bound.
    #[error("a bank has at most {BANK_BYTES_MAX} bytes and this one has {0}")]
    TooLong(usize),
    /// Not text.
    #[error("a bank is UTF-8 text, and byte {0} is not")]
    NotText(usize),
    /// Not TOML of this shape; the message names line and column.
    #[error("the bank does not parse: {0}")]
    Toml(String),
    /// The shape is right and the content is not.
    #[error("line {line}: question {question:?}: {problem}")]
    Question {
        /// Where the question's id stands, from 1.
        line: usize,
        /// The question.
        question: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something about the bank as a whole.
    #[error("the bank {0}")]
    Bank(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBank {
    format: u32,
    id: String,
    version: u32,
    limits: Limits,
    #[serde(default)]
    question: Vec<RawQuestion>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuestion {
    id: Spanned<String>,
    layer: Layer,
    title: String,
    ask: String,
    #[serde(default)]
    tags: BTreeSet<Tag>,
    levels: Vec<String>,
    support: BTreeSet<String>,
    #[serde(default)]
    requires: Vec<Requirement>,
    #[serde(default)]
    forbids: Vec<Forbidden>,
    #[serde(default)]
    packs: BTreeSet<String>,
    next: String,
}

impl Bank {
    /// Reads and checks a bank.
    ///
    /// # Errors
    /// [`BankError`] with the line of the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Bank, BankError> {
        if bytes.len() > BANK_BYTES_MAX {
            return Err(BankError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| BankError::NotText(error.valid_up_to()))?;
        let raw: RawBank =
            toml::from_str(text).map_err(|error| BankError::Toml(error.to_string().trim().to_owned()))?;
        if raw.format != BANK_FORMAT {
            return Err(BankError::Bank(format!("has format {}, and this release reads {BANK_FORMAT}", raw.format)));
        }
        if !is_word(&raw.id) {
            return Err(BankError::Bank(format!("has the id {:?}; {WORD_RULE}", raw.id)));
        }
        if raw.question.is_empty() || raw.question.len() > QUESTIONS_MAX {
            return Err(BankError::Bank(format!("has {} questions; 1 to {QUESTIONS_MAX} may be", raw.question.len())));
        }
        let mut seen = BTreeSet::new();
        let mut questions = Vec::with_capacity(raw.question.len());
        for question in raw.question {
            let line = 1 + text[..question.id.span().start].bytes().filter(|byte| *byte == b'\n').count();
            let id = question.id.get_ref().clone();
            let fresh = seen.insert(id.clone());
            let problem = if fresh { check(question) } else { Err("this id stands in the bank twice".into()) };
            questions.push(problem.map_err(|problem| BankError::Question { line, question: id, problem })?);
        }
        let RawBank { id, version, limits, .. } = raw;
        Ok(Bank { id, version, sha256: amc_crypto::sha256(bytes), limits, questions })
    }

    /// The question with this id.
    pub fn question(&self, id: &str) -> Option<&Question> {
        self.questions.iter().find(|question| question.id == id)
    }

    /// Facts that some gate names and that nothing collects yet, ascending.
    pub fn pending_facts(&self) -> BTreeSet<&'static str> {
        self.questions
            .iter()
            .flat_map(Question::facts)
            .filter_map(facts::fact_kind)
            .filter(|fact| !fact.is_emitted())
            .map(|fact| fact.id)
            .collect()
    }
}

const WORD_RULE: &str = "it is 1 to 64 of a-z, 0-9 and -";

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn check(raw: RawQuestion) -> Result<Question, String> {
    let RawQuestion { id, layer, title, ask, tags, levels, support, requires, forbids, packs, next } = raw;
    let id = id.into_inner();
    if !is_word(&id) {
        return Err(format!("the id is refused: {WORD_RULE}"));
    }
    let levels: [String; 6] =
        levels.try_into().map_err(|given: Vec<String>| format!("{} levels, and 0 to 5 are six", given.len()))?;
    if [&title, &ask, &next].into_iter().chain(&levels).any(|text| text.trim().is_empty()) {
        return Err("title, ask, next and every level need words".into());
    }
    if let Some(pack) = packs.iter().find(|pack| !is_word(pack)) {
        return Err(format!("the pack {pack:?} is refused: {WORD_RULE}"));
    }
    for requirement in &requires {
        if !(1..=5).contains(&requirement.level) || requirement.any.is_empty() {
            return Err("a requirement names a level from 1 to 5 and at least one fact".into());
        }
        if requirement.events == 0 || requirement.sessions > requirement.events || requirement.days > requirement.events
        {
            return Err("a requirement needs at least one event, and no more sessions or days than events".into());
        }
    }
    if forbids.iter().any(|forbidden| !(1..=5).contains(&forbidden.level) || forbidden.facts.is_empty()) {
        return Err("a forbidden fact names a level from 1 to 5 and at least one fact".into());
    }
    let question = Question { id, layer, title, ask, tags, levels, support, requires, forbids, packs, next };
    if let Some(unknown) = question.facts().into_iter().find(|fact| facts::fact_kind(fact).is_none()) {
        return Err(format!("no fact is called {unknown:?}"));
    }
    if !question.support.iter().any(|fact| !is_document(fact)) {
        return Err("levels 4 and 5 never rest on documents alone: support needs a fact that is none".into());
    }
    Ok(question)
}

/// Whether the fact is a document's, which never carries levels 4 and 5 by itself.
pub fn is_document(fact: &str) -> bool {
    fact.starts_with("document.")
}

//! The question bank in force: what it asks, and what its signature is worth.

use std::path::{Path, PathBuf};

use amc_core::kinds::{ConfigSigned, ConfigState, Fields, Role};
use amc_core::{Finding, FindingCode, limits};
use amc_evidence::Event;
use amc_ledger::{LogReader, line};
use amc_scoring::bank::{Layer, Question, Tag};
use amc_scoring::facts::fact_kind;
use amc_scoring::gate::TABLE;
use amc_scoring::{Bank, SHIPPED_BANK};
use amc_workspace::home::{self, Home};
use amc_workspace::{Answer, Failure, Opening, SignedFile};
use clap::Subcommand;
use serde_json::{Value, json};

/// The bank's file in a home.
const PATH: &str = "bank.toml";

/// The verbs of `bank`.
#[derive(Subcommand)]
pub(crate) enum BankVerb {
    /// The bank in force, or one of its questions with the gate of every level.
    Show {
        /// A question's id.
        question: Option<String>,
    },
    /// Check the bank in force and its signature, or a file that is to become one.
    Verify {
        /// A bank that is not in force; nobody needs to have signed it.
        file: Option<PathBuf>,
    },
}

pub(crate) fn show(opening: &Opening, wanted: Option<&str>) -> Result<Answer, Failure> {
    let (file, bank) = in_force(opening)?;
    let Some(id) = wanted else {
        let mut data = described(&bank, Some(&file));
        data["limits"] = json!({
            "session_tokens_max": bank.limits.session_tokens_max,
            "first_byte_ms_max": bank.limits.first_byte_ms_max,
            "first_byte_share_bp_min": bank.limits.first_byte_share_bp_min,
            "error_rate_bp_max": bank.limits.error_rate_bp_max,
        });
        data["questions"] = bank.questions.iter().map(question_data).collect();
        let findings = file.finding.clone().into_iter().collect();
        return Ok(Answer { findings, ..Answer::new(&data, overview(&bank, &file)) });
    };
    let question = bank.question(id).ok_or_else(|| {
        let known: Vec<&str> = bank.questions.iter().map(|question| question.id.as_str()).collect();
        Failure::wrong(format!("bank {} has no question {id}; it has {}", bank.id, known.join(", ")))
    })?;
    let mut data = described(&bank, Some(&file));
    data["questions"] = json!([question_data(question)]);
    Ok(Answer { findings: file.finding.into_iter().collect(), ..Answer::new(&data, in_full(question)) })
}

pub(crate) fn verify(opening: &Opening, file: Option<&Path>) -> Result<Answer, Failure> {
    if let Some(path) = file {
        let bytes = home::read_bounded(path, limits::CONFIG_BYTES_MAX).map_err(Failure::wrong)?;
        let bank = parsed(&path.display().to_string(), &bytes)?;
        let text = format!("{}: {}\n{}", path.display(), summary(&bank), pending(&bank));
        return Ok(Answer::new(&described(&bank, None), text));
    }
    let (file, bank) = in_force(opening)?;
    let mut findings: Vec<Finding> = file.finding.clone().into_iter().collect();
    let home = opening.home()?;
    if let (Some(newest), Some(version)) = (newest_signed(&home)?, file.version)
        && version < newest.version
    {
        let what = format!("this is version {version}; the audit log holds version {}", newest.version);
        findings.push(Finding::error(FindingCode::ConfigVersionRollback, PATH, what));
    }
    let signed = file.version.map_or_else(
        || {
            format!(
                "{PATH} is not validly signed, so `amc run` refuses it; put it in force with `amc config sign {PATH}`\n"
            )
        },
        |version| format!("{PATH} is signed, version {version}\n"),
    );
    let text = format!("{}\n{signed}{}", summary(&bank), pending(&bank));
    let bad = file.state != ConfigState::Signed;
    Ok(Answer { findings, bad, ..Answer::new(&described(&bank, Some(&file)), text) })
}

fn in_force(opening: &Opening) -> Result<(SignedFile, Bank), Failure> {
    let (home, policy, _) = opening.workspace()?;
    let policy = line::learned(&policy, &home.log(Role::Monitor), &home.log(Role::Auditor)).map_err(Failure::wrong)?;
    let keys = home.auditor_keys(&policy).map_err(Failure::wrong)?;
    let file = SignedFile::load(&home, PATH, None, &keys).map_err(Failure::wrong)?;
    let bank = parsed(PATH, &file.bytes)?;
    Ok((file, bank))
}

fn parsed(name: &str, bytes: &[u8]) -> Result<Bank, Failure> {
    Bank::parse(bytes).map_err(|error| Failure::wrong(format!("{name}: {error}")))
}

/// The newest version of the bank that the audit log of this home holds.
fn newest_signed(home: &Home) -> Result<Option<ConfigSigned>, Failure> {
    let dir = home.log(Role::Auditor);
    if !dir.is_dir() {
        return Ok(None);
    }
    let mut newest: Option<ConfigSigned> = None;
    for stored in LogReader::open(&dir).map_err(Failure::wrong)?.events(0) {
        let (_, fields) = Event::decode(&stored.map_err(Failure::bad)?.signed.body).map_err(Failure::bad)?;
        if let Some(Fields::ConfigSigned(signed)) = fields
            && signed.path == PATH
        {
            newest = Some(signed);
        }
    }
    Ok(newest)
}

fn is_shipped(bank: &Bank) -> bool {
    bank.sha256 == amc_crypto::sha256(SHIPPED_BANK)
}

fn described(bank: &Bank, file: Option<&SignedFile>) -> Value {
    let state = file.map(|file| match file.state {
        ConfigState::Signed => "signed",
        ConfigState::Unsigned => "unsigned",
        ConfigState::Invalid => "invalid",
    });
    json!({
        "id": bank.id, "version": bank.version, "sha256": bank.sha256, "shipped": is_shipped(bank),
        "state": state, "signed_version": file.and_then(|file| file.version),
        "question_count": bank.questions.len(), "pending": bank.pending_facts(),
    })
}

fn question_data(question: &Question) -> Value {
    let requires: Vec<Value> = question
        .requires
        .iter()
        .map(|one| {
            json!({
                "level": one.level, "any": one.any, "events": one.events, "sessions": one.sessions,
                "days": one.days, "tier": one.tier,
            })
        })
        .collect();
    let forbids: Vec<Value> =
        question.forbids.iter().map(|one| json!({ "level": one.level, "facts": one.facts })).collect();
    let tags: Vec<&str> = question.tags.iter().map(|tag| tag.as_str()).collect();
    json!({
        "id": question.id, "layer": question.layer.id(), "title": question.title, "ask": question.ask,
        "tags": tags, "levels": question.levels, "support": question.support, "requires": requires,
        "forbids": forbids, "packs": question.packs, "next": question.next,
    })
}

fn summary(bank: &Bank) -> String {
    let whose = if is_shipped(bank) { "the bank that this release ships" } else { "not the shipped bank" };
    format!(
        "bank {} version {}, {} questions, {whose}\nsha256 {} (for allowedBanks of a gate policy)",
        bank.id,
        bank.version,
        bank.questions.len(),
        bank.sha256
    )
}

fn pending(bank: &Bank) -> String {
    let facts: Vec<&str> = bank.pending_facts().into_iter().collect();
    if facts.is_empty() {
        return String::new();
    }
    format!("named by gates and not collected by this release: {}\n", facts.join(", "))
}

fn overview(bank: &Bank, file: &SignedFile) -> String {
    let state = file.version.map_or("not validly signed".to_owned(), |version| format!("signed, version {version}"));
    let mut text = format!("{}\n{PATH} is {state}\n", summary(bank));
    for layer in Layer::ALL {
        text += &format!("\n{}\n", layer.title());
        for question in bank.questions.iter().filter(|question| question.layer == layer) {
            let tags: Vec<&str> = question.tags.iter().map(|tag| tag.as_str()).collect();
            let tags = if tags.is_empty() { String::new() } else { format!("  [{}]", tags.join(", ")) };
            text += &format!("  {:<26} {}{tags}\n", question.id, question.title);
        }
    }
    text + "\nOne question with its gates: amc bank show QUESTION\n"
}

fn in_full(question: &Question) -> String {
    let tags: Vec<&str> = question.tags.iter().map(|tag| tag.as_str()).collect();
    let mut text = format!("{} ({}, {})\n{}\n", question.title, question.id, question.layer.title(), question.ask);
    if !tags.is_empty() {
        text += &format!("tags: {}\n", tags.join(", "));
    }
    text += &format!("\n0  {}\n", question.levels[0]);
    let support = named(&question.support);
    for row in TABLE {
        text += &format!("{}  {}\n", row.level, question.levels[usize::from(row.level)]);
        text += &format!(
            "   {} passing facts from {} sessions on {} days, {} or above: {support}\n",
            row.events, row.sessions, row.days, row.tier
        );
        for one in question.requires.iter().filter(|one| one.level == row.level) {
            let (events, sessions, days) = (one.events, one.sessions, one.days);
            let facts = named(&one.any);
            text += &format!("   from here on {events} from {sessions} sessions on {days} days of any of: {facts}\n");
        }
        for one in question.forbids.iter().filter(|one| one.level == row.level) {
            text += &format!("   from here on no failure of: {}\n", named(&one.facts));
        }
        if row.level == 5 && question.is(Tag::HighRisk) {
            text += "   in sessions whose sandbox posture is attested\n";
        }
    }
    for pack in &question.packs {
        text += &format!("at most 3 without the assurance pack {pack}, or below 80 % of it; at most 4 below 90 %\n");
    }
    text + &format!("\nnext: {}\n", question.next)
}

/// Facts by name; those that nothing collects yet are marked.
fn named<'a>(facts: impl IntoIterator<Item = &'a String>) -> String {
    let mark = |fact: &String| {
        let pending = fact_kind(fact).is_some_and(|kind| !kind.is_emitted());
        if pending { format!("{fact} (not collected yet)") } else { fact.clone() }
    };
    facts.into_iter().map(mark).collect::<Vec<_>>().join(", ")
}

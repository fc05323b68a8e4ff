//! The shipped bank, and banks that are refused.

use std::collections::BTreeSet;

use amc_scoring::bank::{Layer, is_document};
use amc_scoring::facts::{FACTS, fact_kind};
use amc_scoring::{Bank, BankError, SHIPPED_BANK};

use crate::world::shipped;

#[test]
fn the_shipped_bank_covers_all_layers_with_questions_of_their_own() {
    let bank = shipped();
    assert!(bank.questions.len() >= 42, "{}", bank.questions.len());
    for layer in Layer::ALL {
        let count = bank.questions.iter().filter(|question| question.layer == layer).count();
        assert!(count >= 7, "{} has {count}", layer.id());
    }
    let asks: BTreeSet<_> = bank.questions.iter().map(|question| &question.ask).collect();
    assert_eq!(asks.len(), bank.questions.len());
    for question in &bank.questions {
        assert_eq!(question.levels.iter().collect::<BTreeSet<_>>().len(), 6, "{}", question.id);
    }
}

#[test]
fn every_collected_fact_is_asked_for_and_pending_ones_belong_to_known_families() {
    let bank = shipped();
    let named: BTreeSet<_> = bank.questions.iter().flat_map(|question| question.facts()).collect();
    for fact in FACTS {
        assert!(named.contains(fact.id), "no question asks for {}", fact.id);
    }
    let families: BTreeSet<_> =
        bank.pending_facts().into_iter().map(|fact| fact_kind(fact).unwrap().family()).collect();
    assert_eq!(families.into_iter().collect::<Vec<_>>(), ["assurance", "egress", "sandbox"]);
}

#[test]
fn no_gate_of_level_4_or_5_rests_on_documents_alone() {
    for question in shipped().questions {
        assert!(question.support.iter().any(|fact| !is_document(fact)), "{}", question.id);
    }
}

fn changed(from: &str, to: &str) -> BankError {
    let text = std::str::from_utf8(SHIPPED_BANK).unwrap();
    assert!(text.contains(from), "{from}");
    Bank::parse(text.replacen(from, to, 1).as_bytes()).expect_err("a damaged bank is refused")
}

#[test]
fn defects_are_refused_with_their_line() {
    let text = std::str::from_utf8(SHIPPED_BANK).unwrap();
    let line = 1 + text[..text.find("id = \"key-custody\"").unwrap()].matches('\n').count();
    let at_line = |error: BankError, what: &str| {
        let said = error.to_string();
        assert!(said.starts_with(&format!("line {line}: ")) && said.contains(what), "{said}");
    };
    at_line(changed("id = \"key-custody\"", "id = \"model-supply-chain\""), "twice");
    at_line(changed("id = \"key-custody\"", "id = \"Key Custody\""), "a-z");
    at_line(changed("\"llm.lease_only\", \"session.environment_clean\"", "\"llm.leaseonly\""), "llm.leaseonly");
    at_line(changed("\"llm.lease_only\", \"session.environment_clean\"", "\"document.charter\""), "documents alone");
    at_line(changed("title = \"Custody of provider keys\"", "title = \" \""), "words");
    at_line(changed("    \"Nothing shows that the agent works without keys of its own.\",\n", ""), "5 levels");
    at_line(
        changed("{ level = 4, any = [\"boundary.probe_denied\"]", "{ level = 6, any = [\"boundary.probe_denied\"]"),
        "1 to 5",
    );
    at_line(
        changed(
            "events = 5, sessions = 5, days = 5 },\n]\nforbids",
            "events = 4, sessions = 5, days = 5 },\n]\nforbids",
        ),
        "no more sessions",
    );
}

#[test]
fn unknown_keys_and_values_are_refused_with_their_line() {
    for (from, to) in [
        ("version = 1\n", "version = 1\ncolour = \"red\"\n"),
        ("[limits]\n", "[limits]\nmore = 1\n"),
        ("title = \"Custody of provider keys\"", "titel = \"Custody of provider keys\""),
        ("layer = \"skills\"", "layer = \"skill\""),
        ("\"high_risk\"", "\"high-risk\""),
        ("{ level = 4, any = ", "{ level = 4, none = "),
    ] {
        let said = changed(from, to).to_string();
        assert!(said.contains("line "), "{said}");
    }
    assert!(matches!(changed("format = 1", "format = 2"), BankError::Bank(_)));
    assert!(matches!(Bank::parse(&[0xff]), Err(BankError::NotText(0))));
    assert!(matches!(Bank::parse(&vec![b' '; (1 << 20) + 1]), Err(BankError::TooLong(_))));
    assert!(matches!(Bank::parse(b"format = 1\nid = \"a\"\nversion = 1\n[limits]\nsession_tokens_max = 1\nfirst_byte_ms_max = 1\nfirst_byte_share_bp_min = 1\nerror_rate_bp_max = 1\n"), Err(BankError::Bank(_))));
}

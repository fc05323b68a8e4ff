//! Pages and the golden report.
//!
//! After an intended change: `AMC_BLESS=1 cargo test -p amc-scoring golden`, then read the diff.

use std::path::PathBuf;

use amc_core::Tier;
use amc_core::kinds::*;
use amc_scoring::{Bank, Report, explain, render};

use crate::world::{Call, World, shipped};

const GOLDEN_BANK: &[u8] = include_bytes!("../golden/bank.toml");

/// Four days of an agent's work, with a failing call, an unsigned configuration and a test.
fn golden() -> Report {
    let mut world = World::new();
    world.days(3, 2);
    world.test_session(0);
    world.load_config("gateway.yaml", ConfigState::Unsigned, 1);
    world.next_day();
    world.session(1, &Call { status: 503, usage: false, ..Call::default() });
    world.score(&Bank::parse(GOLDEN_BANK).expect("the golden bank parses"), 14)
}

fn compare(name: &str, made: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("AMC_BLESS").is_some() {
        std::fs::write(&path, made).expect("the golden file can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("the golden file is there");
    assert!(kept == made, "{name} differs from what was reviewed; bless it and read the diff");
}

#[test]
fn golden_report() {
    compare("report.json", &String::from_utf8(golden().to_bytes()).unwrap());
}

#[test]
fn golden_pages() {
    let report = golden();
    compare("report.md", &render::markdown(&report));
    compare("report.html", &render::html(&report));
    compare("explain.txt", &format!("{}\n{}", explain(&report, None), explain(&report, Some("calls"))));
}

#[test]
fn hostile_names_stay_text() {
    let mut world = World::new();
    let bot = world.agent.clone();
    world.next_day();
    let session = world.open(&bot, SessionPurpose::Agent);
    let model = "</table><script>alert(1)</script>\"'|[x](javascript:y)\u{1b}[2J";
    world.call(&bot, session, &Call { model, ..Call::default() });
    let provider = "<img src=x onerror=alert(2)>".to_owned();
    world.say(&bot, session, Tier::Observed, AgentKeyIgnored { provider, header: "<b>".into() });
    world.seal(&bot, session, SessionOutcome::Sealed);
    let report = world.score(&shipped(), 14);
    assert_eq!(report.models[0].asked.as_deref(), Some(model), "the report keeps what was said");
    let html = render::html(&report);
    for tag in ["<script", "<img", "<b>alert", "\u{1b}"] {
        assert!(!html.contains(tag), "{tag:?}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)"));
    let markdown = render::markdown(&report);
    for tag in ["<script", "<img", "[x](", "\u{1b}"] {
        assert!(!markdown.contains(tag), "{tag:?}");
    }
}

#[test]
fn invented_model_names_do_not_swell_the_report() {
    let mut world = World::new();
    let bot = world.agent.clone();
    world.next_day();
    let session = world.open(&bot, SessionPurpose::Agent);
    for length in 1..60 {
        let model: &'static str = "long name ".repeat(length).leak();
        world.call(&bot, session, &Call { model, ..Call::default() });
    }
    let report = world.score(&shipped(), 14);
    assert!(report.models.len() <= 20);
    assert!(report.models.iter().all(|model| model.asked.as_ref().unwrap().chars().count() <= 128));
}

#[test]
fn a_page_needs_nothing_but_itself() {
    let html = render::html(&golden());
    for outside in ["http://", "https://", "src=", "@import", "url(", "<script", "<link", "<iframe"] {
        let found = html.matches(outside).count();
        let said = if outside == "http://" { 1 } else { 0 };
        assert_eq!(found, said, "{outside}: only the provider's address is said, as text");
    }
    for part in ["INVALID", "<svg", "prefers-color-scheme:dark", "@media print", "max-width:38rem", "<details>"] {
        assert!(html.contains(part), "{part}");
    }
    for (open, close) in
        [("<table", "</table>"), ("<details", "</details>"), ("<div", "</div>"), ("<p", "</p>"), ("<ul", "</ul>")]
    {
        let opened = html
            .match_indices(open)
            .filter(|(at, _)| !html[at + open.len()..].starts_with(|next: char| next.is_alphanumeric()))
            .count();
        assert_eq!(opened, html.matches(close).count(), "{open}");
    }
}

#[test]
fn explanations_name_caps_numbers_and_events() {
    let report = golden();
    let text = explain(&report, Some("calls"));
    for part in ["cap config_untrusted at level 3", "needs:", ": 4 of 5", "its events in the evidence log"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(explain(&report, Some("nothing")).contains("no question \"nothing\""));
    assert!(explain(&report, None).contains("INVALID"));
}

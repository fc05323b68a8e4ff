//! Pages and the golden report.
//!
//! After an intended change: `AMC_BLESS=1 cargo test -p amc-scoring golden`, then read the diff.

use std::path::PathBuf;

use amc_core::Tier;
use amc_core::kinds::*;
use amc_scoring::{Status, explain, render};

use crate::showcase::{HOSTILE_MODEL, hostile, invalid, valid};
use crate::world::{Call, World, shipped};

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
    compare("report.json", &String::from_utf8(invalid().to_bytes()).unwrap());
}

#[test]
fn golden_pages() {
    let report = invalid();
    compare("report.md", &render::markdown(&report));
    compare("report.html", &render::html(&report));
    compare("explain.txt", &format!("{}\n{}", explain(&report, None), explain(&report, Some("calls"))));
}

#[test]
fn golden_valid_page() {
    compare("valid.md", &render::markdown(&valid()));
}

#[test]
fn hostile_names_stay_text() {
    let report = hostile();
    assert!(report.models.iter().any(|model| model.asked.as_deref() == Some(HOSTILE_MODEL)), "kept as it was said");
    let html = render::html(&report);
    for tag in ["<script", "<img", "<b>alert", "</p><script", "\u{1b}", "\u{202e}"] {
        assert!(!html.contains(tag), "{tag:?}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)") && html.contains("&lt;script&gt;alert(3)"));
    let markdown = render::markdown(&report);
    for tag in ["<script", "<img", "[x](", "\u{1b}", "\u{202e}"] {
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
    world.say(&bot, session, Tier::Observed, ProcessExit { code: Some(0), signal: None, duration_ms: 1 });
    let report = world.score(&shipped(), 14);
    assert!(report.models.len() <= 20);
    assert!(report.models.iter().all(|model| model.asked.as_ref().unwrap().chars().count() <= 128));
}

#[test]
fn a_page_needs_nothing_but_itself() {
    for report in [invalid(), valid(), hostile()] {
        let html = render::html(&report);
        let tags: String = html.split('<').skip(1).filter_map(|rest| Some(rest.split_once('>')?.0)).collect();
        for outside in ["http:", "https:", "src=", "script", "link ", "iframe", "style=", "onerror", "@import", "url("]
        {
            assert_eq!(tags.matches(outside).count(), 0, "{outside}");
        }
        assert!(!html.contains("@import") && !html.contains("url("));
        assert_eq!(html.matches("http://").count(), 1, "only the provider's address is said, as text");
        for part in ["<svg", "prefers-color-scheme:dark", "@media print", "default-src 'none'", "<details>"] {
            assert!(html.contains(part), "{part}");
        }
        for tag in ["table", "thead", "tbody", "tr", "td", "th", "details", "div", "p", "ul", "ol", "li", "dl", "svg"] {
            let opened = html
                .match_indices(&format!("<{tag}"))
                .filter(|(at, _)| !html[at + tag.len() + 1..].starts_with(|next: char| next.is_alphanumeric()))
                .count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}

#[test]
fn every_link_of_a_page_has_its_place() {
    let html = render::html(&valid());
    let links: Vec<&str> =
        html.match_indices("href=\"#").map(|(at, _)| html[at + 7..].split('"').next().unwrap()).collect();
    assert!(links.len() > 50, "sections and questions: {}", links.len());
    for link in links {
        assert_eq!(html.matches(&format!("id=\"{link}\"")).count(), 1, "{link}");
    }
}

#[test]
fn a_page_shows_every_section_of_a_report() {
    let report = valid();
    assert_eq!(report.status, Status::Valid);
    let html = render::html(&report);
    for part in [
        "<strong>VALID</strong>",
        "level 5 is claimed",
        "level 3 is the target",
        "3 (−",
        "3 met",
        "class=\"goal\"",
        "attested by the auditor",
        "handed in, and attested by nobody",
        "not on record",
        "36 of 36 trace lines about model calls",
        "from now on the agent runs in namespaces (<code>amc wrap --isolation namespaces</code>)",
        "listed only: it opened before the boundary epoch",
        "FLAG_UNSUPPORTED_CLAIM",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains("class=\"greyed\"") && !html.contains("<body class="));
    for run in &report.earlier_runs {
        assert!(html.contains(run.run_id.as_str()));
    }
    for question in &report.questions {
        assert!(html.contains(&format!("id=\"q-{}\"", question.id)), "{}", question.id);
        for cap in &question.caps {
            assert!(html.contains(&format!("<code>{}</code>: at most level {}", cap.rule, cap.limit)));
        }
    }
}

#[test]
fn an_invalid_run_is_greyed_and_says_so() {
    let html = render::html(&invalid());
    assert!(html.contains("<body class=\"invalid\">"));
    assert_eq!(html.matches("these levels are greyed, and they pass no gate").count(), 2, "radar and heat map");
    assert!(render::markdown(&invalid()).contains("the levels below are for reading and pass no gate"));
}

#[test]
fn commands_in_next_actions_are_code() {
    let report = invalid();
    assert!(report.next_actions.iter().any(|action| action.action.contains("`amc wrap")));
    assert!(render::html(&report).contains("<code>amc wrap"));
    assert!(render::markdown(&report).contains("`amc wrap"));
    assert!(!render::markdown(&report).contains("\\`amc wrap"));
}

#[test]
fn explanations_name_caps_numbers_and_events() {
    let report = invalid();
    let text = explain(&report, Some("calls"));
    for part in ["cap config_untrusted at level 3", "needs:", ": 4 of 5", "its events in the evidence log"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(explain(&report, Some("nothing")).contains("no question \"nothing\""));
    assert!(explain(&report, None).contains("INVALID"));
}

//! The report as one HTML page: nothing to load, no script, readable in print and on a phone.
//!
//! The page carries a content policy that allows its own style sheet, by digest, and nothing else:
//! no script, no style attribute, no request. Text enters through `esc` and `prose` only.

mod charts;
mod evidence;
mod questions;
mod record;
mod table;

use std::collections::BTreeMap;
use std::fmt::Write;

use amc_core::FindingCode;

use super::escape::{esc, prose};
use super::style::{STYLE, style_source};
use super::{level_text, percent_text, window_text};
use crate::explain::status_sentence;
use crate::report::{Report, Status};

/// The report as one self-contained HTML page.
pub fn html(report: &Report) -> String {
    let mut page = String::new();
    write_all(&mut page, report).expect("writing into a string cannot fail");
    page
}

fn write_all(out: &mut String, report: &Report) -> std::fmt::Result {
    let (agent, invalid) = (esc(report.agent.as_str()), report.status == Status::Invalid);
    writeln!(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">")?;
    let style = style_source();
    let policy = format!("default-src 'none'; style-src '{style}'; base-uri 'none'; form-action 'none'");
    writeln!(out, "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">")?;
    writeln!(out, "<meta name=\"referrer\" content=\"no-referrer\">")?;
    writeln!(out, "<title>{agent}: {}, {}</title><style>{STYLE}</style></head>", report.status, report.label)?;
    writeln!(out, "<body{}><main>", if invalid { " class=\"invalid\"" } else { "" })?;
    head(out, report)?;
    contents(out)?;
    next(out, report)?;
    charts::layers(out, report)?;
    questions::heat_map(out, report)?;
    evidence::integrity(out, report)?;
    evidence::timeline(out, report)?;
    evidence::findings(out, report)?;
    questions::drill_down(out, report)?;
    evidence::sessions(out, report)?;
    record::write(out, report)?;
    writeln!(out, "</main></body></html>")
}

/// The sections below the head, in order: anchor and heading.
const SECTIONS: [(&str, &str); 10] = [
    ("next", "What to do next"),
    ("layers", "Layers"),
    ("levels", "Levels"),
    ("integrity", "IntegrityIndex"),
    ("timeline", "Evidence by day"),
    ("findings", "Findings"),
    ("evidence", "Evidence by question"),
    ("sessions", "Sessions"),
    ("boundary", "Documents, traces, epochs"),
    ("record", "What it rests on"),
];

fn contents(out: &mut String) -> std::fmt::Result {
    write!(out, "<nav aria-label=\"Sections\">")?;
    for (anchor, name) in SECTIONS {
        write!(out, "<a href=\"#{anchor}\">{name}</a> ")?;
    }
    writeln!(out, "</nav>")
}

/// A section's heading, by its anchor.
fn heading(out: &mut String, anchor: &str) -> std::fmt::Result {
    let (_, name) = SECTIONS.into_iter().find(|(id, _)| *id == anchor).expect("sections are headed by their anchors");
    writeln!(out, "<h2 id=\"{anchor}\">{name}</h2>")
}

/// What stands above every drawing of levels of a run that is INVALID.
fn greyed(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.status == Status::Valid {
        return Ok(());
    }
    writeln!(out, "<p class=\"greyed\">The run is INVALID: these levels are greyed, and they pass no gate.</p>")
}

fn head(out: &mut String, report: &Report) -> std::fmt::Result {
    let workspace = esc(report.workspace.as_str());
    writeln!(out, "<header><p class=\"kicker\">Agent maturity on evidence</p>")?;
    writeln!(out, "<h1>{}</h1>", esc(report.agent.as_str()))?;
    let (window, as_of) = (window_text(report.window_s), esc(&report.as_of));
    writeln!(out, "<p class=\"soft\">Workspace {workspace}; {window} up to {as_of}</p></header>")?;
    let class = if report.status == Status::Valid { "banner valid" } else { "banner" };
    writeln!(out, "<section class=\"{class}\" role=\"status\"><strong>{}</strong>", report.status)?;
    writeln!(out, "<p>{}</p>", esc(&status_sentence(report)))?;
    let mut errors: BTreeMap<FindingCode, (&str, usize)> = BTreeMap::new();
    for finding in report.findings.iter().filter(|finding| finding.is_error()) {
        errors.entry(finding.code).or_insert((&finding.message, 0)).1 += 1;
    }
    if !errors.is_empty() {
        writeln!(out, "<ul>")?;
        for (code, (message, count)) in errors {
            let more =
                if count > 1 { format!(" And {} more like it, under findings.", count - 1) } else { String::new() };
            writeln!(out, "<li><code>{code}</code> {}.{more}</li>", prose(message))?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</section><dl class=\"figures\">")?;
    let mut figure = |name: &str, value: &str| writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    figure("overall level, of 5", &level_text(report.overall_bp))?;
    figure("IntegrityIndex", &percent_text(report.integrity_bp))?;
    figure("label", report.label.as_str())?;
    let counted = report.sessions.iter().filter(|session| session.counted).count();
    figure("sessions counted", &counted.to_string())?;
    writeln!(out, "</dl>")
}

fn next(out: &mut String, report: &Report) -> std::fmt::Result {
    heading(out, "next")?;
    if report.next_actions.is_empty() {
        return writeln!(out, "<p>Nothing that this release can measure would raise a level.</p>");
    }
    writeln!(out, "<ol>")?;
    for action in &report.next_actions {
        let (subject, gain) = (esc(&action.subject), level_text(action.gain_bp));
        writeln!(out, "<li>{} <span class=\"soft\">({subject}, up to +{gain})</span></li>", prose(&action.action))?;
    }
    writeln!(out, "</ol>")
}

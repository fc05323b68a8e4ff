//! The evidence as a whole: the IntegrityIndex, tiers by day, findings, sessions.

use std::fmt::{Result, Write};

use amc_core::{Finding, Severity};

use super::super::escape::{esc, prose};
use super::super::{minus, percent_text, rule_text};
use super::charts::bar;
use super::heading;
use super::table::{one_line, table};
use crate::report::{DayTiers, Report};

/// Findings of one code that are shown at once; more of them are folded away.
const SHOWN_MAX: usize = 5;

/// How the IntegrityIndex came about.
pub(super) fn integrity(out: &mut String, report: &Report) -> Result {
    heading(out, "integrity")?;
    writeln!(
        out,
        "<p>How far the evidence as a whole can be trusted: {}, which makes the label ",
        percent_text(report.integrity_bp)
    )?;
    writeln!(
        out,
        "<b>{}</b>. Coverage is how strong the best evidence of each question is, on average;",
        report.label
    )?;
    writeln!(out, "penalties come off it.</p>")?;
    let coverage_bp = report.integrity.coverage_bp;
    let whole = 10_000;
    let mut rows = vec![vec![
        "coverage".to_owned(),
        String::new(),
        format!("+{coverage_bp}"),
        bar(&[("t2", coverage_bp.into())], whole),
    ]];
    for penalty in &report.integrity.penalties {
        let lost = u64::from(penalty.penalty_bp);
        let drawn = if lost > 0 { bar(&[("lost", lost)], whole) } else { String::new() };
        rows.push(vec![rule_text(&esc(&penalty.rule)), penalty.count.to_string(), minus(penalty.penalty_bp), drawn]);
    }
    let index = bar(&[("t3", report.integrity_bp.into())], whole);
    rows.push(vec!["<b>index</b>".to_owned(), String::new(), format!("<b>{}</b>", report.integrity_bp), index]);
    table(out, &[("Rule", false), ("Count", true), ("Basis points", true), ("Of 10,000", false)], rows)
}

/// The tiers from the strongest: class of the drawing, and name.
const TIERS: [(&str, &str); 4] =
    [("t3", "observed, hardened"), ("t2", "observed"), ("t1", "attested"), ("t0", "self-reported")];

fn tiers(day: &DayTiers) -> [u64; 4] {
    [day.observed_hardened, day.observed, day.attested, day.self_reported]
}

/// Facts by day and tier.
pub(super) fn timeline(out: &mut String, report: &Report) -> Result {
    heading(out, "timeline")?;
    if report.timeline.is_empty() {
        return writeln!(out, "<p>No fact was found in the window.</p>");
    }
    writeln!(out, "<p class=\"soft\">Facts by the UTC day of their session, and by how they came in.</p>")?;
    write!(out, "<ul class=\"key soft\">")?;
    for (class, name) in TIERS {
        write!(out, "<li>{}{name}</li>", bar(&[(class, 1)], 1))?;
    }
    writeln!(out, "</ul>")?;
    let most = report.timeline.iter().map(|day| tiers(day).iter().sum::<u64>()).max().unwrap_or(0);
    let rows = report.timeline.iter().map(|day| {
        let counts = tiers(day);
        let parts: Vec<(&str, u64)> = TIERS.iter().zip(counts).map(|((class, _), count)| (*class, count)).collect();
        let said = TIERS.iter().zip(counts).filter(|(_, count)| *count > 0);
        let said: Vec<String> = said.map(|((_, name), count)| format!("{count} {name}")).collect();
        vec![one_line(&day.day), bar(&parts, most), said.join("; ")]
    });
    table(out, &[("Day", false), ("Tiers", false), ("Facts", false)], rows)
}

/// What was found, worst first, by code.
pub(super) fn findings(out: &mut String, report: &Report) -> Result {
    heading(out, "findings")?;
    if report.findings.is_empty() {
        return writeln!(out, "<p>None.</p>");
    }
    for group in report.findings.chunk_by(|a, b| (a.code, a.severity) == (b.code, b.severity)) {
        let (class, name) = match group[0].severity {
            Severity::Error => ("error", "error"),
            Severity::Warn => ("warn", "warning"),
            Severity::Info => ("soft", "note"),
        };
        let count = if group.len() > 1 { format!(", {} of them", group.len()) } else { String::new() };
        writeln!(
            out,
            "<h3><code class=\"{class}\">{}</code> <span class=\"soft\">{name}{count}</span></h3>",
            group[0].code
        )?;
        let (shown, folded) = group.split_at(group.len().min(SHOWN_MAX));
        list(out, shown)?;
        if !folded.is_empty() {
            writeln!(out, "<details><summary>{} more</summary><div>", folded.len())?;
            list(out, folded)?;
            writeln!(out, "</div></details>")?;
        }
    }
    Ok(())
}

fn list(out: &mut String, findings: &[Finding]) -> Result {
    writeln!(out, "<ul>")?;
    for finding in findings {
        writeln!(out, "<li><b>{}</b>: {}</li>", esc(&finding.subject), prose(&finding.message))?;
    }
    writeln!(out, "</ul>")
}

/// The agent's sessions in the window.
pub(super) fn sessions(out: &mut String, report: &Report) -> Result {
    heading(out, "sessions")?;
    writeln!(out, "<p class=\"soft\">All sessions of the agent in the window; nobody chooses which count. ")?;
    writeln!(out, "{} came before it.</p>", report.sessions_before)?;
    let rows = report.sessions.iter().map(|session| {
        let seal = session.seal_index.map_or_else(|| "no seal".to_owned(), |index| format!("to {index}"));
        let cosigned = if session.cosigned { "in time" } else { "no" };
        vec![
            session.number.to_string(),
            esc(&session.purpose),
            format!("{}<br><code>{}</code>", one_line(&session.opened), session.id),
            one_line(&session.outcome),
            one_line(&session.boundary),
            cosigned.to_owned(),
            format!("{} <span class=\"soft\">({} {seal})</span>", session.events, session.open_index),
            esc(&session.reason),
        ]
    });
    let columns = [
        ("Number", true),
        ("Purpose", false),
        ("Opened", false),
        ("Outcome", false),
        ("Boundary", false),
        ("Cosigned", false),
        ("Events", false),
        ("Counts", false),
    ];
    table(out, &columns, rows)
}

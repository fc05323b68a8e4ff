//! What else is on record: documents, traces, boundary epochs, earlier runs, and what the run covers.

use std::fmt::{Result, Write};

use super::super::escape::{esc, prose};
use super::super::{correlation_text, document_name, document_text, documents, level_text, percent_text};
use super::heading;
use super::table::{one_line, table};
use crate::report::Report;

/// The last sections of the page.
pub(super) fn write(out: &mut String, report: &Report) -> Result {
    heading(out, "boundary")?;
    writeln!(out, "<h3>Trace</h3><p>{}</p>", esc(&correlation_text(&report.correlation)))?;
    writeln!(out, "<h3>Documents</h3>")?;
    let rows = documents(report).map(|(kind, summary)| vec![esc(&document_name(kind)), document_text(summary)]);
    table(out, &[("Document", false), ("How it came in", false)], rows)?;
    epochs(out, report)?;
    earlier_runs(out, report)?;
    heading(out, "record")?;
    origins(out, report)?;
    models(out, report)
}

fn epochs(out: &mut String, report: &Report) -> Result {
    writeln!(out, "<h3>Boundary epochs</h3>")?;
    if report.epochs.is_empty() {
        return writeln!(out, "<p>None: every session of the window counts.</p>");
    }
    writeln!(out, "<p>Sessions before the last one are listed and not counted.</p>")?;
    let rows = report.epochs.iter().map(|epoch| {
        vec![one_line(&epoch.recorded), epoch.index.to_string(), epoch.from_index.to_string(), prose(&epoch.reason)]
    });
    let columns = [("Recorded", false), ("Audit entry", true), ("From event", true), ("Why", false)];
    table(out, &columns, rows)
}

fn earlier_runs(out: &mut String, report: &Report) -> Result {
    writeln!(out, "<h3>Earlier runs</h3>")?;
    if report.earlier_runs.is_empty() {
        return writeln!(out, "<p>None: this is the agent's first run on record.</p>");
    }
    writeln!(out, "<p class=\"soft\">All runs of the agent that the audit log records before this one.</p>")?;
    let rows = report.earlier_runs.iter().map(|run| {
        vec![
            format!("{}<br><code>{}</code>", one_line(&run.recorded), run.run_id),
            esc(&run.status),
            esc(&run.label),
            level_text(run.overall_bp),
            percent_text(run.integrity_bp),
        ]
    });
    let columns =
        [("Recorded", false), ("Status", false), ("Label", false), ("Overall", true), ("IntegrityIndex", true)];
    table(out, &columns, rows)
}

fn origins(out: &mut String, report: &Report) -> Result {
    let mut rows = vec![("run", format!("<code>{}</code>", report.run_id))];
    for (name, head) in [("evidence log", &report.evidence), ("audit log", &report.audit)] {
        rows.push((name, format!("{}: {} events, root <code>{}</code>", esc(&head.origin), head.size, head.root)));
    }
    let bank = &report.bank;
    rows.push(("question bank", format!("{} version {}, <code>{}</code>", esc(&bank.id), bank.version, bank.sha256)));
    rows.push(("scorer", esc(&report.scorer)));
    if let Some(digest) = &report.claims_sha256 {
        rows.push(("claims", format!("<code>{digest}</code>")));
    }
    if let Some(target) = &report.target {
        let distance = level_text(target.distance_bp);
        rows.push((
            "target",
            format!("{}, <code>{}</code>; {distance} levels are missing", esc(&target.id), target.sha256),
        ));
    }
    for artifact in &report.artifacts {
        let digest = artifact.sha256.map_or_else(|| "unknown".to_owned(), |digest| digest.to_string());
        let (count, first, last) = (artifact.sessions, artifact.first_session, artifact.last_session);
        rows.push(("program", format!("<code>{digest}</code> in {count} session(s), number {first} to {last}")));
    }
    for upstream in &report.upstreams {
        let base_url = upstream.base_url.as_deref().map_or_else(|| "address not on record".to_owned(), esc);
        rows.push(("provider", format!("{} ({base_url}), {} calls", esc(&upstream.provider), upstream.calls)));
    }
    table(out, &[("What", false), ("Which", false)], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]))
}

fn models(out: &mut String, report: &Report) -> Result {
    writeln!(out, "<h3>Models</h3>")?;
    if report.models.is_empty() {
        return writeln!(out, "<p>No call of a counted session was seen.</p>");
    }
    writeln!(out, "<p class=\"soft\">Names as agent and provider wrote them; no gate reads them.</p>")?;
    let rows = report.models.iter().map(|model| {
        let name = |name: &Option<String>| name.as_deref().map_or_else(|| "–".to_owned(), esc);
        vec![esc(&model.provider), name(&model.asked), name(&model.answered), model.calls.to_string()]
    });
    table(out, &[("Provider", false), ("Asked", false), ("Answered", false), ("Calls", true)], rows)
}

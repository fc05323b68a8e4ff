//! The report as one HTML page: nothing to load, no script, readable in print and on a phone.

use std::collections::BTreeMap;
use std::fmt::Write;

use amc_core::{FindingCode, Severity};

use super::style::STYLE;
use super::{level_text, percent_text, window_text};
use crate::explain::status_sentence;
use crate::report::{DayTiers, LayerResult, QuestionResult, Report, Status};

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
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    writeln!(out, "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">")?;
    writeln!(out, "<title>{agent}: {}</title><style>{STYLE}</style></head>", report.status)?;
    writeln!(out, "<body{}><main>", if invalid { " class=\"invalid\"" } else { "" })?;
    head(out, report)?;
    layers(out, report)?;
    next(out, report)?;
    questions(out, report)?;
    integrity(out, report)?;
    timeline(out, report)?;
    findings(out, report)?;
    sessions(out, report)?;
    origins(out, report)?;
    writeln!(out, "</main></body></html>")
}

fn head(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h1>{}</h1>", esc(report.agent.as_str()))?;
    let (window, as_of) = (window_text(report.window_s), esc(&report.as_of));
    let workspace = esc(report.workspace.as_str());
    writeln!(out, "<p class=\"soft\">{workspace}, {window} up to {as_of}</p>")?;
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
            writeln!(out, "<li><b>{code}</b> {}.{more}</li>", prose(message))?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</section><div class=\"figures\">")?;
    writeln!(out, "<div><b>{}</b>overall, of 5</div>", level_text(report.overall_bp))?;
    writeln!(out, "<div><b>{}</b>IntegrityIndex</div>", percent_text(report.integrity_bp))?;
    writeln!(out, "<div><b>{}</b>label</div>", report.label)?;
    let counted = report.sessions.iter().filter(|session| session.counted).count();
    writeln!(out, "<div><b>{counted}</b>sessions counted</div></div>")
}

fn layers(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>Layers</h2><div class=\"two\">")?;
    radar(out, &report.layers)?;
    writeln!(out, "<div class=\"wide\"><table><tr><th>Layer</th><th class=\"n\">Level</th></tr>")?;
    for layer in &report.layers {
        writeln!(out, "<tr><td>{}</td><td class=\"n\">{}</td></tr>", esc(&layer.title), level_text(layer.level_bp))?;
    }
    writeln!(out, "</table></div></div>")
}

/// Directions of the five axes, in thousandths of a unit, clockwise from the top.
const AXES: [(i64, i64); 5] = [(0, -1_000), (951, -309), (588, 809), (-588, 809), (-951, -309)];
/// On which side of its axis a name stands.
const ANCHORS: [&str; 5] = ["middle", "start", "start", "end", "end"];
/// The radius of level 5 in the drawing.
const RADIUS: i64 = 90;

fn radar(out: &mut String, layers: &[LayerResult]) -> std::fmt::Result {
    let point = |axis: &(i64, i64), level_bp: i64| {
        let reach = |part: i64| 150 + part * level_bp * RADIUS / (1_000 * 50_000);
        format!("{},{}", reach(axis.0), reach(axis.1) - 30)
    };
    writeln!(out, "<svg viewBox=\"-50 0 430 240\" role=\"img\" aria-label=\"Levels of the five layers\">")?;
    for level in 1..=5 {
        let ring: Vec<String> = AXES.iter().map(|axis| point(axis, level * 10_000)).collect();
        writeln!(out, "<polygon class=\"ring\" points=\"{}\"/>", ring.join(" "))?;
    }
    let shape: Vec<String> =
        AXES.iter().zip(layers).map(|(axis, layer)| point(axis, i64::from(layer.level_bp.min(50_000)))).collect();
    writeln!(out, "<polygon class=\"shape\" points=\"{}\"/>", shape.join(" "))?;
    for ((axis, anchor), layer) in AXES.iter().zip(ANCHORS).zip(layers) {
        let place = point(axis, 55_000);
        let (x, y) = place.split_once(',').unwrap_or(("150", "120"));
        let name = esc(&layer.title);
        writeln!(out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{name}</text>")?;
    }
    writeln!(out, "</svg>")
}

fn next(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>What to do next</h2><ol>")?;
    for action in &report.next_actions {
        let (subject, gain) = (esc(&action.subject), level_text(action.gain_bp));
        writeln!(out, "<li>{} <span class=\"soft\">({subject}, up to +{gain})</span></li>", prose(&action.action))?;
    }
    writeln!(out, "</ol>")
}

fn questions(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "<h2>Questions</h2><p class=\"soft\">Filled: the level that stands. Pale: what the evidence supports."
    )?;
    writeln!(out, "Outlined: the target. Open a line for its evidence.</p>")?;
    for layer in &report.layers {
        writeln!(out, "<h3>{}: {}</h3>", esc(&layer.title), level_text(layer.level_bp))?;
        for question in report.questions.iter().filter(|question| question.layer == layer.id) {
            drill_down(out, question)?;
        }
    }
    Ok(())
}

fn drill_down(out: &mut String, question: &QuestionResult) -> std::fmt::Result {
    write!(out, "<details><summary><span class=\"heat\">")?;
    for level in 1..=5u8 {
        let shade = match level {
            _ if level <= question.final_level => " on",
            _ if level <= question.supported => " held",
            _ => "",
        };
        let goal = if question.target == Some(level) { " goal" } else { "" };
        write!(out, "<span class=\"cell{shade}{goal}\">{level}</span>")?;
    }
    writeln!(out, "</span> {} <b>{}</b></summary><div>", esc(&question.title), question.final_level)?;
    writeln!(out, "<p>{}</p>", esc(&question.statement))?;
    let (value, confidence) = (level_text(question.value_bp), percent_text(question.confidence_bp));
    write!(out, "<p class=\"soft\"><code>{}</code>, value {value}, confidence {confidence}", esc(&question.id))?;
    if let Some(claimed) = question.claimed {
        write!(out, ", claimed {claimed}")?;
    }
    writeln!(out, "</p>")?;
    for cap in &question.caps {
        let remedy = crate::actions::cap_remedy(&cap.rule);
        writeln!(out, "<p>Cap <code>{}</code>: at most {}. {}</p>", esc(&cap.rule), cap.limit, prose(remedy))?;
    }
    if !question.held_back.is_empty() {
        writeln!(out, "<p>Level {} misses:</p><ul>", question.supported + 1)?;
        for gap in &question.held_back {
            write!(out, "<li>{}: {} of {}", esc(&gap.what), gap.have, gap.need)?;
            if !gap.facts.is_empty() {
                write!(out, " <span class=\"soft\">({})</span>", esc(&gap.facts.join(", ")))?;
            }
            if !gap.pending.is_empty() {
                write!(out, " <span class=\"soft\">not collected yet: {}</span>", esc(&gap.pending.join(", ")))?;
            }
            writeln!(out, "</li>")?;
        }
        writeln!(out, "</ul>")?;
    }
    for level in question.levels.iter().filter(|level| !level.events.is_empty()) {
        let events: Vec<String> = level.events.iter().map(u64::to_string).collect();
        let holds = if level.holds { "holds" } else { "does not hold" };
        let list = events.join(" ");
        writeln!(out, "<p class=\"soft\">Level {} {holds}; evidence events <code>{list}</code></p>", level.level)?;
    }
    writeln!(out, "</div></details>")
}

fn integrity(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>IntegrityIndex</h2><div class=\"wide\"><table>")?;
    writeln!(out, "<tr><th>Rule</th><th class=\"n\">Count</th><th class=\"n\">Basis points</th></tr>")?;
    let row = |out: &mut String, rule: &str, count: &str, points: &str| {
        writeln!(out, "<tr><td>{}</td><td class=\"n\">{count}</td><td class=\"n\">{points}</td></tr>", esc(rule))
    };
    row(out, "coverage", "", &format!("+{}", report.integrity.coverage_bp))?;
    for penalty in &report.integrity.penalties {
        row(out, &penalty.rule, &penalty.count.to_string(), &minus(penalty.penalty_bp))?;
    }
    row(out, "index", "", &report.integrity_bp.to_string())?;
    writeln!(out, "</table></div>")
}

fn timeline(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>Evidence by day and tier</h2><p class=\"soft key\">Facts:")?;
    for (class, name) in [("t3", "observed, hardened"), ("t2", "observed"), ("t1", "attested"), ("t0", "self-reported")]
    {
        writeln!(out, "<i class=\"{class}\"></i>{name}")?;
    }
    writeln!(out, "</p><div class=\"wide\"><table><tr><th>Day</th><th>Tiers</th><th class=\"n\">Facts</th></tr>")?;
    let total = |day: &DayTiers| day.observed_hardened + day.observed + day.attested + day.self_reported;
    let most = report.timeline.iter().map(total).max().unwrap_or(0).max(1);
    for day in &report.timeline {
        write!(out, "<tr><td>{}</td><td><div class=\"bar\">", esc(&day.day))?;
        let parts =
            [("t3", day.observed_hardened), ("t2", day.observed), ("t1", day.attested), ("t0", day.self_reported)];
        for (class, facts) in parts.into_iter().filter(|(_, facts)| *facts > 0) {
            write!(out, "<i class=\"{class}\" style=\"width:{}%\"></i>", facts * 100 / most)?;
        }
        writeln!(out, "</div></td><td class=\"n\">{}</td></tr>", total(day))?;
    }
    writeln!(out, "</table></div>")
}

fn findings(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>Findings</h2>")?;
    if report.findings.is_empty() {
        return writeln!(out, "<p>None.</p>");
    }
    writeln!(out, "<div class=\"wide\"><table><tr><th>Code</th><th>Place</th><th>What</th></tr>")?;
    for finding in &report.findings {
        let class = match finding.severity {
            Severity::Error => "error",
            Severity::Warn => "warn",
            Severity::Info => "soft",
        };
        let (subject, message) = (esc(&finding.subject), prose(&finding.message));
        let code = finding.code;
        writeln!(out, "<tr><td class=\"{class}\">{code}</td><td>{subject}</td><td>{message}</td></tr>")?;
    }
    writeln!(out, "</table></div>")
}

fn sessions(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>Sessions</h2><p class=\"soft\">{} before the window.</p>", report.sessions_before)?;
    writeln!(out, "<div class=\"wide\"><table><tr><th class=\"n\">Number</th><th>Purpose</th><th>Opened</th>")?;
    writeln!(out, "<th>Outcome</th><th>Boundary</th><th class=\"n\">Events</th><th>Counts</th></tr>")?;
    for session in &report.sessions {
        write!(out, "<tr><td class=\"n\">{}</td><td>{}</td>", session.number, esc(&session.purpose))?;
        write!(out, "<td>{}<br><code>{}</code></td>", esc(&session.opened), session.id)?;
        write!(out, "<td>{}</td><td>{}</td>", esc(&session.outcome), esc(&session.boundary))?;
        writeln!(out, "<td class=\"n\">{}</td><td>{}</td></tr>", session.events, esc(&session.reason))?;
    }
    writeln!(out, "</table></div>")
}

fn origins(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "<h2>What it rests on</h2><div class=\"wide\"><table>")?;
    let row =
        |out: &mut String, name: &str, value: &str| writeln!(out, "<tr><td>{}</td><td>{value}</td></tr>", esc(name));
    row(out, "run", &format!("<code>{}</code>", report.run_id))?;
    for head in [&report.evidence, &report.audit] {
        row(out, &head.origin, &format!("{} events, root <code>{}</code>", head.size, head.root))?;
    }
    let bank = &report.bank;
    row(out, "bank", &format!("{} version {}, <code>{}</code>", esc(&bank.id), bank.version, bank.sha256))?;
    row(out, "scorer", &esc(&report.scorer))?;
    for artifact in &report.artifacts {
        let digest = artifact.sha256.map_or_else(|| "unknown".to_owned(), |digest| digest.to_string());
        row(out, "program", &format!("<code>{digest}</code> in {} session(s)", artifact.sessions))?;
    }
    for upstream in &report.upstreams {
        let base_url = upstream.base_url.as_deref().map_or_else(|| "address not on record".to_owned(), esc);
        row(out, "provider", &format!("{} ({base_url}), {} calls", esc(&upstream.provider), upstream.calls))?;
    }
    for model in &report.models {
        let name = |name: &Option<String>| name.as_deref().map_or_else(|| "–".to_owned(), esc);
        let (asked, answered) = (name(&model.asked), name(&model.answered));
        row(out, "model", &format!("asked {asked}, answered {answered}, {} calls", model.calls))?;
    }
    if !report.correlation.applicable {
        row(out, "correlation", "not applicable: the agent printed no trace lines")?;
    }
    for run in &report.earlier_runs {
        let (recorded, status, overall) = (esc(&run.recorded), esc(&run.status), level_text(run.overall_bp));
        row(out, "earlier run", &format!("{recorded} <code>{}</code>: {status}, {overall}", run.run_id))?;
    }
    writeln!(out, "</table></div>")
}

/// What is taken away, with its sign where there is anything.
pub(super) fn minus(bp: u32) -> String {
    if bp == 0 { "0".to_owned() } else { format!("−{bp}") }
}

/// Escaped text in which what stands between backticks is code.
fn prose(text: &str) -> String {
    let safe = esc(text);
    if safe.matches('`').count() % 2 == 1 {
        return safe;
    }
    let mut parts = safe.split('`');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for (at, part) in parts.enumerate() {
        whole.push_str(if at % 2 == 0 { "<code>" } else { "</code>" });
        whole.push_str(part);
    }
    whole
}

/// Escapes text for elements and quoted attributes; control characters become visible.
fn esc(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            control if control.is_control() => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_is_marked_and_stays_escaped() {
        assert_eq!(super::prose("run `a <b>` now"), "run <code>a &lt;b&gt;</code> now");
        assert_eq!(super::prose("odd ` one"), "odd ` one");
    }

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(super::esc("<script a='1'>\"&\u{7}"), "&lt;script a=&#39;1&#39;&gt;&quot;&amp;\u{fffd}");
    }
}

//! The questions: the heat map of levels against target and claim, and the drill-down to events.

use std::fmt::{Result, Write};

use super::super::escape::{esc, prose};
use super::super::{level_text, percent_text};
use super::table::table;
use super::{greyed, heading};
use crate::report::{LayerResult, QuestionResult, Report};

/// Every question in a line: its levels as cells, what is claimed and what is aimed at.
pub(super) fn heat_map(out: &mut String, report: &Report) -> Result {
    heading(out, "levels")?;
    greyed(out, report)?;
    writeln!(out, "<ul class=\"key soft\"><li><i class=\"c on\"></i>the level that stands</li>")?;
    writeln!(out, "<li><i class=\"c held\"></i>supported, and a cap or claim holds it down</li>")?;
    writeln!(out, "<li><i class=\"c gap\"></i>missing to the target</li>")?;
    writeln!(out, "<li><i class=\"c said\"></i>the level that is claimed</li></ul>")?;
    writeln!(out, "<table class=\"heat\"><thead><tr><th scope=\"col\">Question</th><th scope=\"col\">Level</th>")?;
    writeln!(out, "<th scope=\"col\" class=\"n\">Claimed</th><th scope=\"col\" class=\"n\">Target</th></tr></thead>")?;
    for layer in &report.layers {
        let (title, level) = (esc(&layer.title), level_text(layer.level_bp));
        writeln!(out, "<tbody><tr><th scope=\"rowgroup\" colspan=\"4\">{title}: {level}</th></tr>")?;
        for question in of(report, layer) {
            let (id, title) = (esc(&question.id), esc(&question.title));
            write!(out, "<tr><td><a href=\"#q-{id}\">{title}</a></td><td>{}</td>", cells(question))?;
            let claimed = question.claimed.map_or_else(|| "–".to_owned(), |level| level.to_string());
            writeln!(out, "<td class=\"n\">{claimed}</td><td class=\"n\">{}</td></tr>", target(question))?;
        }
        writeln!(out, "</tbody>")?;
    }
    writeln!(out, "</table>")
}

fn of<'a>(report: &'a Report, layer: &'a LayerResult) -> impl Iterator<Item = &'a QuestionResult> {
    report.questions.iter().filter(|question| question.layer == layer.id)
}

fn target(question: &QuestionResult) -> String {
    match question.target {
        None => "–".to_owned(),
        Some(wanted) if wanted <= question.final_level => format!("{wanted} met"),
        Some(wanted) => format!("{wanted} (−{})", wanted - question.final_level),
    }
}

/// The five levels as cells that say the same by colour, by border and to a reader of the screen.
fn cells(question: &QuestionResult) -> String {
    let mut said = format!("level {}, supported {}", question.final_level, question.supported);
    said += &question.claimed.map_or_else(String::new, |level| format!(", claimed {level}"));
    said += &question.target.map_or_else(String::new, |level| format!(", target {level}"));
    let mut cells = format!("<span class=\"cells\" role=\"img\" aria-label=\"{said}\">");
    for level in 1..=5u8 {
        let shade = match level {
            _ if level <= question.final_level => " on",
            _ if level <= question.supported => " held",
            _ => "",
        };
        let gap = if level > question.final_level && Some(level) <= question.target { " gap" } else { "" };
        let claimed = if question.claimed == Some(level) { " said" } else { "" };
        cells += &format!("<i class=\"c{shade}{gap}{claimed}\">{level}</i>");
    }
    cells + "</span>"
}

/// Per question what counts, what is missing, and which rules hold it down.
pub(super) fn drill_down(out: &mut String, report: &Report) -> Result {
    heading(out, "evidence")?;
    writeln!(
        out,
        "<p class=\"soft\">Open a question for its caps, what the next level misses, and the indices of the"
    )?;
    writeln!(out, "events that count, in the evidence log (<code>amc ledger show INDEX</code>).</p>")?;
    for layer in &report.layers {
        writeln!(out, "<h3>{}</h3>", esc(&layer.title))?;
        for question in of(report, layer) {
            write!(out, "<details><summary>{} {}", cells(question), esc(&question.title))?;
            writeln!(out, "</summary><div id=\"q-{}\">", esc(&question.id))?;
            one(out, question)?;
            writeln!(out, "</div></details>")?;
        }
    }
    Ok(())
}

fn one(out: &mut String, question: &QuestionResult) -> Result {
    writeln!(out, "<p><b>Level {}:</b> {}</p>", question.final_level, esc(&question.statement))?;
    let (value, confidence) = (level_text(question.value_bp), percent_text(question.confidence_bp));
    write!(out, "<p class=\"soft\"><code>{}</code>; value {value}, confidence {confidence}", esc(&question.id))?;
    write!(out, "; the evidence supports level {}", question.supported)?;
    if let Some(claimed) = question.claimed {
        write!(out, ", level {claimed} is claimed")?;
    }
    if let Some(wanted) = question.target {
        write!(out, ", level {wanted} is the target")?;
    }
    if !question.tags.is_empty() {
        write!(out, "; tags {}", esc(&question.tags.join(", ").replace('_', " ")))?;
    }
    writeln!(out, "</p>")?;
    if !question.caps.is_empty() {
        writeln!(out, "<p><b>Caps</b></p><ul>")?;
        for cap in &question.caps {
            let remedy = prose(crate::actions::cap_remedy(&cap.rule));
            writeln!(out, "<li><code>{}</code>: at most level {}. {remedy}</li>", esc(&cap.rule), cap.limit)?;
        }
        writeln!(out, "</ul>")?;
    }
    if !question.held_back.is_empty() {
        writeln!(out, "<p><b>Level {} misses</b></p><ul>", question.supported + 1)?;
        for gap in &question.held_back {
            write!(out, "<li>{}: {} of {}", esc(&gap.what), gap.have, gap.need)?;
            if !gap.facts.is_empty() {
                write!(out, " <span class=\"soft\">(counted: {})</span>", esc(&gap.facts.join(", ")))?;
            }
            if !gap.pending.is_empty() {
                write!(out, " <span class=\"soft\">not collected yet: {}</span>", esc(&gap.pending.join(", ")))?;
            }
            writeln!(out, "</li>")?;
        }
        writeln!(out, "</ul>")?;
    }
    levels(out, question)
}

fn levels(out: &mut String, question: &QuestionResult) -> Result {
    let rows = question.levels.iter().map(|level| {
        let events: Vec<String> = level.events.iter().map(u64::to_string).collect();
        let holds = if level.holds { "holds" } else { "does not hold" };
        let list = if events.is_empty() { "none".to_owned() } else { format!("<code>{}</code>", events.join(" ")) };
        vec![level.level.to_string(), holds.to_owned(), list]
    });
    table(out, &[("Level", true), ("Its own gate", false), ("Events that count", false)], rows)
}

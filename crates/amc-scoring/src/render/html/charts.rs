//! Drawings: the radar of the layers, and bars.
//!
//! Integer arithmetic in the drawing's own units, so that a report has one page.

use std::fmt::{Result, Write};

use super::super::escape::esc;
use super::super::level_text;
use super::table::narrow;
use super::{greyed, heading};
use crate::report::Report;

/// Directions of the five axes, in thousandths of a unit, clockwise from the top.
const AXES: [(i64, i64); 5] = [(0, -1_000), (951, -309), (588, 809), (-588, 809), (-951, -309)];
/// On which side of its axis a name stands.
const ANCHORS: [&str; 5] = ["middle", "start", "start", "end", "end"];
/// How far a name's first line stands above or below the end of its axis.
const SHIFTS: [i64; 5] = [-20, -4, 14, 14, -4];
/// The middle of the drawing.
const CENTRE: (i64, i64) = (220, 150);
/// The radius of level 5 in the drawing.
const RADIUS: i64 = 92;
/// Level basis points of level 5.
const LEVEL_MAX: i64 = 50_000;
/// Characters of a line of a name; longer names take two lines.
const LINE_CHARS: usize = 15;

/// The layers as a radar and a table.
pub(super) fn layers(out: &mut String, report: &Report) -> Result {
    heading(out, "layers")?;
    greyed(out, report)?;
    writeln!(out, "<div class=\"two\"><figure>")?;
    radar(out, report)?;
    let dashes = if report.target.is_some() { " Dashes: the mean of the target." } else { "" };
    writeln!(out, "<figcaption class=\"soft\">Rings are levels 1 to 5.{dashes}</figcaption></figure><div>")?;
    let rows = report.layers.iter().map(|layer| {
        let mean = target_bp(report, &layer.id);
        let mut row = vec![esc(&layer.title), level_text(layer.level_bp), level_text(layer.raw_bp)];
        row.extend(report.target.as_ref().map(|_| mean.map_or_else(|| "–".to_owned(), level_text)));
        row
    });
    let columns = [("Layer", false), ("Level", true), ("Unweighted", true), ("Target", true)];
    let shown = if report.target.is_some() { &columns[..] } else { &columns[..3] };
    narrow(out, shown, rows)?;
    writeln!(out, "</div></div>")
}

/// The mean of what a target wants of a layer's questions; `None` when it wants nothing there.
fn target_bp(report: &Report, layer: &str) -> Option<u32> {
    let wanted = report.questions.iter().filter(|question| question.layer == layer).filter_map(|one| one.target);
    let (sum, count) = wanted.fold((0u32, 0u32), |(sum, count), level| (sum + u32::from(level) * 10_000, count + 1));
    sum.checked_div(count)
}

fn point(axis: (i64, i64), level_bp: i64, beyond: i64) -> (i64, i64) {
    let reach = |part: i64| part * (level_bp * RADIUS + beyond * LEVEL_MAX) / (1_000 * LEVEL_MAX);
    (CENTRE.0 + reach(axis.0), CENTRE.1 + reach(axis.1))
}

fn polygon(out: &mut String, class: &str, levels_bp: impl IntoIterator<Item = u32>) -> Result {
    let corners = AXES.into_iter().zip(levels_bp).map(|(axis, level_bp)| {
        let (x, y) = point(axis, i64::from(level_bp).min(LEVEL_MAX), 0);
        format!("{x},{y}")
    });
    writeln!(out, "<polygon class=\"{class}\" points=\"{}\"/>", corners.collect::<Vec<_>>().join(" "))
}

fn radar(out: &mut String, report: &Report) -> Result {
    let said = report.layers.iter().map(|layer| format!("{} {}", esc(&layer.title), level_text(layer.level_bp)));
    let said = said.collect::<Vec<_>>().join(", ");
    writeln!(out, "<svg class=\"radar\" viewBox=\"40 15 380 265\" role=\"img\" aria-label=\"Levels: {said}\">")?;
    for level in 1..=5 {
        polygon(out, "ring", [level * 10_000; 5])?;
    }
    for axis in AXES {
        let ((x1, y1), (x2, y2)) = (CENTRE, point(axis, LEVEL_MAX, 0));
        writeln!(out, "<line class=\"ring\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>")?;
    }
    polygon(out, "shape", report.layers.iter().map(|layer| layer.level_bp))?;
    if report.target.is_some() {
        polygon(out, "goal", report.layers.iter().map(|layer| target_bp(report, &layer.id).unwrap_or(0)))?;
    }
    for (((axis, anchor), shift), layer) in AXES.into_iter().zip(ANCHORS).zip(SHIFTS).zip(&report.layers) {
        let (x, y) = point(axis, LEVEL_MAX, 10);
        let mut lines = lines(&layer.title);
        if let Some(last) = lines.last_mut() {
            *last = format!("{last} {}", level_text(layer.level_bp));
        }
        write!(out, "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">", y + shift)?;
        for (at, line) in lines.iter().enumerate() {
            let down = if at == 0 { 0 } else { 15 };
            write!(out, "<tspan x=\"{x}\" dy=\"{down}\">{}</tspan>", esc(line))?;
        }
        writeln!(out, "</text>")?;
    }
    writeln!(out, "</svg>")
}

/// A name in lines, broken at blanks.
fn lines(name: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in name.split_whitespace() {
        let last = lines.last_mut().expect("there is one from the start");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= LINE_CHARS {
            *last = format!("{last} {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A bar of parts, each a class and its share of `whole`; what is left stays empty.
pub(super) fn bar(parts: &[(&str, u64)], whole: u64) -> String {
    let mut drawn =
        String::from("<svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    let mut before = 0u64;
    for (class, part) in parts.iter().filter(|(_, part)| *part > 0) {
        let at = |sum: u64| sum.min(whole).saturating_mul(1_000) / whole.max(1);
        let (from, to) = (at(before), at(before.saturating_add(*part)));
        drawn += &format!("<rect class=\"{class}\" x=\"{from}\" y=\"0\" width=\"{}\" height=\"10\"/>", to - from);
        before = before.saturating_add(*part);
    }
    drawn + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_as_many_lines_as_they_need() {
        assert_eq!(lines("Leadership & Autonomy"), ["Leadership &", "Autonomy"]);
        assert_eq!(lines("Resilience"), ["Resilience"]);
        assert_eq!(lines("Strategic Agent Operations"), ["Strategic Agent", "Operations"]);
    }

    #[test]
    fn bars_never_leave_their_frame() {
        assert!(bar(&[("a", 3), ("b", 1)], 4).contains("x=\"750\" y=\"0\" width=\"250\""));
        assert!(bar(&[("a", u64::MAX), ("b", u64::MAX)], 7).contains("x=\"0\" y=\"0\" width=\"1000\""));
        assert!(!bar(&[("a", 0)], 0).contains("rect"));
    }
}

//! Tables; wide ones become blocks on a phone, where each cell says its column's name.

use std::fmt::{Result, Write};

use super::super::escape::esc;

/// One column: its name, and whether it holds numbers.
pub(super) type Column = (&'static str, bool);

/// A word of ours, a time or a day that is not to be broken.
pub(super) fn one_line(text: &str) -> String {
    format!("<span class=\"nb\">{}</span>", esc(text))
}

/// A table of cells that are HTML already; on a phone its rows become blocks.
pub(super) fn table(out: &mut String, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> Result {
    write(out, "stack", columns, rows)
}

/// A table that is narrow enough to stay one on a phone.
pub(super) fn narrow(out: &mut String, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> Result {
    write(out, "narrow", columns, rows)
}

fn write(out: &mut String, class: &str, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> Result {
    write!(out, "<table class=\"{class}\"><thead><tr>")?;
    for (name, number) in columns {
        write!(out, "<th scope=\"col\"{}>{name}</th>", if *number { " class=\"n\"" } else { "" })?;
    }
    writeln!(out, "</tr></thead><tbody>")?;
    for row in rows {
        write!(out, "<tr>")?;
        for ((name, number), cell) in columns.iter().zip(row) {
            write!(out, "<td data-name=\"{name}\"{}>{cell}</td>", if *number { " class=\"n\"" } else { "" })?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody></table>")
}

//! The report as pages for people.
use crate::report::Report;

/// The report as Markdown.
pub fn markdown(report: &Report) -> String {
    let _ = report;
    String::new()
}

/// The report as one self-contained HTML page.
pub fn html(report: &Report) -> String {
    let _ = report;
    String::new()
}

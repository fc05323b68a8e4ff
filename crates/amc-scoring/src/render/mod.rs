//! The report as pages for people: Markdown, and one self-contained HTML page.
//!
//! Both show what the report says and nothing else. Every value is escaped: provider and model
//! names are words of untrusted parties.

mod html;
mod markdown;
mod style;

pub use html::html;
pub use markdown::markdown;

/// A level in basis points as text: 32,500 is `3.25`. Rounds down.
pub(crate) fn level_text(bp: u32) -> String {
    format!("{}.{:02}", bp / 10_000, bp % 10_000 / 100)
}

/// Basis points as a percentage: 8,750 is `87.50 %`.
pub(crate) fn percent_text(bp: u32) -> String {
    format!("{}.{:02} %", bp / 100, bp % 100)
}

/// A window as text: whole days where it is, else seconds.
pub(crate) fn window_text(window_s: u64) -> String {
    match (window_s / 86_400, window_s % 86_400) {
        (1, 0) => "1 day".to_owned(),
        (days, 0) => format!("{days} days"),
        _ => format!("{window_s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_down() {
        assert_eq!(level_text(0), "0.00");
        assert_eq!(level_text(32_599), "3.25");
        assert_eq!(level_text(50_000), "5.00");
        assert_eq!(percent_text(8_750), "87.50 %");
        assert_eq!(percent_text(9), "0.09 %");
        assert_eq!(window_text(14 * 86_400), "14 days");
        assert_eq!(window_text(86_400), "1 day");
        assert_eq!(window_text(90), "90 s");
    }
}

//! A judgement as JUnit XML: a test case for each rule, a failure for each that does not hold.
//!
//! What CI systems read: one `testsuite`, counts at its head, the wanted and the found value in the
//! text of a failure. Characters that XML 1.0 cannot hold are replaced.

use std::fmt::Write as _;

use amc_core::{Finding, timestamp};

use super::judge::Judgement;

/// The report; `artifact` is the bundle's name, for a person.
pub fn junit(judgement: &Judgement, artifact: &str) -> String {
    let rules = &judgement.decision.rules;
    let failures = rules.iter().filter(|rule| !rule.pass).count();
    // JUnit's timestamps are local times without a zone: seconds in UTC.
    let when: String = timestamp::to_rfc3339(judgement.judged_ns).chars().take(19).collect();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let counts = format!("tests=\"{}\" failures=\"{failures}\" errors=\"0\"", rules.len());
    let name = text(artifact);
    let head = format!("<testsuites name=\"amc gate\" {counts} time=\"0\">\n  <testsuite name=\"{name}\" {counts}");
    writeln!(out, "{head} skipped=\"0\" time=\"0\" timestamp=\"{when}\" hostname=\"localhost\">").expect(IN_MEMORY);
    for rule in rules {
        let (id, wanted, found) = (text(&rule.rule), text(&rule.wanted), text(&rule.found));
        let case = format!("    <testcase name=\"{id}\" classname=\"amc.gate\" time=\"0\"");
        if rule.pass {
            writeln!(out, "{case}/>").expect(IN_MEMORY);
        } else {
            let message = format!("wanted {wanted}, found {found}");
            let failure = format!("<failure message=\"{message}\" type=\"deny\">{id}: {message}</failure>");
            writeln!(out, "{case}>\n      {failure}\n    </testcase>").expect(IN_MEMORY);
        }
    }
    let said: String = judgement.findings.iter().map(Finding::to_string).map(|line| line + "\n").collect();
    writeln!(out, "    <system-out>{}</system-out>\n    <system-err></system-err>", text(&said)).expect(IN_MEMORY);
    out + "  </testsuite>\n</testsuites>\n"
}

const IN_MEMORY: &str = "writing into a string cannot fail";

/// Text for an element or an attribute in double quotes.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_value_becomes_markup() {
        assert_eq!(text("<a b=\"1\">&\u{1}\u{ffff}"), "&lt;a b=&quot;1&quot;&gt;&amp;\u{fffd}\u{fffd}");
        assert_eq!(text("line\nline"), "line&#10;line");
    }
}

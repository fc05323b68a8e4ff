//! Reads what is needed of a JUnit report as nextest writes it: the counts, and the lines with which tests say that
//! they skipped something. No general XML reader.

use crate::Failure;

/// The start of a line by which a test says what it did not check, and why.
pub const SKIPPED: &str = "SKIPPED:";

/// Counts and skip lines of one report.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Tests run.
    pub tests: u64,
    /// Tests that failed or could not be run.
    pub failed: u64,
    /// The lines that begin with [`SKIPPED`], each once, in order.
    pub skipped: Vec<String>,
}

/// Reads a report.
///
/// # Errors
/// It has no `<testsuites>` head with counts.
pub fn read(report: &str) -> Result<Summary, Failure> {
    let head = report.split("<testsuites").nth(1).and_then(|rest| rest.split('>').next());
    let head = head.ok_or_else(|| Failure::new("the test report has no <testsuites>"))?;
    let count = |name: &str| -> Result<u64, Failure> {
        let value = head.split(&format!(" {name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
        let number = value.and_then(|text| text.parse().ok());
        number.ok_or_else(|| Failure::new(format!("the test report has no count `{name}`")))
    };
    // Output follows its tag on the same line, so the tag ends are line ends here.
    let text = report.replace(['>', '<'], "\n");
    Ok(Summary {
        tests: count("tests")?,
        failed: count("failures")? + count("errors")?,
        skipped: skip_lines(&unescaped(&text)),
    })
}

/// The lines of a plain output that begin with [`SKIPPED`], each once, in order.
pub fn skip_lines(output: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in output.lines().map(str::trim).filter(|line| line.starts_with(SKIPPED)) {
        if !lines.iter().any(|known| known == line) {
            lines.push(line.to_owned());
        }
    }
    lines
}

fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_skips_are_read() {
        let report = r#"<?xml version="1.0"?>
<testsuites name="nextest-run" tests="7" failures="1" errors="1" uuid="0" time="1.0">
 <testcase name="a"><system-out>SKIPPED: docker: no &quot;docker&quot; &amp; no socket
running</system-out><system-err>x
SKIPPED: bwrap absent</system-err></testcase>
 <testcase name="b"><system-out>SKIPPED: bwrap absent
not SKIPPED: this</system-out></testcase>
</testsuites>"#;
        let summary = read(report).expect("a report");
        assert_eq!((summary.tests, summary.failed), (7, 2));
        assert_eq!(summary.skipped, ["SKIPPED: docker: no \"docker\" & no socket", "SKIPPED: bwrap absent"]);
    }

    #[test]
    fn a_report_without_counts_is_refused() {
        assert!(read("").is_err());
        assert!(read("<testsuites tests=\"1\">").is_err());
    }
}

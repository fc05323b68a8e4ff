//! `cargo xtask tidy`: rules on the text of the tracked files that no compiler checks. Reads, never changes.
//!
//! A rule is a pure function of a path and a text; each has a test that shows it failing. Needles that would be found
//! in this very file are put together from pieces.

use crate::{Failure, docs, process, workspace};
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// One finding: the file, the line (1 is the first), what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Checks every tracked file, and every new one that is not ignored.
///
/// # Errors
/// There is a finding, or git could not list the files.
pub fn command(args: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = args.first() {
        return Err(Failure::new(format!("tidy takes no argument, not `{unknown}`")));
    }
    let root = workspace::root();
    let files = listed(&root)?;
    let mut findings = Vec::new();
    for path in &files {
        // A file that was deleted but not yet committed is still listed; what is no text has no lines to check.
        if let Ok(text) = fs::read_to_string(root.join(path)) {
            findings.extend(check(path, &text));
        }
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        return Err(Failure::new(format!("{} finding(s), listed above", findings.len())));
    }
    println!("tidy: {} files, nothing found", files.len());
    Ok(())
}

/// Paths from the root, as git knows them.
fn listed(root: &Path) -> Result<Vec<String>, Failure> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let text = process::capture(&mut git, Duration::from_secs(60))?.success()?;
    let files: Vec<String> = text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    if files.is_empty() {
        return Err(Failure::new("git lists no file, so nothing was checked"));
    }
    Ok(files)
}

/// Every finding in one file.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String| findings.push(Finding { path: path.to_owned(), line, what });
    for (at, line) in text.lines().enumerate() {
        for (needle, why) in ANYWHERE.iter().filter(|(needle, _)| line.contains(needle)) {
            find(at + 1, format!("`{needle}`: {why}"));
        }
    }
    if docs::is_page(path) {
        for (line, name) in docs::fences(text).into_iter().filter(|(_, name)| !BLOCKS.contains(name)) {
            find(line, format!("a block named `{name}`: commands that are run are `sh`, what is only shown is `text`"));
        }
    }
    if path.ends_with(".rs") && !path.starts_with("fixtures/") {
        if !text.starts_with("//!") {
            find(1, "begins without `//!`: say what the file is, what it never does, which spec it follows".into());
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            find(LINES_MAX + 1, format!("{lines} lines, {LINES_MAX} are the limit: look for the two ideas in it"));
        }
        for (at, line) in text.lines().enumerate() {
            for (needle, why) in IN_RUST.iter().filter(|(needle, _)| line.contains(needle)) {
                find(at + 1, format!("`{needle}`: {why}"));
            }
        }
    }
    findings
}

/// How a fenced block of a page may be named. `sh` is run by `cargo xtask docs`; other names for a shell are not here,
/// so that no command goes unchecked unseen.
const BLOCKS: &[&str] = &["sh", "text", "json", "toml", "yaml", "rust", "python", "mermaid"];

/// Past this a file holds two ideas.
const LINES_MAX: usize = 700;

/// What no Rust file of ours holds.
const IN_RUST: &[(&str, &str)] = &[
    (concat!("to", "do!("), "build it or leave it out"),
    (concat!("unimple", "mented!("), "build it or leave it out"),
    (concat!("#[ig", "nore"), "a test that does not run proves nothing; print a SKIPPED: line with the reason"),
];

/// What no tracked file holds: places that exist on one machine only, and hosts that a machine's own settings choose.
const ANYWHERE: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("index", "-url"), "which registry serves is a setting of the machine"),
    (concat!("index.", "crates.io"), "which registry serves is a setting of the machine"),
    (concat!("static.", "crates.io"), "which registry serves is a setting of the machine"),
    (concat!("pypi.", "org/simple"), "which registry serves is a setting of the machine"),
    (concat!("files.python", "hosted.org"), "which registry serves is a setting of the machine"),
    (concat!("registry.", "npmjs.org"), "which registry serves is a setting of the machine"),
    (concat!("proxy.", "golang.org"), "which registry serves is a setting of the machine"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(path, text).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_tidy_file_has_no_finding() {
        assert_eq!(found("crates/a/src/lib.rs", "//! A crate.\n\nfn main() {}\n"), Vec::<String>::new());
    }

    #[test]
    fn a_file_without_its_head_is_found() {
        assert!(found("a.rs", "use std::fs;\n")[0].starts_with("a.rs:1: begins without"));
        assert!(found("a.rs", "").len() == 1);
        assert!(found("fixtures/boundary/x/lib.rs", "").is_empty());
        assert!(found("a.py", "import os\n").is_empty());
    }

    #[test]
    fn a_file_past_the_limit_is_found() {
        let at_limit = format!("//!{}", "\n//".repeat(LINES_MAX - 1));
        assert!(found("a.rs", &at_limit).is_empty());
        assert!(found("a.rs", &format!("{at_limit}\n//"))[0].contains("701 lines"));
    }

    #[test]
    fn a_block_of_a_page_whose_commands_would_go_unchecked_is_found() {
        for name in ["", "bash", "shell", "console", "sh norun"] {
            let page = format!("# A\n\n```sh\namc verify\n```\n```{name}\n$ amc verify\n```\n");
            assert!(found("docs/guides/a.md", &page)[0].starts_with("docs/guides/a.md:6:"), "{name}");
            assert!(found("README.md", &page).len() == 1, "{name}");
            assert!(found("docs/formats/a.md", &page).is_empty(), "{name}");
        }
    }

    #[test]
    fn every_needle_in_rust_is_found() {
        for (needle, _) in IN_RUST {
            let text = format!("//! x\n{needle}\n");
            assert!(found("a.rs", &text)[0].starts_with("a.rs:2:"), "{needle}");
            assert!(found("a.md", &text).is_empty(), "{needle}");
        }
    }

    #[test]
    fn every_needle_anywhere_is_found() {
        for (needle, _) in ANYWHERE {
            assert_eq!(found("docs/a.md", &format!("one\n{needle}\n")).len(), 1, "{needle}");
            assert_eq!(found("fixtures/a.json", needle).len(), 1, "{needle}");
        }
    }
}

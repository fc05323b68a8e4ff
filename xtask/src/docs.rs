//! `cargo xtask docs`: the commands that the pages show, run as they stand.
//!
//! Every fenced `sh` block of README.md and of the pages under docs/ runs, in order, in one shell per page: in an empty directory,
//! with the binaries on PATH, `AMC_VAULT_PASSPHRASE` set, and a demo model on the port `AMC_DEMO_MODEL_PORT`. A line
//! that is to end with another status says so in a comment at its end: `amc gate … # exit 1`, `# exit 0 or 1`. What is
//! not to be run is `text`; `cargo xtask tidy` refuses other names for shell blocks, so none escapes by its name.

use crate::stage::{self, DemoModel, Stage};
use crate::step::print_indented;
use crate::workspace::{self, Workspace};
use crate::{Failure, process};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs the commands of every page, or of those that are named.
///
/// # Errors
/// A command ended otherwise than its page says.
pub fn command(args: &[String]) -> Result<(), Failure> {
    let workspace = Workspace::read(&workspace::root())?;
    let mut pages = Vec::new();
    for path in pages_of(&workspace.root)? {
        let blocks = shell_blocks(&path, &fs::read_to_string(workspace.root.join(&path))?)?;
        if !blocks.is_empty() && (args.is_empty() || args.contains(&path)) {
            pages.push((path, blocks));
        }
    }
    if let Some(unknown) = args.iter().find(|arg| pages.iter().all(|(path, _)| path != *arg)) {
        return Err(Failure::new(format!(
            "{unknown} is no page with commands; name them as README.md, docs/guides/x.md"
        )));
    }
    let stage = Stage::build(&workspace, workspace.target.clone())?;
    let model = DemoModel::start(&stage, 3)?;
    let mut failed = Vec::new();
    for (path, blocks) in &pages {
        let started = Instant::now();
        let outcome = run_page(&workspace, &stage, &model, path, blocks);
        let word = if outcome.is_ok() { "as it says" } else { "FAILED" };
        println!("{path}: {} blocks in {:.1} s, {word}", blocks.len(), started.elapsed().as_secs_f64());
        if let Err(failure) = outcome {
            print_indented(&failure.to_string());
            failed.push(path.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(format!("not as they say: {}", failed.join(", ")))) }
}

/// README.md and the pages under docs/, as paths from the root.
fn pages_of(root: &Path) -> Result<Vec<String>, Failure> {
    let mut pages = vec!["README.md".to_owned()];
    let mut dirs = vec!["docs".to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let path = format!("{dir}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() { dirs.push(path) } else { pages.push(path) }
        }
    }
    pages.retain(|path| path.ends_with(".md"));
    pages.sort();
    Ok(pages)
}

/// Whether the page is a guide: there a block is `sh` or `text`, and no command is shown that is not run.
pub fn is_page(path: &str) -> bool {
    path == "README.md" || (path.starts_with("docs/guides/") && path.ends_with(".md"))
}

/// One block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    /// The line of its fence; 1 is the first.
    line: usize,
    script: String,
}

/// The fences that open a block in a page: the line and the name behind the backquotes.
pub fn fences(text: &str) -> Vec<(usize, &str)> {
    let mut open = false;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(name) = line.trim_start().strip_prefix(FENCE) {
            open = !open;
            if open {
                found.push((at + 1, name.trim()));
            }
        }
    }
    found
}

fn shell_blocks(path: &str, text: &str) -> Result<Vec<Block>, Failure> {
    let lines: Vec<&str> = text.lines().collect();
    let blocks = fences(text).into_iter().filter(|(_, name)| *name == "sh");
    let block = |(line, _): (usize, &str)| {
        let body: Vec<&str> =
            lines[line..].iter().take_while(|text| !text.trim_start().starts_with(FENCE)).copied().collect();
        let script = expecting(&body).map_err(|what| Failure::new(format!("{path}:{line}: {what}")))?;
        Ok(Block { line, script })
    };
    blocks.map(block).collect()
}

/// The lines of a block as a script in which every command ends as its line says.
fn expecting(lines: &[&str]) -> Result<String, String> {
    let mut script = String::new();
    let mut command = Vec::new();
    for line in lines {
        command.push(*line);
        if line.ends_with('\\') {
            continue;
        }
        let whole = command.join("\n");
        command.clear();
        match whole.rsplit_once("# exit ") {
            None => script.push_str(&whole),
            Some((_, statuses)) => {
                let statuses: Vec<&str> = statuses.split(" or ").map(str::trim).collect();
                if statuses.iter().any(|status| status.parse::<u8>().is_err()) {
                    return Err(format!("`# exit` wants a status, or some with `or` between: {whole}"));
                }
                script.push_str(&format!(
                    "set +e\n{whole}\namc_docs_status=$?; set -e\ncase $amc_docs_status in {}) ;; *) echo \"ended with \
                     $amc_docs_status\" >&2; exit 99 ;; esac",
                    statuses.join("|")
                ));
            }
        }
        script.push('\n');
    }
    if command.is_empty() { Ok(script) } else { Err("the block ends within a command".into()) }
}

fn run_page(
    workspace: &Workspace,
    stage: &Stage,
    model: &DemoModel,
    path: &str,
    blocks: &[Block],
) -> Result<(), Failure> {
    let dir = stage::same_dir(workspace, &format!("docs/{}", path.trim_end_matches(".md").replace('/', "-")))?;
    let mut script = String::from("set -eu\n");
    for block in blocks {
        script.push_str(&format!("echo '== {path}:{}'\n{}", block.line, block.script));
    }
    let mut shell = stage.shell(&script);
    shell.current_dir(dir);
    shell.env("AMC_VAULT_PASSPHRASE", "unlocks a workspace of the pages");
    shell.env("AMC_DEMO_MODEL_PORT", model.port.to_string());
    let answer = process::capture(&mut shell, PAGE_LIMIT)?;
    if answer.status.success() {
        return Ok(());
    }
    // The script itself is the page; what it printed shows how far it came.
    Err(Failure::new(format!("{}\n{}{}", answer.status, answer.stdout, answer.stderr)))
}

const FENCE: &str = "```";

/// A page is read in minutes; its commands take seconds each at most.
const PAGE_LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_with(lines: &[&str]) -> Option<i32> {
        let script = format!("set -eu\n{}", expecting(lines).expect("well formed"));
        let mut shell = std::process::Command::new("sh");
        process::capture(shell.args(["-c", &script]), PAGE_LIMIT).expect("sh runs").status.code()
    }

    #[test]
    fn only_shell_blocks_are_taken_with_their_lines() {
        let page = "# A\n\n```sh\necho a\n```\n\n```text\n$ b\n```\n1. c\n   ```sh\n   echo c\n   ```\n";
        let blocks = shell_blocks("a.md", page).expect("well formed");
        assert_eq!(blocks.iter().map(|block| block.line).collect::<Vec<_>>(), [3, 11]);
        assert_eq!(blocks[0].script, "echo a\n");
        assert_eq!(fences(page), [(3, "sh"), (7, "text"), (11, "sh")]);
    }

    #[test]
    fn a_command_has_to_end_as_its_line_says() {
        assert_eq!(ends_with(&["true", "true # a comment"]), Some(0));
        assert_eq!(ends_with(&["false", "true"]), Some(1));
        assert_eq!(ends_with(&["false # exit 1", "true"]), Some(0));
        assert_eq!(ends_with(&["true # exit 1", "true"]), Some(99));
        assert_eq!(ends_with(&["sh -c \\", "  'exit 3'  # exit 0 or 3"]), Some(0));
        assert_eq!(ends_with(&["x=1; sh -c 'exit 2' # exit 2", "test $x = 1"]), Some(0));
    }

    #[test]
    fn a_block_that_breaks_off_or_expects_no_number_is_refused() {
        assert!(expecting(&["amc init \\"]).is_err());
        assert!(expecting(&["amc run # exit code"]).is_err());
        assert!(shell_blocks("a.md", "```sh\namc init \\\n```\n").expect_err("broken").to_string().contains("a.md:1"));
    }
}

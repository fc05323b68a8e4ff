//! `doctor`: what this machine can do for keeping an agent apart, which isolation `auto` would take,
//! and what would help. It changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use amc_core::kinds::Isolation;
use amc_sandbox::machine::{self, Check, State};
use amc_workspace::home::{self, HomeError};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::boundary::{self, Trial};
use crate::signers;

/// As many files of a home are named.
const NAMED: usize = 5;

pub(crate) fn doctor(opening: &Opening) -> Result<Answer, Failure> {
    let mut checks = machine::look(&signers::program("amc-sandbox-init"));
    let root = opening.home();
    checks.push(match &root {
        Ok(home) => of_home(home.root()),
        Err(failure) => no_home(&failure.message),
    });
    let trial = boundary::try_out(root.as_ref().ok().map(home::Home::root));
    let (isolation, why) = match &trial {
        Some(Trial { isolation, why, .. }) => (isolation.clone(), why.clone()),
        None => (Isolation::None, Some("the trial could not be run in this directory".to_owned())),
    };
    let reached: Vec<String> = trial.map(|trial| trial.reached).unwrap_or_default();
    let available = isolation != Isolation::None && reached.is_empty();
    let loose = checks.iter().any(|check| check.id == "home" && check.state == State::Missing);
    let text = text(&checks, &isolation, why.as_deref(), &reached);
    let data = json!({
        "isolation": { "auto": isolation.to_string(), "available": available, "why": why, "reached": reached },
        "checks": checks,
    });
    let mut answer = Answer::new(&data, text);
    answer.bad = !available || loose;
    Ok(answer)
}

fn no_home(why: &str) -> Check {
    let loose = why.contains("chmod");
    let state = if loose { State::Missing } else { State::Limited };
    let mend = if loose { why.rsplit_once(": ").map(|(_, command)| command) } else { Some("amc init") };
    Check { id: "home", state, found: why.to_owned(), mend: mend.map(str::to_owned) }
}

/// The modes of a home's own files; what is below a closed directory is closed.
fn of_home(root: &Path) -> Check {
    let directories = ["", "logs", "logs/evidence", "logs/audit", "run", "agents", "runs"];
    let files = ["vault.amcvault", "studio/admin.token"];
    let wanted = directories.iter().map(|name| (name, 0o700)).chain(files.iter().map(|name| (name, 0o600)));
    let mut mend = Vec::new();
    let own = fs::metadata(root).map(|meta| meta.uid()).ok();
    for (name, mode) in wanted {
        let path = root.join(name);
        if let Err(HomeError::Permissions { .. }) = home::check_mode(&path, mode) {
            mend.push(format!("chmod {mode:o} {}", path.display()));
        }
        // Whoever owns a part of it can loosen it.
        if let (Ok(meta), Some(own)) = (fs::metadata(&path), own)
            && meta.uid() != own
        {
            mend.push(format!("chown {own} {}", path.display()));
        }
    }
    if mend.is_empty() {
        return Check { id: "home", state: State::Ok, found: root.display().to_string(), mend: None };
    }
    let found = format!("{}: {} modes or owners are loose", root.display(), mend.len());
    mend.truncate(NAMED);
    Check { id: "home", state: State::Missing, found, mend: Some(mend.join("; ")) }
}

fn text(checks: &[Check], isolation: &Isolation, why: Option<&str>, reached: &[String]) -> String {
    let mut text = String::new();
    for check in checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Limited => "limited",
            State::Missing => "missing",
        };
        text += &format!("{state:<8} {:<16} {}\n", check.id, check.found);
        if let Some(mend) = check.mend.as_ref().filter(|_| check.state != State::Ok) {
            text += &format!("{:<25} {mend}\n", "");
        }
    }
    text += &match (isolation, reached, why) {
        (Isolation::None, _, why) => format!(
            "No isolation here, so runs over wrapped agents are INVALID: {}\n",
            why.unwrap_or("nothing stronger works")
        ),
        (isolation, [], _) => format!("`amc wrap` takes {isolation}; a trial reached nothing\n"),
        (isolation, reached, _) => format!(
            "`amc wrap` takes {isolation}, and a trial reached what it must not, so runs are INVALID: {}\n",
            reached.join("; ")
        ),
    };
    text
}

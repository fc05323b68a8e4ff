//! Virtual environments for programs of others that the project is checked against, below the target directory.
//!
//! Which registry serves the packages is a setting of the machine; versions are pinned by the caller.

use crate::workspace::Workspace;
use crate::{Failure, process};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The environment's `python`, with exactly these packages asked for (`name==version`). Made at the first call and
/// whenever the list changes; otherwise found.
///
/// # Errors
/// python3 or its venv module is missing, or a package could not be installed.
pub fn environment(workspace: &Workspace, name: &str, packages: &[String]) -> Result<PathBuf, Failure> {
    let dir = workspace.target.join("python").join(name);
    let python = dir.join("bin/python");
    // Written last, so that an environment that was not finished is made anew.
    let finished = dir.join("packages.txt");
    let wanted = packages.join("\n");
    if fs::read_to_string(&finished).is_ok_and(|found| found == wanted) && python.exists() {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&dir);
    process::capture(&mut make, process::NEVER)?.success()?;
    if !packages.is_empty() {
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]).args(packages);
        process::pass_through(&mut install)?;
    }
    fs::write(&finished, wanted)?;
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn an_environment_is_made_once_and_anew_for_another_list() {
        if process::capture(Command::new("python3").args(["-c", "import venv, ensurepip"]), process::NEVER)
            .is_ok_and(|answer| answer.status.success())
        {
            let workspace = Workspace::read(&workspace::root()).expect("metadata of this workspace");
            let python = environment(&workspace, "xtask-test", &[]).expect("an empty environment");
            let marker = python.parent().expect("bin").join("marker");
            fs::write(&marker, "").expect("a file in it");
            environment(&workspace, "xtask-test", &[]).expect("the same");
            assert!(marker.exists(), "it was made twice");
            let failure =
                environment(&workspace, "xtask-test", &["amc no such==package".into()]).expect_err("no such package");
            assert!(failure.to_string().contains("pip install"), "{failure}");
            assert!(!marker.exists(), "another list needs another environment");
        } else {
            println!("SKIPPED: python environments: python3 with venv and ensurepip is not installed");
        }
    }
}

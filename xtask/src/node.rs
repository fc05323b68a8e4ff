//! Node packages of others that the project is checked against, installed below the target directory.
//!
//! Which registry serves them is a setting of the machine; versions are pinned in the `package.json` that is given.

use crate::workspace::Workspace;
use crate::{Failure, process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The `node_modules` with what a `package.json` names; none where Node or npm is not installed. Made at the first call
/// and whenever the file changes; otherwise found.
///
/// # Errors
/// A package could not be installed.
pub fn modules(workspace: &Workspace, name: &str, package: &Path) -> Result<Option<PathBuf>, Failure> {
    for program in ["node", "npm"] {
        let asked = process::capture(Command::new(program).arg("--version"), process::NEVER);
        if !asked.is_ok_and(|answer| answer.status.success()) {
            return Ok(None);
        }
    }
    let dir = workspace.target.join("node").join(name);
    let modules = dir.join("node_modules");
    // Written last, so that what was not finished is made anew.
    let finished = dir.join("installed.json");
    let wanted = fs::read_to_string(package)?;
    if fs::read_to_string(&finished).is_ok_and(|found| found == wanted) && modules.is_dir() {
        return Ok(Some(modules));
    }
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("package.json"), &wanted)?;
    let mut install = Command::new("npm");
    install.current_dir(&dir).args([
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--no-package-lock",
    ]);
    process::pass_through(&mut install)?;
    fs::write(&finished, wanted)?;
    Ok(Some(modules))
}

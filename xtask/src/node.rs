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

/// The same modules below another directory of the target directory, as links: an agent in namespaces sees its work
/// directory and not its neighbours, where a clone lies below `/tmp`.
///
/// # Errors
/// A directory could not be made, or a file not linked.
pub fn link_modules(modules: &Path, into: &Path) -> Result<PathBuf, Failure> {
    let linked = into.join("node_modules");
    link_tree(modules, &linked)?;
    Ok(linked)
}

fn link_tree(from: &Path, to: &Path) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
        let to = to.join(entry.file_name());
        if kind.is_dir() {
            link_tree(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::hard_link(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linked_modules_are_the_same_files() {
        let dir = std::env::temp_dir().join(format!("amc-xtask-node-{}", std::process::id()));
        fs::create_dir_all(dir.join("from/a/b")).expect("a directory");
        fs::write(dir.join("from/a/b/index.js"), "1").expect("a file");
        let linked = link_modules(&dir.join("from"), &dir.join("to")).expect("it is linked");
        assert_eq!(fs::read_to_string(linked.join("a/b/index.js")).expect("it is there"), "1");
        fs::remove_dir_all(&dir).expect("of this test alone");
    }
}

//! The clippy ban: `disallowed-types` forbids std's network types wherever `net = false`. Here it is checked that
//! nothing switches the ban off; clippy itself finds the uses.

use super::class::Members;
use super::{Rule, Violation};
use crate::Failure;
use crate::workspace::{Package, Workspace};
use std::fs;
use std::path::{Path, PathBuf};

/// What the root `clippy.toml` has to ban, at least.
const BANNED: [&str; 3] = ["std::net::TcpStream", "std::net::TcpListener", "std::net::UdpSocket"];

/// Both names under which clippy reads its configuration.
const CLIPPY_FILES: [&str; 2] = ["clippy.toml", ".clippy.toml"];

/// The lint's name, in a form that does not trip the search for it in this very file.
const LINT: &str = concat!("disallowed", "_types");
const METHOD_LINT: &str = concat!("disallowed", "_methods");

/// Every way in which the ban is missing or switched off.
pub(super) fn check(workspace: &Workspace, members: &Members) -> Result<Vec<Violation>, Failure> {
    let mut violations = root_config(workspace)?;
    for package in &workspace.packages {
        if members.get(&package.name).is_some_and(|class| !class.net) {
            violations.extend(package_config(workspace, package)?);
        }
    }
    Ok(violations)
}

/// The root's clippy.toml names the types, and the root's lint table has the lint on.
fn root_config(workspace: &Workspace) -> Result<Vec<Violation>, Failure> {
    let mut violations = Vec::new();
    let clippy = toml_or_empty(&workspace.root.join("clippy.toml"))?;
    let banned: Vec<&str> = clippy
        .get("disallowed-types")
        .and_then(toml::Value::as_array)
        .map(|list| list.iter().filter_map(entry_path).collect())
        .unwrap_or_default();
    for name in BANNED.iter().filter(|name| !banned.contains(name)) {
        violations.push(found("clippy.toml", name, "add it to disallowed-types in the root clippy.toml"));
    }
    let manifest = toml_or_empty(&workspace.root.join("Cargo.toml"))?;
    let lint = ["workspace", "lints", "clippy", LINT].iter().try_fold(&manifest, |table, key| table.get(*key));
    let level = lint.and_then(|lint| lint.as_str().or_else(|| lint.get("level")?.as_str()));
    if !matches!(level, Some("warn" | "deny" | "forbid")) {
        violations.push(found("Cargo.toml", LINT, "set it to \"warn\" in [workspace.lints.clippy]"));
    }
    Ok(violations)
}

/// The package takes the workspace's lints, has no clippy.toml on its way to the root, and no source line that names
/// the lint.
fn package_config(workspace: &Workspace, package: &Package) -> Result<Vec<Violation>, Failure> {
    let mut violations = Vec::new();
    for dir in package.dir.ancestors().take_while(|dir| *dir != workspace.root) {
        for file in CLIPPY_FILES.iter().map(|name| dir.join(name)).filter(|file| file.exists()) {
            let advice = "it hides the root's ban; only a package with net = true has its own";
            violations.push(found(&package.name, &shown(workspace, &file), advice));
        }
    }
    let manifest = toml_or_empty(&package.dir.join("Cargo.toml"))?;
    let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
    if inherits != Some(true) {
        violations.push(found(&package.name, "[lints]", "write `[lints]` with `workspace = true` in its Cargo.toml"));
    }
    for file in sources(&package.dir)? {
        let text = fs::read_to_string(&file)?;
        if text.contains(LINT) || text.contains(METHOD_LINT) {
            let advice = "no exception to the ban where net = false: move the network part to a net = true package";
            violations.push(found(&package.name, &shown(workspace, &file), advice));
        }
    }
    Ok(violations)
}

fn found(from: &str, to: &str, advice: &str) -> Violation {
    Violation { rule: Rule::ClippyBan, from: from.into(), to: to.into(), advice: advice.into() }
}

/// An entry of `disallowed-types`: a plain path, or a table with one.
fn entry_path(entry: &toml::Value) -> Option<&str> {
    entry.as_str().or_else(|| entry.get("path")?.as_str())
}

fn toml_or_empty(file: &Path) -> Result<toml::Value, Failure> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::from(error).during(&file.display().to_string())),
    };
    let table: toml::Table = text.parse().map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    Ok(toml::Value::Table(table))
}

fn shown(workspace: &Workspace, file: &Path) -> String {
    file.strip_prefix(&workspace.root).unwrap_or(file).display().to_string()
}

/// Every `.rs` file below `dir`.
fn sources(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

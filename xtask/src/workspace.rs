//! What `cargo metadata` says of a workspace, reduced to what the tasks look at. Reads manifests, resolves nothing.

use crate::{Failure, process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One workspace: its root directory, its target directory and its member packages, sorted by name.
#[derive(Debug)]
pub struct Workspace {
    /// The directory of the root manifest.
    pub root: PathBuf,
    /// Where cargo puts artifacts.
    pub target: PathBuf,
    /// The member packages.
    pub packages: Vec<Package>,
}

/// One member package as its manifest declares it.
#[derive(Debug)]
pub struct Package {
    /// Name of the package, not of its library.
    pub name: String,
    /// Cargo's id; unambiguous also beside a registry package of the same name.
    pub id: String,
    /// The directory of its manifest.
    pub dir: PathBuf,
    /// `[package.metadata.amc]`, `Null` when absent.
    pub declared: Value,
    /// Every declared dependency: optional, renamed, build, dev and target-specific ones included.
    pub dependencies: Vec<Dependency>,
    /// Whether it has any feature, which is when feature sets can differ.
    pub has_features: bool,
    /// Its targets.
    pub targets: Vec<Target>,
}

/// One line of a dependency table.
#[derive(Debug)]
pub struct Dependency {
    /// The package's own name, also where the line renames it.
    pub name: String,
    /// The name that the line gives it, when another.
    pub rename: Option<String>,
    /// Which table it stands in.
    pub kind: DependencyKind,
    /// Whether a feature has to be on for it.
    pub optional: bool,
    /// The `cfg(…)` or target triple it is bound to.
    pub target: Option<String>,
    /// The directory of a path dependency.
    pub path: Option<PathBuf>,
}

/// The three dependency tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyKind {
    /// `[dependencies]`
    Normal,
    /// `[build-dependencies]`
    Build,
    /// `[dev-dependencies]`
    Dev,
}

/// One build target of a package.
#[derive(Debug)]
pub struct Target {
    /// Name of the target.
    pub name: String,
    /// `lib`, `rlib`, `cdylib`, `bin`, `test`, `bench`, `example`, `custom-build`, …
    pub kinds: Vec<String>,
}

impl Workspace {
    /// Reads the workspace whose root manifest is in `root`.
    ///
    /// # Errors
    /// `cargo metadata` failed, or answered in a form that is not known here.
    pub fn read(root: &Path) -> Result<Self, Failure> {
        let mut command = cargo(root);
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let text = process::capture(&mut command, process::NEVER)?.success()?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| Failure::new(format!("cargo metadata: {error}")))?;
        Self::parse(&value)
    }

    /// The member whose directory is `dir`.
    pub fn member_at(&self, dir: &Path) -> Option<&Package> {
        self.packages.iter().find(|package| package.dir == dir)
    }

    /// The path of a binary that was built in the development profile, `cargo build --workspace --bins`.
    ///
    /// # Errors
    /// It is not there.
    pub fn built(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.target.join("debug").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        if path.is_file() {
            return Ok(path);
        }
        Err(Failure::new(format!("{} is not built: `cargo build --workspace --bins` makes it", path.display())))
    }

    fn parse(value: &Value) -> Result<Self, Failure> {
        let mut packages = list(value, "packages")?.iter().map(package).collect::<Result<Vec<_>, _>>()?;
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            root: text(value, "workspace_root")?.into(),
            target: text(value, "target_directory")?.into(),
            packages,
        })
    }
}

impl Package {
    /// Whether a target of this kind exists.
    pub fn has_target(&self, kind: &str) -> bool {
        self.targets.iter().any(|target| target.kinds.iter().any(|own| own == kind))
    }
}

/// `cargo` to be run in `dir`: the one that started this task, without the variables it sets for its children, so
/// that the answer does not depend on who asks.
pub fn cargo(dir: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(dir);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// The root of the repository that this task was built from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies directly below the root").to_owned()
}

fn package(value: &Value) -> Result<Package, Failure> {
    let manifest = PathBuf::from(text(value, "manifest_path")?);
    Ok(Package {
        name: text(value, "name")?.into(),
        id: text(value, "id")?.into(),
        dir: manifest.parent().map(Path::to_owned).unwrap_or_default(),
        declared: value.pointer("/metadata/amc").cloned().unwrap_or(Value::Null),
        dependencies: list(value, "dependencies")?.iter().map(dependency).collect::<Result<_, _>>()?,
        has_features: value.get("features").and_then(Value::as_object).is_some_and(|table| !table.is_empty()),
        targets: list(value, "targets")?.iter().map(target).collect::<Result<_, _>>()?,
    })
}

fn dependency(value: &Value) -> Result<Dependency, Failure> {
    let kind = match value.get("kind").and_then(Value::as_str) {
        None => DependencyKind::Normal,
        Some("build") => DependencyKind::Build,
        Some("dev") => DependencyKind::Dev,
        Some(other) => return Err(Failure::new(format!("cargo metadata: unknown dependency kind `{other}`"))),
    };
    let optional_text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    Ok(Dependency {
        name: text(value, "name")?.into(),
        rename: optional_text("rename"),
        kind,
        optional: value.get("optional").and_then(Value::as_bool).unwrap_or(false),
        target: optional_text("target"),
        path: optional_text("path").map(PathBuf::from),
    })
}

fn target(value: &Value) -> Result<Target, Failure> {
    let kinds = list(value, "kind")?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Target { name: text(value, "name")?.into(), kinds })
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, Failure> {
    let found = value.get(key).and_then(Value::as_str);
    found.ok_or_else(|| Failure::new(format!("cargo metadata: no text `{key}`")))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, Failure> {
    let found = value.get(key).and_then(Value::as_array);
    found.ok_or_else(|| Failure::new(format!("cargo metadata: no list `{key}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_workspace() {
        let workspace = Workspace::read(&root()).expect("metadata of this workspace");
        let own = workspace.member_at(&root().join("xtask")).expect("xtask is a member");
        assert_eq!(own.name, "xtask");
        assert!(own.has_target("bin"));
        assert!(own.dependencies.iter().any(|line| line.name == "toml" && line.kind == DependencyKind::Normal));
    }

    #[test]
    fn a_binary_that_is_not_built_is_refused_with_the_way_to_build_it() {
        let workspace = Workspace::read(&root()).expect("metadata of this workspace");
        let failure = workspace.built("no-such-binary").expect_err("it is not built");
        assert!(failure.to_string().contains("cargo build --workspace --bins"), "{failure}");
    }

    #[test]
    fn an_answer_in_another_form_is_refused() {
        let failure = Workspace::parse(&serde_json::json!({"packages": 1})).expect_err("not a list");
        assert!(failure.to_string().contains("packages"), "{failure}");
    }
}

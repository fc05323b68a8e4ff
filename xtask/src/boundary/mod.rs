//! The boundary check: who may depend on whom, who may reach a network, where the private keys may be linked.
//!
//! The rules are those of the section *Crates* of `docs/ARCHITECTURE.md`. The check looks at three things, because each
//! can be gone round alone: the edges that manifests declare, the closure that cargo resolves, the bytes that come out
//! of the build. Every rule has fixture workspaces under `fixtures/boundary/<rule>/` that break just that rule; the
//! tests fail when one of them passes. A package that is not in the class table is refused, never skipped.

mod artifact;
mod ban;
mod class;
mod closure;
mod edges;

use crate::{Failure, workspace, workspace::Workspace};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

pub use class::{Class, Trust};

/// What can be violated. The names are those of the directories under `fixtures/boundary/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A package lacks `[package.metadata.amc]`, or it says something unknown.
    Declaration,
    /// A declared dependency that the class table does not allow.
    EdgeClass,
    /// A `net = false` package depends on a `net = true` package.
    NetEdge,
    /// A path dependency, declared or patched in, on something that is no member and so has no class.
    UnclassedPath,
    /// A network stack in the resolved closure of a `net = false` package.
    NetClosure,
    /// A C build in the resolved closure of a `net = false` package.
    CBuild,
    /// A signer, by package name, in the resolved closure of a class that never holds keys.
    SignerClosure,
    /// The clippy ban on network types is not in force for a `net = false` package.
    ClippyBan,
    /// The signer's tripwire is in an artifact that must not link a signer.
    Tripwire,
    /// The tripwire is not where it must be, so that its absence elsewhere proves nothing.
    TripwireControl,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 10] = [
        Self::Declaration,
        Self::EdgeClass,
        Self::NetEdge,
        Self::UnclassedPath,
        Self::NetClosure,
        Self::CBuild,
        Self::SignerClosure,
        Self::ClippyBan,
        Self::Tripwire,
        Self::TripwireControl,
    ];

    /// Its name in output and under `fixtures/boundary/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Declaration => "declaration",
            Self::EdgeClass => "edge-class",
            Self::NetEdge => "net-edge",
            Self::UnclassedPath => "unclassed-path",
            Self::NetClosure => "net-closure",
            Self::CBuild => "c-build",
            Self::SignerClosure => "signer-closure",
            Self::ClippyBan => "clippy-ban",
            Self::Tripwire => "tripwire",
            Self::TripwireControl => "tripwire-control",
        }
    }
}

/// One violation: one line of output.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The rule that is broken.
    pub rule: Rule,
    /// The package that breaks it.
    pub from: String,
    /// What it reaches: a package, a file, a setting.
    pub to: String,
    /// How it gets there, and what to do.
    pub advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {} -> {}: {}", self.rule.name(), self.from, self.to, self.advice)
    }
}

/// What an artifact is built as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The one that tests share.
    Dev,
    /// The one that ships, link-time optimisation included.
    Release,
}

/// Checks everything that needs no build: declarations, declared edges, resolved closures, the clippy ban.
///
/// # Errors
/// The check itself could not be made (no workspace there, cargo failed); violations are no error.
pub fn check_static(root: &Path) -> Result<BTreeSet<Violation>, Failure> {
    let workspace = Workspace::read(root)?;
    let (members, mut violations) = class::declared(&workspace);
    violations.extend(edges::check(&workspace, &members));
    violations.extend(ban::check(&workspace, &members)?);
    violations.extend(closure::check(&workspace, &members)?);
    Ok(violations)
}

/// Builds the workspace's libraries and binaries and searches them for the tripwire. `target` overrides the target
/// directory.
///
/// # Errors
/// The build failed, or an artifact could not be read; violations are no error.
pub fn check_artifacts(root: &Path, target: Option<&Path>, profile: Profile) -> Result<BTreeSet<Violation>, Failure> {
    let workspace = Workspace::read(root)?;
    let (members, _) = class::declared(&workspace);
    artifact::check(&workspace, &members, target, profile)
}

/// `cargo xtask boundary [--static] [--release] [--root DIR]`.
///
/// # Errors
/// There is a violation, or the check could not be made.
pub fn command(args: &[String]) -> Result<(), Failure> {
    let options = Options::parse(args)?;
    let mut violations = check_static(&options.root)?;
    // A build takes minutes; what the manifests say already is worth knowing first.
    for violation in &violations {
        println!("{violation}");
    }
    if options.artifacts {
        let found = check_artifacts(&options.root, None, options.profile)?;
        for violation in &found {
            println!("{violation}");
        }
        violations.extend(found);
    }
    if violations.is_empty() {
        println!("boundary: no violation");
        return Ok(());
    }
    Err(Failure::new(format!("{} violation(s) of the trust boundary, listed above", violations.len())))
}

struct Options {
    root: PathBuf,
    artifacts: bool,
    profile: Profile,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, Failure> {
        let mut options = Self { root: workspace::root(), artifacts: true, profile: Profile::Dev };
        let mut rest = args.iter();
        while let Some(flag) = rest.next() {
            match flag.as_str() {
                "--static" => options.artifacts = false,
                "--release" => options.profile = Profile::Release,
                "--root" => {
                    let dir = rest.next().ok_or_else(|| Failure::new("--root needs a directory"))?;
                    options.root = dir.into();
                }
                other => {
                    let text = format!("boundary knows --static, --release and --root DIR, not `{other}`");
                    return Err(Failure::new(text));
                }
            }
        }
        Ok(options)
    }
}

//! Resolved closures: what cargo would really build for a package, third parties included.
//!
//! One walk per member and feature set (default, all, none), over normal and build edges, for every target platform.
//! It reads `cargo tree`, because that resolves features for the chosen root alone, as a build of that package does;
//! the resolution in `cargo metadata` is that of the whole workspace, where one package's features hide another's.

use super::class::{Class, Members, Trust};
use super::{Rule, Violation};
use crate::workspace::{Package, Workspace, cargo};
use crate::{Failure, process};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Network stacks that no `net = false` package may reach.
const NET_CRATES: [&str; 8] = ["tokio", "mio", "socket2", "hyper", "h2", "reqwest", "rustls", "axum"];

/// What compiles or binds C; a `net = false` package builds with the Rust toolchain alone.
const C_BUILD_CRATES: [&str; 3] = ["cc", "cmake", "bindgen"];

/// Crates that name a C builder and provably do not use it: (crate, C builder, the feature that switches C off).
const C_BUILD_EXCEPTIONS: [(&str, &str, &str); 1] = [("blake3", "cc", "pure")];

/// Checks the closure of every member under every feature set.
pub(super) fn check(workspace: &Workspace, members: &Members) -> Result<BTreeSet<Violation>, Failure> {
    let mut violations = BTreeSet::new();
    for package in &workspace.packages {
        let Some(class) = members.get(&package.name) else { continue };
        let sets = if package.has_features { FeatureSet::ALL.as_slice() } else { &[FeatureSet::Default] };
        let mut found = BTreeMap::new();
        for set in sets {
            let closure = Closure::resolve(workspace, package, *set)?;
            for violation in judge(workspace, members, package, *class, &closure) {
                // The same fact under three feature sets is one line.
                found.entry((violation.rule, violation.to.clone())).or_insert_with(|| Violation {
                    advice: format!("with {}, {}", set.name(), violation.advice),
                    ..violation
                });
            }
        }
        violations.extend(found.into_values());
    }
    Ok(violations)
}

fn judge(workspace: &Workspace, members: &Members, root: &Package, class: Class, closure: &Closure) -> Vec<Violation> {
    let signers: BTreeSet<&str> =
        members.iter().filter(|(_, to)| to.trust == Trust::Signer).map(|(name, _)| name.as_str()).collect();
    let mut violations = Vec::new();
    let mut add = |rule, node: &Node, what: &str| {
        let advice = format!("by way of {}: {what}", closure.way_to(node).join(" > "));
        violations.push(Violation { rule, from: root.name.clone(), to: node.name.clone(), advice });
    };
    for node in &closure.nodes {
        let name = node.name.as_str();
        let own = node.path.as_ref().and_then(|path| workspace.member_at(path));
        if node.path.is_some() && own.is_none() {
            add(Rule::UnclassedPath, node, "it is no member of the workspace and has no class; make it one");
        }
        if !class.net && own.is_none() && NET_CRATES.contains(&name) {
            add(Rule::NetClosure, node, "net = false reaches no network stack; drop the dependency or the feature");
        }
        if !class.net && C_BUILD_CRATES.contains(&name) && !closure.excepted(node) {
            add(Rule::CBuild, node, "net = false builds without C; choose a crate or feature in pure Rust");
        }
        // An edge that a member declares to a member is the class table's business; this is every other way in.
        let declared = own.is_some() && node.parent.is_none_or(|at| closure.nodes[at].path.is_some());
        if !class.may_hold_keys() && !declared && signers.contains(name) {
            add(Rule::SignerClosure, node, "a third party brings in a signer's code; only signers may hold keys");
        }
    }
    violations
}

/// The feature sets a root is resolved with.
#[derive(Debug, Clone, Copy)]
enum FeatureSet {
    Default,
    All,
    None,
}

impl FeatureSet {
    const ALL: [Self; 3] = [Self::Default, Self::All, Self::None];

    fn name(self) -> &'static str {
        match self {
            Self::Default => "default features",
            Self::All => "all features",
            Self::None => "no default features",
        }
    }

    fn flag(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::All => Some("--all-features"),
            Self::None => Some("--no-default-features"),
        }
    }
}

/// A closure as the lines of `cargo tree`: each edge once, the subtree of a node at its first appearance.
#[derive(Debug, PartialEq, Eq)]
struct Closure {
    nodes: Vec<Node>,
}

/// One line: an edge from `parent` to this package.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    name: String,
    /// Its directory, when it comes from a path.
    path: Option<PathBuf>,
    /// The features that are on for it.
    features: Vec<String>,
    /// Index of the line it hangs below.
    parent: Option<usize>,
}

impl Closure {
    fn resolve(workspace: &Workspace, package: &Package, set: FeatureSet) -> Result<Self, Failure> {
        let mut command = cargo(&workspace.root);
        command.args(["tree", "--locked", "--edges", "normal,build", "--target", "all"]);
        command.args(["--prefix", "depth", "--format", "|{p}|{f}|", "--package", &package.id]);
        command.args(set.flag());
        let text = process::capture(&mut command, process::NEVER)?.success()?;
        Self::parse(&text)
    }

    /// Reads lines of the form `2|name v1.0.0 (/path)|feature,feature| (*)`.
    fn parse(text: &str) -> Result<Self, Failure> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut above: Vec<usize> = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let node = Node::parse(line, &mut above, nodes.len())
                .ok_or_else(|| Failure::new(format!("cargo tree wrote a line of unknown form: {line}")))?;
            nodes.push(node);
        }
        if nodes.is_empty() {
            return Err(Failure::new("cargo tree wrote nothing, so nothing was checked"));
        }
        Ok(Self { nodes })
    }

    /// Package names from the root to this node.
    fn way_to<'a>(&'a self, node: &'a Node) -> Vec<&'a str> {
        let mut way = vec![node.name.as_str()];
        let mut at = node.parent;
        while let Some(index) = at {
            way.push(&self.nodes[index].name);
            at = self.nodes[index].parent;
        }
        way.reverse();
        way
    }

    /// Whether this C builder hangs below a crate that is known not to use it, with the feature that makes it so.
    fn excepted(&self, node: &Node) -> bool {
        let Some(parent) = node.parent.map(|index| &self.nodes[index]) else { return false };
        C_BUILD_EXCEPTIONS.iter().any(|(name, builder, feature)| {
            parent.name == *name && node.name == *builder && parent.features.iter().any(|on| on == feature)
        })
    }
}

impl Node {
    fn parse(line: &str, above: &mut Vec<usize>, index: usize) -> Option<Self> {
        let mut parts = line.split('|');
        let depth: usize = parts.next()?.parse().ok()?;
        let (package, features) = (parts.next()?, parts.next()?);
        let name = package.split(' ').next()?.to_owned();
        // `(proc-macro)` and `(/path)` may follow the version; a git or registry source is a URL.
        let path =
            package.split(" (").skip(1).map(|note| note.trim_end_matches(')')).find(|note| note.starts_with('/'));
        if depth > above.len() {
            return None;
        }
        above.truncate(depth);
        let parent = above.last().copied();
        above.push(index);
        let features = features.split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect();
        Some(Self { name, path: path.map(PathBuf::from), features, parent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0|root v0.1.0 (/w/root)|default|\n1|blake3 v1.8.7|pure,std|\n2|cc v1.2.0||\n\
                        1|macros v1.0.0 (proc-macro) (/w/macros)||\n2|quiet v1.0.0||\n3|tokio v1.0.0|rt| (*)\n";

    #[test]
    fn a_tree_is_read_with_its_edges() {
        let closure = Closure::parse(TREE).expect("a tree");
        let tokio = closure.nodes.last().expect("six lines");
        assert_eq!(closure.way_to(tokio), ["root", "macros", "quiet", "tokio"]);
        assert_eq!(closure.nodes[3].path, Some(PathBuf::from("/w/macros")));
        assert_eq!(closure.nodes[1].path, None);
        assert_eq!(tokio.features, ["rt"]);
    }

    #[test]
    fn an_exception_needs_its_feature() {
        let pure = Closure::parse(TREE).expect("a tree");
        assert!(pure.excepted(&pure.nodes[2]));
        let compiled = Closure::parse(&TREE.replace("pure,", "")).expect("a tree");
        assert!(!compiled.excepted(&compiled.nodes[2]));
    }

    #[test]
    fn unknown_lines_and_empty_answers_are_refused() {
        assert!(Closure::parse("").is_err());
        assert!(Closure::parse("[build-dependencies]\n").is_err());
        assert!(Closure::parse("1|orphan v1.0.0||\n").is_err());
    }
}

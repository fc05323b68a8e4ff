//! Declared edges: every line of every dependency table of every member, whether or not a build would use it.
//!
//! Optional, renamed, build and target-specific dependencies count like any other. Dev-dependencies obey the same table
//! and may besides name a tool, which nothing else may.

use super::class::{Class, Members, Trust};
use super::{Rule, Violation};
use crate::workspace::{Dependency, DependencyKind, Package, Workspace};

/// Every edge between members that the table, or the network rule, does not allow.
pub(super) fn check(workspace: &Workspace, members: &Members) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in &workspace.packages {
        let Some(class) = members.get(&package.name) else { continue };
        for line in &package.dependencies {
            violations.extend(edge(workspace, members, package, *class, line));
        }
    }
    violations
}

fn edge(
    workspace: &Workspace,
    members: &Members,
    from: &Package,
    class: Class,
    line: &Dependency,
) -> Option<Violation> {
    // A dependency without a path comes from a registry: the closure is where it is judged.
    let path = line.path.as_ref()?;
    let violation =
        |rule: Rule, advice: String| Some(Violation { rule, from: from.name.clone(), to: described(line), advice });
    let Some(member) = workspace.member_at(path) else {
        let advice = format!("{} is no member of the workspace and has no class: make it one", path.display());
        return violation(Rule::UnclassedPath, advice);
    };
    let to = *members.get(&member.name)?;
    if to.trust == Trust::Tool && line.kind == DependencyKind::Dev {
        return None;
    }
    if !class.may_depend_on(to) {
        let advice = format!(
            "{} may depend on {}; {} is {}{}",
            class.trust.name(),
            class.allowed(),
            member.name,
            to.trust.name(),
            if to.binary { " with a binary" } else { "" },
        );
        return violation(Rule::EdgeClass, advice);
    }
    if !class.net && to.net {
        let advice = format!("net = false may not depend on net = true: move what is needed out of {}", member.name);
        return violation(Rule::NetEdge, advice);
    }
    None
}

/// The dependency with what is unusual about the line, so that it is found in the manifest.
fn described(line: &Dependency) -> String {
    let mut notes = Vec::new();
    match line.kind {
        DependencyKind::Normal => {}
        DependencyKind::Build => notes.push("build".to_owned()),
        DependencyKind::Dev => notes.push("dev".to_owned()),
    }
    if line.optional {
        notes.push("optional".to_owned());
    }
    if let Some(target) = &line.target {
        notes.push(format!("for {target}"));
    }
    if let Some(rename) = &line.rename {
        notes.push(format!("as {rename}"));
    }
    if notes.is_empty() { line.name.clone() } else { format!("{} ({})", line.name, notes.join(", ")) }
}

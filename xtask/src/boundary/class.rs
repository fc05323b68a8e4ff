//! Trust classes: what a package declares, and the table of what a class may depend on.

use super::{Rule, Violation};
use crate::workspace::{Package, Workspace};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// `[package.metadata.amc] trust = "…"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The vocabulary.
    Core,
    /// What anybody can use to verify.
    Verifier,
    /// What an agent may load.
    Agent,
    /// Keyless and trusted.
    Host,
    /// Holds private keys.
    Signer,
    /// Tests and tasks.
    Tool,
}

/// What a package declares about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Its trust class.
    pub trust: Trust,
    /// Whether it may reach a network.
    pub net: bool,
    /// Whether it has a binary target. A signer package with one is a signer binary, and nobody depends on it.
    pub binary: bool,
}

/// Package name to class, for every member whose declaration is good.
pub(super) type Members = BTreeMap<String, Class>;

impl Trust {
    /// The class with this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "core" => Self::Core,
            "verifier" => Self::Verifier,
            "agent" => Self::Agent,
            "host" => Self::Host,
            "signer" => Self::Signer,
            "tool" => Self::Tool,
            _ => return None,
        })
    }

    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Verifier => "verifier",
            Self::Agent => "agent",
            Self::Host => "host",
            Self::Signer => "signer",
            Self::Tool => "tool",
        }
    }
}

impl Class {
    /// The class table: whether a package of this class may depend on one of class `to`, tools and networks aside.
    pub fn may_depend_on(self, to: Self) -> bool {
        // A binary is a program, not a library: were it a dependency, its looser rules would leak.
        if to.trust == Trust::Signer && to.binary {
            return false;
        }
        match self.trust {
            Trust::Core => matches!(to.trust, Trust::Core),
            Trust::Verifier => matches!(to.trust, Trust::Core | Trust::Verifier),
            Trust::Agent => matches!(to.trust, Trust::Core | Trust::Verifier | Trust::Agent),
            Trust::Host => matches!(to.trust, Trust::Core | Trust::Verifier | Trust::Host),
            Trust::Signer => {
                matches!(to.trust, Trust::Core | Trust::Verifier | Trust::Signer)
                    || (self.binary && to.trust == Trust::Host)
            }
            Trust::Tool => to.trust != Trust::Tool,
        }
    }

    /// The classes of the table's row, for people.
    pub fn allowed(self) -> &'static str {
        match self.trust {
            Trust::Core => "core",
            Trust::Verifier => "core, verifier",
            Trust::Agent => "core, verifier, agent",
            Trust::Host => "core, verifier, host",
            Trust::Signer if self.binary => "core, verifier, signer libraries, host with net = false",
            Trust::Signer => "core, verifier, signer libraries",
            Trust::Tool => "anything but tools",
        }
    }

    /// Whether private keys may be in it or in what it links. Tools build fixtures and are never shipped.
    pub fn may_hold_keys(self) -> bool {
        matches!(self.trust, Trust::Signer | Trust::Tool)
    }
}

/// The class of every member, and a violation for each that declares none or a wrong one.
pub(super) fn declared(workspace: &Workspace) -> (Members, BTreeSet<Violation>) {
    let mut members = Members::new();
    let mut violations = BTreeSet::new();
    for package in &workspace.packages {
        match read(package) {
            Ok(class) => {
                members.insert(package.name.clone(), class);
            }
            Err((to, advice)) => {
                violations.insert(Violation { rule: Rule::Declaration, from: package.name.clone(), to, advice });
            }
        }
    }
    (members, violations)
}

/// Reads one declaration; the error is what is wrong and what to do.
fn read(package: &Package) -> Result<Class, (String, String)> {
    let Some(table) = package.declared.as_object() else {
        let advice = "add `[package.metadata.amc]` with `trust = \"…\"` and `net = true|false` to its Cargo.toml";
        return Err(("no declaration".into(), advice.into()));
    };
    if let Some(unknown) = table.keys().find(|key| !matches!(key.as_str(), "trust" | "net")) {
        return Err((format!("`{unknown}`"), "only `trust` and `net` are known in [package.metadata.amc]".into()));
    }
    let trust = table.get("trust").and_then(Value::as_str).and_then(Trust::named).ok_or_else(|| {
        let found = table.get("trust").map_or_else(|| "no `trust`".into(), |value| format!("trust = {value}"));
        (found, "write trust = \"core\", \"verifier\", \"agent\", \"host\", \"signer\" or \"tool\"".into())
    })?;
    let net = table.get("net").and_then(Value::as_bool).ok_or_else(|| {
        let found = table.get("net").map_or_else(|| "no `net`".into(), |value| format!("net = {value}"));
        (found, "write net = true or net = false".into())
    })?;
    if net && !matches!(trust, Trust::Host | Trust::Tool) {
        let advice = "only hosts and tools reach a network: move the network part to a keyless host package";
        return Err((format!("trust = \"{}\" with net = true", trust.name()), advice.into()));
    }
    Ok(Class { trust, net, binary: package.has_target("bin") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(trust: Trust) -> Class {
        Class { trust, net: false, binary: false }
    }

    /// The table of the architecture page, row by row: which of core, verifier, agent, host, signer, tool.
    #[test]
    fn the_table_is_the_one_of_the_architecture() {
        let classes = [Trust::Core, Trust::Verifier, Trust::Agent, Trust::Host, Trust::Signer, Trust::Tool];
        let rows = [
            (library(Trust::Core), "y-----"),
            (library(Trust::Verifier), "yy----"),
            (library(Trust::Agent), "yyy---"),
            (library(Trust::Host), "yy-y--"),
            (library(Trust::Signer), "yy--y-"),
            (Class { binary: true, ..library(Trust::Signer) }, "yy-yy-"),
            (library(Trust::Tool), "yyyyy-"),
        ];
        for (from, row) in rows {
            let found: String =
                classes.iter().map(|to| if from.may_depend_on(library(*to)) { 'y' } else { '-' }).collect();
            assert_eq!(found, row, "{from:?}");
        }
    }

    #[test]
    fn nobody_depends_on_a_signer_binary() {
        let monitor = Class { binary: true, ..library(Trust::Signer) };
        assert!(!monitor.may_depend_on(monitor));
        assert!(!library(Trust::Tool).may_depend_on(monitor));
    }
}

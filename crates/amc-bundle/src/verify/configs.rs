//! Signed files in a bundle: configurations, bank and target, held against the logs.

use std::collections::BTreeMap;

use amc_core::kinds::{ConfigLoaded, ConfigSigned, ConfigState, Fields};
use amc_core::{AgentId, Finding, FindingCode};
use amc_crypto::{PublicKey, config};
use amc_evidence::VerifiedEvent;

use crate::member;

/// Where signed files are held against.
pub(super) struct Configs<'a> {
    /// Members that are kept, by name.
    pub(super) files: &'a BTreeMap<String, Vec<u8>>,
    /// The issuer's key.
    pub(super) keys: &'a [PublicKey],
    /// Audit events.
    pub(super) audit: &'a [VerifiedEvent],
    /// Evidence events.
    pub(super) evidence: &'a [VerifiedEvent],
}

impl Configs<'_> {
    /// Every member below `config/` and `target/`.
    pub(super) fn check_all(&self, findings: &mut Vec<Finding>) {
        for (name, bytes) in self.files {
            let below = [member::CONFIG_DIR, member::TARGET_DIR].iter().find_map(|dir| name.strip_prefix(dir));
            let Some(path) = below else { continue };
            match path.strip_suffix(".sig") {
                Some(_) if self.files.contains_key(&name[..name.len() - 4]) => {}
                Some(_) => {
                    let what = "a signature without its file";
                    findings.push(Finding::error(FindingCode::BundleMemberUnexpected, name, what));
                }
                None => self.check(name, path, agent_of(path).as_ref(), bytes, findings),
            }
        }
    }

    /// One file at its workspace-relative path: its signature, and what the logs say of it.
    pub(super) fn check(
        &self,
        name: &str,
        path: &str,
        agent: Option<&AgentId>,
        bytes: &[u8],
        findings: &mut Vec<Finding>,
    ) {
        let mut error = |code, what: String| findings.push(Finding::error(code, name, what));
        let sha256 = amc_crypto::sha256(bytes);
        let newest = self.signed(path).last();
        let Some(signature) = self.files.get(&format!("{name}.sig")) else {
            match newest {
                Some(entry) => {
                    let what = format!("it has no signature here, and the audit log records version {}", entry.version);
                    error(FindingCode::ConfigUnsigned, what);
                }
                None => {
                    let what = "it has no signature and no entry in the audit log";
                    findings.push(Finding::warn(FindingCode::ConfigUnsigned, name, what));
                }
            }
            return;
        };
        let predicate = match config::verify_at(path, agent, bytes, signature, self.keys) {
            Ok(predicate) => predicate,
            Err(refused) => return error(refused.code(), refused.to_string()),
        };
        let recorded = self.signed(path).find(|entry| entry.version == predicate.version);
        match (recorded, newest) {
            (Some(entry), _) if entry.sha256 != sha256 || entry.agent.as_ref() != agent => {
                let what = format!("the audit log records other contents for version {}", predicate.version);
                error(FindingCode::ConfigSignatureInvalid, what);
            }
            (Some(_), Some(newest)) if newest.version > predicate.version => {
                let what = format!("it is version {}, and the audit log records {}", predicate.version, newest.version);
                error(FindingCode::ConfigStale, what);
            }
            (None, _) => {
                let what = format!("version {} has no entry in the audit log's slice", predicate.version);
                error(FindingCode::ConfigStale, what);
            }
            (Some(_), _) => {}
        }
        let contradicted = self.loaded(path).find(|loaded| {
            loaded.state == ConfigState::Signed && loaded.version == Some(predicate.version) && loaded.sha256 != sha256
        });
        if contradicted.is_some() {
            let what = format!("the monitor loaded other contents as version {}", predicate.version);
            error(FindingCode::ConfigSignatureInvalid, what);
        }
    }

    /// Entries for a path, in log order.
    fn signed<'s>(&'s self, path: &'s str) -> impl DoubleEndedIterator<Item = &'s ConfigSigned> {
        self.audit.iter().filter_map(move |record| match &record.fields {
            Some(Fields::ConfigSigned(entry)) if entry.path == path => Some(entry),
            _ => None,
        })
    }

    fn loaded<'s>(&'s self, path: &'s str) -> impl Iterator<Item = &'s ConfigLoaded> {
        self.evidence.iter().filter_map(move |record| match &record.fields {
            Some(Fields::ConfigLoaded(loaded)) if loaded.path == path => Some(loaded),
            _ => None,
        })
    }
}

/// Files below `agents/<id>/` are for that agent.
fn agent_of(path: &str) -> Option<AgentId> {
    let (id, rest) = path.strip_prefix("agents/")?.split_once('/')?;
    if rest.is_empty() { None } else { AgentId::new(id).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_of_a_path() {
        assert_eq!(agent_of("agents/a-1/agent.config.yaml"), AgentId::new("a-1").ok());
        assert_eq!(agent_of("agents/a/targets/t.json"), AgentId::new("a").ok());
        assert_eq!(agent_of("gateway.yaml"), None);
        assert_eq!(agent_of("agents/"), None);
    }
}

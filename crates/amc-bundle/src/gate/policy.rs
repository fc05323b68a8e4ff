//! `gatePolicy.json`: what a release must show. `docs/formats/gate-policy.md` is its specification.
//!
//! A policy counts only when it is signed, by the key that the caller names or by a pinned auditor;
//! the path in its signature is ignored, so one policy can serve many workspaces.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::kinds::Role;
use amc_core::{AgentId, Digest, FindingCode, limits};
use amc_crypto::config::{self, ConfigSignatureError};
use amc_crypto::{Check, PublicKey, TrustPolicy, policy as trust};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::upstream::Origin;

/// Days that a run's window must cover, unless the policy says.
pub const MIN_WINDOW_DAYS: u32 = 14;

/// A gate policy. Keys that are left out ask for nothing, save those whose default is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct GatePolicy {
    /// The only agent whose runs pass.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// Least IntegrityIndex, in basis points.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub min_integrity_bp: Option<u32>,
    /// Least overall value, in basis points of a level.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub min_overall_bp: Option<u32>,
    /// Least value per layer, in basis points of a level, by the layer's id.
    #[serde(deserialize_with = "unique_keys")]
    pub min_layer_bp: BTreeMap<String, u32>,
    /// Whether every level 5 must rest on OBSERVED-class events alone.
    pub require_observed_for_level5: bool,
    /// Whether every label but HIGH TRUST denies.
    pub deny_if_low_trust: bool,
    /// Always true; a policy that says false is refused.
    pub require_status_valid: bool,
    /// Most hours since the run was recorded.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub max_age_hours: Option<u32>,
    /// Most hours since the end of the run's window.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub max_as_of_age_hours: Option<u32>,
    /// Least length of the window in days; 14 unless said.
    pub min_window_days: u32,
    /// Digests of the banks that count; the shipped ones unless said.
    pub allowed_banks: BTreeSet<Digest>,
    /// Origins that the agent's calls may have gone to; all unless said.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    pub allowed_upstreams: Option<BTreeSet<Origin>>,
    /// Least score per assurance pack, in basis points.
    #[serde(deserialize_with = "unique_keys")]
    pub assurance: BTreeMap<String, u32>,
    /// Finding codes that deny.
    pub forbid_findings: BTreeSet<FindingCode>,
    /// Least number of witnesses that cosigned each log's checkpoint.
    pub witness_quorum: u32,
}

impl Default for GatePolicy {
    fn default() -> Self {
        GatePolicy {
            agent_id: None,
            min_integrity_bp: None,
            min_overall_bp: None,
            min_layer_bp: BTreeMap::new(),
            require_observed_for_level5: false,
            deny_if_low_trust: false,
            require_status_valid: true,
            max_age_hours: None,
            max_as_of_age_hours: None,
            min_window_days: MIN_WINDOW_DAYS,
            allowed_banks: BTreeSet::from([amc_crypto::sha256(amc_scoring::SHIPPED_BANK)]),
            allowed_upstreams: None,
            assurance: BTreeMap::new(),
            forbid_findings: BTreeSet::new(),
            witness_quorum: 0,
        }
    }
}

/// A policy file that does not count. Whoever gets this denies.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Larger than a configuration may be.
    #[error("the gate policy has more than {} bytes", limits::CONFIG_BYTES_MAX)]
    TooLong,
    /// No signature beside it.
    #[error("the gate policy is not signed; sign it with `amc config sign PATH` and keep PATH.sig beside it")]
    Unsigned,
    /// The signature does not hold under any trusted key.
    #[error("the gate policy's signature does not count: {0}; name its key with --policy-key, or have it signed")]
    Signature(#[from] ConfigSignatureError),
    /// Signed by a key of the auditor that was revoked since; nobody can tell when it signed.
    #[error(
        "the gate policy is signed by {0}, a key that was revoked; have it signed again under the auditor's new key"
    )]
    Revoked(String),
    /// Another digest than the caller asked for.
    #[error("the gate policy has the digest {found}, and {wanted} was asked for; it may be an older version")]
    Digest {
        /// What was asked for.
        wanted: Digest,
        /// What it is.
        found: Digest,
    },
    /// Not a policy, or a key that policies do not have.
    #[error("the gate policy does not parse: {0}")]
    Json(#[from] serde_json::Error),
    /// The policy asks for what no gate may do.
    #[error("the gate policy {0}")]
    Content(&'static str),
}

impl PolicyError {
    /// The finding code that this error is reported under.
    pub const fn code(&self) -> FindingCode {
        match self {
            PolicyError::Unsigned => FindingCode::ConfigUnsigned,
            PolicyError::Revoked(_) => FindingCode::KeyRevoked,
            PolicyError::Digest { .. } => FindingCode::ConfigVersionRollback,
            PolicyError::TooLong | PolicyError::Signature(_) | PolicyError::Json(_) | PolicyError::Content(_) => {
                FindingCode::ConfigSignatureInvalid
            }
        }
    }
}

impl GatePolicy {
    /// Reads policy text; verifies no signature.
    ///
    /// # Errors
    /// [`PolicyError`] for unknown or repeated keys, wrong types, and `requireStatusValid: false`.
    pub fn parse(bytes: &[u8]) -> Result<GatePolicy, PolicyError> {
        if bytes.len() > limits::CONFIG_BYTES_MAX {
            return Err(PolicyError::TooLong);
        }
        // Only an object: a list of values in the order of the keys would parse as well.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(PolicyError::Content("is not a JSON object"));
        }
        let policy: GatePolicy = serde_json::from_slice(bytes)?;
        if !policy.require_status_valid {
            return Err(PolicyError::Content("says requireStatusValid false; an INVALID run passes no gate"));
        }
        Ok(policy)
    }
}

/// A policy file with what stands beside it, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyFile<'a> {
    /// `gatePolicy.json`.
    pub bytes: &'a [u8],
    /// `gatePolicy.json.sig`, where there is one.
    pub signature: Option<&'a [u8]>,
}

/// Whose policies count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyTrust<'a> {
    /// `--policy-key`, else [`pinned_policy_keys`].
    pub keys: &'a [PublicKey],
    /// `--policy-digest`: the only file that counts.
    pub digest: Option<Digest>,
}

/// A policy with who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPolicy {
    /// What it asks for.
    pub policy: GatePolicy,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// The version that its signature names.
    pub version: u64,
    /// Who signed it.
    pub key: PublicKey,
}

/// The auditors that a trust policy pins.
pub fn pinned_policy_keys(policy: &TrustPolicy) -> Vec<PublicKey> {
    let auditors = policy.logs().iter().filter(|log| trust::role_of_origin(log.name()) == Some(Role::Auditor));
    auditors.map(|log| log.public()).collect()
}

impl Check<PolicyFile<'_>> for PolicyTrust<'_> {
    type Output = SignedPolicy;
    type Error = PolicyError;

    fn check(&self, file: PolicyFile<'_>) -> Result<SignedPolicy, PolicyError> {
        if file.bytes.len() > limits::CONFIG_BYTES_MAX {
            return Err(PolicyError::TooLong);
        }
        let signature = file.signature.ok_or(PolicyError::Unsigned)?;
        let (predicate, key) = config::verify_bytes(file.bytes, signature, self.keys)?;
        let found = amc_crypto::sha256(file.bytes);
        match self.digest {
            Some(wanted) if wanted != found => return Err(PolicyError::Digest { wanted, found }),
            Some(_) | None => {}
        }
        let policy = GatePolicy::parse(file.bytes)?;
        Ok(SignedPolicy { policy, sha256: found, version: predicate.version, key })
    }
}

/// A key that is there has a value: null is an error, not the same as leaving it out.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A map in which a second entry under one key is an error instead of the one that counts.
fn unique_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u32>, D::Error> {
    struct Unique;
    impl<'de> de::Visitor<'de> for Unique {
        type Value = BTreeMap<String, u32>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of numbers")
        }
        fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = entries.next_entry::<String, u32>()? {
                if map.insert(key.clone(), value).is_some() {
                    return Err(de::Error::custom(format!("the key {key:?} stands there twice")));
                }
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_policy_has_the_defaults() {
        let policy = GatePolicy::parse(b"{}").expect("parses");
        assert_eq!(policy, GatePolicy::default());
        assert_eq!(policy.min_window_days, 14);
        assert_eq!(policy.allowed_banks.len(), 1);
    }

    #[test]
    fn every_key_of_the_specification_parses() {
        let all = br#"{"agentId":"a","minIntegrityBp":1,"minOverallBp":2,"minLayerBp":{"skills":3},
            "requireObservedForLevel5":true,"denyIfLowTrust":true,"requireStatusValid":true,"maxAgeHours":4,
            "maxAsOfAgeHours":5,"minWindowDays":0,"allowedBanks":[],"allowedUpstreams":["https://a.example"],
            "assurance":{"injection":6},"forbidFindings":["SESSION_GAP"],"witnessQuorum":2}"#;
        let policy = GatePolicy::parse(all).expect("parses");
        let again = GatePolicy::parse(&serde_json::to_vec(&policy).expect("serialises")).expect("parses");
        assert_eq!(policy, again);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for (name, bad) in [
            ("unknown key", r#"{"minOveralBp":1}"#),
            ("status false", r#"{"requireStatusValid":false}"#),
            ("status null", r#"{"requireStatusValid":null}"#),
            ("null for a number", r#"{"minOverallBp":null}"#),
            ("null for the agent", r#"{"agentId":null}"#),
            ("repeated key", r#"{"minOverallBp":50000,"minOverallBp":0}"#),
            ("repeated layer", r#"{"minLayerBp":{"a":50000,"a":0}}"#),
            ("negative minimum", r#"{"minOverallBp":-1}"#),
            ("fraction", r#"{"minOverallBp":1.5}"#),
            ("text for a number", r#"{"minWindowDays":"14"}"#),
            ("unknown finding code", r#"{"forbidFindings":["SESSION_GAPS"]}"#),
            ("upstream with a path", r#"{"allowedUpstreams":["https://a.example/v1"]}"#),
            ("bank that is no digest", r#"{"allowedBanks":["any"]}"#),
            ("not an object", "[]"),
            ("empty", ""),
        ] {
            assert!(GatePolicy::parse(bad.as_bytes()).is_err(), "{name}");
        }
    }
}

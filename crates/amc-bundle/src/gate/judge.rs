//! One call of the gate from bytes to a judgement: verify the bundle, check the policy's signature, decide.
//!
//! Everything that the outputs (JUnit, SARIF, VSA) say comes from the
//! [`Judgement`]. A policy that nobody trusted signed denies; one that does not parse is a wrong call.

use std::io::{self, Read, Seek, SeekFrom};

use amc_core::{Digest, Finding, FindingCode};
use amc_crypto::hash::BodyHasher;
use amc_crypto::{PublicKey, TrustPolicy, Unverified, Verified};
use serde::Serialize;

use super::decide::{Decision, GateDecision, GateRule, decide};
use super::policy::{PolicyError, PolicyFile, PolicyTrust, SignedPolicy, pinned_policy_keys};
use crate::archive::TOTAL_BYTES_MAX;
use crate::error::VerifyError;
use crate::verify::{BundleVerdict, VerifiedBundle, verify};

/// What the gate is called with.
#[derive(Debug, Clone, Copy)]
pub struct GateCall<'a> {
    /// Whose bundles count, and whose policies unless `policy_key` names another.
    pub trust: &'a TrustPolicy,
    /// The policy with what stands beside it.
    pub policy: PolicyFile<'a>,
    /// `--policy-key`: the one key under which the policy may be signed.
    pub policy_key: Option<PublicKey>,
    /// `--policy-digest`: the one policy that counts.
    pub policy_digest: Option<Digest>,
    /// The gate's clock, nanoseconds since the epoch.
    pub now_ns: i64,
}

/// A decision with all that it rests on. It serialises as the `data` of `amc --json gate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// The decision and its rules.
    #[serde(flatten)]
    pub decision: GateDecision,
    /// What the verification found, and what is wrong with the policy's signature.
    #[serde(skip)]
    pub findings: Vec<Finding>,
    /// What the verification of the bundle came to.
    #[serde(skip)]
    pub verdict: BundleVerdict,
    /// SHA-256 of the bundle's bytes.
    pub bundle_sha256: Digest,
    /// SHA-256 of the policy's bytes.
    pub policy_sha256: Digest,
    /// The policy, where a trusted key signed it.
    #[serde(skip)]
    pub policy: Option<Verified<SignedPolicy>>,
    /// When it was judged, nanoseconds since the epoch.
    #[serde(skip)]
    pub judged_ns: i64,
}

impl Judgement {
    /// Whether everything allows.
    pub fn is_allowed(&self) -> bool {
        self.decision.decision == Decision::Allow
    }
}

/// A call that is wrong: it is no decision, and allows nothing.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Not the bytes of a bundle: not even a manifest could be read.
    #[error("this is no bundle: {}", .0.message)]
    NotABundle(Finding),
    /// Not a policy.
    #[error(transparent)]
    Policy(PolicyError),
    /// The bundle could not be read.
    #[error(transparent)]
    Read(#[from] VerifyError),
}

/// Judges a bundle.
///
/// # Errors
/// [`GateError`] when the call makes no sense; whatever else is wrong denies.
pub fn judge(bundle: impl Read + Seek, call: &GateCall<'_>) -> Result<Judgement, GateError> {
    let pinned = pinned_policy_keys(call.trust);
    let keys = call.policy_key.as_ref().map_or(pinned.as_slice(), std::slice::from_ref);
    let policy = Unverified::new(call.policy).verify(&PolicyTrust { keys, digest: call.policy_digest });
    // A policy that does not parse needs no look at the bundle.
    if let Err(error @ (PolicyError::TooLong | PolicyError::Json(_) | PolicyError::Content(_))) = policy {
        return Err(GateError::Policy(error));
    }
    let mut hashed = Hashed::new(bundle).map_err(|source| VerifyError::Read { offset: 0, source })?;
    let verdict = verify(&mut hashed, call.trust)?;
    // A verdict may come before the end; the digest is of all bytes.
    let rest = hashed.go_on().and_then(|_| io::copy(&mut hashed, &mut io::sink()));
    rest.map_err(|source| VerifyError::Read { offset: hashed.hasher.len(), source })?;
    if let Some(error) = verdict.first_error()
        && error.code == FindingCode::BundleMalformed
        && verdict.issuer.is_none()
    {
        return Err(GateError::NotABundle(error.clone()));
    }
    let policy = match verdict.bundle().filter(|_| verdict.is_good()) {
        Some(bundle) => under_history(policy, keys, bundle, call),
        None => policy,
    };
    let mut findings = verdict.findings.clone();
    let decision = match &policy {
        Ok(policy) => decide(&verdict, policy, call.now_ns),
        Err(error) => {
            findings.push(Finding::error(error.code(), "policy", error.to_string()));
            unsigned(error)
        }
    };
    let (bundle_sha256, _) = hashed.hasher.finish();
    let policy_sha256 = amc_crypto::sha256(call.policy.bytes);
    let (policy, judged_ns) = (policy.ok(), call.now_ns);
    Ok(Judgement { decision, findings, verdict, bundle_sha256, policy_sha256, policy, judged_ns })
}

/// The policy under what a verified bundle teaches of keys: the pinned auditor may have changed its key since,
/// and a key that was revoked counts no more, whoever names it.
fn under_history(
    policy: Result<Verified<SignedPolicy>, PolicyError>,
    keys: &[PublicKey],
    bundle: &VerifiedBundle,
    call: &GateCall<'_>,
) -> Result<Verified<SignedPolicy>, PolicyError> {
    let newest = call.policy_key.is_none().then_some(bundle.key);
    let is_good = |key: &PublicKey| !bundle.revoked.contains(&key.to_digest());
    let keys: Vec<PublicKey> = keys.iter().copied().chain(newest).filter(is_good).collect();
    let again = Unverified::new(call.policy).verify(&PolicyTrust { keys: &keys, digest: call.policy_digest });
    match (policy, again) {
        (Ok(signed), Err(PolicyError::Signature(_))) => Err(PolicyError::Revoked(signed.key.dsse_key_id())),
        (_, again) => again,
    }
}

/// The decision under a policy that does not count.
fn unsigned(error: &PolicyError) -> GateDecision {
    let rule = GateRule {
        rule: "policySigned".to_owned(),
        wanted: "a policy that a trusted key signed".to_owned(),
        found: error.to_string(),
        pass: false,
    };
    GateDecision { decision: Decision::Deny, rules: vec![rule] }
}

/// Hashes what passes, each byte of the file the first time that it is read; what is read again is held against what
/// was seen of it, by who reads it.
struct Hashed<R> {
    inner: R,
    /// Where the file begins, and where the next byte is read.
    begins: u64,
    at: u64,
    hasher: BodyHasher,
}

impl<R: Read + Seek> Hashed<R> {
    fn new(mut inner: R) -> io::Result<Self> {
        let begins = inner.stream_position()?;
        Ok(Hashed { inner, begins, at: begins, hasher: BodyHasher::new() })
    }

    /// To the first byte that was not read yet.
    fn go_on(&mut self) -> io::Result<u64> {
        self.seek(SeekFrom::Start(self.begins + self.hasher.len()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from_here = usize::try_from((self.begins + TOTAL_BYTES_MAX + 1).saturating_sub(self.at));
        let most = from_here.unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        let known = (self.begins + self.hasher.len()).checked_sub(self.at);
        if let Some(known) = known.and_then(|known| usize::try_from(known).ok())
            && known < read
        {
            self.hasher.update(&buffer[known..read]);
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: Seek> Seek for Hashed<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.inner.seek(to)?;
        Ok(self.at)
    }
}

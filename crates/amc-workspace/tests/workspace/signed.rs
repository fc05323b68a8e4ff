//! Signatures beside files: each state, and that each defect is told by its code.

use amc_core::kinds::ConfigState;
use amc_core::{AgentId, FindingCode};
use amc_crypto::config::{self, ConfigPredicate};
use amc_crypto::dsse::{self, Envelope};
use amc_crypto::{PublicKey, Signature};
use amc_workspace::home::{self, Home, HomeError};
use amc_workspace::{GatewayConfig, SignedFile};
use ed25519_dalek::{Signer as _, SigningKey};

const PATH: &str = "gateway.yaml";

struct Auditor(SigningKey);

impl Auditor {
    fn new(seed: u8) -> Self {
        Auditor(SigningKey::from_bytes(&[seed; 32]))
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_bytes(&self.0.verifying_key().to_bytes()).expect("a good key")
    }

    /// The `.sig` of these bytes as this version of that path.
    fn sign(&self, path: &str, version: u64, agent: Option<&AgentId>, bytes: &[u8]) -> Vec<u8> {
        let predicate = ConfigPredicate { path: path.to_owned(), version, agent: agent.cloned() };
        let payload = config::statement(&predicate, amc_crypto::sha256(bytes)).to_json();
        let signature = Signature(self.0.sign(&dsse::pae(dsse::PAYLOAD_TYPE, &payload)).to_bytes());
        Envelope::new(&payload, self.public(), &signature).to_json().into_bytes()
    }
}

fn text() -> Vec<u8> {
    GatewayConfig::initial().render().into_bytes()
}

fn judge(bytes: &[u8], signature: Option<&[u8]>, keys: &[PublicKey]) -> SignedFile {
    SignedFile::judge(PATH, None, bytes.to_vec(), signature, keys)
}

fn code(file: &SignedFile) -> FindingCode {
    file.finding.as_ref().expect("a finding").code
}

#[test]
fn a_signature_of_the_pinned_auditor_holds() {
    let auditor = Auditor::new(1);
    let file = judge(&text(), Some(&auditor.sign(PATH, 3, None, &text())), &[auditor.public()]);
    assert_eq!((file.state, file.version, &file.finding), (ConfigState::Signed, Some(3), &None));
    let loaded = file.loaded();
    assert_eq!((loaded.path.as_str(), loaded.version, loaded.state), (PATH, Some(3), ConfigState::Signed));
    assert_eq!(loaded.sha256, amc_crypto::sha256(&text()));
}

#[test]
fn no_signature() {
    let file = judge(&text(), None, &[Auditor::new(1).public()]);
    assert_eq!((file.state, file.version), (ConfigState::Unsigned, None));
    assert_eq!(code(&file), FindingCode::ConfigUnsigned);
    let finding = file.finding.expect("a finding");
    assert!(!finding.is_error() && finding.message.contains("amc config sign gateway.yaml"), "{finding}");
}

#[test]
fn signature_of_a_stranger() {
    let file = judge(&text(), Some(&Auditor::new(2).sign(PATH, 1, None, &text())), &[Auditor::new(1).public()]);
    assert_eq!((file.state, file.version), (ConfigState::Invalid, None));
    assert_eq!(code(&file), FindingCode::ConfigSignatureInvalid);
    assert!(file.finding.expect("a finding").is_error());
}

#[test]
fn nobody_is_pinned() {
    let file = judge(&text(), Some(&Auditor::new(1).sign(PATH, 1, None, &text())), &[]);
    assert_eq!(file.state, ConfigState::Invalid);
}

#[test]
fn file_changed_after_signing() {
    let auditor = Auditor::new(1);
    let signature = auditor.sign(PATH, 1, None, &text());
    let mut changed = text();
    changed.push(b'\n');
    let file = judge(&changed, Some(&signature), &[auditor.public()]);
    assert_eq!((file.state, code(&file)), (ConfigState::Invalid, FindingCode::ConfigSignatureInvalid));
}

#[test]
fn signature_moved_from_another_file() {
    let auditor = Auditor::new(1);
    let file = judge(&text(), Some(&auditor.sign("amc.yaml", 1, None, &text())), &[auditor.public()]);
    assert_eq!((file.state, code(&file)), (ConfigState::Invalid, FindingCode::ConfigPathMismatch));
}

#[test]
fn signature_for_another_agent() {
    let auditor = Auditor::new(1);
    let (alice, bob) = (AgentId::new("alice").expect("an id"), AgentId::new("bob").expect("an id"));
    let signature = auditor.sign(PATH, 1, Some(&alice), &text());
    let keys = [auditor.public()];
    let judged = |agent| SignedFile::judge(PATH, agent, text(), Some(&signature), &keys);
    assert_eq!(judged(Some(&alice)).state, ConfigState::Signed);
    for agent in [Some(&bob), None] {
        assert_eq!(
            (judged(agent).state, code(&judged(agent))),
            (ConfigState::Invalid, FindingCode::ConfigPathMismatch)
        );
    }
}

#[test]
fn every_flipped_byte_of_a_signature() {
    let auditor = Auditor::new(1);
    let signature = auditor.sign(PATH, 1, None, &text());
    let keys = [auditor.public()];
    for at in 0..signature.len() {
        let mut flipped = signature.clone();
        flipped[at] ^= 1;
        let file = judge(&text(), Some(&flipped), &keys);
        // The key id is a hint, and the final newline is white space: neither is what was signed.
        if file.state == ConfigState::Signed {
            let parsed = Envelope::parse(&flipped).expect("it was taken");
            let hint_differs = parsed.key_id_hint() != auditor.public().dsse_key_id();
            assert!(hint_differs || at + 1 == signature.len(), "byte {at} does not matter");
        }
    }
}

#[test]
fn what_is_judged_is_what_stands_in_the_home() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::create(&dir.path().join(".amc")).expect("a home");
    let auditor = Auditor::new(1);
    let load = || SignedFile::load(&home, PATH, None, &[auditor.public()]);
    assert!(matches!(load(), Err(HomeError::Io { .. })), "a missing file is no state");
    home::write_atomic(&home.file(PATH), &text()).expect("written");
    assert_eq!(load().expect("loaded").state, ConfigState::Unsigned);
    home::write_atomic(&home.file("gateway.yaml.sig"), &auditor.sign(PATH, 1, None, &text())).expect("written");
    assert_eq!(load().expect("loaded").state, ConfigState::Signed);
    home::write_atomic(&home.file("gateway.yaml.sig"), b"").expect("written");
    assert_eq!(load().expect("loaded").state, ConfigState::Invalid, "an empty signature is not none");
    home::write_atomic(&home.file(PATH), &vec![b'#'; (1 << 20) + 1]).expect("written");
    assert!(matches!(load(), Err(HomeError::TooLarge { .. })));
}

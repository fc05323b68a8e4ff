//! Logs that end and go on in a successor, what the two roles say of each other's keys, and what somebody who
//! wants to be rid of a log would do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amc_core::kinds::{
    BoundaryEpoch, ConfigSigned, Fields, KeyPurpose, KeyRevoked, LogHead, LogOpened, LogSucceeded, Role,
};
use amc_core::{Digest, Finding, Tier};
use amc_crypto::TrustPolicy;
use amc_crypto::signer::Cosigner as _;
use amc_evidence::{Draft, Event};
use tempfile::TempDir;

use super::witnessing::WitnessKey;
use super::{TestClock, TestKey, open_session, output, seal, session};
use crate::line::{COSIGNED_FILE, Statements, gather, introduced, line_of};
use crate::pair::{PairOptions, PairVerdict, verify_pair};
use crate::succeed::{self, Begun, SucceedError};
use crate::witness::cosign_log;
use crate::{LogReader, VerifyMode, Writer, create};

/// A workspace with both logs: three sessions of evidence, cosigned by the auditor.
struct World {
    home: TempDir,
    auditor_witness: WitnessKey,
    monitor_witness: WitnessKey,
    policy: TrustPolicy,
    clock: Arc<TestClock>,
}

fn key(seed: u8, role: Role, number: u32) -> Arc<TestKey> {
    let suffix = if number > 1 { format!("/{number}") } else { String::new() };
    TestKey::new(seed, &format!("test/{}{suffix}", role.log_name()))
}

const fn seed(role: Role) -> u8 {
    match role {
        Role::Monitor => 1,
        Role::Auditor => 2,
    }
}

impl World {
    fn new() -> Self {
        let (auditor_witness, monitor_witness) =
            (WitnessKey::new(3, "test/auditor-witness"), WitnessKey::new(4, "test/monitor-witness"));
        let logs = [Role::Monitor, Role::Auditor].map(|role| key(seed(role), role, 1).verifier());
        let witnesses = [(Role::Monitor, monitor_witness.verifier()), (Role::Auditor, auditor_witness.verifier())];
        let policy = TrustPolicy::parse(TrustPolicy::for_roles(&logs, &witnesses).as_bytes()).expect("a good policy");
        let home = tempfile::tempdir().expect("a temporary directory");
        let world = World { home, auditor_witness, monitor_witness, policy, clock: TestClock::new() };
        for role in [Role::Monitor, Role::Auditor] {
            world.create(role, 1, None);
        }
        for number in 1..4 {
            world.write_session(1, number);
        }
        world.cosign(1);
        world
    }

    fn dir(&self, role: Role, number: u32) -> PathBuf {
        self.home.path().join(role.log_dir(number))
    }

    fn witness(&self, role: Role) -> &WitnessKey {
        if role == Role::Monitor { &self.monitor_witness } else { &self.auditor_witness }
    }

    /// Creates a log of its role's key, whatever its predecessor should be.
    fn create(&self, role: Role, number: u32, predecessor: Option<LogHead>) -> Digest {
        let key = key(seed(role), role, number);
        let opened = LogOpened {
            origin: key.origin.clone(),
            role,
            log_public: key.public().to_digest(),
            witness_public: self.witness(role).verifier().public().to_digest(),
            software: "amc test".into(),
            predecessor,
        };
        create(&self.dir(role, number), opened, &key.signers(), &*self.clock).expect("creates");
        introduced(&self.dir(role, number)).expect("reads").expect("is there").hash
    }

    fn writer(&self, role: Role, number: u32) -> Writer {
        let signers = key(seed(role), role, number).signers();
        Writer::open(&self.dir(role, number), signers, Arc::<TestClock>::clone(&self.clock)).expect("opens")
    }

    fn write_session(&self, log: u32, number: u8) {
        let writer = self.writer(Role::Monitor, log);
        let (draft, bytes) = output(session(number), &[number; 300]);
        for (draft, bytes) in [(open_session(session(number)), None), (draft, bytes), (seal(session(number)), None)] {
            writer.append(draft, bytes).expect("appends");
        }
        writer.close().expect("closes");
    }

    /// The newest audit log records something.
    fn say(&self, role: Role, number: u32, fields: impl Into<Fields>) {
        let writer = self.writer(role, number);
        writer.append(Draft::new(Tier::Observed, fields), None).expect("appends");
        writer.close().expect("closes");
    }

    /// The auditor cosigns the evidence log of this number in its first log.
    fn cosign(&self, number: u32) {
        let own = self.writer(Role::Auditor, 1);
        let log = LogReader::open(&self.dir(Role::Monitor, number)).expect("opens");
        let policy = self.statements().policy;
        cosign_log(&own, &self.auditor_witness, &policy, &log, 1_700_000_000).expect("cosigns");
        own.close().expect("closes");
    }

    fn dirs(&self, role: Role) -> Vec<PathBuf> {
        let newest = (1..9).rev().find(|number| self.dir(role, *number).is_dir()).unwrap_or(1);
        line_of(&self.dir(role, newest), role)
    }

    fn statements(&self) -> Statements {
        let dirs = [self.dirs(Role::Monitor), self.dirs(Role::Auditor)].concat();
        gather(&self.policy, &dirs).expect("reads")
    }

    fn head(&self, role: Role, number: u32) -> LogHead {
        let checkpoint = LogReader::open(&self.dir(role, number)).expect("opens").checkpoint().clone();
        LogHead { origin: checkpoint.origin, size: checkpoint.size, root: checkpoint.root }
    }

    /// Cuts a little off the end of a log's newest segment.
    fn damage(&self, role: Role, number: u32) {
        let segments = self.dir(role, number).join("segments");
        let newest = std::fs::read_dir(segments).expect("lists").map(|entry| entry.expect("lists").path()).max();
        let file = std::fs::File::options().write(true).open(newest.expect("has one")).expect("opens");
        let len = file.metadata().expect("has a length").len();
        file.set_len(len - 40).expect("cuts");
    }

    fn begin(&self, role: Role, old: u32) -> Result<Begun, SucceedError> {
        self.begin_with(role, old, seed(role))
    }

    fn begin_with(&self, role: Role, old: u32, seed_of_next: u8) -> Result<Begun, SucceedError> {
        let (old_key, next) = (key(seed(role), role, old).verifier(), key(seed_of_next, role, old + 1));
        succeed::begin(
            (&self.dir(role, old), &old_key),
            &self.dir(role, old + 1),
            &self.statements(),
            (&next.signers(), self.witness(role).verifier().public()),
            Arc::<TestClock>::clone(&self.clock),
        )
    }

    fn record(&self, role: Role, old: u32) -> Result<LogSucceeded, SucceedError> {
        let own = self.writer(role.other(), self.number(role.other()));
        let dirs = (self.dir(role, old), self.dir(role, old + 1));
        succeed::record(&own, (&dirs.0, &dirs.1), &self.statements(), None)
    }

    fn number(&self, role: Role) -> u32 {
        u32::try_from(self.dirs(role).len()).expect("few")
    }

    fn verify(&self) -> PairVerdict {
        self.verify_as(&self.policy)
    }

    fn verify_as(&self, policy: &TrustPolicy) -> PairVerdict {
        let options = PairOptions { policy, mode: VerifyMode::Full, brought: &[], progress: None };
        let newest = |role| self.dirs(role).pop().expect("has one");
        let (evidence, audit) = (newest(Role::Monitor), newest(Role::Auditor));
        verify_pair(Some(&evidence), Some(&audit), &options, &mut |_, _| {}).expect("reads")
    }

    /// An entry of the role's other log about the succession, as somebody would write who does not look.
    fn record_blindly(&self, role: Role, old: LogHead, opening: Digest) {
        let next = key(seed(role), role, 2);
        let succeeded = LogSucceeded {
            old,
            origin: next.origin.clone(),
            log_public: next.public().to_digest(),
            opening,
            code: "LEDGER_TRUNCATED".into(),
            reason: "it was said".into(),
        };
        self.say(role.other(), 1, succeeded);
    }
}

/// The codes of the findings that fail, each once.
fn errors(verdict: &PairVerdict) -> Vec<&'static str> {
    let mut codes: Vec<&'static str> =
        verdict.findings().filter(|finding| finding.is_error()).map(|finding| finding.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

fn messages(verdict: &PairVerdict) -> Vec<String> {
    let text = |finding: &Finding| format!("{} {} {}", finding.code.as_str(), finding.subject, finding.message);
    verdict.findings().map(text).collect()
}

#[test]
fn a_broken_log_ends_and_its_recorded_successor_counts_under_the_old_policy() {
    let world = World::new();
    assert_eq!(errors(&world.verify()), Vec::<&str>::new());
    world.damage(Role::Monitor, 1);
    let before = std::fs::read(world.dir(Role::Monitor, 1).join("checkpoint")).expect("reads");
    assert!(!errors(&world.verify()).is_empty(), "a broken log fails");
    let begun = world.begin(Role::Monitor, 1).expect("begins");
    assert_eq!((begun.origin.as_str(), begun.old.size), ("test/evidence/2", 13));
    let recorded = world.record(Role::Monitor, 1).expect("records");
    assert_eq!((recorded.opening, &recorded.old), (begun.opening, &begun.old));
    let verdict = world.verify();
    assert_eq!(errors(&verdict), Vec::<&str>::new(), "{:#?}", messages(&verdict));
    let evidence = verdict.evidence.expect("was given");
    assert_eq!((evidence.report.head.origin.as_str(), evidence.ended.len()), ("test/evidence/2", 1));
    // What is wrong with the old one is still said, and nothing of it was touched.
    assert!(evidence.report.findings.iter().any(|finding| finding.message.starts_with("in the ended log")));
    assert_eq!(std::fs::read(world.dir(Role::Monitor, 1).join("checkpoint")).expect("reads"), before);

    world.write_session(2, 1);
    world.cosign(2);
    let evidence = world.verify().evidence.expect("was given");
    assert_eq!((evidence.report.sessions, evidence.cosigned_size), (1, evidence.report.head.size));
}

#[test]
fn a_succession_that_broke_off_is_gone_on_with() {
    let world = World::new();
    world.damage(Role::Monitor, 1);
    let begun = world.begin(Role::Monitor, 1).expect("begins");
    assert_eq!(world.begin(Role::Monitor, 1).expect("goes on"), begun);
    let recorded = world.record(Role::Monitor, 1).expect("records");
    assert_eq!(world.record(Role::Monitor, 1).expect("was recorded already"), recorded);
    assert_eq!(world.statements().recorded.len(), 1);
}

#[test]
fn a_whole_log_is_not_succeeded() {
    let world = World::new();
    assert!(matches!(world.begin(Role::Monitor, 1), Err(SucceedError::Healthy { .. })));
    assert!(!world.dir(Role::Monitor, 2).exists(), "nothing was begun");
    // Nor does the other role record one that was begun all the same.
    world.create(Role::Monitor, 2, Some(world.head(Role::Monitor, 1)));
    assert!(matches!(world.record(Role::Monitor, 1), Err(SucceedError::Healthy { .. })));
}

#[test]
fn a_log_under_a_writer_is_not_succeeded() {
    let world = World::new();
    let writer = world.writer(Role::Monitor, 1);
    world.damage(Role::Monitor, 1);
    let refused = world.begin(Role::Monitor, 1);
    assert!(matches!(refused, Err(SucceedError::Open(crate::OpenError::Held { .. }))), "{refused:?}");
    drop(writer);
}

#[test]
fn a_log_that_is_gone_altogether_is_succeeded_from_its_cosigned_state() {
    let world = World::new();
    let cosigned = world.head(Role::Monitor, 1);
    std::fs::rename(world.dir(Role::Monitor, 1), world.home.path().join("elsewhere")).expect("moves");
    let begun = world.begin(Role::Monitor, 1).expect("begins");
    assert_eq!(begun.old, cosigned);
    world.record(Role::Monitor, 1).expect("records");
    let verdict = world.verify();
    assert_eq!(errors(&verdict), Vec::<&str>::new(), "{:#?}", messages(&verdict));
    assert!(messages(&verdict).iter().any(|text| text.contains("is not here")), "that it is gone is said");
}

#[test]
fn the_audit_log_is_succeeded_too_and_goes_on_knowing_what_it_cosigned() {
    let world = World::new();
    let own = world.writer(Role::Monitor, 1);
    let audit = LogReader::open(&world.dir(Role::Auditor, 1)).expect("opens");
    cosign_log(&own, &world.monitor_witness, &world.policy, &audit, 1_700_000_000).expect("cosigns");
    own.close().expect("closes");
    for (path, version) in [("amc.yaml", 1), ("amc.yaml", 2), ("bank.toml", 1)] {
        let sha256 = Digest([7; 32]);
        world.say(Role::Auditor, 1, ConfigSigned { path: path.into(), version, sha256, agent: None });
    }
    let epoch = BoundaryEpoch {
        agent: super::agent(),
        log: "t/evidence".into(),
        from_index: 3,
        reason: "the host was rebuilt".into(),
    };
    world.say(Role::Auditor, 1, epoch.clone());
    // The last entry is what the damage takes.
    world.say(Role::Auditor, 1, ConfigSigned { path: "x".into(), version: 1, sha256: Digest([7; 32]), agent: None });
    world.damage(Role::Auditor, 1);
    world.begin(Role::Auditor, 1).expect("begins");
    world.record(Role::Auditor, 1).expect("records");
    let verdict = world.verify();
    assert_eq!(errors(&verdict), Vec::<&str>::new(), "{:#?}", messages(&verdict));
    // A rollback of the evidence is found by what the successor says again.
    let writer = world.writer(Role::Auditor, 2);
    assert_eq!(writer.with_state(|state| state.cosigned("test/evidence").map(|head| head.size)), Some(13));
    drop(writer);
    let next = LogReader::open(&world.dir(Role::Auditor, 2)).expect("opens");
    let said = next.events(0).map(|stored| Event::decode(&stored.expect("reads").signed.body).expect("decodes").1);
    let said: Vec<Fields> = said.flatten().collect();
    let newest = |path: &str| {
        let versions = said.iter().filter_map(|fields| match fields {
            Fields::ConfigSigned(signed) if signed.path == path => Some(signed.version),
            _ => None,
        });
        versions.collect::<Vec<_>>()
    };
    assert_eq!((newest("amc.yaml"), newest("bank.toml")), (vec![2], vec![1]), "the newest version of each, once");
    assert!(said.contains(&epoch.into()));
}

#[test]
fn a_successor_is_succeeded_in_turn() {
    let world = World::new();
    for old in 1..4 {
        world.damage(Role::Monitor, old);
        world.begin(Role::Monitor, old).expect("begins");
        world.record(Role::Monitor, old).expect("records");
        world.write_session(old + 1, 1);
    }
    let verdict = world.verify();
    assert_eq!(errors(&verdict), Vec::<&str>::new(), "{:#?}", messages(&verdict));
    assert_eq!(verdict.evidence.expect("was given").ended.len(), 3);
}

#[test]
fn both_logs_are_succeeded_one_after_the_other() {
    let world = World::new();
    world.damage(Role::Monitor, 1);
    world.begin(Role::Monitor, 1).expect("begins");
    world.record(Role::Monitor, 1).expect("records");
    world.damage(Role::Auditor, 1);
    world.begin(Role::Auditor, 1).expect("begins");
    world.record(Role::Auditor, 1).expect("records");
    let verdict = world.verify();
    assert_eq!(errors(&verdict), Vec::<&str>::new(), "{:#?}", messages(&verdict));
}

// Attacks: each is named for what is wrong.

#[test]
fn a_successor_that_nobody_recorded() {
    let world = World::new();
    world.damage(Role::Monitor, 1);
    world.begin(Role::Monitor, 1).expect("begins");
    assert!(errors(&world.verify()).contains(&"KEY_HISTORY_UNTRUSTED"));
}

#[test]
fn a_successor_under_a_strangers_key() {
    let world = World::new();
    world.damage(Role::Monitor, 1);
    world.begin_with(Role::Monitor, 1, 9).expect("a stranger begins whatever they like");
    assert!(matches!(world.record(Role::Monitor, 1), Err(SucceedError::Unfit(_))));
    let mut seen = 0;
    let options = PairOptions { policy: &world.policy, mode: VerifyMode::Full, brought: &[], progress: None };
    let (evidence, audit) = (world.dir(Role::Monitor, 2), world.dir(Role::Auditor, 1));
    let count = &mut |role, _| seen += u32::from(role == Role::Monitor);
    let verdict = verify_pair(Some(&evidence), Some(&audit), &options, count).expect("reads");
    assert_eq!(errors(&verdict), ["KEY_HISTORY_UNTRUSTED"]);
    assert_eq!(seen, 0, "no event of it is given out as verified");
}

#[test]
fn a_successor_that_names_another_head() {
    let world = World::new();
    let old = world.head(Role::Monitor, 1);
    world.damage(Role::Monitor, 1);
    let opening = world.create(Role::Monitor, 2, Some(LogHead { root: Digest([7; 32]), ..old.clone() }));
    assert!(matches!(world.record(Role::Monitor, 1), Err(SucceedError::Unfit(_))));
    world.record_blindly(Role::Monitor, old, opening);
    assert_eq!(errors(&world.verify()), ["LEDGER_FORKED"]);
}

#[test]
fn a_successor_of_less_than_was_cosigned() {
    let world = World::new();
    let old = LogHead { size: 3, root: Digest([7; 32]), ..world.head(Role::Monitor, 1) };
    world.damage(Role::Monitor, 1);
    let opening = world.create(Role::Monitor, 2, Some(old.clone()));
    assert!(matches!(world.record(Role::Monitor, 1), Err(SucceedError::Unfit(_))));
    world.record_blindly(Role::Monitor, old, opening);
    assert_eq!(errors(&world.verify()), ["LEDGER_ROLLBACK"]);
}

#[test]
fn a_second_successor_of_the_same_log() {
    let world = World::new();
    world.damage(Role::Monitor, 1);
    let begun = world.begin(Role::Monitor, 1).expect("begins");
    world.record(Role::Monitor, 1).expect("records");
    world.record_blindly(Role::Monitor, begun.old, Digest([7; 32]));
    assert_eq!(errors(&world.verify()), ["LEDGER_FORKED"]);
}

#[test]
fn another_log_in_the_place_of_the_successor() {
    let world = World::new();
    world.damage(Role::Monitor, 1);
    let begun = world.begin(Role::Monitor, 1).expect("begins");
    world.record(Role::Monitor, 1).expect("records");
    world.write_session(2, 1);
    std::fs::remove_dir_all(world.dir(Role::Monitor, 2)).expect("removes");
    world.create(Role::Monitor, 2, Some(begun.old));
    assert_eq!(errors(&world.verify()), ["LEDGER_FORKED"]);
}

#[test]
fn a_whole_log_hidden_behind_a_successor() {
    let world = World::new();
    let old = world.head(Role::Monitor, 1);
    let opening = world.create(Role::Monitor, 2, Some(old.clone()));
    world.record_blindly(Role::Monitor, old, opening);
    assert_eq!(errors(&world.verify()), ["LEDGER_ROLLBACK"]);
}

#[test]
fn a_successor_that_is_gone() {
    let world = World::new();
    world.damage(Role::Monitor, 1);
    world.begin(Role::Monitor, 1).expect("begins");
    world.record(Role::Monitor, 1).expect("records");
    std::fs::remove_dir_all(world.dir(Role::Monitor, 2)).expect("removes");
    assert!(errors(&world.verify()).contains(&"LEDGER_ROLLBACK"));
}

fn revoked(role: Role, purpose: KeyPurpose, public: Digest, from_index: u64) -> KeyRevoked {
    let origin = format!("test/{}", role.log_name());
    KeyRevoked { origin, purpose, public, from_index, reason: "it was stolen".into() }
}

#[test]
fn what_a_revoked_key_signed_does_not_count() {
    let world = World::new();
    let public = key(1, Role::Monitor, 1).public().to_digest();
    world.say(Role::Auditor, 1, revoked(Role::Monitor, KeyPurpose::Log, public, 13));
    assert_eq!(errors(&world.verify()), Vec::<&str>::new(), "nothing stands there yet");
    world.write_session(1, 4);
    assert_eq!(errors(&world.verify()), ["KEY_REVOKED"]);
}

#[test]
fn a_revoked_log_is_succeeded_under_a_key_that_somebody_compared() {
    let world = World::new();
    let public = key(1, Role::Monitor, 1).public().to_digest();
    world.say(Role::Auditor, 1, revoked(Role::Monitor, KeyPurpose::Log, public, 13));
    assert!(matches!(world.begin(Role::Monitor, 1), Err(SucceedError::SameKey)));
    let begun = world.begin_with(Role::Monitor, 1, 9).expect("begins");
    assert!(matches!(world.record(Role::Monitor, 1), Err(SucceedError::Unfit(_))), "nobody compared it");
    let own = world.writer(Role::Auditor, 1);
    let dirs = (world.dir(Role::Monitor, 1), world.dir(Role::Monitor, 2));
    succeed::record(&own, (&dirs.0, &dirs.1), &world.statements(), Some(&begun.key)).expect("records");
    own.close().expect("closes");
    let verdict = world.verify();
    assert_eq!(errors(&verdict), Vec::<&str>::new(), "{:#?}", messages(&verdict));
    assert_eq!(verdict.evidence.expect("was given").report.keys.newest(), begun.key.public());
}

#[test]
fn cosignatures_of_a_revoked_witness_key_count_below_its_revocation_only() {
    let world = World::new();
    let public = world.auditor_witness.verifier().public().to_digest();
    let index = LogReader::open(&world.dir(Role::Auditor, 1)).expect("opens").size();
    world.say(Role::Monitor, 1, revoked(Role::Auditor, KeyPurpose::Witness, public, index));
    let cosigned = |world: &World| world.verify().evidence.expect("was given").cosigned_size;
    assert_eq!(cosigned(&world), 13, "the record below it counts");
    world.cosign(1);
    assert_eq!(cosigned(&world), 13, "the one above it does not");
}

fn with_outside(world: &World, quorum: &str) -> (WitnessKey, TrustPolicy) {
    let outside = WitnessKey::new(8, "other/monitor-witness");
    let logs = [Role::Monitor, Role::Auditor].map(|role| key(seed(role), role, 1).verifier());
    let text = format!(
        "log {}\nlog {}\nwitness auditor-witness {}\nwitness monitor-witness {}\nwitness outside {}\n\
         group roles any auditor-witness monitor-witness\ngroup all-of-us all roles outside\nquorum {quorum}\n",
        logs[0],
        logs[1],
        world.auditor_witness.verifier(),
        world.monitor_witness.verifier(),
        outside.verifier()
    );
    (outside, TrustPolicy::parse(text.as_bytes()).expect("a good policy"))
}

fn keep(dir: &Path, name: &str, note: &amc_crypto::Note) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("has one")).expect("creates");
    std::fs::write(path, note.to_string()).expect("writes");
}

#[test]
fn an_outside_cosignature_counts_for_the_quorum_and_against_a_rollback() {
    let world = World::new();
    let dir = world.dir(Role::Monitor, 1);
    let (outside, policy) = with_outside(&world, "all-of-us");
    let size = |world: &World| world.verify_as(&policy).evidence.expect("was given").cosigned_size;
    assert_eq!(size(&world), 0, "the auditor alone is no quorum");
    let earlier = world.home.path().join("earlier");
    super::copy_dir(&dir, &earlier);
    let cosign = |world: &World| {
        let log = LogReader::open(&world.dir(Role::Monitor, 1)).expect("opens");
        let mut note = log.latest_checkpoint().clone();
        note.push(outside.cosign(log.checkpoint(), 1_700_000_001).expect("cosigns"));
        note
    };
    keep(&dir, COSIGNED_FILE, &cosign(&world));
    assert_eq!(size(&world), 13);
    let verdict = world.verify_as(&policy).evidence.expect("was given");
    assert_eq!(verdict.witnesses.len(), 2);

    world.write_session(1, 4);
    let newer = cosign(&world);
    std::fs::remove_dir_all(&dir).expect("removes");
    super::copy_dir(&earlier, &dir);
    keep(&dir, "witnessed/00000000000000000017", &newer);
    assert_eq!(errors(&world.verify_as(&policy)), ["LEDGER_ROLLBACK"]);
}

//! Trust policies: what counts for a quorum, and every line that a policy must not have.

use amc_core::kinds::Role;
use amc_crypto::checkpoint::CheckpointError;
use amc_crypto::policy::{number_of_origin, role_of_origin};
use amc_crypto::{Note, TrustPolicy, Unverified};

use super::{TestKey, checkpoint};

fn parse(text: &str) -> TrustPolicy {
    TrustPolicy::parse(text.as_bytes()).expect(text)
}

/// A note of the log, cosigned by these witnesses.
fn note(log: &TestKey, witnesses: &[&TestKey]) -> Note {
    let text = checkpoint(log.verifier.name()).text();
    let mut note = Note::new(text.clone(), vec![log.sign_text(&text)]);
    witnesses.iter().for_each(|witness| note.push(witness.cosign_text(&text, 1_700_000_000)));
    note
}

fn accepts(policy: &TrustPolicy, note: Note) -> bool {
    match Unverified::new(note).verify(policy) {
        Ok(_) => true,
        Err(CheckpointError::NoQuorum { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

struct Roles {
    evidence: TestKey,
    audit: TestKey,
    monitor: TestKey,
    auditor: TestKey,
}

fn roles() -> Roles {
    Roles {
        evidence: TestKey::log("acme/evidence", 1),
        audit: TestKey::log("acme/audit", 2),
        monitor: TestKey::witness("acme/monitor-witness", 3),
        auditor: TestKey::witness("acme/auditor-witness", 4),
    }
}

fn policy_of_init(roles: &Roles) -> String {
    TrustPolicy::for_roles(
        &[roles.evidence.verifier.clone(), roles.audit.verifier.clone()],
        &[(Role::Monitor, roles.monitor.verifier.clone()), (Role::Auditor, roles.auditor.verifier.clone())],
    )
}

#[test]
fn a_witness_never_counts_for_its_own_roles_log() {
    let roles = roles();
    let policy = parse(&policy_of_init(&roles));
    assert!(accepts(&policy, note(&roles.evidence, &[&roles.auditor])));
    assert!(accepts(&policy, note(&roles.audit, &[&roles.monitor])));
    assert!(!accepts(&policy, note(&roles.evidence, &[&roles.monitor])));
    assert!(!accepts(&policy, note(&roles.audit, &[&roles.auditor])));
    assert!(!accepts(&policy, note(&roles.evidence, &[])));
}

#[test]
fn renaming_a_roles_witness_does_not_make_it_count() {
    let roles = roles();
    let (log, key) = (&roles.evidence.verifier, &roles.monitor.verifier);
    let by_key_name = parse(&format!("log {log}\nwitness friendly {key}\nquorum friendly\n"));
    assert!(!accepts(&by_key_name, note(&roles.evidence, &[&roles.monitor])));
    let outsider = TestKey::witness("outside.test/w", 9);
    let by_policy_name =
        parse(&format!("log {log}\nwitness monitor-witness {}\nquorum monitor-witness\n", outsider.verifier));
    assert!(!accepts(&by_policy_name, note(&roles.evidence, &[&outsider])));
}

#[test]
fn a_role_of_another_workspace_is_an_outside_witness() {
    let roles = roles();
    let neighbour = TestKey::witness("other/monitor-witness", 9);
    let log = &roles.evidence.verifier;
    let policy = parse(&format!("log {log}\nwitness neighbour {}\nquorum neighbour\n", neighbour.verifier));
    assert!(accepts(&policy, note(&roles.evidence, &[&neighbour])));
}

#[test]
fn a_learned_successor_is_trusted_and_not_pinned() {
    let roles = roles();
    let mut policy = parse(&policy_of_init(&roles));
    let successor = TestKey::log("acme/evidence/2", 7);
    assert!(Unverified::new(note(&successor, &[&roles.auditor])).verify(&policy).is_err());
    policy.learn_successor(successor.verifier.clone());
    assert!(accepts(&policy, note(&successor, &[&roles.auditor])));
    assert!(policy.pins("acme/evidence") && !policy.pins("acme/evidence/2"));
    // A pinned key is never replaced by one that was learned.
    policy.learn_successor(TestKey::log("acme/evidence", 7).verifier);
    assert!(accepts(&policy, note(&roles.evidence, &[&roles.auditor])));
}

#[test]
fn a_checkpoint_is_signed_by_the_key_of_its_last_event() {
    let roles = roles();
    let mut policy = parse(&policy_of_init(&roles));
    let next = TestKey::log("acme/evidence", 7);
    let size = checkpoint("acme/evidence").size;
    let both = |from| [(0, roles.evidence.public()), (from, next.public())];
    policy.learn_log_keys("acme/evidence", &both(size));
    assert!(accepts(&policy, note(&roles.evidence, &[&roles.auditor])), "the next key signs from the next event on");
    assert!(Unverified::new(note(&next, &[&roles.auditor])).verify(&policy).is_err());
    policy.learn_log_keys("acme/evidence", &both(size - 1));
    assert!(accepts(&policy, note(&next, &[&roles.auditor])));
    assert!(Unverified::new(note(&roles.evidence, &[&roles.auditor])).verify(&policy).is_err());
    assert_eq!(policy.log_keys("acme/evidence"), [roles.evidence.public(), next.public()]);
    assert_eq!(policy.keys_of_role("acme", Role::Monitor), [roles.evidence.public(), next.public()]);
    assert_eq!(policy.keys_of_role("other", Role::Monitor), [], "another workspace's keys are never ours");
    // A history that does not begin at the pinned key teaches nothing.
    let mut policy = parse(&policy_of_init(&roles));
    policy.learn_log_keys("acme/evidence", &[(0, next.public()), (1, next.public())]);
    assert_eq!(policy.log_keys("acme/evidence"), [roles.evidence.public()]);
}

#[test]
fn a_next_witness_key_counts_and_a_revoked_one_does_not() {
    let roles = roles();
    let mut policy = parse(&policy_of_init(&roles));
    let next = TestKey::witness("acme/auditor-witness", 9);
    assert!(!accepts(&policy, note(&roles.evidence, &[&next])));
    policy.learn_witness_key("acme", Role::Auditor, next.public());
    assert!(accepts(&policy, note(&roles.evidence, &[&next])));
    assert!(!accepts(&policy, note(&roles.audit, &[&next])), "it is the auditor's still");
    policy.discount_witness(roles.auditor.public());
    assert!(accepts(&policy, note(&roles.evidence, &[&next])));
    assert!(!accepts(&policy, note(&roles.evidence, &[&roles.auditor])));
}

#[test]
fn a_successor_log_is_the_same_roles() {
    let roles = roles();
    let successor = TestKey::log("acme/evidence/2", 7);
    let policy = policy_of_init(&roles).replace("group", &format!("log {}\ngroup", successor.verifier));
    let policy = parse(&policy);
    assert!(!accepts(&policy, note(&successor, &[&roles.monitor])));
    assert!(accepts(&policy, note(&successor, &[&roles.auditor])));
}

#[test]
fn origins_name_their_role() {
    for (origin, role) in [
        ("acme/evidence", Some(Role::Monitor)),
        ("acme/audit", Some(Role::Auditor)),
        ("acme/evidence/2", Some(Role::Monitor)),
        ("acme/audit/17", Some(Role::Auditor)),
        ("acme/evidence/", None),
        ("acme/evidence/x", None),
        ("acme/evidence/2/3", None),
        ("acme/evidences", None),
        ("evidence", None),
        ("outside.test/log", None),
    ] {
        assert_eq!(role_of_origin(origin), role, "{origin}");
    }
    for (origin, number) in [
        ("acme/evidence", Some(1)),
        ("acme/audit/17", Some(17)),
        ("acme/evidence/1", None),
        ("acme/evidence/02", None),
        ("acme/evidence/99999999999999999999", None),
        ("outside.test/log", None),
    ] {
        assert_eq!(number_of_origin(origin), number, "{origin}");
    }
}

#[test]
fn group_thresholds() {
    let log = TestKey::log("outside.test/log", 1);
    let witnesses: Vec<_> = (0..3).map(|n| TestKey::witness(&format!("w{n}.test"), 10 + n)).collect();
    let lines: String = (0..3).map(|n| format!("witness w{n} {}\n", witnesses[n].verifier)).collect();
    for (threshold, needed) in [("any", 1), ("1", 1), ("2", 2), ("3", 3), ("all", 3)] {
        let policy = parse(&format!("log {}\n{lines}group g {threshold} w0 w1 w2\nquorum g\n", log.verifier));
        for present in 0..8usize {
            let cosigners: Vec<_> = (0..3).filter(|n| present >> n & 1 == 1).map(|n| &witnesses[n]).collect();
            let enough = cosigners.len() >= needed;
            assert_eq!(accepts(&policy, note(&log, &cosigners)), enough, "{threshold}, {present:03b}");
        }
    }
}

#[test]
fn groups_of_groups_and_no_quorum() {
    let log = TestKey::log("outside.test/log", 1);
    let [a, b, c] = [("a.test", 10), ("b.test", 11), ("c.test", 12)].map(|(name, seed)| TestKey::witness(name, seed));
    let lines =
        format!("log {}\nwitness a {}\nwitness b {}\nwitness c {}\n", log.verifier, a.verifier, b.verifier, c.verifier);
    let policy = parse(&format!("{lines}group either any a b\ngroup both all either c\nquorum both\n"));
    assert!(accepts(&policy, note(&log, &[&b, &c])));
    assert!(!accepts(&policy, note(&log, &[&a, &b])), "the outer group wants c");
    assert!(!accepts(&policy, note(&log, &[&c])));
    let none = parse(&format!("{lines}quorum none\n"));
    assert!(!none.wants_quorum());
    assert!(accepts(&none, note(&log, &[])));
}

#[test]
fn the_same_witness_twice_in_a_note_counts_once() {
    let log = TestKey::log("outside.test/log", 1);
    let [a, b] = [("a.test", 10), ("b.test", 11)].map(|(name, seed)| TestKey::witness(name, seed));
    let policy = format!(
        "log {}\nwitness a {}\nwitness b {}\ngroup g all a b\nquorum g\n",
        log.verifier, a.verifier, b.verifier
    );
    assert!(!accepts(&parse(&policy), note(&log, &[&a, &a])));
}

#[test]
fn what_is_not_pinned_or_not_signed() {
    let roles = roles();
    let policy = parse(&policy_of_init(&roles));
    let verify = |note: Note| Unverified::new(note).verify(&policy).expect_err("refused");
    let stranger = TestKey::log("other/evidence", 8);
    assert_eq!(verify(note(&stranger, &[&roles.auditor])), CheckpointError::UnknownLog("other/evidence".into()));
    let impostor = TestKey::log("acme/evidence", 8);
    assert!(matches!(verify(note(&impostor, &[&roles.auditor])), CheckpointError::Note(_)));
    // A pinned witness's bad signature spoils the note, even where others would be enough.
    let mut spoilt = note(&roles.evidence, &[&roles.auditor]);
    spoilt.push(roles.monitor.cosign_text("another text\n", 1));
    assert!(matches!(verify(spoilt), CheckpointError::Note(_)));
}

#[test]
fn malformed_policies() {
    let roles = roles();
    let (log, witness) = (&roles.evidence.verifier, &roles.monitor.verifier);
    let head = format!("log {log}\nwitness w {witness}\n");
    for (name, text, line) in [
        ("empty", String::new(), 1),
        ("no quorum", head.clone(), 2),
        ("no final newline", format!("{head}quorum w"), 3),
        ("second quorum", format!("{head}quorum w\nquorum none\n"), 4),
        ("quorum of an undefined name", format!("{head}quorum v\n"), 3),
        ("quorum of a later name", format!("log {log}\nquorum w\nwitness w {witness}\n"), 2),
        ("unknown line", format!("{head}trust w\nquorum w\n"), 3),
        ("too many items", format!("{head}quorum w w\n"), 3),
        ("carriage return", format!("{head}quorum w\r\n"), 3),
        ("same log twice", format!("{head}log {log}\nquorum w\n"), 3),
        ("same log key under another name", format!("{head}log {}\nquorum w\n", TestKey::log("x", 1).verifier), 3),
        ("same witness key twice", format!("{head}witness v {witness}\nquorum w\n"), 3),
        ("same witness name twice", format!("{head}witness w {}\nquorum w\n", roles.auditor.verifier), 3),
        ("a witness called none", format!("log {log}\nwitness none {witness}\nquorum none\n"), 2),
        ("a log key as a witness", format!("{head}witness v {}\nquorum w\n", roles.audit.verifier), 3),
        ("a witness key as a log", format!("log {witness}\nquorum none\n"), 1),
        ("a broken key", format!("log {log}x\nquorum none\n"), 1),
        ("group of an undefined name", format!("{head}group g any w v\nquorum g\n"), 3),
        ("group of itself", format!("{head}group g any g\nquorum g\n"), 3),
        ("group that needs none", format!("{head}group g 0 w\nquorum g\n"), 3),
        ("group that needs more than it has", format!("{head}group g 2 w\nquorum g\n"), 3),
        ("group that needs a huge number", format!("{head}group g 99999999999999999999999 w\nquorum g\n"), 3),
        ("group of nobody", format!("{head}group g all\nquorum g\n"), 3),
        ("group with an unknown threshold", format!("{head}group g most w\nquorum g\n"), 3),
        ("group named like a witness", format!("{head}group w any w\nquorum w\n"), 3),
        ("member twice", format!("{head}group g 2 w w\nquorum g\n"), 3),
        ("member of two groups", format!("{head}group g any w\ngroup h any w\nquorum g\n"), 4),
    ] {
        let error = TrustPolicy::parse(text.as_bytes()).expect_err(name);
        assert_eq!(error.line, line, "{name}: {error}");
    }
    assert!(TrustPolicy::parse(b"\xff\n").is_err(), "not UTF-8");
    assert!(TrustPolicy::parse(&vec![b'#'; 64 * 1024 + 1]).is_err(), "too large");
}

#[test]
fn comments_blanks_and_urls_are_fine() {
    let roles = roles();
    let text = format!(
        "# pinned\n\nlog\t{} https://log.test/\n  witness w {} https://witness.test/\n # end\nquorum w\n",
        roles.evidence.verifier, roles.auditor.verifier
    );
    let policy = parse(&text);
    assert_eq!(policy.log("acme/evidence"), Some(&roles.evidence.verifier));
    assert_eq!(policy.witnesses()[0].url.as_deref(), Some("https://witness.test/"));
}

#[test]
fn more_than_sixty_four_entries() {
    let lines: String = (0..65).map(|n| format!("log {}\n", TestKey::log(&format!("l{n}"), n).verifier)).collect();
    let error = TrustPolicy::parse(format!("{lines}quorum none\n").as_bytes()).expect_err("refused");
    assert_eq!(error.line, 65);
}

//! Bundles of strangers, and of somebody who holds the auditor's key and lies.

use amc_bundle::manifest::Payloads;
use amc_bundle::member;
use amc_core::kinds::{AgentHead, Fields, KeyPurpose, KeyRevoked, Role};
use amc_core::{Digest, FindingCode as Code};
use amc_crypto::TrustPolicy;
use amc_evidence::{Draft, VerifiedEvent};
use amc_scoring::{Label, Status};

use crate::defects::resealed;
use crate::world::{self, Aims, Keys, Log, Parts, Plan, World, errors, other_agent, refused, verify};

#[test]
fn a_stranger_is_not_trusted_and_the_fingerprint_is_shown() {
    let world = World::new();
    let stranger = Keys::new("ws-1", 60);
    let verdict = refused("stranger", &world.export(), &stranger.policy(), Code::IssuerUntrusted);
    let issuer = verdict.issuer.clone().expect("named");
    assert_eq!((issuer.origin, issuer.fingerprint.clone()), (None, world.keys.auditor.public().dsse_key_id()));
    let message = &verdict.first_error().expect("refused").message;
    assert!(message.contains(&issuer.fingerprint) && message.contains("--trust FILE"), "{message}");
    assert!(verdict.data().run_id.is_none(), "nothing of it is repeated as if it were true");
}

#[test]
fn the_policy_inside_is_never_an_anchor() {
    let world = World::new();
    let own = Parts::of(&world.export()).members[member::TRUST_POLICY].clone();
    assert!(TrustPolicy::parse(&own).is_ok());
    let nobody = TrustPolicy::parse(b"quorum none\n").expect("a policy that pins nobody");
    refused("nobody pinned", &world.export(), &nobody, Code::IssuerUntrusted);
}

#[test]
fn only_one_of_the_two_logs_pinned_is_not_enough() {
    let world = World::new();
    let audit_only = format!("log {}\nquorum none\n", world.keys.log_vkey(Role::Auditor));
    let policy = TrustPolicy::parse(audit_only.as_bytes()).expect("parses");
    refused("no evidence log", &world.export(), &policy, Code::CheckpointInvalid);
    let evidence_only = format!("log {}\nquorum none\n", world.keys.log_vkey(Role::Monitor));
    let policy = TrustPolicy::parse(evidence_only.as_bytes()).expect("parses");
    refused("no audit log", &world.export(), &policy, Code::IssuerUntrusted);
}

#[test]
fn a_manifest_signed_by_the_monitor_is_not_an_issuers() {
    let world = World::new();
    let bundle = Parts::of(&world.export()).pack(&world.keys.monitor);
    refused("monitor", &bundle, &world.keys.policy(), Code::IssuerUntrusted);
}

#[test]
fn an_uncosigned_checkpoint_is_refused() {
    let world = World::new();
    for (name, role, log) in [
        (member::EVIDENCE_CHECKPOINT, Role::Monitor, &world.evidence),
        (member::AUDIT_CHECKPOINT, Role::Auditor, &world.audit),
    ] {
        let mut parts = Parts::of(&world.export());
        let note = world.keys.note(role, log);
        parts.members.insert(name.into(), note.to_string().into_bytes());
        refused(name, &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::CheckpointInvalid);
    }
}

#[test]
fn a_role_is_no_witness_of_its_own_log() {
    let world = World::new();
    for (name, role, log) in [
        (member::EVIDENCE_CHECKPOINT, Role::Monitor, &world.evidence),
        (member::AUDIT_CHECKPOINT, Role::Auditor, &world.audit),
    ] {
        let mut parts = Parts::of(&world.export());
        let mut note = world.keys.note(role, log);
        world.keys.cosign(role, &mut note, 1_772_000_000);
        parts.members.insert(name.into(), note.to_string().into_bytes());
        refused(name, &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::CheckpointInvalid);
    }
}

#[test]
fn a_checkpoint_of_the_other_log_is_refused() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    let audit = parts.members[member::AUDIT_CHECKPOINT].clone();
    parts.members.insert(member::EVIDENCE_CHECKPOINT.into(), audit);
    refused("swapped", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::CheckpointInvalid);
}

#[test]
fn a_checkpoint_of_a_forked_log_is_refused() {
    let world = World::new();
    // Signed and cosigned as it should be, over another history of the same length.
    let mut fork = Log::open(&world.keys, Role::Monitor, world::T0 + world::S);
    while fork.state.size() < world.evidence.state.size() {
        let started = amc_core::kinds::MonitorStarted { software: "other".into() };
        fork.append(Draft::new(amc_core::Tier::Observed, started));
    }
    let mut note = world.keys.note(Role::Monitor, &fork);
    world.keys.cosign(Role::Auditor, &mut note, 1_772_500_000);
    let mut parts = Parts::of(&world.export());
    parts.members.insert(member::EVIDENCE_CHECKPOINT.into(), note.to_string().into_bytes());
    let verdict = refused("fork", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::CheckpointInvalid);
    assert!(errors(&verdict).contains(&(Code::CheckpointInvalid, member::EVIDENCE_PROOF)));
}

#[test]
fn a_proof_of_another_tree_is_refused() {
    let world = World::new();
    for name in [member::EVIDENCE_PROOF, member::AUDIT_PROOF] {
        for (what, change) in [
            ("another hash", (|proof| proof[0] ^= 1) as fn(&mut Vec<u8>)),
            ("one hash more", |proof| proof.extend_from_slice(&[0; 32])),
            ("one hash less", |proof| proof.truncate(proof.len() - 32)),
            ("half a hash", |proof| proof.truncate(proof.len() - 16)),
            ("none", Vec::clear),
        ] {
            let mut parts = Parts::of(&world.export());
            assert!(!parts.members[name].is_empty(), "{name} leaves events out");
            parts.edit(name, change);
            let bundle = parts.pack(&world.keys.auditor);
            refused(&format!("{name}: {what}"), &bundle, &world.keys.policy(), Code::CheckpointInvalid);
        }
    }
}

/// The events that a bundle of this world carries.
fn carried<'w>(world: &'w World, parts: &Parts) -> Vec<&'w VerifiedEvent> {
    let indices = parts.indices(member::EVIDENCE_EVENTS);
    world.evidence.events.iter().filter(|record| indices.contains(&record.event.index)).collect()
}

#[test]
fn an_event_of_another_agent_is_refused() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    let mut events = carried(&world, &parts);
    let foreign = world.evidence.events.iter().find(|record| record.event.agent == Some(other_agent()));
    events.push(foreign.expect("the other agent worked too"));
    events.sort_by_key(|record| record.event.index);
    parts.put_evidence(&world.evidence.tree, &events);
    let verdict =
        refused("foreign", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::BundleMemberMismatch);
    let subject = format!("ws-1/evidence#{}", foreign.expect("there").event.index);
    assert!(errors(&verdict).contains(&(Code::BundleMemberMismatch, subject.as_str())));
}

#[test]
fn a_session_left_out_is_refused() {
    let world = World::planned(Plan { sessions: 4, window_days: 4 });
    for leave_out in [2, 3, 4] {
        let mut parts = Parts::of(&world.export());
        let session = world.report.sessions.iter().find(|session| session.number == leave_out).expect("there").id;
        let mut events = carried(&world, &parts);
        events.retain(|record| record.event.session != Some(session));
        parts.put_evidence(&world.evidence.tree, &events);
        let name = format!("session {leave_out}");
        let verdict = refused(&name, &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::SessionGap);
        assert!(errors(&verdict).iter().any(|(code, _)| *code == Code::ScoreMismatch), "the score tells as well");
    }
}

#[test]
fn an_event_left_out_of_a_session_is_refused() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    let mut events = carried(&world, &parts);
    let at = events.iter().position(|record| matches!(record.fields, Some(Fields::LlmResponse(_)))).expect("a call");
    events.remove(at);
    parts.put_evidence(&world.evidence.tree, &events);
    refused("gap", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::SessionGap);
}

#[test]
fn heads_left_out_are_missed() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    let mut events = carried(&world, &parts);
    events.retain(|record| !matches!(record.fields, Some(Fields::AgentHead(_))));
    parts.put_evidence(&world.evidence.tree, &events);
    refused("no head", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::SessionGap);
}

#[test]
fn key_events_left_out_are_missed() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    let mut events = carried(&world, &parts);
    events.remove(0);
    parts.put_evidence(&world.evidence.tree, &events);
    refused("no opening", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::KeyHistoryUntrusted);
}

#[test]
fn an_event_signed_by_a_stranger_is_refused() {
    let world = World::new();
    let stranger = Keys::new("ws-1", 60);
    let mut parts = Parts::of(&world.export());
    let mut bytes = Vec::new();
    for record in carried(&world, &parts) {
        let signed = crate::logs::sign_event(&stranger.monitor.0, "ws-1/evidence", &record.event);
        amc_bundle::records::write_event(&mut bytes, &signed);
    }
    parts.members.insert(member::EVIDENCE_EVENTS.into(), bytes);
    refused("stranger's events", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::EventSignatureInvalid);
}

#[test]
fn events_out_of_order_or_twice_are_refused() {
    let world = World::new();
    let good = Parts::of(&world.export());
    let events = carried(&world, &good);
    for (name, order) in [("swapped", vec![1, 0]), ("twice", vec![0, 0])] {
        let mut parts = good.clone();
        let mut bytes = Vec::new();
        let picked = order.iter().map(|at| events[*at]).chain(events[2..].iter().copied());
        picked.for_each(|record| amc_bundle::records::write_event(&mut bytes, &record.signed));
        parts.members.insert(member::EVIDENCE_EVENTS.into(), bytes);
        refused(name, &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::EventOutOfOrder);
    }
}

#[test]
fn records_that_are_no_events_are_refused() {
    let world = World::new();
    for (name, change) in [
        ("trailing byte", (|bytes| bytes.push(0)) as fn(&mut Vec<u8>)),
        ("cut", |bytes| bytes.truncate(bytes.len() - 1)),
        ("huge length", |bytes| bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes())),
        ("no records", Vec::clear),
    ] {
        let mut parts = Parts::of(&world.export());
        parts.edit(member::AUDIT_EVENTS, change);
        let verdict = verify(&parts.pack(&world.keys.auditor), &world.keys.policy());
        assert!(!verdict.is_good(), "{name}");
    }
}

#[test]
fn an_invalid_run_relabelled_valid_does_not_recompute() {
    let world = World::new();
    assert_eq!(world.report.status, Status::Invalid, "nobody probed the boundary");
    let same = resealed(&world, |_| {});
    assert_eq!(errors(&verify(&same, &world.keys.policy())), [], "the auditor's own tools make a good bundle");
    let bundle = resealed(&world, |report| {
        report.status = Status::Valid;
        report.label = Label::High;
        report.integrity_bp = 10_000;
    });
    let verdict = refused("relabelled", &bundle, &world.keys.policy(), Code::ScoreMismatch);
    let message = &verdict.first_error().expect("refused").message;
    assert!(message.contains("status") && message.contains("VALID"), "names the field: {message}");
    assert_eq!(errors(&verdict).len(), 1, "everything else fits: {:?}", verdict.findings);
}

#[test]
fn a_report_of_another_scorer_is_told_apart() {
    let world = World::new();
    let bundle = resealed(&world, |report| report.scorer = "amc-scorer/999".into());
    refused("scorer", &bundle, &world.keys.policy(), Code::ScorerUnsupported);
}

#[test]
fn an_edited_report_is_refused() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    let mut report = world.report.clone();
    report.overall_bp += 10_000;
    parts.members.insert(member::REPORT_JSON.into(), report.to_bytes());
    let verdict = refused("edited", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::ScoreMismatch);
    let found = errors(&verdict);
    for code in [Code::RunSealInvalid, Code::RunMissing] {
        assert!(found.iter().any(|(found, _)| *found == code), "{code}: {found:?}");
    }
}

#[test]
fn a_reformatted_report_is_refused() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    parts.edit(member::REPORT_JSON, |bytes| bytes.insert(1, b' '));
    refused("spacing", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::ScoreMismatch);
}

#[test]
fn edited_pages_are_refused() {
    let world = World::new();
    for name in [member::REPORT_HTML, member::REPORT_MD] {
        let mut parts = Parts::of(&world.export());
        parts.edit(name, |bytes| bytes.extend_from_slice(b"<p>level 5</p>"));
        let verdict = refused(name, &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::ScoreMismatch);
        assert_eq!(errors(&verdict), [(Code::ScoreMismatch, name)]);
    }
}

#[test]
fn a_seal_of_another_run_or_signer_is_refused() {
    let world = World::new();
    let other = World::planned(Plan { sessions: 2, window_days: 2 });
    let stranger = Keys::new("ws-1", 60);
    let statement = amc_bundle::seal_statement(&world.report);
    for (name, seal) in [
        ("another run", other.seal.to_json()),
        ("stranger", stranger.auditor.envelope(&statement).to_json()),
        ("monitor", world.keys.monitor.envelope(&statement).to_json()),
        ("no envelope", "{}".to_owned()),
    ] {
        let mut parts = Parts::of(&world.export());
        parts.members.insert(member::SEAL.into(), seal.into_bytes());
        refused(name, &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::RunSealInvalid);
    }
}

#[test]
fn a_run_that_the_audit_log_does_not_record_is_refused() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    let indices = parts.indices(member::AUDIT_EVENTS);
    let mut events: Vec<&VerifiedEvent> =
        world.audit.events.iter().filter(|record| indices.contains(&record.event.index)).collect();
    events.pop();
    parts.put_audit(&world.audit.tree, &events);
    refused("no entry", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::RunMissing);
}

#[test]
fn a_config_signature_moved_to_another_file_is_refused() {
    let world = World::new();
    let gateway = format!("{}gateway.yaml.sig", member::CONFIG_DIR);
    let agents = format!("{}{}.sig", member::CONFIG_DIR, world::AGENT_CONFIG_PATH);
    let good = Parts::of(&world.export());

    let mut moved = good.clone();
    moved.members.insert(agents.clone(), good.members[&gateway].clone());
    refused("moved", &moved.pack(&world.keys.auditor), &world.keys.policy(), Code::ConfigSignatureInvalid);

    // File and signature together at another place: the bytes fit, the place does not.
    let mut carried = good.clone();
    carried.members.insert(agents.trim_end_matches(".sig").into(), world::GATEWAY.to_vec());
    carried.members.insert(agents, good.members[&gateway].clone());
    refused("carried", &carried.pack(&world.keys.auditor), &world.keys.policy(), Code::ConfigPathMismatch);
}

#[test]
fn a_config_that_is_not_the_recorded_one_is_refused() {
    let world = World::new();
    let file = format!("{}gateway.yaml", member::CONFIG_DIR);
    let sig = format!("{file}.sig");
    let good = Parts::of(&world.export());
    let with = |bytes: &[u8], version: u64| {
        let mut parts = good.clone();
        parts.members.insert(file.clone(), bytes.to_vec());
        let signature = world.keys.auditor.config_sig("gateway.yaml", version, None, bytes);
        parts.members.insert(sig.clone(), signature);
        parts.pack(&world.keys.auditor)
    };
    let policy = world.keys.policy();
    refused("other contents of version 1", &with(b"listen: 0.0.0.0:1\n", 1), &policy, Code::ConfigSignatureInvalid);
    refused("a version nobody recorded", &with(world::GATEWAY, 2), &policy, Code::ConfigStale);

    let mut unsigned = good.clone();
    unsigned.members.remove(&sig);
    refused("signature left out", &unsigned.pack(&world.keys.auditor), &policy, Code::ConfigUnsigned);
    let mut alone = good.clone();
    alone.members.remove(&file);
    refused("file left out", &alone.pack(&world.keys.auditor), &policy, Code::BundleMemberUnexpected);
}

#[test]
fn another_bank_is_refused() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    parts.edit(member::BANK, |bytes| bytes.extend_from_slice(b"\n# easier\n"));
    refused("bank", &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::ScoreMismatch);
}

#[test]
fn changed_payloads_are_refused() {
    let world = World::new();
    let good = Parts::of(&world.export());
    let mut source = |sha256: &Digest| Ok(world.evidence.payloads.get(sha256).cloned());
    let wanted: amc_bundle::payloads::Wanted =
        world.evidence.payloads.iter().take(2).map(|(sha256, bytes)| (*sha256, bytes.len() as u64)).collect();
    let mut bytes = Vec::new();
    let written = amc_bundle::payloads::write(&wanted, &mut source, &mut bytes).expect("writes");

    let mut fewer = good.clone();
    fewer.members.insert(member::EVIDENCE_PAYLOADS.into(), bytes);
    refused("fewer", &fewer.pack(&world.keys.auditor), &world.keys.policy(), Code::PayloadHashMismatch);
    for entry in &mut fewer.predicate.members {
        entry.unpacked = entry.unpacked.map(|_| written.unpacked);
    }
    refused("fewer, and said", &fewer.pack(&world.keys.auditor), &world.keys.policy(), Code::PayloadMissing);

    let mut noise = good.clone();
    noise.members.insert(member::EVIDENCE_PAYLOADS.into(), b"not a frame".to_vec());
    refused("no frame", &noise.pack(&world.keys.auditor), &world.keys.policy(), Code::BundleMalformed);

    let mut stray = good.clone();
    stray.predicate.payloads_absent.push(Digest([9; 32]));
    refused("absent but not named", &stray.pack(&world.keys.auditor), &world.keys.policy(), Code::PayloadHashMismatch);
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let world = World::new();
    let good = Parts::of(&world.export());
    type Change = fn(&mut Parts);
    let cases: [(&str, Change, Code); 5] = [
        ("another agent", |parts| parts.predicate.agent = other_agent(), Code::BundleMemberMismatch),
        ("withheld and there", |parts| parts.predicate.payloads = Payloads::Withheld, Code::BundleMalformed),
        ("another version", |parts| parts.predicate.version = 2, Code::BundleMalformed),
        ("another issuer", |parts| parts.predicate.issuer = "other/audit".into(), Code::IssuerUntrusted),
        (
            "another workspace",
            |parts| parts.predicate.workspace = amc_core::WorkspaceName::new("ws-2").expect("a name"),
            Code::IssuerUntrusted,
        ),
    ];
    for (name, change, code) in cases {
        let mut parts = good.clone();
        change(&mut parts);
        refused(name, &parts.pack(&world.keys.auditor), &world.keys.policy(), code);
    }
    for name in member::REQUIRED.iter().filter(|name| **name != member::MANIFEST) {
        let mut parts = good.clone();
        parts.members.remove(*name);
        refused(name, &parts.pack(&world.keys.auditor), &world.keys.policy(), Code::BundleMalformed);
    }
}

#[test]
fn events_after_their_keys_revocation_are_refused() {
    let (keys, evidence, mut audit) = World::logs(Plan::default());
    let revoked = KeyRevoked {
        origin: keys.origin(Role::Monitor),
        purpose: KeyPurpose::Log,
        public: keys.monitor.public().to_digest(),
        from_index: evidence.state.size() - 12,
        reason: "the host was lost".into(),
    };
    audit.append(Draft::new(amc_core::Tier::Observed, revoked));
    let world = World::run(keys, evidence, audit, 2, Aims::default());
    refused("revoked", &world.export(), &world.keys.policy(), Code::KeyRevoked);
}

#[test]
fn an_issuer_cannot_put_a_policy_of_its_own_in_force() {
    let world = World::new();
    let mut parts = Parts::of(&world.export());
    let stranger = Keys::new("ws-1", 60);
    parts.members.insert(member::TRUST_POLICY.into(), stranger.policy_text().into_bytes());
    let bundle = parts.pack(&stranger.auditor);
    refused("stranger's policy inside", &bundle, &world.keys.policy(), Code::IssuerUntrusted);
    let bundle = parts.pack(&world.keys.auditor);
    assert!(verify(&bundle, &world.keys.policy()).is_good(), "it is not looked at");
}

#[test]
fn a_strangers_bundle_throughout_is_consistent_and_refused() {
    let world = World::new();
    let (keys, evidence, audit) = World::logs_of(Keys::new("ws-1", 60), Plan::default());
    let stranger = World::run(keys, evidence, audit, 2, Aims::default());
    let bundle = stranger.export();
    assert!(verify(&bundle, &stranger.keys.policy()).is_good(), "under the stranger's own keys");
    refused("stranger", &bundle, &world.keys.policy(), Code::IssuerUntrusted);
    // A policy that pins both still tells the logs apart: same names cannot be pinned twice.
    let both = format!("{}{}", world.keys.policy_text().replace("quorum roles\n", ""), stranger.keys.policy_text());
    assert!(TrustPolicy::parse(both.as_bytes()).is_err());
}

#[test]
fn a_head_that_the_sessions_do_not_agree_with_is_refused() {
    type Change = fn(&mut AgentHead);
    let cases: [(&str, Change); 3] = [
        ("one session more", |head| head.last_number += 1),
        ("another opening", |head| head.last_open_hash = Digest([4; 32])),
        ("a sealed session as open", |head| head.open_sessions.push(head_session())),
    ];
    for (name, change) in cases {
        let (keys, mut evidence, audit) = World::logs(Plan::default());
        let newest = evidence.events.iter().rev().find_map(|record| match &record.fields {
            Some(Fields::AgentHead(head)) if record.event.agent == Some(world::agent()) => Some(head.clone()),
            _ => None,
        });
        let mut head = newest.expect("appended after every seal");
        change(&mut head);
        let draft = Draft { agent: Some(world::agent()), ..Draft::new(amc_core::Tier::Observed, head) };
        let (_, findings) = evidence.append_anything(draft);
        assert!(!findings.is_empty(), "{name}: the whole log tells as well");
        let world = World::run(keys, evidence, audit, 2, Aims::default());
        refused(name, &world.export(), &world.keys.policy(), Code::SessionGap);
    }
}

/// The id of the agent's last session in every world of three days.
fn head_session() -> amc_core::SessionId {
    World::new().report.sessions.last().expect("three").id
}

//! One bundle per defect, by name.

use std::path::Path;

use amc_bundle::archive::{ArchiveReader, BLOCK_BYTES};
use amc_bundle::manifest::Payloads;
use amc_bundle::member;
use amc_core::FindingCode as Code;
use amc_core::kinds::{Fields, KeyPurpose, KeyRevoked, Role};
use amc_core::{Digest, Tier};
use amc_crypto::Note;
use amc_evidence::{Draft, VerifiedEvent};
use amc_scoring::{Label, Report, Status, render};

use crate::logs::Log;
use crate::world::{self, Aims, Key, Keys, Parts, Plan, World};

type Members = std::collections::BTreeMap<String, Vec<u8>>;

/// A bundle with one thing wrong.
pub(crate) struct Defect {
    pub(crate) name: &'static str,
    pub(crate) code: Code,
    pub(crate) bytes: Vec<u8>,
    /// Whether only computing the score again finds it.
    pub(crate) scorer_only: bool,
}

/// A world with its bundle, taken apart.
pub(crate) struct Bench {
    pub(crate) world: World,
    whole: Vec<u8>,
    parts: Parts,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let world = World::planned(Plan { sessions: 4, window_days: 4 });
        let whole = world.export();
        Bench { parts: Parts::of(&whole), whole, world }
    }

    /// Good bundles, which everybody must accept.
    pub(crate) fn good(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("whole", self.whole.clone()),
            ("without-payloads", self.world.export_with(Payloads::Withheld).0),
            ("targeted", targeted(&self.world)),
            ("after-rotations", rotated().export()),
            ("before-rotations", World::new().rotated_since().export()),
        ]
    }

    fn packed(&self, change: impl FnOnce(&mut Parts)) -> Vec<u8> {
        let mut parts = self.parts.clone();
        change(&mut parts);
        parts.pack(&self.world.keys.auditor)
    }

    fn header(&self, name: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bad = self.whole.clone();
        let at = place(&bad, name);
        change(&mut bad[at..at + BLOCK_BYTES]);
        fix_checksum(&mut bad[at..at + BLOCK_BYTES]);
        bad
    }

    fn events(&self) -> Vec<&VerifiedEvent> {
        let indices = self.parts.indices(member::EVIDENCE_EVENTS);
        self.world.evidence.events.iter().filter(|record| indices.contains(&record.event.index)).collect()
    }

    fn with_events<'s>(&'s self, change: impl FnOnce(&mut Vec<&'s VerifiedEvent>)) -> Vec<u8> {
        let mut events = self.events();
        change(&mut events);
        events.sort_by_key(|record| record.event.index);
        self.packed(|parts| parts.put_evidence(&self.world.evidence.tree, &events))
    }

    /// Every defect.
    pub(crate) fn bad(&self) -> Vec<Defect> {
        let mut all = Vec::new();
        let mut bad = |code, name, bytes| all.push(Defect { name, code, bytes, scorer_only: false });
        self.bytes_of_nobody(&mut bad);
        self.lies_of_the_issuer(&mut bad);
        self.histories(&mut bad);
        let mut scored = |name, bytes| all.push(Defect { name, code: Code::ScoreMismatch, bytes, scorer_only: true });
        for (name, page) in [("edited-page", member::REPORT_HTML), ("edited-text", member::REPORT_MD)] {
            scored(
                name,
                self.packed(|parts| {
                    parts.edit(page, |bytes| bytes.extend_from_slice(b"<p>level 5</p>"));
                }),
            );
        }
        let passing = resealed(&self.world, |report| {
            report.status = Status::Valid;
            report.label = Label::High;
            report.integrity_bp = 10_000;
        });
        scored("invalid-run-in-a-passing-score", passing);
        scored(
            "reformatted-report-pages",
            self.packed(|parts| {
                let md = parts.members[member::REPORT_MD].clone();
                parts.members.insert(member::REPORT_HTML.into(), md);
            }),
        );
        all
    }

    fn bytes_of_nobody(&self, bad: &mut impl FnMut(Code, &'static str, Vec<u8>)) {
        let malformed = Code::BundleMalformed;
        let with = |tail: &[u8]| [self.whole.as_slice(), tail].concat();
        bad(malformed, "trailing-byte", with(b"x"));
        bad(malformed, "trailing-zeros", with(&[0; BLOCK_BYTES]));
        bad(malformed, "cut-in-half", self.whole[..self.whole.len() / 2].to_vec());
        bad(malformed, "no-end", self.whole[..self.whole.len() - 2 * BLOCK_BYTES].to_vec());
        for (name, kind) in [
            ("hard-link", b'1'),
            ("symbolic-link", b'2'),
            ("character-device", b'3'),
            ("block-device", b'4'),
            ("directory", b'5'),
            ("fifo", b'6'),
            ("pax-header", b'x'),
        ] {
            bad(malformed, name, self.header(member::BANK, |header| header[156] = kind));
        }
        let renamed = |name: &str| {
            self.header(member::BANK, |header| {
                header[..100].fill(0);
                header[..name.len()].copy_from_slice(name.as_bytes());
            })
        };
        bad(malformed, "absolute-path", renamed("/etc/passwd"));
        bad(malformed, "parent-path", renamed("config/../../bank.toml"));
        bad(malformed, "hidden-path", renamed("config/.ssh"));
        bad(malformed, "unknown-name", renamed("payload.sh"));
        let sized = |size: &[u8; 12]| self.header(member::BANK, |header| header[124..136].copy_from_slice(size));
        bad(malformed, "huge-size", sized(b"77777777777\0"));
        bad(malformed, "negative-size", sized(&[0xff; 12]));
        bad(malformed, "base-256-size", sized(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
        let at = place(&self.whole, member::BANK);
        let next = at + BLOCK_BYTES + self.parts.members[member::BANK].len().next_multiple_of(BLOCK_BYTES);
        let twice = [&self.whole[..next], &self.whole[at..]].concat();
        bad(malformed, "repeated-member", twice);
        let manifest = self.parts.manifest(&self.world.keys.auditor);
        let with_members = |change: &dyn Fn(&mut Members)| {
            let mut members = self.parts.members.clone();
            change(&mut members);
            world::archive(&manifest, &members)
        };
        let mismatch = Code::BundleMemberMismatch;
        bad(mismatch, "missing-member", with_members(&|members| drop(members.remove(member::BANK))));
        let extra = with_members(&|members| drop(members.insert("config/fleet.yaml".into(), vec![1])));
        bad(Code::BundleMemberUnexpected, "extra-member", extra);
        let swapped = with_members(&|members| {
            let html = members[member::REPORT_HTML].clone();
            let md = members.insert(member::REPORT_MD.into(), html).expect("there");
            members.insert(member::REPORT_HTML.into(), md);
        });
        bad(mismatch, "swapped-members", swapped);
        let mut flipped = self.whole.clone();
        flipped[place(&self.whole, member::REPORT_JSON) + BLOCK_BYTES + 200] ^= 1;
        bad(mismatch, "flipped-byte", flipped);
        let stranger = Keys::new("ws-1", 60);
        let (keys, evidence, audit) = World::logs_of(stranger, Plan::default());
        let throughout = World::run(keys, evidence, audit, 2, Aims::default()).export();
        bad(Code::IssuerUntrusted, "strangers-keys-throughout", throughout);
        bad(Code::IssuerUntrusted, "signed-by-the-monitor", self.parts.pack(&self.world.keys.monitor));
    }

    fn lies_of_the_issuer(&self, bad: &mut impl FnMut(Code, &'static str, Vec<u8>)) {
        let mut report = self.world.report.clone();
        report.overall_bp += 10_000;
        let edited = self.packed(|parts| drop(parts.members.insert(member::REPORT_JSON.into(), report.to_bytes())));
        bad(Code::RunMissing, "edited-report", edited);
        let (sig, other) = (format!("{}gateway.yaml.sig", member::CONFIG_DIR), world::AGENT_CONFIG_PATH);
        let moved = self.packed(|parts| {
            let bytes = parts.members[&sig].clone();
            parts.members.insert(format!("{}{other}", member::CONFIG_DIR), world::GATEWAY.to_vec());
            parts.members.insert(format!("{}{other}.sig", member::CONFIG_DIR), bytes);
        });
        bad(Code::ConfigPathMismatch, "moved-config-signature", moved);
        let path = format!("{}gateway.yaml", member::CONFIG_DIR);
        let signed = |bytes: &[u8], version| self.world.keys.auditor.config_sig("gateway.yaml", version, None, bytes);
        let replayed = self.packed(|parts| drop(parts.members.insert(sig.clone(), signed(world::GATEWAY, 2))));
        bad(Code::ConfigStale, "config-signature-of-no-recorded-version", replayed);
        let other_contents = self.packed(|parts| {
            parts.members.insert(path, b"listen: 0.0.0.0:1\n".to_vec());
            parts.members.insert(sig.clone(), signed(b"listen: 0.0.0.0:1\n", 1));
        });
        bad(Code::ConfigSignatureInvalid, "edited-config", other_contents);
        bad(Code::ConfigUnsigned, "config-without-signature", self.packed(|parts| drop(parts.members.remove(&sig))));
        let mut target = Parts::of(&targeted(&self.world));
        let path = format!("{}{}", member::TARGET_DIR, world::TARGET_PATH);
        target.edit(&path, |bytes| bytes.push(b' '));
        bad(Code::ConfigSignatureInvalid, "edited-target", target.pack(&self.world.keys.auditor));
        let shell = self.packed(|parts| {
            parts.edit(member::BANK, |bytes| bytes.extend_from_slice(b"\n# easier\n"));
        });
        bad(Code::ScoreMismatch, "edited-bank", shell);
        let frame =
            |parts: &mut Parts, bytes: Vec<u8>| drop(parts.members.insert(member::EVIDENCE_PAYLOADS.into(), bytes));
        bad(
            Code::BundleMalformed,
            "payloads-that-are-no-frame",
            self.packed(|parts| frame(parts, b"not a frame".to_vec())),
        );
        let bomb = bomb();
        bad(Code::PayloadHashMismatch, "decompression-bomb", self.packed(|parts| frame(parts, bomb.0.clone())));
        bad(
            Code::PayloadMissing,
            "decompression-bomb-that-says-so",
            self.packed(|parts| {
                frame(parts, bomb.0.clone());
                parts.predicate.members.iter_mut().for_each(|entry| entry.unpacked = entry.unpacked.map(|_| bomb.1));
            }),
        );
        // Magic, no single segment, no checksum; window descriptor exponent 20: 1 GiB.
        let window = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3, 0x01, 0x00, 0x00];
        bad(Code::BundleMalformed, "window-of-a-gibibyte", self.packed(|parts| frame(parts, window)));
        let other = World::planned(Plan { sessions: 2, window_days: 2 });
        let seal =
            self.packed(|parts| drop(parts.members.insert(member::SEAL.into(), other.seal.to_json().into_bytes())));
        bad(Code::RunSealInvalid, "seal-of-another-run", seal);
    }

    fn histories(&self, bad: &mut impl FnMut(Code, &'static str, Vec<u8>)) {
        let foreign = |record: &&VerifiedEvent| record.event.agent == Some(world::other_agent());
        let another = self.with_events(|events| events.extend(self.world.evidence.events.iter().find(foreign)));
        bad(Code::BundleMemberMismatch, "event-of-another-agent", another);
        let session = self.world.report.sessions.iter().find(|session| session.number == 3).expect("four").id;
        let left_out = self.with_events(|events| events.retain(|record| record.event.session != Some(session)));
        bad(Code::SessionGap, "session-left-out", left_out);
        let gap = self.with_events(|events| {
            let at = events.iter().position(|record| matches!(record.fields, Some(Fields::LlmResponse(_))));
            events.remove(at.expect("a call"));
        });
        bad(Code::SessionGap, "event-left-out", gap);
        bad(
            Code::KeyHistoryUntrusted,
            "opening-left-out",
            self.with_events(|events| {
                events.remove(0);
            }),
        );
        let mut swapped = self.events();
        swapped.swap(0, 1);
        let mut bytes = Vec::new();
        swapped.iter().for_each(|record| amc_bundle::records::write_event(&mut bytes, &record.signed));
        let put =
            |name: &'static str, bytes: Vec<u8>| self.packed(|parts| drop(parts.members.insert(name.into(), bytes)));
        bad(Code::EventOutOfOrder, "events-out-of-order", put(member::EVIDENCE_EVENTS, bytes));
        let stranger = Keys::new("ws-1", 60);
        let mut bytes = Vec::new();
        for record in self.events() {
            let signed = crate::logs::sign_event(&stranger.monitor.0, "ws-1/evidence", &record.event);
            amc_bundle::records::write_event(&mut bytes, &signed);
        }
        bad(Code::EventSignatureInvalid, "events-signed-by-a-stranger", put(member::EVIDENCE_EVENTS, bytes));
        let proof = |change: &dyn Fn(&mut Vec<u8>)| {
            self.packed(|parts| {
                parts.edit(member::EVIDENCE_PROOF, change);
            })
        };
        bad(Code::CheckpointInvalid, "proof-of-another-tree", proof(&|proof| proof[0] ^= 1));
        bad(Code::CheckpointInvalid, "proof-with-a-hash-to-spare", proof(&|proof| proof.extend_from_slice(&[0; 32])));
        let note = |role, log: &Log, cosigner: Option<Role>| {
            let mut note = self.world.keys.note(role, log);
            if let Some(cosigner) = cosigner {
                self.world.keys.cosign(cosigner, &mut note, 1_772_700_000);
            }
            note.to_string().into_bytes()
        };
        let evidence = &self.world.evidence;
        let alone = note(Role::Monitor, evidence, None);
        bad(Code::CheckpointInvalid, "checkpoint-that-nobody-cosigned", put(member::EVIDENCE_CHECKPOINT, alone));
        let own = note(Role::Monitor, evidence, Some(Role::Monitor));
        bad(Code::CheckpointInvalid, "checkpoint-cosigned-by-its-own-role", put(member::EVIDENCE_CHECKPOINT, own));
        // The log as it was days before: cosigned then, and shorter than what the run covers.
        let (_, earlier, _) = World::logs(Plan { sessions: 2, window_days: 2 });
        let stale = note(Role::Monitor, &earlier, Some(Role::Auditor));
        bad(Code::CheckpointInvalid, "stale-checkpoint", put(member::EVIDENCE_CHECKPOINT, stale));
        let mut audit = Log::open(&self.world.keys, Role::Auditor, world::T0);
        audit.at(self.world.audit.now_ns());
        let back = note(Role::Auditor, &audit, Some(Role::Monitor));
        bad(Code::CheckpointInvalid, "rolled-back-checkpoint", put(member::AUDIT_CHECKPOINT, back));
        let mut fork = Log::open(&self.world.keys, Role::Monitor, world::T0 + world::S);
        while fork.state.size() < evidence.state.size() {
            fork.append(Draft::new(Tier::Observed, amc_core::kinds::MonitorStarted { software: "other".into() }));
        }
        let forked = note(Role::Monitor, &fork, Some(Role::Auditor));
        bad(Code::CheckpointInvalid, "forked-checkpoint", put(member::EVIDENCE_CHECKPOINT, forked));
        let (keys, evidence, mut audit) = World::logs(Plan::default());
        let revoked = KeyRevoked {
            origin: keys.origin(Role::Monitor),
            purpose: KeyPurpose::Log,
            public: keys.monitor.public().to_digest(),
            from_index: evidence.state.size() - 12,
            reason: "the host was lost".into(),
        };
        audit.append(Draft::new(Tier::Observed, revoked));
        let retired = Parts::of(&rotated().export()).pack(&self.world.keys.auditor);
        bad(Code::KeyOutOfValidity, "manifest-by-a-retired-key", retired);
        bad(Code::KeyRevoked, "revoked-key", World::run(keys, evidence, audit, 2, Aims::default()).export());
    }
}

/// A report that says something else, with pages, seal and log entry made to fit by the auditor.
pub(crate) fn resealed(world: &World, change: impl FnOnce(&mut Report)) -> Vec<u8> {
    let mut report = world.report.clone();
    change(&mut report);
    let mut parts = Parts::of(&world.export());
    let seal = world.keys.auditor.envelope(&amc_bundle::seal_statement(&report));
    parts.members.insert(member::REPORT_JSON.into(), report.to_bytes());
    parts.members.insert(member::REPORT_MD.into(), render::markdown(&report).into_bytes());
    parts.members.insert(member::REPORT_HTML.into(), render::html(&report).into_bytes());
    parts.members.insert(member::SEAL.into(), seal.to_json().into_bytes());
    // The audit log again from its start, with the false entry at its end.
    let mut audit = Log::open(&world.keys, Role::Auditor, world::T0);
    let events = &world.audit.events;
    for record in &events[1..events.len() - 1] {
        let fields = record.fields.clone().expect("kinds that are known");
        audit.at(record.event.wall_ns - world::S / 100).append(Draft::new(record.event.tier, fields));
    }
    assert_eq!(audit.state.head(), world.report.audit, "the same history up to the run");
    audit.append(Draft::new(Tier::Observed, amc_bundle::seal::run_entry(&report)));
    let carried = parts.indices(member::AUDIT_EVENTS);
    let own = audit.state.size() - 1;
    let chosen =
        audit.events.iter().filter(|record| record.event.index == own || carried.contains(&record.event.index));
    parts.put_audit(&audit.tree, &chosen.collect::<Vec<_>>());
    let note: Note = world::audit_note(&world.keys, &audit);
    parts.members.insert(member::AUDIT_CHECKPOINT.into(), note.to_string().into_bytes());
    parts.pack(&world.keys.auditor)
}

/// The same workspace after both log keys and a witness's key changed, under the policy of the first keys.
fn rotated() -> World {
    let (mut keys, mut evidence, mut audit) = World::logs(Plan::default());
    let [monitor, auditor, witness] = [50, 51, 52].map(Key::new);
    evidence.rotate(KeyPurpose::Log, &monitor);
    audit.rotate(KeyPurpose::Log, &auditor);
    audit.rotate(KeyPurpose::Witness, &witness);
    keys = Keys { monitor, auditor, auditor_witness: witness, ..keys };
    evidence.at(evidence.now_ns() + world::DAY);
    world::session(&mut evidence, &world::agent(), 50);
    let cosigned = world::checkpoint_cosigned(&keys, &evidence);
    audit.at(evidence.now_ns() + world::S).append(Draft::new(Tier::Observed, cosigned));
    World::run(keys, evidence, audit, 2, Aims::default())
}

/// A bundle of the same issuer whose run had a target.
fn targeted(world: &World) -> Vec<u8> {
    let (keys, evidence, audit) = World::logs(Plan::default());
    assert_eq!(keys.auditor.public(), world.keys.auditor.public());
    let aims = Aims { target: Some(world::target()), ..Aims::default() };
    World::run(keys, evidence, audit, 2, aims).export()
}

/// A frame that unpacks to 32 MiB of zeros, and how much it unpacks to.
fn bomb() -> (Vec<u8>, u64) {
    let zeros: Vec<Vec<u8>> = (0..32).map(|at| vec![0; (1 << 20) - at]).collect();
    let wanted: amc_bundle::payloads::Wanted =
        zeros.iter().map(|bytes| (amc_crypto::sha256(bytes), bytes.len() as u64)).collect();
    let by_name = |sha256: &Digest| zeros.iter().find(|bytes| amc_crypto::sha256(bytes) == *sha256).cloned();
    let mut out = Vec::new();
    let written = amc_bundle::payloads::write(&wanted, &mut |sha256| Ok(by_name(sha256)), &mut out).expect("writes");
    assert!(out.len() < 100_000, "it is small");
    (out, written.unpacked)
}

fn place(bundle: &[u8], name: &str) -> usize {
    let mut archive = ArchiveReader::new(bundle);
    let headers = std::iter::from_fn(|| archive.next_member().expect("canonical"));
    let found = headers.into_iter().find(|header| header.name == name).expect("the member is there");
    usize::try_from(found.offset).expect("small")
}

/// Recomputes a header's checksum, as somebody who disguises it would.
fn fix_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
}

/// Writes them all below `dir`.
pub(crate) fn write(dir: &Path, bench: &Bench, defects: &[Defect]) {
    let put = |dir: &Path, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(dir).expect("a directory");
        std::fs::write(dir.join(name), bytes).expect("a file in it");
    };
    put(dir, "trust.policy", bench.world.keys.policy_text().as_bytes());
    for (name, bytes) in bench.good() {
        put(&dir.join("good"), &format!("{name}.amcbundle"), &bytes);
    }
    for Defect { name, code, bytes, scorer_only } in defects {
        let place = if *scorer_only { "scorer-only" } else { "bad" };
        put(&dir.join(place), &format!("{code}.{name}.amcbundle"), bytes);
    }
}

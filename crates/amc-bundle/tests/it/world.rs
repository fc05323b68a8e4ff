//! A small real workspace in memory: two logs with real keys, sessions of two agents, a scored and
//! sealed run, and the bundle of it. Tests take it apart and put it together wrongly.

use std::collections::BTreeMap;
use std::io::Cursor;

use amc_bundle::archive::{ArchiveReader, ArchiveWriter};
use amc_bundle::manifest::{MemberEntry, Payloads};
use amc_bundle::seal::run_entry;
use amc_bundle::{
    BundlePredicate, BundleVerdict, ExportError, ExportInput, ExportSummary, LogPart, SignedBytes, member, records,
};
use amc_core::kinds::{
    CallOutcome, CheckpointCosigned, ConfigLoaded, ConfigSigned, ConfigState, Dialect, EnvironmentBuilt, Fields,
    GatewayStarted, Isolation, KeyPurpose, LlmRequest, LlmResponse, ProcessExit, ProcessOutput, Role, SessionChannel,
    SessionOutcome, SessionPurpose, Stream, Usage,
};
use amc_core::{AgentId, Digest, FindingCode, LeaseId, SOFTWARE, SessionId, Tier};
use amc_crypto::dsse::Envelope;
use amc_crypto::merkle::{MemoryTree, multiproof};
use amc_crypto::{Note, PredicateType, Statement, Subject, TrustPolicy};
use amc_evidence::{Content, Draft, Event, SessionPlan, VerifiedEvent};
use amc_scoring::{Bank, Claims, Report, SHIPPED_BANK, ScoreInput, Target, score};

pub(crate) use crate::logs::{Key, Keys, Log};

pub(crate) const S: i64 = 1_000_000_000;
pub(crate) const DAY: i64 = 86_400 * S;
/// 2026-03-01T00:00:00Z
pub(crate) const T0: i64 = 1_772_323_200 * S;
pub(crate) const BOOT: [u8; 16] = [7; 16];

pub(crate) fn agent() -> AgentId {
    AgentId::new("alpha").expect("an id")
}

pub(crate) fn other_agent() -> AgentId {
    AgentId::new("beta").expect("an id")
}

pub(crate) fn lease() -> LeaseId {
    LeaseId::new("lease-0123456789abcdef").expect("an id")
}

/// One whole session with a call, some output and a seal, and the head after it.
pub(crate) fn session(log: &mut Log, agent: &AgentId, seed: u8) -> SessionId {
    let id = SessionId::from_parts(u64::try_from(log.now_ns() / 1_000_000).expect("positive"), [seed; 10]);
    let tier = Tier::Observed;
    let plan = SessionPlan {
        purpose: SessionPurpose::Agent,
        channel: SessionChannel::Wrapper,
        isolation: Isolation::None,
        argv: vec!["agent".into(), "--run".into()],
        artifact: Some(amc_crypto::sha256(b"the agent's program")),
        lease: Some(lease()),
    };
    let within = |fields: Fields| Draft::in_session(agent.clone(), id, tier, fields);
    log.append(Draft { content: Content::OpenSession(plan), ..within(EnvironmentBuilt::empty().into()) });
    log.append(within(EnvironmentBuilt::empty().into()));
    let request = LlmRequest {
        request_id: format!("req-{seed}"),
        client_request_id: None,
        provider: "demo".into(),
        dialect: Dialect::Openai,
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        lease: lease(),
        model: Some("demo-1".into()),
        stream: false,
        system_prompt_sha256: None,
        tools_offered: 0,
        config_version: 1,
    };
    let at = log.append_payload(within(request.into()), format!("question {seed} of {agent}").as_bytes());
    let response = LlmResponse {
        request_id: format!("req-{seed}"),
        request_index: at,
        provider: "demo".into(),
        status: 200,
        outcome: CallOutcome::Complete,
        model: Some("demo-1".into()),
        usage: Some(Usage { input_tokens: 10, output_tokens: 20 }),
        tool_calls: 0,
        refusal: false,
        first_byte_us: 900,
        duration_us: 2_000,
        attempt: 1,
    };
    log.append_payload(within(response.into()), format!("answer {seed} to {agent}").as_bytes());
    let text = b"done\n";
    let output = ProcessOutput { stream: Stream::Stdout, offset: 0, len: text.len() as u64 };
    log.append_payload(within(output.into()), text);
    log.append(within(ProcessExit { code: Some(0), signal: None, duration_ms: 50 }.into()));
    let seal =
        Draft { content: Content::SealSession(SessionOutcome::Sealed), ..within(EnvironmentBuilt::empty().into()) };
    log.append(seal);
    log.append(Draft {
        agent: Some(agent.clone()),
        content: Content::AgentHead,
        ..Draft::new(tier, EnvironmentBuilt::empty())
    });
    id
}

/// A struct with which a draft can be begun.
pub(crate) trait Empty {
    fn empty() -> Self;
}

impl Empty for EnvironmentBuilt {
    fn empty() -> Self {
        EnvironmentBuilt {
            passed: vec!["PATH".into()],
            set: vec!["OPENAI_BASE_URL".into()],
            withheld: 3,
            secrets_withheld: true,
        }
    }
}

pub(crate) const GATEWAY: &[u8] = b"listen: 127.0.0.1:3210\n";
pub(crate) const AGENT_CONFIG: &[u8] = b"name: alpha\n";
pub(crate) const AGENT_CONFIG_PATH: &str = "agents/alpha/agent.config.yaml";

/// The workspace: both logs, the run's report and seal, and both cosigned checkpoints.
pub(crate) struct World {
    pub(crate) keys: Keys,
    pub(crate) evidence: Log,
    pub(crate) audit: Log,
    pub(crate) evidence_note: Note,
    pub(crate) audit_note: Note,
    pub(crate) report: Report,
    pub(crate) seal: Envelope,
    pub(crate) bank: Vec<u8>,
    pub(crate) aims: Aims,
}

/// Claims and target of a run.
#[derive(Clone, Default)]
pub(crate) struct Aims {
    pub(crate) claims: Option<Vec<u8>>,
    pub(crate) target: Option<Vec<u8>>,
}

/// A target profile for the shipped bank.
pub(crate) fn target() -> Vec<u8> {
    let bank = Bank::parse(SHIPPED_BANK).expect("the shipped bank");
    let (id, version, question) = (&bank.id, bank.version, &bank.questions[0].id);
    format!(
        r#"{{"version":1,"id":"q3","agent":"alpha","bank":"{id}","bank_version":{version},"levels":{{"{question}":3}}}}"#
    )
    .into_bytes()
}

pub(crate) const TARGET_PATH: &str = "agents/alpha/targets/q3.json";

/// How a world differs from the plain one.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    /// Sessions of the agent, one a day.
    pub(crate) sessions: u8,
    /// Window of the run in days.
    pub(crate) window_days: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { sessions: 3, window_days: 2 }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::planned(Plan::default())
    }

    /// Each day a session of the agent and one of another; the window covers the last days.
    pub(crate) fn planned(plan: Plan) -> Self {
        let (keys, evidence, audit) = Self::logs(plan);
        Self::run(keys, evidence, audit, plan.window_days, Aims::default())
    }

    /// The logs of that, before any run.
    pub(crate) fn logs(plan: Plan) -> (Keys, Log, Log) {
        Self::logs_of(Keys::new("ws-1", 10), plan)
    }

    /// The same under these keys.
    pub(crate) fn logs_of(keys: Keys, plan: Plan) -> (Keys, Log, Log) {
        let mut evidence = Log::open(&keys, Role::Monitor, T0);
        let mut audit = Log::open(&keys, Role::Auditor, T0);
        for (path, bytes, agent) in [("gateway.yaml", GATEWAY, None), (AGENT_CONFIG_PATH, AGENT_CONFIG, Some(agent()))]
        {
            let sha256 = amc_crypto::sha256(bytes);
            let signed = ConfigSigned { path: path.into(), version: 1, sha256, agent: agent.clone() };
            audit.append(Draft::new(Tier::Observed, signed));
            let loaded = ConfigLoaded { path: path.into(), version: Some(1), sha256, state: ConfigState::Signed };
            evidence.append(Draft { agent, ..Draft::new(Tier::Observed, loaded) });
        }
        // Nothing that a run of the first agent reads.
        let path = "agents/beta/agent.config.yaml".into();
        let others = ConfigSigned { path, version: 1, sha256: Digest([3; 32]), agent: Some(other_agent()) };
        audit.append(Draft::new(Tier::Observed, others));
        let providers = vec![("demo".to_owned(), "http://127.0.0.1:8000/v1".to_owned())];
        let started = GatewayStarted { software: SOFTWARE.into(), listen: "127.0.0.1:3210".into(), providers };
        evidence.append(Draft::new(Tier::Observed, started));
        for day in 0..plan.sessions {
            evidence.at(T0 + i64::from(day) * DAY + 3_600 * S);
            session(&mut evidence, &agent(), day);
            session(&mut evidence, &other_agent(), 100 + day);
            let cosigned = checkpoint_cosigned(&keys, &evidence);
            audit.at(evidence.now_ns() + S).append(Draft::new(Tier::Observed, cosigned));
        }
        (keys, evidence, audit)
    }

    /// Scores, seals, records and cosigns.
    pub(crate) fn run(keys: Keys, evidence: Log, mut audit: Log, window_days: u64, aims: Aims) -> Self {
        let as_of_ns = evidence.now_ns() / S * S + 60 * S;
        let mut evidence_note = keys.note(Role::Monitor, &evidence);
        keys.cosign(Role::Auditor, &mut evidence_note, u64::try_from(as_of_ns / S).expect("positive"));
        let bank = SHIPPED_BANK.to_vec();
        let parsed = Bank::parse(&bank).expect("the shipped bank");
        let claims = aims.claims.as_ref().map(|bytes| Claims::parse(bytes, &parsed).expect("claims"));
        let target = aims.target.as_ref().map(|bytes| Target::parse(bytes, &agent(), &parsed).expect("a target"));
        if let Some(bytes) = &aims.target {
            let sha256 = amc_crypto::sha256(bytes);
            let signed = ConfigSigned { path: TARGET_PATH.into(), version: 1, sha256, agent: Some(agent()) };
            audit.append(Draft::new(Tier::Observed, signed));
        }
        let report = score(&ScoreInput {
            workspace: &keys.name,
            agent: &agent(),
            evidence_head: evidence.state.head(),
            audit_head: audit.state.head(),
            evidence: &evidence.events,
            audit: &audit.events,
            bank: &parsed,
            as_of_ns,
            window_s: window_days * 86_400,
            claims: claims.as_ref(),
            target: target.as_ref(),
        })
        .expect("events in memory can be read");
        let seal = keys.auditor.envelope(&amc_bundle::seal_statement(&report));
        audit.at(as_of_ns).append(Draft::new(Tier::Observed, run_entry(&report)));
        let audit_note = audit_note(&keys, &audit);
        World { keys, evidence, audit, evidence_note, audit_note, report, seal, bank, aims }
    }

    pub(crate) fn try_export(&self, payloads: Payloads) -> Result<(Vec<u8>, ExportSummary), ExportError> {
        let agent = agent();
        let configs = [("gateway.yaml", None, GATEWAY), (AGENT_CONFIG_PATH, Some(&agent), AGENT_CONFIG)];
        self.try_export_with(payloads, &configs)
    }

    fn try_export_with(
        &self,
        payloads: Payloads,
        configs: &[Config<'_>],
    ) -> Result<(Vec<u8>, ExportSummary), ExportError> {
        let auditor = &self.keys.auditor;
        let signatures: Vec<_> =
            configs.iter().map(|(path, agent, bytes)| auditor.config_sig(path, 1, *agent, bytes)).collect();
        let signed = configs.iter().zip(&signatures).map(|((path, _, bytes), signature)| SignedBytes {
            path,
            bytes,
            signature: Some(signature),
        });
        let configs: Vec<SignedBytes<'_>> = signed.collect();
        let trust_policy = self.keys.policy_text();
        let target = self.aims.target.as_ref();
        let target_sig = target.map(|bytes| auditor.config_sig(TARGET_PATH, 1, Some(&agent()), bytes));
        let input = ExportInput {
            report: &self.report,
            seal: &self.seal,
            evidence: LogPart {
                events: &self.evidence.events,
                checkpoint: &self.evidence_note,
                tree: &self.evidence.tree,
            },
            audit: LogPart { events: &self.audit.events, checkpoint: &self.audit_note, tree: &self.audit.tree },
            bank: SignedBytes { path: "bank.toml", bytes: &self.bank, signature: None },
            configs: &configs,
            claims: self.aims.claims.as_deref(),
            target: target.map(|bytes| SignedBytes { path: TARGET_PATH, bytes, signature: target_sig.as_deref() }),
            trust_policy: trust_policy.as_bytes(),
            payloads,
        };
        let mut source = |sha256: &Digest| Ok(self.evidence.payloads.get(sha256).cloned());
        let mut out = Vec::new();
        let mut spool = Cursor::new(Vec::new());
        let summary = amc_bundle::export(&input, &mut source, auditor, &mut spool, &mut out)?;
        Ok((out, summary))
    }

    pub(crate) fn export_configs(&self, configs: &[Config<'_>]) -> (Vec<u8>, ExportSummary) {
        self.try_export_with(Payloads::Included, configs).expect("exports")
    }

    /// After the run, both keys of the auditor change.
    pub(crate) fn rotated_since(mut self) -> World {
        let [auditor, witness] = [51, 52].map(Key::new);
        self.audit.rotate(KeyPurpose::Log, &auditor);
        self.audit.rotate(KeyPurpose::Witness, &witness);
        (self.keys.auditor, self.keys.auditor_witness) = (auditor, witness);
        self.audit_note = audit_note(&self.keys, &self.audit);
        self
    }

    pub(crate) fn export_with(&self, payloads: Payloads) -> (Vec<u8>, ExportSummary) {
        self.try_export(payloads).expect("exports")
    }

    pub(crate) fn export(&self) -> Vec<u8> {
        self.export_with(Payloads::Included).0
    }
}

pub(crate) fn checkpoint_cosigned(keys: &Keys, evidence: &Log) -> CheckpointCosigned {
    let time_s = u64::try_from(evidence.now_ns() / S + 1).expect("positive");
    let mut note = keys.note(Role::Monitor, evidence);
    keys.cosign(Role::Auditor, &mut note, time_s);
    CheckpointCosigned { head: evidence.state.head(), time_s, note: note.to_string() }
}

pub(crate) fn audit_note(keys: &Keys, audit: &Log) -> Note {
    let mut note = keys.note(Role::Auditor, audit);
    keys.cosign(Role::Monitor, &mut note, u64::try_from(audit.now_ns() / S + 30).expect("positive"));
    note
}

/// A configuration: path, agent, bytes.
pub(crate) type Config<'a> = (&'a str, Option<&'a AgentId>, &'a [u8]);

/// A bundle taken apart, to be put together wrongly by somebody who holds the auditor's key.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) members: BTreeMap<String, Vec<u8>>,
    pub(crate) predicate: BundlePredicate,
}

impl Parts {
    pub(crate) fn of(bundle: &[u8]) -> Self {
        let mut archive = ArchiveReader::new(bundle);
        let mut members = BTreeMap::new();
        while let Some(header) = archive.next_member().expect("canonical") {
            let bytes = archive.read_member(&header, u64::MAX).expect("whole");
            members.insert(header.name, bytes);
        }
        let manifest = members.remove(member::MANIFEST).expect("every bundle has one");
        let (manifest, _) = amc_bundle::manifest::Manifest::peek(&manifest).expect("parses");
        Parts { members, predicate: manifest.predicate }
    }

    pub(crate) fn edit(&mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        change(self.members.get_mut(name).expect("the member is there"));
        self
    }

    /// The archive with a manifest that names what is there.
    pub(crate) fn pack(&self, auditor: &Key) -> Vec<u8> {
        archive(&self.manifest(auditor), &self.members)
    }

    pub(crate) fn manifest(&self, auditor: &Key) -> Vec<u8> {
        let unpacked = self.predicate.members.iter().find_map(|entry| entry.unpacked);
        let entry = |(name, bytes): (&String, &Vec<u8>)| MemberEntry {
            name: name.clone(),
            size: bytes.len() as u64,
            unpacked: unpacked.filter(|_| name == member::EVIDENCE_PAYLOADS),
        };
        let predicate = BundlePredicate { members: self.members.iter().map(entry).collect(), ..self.predicate.clone() };
        let subject = self.members.iter().map(|(name, bytes)| Subject::new(name, amc_crypto::sha256(bytes))).collect();
        let statement = Statement::new(PredicateType::Bundle, subject, &predicate).expect("a statement");
        auditor.envelope(&statement).to_json().into_bytes()
    }

    /// Replaces the events of the evidence log by these, with a fitting proof.
    pub(crate) fn put_evidence(&mut self, tree: &MemoryTree, events: &[&VerifiedEvent]) {
        self.put_events(member::EVIDENCE_EVENTS, member::EVIDENCE_PROOF, tree, events);
    }

    pub(crate) fn put_audit(&mut self, tree: &MemoryTree, events: &[&VerifiedEvent]) {
        self.put_events(member::AUDIT_EVENTS, member::AUDIT_PROOF, tree, events);
    }

    fn put_events(&mut self, name: &str, proof: &str, tree: &MemoryTree, events: &[&VerifiedEvent]) {
        let mut bytes = Vec::new();
        events.iter().for_each(|record| records::write_event(&mut bytes, &record.signed));
        let indices: Vec<u64> = events.iter().map(|record| record.event.index).collect();
        let hashes = multiproof(tree, &indices, tree.size()).expect("in the tree");
        self.members.insert(name.into(), bytes);
        self.members.insert(proof.into(), records::write_proof(&hashes));
    }

    /// The indices of the events in a member.
    pub(crate) fn indices(&self, name: &str) -> Vec<u64> {
        let mut reader = records::EventRecords::new(self.members[name].as_slice());
        let mut indices = Vec::new();
        while let Some(signed) = reader.next_event().expect("records") {
            indices.push(Event::decode(&signed.body).expect("an event").0.index);
        }
        indices
    }
}

/// A canonical archive of these members.
pub(crate) fn archive(manifest: &[u8], members: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ArchiveWriter::new(&mut out);
    writer.append(member::MANIFEST, manifest.len() as u64, &mut &*manifest).expect("fits");
    for (name, bytes) in members {
        writer.append(name, bytes.len() as u64, &mut bytes.as_slice()).expect("fits");
    }
    writer.finish().expect("into memory");
    out
}

/// Verifies and gives the verdict; reading from memory cannot fail.
pub(crate) fn verify(bundle: &[u8], policy: &TrustPolicy) -> BundleVerdict {
    amc_bundle::verify(Cursor::new(bundle), policy).expect("reading from memory does not fail")
}

/// The codes of all errors, each with its subject.
pub(crate) fn errors(verdict: &BundleVerdict) -> Vec<(FindingCode, &str)> {
    verdict
        .findings
        .iter()
        .filter(|finding| finding.is_error())
        .map(|finding| (finding.code, finding.subject.as_str()))
        .collect()
}

/// Asserts that the bundle is refused with this code among its errors.
#[track_caller]
pub(crate) fn refused(name: &str, bundle: &[u8], policy: &TrustPolicy, code: FindingCode) -> BundleVerdict {
    let verdict = verify(bundle, policy);
    assert!(!verdict.is_good(), "{name}: it verifies");
    let found = errors(&verdict);
    assert!(found.iter().any(|(found, _)| *found == code), "{name}: wanted {code}, found {:#?}", verdict.findings);
    verdict
}

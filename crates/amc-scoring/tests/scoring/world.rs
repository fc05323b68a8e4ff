//! A small world for tests: two logs with real keys, written by the same state machine that
//! verifiers run, on a clock that the test turns.

use std::collections::BTreeSet;

use amc_core::kinds::*;
use amc_core::timestamp::{NS_PER_DAY, NS_PER_S, to_rfc3339};
use amc_core::{AgentId, Digest, Instant, LeaseId, SessionId, Tier, WorkspaceName};
use amc_crypto::attestation::{self, AttestationPredicate};
use amc_crypto::dsse::{self, Envelope};
use amc_crypto::jws::{self, ReceiptClaims};
use amc_crypto::note::KeyKind;
use amc_crypto::signer::event_message;
use amc_crypto::{PublicKey, Signature, Statement, Unverified, VerifierKey};
use amc_evidence::receipt::claims_of;
use amc_evidence::{
    Content, Draft, EventRecord, EventTrust, KeyHistory, LogState, NextEvent, PayloadRef, SessionPlan, SignedEvent,
    VerifiedEvent,
};
use amc_scoring::{Bank, Claims, Report, SHIPPED_BANK, ScoreInput, Selector, Target};
use ed25519_dalek::{Signer, SigningKey};

/// 2026-01-01T00:00:00Z.
pub(crate) const START_NS: i64 = 1_767_225_600 * NS_PER_S;
pub(crate) const DAY_S: u64 = 86_400;

/// A log with its key.
pub(crate) struct Log {
    state: LogState,
    key: SigningKey,
    history: KeyHistory,
    pub(crate) events: Vec<VerifiedEvent>,
}

impl Log {
    fn open(origin: &str, role: Role, seed: u8, now: &Instant) -> Log {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = PublicKey::from_bytes(&key.verifying_key().to_bytes()).expect("a good key");
        let witness = SigningKey::from_bytes(&[seed + 1; 32]).verifying_key().to_bytes();
        let mut log =
            Log { state: LogState::new(origin), key, history: KeyHistory::pinned(public), events: Vec::new() };
        let opened = LogOpened {
            origin: origin.into(),
            role,
            log_public: public.to_digest(),
            witness_public: Digest(witness),
            software: "amc test".into(),
            predecessor: None,
        };
        log.append(Draft::new(Tier::Observed, opened), now);
        log
    }

    /// Appends one event, signed and verified.
    pub(crate) fn append(&mut self, draft: Draft, now: &Instant) -> u64 {
        let NextEvent { event, body, .. } = self.state.build(draft, now).expect("the draft fits the log");
        let hash = amc_crypto::leaf_hash(&body);
        let signature = Signature(self.key.sign(&event_message(self.state.origin(), &hash)).to_bytes());
        let trust = EventTrust { origin: self.state.origin(), keys: &self.history };
        let verified = Unverified::new(SignedEvent { body, signature }).verify(&trust).expect("signed by its own key");
        self.state.apply(&event, verified.fields.as_ref(), verified.hash);
        let index = event.index;
        self.events.push(verified);
        index
    }

    pub(crate) fn head(&self) -> LogHead {
        self.state.head()
    }

    fn public(&self) -> PublicKey {
        PublicKey::from_bytes(&self.key.verifying_key().to_bytes()).expect("a good key")
    }

    /// The receipt of the event at `index`, as the monitor would give it.
    pub(crate) fn receipt(&self, index: u64) -> String {
        self.sign_claims(&self.claims(index))
    }

    pub(crate) fn claims(&self, index: u64) -> ReceiptClaims {
        let record = self.events.iter().find(|record| record.event.index == index).expect("the event is there");
        let fields = record.fields.as_ref().expect("its kind is known");
        claims_of(self.state.origin(), &record.event, fields, record.hash).expect("it has receipts")
    }

    pub(crate) fn sign_claims(&self, claims: &ReceiptClaims) -> String {
        let key = VerifierKey::new(self.state.origin(), KeyKind::Ed25519, self.public()).expect("a good name");
        let input = jws::signing_input(&key, claims);
        jws::assemble(&input, &Signature(self.key.sign(input.as_bytes()).to_bytes()))
    }

    pub(crate) fn sign_statement(&self, statement: &Statement) -> String {
        let payload = statement.to_json();
        let signature = Signature(self.key.sign(&dsse::pae(dsse::PAYLOAD_TYPE, &payload)).to_bytes());
        Envelope::new(&payload, self.public(), &signature).to_json()
    }
}

/// Both logs and the clock.
pub(crate) struct World {
    pub(crate) workspace: WorkspaceName,
    pub(crate) agent: AgentId,
    pub(crate) evidence: Log,
    pub(crate) audit: Log,
    pub(crate) now: Instant,
    pub(crate) requests: u64,
    sessions: u64,
}

/// How a call goes.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) status: u16,
    pub(crate) outcome: CallOutcome,
    pub(crate) model: &'static str,
    pub(crate) usage: bool,
    pub(crate) tools: u32,
    pub(crate) tier: Tier,
    pub(crate) config_version: u64,
    pub(crate) first_byte_us: u64,
}

impl Default for Call {
    fn default() -> Self {
        Call {
            status: 200,
            outcome: CallOutcome::Complete,
            model: "demo-1",
            usage: true,
            tools: 1,
            tier: Tier::Observed,
            config_version: 1,
            first_byte_us: 20_000,
        }
    }
}

pub(crate) fn agent(name: &str) -> AgentId {
    AgentId::new(name).expect("an agent id")
}

impl World {
    pub(crate) fn new() -> World {
        let now = Instant { wall_ns: START_NS, boot_ns: 1_000_000_000_000, boot_id: [7; 16] };
        let mut world = World {
            workspace: WorkspaceName::new("test.ws").expect("a workspace name"),
            agent: agent("bot"),
            evidence: Log::open("test.ws/evidence", Role::Monitor, 0x42, &now),
            audit: Log::open("test.ws/audit", Role::Auditor, 0x52, &now),
            now,
            requests: 0,
            sessions: 0,
        };
        for path in ["amc.yaml", "gateway.yaml"] {
            world.sign_config(path, 1);
            world.load_config(path, ConfigState::Signed, 1);
        }
        world.started("http://127.0.0.1:8000/v1");
        world
    }

    pub(crate) fn wait_s(&mut self, seconds: u64) {
        let ns = i64::try_from(seconds).expect("small") * NS_PER_S;
        self.now.wall_ns += ns;
        self.now.boot_ns += seconds * 1_000_000_000;
    }

    /// To the given hour of the next UTC day.
    pub(crate) fn next_day(&mut self) {
        let target = (self.now.wall_ns / NS_PER_DAY + 1) * NS_PER_DAY + 9 * 3_600 * NS_PER_S;
        let wait = u64::try_from((target - self.now.wall_ns) / NS_PER_S).expect("ahead");
        self.wait_s(wait);
    }

    pub(crate) fn note(&mut self, fields: impl Into<Fields>) -> u64 {
        self.evidence.append(Draft::new(Tier::Observed, fields), &self.now)
    }

    pub(crate) fn note_audit(&mut self, fields: impl Into<Fields>) -> u64 {
        self.audit.append(Draft::new(Tier::Observed, fields), &self.now)
    }

    pub(crate) fn started(&mut self, base_url: &str) {
        let providers = vec![("demo".to_owned(), base_url.to_owned())];
        self.note(GatewayStarted { software: "amc test".into(), listen: "127.0.0.1:3210".into(), providers });
    }

    fn config_digest(path: &str, version: u64) -> Digest {
        amc_crypto::sha256(format!("{path} {version}").as_bytes())
    }

    pub(crate) fn sign_config(&mut self, path: &str, version: u64) {
        let sha256 = Self::config_digest(path, version);
        self.note_audit(ConfigSigned { path: path.into(), version, sha256, agent: None });
    }

    pub(crate) fn load_config(&mut self, path: &str, state: ConfigState, version: u64) -> u64 {
        let sha256 = Self::config_digest(path, version);
        let version = (state == ConfigState::Signed).then_some(version);
        self.note(ConfigLoaded { path: path.into(), version, sha256, state })
    }

    pub(crate) fn open(&mut self, agent: &AgentId, purpose: SessionPurpose) -> SessionId {
        self.sessions += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.sessions.to_be_bytes());
        let session = SessionId::from_parts(u64::try_from(self.now.wall_ns / 1_000_000).expect("after 1970"), random);
        let plan = SessionPlan {
            purpose,
            channel: SessionChannel::Wrapper,
            isolation: Isolation::Namespaces,
            argv: vec!["agent".into()],
            artifact: Some(amc_crypto::sha256(b"agent")),
            lease: Some(lease()),
        };
        let draft = Draft {
            agent: Some(agent.clone()),
            session: Some(session),
            tier: Tier::Observed,
            payload: None,
            content: Content::OpenSession(plan),
        };
        self.evidence.append(draft, &self.now);
        if purpose == SessionPurpose::Agent {
            let built = EnvironmentBuilt {
                passed: vec!["LANG".into(), "PATH".into()],
                set: vec!["OPENAI_API_KEY".into(), "OPENAI_BASE_URL".into()],
                withheld: 3,
                secrets_withheld: false,
            };
            self.say(agent, session, Tier::Observed, built);
        }
        session
    }

    pub(crate) fn say(&mut self, agent: &AgentId, session: SessionId, tier: Tier, fields: impl Into<Fields>) -> u64 {
        self.evidence.append(Draft::in_session(agent.clone(), session, tier, fields), &self.now)
    }

    fn body(&mut self, agent: &AgentId, session: SessionId, tier: Tier, fields: impl Into<Fields>) -> u64 {
        let fields = fields.into();
        let payload = Some(PayloadRef::full(&fields.encode(), "application/json"));
        let draft = Draft { payload, ..Draft::in_session(agent.clone(), session, tier, fields) };
        self.evidence.append(draft, &self.now)
    }

    /// The agent prints trace lines.
    pub(crate) fn trace(&mut self, agent: &AgentId, session: SessionId, lines: Vec<TraceLine>) -> u64 {
        self.say(agent, session, Tier::Observed, TraceLines { lines })
    }

    /// Somebody hands in a file.
    pub(crate) fn ingest(
        &mut self,
        ingest_type: IngestType,
        bytes: &[u8],
        expires_ns: Option<i64>,
        counts: Option<ResultCounts>,
    ) -> u64 {
        let draft = Draft {
            agent: Some(self.agent.clone()),
            session: None,
            tier: Tier::SelfReported,
            payload: Some(PayloadRef::full(bytes, "text/plain")),
            content: Content::Fields(Ingested { ingest_type, name: "file".into(), expires_ns, counts }.into()),
        };
        self.evidence.append(draft, &self.now)
    }

    /// What an auditor would sign about the event that was handed in at `index`.
    pub(crate) fn attestation(&self, index: u64, expires_ns: i64) -> (AttestationPredicate, Digest) {
        let record = self.evidence.events.iter().find(|record| record.event.index == index).expect("it is there");
        let Some(Fields::Ingested(ingested)) = &record.fields else { panic!("it was handed in") };
        let predicate = AttestationPredicate {
            log: "test.ws/evidence".into(),
            index,
            agent: self.agent.clone(),
            ingest_type: ingested.ingest_type.to_string(),
            payload_sha256: record.event.payload.as_ref().expect("a file").wire_sha256,
            expires: to_rfc3339(expires_ns),
        };
        (predicate, record.hash)
    }

    /// The auditor attests it.
    pub(crate) fn attest(&mut self, index: u64, expires_ns: i64) {
        let (predicate, event_hash) = self.attestation(index, expires_ns);
        let envelope = self.audit.sign_statement(&attestation::statement(&predicate, event_hash));
        let (agent, log) = (self.agent.clone(), predicate.log);
        self.note_audit(Attested { agent, log, index, event_hash, expires_ns, envelope });
    }

    pub(crate) fn call(&mut self, agent: &AgentId, session: SessionId, call: &Call) -> u64 {
        self.requests += 1;
        let request_id = format!("req-{}", self.requests);
        let request = LlmRequest {
            request_id: request_id.clone(),
            client_request_id: None,
            provider: "demo".into(),
            dialect: Dialect::Openai,
            method: "POST".into(),
            path: "/v1/chat/completions".into(),
            lease: lease(),
            model: Some(call.model.into()),
            stream: true,
            system_prompt_sha256: Some(amc_crypto::sha256(b"be good")),
            tools_offered: call.tools,
            config_version: call.config_version,
        };
        let request_index = self.body(agent, session, call.tier, request);
        self.wait_s(1);
        let response = LlmResponse {
            request_id,
            request_index,
            provider: "demo".into(),
            status: call.status,
            outcome: call.outcome,
            model: Some(call.model.into()),
            usage: call.usage.then_some(Usage { input_tokens: 100, output_tokens: 50 }),
            tool_calls: 1,
            refusal: false,
            first_byte_us: call.first_byte_us,
            duration_us: 900_000,
            attempt: 1,
        };
        self.body(agent, session, call.tier, response)
    }

    pub(crate) fn exit(&mut self, agent: &AgentId, session: SessionId, code: i32) {
        let output = ProcessOutput { stream: Stream::Stdout, offset: 0, len: 5 };
        self.say(agent, session, Tier::Observed, output);
        self.say(agent, session, Tier::Observed, ProcessExit { code: Some(code), signal: None, duration_ms: 1_000 });
    }

    pub(crate) fn seal(&mut self, agent: &AgentId, session: SessionId, outcome: SessionOutcome) {
        let content =
            |content| Draft { agent: Some(agent.clone()), session: None, tier: Tier::Observed, payload: None, content };
        let sealed = Draft { session: Some(session), ..content(Content::SealSession(outcome)) };
        self.evidence.append(sealed, &self.now);
        self.evidence.append(content(Content::AgentHead), &self.now);
    }

    /// What the monitor says of the agent every hour.
    pub(crate) fn hourly_head(&mut self) {
        let agent = Some(self.agent.clone());
        let content = Content::AgentHead;
        self.evidence.append(Draft { agent, session: None, tier: Tier::Observed, payload: None, content }, &self.now);
    }

    /// The auditor cosigns the evidence log as it is now.
    pub(crate) fn cosign(&mut self) {
        let head = self.evidence.head();
        let time_s = u64::try_from(self.now.wall_ns / NS_PER_S).expect("after 1970");
        self.note_audit(CheckpointCosigned { head, time_s, note: "note".into() });
    }

    /// A whole session of the agent with so many calls, sealed and cosigned.
    pub(crate) fn session(&mut self, calls: u64, call: &Call) -> SessionId {
        let agent = self.agent.clone();
        let session = self.open(&agent, SessionPurpose::Agent);
        for _ in 0..calls {
            self.call(&agent, session, call);
        }
        self.exit(&agent, session, 0);
        self.seal(&agent, session, SessionOutcome::Sealed);
        self.cosign();
        session
    }

    /// One good session on each of so many days.
    pub(crate) fn days(&mut self, days: u64, calls: u64) {
        for _ in 0..days {
            self.next_day();
            self.session(calls, &Call::default());
        }
    }

    /// A session of a test suite.
    pub(crate) fn test_session(&mut self, code: i32) {
        let agent = self.agent.clone();
        let session = self.open(&agent, SessionPurpose::Test);
        self.exit(&agent, session, code);
        self.seal(&agent, session, SessionOutcome::Sealed);
        self.cosign();
    }

    pub(crate) fn score(&self, bank: &Bank, window_days: u64) -> Report {
        self.score_with(bank, window_days, None, None)
    }

    pub(crate) fn score_with(
        &self,
        bank: &Bank,
        window_days: u64,
        claims: Option<&Claims>,
        target: Option<&Target>,
    ) -> Report {
        let at = (self.now.wall_ns + NS_PER_S, window_days * DAY_S);
        self.score_of(bank, at, (&self.evidence.events, &self.audit.events), claims, target)
    }

    pub(crate) fn score_of(
        &self,
        bank: &Bank,
        (as_of_ns, window_s): (i64, u64),
        (evidence, audit): (&[VerifiedEvent], &[VerifiedEvent]),
        claims: Option<&Claims>,
        target: Option<&Target>,
    ) -> Report {
        amc_scoring::score(&ScoreInput {
            workspace: &self.workspace,
            agent: &self.agent,
            evidence_head: self.evidence.head(),
            audit_head: self.audit.head(),
            evidence: &evidence,
            audit,
            bank,
            as_of_ns,
            window_s,
            claims,
            target,
        })
        .expect("events in memory can be read")
    }

    /// Indices of those of these events that a run of the world's agent reads.
    pub(crate) fn select(&self, (as_of_ns, window_s): (i64, u64), events: &[VerifiedEvent]) -> BTreeSet<u64> {
        let selected = Selector::new(&self.agent, as_of_ns, window_s).select(&events, u64::MAX);
        let selected = selected.expect("events in memory can be read");
        records(events).filter(|record| selected.contains(record)).map(|record| record.event.index).collect()
    }
}

/// A line about a model's answer, with the receipt that the gateway gave for the event at `index`.
pub(crate) fn line(world: &World, about: TraceAbout, index: u64) -> TraceLine {
    TraceLine {
        stream: Stream::Stdout,
        offset: 0,
        about,
        agent_id: world.agent.to_string(),
        request_id: None,
        receipt: Some(world.evidence.receipt(index)),
    }
}

fn lease() -> LeaseId {
    LeaseId::new("lease-00112233445566aa").expect("a lease id")
}

pub(crate) fn shipped() -> Bank {
    Bank::parse(SHIPPED_BANK).expect("the shipped bank parses")
}

pub(crate) fn records(events: &[VerifiedEvent]) -> impl Iterator<Item = &EventRecord> {
    events.iter().map(|event| &**event)
}

/// A bank with one question on these facts and nothing else.
pub(crate) fn small_bank(support: &str, more: &str) -> Bank {
    let text = format!(
        r#"
format = 1
id = "small"
version = 1
[limits]
session_tokens_max = 1000
first_byte_ms_max = 1000
first_byte_share_bp_min = 9500
error_rate_bp_max = 1000
[[question]]
id = "q"
layer = "skills"
title = "Q"
ask = "Q?"
levels = ["0", "1", "2", "3", "4", "5"]
next = "more"
support = [{support}]
{more}
"#
    );
    Bank::parse(text.as_bytes()).expect("the small bank parses")
}

/// Level and support of the only question.
pub(crate) fn level_of(report: &Report) -> (u8, u8) {
    (report.questions[0].final_level, report.questions[0].supported)
}

pub(crate) fn has(report: &Report, code: amc_core::FindingCode) -> bool {
    report.findings.iter().any(|finding| finding.code == code)
}

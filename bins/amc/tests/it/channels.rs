//! The private sockets under attack by a process of the same user, which is what an agent is where it
//! runs without isolation: broken frames, frames of the other channel, claims that are not the
//! channel's to make. What such an agent reaches makes its runs INVALID; what it says never becomes
//! evidence of another agent, session or tier.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use amc_core::kinds::{
    AgentKeyIgnored, CallOutcome, Dialect, Isolation, LlmRequest, LlmResponse, ProcessExit, SessionOutcome,
    SessionPurpose,
};
use amc_core::{AgentId, LeaseId, SessionId};
use amc_workspace::protocol::gateway::{
    Capture, CapturedPayload, GatewayEvent, GatewayFields, GatewayReply, GatewayRequest, LeaseGrant,
};
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest, ProcessFields, SessionRequest};
use amc_workspace::protocol::{Client, Frame, PROTOCOL_VERSION, Refusal, encode_frame};
use serde_json::{Value, json};

use crate::home::TestHome;
use crate::probe::{Other, mode, passable};
use crate::services::Up;

type GatewayClient = Client<GatewayRequest, GatewayReply>;
type OperatorClient = Client<OperatorRequest, OperatorReply>;

/// An agent that runs until the test says so, with its lease.
struct Waiting<'a> {
    home: &'a TestHome,
    amc: Child,
    token: String,
}

impl<'a> Waiting<'a> {
    fn start(home: &'a TestHome) -> Self {
        let script = "echo $OPENAI_API_KEY; while [ ! -e go ]; do sleep 0.01; done";
        let mut command = home.command();
        command.args(["wrap", "--agent", "support", "--isolation", "none", "--", "sh", "-c", script]);
        let mut amc = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("amc starts");
        let mut token = String::new();
        BufReader::new(amc.stdout.as_mut().expect("a pipe")).read_line(&mut token).expect("a line");
        Waiting { home, amc, token: token.trim().to_owned() }
    }

    fn grant(&self, client: &mut GatewayClient) -> LeaseGrant {
        let token_sha256 = amc_crypto::sha256(self.token.as_bytes());
        match client.call(GatewayRequest::Authorize { token_sha256 }).expect("an answer") {
            GatewayReply::Lease(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    fn end(mut self) {
        fs::write(self.home.beside("go"), "").expect("a file");
        assert!(self.amc.wait().expect("it ends").success());
    }
}

fn llm_request(lease: &LeaseId) -> LlmRequest {
    LlmRequest {
        request_id: "forged-1".into(),
        client_request_id: None,
        provider: "openai".into(),
        dialect: Dialect::Openai,
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        lease: lease.clone(),
        model: None,
        stream: false,
        system_prompt_sha256: None,
        tools_offered: 0,
        config_version: 2,
    }
}

fn record(
    client: &mut GatewayClient,
    lease: LeaseId,
    session: SessionId,
    fields: GatewayFields,
    payload: Option<CapturedPayload>,
) -> GatewayReply {
    let event = Box::new(GatewayEvent { lease, session, fields, payload });
    client.call(GatewayRequest::Record { event, receipt: true, notice: false }).expect("an answer")
}

/// What a socket sends back before it closes the connection.
fn answer_to(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("the monitor listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    // It may close before it has read all.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn broken_frames_close_their_connection_and_nothing_else() {
    let home = TestHome::new();
    let up = Up::start(&home);
    let framed = |body: &[u8]| [&u32::try_from(body.len()).expect("short").to_le_bytes()[..], body].concat();
    let hello = encode_frame(&Frame { id: 0, body: OperatorRequest::Hello { protocol: PROTOCOL_VERSION } });
    let hello = hello.expect("it fits");
    let broken = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        u32::MAX.to_le_bytes().to_vec(),
        framed(b""),
        framed(&[0xff; 64]),
        framed(&[0, 99]),
        // A byte too many, and a number written longer than it need be.
        framed(&[&hello[4..], b"x"].concat()),
        framed(&[0x80, 0, 0, 1]),
        hello[..hello.len() - 1].to_vec(),
    ];
    for socket in [home.file("run/monitor.sock"), home.file("run/gateway.sock")] {
        for bytes in &broken {
            assert!(answer_to(&socket, bytes).is_empty(), "{bytes:?} was answered");
        }
    }
    // What only the operator may ask is nonsense on the gateway's socket, by number or by shape.
    let request = SessionRequest {
        agent: AgentId::new("helper").expect("an id"),
        purpose: SessionPurpose::Agent,
        isolation: Isolation::None,
        argv: Vec::new(),
        artifact: None,
    };
    let session = SessionId::from_parts(1, [0; 10]);
    let seal = OperatorRequest::SealSession { session, outcome: SessionOutcome::Sealed };
    for foreign in [OperatorRequest::OpenSession(request), seal, OperatorRequest::Leave, OperatorRequest::Shutdown] {
        let bytes = encode_frame(&Frame { id: 0, body: foreign }).expect("it fits");
        assert!(answer_to(&home.file("run/gateway.sock"), &bytes).is_empty());
    }
    home.wrap_sh("exit 0").ends(0);
    drop(up);
    assert_eq!(home.evidence_of("session_open").len(), 1);
    home.json(&["verify"]).ends(0);
}

#[test]
fn the_gateways_channel_chooses_no_agent_no_session_and_no_tier() {
    let home = TestHome::new();
    let up = Up::start(&home);
    let waiting = Waiting::start(&home);
    let mut client = GatewayClient::connect(&home.file("run/gateway.sock")).expect("the monitor listens");
    let grant = waiting.grant(&mut client);
    assert_eq!(grant.agent.as_str(), "support");

    // A lease that was made up, and a token of nobody.
    let invented = LeaseId::new("lease-0123456789abcdef").expect("an id");
    let refused =
        record(&mut client, invented.clone(), grant.session, GatewayFields::Request(llm_request(&invented)), None);
    assert!(matches!(refused, GatewayReply::Refused(Refusal::LeaseInvalid(_))), "{refused:?}");
    let nobody = GatewayRequest::Authorize { token_sha256: amc_crypto::sha256(b"amc-lease-guess") };
    let refused = client.call(nobody).expect("an answer");
    assert!(matches!(refused, GatewayReply::Refused(Refusal::LeaseInvalid(_))), "{refused:?}");

    // A call that names another lease than the one it comes under.
    let refused =
        record(&mut client, grant.lease.clone(), grant.session, GatewayFields::Request(llm_request(&invented)), None);
    assert!(matches!(refused, GatewayReply::Refused(Refusal::Invalid(_))), "{refused:?}");

    // A body said to be whole that is not the one that passed.
    let lying = CapturedPayload {
        wire_sha256: amc_crypto::sha256(b"what passed"),
        wire_len: 11,
        media_type: "text/plain".into(),
        capture: Capture::Full,
        bytes: b"what is shown".to_vec(),
    };
    let fields = GatewayFields::KeyIgnored(AgentKeyIgnored { provider: "openai".into(), header: "x".into() });
    let refused = record(&mut client, grant.lease.clone(), grant.session, fields.clone(), Some(lying));
    assert!(matches!(refused, GatewayReply::Refused(Refusal::Invalid(_))), "{refused:?}");

    // What it may say is recorded for the lease's own agent and session, at the channel's tier.
    let taken = record(&mut client, grant.lease.clone(), grant.session, fields.clone(), None);
    assert!(matches!(taken, GatewayReply::Recorded(_)), "{taken:?}");
    waiting.end();

    // With the session the lease ends.
    let refused = record(&mut client, grant.lease, grant.session, fields, None);
    assert!(matches!(refused, GatewayReply::Refused(Refusal::LeaseInvalid(_))), "{refused:?}");
    drop(client);
    drop(up);
    let said = home.evidence_of("agent_key_ignored");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        (&said[0]["agent_id"], &said[0]["session_id"], &said[0]["tier"]),
        (&json!("support"), &json!(grant.session), &json!("OBSERVED"))
    );
    assert!(home.evidence_of("llm_request").is_empty());
    home.json(&["verify"]).ends(0);
}

#[test]
fn an_answer_names_the_request_that_came_before_it_whatever_the_gateway_says() {
    let home = TestHome::new();
    let up = Up::start(&home);
    let waiting = Waiting::start(&home);
    let mut client = GatewayClient::connect(&home.file("run/gateway.sock")).expect("the monitor listens");
    let grant = waiting.grant(&mut client);
    let mut submit = |fields| record(&mut client, grant.lease.clone(), grant.session, fields, None);
    let answer = GatewayFields::Response(LlmResponse {
        request_id: "forged-1".into(),
        request_index: 0,
        provider: "openai".into(),
        status: 200,
        outcome: CallOutcome::Complete,
        model: None,
        usage: None,
        tool_calls: 0,
        refusal: false,
        first_byte_us: 1,
        duration_us: 2,
        attempt: 1,
    });
    let refused = submit(answer.clone());
    assert!(matches!(refused, GatewayReply::Refused(Refusal::Invalid(_))), "nothing was asked: {refused:?}");
    let GatewayReply::Recorded(asked) = submit(GatewayFields::Request(llm_request(&grant.lease))) else {
        panic!("a request is taken")
    };
    let taken = submit(answer.clone());
    assert!(matches!(taken, GatewayReply::Recorded(_)), "{taken:?}");
    let refused = submit(answer);
    assert!(matches!(refused, GatewayReply::Refused(Refusal::Invalid(_))), "it has its answer: {refused:?}");
    drop(client);
    waiting.end();
    drop(up);
    let said = home.evidence_of("llm_response");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0]["fields"]["request_index"], json!(asked.index));
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_session_belongs_to_the_connection_that_opened_it() {
    let home = TestHome::new();
    let up = Up::start(&home);
    let waiting = Waiting::start(&home);
    let mut gateway = GatewayClient::connect(&home.file("run/gateway.sock")).expect("the monitor listens");
    let session = waiting.grant(&mut gateway).session;
    let mut stranger = OperatorClient::connect(&home.file("run/monitor.sock")).expect("the monitor listens");
    let exit = ProcessFields::Exit(ProcessExit { code: Some(0), signal: None, duration_ms: 0 });
    for request in [
        OperatorRequest::Record { session, fields: exit, payload: None },
        OperatorRequest::SealSession { session, outcome: SessionOutcome::Sealed },
    ] {
        let refused = stranger.call(request).expect("an answer");
        assert!(matches!(refused, OperatorReply::Refused(Refusal::LeaseInvalid(_))), "{refused:?}");
    }
    let refused = stranger.call(OperatorRequest::Hello { protocol: PROTOCOL_VERSION + 1 }).expect("an answer");
    assert!(matches!(refused, OperatorReply::Refused(Refusal::Invalid(_))), "{refused:?}");
    drop(stranger);
    waiting.end();
    drop(up);
    assert_eq!(home.evidence_of("process_exit").len(), 1);
    assert_eq!(home.evidence_of("session_seal")[0]["fields"]["outcome"], "sealed");
    home.json(&["verify"]).ends(0);
}

#[test]
fn the_sockets_are_for_their_owner_in_a_directory_for_its_owner() {
    let home = TestHome::new();
    let up = Up::start(&home);
    let bits = |path: &str| fs::metadata(home.file(path)).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!((bits(""), bits("run")), (0o700, 0o700));
    for entry in fs::read_dir(home.file("run")).expect("a directory") {
        let name = format!("run/{}", entry.expect("an entry").file_name().display());
        assert_eq!(bits(&name), 0o600, "{name}");
    }
    drop(up);
}

#[test]
fn another_users_process_is_not_answered_on_any_socket_that_it_can_connect_to() {
    let Some(other) = Other::of("irc") else { return };
    if !Path::new("/usr/bin/python3").exists() {
        println!("SKIPPED: a client as another user needs /usr/bin/python3");
        return;
    }
    let home = TestHome::new();
    passable(&home);
    let up = Up::start(&home);
    // Handed out by somebody with the right to: the socket itself under a path that is open to all.
    let script = "import socket, sys\nwith socket.socket(socket.AF_UNIX) as s:\n    s.settimeout(10)\n    \
                  s.connect(sys.argv[1])\n    s.sendall(bytes([3, 0, 0, 0, 0, 0, 1]))\n    \
                  print('answered' if s.recv(1) else 'closed')";
    for name in ["monitor.sock", "gateway.sock"] {
        let open = home.beside(name);
        fs::hard_link(home.file("run").join(name), &open).expect("another name of the socket");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).expect("its mode");
        let ask = |uid: u32, gid: u32| {
            let mut python = std::process::Command::new("/usr/bin/python3");
            let output = python.args(["-c", script]).arg(&open).uid(uid).gid(gid).output().expect("python starts");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            // Closed at once, or before the request was read.
            if said.contains("ConnectionResetError") || said.contains("BrokenPipeError") {
                return "closed".to_owned();
            }
            assert!(output.status.success(), "{said}");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        assert_eq!(ask(0, 0), "answered", "{name} answers its owner");
        assert_eq!(ask(other.uid, other.gid), "closed", "{name} answers a stranger");
    }
    drop(up);
    home.json(&["verify"]).ends(0);
}

#[test]
fn a_home_that_was_loosened_is_refused_with_the_command_that_mends_it() {
    let home = TestHome::new();
    for loose in [0o755, 0o711, 0o750, 0o701] {
        mode(&home.root(), loose);
        for arguments in [&["up"][..], &["status"], &["wrap", "--agent", "support", "--", "true"], &["verify"]] {
            let refused = home.amc(arguments);
            assert!(![0, 1].contains(&refused.code), "{loose:o}: {refused}");
            refused.says(&["chmod 700", &home.root().display().to_string()]);
        }
    }
    mode(&home.root(), 0o700);
    mode(&home.file("run"), 0o755);
    let refused = home.amc(&["up"]).ends(3);
    assert!(refused.stderr.contains("chmod 700") && refused.stderr.contains("/run"), "{refused}");
    mode(&home.file("run"), 0o700);
    drop(Up::start(&home));
}

#[test]
fn an_agent_that_goes_for_the_sockets_breaks_nothing_and_never_ends_valid() {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        println!("SKIPPED: the forging agent needs python3, which is not installed");
        return;
    }
    let home = TestHome::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/agents/forger.py").display().to_string();
    let root = home.root().display().to_string();
    let arguments = ["wrap", "--agent", "support", "--isolation", "none", "--", "python3", &script, &root];
    let answer = home.amc(&arguments).ends(0);
    let report: Value = serde_json::from_slice(&answer.stdout).expect("the agent's report");
    let mut reached = false;
    for socket in ["monitor", "gateway"] {
        if report[socket] != "closed" {
            reached = true;
            assert_eq!(report[socket]["broken_answered"], 0, "{report}");
        }
    }
    assert_eq!(home.evidence_of("session_open").len(), 1);
    assert_eq!(home.evidence_of("session_seal")[0]["fields"]["outcome"], "sealed");
    home.json(&["verify"]).ends(0);

    // An agent that can talk to the monitor's sockets could have invented its evidence.
    let run = home.json(&["run", "--agent", "support"]);
    if reached {
        assert_eq!((run.code, &run.data()["status"]), (1, &json!("INVALID")), "{run}");
        assert!(run.errors().iter().any(|code| code.starts_with("TRUST_BOUNDARY_")), "{run}");
    }
}

//! What a probe is told to try: names and numbers, and no secret.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use amc_core::digest::hex;
use amc_workspace::protocol::gateway::GatewayRequest;
use amc_workspace::protocol::holder::{HolderRequest, HomeId};
use amc_workspace::protocol::operator::{CosignRequest, OperatorRequest};
use amc_workspace::protocol::{Frame, PROTOCOL_VERSION, encode_frame};
use rustix::net::sockopt::socket_peercred;
use serde::Serialize;

/// Most files of one directory of the home that are tried, the newest by name.
const FILES_MAX: usize = 8;

/// Files that a home has or may have, wherever an agent would look first.
const FILES: &[&str] = &[
    "vault.amcvault",
    "studio/admin.token",
    "trust.policy",
    "amc.yaml",
    "amc.yaml.sig",
    "gateway.yaml",
    "gateway.yaml.sig",
    "users.yaml",
    "fleet.yaml",
    "bank.toml",
    "logs/evidence/checkpoint",
    "logs/audit/checkpoint",
];
/// Directories in which something could be created, and whose files are tried.
const DIRS: &[&str] = &[
    "",
    "run",
    "runs",
    "agents",
    "studio",
    "logs",
    "logs/evidence",
    "logs/evidence/segments",
    "logs/evidence/payloads",
    "logs/evidence/tile",
    "logs/audit",
    "logs/audit/segments",
    "logs/audit/payloads",
    "logs/audit/tile",
];

/// A private socket, and what to ask there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ask {
    /// Its name in the home.
    pub socket: String,
    /// A request for a signature in the socket's protocol, in hex.
    pub bytes: String,
}

/// What a probe tries, beside what it finds by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Targets {
    /// Files of the home, relative to it.
    pub files: Vec<String>,
    /// Directories of the home; the empty name is the home itself.
    pub dirs: Vec<String>,
    /// Private sockets.
    pub sockets: Vec<Ask>,
    /// Trusted processes: name and number.
    pub trusted: Vec<(String, i32)>,
    /// Directories in which secrets may lie about, beside the agent's own.
    pub look: Vec<PathBuf>,
    /// Users whose session buses and container engines are tried beside the agent's own.
    pub users: Vec<u32>,
    /// Whether the numbers may be those of another machine or namespace.
    pub elsewhere: bool,
}

impl Targets {
    /// The home as it is now, its sockets, whoever listens there, and this very process.
    pub fn of(home: &Path) -> Self {
        let mut files: Vec<String> = FILES.iter().map(|name| (*name).to_owned()).collect();
        for dir in DIRS.iter().filter(|dir| !dir.is_empty()) {
            files.extend(newest(home, dir).into_iter().filter(|name| !FILES.contains(&name.as_str())));
        }
        let sockets = sockets(home);
        let mut trusted: Vec<(String, i32)> =
            sockets.iter().filter_map(|ask| listener(&home.join(&ask.socket))).collect();
        trusted.extend(process(std::process::id().try_into().unwrap_or(0)));
        trusted.sort();
        trusted.dedup();
        Targets {
            files,
            dirs: DIRS.iter().map(|name| (*name).to_owned()).collect(),
            sockets,
            trusted,
            look: std::env::var_os("HOME").map(PathBuf::from).into_iter().collect(),
            users: vec![rustix::process::geteuid().as_raw()],
            elsewhere: false,
        }
    }

    /// What is tried where the agent runs and AMC does not start it: the names that every home has.
    pub fn elsewhere(home: &Path, trusted: Vec<(String, i32)>) -> Self {
        let sockets = ["monitor.sock", "gateway.sock", "auditor.sock"];
        Targets {
            files: FILES.iter().map(|name| (*name).to_owned()).collect(),
            dirs: DIRS.iter().map(|name| (*name).to_owned()).collect(),
            sockets: sockets.map(|name| Ask { bytes: request(home, name), socket: format!("run/{name}") }).into(),
            trusted,
            look: Vec::new(),
            users: Vec::new(),
            elsewhere: true,
        }
    }

    /// Adds a trusted process that listens nowhere.
    pub fn trust(&mut self, pid: Option<i32>) {
        let process = pid.and_then(process).filter(|process| !self.trusted.contains(process));
        self.trusted.extend(process);
    }
}

fn newest(home: &Path, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(home.join(dir)).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().rev().take(FILES_MAX).map(|name| format!("{dir}/{name}")).collect()
}

/// Every socket of the home, with a request that only a trusted process should have answered.
fn sockets(home: &Path) -> Vec<Ask> {
    let entries = fs::read_dir(home.join("run")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter(|name| name.ends_with(".sock")).chain(["monitor.sock".into(), "gateway.sock".into()]).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| Ask { bytes: request(home, &name), socket: format!("run/{name}") }).collect()
}

/// The monitor is asked to cosign, the gateway's channel for what it starts with, the process that holds
/// the auditor's keys how it stands, and a socket that is not known here is greeted.
fn request(home: &Path, socket: &str) -> String {
    match (socket, HomeId::of(home)) {
        ("monitor.sock", _) => {
            let cosign = CosignRequest { note: String::new(), old_size: 0, proof: Vec::new() };
            greeting() + &frame(1, OperatorRequest::Cosign(cosign))
        }
        ("gateway.sock", _) => frame(0, GatewayRequest::Hello { protocol: PROTOCOL_VERSION }),
        ("auditor.sock", Ok(home)) => frame(0, HolderRequest::Hello { protocol: PROTOCOL_VERSION, home }),
        _ => greeting(),
    }
}

/// The first message of every private socket.
pub(super) fn greeting() -> String {
    frame(0, OperatorRequest::Hello { protocol: PROTOCOL_VERSION })
}

fn frame(id: u64, body: impl Serialize) -> String {
    hex(&encode_frame(&Frame { id, body }).expect("a few bytes fit in a frame"))
}

/// Who listens at a socket.
fn listener(socket: &Path) -> Option<(String, i32)> {
    let stream = UnixStream::connect(socket).ok()?;
    process(socket_peercred(stream).ok()?.pid.as_raw_nonzero().get())
}

fn process(pid: i32) -> Option<(String, i32)> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((name.trim_end().to_owned(), pid))
}

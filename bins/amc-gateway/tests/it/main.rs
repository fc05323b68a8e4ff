//! The binary as people and `amc` start it: what it prints, and how it ends.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use amc_testkit::{Program, binary};
use amc_workspace::protocol::gateway::{GatewayReply, GatewayRequest, Welcome};
use amc_workspace::protocol::{Connection, Frame, read_frame, write_frame};

/// A home directory with nothing but the place for sockets.
fn home(dir: &Path) -> std::path::PathBuf {
    let home = dir.join("home");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home.join("run")).unwrap();
    home
}

/// The monitor's side of the socket, as far as a gateway without agents needs it.
fn monitor(home: &Path, config: &str) {
    let listener = UnixListener::bind(home.join("run/gateway.sock")).unwrap();
    let welcome = Welcome {
        config: config.to_owned(),
        config_version: 1,
        config_state: amc_core::kinds::ConfigState::Signed,
        secrets: Vec::new(),
        commitment_key: amc_core::Digest::ZERO,
        monitor_key: String::new(),
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut reader, mut writer) = Connection::new(stream.unwrap()).unwrap().split();
            let welcome = welcome.clone();
            std::thread::spawn(move || {
                while let Ok(Some(Frame { id, body })) = read_frame::<GatewayRequest>(&mut reader) {
                    let body = match body {
                        GatewayRequest::Hello { .. } => GatewayReply::Welcome(Box::new(welcome.clone())),
                        _ => GatewayReply::Done,
                    };
                    write_frame(&mut writer, &Frame { id, body }).unwrap();
                }
            });
        }
    });
}

fn gateway(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("amc-gateway"));
    command.args(arguments).env_remove("AMC_HOME");
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = gateway(arguments).output().unwrap();
    assert!(stdout.is_empty(), "nothing but the ready line goes to stdout");
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn it_says_where_it_listens_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    monitor(&home, "listen: 127.0.0.1:0\nproviders: {}\n");
    let mut gateway = Program::start(&mut gateway(&["start", "--home", home.to_str().unwrap()]));
    assert_ne!(gateway.listening().port(), 0);
    std::net::TcpStream::connect(gateway.listening()).unwrap();
    assert!(Command::new("kill").args(["-TERM", &gateway.id().to_string()]).status().unwrap().success());
    assert_eq!(gateway.child().wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    gateway.stdout().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn a_closed_stdout_does_not_stop_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    monitor(&home, "providers: {}\n");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = gateway(&["start", "--home", home.to_str().unwrap(), "--listen", &port.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    while std::net::TcpStream::connect(port).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it listened");
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_missing_is_one_sentence_and_an_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = run(&["start", "--home", dir.path().join("nowhere").to_str().unwrap()]);
    assert_eq!((code, text.lines().count()), (Some(2), 1), "{text}");
    assert!(text.contains("no AMC home at") && text.contains("amc init"), "{text}");
    let home = home(dir.path());
    let (code, text) = run(&["start", "--home", home.to_str().unwrap()]);
    assert_eq!((code, text.lines().count()), (Some(3), 1), "{text}");
    assert!(text.contains("run/gateway.sock") && text.contains("amc up"), "{text}");
    assert_eq!(run(&["start", "--listen", "nonsense"]).0, Some(2));
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    monitor(&home, "providers: {}\n");
    let (code, text) = run(&["start", "--home", home.to_str().unwrap(), "--listen", &address]);
    assert_eq!((code, text.lines().count()), (Some(3), 1), "{text}");
    assert!(text.contains(&address) && text.contains("in use") && text.contains("--listen"), "{text}");
}

/// Started by root, it runs as its own user where there is one, and hears the monitor's end all the same.
#[test]
fn root_starts_it_as_its_own_user() {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n"
        || !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success())
    {
        println!("SKIPPED: the gateway's own user: only root may become another");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = home(dir.path());
    monitor(&home, "listen: 127.0.0.1:0\nproviders: {}\n");
    std::fs::write(home.join("vault.amcvault"), "keys").unwrap();
    // A machine with such a user, for this process alone.
    let passwd = dir.path().join("passwd");
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let others = users.lines().filter(|line| !line.starts_with("amc-gateway:")).collect::<Vec<_>>().join("\n");
    std::fs::write(&passwd, format!("{others}\namc-gateway:x:64321:64322::/nonexistent:/usr/sbin/nologin\n")).unwrap();
    let script = "mount --bind \"$0\" /etc/passwd && exec \"$1\" start --home \"$2\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(&passwd).arg(binary("amc-gateway")).arg(&home);
    let mut gateway = Program::start(command.env_remove("AMC_HOME"));
    std::net::TcpStream::connect(gateway.listening()).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let line = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!((line("Uid:"), line("Gid:")), (vec!["64321"; 4], vec!["64322"; 4]));
    assert_eq!(
        (line("Groups:"), line("CapEff:"), line("CapPrm:")),
        (vec![], vec!["0000000000000000"], vec!["0000000000000000"])
    );
    assert_eq!(line("NoNewPrivs:"), ["1"]);
    let read = Command::new("setpriv")
        .args(["--reuid", "64321", "--regid", "64322", "--clear-groups", "cat"])
        .arg(home.join("vault.amcvault"))
        .output()
        .unwrap();
    assert!(!read.status.success(), "its user reads the home");
    assert!(Command::new("kill").args(["-TERM", &gateway.id().to_string()]).status().unwrap().success());
    assert_eq!(gateway.child().wait().unwrap().code(), Some(0));
}

//! Sockets of trusted processes, of container engines and of session buses.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use amc_core::digest::hex;
use amc_core::kinds::ProbeTarget;

use super::{Got, Out, refused};
use crate::plan::Targets;

/// Container engines' sockets; whoever speaks to one can do anything on the machine.
const ENGINES: &[&str] = &[
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
];
/// The same of an engine without root, below `/run/user/UID`.
const OWN_ENGINES: &[&str] = &["docker.sock", "podman/podman.sock", "containerd/containerd.sock"];
/// Session buses and what starts programs there.
const BUSES: &[&str] = &["bus", "systemd/private"];
/// A socket that answers at all does so at once.
const ANSWER: Duration = Duration::from_secs(10);

pub(super) fn try_all(out: &mut Out, home: &Path, targets: &Targets) -> io::Result<()> {
    let known: BTreeSet<&str> = targets.sockets.iter().map(|ask| ask.socket.as_str()).collect();
    for ask in &targets.sockets {
        let path = home.join(&ask.socket);
        out.attempt(ProbeTarget::SigningSocket, format!("connect to {}", ask.socket), connect(&path))?;
        let asked = ask_for(&path, &ask.bytes);
        out.attempt(ProbeTarget::SigningSocket, format!("ask {} for a signature", ask.socket), asked)?;
    }
    // Whatever else listens there.
    for entry in fs::read_dir(home.join("run")).into_iter().flatten().flatten() {
        let name = format!("run/{}", entry.file_name().display());
        if name.ends_with(".sock") && !known.contains(name.as_str()) {
            out.attempt(ProbeTarget::SigningSocket, format!("connect to {name}"), connect(&entry.path()))?;
        }
    }
    let own = rustix::process::geteuid().as_raw();
    let users: BTreeSet<u32> = targets.users.iter().copied().chain([own]).collect();
    let below = |names: &'static [&'static str]| {
        users.iter().flat_map(move |uid| names.iter().map(move |name| format!("/run/user/{uid}/{name}")))
    };
    let named = std::env::var("DOCKER_HOST").ok();
    let named = named.iter().filter_map(|text| text.strip_prefix("unix://")).map(str::to_owned);
    for path in ENGINES.iter().map(|path| (*path).to_owned()).chain(below(OWN_ENGINES)).chain(named) {
        out.attempt(ProbeTarget::ContainerEngine, format!("connect to {path}"), connect(Path::new(&path)))?;
    }
    for path in below(BUSES) {
        out.attempt(ProbeTarget::SessionBus, format!("connect to {path}"), connect(&PathBuf::from(&path)))?;
    }
    for name in abstract_buses() {
        out.attempt(ProbeTarget::SessionBus, format!("log in at @{name}"), log_in(&name))?;
    }
    Ok(())
}

fn connect(path: &Path) -> Got {
    UnixStream::connect(path).map_or_else(|error| failed(&error), |_| Got::Reached)
}

fn failed(error: &io::Error) -> Got {
    if error.kind() == io::ErrorKind::ConnectionRefused { Got::Absent } else { refused(error) }
}

/// Sends a request in the private protocol; any answer means that it is served here.
fn ask_for(path: &Path, bytes: &str) -> Got {
    let Some(request) = unhex(bytes) else { return Got::Unclear };
    match UnixStream::connect(path) {
        Err(error) => failed(&error),
        Ok(stream) => answered(stream, &request).map_or_else(|error| refused(&error), |answer| answer.0),
    }
}

fn answered(mut stream: UnixStream, request: &[u8]) -> io::Result<(Got, Vec<u8>)> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(request)?;
    let mut answer = [0; 64];
    match stream.read(&mut answer) {
        Ok(0) => Ok((Got::Denied, Vec::new())),
        Ok(read) => Ok((Got::Reached, answer[..read].to_vec())),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Ok((Got::Unclear, Vec::new()))
        }
        Err(error) => Err(error),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

/// Names without a file, which no mount hides: only a network namespace does.
fn abstract_buses() -> Vec<String> {
    let listed = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split_whitespace().nth(7)?.strip_prefix('@'));
    let buses = names.filter(|name| name.contains("dbus"));
    buses.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().take(8).collect()
}

/// A bus takes connections from anybody, and messages from whom it lets log in.
fn log_in(name: &str) -> Got {
    let stream = SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address));
    let uid = rustix::process::geteuid().as_raw().to_string();
    let hello = format!("\0AUTH EXTERNAL {}\r\n", hex(uid.as_bytes()));
    match stream.and_then(|stream| answered(stream, hello.as_bytes())) {
        Ok((Got::Reached, answer)) if answer.starts_with(b"OK") => Got::Reached,
        Ok((Got::Reached, _)) => Got::Denied,
        Ok((got, _)) => got,
        Err(error) => failed(&error),
    }
}

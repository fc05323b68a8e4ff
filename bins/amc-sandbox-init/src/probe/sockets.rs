//! Sockets of trusted processes, container engines and the session bus.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use amc_core::kinds::ProbeTarget;

use super::{Got, Out, refused};

/// Container engines' sockets; whoever speaks to one can do anything on the machine.
const ENGINES: &[&str] = &[
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
];

pub(super) fn try_all(out: &mut Out, home: &Path) -> io::Result<()> {
    for name in ["run/monitor.sock", "run/gateway.sock"] {
        out.attempt(ProbeTarget::SigningSocket, format!("connect to {name}"), connect(&home.join(name)))?;
    }
    for path in ENGINES {
        out.attempt(ProbeTarget::ContainerEngine, format!("connect to {path}"), connect(Path::new(path)))?;
    }
    let uid = rustix::process::geteuid().as_raw();
    for path in [format!("/run/user/{uid}/bus"), format!("/run/user/{uid}/systemd/private")] {
        out.attempt(ProbeTarget::SessionBus, format!("connect to {path}"), connect(&PathBuf::from(&path)))?;
    }
    Ok(())
}

fn connect(path: &Path) -> Got {
    match UnixStream::connect(path) {
        Ok(_) => Got::Reached,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Got::Absent,
        Err(error) => refused(&error),
    }
}

//! Descriptors that somebody left open: files of the home, connections, processes, and directories
//! through which the home can be reached although it is hidden.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use amc_core::kinds::ProbeTarget;
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use serde::Serialize;

use super::files::read_some;
use super::{Attempt, Got, Line, Out};

/// One descriptor; the trusted side knows what its file is.
#[derive(Debug, Serialize)]
pub(crate) struct Descriptor {
    /// Its number.
    number: i32,
    /// What `/proc` shows of it.
    shown: String,
    /// The file's device.
    dev: u64,
    /// The file's inode.
    ino: u64,
    /// For a Unix socket the names at its two ends, where they have one.
    ends: Vec<PathBuf>,
    /// Whether it stands for a process.
    process: bool,
}

/// More than any process that starts an agent leaves open.
const MOST: usize = 256;
/// More than any path has directories.
const UPWARD: usize = 64;

/// Says what is open beside the three streams; gives the regular files that can be read.
pub(super) fn try_all(out: &mut Out, home: &Path) -> io::Result<Vec<(String, OwnedFd)>> {
    let mut readable = Vec::new();
    for number in inherited()? {
        let Ok(descriptor) = look_at(number) else { continue };
        // A duplicate of an own descriptor, without unsafe code.
        let own = pidfd_open(getpid(), PidfdFlags::empty())
            .and_then(|pidfd| pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()));
        let kind = fs::metadata(of(number)).map(|meta| meta.file_type());
        if let (Ok(own), Ok(kind)) = (own, kind) {
            if kind.is_dir() {
                through(out, &own, number, home)?;
            } else if kind.is_file() {
                readable.push((descriptor.shown.clone(), own));
            } else if kind.is_socket() {
                let ends = ends(&own);
                out.line(&Line::Descriptor(Descriptor { ends, ..descriptor }))?;
                continue;
            }
        }
        out.line(&Line::Descriptor(descriptor))?;
    }
    out.attempt(ProbeTarget::Descriptor, "look for descriptors left open", Got::Denied)?;
    Ok(readable)
}

fn of(number: i32) -> String {
    format!("/proc/self/fd/{number}")
}

/// Open descriptors but the streams and those of this very listing.
fn inherited() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc/self/fd")?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let numbers: Vec<i32> = numbers.filter(|number| *number > 2).take(MOST).collect();
    // The listing's own descriptor is closed by now.
    Ok(numbers.into_iter().filter(|number| fs::metadata(of(*number)).is_ok()).collect())
}

fn look_at(number: i32) -> io::Result<Descriptor> {
    let shown = fs::read_link(of(number))?.display().to_string();
    let meta = fs::metadata(of(number))?;
    let process = shown == "anon_inode:[pidfd]" || shown.starts_with("pidfd:");
    Ok(Descriptor { number, shown, dev: meta.dev(), ino: meta.ino(), ends: Vec::new(), process })
}

fn ends(socket: &OwnedFd) -> Vec<PathBuf> {
    use std::os::unix::net::UnixStream;
    // Only names are asked for; of a socket of another family there are none.
    let Ok(stream) = socket.try_clone().map(UnixStream::from) else { return Vec::new() };
    let names = [stream.local_addr(), stream.peer_addr()];
    names.into_iter().flatten().filter_map(|name| name.as_pathname().map(Path::to_owned)).collect()
}

/// A directory from outside leads everywhere outside.
fn through(out: &mut Out, directory: &OwnedFd, number: i32, home: &Path) -> io::Result<()> {
    let upward: PathBuf = std::iter::repeat_n("..", UPWARD).collect();
    let vault = upward.join(home.strip_prefix("/").unwrap_or(home)).join("vault.amcvault");
    let opened = openat(directory, vault, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let (got, bytes) = read_some(opened.map(File::from).map_err(io::Error::from));
    let subject = format!("read vault.amcvault by way of descriptor {number}");
    out.line(&Line::Attempt(Attempt { target: ProbeTarget::Vault, subject, got, bytes, decoy: None }))
}

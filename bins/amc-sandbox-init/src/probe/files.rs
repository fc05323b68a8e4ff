//! Files and directories of the home: to read, to write, to replace.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use amc_core::digest::hex;
use amc_core::kinds::ProbeTarget;
use rustix::fs::{Access, access};

use super::{Attempt, Got, Line, Out, refused};
use crate::plan::Targets;

/// Bytes of a file that are shown to the trusted side, to compare.
const SHOWN: u64 = 64;

pub(super) fn try_all(out: &mut Out, home: &Path, targets: &Targets) -> io::Result<()> {
    for name in &targets.files {
        let path = home.join(name);
        let (got, bytes) = read_some(File::open(&path));
        out.line(&Line::Attempt(Attempt {
            target: to_read(name),
            subject: format!("read {name}"),
            got,
            bytes,
            decoy: None,
        }))?;
        out.attempt(to_write(name), format!("write {name}"), open_to_write(&path))?;
    }
    for name in &targets.dirs {
        let path = home.join(name);
        let shown = if name.is_empty() { "the home" } else { name };
        let listed = fs::read_dir(&path).map_or_else(|error| refused(&error), |_| Got::Reached);
        out.attempt(ProbeTarget::HomeRead, format!("list {shown}"), listed)?;
        out.attempt(to_write(&format!("{name}/")), format!("create in {shown}"), writable_dir(&path))?;
    }
    out.attempt(ProbeTarget::HomeWrite, "put another directory in the home's place", replaceable(home))
}

/// What reading a file of the home would get at.
fn to_read(name: &str) -> ProbeTarget {
    match name {
        "vault.amcvault" => ProbeTarget::Vault,
        // Whoever has it speaks for the owner at the console.
        "studio/admin.token" => ProbeTarget::Passphrase,
        _ => ProbeTarget::HomeRead,
    }
}

/// What writing there would get at.
fn to_write(name: &str) -> ProbeTarget {
    if name.starts_with("logs/") { ProbeTarget::LogWrite } else { ProbeTarget::HomeWrite }
}

/// The beginning of a file, in hex.
pub(super) fn read_some(opened: io::Result<impl Read>) -> (Got, Option<String>) {
    let mut bytes = Vec::new();
    match opened.and_then(|file| file.take(SHOWN).read_to_end(&mut bytes)) {
        Ok(_) => (Got::Reached, Some(hex(&bytes))),
        Err(error) => (refused(&error), None),
    }
}

fn open_to_write(path: &Path) -> Got {
    match File::options().append(true).open(path) {
        Ok(_) => Got::Reached,
        Err(error) => refused(&error),
    }
}

fn writable_dir(path: &Path) -> Got {
    match access(path, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Got::Reached,
        Err(error) => refused(&error.into()),
    }
}

/// Whether the home's name could be given to another directory: its parent writable, the name not
/// protected by a sticky parent, and no mount standing there.
fn replaceable(home: &Path) -> Got {
    let parent = home.parent().unwrap_or(Path::new("/"));
    let (Ok(above), Ok(own)) = (fs::metadata(parent), fs::symlink_metadata(home)) else { return Got::Denied };
    let uid = rustix::process::geteuid().as_raw();
    let protected = above.mode() & 0o1000 != 0 && uid != above.uid() && uid != own.uid() && uid != 0;
    if access(parent, Access::WRITE_OK).is_ok() && !protected && above.dev() == own.dev() {
        Got::Reached
    } else {
        Got::Denied
    }
}

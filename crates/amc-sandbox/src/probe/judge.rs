//! From what a probe got to an outcome: the same is tried here, and what was read is compared.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use amc_core::digest::hex;
use amc_core::kinds::{ProbeAttempt, ProbeOutcome, ProbeTarget};

use super::targets::Targets;
use super::{Attempt, Descriptor, Got};

/// Most entries of a home that are told apart by their inodes.
const ENTRIES_MAX: usize = 65_536;
/// A socket that answers at all does so at once.
const ANSWER: Duration = Duration::from_secs(10);

/// What the control says of an attempt.
enum Control {
    /// The trusted side can do it; what it read, where it read.
    Works(Option<String>),
    /// There is nothing.
    Absent,
    /// It fails here too.
    Fails,
}

/// Knows the home and the trusted processes.
pub(super) struct Judge<'a> {
    home: &'a Path,
    targets: &'a Targets,
    /// What of the home an inode is.
    inodes: HashMap<(u64, u64), PathBuf>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(home: &'a Path, targets: &'a Targets) -> Self {
        Judge { home, targets, inodes: inodes(home) }
    }

    /// Decides one attempt.
    pub(super) fn attempt(&self, attempt: Attempt) -> ProbeAttempt {
        let Attempt { target, subject, got, bytes, decoy } = attempt;
        let outcome = match (got, self.control(target, &subject)) {
            // It read something: is it what is really there?
            (Got::Reached, Control::Works(Some(real))) if bytes.as_deref() != Some(real.as_str()) => {
                ProbeOutcome::Inconclusive
            }
            (Got::Reached, _) => ProbeOutcome::Reached,
            (Got::Unclear, _) | (_, Control::Fails) => ProbeOutcome::Inconclusive,
            (Got::Denied | Got::Absent, Control::Works(_)) => ProbeOutcome::Denied,
            (Got::Denied | Got::Absent, Control::Absent) => ProbeOutcome::Absent,
        };
        let (subject, outcome) = with_decoy(subject, target, outcome, decoy);
        ProbeAttempt { target, subject, outcome }
    }

    /// Decides what an open descriptor is.
    pub(super) fn descriptor(&self, descriptor: &Descriptor) -> ProbeAttempt {
        let Descriptor { number, shown, dev, ino, ends, process } = descriptor;
        let in_home = self.inodes.get(&(*dev, *ino)).map(|path| path.display().to_string());
        let end = ends.iter().find_map(|end| end.strip_prefix(self.home).ok()).map(|end| end.display().to_string());
        let (what, outcome) = match in_home.or(end) {
            Some(name) => (if name.is_empty() { "the home".to_owned() } else { name }, ProbeOutcome::Reached),
            None if *process => ("a process".to_owned(), ProbeOutcome::Reached),
            None => (shown.clone(), ProbeOutcome::Denied),
        };
        ProbeAttempt { target: ProbeTarget::Descriptor, subject: format!("descriptor {number} on {what}"), outcome }
    }

    fn control(&self, target: ProbeTarget, subject: &str) -> Control {
        match target {
            ProbeTarget::Vault | ProbeTarget::HomeRead | ProbeTarget::Passphrase => self.reading(subject),
            ProbeTarget::LogWrite | ProbeTarget::HomeWrite => self.writing(subject),
            ProbeTarget::SigningSocket => self.socket(subject),
            ProbeTarget::TrustedProcess => self.process(subject),
            ProbeTarget::ContainerEngine | ProbeTarget::SessionBus => match subject.strip_prefix("connect to ") {
                Some(path) => connected(Path::new(path)),
                // It is listed, so it is there.
                None => Control::Works(None),
            },
            // Nothing on the trusted side compares: what was refused was refused.
            ProbeTarget::Descriptor | ProbeTarget::Privilege | ProbeTarget::ProviderKey => Control::Works(None),
        }
    }

    fn reading(&self, subject: &str) -> Control {
        if let Some(name) = subject.strip_prefix("list ") {
            return entered(&self.path(name), |path| fs::read_dir(path).map(drop)).map_or_else(|it| it, Control::Works);
        }
        let name = subject.strip_prefix("read ").unwrap_or(subject);
        let name = name.split(" by way of ").next().unwrap_or(name);
        let mut bytes = Vec::new();
        let read = |path: &Path| File::open(path).and_then(|file| file.take(64).read_to_end(&mut bytes)).map(drop);
        match entered(&self.path(name), read) {
            Ok(_) => Control::Works(Some(hex(&bytes))),
            Err(control) => control,
        }
    }

    fn writing(&self, subject: &str) -> Control {
        let name = ["write ", "create in "].iter().find_map(|prefix| subject.strip_prefix(prefix));
        let path = name.map_or_else(|| self.home.to_owned(), |name| self.path(name));
        let access = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(io::Error::from);
        entered(&path, access).map_or_else(|control| control, Control::Works)
    }

    fn socket(&self, subject: &str) -> Control {
        if let Some(name) = subject.strip_prefix("connect to ") {
            return connected(&self.home.join(name));
        }
        let asked = self.targets.sockets.iter().find(|ask| subject.contains(ask.socket.as_str()));
        let Some(ask) = asked else { return Control::Fails };
        let Ok(stream) = UnixStream::connect(self.home.join(&ask.socket)) else { return Control::Absent };
        // A socket that answers nobody can still be spoken to.
        let quiet = ask.bytes == super::targets::greeting();
        if quiet || answers(stream, &ask.bytes).unwrap_or(false) { Control::Works(None) } else { Control::Fails }
    }

    fn process(&self, subject: &str) -> Control {
        let named = self.targets.trusted.iter().find(|(name, _)| subject.ends_with(&format!(" {name}")));
        let pid = named.and_then(|(_, pid)| rustix::process::Pid::from_raw(*pid));
        match pid.map(rustix::process::test_kill_process) {
            Some(Ok(())) => Control::Works(None),
            Some(Err(rustix::io::Errno::SRCH)) | None => Control::Absent,
            Some(Err(_)) => Control::Fails,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name == "the home" { self.home.to_owned() } else { self.home.join(name) }
    }
}

/// A refusal where the same works on a decoy is a refusal. Where the kernel closes a way towards
/// everybody, that is said; a signal that does not even reach a decoy says nothing.
fn with_decoy(
    subject: String,
    target: ProbeTarget,
    outcome: ProbeOutcome,
    decoy: Option<Got>,
) -> (String, ProbeOutcome) {
    if outcome != ProbeOutcome::Denied || target != ProbeTarget::TrustedProcess || decoy == Some(Got::Reached) {
        (subject, outcome)
    } else if is_way_closed(target, &subject, decoy) {
        (format!("{subject} (closed towards a decoy too)"), outcome)
    } else {
        (subject, ProbeOutcome::Inconclusive)
    }
}

/// Whether a refusal says something, by what the same gave on a decoy.
pub(super) fn is_way_closed(target: ProbeTarget, subject: &str, decoy: Option<Got>) -> bool {
    target != ProbeTarget::TrustedProcess
        || match decoy {
            Some(Got::Reached) => true,
            Some(_) => !subject.starts_with("signal "),
            None => false,
        }
}

fn entered(path: &Path, attempt: impl FnOnce(&Path) -> io::Result<()>) -> Result<Option<String>, Control> {
    match attempt(path) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Control::Absent),
        Err(_) => Err(Control::Fails),
    }
}

fn connected(path: &Path) -> Control {
    match UnixStream::connect(path) {
        Ok(_) => Control::Works(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Control::Absent
        }
        Err(_) => Control::Fails,
    }
}

fn answers(mut stream: UnixStream, request: &str) -> io::Result<bool> {
    let pairs = request.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    let bytes: Vec<u8> = pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&bytes)?;
    Ok(stream.read(&mut [0])? == 1)
}

/// The home's entries by device and inode, and the directories above it: a descriptor is told by
/// what it is, since its path means little in another mount namespace.
fn inodes(home: &Path) -> HashMap<(u64, u64), PathBuf> {
    let mut found = HashMap::new();
    let mut waiting = vec![home.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let name = path.strip_prefix(home).unwrap_or(&path).to_owned();
        found.insert((meta.dev(), meta.ino()), name);
        if meta.is_dir() && found.len() < ENTRIES_MAX {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found
}

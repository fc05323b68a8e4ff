//! A user of its own for every agent that runs: uids that nobody else has now.
//!
//! A claim is a lock that the kernel lets go of when its holder ends, beside a look at who runs: a
//! uid with a process of its own is somebody else's.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// Where claims are; only root makes them.
const CLAIMS: &str = "/run/amc-uids";
/// Uids that systemd leaves to short-lived services; nobody else uses them.
const FREE_UIDS: std::ops::Range<u32> = 61_184..65_520;
/// Looked through for a free one.
const TRIES: usize = 256;

/// A uid and gid that no other agent has for as long as this lives.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// The user.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    _lock: Arc<File>,
}

/// A user that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// Somebody has it.
    #[error("{0} runs processes already; an agent needs a user of its own")]
    InUse(String),
    /// Every one of a range is taken.
    #[error("no user is free in the range of {0}")]
    Exhausted(String),
    /// The claim could not be made.
    #[error("{CLAIMS}: {0}")]
    Io(#[from] io::Error),
}

/// A user of its own for an agent of `name`: one of its subordinate uids where it has any, else its
/// own.
pub(crate) fn of_user(name: &str, own: (u32, u32)) -> Result<Claim, ClaimError> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (uids, gids) = (range(&read("/etc/subuid"), name), range(&read("/etc/subgid"), name));
    let Some(uids) = uids else {
        return claim(own.0, own.1)?.ok_or_else(|| ClaimError::InUse(format!("the user {name}")));
    };
    let gid_of = |uid: u32| match &gids {
        Some(gids) if uid - uids.start < gids.end - gids.start => gids.start + (uid - uids.start),
        _ => own.1,
    };
    first_free(uids.clone(), gid_of)?.ok_or_else(|| ClaimError::Exhausted(name.to_owned()))
}

/// A user that is nobody's.
pub(crate) fn of_nobody() -> Result<Claim, ClaimError> {
    let span = FREE_UIDS.end - FREE_UIDS.start;
    let first = FREE_UIDS.start + std::process::id() % span;
    let candidates = (first..FREE_UIDS.end).chain(FREE_UIDS.start..first);
    first_free(candidates, |uid| uid)?.ok_or_else(|| ClaimError::Exhausted("short-lived services".to_owned()))
}

fn first_free(uids: impl Iterator<Item = u32>, gid_of: impl Fn(u32) -> u32) -> Result<Option<Claim>, ClaimError> {
    for uid in uids.take(TRIES) {
        if let Some(claim) = claim(uid, gid_of(uid))? {
            return Ok(Some(claim));
        }
    }
    Ok(None)
}

/// The lock first, then the look: of two that come at once one has the lock and the other sees it.
fn claim(uid: u32, gid: u32) -> Result<Option<Claim>, ClaimError> {
    DirBuilder::new().recursive(true).mode(0o700).create(CLAIMS)?;
    let path = Path::new(CLAIMS).join(uid.to_string());
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) if !has_processes(uid) => Ok(Some(Claim { uid, gid, _lock: Arc::new(file) })),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn has_processes(uid: u32) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    // What owns the directory says little: of a process that cannot be traced it is root.
    let statuses = processes.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    let uids = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        Some(line.split_whitespace().any(|number| number.parse() == Ok(uid)))
    };
    statuses.filter_map(|status| uids(&status)).any(|it| it)
}

/// The first range of a user in the format of subuid(5): `name:first:count`.
fn range(text: &str, name: &str) -> Option<std::ops::Range<u32>> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (owner, first, count) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?);
        let end = u32::checked_add(first, count)?;
        // Never root, and never the number that means "nobody at all".
        (owner == name && first > 0 && count > 0 && end < u32::MAX).then_some(first..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_subordinate_uids_are_read() {
        let text = "alice:100000:65536\nbob:200000:10\nbob:300000:10\n";
        assert_eq!(range(text, "bob"), Some(200_000..200_010));
        assert_eq!(range(text, "carol"), None);
        for broken in ["bob", "bob:x:1", "bob:0:10", "bob:1:0", "bob:4294967290:10", "bob:-1:2", "bobby:1:1"] {
            assert_eq!(range(broken, "bob"), None, "{broken}");
        }
    }

    #[test]
    fn two_claims_at_once_are_two_users() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: only root gives users to agents");
            return;
        }
        let (first, second) = (of_nobody().expect("one is free"), of_nobody().expect("another is free"));
        assert_ne!(first.uid, second.uid);
        let taken = claim(first.uid, first.gid).expect("the directory is ours");
        assert!(taken.is_none(), "a claimed uid was claimed again");
        let uid = first.uid;
        drop(first);
        assert!(claim(uid, uid).expect("the directory is ours").is_some());
    }

    #[test]
    fn a_uid_with_processes_is_nobodys_to_have() {
        assert!(has_processes(rustix::process::geteuid().as_raw()));
    }
}

//! What an agent in namespaces sees: everything read-only, its work directory writable, `/tmp`,
//! `/run` and `/dev/shm` of its own, a fresh `/proc`, and no AMC home.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::geteuid;

use crate::enter;
use crate::plan::{Isolation, Plan};

/// Directories that are the agent's own, empty at its start.
const PRIVATE: &[(&str, u32)] = &[("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755), ("/dev/shm", 0o1777)];
/// What of `/run` programs need to find names on the network.
const RESOLVER: &str = "/run/systemd/resolve";

/// Makes the mounts. This process must be the first of new mount and pid namespaces.
pub(crate) fn set_up(plan: &Plan) -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    // First a /proc with this namespace's own numbers, to work with; the agent gets its own below.
    fresh_proc()?;
    // Cloned before anything hides them.
    let work = work_tree(plan)?;
    let mut kept = Vec::new();
    for path in plan.visible.iter().map(PathBuf::as_path).chain([Path::new(RESOLVER)]).filter(|path| path.exists()) {
        let path = fs::canonicalize(path)?;
        if PRIVATE.iter().any(|(dir, _)| path.starts_with(dir)) && !path.starts_with(&plan.work_dir) {
            let tree = clone_tree(&path)?;
            set_attributes(tree.as_fd(), c"", READ_ONLY, None, false)?;
            kept.push((path, tree));
        }
    }
    set_attributes(CWD, c"/", READ_ONLY | NO_SETUID, None, true)?;
    for (dir, mode) in PRIVATE.iter().filter(|(dir, _)| Path::new(dir).is_dir() && !Path::new(dir).is_symlink()) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), *dir, Some("tmpfs"), flags, Some(format!("mode={mode:o}").as_str()))?;
    }
    for (path, tree) in kept {
        make_place(&path)?;
        attach(&tree, &path)?;
    }
    make_dirs(&plan.work_dir)?;
    attach(&work, &plan.work_dir)?;
    mount_proc()?;
    hide(&plan.home)
}

fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, path, flags)?)
}

fn attach(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// The work directory, writable: for root under another uid, with its owner shown as that uid.
fn work_tree(plan: &Plan) -> io::Result<OwnedFd> {
    let tree = clone_tree(&plan.work_dir)?;
    let meta = fs::metadata(&plan.work_dir)?;
    let mut attributes = NO_SETUID;
    let mut mapping = None;
    if let Isolation::Namespaces { uid, gid } = plan.isolation
        && geteuid().is_root()
        && meta.uid() != uid
    {
        mapping = Some(enter::mapping((meta.uid(), meta.gid()), (uid, gid))?);
        attributes |= ID_MAP;
    }
    set_attributes(tree.as_fd(), c"", attributes, mapping.as_ref(), false)?;
    Ok(tree)
}

fn make_dirs(path: &Path) -> io::Result<()> {
    if path.is_dir() { Ok(()) } else { fs::create_dir_all(path) }
}

fn make_place(path: &Path) -> io::Result<()> {
    if path == Path::new(RESOLVER) {
        return make_dirs(path);
    }
    make_dirs(path.parent().unwrap_or(Path::new("/")))?;
    if path.exists() { Ok(()) } else { File::create(path).map(drop) }
}

fn fresh_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)?)
}

fn mount_proc() -> io::Result<()> {
    fresh_proc()?;
    let sys = clone_tree(Path::new("/proc/sys"))?;
    set_attributes(sys.as_fd(), c"", READ_ONLY, None, false)?;
    attach(&sys, Path::new("/proc/sys"))
}

/// An empty directory without any permission stands in the home's place.
fn hide(home: &Path) -> io::Result<()> {
    if !home.is_dir() {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("tmpfs"), home, Some("tmpfs"), flags, Some("mode=000,size=4k"))?;
    Ok(())
}

/// A directory of the agent's own for a `HOME` that it cannot use.
pub(crate) fn private_home(uid: u32, gid: u32) -> io::Result<PathBuf> {
    let path = PathBuf::from("/tmp/home");
    fs::create_dir(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
    Ok(path)
}

const READ_ONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NO_SETUID: u64 = libc::MOUNT_ATTR_NOSUID;
const ID_MAP: u64 = libc::MOUNT_ATTR_IDMAP;

/// `mount_setattr(2)`, which no crate that we use wraps.
#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper; the arguments live until it returns")]
fn set_attributes(
    at: impl AsFd,
    path: &CStr,
    attributes: u64,
    mapping: Option<&OwnedFd>,
    recursive: bool,
) -> io::Result<()> {
    let mapping_fd = mapping.map_or(0, |fd| fd.as_raw_fd().cast_unsigned());
    let change =
        libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: u64::from(mapping_fd) };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the descriptor is open, `path` ends in NUL, and `change` is a whole mount_attr whose
    // size is passed along; the kernel reads all three and keeps none of them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

//! Finding the executable that a command names, and what it is.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use amc_core::{Digest, limits};
use amc_crypto::hash::BodyHasher;

/// An executable, found and hashed before anything is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes; `None` when it may be run and not read.
    pub sha256: Option<Digest>,
}

/// A command that cannot be started, with the exit status that `env` gives.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// No such file, also not in `PATH` (127).
    #[error("{0}: command not found")]
    NotFound(String),
    /// The file is there and cannot be executed (126).
    #[error("{0}: cannot be executed: permission denied")]
    NotExecutable(String),
}

impl ResolveError {
    /// 127 or 126, as `env` has it.
    pub const fn exit_code(&self) -> u8 {
        match self {
            ResolveError::NotFound(_) => 127,
            ResolveError::NotExecutable(_) => 126,
        }
    }
}

/// Finds `command` as a shell would, and hashes it.
///
/// # Errors
/// [`ResolveError`] when there is nothing to start.
pub fn resolve(command: &OsStr, search_path: Option<&OsStr>) -> Result<Executable, ResolveError> {
    let shown = command.to_string_lossy().into_owned();
    let candidates: Vec<PathBuf> = if command.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(command)]
    } else {
        let dirs = search_path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
        std::env::split_paths(dirs).map(|dir| dir.join(command)).collect()
    };
    let present: Vec<&PathBuf> = candidates.iter().filter(|path| path.exists()).collect();
    let Some(path) = present.iter().find(|path| is_executable(path)) else {
        return Err(if present.is_empty() {
            ResolveError::NotFound(shown)
        } else {
            ResolveError::NotExecutable(shown)
        });
    };
    Ok(Executable { path: (**path).clone(), sha256: digest_of(path).ok() })
}

/// The argument vector as events record it: a bounded number of entries, each cut to a bound.
pub fn recorded_argv(argv: &[OsString]) -> Vec<String> {
    let cut = |entry: &OsString| {
        let text = entry.to_string_lossy();
        text[..text.floor_char_boundary(limits::ARGV_ENTRY_BYTES_MAX)].to_owned()
    };
    argv.iter().take(limits::ARGV_ENTRIES_MAX).map(cut).collect()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = BodyHasher::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish().0),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_found_and_hashed() {
        let found = resolve(OsStr::new("sh"), Some(OsStr::new("/usr/bin:/bin"))).expect("every machine has sh");
        assert_eq!(found.sha256, Some(amc_crypto::sha256(&std::fs::read(&found.path).expect("sh is readable"))));
    }

    #[test]
    fn what_is_not_there_is_127_and_what_cannot_run_is_126() {
        let missing = resolve(OsStr::new("no-such-command-here"), None).expect_err("not there");
        assert_eq!(missing.exit_code(), 127);
        let plain = resolve(OsStr::new("/etc/passwd"), None).expect_err("not executable");
        assert_eq!(plain.exit_code(), 126);
        let directory = resolve(OsStr::new("/etc"), None).expect_err("a directory");
        assert_eq!(directory.exit_code(), 126);
    }

    #[test]
    fn long_arguments_are_cut_at_a_character() {
        let argv = vec![OsString::from("é".repeat(limits::ARGV_ENTRY_BYTES_MAX)); limits::ARGV_ENTRIES_MAX + 5];
        let recorded = recorded_argv(&argv);
        assert_eq!(recorded.len(), limits::ARGV_ENTRIES_MAX);
        assert!(recorded.iter().all(|entry| entry.len() <= limits::ARGV_ENTRY_BYTES_MAX));
    }
}

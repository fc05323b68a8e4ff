//! Where a signer's passphrase comes from. Only `amc-monitor` and `amc-auditor` call this; `amc`
//! hands terminal, flag and variable on to them and reads none of it.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use amc_core::kinds::Role;
use amc_core::{Finding, FindingCode};
use zeroize::Zeroizing;

use crate::answer::Failure;

/// The variable, for machines without terminal and credentials.
pub const VARIABLE: &str = "AMC_VAULT_PASSPHRASE";
/// More than any passphrase; a whole file given by mistake is refused later.
const BYTES_MAX: u64 = 4096;

/// What the command line says about it.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// `--passphrase-file`; `-` is standard input.
    pub file: Option<PathBuf>,
    /// Ask twice, since it is new.
    pub is_new: bool,
}

/// Reads the passphrase of a role: the file, else `$CREDENTIALS_DIRECTORY/amc-<role>`, else the
/// variable, else a prompt without echo. The line ending is still there.
///
/// # Errors
/// [`Failure`] with `VAULT_LOCKED` when there is none of them.
pub fn read(role: Role, source: &Source) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if let Some(path) = &source.file {
        return read_file(path);
    }
    if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        let path = Path::new(&dir).join(format!("amc-{role}"));
        if path.exists() {
            return read_file(&path);
        }
    }
    if let Some(value) = std::env::var_os(VARIABLE) {
        return Ok(Zeroizing::new(value.into_encoded_bytes()));
    }
    prompt(role, source.is_new)
}

/// Reads a passphrase that is to take another's place: the file, else a prompt asked twice. No
/// variable and no credential, which hold the old one.
///
/// # Errors
/// [`Failure`] when there is neither file nor terminal.
pub fn read_new(role: Role, file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    match file {
        Some(path) => read_file(path),
        None if has_terminal() => prompt(role, true),
        None => Err(Failure::unable("there is no new passphrase: use --new-passphrase-file FILE or a terminal")),
    }
}

fn has_terminal() -> bool {
    (io::stdin().is_terminal() || io::stderr().is_terminal()) && File::open("/dev/tty").is_ok()
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if path == Path::new("-") {
        io::stdin().take(BYTES_MAX).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes))
    };
    let describe = |error| Failure::wrong(format!("the passphrase file {} cannot be read: {error}", path.display()));
    read.map(|_| bytes).map_err(describe)
}

fn prompt(role: Role, is_new: bool) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if !has_terminal() {
        let what = format!("the {role}'s compartment of the vault is locked and there is no passphrase");
        let how = format!("use --passphrase-file FILE, {VARIABLE}, or a terminal");
        let finding = Finding::error(FindingCode::VaultLocked, "vault.amcvault", &what);
        return Err(Failure::unable(format!("{what}: {how}")).with(finding));
    }
    let ask = |question: String| {
        let answer = rpassword::prompt_password(question);
        answer
            .map(|text| Zeroizing::new(text.into_bytes()))
            .map_err(|error| Failure::unable(format!("prompt: {error}")))
    };
    if !is_new {
        return ask(format!("Passphrase of the {role}: "));
    }
    let first = ask(format!("New passphrase of the {role}: "))?;
    let again = ask("The same again: ".to_owned())?;
    if first == again { Ok(first) } else { Err(Failure::wrong("the two passphrases differ; nothing was changed")) }
}

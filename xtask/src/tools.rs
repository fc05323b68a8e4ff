//! The programs that the checks need beyond the Rust toolchain: found, or installed by pinned version.
//!
//! What is present is left as it is. Debian packages are installed only by root on a machine with apt-get; elsewhere
//! the text says what to install.

use crate::workspace::cargo;
use crate::{Failure, process};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The version of cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// (what tells that it is there, the Debian package that brings it)
const DEBIAN: [(&[&str], &str); 5] = [
    // ring compiles C and assembly.
    (&["cc", "--version"], "build-essential"),
    (&["python3", "--version"], "python3"),
    // The real clients run in a virtual environment; Debian keeps ensurepip apart from python3.
    (&["python3", "-c", "import venv, ensurepip"], "python3-venv"),
    // Tests that other programs take part in are skipped without these.
    (&["python3", "-c", "import cryptography"], "python3-cryptography"),
    (&["curl", "--version"], "curl"),
];

/// Finds or installs everything.
///
/// # Errors
/// Something is missing and could not be installed; the text says how to install it by hand.
pub fn provide(root: &Path) -> Result<(), Failure> {
    let missing: Vec<&str> = DEBIAN.iter().filter(|(probe, _)| !answers(probe)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        println!("Debian packages: all present");
    } else {
        install_debian(&missing)?;
    }
    provide_cargo_deny(root)
}

fn provide_cargo_deny(root: &Path) -> Result<(), Failure> {
    let asked = process::capture(cargo(root).args(["deny", "--version"]), PROBE)?;
    if !asked.status.success() {
        println!("cargo-deny: installing {CARGO_DENY}");
        let mut install = cargo(root);
        install.args(["install", "cargo-deny", "--locked", "--version", CARGO_DENY]);
        return process::pass_through(&mut install);
    }
    let found = asked.stdout.trim();
    let note =
        if found.ends_with(CARGO_DENY) { "" } else { " (deny.toml is written for another, so results may differ)" };
    println!("{found}: present{note}");
    Ok(())
}

/// Debian packages that one step alone needs: whether what they bring is there now.
///
/// # Errors
/// The installation was tried and failed.
pub fn debian(probe: &[&str], packages: &[&str]) -> Result<bool, Failure> {
    if answers(probe) {
        return Ok(true);
    }
    if !answers(&["apt-get", "--version"]) || !is_root()? {
        return Ok(false);
    }
    install_debian(packages)?;
    Ok(answers(probe))
}

fn install_debian(packages: &[&str]) -> Result<(), Failure> {
    let by_hand = format!("install {} (Debian: apt-get install {})", packages.join(", "), packages.join(" "));
    if !answers(&["apt-get", "--version"]) || !is_root()? {
        return Err(Failure::new(format!("missing, and not to be installed from here: {by_hand}")));
    }
    println!("Debian packages: installing {}", packages.join(", "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    process::pass_through(apt().args(["update", "-q"]))?;
    let mut install = apt();
    install.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    process::pass_through(&mut install).map_err(|failure| failure.during(&by_hand))
}

/// Whether a program is there and ends with 0.
pub(crate) fn answers(probe: &[&str]) -> bool {
    let Some((program, args)) = probe.split_first() else { return false };
    process::capture(Command::new(program).args(args), PROBE).is_ok_and(|answer| answer.status.success())
}

fn is_root() -> Result<bool, Failure> {
    Ok(process::capture(Command::new("id").arg("-u"), PROBE)?.success()?.trim() == "0")
}

/// A question about a version takes milliseconds; a minute covers a cold, busy machine.
const PROBE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_does_not_answer() {
        assert!(answers(&["sh", "-c", "exit 0"]));
        assert!(!answers(&["sh", "-c", "exit 1"]));
        assert!(!answers(&["amc-no-such-program"]));
    }
}

//! `amc-monitor`: holds the monitor's keys and writes the evidence log.
//!
//! No network, and nothing here parses what an agent sent: keyless processes submit typed evidence
//! over private sockets, and this process builds, orders and signs the events.

#![forbid(unsafe_code)]

mod channels;
mod daemon;
mod gateway;
mod hourly;
mod init;
mod leases;
mod operator;
mod probes;
mod reindex;
mod rotate;
mod secrets;
mod sessions;
mod succeed;
mod unlock;
mod witness;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use amc_core::WorkspaceName;
use amc_workspace::Opening;
use amc_workspace::answer::{self, Answer, Failure};
use amc_workspace::call::{self, Common};
use clap::{Parser, Subcommand};

/// Holds the monitor's keys and writes the evidence log.
#[derive(Parser)]
#[command(name = "amc-monitor", bin_name = "amc", version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// The auditor's passphrase, where its compartment is touched and its passphrase is another.
    #[arg(long, global = true, value_name = "FILE")]
    auditor_passphrase_file: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Create the monitor's compartment and the evidence log in a home.
    Init {
        /// The workspace's name.
        #[arg(long)]
        name: WorkspaceName,
        /// Always monitor here.
        #[arg(long, value_parser = ["monitor"])]
        role: Option<String>,
    },
    /// Run in the foreground: take evidence until told to stop.
    Start {
        /// Stop when the last operator's connection ends.
        #[arg(long)]
        while_used: bool,
        /// Leave the terminal once the passphrase is read.
        #[arg(long, hide = true)]
        detach: bool,
    },
    /// Cosign the newest checkpoint of the audit log.
    Cosign,
    /// The evidence log.
    Ledger {
        #[command(subcommand)]
        verb: LedgerVerb,
    },
    /// Keys and secrets.
    Vault {
        #[command(subcommand)]
        verb: VaultVerb,
    },
}

#[derive(Subcommand)]
enum LedgerVerb {
    /// Rebuild the index and missing tiles; the log must not be open.
    Reindex {
        /// Always evidence here.
        #[arg(long, value_parser = ["evidence"], default_value = "evidence")]
        log: String,
    },
    /// End a log that cannot go on: begin the next evidence log, or record the next audit log.
    Succeed {
        /// Which log cannot go on.
        #[arg(long, value_parser = ["evidence", "audit"], default_value = "evidence")]
        log: String,
        /// The new audit log's key, compared with its owner; needed where the old one was revoked.
        #[arg(long, value_name = "VKEY")]
        key: Option<String>,
    },
}

#[derive(Subcommand)]
enum VaultVerb {
    /// Give a workspace the monitor's compartment that it lacks, and the evidence log.
    Init,
    /// Change the monitor's keys, or revoke a stolen one of the auditor's.
    RotateKeys(rotate::Plan),
    /// Provider keys, handed to the gateway and to nobody else.
    Secret {
        #[command(subcommand)]
        verb: SecretVerb,
    },
}

#[derive(Subcommand)]
enum SecretVerb {
    /// Set a secret such as provider/openai; the value is read from standard input.
    Set {
        /// Its name.
        name: String,
    },
    /// List the names.
    List,
    /// Remove a secret.
    Remove {
        /// Its name.
        name: String,
    },
}

fn main() -> ExitCode {
    let Cli { common, auditor_passphrase_file, verb } = match call::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let opening = Opening { home: common.home, passphrase_file: common.passphrase_file, ..Opening::default() };
    let (command, result) = run(verb, &opening, auditor_passphrase_file.as_deref(), common.json);
    answer::finish(command, common.json, result)
}

fn run(
    verb: Verb,
    opening: &Opening,
    auditor_file: Option<&Path>,
    json: bool,
) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::Init { name, role: _ } => ("init", init::init(opening, &name)),
        Verb::Start { .. } if json => {
            ("start", Err(Failure::wrong("start has no --json; it prints one line when ready")))
        }
        Verb::Start { while_used, detach } => ("start", daemon::start(opening, while_used, detach)),
        Verb::Cosign => ("cosign", witness::cosign_once(opening)),
        Verb::Ledger { verb: LedgerVerb::Reindex { log: _ } } => ("ledger reindex", reindex::reindex(opening)),
        Verb::Ledger { verb: LedgerVerb::Succeed { log, key } } => {
            ("ledger succeed", succeed::succeed(opening, &log, key.as_deref()))
        }
        Verb::Vault { verb: VaultVerb::Init } => ("vault init", init::add(opening)),
        Verb::Vault { verb: VaultVerb::RotateKeys(plan) } => {
            ("vault rotate-keys", rotate::rotate(opening, auditor_file, &plan))
        }
        Verb::Vault { verb: VaultVerb::Secret { verb } } => match verb {
            SecretVerb::Set { name } => ("vault secret set", secrets::set(opening, &name)),
            SecretVerb::List => ("vault secret list", secrets::list(opening)),
            SecretVerb::Remove { name } => ("vault secret remove", secrets::remove(opening, &name)),
        },
    }
}

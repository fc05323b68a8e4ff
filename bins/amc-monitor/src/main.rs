//! `amc-monitor`: holds the monitor's keys and writes the evidence log.
//!
//! No network, and nothing here parses what an agent sent: keyless processes submit typed evidence
//! over private sockets, and this process builds, orders and signs the events.

#![forbid(unsafe_code)]

mod channels;
mod daemon;
mod gateway;
mod init;
mod operator;
mod reindex;
mod secrets;
mod sessions;
mod unlock;
mod witness;

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
}

#[derive(Subcommand)]
enum VaultVerb {
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
    let Cli { common, verb } = match call::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let opening = Opening { home: common.home, passphrase_file: common.passphrase_file, ..Opening::default() };
    let (command, result) = run(verb, &opening, common.json);
    answer::finish(command, common.json, result)
}

fn run(verb: Verb, opening: &Opening, json: bool) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::Init { name, role: _ } => ("init", init::init(opening, &name)),
        Verb::Start { .. } if json => {
            ("start", Err(Failure::wrong("start has no --json; it prints one line when ready")))
        }
        Verb::Start { while_used } => ("start", daemon::start(opening, while_used)),
        Verb::Cosign => ("cosign", witness::cosign_once(opening)),
        Verb::Ledger { verb: LedgerVerb::Reindex { log: _ } } => ("ledger reindex", reindex::reindex(opening)),
        Verb::Vault { verb: VaultVerb::Secret { verb } } => match verb {
            SecretVerb::Set { name } => ("vault secret set", secrets::set(opening, &name)),
            SecretVerb::List => ("vault secret list", secrets::list(opening)),
            SecretVerb::Remove { name } => ("vault secret remove", secrets::remove(opening, &name)),
        },
    }
}

//! `amc-auditor`: holds the auditor's keys and writes the audit log.
//!
//! It signs targets, configurations, runs and bundles, and cosigns the evidence log. It never talks
//! to an agent or a network; the evidence it scores is read from a log that it verifies first.

#![forbid(unsafe_code)]

mod configs;
mod export;
mod init;
mod logs;
mod monitor;
mod reindex;
mod run;
mod unlock;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use amc_workspace::Opening;
use amc_workspace::answer;
use amc_workspace::call::{self, Common};
use clap::{Parser, Subcommand, ValueEnum};

/// Holds the auditor's keys: scores, seals and signs.
#[derive(Parser)]
#[command(name = "amc-auditor", bin_name = "amc", version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// The auditor's passphrase, where it is not the one above.
    #[arg(long, global = true, value_name = "FILE")]
    auditor_passphrase_file: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Create a workspace.
    Init(init::Plan),
    /// Cosign the newest checkpoint of the evidence log.
    Cosign {
        /// The evidence log, where it is not in this home.
        #[arg(long, value_name = "DIR")]
        evidence: Option<PathBuf>,
    },
    /// Score an agent's evidence, seal the report, record it.
    Run(run::Plan),
    /// The audit log.
    Ledger {
        #[command(subcommand)]
        verb: LedgerVerb,
    },
    /// Portable evidence.
    Bundle {
        #[command(subcommand)]
        verb: BundleVerb,
    },
    /// Signed configuration.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// The gateway's configuration.
    Gateway {
        #[command(subcommand)]
        verb: GatewayVerb,
    },
}

#[derive(Subcommand)]
enum LedgerVerb {
    /// Rebuild the index and missing tiles; the log must not be open.
    Reindex {
        /// Always audit here.
        #[arg(long, value_parser = ["audit"], default_value = "audit")]
        log: String,
    },
}

#[derive(Subcommand)]
enum BundleVerb {
    /// Write a run with its evidence into one file.
    Export(export::Plan),
}

#[derive(Subcommand)]
enum ConfigVerb {
    /// Sign a file of the workspace as its next version.
    Sign {
        /// Path, relative to the workspace's directory.
        path: String,
    },
}

#[derive(Subcommand)]
enum GatewayVerb {
    /// Write and sign gateway.yaml.
    Init {
        /// Where agents reach the gateway.
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
        /// Add or replace a provider.
        #[arg(long = "provider", value_name = "NAME=BASE_URL")]
        providers: Vec<String>,
    },
}

/// Whose part of a workspace is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InitRole {
    /// Both.
    All,
    /// The monitor's.
    Monitor,
    /// The auditor's.
    Auditor,
}

fn main() -> ExitCode {
    let Cli { common, auditor_passphrase_file, verb } = match call::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let auditor_file = auditor_passphrase_file;
    let opening = Opening {
        home: common.home.clone(),
        passphrase_file: auditor_file.clone().or_else(|| common.passphrase_file.clone()),
        monitor_passphrase_file: common.passphrase_file.clone().filter(|_| auditor_file.is_some()),
    };
    let (command, result) = match verb {
        Verb::Init(plan) => {
            let monitor = Opening { home: common.home, passphrase_file: common.passphrase_file, ..Opening::default() };
            ("init", init::init(&monitor, auditor_file.as_deref(), &plan))
        }
        Verb::Cosign { evidence } => ("cosign", logs::cosign_once(&opening, evidence.as_deref())),
        Verb::Run(plan) => ("run", run::run(&opening, &plan)),
        Verb::Ledger { verb: LedgerVerb::Reindex { log: _ } } => ("ledger reindex", reindex::reindex(&opening)),
        Verb::Bundle { verb: BundleVerb::Export(plan) } => ("bundle export", export::export(&opening, &plan)),
        Verb::Config { verb: ConfigVerb::Sign { path } } => ("config sign", configs::sign(&opening, &path)),
        Verb::Gateway { verb: GatewayVerb::Init { listen, providers } } => {
            ("gateway init", configs::gateway_init(&opening, listen, &providers))
        }
    };
    answer::finish(command, common.json, result)
}

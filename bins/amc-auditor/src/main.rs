//! `amc-auditor`: holds the auditor's keys and writes the audit log.
//!
//! It signs targets, configurations, runs and bundles, and cosigns the evidence log. It never talks
//! to an agent or a network; the evidence it scores is read from a log that it verifies first. A verb
//! that needs keys is carried out by the process that holds them, where there is one.

#![forbid(unsafe_code)]

mod attest;
mod certify;
mod configs;
mod export;
mod holder;
mod init;
mod logs;
mod monitor;
mod reindex;
mod run;
mod succeed;
mod targets;
mod unlock;
mod vault;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use amc_workspace::answer;
use amc_workspace::call::{self, Common};
use amc_workspace::{Answer, Failure, Opening};
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
    /// Issue a certificate for a run that passes a gate policy.
    Certify(certify::Plan),
    /// Certificates.
    Cert {
        #[command(subcommand)]
        verb: CertVerb,
    },
    /// Judge a bundle and sign the verdict.
    Gate(certify::GatePlan),
    /// Say that evidence that was handed in is what it says.
    Attest(attest::Plan),
    /// Record that an agent's trust boundary is in order from now on.
    Epoch(attest::EpochPlan),
    /// Target profiles.
    Target {
        #[command(subcommand)]
        verb: TargetVerb,
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
    /// Keys.
    Vault {
        #[command(subcommand)]
        verb: vault::VaultVerb,
    },
    /// Hold the auditor's keys in the foreground, for the other verbs, until told to stop.
    Hold(holder::Plan),
}

impl Verb {
    /// Whether a process that holds the keys carries it out. What makes keys, changes them or looks
    /// after the log's files is done by the process that was called.
    const fn is_carried(&self) -> bool {
        !matches!(self, Verb::Init(_) | Verb::Ledger { .. } | Verb::Vault { .. } | Verb::Hold(_))
    }
}

#[derive(Subcommand)]
enum LedgerVerb {
    /// Rebuild the index and missing tiles; the log must not be open.
    Reindex {
        /// Always audit here.
        #[arg(long, value_parser = ["audit"], default_value = "audit")]
        log: String,
    },
    /// End a log that cannot go on, and begin the next one beside it.
    Succeed(Box<succeed::Plan>),
}

#[derive(Subcommand)]
enum BundleVerb {
    /// Write a run with its evidence into one file.
    Export(export::Plan),
}

#[derive(Subcommand)]
enum CertVerb {
    /// Record that a certificate counts no longer, and write the signed file that says so.
    Revoke(certify::RevokePlan),
}

#[derive(Subcommand)]
enum TargetVerb {
    /// Check a target profile, sign it and put it in force.
    Set(targets::Plan),
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
        /// Where agents reach the egress proxy.
        #[arg(long, value_name = "ADDR")]
        proxy_listen: Option<SocketAddr>,
        /// Add or replace a provider; one with a known address needs only its name.
        #[arg(long = "provider", value_name = "NAME[=BASE_URL]")]
        providers: Vec<String>,
        /// Let the egress proxy go there; may be given more than once.
        #[arg(long = "allow", value_name = "HOST:PORT")]
        allow: Vec<String>,
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
            ("init".to_owned(), init::init(&monitor, auditor_file.as_deref(), &plan))
        }
        Verb::Hold(_) if common.json => {
            ("hold".to_owned(), Err(Failure::wrong("hold has no --json; it prints one line when ready")))
        }
        Verb::Hold(plan) => ("hold".to_owned(), holder::hold(&opening, &plan)),
        verb => match verb.is_carried().then(|| holder::carry(&opening)).flatten() {
            Some(carried) => carried,
            None => {
                let (command, result) = carry_out(verb, &opening);
                (command.to_owned(), result)
            }
        },
    };
    answer::finish(&command, common.json, result)
}

/// Carries out a verb in this process.
fn carry_out(verb: Verb, opening: &Opening) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        Verb::Cosign { evidence } => ("cosign", logs::cosign_once(opening, evidence.as_deref())),
        Verb::Run(plan) => ("run", run::run(opening, &plan)),
        Verb::Ledger { verb: LedgerVerb::Reindex { log: _ } } => ("ledger reindex", reindex::reindex(opening)),
        Verb::Ledger { verb: LedgerVerb::Succeed(plan) } => ("ledger succeed", succeed::succeed(opening, &plan)),
        Verb::Bundle { verb: BundleVerb::Export(plan) } => ("bundle export", export::export(opening, &plan)),
        Verb::Certify(plan) => ("certify", certify::certify(opening, &plan)),
        Verb::Cert { verb: CertVerb::Revoke(plan) } => ("cert revoke", certify::revoke(opening, &plan)),
        Verb::Gate(plan) => ("gate", certify::gate(opening, &plan)),
        Verb::Attest(plan) => ("attest", attest::attest(opening, &plan)),
        Verb::Epoch(plan) => ("epoch", attest::epoch(opening, &plan)),
        Verb::Target { verb: TargetVerb::Set(plan) } => ("target set", targets::set(opening, &plan)),
        Verb::Config { verb: ConfigVerb::Sign { path } } => ("config sign", configs::sign(opening, &path)),
        Verb::Gateway { verb: GatewayVerb::Init { listen, proxy_listen, providers, allow } } => {
            ("gateway init", configs::gateway_init(opening, listen, proxy_listen, &providers, &allow))
        }
        Verb::Vault { verb } => vault::run(verb, opening),
        Verb::Init(_) | Verb::Hold(_) => unreachable!("they are told apart before"),
    }
}

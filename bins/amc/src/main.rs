//! `amc`: one entry point. It verifies, gates and explains by itself, starts agents, and starts the
//! other binaries for what needs their keys or their network. It links no signer and reads no
//! passphrase.

#![forbid(unsafe_code)]

mod bank;
mod boundary;
mod bundles;
mod certs;
mod cli;
mod doctor;
mod gate;
mod gateway;
mod ingest;
mod leases;
mod ledger;
mod probe;
mod receipts;
mod runs;
mod services;
mod signers;
mod targets;
mod trust;
mod vault;
mod verify;
mod witness;
mod wrap;

use std::process::ExitCode;

use amc_workspace::answer::{self, Answer, Failure};
use amc_workspace::{Opening, call};
use clap::CommandFactory as _;

use cli::{
    BundleVerb, CertVerb, Cli, ConfigVerb, GatewayVerb, LedgerVerb, ReceiptVerb, TrustVerb, Verb, WhichLog, WitnessVerb,
};

use bank::BankVerb;
use targets::TargetVerb;

fn main() -> ExitCode {
    let Cli { common, auditor_passphrase_file, verb } = match call::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let opening =
        Opening { home: common.home.clone(), passphrase_file: common.passphrase_file.clone(), ..Opening::default() };
    let (command, result) = match verb {
        Verb::Init { rest } => return signers::become_for_init(&rest, common.home.as_deref(), common.json),
        Verb::Run { .. } => return signers::become_auditor("run", common.json),
        Verb::Cosign { .. } => return signers::become_auditor("cosign", common.json),
        Verb::Bundle { verb: BundleVerb::Export { .. } } => {
            return signers::become_auditor("bundle export", common.json);
        }
        Verb::Certify { .. } => return signers::become_auditor("certify", common.json),
        Verb::Cert { verb: CertVerb::Revoke { .. } } => return signers::become_auditor("cert revoke", common.json),
        Verb::Config { verb: ConfigVerb::Sign { .. } } => return signers::become_auditor("config sign", common.json),
        Verb::Gateway { verb: GatewayVerb::Init { .. } } => {
            return signers::become_auditor("gateway init", common.json);
        }
        Verb::Vault { verb } => match vault::run(&opening, &verb) {
            vault::Next::Become(signer, command) => return signer.take_over(command, common.json),
            vault::Next::Answer(command, result) => (command, result),
        },
        Verb::Wrap(_) if common.json => ("wrap", Err(Failure::wrong("wrap has no --json; use --summary FILE"))),
        Verb::Wrap(plan) => return wrap::wrap(&opening, auditor_passphrase_file.as_deref(), &plan),
        Verb::Gateway { verb: GatewayVerb::Start { listen } } => return gateway::start(&opening, listen, common.json),
        Verb::Witness { verb: WitnessVerb::Serve { listen } } => return witness::serve(&opening, listen, common.json),
        Verb::Witness { verb: WitnessVerb::Push { log } } => ("witness push", witness::push(&opening, log)),
        Verb::Completions { shell } => return completions(shell, common.json),
        Verb::Man { verb } => ("man", man(&verb)),
        Verb::Up => ("up", services::up(&opening)),
        Verb::Down => ("down", services::down(&opening)),
        Verb::Status => ("status", services::status(&opening)),
        Verb::Ingest(plan) => ("ingest", ingest::ingest(&opening, &plan)),
        Verb::Attest { .. } => return signers::become_auditor("attest", common.json),
        Verb::Target { verb: TargetVerb::Set { .. } } => return signers::become_auditor("target set", common.json),
        Verb::Target { verb: TargetVerb::Show { target, agent } } => {
            ("target show", targets::show(&opening, &agent, target.as_deref()))
        }
        Verb::Bank { verb: BankVerb::Show { question } } => ("bank show", bank::show(&opening, question.as_deref())),
        Verb::Bank { verb: BankVerb::Verify { file } } => ("bank verify", bank::verify(&opening, file.as_deref())),
        Verb::Target { verb: TargetVerb::Diff(plan) } => ("target diff", targets::diff(&opening, &plan)),
        Verb::Epoch { .. } => return signers::become_auditor("epoch", common.json),
        Verb::Probe(plan) => ("probe", probe::probe(&plan)),
        Verb::Doctor => ("doctor", doctor::doctor(&opening)),
        Verb::Verify(plan) => ("verify", verify::verify(&opening, &plan)),
        Verb::Report(plan) => ("report", runs::report(&opening, &plan)),
        Verb::Explain { run, question } => ("explain", runs::explain(&opening, &run, question.as_deref())),
        Verb::History { agent } => ("history", runs::history(&opening, &agent)),
        Verb::Bundle { verb: BundleVerb::Verify { file, trust, max_age } } => {
            ("bundle verify", bundles::verify(&opening, &file, trust.as_deref(), max_age))
        }
        Verb::Bundle { verb: BundleVerb::Diff { from, to, trust } } => {
            ("bundle diff", certs::diff(&opening, &from, &to, trust.as_deref()))
        }
        Verb::Cert { verb: CertVerb::Verify(plan) } => ("cert verify", certs::verify(&opening, &plan)),
        Verb::Cert { verb: CertVerb::Inspect(plan) } => ("cert inspect", certs::inspect(&opening, &plan)),
        Verb::Bundle { verb: BundleVerb::Inspect { file } } => ("bundle inspect", bundles::inspect(&file)),
        Verb::Gate(plan) => ("gate", gate::gate(&opening, &plan)),
        Verb::Ledger { verb: LedgerVerb::Reindex { log: WhichLog::Evidence } } => {
            return signers::become_monitor("ledger reindex", common.json);
        }
        Verb::Ledger { verb: LedgerVerb::Reindex { log: WhichLog::Audit } } => {
            return signers::become_auditor("ledger reindex", common.json);
        }
        Verb::Ledger { verb: LedgerVerb::Succeed { .. } } => {
            return signers::become_auditor("ledger succeed", common.json);
        }
        Verb::Ledger { verb } => run_ledger(&opening, verb),
        Verb::Receipt { verb: ReceiptVerb::Verify(plan) } => ("receipt verify", receipts::verify(&opening, &plan)),
        Verb::Receipt { verb: ReceiptVerb::Prove { id, out } } => {
            ("receipt prove", receipts::prove(&opening, &id, &out))
        }
        Verb::Trust { verb: TrustVerb::Show } => ("trust show", trust::show(&opening)),
        Verb::Trust { verb: TrustVerb::Pin(plan) } => ("trust pin", trust::pin(&opening, &plan)),
        Verb::Trust { verb: TrustVerb::Export { out } } => ("trust export", trust::export(&opening, out.as_deref())),
        Verb::Config { verb: ConfigVerb::Verify { path } } => ("config verify", verify::config(&opening, &path)),
        Verb::Lease { verb } => leases::run(&opening, &verb),
        Verb::Gateway { verb: GatewayVerb::Reload } => ("gateway reload", gateway::reload(&opening)),
        Verb::Gateway { verb: GatewayVerb::Status } => ("gateway status", services::gateway_status(&opening)),
        Verb::Gateway { verb: GatewayVerb::VerifyConfig } => {
            ("gateway verify-config", verify::config(&opening, "gateway.yaml"))
        }
    };
    answer::finish(command, common.json, result)
}

fn run_ledger(opening: &Opening, verb: LedgerVerb) -> (&'static str, Result<Answer, Failure>) {
    match verb {
        LedgerVerb::Head { log } => ("ledger head", ledger::head(opening, log)),
        LedgerVerb::Show { index, log } => ("ledger show", ledger::show(opening, log, index)),
        LedgerVerb::Tail { count, log } => ("ledger tail", ledger::tail(opening, log, count)),
        LedgerVerb::Prove { event, out, log } => ("ledger prove", ledger::prove(opening, log, event, &out)),
        LedgerVerb::Export { tiles, log } => ("ledger export", ledger::export(opening, log, &tiles)),
        LedgerVerb::Reindex { .. } | LedgerVerb::Succeed { .. } => unreachable!("the log's owner has taken over"),
    }
}

/// The manual page of `amc`, or of the verb that these words name.
fn man(words: &[String]) -> Result<Answer, Failure> {
    let mut command = Cli::command();
    command.build();
    for word in words {
        let found = command.find_subcommand(word).cloned();
        command = found
            .ok_or_else(|| Failure::wrong(format!("amc has no verb {:?}; `amc --help` lists them", words.join(" "))))?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Failure::unable)?;
    let page = String::from_utf8(page).map_err(Failure::unable)?;
    Ok(Answer::new(&serde_json::json!({ "page": page }), page))
}

fn completions(shell: clap_complete::Shell, json: bool) -> ExitCode {
    if json {
        return answer::finish("completions", true, Err(Failure::wrong("completions has no --json")));
    }
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "amc", &mut out);
    let text = String::from_utf8(out).expect("completions are text");
    answer::finish("completions", false, Ok(Answer { text, ..Answer::default() }))
}

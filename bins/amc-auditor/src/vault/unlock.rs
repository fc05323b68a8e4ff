//! Starting the process that holds the auditor's keys, detached from the terminal that gave the
//! passphrase.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use amc_core::kinds::Role;
use amc_workspace::home::Home;
use amc_workspace::passphrase::VARIABLE;
use amc_workspace::protocol::holder::{Found, HolderClient, HolderStatus};
use amc_workspace::{Answer, Failure, Opening, hardening};
use serde_json::json;

use super::Roles;
use crate::holder::Plan;

pub(crate) fn unlock(opening: &Opening, role: Roles, plan: &Plan) -> Result<Answer, Failure> {
    if role == Roles::Monitor {
        return Err(Failure::wrong("the monitor's keys are in the running monitor; start it with `amc up`"));
    }
    let home = opening.home()?;
    if let Found::Holder(holder) = HolderClient::find(&home) {
        return Ok(answer(&holder.status, "already unlocked"));
    }
    hardening::protect()?;
    let passphrase = opening.passphrase(Role::Auditor, false)?;
    let started = start(&home, plan.idle, &passphrase);
    match HolderClient::find(&home) {
        // Somebody else may have been faster, which is as good.
        Found::Holder(holder) => Ok(answer(&holder.status, "unlocked")),
        Found::Nobody => {
            started?;
            Err(Failure::unable("the process that should hold the keys ended again; see run/auditor.log of the home"))
        }
        Found::Stranger(why) => {
            started?;
            Err(Failure::unable(why))
        }
    }
}

fn answer(status: &HolderStatus, how: &str) -> Answer {
    let HolderStatus { pid, idle_s, left_s } = status;
    let text =
        format!("The auditor is {how} in process {pid}, until `amc vault lock` or {idle_s} seconds without a verb\n");
    Answer::new(&json!({ "auditor": { "pid": pid, "idle_s": idle_s, "left_s": left_s } }), text)
}

/// Starts the holder and waits until it has the keys. The passphrase goes through a pipe: no argument,
/// no variable, no file.
fn start(home: &Home, idle_s: u64, passphrase: &[u8]) -> Result<(), Failure> {
    let log_path = home.process_log("auditor");
    let log = File::options().write(true).create(true).truncate(true).mode(0o600).open(&log_path);
    let log = log.map_err(|error| Failure::unable(format!("{}: {error}", log_path.display())))?;
    let program = std::env::current_exe().map_err(Failure::unable)?;
    let mut command = Command::new(program);
    command.arg("hold").arg("--home").arg(home.root()).args(["--idle", &format!("{idle_s}s")]);
    command.args(["--passphrase-file", "-"]).env_remove(VARIABLE).env_remove("CREDENTIALS_DIRECTORY");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0).current_dir("/");
    let mut child =
        command.spawn().map_err(|error| Failure::unable(format!("cannot start the key holder: {error}")))?;
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    // A holder that ended before it read says why in its log.
    let _ = stdin.write_all(passphrase);
    drop(stdin);
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
    out.read_line(&mut line).map_err(Failure::unable)?;
    if line.contains("\"ready\":true") {
        return Ok(());
    }
    let status = child.wait().map_err(Failure::unable)?;
    let why = std::fs::read_to_string(&log_path).unwrap_or_default();
    let why = why.trim_end().strip_prefix("amc: ").unwrap_or(why.trim_end()).to_owned();
    let why = if why.is_empty() { "the key holder did not start".to_owned() } else { why };
    let locked = amc_core::FindingCode::VaultLocked;
    match status.code() {
        Some(1) => Err(Failure::bad(why)),
        Some(2) => Err(Failure::wrong(why)),
        _ if why.starts_with(locked.as_str()) => {
            let why = why.trim_start_matches(locked.as_str()).trim_start_matches(": ").to_owned();
            let finding = amc_core::Finding::error(locked, "vault.amcvault", &why);
            Err(Failure::unable(why).with(finding))
        }
        _ => Err(Failure::unable(why)),
    }
}

//! What can be told of a vault without a passphrase, and which processes hold its keys.

use std::fs;
use std::path::Path;

use amc_core::kinds::Role;
use amc_core::{Finding, FindingCode};
use amc_vault::{CompartmentStatus, Vault};
use amc_workspace::home::{Home, HomeError, check_mode};
use amc_workspace::protocol::Client;
use amc_workspace::protocol::holder::{Found, HolderClient};
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::{Value, json};

use crate::unlock::vault_failure;

/// A process that holds a role's keys.
struct Unlocked {
    pid: u32,
    /// Seconds until it forgets them by itself.
    left_s: Option<u64>,
    /// Whether its memory stays out of swap.
    memory_locked: bool,
}

pub(crate) fn status(opening: &Opening) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let path = home.vault();
    let vault = Vault::status(&path).map_err(|error| vault_failure(&error))?;
    let mut findings = open_to_others(&home);
    let mut text = format!("{}\n", path.display());
    let mut compartments = Vec::new();
    for compartment in &vault.compartments {
        let unlocked = match compartment.role {
            Role::Monitor => monitor(&home),
            Role::Auditor => match HolderClient::find(&home) {
                Found::Nobody => None,
                Found::Holder(holder) => Some(Unlocked::of(holder.status.pid, Some(holder.status.left_s))),
                Found::Stranger(why) => {
                    let subject = home.auditor_socket().display().to_string();
                    findings.push(Finding::warn(FindingCode::VaultLocked, subject, why));
                    None
                }
            },
        };
        if !compartment.intact {
            let what = format!("the {}'s compartment is damaged; put back a copy of the file", compartment.role);
            findings.push(Finding::error(FindingCode::VaultDamaged, path.display().to_string(), what));
        }
        text += &line(compartment, unlocked.as_ref());
        compartments.push(shown(compartment, unlocked.as_ref()));
    }
    let data = json!({ "path": path, "compartments": compartments });
    Ok(Answer { findings, ..Answer::new(&data, text) })
}

fn line(compartment: &CompartmentStatus, unlocked: Option<&Unlocked>) -> String {
    let CompartmentStatus { role, params, .. } = compartment;
    let state = match unlocked {
        None => "locked".to_owned(),
        Some(Unlocked { pid, left_s, memory_locked }) => {
            let until = left_s.map_or(String::new(), |left_s| format!(", for {left_s} s more unless used"));
            let memory = if *memory_locked { "" } else { "; its memory may be written to swap" };
            format!("unlocked in process {pid}{until}{memory}")
        }
    };
    let mebibytes = params.memory_bytes() >> 20;
    format!("  {role}: {state}\n    each guess of the passphrase costs {mebibytes} MiB of memory ({params})\n")
}

fn shown(compartment: &CompartmentStatus, unlocked: Option<&Unlocked>) -> Value {
    let CompartmentStatus { role, params, intact } = compartment;
    let unlocked = unlocked.map(|Unlocked { pid, left_s, memory_locked }| {
        json!({ "pid": pid, "left_s": left_s, "memory_locked": memory_locked })
    });
    json!({
        "role": role, "intact": intact, "unlocked": unlocked,
        "scrypt": { "n": params.n(), "r": params.r(), "p": params.p(), "memory_bytes": params.memory_bytes() },
    })
}

impl Unlocked {
    fn of(pid: u32, left_s: Option<u64>) -> Self {
        Unlocked { pid, left_s, memory_locked: is_memory_locked(pid) }
    }
}

fn monitor(home: &Home) -> Option<Unlocked> {
    let mut client = Client::<OperatorRequest, OperatorReply>::connect(&home.monitor_socket()).ok()?;
    match client.call(OperatorRequest::Status).ok()? {
        OperatorReply::Status(status) => Some(Unlocked::of(status.pid, None)),
        _ => None,
    }
}

fn is_memory_locked(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    locked.is_some_and(|text| !text.trim().starts_with("0 "))
}

/// Directories beside the vault on which keys rest too: sockets and logs.
fn open_to_others(home: &Home) -> Vec<Finding> {
    let check = |path: &Path| match check_mode(path, 0o700) {
        Err(error @ HomeError::Permissions { .. }) => {
            let subject = path.display().to_string();
            Some(Finding::error(FindingCode::VaultPermissions, subject, error.to_string()))
        }
        _ => None,
    };
    ["run", "logs"].iter().filter_map(|dir| check(&home.file(dir))).collect()
}

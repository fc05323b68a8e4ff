//! The monitor beside this auditor, as its witness: the running one, else one started for a moment.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use amc_core::kinds::Role;
use amc_ledger::LogReader;
use amc_ledger::witness::Submission;
use amc_workspace::home::Home;
use amc_workspace::protocol::Client;
use amc_workspace::protocol::operator::{CosignRequest, OperatorReply, OperatorRequest};

use crate::unlock::Beside;

/// Runs `amc-monitor` with a passphrase on its standard input; gives its JSON answer.
pub(crate) fn call(home: &Path, arguments: &[&str], passphrase: &[u8]) -> Result<serde_json::Value, String> {
    let program = beside_us("amc-monitor");
    let mut child = Command::new(&program)
        .args(arguments)
        .arg("--home")
        .arg(home)
        .args(["--json", "--passphrase-file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // A monitor that ended before it read is told by its answer.
    let _ = stdin.write_all(passphrase);
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{} gave no answer ({})", program.display(), output.status))?;
    if output.status.success() {
        return Ok(answer);
    }
    Err(answer["data"]["error"].as_str().unwrap_or("amc-monitor failed").to_owned())
}

/// Has the monitor cosign the newest published checkpoint of the audit log.
pub(crate) fn cosign(home: &Home, beside: &Beside) -> Result<(), String> {
    match (Client::<OperatorRequest, OperatorReply>::connect(&home.monitor_socket()), beside) {
        (Ok(mut client), _) => cosign_running(home, &mut client),
        (Err(_), Beside::Passphrase(passphrase)) => call(home.root(), &["cosign"], passphrase).map(drop),
        (Err(_), Beside::Running) => {
            Err("no monitor runs, and the process that holds the auditor's keys has no passphrase of it".to_owned())
        }
    }
}

fn cosign_running(home: &Home, client: &mut Client<OperatorRequest, OperatorReply>) -> Result<(), String> {
    let log = LogReader::open(&home.log(Role::Auditor)).map_err(|error| error.to_string())?;
    let mut old_size = 0;
    // The witness says what it has; a second conflict would mean that somebody else cosigns just now.
    for _ in 0..3 {
        let Submission { note, old_size: from, proof } =
            Submission::from_log(&log, old_size).map_err(|error| error.to_string())?;
        let request = CosignRequest { note: note.to_string(), old_size: from, proof };
        match client.call(OperatorRequest::Cosign(request)).map_err(|error| error.to_string())? {
            OperatorReply::Cosigned { .. } => return Ok(()),
            OperatorReply::CosignConflict { size } => old_size = size,
            OperatorReply::Refused(refusal) => return Err(refusal.to_string()),
            _ => return Err("the monitor gave an unexpected answer".to_owned()),
        }
    }
    Err("the monitor is cosigning for somebody else; try again".to_owned())
}

/// A program of the same release: in the same directory first, then in `PATH`.
fn beside_us(name: &str) -> PathBuf {
    let own = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(name)));
    own.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

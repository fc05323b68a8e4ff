//! `gateway start`: the gateway in the foreground; `gateway reload`: its configuration again.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use amc_core::kinds::GatewayReloaded;
use amc_workspace::Opening;
use amc_workspace::answer::{self, Answer, Failure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{services, signers};

pub(crate) fn start(opening: &Opening, listen: Option<SocketAddr>, json: bool) -> ExitCode {
    if json {
        return answer::finish("gateway start", true, Err(Failure::wrong("gateway start has no --json")));
    }
    let home = match opening.home() {
        Ok(home) => home,
        Err(failure) => return answer::finish("gateway start", false, Err(failure)),
    };
    let mut command = signers::keyless("amc-gateway");
    command.arg("start").arg("--home").arg(home.root());
    if let Some(listen) = listen {
        command.arg("--listen").arg(listen.to_string());
    }
    let error = command.exec();
    let message = format!("cannot start amc-gateway: {error}; install it beside amc or in PATH");
    answer::finish("gateway start", false, Err(Failure::unable(message)))
}

/// Tells the running gateway to read its configuration again, and what came of it.
pub(crate) fn reload(opening: &Opening) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let not_running = || Failure::unable("no gateway runs; start it with `amc up`");
    let mut client = services::connect(&home)?.ok_or_else(not_running)?;
    let before = services::monitor_status(&mut client)?;
    let pid = before.gateway_pid.and_then(Pid::from_raw).ok_or_else(not_running)?;
    kill_process(pid, Signal::HUP).map_err(|error| Failure::unable(format!("cannot signal the gateway: {error}")))?;
    let deadline = Instant::now() + RELOAD_MAX;
    let reloaded = loop {
        let (count, reloaded) = services::monitor_status(&mut client)?.gateway_reloads;
        match reloaded {
            Some(reloaded) if count > before.gateway_reloads.0 => break reloaded,
            _ if Instant::now() > deadline => {
                let log = home.process_log("gateway");
                return Err(Failure::unable(format!("the gateway did not say what came of it; see {}", log.display())));
            }
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let GatewayReloaded { config_version, config_state, applied, note } = reloaded;
    if !applied {
        return Err(Failure::bad(format!("the configuration before stays in force: {note}")));
    }
    let data = json!({ "config_version": config_version, "config_state": config_state, "note": note });
    let more = if note.is_empty() { String::new() } else { format!("; {note}") };
    Ok(Answer::new(&data, format!("The gateway works by version {config_version} of gateway.yaml now{more}\n")))
}

/// Reading a file and judging a signature takes no time; a busy machine may.
const RELOAD_MAX: Duration = Duration::from_secs(20);

//! `gateway start`: the gateway in the foreground.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use amc_workspace::Opening;
use amc_workspace::answer::{self, Failure};

use crate::signers;

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

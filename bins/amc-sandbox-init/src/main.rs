//! `amc-sandbox-init`: runs where an agent runs, and holds nothing that an agent must not have.
//!
//! ```text
//! amc-sandbox-init PLAN enter  EXECUTABLE ARGV…   makes the isolation, then goes on as `become`
//! amc-sandbox-init PLAN inside EXECUTABLE ARGV…   process 1 of new namespaces: mounts, waits
//! amc-sandbox-init PLAN become EXECUTABLE ARGV…   drops privileges and becomes the agent, or probes
//! amc-sandbox-init hold                           holds a user namespace open for its parent
//! amc-sandbox-init decoy                          waits: what a probe tries on it must work
//! amc-sandbox-init machine                        says what only a system call tells
//! ```
//!
//! `PLAN` is the JSON of [`plan::Plan`]. What is set up here holds from the agent's first
//! instruction. This program knows no key, no passphrase and no log format.

mod become_agent;
mod enter;
mod inside;
mod machine;
mod mounts;
mod plan;
mod probe;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use plan::{Call, Step};

/// AMC could not do its part, as `env` has it.
const OUR_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "hold") {
        return enter::hold();
    }
    if arguments.first().is_some_and(|first| first == "decoy") {
        return wait::decoy();
    }
    if arguments.first().is_some_and(|first| first == "machine") {
        return machine::say();
    }
    let call = match Call::parse(arguments) {
        Ok(call) => call,
        Err(message) => {
            eprintln!("amc-sandbox-init: {message}");
            return ExitCode::from(OUR_FAILURE);
        }
    };
    let result = match call.step {
        Step::Enter => enter::enter(&call),
        Step::Inside => inside::inside(&call),
        Step::Become => become_agent::become_agent(&call),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("amc: the agent could not be started: {error}");
            ExitCode::from(OUR_FAILURE)
        }
    }
}

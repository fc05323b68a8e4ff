//! `amc-gateway`: parses the command line, runs the gateway, prints one JSON line when it listens.
//!
//! Exit codes: 0 stopped when told to, 2 the call or a file is wrong, 3 not possible now.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use amc_gateway::egress::Resolver;
use amc_gateway::{OWN_USER, Options, Socket};
use amc_workspace::{Home, HomeError};
use clap::{Parser, Subcommand};

/// The LLM gateway of AMC: relays model calls byte for byte and hands what passed to the monitor.
#[derive(Debug, Parser)]
#[command(name = "amc-gateway", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run in the foreground; on stdout one line {"listening": "ADDRESS:PORT"} when agents may come.
    Start {
        /// The home; else $AMC_HOME, else the nearest .amc upward.
        #[arg(long, value_name = "DIR")]
        home: Option<PathBuf>,
        /// Listen here instead of where gateway.yaml says; port 0 takes a free one.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
    },
}

fn main() -> ExitCode {
    let Verb::Start { home, listen } = Arguments::parse().verb;
    match start(home.as_deref(), listen) {
        Ok(()) => ExitCode::SUCCESS,
        Err((message, code)) => {
            // A closed stderr must not turn one failure into another.
            let _ = writeln!(std::io::stderr(), "amc-gateway: {message}");
            ExitCode::from(code)
        }
    }
}

fn start(home: Option<&Path>, listen_override: Option<SocketAddr>) -> Result<(), (String, u8)> {
    let variable = std::env::var_os("AMC_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let working_dir = std::env::current_dir().map_err(|error| (format!("no working directory: {error}"), 3))?;
    let home =
        Home::find(home, variable.as_deref(), &working_dir).map_err(|error: HomeError| (error.to_string(), 2))?;
    let socket = Socket::connect(&home.gateway_socket()).map_err(|error| (error.to_string(), error.exit_code()))?;
    amc_gateway::become_own_user().map_err(|error| {
        (format!("cannot become the user {OWN_USER}: {error}; remove that user, or let this process take it"), 3)
    })?;
    // Before there is a second thread; what the machine does not offer is told.
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(std::env::var_os);
    let certificates: Vec<PathBuf> =
        named.flat_map(|value| std::env::split_paths(&value).collect::<Vec<_>>()).collect();
    let hardening = amc_gateway::harden(&certificates);
    if hardening.landlock == "none" || !hardening.seccomp {
        let line = serde_json::json!({ "level": "warn", "event": "not_hardened", "landlock": hardening.landlock,
            "seccomp": hardening.seccomp, "no_new_privileges": hardening.no_new_privileges });
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    let resolver = Resolver::default();
    let options = Options { socket, listen_override, ready: print_address, resolver };
    amc_gateway::run(options).map_err(|error| (error.to_string(), error.exit_code()))
}

fn print_address(address: SocketAddr) {
    let line = serde_json::json!({"listening": address.to_string()});
    // Nobody need read the line: whoever gave --listen knows the address.
    let _ = writeln!(std::io::stdout(), "{line}");
}

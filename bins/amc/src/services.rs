//! Starting and stopping monitor and gateway, and what runs now.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use amc_sandbox::recorder::MonitorClient;
use amc_workspace::home::Home;
use amc_workspace::protocol::PROTOCOL_VERSION;
use amc_workspace::protocol::operator::{MonitorStatus, OperatorReply, OperatorRequest};
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::signers;

/// How long a stopped process may take to finish streams and flush.
const STOP: Duration = Duration::from_secs(45);

/// Connects to a running monitor; `None` when nobody listens.
pub(crate) fn connect(home: &Home) -> Result<Option<MonitorClient>, Failure> {
    let mut client = match MonitorClient::connect(&home.monitor_socket()) {
        Ok(client) => client,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(Failure::unable(format!("cannot reach the monitor: {error}"))),
    };
    match call(&mut client, OperatorRequest::Hello { protocol: PROTOCOL_VERSION })? {
        OperatorReply::Welcome => Ok(Some(client)),
        _ => Err(Failure::unable("the monitor gave an unexpected answer")),
    }
}

/// One request; a refusal is a failure.
pub(crate) fn call(client: &mut MonitorClient, request: OperatorRequest) -> Result<OperatorReply, Failure> {
    match client.call(request).map_err(Failure::unable)? {
        OperatorReply::Refused(refusal) => Err(Failure::unable(refusal)),
        reply => Ok(reply),
    }
}

/// What a running monitor says of itself.
pub(crate) fn monitor_status(client: &mut MonitorClient) -> Result<MonitorStatus, Failure> {
    match call(client, OperatorRequest::Status)? {
        OperatorReply::Status(status) => Ok(status),
        _ => Err(Failure::unable("the monitor gave an unexpected answer")),
    }
}

/// Starts a monitor in the background and waits until it takes evidence.
pub(crate) fn start_monitor(opening: &Opening, home: &Home, while_used: bool) -> Result<Child, Failure> {
    let mut command = Command::new(signers::program("amc-monitor"));
    command.args(["start", "--detach"]).arg("--home").arg(home.root());
    if while_used {
        command.arg("--while-used");
    }
    if let Some(file) = &opening.passphrase_file {
        command.arg("--passphrase-file").arg(file);
    }
    start(command, home, "monitor").map(|(child, _)| child)
}

/// Starts a gateway in the background; gives where it listens.
pub(crate) fn start_gateway(home: &Home, listen: Option<SocketAddr>) -> Result<(Child, SocketAddr), Failure> {
    let mut command = signers::keyless("amc-gateway");
    command.process_group(0);
    command.arg("start").arg("--home").arg(home.root());
    if let Some(listen) = listen {
        command.arg("--listen").arg(listen.to_string());
    }
    let (child, ready) = start(command, home, "gateway")?;
    let listening = ready["listening"].as_str().and_then(|text| text.parse().ok());
    Ok((child, listening.ok_or_else(|| Failure::unable("amc-gateway did not say where it listens"))?))
}

/// Held while somebody looks whether services run and starts them: two that come at once start one.
pub(crate) fn starting(home: &Home) -> Result<File, Failure> {
    let path = home.file("run/start.lock");
    let lock = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.and_then(|file| file.lock().map(|()| file));
    lock.map_err(|error| Failure::unable(format!("{}: {error}", path.display())))
}

/// Starts a process that says on one line when it is ready. By then it is in a process group of its own,
/// so that a key typed at the agent's terminal does not stop it: the gateway from its start, the monitor
/// once it has asked for its passphrase there. Its diagnostics go to a file of the home; why it could not
/// start is shown here.
fn start(mut command: Command, home: &Home, name: &str) -> Result<(Child, serde_json::Value), Failure> {
    let log_path = home.process_log(name);
    let log = File::options().write(true).create(true).truncate(true).mode(0o600).open(&log_path);
    let log = log.map_err(|error| Failure::unable(format!("{}: {error}", log_path.display())))?;
    let missing =
        |error| Failure::unable(format!("cannot start amc-{name}: {error}; install it beside amc or in PATH"));
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().map_err(missing)?;
    let mut out = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).map_err(Failure::unable)?;
    if let Ok(ready) = serde_json::from_str(&line) {
        return Ok((child, ready));
    }
    let status = child.wait().map_err(Failure::unable)?;
    let why = std::fs::read_to_string(&log_path).unwrap_or_default();
    let why = why.trim_end().strip_prefix("amc: ").unwrap_or(why.trim_end());
    let message = if why.is_empty() { format!("amc-{name} did not start") } else { why.to_owned() };
    // It ends with the exit code that fits.
    Err(match status.code() {
        Some(1) => Failure::bad(message),
        Some(2) => Failure::wrong(message),
        _ => Failure::unable(message),
    })
}

pub(crate) fn up(opening: &Opening) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let starting = starting(&home)?;
    let mut client = match connect(&home)? {
        Some(client) => client,
        None => {
            start_monitor(opening, &home, false)?;
            connect(&home)?.ok_or_else(|| Failure::unable("the monitor stopped again; see its message above"))?
        }
    };
    if monitor_status(&mut client)?.gateway_listen.is_none() {
        start_gateway(&home, None)?;
    }
    drop(starting);
    let status = monitor_status(&mut client)?;
    let mut text =
        format!("The monitor runs (process {})\nThe gateway listens at {}\n", status.pid, listen_text(&status));
    for (what, listen) in [("gateway", &status.gateway_listen), ("egress proxy", &status.proxy_listen)] {
        let address = listen.as_ref().and_then(|text| text.parse::<SocketAddr>().ok());
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            text += &format!(
                "Warning: other machines can reach the {what} at {address}, and HTTP hides neither lease nor text; \
                 put TLS or a private network before it\n"
            );
        }
    }
    Ok(Answer::new(&status_data(Some(&status)), text))
}

pub(crate) fn down(opening: &Opening) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let Some(mut client) = connect(&home)? else {
        return Ok(Answer::new(&status_data(None), "Nothing was running\n"));
    };
    call(&mut client, OperatorRequest::Shutdown)?;
    drop(client);
    let deadline = Instant::now() + STOP;
    while home.monitor_socket().exists() {
        if Instant::now() > deadline {
            return Err(Failure::unable("the monitor is still finishing; look again with `amc status`"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(Answer::new(&status_data(None), "Stopped\n"))
}

pub(crate) fn status(opening: &Opening) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let status = connect(&home)?.map(|mut client| monitor_status(&mut client)).transpose()?;
    let text = match &status {
        None => "Nothing runs; start it with `amc up`\n".to_owned(),
        Some(status) => format!(
            "The monitor runs (process {}): {} events, {} open sessions\nThe gateway listens at {}\n{}",
            status.pid,
            status.events,
            status.open_sessions.len(),
            listen_text(status),
            status.proxy_listen.as_ref().map_or(String::new(), |at| format!("The egress proxy listens at {at}\n"))
        ),
    };
    Ok(Answer::new(&status_data(status.as_ref()), text))
}

pub(crate) fn gateway_status(opening: &Opening) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let status = connect(&home)?.map(|mut client| monitor_status(&mut client)).transpose()?;
    let listen = status.as_ref().and_then(|status| status.gateway_listen.clone());
    let proxy_listen = status.as_ref().and_then(|status| status.proxy_listen.clone());
    let mut text =
        listen.as_ref().map_or("The gateway does not run\n".to_owned(), |at| format!("It listens at {at}\n"));
    text += &proxy_listen.as_ref().map_or(String::new(), |at| format!("The egress proxy listens at {at}\n"));
    Ok(Answer::new(&json!({ "listen": listen, "proxy_listen": proxy_listen }), text))
}

fn listen_text(status: &MonitorStatus) -> &str {
    status.gateway_listen.as_deref().unwrap_or("no address: it does not run")
}

fn status_data(status: Option<&MonitorStatus>) -> serde_json::Value {
    let monitor = status
        .map(|status| json!({ "pid": status.pid, "events": status.events, "open_sessions": status.open_sessions }));
    let listen = status.and_then(|status| status.gateway_listen.as_ref());
    let proxy_listen = status.and_then(|status| status.proxy_listen.as_ref());
    // The console is not in this release.
    let gateway = json!({ "listen": listen, "proxy_listen": proxy_listen });
    json!({ "monitor": monitor, "gateway": gateway, "studio": { "listen": null } })
}

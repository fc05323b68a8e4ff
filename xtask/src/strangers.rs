//! `cargo xtask strangers`: a program of other people's making checks what a log hands out.
//!
//! Makes a workspace with some hundred events, then has Go's `sumdb/note` and `sumdb/tlog` (Debian's packages) open the
//! checkpoints, check proofs of events, and read the tiles; the Go program also changes each of them and must refuse.
//! Without Go it says so and goes on to the portable artifacts ([`portable`]).

use crate::process::capture;
use crate::stage::{self, DemoModel, Stage};
use crate::workspace::{self, Workspace};
use crate::{Failure, portable, tools};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where Debian puts the sources of Go packages.
const GOPATH: &str = "/usr/share/gocode";
const PACKAGES: &[&str] = &["golang-go", "golang-golang-x-mod-dev"];
/// Enough calls that the evidence log has more than one full tile of 256 leaves.
const CALLS: u32 = 140;

/// Runs the check.
///
/// # Errors
/// Something that a log hands out was refused, or accepted with a part of it changed; or the workspace could not be
/// made.
pub fn command(args: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = args.first() {
        return Err(Failure::new(format!("strangers takes no argument, not `{unknown}`")));
    }
    let workspace = Workspace::read(&workspace::root())?;
    let stage = Stage::build(&workspace, stage::same_dir(&workspace, "strangers")?)?;
    make_logs(&stage)?;
    logs(&workspace, &stage)?;
    portable::check(&workspace, &stage)
}

/// Go's packages, on both logs.
fn logs(workspace: &Workspace, stage: &Stage) -> Result<(), Failure> {
    let probe = format!("go version && test -f {GOPATH}/src/golang.org/x/mod/sumdb/tlog/tlog.go");
    if !tools::debian(&["sh", "-c", &probe], PACKAGES)? {
        println!("SKIPPED: strangers: Go is missing; as root: apt-get install {}", PACKAGES.join(" "));
        return Ok(());
    }
    let keys = amc(stage, "trust show --json")?;
    for log in ["evidence", "audit"] {
        let origin = format!("acme/{log}");
        let known = keys["data"]["logs"].as_array().into_iter().flatten();
        let key = known.filter(|key| key["origin"] == origin.as_str()).find_map(|key| key["key"].as_str());
        let key = key.ok_or_else(|| Failure::new(format!("`amc trust show` names no key of {origin}: {keys}")))?;
        hand_out(stage, log)?;
        check(workspace, key, &stage.dir().join(log))?;
    }
    Ok(())
}

fn make_logs(stage: &Stage) -> Result<(), Failure> {
    fs::write(stage.dir().join("passphrase"), "strangers check what was signed\n")?;
    run(&mut stage.shell("chmod 600 passphrase; umask 077; mkdir agent"))?;
    amc(stage, "init --json --passphrase-file passphrase --name acme --agent bot")?;
    let model = DemoModel::start(stage, 0)?;
    let provider = format!("openai=http://127.0.0.1:{}/v1", model.port);
    amc(stage, &format!("gateway init --json --passphrase-file passphrase --provider {provider}"))?;
    let agent = format!(
        "cd agent && amc wrap --home ../.amc --passphrase-file ../passphrase --agent bot -- amc-demo-agent --plain {CALLS}"
    );
    run(&mut stage.shell(&agent)).map(drop)
}

/// Writes a log's checkpoint, its tiles, and proofs of its first, some middle, and its last event.
fn hand_out(stage: &Stage, log: &str) -> Result<(), Failure> {
    let dir = stage.dir().join(log);
    fs::create_dir(&dir)?;
    amc(stage, &format!("ledger export --json --log {log} --tiles {log}"))?;
    let events = amc(stage, &format!("ledger tail --json -n 10000 --log {log}"))?;
    let events = events["data"]["events"].as_array().cloned().unwrap_or_default();
    println!("{log}: {} events", events.len());
    for index in [0, events.len() / 2, events.len().saturating_sub(2), events.len().saturating_sub(1)] {
        let hash = events.get(index).and_then(|event| event["event_hash"].as_str());
        let hash = hash.ok_or_else(|| Failure::new(format!("`amc ledger tail` shows no event {index} of {log}")))?;
        amc(stage, &format!("ledger prove --json --log {log} --event {hash} --out {log}/{index}.tlog-proof"))?;
        fs::write(dir.join(format!("{index}.hash")), hash)?;
    }
    Ok(())
}

fn check(workspace: &Workspace, key: &str, dir: &Path) -> Result<(), Failure> {
    let program = workspace.root.join("fixtures/strangers/go/main.go");
    let mut go = Command::new("go");
    // The packages are Debian's own, found as sources; nothing is fetched.
    go.env("GO111MODULE", "off").env("GOPATH", GOPATH).env("GOFLAGS", "").env("GOPROXY", "off");
    go.env("GOCACHE", workspace.target.join("go"));
    go.arg("run").arg(program).arg(key).arg(dir);
    print!("{}", run(&mut go)?);
    Ok(())
}

fn amc(stage: &Stage, line: &str) -> Result<Value, Failure> {
    let mut command = stage.program("amc");
    command.args(line.split(' '));
    let text = run(&mut command)?;
    serde_json::from_str(&text).map_err(|error| Failure::new(format!("`amc {line}` answers no JSON ({error}): {text}")))
}

fn run(command: &mut Command) -> Result<String, Failure> {
    capture(command, LIMIT)?.success()
}

/// The longest step compiles Go's standard library once.
const LIMIT: Duration = Duration::from_secs(300);

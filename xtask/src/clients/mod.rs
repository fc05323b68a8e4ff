//! `cargo xtask clients [--real-model]`: the official Python and Node clients, LangChain, the `ai` package and curl,
//! unmodified, through `amc wrap`.
//!
//! The programs under `fixtures/clients/` print what they saw; this compares it with what the evidence log holds and
//! has every receipt verified twice, by `amc` and by a JOSE library that shares no code with it. Versions are pinned in
//! `fixtures/clients/requirements.txt` and `package.json`. `--real-model` asks a small language model instead of the demo model.

mod check;
mod mock;
mod real_model;

use crate::stage::{self, DemoModel, Stage};
use crate::step::Step;
use crate::workspace::{self, Workspace};
use crate::{Failure, node, process, python};
use check::{Call, Session};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Runs both clients against the demo model, or against a small real one.
///
/// # Errors
/// Python packages could not be installed, or a client saw something else than it should.
pub fn command(args: &[String]) -> Result<(), Failure> {
    let real = match args {
        [] => false,
        [flag] if flag == "--real-model" => true,
        _ => return Err(Failure::new("clients takes --real-model or nothing")),
    };
    let workspace = Workspace::read(&workspace::root())?;
    let programs = workspace.root.join("fixtures/clients");
    let python = python::environment(&workspace, "clients", &requirements(&programs.join("requirements.txt"))?)?;
    let stage = Stage::build(&workspace, stage::same_dir(&workspace, "clients")?)?;
    let modules = node::modules(&workspace, "clients", &programs.join("package.json"))?;
    if modules.is_none() {
        println!("SKIPPED: the Node clients: node and npm are not installed");
    }
    let linked = modules.as_deref().map(|modules| node::link_modules(modules, stage.dir())).transpose()?;
    let programs = copied(&programs, stage.dir())?;
    let bench = Bench { stage: &stage, python, modules: linked, programs };
    if real {
        let model = real_model::RealModel::start(&workspace, &bench.programs)?;
        bench.walk(&model.upstream())
    } else {
        let model = DemoModel::start(&stage, PIECE_DELAY_MS)?;
        bench.walk(&Upstream {
            port: model.port,
            model: "demo",
            text: Some(DEMO_ANSWER),
            piece_ms: PIECE_DELAY_MS,
            gemini: true,
        })?;
        if let Some(modules) = &modules {
            let stage = Stage::build(&workspace, stage::same_dir(&workspace, "clients-mock")?)?;
            let calls = mock::walk(&stage, modules, &bench.programs)?;
            println!(
                "\naimock: {calls} calls gave the same bytes directly and through the gateway, and are recorded so."
            );
        }
        Ok(())
    }
}

/// The programs in the agent's work directory: what lies beside the one that is named has to be readable too.
fn copied(programs: &Path, into: &Path) -> Result<PathBuf, Failure> {
    let copies = into.join("programs");
    fs::create_dir_all(&copies)?;
    for entry in fs::read_dir(programs)? {
        let entry = entry?;
        fs::copy(entry.path(), copies.join(entry.file_name()))?;
    }
    Ok(copies)
}

/// The packages of a requirements file, in its order.
fn requirements(path: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::from(error).during(&path.display().to_string()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// The model that the clients reach, and what is known of its answers.
struct Upstream {
    port: u16,
    model: &'static str,
    /// What every answer holds, where that is known.
    text: Option<&'static str>,
    /// At least so much lies between two pieces of a stream; zero where nothing is known.
    piece_ms: u32,
    /// Whether it speaks Gemini's dialect too.
    gemini: bool,
}

/// A client's program, `PROGRAM_client.LANGUAGE`, and the provider that it calls.
struct Client {
    provider: &'static str,
    program: &'static str,
    language: &'static str,
}

impl Client {
    const fn new(provider: &'static str, program: &'static str, language: &'static str) -> Self {
        Client { provider, program, language }
    }

    /// The file with what it saw.
    fn output(&self) -> String {
        format!("{}.{}.{}.jsonl", self.program, self.provider, self.language)
    }
}

/// Official clients, what people build on them, and curl.
const CLIENTS: &[Client] = &[
    Client::new("openai", "openai", "py"),
    Client::new("anthropic", "anthropic", "py"),
    Client::new("gemini", "gemini", "py"),
    Client::new("openai", "langchain", "py"),
    Client::new("openai", "curl", "py"),
    Client::new("openai", "openai", "cjs"),
    Client::new("anthropic", "anthropic", "cjs"),
    Client::new("openai", "ai", "cjs"),
    Client::new("anthropic", "ai", "cjs"),
    Client::new("gemini", "ai", "cjs"),
];

/// What the walk needs beside the upstream.
struct Bench<'a> {
    stage: &'a Stage,
    python: PathBuf,
    /// Where Node finds the clients; none where there is no Node.
    modules: Option<PathBuf>,
    programs: PathBuf,
}

impl Bench<'_> {
    fn walk(&self, upstream: &Upstream) -> Result<(), Failure> {
        Step::new("A workspace for the clients.").run(&mut self.amc("init --name clients --agent python"))?;
        Step::new("All routes lead to the one model server.").run(&mut self.amc(&routes_to(upstream.port)))?;
        let mut files = Vec::new();
        let mut receipts = 0;
        for client in CLIENTS {
            if (client.language == "cjs" && self.modules.is_none()) || (client.provider == "gemini" && !upstream.gemini)
            {
                continue;
            }
            let session = self.session(client, upstream)?;
            receipts += self.check(&session, upstream)?;
            files.push(client.output());
        }
        self.jose(&files, receipts)?;
        Step::new("The logs after all that.").run(&mut self.amc("verify"))?;
        println!("\nEvery client: answers, token timing, usage and {receipts} receipts are as they should be.");
        Ok(())
    }

    /// One client's program under `amc wrap`.
    fn session(&self, client: &Client, upstream: &Upstream) -> Result<Session, Failure> {
        let Client { provider, program, language } = client;
        let summary = format!("{}.summary.json", client.output());
        let mut wrap = self.amc(&format!("wrap --agent python --summary {summary} --"));
        let path = self.programs.join(format!("{program}_client.{language}"));
        match &self.modules {
            Some(modules) if *language == "cjs" => wrap.env("NODE_PATH", modules).arg("node"),
            // -B: nothing is written beside the programs.
            _ => wrap.arg(&self.python).arg("-B"),
        };
        wrap.arg(path).args([upstream.model, PROMPT]);
        if *program == "ai" {
            wrap.arg(provider);
        }
        let said = format!("{program} ({language}) at {provider}, one plain and one streaming call.");
        let answer = Step::new(said).within(CLIENT_LIMIT).quietly().run(&mut wrap)?;
        fs::write(self.stage.dir().join(client.output()), &answer.stdout)?;
        let summary: Value = parse(&fs::read_to_string(self.stage.dir().join(summary))?)?;
        let id = summary["session"].as_str().unwrap_or_default().to_owned();
        let calls = answer.stdout.lines().map(|line| Ok(Call(parse(line)?))).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Session { id, provider: (*provider).to_owned(), calls })
    }

    /// Compares a session with the log; gives the number of its receipts.
    fn check(&self, session: &Session, upstream: &Upstream) -> Result<usize, Failure> {
        let tail = Step::new("What the evidence log holds of it.").quietly();
        let tail = tail.run(&mut self.amc("ledger tail -n 1000 --json"))?.json()?;
        check::session(session, &tail, upstream).map_err(|failure| failure.during(&session.provider))?;
        for call in &session.calls {
            println!("  {}", call.in_words());
        }
        let receipts: Vec<&str> = session.calls.iter().flat_map(Call::receipts).collect();
        for receipt in &receipts {
            self.receipt(receipt)?;
        }
        println!("  {} receipts: genuine, positions proven, and refused with a changed signature", receipts.len());
        Ok(receipts.len())
    }

    /// A receipt has to verify with its place in the log, and not with one character of its signature changed.
    fn receipt(&self, receipt: &str) -> Result<(), Failure> {
        let verify =
            |receipt: &str| process::capture(self.amc("receipt verify --json").arg(receipt), Duration::from_secs(60));
        let answer = parse(&verify(receipt)?.success()?)?;
        if answer["data"]["position"] != "proven" {
            return Err(Failure::new(format!("the receipt's position is not proven: {answer}")));
        }
        let refused = verify(&check::with_changed_signature(receipt))?;
        match refused.status.code() {
            Some(1) if parse(&refused.stdout)?["findings"][0]["code"] == "TRACE_RECEIPT_INVALID" => Ok(()),
            _ => Err(Failure::new(format!("a changed receipt was not refused as such: {}", refused.stdout))),
        }
    }

    /// The same receipts under a verifier of others.
    fn jose(&self, files: &[String], receipts: usize) -> Result<(), Failure> {
        let mut check = Command::new(&self.python);
        check.current_dir(self.stage.dir()).arg("-B").arg(self.programs.join("check_receipts.py"));
        check.arg(".amc/trust.policy").args(files);
        let answer = Step::new("All receipts again, by PyJWT under the pinned key.").run(&mut check)?.json()?;
        if answer["verified"] == receipts {
            return Ok(());
        }
        Err(Failure::new(format!("PyJWT verified {answer}, there are {receipts} receipts")))
    }

    fn amc(&self, line: &str) -> Command {
        amc(self.stage, line)
    }
}

/// `amc` in the stage's directory.
fn amc(stage: &Stage, line: &str) -> Command {
    let mut command = stage.program("amc");
    command.env("AMC_VAULT_PASSPHRASE", "unlocks a workspace of tests").args(line.split_whitespace());
    command
}

/// The arguments that make a server of all dialects the provider of each.
fn routes_to(port: u16) -> String {
    format!(
        "gateway init --provider openai=http://127.0.0.1:{port}/v1 --provider anthropic=http://127.0.0.1:{port} \
         --provider gemini=http://127.0.0.1:{port}"
    )
}

fn parse(line: &str) -> Result<Value, Failure> {
    serde_json::from_str(line).map_err(|error| Failure::new(format!("not JSON ({error}): {line}")))
}

/// Words enough for a stream of some twenty pieces.
const PROMPT: &str = "Name the three primary colours of light in one short sentence, please";

/// What every answer of the demo model to it holds.
const DEMO_ANSWER: &str = "demo model, not a language model. It heard: Name the three primary colours";

/// Far above what a machine under load adds or loses between two pieces.
const PIECE_DELAY_MS: u32 = 40;

/// A client's start alone takes seconds on a slow machine; a real model's answers more.
const CLIENT_LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned() {
        let file = workspace::root().join("fixtures/clients/requirements.txt");
        let packages = requirements(&file).expect("the file is there");
        assert!(packages.iter().any(|package| package.starts_with("openai==")), "{packages:?}");
        assert!(packages.iter().all(|package| package.contains("==")), "{packages:?}");
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        assert!(command(&["--real".into()]).is_err());
    }
}

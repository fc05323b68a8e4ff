//! `up`, `down`, `status`, and sessions beside one another.

use std::process::Stdio;

use serde_json::Value;

use crate::answer::Answer;
use crate::home::{TestHome, model, until};

/// Stops what `up` started, also when the test fails.
pub(crate) struct Up<'a>(&'a TestHome);

impl<'a> Up<'a> {
    pub(crate) fn start(home: &'a TestHome) -> (Self, Value) {
        // What runs on in the background keeps the standard error that `up` had.
        let log = std::fs::File::create(home.beside("up.log")).expect("a file");
        let output = home.command().args(["--json", "up"]).stdout(Stdio::piped()).stderr(log).output();
        let answer = Answer::from_output(output.expect("amc starts"), "amc up".to_owned()).ends(0);
        (Up(home), answer.data())
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let down = self.0.json(&["down"]);
        if !std::thread::panicking() {
            assert_eq!(down.code, 0, "{down}");
        }
    }
}

#[test]
fn up_status_and_down() {
    let home = TestHome::new();
    assert_eq!(home.json(&["status"]).ends(0).data()["monitor"], Value::Null);
    let (up, data) = Up::start(&home);
    assert!(data["monitor"]["pid"].is_u64(), "{data}");
    let status = home.json(&["status"]).ends(0).data();
    assert_eq!(status["gateway"]["listen"], data["gateway"]["listen"]);
    assert_eq!(home.json(&["gateway", "status"]).ends(0).data(), status["gateway"]);

    // A second `up` changes nothing.
    assert_eq!(home.json(&["up"]).ends(0).data()["monitor"]["pid"], data["monitor"]["pid"]);

    // A session joins it and leaves it running.
    let wrapped = home.wrap_sh("echo $OPENAI_BASE_URL").ends(0);
    let listen = status["gateway"]["listen"].as_str().expect("an address");
    assert_eq!(wrapped.text().trim(), format!("http://{listen}/openai/v1"));
    assert_eq!(home.json(&["status"]).ends(0).data()["monitor"]["pid"], data["monitor"]["pid"]);

    // What needs no key works beside it, and the auditor beside the monitor.
    home.json(&["verify"]).ends(0);
    home.json(&["ledger", "head"]).ends(0);
    assert!([0, 1].contains(&home.json(&["run", "--agent", "support"]).code));

    drop(up);
    assert_eq!(home.json(&["status"]).ends(0).data()["monitor"], Value::Null);
    for socket in ["run/monitor.sock", "run/gateway.sock"] {
        assert!(!home.file(socket).exists(), "{socket} is left");
    }
    home.json(&["verify"]).ends(0);
    assert!(home.amc(&["down"]).ends(0).text().contains("Nothing was running"));
    home.assert_tidy();
}

#[test]
fn two_agents_at_once_share_monitor_and_gateway() {
    let home = TestHome::new();
    let model = model(&[]);
    home.route_to(model.listening());
    // Each waits for the other, so that both sessions are open at the same time.
    let script = |own: &str, other: &str| {
        let (own, other) = (home.beside(own), home.beside(other));
        let wait = format!("while [ ! -e {} ]; do sleep 0.01; done", other.display());
        format!("touch {}; {wait}; echo $OPENAI_BASE_URL", own.display())
    };
    let start = |agent: &str, script: String| {
        let arguments = ["wrap", "--agent", agent, "--isolation", "none", "--", "sh", "-c", &script];
        let mut command = home.command();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("amc starts")
    };
    let first = start("support", script("a", "b"));
    until(|| home.beside("a").exists());
    let second = start("helper", script("b", "a"));
    let first = first.wait_with_output().expect("it ends");
    let second = second.wait_with_output().expect("it ends");
    assert!(first.status.success() && second.status.success(), "{first:?}\n{second:?}");
    assert_eq!(first.stdout, second.stdout, "one gateway serves both");
    let seals = home.evidence_of("session_seal");
    assert_eq!(seals.len(), 2);
    assert!(seals.iter().all(|seal| seal["fields"]["outcome"] == "sealed"), "{seals:?}");
    assert_eq!(home.evidence_of("monitor_started").len(), 1);
    // The end of the last user is the end of the services.
    until(|| !home.file("run/monitor.sock").exists());
    let verified = home.json(&["verify"]).ends(0).data();
    assert_eq!(verified["evidence"]["sessions"], 2);
}

//! The running gateway from outside: its configuration again, a monitor that ends, who is warned.

use std::fs;

use amc_workspace::protocol::Client;
use amc_workspace::protocol::operator::{OperatorReply, OperatorRequest};
use serde_json::json;

use crate::home::{TestHome, model};
use crate::leases::{chat, issue, listen_of};
use crate::services::Up;

#[test]
fn a_reload_takes_what_holds_and_leaves_the_rest() {
    let home = TestHome::new();
    let (first, second) = (model(&[]), model(&[]));
    home.route_to(first.listening());
    let (up, data) = Up::start(&home);
    let listen = listen_of(&data);
    let (_, token) = issue(&home, &[]);
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(chat(&listen, &bearer, "m-1"), 200);

    // Another address takes effect without a new start.
    drop(first);
    assert_eq!(chat(&listen, &bearer, "m-1"), 502);
    home.route_to(second.listening());
    let data = home.json(&["gateway", "reload"]).ends(0).data();
    assert_eq!(data["config_state"], "signed");
    assert_eq!(chat(&listen, &bearer, "m-1"), 200);

    // Neither what does not parse nor what nobody signed for comes into force.
    let good = fs::read_to_string(home.file("gateway.yaml")).expect("it is there");
    for bad in ["listen: [", &good.replace(&second.listening().to_string(), "127.0.0.1:1")] {
        fs::write(home.file("gateway.yaml"), bad).expect("it is written");
        let answer = home.amc(&["gateway", "reload"]).ends(1);
        assert!(answer.stderr.contains("stays in force"), "{answer}");
        assert_eq!(chat(&listen, &bearer, "m-1"), 200);
    }
    drop(up);
    let reloads = home.evidence_of("gateway_reloaded");
    let applied: Vec<_> = reloads.iter().map(|event| event["fields"]["applied"].clone()).collect();
    assert_eq!(applied, [json!(true), json!(false), json!(false)]);
    let nobody = home.amc(&["gateway", "reload"]).ends(3);
    assert!(nobody.stderr.contains("amc up"), "{nobody}");
}

#[test]
fn the_end_of_its_monitor_is_no_failure_of_the_gateway() {
    let home = TestHome::new();
    home.wrap_sh("true").ends(0);
    let log = fs::read_to_string(home.file("run/gateway.log")).unwrap_or_default();
    assert!(!log.contains("monitor"), "{log}");
}

#[test]
fn the_gateway_gives_up_what_it_does_not_need() {
    let home = TestHome::new();
    let (_up, _) = Up::start(&home);
    let mut client =
        Client::<OperatorRequest, OperatorReply>::connect(&home.file("run/monitor.sock")).expect("it runs");
    let OperatorReply::Status(status) = client.call(OperatorRequest::Status).expect("an answer") else {
        panic!("no status")
    };
    let pid = status.gateway_pid.expect("the gateway runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.lines().any(|found| found == line), "{line} in\n{status}");
    }
}

#[test]
fn a_listener_for_other_machines_is_told() {
    let home = TestHome::new();
    home.amc(&["gateway", "init", "--listen", "0.0.0.0:0"]).ends(0);
    let log = fs::File::create(home.beside("up.log")).expect("a file");
    let output = home.command().arg("up").stderr(log).output().expect("amc starts");
    home.amc(&["down"]).ends(0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Warning: other machines can reach the gateway at 0.0.0.0:"), "{text}");
}

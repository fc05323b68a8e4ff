//! The egress proxy from outside: what `wrap` sets, what curl and Python make of it, what is recorded.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use serde_json::json;

use crate::home::{TestHome, model};

/// A home whose agents may go to one port of this machine; gives `host:port`.
fn home_with_egress(home: &TestHome, address: &str) {
    home.amc(&["gateway", "init", "--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0", "--allow", address])
        .ends(0);
    let mut file = fs::OpenOptions::new().append(true).open(home.file("gateway.yaml")).expect("it is there");
    writeln!(file, "  internal:\n    - 127.0.0.1").expect("it is written");
    home.amc(&["config", "sign", "gateway.yaml"]).ends(0);
}

fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("SKIPPED: calls by {program} through the egress proxy: {program} is not installed");
    }
    there
}

#[test]
fn curl_and_python_go_where_the_list_says_with_the_lease_that_wrap_sets() {
    let home = TestHome::new();
    let model = model(&[]);
    let address = model.listening().to_string();
    home_with_egress(&home, &address);
    let mut passed = 0;
    let mut blocked = 0;
    if is_there("curl") {
        // The model answers this path to whoever reaches it.
        let script = format!(
            "printf '%s ' \"$HTTPS_PROXY\"; \
             curl -s -o /dev/null -w '%{{http_code}} ' --noproxy '' http://{address}/v1/models; \
             curl -s -o /dev/null -w '%{{http_code}} ' --noproxy '' --proxytunnel http://{address}/v1/models; \
             curl -s --noproxy '' http://blocked.example/; \
             curl -s -o /dev/null -w '%{{http_connect}}' --noproxy '' https://blocked.example/; true"
        );
        let answer = home.wrap_sh(&script).ends(0);
        let text = answer.text();
        assert!(text.starts_with("http://amc:amc-lease-") && text.contains("@127.0.0.1:"), "{text}");
        assert!(
            text.contains(" 200 200 AMC egress proxy: NETWORK_EGRESS_BLOCKED: blocked.example:80 is on no allow-list"),
            "{text}"
        );
        assert!(text.ends_with("403"), "{text}");
        (passed, blocked) = (passed + 2, blocked + 2);
    }
    if is_there("python3") {
        let script = format!(
            "import os, urllib.request, urllib.error\n\
             os.environ['no_proxy'] = ''\n\
             opener = urllib.request.build_opener(urllib.request.ProxyHandler({{'http': os.environ['http_proxy']}}))\n\
             for url in ('http://{address}/v1/models', 'http://169.254.169.254/'):\n    \
             try: print(opener.open(url).status, end=' ')\n    \
             except urllib.error.HTTPError as error: print(error.code, end=' ')\n"
        );
        let answer =
            home.amc(&["wrap", "--agent", "support", "--isolation", "none", "--", "python3", "-c", &script]).ends(0);
        assert_eq!(answer.text(), "200 403 ");
        (passed, blocked) = (passed + 1, blocked + 1);
    }
    let tunnels = home.evidence_of("egress_tunnel");
    assert_eq!(tunnels.len(), passed, "{tunnels:?}");
    for tunnel in &tunnels {
        assert_eq!((&tunnel["fields"]["address"], &tunnel["agent_id"]), (&json!("127.0.0.1"), &json!("support")));
        assert!(tunnel["session_id"].is_string() && tunnel["tier"] == "OBSERVED", "{tunnel}");
        assert!(tunnel["fields"]["sent_len"].as_u64() > Some(0) && tunnel["fields"]["received_len"].as_u64() > Some(0));
    }
    let refusals = home.evidence_of("egress_blocked");
    assert_eq!(refusals.len(), blocked, "{refusals:?}");
    assert!(refusals.iter().all(|event| event["fields"]["reason"] == "not_allowed"), "{refusals:?}");
    let started = &home.evidence_of("egress_started")[0]["fields"];
    assert_eq!((&started["allow"], &started["internal"]), (&json!([address]), &json!(["127.0.0.1"])));
    home.json(&["verify"]).ends(0);
}

#[test]
fn without_an_egress_section_no_proxy_is_set() {
    let home = TestHome::new();
    let answer = home.wrap_sh("echo \"[$HTTPS_PROXY$http_proxy$ALL_PROXY]\"").ends(0);
    assert_eq!(answer.text().trim(), "[]");
    assert!(home.evidence_of("egress_started").is_empty());
}

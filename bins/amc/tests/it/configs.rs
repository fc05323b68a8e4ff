//! Signed configuration that is not as it was signed: work goes on, and everybody is told.

use std::fs;

use serde_json::json;

use crate::home::TestHome;

/// `config_loaded` events of `gateway.yaml`, as version and state.
fn loaded(home: &TestHome) -> Vec<serde_json::Value> {
    let events =
        home.evidence_of("config_loaded").into_iter().filter(|event| event["fields"]["path"] == "gateway.yaml");
    events.map(|event| json!([event["fields"]["version"], event["fields"]["state"]])).collect()
}

#[test]
fn an_edited_file_works_is_recorded_as_invalid_and_fails_verification() {
    let home = TestHome::new();
    let path = home.file("gateway.yaml");
    let text = fs::read_to_string(&path).expect("it can be read");
    fs::write(&path, format!("{text}# a remark\n")).expect("it can be written");
    home.wrap_sh("exit 4").ends(4);
    assert_eq!(loaded(&home), [json!([null, "invalid"])]);
    let verify = home.json(&["verify"]).ends(1);
    assert_eq!(verify.errors().into_iter().collect::<Vec<_>>(), ["CONFIG_SIGNATURE_INVALID"]);
    let text = home.amc(&["verify"]).ends(1);
    assert!(text.stderr.contains("gateway.yaml") && text.stderr.contains("amc config sign gateway.yaml"), "{text}");
    let one = home.json(&["gateway", "verify-config"]).ends(1);
    assert_eq!(one.data()["state"], "invalid");
    // A run counts it against the workspace, as the evidence log recorded it.
    let run = home.json(&["run", "--agent", "support"]);
    assert!(run.findings().contains("CONFIG_SIGNATURE_INVALID"), "{run}");

    // Signed again it is the next version, and everything verifies.
    home.amc(&["config", "sign", "gateway.yaml"]).ends(0);
    home.json(&["verify"]).ends(0);
    home.wrap_sh("exit 0").ends(0);
    assert_eq!(loaded(&home)[1], json!([3, "signed"]));
    home.assert_tidy();
}

#[test]
fn a_signature_that_is_gone_is_an_error_where_one_was_recorded() {
    let home = TestHome::new();
    fs::remove_file(home.file("gateway.yaml.sig")).expect("it was there");
    home.wrap_sh("exit 0").ends(0);
    assert_eq!(loaded(&home), [json!([null, "unsigned"])]);
    let verify = home.json(&["verify"]).ends(1);
    assert_eq!(verify.errors().into_iter().collect::<Vec<_>>(), ["CONFIG_UNSIGNED"]);
}

#[test]
fn a_configuration_that_says_nonsense_starts_nothing() {
    let home = TestHome::new();
    let path = home.file("gateway.yaml");
    for text in
        ["", "listen: [", "listen: 127.0.0.1:0\nproviders: {}\nnoSuchKey: 1\n", "listen: nowhere\nproviders: {}\n"]
    {
        fs::write(&path, text).expect("it can be written");
        let before = home.evidence().len();
        home.amc(&["wrap", "--agent", "support", "--", "true"]).ends(125).says(&["gateway.yaml"]);
        home.amc(&["config", "sign", "gateway.yaml"]).ends(2).says(&["gateway.yaml"]);
        home.amc(&["gateway", "init"]).ends(2).says(&["gateway.yaml"]);
        assert_eq!(home.evidence().len(), before);
        assert_eq!(fs::read_to_string(&path).expect("it can be read"), text, "nothing repairs it");
    }
    home.assert_tidy();
}

#[test]
fn a_trust_policy_that_says_nonsense_is_wrong_input() {
    let home = TestHome::new();
    for text in ["", "log nonsense\n", "\u{0}\u{1}"] {
        fs::write(home.file("trust.policy"), text).expect("it can be written");
        home.amc(&["verify"]).ends(2).says(&["trust.policy"]);
        home.amc(&["wrap", "--agent", "support", "--", "true"]).ends(125);
    }
}

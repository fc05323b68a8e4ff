//! Certificates from outside: issued only for what passes, verified anywhere, ended by time or by their issuer.

use std::fs;
use std::path::{Path, PathBuf};

use crate::answer::Answer;
use crate::home::{TestHome, bare_command, command_in, until};
use crate::rotation::rotate;

/// A home with a VALID run of `support` and a policy that it passes; `None` where no run can be VALID.
struct Issuer {
    home: TestHome,
    run: String,
}

impl Issuer {
    fn new() -> Option<Self> {
        let home = TestHome::new();
        let wrapped = home.amc(&["wrap", "--agent", "support", "--isolation", "namespaces", "--", "true"]);
        if wrapped.code != 0 {
            println!("SKIPPED: no namespaces for agents on this machine, so no run is VALID: {}", wrapped.stderr);
            return None;
        }
        let run = home.json(&["run", "--agent", "support"]).ends(0).data()["run_id"].clone();
        let issuer = Issuer { home, run: run.as_str().expect("a run id").to_owned() };
        issuer.sign_policy(r#"{"agentId": "support", "minIntegrityBp": 0}"#);
        Some(issuer)
    }

    fn policy(&self) -> String {
        self.home.file("agents/support/gatePolicy.json").display().to_string()
    }

    fn sign_policy(&self, text: &str) {
        fs::write(self.policy(), text).expect("it can be written");
        self.home.amc(&["config", "sign", "agents/support/gatePolicy.json"]).ends(0);
    }

    fn certify(&self, out: &Path, more: &[&str]) -> Answer {
        let (policy, out) = (self.policy(), out.display().to_string());
        let arguments = ["certify", "--agent", "support", "--run", &self.run, "--policy", &policy, "--out", &out];
        self.home.json(&[&arguments[..], more].concat())
    }

    fn issued(&self) -> (PathBuf, String) {
        let out = self.home.beside("support.amccert");
        let answer = self.certify(&out, &[]).ends(0);
        (out, answer.data()["certificate_id"].as_str().expect("an id").to_owned())
    }

    /// `amc` of somebody who has the files and the trust policy, and no home.
    fn elsewhere(&self, arguments: &[&str]) -> Answer {
        let trust = self.home.file("trust.policy").display().to_string();
        let elsewhere = self.home.beside("elsewhere");
        fs::create_dir_all(&elsewhere).expect("a directory");
        Answer::of(bare_command(&elsewhere).env("AMC_TRUST", trust).arg("--json").args(arguments))
    }
}

fn entries(home: &TestHome, kind: &str) -> usize {
    let events = home.json(&["ledger", "tail", "--log", "audit", "-n", "10000"]).ends(0).data()["events"].clone();
    events.as_array().expect("a list").iter().filter(|event| event["kind"] == kind).count()
}

#[test]
fn a_certificate_is_issued_verified_shown_and_revoked() {
    let Some(issuer) = Issuer::new() else { return };
    let (file, id) = issuer.issued();
    let cert = file.display().to_string();
    assert_eq!(entries(&issuer.home, "certificate_issued"), 1);

    let verified = issuer.elsewhere(&["cert", "verify", &cert, "--max-age", "1d"]).ends(0).data();
    assert_eq!(verified["certificate_id"], id.as_str());
    assert_eq!((verified["run_id"].as_str(), verified["status"].as_str()), (Some(issuer.run.as_str()), Some("VALID")));
    issuer.elsewhere(&["bundle", "verify", &cert]).ends(0);
    let shown = issuer.elsewhere(&["cert", "inspect", &cert]).ends(0).data();
    assert_eq!(
        (shown["verified"].as_bool(), shown["certificate"]["certificate_id"].as_str()),
        (Some(false), Some(&*id))
    );

    let (page, badge) = (issuer.home.beside("cert.html"), issuer.home.beside("cert.svg"));
    let inspect = ["cert", "inspect", &cert, "--out"];
    issuer.elsewhere(&[&inspect[..], &[&page.display().to_string(), "--format", "html"]].concat()).ends(0);
    issuer.elsewhere(&[&inspect[..], &[&badge.display().to_string(), "--format", "badge"]].concat()).ends(0);
    let page = fs::read_to_string(page).expect("written");
    assert!(page.contains(&id) && page.contains("VALID") && !page.contains("<script"));
    assert!(fs::read_to_string(badge).expect("written").starts_with("<svg "));

    let dir = issuer.home.beside("revocations");
    fs::create_dir(&dir).expect("a directory");
    let file = dir.join("one.json").display().to_string();
    issuer.elsewhere(&["cert", "verify", &cert, "--revocations", &dir.display().to_string()]).ends(0);
    let revoke = ["cert", "revoke", &cert, "--reason", "the agent was replaced", "--out", &file];
    let revoked = issuer.home.json(&revoke).ends(0).data();
    assert_eq!((revoked["certificate_id"].as_str(), revoked["already_revoked"].as_bool()), (Some(&*id), Some(false)));
    for place in [file.clone(), dir.display().to_string()] {
        let answer = issuer.elsewhere(&["cert", "verify", &cert, "--revocations", &place]).ends(1);
        assert!(answer.errors().contains("CERT_REVOKED"), "{answer}");
        assert_eq!(answer.data()["certificate_id"], serde_json::Value::Null);
        let html = issuer.elsewhere(&["cert", "inspect", &cert, "--format", "html", "--revocations", &place]).ends(1);
        assert!(html.errors().contains("CERT_REVOKED"), "{html}");
    }
    // Whoever was not told verifies it still; the issuer's own home knows.
    issuer.elsewhere(&["cert", "verify", &cert]).ends(0);
    let at_home = issuer.home.json(&["cert", "verify", &cert]).ends(1);
    assert!(at_home.errors().contains("CERT_REVOKED"), "{at_home}");
    // Once is enough: the file comes out again as it was.
    let again = dir.join("two.json").display().to_string();
    let repeated = ["cert", "revoke", &id, "--reason", "another reason", "--out", &again];
    assert_eq!(issuer.home.json(&repeated).ends(0).data()["reason"], "the agent was replaced");
    assert_eq!(fs::read(&file).expect("written"), fs::read(&again).expect("written"));
    assert_eq!(entries(&issuer.home, "certificate_revoked"), 1);
    issuer.home.json(&["verify"]).ends(0);
    issuer.home.assert_tidy();
}

#[test]
fn a_strangers_revocation_does_not_count_and_a_damaged_one_is_not_skipped() {
    let Some(issuer) = Issuer::new() else { return };
    let (file, id) = issuer.issued();
    let cert = file.display().to_string();
    // A stranger who made the same certificate's id known to a home of his own: he has no such certificate.
    let dir = tempfile::tempdir().expect("a directory");
    Answer::of(command_in(dir.path()).args(["init", "--name", "acme-test", "--agent", "support"])).ends(0);
    let out = dir.path().join("stranger.json").display().to_string();
    let revoke = ["cert", "revoke", &id, "--reason", "envy", "--out", &out];
    Answer::of(command_in(dir.path()).args(revoke)).ends(2).says(&["records no certificate"]);
    assert!(!Path::new(&out).exists());

    // The issuer's own revocation with its text changed names the certificate, and nobody signed it.
    issuer.home.amc(&["cert", "revoke", &id, "--reason", "over", "--out", &out]).ends(0);
    let text = fs::read_to_string(&out).expect("written");
    let at = text.find("\"sig\":\"").expect("a signature") + 10;
    let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
    fs::write(&out, forged).expect("it can be written");
    let answer = issuer.elsewhere(&["cert", "verify", &cert, "--revocations", &out]).ends(0);
    assert!(answer.findings().contains("REVOCATION_ISSUER_MISMATCH"), "{answer}");

    fs::write(&out, &text[..text.len() / 2]).expect("it can be written");
    let cut = issuer.elsewhere(&["cert", "verify", &cert, "--revocations", &out]).ends(2);
    assert!(cut.data()["error"].as_str().expect("why").contains("is no revocation"), "{cut}");
    let missing = issuer.home.beside("no-such-file").display().to_string();
    issuer.elsewhere(&["cert", "verify", &cert, "--revocations", &missing]).ends(2);
}

#[test]
fn the_one_revocation_that_counts_is_found_among_hundreds() {
    let Some(issuer) = Issuer::new() else { return };
    let (file, id) = issuer.issued();
    let cert = file.display().to_string();
    let other = issuer.home.beside("other.amccert");
    let other = issuer.certify(&other, &["--valid-for", "2d"]).ends(0).data()["certificate_id"].clone();
    let dir = issuer.home.beside("revocations");
    fs::create_dir(&dir).expect("a directory");
    let about_other = dir.join("000.json");
    let revoke = |id: &str, out: &Path| {
        let out = out.display().to_string();
        issuer.home.amc(&["cert", "revoke", id, "--reason", "over", "--out", &out]).ends(0);
    };
    revoke(other.as_str().expect("an id"), &about_other);
    for number in 1..400 {
        fs::copy(&about_other, dir.join(format!("{number:03}.json"))).expect("a copy");
    }
    let place = dir.display().to_string();
    let verify = ["cert", "verify", &cert, "--revocations", &place];
    let before = issuer.elsewhere(&verify).ends(0);
    assert!(before.findings().is_empty(), "revocations of another certificate say nothing: {before}");
    // What is no revocation may have been the one that counts: it is named, and nothing is decided.
    let junk = dir.join("README");
    fs::write(&junk, "revocations of acme\n").expect("a file");
    let wrong = issuer.elsewhere(&verify).ends(2);
    assert!(wrong.data()["error"].as_str().expect("why").contains("README"), "{wrong}");
    fs::remove_file(&junk).expect("it was there");
    revoke(&id, &dir.join("250.json"));
    let revoked = issuer.elsewhere(&verify).ends(1);
    assert_eq!(revoked.errors().into_iter().collect::<Vec<_>>(), ["CERT_REVOKED"]);
}

#[test]
fn a_policy_under_the_auditors_new_key_certifies() {
    let Some(issuer) = Issuer::new() else { return };
    rotate(&issuer.home, "auditor", "log");
    issuer.sign_policy(r#"{"agentId": "support", "minOverallBp": 0}"#);
    // A run of before and one of after the change, each under the trust policy of before.
    let (before, _) = issuer.issued();
    issuer.elsewhere(&["cert", "verify", &before.display().to_string()]).ends(0);
    let run = issuer.home.json(&["run", "--agent", "support"]).ends(0).data()["run_id"].clone();
    let issuer = Issuer { run: run.as_str().expect("a run id").to_owned(), ..issuer };
    let after = issuer.home.beside("after.amccert");
    issuer.certify(&after, &[]).ends(0);
    issuer.elsewhere(&["cert", "verify", &after.display().to_string()]).ends(0);
}

#[test]
fn a_certificate_ends_by_itself() {
    let Some(issuer) = Issuer::new() else { return };
    let out = issuer.home.beside("short.amccert");
    issuer.certify(&out, &["--valid-for", "1s"]).ends(0);
    let cert = out.display().to_string();
    until(|| issuer.elsewhere(&["cert", "verify", &cert]).code == 1);
    let answer = issuer.elsewhere(&["cert", "verify", &cert]).ends(1);
    assert_eq!(answer.errors().into_iter().collect::<Vec<_>>(), ["CERT_EXPIRED"]);
    issuer.elsewhere(&["bundle", "verify", &cert]).ends(0);
    issuer.certify(&issuer.home.beside("long.amccert"), &["--valid-for", "367d"]).ends(2);
}

#[test]
fn what_a_policy_denies_gets_no_certificate() {
    let Some(issuer) = Issuer::new() else { return };
    let out = issuer.home.beside("denied.amccert");
    for policy in [r#"{"denyIfLowTrust": true}"#, r#"{"agentId": "helper"}"#, r#"{"minOverallBp": 50000}"#] {
        issuer.sign_policy(policy);
        let denied = issuer.certify(&out, &[]).ends(1);
        let gate = denied.data()["gate"].clone();
        assert_eq!(gate["decision"], "deny", "{policy}");
        assert!(gate["rules"].as_array().expect("rules").iter().any(|rule| rule["pass"] == false), "{policy}");
    }
    // Changed after it was signed, and never signed at all.
    fs::write(issuer.policy(), "{}").expect("it can be written");
    issuer.certify(&out, &[]).ends(1);
    fs::remove_file(format!("{}.sig", issuer.policy())).expect("it was there");
    issuer.certify(&out, &[]).ends(1);
    issuer.sign_policy("{}");
    fs::write(issuer.policy(), r#"{"minOveralBp": 1}"#).expect("it can be written");
    assert!(issuer.certify(&out, &[]).code > 0);
    assert!(!out.exists());
    assert_eq!(entries(&issuer.home, "certificate_issued"), 0);
    issuer.home.assert_tidy();
}

#[test]
fn an_invalid_run_gets_no_certificate() {
    let scored = TestHome::scored();
    let policy = scored.home.file("agents/support/gatePolicy.json");
    fs::write(&policy, r#"{"minWindowDays": 0}"#).expect("it can be written");
    scored.home.amc(&["config", "sign", "agents/support/gatePolicy.json"]).ends(0);
    let (policy, out) = (policy.display().to_string(), scored.home.beside("no.amccert"));
    let target = out.display().to_string();
    let arguments = ["certify", "--agent", "support", "--run", &scored.run_id, "--policy", &policy, "--out", &target];
    let answer = scored.home.json(&arguments).ends(1);
    let rules = answer.data()["gate"]["rules"].as_array().expect("rules").clone();
    let failing: Vec<_> = rules.iter().filter(|rule| rule["pass"] == false).map(|rule| rule["rule"].clone()).collect();
    assert_eq!(failing, ["requireStatusValid"]);
    assert!(!out.exists());
    // A bundle is no certificate.
    let bundle = scored.bundle.display().to_string();
    scored.home.json(&["cert", "verify", &bundle]).ends(1);
    scored.home.amc(&["cert", "inspect", &bundle]).ends(2).says(&["holds no certificate"]);
    scored.home.assert_tidy();
}

#[test]
fn a_revocation_after_the_issuers_key_changed_counts_under_the_old_policy() {
    let Some(issuer) = Issuer::new() else { return };
    let (file, id) = issuer.issued();
    let cert = file.display().to_string();
    let pinned = fs::read(issuer.home.file("trust.policy")).expect("it can be read");
    issuer.home.amc(&["vault", "rotate-keys", "--role", "auditor", "--key", "log"]).ends(0);
    let out = issuer.home.beside("revocation.json").display().to_string();
    issuer.home.amc(&["cert", "revoke", &id, "--reason", "the agent was replaced", "--out", &out]).ends(0);
    let elsewhere = issuer.home.beside("pinned-before.policy");
    fs::write(&elsewhere, pinned).expect("a file");
    let trust = elsewhere.display().to_string();
    issuer.elsewhere(&["cert", "verify", &cert, "--trust", &trust]).ends(0);
    let arguments = ["cert", "verify", &cert, "--trust", &trust, "--revocations", &out];
    let answer = issuer.elsewhere(&arguments).ends(1);
    assert!(answer.errors().contains("CERT_REVOKED"), "{answer}");
    let at_home = issuer.home.json(&["cert", "verify", &cert]).ends(1);
    assert!(at_home.errors().contains("CERT_REVOKED"), "{at_home}");
}

//! The recipe in docs/ci, run as it stands with a release archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use amc_testkit::binary;
use serde_json::Value;

use crate::answer::Answer;
use crate::home::{Scored, TestHome};

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ci")
}

/// What the repository holds: archive with checksum, policy with signature, trust policy, bundle.
struct Checkout {
    scored: Scored,
    dir: PathBuf,
}

impl Checkout {
    fn new() -> Self {
        let scored = TestHome::scored();
        let dir = scored.home.beside("checkout");
        fs::create_dir_all(dir.join("amc-release/bin")).expect("directories");
        fs::copy(binary("amc"), dir.join("amc-release/bin/amc")).expect("a copy");
        let script = "tar -czf amc.tar.gz amc-release && sha256sum amc.tar.gz > amc.tar.gz.sha256 && rm -r amc-release";
        Answer::of(Command::new("sh").args(["-c", script]).current_dir(&dir)).ends(0);
        for file in ["gatePolicy.json", "gatePolicy.json.sig"] {
            fs::copy(scored.home.file(&format!("agents/support/{file}")), dir.join(file)).expect("a copy");
        }
        fs::copy(scored.home.file("trust.policy"), dir.join("acme.trust")).expect("a copy");
        fs::copy(&scored.bundle, dir.join("bot.amcbundle")).expect("a copy");
        Checkout { scored, dir }
    }

    fn gate(&self) -> Answer {
        let mut sh = Command::new("sh");
        sh.arg(recipes().join("gate.sh")).args(["amc.tar.gz", "bot.amcbundle", "gatePolicy.json", "acme.trust", "out"]);
        Answer::of(sh.current_dir(&self.dir).env_remove("AMC_HOME").env_remove("AMC_TRUST"))
    }

    fn decision(&self) -> Value {
        serde_json::from_slice(&fs::read(self.dir.join("out/decision.json")).expect("written")).expect("JSON")
    }
}

#[test]
fn the_shell_recipe_judges_and_leaves_its_reports() {
    let checkout = Checkout::new();
    let denied = checkout.gate().ends(1);
    assert!(denied.text().starts_with("DENY\n"), "{denied}");
    assert_eq!(checkout.decision()["data"]["decision"], "deny");
    for report in ["gate.xml", "gate.sarif"] {
        assert!(checkout.dir.join("out").join(report).is_file(), "{report}");
    }
    // A bundle that does not verify denies, a policy that is gone is a wrong call: neither ends with 0.
    let bundle = checkout.dir.join("bot.amcbundle");
    let mut bytes = fs::read(&bundle).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).expect("it can be written");
    checkout.gate().ends(1);
    fs::remove_file(checkout.dir.join("gatePolicy.json.sig")).expect("it was there");
    checkout.gate().ends(1);
    fs::remove_file(checkout.dir.join("gatePolicy.json")).expect("it was there");
    checkout.gate().ends(2);
    checkout.scored.home.assert_tidy();
}

#[test]
fn an_archive_that_is_not_the_pinned_one_is_not_run() {
    let checkout = Checkout::new();
    let path = checkout.dir.join("amc.tar.gz");
    let mut archive = fs::read(&path).expect("it can be read");
    let middle = archive.len() / 2;
    archive[middle] ^= 1;
    fs::write(&path, archive).expect("it can be written");
    let refused = checkout.gate().ends(2);
    assert!(refused.stderr.contains("was pinned"), "{refused}");
    assert!(!checkout.dir.join("out").exists());
    fs::remove_file(checkout.dir.join("amc.tar.gz.sha256")).expect("it was there");
    checkout.gate().ends(2);
}

#[test]
fn the_other_recipes_call_this_one() {
    for name in ["github-actions.yml", "gitlab-ci.yml"] {
        let text = fs::read_to_string(recipes().join(name)).expect("it is there");
        let call = "sh ci/gate.sh ci/amc.tar.gz in/bot.amcbundle ci/gatePolicy.json ci/acme.trust out";
        assert!(text.contains(call), "{name}");
        assert!(!text.contains('\t'), "{name}: YAML has no tabs");
    }
}

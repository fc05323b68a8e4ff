//! The units under docs/deploy: systemd takes them, what they promise stands in them, and each verb
//! they start exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use amc_testkit::binary;

use crate::answer::Answer;

const UNITS: [&str; 3] = ["amc-monitor.service", "amc-gateway.service", "agent.service"];

fn page(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/deploy").join(name)
}

/// Settings of a unit, each with all its values.
fn settings(name: &str) -> BTreeMap<String, Vec<String>> {
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let text = fs::read_to_string(page(name)).expect("a unit");
    for line in text.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty()) {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{name}: {line}"));
        settings.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    settings
}

#[test]
fn whoever_starts_has_no_way_to_more_than_it_needs() {
    for unit in UNITS {
        let settings = settings(unit);
        let is = |key: &str, value: &str| {
            assert_eq!(settings.get(key).map(|values| values.join(" ")).as_deref(), Some(value), "{unit}: {key}");
        };
        is("NoNewPrivileges", "yes");
        is("CapabilityBoundingSet", "");
        is("ProtectSystem", "strict");
        is("ProtectHome", "yes");
        is("UMask", "0077");
        assert_ne!(settings["User"], ["root"], "{unit}");
    }
    let [monitor, gateway, agent] = UNITS.map(settings);
    assert_eq!(monitor["RestrictAddressFamilies"], ["AF_UNIX"], "the monitor has no network");
    assert!(monitor["LoadCredential"][0].starts_with("amc-monitor:"), "the name that the monitor reads");
    for other in [&gateway, &agent] {
        assert!(!other.contains_key("LoadCredential"), "only the signer gets the passphrase");
    }
    assert!(gateway["InaccessiblePaths"].iter().any(|path| path.ends_with("vault.amcvault")));
    assert_ne!(agent["User"], monitor["User"], "the agent's user is its own");
    assert!(agent["InaccessiblePaths"].iter().any(|path| path == "/var/lib/amc"));
    assert_eq!(agent["ExecStartPre"], ["/usr/local/bin/amc probe"], "the boundary is tried first");
}

#[test]
fn the_commands_that_they_start_exist() {
    for unit in UNITS {
        let settings = settings(unit);
        for command in settings["ExecStart"].iter().chain(settings.get("ExecStartPre").into_iter().flatten()) {
            let words: Vec<&str> = command.split(' ').collect();
            let program = words[0].strip_prefix("/usr/local/bin/").expect("where the page installs them");
            if program == "my-agent" {
                continue;
            }
            let help = Answer::of(Command::new(binary(program)).arg(words[1]).arg("--help")).ends(0);
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.text().contains(flag), "{program} {} has no {flag}", words[1]);
            }
        }
    }
}

#[test]
fn systemd_takes_them_and_finds_them_little_exposed() {
    let version = Command::new("systemd-analyze").arg("--version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: systemd-analyze is not here to check units");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for unit in UNITS {
        // systemd looks whether programs are there, and they are not installed in a test.
        let text = fs::read_to_string(page(unit)).expect("a unit").replace("/usr/local/bin/my-agent", "/bin/true");
        let text = text.replace("/usr/local/bin/", &format!("{}/", binary("amc").parent().expect("a place").display()));
        fs::write(dir.path().join(unit), text).expect("a file");
    }
    for unit in UNITS {
        let path = dir.path().join(unit);
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&path);
        let said = verify.env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display())).output().expect("it starts");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let about: Vec<&str> = said.lines().filter(|line| line.contains(unit)).collect();
        assert!(about.is_empty(), "{about:#?}");
        // Of 100; a unit without any of this has 96.
        let worst = if unit == "agent.service" { "45" } else { "25" };
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=yes", "--no-pager", "--threshold", worst]).arg(&path);
        let rated = security.output().expect("it starts");
        let said = String::from_utf8_lossy(&rated.stdout);
        let last = said.lines().last().unwrap_or_default().to_owned();
        assert!(rated.status.success(), "{unit}: {last}: {}", String::from_utf8_lossy(&rated.stderr));
    }
}

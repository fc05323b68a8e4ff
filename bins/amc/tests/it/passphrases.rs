//! A passphrase for each role: what is asked of which file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::answer::Answer;
use crate::home::bare_command;

#[test]
fn each_role_opens_with_its_own_file_all_the_way_to_a_verified_bundle() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, passphrase) in [("monitor.pass", "the monitor's own words"), ("auditor.pass", "the auditor's own words")]
    {
        let path = dir.path().join(name);
        fs::write(&path, passphrase).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed");
    }
    fs::create_dir(dir.path().join("work")).expect("a directory");
    let amc = |arguments: &[&str]| -> Answer {
        let mut command: Command = bare_command(&dir.path().join("work"));
        command.args(["--passphrase-file", "../monitor.pass", "--auditor-passphrase-file", "../auditor.pass"]);
        Answer::of(command.arg("--json").args(arguments))
    };
    amc(&["init", "--name", "two", "--agent", "bot"]).ends(0);
    let mut wrap = bare_command(&dir.path().join("work"));
    wrap.args(["--passphrase-file", "../monitor.pass", "--auditor-passphrase-file", "../auditor.pass"]);
    let wrapped = Answer::of(wrap.args(["wrap", "--agent", "bot", "--", "true"])).ends(0);
    assert!(wrapped.stderr.contains("cosigned by the auditor"), "{wrapped}");
    let run = amc(&["run", "--agent", "bot"]);
    let run_id = run.data()["run_id"].as_str().expect("a run").to_owned();
    amc(&["bundle", "export", "--agent", "bot", "--run", &run_id, "--out", "out.amcbundle"]).ends(0);
    amc(&["bundle", "verify", "out.amcbundle"]).ends(0);
    let swapped = {
        let mut command = bare_command(&dir.path().join("work"));
        command.args(["--auditor-passphrase-file", "../monitor.pass", "--json", "run", "--agent", "bot"]);
        Answer::of(&mut command)
    };
    assert_eq!(swapped.ends(3).errors().into_iter().collect::<Vec<_>>(), ["VAULT_LOCKED"]);
}

//! The boundary check against its fixtures: the good workspace passes, and each bad one fails by its rule and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use xtask::boundary::{Profile, Rule, Violation, check_artifacts, check_static};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/boundary").canonicalize().expect("the fixtures are there")
}

/// Directories below `dir`, sorted.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn variants(rule: Rule) -> Vec<PathBuf> {
    directories(&fixtures().join(rule.name()))
}

fn artifacts(fixture: &Path) -> BTreeSet<Violation> {
    let name = fixture.strip_prefix(fixtures()).expect("below the fixtures");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boundary").join(name);
    check_artifacts(fixture, Some(&target), Profile::Dev).expect("the fixture builds")
}

fn rules(violations: &BTreeSet<Violation>) -> BTreeSet<Rule> {
    violations.iter().map(|violation| violation.rule).collect()
}

fn shown(violations: &BTreeSet<Violation>) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("\n")
}

/// Rules that need a build to see anything.
const OF_ARTIFACTS: [Rule; 2] = [Rule::Tripwire, Rule::TripwireControl];

#[test]
fn the_good_workspace_passes() {
    let good = fixtures().join("good");
    let violations = check_static(&good).expect("a workspace");
    assert!(violations.is_empty(), "{}", shown(&violations));
    let violations = artifacts(&good);
    assert!(violations.is_empty(), "{}", shown(&violations));
}

#[test]
fn each_static_fixture_fails_by_its_rule_alone() {
    for rule in Rule::ALL.into_iter().filter(|rule| !OF_ARTIFACTS.contains(rule)) {
        for fixture in variants(rule) {
            let violations = check_static(&fixture).expect("a workspace");
            assert_eq!(rules(&violations), [rule].into(), "{}\n{}", fixture.display(), shown(&violations));
        }
    }
}

#[test]
fn each_artifact_fixture_passes_statically_and_fails_by_its_rule_alone() {
    for rule in OF_ARTIFACTS {
        for fixture in variants(rule) {
            let violations = check_static(&fixture).expect("a workspace");
            assert!(violations.is_empty(), "{}\n{}", fixture.display(), shown(&violations));
            let violations = artifacts(&fixture);
            assert_eq!(rules(&violations), [rule].into(), "{}\n{}", fixture.display(), shown(&violations));
        }
    }
}

#[test]
fn every_rule_has_a_fixture_and_every_directory_a_rule() {
    for rule in Rule::ALL {
        assert!(!variants(rule).is_empty(), "no fixture breaks {}", rule.name());
    }
    let known: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).chain(["good", "vendor", ".cargo"]).collect();
    for dir in directories(&fixtures()) {
        let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(known.contains(name.as_str()), "{name} is no rule");
    }
}

#[test]
fn a_violation_is_one_line_with_rule_ends_and_advice() {
    let violations = check_static(&fixtures().join("edge-class/renamed")).expect("a workspace");
    assert_eq!(
        shown(&violations),
        "edge-class: amc-agent -> amc-vault (as harmless): agent may depend on core, verifier, agent; amc-vault is signer"
    );
    let violations = check_static(&fixtures().join("net-closure/feature-of-third-party")).expect("a workspace");
    let line = shown(&violations);
    assert!(
        line.starts_with("net-closure: amc-core -> tokio: with all features, by way of amc-core > quiet > tokio"),
        "{line}"
    );
}

#[test]
fn a_directory_without_a_workspace_is_an_error_not_a_pass() {
    assert!(check_static(&fixtures().join("no-such-fixture")).is_err());
}

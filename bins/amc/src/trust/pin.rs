//! `trust pin`: keys that somebody gave out, into this home's trust policy.
//!
//! A pin comes from a policy that its owner exported, or from a verifier key as text, and never from
//! inside an artifact. A name that is pinned already keeps its key unless the person says otherwise.

use std::path::Path;

use amc_core::kinds::Role;
use amc_core::limits;
use amc_crypto::note::KeyKind;
use amc_crypto::policy::{role_of_origin, workspace_of_origin};
use amc_crypto::{TrustPolicy, VerifierKey};
use amc_workspace::home;
use amc_workspace::{Answer, Failure, Opening};
use serde_json::json;

use crate::cli::PinPlan;

/// A line to be.
struct Pin {
    kind: &'static str,
    /// A log's origin, or a witness's name in this policy.
    name: String,
    key: VerifierKey,
    url: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Added,
    Already,
    Replaced,
}

pub(crate) fn pin(opening: &Opening, plan: &PinPlan) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let path = home.trust_policy_path();
    let old = home::read_bounded(&path, limits::POLICY_BYTES_MAX).map_err(Failure::wrong)?;
    let old = String::from_utf8(old).map_err(|_| Failure::wrong(format!("{} is not UTF-8", path.display())))?;
    let broken = |error: &dyn std::fmt::Display| Failure::wrong(format!("{}: {error}", path.display()));
    let policy = TrustPolicy::parse(old.as_bytes()).map_err(|error| broken(&error))?;
    let own = policy.logs().first().map(|key| workspace_of_origin(key.name()).to_owned()).unwrap_or_default();
    let pins = given(&plan.from, &own)?;
    let states = pins.iter().map(|pin| state(&policy, pin, plan.replace)).collect::<Result<Vec<State>, Failure>>()?;
    let mut text = old.clone();
    for (pin, state) in pins.iter().zip(&states) {
        match state {
            State::Already => {}
            State::Added => text = with(&text, pin, &own),
            State::Replaced => text = replaced(&text, &policy, pin),
        }
    }
    // The same strict reading as everywhere decides whether this is a policy.
    TrustPolicy::parse(text.as_bytes()).map_err(|error| broken(&error))?;
    if text != old {
        home::write_atomic(&path, text.as_bytes()).map_err(Failure::unable)?;
    }
    Ok(answer(&path, &pins, &states))
}

/// The pins of an exported policy, or the one of a verifier key.
fn given(from: &str, own: &str) -> Result<Vec<Pin>, Failure> {
    if let Ok(key) = from.parse::<VerifierKey>() {
        return Ok(vec![match key.kind() {
            KeyKind::Ed25519 => log(key),
            KeyKind::Cosignature => witness(key, own, None),
        }]);
    }
    let bytes = home::read_bounded(Path::new(from), limits::POLICY_BYTES_MAX).map_err(|error| {
        Failure::wrong(format!("{error}; give a policy from `amc trust export`, or a key as NAME+HASH+KEY"))
    })?;
    let policy = TrustPolicy::parse(&bytes).map_err(|error| {
        let how = "its owner gives one out with `amc trust export`; nothing inside an artifact is an anchor";
        Failure::wrong(format!("{from} is no trust policy: {error}; {how}"))
    })?;
    let logs = policy.logs().iter().cloned().map(log);
    let witnesses = policy.witnesses().iter().map(|given| witness(given.key.clone(), own, given.url.clone()));
    Ok(logs.chain(witnesses).collect())
}

fn log(key: VerifierKey) -> Pin {
    Pin { kind: "log", name: key.name().to_owned(), key, url: None }
}

/// A role's witness of this workspace has its short name; whatever else has the name of its key, so
/// that it cannot stand in a role's place.
fn witness(key: VerifierKey, own: &str, url: Option<String>) -> Pin {
    let short = |role: &Role| format!("{role}-witness");
    let role = [Role::Monitor, Role::Auditor].into_iter().find(|role| key.name() == format!("{own}/{}", short(role)));
    let name = role.as_ref().map_or_else(|| key.name().to_owned(), short);
    Pin { kind: "witness", name, key, url }
}

fn known<'a>(policy: &'a TrustPolicy, pin: &Pin) -> Option<&'a VerifierKey> {
    match pin.kind {
        "log" => policy.logs().iter().find(|key| key.name() == pin.name),
        _ => policy.witnesses().iter().find(|witness| witness.name == pin.name).map(|witness| &witness.key),
    }
}

fn state(policy: &TrustPolicy, pin: &Pin, replace: bool) -> Result<State, Failure> {
    match known(policy, pin) {
        None => Ok(State::Added),
        Some(key) if *key == pin.key => Ok(State::Already),
        Some(_) if replace => Ok(State::Replaced),
        Some(key) => Err(Failure::bad(format!(
            "the {} {} is pinned with another key. Pinned: {}. Given: {}. Nothing was changed; ask its owner which \
             is right, and pin it with --replace if it is the given one",
            pin.kind,
            pin.name,
            fingerprint(key),
            fingerprint(&pin.key)
        ))),
    }
}

fn fingerprint(key: &VerifierKey) -> String {
    key.public().dsse_key_id()
}

fn line(pin: &Pin) -> String {
    let url = pin.url.as_ref().map(|url| format!(" {url}")).unwrap_or_default();
    match pin.kind {
        "log" => format!("log {}\n", pin.key),
        _ => format!("witness {} {}{url}\n", pin.name, pin.key),
    }
}

/// The policy with one more pin before its groups; a role's witness of this workspace joins `roles`.
fn with(policy: &str, pin: &Pin, own: &str) -> String {
    let joins = pin.kind == "witness" && pin.key.name() == format!("{own}/{}", pin.name);
    let mut line = Some(line(pin));
    let mut text = String::with_capacity(policy.len() + 128);
    for old in policy.lines() {
        let items: Vec<&str> = old.split_whitespace().collect();
        if matches!(items.first(), Some(&("group" | "quorum"))) {
            text += &line.take().unwrap_or_default();
        }
        text += old;
        if joins && items.starts_with(&["group", "roles"]) {
            text += &format!(" {}", pin.name);
        }
        text.push('\n');
    }
    text + &line.unwrap_or_default()
}

/// The policy with the pinned key's text exchanged, and every other byte as it was.
fn replaced(text: &str, policy: &TrustPolicy, pin: &Pin) -> String {
    let old = known(policy, pin).map(ToString::to_string).unwrap_or_default();
    let exchange = |line: &str| {
        let of_kind = line.split_whitespace().next() == Some(pin.kind);
        if of_kind && line.split_whitespace().any(|item| item == old) {
            line.replacen(&old, &pin.key.to_string(), 1)
        } else {
            line.to_owned()
        }
    };
    text.lines().map(|line| exchange(line) + "\n").collect()
}

fn answer(path: &Path, pins: &[Pin], states: &[State]) -> Answer {
    let mut text = String::new();
    let mut listed = Vec::new();
    for (pin, state) in pins.iter().zip(states) {
        let state = match state {
            State::Added => "added",
            State::Already => "already pinned",
            State::Replaced => "replaced",
        };
        text += &format!("{state:<15} {} {}\n{:<15} {}\n", pin.kind, pin.name, "", fingerprint(&pin.key));
        listed.push(json!({
            "kind": pin.kind, "name": pin.name, "key": pin.key.to_string(), "key_id": fingerprint(&pin.key),
            "state": state, "role": role_of_origin(pin.key.name()).map(|role| role.to_string()),
        }));
    }
    if states.iter().any(|state| *state != State::Already) {
        text += "Compare these fingerprints with their owner's `amc trust show --json` over another way\n";
    }
    Answer::new(&json!({ "path": path, "pins": listed }), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "acme/evidence+3a7c2536+AfoK0LfkhbO7nwaINFeIBP2Rgw5jzKHx2t+KWFZ0KRTU";
    const OTHER: &str = "acme/audit+d9434050+AWb52wjDNNn/HJq87Wl5mBIZgnnRkJIOKvbGa8AF+5FA";
    const WITNESS: &str = "acme/auditor-witness+33cdc45d+BDDmk+X2osxl3+inqGCBLbLM3NOxAELgGqGwOH1Nal40";

    fn pinned(text: &str, key: &str, own: &str) -> String {
        let pins = given(key, own).expect("a key");
        with(text, &pins[0], own)
    }

    #[test]
    fn a_pin_stands_before_the_groups_and_a_roles_witness_joins_them() {
        let old = format!("# ours\nlog {LOG}\nwitness w2 {WITNESS}x\ngroup roles any w2\nquorum roles\n");
        let new = pinned(&old, OTHER, "acme");
        assert!(new.contains(&format!("log {OTHER}\ngroup roles any w2\n")), "{new}");
        let new = pinned("quorum none\n", WITNESS, "acme");
        assert_eq!(new, format!("witness auditor-witness {WITNESS}\nquorum none\n"));
        let joined = pinned(&format!("log {LOG}\ngroup roles any x\nquorum roles\n"), WITNESS, "acme");
        assert!(joined.contains("group roles any x auditor-witness\n"), "{joined}");
    }

    #[test]
    fn a_witness_of_another_workspace_keeps_its_whole_name_and_joins_nothing() {
        let new = pinned("group roles any x\nquorum roles\n", WITNESS, "else");
        assert_eq!(new, format!("witness acme/auditor-witness {WITNESS}\ngroup roles any x\nquorum roles\n"));
    }
}

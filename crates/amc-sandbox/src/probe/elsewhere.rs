//! The probe of an agent that AMC does not start, run by whoever does: what it gave, for the trusted
//! side to judge.
//!
//! There is no control here but the decoys, and no secret to compare with: what looks like AMC's
//! passphrase or a provider's key by its name or shape is reported, and no text of it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::Stdio;

use amc_core::kinds::ProbeTarget;
use amc_workspace::passphrase;
use amc_workspace::protocol::gateway::{PROBE_ATTEMPTS_MAX, PROBE_SUBJECT_BYTES_MAX, ReportedAttempt, ReportedGot};

use super::judge::is_way_closed;
use super::{Attempt, Descriptor, Got, Line, ProbeError, Targets, read_lines};
use crate::isolation::{Chosen, Purpose, Start};

/// How a provider's key begins, where it has a form.
const KEY_BEGINNINGS: &[&str] = &["sk-", "AIza", "gsk_", "xai-"];
/// A text below this is no provider's key.
const KEY_BYTES_MIN: usize = 20;
/// What a lease's token begins with; it stands in the place of a key.
const LEASE: &str = "amc-lease-";
/// Kept free for what the trusted side adds.
const RESERVED: usize = 32;

/// Probes from here, with this very environment, user and descriptors.
///
/// # Errors
/// [`ProbeError`] when it could not be run to its end.
pub fn report(init: &Path, home: &Path, trusted: Vec<(String, i32)>) -> Result<Vec<ReportedAttempt>, ProbeError> {
    let work_dir = std::env::current_dir()?;
    let start = Start {
        init: init.to_owned(),
        home: home.to_owned(),
        work_dir,
        executable: init.to_owned(),
        argv: vec!["probe".into()],
    };
    let mut command = start.command(&Chosen::as_it_is(), Purpose::Probe, false, &Targets::elsewhere(home, trusted));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = read_lines(&mut child);
    let status = child.wait()?;
    let lines = lines?;
    if !status.success() || !lines.iter().any(|line| matches!(line, Line::Done { .. })) {
        return Err(io::Error::other("it did not finish").into());
    }
    Ok(reported(lines, home))
}

fn reported(lines: Vec<Line>, home: &Path) -> Vec<ReportedAttempt> {
    let mut attempts = Vec::new();
    let mut secrets = BTreeSet::new();
    for line in lines {
        match line {
            Line::Attempt(attempt) => attempts.push(of_attempt(attempt)),
            Line::Descriptor(descriptor) => attempts.push(of_descriptor(&descriptor, home)),
            Line::Candidate { place, text } => secrets.extend(secret(&place, &text).map(|target| (target, place))),
            Line::Done { .. } => {}
        }
    }
    let looked = [
        (ProbeTarget::Passphrase, "look for AMC's passphrase by its name"),
        (ProbeTarget::ProviderKey, "look for providers' keys by name and shape"),
    ];
    for (target, subject) in looked {
        attempts.push(ReportedAttempt { target, subject: subject.to_owned(), got: ReportedGot::Denied });
    }
    let found = |(target, subject)| ReportedAttempt { target, subject, got: ReportedGot::Reached };
    attempts.extend(secrets.into_iter().map(found));
    // What says something is kept where there is too much.
    attempts.sort_by_key(|attempt| !matches!(attempt.got, ReportedGot::Reached | ReportedGot::Unclear));
    attempts.truncate(PROBE_ATTEMPTS_MAX - RESERVED);
    for attempt in &mut attempts {
        attempt.subject.retain(|character| !character.is_control());
        let end = attempt.subject.floor_char_boundary(PROBE_SUBJECT_BYTES_MAX);
        attempt.subject.truncate(end);
    }
    attempts
}

fn of_attempt(attempt: Attempt) -> ReportedAttempt {
    let Attempt { target, subject, got, decoy, .. } = attempt;
    let got = match got {
        Got::Reached => ReportedGot::Reached,
        Got::Unclear => ReportedGot::Unclear,
        Got::Denied if !is_way_closed(target, &subject, decoy) => ReportedGot::Unclear,
        Got::Denied => ReportedGot::Denied,
        Got::Absent => ReportedGot::Absent,
    };
    ReportedAttempt { target, subject, got }
}

fn of_descriptor(descriptor: &Descriptor, home: &Path) -> ReportedAttempt {
    let Descriptor { number, shown, ends, process, .. } = descriptor;
    let of_home = Path::new(shown).starts_with(home) || ends.iter().any(|end| end.starts_with(home));
    let got = if of_home || *process { ReportedGot::Reached } else { ReportedGot::Denied };
    ReportedAttempt { target: ProbeTarget::Descriptor, subject: format!("descriptor {number} on {shown}"), got }
}

/// What a text is by where it stands and how it begins.
fn secret(place: &str, text: &str) -> Option<ProbeTarget> {
    let name = place.rsplit(' ').next().unwrap_or(place);
    let is_lease = text.starts_with(LEASE);
    if name == passphrase::VARIABLE {
        return Some(ProbeTarget::Passphrase);
    }
    let named = place.contains("environment") && (name.ends_with("_API_KEY") || name.ends_with("_API_TOKEN"));
    let shaped = text.len() >= KEY_BYTES_MIN
        && !text.contains(char::is_whitespace)
        && KEY_BEGINNINGS.iter().any(|beginning| text.starts_with(beginning));
    ((named || shaped) && !is_lease).then_some(ProbeTarget::ProviderKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_by_name_and_shape_and_a_lease_is_none() {
        let key = "sk-0123456789abcdef0123456789";
        for (place, text, expected) in [
            ("environment AMC_VAULT_PASSPHRASE", "anything", Some(ProbeTarget::Passphrase)),
            ("environment of process 12: AMC_VAULT_PASSPHRASE", "anything", Some(ProbeTarget::Passphrase)),
            ("environment OPENAI_API_KEY", "a-key-of-any-form", Some(ProbeTarget::ProviderKey)),
            ("environment OPENAI_API_KEY", "amc-lease-0123", None),
            ("/home/agent/.env", key, Some(ProbeTarget::ProviderKey)),
            ("/home/agent/notes", "sk-short", None),
            ("environment PATH", "/bin", None),
        ] {
            assert_eq!(secret(place, text), expected, "{place} {text}");
        }
    }

    #[test]
    fn no_text_is_reported_and_what_was_reached_comes_first() {
        let place = "environment AMC_VAULT_PASSPHRASE".to_owned();
        let text = "open sesame".to_owned();
        let said = reported(vec![Line::Candidate { place, text }], Path::new("/home/of/amc"));
        assert_eq!((said[0].target, said[0].got), (ProbeTarget::Passphrase, ReportedGot::Reached));
        assert!(!serde_json::to_string(&said).expect("plain values").contains("open sesame"));
    }

    #[test]
    fn however_much_was_tried_room_is_left_for_the_trusted_side() {
        let many = (0..2000).map(|number| {
            Line::Attempt(Attempt {
                target: ProbeTarget::HomeRead,
                subject: format!("read\n{number} {}", "é".repeat(200)),
                got: Got::Denied,
                bytes: None,
                decoy: None,
            })
        });
        let said = reported(many.collect(), Path::new("/home/of/amc"));
        assert_eq!(said.len(), PROBE_ATTEMPTS_MAX - RESERVED);
        assert!(said.iter().all(|it| it.subject.len() <= PROBE_SUBJECT_BYTES_MAX && !it.subject.contains('\n')));
    }
}

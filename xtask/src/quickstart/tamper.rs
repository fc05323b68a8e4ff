//! One changed byte in a copy of the bundle, and one in a copy of the evidence log: both have to be found, at the
//! place where they are.
//!
//! The place is worked out here from the formats' own framing (`docs/formats/bundle.md`, `docs/formats/ledger.md`), so
//! that a verifier that merely says no does not pass for one that knows where.

use super::{BUNDLE, amc};
use crate::Failure;
use crate::stage::Stage;
use crate::step::{Answer, Step};
use std::fs;
use std::path::Path;

/// Shows that a bundle with one changed bit does not verify.
pub(super) fn bundle(stage: &Stage) -> Result<(), Failure> {
    let copy = format!("tampered/{BUNDLE}");
    let script = format!("mkdir tampered; cp {BUNDLE} {copy}");
    Step::new("Now the other way round. First a copy of the bundle.")
        .shown_as(&script)
        .run(&mut stage.shell(&script))?;
    let member = "evidence/events";
    flip(&stage.dir().join(&copy), |bytes| inside_member(bytes, member), &format!("within {member}, in {copy}"))?;
    let answer = Step::new("The bundle is refused, and the changed member is named.")
        .ends_with(1)
        .run(&mut amc(stage, &format!("bundle verify {copy} --trust trust.policy")))?;
    expect_finding(&answer, &format!("error: BUNDLE_MEMBER_MISMATCH at {member}:"))
}

/// Shows that a log with one changed bit does not verify.
pub(super) fn log(stage: &Stage) -> Result<(), Failure> {
    let script = "cp -a .amc tampered/.amc";
    Step::new("Then a copy of the whole workspace, with its modes.").shown_as(script).run(&mut stage.shell(script))?;
    let name = "logs/evidence/segments/00000000000000000000.seg";
    let segment = stage.dir().join("tampered/.amc").join(name);
    let at = flip(&segment, inside_event, &format!("within an event, in tampered/.amc/{name}"))?;
    let answer = Step::new(
        "The log does not verify, and the file and offset of the damaged record are named. The rollback findings say \
         the same from the outside: the auditor cosigned a longer log than the one that still verifies.",
    )
    .ends_with(1)
    .run(&mut amc(stage, "verify --home tampered/.amc"))?;
    expect_finding(&answer, &format!("error: EVENT_HASH_MISMATCH at {name}+{}:", at.frame))?;
    Step::new("The original is untouched.").run(&mut amc(stage, "verify --quick")).map(drop)
}

/// Where a byte is: itself, and the beginning of the record or member that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    byte: usize,
    frame: usize,
}

fn flip(path: &Path, choose: impl Fn(&[u8]) -> Option<Place>, whose: &str) -> Result<Place, Failure> {
    let mut bytes = fs::read(path)?;
    let place =
        choose(&bytes).ok_or_else(|| Failure::new(format!("{} holds nothing to change {whose}", path.display())))?;
    bytes[place.byte] ^= 1;
    fs::write(path, bytes)?;
    println!("\nOne bit is changed: the lowest of byte {}, {whose}.", place.byte);
    Ok(place)
}

fn expect_finding(answer: &Answer, wanted: &str) -> Result<(), Failure> {
    if answer.stderr.lines().any(|line| line.starts_with(wanted)) {
        return Ok(());
    }
    Err(Failure::new(format!("no finding begins with `{wanted}`:\n{}", answer.stderr)))
}

/// The middle of a member of a ustar archive.
fn inside_member(archive: &[u8], name: &str) -> Option<Place> {
    let mut at = 0;
    loop {
        let header = archive.get(at..at + BLOCK)?;
        let found = header.get(..100)?.split(|byte| *byte == 0).next()?;
        let size = std::str::from_utf8(header.get(124..135)?).ok()?.trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(size, 8).ok()?;
        if found == name.as_bytes() {
            return (size > 0).then_some(Place { byte: at + BLOCK + size / 2, frame: at });
        }
        at += BLOCK + size.div_ceil(BLOCK) * BLOCK;
    }
}

/// A byte of the first event frame past the middle of a segment's used part.
fn inside_event(segment: &[u8]) -> Option<Place> {
    let middle = segment.len() / 2;
    let tail = segment.get(middle..)?;
    let frame = middle + tail.windows(EVENT_TAG.len()).position(|window| window == EVENT_TAG)?;
    let byte = frame + INTO_EVENT;
    (byte < segment.len()).then_some(Place { byte, frame })
}

/// Of a ustar archive.
const BLOCK: usize = 512;

/// With which an event's frame begins.
const EVENT_TAG: &[u8] = b"EVNT";

/// Past the frame's head and the event's signature: no event is so short.
const INTO_EVENT: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        block.extend_from_slice(content);
        block.resize(block.len().div_ceil(BLOCK) * BLOCK, 0);
        block
    }

    #[test]
    fn the_middle_of_the_named_member_is_found() {
        let archive = [member("a", &[1; 600]), member("b", &[2; 10])].concat();
        let place = inside_member(&archive, "b").expect("it is there");
        assert_eq!((place.frame, place.byte), (3 * BLOCK, 4 * BLOCK + 5));
        assert_eq!(archive[place.byte], 2);
        assert_eq!(inside_member(&archive, "c"), None);
        assert_eq!(inside_member(&member("a", b""), "a"), None);
    }

    #[test]
    fn an_event_is_found_past_the_middle_or_not_at_all() {
        let mut segment = vec![0; 1000];
        segment[100..104].copy_from_slice(EVENT_TAG);
        assert_eq!(inside_event(&segment), None);
        segment[700..704].copy_from_slice(EVENT_TAG);
        assert_eq!(inside_event(&segment), Some(Place { byte: 800, frame: 700 }));
        assert_eq!(inside_event(&segment[..790]), None);
    }

    #[test]
    fn a_refusal_at_another_place_is_not_taken() {
        let stderr = "error: EVENT_HASH_MISMATCH at segments/0.seg+70: a frame\n".to_owned();
        let answer = Answer { status: 1, stdout: String::new(), stderr };
        assert!(expect_finding(&answer, "error: EVENT_HASH_MISMATCH at segments/0.seg+70:").is_ok());
        assert!(expect_finding(&answer, "error: EVENT_HASH_MISMATCH at segments/0.seg+7:").is_err());
    }
}

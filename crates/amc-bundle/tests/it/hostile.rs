//! Bytes of nobody in particular: flipped, cut, repeated, disguised. Whoever has no key of the
//! issuer gets nothing past the reader, and nothing makes it panic or take memory.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Seek, SeekFrom};

use amc_bundle::archive::{ArchiveError, ArchiveReader, BLOCK_BYTES, MEMBERS_MAX};
use amc_bundle::member;
use amc_core::FindingCode as Code;

use crate::world::{Parts, Plan, World, archive, errors, refused, verify};

fn small() -> (World, Vec<u8>) {
    let world = World::planned(Plan { sessions: 1, window_days: 1 });
    let bundle = world.export();
    (world, bundle)
}

/// Name, offset of the header and size of every member.
fn layout(bundle: &[u8]) -> Vec<(String, usize, usize)> {
    let mut archive = ArchiveReader::new(bundle);
    let mut layout = Vec::new();
    while let Some(header) = archive.next_member().expect("canonical") {
        let offset = usize::try_from(header.offset).expect("small");
        layout.push((header.name, offset, usize::try_from(header.size).expect("small")));
    }
    layout
}

#[test]
fn no_flipped_byte_verifies() {
    let (world, bundle) = small();
    let policy = world.keys.policy();
    let mut places: Vec<usize> = (0..bundle.len()).step_by(1_021).collect();
    for (_, offset, size) in layout(&bundle) {
        let data = offset + BLOCK_BYTES;
        let end = data + size.next_multiple_of(BLOCK_BYTES);
        places.extend(offset..offset + 8);
        places.extend((offset + 96..data).step_by(7));
        places.extend([data, data + size / 2, data + size - 1, data + size, end - 1]);
    }
    places.extend((bundle.len() - 2 * BLOCK_BYTES..bundle.len()).step_by(64));
    let mut bad = bundle.clone();
    for place in places.into_iter().filter(|place| *place < bundle.len()) {
        for bit in [0x01, 0x80] {
            bad[place] ^= bit;
            assert!(!verify(&bad, &policy).is_good(), "byte {place} of {}", bundle.len());
            bad[place] ^= bit;
        }
    }
    assert!(verify(&bad, &policy).is_good(), "unchanged again");
}

#[test]
fn every_byte_of_the_manifest_counts() {
    let (world, bundle) = small();
    let policy = world.keys.policy();
    let (_, offset, size) = layout(&bundle).remove(0);
    let mut bad = bundle.clone();
    for place in offset + BLOCK_BYTES..offset + BLOCK_BYTES + size {
        bad[place] ^= 0x02;
        let verdict = verify(&bad, &policy);
        assert!(!verdict.is_good(), "byte {place}");
        assert_eq!(verdict.findings[0].subject, member::MANIFEST, "byte {place}");
        bad[place] ^= 0x02;
    }
}

#[test]
fn no_truncation_verifies() {
    let (world, bundle) = small();
    let policy = world.keys.policy();
    let ends = layout(&bundle).into_iter().flat_map(|(_, offset, size)| {
        let data = offset + BLOCK_BYTES;
        [offset, offset + 1, data - 1, data, data + 1, data + size - 1, data + size]
    });
    let tail = bundle.len() - 2 * BLOCK_BYTES - 3..bundle.len();
    for len in (0..bundle.len()).step_by(509).chain(ends).chain(tail.step_by(13)) {
        refused(&format!("{len} bytes"), &bundle[..len], &policy, Code::BundleMalformed);
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let (world, bundle) = small();
    for tail in [&[0u8][..], &[0; BLOCK_BYTES], b"x", &[0; 10_240]] {
        refused("tail", &[&bundle, tail].concat(), &world.keys.policy(), Code::BundleMalformed);
    }
}

#[test]
fn a_changed_member_is_named_with_its_place() {
    let (world, bundle) = small();
    for (name, offset, size) in layout(&bundle).into_iter().skip(1) {
        let mut bad = bundle.clone();
        bad[offset + BLOCK_BYTES + size / 2] ^= 0x10;
        let verdict = verify(&bad, &world.keys.policy());
        assert_eq!(errors(&verdict), [(Code::BundleMemberMismatch, name.as_str())]);
        let place = format!("byte {}", offset + BLOCK_BYTES);
        assert!(verdict.findings[0].message.contains(&place), "{}", verdict.findings[0]);
    }
}

/// The archive of this manifest with these members, whatever the manifest says.
fn with_members(world: &World, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Vec<u8> {
    let parts = Parts::of(&world.export());
    let manifest = parts.manifest(&world.keys.auditor);
    let mut members = parts.members;
    change(&mut members);
    archive(&manifest, &members)
}

#[test]
fn members_missing_extra_swapped_or_resized_are_refused() {
    let (world, _) = small();
    let policy = world.keys.policy();
    let missing = with_members(&world, |members| drop(members.remove(member::BANK)));
    let verdict = refused("missing", &missing, &policy, Code::BundleMemberMismatch);
    assert_eq!(errors(&verdict), [(Code::BundleMemberMismatch, member::BANK)]);
    let last = with_members(&world, |members| drop(members.remove(member::TRUST_POLICY)));
    refused("last missing", &last, &policy, Code::BundleMemberMismatch);
    let extra = with_members(&world, |members| drop(members.insert("config/fleet.yaml".into(), vec![1])));
    let verdict = refused("extra", &extra, &policy, Code::BundleMemberUnexpected);
    assert_eq!(errors(&verdict), [(Code::BundleMemberUnexpected, "config/fleet.yaml")]);
    let at_end = with_members(&world, |members| {
        members.insert("target/agents/alpha/targets/t.json".into(), vec![1]);
    });
    refused("extra near the end", &at_end, &policy, Code::BundleMemberUnexpected);
    let swapped = with_members(&world, |members| {
        let html = members[member::REPORT_HTML].clone();
        let md = members.insert(member::REPORT_MD.into(), html).expect("there");
        members.insert(member::REPORT_HTML.into(), md);
    });
    refused("swapped", &swapped, &policy, Code::BundleMemberMismatch);
    let longer = with_members(&world, |members| members.get_mut(member::BANK).expect("there").push(b'\n'));
    refused("longer", &longer, &policy, Code::BundleMemberMismatch);
}

/// Recomputes the checksum of the header at `offset`, as somebody who disguises it would.
fn fix_checksum(bundle: &mut [u8], offset: usize) {
    let header = &mut bundle[offset..offset + BLOCK_BYTES];
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
}

fn disguised(bundle: &[u8], offset: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bad = bundle.to_vec();
    change(&mut bad[offset..offset + BLOCK_BYTES]);
    fix_checksum(&mut bad, offset);
    bad
}

fn put_name(header: &mut [u8], name: &str) {
    header[..100].fill(0);
    header[..name.len()].copy_from_slice(name.as_bytes());
}

#[test]
fn disguised_headers_are_refused() {
    let (world, bundle) = small();
    let policy = world.keys.policy();
    let places = layout(&bundle);
    let (_, offset, size) = places.iter().find(|(name, ..)| name == member::BANK).expect("there");
    let unchanged = disguised(&bundle, *offset, |_| {});
    assert!(verify(&unchanged, &policy).is_good(), "the tool itself changes nothing");
    type Change<'a> = &'a dyn Fn(&mut [u8]);
    let octal = format!("{size:o}");
    let cases: [(&str, Change<'_>); 24] = [
        ("hard link", &|header| header[156] = b'1'),
        ("symbolic link", &|header| header[156] = b'2'),
        ("character device", &|header| header[156] = b'3'),
        ("block device", &|header| header[156] = b'4'),
        ("directory", &|header| header[156] = b'5'),
        ("fifo", &|header| header[156] = b'6'),
        ("contiguous file", &|header| header[156] = b'7'),
        ("old-style regular file", &|header| header[156] = 0),
        ("pax header", &|header| header[156] = b'x'),
        ("GNU long name", &|header| header[156] = b'L'),
        ("link name", &|header| header[157..163].copy_from_slice(b"passwd")),
        ("owner", &|header| header[108..116].copy_from_slice(b"0001750\0")),
        ("time", &|header| header[136..148].copy_from_slice(b"00000000001\0")),
        ("setuid", &|header| header[100..108].copy_from_slice(b"0004755\0")),
        ("device number", &|header| header[329..337].copy_from_slice(b"0000001\0")),
        ("owner's name", &|header| header[265..269].copy_from_slice(b"root")),
        ("name prefix", &|header| header[345..348].copy_from_slice(b"etc")),
        ("GNU magic", &|header| header[257..265].copy_from_slice(b"ustar  \0")),
        ("size in base 256", &|header| {
            header[124..136].fill(0);
            header[124] = 0x80;
            header[134..136].copy_from_slice(&u16::try_from(*size).expect("small").to_be_bytes());
        }),
        ("negative size", &|header| header[124..136].fill(0xff)),
        ("size without leading zeros", &|header| {
            header[124..136].fill(b' ');
            header[124..124 + octal.len()].copy_from_slice(octal.as_bytes());
        }),
        ("huge size", &|header| header[124..136].copy_from_slice(b"77777777777\0")),
        ("sign in the size", &|header| header[124] = b'+'),
        ("stray byte after the name", &|header| header[99] = b'x'),
    ];
    for (name, change) in cases {
        refused(name, &disguised(&bundle, *offset, change), &policy, Code::BundleMalformed);
    }
}

#[test]
fn names_with_tricks_are_refused() {
    let (world, bundle) = small();
    let (_, offset, _) = layout(&bundle).remove(1);
    for name in [
        "/etc/passwd",
        "../bank.toml",
        "config/../../x",
        "./bank.toml",
        "config/./x",
        "config//x",
        "evidence",
        "bank.toml/",
        "config/.ssh",
        "C:\\x",
        "config/a\u{202e}b",
        "unknown",
    ] {
        let bad = disguised(&bundle, offset, |header| put_name(header, name));
        refused(name, &bad, &world.keys.policy(), Code::BundleMalformed);
    }
    let not_utf8 = disguised(&bundle, offset, |header| header[0] = 0xff);
    refused("not UTF-8", &not_utf8, &world.keys.policy(), Code::BundleMalformed);
}

#[test]
fn repeated_and_unsorted_members_are_refused() {
    let (world, bundle) = small();
    let policy = world.keys.policy();
    let places = layout(&bundle);
    let block = |at: usize| {
        let (_, offset, size) = &places[at];
        bundle[*offset..offset + BLOCK_BYTES + size.next_multiple_of(BLOCK_BYTES)].to_vec()
    };
    let end = vec![0; 2 * BLOCK_BYTES];
    let put = |order: &[usize]| order.iter().flat_map(|at| block(*at)).chain(end.clone()).collect::<Vec<u8>>();
    let all: Vec<usize> = (0..places.len()).collect();
    assert_eq!(put(&all), bundle);
    for (name, order) in [
        ("repeated", [&[0, 1][..], &all[1..]].concat()),
        ("manifest twice", [&[0][..], &all].concat()),
        ("manifest last", [&all[1..], &[0]].concat()),
        ("nothing at all", Vec::new()),
    ] {
        refused(name, &put(&order), &policy, Code::BundleMalformed);
    }
    let unsorted = put(&[&[0, 2, 1][..], &all[3..]].concat());
    assert!(!verify(&unsorted, &policy).is_good());
    let mut archive = ArchiveReader::new(unsorted.as_slice());
    let read: Vec<_> = std::iter::from_fn(|| archive.next_member().transpose()).take(3).collect();
    assert!(
        matches!(read.last(), Some(Err(ArchiveError::Malformed { what, .. })) if what.contains("sorted")),
        "{read:?}"
    );
    let gap = [&bundle[..places[3].1], &[0; BLOCK_BYTES], &bundle[places[3].1..]].concat();
    refused("a block of zeros in between", &gap, &policy, Code::BundleMalformed);
}

#[test]
fn a_claim_of_size_takes_no_memory() {
    // Claims two gibibytes and has none: the reader finds out without allocating them.
    let (_, bundle) = small();
    let claim = disguised(&bundle, 0, |header| header[124..136].copy_from_slice(b"20000000000\0"));
    let mut archive = ArchiveReader::new(&claim[..BLOCK_BYTES]);
    let header = archive.next_member().expect("a good header").expect("there");
    assert_eq!(header.size, 2 << 30);
    assert!(matches!(archive.read_member(&header, 4 << 20), Err(ArchiveError::Malformed { .. })));
    assert!(matches!(archive.read_member(&header, u64::MAX), Err(ArchiveError::Truncated { .. })));
}

#[test]
fn an_archive_without_end_is_cut_off() {
    // Members for ever, each canonical and sorted: the count ends it.
    let (_, bundle) = small();
    let (_, _, size) = layout(&bundle).remove(0);
    let manifest = &bundle[..BLOCK_BYTES + size.next_multiple_of(BLOCK_BYTES)];
    let empty = |at: usize| {
        let mut header = bundle[..BLOCK_BYTES].to_vec();
        put_name(&mut header, &format!("config/{at:08}"));
        header[124..136].copy_from_slice(b"00000000000\0");
        fix_checksum(&mut header, 0);
        header
    };
    let endless = (0..2 * MEMBERS_MAX).flat_map(empty).collect::<Vec<u8>>();
    let mut archive = ArchiveReader::new(manifest.chain(endless.as_slice()));
    let mut count = 0;
    let error = loop {
        match archive.next_member() {
            Ok(Some(_)) => count += 1,
            Ok(None) => panic!("it has no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(count, MEMBERS_MAX);
    assert!(error.to_string().contains("members"), "{error}");
}

#[test]
fn files_of_other_kinds_are_told_apart() {
    let (world, _) = small();
    let noise: Vec<u8> =
        (0..50_000u32).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).expect("a byte")).collect();
    for (name, bytes) in
        [("empty", Vec::new()), ("noise", noise), ("zeros", vec![0; 4_096]), ("text", b"hello\n".to_vec())]
    {
        refused(name, &bytes, &world.keys.policy(), Code::BundleMalformed);
    }
}

#[test]
fn an_error_of_the_disk_is_not_a_verdict() {
    /// A file of which so many bytes can be read.
    struct Broken<'b>(Cursor<&'b [u8]>, u64);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let left = usize::try_from(self.1.saturating_sub(self.0.position())).expect("small").min(buffer.len());
            if left == 0 { Err(std::io::Error::other("the disk is gone")) } else { self.0.read(&mut buffer[..left]) }
        }
    }
    impl Seek for Broken<'_> {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    let (world, bundle) = small();
    for len in [0, 700, bundle.len() / 2] {
        let result = amc_bundle::verify(Broken(Cursor::new(&bundle), len as u64), &world.keys.policy());
        assert!(result.is_err(), "{len}");
    }
}

/// A file that changes when its reader turns back.
struct Turning<'b> {
    now: Cursor<Vec<u8>>,
    then: &'b [u8],
}

impl Read for Turning<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.now.read(buffer)
    }
}

impl Seek for Turning<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = self.now.seek(to)?;
        if matches!(to, SeekFrom::Start(_)) {
            *self.now.get_mut() = self.then.to_vec();
        }
        Ok(at)
    }
}

#[test]
fn a_file_that_changes_after_it_verified_is_not_scored() {
    let (world, bundle) = small();
    let policy = world.keys.policy();
    let read = |then: &[u8]| amc_bundle::verify(Turning { now: Cursor::new(bundle.clone()), then }, &policy);
    assert!(read(&bundle).expect("the same").is_good());
    let mut archive = ArchiveReader::new(bundle.as_slice());
    let headers = std::iter::from_fn(|| archive.next_member().expect("canonical"));
    let events = headers.into_iter().find(|header| header.name == "evidence/events").expect("the member is there");
    let from = usize::try_from(events.offset).expect("small") + 512;
    let to = from + usize::try_from(events.size).expect("small");
    // The signature of an event is looked at once; every other byte counts again.
    let first = 4 + u32::from_le_bytes(bundle[from..from + 4].try_into().expect("a length")) as usize;
    for at in [from + 4, from + first / 2, from + first - 1, to - 70] {
        let mut changed = bundle.clone();
        changed[at] ^= 1;
        let error = read(&changed).expect_err("other events than verified");
        assert!(error.to_string().contains("a second time"), "{at}: {error}");
    }
    let error = read(&bundle[..to - 1]).expect_err("it became shorter");
    assert!(error.to_string().contains("a second time"), "{error}");
}

#[test]
fn inspect_shows_and_believes_nothing() {
    let (world, bundle) = small();
    let shown = amc_bundle::inspect(bundle.as_slice()).expect("a bundle");
    assert_eq!(shown.says.run_id, world.report.run_id);
    assert_eq!(shown.issuer_key_id, world.keys.auditor.public().dsse_key_id());
    assert_eq!(shown.report.as_ref(), Some(&world.report));
    assert_eq!(shown.bytes, bundle.len() as u64);
    assert!(amc_bundle::inspect(&bundle[..bundle.len() - 1]).is_err());
}

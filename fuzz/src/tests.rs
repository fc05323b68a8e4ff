//! The targets under an ordinary toolchain: every seed, and fixed mutations of it. The same inputs at every run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{run, targets};

/// Mutations of one seed; the slow targets write files.
const MUTATIONS: usize = 400;
const MUTATIONS_SLOW: usize = 40;
const SLOW: [&str; 3] = ["segment", "tile", "bundle"];

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut seeds: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.expect("the directory can be read").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a seed can be read")))
        .collect();
    if target == "bundle" {
        // The one bundle that verifies; too large to stand among the seeds as well.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/bundle/v1.amcbundle");
        seeds.push((path.display().to_string(), fs::read(&path).expect("the fixture is there")));
    }
    seeds.sort();
    seeds
}

/// Marsaglia's xorshift: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("below a usize")
    }
}

fn mutated(seed: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'\n'][numbers.below(6)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, numbers.next().to_le_bytes()[0]),
            4 if !bytes.is_empty() => {
                let end = (at + 1 + numbers.below(16)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = numbers.below(other.len());
                let piece = other[from..(from + numbers.below(64)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

#[test]
fn every_target_has_seeds_and_nothing_else_has() {
    let names: BTreeSet<String> = targets().map(|(name, _)| (*name).to_owned()).collect();
    let corpus_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = fs::read_dir(corpus_dir).expect("the directory is there");
    let listed = entries.map(|entry| entry.expect("it can be read").file_name().into_string().expect("plain names"));
    assert_eq!(listed.collect::<BTreeSet<String>>(), names);
    assert!(names.iter().all(|name| !corpus(name).is_empty()));
}

#[test]
fn every_target_takes_its_seeds_and_mutations_of_them() {
    let mut inputs = 0;
    for (name, _) in targets() {
        let seeds = corpus(name);
        let mutations = if SLOW.contains(name) { MUTATIONS_SLOW } else { MUTATIONS };
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        run(name, b"");
        for (path, seed) in &seeds {
            println!("{name}: {path}");
            run(name, seed);
            for _ in 0..mutations {
                let other = &seeds[numbers.below(seeds.len())].1;
                run(name, &mutated(seed, other, &mut numbers));
            }
            inputs += 1 + mutations;
        }
    }
    println!("{} targets took {inputs} inputs", targets().count());
}

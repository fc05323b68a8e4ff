//! Texts that could be a passphrase or a provider's key, wherever an agent would look.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::{Line, Out};

/// Shorter texts are no secrets worth the name.
const SHORTEST: usize = 4;
/// Longer ones are something else.
const LONGEST: usize = 512;
/// Most candidates of one probe: the trusted side compares each.
const MOST: usize = 4096;
/// Most files of one directory.
const FILES: usize = 256;
/// Bytes read of one file.
const READ: u64 = 32 * 1024;

pub(super) fn collect(out: &mut Out, work_dir: &Path) -> io::Result<()> {
    let mut found = Found::default();
    for (name, value) in std::env::vars_os() {
        found.text(&format!("environment {}", name.display()), &value.to_string_lossy());
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            found.environment(&format!("environment of process {name}"), &entry.path().join("environ"));
        }
    }
    if let Some(home) = std::env::var_os("HOME") {
        found.directory("~", Path::new(&home));
    }
    found.directory(".", work_dir);
    found
        .lines
        .iter()
        .try_for_each(|(text, place)| out.line(&Line::Candidate { place: place.clone(), text: text.clone() }))
}

#[derive(Default)]
struct Found {
    lines: Vec<(String, String)>,
    seen: BTreeSet<String>,
}

impl Found {
    fn text(&mut self, place: &str, text: &str) {
        let fits = (SHORTEST..=LONGEST).contains(&text.len());
        if fits && self.lines.len() < MOST && self.seen.insert(text.to_owned()) {
            self.lines.push((text.to_owned(), place.to_owned()));
        }
    }

    fn environment(&mut self, place: &str, path: &Path) {
        for entry in read(path).split('\0') {
            if let Some((name, value)) = entry.split_once('=') {
                self.text(&format!("{place}: {name}"), value);
            }
        }
    }

    /// The files right in a directory: histories, notes, `.env`, a passphrase file left lying about.
    fn directory(&mut self, shown: &str, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten().take(FILES) {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                self.file(&format!("{shown}/{}", entry.file_name().display()), &entry.path());
            }
        }
    }

    /// Whole lines, what stands after an equals sign, and words: a secret may stand in any of them.
    fn file(&mut self, place: &str, path: &Path) {
        for line in read(path).lines() {
            self.text(place, line.trim());
            let words = line.split([' ', '\t', '=', '"', '\'', ',', ':']);
            words.for_each(|word| self.text(place, word));
            if let Some((_, value)) = line.split_once('=') {
                self.text(place, value.trim().trim_matches(['"', '\'']));
            }
        }
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    // What cannot be read cannot be found, neither by an agent.
    let _ = File::open(path).and_then(|file| file.take(READ).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

//! Texts that could be a passphrase or a provider's key, wherever an agent would look.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Line, Out};
use crate::plan::Plan;

/// Shorter texts are no secrets worth the name.
const SHORTEST: usize = 4;
/// Longer ones are something else.
const LONGEST: usize = 512;
/// Most candidates of one probe: the trusted side compares each.
const MOST: usize = 32_768;
/// Most files of one directory.
const FILES: usize = 256;
/// Bytes read of one file.
const READ: usize = 32 * 1024;
/// The same of a shell's history, where the newest is last.
const READ_HISTORY: usize = 256 * 1024;
/// Words of a phrase in a shell's history.
const PHRASE: usize = 8;

/// Says what it finds; gives whether there was more.
pub(super) fn collect(out: &mut Out, plan: &Plan, descriptors: Vec<(String, OwnedFd)>) -> io::Result<bool> {
    let mut found = Found::default();
    for (name, value) in std::env::vars_os() {
        found.text(&format!("environment {}", name.display()), &value.to_string_lossy());
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            found.environment(&format!("environment of process {name}"), &entry.path().join("environ"));
            found.arguments(&format!("arguments of process {name}"), &entry.path().join("cmdline"));
        }
    }
    for (shown, descriptor) in descriptors {
        found.words(&format!("descriptor on {shown}"), &read_at_start(&descriptor), false);
    }
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let places = home.iter().chain(&plan.targets.look).chain([&plan.work_dir]);
    for place in places.collect::<BTreeSet<_>>() {
        found.directory(place);
    }
    for (text, place) in &found.lines {
        out.line(&Line::Candidate { place: place.clone(), text: text.clone() })?;
    }
    Ok(found.cut)
}

#[derive(Default)]
struct Found {
    lines: Vec<(String, String)>,
    seen: BTreeSet<String>,
    cut: bool,
}

impl Found {
    fn text(&mut self, place: &str, text: &str) {
        if !(SHORTEST..=LONGEST).contains(&text.len()) {
            return;
        }
        if self.lines.len() >= MOST {
            self.cut = true;
        } else if self.seen.insert(text.to_owned()) {
            self.lines.push((text.to_owned(), place.to_owned()));
        }
    }

    fn environment(&mut self, place: &str, path: &Path) {
        for entry in read(path, READ).split('\0') {
            if let Some((name, value)) = entry.split_once('=') {
                self.text(&format!("{place}: {name}"), value);
            }
        }
    }

    fn arguments(&mut self, place: &str, path: &Path) {
        for argument in read(path, READ).split('\0') {
            self.text(place, argument);
            if let Some((_, value)) = argument.split_once('=') {
                self.text(place, value);
            }
        }
    }

    /// The files right in a directory: histories, notes, `.env`, a passphrase file left lying about.
    fn directory(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten().take(FILES) {
            if fs::metadata(entry.path()).is_ok_and(|meta| meta.is_file()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                let history = name.ends_with("history");
                let bytes = if history { READ_HISTORY } else { READ };
                self.words(&entry.path().display().to_string(), &read(&entry.path(), bytes), history);
            }
        }
    }

    /// Whole lines, what stands in quotes or after an equals sign or a colon, words, and in a history
    /// runs of words: a secret may stand in any of them.
    fn words(&mut self, place: &str, text: &str, phrases: bool) {
        for line in text.lines() {
            self.text(place, line.trim());
            for quote in ['"', '\''] {
                line.split(quote).skip(1).step_by(2).for_each(|inner| self.text(place, inner));
            }
            for mark in ["=", ": "] {
                if let Some((_, value)) = line.split_once(mark) {
                    self.text(place, value.trim().trim_matches(['"', '\'']));
                }
            }
            line.split([' ', '\t', '=', '"', '\'', ',', ':']).for_each(|word| self.text(place, word));
            if phrases {
                let words: Vec<&str> = line.split(' ').collect();
                for count in 2..=PHRASE.min(words.len()) {
                    words.windows(count).for_each(|run| self.text(place, run.join(" ").trim_matches(['"', '\''])));
                }
            }
        }
    }
}

/// The end of a file, at most this many bytes of it.
fn read(path: &Path, most: usize) -> String {
    let mut bytes = Vec::new();
    // What cannot be read cannot be found, neither by an agent.
    let Ok(mut file) = File::open(path) else { return String::new() };
    let length = file.metadata().map_or(0, |meta| meta.len());
    let skip = length.saturating_sub(most as u64);
    if skip > 0 && io::Seek::seek(&mut file, io::SeekFrom::Start(skip)).is_err() {
        return String::new();
    }
    let _ = file.take(most as u64).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The beginning of an open file, whose position stays where it is.
fn read_at_start(file: &OwnedFd) -> String {
    let mut bytes = vec![0; READ];
    let length = rustix::io::pread(file, &mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

//! What a command of `amc` said: exit code, streams, and the one JSON object.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use serde_json::Value;

/// A command that ended.
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    shown: String,
}

impl Answer {
    /// Runs `command` to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the program starts");
        Answer::from_output(output, format!("{command:?}"))
    }

    pub(crate) fn from_output(output: Output, shown: String) -> Self {
        let Output { status, stdout, stderr } = output;
        let code = status.code().unwrap_or_else(|| panic!("{shown} ended by a signal: {status}"));
        Answer { code, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned(), shown }
    }

    /// The same, after a look at the exit code.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text")
    }

    /// The one JSON object of `--json`, with its four keys and its truth about the exit code.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let value: Value = serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"));
        assert_eq!(keys(&value), ["command", "data", "findings", "ok"], "{self}");
        assert_eq!(value["ok"], self.code == 0, "{self}");
        for finding in value["findings"].as_array().expect("findings are a list") {
            assert_eq!(keys(finding), ["code", "message", "severity", "subject"], "{self}");
            assert!(["error", "warn", "info"].contains(&finding["severity"].as_str().expect("text")), "{self}");
        }
        assert_snake_case(&value);
        value
    }

    /// The `data` of that object.
    #[track_caller]
    pub(crate) fn data(&self) -> Value {
        self.json()["data"].take()
    }

    /// The codes of its findings, errors only.
    #[track_caller]
    pub(crate) fn errors(&self) -> BTreeSet<String> {
        self.codes(|finding| finding["severity"] == "error")
    }

    /// The codes of all its findings.
    #[track_caller]
    pub(crate) fn findings(&self) -> BTreeSet<String> {
        self.codes(|_| true)
    }

    #[track_caller]
    fn codes(&self, wanted: impl Fn(&Value) -> bool) -> BTreeSet<String> {
        let value = self.json();
        let findings = value["findings"].as_array().expect("findings are a list").iter();
        let wanted = findings.filter(|finding| wanted(finding));
        wanted.map(|finding| finding["code"].as_str().expect("a code").to_owned()).collect()
    }

    /// A failure as a person meets it: nothing on standard output, one sentence of ours on standard error with all of
    /// `words`, and no trace of a panic.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        assert!(self.stdout.is_empty(), "{self}");
        let ours = self.stderr.lines().filter(|line| line.starts_with("amc: ") || line.starts_with("amc-gateway: "));
        assert_eq!(ours.count(), 1, "{self}");
        assert!(!self.stderr.contains("panicked") && !self.stderr.contains("RUST_BACKTRACE"), "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {self}");
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = String::from_utf8_lossy(&self.stdout).chars().take(4000).collect::<String>();
        write!(f, "{}\nexit {}\nstdout: {cut}\nstderr: {}", self.shown, self.code, self.stderr)
    }
}

/// The keys of an object, ascending.
#[track_caller]
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn assert_snake_case(value: &Value) {
    match value {
        Value::Array(items) => items.iter().for_each(assert_snake_case),
        Value::Object(fields) => {
            for (key, value) in fields {
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                assert!(key.bytes().all(plain), "the key {key:?} is not snake_case");
                assert_snake_case(value);
            }
        }
        _ => {}
    }
}

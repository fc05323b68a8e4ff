//! Programs that a test starts: found in the target directory, ended when the handle is dropped.
//!
//! A program is ended by the handle that started it, never by its name.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The path of a binary of this workspace.
///
/// It is `$CARGO_BIN_EXE_<name>` where cargo says so, else a file of that name beside the test's own
/// `deps/` directory.
///
/// # Panics
/// When there is none, with the command that builds it.
pub fn binary(name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(format!("CARGO_BIN_EXE_{name}")) {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a running program has a path");
    let found = test.ancestors().skip(1).take(3).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no {name} near {}; build it with: cargo build --bins", test.display()))
}

/// A running program that has said on stdout, in one JSON line, that it is ready.
#[derive(Debug)]
pub struct Program {
    child: Child,
    ready: serde_json::Value,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts `command` with a piped stdout and waits for its first line, which must be JSON.
    ///
    /// # Panics
    /// When it cannot be started, or ends or writes something else first.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("its stdout can be read");
        match serde_json::from_str(&line) {
            Ok(ready) => Program { child, ready, stdout },
            Err(_) => {
                let _ = child.kill();
                let status = child.wait();
                panic!("{command:?} wrote {line:?} instead of a JSON line, and ended with {status:?}")
            }
        }
    }

    /// The JSON of its first line.
    pub fn ready(&self) -> &serde_json::Value {
        &self.ready
    }

    /// The address under `listening` in its first line.
    ///
    /// # Panics
    /// When there is none.
    pub fn listening(&self) -> SocketAddr {
        let text = self.ready["listening"].as_str().expect("the line has `listening`");
        text.parse().expect("`listening` is an address and a port")
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The rest of its stdout.
    pub fn stdout(&mut self) -> &mut BufReader<ChildStdout> {
        &mut self.stdout
    }

    /// The process itself, to wait for it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end and only the status to collect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

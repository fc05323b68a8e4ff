//! What a walk-through stands on: the built binaries, a directory of its own, and a clean environment for them.
//!
//! The programs see none of the AMC settings of whoever runs the task, so a walk-through shows the same everywhere.

use crate::process::Background;
use crate::workspace::{Workspace, cargo};
use crate::{Failure, process};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Built binaries and the directory in which they are used.
#[derive(Debug)]
pub struct Stage {
    bins: PathBuf,
    dir: PathBuf,
}

impl Stage {
    /// Builds every binary of the workspace as the tests do, and uses `dir`, which has to exist, as the working
    /// directory of what it starts.
    ///
    /// # Errors
    /// The build failed.
    pub fn build(workspace: &Workspace, dir: PathBuf) -> Result<Self, Failure> {
        process::pass_through(cargo(&workspace.root).args(["build", "--workspace", "--bins", "--locked", "--quiet"]))?;
        let bins = workspace.built("amc")?.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { bins, dir })
    }

    /// Where the binaries are.
    pub fn bins(&self) -> &Path {
        &self.bins
    }

    /// The directory of this walk-through.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One of the binaries, to be run in the directory.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bins.join(name));
        self.prepare(&mut command);
        command
    }

    /// A script for the shell, which finds the binaries by name.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        self.prepare(&mut command);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command.current_dir(&self.dir);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AMC_") || name == "CREDENTIALS_DIRECTORY" {
                command.env_remove(&name);
            }
        }
        let mut path = OsString::from(&self.bins);
        if let Some(rest) = std::env::var_os("PATH") {
            path.push(":");
            path.push(rest);
        }
        command.env("PATH", path);
    }
}

/// The demo model beside a walk-through, ended when dropped.
#[derive(Debug)]
pub struct DemoModel {
    /// Ends it with the value.
    _server: Background,
    /// Its port on the loopback interface.
    pub port: u16,
}

impl DemoModel {
    /// Starts it on a free port, with this time before each event of a stream.
    ///
    /// # Errors
    /// It could not be started, or did not say where it listens.
    pub fn start(stage: &Stage, delay_ms: u32) -> Result<Self, Failure> {
        let mut command = stage.program("amc-demo-model");
        command.args(["--listen", "127.0.0.1:0", "--delay-ms", &delay_ms.to_string()]);
        let mut server = Background::start(&mut command)?;
        let line = server.wait_for_line("listening", Duration::from_secs(30))?;
        let port = port_of(&line).ok_or_else(|| Failure::new(format!("amc-demo-model names no port: {line}")))?;
        Ok(Self { _server: server, port })
    }
}

/// The port in the line with which a model server says that it listens.
pub(crate) fn port_of(line: &str) -> Option<u16> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.get("listening")?.as_str()?.rsplit(':').next()?.parse().ok()
}

/// The directory that was named, made if need be and empty, or else the first free `target/<name>-<n>`.
///
/// # Errors
/// The named one holds something already, or could not be made.
pub fn fresh_dir(workspace: &Workspace, name: &str, named: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(named) = named else {
        return first_free(&workspace.target, name);
    };
    let made =
        fs::create_dir_all(named).and_then(|()| fs::read_dir(named)).and_then(|mut entries| match entries.next() {
            None => fs::canonicalize(named),
            Some(_) => Err(ErrorKind::DirectoryNotEmpty.into()),
        });
    made.map_err(|error| Failure::new(format!("{named}: {error}; name an empty directory, or one that is not there")))
}

/// A directory below the target directory that is the same each time, emptied first.
///
/// # Errors
/// It could not be emptied or made.
pub fn same_dir(workspace: &Workspace, name: &str) -> Result<PathBuf, Failure> {
    let dir = workspace.target.join("walks").join(name);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure::from(error).during(&dir.display().to_string()));
        }
        _ => fs::create_dir_all(&dir)?,
    }
    Ok(dir)
}

fn first_free(parent: &Path, name: &str) -> Result<PathBuf, Failure> {
    for number in 1..=NUMBER_MAX {
        let dir = parent.join(format!("{name}-{number}"));
        match fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::from(error).during(&dir.display().to_string())),
        }
    }
    Err(Failure::new(format!("{}/{name}-1 to -{NUMBER_MAX} all exist; remove some", parent.display())))
}

/// Far more than anybody keeps.
const NUMBER_MAX: u32 = 9999;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn a_directory_that_holds_something_is_refused_and_left_alone() {
        let workspace = Workspace::read(&workspace::root()).expect("metadata of this workspace");
        let dir = same_dir(&workspace, "xtask-test-taken").expect("an empty directory");
        let named = dir.to_str().expect("text");
        assert_eq!(fresh_dir(&workspace, "unused", Some(named)).expect("it is empty"), dir);
        fs::write(dir.join("mine"), "x").expect("a file in it");
        let failure = fresh_dir(&workspace, "unused", Some(named)).expect_err("it is not empty");
        assert!(failure.to_string().contains("name an empty directory"), "{failure}");
        assert_eq!(fs::read(dir.join("mine")).expect("still there"), b"x");
    }

    #[test]
    fn the_first_free_number_is_taken() {
        let workspace = Workspace::read(&workspace::root()).expect("metadata of this workspace");
        let dir = same_dir(&workspace, "xtask-test-free").expect("an empty directory");
        assert_eq!(first_free(&dir, "a").expect("nothing there"), dir.join("a-1"));
        assert_eq!(first_free(&dir, "a").expect("one there"), dir.join("a-2"));
    }

    #[test]
    fn the_port_is_read_from_the_models_own_line() {
        assert_eq!(port_of(r#"{"listening":"127.0.0.1:4711"}"#), Some(4711));
        assert_eq!(port_of("listening on 4711"), None);
    }
}

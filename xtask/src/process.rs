//! Starting programs: captured with a time limit, passed through, or in the background until dropped.
//!
//! A child never gets this program's stdin, and only children started here are ever ended, by their own handle.

use crate::Failure;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// No limit worth the name: for builds, whose time depends on the machine alone.
pub const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// How a captured program ended and what it wrote.
#[derive(Debug)]
pub struct Captured {
    /// The command as one would type it.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout, invalid UTF-8 replaced.
    pub stdout: String,
    /// Its stderr, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Captured {
    /// The stdout of a program that ended with 0.
    ///
    /// # Errors
    /// It ended otherwise; the text holds the command, the status and both outputs.
    pub fn success(self) -> Result<String, Failure> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(Failure::new(format!("`{}` ended with {}\n{}{}", self.line, self.status, self.stdout, self.stderr)))
    }
}

/// Runs a program to its end and keeps what it writes.
///
/// # Errors
/// It could not be started, was still running after `limit` and has been killed, or left a program behind that holds
/// its output.
pub fn capture(command: &mut Command, limit: Duration) -> Result<Captured, Failure> {
    let line = readable(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command, &line)?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + limit;
    let Some(status) = wait_until(&mut child, deadline)? else {
        kill(&mut child);
        return Err(Failure::new(format!("`{line}` was still running after {} s and was ended", limit.as_secs())));
    };
    let (stdout, stderr) = (received(&stdout, &line)?, received(&stderr, &line)?);
    Ok(Captured { line, status, stdout, stderr })
}

/// Runs a program to its end with its output passed straight through.
///
/// # Errors
/// It could not be started, or ended with anything but 0.
pub fn pass_through(command: &mut Command) -> Result<(), Failure> {
    let line = readable(command);
    command.stdin(Stdio::null());
    let status = spawn(command, &line)?.wait()?;
    ended(&line, status)
}

/// Runs a program to its end and hands each line of its stdout to `on_line`; stderr passes straight through.
///
/// # Errors
/// It could not be started, or ended with anything but 0.
pub fn each_line(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<(), Failure> {
    let line = readable(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = spawn(command, &line)?;
    let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
    for text in BufReader::new(stdout).split(b'\n') {
        on_line(String::from_utf8_lossy(&text?).trim_end_matches('\r'));
    }
    let status = child.wait()?;
    ended(&line, status)
}

/// A program that runs beside this one; killed and reaped when dropped.
#[derive(Debug)]
pub struct Background {
    line: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Background {
    /// Starts it with its stdout kept for [`Background::wait_for_line`]; stderr passes through.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let line = readable(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = spawn(command, &line)?;
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for text in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        Ok(Self { line, child, lines, seen: Vec::new() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it prints a line that contains `wanted`, and gives that line.
    ///
    /// # Errors
    /// It ended, or `limit` passed, before such a line; the text holds what it printed so far.
    pub fn wait_for_line(&mut self, wanted: &str, limit: Duration) -> Result<String, Failure> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let why = match self.lines.recv_timeout(left) {
                Ok(text) if text.contains(wanted) => return Ok(text),
                Ok(text) => {
                    self.seen.push(text);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => format!("did not print `{wanted}` within {} s", limit.as_secs()),
                Err(RecvTimeoutError::Disconnected) => format!("ended before it printed `{wanted}`"),
            };
            return Err(Failure::new(format!("`{}` {why}\n{}", self.line, self.seen.join("\n"))));
        }
    }

    /// Asks it to end (SIGTERM) and waits for it; kills it after `limit`.
    ///
    /// # Errors
    /// It had to be killed, or its end could not be waited for.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        // Without unsafe code there is no signal but SIGKILL in std; `kill` is in every Unix's base system.
        capture(Command::new("kill").args(["-TERM", &self.id().to_string()]), limit)?.success()?;
        wait_until(&mut self.child, Instant::now() + limit)?
            .ok_or_else(|| Failure::new(format!("`{}` did not end within {} s of SIGTERM", self.line, limit.as_secs())))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

/// The command as one would type it in a shell, for people: the program by its file name, words with blanks quoted.
pub fn readable(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@+%#".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn spawn(command: &mut Command, line: &str) -> Result<Child, Failure> {
    command.spawn().map_err(|error| Failure::new(format!("`{line}` could not be started: {error}")))
}

fn ended(line: &str, status: ExitStatus) -> Result<(), Failure> {
    if status.success() { Ok(()) } else { Err(Failure::new(format!("`{line}` ended with {status}"))) }
}

/// Reads a pipe to its end on a thread of its own, so that neither pipe can fill and block the child.
fn drain(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    let mut pipe = pipe.expect("the stream was asked for as a pipe");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks ends the output; what came before it is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// What the pipe held. The program has ended, so its end is near unless something it left running holds it open.
fn received(receiver: &Receiver<Vec<u8>>, line: &str) -> Result<String, Failure> {
    let bytes = receiver
        .recv_timeout(LEFT_BEHIND)
        .map_err(|_| Failure::new(format!("`{line}` ended but left a program running that still holds its output")))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>, Failure> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Ends a child of ours and reaps it; one that has already ended is simply reaped.
fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// How long an output may stay open after its program has ended.
const LEFT_BEHIND: Duration = Duration::from_secs(10);

/// How often an end is looked for: far below what a person notices, far above what costs a core.
const POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn captures_both_streams_and_the_status() {
        let captured = capture(&mut shell("echo out; echo err >&2; exit 3"), NEVER).expect("sh runs");
        assert_eq!((captured.stdout.as_str(), captured.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(captured.status.code(), Some(3));
        let failure = captured.success().expect_err("3 is not success");
        assert!(failure.to_string().contains("err"), "{failure}");
    }

    #[test]
    fn more_output_than_a_pipe_holds_does_not_block() {
        let captured = capture(&mut shell("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"), NEVER);
        assert_eq!(captured.expect("sh runs").success().expect("ends with 0").len(), 1_000_000);
    }

    #[test]
    fn a_program_past_its_limit_is_ended() {
        let started = Instant::now();
        let failure = capture(Command::new("sleep").arg("600"), Duration::from_millis(50)).expect_err("too long");
        assert!(failure.to_string().contains("still running"), "{failure}");
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn stdin_is_empty() {
        assert_eq!(capture(&mut Command::new("cat"), NEVER).expect("cat runs").stdout, "");
    }

    #[test]
    fn a_line_is_waited_for_and_sigterm_ends_it() {
        let mut server =
            Background::start(&mut shell("echo starting; echo ready on 1234; exec sleep 600")).expect("sh runs");
        let line = server.wait_for_line("ready", Duration::from_secs(30)).expect("it prints the line");
        assert_eq!(line, "ready on 1234");
        let status = server.stop(Duration::from_secs(30)).expect("sleep ends on SIGTERM");
        assert!(!status.success());
    }

    #[test]
    fn a_program_that_ends_early_is_reported_with_what_it_printed() {
        let mut server = Background::start(&mut shell("echo port in use")).expect("sh runs");
        let failure = server.wait_for_line("ready", Duration::from_secs(30)).expect_err("it ended");
        assert!(failure.to_string().contains("ended before"), "{failure}");
        assert!(failure.to_string().contains("port in use"), "{failure}");
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let server = Background::start(Command::new("sleep").arg("600")).expect("sleep runs");
        let id = server.id().to_string();
        drop(server);
        let probe = capture(Command::new("kill").args(["-0", &id]), NEVER).expect("kill runs");
        assert!(!probe.status.success(), "process {id} is still there");
    }

    #[test]
    fn a_command_reads_as_one_would_type_it() {
        assert_eq!(
            readable(Command::new("/opt/bin/amc").args(["init", "--name", "it's me"])),
            r"amc init --name 'it'\''s me'"
        );
    }
}

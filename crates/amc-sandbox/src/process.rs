//! Running the agent's process: streams copied through and recorded, signals passed on, the exit
//! status given back.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amc_core::kinds::{ProcessExit, Stream};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};

use crate::environment::Environment;
use crate::isolation::{Chosen, Purpose, Start};
use crate::probe::Targets;
use crate::recorder::{Recorder, Tap};
use crate::terminal;

/// What is to be started.
#[derive(Debug)]
pub struct Launch {
    /// The command and its surroundings.
    pub start: Start,
    /// The isolation that was chosen for it.
    pub chosen: Chosen,
    /// All of its environment.
    pub environment: Environment,
}

/// An agent that could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The process could not be started.
    #[error("the agent could not be started: {0}")]
    Spawn(#[source] io::Error),
    /// Its terminal could not be made.
    #[error("no terminal for the agent could be made: {0}")]
    Terminal(#[source] io::Error),
    /// Its end could not be waited for.
    #[error("the agent could not be waited for: {0}")]
    Wait(#[source] io::Error),
    /// Signals could not be taken over.
    #[error("signals could not be passed on: {0}")]
    Signals(#[source] io::Error),
    /// What it did could not be recorded, so it was ended.
    #[error("the agent was ended because its output could not be recorded")]
    Unrecorded,
}

/// How long copying may go on after the agent's end, for what is still in its pipes.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the agent to its end. On a terminal it gets a pseudo-terminal, else pipes.
///
/// # Errors
/// [`LaunchError`] when it could not be run; its own failures are in the [`ProcessExit`].
pub fn run(launch: &Launch, recorder: &Recorder) -> Result<ProcessExit, LaunchError> {
    let started = Instant::now();
    let on_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let unrecorded = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGWINCH]).map_err(LaunchError::Signals)?;
    let handle = signals.handle();
    let mut running = if on_terminal {
        start_on_terminal(launch, recorder, &unrecorded)?
    } else {
        start_on_pipes(launch, recorder, &unrecorded)?
    };
    let pid = Pid::from_child(&running.child);
    let controller = running.controller.take();
    let passing = thread::spawn(move || pass_signals(&mut signals, pid, on_terminal, controller.as_ref()));
    let status = running.wait(&unrecorded);
    end_signals(&handle, passing);
    let status = status.map_err(LaunchError::Wait)?;
    drop(running);
    if unrecorded.load(Ordering::SeqCst) {
        return Err(LaunchError::Unrecorded);
    }
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(ProcessExit { code: status.code(), signal: status.signal(), duration_ms })
}

/// The exit status that `wrap` ends with: the agent's own, or 128 and the signal's number.
pub fn exit_code(exit: &ProcessExit) -> u8 {
    let code = exit.code.or_else(|| exit.signal.map(|signal| 128 + signal)).unwrap_or(125);
    u8::try_from(code & 0xff).expect("masked to eight bits")
}

struct Running {
    child: Child,
    copies: Vec<JoinHandle<()>>,
    controller: Option<File>,
    _raw: Option<terminal::RawMode>,
}

impl Running {
    fn wait(&mut self, unrecorded: &AtomicBool) -> io::Result<ExitStatus> {
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if unrecorded.load(Ordering::SeqCst) {
                self.child.kill()?;
            }
            thread::sleep(Duration::from_millis(5));
        };
        // A grandchild may hold a pipe open for ever; what came until now is what counts.
        let deadline = Instant::now() + DRAIN;
        for copy in self.copies.drain(..) {
            while !copy.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            if copy.is_finished() {
                copy.join().expect("copying does not panic");
            }
        }
        Ok(status)
    }
}

fn command(launch: &Launch, on_terminal: bool) -> Command {
    let mut command = launch.start.command(&launch.chosen, Purpose::Agent, on_terminal, &Targets::default());
    command.env_clear().envs(&launch.environment.variables);
    command
}

fn start_on_pipes(launch: &Launch, recorder: &Recorder, unrecorded: &Arc<AtomicBool>) -> Result<Running, LaunchError> {
    let mut command = command(launch, false);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LaunchError::Spawn)?;
    let stdin = child.stdin.take().expect("stdin is a pipe");
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let stderr = child.stderr.take().expect("stderr is a pipe");
    let (tap, failed) = (recorder.tap(), Arc::clone(unrecorded));
    // Not joined: reading our own input cannot be interrupted, and the process ends without it.
    thread::spawn(move || copy(io::stdin(), stdin, Stream::Stdin, &tap, &failed));
    let copies = vec![
        copy_thread(stdout, io::stdout(), Stream::Stdout, recorder, unrecorded),
        copy_thread(stderr, io::stderr(), Stream::Stderr, recorder, unrecorded),
    ];
    Ok(Running { child, copies, controller: None, _raw: None })
}

fn start_on_terminal(
    launch: &Launch,
    recorder: &Recorder,
    unrecorded: &Arc<AtomicBool>,
) -> Result<Running, LaunchError> {
    let (controller, agent_end) = terminal::open_pair().map_err(LaunchError::Terminal)?;
    let duplicate = || agent_end.try_clone().map_err(LaunchError::Terminal);
    let child = command(launch, true)
        .stdin(duplicate()?)
        .stdout(duplicate()?)
        .stderr(duplicate()?)
        .spawn()
        .map_err(LaunchError::Spawn)?;
    drop(agent_end);
    let raw = terminal::RawMode::enter().map_err(LaunchError::Terminal)?;
    let end = || controller.try_clone().map_err(LaunchError::Terminal);
    let (tap, failed, input) = (recorder.tap(), Arc::clone(unrecorded), end()?);
    thread::spawn(move || copy(io::stdin(), input, Stream::Stdin, &tap, &failed));
    let copies = vec![copy_thread(end()?, io::stdout(), Stream::Stdout, recorder, unrecorded)];
    Ok(Running { child, copies, controller: Some(controller), _raw: Some(raw) })
}

fn copy_thread(
    from: impl Read + Send + 'static,
    to: impl Write + Send + 'static,
    stream: Stream,
    recorder: &Recorder,
    unrecorded: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (tap, failed) = (recorder.tap(), Arc::clone(unrecorded));
    thread::spawn(move || copy(from, to, stream, &tap, &failed))
}

/// Copies until the end of the stream. What can be read is recorded even when nobody takes it.
fn copy(mut from: impl Read, to: impl Write, stream: Stream, tap: &Tap, unrecorded: &AtomicBool) {
    let mut to = Some(to);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A pseudo-terminal ends with EIO when the last process on it is gone.
            Err(_) => break,
        };
        if !tap.piece(stream, &buffer[..read]) {
            unrecorded.store(true, Ordering::SeqCst);
            break;
        }
        let written = to.as_mut().map(|to| to.write_all(&buffer[..read]).and_then(|()| to.flush()));
        if let Some(Err(_)) = written {
            // The reader is gone. For the agent's input that is the end; its output is still recorded.
            to = None;
            if stream == Stream::Stdin {
                break;
            }
        }
    }
}

fn pass_signals(signals: &mut Signals, pid: Pid, on_terminal: bool, controller: Option<&File>) {
    for signal in signals.forever() {
        match signal {
            SIGWINCH => controller.into_iter().for_each(terminal::follow_size),
            // Typed at a terminal without a pseudo-terminal it reached the agent already: same group.
            SIGINT if !on_terminal && io::stdin().is_terminal() => {}
            other => {
                let named = Signal::from_named_raw(other);
                // The agent may have ended meanwhile.
                let _ = named.map(|signal| kill_process(pid, signal));
            }
        }
    }
}

fn end_signals(handle: &Handle, passing: JoinHandle<()>) {
    handle.close();
    passing.join().expect("passing signals does not panic");
}

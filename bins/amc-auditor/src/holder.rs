//! The process that holds the auditor's keys from `vault unlock` to `vault lock`.
//!
//! It listens on a private socket, carries out the auditor's verbs one after the other for processes
//! of its user, and ends by itself when nobody asked for anything for a while. The log is open while
//! a verb runs and at no other time. When the keys are forgotten, a verb under way may finish within
//! a few seconds; then the process ends, and what it leaves is what a crash would leave.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use amc_core::Clock as _;
use amc_core::kinds::Role;
use amc_workspace::home::Home;
use amc_workspace::protocol::holder::{
    Carried, Found, HolderClient, HolderReply, HolderRequest, HolderStatus, HomeId, VerbCall,
};
use amc_workspace::protocol::{PROTOCOL_VERSION, Refusal, server};
use amc_workspace::{Answer, Failure, Opening, SystemClock, duration, hardening};
use clap::{Args, Parser as _};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::unlock::{self, Beside};
use crate::{Cli, carry_out};

/// How long a verb under way may go on when the keys are to be forgotten.
const GRACE: Duration = Duration::from_secs(5);
/// The clock is looked at so often, since waiting does not count the time that a machine sleeps.
const LOOK: Duration = Duration::from_millis(500);
const NS_PER_S: u64 = 1_000_000_000;

/// How long keys are held.
#[derive(Args)]
pub(crate) struct Plan {
    /// Forget the keys after this long without a verb: a number and s, m or h.
    #[arg(long, default_value = "15m", value_name = "TIME", value_parser = idle)]
    pub(crate) idle: u64,
}

/// The verb's answer by the process that holds the keys; `None` when there is no such process.
pub(crate) fn carry(opening: &Opening) -> Option<(String, Result<Answer, Failure>)> {
    let home = opening.home().ok()?;
    // A stranger holds other keys than this home's, so it is passed by.
    let Found::Holder(client) = HolderClient::find(&home) else { return None };
    let call = VerbCall::of_this_process().ok()?;
    Some(match client.carry(call) {
        Ok(carried) => (carried.command.clone(), carried.into_result()),
        Err(failure) => (String::new(), Err(failure)),
    })
}

/// Taken by the process that holds the keys, and by whoever changes them: one at a time.
pub(crate) struct Claim(#[expect(dead_code, reason = "the lock ends when the file is closed")] File);

impl Claim {
    pub(crate) fn take(home: &Home) -> Result<Self, Failure> {
        let path = home.auditor_lock();
        let describe = |error: io::Error| Failure::unable(format!("{}: {error}", path.display()));
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.map_err(describe)?;
        if file.try_lock().is_err() {
            let mut pid = String::new();
            // The number is for the message alone.
            let _ = file.take(32).read_to_string(&mut pid);
            return Err(Failure::unable(format!(
                "another process (number {}) holds the auditor's keys or is changing them; `amc vault lock` ends it",
                pid.trim()
            )));
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(describe)?;
        Ok(Claim(file))
    }
}

struct Holder {
    home: Home,
    clock: SystemClock,
    idle_s: u64,
    /// Boot time of the newest sign of life.
    last_ns: AtomicU64,
    busy: AtomicU32,
    /// Held while a verb runs.
    verbs: Mutex<()>,
    closing: AtomicBool,
    stop: Sender<()>,
}

/// Unlocks, listens, says so on one line of standard output, and carries out verbs until told to stop.
pub(crate) fn hold(opening: &Opening, plan: &Plan) -> Result<Answer, Failure> {
    let (home, policy, workspace) = opening.workspace()?;
    hardening::protect()?;
    let _claim = Claim::take(&home)?;
    let line = opening.passphrase(Role::Auditor, false)?;
    let keys = unlock::unlock_with(&home, &workspace, &unlock::parsed(&line)?)?;
    drop(line);
    // Whoever is told that the keys are here can rely on them: the log opens with them.
    let opened = unlock::open(home.clone(), &policy, workspace, keys.handles(), Beside::Running)?;
    opened.writer.close().map_err(Failure::unable)?;
    let path = home.auditor_socket();
    let listener = server::listen(&path)
        .map_err(|error| Failure::unable(format!("cannot listen at {}: {error}", path.display())))?;
    let (stop, stopped) = channel();
    watch_signals(stop.clone())?;
    let clock = SystemClock::new().map_err(Failure::unable)?;
    let holder = Arc::new(Holder {
        last_ns: AtomicU64::new(clock.now().boot_ns),
        home,
        clock,
        idle_s: plan.idle,
        busy: AtomicU32::new(0),
        verbs: Mutex::new(()),
        closing: AtomicBool::new(false),
        stop,
    });
    unlock::hold(Some(keys));
    accept(Arc::clone(&holder), listener);
    say_ready(&holder);
    holder.wait(&stopped);
    holder.forget();
    // A socket file that stays is replaced by the next holder.
    let _ = std::fs::remove_file(path);
    Ok(Answer::default())
}

fn watch_signals(stop: Sender<()>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::unable)?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if stop.send(()).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn accept(holder: Arc<Holder>, listener: UnixListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if server::is_trusted(&stream) {
                let holder = Arc::clone(&holder);
                thread::spawn(move || holder.serve(&stream));
            }
        }
    });
}

fn say_ready(holder: &Holder) {
    let line = json!({ "ready": true, "pid": std::process::id(), "home": holder.home.root() });
    let mut out = io::stdout().lock();
    // Whoever started us may have left; we hold the keys all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Holder {
    fn serve(&self, stream: &UnixStream) {
        let mut greeted = false;
        server::serve(stream, |request| {
            let answer = match request {
                HolderRequest::Hello { protocol, home } => self.greet(protocol, home).inspect(|_| greeted = true),
                _ if !greeted => Err(Refusal::Invalid("the first message is a greeting".to_owned())),
                HolderRequest::Status => Ok(HolderReply::Status(self.status())),
                HolderRequest::Carry(call) => self.carry(&call),
                HolderRequest::Lock => self.lock(),
            };
            answer.unwrap_or_else(HolderReply::Refused)
        });
    }

    fn greet(&self, protocol: u16, home: HomeId) -> Result<HolderReply, Refusal> {
        if protocol != PROTOCOL_VERSION {
            let what = format!("the key holder speaks protocol {PROTOCOL_VERSION}, not {protocol}");
            return Err(Refusal::Invalid(what + "; use binaries of one release"));
        }
        if HomeId::of(self.home.root()).ok() != Some(home) {
            let root = self.home.root().display();
            let pid = std::process::id();
            return Err(Refusal::Invalid(format!("process {pid} holds the auditor's keys of another home, {root}")));
        }
        Ok(HolderReply::Welcome(self.status()))
    }

    fn status(&self) -> HolderStatus {
        let left_s = self.left_ns() / NS_PER_S;
        HolderStatus { pid: std::process::id(), idle_s: self.idle_s, left_s }
    }

    /// Until the keys are forgotten. A verb that runs keeps them.
    fn left_ns(&self) -> u64 {
        let idle_ns = self.idle_s.saturating_mul(NS_PER_S);
        if self.busy.load(Ordering::SeqCst) > 0 {
            return idle_ns;
        }
        let since_ns = self.clock.now().boot_ns.saturating_sub(self.last_ns.load(Ordering::SeqCst));
        idle_ns.saturating_sub(since_ns)
    }

    fn carry(&self, call: &VerbCall) -> Result<HolderReply, Refusal> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        let carried = self.carry_now(call);
        self.last_ns.store(self.clock.now().boot_ns, Ordering::SeqCst);
        self.busy.fetch_sub(1, Ordering::SeqCst);
        carried.map(|carried| HolderReply::Carried(Box::new(carried)))
    }

    fn carry_now(&self, call: &VerbCall) -> Result<Carried, Refusal> {
        let invalid = |what: String| Refusal::Invalid(what);
        let arguments = std::iter::once("amc-auditor".as_ref()).chain(call.arguments());
        let Cli { verb, .. } = Cli::try_parse_from(arguments).map_err(|error| invalid(error.to_string()))?;
        if !verb.is_carried() {
            return Err(invalid("this verb is none of a key holder's".to_owned()));
        }
        let _one_at_a_time = self.verbs.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closing.load(Ordering::SeqCst) {
            return Err(invalid("the vault was just locked; unlock it with `amc vault unlock`".to_owned()));
        }
        let enter = |dir: &Path| std::env::set_current_dir(dir).map_err(|error| (dir.display().to_string(), error));
        enter(&call.working_dir()).map_err(|(dir, error)| invalid(format!("cannot work in {dir}: {error}")))?;
        let opening = Opening { home: Some(self.home.root().to_owned()), ..Opening::default() };
        let carried = catch_unwind(AssertUnwindSafe(|| carry_out(verb, &opening)));
        // Not to keep a directory of the client's busy; if it cannot be left it is busy a while longer.
        let _ = enter(Path::new("/"));
        let (command, result) = carried.map_err(|_| {
            let log = self.home.process_log("auditor");
            invalid(format!("the key holder failed while it carried this out; {} says how", log.display()))
        })?;
        Ok(Carried::new(command, result))
    }

    /// Never comes back: the end of the process is the answer.
    fn lock(&self) -> Result<HolderReply, Refusal> {
        self.close();
        loop {
            thread::park();
        }
    }

    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        unlock::hold(None);
        // The receiver lives as long as the process.
        let _ = self.stop.send(());
    }

    /// Until somebody says so, or nobody said anything for long enough.
    fn wait(&self, stopped: &Receiver<()>) {
        loop {
            match stopped.recv_timeout(LOOK) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.left_ns() == 0 => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// No verb begins any more; one that runs may finish, within bounds.
    fn forget(&self) {
        self.close();
        let deadline = Instant::now() + GRACE;
        while self.busy.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// At most a day: keys that are held for longer are never locked.
fn idle(text: &str) -> Result<u64, String> {
    let seconds = duration::seconds(text)?;
    if seconds <= 86_400 { Ok(seconds) } else { Err(format!("{text} is longer than 24h")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_times() {
        assert_eq!((idle("15m"), idle("1s"), idle("24h")), (Ok(900), Ok(1), Ok(86_400)));
        for wrong in ["", "m", "0s", "15", "25h", "2d"] {
            assert!(idle(wrong).is_err(), "{wrong}");
        }
    }
}

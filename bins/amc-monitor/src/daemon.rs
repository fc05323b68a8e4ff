//! The monitor as a process: sockets, threads, and an orderly end.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use amc_core::kinds::{AgentRegistered, ConfigLoaded, GatewayReloaded, MonitorStarted, MonitorStopped, Role};
use amc_core::{AgentId, Clock as _, SOFTWARE, Tier};
use amc_evidence::{Draft, LogState};
use amc_ledger::{AppendError, LogReader, ReadError};
use amc_workspace::generation::Generation;
use amc_workspace::home::HomeError;
use amc_workspace::protocol::Refusal;
use amc_workspace::{AgentConfig, Answer, Failure, Opening, SignedFile, agent_of_path};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::leases::LeaseBook;
use crate::sessions::{Changes, Sessions};
use crate::unlock::{Unlocked, unlock};
use crate::{channels, gateway, hourly, operator};

/// A running monitor, shared by its threads.
pub(crate) struct Daemon {
    pub(crate) core: Unlocked,
    pub(crate) sessions: Sessions,
    pub(crate) client_ids: gateway::ClientIds,
    gateway: Mutex<Option<RunningGateway>>,
    configs: Mutex<BTreeMap<String, ConfigLoaded>>,
    witnessing: Mutex<()>,
    pub(crate) seals: hourly::Seals,
    while_used: bool,
    users: AtomicUsize,
    stopping: AtomicBool,
    stop: Sender<()>,
}

/// A gateway that said it listens.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningGateway {
    pub(crate) listen: String,
    pub(crate) pid: Option<i32>,
    pub(crate) proxy_listen: Option<String>,
    /// How often it has read its configuration again, and what came of the last time.
    pub(crate) reloads: (u64, Option<GatewayReloaded>),
}

impl Daemon {
    pub(crate) fn gateway(&self) -> Option<RunningGateway> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_gateway(&self, gateway: Option<RunningGateway>) {
        *self.gateway.lock().unwrap_or_else(PoisonError::into_inner) = gateway;
    }

    /// Changes what is known of the running gateway.
    pub(crate) fn change_gateway(&self, change: impl FnOnce(&mut RunningGateway)) {
        if let Some(gateway) = &mut *self.gateway.lock().unwrap_or_else(PoisonError::into_inner) {
            change(gateway);
        }
    }

    /// Loads and judges a configuration file, and records it unless it is the one recorded last.
    pub(crate) fn load_config(&self, path: &str) -> Result<SignedFile, ConfigFailure> {
        let core = &self.core;
        let keys = core.home.auditor_keys(&core.policy_now()?)?;
        let file = SignedFile::load(&core.home, path, agent_of_path(path).as_ref(), &keys)?;
        let loaded = file.loaded();
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if configs.get(path) != Some(&loaded) {
            core.writer.append(Draft::new(Tier::Observed, loaded.clone()), None)?;
            configs.insert(path.to_owned(), loaded);
        }
        Ok(file)
    }

    /// What the signed configuration of the agent registers now; `None` where there is no such file,
    /// or no signature that holds: an unsigned file is recorded as loaded and registers nothing.
    pub(crate) fn registered(&self, agent: &AgentId) -> Result<Option<AgentRegistered>, Refusal> {
        let path = AgentConfig::path(agent);
        if !self.core.home.file(&path).is_file() {
            return Ok(None);
        }
        let invalid = |error: &dyn std::fmt::Display| Refusal::Invalid(error.to_string());
        let file = self.load_config(&path).map_err(|error| invalid(&error))?;
        let Some(version) = file.version else { return Ok(None) };
        let config = AgentConfig::parse(agent, &file.bytes).map_err(|error| invalid(&error))?;
        Ok(Some(config.registered(version)))
    }

    /// Held while a cosignature is compared, recorded and made.
    pub(crate) fn witnessing(&self) -> MutexGuard<'_, ()> {
        self.witnessing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the main thread to stop; once is enough.
    pub(crate) fn stop(&self) {
        if !self.stopping.swap(true, Ordering::SeqCst) {
            // The receiver lives as long as the process.
            let _ = self.stop.send(());
        }
    }

    /// A connection is about to end; whether the monitor ends with it.
    pub(crate) fn leaves(&self) -> bool {
        self.while_used && self.users.load(Ordering::SeqCst) == 1
    }

    fn arrived(&self) {
        self.users.fetch_add(1, Ordering::SeqCst);
    }

    fn left(&self) {
        if self.users.fetch_sub(1, Ordering::SeqCst) == 1 && self.while_used {
            self.stop();
        }
    }
}

/// A configuration file that could not be loaded, or whose loading could not be recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFailure {
    /// The file or the trust policy cannot be read.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The keys that the auditor's log names cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log takes nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Unlocks, listens, says so on one line of standard output, and works until told to stop.
pub(crate) fn start(opening: &Opening, while_used: bool, detach: bool) -> Result<Answer, Failure> {
    let core = unlock(opening)?;
    if detach {
        // Until here the terminal was needed for the passphrase. Who leads a group already is alone in it.
        let _ = rustix::process::setsid();
    }
    let (stop, stopped) = channel();
    let operators = bind(&core.home.monitor_socket())?;
    // Before the socket: whoever finds that one finds this one too.
    let changes = changes(&core)?;
    let gateways = bind(&core.home.gateway_socket())?;
    watch_signals(stop.clone())?;
    let leases = leases(&core)?;
    let daemon = Arc::new(Daemon {
        core,
        sessions: Sessions::with_leases(leases, changes),
        client_ids: gateway::ClientIds::default(),
        gateway: Mutex::new(None),
        configs: Mutex::new(BTreeMap::new()),
        witnessing: Mutex::new(()),
        seals: hourly::Seals::default(),
        while_used,
        users: AtomicUsize::new(0),
        stopping: AtomicBool::new(false),
        stop,
    });
    record_start(&daemon)?;
    accept(
        Arc::clone(&daemon),
        operators,
        |daemon, stream| {
            operator::serve(daemon, &stream);
            daemon.left();
        },
        Daemon::arrived,
    );
    accept(Arc::clone(&daemon), gateways, gateway::serve, |_| {});
    tend_days(Arc::clone(&daemon));
    hourly::tend(Arc::clone(&daemon));
    say_ready(&daemon);
    wait(&stopped);
    finish(&daemon)
}

/// Where the gateway sees that what it was told of a lease counts no more; also when the log takes nothing more.
fn changes(core: &Unlocked) -> Result<Changes, Failure> {
    let path = core.home.gateway_generation();
    let describe = |error| Failure::unable(format!("cannot make {}: {error}", path.display()));
    let changes = Changes::of(Arc::new(Generation::create(&path).map_err(describe)?));
    let told = changes.clone();
    core.writer.on_stop(move || told.advance());
    Ok(changes)
}

/// The leases that the log knows.
fn leases(core: &Unlocked) -> Result<LeaseBook, Failure> {
    core.writer.publish().map_err(Failure::unable)?;
    let log = LogReader::open(&core.home.log(Role::Monitor)).map_err(Failure::unable)?;
    LeaseBook::read(&log).map_err(Failure::unable)
}

/// Has wrapped sessions go on in others before they are a day old, and seals what is over.
fn tend_days(daemon: Arc<Daemon>) {
    thread::spawn(move || {
        while !daemon.stopping.load(Ordering::SeqCst) {
            thread::sleep(TEND_EVERY);
            let core = &daemon.core;
            let surroundings = |agent: &AgentId| Ok((operator::declared(&daemon)?, daemon.registered(agent)?));
            // A log that stopped is told by the next command.
            let _ = daemon.sessions.continue_old(&core.writer, &core.clock, surroundings);
            if daemon.sessions.tend(&core.writer, core.clock.now().wall_ns) == Ok(true) {
                daemon.seals.ring();
            }
        }
    });
}

/// How soon after their time sessions are looked at.
const TEND_EVERY: Duration = Duration::from_secs(5);

fn bind(path: &std::path::Path) -> Result<UnixListener, Failure> {
    let describe = |error| Failure::unable(format!("cannot listen at {}: {error}", path.display()));
    channels::listen(path).map_err(describe)
}

fn watch_signals(stop: Sender<()>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::unable)?;
    thread::spawn(move || {
        for _ in signals.forever() {
            if stop.send(()).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Which configuration was in force when: the first events after every start.
fn record_start(daemon: &Daemon) -> Result<(), Failure> {
    let core = &daemon.core;
    let started = MonitorStarted { software: SOFTWARE.to_owned() };
    core.writer.append(Draft::new(Tier::Observed, started), None).map_err(Failure::unable)?;
    for path in ["amc.yaml", "gateway.yaml"] {
        daemon.load_config(path).map_err(Failure::wrong)?;
    }
    core.writer.publish().map_err(Failure::unable)?;
    Ok(())
}

fn accept(
    daemon: Arc<Daemon>,
    listener: UnixListener,
    serve: impl Fn(&Arc<Daemon>, UnixStream) + Send + Copy + 'static,
    arrived: impl Fn(&Daemon) + Send + 'static,
) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if daemon.stopping.load(Ordering::SeqCst) {
                return;
            }
            if !channels::is_trusted(&stream) {
                continue;
            }
            arrived(&daemon);
            let daemon = Arc::clone(&daemon);
            thread::spawn(move || serve(&daemon, stream));
        }
    });
}

fn say_ready(daemon: &Daemon) {
    let line = json!({ "ready": true, "pid": std::process::id(), "home": daemon.core.home.root() });
    let mut out = std::io::stdout().lock();
    // Whoever started us may have left; we work all the same.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn wait(stopped: &Receiver<()>) {
    // An error means that no sender is left, which is a reason to stop too.
    let _ = stopped.recv();
}

fn finish(daemon: &Daemon) -> Result<Answer, Failure> {
    daemon.stopping.store(true, Ordering::SeqCst);
    let core = &daemon.core;
    daemon.sessions.seal_all(&core.writer).map_err(|error| Failure::unable(error.to_string()))?;
    let events = core.writer.with_state(LogState::size);
    core.writer.append(Draft::new(Tier::Observed, MonitorStopped { events }), None).map_err(Failure::unable)?;
    core.writer.publish().map_err(Failure::unable)?;
    for file in [core.home.monitor_socket(), core.home.gateway_socket(), core.home.gateway_generation()] {
        // A file that stays is replaced at the next start.
        let _ = std::fs::remove_file(file);
    }
    Ok(Answer::default())
}

//! `wrap`: an unmodified agent under the monitor, from nothing to a sealed session.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use amc_core::SessionId;
use amc_core::kinds::{ProbePhase, ProcessExit, Role, SessionOutcome, SessionPurpose};
use amc_sandbox::environment::{self, Routes};
use amc_sandbox::probe::Wake;
use amc_sandbox::recorder::{self, MonitorClient};
use amc_sandbox::{
    Chosen, Continuing, Environment, Executable, Launch, Recorder, RecorderError, Start, command, probe, process,
};
use amc_workspace::config::GatewayConfig;
use amc_workspace::home::{self, Home};
use amc_workspace::passphrase;
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::operator::{
    OperatorReply, OperatorRequest, ProcessFields, SessionOpened, SessionRequest, SessionSealed,
};
use amc_workspace::{Failure, Opening};
use serde_json::json;

use crate::boundary::Boundary;
use crate::cli::{SessionKind, WrapPlan};
use crate::{services, signers};

/// AMC could not do its part, as `env` has it.
const OUR_FAILURE: u8 = 125;
/// How long what we started may take to end.
const STOP: Duration = Duration::from_secs(45);

pub(crate) fn wrap(opening: &Opening, auditor_file: Option<&Path>, plan: &WrapPlan) -> ExitCode {
    let executable = match command::resolve(&plan.command[0], std::env::var_os("PATH").as_deref()) {
        Ok(executable) => executable,
        Err(error) => {
            eprintln!("amc: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    match Wrapping::run(opening, auditor_file, plan, &executable) {
        Ok(exit) => ExitCode::from(process::exit_code(&exit)),
        Err(failure) => {
            eprintln!("amc: {}", failure.message);
            ExitCode::from(OUR_FAILURE)
        }
    }
}

struct Wrapping<'a> {
    opening: &'a Opening,
    auditor_file: Option<&'a Path>,
    plan: &'a WrapPlan,
    home: Home,
    start: Start,
    chosen: Chosen,
    started: Vec<Child>,
}

/// An agent that has ended, and what is to be said of it yet.
struct Ended {
    client: MonitorClient,
    exit: ProcessExit,
    environment: Environment,
    /// The session at the end: the one that was opened, or the one that it went on in.
    session: SessionId,
    /// No probe has run in it.
    is_unprobed: bool,
}

struct Finished {
    exit: ProcessExit,
    session: SessionId,
    sealed: SessionSealed,
    stopping: bool,
}

impl<'a> Wrapping<'a> {
    fn run(
        opening: &'a Opening,
        auditor_file: Option<&'a Path>,
        plan: &'a WrapPlan,
        executable: &Executable,
    ) -> Result<ProcessExit, Failure> {
        let home = opening.home()?;
        let bytes = home::read_bounded(&home.file("gateway.yaml"), amc_core::limits::CONFIG_BYTES_MAX);
        let config = GatewayConfig::parse(&bytes.map_err(Failure::wrong)?).map_err(Failure::wrong)?;
        let providers = chosen_providers(&config, &plan.adapters)?;
        let start = Start {
            init: signers::program("amc-sandbox-init"),
            home: home.root().to_owned(),
            work_dir: std::env::current_dir().map_err(Failure::unable)?,
            executable: executable.path.clone(),
            argv: plan.command.clone(),
        };
        let chosen = start.choose(&plan.isolation).map_err(Failure::unable)?;
        let mut wrapping = Wrapping { opening, auditor_file, plan, home, start, chosen, started: Vec::new() };
        let (mut client, listen) = wrapping.services()?;
        let proxy = services::monitor_status(&mut client)?.proxy_listen.and_then(|text| text.parse().ok());
        let routes = Routes { listen, providers, proxy };
        let opened = wrapping.open_session(&mut client, executable)?;
        let run = wrapping.run_agent(client, &opened, &routes);
        let finished = run.and_then(|ended| wrapping.seal(ended));
        let stopping = finished.as_ref().map_or(true, |finished| finished.stopping);
        wrapping.end_services(stopping);
        let finished = finished?;
        wrapping.tell(&finished)?;
        Ok(finished.exit)
    }

    /// The running monitor and gateway, or new ones for as long as somebody uses them.
    fn services(&mut self) -> Result<(MonitorClient, SocketAddr), Failure> {
        let _starting = services::starting(&self.home)?;
        let mut client = match services::connect(&self.home)? {
            Some(client) => client,
            None => {
                self.started.push(services::start_monitor(self.opening, &self.home, true)?);
                let gone = || Failure::unable("the monitor stopped again; see its message above");
                services::connect(&self.home)?.ok_or_else(gone)?
            }
        };
        let listening = services::monitor_status(&mut client)?.gateway_listen;
        if let Some(listen) = listening.and_then(|text| text.parse().ok()) {
            return Ok((client, listen));
        }
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let (gateway, listen) = services::start_gateway(&self.home, Some(any_port))?;
        self.started.push(gateway);
        Ok((client, listen))
    }

    fn open_session(&self, client: &mut MonitorClient, executable: &Executable) -> Result<SessionOpened, Failure> {
        let request = SessionRequest {
            agent: self.plan.agent.clone(),
            purpose: match self.plan.kind {
                SessionKind::Agent => SessionPurpose::Agent,
                SessionKind::Test => SessionPurpose::Test,
            },
            isolation: self.chosen.isolation.clone(),
            argv: command::recorded_argv(&self.plan.command),
            artifact: executable.sha256,
        };
        match services::call(client, OperatorRequest::OpenSession(request))? {
            OperatorReply::SessionOpened(opened) => Ok(opened),
            _ => Err(Failure::unable("the monitor gave an unexpected answer")),
        }
    }

    fn run_agent(&self, mut client: MonitorClient, opened: &SessionOpened, routes: &Routes) -> Result<Ended, Failure> {
        let mut environment = environment::build(std::env::vars_os(), &self.plan.pass, routes, &opened.lease_token);
        for (name, value) in self.chosen.variables() {
            environment.set(name, value.clone());
        }
        let fields = ProcessFields::Environment(environment.record.clone());
        recorder::record(&mut client, opened.session, fields, None).map_err(Failure::unable)?;
        let boundary = Boundary { start: &self.start, chosen: &self.chosen, environment: &environment };
        let before = boundary.probe(&mut client, ProbePhase::Before)?;
        recorder::record(&mut client, opened.session, before, None).map_err(Failure::unable)?;
        let second = services::connect(&self.home)?;
        let launch =
            Launch { start: self.start.clone(), chosen: self.chosen.clone(), environment: environment.clone() };
        let (waking, woken) = channel();
        let continuing = Continuing { environment: environment.record.clone(), probe: waking.clone() };
        let recorder = Recorder::start(client, opened.session, opened.lease_token.as_bytes(), continuing);
        let exit = thread::scope(|scope| {
            // Again while the agent runs, every hour and in each session, over a connection of its own.
            let tap = recorder.tap();
            let during = second.map(|mut client| {
                let mut again = move || {
                    // A recorder that takes nothing any more ends the agent and says so itself.
                    boundary.probe(&mut client, ProbePhase::During).map(|fields| {
                        let _ = tap.event(fields);
                    })
                };
                scope.spawn(move || probe::repeat(probe::EVERY, &woken, &mut again).map(|()| woken))
            });
            let exit = process::run(&launch, &recorder);
            // A probe that failed has ended already and says so below.
            let _ = waking.send(Wake::Ended);
            let probed = during.map(|probe| probe.join().expect("a probe does not panic")).transpose();
            // Not before: a probe runs as the same user.
            launch.start.end(&launch.chosen);
            exit.map_err(Failure::unable).and_then(|exit| Ok((exit, probed?)))
        });
        let (client, recorded) = recorder.finish();
        let session = recorded.map_err(Failure::unable)?.session;
        let (exit, woken) = exit?;
        let is_unprobed = woken.is_some_and(|woken| woken.try_iter().any(|wake| wake == Wake::Now));
        Ok(Ended { client, exit, environment, session, is_unprobed })
    }

    /// The end of the process and of its session, or of the session that this one goes on in meanwhile.
    fn seal(&self, ended: Ended) -> Result<Finished, Failure> {
        let Ended { mut client, exit, environment, mut session, mut is_unprobed } = ended;
        let boundary = Boundary { start: &self.start, chosen: &self.chosen, environment: &environment };
        let sealed = loop {
            if is_unprobed {
                let probe = boundary.probe(&mut client, ProbePhase::During)?;
                self.start.end(&self.chosen);
                recorder::record(&mut client, session, probe, None).map_err(Failure::unable)?;
            }
            match last_words(&mut client, session, &exit) {
                Ok(sealed) => break sealed,
                Err(RecorderError::Refused(Refusal::SessionContinued(next))) => {
                    (session, is_unprobed) = (next, true);
                    let again = ProcessFields::Environment(environment.record.clone());
                    recorder::record(&mut client, session, again, None).map_err(Failure::unable)?;
                }
                Err(error) => return Err(Failure::unable(error)),
            }
        };
        let left = services::call(&mut client, OperatorRequest::Leave)?;
        Ok(Finished { exit, session, sealed, stopping: matches!(left, OperatorReply::Left { stopping: true }) })
    }

    /// Waits for what we started; unless somebody else still uses it, it ends with our connection.
    fn end_services(&mut self, stopping: bool) {
        let deadline = Instant::now() + STOP;
        for child in self.started.iter_mut().filter(|_| stopping) {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn tell(&self, finished: &Finished) -> Result<(), Failure> {
        let Finished { exit, session, sealed, .. } = finished;
        let cosigned = self.cosign();
        let by = if cosigned { "cosigned by the auditor" } else { "not cosigned" };
        let apart = &self.chosen.isolation;
        eprintln!(
            "amc: session {session} of {} sealed, {} events, isolation {apart}, {by}",
            self.plan.agent, sealed.events
        );
        if let Some(why) = &self.chosen.why_not_stronger {
            eprintln!("amc: not isolated, so a run over this session is INVALID: {why}");
        }
        let Some(path) = &self.plan.summary else { return Ok(()) };
        let summary = json!({
            "session": session, "events": sealed.events, "outcome": SessionOutcome::Sealed,
            "exit_status": process::exit_code(exit),
        });
        home::write_atomic(path, format!("{summary}\n").as_bytes()).map_err(Failure::unable)
    }

    /// Asks the auditor for a cosignature where it needs no terminal for it.
    fn cosign(&self) -> bool {
        let has_variable = std::env::var_os(passphrase::VARIABLE).is_some();
        let has_credentials = std::env::var_os("CREDENTIALS_DIRECTORY").is_some();
        let file = self.auditor_file.or(self.opening.passphrase_file.as_deref());
        let file = file.filter(|file| *file != OsStr::new("-"));
        if !(has_variable || has_credentials || file.is_some()) || !self.home.log(Role::Auditor).is_dir() {
            return false;
        }
        let mut auditor = Command::new(signers::program("amc-auditor"));
        auditor.args(["cosign", "--json", "--home"]).arg(self.home.root());
        if let Some(file) = file {
            auditor.arg("--passphrase-file").arg(file);
        }
        let status = auditor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }
}

fn last_words(
    client: &mut MonitorClient,
    session: SessionId,
    exit: &ProcessExit,
) -> Result<SessionSealed, RecorderError> {
    recorder::record(client, session, ProcessFields::Exit(exit.clone()), None)?;
    match client.call(OperatorRequest::SealSession { session, outcome: SessionOutcome::Sealed })? {
        OperatorReply::Sealed(sealed) => Ok(sealed),
        OperatorReply::Refused(refusal) => Err(refusal.into()),
        _ => Err(RecorderError::Unexpected),
    }
}

fn chosen_providers(
    config: &GatewayConfig,
    adapters: &[String],
) -> Result<Vec<(String, amc_core::kinds::Dialect)>, Failure> {
    if let Some(unknown) = adapters.iter().find(|name| !config.providers.contains_key(*name)) {
        let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
        return Err(Failure::wrong(format!("gateway.yaml has no provider {unknown:?}; it has {}", known.join(", "))));
    }
    let wanted = |name: &String| adapters.is_empty() || adapters.contains(name);
    let chosen = config.providers.iter().filter(|(name, _)| wanted(name));
    Ok(chosen.map(|(name, provider)| (name.clone(), provider.dialect)).collect())
}

//! Wrapped sessions that get as old as a day go on in another one.
//!
//! The process and its lease stay; the log gets an end and a beginning that name each other. The
//! monitor decides it by its own clock. The wrapper hears of it with the next thing that it says
//! ([`Refusal::SessionContinued`]), says that again in the new session, and probes there.

use amc_core::kinds::{AgentRegistered, BoundaryMode, SessionContinued, SessionContinues};
use amc_core::{AgentId, Clock, SessionId, Tier};
use amc_evidence::Draft;
use amc_ledger::Writer;
use amc_workspace::protocol::Refusal;

use super::live::{Kind, Open};
use super::{Sessions, new_session, refusal, submit_opening};

impl Sessions {
    /// Has each wrapped session whose time has come go on in another one. `surroundings` says what holds for a new
    /// session of an agent: what is declared of the boundary, and what is registered of it. One that cannot go on now
    /// does not hold up the others.
    pub(crate) fn continue_old(
        &self,
        writer: &Writer,
        clock: &impl Clock,
        surroundings: impl Fn(&AgentId) -> Result<(BoundaryMode, Option<AgentRegistered>), Refusal>,
    ) -> Result<(), Refusal> {
        let old = self.live().to_continue(clock.now().wall_ns);
        let tried = old.into_iter().map(|session| self.go_on(writer, clock, session, &surroundings));
        tried.fold(Ok(()), Result::and)
    }

    fn go_on(
        &self,
        writer: &Writer,
        clock: &impl Clock,
        session: SessionId,
        surroundings: &impl Fn(&AgentId) -> Result<(BoundaryMode, Option<AgentRegistered>), Refusal>,
    ) -> Result<(), Refusal> {
        let _turn = self.turning();
        let old = {
            let live = self.live();
            live.sessions.get(&session).filter(|open| !open.is_ending).and_then(|open| match &open.kind {
                Kind::Wrapped { plan, .. } => Some((open.agent.clone(), open.lease.clone(), plan.clone())),
                Kind::Day(_) => None,
            })
        };
        // It has been sealed in the meantime.
        let Some((agent, lease, plan)) = old else { return Ok(()) };
        let (declared, registered) = surroundings(&agent)?;
        let next = new_session(clock)?;
        let opening = submit_opening(writer, &agent, next, declared, plan.clone())?;
        let here = |fields: amc_core::kinds::Fields| Draft::in_session(agent.clone(), next, Tier::Observed, fields);
        let continues = writer.submit(here(SessionContinues { previous: session }.into()), None).map_err(refusal)?;
        let registered = registered.map(|registered| writer.submit(here(registered.into()), None));
        let continued = Draft::in_session(agent.clone(), session, Tier::Observed, SessionContinued { next });
        let continued = writer.submit(continued, None).map_err(refusal)?;
        opening.wait()?;
        continues.wait().map_err(refusal)?;
        registered.transpose().map_err(refusal)?.map(amc_ledger::Pending::wait).transpose().map_err(refusal)?;
        continued.wait().map_err(refusal)?;
        let now_ns = clock.now().wall_ns;
        let open = Open::new(agent, lease, Kind::Wrapped { since_ns: now_ns, plan });
        self.live().go_on(session, next, open, now_ns);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::sync::{Arc, Mutex};

    use amc_core::kinds::{Fields, Isolation, Role, SessionOutcome, SessionPurpose};
    use amc_core::{Instant, WorkspaceName};
    use amc_evidence::Event;
    use amc_ledger::{LogReader, Signers};
    use amc_vault::{Passphrase, ScryptParams, Vault};
    use amc_workspace::home;
    use amc_workspace::protocol::operator::SessionRequest;

    use super::super::Opened;
    use super::super::live::NS_PER_DAY;
    use super::*;

    struct Hours(AtomicI64);

    impl Clock for Hours {
        fn now(&self) -> Instant {
            let wall_ns = self.0.load(Ordering::SeqCst);
            Instant { wall_ns, boot_ns: wall_ns.cast_unsigned(), boot_id: [1; 16] }
        }
    }

    struct Log {
        dir: tempfile::TempDir,
        clock: Arc<Hours>,
        writer: Writer,
    }

    impl Log {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            home::make_dir(&dir.path().join("home")).expect("a directory");
            let vault = Vault::at(dir.path().join("home/vault"), WorkspaceName::new("acme").expect("a name"));
            let passphrase = Passphrase::from_line(b"one of a test".to_vec()).expect("a passphrase");
            let keys = vault
                .create(Role::Monitor, &passphrase, ScryptParams::new(17, 8, 1).expect("the least"))
                .expect("a vault");
            let (log, witness) = keys.into_log_and_witness();
            let opened = crate::init::log_opened(&log, &witness);
            let log = Arc::new(log);
            let signers = Signers { event: log.clone(), checkpoint: log };
            let clock = Arc::new(Hours(AtomicI64::new(1)));
            let place = dir.path().join("log");
            amc_ledger::create(&place, opened, &signers, &*clock).expect("a log");
            let writer = Writer::open(&place, signers, clock.clone()).expect("it opens");
            Log { dir, clock, writer }
        }

        fn open(&self, sessions: &Sessions, agent: &str) -> Opened {
            let request = SessionRequest {
                agent: AgentId::new(agent).expect("an id"),
                purpose: SessionPurpose::Agent,
                isolation: Isolation::Namespaces,
                argv: vec!["agent".to_owned()],
                artifact: None,
            };
            sessions.open(&self.writer, &*self.clock, BoundaryMode::Isolated, request).expect("it opens")
        }

        fn at(&self, hour: i64) {
            self.clock.0.store(1 + hour * NS_PER_DAY / 24, Ordering::SeqCst);
        }

        /// Who said what, in order.
        fn events(&self) -> Vec<(Option<SessionId>, Fields)> {
            self.writer.publish().expect("it publishes");
            let reader = LogReader::open(&self.dir.path().join("log")).expect("it reads");
            let events = reader.events(0).map(|stored| Event::decode(&stored.expect("an event").signed.body));
            events
                .filter_map(|event| {
                    let (event, fields) = event.expect("it decodes");
                    fields.map(|fields| (event.session, fields))
                })
                .collect()
        }
    }

    fn surroundings(_: &AgentId) -> Result<(BoundaryMode, Option<AgentRegistered>), Refusal> {
        Ok((BoundaryMode::Isolated, None))
    }

    #[test]
    fn a_wrapped_session_goes_on_in_another_that_names_it() {
        let (log, sessions) = (Log::new(), Sessions::default());
        let opened = log.open(&sessions, "bot");
        let token = amc_crypto::sha256(opened.token.as_bytes());
        let declared = || Ok(BoundaryMode::Isolated);
        let grant = |sessions: &Sessions| sessions.authorize(&log.writer, &*log.clock, declared, &token);
        log.at(22);
        sessions.continue_old(&log.writer, &*log.clock, surroundings).expect("nothing is due");
        assert_eq!(sessions.continued_in(opened.session), None);

        log.at(23);
        sessions.count_call(opened.session, true);
        sessions.continue_old(&log.writer, &*log.clock, surroundings).expect("it goes on");
        let next = sessions.continued_in(opened.session).expect("it is continued");
        assert_eq!(grant(&sessions).expect("the same lease").session, next);
        let sealed = sessions.seal(&log.writer, opened.session, SessionOutcome::Sealed);
        assert_eq!(sealed.map(|_| ()), Err(Refusal::SessionContinued(next)));

        // The call that began before is waited for, and no longer than until the day is over.
        log.at(24);
        assert_eq!(sessions.tend(&log.writer, log.clock.now().wall_ns), Ok(true));
        assert_eq!(sessions.ids(), [next]);
        assert_eq!(sessions.continued_in(opened.session), Some(next), "a silent wrapper hears of it later");
        sessions.seal(&log.writer, next, SessionOutcome::Sealed).expect("the end");
        assert!(grant(&sessions).is_err(), "the lease ends with the last session");

        let events = log.events();
        let of = |session| events.iter().filter(move |(of, _)| *of == Some(session)).map(|(_, fields)| fields);
        let first: Vec<&Fields> = of(opened.session).collect();
        let last: Vec<&Fields> = of(next).collect();
        assert!(
            matches!(first.as_slice(), [.., Fields::SessionContinued(to), Fields::SessionSeal(seal)]
                if to.next == next && seal.outcome == SessionOutcome::Sealed),
            "{first:?}"
        );
        let [Fields::SessionOpen(open), Fields::BoundaryDeclared(_), Fields::SessionContinues(from), ..] =
            last.as_slice()
        else {
            panic!("{last:?}")
        };
        assert_eq!((open.number, &open.isolation, from.previous), (2, &Isolation::Namespaces, opened.session));
    }

    #[test]
    fn a_session_that_ends_does_not_go_on_and_a_stop_seals_both() {
        let (log, sessions) = (Log::new(), Sessions::default());
        let [one, two] = ["one", "two"].map(|agent| log.open(&sessions, agent).session);
        sessions.seal(&log.writer, one, SessionOutcome::Sealed).expect("the end");
        log.at(23);
        let asked = Mutex::new(Vec::new());
        let noting = |agent: &AgentId| {
            asked.lock().expect("nobody panics").push(agent.clone());
            surroundings(agent)
        };
        sessions.continue_old(&log.writer, &*log.clock, noting).expect("it goes on");
        assert_eq!(*asked.lock().expect("nobody panics"), [AgentId::new("two").expect("an id")]);
        sessions.seal_all(&log.writer).expect("the monitor stops");
        let outcome = |wanted| {
            let events = log.events();
            events.into_iter().find_map(|(session, fields)| match fields {
                Fields::SessionSeal(seal) if session == Some(wanted) => Some(seal.outcome),
                _ => None,
            })
        };
        assert_eq!(outcome(two), Some(SessionOutcome::Sealed), "it had ended, its calls were waited for");
        let next = log.events().into_iter().find_map(|(_, fields)| match fields {
            Fields::SessionContinued(continued) => Some(continued.next),
            _ => None,
        });
        assert_eq!(outcome(next.expect("it went on")), Some(SessionOutcome::Interrupted));
    }

    #[test]
    fn one_that_cannot_go_on_does_not_hold_up_the_others() {
        let (log, sessions) = (Log::new(), Sessions::default());
        let opened = ["one", "two", "three"].map(|agent| log.open(&sessions, agent).session);
        log.at(23);
        let only_three = |agent: &AgentId| match agent.as_str() {
            "three" => surroundings(agent),
            _ => Err(Refusal::Invalid("its configuration does not parse".to_owned())),
        };
        assert!(sessions.continue_old(&log.writer, &*log.clock, only_three).is_err());
        let went_on = opened.map(|session| sessions.continued_in(session).is_some());
        assert_eq!(went_on, [false, false, true]);
        sessions.continue_old(&log.writer, &*log.clock, surroundings).expect("mended since");
        assert!(opened.iter().all(|session| sessions.continued_in(*session).is_some()));
    }
}

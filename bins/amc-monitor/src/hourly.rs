//! What the monitor does by itself while it runs: at every session's seal it sees to it that both logs are
//! cosigned, and at least hourly it says of every agent how many sessions it had.
//!
//! It cosigns the audit log where that grew, and asks the process that holds the auditor's keys, while
//! there is one, to cosign the evidence log. What cannot be done now is done the next time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use amc_core::kinds::Role;
use amc_core::{AgentId, Clock as _, Instant, Tier};
use amc_evidence::{Content, Draft};
use amc_ledger::{AppendError, LogReader};
use amc_workspace::protocol::holder::{Found, HolderClient, VerbCall};

use crate::daemon::Daemon;
use crate::witness;

/// A little less than an hour, so that what is at least hourly is so on a busy machine too.
const EVERY_NS: u64 = 59 * 60 * 1_000_000_000;
/// How often the clock is looked at; suspend is seen no later.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// When the hourly work is due, by the clock that goes on in suspend and is set by nobody.
#[derive(Debug)]
struct Schedule {
    next_ns: u64,
}

impl Schedule {
    const fn starting(now: &Instant) -> Self {
        Schedule { next_ns: now.boot_ns.saturating_add(EVERY_NS) }
    }

    /// Whether it is due; then the next time is an hour from now.
    fn is_due(&mut self, now: &Instant) -> bool {
        let due = now.boot_ns >= self.next_ns;
        if due {
            *self = Schedule::starting(now);
        }
        due
    }
}

/// Tells the thread that does this work of a sealed session.
#[derive(Debug, Default)]
pub(crate) struct Seals {
    sealed: Mutex<bool>,
    changed: Condvar,
}

impl Seals {
    /// A session was sealed.
    pub(crate) fn ring(&self) {
        *self.sealed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits for a seal, or for some seconds; whether there was one.
    fn wait(&self) -> bool {
        let sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(sealed, LOOK_EVERY, |sealed| !*sealed);
        let (mut sealed, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *sealed)
    }
}

/// Starts the thread. It ends with the process: everything that it appends is whole or not there.
pub(crate) fn tend(daemon: Arc<Daemon>) {
    thread::spawn(move || {
        let mut schedule = Schedule::starting(&daemon.core.clock.now());
        loop {
            let sealed = daemon.seals.wait();
            let due = schedule.is_due(&daemon.core.clock.now());
            // A log that stopped is told by the next command.
            if due && say_heads(&daemon).is_err() {
                return;
            }
            if sealed || due {
                cosign_both(&daemon);
            }
        }
    });
}

/// The head of every agent that ever had a session.
fn say_heads(daemon: &Daemon) -> Result<(), AppendError> {
    let agents: Vec<AgentId> = daemon.core.writer.with_state(|state| state.sessions().agents().cloned().collect());
    for agent in agents {
        let content = Content::AgentHead;
        let head = Draft { agent: Some(agent), session: None, tier: Tier::Observed, payload: None, content };
        daemon.core.writer.append(head, None)?;
    }
    Ok(())
}

/// Each role cosigns the other's newest checkpoint, as far as it can be had.
fn cosign_both(daemon: &Daemon) {
    let core = &daemon.core;
    let audit = core.home.log(Role::Auditor);
    let grew = LogReader::open(&audit).is_ok_and(|log| {
        let origin = &log.checkpoint().origin;
        let known = core.writer.with_state(|state| state.cosigned(origin).map_or(0, |head| head.size));
        log.size() > known
    });
    if grew {
        let one_at_a_time = daemon.witnessing();
        // An audit log that does not extend what was cosigned is found by whoever verifies.
        let _ = witness::cosign(core);
        drop(one_at_a_time);
    }
    if core.writer.publish().is_ok()
        && let Found::Holder(holder) = HolderClient::find(&core.home)
    {
        // It says itself what it could not do, and is asked again at the next seal.
        let _ = holder.carry(VerbCall::of(&["cosign"], core.home.root()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(boot_s: u64) -> Instant {
        Instant { wall_ns: 0, boot_ns: boot_s * 1_000_000_000, boot_id: [0; 16] }
    }

    #[test]
    fn it_is_due_within_every_hour_and_once_each_time() {
        let mut schedule = Schedule::starting(&at(100));
        assert!(!schedule.is_due(&at(100)));
        assert!(!schedule.is_due(&at(100 + 3_000)));
        assert!(schedule.is_due(&at(100 + 3_600 - LOOK_EVERY.as_secs())), "before the hour is over");
        assert!(!schedule.is_due(&at(100 + 3_600)), "once");
        // The machine slept for a day: once, and an hour later again.
        assert!(schedule.is_due(&at(90_000)));
        assert!(!schedule.is_due(&at(90_020)));
        assert!(schedule.is_due(&at(93_600)));
    }

    #[test]
    fn a_seal_is_heard_by_who_comes_later() {
        let seals = Seals::default();
        seals.ring();
        seals.ring();
        assert!(seals.wait(), "what was rung before is not lost");
        assert!(!*seals.sealed.lock().expect("nobody panicked"), "and is told once");
    }
}

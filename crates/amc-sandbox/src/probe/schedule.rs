//! When a probe runs again.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Between two probes of a running agent: what somebody loosens later is found within the hour.
pub const EVERY: Duration = Duration::from_secs(60 * 60);

/// What wakes who probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Probe at once: a session has begun in which none has run.
    Now,
    /// The agent has ended.
    Ended,
}

/// Probes now, again after every `interval` and whenever somebody asks, until the agent has ended.
///
/// # Errors
/// The first failure of `probe`, which ends it.
pub fn repeat<E>(
    interval: Duration,
    woken: &Receiver<Wake>,
    mut probe: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    loop {
        probe()?;
        match woken.recv_timeout(interval) {
            Err(RecvTimeoutError::Timeout) | Ok(Wake::Now) => {}
            Ok(Wake::Ended) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn it_probes_again_until_the_agent_has_ended() {
        let (running, ended) = channel();
        let mut running = Some(running);
        let mut probes = 0;
        let done: Result<(), ()> = repeat(Duration::ZERO, &ended, || {
            probes += 1;
            if probes == 5 {
                running = None;
            }
            Ok(())
        });
        assert_eq!((done, probes, running.is_none()), (Ok(()), 5, true));
    }

    #[test]
    fn an_agent_that_ends_within_the_hour_was_probed_once_and_is_not_waited_for() {
        let (running, ended) = channel::<Wake>();
        drop(running);
        let mut probes = 0;
        let done: Result<(), ()> = repeat(EVERY, &ended, || {
            probes += 1;
            Ok(())
        });
        assert_eq!((done, probes), (Ok(()), 1));
    }

    #[test]
    fn it_probes_whenever_somebody_asks_and_for_each_before_the_end() {
        let (asking, woken) = channel();
        for wake in [Wake::Now, Wake::Now, Wake::Ended, Wake::Now] {
            asking.send(wake).expect("the other end is here");
        }
        let mut probes = 0;
        let done: Result<(), ()> = repeat(EVERY, &woken, || {
            probes += 1;
            Ok(())
        });
        assert_eq!((done, probes), (Ok(()), 3));
    }

    #[test]
    fn a_probe_that_fails_ends_it() {
        let (_running, ended) = channel::<Wake>();
        assert_eq!(repeat(EVERY, &ended, || Err("it could not be run")), Err("it could not be run"));
    }
}

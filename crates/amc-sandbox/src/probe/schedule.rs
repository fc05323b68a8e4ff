//! When a probe runs again.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Between two probes of a running agent: what somebody loosens later is found within the hour.
pub const EVERY: Duration = Duration::from_secs(60 * 60);

/// Probes now and then again after every `interval`, until whoever holds the other end of `ended`
/// lets it go.
///
/// # Errors
/// The first failure of `probe`, which ends it.
pub fn repeat<E>(interval: Duration, ended: &Receiver<()>, mut probe: impl FnMut() -> Result<(), E>) -> Result<(), E> {
    loop {
        probe()?;
        match ended.recv_timeout(interval) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
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
        let (running, ended) = channel::<()>();
        drop(running);
        let mut probes = 0;
        let done: Result<(), ()> = repeat(EVERY, &ended, || {
            probes += 1;
            Ok(())
        });
        assert_eq!((done, probes), (Ok(()), 1));
    }

    #[test]
    fn a_probe_that_fails_ends_it() {
        let (_running, ended) = channel::<()>();
        assert_eq!(repeat(EVERY, &ended, || Err("it could not be run")), Err("it could not be run"));
    }
}

//! Answers of the monitor about leases, used again as long as nothing about any lease has changed since.
//!
//! That nothing has is seen in a number that the monitor changes before it tells anybody of a change
//! ([`amc_workspace::generation`]); reading it costs a hundredth of asking. Only what was granted is kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use amc_core::Digest;
use amc_workspace::generation::GenerationReader;
use amc_workspace::protocol::gateway::LeaseGrant;

/// What was granted under one number.
#[derive(Debug)]
pub(crate) struct Granted {
    generation: Option<GenerationReader>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    generation: u64,
    grants: HashMap<Digest, LeaseGrant>,
}

impl Granted {
    /// Without a number to look at nothing is kept.
    pub(crate) fn new(generation: Option<GenerationReader>) -> Self {
        Granted { generation, known: Mutex::default() }
    }

    /// The number now.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.generation.as_ref()?.now()
    }

    /// What was granted to this token under this number, where it still holds.
    pub(crate) fn known(&self, token_sha256: &Digest, generation: u64) -> Option<LeaseGrant> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = known.grants.get(token_sha256).filter(|_| known.generation == generation)?;
        (now_ns() < grant.holds_until_ns).then(|| grant.clone())
    }

    /// Keeps what was granted after this number was read.
    pub(crate) fn note(&self, token_sha256: Digest, generation: u64, grant: &LeaseGrant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != generation || known.grants.len() >= GRANTS_MAX {
            *known = Known { generation, ..Known::default() };
        }
        known.grants.insert(token_sha256, grant.clone());
    }
}

fn now_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

/// More leases than one gateway has open.
const GRANTS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use amc_core::{AgentId, LeaseId, SessionId};
    use amc_workspace::generation::Generation;
    use amc_workspace::protocol::gateway::LeaseLimits;

    use super::*;

    #[test]
    fn a_grant_is_used_again_until_something_changes_or_its_time_is_over() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("generation");
        let generation = Generation::create(&path).expect("it is made");
        let granted = Granted::new(GenerationReader::open(&path).ok());
        let grant = |holds_until_ns| LeaseGrant {
            lease: LeaseId::new("lease-0000000000000001").expect("an id"),
            agent: AgentId::new("bot").expect("an id"),
            session: SessionId::from_parts(1, [0; 10]),
            limits: LeaseLimits::default(),
            holds_until_ns,
        };
        let (token, other, over) = (Digest([1; 32]), Digest([2; 32]), Digest([3; 32]));
        let first = granted.generation().expect("a number");
        granted.note(token, first, &grant(i64::MAX));
        granted.note(over, first, &grant(now_ns() - 1));
        assert_eq!(granted.known(&token, first), Some(grant(i64::MAX)));
        assert_eq!(granted.known(&other, first), None, "it was not granted");
        assert_eq!(granted.known(&over, first), None, "its time is over");
        generation.advance();
        let second = granted.generation().expect("a number");
        assert_eq!(granted.known(&token, second), None, "something has changed");
        // An answer that began before the change and came after it.
        granted.note(other, first, &grant(i64::MAX));
        assert_eq!(granted.known(&other, second), None);
        assert_eq!(Granted::new(None).generation(), None, "without the file every call is asked for");
    }
}

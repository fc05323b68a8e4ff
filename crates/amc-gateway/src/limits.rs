//! What a lease may be used for, enforced before a provider is called: scope, providers, models,
//! requests per minute, calls at the same time.
//!
//! Who a lease is and whether it still holds is the monitor's to say at every request; here is
//! counted and compared. Counts are of this process and begin anew with it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use amc_core::LeaseId;
use amc_core::kinds::LeaseScope;
use amc_workspace::protocol::gateway::{LeaseGrant, LeaseLimits};

use crate::refusal::Failure;

/// Calls per lease.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseCounters(Arc<Mutex<HashMap<LeaseId, Counter>>>);

#[derive(Debug, Default)]
struct Counter {
    running: u32,
    /// When the calls of the last minute began, oldest first; kept only for leases that bound them.
    began: VecDeque<Instant>,
}

/// A call that counts as running until this is dropped.
#[derive(Debug)]
pub(crate) struct CallSlot {
    counters: LeaseCounters,
    lease: LeaseId,
}

impl LeaseCounters {
    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseId, Counter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call in, or says why it may not begin now.
    pub(crate) fn enter(&self, grant: &LeaseGrant, now: Instant) -> Result<CallSlot, Failure> {
        let LeaseLimits { requests_per_minute, concurrency, .. } = grant.limits;
        let mut counters = self.lock();
        let counter = counters.entry(grant.lease.clone()).or_default();
        if concurrency > 0 && counter.running >= concurrency {
            let what = format!("{} allows {concurrency} calls at the same time, and as many run", grant.lease);
            return Err(Failure::too_many(what, Duration::from_secs(1)));
        }
        if requests_per_minute > 0 {
            while counter.began.front().is_some_and(|began| now.saturating_duration_since(*began) >= MINUTE) {
                counter.began.pop_front();
            }
            if counter.began.len() >= requests_per_minute as usize {
                let oldest = counter.began.front().copied().unwrap_or(now);
                let wait = MINUTE.saturating_sub(now.saturating_duration_since(oldest));
                let what = format!("{} allows {requests_per_minute} requests per minute", grant.lease);
                return Err(Failure::too_many(what, wait));
            }
            counter.began.push_back(now);
        }
        counter.running += 1;
        Ok(CallSlot { counters: self.clone(), lease: grant.lease.clone() })
    }
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        let mut counters = self.counters.lock();
        if let Some(counter) = counters.get_mut(&self.lease) {
            counter.running -= 1;
            if counter.running == 0 && counter.began.is_empty() {
                counters.remove(&self.lease);
            }
        }
    }
}

/// Whether a lease is for model calls, and for this provider.
pub(crate) fn check_route(grant: &LeaseGrant, provider: &str) -> Result<(), Failure> {
    let LeaseGrant { lease, limits, .. } = grant;
    if !limits.scopes.contains(&LeaseScope::Llm) {
        return Err(Failure::forbidden(format!("{lease} is not for model calls (scope llm)")));
    }
    if limits.providers.is_empty() || limits.providers.iter().any(|allowed| allowed == provider) {
        return Ok(());
    }
    Err(Failure::forbidden(format!("{lease} is for {}, not for {provider}", limits.providers.join(", "))))
}

/// Whether a lease is for every one of these models; a call that names none passes.
pub(crate) fn check_models(grant: &LeaseGrant, asked: &[String]) -> Result<(), Failure> {
    let LeaseGrant { lease, limits, .. } = grant;
    match asked.iter().find(|model| !limits.models.contains(model)) {
        Some(model) if !limits.models.is_empty() => {
            let model: String = model.chars().take(64).collect();
            Err(Failure::forbidden(format!("{lease} is for {}, not for {model:?}", limits.models.join(", "))))
        }
        _ => Ok(()),
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use amc_core::{AgentId, SessionId};

    fn grant(limits: LeaseLimits) -> LeaseGrant {
        LeaseGrant {
            lease: LeaseId::new("lease-0000000000000001").expect("an id"),
            agent: AgentId::new("bot").expect("an id"),
            session: SessionId::from_parts(1, [0; 10]),
            limits,
            holds_until_ns: 0,
        }
    }

    #[test]
    fn calls_of_the_last_minute_count() {
        let counters = LeaseCounters::default();
        let grant = grant(LeaseLimits { requests_per_minute: 2, ..LeaseLimits::default() });
        let start = Instant::now();
        for seconds in [0, 1] {
            assert!(counters.enter(&grant, start + Duration::from_secs(seconds)).is_ok());
        }
        let refused = counters.enter(&grant, start + Duration::from_secs(30)).expect_err("it is the third");
        assert_eq!(refused.retry_after, Some(Duration::from_secs(30)));
        assert!(counters.enter(&grant, start + Duration::from_secs(60)).is_ok(), "the first is a minute ago");
        assert!(counters.enter(&grant, start + Duration::from_millis(60_500)).is_err());
    }

    #[test]
    fn calls_at_the_same_time_count_until_they_end() {
        let counters = LeaseCounters::default();
        let grant = grant(LeaseLimits { concurrency: 1, ..LeaseLimits::default() });
        let running = counters.enter(&grant, Instant::now()).expect("it is the first");
        assert!(counters.enter(&grant, Instant::now()).is_err());
        drop(running);
        assert!(counters.lock().is_empty(), "nothing is kept of a lease that runs nothing");
        assert!(counters.enter(&grant, Instant::now()).is_ok());
    }

    #[test]
    fn scope_provider_and_model_are_compared() {
        let egress_only = grant(LeaseLimits { scopes: vec![LeaseScope::Egress], ..LeaseLimits::default() });
        assert!(check_route(&egress_only, "openai").is_err());
        let only = grant(LeaseLimits {
            providers: vec!["openai".into()],
            models: vec!["m-1".into()],
            ..LeaseLimits::default()
        });
        assert!(check_route(&only, "openai").is_ok() && check_route(&only, "openai2").is_err());
        assert!(check_models(&only, &[]).is_ok() && check_models(&only, &["m-1".into()]).is_ok());
        assert!(check_models(&only, &["m-1".into(), "m-2".into()]).is_err());
        assert!(check_models(&grant(LeaseLimits::default()), &["any".into()]).is_ok());
    }
}

//! Leases that were issued by hand: what stands in the log about them, and nothing else.
//!
//! A lease is three kinds of event: `lease_terms` and `lease_issued` when it is made, `lease_revoked`
//! when it is ended early. The book is read from the log at every start, so a revocation survives
//! whatever happens to the process. Tokens are known by their SHA-256 only.

use std::collections::{BTreeMap, HashMap};

use amc_core::kinds::{Fields, LeaseIssued, LeaseRevoked, LeaseTerms};
use amc_core::{AgentId, Digest, LeaseId, Tier};
use amc_evidence::{Draft, Event};
use amc_ledger::{LogReader, ReadError, Writer};
use amc_workspace::protocol::Refusal;
use amc_workspace::protocol::gateway::LeaseLimits;
use amc_workspace::protocol::operator::{IssuedLease, LeaseOrder, LeaseSummary};

use crate::sessions::{Changes, random, refusal};

/// The leases of a log.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook {
    leases: BTreeMap<LeaseId, Lease>,
    by_token: HashMap<Digest, LeaseId>,
    /// Ids in the order of their issue.
    order: Vec<LeaseId>,
    /// Terms whose `lease_issued` has not come yet.
    announced: Option<LeaseTerms>,
}

/// One lease.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// Who it is for.
    pub(crate) agent: AgentId,
    /// What it may be used for.
    pub(crate) limits: LeaseLimits,
    pub(crate) expires_ns: i64,
    revoked: bool,
}

impl Lease {
    /// Why it does not hold at this time, in words.
    pub(crate) fn why_not(&self, id: &LeaseId, now_ns: i64) -> Option<String> {
        if self.revoked {
            return Some(format!("{id} was revoked; ask the operator for another (`amc lease issue`)"));
        }
        (now_ns >= self.expires_ns)
            .then(|| format!("{id} has expired; ask the operator for another (`amc lease issue`)"))
    }
}

impl LeaseBook {
    /// Reads the book from a log.
    ///
    /// # Errors
    /// [`ReadError`] when the log cannot be read.
    pub(crate) fn read(log: &LogReader) -> Result<Self, ReadError> {
        let mut book = LeaseBook::default();
        for stored in log.events(0) {
            let stored = stored?;
            if let Ok((event, Some(fields))) = Event::decode(&stored.signed.body) {
                book.apply(event.agent.as_ref(), &fields);
            }
        }
        Ok(book)
    }

    fn apply(&mut self, agent: Option<&AgentId>, fields: &Fields) {
        match fields {
            Fields::LeaseTerms(terms) => self.announced = Some(terms.clone()),
            Fields::LeaseIssued(issued) => {
                let terms = self.announced.take_if(|terms| terms.lease == issued.lease);
                if let (Some(terms), Some(agent), Some(expires_ns)) = (terms, agent, issued.expires_ns) {
                    self.add(terms, agent.clone(), issued.token_sha256, expires_ns);
                }
            }
            Fields::LeaseRevoked(LeaseRevoked { lease }) => self.mark_revoked(lease),
            _ => {}
        }
    }

    fn add(&mut self, terms: LeaseTerms, agent: AgentId, token_sha256: Digest, expires_ns: i64) {
        let LeaseTerms { lease, scopes, providers, models, allow, requests_per_minute, concurrency } = terms;
        let limits = LeaseLimits { scopes, providers, models, allow, requests_per_minute, concurrency };
        self.by_token.insert(token_sha256, lease.clone());
        self.order.push(lease.clone());
        self.leases.insert(lease, Lease { agent, limits, expires_ns, revoked: false });
    }

    fn mark_revoked(&mut self, lease: &LeaseId) {
        if let Some(known) = self.leases.get_mut(lease) {
            known.revoked = true;
        }
    }

    /// The lease that a token stands for, whether or not it still holds.
    pub(crate) fn of_token(&self, token_sha256: &Digest) -> Option<(&LeaseId, &Lease)> {
        let id = self.by_token.get(token_sha256)?;
        self.leases.get(id).map(|lease| (id, lease))
    }

    /// A lease by its id.
    pub(crate) fn get(&self, lease: &LeaseId) -> Option<&Lease> {
        self.leases.get(lease)
    }

    /// Makes a lease and waits until it is durable.
    pub(crate) fn issue(&mut self, writer: &Writer, now_ns: i64, order: LeaseOrder) -> Result<IssuedLease, Refusal> {
        let LeaseOrder { agent, expires_s, limits } = order;
        let mut limits = limits;
        limits.scopes.sort_unstable();
        limits.scopes.dedup();
        if limits.scopes.is_empty() {
            return Err(Refusal::Invalid("a lease is for something: llm, egress or both".to_owned()));
        }
        let lasts_ns = i64::try_from(expires_s).ok().and_then(|seconds| seconds.checked_mul(1_000_000_000));
        let expires_ns = lasts_ns.and_then(|lasts| now_ns.checked_add(lasts));
        let expires_ns = expires_ns.ok_or_else(|| Refusal::Invalid("no lease holds that long".to_owned()))?;
        let lease = LeaseId::new(format!("lease-{}", amc_core::digest::hex(&random::<8>()?)))
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        let token = format!("amc-lease-{}", amc_core::digest::hex(&random::<24>()?));
        let token_sha256 = amc_crypto::sha256(token.as_bytes());
        let LeaseLimits { scopes, providers, models, allow, requests_per_minute, concurrency } = limits;
        let terms =
            LeaseTerms { lease: lease.clone(), scopes, providers, models, allow, requests_per_minute, concurrency };
        let of_agent = |fields: Fields| Draft { agent: Some(agent.clone()), ..Draft::new(Tier::Observed, fields) };
        let issued = LeaseIssued { lease: lease.clone(), token_sha256, expires_ns: Some(expires_ns) };
        let announced = writer.submit(of_agent(terms.clone().into()), None).map_err(refusal)?;
        let issued = writer.submit(of_agent(issued.into()), None).map_err(refusal)?;
        announced.wait().map_err(refusal)?;
        issued.wait().map_err(refusal)?;
        self.add(terms, agent, token_sha256, expires_ns);
        Ok(IssuedLease { lease, token, expires_ns })
    }

    /// Ends a lease: it does not hold from here on, and the log says so before this returns.
    pub(crate) fn revoke(&mut self, writer: &Writer, changes: &Changes, lease: &LeaseId) -> Result<(), Refusal> {
        let known = self.leases.get_mut(lease);
        let known =
            known.ok_or_else(|| Refusal::Invalid(format!("no lease {lease} was issued; see `amc lease list`")))?;
        if known.revoked {
            return Ok(());
        }
        // First: a lease whose end could not be written down is ended all the same.
        known.revoked = true;
        changes.advance();
        let revoked = LeaseRevoked { lease: lease.clone() };
        let draft = Draft { agent: Some(known.agent.clone()), ..Draft::new(Tier::Observed, revoked) };
        writer.append(draft, None).map_err(refusal)?;
        Ok(())
    }

    /// The leases, oldest first; their sessions are filled in elsewhere.
    pub(crate) fn list(&self, now_ns: i64) -> Vec<LeaseSummary> {
        let known = self.order.iter().filter_map(|id| self.leases.get_key_value(id));
        let summary = known.map(|(id, lease)| LeaseSummary {
            lease: id.clone(),
            agent: lease.agent.clone(),
            expires_ns: lease.expires_ns,
            revoked: lease.revoked,
            expired: now_ns >= lease.expires_ns,
            limits: lease.limits.clone(),
            session: None,
        });
        summary.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amc_core::kinds::LeaseScope;

    fn terms(number: u8) -> LeaseTerms {
        LeaseTerms {
            lease: LeaseId::new(format!("lease-{number:016x}")).expect("an id"),
            scopes: vec![LeaseScope::Llm],
            providers: vec!["openai".into()],
            models: Vec::new(),
            allow: Vec::new(),
            requests_per_minute: 0,
            concurrency: 0,
        }
    }

    fn issued(number: u8, expires_ns: Option<i64>) -> Fields {
        let lease = terms(number).lease;
        LeaseIssued { lease, token_sha256: Digest([number; 32]), expires_ns }.into()
    }

    #[test]
    fn the_book_is_what_the_log_says() {
        let agent = AgentId::new("bot").expect("an id");
        let mut book = LeaseBook::default();
        let mut apply = |fields: Fields| book.apply(Some(&agent), &fields);
        apply(terms(1).into());
        apply(issued(1, Some(100)));
        // What a wrapper's session has is no lease of the book, nor is one whose terms are another's.
        apply(issued(2, None));
        apply(terms(3).into());
        apply(issued(4, Some(100)));
        apply(terms(5).into());
        apply(issued(5, Some(100)));
        apply(LeaseRevoked { lease: terms(5).lease }.into());
        assert_eq!(book.list(0).len(), 2);
        let (id, lease) = book.of_token(&Digest([1; 32])).expect("it was issued");
        assert_eq!(lease.why_not(id, 99), None);
        assert!(lease.why_not(id, 100).is_some_and(|why| why.contains("expired")));
        let (id, lease) = book.of_token(&Digest([5; 32])).expect("it was issued");
        assert!(lease.why_not(id, 0).is_some_and(|why| why.contains("revoked")));
        assert!(book.of_token(&Digest([2; 32])).is_none() && book.of_token(&Digest([4; 32])).is_none());
    }
}

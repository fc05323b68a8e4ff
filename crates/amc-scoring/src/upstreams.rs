//! Where calls went: what the gateway said of its providers when it started.

use std::collections::{BTreeMap, BTreeSet};

use amc_core::kinds::Fields;
use amc_evidence::EventRecord;

use crate::calls::Calls;
use crate::report::Upstream;

/// The providers of each start of the gateway, by position.
#[derive(Debug)]
pub(crate) struct Upstreams<'a> {
    starts: Vec<(u64, &'a [(String, String)])>,
    hosts: BTreeSet<&'a str>,
}

impl<'a> Upstreams<'a> {
    /// From selected records, sorted by index.
    pub(crate) fn new(evidence: &'a [EventRecord]) -> Self {
        let starts: Vec<_> = evidence
            .iter()
            .filter_map(|record| match &record.fields {
                Some(Fields::GatewayStarted(started)) => Some((record.event.index, started.providers.as_slice())),
                _ => None,
            })
            .collect();
        let bases = starts.iter().flat_map(|(_, providers)| providers.iter());
        let hosts = bases.filter_map(|(_, base_url)| host_of(base_url)).collect();
        Upstreams { starts, hosts }
    }

    /// Whether it is the host of a provider.
    pub(crate) fn is_host(&self, host: &str) -> bool {
        self.hosts.contains(host)
    }

    /// Counts calls by provider and the base URL that was in force.
    pub(crate) fn count(&self, calls: &Calls, counts: &mut UpstreamCounts) {
        let mut found: BTreeMap<(&str, Option<&str>), u64> = BTreeMap::new();
        for call in calls.iter() {
            let provider = calls.provider(call);
            let at = self.starts.partition_point(|(index, _)| *index < call.request().index);
            let named = self.starts[..at].last().and_then(|(_, providers)| {
                providers.iter().find(|(name, _)| name == provider).map(|(_, base_url)| base_url.as_str())
            });
            *found.entry((provider, named)).or_default() += 1;
        }
        for ((provider, base_url), calls) in found {
            *counts.0.entry((provider.to_owned(), base_url.map(str::to_owned))).or_default() += calls;
        }
    }
}

/// Calls by provider and base URL.
#[derive(Debug, Default)]
pub(crate) struct UpstreamCounts(BTreeMap<(String, Option<String>), u64>);

impl UpstreamCounts {
    /// As the report shows them.
    pub(crate) fn finish(self) -> Vec<Upstream> {
        self.0.into_iter().map(|((provider, base_url), calls)| Upstream { provider, base_url, calls }).collect()
    }
}

/// The host of a base URL, without user, port and path.
fn host_of(base_url: &str) -> Option<&str> {
    let (_, rest) = base_url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let end = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |end| end + 1)
    } else {
        host.find(':').unwrap_or(host.len())
    };
    Some(&host[..end])
}

//! What the configuration and a lease allow, and the addresses of a name.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use amc_workspace::config::{EgressConfig, split_host_port};

use super::is_public;
use super::target::Target;

/// The allow-list of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    allow: Vec<String>,
    internal: Vec<String>,
}

impl Rules {
    /// Takes the configuration; without one nothing is allowed.
    pub(crate) fn new(config: Option<&EgressConfig>) -> Self {
        config.map_or_else(Rules::default, |config| Rules {
            allow: config.allow.clone(),
            internal: config.internal.clone(),
        })
    }

    /// Whether a target is allowed, by the configuration or by a lease.
    pub(crate) fn allows(&self, target: &Target, of_lease: &[String]) -> bool {
        self.allow.iter().chain(of_lease).any(|entry| covers(entry, target))
    }

    /// Whether a host may have addresses of private networks.
    pub(crate) fn is_internal(&self, host: &str) -> bool {
        self.internal.iter().any(|internal| internal == host)
    }

    /// Whether every address of a target may be dialled. One that may not spoils the others: who
    /// answers so wants to be dialled there.
    pub(crate) fn may_dial(&self, target: &Target, addresses: &[SocketAddr]) -> bool {
        self.is_internal(&target.host) || addresses.iter().all(|address| is_public(address.ip()))
    }
}

fn covers(entry: &str, target: &Target) -> bool {
    let Some((host, port)) = split_host_port(entry) else { return false };
    let is_host = match host.strip_prefix("*.") {
        // Below the domain, by whole labels; never an address.
        Some(domain) => {
            let below = target.host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
            target.address.is_none() && below.is_some_and(|rest| !rest.is_empty())
        }
        None => host == target.host,
    };
    is_host && port == target.port
}

type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// How names get their addresses.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String) -> Lookup + Send + Sync>);

impl Resolver {
    /// Asks `lookup`.
    pub fn new<F>(lookup: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<IpAddr>>> + Send + 'static,
    {
        Resolver(Arc::new(move |host| Box::pin(lookup(host))))
    }

    /// The addresses of a target: of a name by one lookup.
    pub(crate) async fn addresses(&self, target: &Target) -> io::Result<Vec<SocketAddr>> {
        let addresses = match target.address {
            Some(address) => vec![address],
            None => (self.0)(target.host.clone()).await?,
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, target.port)).collect())
    }
}

impl Default for Resolver {
    /// The system's.
    fn default() -> Self {
        Resolver::new(|host| async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_cover_hosts_by_whole_labels_and_ports() {
        let rules = Rules { allow: vec!["api.example:443".into(), "*.pypi.org:443".into()], internal: Vec::new() };
        let allows = |text: &str| rules.allows(&Target::parse(text, None).expect("a target"), &[]);
        for allowed in ["api.example:443", "API.example:443", "files.pypi.org:443", "a.b.pypi.org:443"] {
            assert!(allows(allowed), "{allowed}");
        }
        for denied in
            ["api.example:80", "x.api.example:443", "pypi.org:443", "evilpypi.org:443", "api.example.evil:443"]
        {
            assert!(!allows(denied), "{denied}");
        }
        let target = Target::parse("other.example:22", None).expect("a target");
        assert!(rules.allows(&target, &["other.example:22".into()]), "a lease adds to the list");
    }
}

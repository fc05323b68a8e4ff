//! What every call of a running gateway shares, and the count of what is not finished yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use amc_workspace::GatewayConfig;
use amc_workspace::config::ReceiptMode;
use amc_workspace::protocol::gateway::Welcome;
use http::HeaderValue;
use tokio::runtime::Handle;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::error::GatewayError;
use crate::monitor::Monitor;
use crate::redact::Redactor;
use crate::routes::Routes;
use crate::upstream::Upstream;

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) routes: Routes,
    pub(crate) monitor: Monitor,
    pub(crate) upstream: Upstream,
    pub(crate) redactor: Redactor,
    pub(crate) receipts: ReceiptMode,
    pub(crate) first_byte: Duration,
    pub(crate) idle: Duration,
    pub(crate) config_version: u64,
    pub(crate) monitor_key: Option<HeaderValue>,
    /// Evidence is finished on this runtime, also by what is dropped elsewhere.
    pub(crate) runtime: Handle,
    pub(crate) unfinished: Unfinished,
    provider_keys: HashMap<String, Zeroizing<String>>,
}

impl Gateway {
    /// Puts a gateway together from its configuration and the monitor's welcome.
    pub(crate) fn new(monitor: Monitor, config: &GatewayConfig, welcome: Welcome) -> Result<Self, GatewayError> {
        let timeouts = config.timeouts;
        let secrets = welcome.secrets.iter().map(|(_, secret)| secret.clone());
        Ok(Gateway {
            routes: Routes::new(&config.providers)?,
            monitor,
            upstream: Upstream::new(Duration::from_millis(timeouts.connect_ms))?,
            redactor: Redactor::new(welcome.commitment_key, secrets),
            receipts: config.receipts,
            first_byte: Duration::from_millis(timeouts.first_byte_ms),
            idle: Duration::from_millis(timeouts.idle_ms),
            config_version: welcome.config_version,
            monitor_key: HeaderValue::from_str(&welcome.monitor_key).ok(),
            runtime: Handle::current(),
            unfinished: Unfinished::default(),
            provider_keys: welcome.secrets.into_iter().map(|(name, key)| (name, Zeroizing::new(key))).collect(),
        })
    }

    /// The key of a provider, where one is set.
    pub(crate) fn provider_key(&self, provider: &str) -> Option<&str> {
        self.provider_keys.get(provider).map(|key| key.as_str())
    }

    /// Whether an answer's head waits for the request's event.
    pub(crate) fn is_durable(&self) -> bool {
        self.receipts == ReceiptMode::Durable
    }
}

/// Counts calls whose evidence is not complete.
#[derive(Debug, Clone)]
pub(crate) struct Unfinished(Arc<watch::Sender<usize>>);

/// One of the counted; it is finished when dropped.
#[derive(Debug)]
pub(crate) struct Pending(Unfinished);

impl Default for Unfinished {
    fn default() -> Self {
        Unfinished(Arc::new(watch::Sender::new(0)))
    }
}

impl Unfinished {
    /// Counts one more.
    pub(crate) fn add(&self) -> Pending {
        self.0.send_modify(|count| *count += 1);
        Pending(self.clone())
    }

    /// Returns when there is none.
    pub(crate) async fn none(&self) {
        // The sender is held here, so the channel cannot close.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

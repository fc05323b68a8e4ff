//! What every call of a running gateway shares, and the count of what is not finished yet.
//!
//! What the configuration says is in [`Settings`], which a reload replaces as a whole; a call keeps
//! the settings that it began with.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use amc_workspace::GatewayConfig;
use amc_workspace::config::ReceiptMode;
use amc_workspace::protocol::gateway::Welcome;
use http::HeaderValue;
use tokio::runtime::Handle;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::egress::Rules;
use crate::error::GatewayError;
use crate::limits::LeaseCounters;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::otlp::{Collector, Spans};
use crate::redact::Redactor;
use crate::routes::Routes;
use crate::tap::Room;
use crate::upstream::Upstream;

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) monitor: Monitor,
    pub(crate) counters: LeaseCounters,
    pub(crate) room: Room,
    pub(crate) metrics: Metrics,
    pub(crate) spans: Spans,
    pub(crate) monitor_key: Option<HeaderValue>,
    /// Evidence is finished on this runtime, also by what is dropped elsewhere.
    pub(crate) runtime: Handle,
    pub(crate) unfinished: Unfinished,
    /// Turns true when what has no end of its own is to end.
    pub(crate) cutting: watch::Sender<bool>,
    settings: RwLock<Arc<Settings>>,
}

/// What the configuration says, ready for use.
pub(crate) struct Settings {
    pub(crate) routes: Routes,
    pub(crate) upstream: Upstream,
    pub(crate) redactor: Redactor,
    pub(crate) receipts: ReceiptMode,
    pub(crate) first_byte: Duration,
    pub(crate) idle: Duration,
    pub(crate) connect: Duration,
    pub(crate) retries: u32,
    pub(crate) config_version: u64,
    pub(crate) egress: Rules,
    pub(crate) collector: Option<Collector>,
    provider_keys: HashMap<String, Zeroizing<String>>,
}

impl Gateway {
    /// Puts a gateway together from its configuration and the monitor's welcome.
    pub(crate) fn new(monitor: Monitor, config: &GatewayConfig, welcome: Welcome) -> Result<Self, GatewayError> {
        let monitor_key = HeaderValue::from_str(&welcome.monitor_key).ok();
        let settings = Settings::new(config, welcome)?;
        Ok(Gateway {
            monitor,
            counters: LeaseCounters::default(),
            room: Room::default(),
            metrics: Metrics::default(),
            spans: Spans::default(),
            monitor_key,
            runtime: Handle::current(),
            unfinished: Unfinished::default(),
            cutting: watch::Sender::new(false),
            settings: RwLock::new(Arc::new(settings)),
        })
    }

    /// The settings in force now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in force; calls under way keep theirs.
    pub(crate) fn replace_settings(&self, settings: Settings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// Returns when what has no end of its own is to end.
    pub(crate) async fn cut(&self) {
        // The sender is held here, so the channel cannot close.
        let _ = self.cutting.subscribe().wait_for(|cutting| *cutting).await;
    }
}

impl Settings {
    /// Makes a configuration ready for use.
    pub(crate) fn new(config: &GatewayConfig, welcome: Welcome) -> Result<Self, GatewayError> {
        let timeouts = config.timeouts;
        let secrets = welcome.secrets.iter().map(|(_, secret)| secret.clone());
        let connect = Duration::from_millis(timeouts.connect_ms);
        let patterns = config.compiled_patterns()?;
        Ok(Settings {
            routes: Routes::new(&config.providers)?,
            upstream: Upstream::new(connect)?,
            redactor: Redactor::new(welcome.commitment_key, secrets, &config.secret_prefixes, patterns),
            receipts: config.receipts,
            first_byte: Duration::from_millis(timeouts.first_byte_ms),
            idle: Duration::from_millis(timeouts.idle_ms),
            connect,
            retries: config.retries,
            config_version: welcome.config_version,
            egress: Rules::new(config.egress.as_ref()),
            collector: config.otlp.as_ref().map(Collector::new).transpose()?,
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

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        *self.0.borrow()
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

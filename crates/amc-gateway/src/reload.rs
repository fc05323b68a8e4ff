//! Reading the configuration again while calls pass: the monitor judges the file, the gateway takes
//! it or leaves the old one in force, and the log says which.

use std::sync::Arc;

use amc_core::kinds::{ConfigState, GatewayReloaded};
use amc_workspace::GatewayConfig;
use amc_workspace::protocol::gateway::Welcome;
use serde_json::json;

use crate::log;
use crate::state::{Gateway, Settings};

/// Reads the configuration again; `started` is the one that the listeners were bound by.
pub(crate) async fn reload(gateway: Arc<Gateway>, started: GatewayConfig) {
    let welcome = match gateway.monitor.welcome().await {
        Ok(welcome) => welcome,
        Err(error) => return log::warn("not_reloaded", &json!({"why": error.to_string()})),
    };
    let (config_version, config_state) = (welcome.config_version, welcome.config_state);
    let taken = take(&gateway, &started, welcome);
    let applied = taken.is_ok();
    let note = taken.unwrap_or_else(|why| why);
    let fields = json!({"applied": applied, "config_version": config_version, "note": note});
    if applied {
        log::info("reloaded", &fields)
    } else {
        log::warn("not_reloaded", &fields)
    }
    let reloaded = GatewayReloaded { config_version, config_state, applied, note };
    if let Err(error) = gateway.monitor.reloaded(reloaded).await {
        log::warn("evidence_not_recorded", &json!({"event": "gateway_reloaded", "why": error.to_string()}));
    }
}

/// Puts a configuration in force; what it says that needs a new start. Else why it is not.
fn take(gateway: &Gateway, started: &GatewayConfig, welcome: Welcome) -> Result<String, String> {
    if welcome.config_state == ConfigState::Invalid {
        return Err(
            "the signature beside gateway.yaml does not hold; sign it with `amc config sign gateway.yaml`".into()
        );
    }
    let config = GatewayConfig::parse(welcome.config.as_bytes()).map_err(|error| error.to_string())?;
    let settings = Settings::new(&config, welcome).map_err(|error| error.to_string())?;
    gateway.replace_settings(settings);
    let proxy = |config: &GatewayConfig| config.egress.as_ref().map(|egress| egress.listen);
    let moved = [
        ("listen", config.listen != started.listen),
        ("metrics", config.metrics != started.metrics),
        ("egress.listen", proxy(&config) != proxy(started)),
    ];
    let moved: Vec<&str> = moved.into_iter().filter(|(_, moved)| *moved).map(|(key, _)| key).collect();
    if moved.is_empty() { Ok(String::new()) } else { Ok(format!("{} counts from the next start on", moved.join(", "))) }
}

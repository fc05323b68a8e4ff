//! Signing configuration files and writing `gateway.yaml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use amc_bundle::gate::GatePolicy;
use amc_core::kinds::Dialect;
use amc_core::limits;
use amc_workspace::config::{AmcConfig, GatewayConfig, Provider};
use amc_workspace::home::{self, Home};
use amc_workspace::{AgentConfig, Answer, Failure, Opening, agent_of_path, providers};
use serde_json::json;

use crate::unlock::{Unlocked, unlock};

pub(crate) fn sign(opening: &Opening, path: &str) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let path = relative(&home, path)?;
    let bytes = home::read_bounded(&home.file(&path), limits::CONFIG_BYTES_MAX).map_err(Failure::wrong)?;
    check(&path, &bytes)?;
    let unlocked = unlock(opening)?;
    let version = unlocked.sign_config(&path, agent_of_path(&path).as_ref(), &bytes)?;
    close(unlocked)?;
    let data = json!({ "path": path, "version": version, "sha256": amc_crypto::sha256(&bytes) });
    Ok(Answer::new(&data, format!("Signed {path} as version {version}\n")))
}

pub(crate) fn gateway_init(
    opening: &Opening,
    listen: Option<SocketAddr>,
    proxy_listen: Option<SocketAddr>,
    providers: &[String],
    allow: &[String],
) -> Result<Answer, Failure> {
    let home = opening.home()?;
    let path = home.file("gateway.yaml");
    let mut config = if path.exists() {
        let bytes = home::read_bounded(&path, limits::CONFIG_BYTES_MAX).map_err(Failure::wrong)?;
        GatewayConfig::parse(&bytes).map_err(Failure::wrong)?
    } else {
        GatewayConfig::initial()
    };
    config.listen = listen.unwrap_or(config.listen);
    for provider in providers {
        add(&mut config.providers, provider)?;
    }
    if proxy_listen.is_some() || !allow.is_empty() {
        config.allow_egress(proxy_listen, allow);
    }
    let text = config.render();
    GatewayConfig::parse(text.as_bytes()).map_err(Failure::wrong)?;
    let unlocked = unlock(opening)?;
    home::write_atomic(&path, text.as_bytes()).map_err(Failure::unable)?;
    let version = unlocked.sign_config("gateway.yaml", None, text.as_bytes())?;
    close(unlocked)?;
    let names: Vec<&String> = config.providers.keys().collect();
    let data = json!({ "path": "gateway.yaml", "version": version, "listen": config.listen, "providers": names });
    Ok(Answer::new(&data, format!("Wrote and signed gateway.yaml as version {version}\n")))
}

/// `NAME=BASE_URL`, or `NAME` of a provider whose address is known. One that the file has keeps its
/// dialect; a new one has what is known of its name, else OpenAI's unless its name says Anthropic.
fn add(file: &mut BTreeMap<String, Provider>, text: &str) -> Result<(), Failure> {
    let (name, base_url) = text.split_once('=').unwrap_or((text, ""));
    let guessed = if name.contains("anthropic") { Dialect::Anthropic } else { Dialect::Openai };
    let fresh = || Provider { dialect: guessed, base_url: String::new(), key_header: None };
    let mut provider = file.get(name).cloned().or_else(|| providers::known(name)).unwrap_or_else(fresh);
    if !base_url.is_empty() {
        provider.base_url = base_url.trim_end_matches('/').to_owned();
    }
    if provider.base_url.is_empty() {
        let known: Vec<&str> = providers::names().collect();
        let known = known.join(", ");
        return Err(Failure::wrong(format!("--provider {name}=BASE_URL: only these have a known address: {known}")));
    }
    file.insert(name.to_owned(), provider);
    Ok(())
}

/// Closes the log, and has the monitor cosign it where that is possible now.
pub(crate) fn close(unlocked: Unlocked) -> Result<(), Failure> {
    let Unlocked { writer, home, passphrase, .. } = unlocked;
    writer.close().map_err(Failure::unable)?;
    // Cosigned later when the monitor cannot be had now; a run and an export ask for it again.
    let _ = crate::monitor::cosign(&home, &passphrase);
    Ok(())
}

/// The path within the home, as signatures name it.
fn relative(home: &Home, path: &str) -> Result<String, Failure> {
    let outside = || Failure::wrong(format!("{path} is not a file of this workspace"));
    let inside = home.file(path);
    let whole = inside.canonicalize().or_else(|_| std::path::Path::new(path).canonicalize()).map_err(|_| outside())?;
    let rest = whole.strip_prefix(home.root()).map_err(|_| outside())?;
    let rest = rest.to_str().ok_or_else(outside)?;
    if rest.starts_with("logs/") || rest.starts_with("run/") || rest.ends_with(".sig") {
        Err(outside())
    } else {
        Ok(rest.to_owned())
    }
}

/// Nobody signs a file that no process could load.
fn check(path: &str, bytes: &[u8]) -> Result<(), Failure> {
    match path {
        "amc.yaml" => AmcConfig::parse(bytes).map(drop).map_err(Failure::wrong),
        "gateway.yaml" => GatewayConfig::parse(bytes).map(drop).map_err(Failure::wrong),
        "bank.toml" => amc_scoring::Bank::parse(bytes).map(drop).map_err(Failure::wrong),
        agent if agent.ends_with("/agent.config.yaml") => {
            let id = agent_of_path(agent).ok_or_else(|| Failure::wrong(format!("{agent} is of no agent")))?;
            AgentConfig::parse(&id, bytes).map(drop).map_err(Failure::wrong)
        }
        policy if policy.ends_with("gatePolicy.json") => GatePolicy::parse(bytes).map(drop).map_err(Failure::wrong),
        _ => Ok(()),
    }
}

//! Signing configuration files and writing `gateway.yaml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use amc_bundle::gate::GatePolicy;
use amc_core::kinds::Dialect;
use amc_core::limits;
use amc_workspace::config::{AmcConfig, GatewayConfig, Provider};
use amc_workspace::home::{self, Home};
use amc_workspace::{AgentConfig, Answer, Failure, Opening, agent_of_path};
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
    providers: &[String],
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
        let (name, base_url) =
            provider.split_once('=').ok_or_else(|| Failure::wrong(format!("{provider:?} is not NAME=BASE_URL")))?;
        add(&mut config.providers, name, base_url);
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

/// A known provider keeps its dialect; a new one has OpenAI's unless its name says Anthropic.
fn add(providers: &mut BTreeMap<String, Provider>, name: &str, base_url: &str) {
    let guessed = if name.contains("anthropic") { Dialect::Anthropic } else { Dialect::Openai };
    let known = providers.get(name);
    let (dialect, key_header) = known.map_or((guessed, None), |known| (known.dialect, known.key_header));
    let base_url = base_url.trim_end_matches('/').to_owned();
    providers.insert(name.to_owned(), Provider { dialect, base_url, key_header });
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

//! The configuration files, as `docs/formats/config.md` describes them. Unknown keys are errors.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use amc_core::WorkspaceName;
use amc_core::kinds::Dialect;
use serde::Deserialize;

/// `amc.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmcConfig {
    /// The workspace's name.
    pub name: WorkspaceName,
    /// What the operator claims about the trust boundary.
    pub security: Security,
}

/// The `security` part of `amc.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Security {
    /// `isolated` proves nothing by itself; `shared` makes every run INVALID by declaration.
    pub trust_boundary_mode: TrustBoundaryMode,
}

/// What the operator says about agent and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustBoundaryMode {
    /// The agent may share a user with the trusted processes.
    Shared,
    /// The agent cannot reach keys, logs or trusted processes.
    Isolated,
}

/// `gateway.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GatewayConfig {
    /// Where agents reach the gateway.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Providers by name: the first path segment of a route.
    pub providers: BTreeMap<String, Provider>,
    /// When an answer's head may leave.
    #[serde(default)]
    pub receipts: ReceiptMode,
    /// Bounds on waiting; there is none on the whole of a call.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provider {
    /// The shape of its API.
    pub dialect: Dialect,
    /// `http://` or `https://`, host, optional port and path.
    pub base_url: String,
}

/// When an answer's head may leave the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptMode {
    /// When the request's event is durable; for bounded answers the response's too.
    #[default]
    Durable,
    /// When the monitor has accepted the evidence.
    Eager,
}

/// Bounds on waiting, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Timeouts {
    /// For the connection to a provider.
    pub connect_ms: u64,
    /// From the end of a request to the answer's head.
    pub first_byte_ms: u64,
    /// Between two pieces of an answer.
    pub idle_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect_ms: 10_000, first_byte_ms: 600_000, idle_ms: 300_000 }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 3210))
}

/// A configuration file that does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not YAML, a missing or unknown key, or a value of another type; with line and column.
    #[error("{path}: {message}")]
    Yaml {
        /// The file.
        path: &'static str,
        /// Line, column and what is wrong there.
        message: String,
    },
    /// A value that parses and cannot be meant.
    #[error("{path}: {key}: {message}")]
    Value {
        /// The file.
        path: &'static str,
        /// The key.
        key: String,
        /// What is wrong with its value.
        message: String,
    },
}

fn parse<T: serde::de::DeserializeOwned>(path: &'static str, bytes: &[u8]) -> Result<T, ConfigError> {
    let fail = |message: String| ConfigError::Yaml { path, message };
    let text = std::str::from_utf8(bytes).map_err(|_| fail("the file is not UTF-8".into()))?;
    serde_saphyr::from_str(text).map_err(|error| fail(error.to_string()))
}

impl AmcConfig {
    /// Parses `amc.yaml`.
    ///
    /// # Errors
    /// [`ConfigError`] with the place.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        parse("amc.yaml", bytes)
    }

    /// The text of a new workspace's `amc.yaml`.
    pub fn initial(name: &WorkspaceName, mode: TrustBoundaryMode) -> String {
        let mode = match mode {
            TrustBoundaryMode::Shared => "shared",
            TrustBoundaryMode::Isolated => "isolated",
        };
        format!(
            "# Signed by the auditor. After a change: amc config sign amc.yaml\n\
             name: {name}\n\
             security:\n  \
               # A claim of yours. It proves nothing: what an agent can reach is tried.\n  \
               trustBoundaryMode: {mode}\n"
        )
    }
}

impl GatewayConfig {
    /// Parses `gateway.yaml` and checks what its types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] with the place.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let config: GatewayConfig = parse("gateway.yaml", bytes)?;
        let refuse = |key: String, message: &str| {
            Err(ConfigError::Value { path: "gateway.yaml", key, message: message.to_owned() })
        };
        for (name, provider) in &config.providers {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || name.len() > 64 || name == "amc" || !name.bytes().all(plain) {
                return refuse(format!("providers.{name}"), "a name is 1 to 64 of a-z, 0-9 and -, and not amc");
            }
            if let Err(message) = check_base_url(&provider.base_url) {
                return refuse(format!("providers.{name}.baseUrl"), message);
            }
        }
        Ok(config)
    }

    /// The configuration as the text of `gateway.yaml`; what has its default is left out.
    pub fn render(&self) -> String {
        let mut text = format!(
            "# Signed by the auditor. After a change: amc config sign gateway.yaml\nlisten: {}\nproviders:\n",
            scalar(&self.listen.to_string())
        );
        for (name, Provider { dialect, base_url }) in &self.providers {
            let dialect = match dialect {
                Dialect::Openai => "openai",
                Dialect::Anthropic => "anthropic",
            };
            let (name, base_url) = (scalar(name), scalar(base_url));
            text += &format!("  {name}:\n    dialect: {dialect}\n    baseUrl: {base_url}\n");
        }
        if self.receipts == ReceiptMode::Eager {
            text += "receipts: eager\n";
        }
        if self.timeouts != Timeouts::default() {
            let Timeouts { connect_ms, first_byte_ms, idle_ms } = self.timeouts;
            text +=
                &format!("timeouts:\n  connectMs: {connect_ms}\n  firstByteMs: {first_byte_ms}\n  idleMs: {idle_ms}\n");
        }
        text
    }

    /// The configuration of a new workspace.
    pub fn initial() -> Self {
        let provider = |dialect, base_url: &str| Provider { dialect, base_url: base_url.to_owned() };
        let providers = BTreeMap::from([
            ("openai".to_owned(), provider(Dialect::Openai, "https://api.openai.com/v1")),
            ("anthropic".to_owned(), provider(Dialect::Anthropic, "https://api.anthropic.com")),
        ]);
        let (receipts, timeouts) = (ReceiptMode::default(), Timeouts::default());
        GatewayConfig { listen: default_listen(), providers, receipts, timeouts }
    }

    /// Whether agents on other machines could reach this listener.
    pub fn is_public(&self) -> bool {
        match self.listen.ip() {
            IpAddr::V4(ip) => !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.is_loopback(),
        }
    }
}

/// A text as YAML reads it back: plain where that means the same, else in quotes (`[::1]:0` would be a list).
fn scalar(text: &str) -> String {
    let plain = serde_saphyr::from_str::<String>(text).is_ok_and(|read| read == text);
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn check_base_url(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or("a base URL starts with http:// or https://")?;
    let host = rest.split('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_graphic() && !"\"'#?\\".contains(c);
    if host.is_empty() || host.contains('@') {
        return Err("a base URL names a host and no user");
    }
    if url.chars().all(plain) { Ok(()) } else { Err("a base URL has no spaces, quotes, query or fragment") }
}

//! The configuration files, as `docs/formats/config.md` describes them. Unknown keys are errors.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use amc_core::WorkspaceName;
use amc_core::kinds::Dialect;
use regex::bytes::{Regex, RegexBuilder};
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
    /// How often a call may be tried again that brought no answer, or 429, 500, 502, 503, 504 or 529.
    #[serde(default)]
    pub retries: u32,
    /// Where Prometheus may ask for figures, a loopback address; `null` for nowhere.
    #[serde(default = "default_metrics")]
    pub metrics: Option<SocketAddr>,
    /// Beginnings of keys of one's own, which are kept out of what is stored.
    #[serde(default)]
    pub secret_prefixes: Vec<String>,
    /// Regular expressions of what else is kept out of what is stored, in the syntax of the crate `regex`, over bytes.
    #[serde(default)]
    pub secret_patterns: Vec<String>,
    /// The egress proxy; there is none without this.
    #[serde(default)]
    pub egress: Option<EgressConfig>,
    /// Where spans of model calls go; nowhere without this.
    #[serde(default)]
    pub otlp: Option<OtlpConfig>,
}

/// A collector of OpenTelemetry, spoken to by OTLP/HTTP with JSON.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OtlpConfig {
    /// `http://` or `https://`; spans go to `/v1/traces` below it.
    pub endpoint: String,
    /// Headers that go along. This file is no place for a secret.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// The egress proxy: what is not allowed is denied.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EgressConfig {
    /// Where agents reach it.
    #[serde(default = "default_egress_listen")]
    pub listen: SocketAddr,
    /// `host:port`, or `*.domain:port` for every name below a domain.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Hosts of the allow-list that may have addresses of private networks.
    #[serde(default)]
    pub internal: Vec<String>,
}

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provider {
    /// The shape of its API.
    pub dialect: Dialect,
    /// `http://` or `https://`, host, optional port and path.
    pub base_url: String,
    /// Which header carries its key, where that is not the dialect's own.
    #[serde(default)]
    pub key_header: Option<KeyHeader>,
}

/// A header that carries a provider's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`.
    Authorization,
    /// `x-api-key: KEY`.
    XApiKey,
    /// `api-key: KEY`.
    ApiKey,
    /// `x-goog-api-key: KEY`.
    XGoogApiKey,
}

impl KeyHeader {
    /// The header's name.
    pub const fn name(self) -> &'static str {
        match self {
            KeyHeader::Authorization => "authorization",
            KeyHeader::XApiKey => "x-api-key",
            KeyHeader::ApiKey => "api-key",
            KeyHeader::XGoogApiKey => "x-goog-api-key",
        }
    }
}

impl Provider {
    /// The header that carries this provider's key.
    pub fn key_header(&self) -> KeyHeader {
        self.key_header.unwrap_or(match self.dialect {
            Dialect::Openai => KeyHeader::Authorization,
            Dialect::Anthropic => KeyHeader::XApiKey,
            Dialect::Gemini => KeyHeader::XGoogApiKey,
        })
    }
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

fn default_egress_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 3211))
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants a function that gives the field's own type")]
fn default_metrics() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 3213)))
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

pub(crate) fn parse<T: serde::de::DeserializeOwned>(path: &'static str, bytes: &[u8]) -> Result<T, ConfigError> {
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
        let config: GatewayConfig = parse(GATEWAY_YAML, bytes)?;
        let refuse = |key: String, message: &str| {
            Err(ConfigError::Value { path: GATEWAY_YAML, key, message: message.to_owned() })
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
        if config.retries > RETRIES_MAX {
            return refuse("retries".to_owned(), "at most 5");
        }
        if config.metrics.is_some_and(|address| !address.ip().is_loopback()) {
            return refuse("metrics".to_owned(), "figures are for this machine: a loopback address, or null");
        }
        let too_short = |prefix: &String| prefix.len() < 3 || !prefix.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(prefix) = config.secret_prefixes.iter().find(|prefix| too_short(prefix)) {
            return refuse(format!("secretPrefixes: {prefix:?}"), "a prefix has at least 3 characters, and no spaces");
        }
        config.compiled_patterns()?;
        if let Some(OtlpConfig { endpoint, headers }) = &config.otlp {
            if let Err(message) = check_base_url(endpoint) {
                return refuse("otlp.endpoint".to_owned(), message);
            }
            if let Some((name, _)) = headers.iter().find(|(name, value)| !is_plain_header(name, value)) {
                return refuse(format!("otlp.headers.{name}"), NOT_PLAIN_HEADER);
            }
        }
        if let Some(egress) = &config.egress {
            if let Some(entry) = egress.allow.iter().find(|entry| split_host_port(entry).is_none()) {
                return refuse(format!("egress.allow: {entry:?}"), NOT_HOST_PORT);
            }
            let allowed = |host: &String| {
                egress.allow.iter().any(|entry| split_host_port(entry).is_some_and(|(allowed, _)| allowed == host))
            };
            if let Some(host) = egress.internal.iter().find(|host| !allowed(host)) {
                return refuse(format!("egress.internal: {host:?}"), "it names no host of egress.allow");
            }
        }
        Ok(config)
    }

    /// What `secretPatterns` says, ready for use.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for what is no regular expression, needs too much memory, or matches nothing at all.
    pub fn compiled_patterns(&self) -> Result<Vec<Regex>, ConfigError> {
        let compile = |pattern: &String| {
            let key = || format!("secretPatterns: {pattern:?}");
            let refuse = |message| ConfigError::Value { path: GATEWAY_YAML, key: key(), message };
            let built = RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_BYTES_MAX).build();
            let built = built.map_err(|error| refuse(error.to_string()))?;
            match built.is_match(b"") {
                true => Err(refuse("it matches where nothing stands".to_owned())),
                false => Ok(built),
            }
        };
        if self.secret_patterns.len() > PATTERNS_MAX {
            let message = format!("at most {PATTERNS_MAX} patterns");
            return Err(ConfigError::Value { path: GATEWAY_YAML, key: "secretPatterns".to_owned(), message });
        }
        self.secret_patterns.iter().map(compile).collect()
    }

    /// The configuration as the text of `gateway.yaml`; what has its default is left out.
    pub fn render(&self) -> String {
        let mut text = format!(
            "# Signed by the auditor. After a change: amc config sign gateway.yaml\nlisten: {}\nproviders:{}\n",
            scalar(&self.listen.to_string()),
            if self.providers.is_empty() { " {}" } else { "" }
        );
        for (name, Provider { dialect, base_url, key_header }) in &self.providers {
            let dialect = match dialect {
                Dialect::Openai => "openai",
                Dialect::Anthropic => "anthropic",
                Dialect::Gemini => "gemini",
            };
            let (name, base_url) = (scalar(name), scalar(base_url));
            text += &format!("  {name}:\n    dialect: {dialect}\n    baseUrl: {base_url}\n");
            if let Some(header) = key_header {
                text += &format!("    keyHeader: {}\n", header.name());
            }
        }
        if self.receipts == ReceiptMode::Eager {
            text += "receipts: eager\n";
        }
        if self.timeouts != Timeouts::default() {
            let Timeouts { connect_ms, first_byte_ms, idle_ms } = self.timeouts;
            text +=
                &format!("timeouts:\n  connectMs: {connect_ms}\n  firstByteMs: {first_byte_ms}\n  idleMs: {idle_ms}\n");
        }
        if self.retries > 0 {
            text += &format!("retries: {}\n", self.retries);
        }
        if self.metrics != default_metrics() {
            let metrics = self.metrics.map_or("null".to_owned(), |address| scalar(&address.to_string()));
            text += &format!("metrics: {metrics}\n");
        }
        text += &list("secretPrefixes", "", &self.secret_prefixes);
        text += &list("secretPatterns", "", &self.secret_patterns);
        if let Some(EgressConfig { listen, allow, internal }) = &self.egress {
            text += &format!("egress:\n  listen: {}\n", scalar(&listen.to_string()));
            text += &list("allow", "  ", allow);
            text += &list("internal", "  ", internal);
        }
        if let Some(OtlpConfig { endpoint, headers }) = &self.otlp {
            text += &format!("otlp:\n  endpoint: {}\n", scalar(endpoint));
            let header = |(name, value): (&String, &String)| format!("    {}: {}\n", scalar(name), scalar(value));
            let headers: String = headers.iter().map(header).collect();
            if !headers.is_empty() {
                text += &format!("  headers:\n{headers}");
            }
        }
        text
    }

    /// The configuration of a new workspace.
    pub fn initial() -> Self {
        let known = ["openai", "anthropic"].into_iter();
        let providers = known.filter_map(|name| Some((name.to_owned(), crate::providers::known(name)?))).collect();
        GatewayConfig {
            listen: default_listen(),
            providers,
            receipts: ReceiptMode::default(),
            timeouts: Timeouts::default(),
            retries: 0,
            metrics: default_metrics(),
            secret_prefixes: Vec::new(),
            secret_patterns: Vec::new(),
            egress: None,
            otlp: None,
        }
    }

    /// Allows egress to these `host:port`, with a proxy at `listen` where one is named.
    pub fn allow_egress(&mut self, listen: Option<SocketAddr>, allow: &[String]) {
        let fresh = || EgressConfig { listen: default_egress_listen(), allow: Vec::new(), internal: Vec::new() };
        let egress = self.egress.get_or_insert_with(fresh);
        egress.listen = listen.unwrap_or(egress.listen);
        egress.allow.extend(allow.iter().cloned());
        egress.allow.sort();
        egress.allow.dedup();
    }

    /// Whether agents on other machines could reach this listener.
    pub fn is_public(&self) -> bool {
        match self.listen.ip() {
            IpAddr::V4(ip) => !ip.is_loopback(),
            IpAddr::V6(ip) => !ip.is_loopback(),
        }
    }
}

/// Host and port of an entry of an allow-list: a name in lowercase, `*.` and a name, or an address
/// (of IPv6 in brackets).
pub fn split_host_port(entry: &str) -> Option<(&str, u16)> {
    let (host, port) = entry.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_v6 = bare.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    let is_v4 = host.parse::<std::net::Ipv4Addr>().is_ok();
    let name = host.strip_prefix("*.").unwrap_or(host);
    (is_v4 || is_v6 || is_host_name(name)).then_some((host, port))
}

/// Whether a text is a host's name in its one spelling: labels of lowercase letters, digits, hyphens
/// and underscores, no dot at the end, and nothing that a resolver could take for an address (a last
/// label of digits, or of hexadecimal ones).
pub fn is_host_name(text: &str) -> bool {
    let plain = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    text.len() <= 253 && !numeric && text.split('.').all(plain)
}

/// A list as YAML; nothing where it is empty.
fn list(key: &str, indent: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: Vec<String> = items.iter().map(|item| format!("{indent}  - {}\n", scalar(item))).collect();
    format!("{indent}{key}:\n{}", items.concat())
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

/// Whether a header can be sent and does not say that it carries a secret.
fn is_plain_header(name: &str, value: &str) -> bool {
    let named =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let secret = ["auth", "key", "token", "secret", "cookie", "password"].iter().any(|word| name.contains(word));
    let framing = ["host", "connection", "content-length", "content-type", "transfer-encoding"].contains(&name);
    named && !secret && !framing && value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

const NOT_PLAIN_HEADER: &str = "a header has a name in lowercase, plain text, and carries no key or token: this file is \
                                readable; let a collector on this machine add those";

/// More attempts would only hide an outage.
const RETRIES_MAX: u32 = 5;

/// As errors name it.
const GATEWAY_YAML: &str = "gateway.yaml";

/// Patterns of secrets; each is looked for in every stored body.
const PATTERNS_MAX: usize = 32;

/// What one may take compiled.
const PATTERN_BYTES_MAX: usize = 256 * 1024;

const NOT_HOST_PORT: &str = "an entry is host:port or *.domain:port, with the host in lowercase";

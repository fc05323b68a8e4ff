//! The environment that an agent gets: an allow-list of the operator's, and what AMC sets.
//!
//! Built from nothing, so a provider key or a passphrase in the operator's environment never
//! reaches the agent, whatever it is called.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;

use amc_core::kinds::{Dialect, EnvironmentBuilt};
use amc_workspace::providers;

/// Names that pass from the operator to the agent, beside `LC_*`: what programs need to find their
/// files, their language and their terminal.
const PASSED: &[&str] = &[
    "COLORTERM",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "NODE_EXTRA_CA_CERTS",
    "NODE_PATH",
    "NO_COLOR",
    "PATH",
    "PWD",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "REQUESTS_CA_BUNDLE",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
];

/// Where the agent's model calls go.
#[derive(Debug, Clone)]
pub struct Routes {
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// Configured providers: name and dialect.
    pub providers: Vec<(String, Dialect)>,
    /// Where the egress proxy listens, where there is one.
    pub proxy: Option<SocketAddr>,
}

/// An agent's environment, with the record of how it was made.
#[derive(Clone)]
pub struct Environment {
    /// The variables, all of them.
    pub variables: BTreeMap<OsString, OsString>,
    /// The record, names only.
    pub record: EnvironmentBuilt,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Environment {
    /// Puts a variable of AMC's in the place of the operator's.
    pub fn set(&mut self, name: &str, value: OsString) {
        self.record.passed.retain(|passed| passed != name);
        if let Err(place) = self.record.set.binary_search_by(|known| known.as_str().cmp(name)) {
            self.record.set.insert(place, name.to_owned());
        }
        self.variables.insert(name.into(), value);
    }
}

/// Builds the environment: `operator`'s variables that the allow-list or `pass` names, then the
/// routes with `lease` in the place of every provider's key.
pub fn build(
    operator: impl IntoIterator<Item = (OsString, OsString)>,
    pass: &[OsString],
    routes: &Routes,
    lease: &str,
) -> Environment {
    let mut variables = BTreeMap::new();
    let (mut withheld, mut secrets_withheld) = (0u32, false);
    for (name, value) in operator {
        if may_pass(&name, pass) {
            variables.insert(name, value);
        } else {
            withheld += 1;
            secrets_withheld |= looks_secret(&name);
        }
    }
    let text = |names: &mut dyn Iterator<Item = &OsString>| names.map(|n| n.to_string_lossy().into_owned()).collect();
    let ours = route_variables(routes, lease);
    let passed = text(&mut variables.keys().filter(|name| !ours.contains_key(*name)));
    let set = text(&mut ours.keys());
    variables.extend(ours);
    Environment { variables, record: EnvironmentBuilt { passed, set, withheld, secrets_withheld } }
}

fn may_pass(name: &OsStr, pass: &[OsString]) -> bool {
    let bytes = name.as_encoded_bytes();
    // AMC's own variables (the passphrase above all) pass on nobody's word.
    if bytes.starts_with(b"AMC_") {
        return false;
    }
    PASSED.iter().any(|known| *known == name) || bytes.starts_with(b"LC_") || pass.iter().any(|named| named == name)
}

fn looks_secret(name: &OsStr) -> bool {
    let upper = name.to_string_lossy().to_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSPHRASE", "CREDENTIAL"].iter().any(|word| upper.contains(word))
}

/// What each provider's clients read, and the proxy's variables where there is one.
fn route_variables(routes: &Routes, lease: &str) -> BTreeMap<OsString, OsString> {
    let origin = format!("http://{}", routes.listen);
    let providers = routes.providers.iter();
    let mut variables: Vec<_> =
        providers.flat_map(|(name, dialect)| providers::variables(name, *dialect, &origin, lease)).collect();
    if let Some(proxy) = routes.proxy {
        variables.extend(providers::proxy_variables(&proxy.to_string(), lease));
    }
    variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        Routes {
            listen: SocketAddr::from(([127, 0, 0, 1], 3210)),
            providers: vec![("openai".into(), Dialect::Openai), ("anthropic".into(), Dialect::Anthropic)],
            proxy: None,
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    #[test]
    fn keys_and_passphrases_of_the_operator_stay_behind() {
        let operator = pairs(&[
            ("PATH", "/bin"),
            ("OPENAI_API_KEY", "sk-real"),
            ("AMC_VAULT_PASSPHRASE", "open sesame"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("LC_ALL", "C"),
        ]);
        let pass = [OsString::from("AMC_VAULT_PASSPHRASE")];
        let built = build(operator, &pass, &routes(), "the-lease");
        let values: Vec<_> = built.variables.values().map(|value| value.to_string_lossy().into_owned()).collect();
        assert!(!values.iter().any(|value| value == "sk-real" || value == "open sesame" || value == "x"));
        assert_eq!(built.variables[OsStr::new("OPENAI_API_KEY")], "the-lease");
        assert_eq!(built.record.passed, ["LC_ALL", "PATH"]);
        assert_eq!((built.record.withheld, built.record.secrets_withheld), (3, true));
    }

    #[test]
    fn base_urls_are_what_each_client_wants() {
        let built = build([], &[], &routes(), "lease");
        assert_eq!(built.variables[OsStr::new("OPENAI_BASE_URL")], "http://127.0.0.1:3210/openai/v1");
        assert_eq!(built.variables[OsStr::new("ANTHROPIC_BASE_URL")], "http://127.0.0.1:3210/anthropic");
    }

    #[test]
    fn another_users_home_takes_the_place_of_the_operators() {
        let mut built = build(pairs(&[("HOME", "/root"), ("PATH", "/bin")]), &[], &routes(), "lease");
        built.set("HOME", "/home/agent".into());
        assert_eq!(built.variables[OsStr::new("HOME")], "/home/agent");
        assert_eq!(built.record.passed, ["PATH"]);
        assert!(built.record.set.contains(&"HOME".to_owned()) && built.record.set.is_sorted());
    }

    #[test]
    fn a_named_variable_passes() {
        let built = build(pairs(&[("MY_SETTING", "1")]), &[OsString::from("MY_SETTING")], &routes(), "lease");
        assert_eq!(built.variables[OsStr::new("MY_SETTING")], "1");
    }
}

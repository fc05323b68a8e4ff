//! Providers that are known by name, and the variables by which their clients are told where to call.
//!
//! Only addresses and names stand here, never a key: what goes in the key's place is the lease.

use amc_core::kinds::Dialect;

use crate::config::{KeyHeader, Provider};

/// A provider as it is known by its name.
struct Known {
    name: &'static str,
    dialect: Dialect,
    key_header: Option<KeyHeader>,
    /// Empty where every customer has an address of their own.
    base_url: &'static str,
    /// Variables that hold the address: a name, and what follows the route's prefix.
    addresses: &'static [(&'static str, &'static str)],
    /// Variables that hold the key.
    keys: &'static [&'static str],
}

/// What OpenAI's own libraries and those that call through them read.
const OPENAI_ADDRESSES: &[(&str, &str)] = &[("OPENAI_BASE_URL", "/v1"), ("OPENAI_API_BASE", "/v1")];

const KNOWN: &[Known] = &[
    Known {
        name: "openai",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "https://api.openai.com/v1",
        addresses: OPENAI_ADDRESSES,
        keys: &["OPENAI_API_KEY"],
    },
    Known {
        name: "anthropic",
        dialect: Dialect::Anthropic,
        key_header: None,
        base_url: "https://api.anthropic.com",
        addresses: &[("ANTHROPIC_BASE_URL", "")],
        keys: &["ANTHROPIC_API_KEY"],
    },
    Known {
        name: "gemini",
        dialect: Dialect::Gemini,
        key_header: None,
        base_url: "https://generativelanguage.googleapis.com",
        addresses: &[("GOOGLE_GEMINI_BASE_URL", ""), ("GEMINI_BASE_URL", "")],
        keys: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
    },
    Known {
        name: "azure",
        dialect: Dialect::Openai,
        key_header: Some(KeyHeader::ApiKey),
        base_url: "",
        addresses: &[("AZURE_OPENAI_ENDPOINT", "")],
        keys: &["AZURE_OPENAI_API_KEY"],
    },
    Known {
        name: "openrouter",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "https://openrouter.ai/api/v1",
        addresses: &[("OPENROUTER_BASE_URL", "/v1"), ("OPENROUTER_API_BASE", "/v1")],
        keys: &["OPENROUTER_API_KEY"],
    },
    Known {
        name: "mistral",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "https://api.mistral.ai/v1",
        addresses: &[("MISTRAL_BASE_URL", "/v1"), ("MISTRAL_SERVER_URL", "")],
        keys: &["MISTRAL_API_KEY"],
    },
    Known {
        name: "groq",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "https://api.groq.com/openai/v1",
        // Its own libraries add /openai/v1 themselves.
        addresses: &[("GROQ_BASE_URL", ""), ("GROQ_API_BASE", "/v1")],
        keys: &["GROQ_API_KEY"],
    },
    Known {
        name: "deepseek",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "https://api.deepseek.com/v1",
        addresses: &[("DEEPSEEK_BASE_URL", "/v1"), ("DEEPSEEK_API_BASE", "/v1")],
        keys: &["DEEPSEEK_API_KEY"],
    },
    Known {
        name: "xai",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "https://api.x.ai/v1",
        addresses: &[("XAI_BASE_URL", "/v1"), ("XAI_API_BASE", "/v1")],
        keys: &["XAI_API_KEY"],
    },
    Known {
        name: "together",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "https://api.together.xyz/v1",
        addresses: &[("TOGETHER_BASE_URL", "/v1"), ("TOGETHER_API_BASE", "/v1")],
        keys: &["TOGETHER_API_KEY"],
    },
    Known {
        name: "ollama",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "http://127.0.0.1:11434",
        addresses: &[("OLLAMA_HOST", ""), ("OLLAMA_BASE_URL", "")],
        keys: &["OLLAMA_API_KEY"],
    },
    Known {
        name: "vllm",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "http://127.0.0.1:8000/v1",
        addresses: &[("VLLM_BASE_URL", "/v1")],
        keys: &["VLLM_API_KEY"],
    },
    Known {
        name: "llamacpp",
        dialect: Dialect::Openai,
        key_header: None,
        base_url: "http://127.0.0.1:8080/v1",
        addresses: &[("LLAMACPP_BASE_URL", "/v1")],
        keys: &["LLAMACPP_API_KEY"],
    },
];

/// Names of the known providers that have an address of their own.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter(|known| !known.base_url.is_empty()).map(|known| known.name)
}

/// A provider as it is known by name; where no address is known for all customers, with an empty one.
pub fn known(name: &str) -> Option<Provider> {
    let known = KNOWN.iter().find(|known| known.name == name)?;
    Some(Provider { dialect: known.dialect, base_url: known.base_url.to_owned(), key_header: known.key_header })
}

/// The variables that send a provider's clients to `origin` (`http://ADDRESS:PORT` of the gateway)
/// with `lease` for a key. A provider that is not known by name has `<NAME>_BASE_URL` and
/// `<NAME>_API_KEY`.
pub fn variables(name: &str, dialect: Dialect, origin: &str, lease: &str) -> Vec<(String, String)> {
    if let Some(known) = KNOWN.iter().find(|known| known.name == name) {
        let address = |(variable, rest): &(&str, &str)| ((*variable).to_owned(), format!("{origin}/{name}{rest}"));
        let key = |variable: &&str| ((*variable).to_owned(), lease.to_owned());
        return known.addresses.iter().map(address).chain(known.keys.iter().map(key)).collect();
    }
    let version = if dialect == Dialect::Openai { "/v1" } else { "" };
    let prefix = name.to_uppercase().replace('-', "_");
    vec![
        (format!("{prefix}_BASE_URL"), format!("{origin}/{name}{version}")),
        (format!("{prefix}_API_KEY"), lease.to_owned()),
    ]
}

/// The variables that send a program's other traffic through the egress proxy, and its model calls
/// past it. Programs differ in which spelling they read.
pub fn proxy_variables(proxy: &str, lease: &str) -> Vec<(String, String)> {
    // Python's own library sends credentials only where there is a password.
    let url = format!("http://amc:{lease}@{proxy}");
    let upper = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].into_iter().map(|name| (name.to_owned(), url.clone()));
    let lower = ["https_proxy", "http_proxy", "all_proxy"].into_iter().map(|name| (name.to_owned(), url.clone()));
    let local = ["NO_PROXY", "no_proxy"].into_iter().map(|name| (name.to_owned(), LOCAL.to_owned()));
    // Node's own client reads the variables only when it is told to.
    upper.chain(lower).chain(local).chain([("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned())]).collect()
}

/// What no proxy is asked for: the gateway itself.
const LOCAL: &str = "127.0.0.1,localhost,::1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_provider_has_variables_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for known in KNOWN {
            for (variable, value) in variables(known.name, known.dialect, "http://h:1", "the-lease") {
                assert!(value == "the-lease" || value.starts_with(&format!("http://h:1/{}", known.name)), "{value}");
                assert!(seen.insert(variable.clone()), "{variable} stands twice");
            }
        }
    }

    #[test]
    fn a_provider_of_ones_own_has_its_name_in_the_variables() {
        let own = variables("my-model", Dialect::Openai, "http://h:1", "l");
        assert_eq!(own[0], ("MY_MODEL_BASE_URL".to_owned(), "http://h:1/my-model/v1".to_owned()));
        assert_eq!(own[1], ("MY_MODEL_API_KEY".to_owned(), "l".to_owned()));
        let own = variables("mine", Dialect::Anthropic, "http://h:1", "l");
        assert_eq!(own[0].1, "http://h:1/mine");
    }
}

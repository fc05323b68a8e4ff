//! `amc.yaml` and `gateway.yaml` against `docs/formats/config.md`.

use amc_core::WorkspaceName;
use amc_core::kinds::Dialect;
use amc_workspace::config::{
    AmcConfig, ConfigError, GatewayConfig, KeyHeader, ReceiptMode, Timeouts, TrustBoundaryMode, split_host_port,
};

const PAGE: &str = include_str!("../../../../docs/formats/config.md");

/// The documented example whose first line is `# <file>`.
fn example(file: &str) -> &'static str {
    let first_line = format!("# {file}\n");
    let blocks = PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    let mut found = blocks.filter(|block| block.starts_with(&first_line));
    let block = found.next().expect("the page has an example of this file");
    assert!(found.next().is_none(), "one example of {file}");
    block
}

fn gateway(text: &str) -> Result<GatewayConfig, ConfigError> {
    GatewayConfig::parse(text.as_bytes())
}

/// The message of a file that is refused as YAML; it must name the line.
fn refused_at(text: &str, line: usize) -> String {
    let Err(ConfigError::Yaml { path, message }) = gateway(text) else { panic!("taken:\n{text}") };
    assert_eq!(path, "gateway.yaml");
    assert!(message.contains(&format!("line {line}")), "no line {line} in: {message}");
    assert!(message.contains("column"), "no column in: {message}");
    message
}

#[test]
fn the_documented_amc_yaml_parses() {
    let config = AmcConfig::parse(example("amc.yaml").as_bytes()).expect("the example parses");
    assert_eq!(config.name.as_str(), "acme");
    assert_eq!(config.security.trust_boundary_mode, TrustBoundaryMode::Isolated);
}

#[test]
fn the_documented_gateway_yaml_parses_and_sets_every_key_to_what_is_no_default() {
    let config = gateway(example("gateway.yaml")).expect("the example parses");
    assert_eq!(config.listen.to_string(), "127.0.0.1:4000");
    assert_eq!(config.receipts, ReceiptMode::Eager);
    assert_eq!(config.timeouts, Timeouts { connect_ms: 5_000, first_byte_ms: 120_000, idle_ms: 60_000 });
    let local = &config.providers["local-model"];
    assert_eq!((local.dialect, local.base_url.as_str()), (Dialect::Openai, "http://127.0.0.1:8000/v1"));
    assert_eq!(config.providers["anthropic"].dialect, Dialect::Anthropic);
    let azure = &config.providers["azure"];
    assert_eq!((azure.key_header(), config.retries), (KeyHeader::ApiKey, 2));
    assert_eq!(config.metrics.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:9464"));
    assert_eq!(config.secret_prefixes, ["acme_live_"]);
    assert_eq!(config.secret_patterns, ["CUST-[0-9]{8}"]);
    let egress = config.egress.expect("the example has it");
    assert_eq!(egress.allow, ["api.github.com:443", "*.pypi.org:443", "git.corp.example:443"]);
    assert_eq!((egress.internal, egress.listen.port()), (vec!["git.corp.example".to_owned()], 4001));
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let config = gateway("providers: {}\n").expect("only the providers are needed");
    for said in [
        format!("`{}`", config.listen),
        format!("`{}`", config.timeouts.connect_ms),
        format!("`{}`", config.timeouts.first_byte_ms),
        format!("`{}`", config.timeouts.idle_ms),
        "`durable`".to_owned(),
    ] {
        assert!(PAGE.contains(&said), "the page does not say {said}");
    }
    assert_eq!(config.receipts, ReceiptMode::Durable);
}

#[test]
fn what_init_writes_parses() {
    let name = WorkspaceName::new("acme").expect("a name");
    for mode in [TrustBoundaryMode::Shared, TrustBoundaryMode::Isolated] {
        let text = AmcConfig::initial(&name, mode);
        let config = AmcConfig::parse(text.as_bytes()).expect("init writes what parses");
        assert_eq!((config.name, config.security.trust_boundary_mode), (name.clone(), mode));
    }
    let initial = GatewayConfig::initial();
    assert_eq!(gateway(&initial.render()).expect("init writes what parses"), initial);
    assert!(!initial.is_public());
}

#[test]
fn values_that_yaml_would_take_for_something_else_read_back() {
    let plain = GatewayConfig::initial();
    let provider = plain.providers["openai"].clone();
    for (listen, name, base_url) in [
        ("[::1]:0", "openai", "http://[::1]:8000/v1"),
        ("127.0.0.1:0", "-", "http://h:"),
        ("127.0.0.1:0", "null", "http://h/a:"),
        ("127.0.0.1:0", "007", "http://h/{x}"),
        ("127.0.0.1:0", "true", "http://h/[y],*z"),
    ] {
        let mut config = GatewayConfig { listen: listen.parse().expect("an address"), ..plain.clone() };
        let provider = amc_workspace::Provider { base_url: base_url.to_owned(), ..provider.clone() };
        config.providers.insert(name.to_owned(), provider);
        assert_eq!(gateway(&config.render()).expect("it reads back"), config, "{}", config.render());
    }
}

#[test]
fn what_is_rendered_reads_back_with_every_key() {
    let config = gateway(example("gateway.yaml")).expect("the example parses");
    assert_eq!(gateway(&config.render()).expect("it reads back"), config);
}

#[test]
fn listeners_for_other_machines_are_told() {
    for (listen, public) in [
        ("127.0.0.1:1", false),
        ("\"[::1]:1\"", false),
        ("0.0.0.0:1", true),
        ("10.0.0.1:1", true),
        ("\"[::]:1\"", true),
    ] {
        let config = gateway(&format!("listen: {listen}\nproviders: {{}}\n")).expect("an address");
        assert_eq!(config.is_public(), public, "{listen}");
    }
}

#[test]
fn unknown_key() {
    assert!(refused_at("providers: {}\nlisten_on: 127.0.0.1:1\n", 2).contains("listen_on"));
    let nested = "providers:\n  openai:\n    dialect: openai\n    baseUrl: http://h\n    apiKey: sk-oops\n";
    let message = refused_at(nested, 5);
    assert!(message.contains("apiKey"), "{message}");
    assert!(refused_at("providers: {}\ntimeouts:\n  totalMs: 5\n", 3).contains("totalMs"));
    let amc = AmcConfig::parse(b"name: acme\nsecurity:\n  trustBoundaryMode: shared\nretention: 5d\n");
    assert!(matches!(amc, Err(ConfigError::Yaml { path: "amc.yaml", message }) if message.contains("retention")));
}

#[test]
fn duplicate_key() {
    refused_at("providers: {}\nlisten: 127.0.0.1:1\nlisten: 127.0.0.1:2\n", 3);
    refused_at("providers:\n  a: {dialect: openai, baseUrl: http://h}\n  a: {dialect: openai, baseUrl: http://i}\n", 3);
}

#[test]
fn missing_key() {
    assert!(
        matches!(gateway("listen: 127.0.0.1:1\n"), Err(ConfigError::Yaml { message, .. }) if message.contains("providers"))
    );
    assert!(
        matches!(AmcConfig::parse(b"name: acme\n"), Err(ConfigError::Yaml { message, .. }) if message.contains("security"))
    );
}

#[test]
fn values_of_another_type() {
    for (text, line) in [
        ("providers: {}\nlisten: 3210\n", 2),
        ("providers: {}\nlisten: localhost:3210\n", 2),
        ("providers:\n  a: {dialect: cohere, baseUrl: http://h}\n", 2),
        ("providers: {}\nreceipts: sometimes\n", 2),
        ("providers: {}\ntimeouts: {connectMs: -1}\n", 2),
        ("providers: [a]\n", 1),
    ] {
        refused_at(text, line);
    }
    let mode = AmcConfig::parse(b"name: acme\nsecurity: {trustBoundaryMode: maybe}\n");
    assert!(matches!(mode, Err(ConfigError::Yaml { .. })));
    let name = AmcConfig::parse(b"name: Acme Inc\nsecurity: {trustBoundaryMode: shared}\n");
    assert!(matches!(name, Err(ConfigError::Yaml { message, .. }) if message.contains("Acme Inc")));
}

#[test]
fn alias_bomb_of_nested_lists() {
    let mut text = "listen: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("k{level}: &a{level} [{inner}]\n");
    }
    assert!(matches!(gateway(&text), Err(ConfigError::Yaml { .. })));
}

#[test]
fn alias_bomb_of_one_long_address() {
    // Right in every type: 600 KiB once, and three thousand times by name, would be 1.8 GB.
    let long = "h".repeat(600 * 1024);
    let mut text = format!("providers:\n  a: {{dialect: openai, baseUrl: &url \"http://{long}\"}}\n");
    for number in 0..3_000 {
        text += &format!("  p{number}: {{dialect: openai, baseUrl: *url}}\n");
    }
    assert!(text.len() < amc_core::limits::CONFIG_BYTES_MAX, "it passes the bound on files");
    assert!(matches!(gateway(&text), Err(ConfigError::Yaml { .. })));
}

#[test]
fn deep_nesting() {
    let text = format!("providers: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(gateway(&text), Err(ConfigError::Yaml { .. })));
}

#[test]
fn two_documents() {
    assert!(gateway("providers: {}\n---\nproviders: {}\n").is_err());
}

#[test]
fn bytes_that_are_no_text() {
    let refused = GatewayConfig::parse(b"providers: {}\n# \xff\n");
    assert!(matches!(refused, Err(ConfigError::Yaml { message, .. }) if message.contains("UTF-8")));
    assert!(gateway("").is_err());
}

#[test]
fn provider_names_that_are_no_path_segment() {
    let long = "a".repeat(65);
    for name in ["OpenAI", "open_ai", "open/ai", "amc", "\"\"", "ü", long.as_str()] {
        let refused = gateway(&format!("providers:\n  {name}: {{dialect: openai, baseUrl: http://h}}\n"));
        assert!(
            matches!(&refused, Err(ConfigError::Value { key, .. }) if key.starts_with("providers.")),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn base_urls_that_are_none() {
    for url in [
        "ftp://h",
        "h.test/v1",
        "http://",
        "http:///v1",
        "http://user:secret@h",
        "http://h/v1?key=1",
        "http://h/#x",
        "http://h/a b",
        "http://h\\\\x",
    ] {
        let refused = gateway(&format!("providers:\n  a: {{dialect: openai, baseUrl: \"{url}\"}}\n"));
        let is_value = matches!(&refused, Err(ConfigError::Value { key, .. }) if key == "providers.a.baseUrl");
        assert!(is_value, "{url}: {refused:?}");
    }
}

#[test]
fn allow_lists_take_names_and_addresses_in_one_spelling() {
    for (entry, host) in [
        ("api.github.com:443", "api.github.com"),
        ("*.pypi.org:443", "*.pypi.org"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:1", "[::1]"),
        ("localhost:80", "localhost"),
    ] {
        assert_eq!(split_host_port(entry).map(|(host, _)| host), Some(host), "{entry}");
    }
    for bad in [
        "api.github.com",
        "api.github.com:0",
        "API.github.com:443",
        "a..b:1",
        ".a:1",
        "a.:1",
        "*:443",
        "*.*.a:1",
        "127.1:80",
        "0x7f.0.0.1:80",
        "::1:80",
        "a b:1",
        "a/b:1",
        "u@h:1",
        "h:70000",
        ":443",
        "bücher.example:443",
        "2130706433:80",
    ] {
        assert_eq!(split_host_port(bad), None, "{bad}");
        let text = format!("providers: {{}}\negress:\n  allow:\n    - {}\n", serde_json::Value::from(bad));
        assert!(matches!(gateway(&text), Err(ConfigError::Value { .. })), "{bad}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for text in [
        "retries: 6\n",
        "metrics: 0.0.0.0:3213\n",
        "secretPrefixes: [ab]\n",
        "secretPatterns: ['(']\n",
        "secretPatterns: ['[0-9]*']\n",
        "secretPatterns: ['(a{1000}){1000}']\n",
        &format!("secretPatterns: [{}]\n", ["a", ""].map(|_| "a").repeat(17).join(",")),
        "otlp:\n  endpoint: 127.0.0.1:4318\n",
        "otlp:\n  endpoint: http://user:pw@h\n",
        "otlp:\n  endpoint: http://h\n  headers: {authorization: Bearer x}\n",
        "otlp:\n  endpoint: http://h\n  headers: {x-api-key: x}\n",
        "otlp:\n  endpoint: http://h\n  headers: {X-Tenant: x}\n",
        "otlp:\n  endpoint: http://h\n  headers: {x-tenant: \"a\\nb\"}\n",
        "egress:\n  allow: [\"a.example:443\"]\n  internal: [b.example]\n",
    ] {
        let refused = gateway(&format!("providers: {{}}\n{text}"));
        assert!(matches!(refused, Err(ConfigError::Value { .. })), "{text}: {refused:?}");
    }
    let bare = gateway("providers: {}\nmetrics: null\n").expect("it is switched off");
    assert_eq!(bare.metrics, None);
    assert_eq!(gateway(&bare.render()), Ok(bare), "without a provider too");
    let collected = "providers:\n  a: {dialect: openai, baseUrl: \"http://h\"}\notlp:\n  endpoint: http://h:4318\n  headers: {x-tenant: a}\n";
    let collected = gateway(collected).expect("a collector");
    assert_eq!(gateway(&collected.render()), Ok(collected), "what is written is what is read");
    let unknown = gateway("providers: {}\notlp:\n  endpoint: http://h\n  protocol: grpc\n");
    assert!(matches!(unknown, Err(ConfigError::Yaml { .. })), "{unknown:?}");
}

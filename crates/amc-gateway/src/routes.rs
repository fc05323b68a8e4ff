//! Which provider a path means, and where it goes there.
//!
//! `/<provider>/REST` goes to the origin of the provider's base URL with REST; where the base has a
//! path (`/v1`), REST begins with it or gets it once, and an overlap of the two is written once. Whole segments are compared, raw: nothing is
//! decoded, and a path that another server might read differently is refused.

use std::collections::BTreeMap;

use amc_core::kinds::Dialect;
use amc_workspace::config::{KeyHeader, Provider};
use http::Uri;
use http::uri::{Authority, InvalidUri, Parts, Scheme};

use crate::error::GatewayError;

/// The providers that this gateway has routes to.
#[derive(Debug)]
pub(crate) struct Routes {
    providers: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    name: String,
    dialect: Dialect,
    key_header: KeyHeader,
    origin: Origin,
    base_path: String,
}

/// Where a provider is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    authority: Authority,
}

/// One call's way to its provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// The provider's name.
    pub(crate) provider: String,
    /// The shape of its API.
    pub(crate) dialect: Dialect,
    /// Which header carries its key.
    pub(crate) key_header: KeyHeader,
    /// Path at the provider.
    pub(crate) path: String,
    origin: Origin,
}

impl Route {
    /// The whole address.
    pub(crate) fn uri(&self, query: Option<&str>) -> Result<Uri, RouteError> {
        let Origin { scheme, authority } = self.origin.clone();
        let path_and_query = query.map_or_else(|| self.path.clone(), |query| format!("{}?{query}", self.path));
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path_and_query).build();
        uri.map_err(|_| RouteError::NotNormal)
    }
}

/// A path without a way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    /// The first segment names no provider.
    #[error("no provider has this path; the paths here begin with {0}")]
    UnknownProvider(String),
    /// Dot segments, encoded ones included, or characters that are written in other ways.
    #[error("the path has dot segments or characters that must be percent-encoded")]
    NotNormal,
}

impl Routes {
    /// Takes the configured providers.
    pub(crate) fn new(providers: &BTreeMap<String, Provider>) -> Result<Self, GatewayError> {
        let target = |(name, provider): (&String, &Provider)| {
            let refuse = |message: String| GatewayError::BaseUrl { provider: name.clone(), message };
            let uri: Uri = provider.base_url.parse().map_err(|error: InvalidUri| refuse(error.to_string()))?;
            let base_path = uri.path().trim_end_matches('/').to_owned();
            let Parts { scheme: Some(scheme), authority: Some(authority), .. } = uri.into_parts() else {
                return Err(refuse("it names no host".to_owned()));
            };
            if !is_normal(&base_path) {
                return Err(refuse(RouteError::NotNormal.to_string()));
            }
            let (dialect, key_header) = (provider.dialect, provider.key_header());
            let origin = Origin { scheme, authority };
            Ok(Target { name: name.clone(), dialect, key_header, origin, base_path })
        };
        Ok(Routes { providers: providers.iter().map(target).collect::<Result<_, GatewayError>>()? })
    }

    /// The way of a request's path.
    pub(crate) fn resolve(&self, path: &str) -> Result<Route, RouteError> {
        if !is_normal(path) {
            return Err(RouteError::NotNormal);
        }
        let (first, rest) =
            path.strip_prefix('/').map_or(("", ""), |path| path.split_at(path.find('/').unwrap_or(path.len())));
        let target = self.providers.iter().find(|target| target.name == first);
        let target = target.ok_or_else(|| RouteError::UnknownProvider(self.names()))?;
        let Target { name, dialect, key_header, origin, .. } = target;
        Ok(Route {
            provider: name.clone(),
            dialect: *dialect,
            key_header: *key_header,
            path: target.path_for(rest),
            origin: origin.clone(),
        })
    }

    /// The dialect of the provider that a path's first segment names, whatever the rest is.
    pub(crate) fn dialect_of(&self, path: &str) -> Option<Dialect> {
        let first = path.strip_prefix('/')?.split('/').next()?;
        self.providers.iter().find(|target| target.name == first).map(|target| target.dialect)
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.providers.iter().map(|target| format!("/{}/", target.name)).collect();
        if names.is_empty() { "nothing: gateway.yaml names no provider".to_owned() } else { names.join(", ") }
    }
}

impl Target {
    fn path_for(&self, rest: &str) -> String {
        let base = &self.base_path;
        let begins_with =
            |end: &str| rest.strip_prefix(end).is_some_and(|after| after.is_empty() || after.starts_with('/'));
        // What the base's path ends with and the rest begins with is written once: `/openai/v1` and
        // `/v1/models` are `/openai/v1/models`.
        let ends = base.match_indices('/').map(|(at, _)| at);
        let overlap = ends.into_iter().find(|at| begins_with(&base[*at..]));
        let path = overlap.map_or_else(|| format!("{base}{rest}"), |at| format!("{}{rest}", &base[..at]));
        if path.is_empty() { "/".to_owned() } else { path }
    }
}

/// Whether every server reads a path as it is written.
fn is_normal(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{}".contains(&byte);
    path.bytes().all(plain) && !has_dot_segments(path)
}

/// Whether a server that decodes `%2e`, `%2f` or `%5c` would find a dot segment.
fn has_dot_segments(path: &str) -> bool {
    if !path.contains('%') {
        return path.split('/').any(|segment| segment == "." || segment == "..");
    }
    let lower = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    lower.split('/').any(|segment| segment == "." || segment == "..") || lower.contains("%00")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let provider = |dialect, base_url: &str| Provider { dialect, base_url: base_url.to_owned(), key_header: None };
        Routes::new(&BTreeMap::from([
            ("openai".to_owned(), provider(Dialect::Openai, "https://api.test/v1")),
            ("anthropic".to_owned(), provider(Dialect::Anthropic, "https://claude.test")),
            ("local".to_owned(), provider(Dialect::Openai, "http://127.0.0.1:8000/serve/v1/")),
        ]))
        .expect("the base URLs are fine")
    }

    fn url(path: &str, query: Option<&str>) -> Result<String, RouteError> {
        routes().resolve(path)?.uri(query).map(|uri| uri.to_string())
    }

    #[test]
    fn the_base_path_is_there_once() {
        for (path, expected) in [
            ("/openai/v1/chat/completions", "https://api.test/v1/chat/completions"),
            ("/openai/chat/completions", "https://api.test/v1/chat/completions"),
            ("/openai/v1beta/models", "https://api.test/v1/v1beta/models"),
            ("/openai/v1", "https://api.test/v1"),
            ("/openai", "https://api.test/v1"),
            ("/anthropic/v1/messages", "https://claude.test/v1/messages"),
            ("/anthropic", "https://claude.test/"),
            ("/local/serve/v1/models", "http://127.0.0.1:8000/serve/v1/models"),
            ("/local/v1/models", "http://127.0.0.1:8000/serve/v1/models"),
            ("/local/models", "http://127.0.0.1:8000/serve/v1/models"),
            ("/local/v1beta/models", "http://127.0.0.1:8000/serve/v1/v1beta/models"),
            ("/local/serve/other", "http://127.0.0.1:8000/serve/v1/serve/other"),
        ] {
            assert_eq!(url(path, None).as_deref(), Ok(expected), "{path}");
        }
        assert_eq!(url("/openai/v1/x", Some("a=1&b=%20")).as_deref(), Ok("https://api.test/v1/x?a=1&b=%20"));
    }

    #[test]
    fn a_base_that_is_written_in_another_way_is_refused() {
        for base in ["https://api.test/v1/../admin", "https://api.test/%2e%2e", "api.test/v1", "https://api.test/v{1}"]
        {
            let provider = Provider { dialect: Dialect::Openai, base_url: base.to_owned(), key_header: None };
            let refused = Routes::new(&BTreeMap::from([("p".to_owned(), provider)]));
            assert!(matches!(refused, Err(GatewayError::BaseUrl { .. })), "{base}");
        }
    }

    #[test]
    fn a_prefix_of_a_segment_is_no_provider() {
        for path in ["/openaiX/v1/models", "/openai%2Fv1", "/OPENAI/v1", "//openai/v1", "/", "", "/v1/models", "*"] {
            assert!(matches!(url(path, None), Err(RouteError::UnknownProvider(_))), "{path}");
        }
    }

    #[test]
    fn dot_segments_in_every_spelling_are_refused() {
        for path in [
            "/openai/../anthropic/v1",
            "/openai/v1/%2e%2e/admin",
            "/openai/v1/%2E./admin",
            "/openai/v1/..%2fadmin",
            "/openai/v1/..%5cadmin",
            "/openai/v1/./x",
            "/openai/v1\\..\\x",
            "/openai/v1/x%00",
            "/../openai/v1",
        ] {
            assert_eq!(url(path, None), Err(RouteError::NotNormal), "{path}");
        }
        assert!(url("/openai/v1/models/org%2Fname..x", None).is_ok(), "dots within a segment are no dot segment");
    }
}

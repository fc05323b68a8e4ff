//! The lease that an agent sends where its client puts the provider's key, and the provider's key
//! that takes its place. What an agent sends as a credential never reaches a provider.

use amc_core::kinds::Dialect;
use http::{HeaderMap, HeaderValue, header};
use zeroize::Zeroizing;

/// The headers in which clients send their key, in the order in which a lease is looked for.
const HEADERS: [&str; 4] = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// What came in one of those headers.
pub(crate) struct Credential {
    /// The header.
    pub(crate) header: &'static str,
    /// The token, without a scheme.
    pub(crate) token: Zeroizing<String>,
}

/// Every credential of a request; some clients send two.
pub(crate) fn candidates(headers: &HeaderMap) -> Vec<Credential> {
    let mut found = Vec::new();
    for header in HEADERS {
        for value in headers.get_all(header) {
            let Ok(text) = value.to_str() else { continue };
            let token = if header == "authorization" { after_scheme(text) } else { text.trim() };
            if !token.is_empty() && found.len() < CANDIDATES_MAX {
                found.push(Credential { header, token: Zeroizing::new(token.to_owned()) });
            }
        }
    }
    found
}

/// Takes the agent's credentials out and puts the provider's key in, where there is one.
pub(crate) fn replace(headers: &mut HeaderMap, dialect: Dialect, provider_key: Option<&str>) {
    for header in HEADERS {
        headers.remove(header);
    }
    let Some(key) = provider_key else { return };
    let (name, text) = match dialect {
        Dialect::Openai => (header::AUTHORIZATION, Zeroizing::new(format!("Bearer {key}"))),
        Dialect::Anthropic => (header::HeaderName::from_static("x-api-key"), Zeroizing::new(key.to_owned())),
    };
    // A key that no header can carry is caught where it is set; without it the provider says 401.
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert(name, value);
    }
}

fn after_scheme(text: &str) -> &str {
    match text.trim().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        Some(_) => "",
        None => text.trim(),
    }
}

/// Each candidate costs a lookup; a client has one or two.
const CANDIDATES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().expect("a name"), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_token_is_found_in_every_header() {
        for (name, value) in
            [("authorization", "bearer  tok"), ("x-api-key", "tok"), ("api-key", "tok"), ("x-goog-api-key", " tok ")]
        {
            let found = candidates(&headers(&[(name, value)]));
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!((found[0].header, found[0].token.as_str()), (name, "tok"));
        }
        assert!(candidates(&headers(&[("authorization", "Basic dXNlcjpwdw==")])).is_empty());
    }

    #[test]
    fn nothing_of_the_agents_stays() {
        let mut sent =
            headers(&[("authorization", "Bearer a"), ("x-api-key", "b"), ("api-key", "c"), ("x-other", "d")]);
        replace(&mut sent, Dialect::Anthropic, Some("real"));
        assert_eq!(sent.get("x-api-key").map(HeaderValue::as_bytes), Some(&b"real"[..]));
        assert_eq!(sent.len(), 2);
        replace(&mut sent, Dialect::Openai, None);
        assert_eq!(sent.len(), 1, "no key set: forwarded without one");
    }
}

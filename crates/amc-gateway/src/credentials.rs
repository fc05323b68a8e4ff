//! The lease that an agent sends where its client puts the provider's key, and the provider's key
//! that takes its place. What an agent sends as a credential never reaches a provider.

use amc_workspace::config::KeyHeader;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use zeroize::Zeroizing;

/// The headers in which clients send their key, in the order in which a lease is looked for.
static HEADERS: [HeaderName; 4] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

/// The parameter of a query in which Gemini's clients may send their key.
const QUERY_KEY: &str = "key";

/// A browser's WebSocket has no headers of its own; OpenAI's clients there put the key among the
/// subprotocols.
const SUBPROTOCOL_KEY: &str = "openai-insecure-api-key.";

/// What came in one of those places.
pub(crate) struct Credential {
    /// The header, or `?key=`.
    pub(crate) header: &'static str,
    /// The token, without a scheme.
    pub(crate) token: Zeroizing<String>,
}

/// Every credential of a request; some clients send two. `query` where its `key` is one.
pub(crate) fn candidates(headers: &HeaderMap, query: Option<&str>) -> Vec<Credential> {
    let mut found = Vec::new();
    for text in query.unwrap_or_default().split('&').filter_map(query_key) {
        found.push(Credential { header: "?key=", token: Zeroizing::new(text.to_owned()) });
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    for text in offered.flat_map(|value| value.split(',')).filter_map(|name| name.trim().strip_prefix(SUBPROTOCOL_KEY))
    {
        found.push(Credential { header: "sec-websocket-protocol", token: Zeroizing::new(text.to_owned()) });
    }
    found.truncate(CANDIDATES_MAX);
    for name in &HEADERS {
        for value in headers.get_all(name) {
            let Ok(text) = value.to_str() else { continue };
            let token = if name == header::AUTHORIZATION { after_scheme(text) } else { text.trim() };
            if !token.is_empty() && found.len() < CANDIDATES_MAX {
                found.push(Credential { header: name.as_str(), token: Zeroizing::new(token.to_owned()) });
            }
        }
    }
    found
}

/// Takes the agent's credentials out and puts the provider's key in, where there is one.
pub(crate) fn replace(headers: &mut HeaderMap, key_header: KeyHeader, provider_key: Option<&str>) {
    for header in &HEADERS {
        headers.remove(header);
    }
    without_subprotocol_key(headers);
    let Some(key) = provider_key else { return };
    let text = match key_header {
        KeyHeader::Authorization => Zeroizing::new(format!("Bearer {key}")),
        _ => Zeroizing::new(key.to_owned()),
    };
    // A key that no header can carry is caught where it is set; without it the provider says 401.
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        headers.insert(key_header.name(), value);
    }
}

/// A query without its `key`; nothing where nothing is left.
pub(crate) fn without_query_key(query: &str) -> Option<String> {
    let left: Vec<&str> = query.split('&').filter(|pair| query_key(pair).is_none()).collect();
    (!left.is_empty()).then(|| left.join("&"))
}

/// The value of a pair that a server would read as `key=…`, however its name is written.
fn query_key(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    (percent_decoded(name).eq_ignore_ascii_case(QUERY_KEY.as_bytes())).then_some(value)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    out
}

fn without_subprotocol_key(headers: &mut HeaderMap) {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let names: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    if !names.iter().any(|name| name.starts_with(SUBPROTOCOL_KEY)) {
        return;
    }
    let left: Vec<&str> = names.into_iter().filter(|name| !name.starts_with(SUBPROTOCOL_KEY)).collect();
    let value = HeaderValue::from_str(&left.join(", ")).ok().filter(|value| !value.is_empty());
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Some(value) = value {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
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
            let found = candidates(&headers(&[(name, value)]), None);
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!((found[0].header, found[0].token.as_str()), (name, "tok"));
        }
        assert!(candidates(&headers(&[("authorization", "Basic dXNlcjpwdw==")]), None).is_empty());
    }

    #[test]
    fn nothing_of_the_agents_stays() {
        let mut sent =
            headers(&[("authorization", "Bearer a"), ("x-api-key", "b"), ("api-key", "c"), ("x-other", "d")]);
        replace(&mut sent, KeyHeader::XApiKey, Some("real"));
        assert_eq!(sent.get("x-api-key").map(HeaderValue::as_bytes), Some(&b"real"[..]));
        assert_eq!(sent.len(), 2);
        replace(&mut sent, KeyHeader::Authorization, None);
        assert_eq!(sent.len(), 1, "no key set: forwarded without one");
    }

    #[test]
    fn a_key_in_the_query_is_found_and_goes() {
        let found = candidates(&HeaderMap::new(), Some("alt=sse&key=tok&x=key"));
        assert_eq!((found.len(), found[0].header, found[0].token.as_str()), (1, "?key=", "tok"));
        assert_eq!(without_query_key("alt=sse&key=tok&x=key").as_deref(), Some("alt=sse&x=key"));
        for written in ["key=tok", "k%65y=tok", "%6Bey=tok", "KEY=tok", "key"] {
            assert_eq!(without_query_key(written), None, "{written}");
        }
        assert_eq!(without_query_key("monkey=1&keys=2&k%=3").as_deref(), Some("monkey=1&keys=2&k%=3"));
    }

    #[test]
    fn a_key_among_the_subprotocols_is_found_and_goes() {
        let offered = [("sec-websocket-protocol", "realtime, openai-insecure-api-key.tok, openai-beta.realtime-v1")];
        let mut sent = headers(&offered);
        assert_eq!(candidates(&sent, None)[0].token.as_str(), "tok");
        replace(&mut sent, KeyHeader::Authorization, Some("real"));
        assert_eq!(sent["sec-websocket-protocol"], "realtime, openai-beta.realtime-v1");
        assert_eq!(sent["authorization"], "Bearer real");
    }
}

//! Headers that belong to one hop (RFC 9110, section 7.6.1), and ours, which neither side may send.

use http::header::{self, AsHeaderName};
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Body;

/// Prefix of every header that the gateway adds to answers.
const OURS: &str = "x-amc-";

/// Takes out of a request what must not travel on: hop-by-hop headers, the framing (the body itself
/// says its length), the host (the provider has its own), and anything that looks like ours.
pub(crate) fn for_provider(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    remove_ours(headers);
}

/// Takes out of a message of the egress proxy what belongs to its hop.
pub(crate) fn for_next_hop(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}

/// Takes out of an answer what must not travel on.
pub(crate) fn for_agent(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
    remove_ours(headers);
}

/// A length beside chunks does not count (RFC 9112, section 6.3), and so is not passed on.
pub(crate) fn framed_by(body: &impl Body, headers: &mut HeaderMap) {
    if body.size_hint().exact().is_none() {
        headers.remove(header::CONTENT_LENGTH);
    }
}

/// Whether a client says that it reads trailers (RFC 9110, section 10.1.4).
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// The text of a header, where it is text.
pub(crate) fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The media type of a body: its header, or nothing.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let text = text(headers, header::CONTENT_TYPE).unwrap_or_default();
    text[..text.floor_char_boundary(amc_core::limits::MEDIA_TYPE_BYTES_MAX)].to_owned()
}

/// How a body is compressed, lowercase, all that its headers say one after the other; `None` when it is not.
pub(crate) fn content_encoding(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::CONTENT_ENCODING).iter().map(|value| value.to_str().unwrap_or("?"));
    let codings = values.flat_map(|value| value.split(',')).map(|coding| coding.trim().to_ascii_lowercase());
    let codings: Vec<String> = codings.filter(|coding| !coding.is_empty() && coding != "identity").collect();
    (!codings.is_empty()).then(|| codings.join(", "))
}

/// Whether a body is a stream of server-sent events.
pub(crate) fn is_event_stream(media_type: &str) -> bool {
    essence(media_type).eq_ignore_ascii_case("text/event-stream")
}

/// Whether a body is a stream of JSON values: events, or one a line.
pub(crate) fn is_of_values(media_type: &str) -> bool {
    is_event_stream(media_type) || LINES.iter().any(|lines| essence(media_type).eq_ignore_ascii_case(lines))
}

/// A media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// What JSON values one a line are called.
const LINES: [&str; 7] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-seq",
    "application/stream+json",
];

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let named = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
    let named: Vec<HeaderName> = named.collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn remove_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// `trailer` stays: it announces fields that we pass on.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_values_are_known_by_their_type() {
        for stream in ["text/event-stream", "Text/Event-Stream; charset=utf-8", "application/X-NDJSON ;a=b"] {
            assert!(is_of_values(stream), "{stream}");
        }
        for other in ["application/json", "text/event-streams", "application/json; a=application/x-ndjson", ""] {
            assert!(!is_of_values(other), "{other}");
        }
    }

    #[test]
    fn every_coding_counts() {
        let coded = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::CONTENT_ENCODING, HeaderValue::from_static(value)));
            content_encoding(&values.collect::<HeaderMap>())
        };
        assert_eq!(coded(&[]), None);
        assert_eq!(coded(&["identity"]), None);
        assert_eq!(coded(&[" GZip "]).as_deref(), Some("gzip"));
        assert_eq!(coded(&["identity, gzip"]).as_deref(), Some("gzip"));
        assert_eq!(coded(&["gzip, br"]).as_deref(), Some("gzip, br"));
    }

    #[test]
    fn two_headers_are_two_codings() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONTENT_ENCODING, HeaderValue::from_static("identity"));
        headers.append(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(content_encoding(&headers).as_deref(), Some("gzip"));
        headers.append(header::CONTENT_ENCODING, HeaderValue::from_bytes(&[0xff]).expect("obs-text"));
        assert_eq!(content_encoding(&headers).as_deref(), Some("gzip, ?"));
    }

    #[test]
    fn one_hop_stays_on_its_hop() {
        let pairs = [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("host", "gateway"),
            ("x-amc-receipt", "forged"),
            ("anthropic-beta", "kept"),
            ("accept-encoding", "gzip"),
        ];
        let mut headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)))
            .collect();
        assert!(takes_trailers(&headers));
        for_provider(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept-encoding", "anthropic-beta"]);
    }
}

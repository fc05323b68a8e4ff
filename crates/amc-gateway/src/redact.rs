//! Secrets never reach the stored copy of a body: the lease, the providers' keys, and whatever has
//! the shape of a key. A keyed commitment stands in each place, so that the same secret can be
//! recognised again by whoever holds the commitment key and by nobody else.
//!
//! ```text
//! [amc:redacted:<first 8 bytes of keyed BLAKE3 of the secret, hex>]
//! ```
//!
//! The bytes that pass are never touched; only the copy is, before it leaves this process.

use amc_core::Digest;
use amc_core::digest::hex;
use zeroize::Zeroizing;

/// Knows the providers' keys and how secrets look.
pub(crate) struct Redactor {
    commitment_key: [u8; 32],
    provider_keys: Vec<Zeroizing<String>>,
    /// Beginnings of the owner's own keys.
    prefixes: Vec<String>,
}

/// A copy without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redacted {
    /// At most as many bytes as were to be kept.
    pub(crate) bytes: Vec<u8>,
    /// The rules that applied, each once, in order of name.
    pub(crate) rules: Vec<&'static str>,
}

/// One secret within a text.
struct Found {
    start: usize,
    end: usize,
    rule: &'static str,
}

impl Redactor {
    /// Takes the key of the commitments, the providers' keys, and beginnings of keys of one's own.
    pub(crate) fn new(
        commitment_key: Digest,
        provider_keys: impl IntoIterator<Item = String>,
        prefixes: &[String],
    ) -> Self {
        let provider_keys = provider_keys.into_iter().filter(|key| key.len() >= EXACT_BYTES_MIN);
        let provider_keys = provider_keys.map(Zeroizing::new).collect();
        Redactor { commitment_key: commitment_key.0, provider_keys, prefixes: prefixes.to_vec() }
    }

    /// Copies `bytes` without the secrets in it and keeps what began in the first `keep` of them.
    ///
    /// `bytes` should reach [`OVERLAP_BYTES`] beyond `keep` where there is more, so that a secret
    /// across the cut is seen whole.
    pub(crate) fn redact(&self, lease: &str, bytes: &[u8], keep: usize) -> Redacted {
        let mut redacted = Redacted { bytes: Vec::with_capacity(bytes.len().min(keep)), rules: Vec::new() };
        let first_bytes = self.first_bytes(lease);
        let mut copied = 0;
        let mut at = 0;
        while at < bytes.len().min(keep) {
            let found = if first_bytes[usize::from(bytes[at])] { self.secret_at(lease, bytes, at) } else { None };
            let Some(found) = found else {
                at += 1;
                continue;
            };
            redacted.bytes.extend_from_slice(&bytes[copied..found.start.min(keep)]);
            redacted.bytes.extend_from_slice(self.mark(&bytes[found.start..found.end]).as_bytes());
            if !redacted.rules.contains(&found.rule) {
                redacted.rules.push(found.rule);
            }
            copied = found.end;
            at = found.end;
        }
        if copied < bytes.len().min(keep) {
            redacted.bytes.extend_from_slice(&bytes[copied..bytes.len().min(keep)]);
        }
        redacted.bytes.truncate(keep);
        redacted.rules.sort_unstable();
        redacted
    }

    /// A short text without secrets, for fields.
    pub(crate) fn redact_text(&self, lease: &str, text: &str, keep: usize) -> String {
        let redacted = self.redact(lease, text.as_bytes(), keep);
        String::from_utf8_lossy(&redacted.bytes).into_owned()
    }

    fn mark(&self, secret: &[u8]) -> String {
        let commitment = blake3::keyed_hash(&self.commitment_key, secret);
        format!("[amc:redacted:{}]", hex(&commitment.as_bytes()[..8]))
    }

    /// Bytes with which a secret, or what leads to one, may begin.
    fn first_bytes(&self, lease: &str) -> [bool; 256] {
        let mut table = [false; 256];
        let exact = self.provider_keys.iter().map(|key| key.as_str()).chain([lease]);
        let own = self.prefixes.iter().map(String::as_str);
        let shapes = SHAPES.iter().map(|shape| shape.prefix).chain([PEM_BEGIN]).chain(own);
        for first in exact.chain(shapes).filter_map(|text| text.bytes().next()) {
            table[usize::from(first)] = true;
        }
        for first in VALUE_NAMES.iter().filter_map(|name| name.bytes().next()) {
            table[usize::from(first)] = true;
            table[usize::from(first.to_ascii_uppercase())] = true;
        }
        table
    }

    fn secret_at(&self, lease: &str, bytes: &[u8], at: usize) -> Option<Found> {
        let rest = &bytes[at..];
        let found = |len: usize, rule| Some(Found { start: at, end: at + len, rule });
        if let Some((len, rule)) = self.exact_at(lease, rest) {
            return found(len, rule);
        }
        if rest.starts_with(PEM_BEGIN.as_bytes()) {
            return pem_len(rest).and_then(|len| found(len, "private-key"));
        }
        if at.checked_sub(1).is_some_and(|before| is_token(bytes[before])) {
            return None;
        }
        if let Some(len) = SHAPES.iter().find_map(|shape| shape.len_at(rest)) {
            return found(len, "key-shape");
        }
        let own = self.prefixes.iter().find_map(|prefix| key_len(prefix, OWN_KEY_BYTES_MIN, rest));
        if let Some(len) = own {
            return found(len, "configured");
        }
        let (start, end) = value_at(rest)?;
        // A key of ours may go on beyond the characters of a usual token.
        let end = self.exact_at(lease, &rest[start..]).map_or(end, |(len, _)| end.max(start + len));
        Some(Found { start: at + start, end: at + end, rule: "authorization" })
    }

    fn exact_at(&self, lease: &str, rest: &[u8]) -> Option<(usize, &'static str)> {
        if lease.len() >= EXACT_BYTES_MIN && rest.starts_with(lease.as_bytes()) {
            return Some((lease.len(), "lease"));
        }
        let key = self.provider_keys.iter().find(|key| rest.starts_with(key.as_bytes()))?;
        Some((key.len(), "provider-key"))
    }
}

/// Whether a credential looks like a real key of a provider.
pub(crate) fn has_key_shape(token: &str) -> bool {
    SHAPES.iter().any(|shape| shape.len_at(token.as_bytes()) == Some(token.len()))
}

/// A kind of key that is known by its beginning.
struct Shape {
    prefix: &'static str,
    /// Characters after the prefix, at least.
    min: usize,
}

impl Shape {
    fn len_at(&self, bytes: &[u8]) -> Option<usize> {
        key_len(self.prefix, self.min, bytes)
    }
}

/// The length of a key at the beginning of `bytes`: a prefix, and at least so many characters more.
fn key_len(prefix: &str, min: usize, bytes: &[u8]) -> Option<usize> {
    let rest = bytes.strip_prefix(prefix.as_bytes())?;
    let len = rest.iter().take_while(|byte| is_token(**byte)).count();
    (len >= min).then_some(prefix.len() + len)
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// `Bearer TOKEN`, `authorization: [scheme] TOKEN`, `"x-api-key": "TOKEN"` and the like: the place
/// of the token after the name at the beginning of `bytes`.
fn value_at(bytes: &[u8]) -> Option<(usize, usize)> {
    let name = VALUE_NAMES
        .iter()
        .find(|name| bytes.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes())))?;
    let mut at = name.len();
    let skip = |at: usize, set: &[u8], max: usize| {
        at + bytes[at..].iter().take(max).take_while(|byte| set.contains(byte)).count()
    };
    let separated = skip(at, b"\\\"' \t:=", 8);
    if separated == at {
        return None;
    }
    at = separated;
    for scheme in ["bearer", "basic", "token"] {
        let named = bytes[at..].get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()));
        if named && bytes.get(at + scheme.len()) == Some(&b' ') {
            at = skip(at + scheme.len(), b" ", 8);
        }
    }
    let value = |byte: &u8| is_token(*byte) || b".~+/=".contains(byte);
    let len = bytes[at..].iter().take_while(|byte| value(byte)).count();
    let has_digit = bytes[at..at + len].iter().any(u8::is_ascii_digit);
    // A word of prose after "authorization:" is no secret; one of sixteen characters with a digit may be.
    (len >= VALUE_BYTES_MIN && has_digit).then_some((at, at + len))
}

/// The length of a PEM private key at the beginning of `bytes`, to the end where it is cut off.
fn pem_len(bytes: &[u8]) -> Option<usize> {
    let head = &bytes[..bytes.len().min(64)];
    position(head, b"PRIVATE KEY-----")?;
    let body = &bytes[PEM_BEGIN.len()..];
    let end = position(body, b"-----END ").map(|at| at + b"-----END ".len());
    let Some(end) = end else { return Some(bytes.len()) };
    let close = position(&body[end..], b"-----").map_or(body.len(), |at| end + at + 5);
    Some(PEM_BEGIN.len() + close)
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// How far beyond the kept bytes a copy should reach: longer than any key that is looked for.
pub(crate) const OVERLAP_BYTES: usize = 4096;

/// Shorter secrets would blank out ordinary words.
const EXACT_BYTES_MIN: usize = 6;

/// The shortest token that counts as the value of an authorization header.
const VALUE_BYTES_MIN: usize = 16;

/// Characters that follow a configured prefix, at least.
const OWN_KEY_BYTES_MIN: usize = 8;

const PEM_BEGIN: &str = "-----BEGIN ";

/// Names before a secret value; a name that is the beginning of another stands after it.
const VALUE_NAMES: [&str; 8] = [
    "proxy-authorization",
    "authorization",
    "x-goog-api-key",
    "x-api-key",
    "set-cookie",
    "api-key",
    "api_key",
    "bearer",
];

/// Keys known by how they begin, as their issuers publish it for secret scanners.
const SHAPES: [Shape; 17] = [
    Shape { prefix: "sk-", min: 17 },
    Shape { prefix: "sk_live_", min: 16 },
    Shape { prefix: "rk_live_", min: 16 },
    Shape { prefix: "AIza", min: 35 },
    Shape { prefix: "gsk_", min: 20 },
    Shape { prefix: "xai-", min: 20 },
    Shape { prefix: "pplx-", min: 20 },
    Shape { prefix: "hf_", min: 20 },
    Shape { prefix: "r8_", min: 20 },
    Shape { prefix: "ghp_", min: 36 },
    Shape { prefix: "gho_", min: 36 },
    Shape { prefix: "ghs_", min: 36 },
    Shape { prefix: "github_pat_", min: 22 },
    Shape { prefix: "glpat-", min: 20 },
    Shape { prefix: "xoxb-", min: 20 },
    Shape { prefix: "xoxp-", min: 20 },
    Shape { prefix: "AKIA", min: 16 },
];

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: &str = "lease-token-of-this-call";

    fn redactor() -> Redactor {
        Redactor::new(Digest([7; 32]), ["the-real-provider-key".to_owned(), "x".to_owned()], &["acme_live_".to_owned()])
    }

    fn text(input: &str) -> (String, Vec<&'static str>) {
        let redacted = redactor().redact(LEASE, input.as_bytes(), usize::MAX);
        (String::from_utf8(redacted.bytes).expect("still text"), redacted.rules)
    }

    #[test]
    fn every_kind_of_secret_is_replaced() {
        let pem = "-----BEGIN EC PRIVATE KEY-----\\nMHcCAQEE\\n-----END EC PRIVATE KEY-----";
        for (secret, before, after, rule) in [
            (LEASE, "x", "y", "lease"),
            ("the-real-provider-key", "\"", "\"", "provider-key"),
            ("sk-abcdefghijklmnopqrst", "key ", ".", "key-shape"),
            ("sk-ant-api03-abcdefghijklmnop_-", "(", ")", "key-shape"),
            ("AKIAABCDEFGHIJKLMNOP", "=", "\n", "key-shape"),
            ("abcdefghij0123456789", "Authorization: Bearer ", "\r\n", "authorization"),
            ("dXNlcjpwYXNzd29yZDE=", "\"authorization\": \"Basic ", "\"", "authorization"),
            ("abcdefghij0123456789", "\\\"x-api-key\\\":\\\"", "\\\"", "authorization"),
            ("eyJh0.eyJz.c2ln1234567", "bearer ", " ", "authorization"),
            (pem, "", " end", "private-key"),
            ("acme_live_12345678", "key=", ",", "configured"),
        ] {
            let (redacted, rules) = text(&format!("{before}{secret}{after}"));
            assert!(!redacted.contains(secret), "{secret} in {redacted}");
            assert!(redacted.starts_with(&format!("{before}[amc:redacted:")), "{redacted}");
            assert!(redacted.ends_with(&format!("]{after}")), "{redacted}");
            assert_eq!(rules, [rule], "{secret}");
        }
    }

    #[test]
    fn prose_stays_as_it_is() {
        for prose in [
            "A risk-based approach to authorization: everybody agrees.",
            "the bearer of this letter, sk-8 and task-oriented-programming-in-practice",
            "api-key: required",
            "",
        ] {
            assert_eq!(text(prose), (prose.to_owned(), vec![]));
        }
    }

    #[test]
    fn the_same_secret_has_the_same_mark_under_one_key_only() {
        let (first, _) = text("sk-abcdefghijklmnopqrst");
        let (again, _) = text("sk-abcdefghijklmnopqrst");
        assert_eq!(first, again);
        let other = Redactor::new(Digest([8; 32]), [], &[]).redact(LEASE, b"sk-abcdefghijklmnopqrst", 100);
        assert_ne!(other.bytes, first.into_bytes());
    }

    #[test]
    fn a_secret_across_the_cut_leaves_no_part() {
        let secret = "sk-abcdefghijklmnopqrstuvwxyz";
        let input = format!("{}{secret} and more", "a ".repeat(10));
        for keep in 0..input.len() {
            let redacted = redactor().redact(LEASE, input.as_bytes(), keep);
            let kept = String::from_utf8_lossy(&redacted.bytes).into_owned();
            assert!(!kept.contains("sk-"), "{keep}: {kept}");
            assert!(redacted.bytes.len() <= keep);
        }
    }

    #[test]
    fn real_keys_are_told_from_placeholders() {
        assert!(has_key_shape("sk-proj-0123456789abcdefghij"));
        assert!(!has_key_shape("sk-short") && !has_key_shape("not-needed") && !has_key_shape("EMPTY"));
    }
}

//! Secrets never reach the stored copy of a body: the lease, the providers' keys, and whatever has
//! the shape of a key. A keyed commitment stands in each place, so that the same secret can be
//! recognised again by whoever holds the commitment key and by nobody else.
//!
//! ```text
//! [amc:redacted:<first 8 bytes of keyed BLAKE3 of the secret, hex>]
//! ```
//!
//! The bytes that pass are never touched; only the copy is, before it leaves this process.

use std::ops::Range;

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

/// What may begin with a byte.
#[derive(Clone, Copy)]
enum First {
    Nothing,
    /// What begins a word.
    Word,
    /// What counts anywhere.
    Any,
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
        let mut no_digits = 0..0;
        while at < bytes.len().min(keep) {
            let found = match first_bytes[usize::from(bytes[at])] {
                First::Nothing => None,
                First::Word if is_plainly_within_token(bytes, at) => None,
                First::Word | First::Any => self.secret_at(lease, bytes, at, &mut no_digits),
            };
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

    /// What may begin with each byte.
    fn first_bytes(&self, lease: &str) -> [First; 256] {
        let mut table = [First::Nothing; 256];
        let own = self.prefixes.iter().map(String::as_str);
        let shapes = SHAPES.iter().chain([&LEASE]).map(|shape| shape.prefix).chain([JWT_BEGIN]).chain(own);
        for first in shapes.filter_map(|text| text.bytes().next()) {
            table[usize::from(first)] = First::Word;
        }
        for first in VALUE_NAMES.iter().chain(&COOKIE_NAMES).filter_map(|name| name.bytes().next()) {
            table[usize::from(first)] = First::Word;
            table[usize::from(first.to_ascii_uppercase())] = First::Word;
        }
        // These count also within a word.
        let exact = self.provider_keys.iter().map(|key| key.as_str()).chain([lease, PEM_BEGIN, "?", "&"]);
        for first in exact.filter_map(|text| text.bytes().next()) {
            table[usize::from(first)] = First::Any;
        }
        table
    }

    /// The secret at this place; `no_digits` as [`value_at`] has it.
    fn secret_at(&self, lease: &str, bytes: &[u8], at: usize, no_digits: &mut Range<usize>) -> Option<Found> {
        let rest = &bytes[at..];
        let found = |len: usize, rule| Some(Found { start: at, end: at + len, rule });
        if let Some((len, rule)) = self.exact_at(lease, rest) {
            return found(len, rule);
        }
        if rest.starts_with(PEM_BEGIN.as_bytes()) {
            return pem_len(rest).and_then(|len| found(len, "private-key"));
        }
        if let Some((start, end)) = query_value_at(rest) {
            return Some(Found { start: at + start, end: at + end, rule: "query-key" });
        }
        if is_within_token(&bytes[..at]) {
            return None;
        }
        if let Some(len) = jwt_len(rest) {
            return found(len, "key-shape");
        }
        if let Some((start, end)) = cookie_at(rest) {
            return Some(Found { start: at + start, end: at + end, rule: "cookie" });
        }
        if let Some(len) = SHAPES.iter().chain([&LEASE]).find_map(|shape| shape.len_at(rest)) {
            return found(len, "key-shape");
        }
        let own = self.prefixes.iter().find_map(|prefix| key_len(prefix, OWN_KEY_BYTES_MIN, rest));
        if let Some(len) = own {
            return found(len, "configured");
        }
        let (start, end) = value_at(bytes, at, no_digits)?;
        // A key of ours may go on beyond the characters of a usual token.
        let end = self.exact_at(lease, &bytes[start..]).map_or(end, |(len, _)| end.max(start + len));
        Some(Found { start, end, rule: "authorization" })
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
    let mut len = token_len(rest);
    if len < min {
        return None;
    }
    // Some have parts with dots between them; a dot at the end is the sentence's.
    while rest.get(len) == Some(&b'.') && rest.get(len + 1).is_some_and(|byte| is_token(*byte)) {
        len += 1 + token_len(&rest[len + 1..]);
    }
    Some(prefix.len() + len)
}

fn token_len(bytes: &[u8]) -> usize {
    run_len(bytes, is_token)
}

/// How many bytes at the beginning belong to one run. All that looks beyond a fixed distance goes through here.
fn run_len(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    let len = bytes.iter().take_while(|byte| belongs(**byte)).count();
    #[cfg(test)]
    tests::LOOKED_AT.with(|looked_at| looked_at.set(looked_at.get() + len));
    len
}

/// The length of a JSON Web Token at the beginning of `bytes`: three parts, the first an object.
fn jwt_len(bytes: &[u8]) -> Option<usize> {
    let first = bytes.strip_prefix(JWT_BEGIN.as_bytes()).map(|rest| JWT_BEGIN.len() + token_len(rest))?;
    let second = bytes.get(first).filter(|dot| **dot == b'.').map(|_| token_len(&bytes[first + 1..]))?;
    let at = first + 1 + second;
    let third = bytes.get(at).filter(|dot| **dot == b'.').map_or(0, |_| 1 + token_len(&bytes[at + 1..]));
    (second >= JWT_PART_BYTES_MIN && third > 0).then_some(at + third)
}

/// Whether what stands at `at` goes on a word, as far as four bytes say it: most bytes of a text do, and are passed over.
fn is_plainly_within_token(bytes: &[u8], at: usize) -> bool {
    let before = |count: usize| at.checked_sub(count).map_or(0, |at| bytes[at]);
    is_token(before(1)) && before(2) != b'\\' && before(3) != b'%' && before(6) != b'\\'
}

/// Whether what follows `before` goes on a word. The letter of an escape (`\n`, `\u000a`, `%22`) is
/// no part of one: a key on a line of its own stands in JSON as `\nsk-…`.
fn is_within_token(before: &[u8]) -> bool {
    let Some(last) = before.last() else { return false };
    let from_end = |count: usize| before.len().checked_sub(count).map(|at| &before[at..]);
    let is_hex = |text: &[u8]| text.iter().all(u8::is_ascii_hexdigit);
    let is_escape = from_end(2).is_some_and(|text| text[0] == b'\\' && b"nrtbf".contains(&text[1]))
        || from_end(3).is_some_and(|text| text[0] == b'%' && is_hex(&text[1..]))
        || from_end(6).is_some_and(|text| text.starts_with(b"\\u") && is_hex(&text[2..]));
    is_token(*last) && !is_escape
}

/// `?key=VALUE`, `&access_token=VALUE` and the like: the place of the value.
fn query_value_at(bytes: &[u8]) -> Option<(usize, usize)> {
    let rest = bytes.strip_prefix(b"?").or_else(|| bytes.strip_prefix(b"&"))?;
    let name_len = token_len(&rest[..rest.len().min(QUERY_NAME_BYTES_MAX)]);
    let named = QUERY_NAMES.iter().any(|name| rest[..name_len].eq_ignore_ascii_case(name.as_bytes()));
    let start = (named && rest.get(name_len) == Some(&b'=')).then_some(1 + name_len + 1)?;
    let len = run_len(&bytes[start..], |byte| !byte.is_ascii_whitespace() && !b"&#\"'<>\\".contains(&byte));
    (len >= QUERY_VALUE_BYTES_MIN).then_some((start, start + len))
}

/// `Cookie: a=b; c=d` and `set-cookie`: the place of all that stands there.
fn cookie_at(bytes: &[u8]) -> Option<(usize, usize)> {
    let name = COOKIE_NAMES
        .iter()
        .find(|name| bytes.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes())))?;
    let start = name.len() + separator_len(&bytes[name.len()..]);
    let pair = token_len(&bytes[start..]);
    let is_pair = start > name.len() && pair > 0 && bytes.get(start + pair) == Some(&b'=');
    // The line is looked at only where it is one: a name that is repeated would have it looked at each time.
    let len = is_pair.then(|| run_len(&bytes[start..], |byte| !b"\r\n\"'\\".contains(&byte)))?;
    (len >= COOKIE_BYTES_MIN).then_some((start, start + len))
}

/// What stands between a name and its value, also where it is escaped or percent-encoded.
fn separator_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while at < SEPARATOR_BYTES_MAX {
        let rest = &bytes[at..];
        let encoded = |code: &&[u8; 3]| rest.get(..3).is_some_and(|text| text.eq_ignore_ascii_case(&code[..]));
        at += match rest.first() {
            Some(byte) if b"\\\"' \t:=".contains(byte) => 1,
            _ if [b"%3a", b"%20", b"%3d", b"%22", b"%27", b"%5c"].iter().any(encoded) => 3,
            _ => break,
        };
    }
    at
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// `Bearer TOKEN`, `authorization: [scheme] TOKEN`, `"x-api-key": "TOKEN"` and the like: the place
/// of the token after the name that stands at `from`. `no_digits` is the last run of a value's characters that
/// turned out to have no digit: what begins within it need not be looked at again.
fn value_at(text: &[u8], from: usize, no_digits: &mut Range<usize>) -> Option<(usize, usize)> {
    let bytes = &text[from..];
    let name = VALUE_NAMES
        .iter()
        .find(|name| bytes.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes())))?;
    let mut at = name.len();
    let skip = |at: usize, set: &[u8], max: usize| {
        at + bytes[at..].iter().take(max).take_while(|byte| set.contains(byte)).count()
    };
    let separated = separator_len(&bytes[at..]);
    if separated == 0 {
        return None;
    }
    at += separated;
    for scheme in ["bearer", "basic", "token"] {
        let named = bytes[at..].get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()));
        let after = at + scheme.len();
        if named && bytes.get(after) == Some(&b' ') {
            at = skip(after, b" ", 8);
        } else if named && bytes[after..].starts_with(b"%20") {
            at = after + 3;
        }
    }
    if no_digits.contains(&(from + at)) {
        return None;
    }
    let len = run_len(&bytes[at..], |byte| is_token(byte) || b".~+/=%".contains(&byte));
    // A word of prose after "authorization:" is no secret; one of sixteen characters with a digit may be.
    if !bytes[at..at + len].iter().any(u8::is_ascii_digit) {
        *no_digits = from + at..from + at + len;
        return None;
    }
    (len >= VALUE_BYTES_MIN).then_some((from + at, from + at + len))
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
const VALUE_NAMES: [&str; 19] = [
    "proxy-authorization",
    "authorization",
    "x-goog-api-key",
    "x-api-key",
    "x-auth-token",
    "x-amz-security-token",
    "ocp-apim-subscription-key",
    "aws_secret_access_key",
    "secret_access_key",
    "secretaccesskey",
    "aws_session_token",
    "client_secret",
    "refresh_token",
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "password",
    "bearer",
];

const COOKIE_NAMES: [&str; 2] = ["set-cookie", "cookie"];

/// Names of a query whose values are secrets.
const QUERY_NAMES: [&str; 12] = [
    "key",
    "api_key",
    "api-key",
    "apikey",
    "access_token",
    "refresh_token",
    "token",
    "auth",
    "password",
    "secret",
    "client_secret",
    "sig",
];

/// The longest of those, and one more.
const QUERY_NAME_BYTES_MAX: usize = 16;

/// Shorter values would be switches.
const QUERY_VALUE_BYTES_MIN: usize = 8;

/// Shorter ones carry no session.
const COOKIE_BYTES_MIN: usize = 8;

/// More between a name and its value make a sentence.
const SEPARATOR_BYTES_MAX: usize = 12;

/// `{"` in base64, with which every header of a JSON Web Token begins.
const JWT_BEGIN: &str = "eyJ";

const JWT_PART_BYTES_MIN: usize = 2;

/// Leases of others: secrets, and no keys of a provider.
const LEASE: Shape = Shape { prefix: "amc-lease-", min: 32 };

/// Keys known by how they begin, as their issuers publish it for secret scanners.
const SHAPES: [Shape; 40] = [
    Shape { prefix: "sk-", min: 17 },
    Shape { prefix: "sk_live_", min: 16 },
    Shape { prefix: "sk_test_", min: 16 },
    Shape { prefix: "rk_live_", min: 16 },
    Shape { prefix: "AIza", min: 35 },
    Shape { prefix: "ya29.", min: 20 },
    Shape { prefix: "GOCSPX-", min: 20 },
    Shape { prefix: "gsk_", min: 20 },
    Shape { prefix: "xai-", min: 20 },
    Shape { prefix: "tgp_v1_", min: 20 },
    Shape { prefix: "pplx-", min: 20 },
    Shape { prefix: "nvapi-", min: 20 },
    Shape { prefix: "csk-", min: 20 },
    Shape { prefix: "hf_", min: 20 },
    Shape { prefix: "r8_", min: 20 },
    Shape { prefix: "ghp_", min: 36 },
    Shape { prefix: "gho_", min: 36 },
    Shape { prefix: "ghu_", min: 36 },
    Shape { prefix: "ghs_", min: 36 },
    Shape { prefix: "ghr_", min: 36 },
    Shape { prefix: "github_pat_", min: 22 },
    Shape { prefix: "glpat-", min: 20 },
    Shape { prefix: "xoxa-", min: 20 },
    Shape { prefix: "xoxb-", min: 20 },
    Shape { prefix: "xoxe-", min: 20 },
    Shape { prefix: "xoxp-", min: 20 },
    Shape { prefix: "xoxr-", min: 20 },
    Shape { prefix: "xoxs-", min: 20 },
    Shape { prefix: "xapp-", min: 20 },
    Shape { prefix: "AKIA", min: 16 },
    Shape { prefix: "ASIA", min: 16 },
    Shape { prefix: "npm_", min: 36 },
    Shape { prefix: "pypi-", min: 50 },
    Shape { prefix: "SG.", min: 16 },
    Shape { prefix: "dop_v1_", min: 40 },
    Shape { prefix: "hvs.", min: 20 },
    Shape { prefix: "dapi", min: 32 },
    Shape { prefix: "lin_api_", min: 20 },
    Shape { prefix: "tskey-", min: 16 },
    Shape { prefix: "AGE-SECRET-KEY-1", min: 40 },
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
            ("amc-lease-0123456789abcdef0123456789abcdef", "another's: ", ".", "key-shape"),
            ("sk-abcdefghijklmnopqrst", "KEY:\\n", "\\n", "key-shape"),
            ("sk-abcdefghijklmnopqrst", "x\\u000a", "\\u000a", "key-shape"),
            ("AKIAABCDEFGHIJKLMNOP", "k%3D%22", "%22", "key-shape"),
            ("ASIAABCDEFGHIJKLMNOP", "\n", ".", "key-shape"),
            ("SG.abcdefghijklmnop1234.abcdefghij", " ", ".", "key-shape"),
            ("xapp-1-A0123456789-abcdef", " ", " ", "key-shape"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "\"", "\"", "key-shape"),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = ", "\n", "authorization"),
            ("abcdefghij0123456789", "Authorization%3A%20Bearer%20", "&", "authorization"),
            ("sid=abc; theme=dark; csrf=9f8e", "Cookie: ", "\r\n", "cookie"),
            ("sid=abcdefgh; Path=/", "\"set-cookie\": \"", "\"", "cookie"),
            ("hunter2hunter2", "https://x.test/a?access_token=", "&b=1", "query-key"),
            ("short-but-secret", "https://x.test/a?b=1&key=", " ", "query-key"),
        ] {
            let (redacted, rules) = text(&format!("{before}{secret}{after}"));
            assert!(!redacted.contains(secret), "{secret} in {redacted}");
            assert!(redacted.starts_with(&format!("{before}[amc:redacted:")), "{redacted}");
            assert!(redacted.ends_with(&format!("]{after}")), "{redacted}");
            assert_eq!(rules, [rule], "{secret}");
        }
    }

    thread_local! {
        /// Bytes of runs that were looked at on this thread.
        pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[test]
    fn no_text_is_looked_at_again_and_again() {
        const LEN: usize = 1 << 14;
        let pem = "-----BEGIN PRIVATE KEY-----";
        for piece in [
            "cookie:",
            "cookie: a",
            "set-cookie:",
            "cookie:a=",
            "bearer=",
            "bearer ",
            "bearer/a",
            "authorization:",
            "api_key=%3D",
            "password=bearer=",
            "eyJ",
            "eyJ.",
            "eyJa.b",
            "sk-",
            "sk-.",
            "?key=",
            "?key",
            "&token=a",
            "\\ncookie:",
            "\\nbearer=",
            "%3aeyJ",
            "a ",
            "x",
            "acme_live_",
            "amc-lease-",
            pem,
        ] {
            let text = piece.repeat(LEN / piece.len());
            LOOKED_AT.with(|looked_at| looked_at.set(0));
            redactor().redact(LEASE, text.as_bytes(), usize::MAX);
            let looked_at = LOOKED_AT.with(std::cell::Cell::get);
            assert!(looked_at <= 8 * LEN, "{piece:?} repeated to {LEN} bytes: {looked_at} were looked at");
        }
    }

    #[test]
    fn prose_stays_as_it_is() {
        for prose in [
            "A risk-based approach to authorization: everybody agrees.",
            "the bearer of this letter, sk-8 and task-oriented-programming-in-practice",
            "api-key: required",
            "Cookie: a small sweet thing, made with butter",
            "is it so?key=no&token=few \\nothing-to-see-here",
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
        assert!(!has_key_shape(&format!("amc-lease-{}", "0123456789abcdef".repeat(3))), "no provider takes a lease");
    }
}

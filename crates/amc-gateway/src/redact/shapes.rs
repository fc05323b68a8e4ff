//! How secrets look: by their beginning, by the name before them, by what is around them.

use std::ops::Range;

/// A kind of key that is known by its beginning.
pub(super) struct Shape {
    pub(super) prefix: &'static str,
    /// Characters after the prefix, at least.
    min: usize,
}

impl Shape {
    pub(super) fn len_at(&self, bytes: &[u8]) -> Option<usize> {
        key_len(self.prefix, self.min, bytes)
    }
}

/// The length of a key at the beginning of `bytes`: a prefix, and at least so many characters more.
pub(super) fn key_len(prefix: &str, min: usize, bytes: &[u8]) -> Option<usize> {
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
    looked_at(len);
    len
}

/// Tells the tests how much was looked at, so that they see what grows with the square of a text.
#[cfg_attr(not(test), expect(clippy::missing_const_for_fn, reason = "it counts in tests"))]
pub(super) fn looked_at(count: usize) {
    #[cfg(test)]
    super::tests::LOOKED_AT.with(|looked_at| looked_at.set(looked_at.get() + count));
    #[cfg(not(test))]
    let _ = count;
}

/// The length of a JSON Web Token at the beginning of `bytes`: three parts, the first an object.
pub(super) fn jwt_len(bytes: &[u8]) -> Option<usize> {
    let first = bytes.strip_prefix(JWT_BEGIN.as_bytes()).map(|rest| JWT_BEGIN.len() + token_len(rest))?;
    let second = bytes.get(first).filter(|dot| **dot == b'.').map(|_| token_len(&bytes[first + 1..]))?;
    let at = first + 1 + second;
    let third = bytes.get(at).filter(|dot| **dot == b'.').map_or(0, |_| 1 + token_len(&bytes[at + 1..]));
    (second >= JWT_PART_BYTES_MIN && third > 0).then_some(at + third)
}

/// Whether what follows `before` goes on a word. The letter of an escape (`\n`, `\u000a`, `%22`) is
/// no part of one: a key on a line of its own stands in JSON as `\nsk-…`.
pub(super) fn is_within_token(before: &[u8]) -> bool {
    let Some(last) = before.last() else { return false };
    let from_end = |count: usize| before.len().checked_sub(count).map(|at| &before[at..]);
    let is_hex = |text: &[u8]| text.iter().all(u8::is_ascii_hexdigit);
    let is_escape = from_end(2).is_some_and(|text| text[0] == b'\\' && b"nrtbf".contains(&text[1]))
        || from_end(3).is_some_and(|text| text[0] == b'%' && is_hex(&text[1..]))
        || from_end(6).is_some_and(|text| text.starts_with(b"\\u") && is_hex(&text[2..]));
    is_token(*last) && !is_escape
}

/// `?key=VALUE`, `&access_token=VALUE` and the like: the place of the value.
pub(super) fn query_value_at(bytes: &[u8]) -> Option<(usize, usize)> {
    let rest = bytes.strip_prefix(b"?").or_else(|| bytes.strip_prefix(b"&"))?;
    let name_len = token_len(&rest[..rest.len().min(QUERY_NAME_BYTES_MAX)]);
    let named = QUERY_NAMES.iter().any(|name| rest[..name_len].eq_ignore_ascii_case(name.as_bytes()));
    let start = (named && rest.get(name_len) == Some(&b'=')).then_some(1 + name_len + 1)?;
    let len = run_len(&bytes[start..], |byte| !byte.is_ascii_whitespace() && !b"&#\"'<>\\".contains(&byte));
    (len >= QUERY_VALUE_BYTES_MIN).then_some((start, start + len))
}

/// `Cookie: a=b; c=d` and `set-cookie`: the place of all that stands there.
pub(super) fn cookie_at(bytes: &[u8]) -> Option<(usize, usize)> {
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
pub(super) fn value_at(text: &[u8], from: usize, no_digits: &mut Range<usize>) -> Option<(usize, usize)> {
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
pub(super) fn pem_len(bytes: &[u8]) -> Option<usize> {
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

/// The shortest token that counts as the value of an authorization header.
const VALUE_BYTES_MIN: usize = 16;

pub(super) const PEM_BEGIN: &str = "-----BEGIN ";

/// Names before a secret value; a name that is the beginning of another stands after it.
pub(super) const VALUE_NAMES: [&str; 19] = [
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

pub(super) const COOKIE_NAMES: [&str; 2] = ["set-cookie", "cookie"];

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
pub(super) const JWT_BEGIN: &str = "eyJ";

const JWT_PART_BYTES_MIN: usize = 2;

/// Leases of others: secrets, and no keys of a provider.
pub(super) const LEASE: Shape = Shape { prefix: "amc-lease-", min: 32 };

/// Keys known by how they begin, as their issuers publish it for secret scanners.
pub(super) const SHAPES: [Shape; 40] = [
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

//! Secrets never reach the stored copy of a body: the lease, the providers' keys, and whatever has
//! the shape of a key. A keyed commitment stands in each place, so that the same secret can be
//! recognised again by whoever holds the commitment key and by nobody else.
//!
//! ```text
//! [amc:redacted:<first 8 bytes of keyed BLAKE3 of the secret, hex>]
//! ```
//!
//! The bytes that pass are never touched; only the copy is, before it leaves this process.

mod shapes;
mod stream;

use std::ops::Range;

use amc_core::Digest;
use amc_core::digest::hex;
use regex::bytes::Regex;
use zeroize::Zeroizing;

use shapes::{
    COOKIE_NAMES, JWT_BEGIN, LEASE, PEM_BEGIN, SHAPES, VALUE_NAMES, cookie_at, is_within_token, jwt_len, key_len,
    pem_len, query_value_at, value_at,
};

/// Knows the providers' keys and how secrets look.
pub(crate) struct Redactor {
    commitment_key: [u8; 32],
    provider_keys: Vec<Zeroizing<String>>,
    /// Beginnings of the owner's own keys.
    prefixes: Vec<String>,
    /// What the owner calls a secret.
    patterns: Vec<Regex>,
    begins: Begins,
}

/// A copy without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redacted {
    /// At most as many bytes as were to be kept.
    pub(crate) bytes: Vec<u8>,
    /// The rules that applied, each once, in order of name.
    pub(crate) rules: Vec<&'static str>,
}

/// Where a secret may begin, told by two bytes: most of a text is passed over for it.
struct Begins {
    /// Pairs with which a word may begin that is a secret, or its name.
    words: Pairs,
    /// Pairs with which a secret may begin within a word as well.
    anywhere: Pairs,
    /// Both.
    all: Pairs,
}

/// A set of pairs of bytes, one bit for each.
struct Pairs(Box<[u64; PAIRS / 64]>);

const PAIRS: usize = 1 << 16;

impl Pairs {
    fn empty() -> Self {
        Pairs(Box::new([0; PAIRS / 64]))
    }

    /// Takes in how a text begins; one of one byte may be followed by any.
    fn add(&mut self, text: &str) {
        match *text.as_bytes() {
            [] => {}
            [first] => (0..=u8::MAX).for_each(|second| self.insert([first, second])),
            [first, second, ..] => self.insert([first, second]),
        }
    }

    fn insert(&mut self, pair: [u8; 2]) {
        let at = usize::from(u16::from_be_bytes(pair));
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn has(&self, pair: [u8; 2]) -> bool {
        let at = usize::from(u16::from_be_bytes(pair));
        self.0[at / 64] & (1 << (at % 64)) != 0
    }
}

impl Begins {
    fn new() -> Self {
        Begins { words: Pairs::empty(), anywhere: Pairs::empty(), all: Pairs::empty() }
    }

    fn word(&mut self, text: &str) {
        self.words.add(text);
        self.all.add(text);
    }

    /// A name that counts in capitals, too.
    fn name(&mut self, name: &str) {
        for upper in 0..4 {
            let letter = |(at, letter): (usize, char)| {
                if upper & (1 << at) == 0 { letter } else { letter.to_ascii_uppercase() }
            };
            self.word(&name.chars().take(2).enumerate().map(letter).collect::<String>());
        }
    }

    fn anywhere(&mut self, text: &str) {
        self.anywhere.add(text);
        self.all.add(text);
    }

    /// Whether something may begin at a place; `lease` as the lease begins.
    fn may_at(&self, lease: Option<[u8; 2]>, bytes: &[u8], at: usize) -> bool {
        let Some(pair) = bytes[at..].first_chunk().copied() else { return false };
        self.anywhere.has(pair) || lease == Some(pair) || (self.words.has(pair) && !is_within_token(&bytes[..at]))
    }

    /// The first place from `at` on, before `end`, where something may begin; `lease` as the lease begins.
    fn next(&self, lease: Option<[u8; 2]>, bytes: &[u8], at: usize, end: usize) -> usize {
        let of_lease = lease.unwrap_or_default();
        let mut block = at;
        while block < end {
            // No branch for each byte: in most blocks nothing begins.
            let block_end = end.min(block + BLOCK_BYTES);
            let pairs = bytes[block..bytes.len().min(block_end + 1)].array_windows();
            let any = pairs.fold(false, |any, pair| any | self.all.has(*pair) | (*pair == of_lease));
            if any && let Some(place) = (block..block_end).find(|place| self.may_at(lease, bytes, *place)) {
                return place;
            }
            block = block_end;
        }
        end
    }
}

/// Bytes of a text that are passed over together.
const BLOCK_BYTES: usize = 32;

/// One secret within a text.
struct Found {
    start: usize,
    end: usize,
    rule: &'static str,
}

impl Redactor {
    /// Takes the key of the commitments, the providers' keys, beginnings of keys of one's own, and patterns.
    pub(crate) fn new(
        commitment_key: Digest,
        provider_keys: impl IntoIterator<Item = String>,
        prefixes: &[String],
        patterns: Vec<Regex>,
    ) -> Self {
        let provider_keys = provider_keys.into_iter().filter(|key| key.len() >= EXACT_BYTES_MIN);
        let provider_keys: Vec<_> = provider_keys.map(Zeroizing::new).collect();
        let mut begins = Begins::new();
        let own = prefixes.iter().map(String::as_str);
        let shapes = SHAPES.iter().chain([&LEASE]).map(|shape| shape.prefix).chain([JWT_BEGIN]).chain(own);
        shapes.for_each(|prefix| begins.word(prefix));
        VALUE_NAMES.iter().chain(&COOKIE_NAMES).for_each(|name| begins.name(name));
        let exact = provider_keys.iter().map(|key| key.as_str()).chain([PEM_BEGIN, "?", "&"]);
        exact.for_each(|text| begins.anywhere(text));
        Redactor { commitment_key: commitment_key.0, provider_keys, prefixes: prefixes.to_vec(), patterns, begins }
    }

    /// Copies `bytes` without the secrets in it and keeps what began in the first `keep` of them.
    ///
    /// `bytes` should reach [`OVERLAP_BYTES`] beyond `keep` where there is more, so that a secret
    /// across the cut is seen whole.
    pub(crate) fn redact(&self, lease: &str, bytes: &[u8], keep: usize) -> Redacted {
        let end = bytes.len().min(keep);
        let mut redacted = Redacted { bytes: Vec::with_capacity(end), rules: Vec::new() };
        let mut copied = 0;
        for found in self.secrets(lease, bytes, end) {
            redacted.bytes.extend_from_slice(&bytes[copied..found.start.min(keep)]);
            redacted.bytes.extend_from_slice(self.mark(&bytes[found.start..found.end]).as_bytes());
            if !redacted.rules.contains(&found.rule) {
                redacted.rules.push(found.rule);
            }
            copied = found.end;
        }
        if copied < end {
            redacted.bytes.extend_from_slice(&bytes[copied..end]);
        }
        redacted.bytes.truncate(keep);
        redacted.rules.sort_unstable();
        redacted
    }

    /// The same of an answer that came as a stream of JSON values: a secret may go across them.
    pub(crate) fn redact_stream(&self, lease: &str, bytes: &[u8], keep: usize) -> Redacted {
        let Some(rewritten) = stream::rewritten(self, lease, bytes, keep) else {
            return self.redact(lease, bytes, keep);
        };
        let mut redacted = self.redact(lease, &rewritten.bytes, rewritten.keep);
        redacted.rules.extend(rewritten.rules);
        redacted.rules.sort_unstable();
        redacted.rules.dedup();
        redacted
    }

    /// The secrets that begin before `end`, in order, none within another.
    fn secrets(&self, lease: &str, bytes: &[u8], end: usize) -> Vec<Found> {
        let lease_begins = lease.as_bytes().first_chunk().copied();
        let (mut all, mut at, mut no_digits) = (Vec::new(), 0, 0..0);
        let mut begins_at = |at: usize| {
            let may = self.begins.may_at(lease_begins, bytes, at);
            if may { self.secret_at(lease, bytes, at, &mut no_digits) } else { None }
        };
        let mut named = self.named_by_patterns(bytes).into_iter().peekable();
        loop {
            // What begins before or here goes from here on; an earlier secret may have taken its beginning.
            while named.next_if(|range| range.end <= at).is_some() {}
            let begins = named.peek().map_or(end, |range| range.start.clamp(at, end.max(at)));
            at = self.begins.next(lease_begins, bytes, at, begins.max(at));
            if at >= end {
                return all;
            }
            let named = named.peek().filter(|range| range.start <= at);
            let found = match (begins_at(at), named) {
                (found, Some(range)) => {
                    // What begins within it may go on beyond it.
                    let mut end = found.map_or(range.end, |found| found.end.max(range.end));
                    let mut within = at + 1;
                    while within < end {
                        let ends = begins_at(within).map_or(within + 1, |found| found.end);
                        (end, within) = (end.max(ends), ends);
                    }
                    Found { start: at, end, rule: "configured" }
                }
                (Some(found), None) => found,
                (None, None) => {
                    at += 1;
                    continue;
                }
            };
            at = found.end;
            all.push(found);
        }
    }

    /// A short text without secrets, for fields.
    pub(crate) fn redact_text(&self, lease: &str, text: &str, keep: usize) -> String {
        let redacted = self.redact(lease, text.as_bytes(), keep);
        String::from_utf8_lossy(&redacted.bytes).into_owned()
    }

    /// Where the patterns match, in order, none touching another.
    fn named_by_patterns(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let matches = self.patterns.iter().flat_map(|pattern| pattern.find_iter(bytes).map(|found| found.range()));
        let mut ranges: Vec<Range<usize>> = matches.filter(|range| !range.is_empty()).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, range| {
            let touches = next.start <= range.end;
            if touches {
                range.end = range.end.max(next.end);
            }
            touches
        });
        ranges
    }

    fn mark(&self, secret: &[u8]) -> String {
        let commitment = blake3::keyed_hash(&self.commitment_key, secret);
        format!("[amc:redacted:{}]", hex(&commitment.as_bytes()[..8]))
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

/// How far beyond the kept bytes a copy should reach: longer than any key that is looked for.
pub(crate) const OVERLAP_BYTES: usize = 4096;

/// Shorter secrets would blank out ordinary words.
const EXACT_BYTES_MIN: usize = 6;

/// Characters that follow a configured prefix, at least.
const OWN_KEY_BYTES_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: &str = "lease-token-of-this-call";

    pub(super) fn redactor() -> Redactor {
        let patterns = ["CUST-[0-9]{8}", "the word .* of the day", "4711", "word sk-[a-z]{4}"];
        let patterns = patterns.map(|pattern| Regex::new(pattern).expect("a pattern")).to_vec();
        let keys = ["the-real-provider-key".to_owned(), "x".to_owned()];
        Redactor::new(Digest([7; 32]), keys, &["acme_live_".to_owned()], patterns)
    }

    fn text(input: &str) -> (String, Vec<&'static str>) {
        let redacted = redactor().redact(LEASE, input.as_bytes(), usize::MAX);
        (String::from_utf8(redacted.bytes).expect("still text"), redacted.rules)
    }

    #[test]
    fn what_is_passed_over_is_no_secret() {
        let keys = ["the-real-provider-key".to_owned()];
        let redactor = Redactor::new(Digest([7; 32]), keys, &["acme_live_".to_owned(), "q".to_owned()], Vec::new());
        let mut pieces: Vec<String> = SHAPES.iter().map(|shape| shape.prefix.to_owned()).collect();
        pieces.extend(VALUE_NAMES.iter().chain(&COOKIE_NAMES).map(|name| (*name).to_owned()));
        pieces.extend(VALUE_NAMES.iter().map(|name| name.to_ascii_uppercase()));
        let others = [
            LEASE,
            "the-real-provider-key",
            "acme_live_",
            "q",
            "eyJ",
            ".eyJx.",
            PEM_BEGIN,
            "PRIVATE KEY-----",
            "?key=",
            "&token=",
            "\\n",
            "\\u000a",
            "%22",
            "%",
            "\\",
            " ",
            "\n",
            ": ",
            "\": \"",
            "=",
            "a=b;",
            "word",
            "0",
            "abcdefghij0123456789abcdefghij0123456789",
            "Bearer ",
            "A",
        ];
        pieces.extend(others.map(str::to_owned));
        let mut random = 1_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).expect("31 bits") % below
        };
        let mut secrets = 0;
        for _ in 0..20_000 {
            let text: String = (0..=next(8)).map(|_| pieces[next(pieces.len())].as_str()).collect();
            let bytes = text.as_bytes();
            let (mut everywhere, mut at, mut no_digits) = (Vec::new(), 0, 0..0);
            while at < bytes.len() {
                let found = redactor.secret_at(LEASE, bytes, at, &mut no_digits);
                at = found.as_ref().map_or(at + 1, |found| found.end);
                everywhere.extend(found.map(|found| (found.start, found.end, found.rule)));
            }
            let found = redactor.secrets(LEASE, bytes, bytes.len());
            let found: Vec<_> = found.into_iter().map(|found| (found.start, found.end, found.rule)).collect();
            assert_eq!(found, everywhere, "{text}");
            secrets += found.len();
        }
        assert!(secrets > 5_000, "{secrets}");
    }

    #[test]
    fn a_pattern_and_a_shape_that_overlap_leave_nothing() {
        let (redacted, rules) = text("a word sk-abcdefghijklmnopqrst b");
        assert!(!redacted.contains("sk-") && !redacted.contains("qrst"), "{redacted}");
        assert!(redacted.starts_with("a [amc:") && redacted.ends_with("] b"), "{redacted}");
        assert_eq!(rules, ["configured"]);
        let (redacted, _) = text("sk-CUST-12345678-abcdefghijkl 4711");
        assert!(!redacted.contains("CUST") && !redacted.contains("4711"), "{redacted}");
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
            ("CUST-12345678", "of xCUST-1 and ", "9 y", "configured"),
            ("the word 4711 of the day", "", "", "configured"),
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

    #[test]
    fn the_inside_of_a_word_is_passed_over() {
        let begins = redactor().begins;
        let text = [b"x".repeat(1000).as_slice(), b"sk\\nsk-"].concat();
        assert_eq!(begins.next(None, &text, 1, text.len()), 1004, "after an escape");
        assert_eq!(begins.next(None, &text, 500, 600), 600);
        assert_eq!(begins.next(Some(*b"xs"), &text, 500, text.len()), 999, "a lease counts anywhere");
        assert_eq!(begins.next(None, b"sk", 0, 2), 0);
        assert_eq!(begins.next(None, b"st", 0, 2), 2, "nothing begins so");
    }

    thread_local! {
        /// Bytes of runs that were looked at on this thread.
        pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[test]
    fn no_text_is_looked_at_again_and_again() {
        const LEN: usize = 1 << 14;
        let all = Regex::new("(?s).+").expect("a pattern");
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
            // Also where a pattern takes all of it.
            for redactor in [redactor(), Redactor { patterns: vec![all.clone()], ..redactor() }] {
                let looked_at = looked_at_by(|| drop(redactor.redact(LEASE, text.as_bytes(), usize::MAX)));
                assert!(looked_at <= 8 * LEN, "{piece:?} repeated to {LEN} bytes: {looked_at} were looked at");
            }
        }
    }

    /// How much is looked at beyond a fixed distance.
    pub(super) fn looked_at_by(work: impl FnOnce()) -> usize {
        LOOKED_AT.with(|looked_at| looked_at.set(0));
        work();
        LOOKED_AT.with(std::cell::Cell::get)
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
        let other = Redactor::new(Digest([8; 32]), [], &[], Vec::new()).redact(LEASE, b"sk-abcdefghijklmnopqrst", 100);
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

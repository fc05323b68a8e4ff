//! Secrets that a streamed answer hands out in pieces: each piece alone is no secret, and all of them together are.
//!
//! The texts at the same place of consecutive JSON values (`choices[].delta.content` of one choice, say) are put
//! together and looked through. What goes across pieces is taken out of each of them, and the mark stands in the first.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

use super::shapes::looked_at;
use super::{Found, Redactor};

/// A text of a JSON value.
struct Piece {
    /// Where its literal stands, without the quotation marks.
    at: Range<usize>,
    text: String,
}

/// What takes the place of a literal, without the quotation marks.
struct Edit {
    at: Range<usize>,
    literal: String,
}

/// A stream without the secrets that go across its pieces.
pub(super) struct Rewritten {
    pub(super) bytes: Vec<u8>,
    /// Where what was to be kept ends now, and no later than before.
    pub(super) keep: usize,
    pub(super) rules: Vec<&'static str>,
}

/// Rewrites a stream, where a secret goes across pieces of it.
pub(super) fn rewritten(redactor: &Redactor, lease: &str, bytes: &[u8], keep: usize) -> Option<Rewritten> {
    let (mut edits, mut rules) = (Vec::new(), Vec::new());
    for pieces in pieces(bytes).into_values() {
        edit(redactor, lease, &pieces, &mut edits, &mut rules);
    }
    if edits.is_empty() {
        return None;
    }
    edits.sort_unstable_by_key(|edit: &Edit| edit.at.start);
    let (mut out, mut copied, mut kept) = (Vec::with_capacity(bytes.len()), 0, keep);
    for Edit { at, literal } in edits {
        if at.start < keep && keep < bytes.len() {
            kept = (kept + literal.len()).saturating_sub(at.len());
        }
        out.extend_from_slice(&bytes[copied..at.start]);
        out.extend_from_slice(literal.as_bytes());
        copied = at.end;
    }
    out.extend_from_slice(&bytes[copied..]);
    Some(Rewritten { bytes: out, keep: kept.min(keep), rules })
}

/// What has to change in the pieces of one text.
fn edit(redactor: &Redactor, lease: &str, pieces: &[Piece], edits: &mut Vec<Edit>, rules: &mut Vec<&'static str>) {
    // What every value repeats (ids, names of models) is no text in pieces.
    let is_text = pieces.windows(2).any(|pair| pair[0].text != pair[1].text);
    if !is_text {
        return;
    }
    let joined: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
    let secrets = redactor.secrets(lease, joined.as_bytes(), joined.len());
    let (mut begins, mut ahead) = (0, secrets.as_slice());
    for piece in pieces {
        let ends = begins + piece.text.len();
        let behind = ahead.iter().take_while(|found| found.end <= begins).count();
        ahead = &ahead[behind..];
        let here = ahead.iter().take_while(|found| found.start < ends);
        looked_at(behind + here.clone().count());
        let crosses = |found: &&Found| found.start < begins || ends < found.end;
        let (mut text, mut copied) = (String::new(), begins);
        for found in here.filter(crosses) {
            if found.start >= begins {
                text.push_str(&joined[copied..found.start]);
                text.push_str(&redactor.mark(&joined.as_bytes()[found.start..found.end]));
                if !rules.contains(&found.rule) {
                    rules.push(found.rule);
                }
            }
            copied = found.end.min(ends);
        }
        if copied > begins {
            text.push_str(&joined[copied..ends]);
            let quoted = serde_json::Value::from(text).to_string();
            edits.push(Edit { at: piece.at.clone(), literal: quoted[1..quoted.len() - 1].to_owned() });
        }
        begins = ends;
    }
}

/// The texts of all JSON values of a stream, one value a line or a `data:` field, by the place at which they stand.
fn pieces(bytes: &[u8]) -> BTreeMap<u64, Vec<Piece>> {
    let mut all: BTreeMap<u64, Vec<Piece>> = BTreeMap::new();
    let mut begins = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        Value::read(line, |place, at| {
            let literal = &line[at.start - 1..=at.end];
            let Ok(text) = serde_json::from_slice(literal) else { return };
            let at = begins + at.start..begins + at.end;
            all.entry(place).or_default().push(Piece { at, text });
        });
        begins += line.len();
    }
    all
}

/// Objects and lists around a text, as far as they are known.
struct Value {
    frames: Vec<Frame>,
    open: Vec<usize>,
}

struct Frame {
    parent: Option<usize>,
    /// Its key as a number; none where it has no key.
    key: Option<u64>,
    /// The number under `index`: of which choice, block or call it is.
    index: Option<u64>,
}

impl Value {
    /// Goes through a line; `text` gets the place of every text that is no key, as a number, and its literal.
    fn read(line: &[u8], mut text: impl FnMut(u64, Range<usize>)) {
        let mut value = Value { frames: Vec::new(), open: Vec::new() };
        let (mut key, mut leaves, mut at) = (&line[..0], Vec::new(), 0);
        while at < line.len() {
            match line[at] {
                // No answer of a model is that deep.
                b'{' | b'[' if value.open.len() == DEPTH_MAX => break,
                b'{' | b'[' => {
                    let parent = value.open.last().copied();
                    value.open.push(value.frames.len());
                    let key = Some(std::mem::take(&mut key)).filter(|key| !key.is_empty()).map(number_of);
                    value.frames.push(Frame { parent, key, index: None });
                }
                b'}' | b']' => drop(value.open.pop()),
                b'"' => {
                    let Some(end) = literal_end(line, at + 1) else { break };
                    let is_key = line[end + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                    match (is_key, value.open.last()) {
                        (true, _) => key = &line[at + 1..end],
                        (false, Some(frame)) => leaves.push((*frame, number_of(std::mem::take(&mut key)), at + 1..end)),
                        (false, None) => {}
                    }
                    at = end;
                }
                b'0'..=b'9' if key == b"index" => {
                    let digits = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    let number = std::str::from_utf8(&line[at..at + digits]).ok().and_then(|text| text.parse().ok());
                    if let Some(frame) = value.open.last() {
                        value.frames[*frame].index = number;
                    }
                    key = &[];
                    at += digits - 1;
                }
                _ => {}
            }
            at += 1;
        }
        for (frame, key, literal) in leaves {
            text(value.place(frame, key), literal);
        }
    }

    /// Keys and numbers around a text, from within: the same for texts that belong together.
    fn place(&self, frame: usize, leaf: u64) -> u64 {
        let mut place = DefaultHasher::new();
        leaf.hash(&mut place);
        let mut next = Some(frame);
        while let Some(Frame { parent, key, index }) = next.map(|frame| &self.frames[frame]) {
            // A list around all values, whose beginning stands in the first line alone, tells nothing apart.
            if key.is_some() || index.is_some() {
                (key, index).hash(&mut place);
            }
            looked_at(1);
            next = *parent;
        }
        place.finish()
    }
}

fn number_of(key: &[u8]) -> u64 {
    looked_at(key.len());
    let mut number = DefaultHasher::new();
    key.hash(&mut number);
    number.finish()
}

/// Objects and lists within one another; what is deeper is no text in pieces.
const DEPTH_MAX: usize = 64;

/// Where a literal ends whose first byte stands at `from`.
fn literal_end(line: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match line.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{looked_at_by, redactor};

    const LEASE: &str = "lease-token-of-this-call";

    fn stored(stream: &str) -> String {
        let redacted = redactor().redact_stream(LEASE, stream.as_bytes(), usize::MAX);
        String::from_utf8(redacted.bytes).expect("still text")
    }

    /// What a client puts together of the contents of choice 0.
    fn said(stored: &str) -> String {
        let events = stored.lines().filter_map(|line| line.strip_prefix("data: "));
        let values = events.filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok());
        let of_first = values.filter(|value| value["choices"][0]["index"] == 0);
        of_first.filter_map(|value| Some(value["choices"][0]["delta"]["content"].as_str()?.to_owned())).collect()
    }

    fn chunk(choice: u32, content: &str) -> String {
        let content = serde_json::Value::from(content);
        format!("data: {{\"id\":\"c-1\",\"choices\":[{{\"index\":{choice},\"delta\":{{\"content\":{content}}}}}]}}\n\n")
    }

    #[test]
    fn a_secret_in_pieces_is_taken_out_of_each() {
        let secret = "sk-abcdefghijklmnopqrstuvwxyz0123";
        for size in [1, 2, 3, 7, 20] {
            let text = format!("the key is {secret}, \"keep\" it.\n");
            let pieces: Vec<char> = text.chars().collect();
            let stream: String = pieces.chunks(size).map(|piece| chunk(0, &String::from_iter(piece))).collect();
            let stored = stored(&stream);
            let said = said(&stored);
            assert!(said.starts_with("the key is [amc:redacted:") && said.ends_with("], \"keep\" it.\n"), "{said}");
            assert_eq!(stored.lines().count(), stream.lines().count(), "every event is still there");
        }
    }

    #[test]
    fn choices_between_one_another_are_told_apart() {
        let stream =
            [chunk(0, "it is sk-abcdefghij"), chunk(1, "nothing"), chunk(0, "klmnopqrst now"), chunk(1, " here")];
        let stored = stored(&stream.concat());
        assert!(!stored.contains("sk-abc") && !stored.contains("qrst"), "{stored}");
        assert!(said(&stored).ends_with("] now") && stored.contains("nothing") && stored.contains(" here"), "{stored}");
    }

    #[test]
    fn each_dialect_and_framing() {
        let halves = ["sk-abcdefghij", "klmnopqrst"];
        for (what, event) in [
            (
                "anthropic",
                "event: d\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"text\":\"@\"}}\n\n",
            ),
            ("tool input", "data: {\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"@\"}}\n\n"),
            ("responses", "data: {\"type\":\"response.output_text.delta\",\"delta\":\"@\",\"output_index\":0}\r\n\r\n"),
            ("gemini", "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"@\"}]},\"index\":0}]}\r\n\r\n"),
            (
                "arguments",
                "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"@\"}}]}}]}\n\n",
            ),
            ("lines", "{\"message\":{\"content\":\"@\"}}\n"),
            ("no spaces", "data:{\"message\" : {\"content\" :\"@\"}}\n\n"),
        ] {
            let stored = stored(&halves.map(|half| event.replace('@', half)).concat());
            assert!(!halves.iter().any(|half| stored.contains(half)), "{what}: {stored}");
            assert_eq!(stored.matches("[amc:redacted:").count(), 1, "{what}: {stored}");
        }
        let list = "[{\"parts\":[{\"text\":\"sk-abcdefghij\"}]}\n,\r\n{\"parts\":[{\"text\":\"klmnopqrst\"}]}]";
        assert!(!stored(list).contains("sk-abc") && !stored(list).contains("qrst"));
    }

    #[test]
    fn what_has_no_secret_across_pieces_stays() {
        for stream in [
            chunk(0, "sk-") + &chunk(0, "8 and more"),
            chunk(0, "a") + "data: [DONE]\n\n",
            "data: {\"a\": \"unfinished".to_owned(),
            "data: {\"a\\\"b\": \"x\\\\\"}}}}\n\"alone\"\n".to_owned(),
            ": a comment\n\nretry: 5\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(stored(&stream), stream);
        }
    }

    #[test]
    fn no_stream_is_looked_at_again_and_again() {
        let deep = "{\"k\":".repeat(4_000) + "\"x\"";
        let wide = format!("{{\"{}\":{{{}}}}}", "k".repeat(10_000), "\"a\":\"x\",".repeat(4_000));
        let texts = chunk(0, "a sk-abcdefghijk") + &(chunk(0, "lmnopqrst sk-abcdefghijk").repeat(2_000));
        for (what, stream) in [("depth", deep), ("a long key", wide), ("many secrets", texts)] {
            let looked_at = looked_at_by(|| drop(stored(&stream)));
            assert!(looked_at <= 8 * stream.len(), "{what}, {} bytes: {looked_at} were looked at", stream.len());
        }
    }

    #[test]
    fn the_cut_moves_with_what_was_taken_out() {
        let stream = chunk(0, "sk-abcdefghij") + &chunk(0, "klmnopqrst") + &chunk(0, "sk-abcdefghijklmnopqrst");
        let keep = stream.len() - 20;
        let redacted = redactor().redact_stream(LEASE, stream.as_bytes(), keep);
        let text = String::from_utf8(redacted.bytes).expect("still text");
        assert!(!text.contains("abcdefghij") && text.len() <= keep, "{text}");
        assert_eq!(redacted.rules, ["key-shape"]);
    }
}

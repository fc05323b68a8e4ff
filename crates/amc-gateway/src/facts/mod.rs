//! What scoring needs from a body, read from a bounded copy by this keyless process.
//!
//! Nothing here changes what passes, and a body that cannot be read has no facts: none is guessed.

mod request;
mod response;
mod sse;

pub(crate) use request::RequestFacts;
pub(crate) use response::{AnswerFacts, Scanner};

use std::borrow::Cow;
use std::io::Read as _;

/// A body as its sender meant it: gzip undone, anything else that is compressed given up.
pub(crate) fn decoded<'a>(encoding: Option<&str>, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    match encoding {
        None => Some(Cow::Borrowed(bytes)),
        Some("gzip" | "x-gzip") => gunzip(bytes).map(Cow::Owned),
        Some(_) => None,
    }
}

fn gunzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(bytes).take(DECODED_BYTES_MAX + 1).read_to_end(&mut plain);
    let whole = read.is_ok() && plain.len() as u64 <= DECODED_BYTES_MAX;
    whole.then_some(plain)
}

/// What a compressed body of a megabyte may unpack to before it is given up.
const DECODED_BYTES_MAX: u64 = 8 << 20;

/// The text of a content: a text, or the texts of its parts one after the other.
fn text_of(content: &serde_json::Value) -> String {
    match content {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// How many items an array has; 0 for anything else.
fn count(value: &serde_json::Value) -> u32 {
    value.as_array().map_or(0, |items| u32::try_from(items.len()).unwrap_or(u32::MAX))
}

/// A model's name, bounded.
fn model(value: &serde_json::Value) -> Option<String> {
    let text = value.as_str()?;
    Some(text[..text.floor_char_boundary(MODEL_BYTES_MAX)].to_owned())
}

/// Names of models are short; what is longer is no name.
const MODEL_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_bomb_is_given_up() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..9 {
            encoder.write_all(&zeros).expect("memory takes it");
        }
        let bomb = encoder.finish().expect("memory takes it");
        assert!(bomb.len() < 20_000 && gunzip(&bomb).is_none());
        assert!(gunzip(b"not gzip").is_none());
        assert!(decoded(Some("br"), b"x").is_none());
    }
}

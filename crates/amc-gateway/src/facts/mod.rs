//! What scoring needs from a body, read from a bounded copy by this keyless process.
//!
//! Nothing here changes what passes, and a body that cannot be read has no facts: none is guessed.

mod decode;
mod json;
mod request;
mod response;
mod skeleton;
mod sse;

pub(crate) use decode::Decoder;
pub(crate) use request::{RequestFacts, models_asked};
pub(crate) use response::{AnswerFacts, Scanner};
pub(crate) use skeleton::{LEFT_OUT, Skeleton};

use std::borrow::Cow;

use json::Json;

/// A body as its sender meant it, where it can be unpacked to a bounded size.
pub(crate) fn decoded<'a>(encoding: Option<&str>, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if encoding.is_none() {
        return Some(Cow::Borrowed(bytes));
    }
    let mut decoder = Decoder::new(encoding);
    let (mut plain, mut fits) = (Vec::new(), true);
    let mut keep = |unpacked: &[u8]| {
        fits &= plain.len() + unpacked.len() <= DECODED_BYTES_MAX;
        if fits {
            plain.extend_from_slice(unpacked);
        }
    };
    decoder.push(bytes, &mut keep);
    let whole = decoder.finish(&mut keep);
    (whole && fits).then_some(Cow::Owned(plain))
}

/// How a body is compressed by what it begins with, where no header says: a secret in it must not be stored unseen.
pub(crate) fn sniffed(bytes: &[u8]) -> Option<&'static str> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    [(GZIP, "gzip"), (ZSTD, "zstd")].into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| name)
}

/// What a compressed body of a megabyte may unpack to before it is given up.
const DECODED_BYTES_MAX: usize = 8 << 20;

/// The text of a content: a text, or the texts of its parts one after the other.
fn text_of(content: &Json<'_>) -> String {
    match content {
        Json::Text(text) => text.clone().into_owned(),
        Json::List(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// How many items an array has; 0 for anything else.
fn count(value: &Json<'_>) -> u32 {
    u32::try_from(value.items().len()).unwrap_or(u32::MAX)
}

/// A model's name, bounded.
fn model(value: &Json<'_>) -> Option<String> {
    value.as_str().map(model_name)
}

fn model_name(text: &str) -> String {
    text[..text.floor_char_boundary(MODEL_BYTES_MAX)].to_owned()
}

/// Names of models are short; what is longer is no name.
const MODEL_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_unpacks_to_too_much_is_given_up() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..9 {
            encoder.write_all(&zeros).expect("memory takes it");
        }
        let bomb = encoder.finish().expect("memory takes it");
        assert!(bomb.len() < 20_000 && decoded(Some("gzip"), &bomb).is_none());
        assert!(decoded(Some("gzip"), b"not gzip").is_none());
        assert!(decoded(Some("unheard-of"), b"x").is_none());
    }
}

//! A JSON text without its long strings: what is left of a request with megabytes of pictures in it
//! fits into a bound, and everything short (the model, the turns, the usage) is still there.
//!
//! The text is not checked here. What is no JSON before is none after, and the parser says so.

/// Copies a text as it comes, long strings left out.
#[derive(Debug, Default)]
pub(crate) struct Skeleton {
    out: Vec<u8>,
    /// Where the string begins that is being copied.
    string: Option<usize>,
    /// The string is above the bound, so only its end is looked for.
    dropping: bool,
    escaped: bool,
    overflowed: bool,
}

impl Skeleton {
    /// The next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            if self.overflowed {
                return;
            }
            match self.string {
                None => self.outside(*byte),
                Some(start) => self.inside(*byte, start),
            }
        }
    }

    fn outside(&mut self, byte: u8) {
        if byte == b'"' {
            self.string = Some(self.out.len());
        }
        self.keep(byte);
    }

    fn inside(&mut self, byte: u8, start: usize) {
        let ends = byte == b'"' && !self.escaped;
        self.escaped = byte == b'\\' && !self.escaped;
        if ends {
            self.string = None;
            self.dropping = false;
            self.keep(b'"');
        } else if !self.dropping {
            self.keep(byte);
            if !self.overflowed && self.out.len() - start > STRING_BYTES_MAX {
                self.out.truncate(start + 1);
                self.out.extend_from_slice(LEFT_OUT_JSON);
                self.dropping = true;
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        self.out.push(byte);
        if self.out.len() > TOTAL_BYTES_MAX {
            self.overflowed = true;
            self.out = Vec::new();
        }
    }

    /// What is left; nothing where that was too much.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        (!self.overflowed).then_some(self.out.as_slice())
    }
}

/// What stands in the place of a string that was left out.
pub(crate) const LEFT_OUT: &str = "\u{0}left out";
const LEFT_OUT_JSON: &[u8] = b"\\u0000left out";

/// Longer strings are data; prompts of a system are seldom that long.
const STRING_BYTES_MAX: usize = 64 * 1024;

/// All of it: ten bodies at a time stay within a few megabytes each.
const TOTAL_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn skeleton(text: &str, piece_len: usize) -> Option<Value> {
        let mut skeleton = Skeleton::default();
        for piece in text.as_bytes().chunks(piece_len) {
            skeleton.push(piece);
        }
        serde_json::from_slice(skeleton.bytes()?).ok()
    }

    #[test]
    fn long_strings_go_and_everything_else_stays() {
        let long = "x\\\"".repeat(STRING_BYTES_MAX);
        let body =
            json!({"messages": [{"role": "system", "content": "Be \"kind\"\\."}, {"content": long}], "model": "m-1"});
        let text = body.to_string();
        for piece_len in [1, 7, 65_536] {
            let left = skeleton(&text, piece_len).expect("it is JSON still");
            assert_eq!((&left["model"], &left["messages"][0]), (&body["model"], &body["messages"][0]));
            assert_eq!(left["messages"][1]["content"], LEFT_OUT);
        }
    }

    #[test]
    fn too_many_short_strings_are_given_up() {
        let many = json!(vec!["some text"; TOTAL_BYTES_MAX / 10]).to_string();
        assert_eq!(skeleton(&many, 4096), None);
    }
}

//! Lines of server-sent events (WHATWG HTML, section 9.2), taken from pieces of any size.
//!
//! Only `data` lines are of interest, and each of the three APIs puts one JSON text into one line.

/// Splits a stream into the contents of its `data` lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Takes the next piece and hands every `data` line that it completes to `each`.
    pub(crate) fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n' || *byte == b'\r') {
            self.take(&rest[..end]);
            if let Some(data) = self.data() {
                each(data);
            }
            self.line.clear();
            self.too_long = false;
            rest = &rest[end + 1..];
        }
        self.take(rest);
    }

    fn take(&mut self, bytes: &[u8]) {
        self.too_long |= self.line.len() + bytes.len() > LINE_BYTES_MAX;
        if !self.too_long {
            self.line.extend_from_slice(bytes);
        }
    }

    fn data(&self) -> Option<&[u8]> {
        let data = self.line.strip_prefix(b"data:").filter(|_| !self.too_long)?;
        Some(data.strip_prefix(b" ").unwrap_or(data))
    }
}

/// One event's text; what is longer is not read, only passed on.
const LINE_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_across_pieces_and_line_ends() {
        let stream = b"event: x\r\ndata: one\r\n\r\n: comment\ndata:two\n\nid: 3\ndata: three\rdata: cut";
        for size in 1..stream.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                lines.push(piece, |data| found.push(String::from_utf8_lossy(data).into_owned()));
            }
            assert_eq!(found, ["one", "two", "three"], "{size}");
        }
    }

    #[test]
    fn a_line_above_the_bound_is_skipped() {
        let mut lines = Lines::default();
        let mut found = 0;
        lines.push(b"data: ", |_| found += 1);
        for _ in 0..=LINE_BYTES_MAX / 1024 {
            lines.push(&[b'x'; 1024], |_| found += 1);
        }
        lines.push(b"\ndata: y\n", |_| found += 1);
        assert_eq!(found, 1);
        assert!(lines.line.capacity() <= 2 * LINE_BYTES_MAX);
    }
}

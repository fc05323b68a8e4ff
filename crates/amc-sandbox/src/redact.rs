//! Keeping a known secret out of stored streams, also where it is split between two pieces.

/// What stands where the lease stood.
const MARK: &[u8] = b"[amc:redacted:lease]";

/// Replaces one secret in a stream that arrives in pieces.
pub struct Redactor {
    secret: Vec<u8>,
    held: Vec<u8>,
}

impl Redactor {
    /// For a secret that must not be stored; an empty one redacts nothing.
    pub fn new(secret: &[u8]) -> Self {
        Redactor { secret: secret.to_vec(), held: Vec::new() }
    }

    /// Takes the next piece and gives what can be stored by now, and whether something was replaced.
    pub fn push(&mut self, piece: &[u8]) -> (Vec<u8>, bool) {
        self.held.extend_from_slice(piece);
        let (mut clean, replaced) = self.replace();
        let keep = clean.len() - self.undecided(&clean);
        self.held = clean.split_off(keep);
        (clean, replaced)
    }

    /// What is left at the end of the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn replace(&mut self) -> (Vec<u8>, bool) {
        let held = std::mem::take(&mut self.held);
        if self.secret.is_empty() {
            return (held, false);
        }
        let mut clean = Vec::with_capacity(held.len());
        let (mut rest, mut replaced) = (held.as_slice(), false);
        while let Some(at) = find(rest, &self.secret) {
            clean.extend_from_slice(&rest[..at]);
            clean.extend_from_slice(MARK);
            rest = &rest[at + self.secret.len()..];
            replaced = true;
        }
        clean.extend_from_slice(rest);
        (clean, replaced)
    }

    /// Bytes at the end that may be the beginning of the secret.
    fn undecided(&self, clean: &[u8]) -> usize {
        let longest = self.secret.len().saturating_sub(1).min(clean.len());
        (1..=longest).rev().find(|len| clean.ends_with(&self.secret[..*len])).unwrap_or(0)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_passes_wherever_it_is_cut() {
        let text = b"before lease-token-123 between lease-token-123";
        for cut in 0..=text.len() {
            let mut redactor = Redactor::new(b"lease-token-123");
            let mut stored = redactor.push(&text[..cut]).0;
            stored.extend(redactor.push(&text[cut..]).0);
            stored.extend(redactor.finish());
            assert_eq!(stored, b"before [amc:redacted:lease] between [amc:redacted:lease]", "cut at {cut}");
        }
    }

    #[test]
    fn a_beginning_that_is_not_followed_is_kept() {
        let mut redactor = Redactor::new(b"secret");
        let mut stored = redactor.push(b"sec").0;
        stored.extend(redactor.push(b"ond").0);
        stored.extend(redactor.finish());
        assert_eq!(stored, b"second");
    }
}

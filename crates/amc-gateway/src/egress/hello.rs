//! The server name of a TLS ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3), read from the
//! first bytes of a tunnel. The bytes pass on as they came.
//!
//! ```text
//! record    0x16 │ version 2 │ length 2 │ fragment        (one hello may span several)
//! handshake 0x01 │ length 3 │ version 2 │ random 32 │ session id 1+n │ ciphers 2+n │ compressions 1+n
//!           │ extensions 2+n: (type 2 │ length 2 │ data)…    type 0: list 2 │ (0 │ length 2 │ name)
//! ```

/// What the first bytes of a tunnel are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// A beginning of a ClientHello; more has to come.
    Incomplete,
    /// A ClientHello, with the server name that it asks for, lowercase.
    Client {
        /// The name; none where it names none.
        server_name: Option<String>,
    },
    /// Something else than TLS.
    NotTls,
    /// TLS that is no well-formed ClientHello.
    Malformed,
}

/// Reads the first bytes of a tunnel.
pub fn client_hello(bytes: &[u8]) -> Hello {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) {
        return Hello::NotTls;
    }
    let (handshake, broken) = fragments(bytes);
    if handshake.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Hello::Malformed;
    }
    let Some(head) = handshake.get(..4) else {
        return if broken { Hello::Malformed } else { Hello::Incomplete };
    };
    let len = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
    if len > HELLO_BYTES_MAX {
        return Hello::Malformed;
    }
    match handshake.get(4..4 + len) {
        None if broken => Hello::Malformed,
        None => Hello::Incomplete,
        Some(body) => server_name(body).map_or(Hello::Malformed, |server_name| Hello::Client { server_name }),
    }
}

/// The handshake bytes of the records that are there, and whether what follows is no record of a
/// handshake.
fn fragments(bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut handshake, mut rest) = (Vec::new(), bytes);
    while let Some(head) = rest.get(..5) {
        let len = usize::from(head[3]) << 8 | usize::from(head[4]);
        if head[0] != HANDSHAKE || head[1] != 3 || len == 0 || len > RECORD_BYTES_MAX {
            return (handshake, true);
        }
        let fragment = &rest[5..rest.len().min(5 + len)];
        handshake.extend_from_slice(fragment);
        if fragment.len() < len || handshake.len() > HELLO_BYTES_MAX + 4 {
            return (handshake, false);
        }
        rest = &rest[5 + len..];
    }
    (handshake, false)
}

/// The name in a hello's body; `None` when the body is not well-formed.
fn server_name(body: &[u8]) -> Option<Option<String>> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?;
    reader.vector(1)?;
    reader.vector(2)?;
    reader.vector(1)?;
    if reader.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(reader.vector(2)?);
    if !reader.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.take(2)?;
        let data = extensions.vector(2)?;
        if kind == [0, 0] {
            // A second one could be read by a server that this did not read.
            let first = found.replace(host_name(data)?).is_none();
            if !first {
                return None;
            }
        }
    }
    Some(found)
}

fn host_name(data: &[u8]) -> Option<String> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.vector(2)?);
    let kind = list.take(1)?;
    let name = list.vector(2)?;
    let alone = reader.0.is_empty() && list.0.is_empty() && kind == [0];
    let plain = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic());
    (alone && plain).then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// Bytes after their length, which has so many bytes itself.
    fn vector(&mut self, len_bytes: usize) -> Option<&'a [u8]> {
        let len = self.take(len_bytes)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        self.take(len)
    }
}

const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;

/// What a record's fragment may have (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;

/// Hellos with keys of new kinds have a few kilobytes.
const HELLO_BYTES_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello with these extensions, in records of at most so many bytes.
    fn hello(extensions: &[(u16, Vec<u8>)], record_len: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        let mut list = Vec::new();
        for (kind, data) in extensions {
            list.extend(kind.to_be_bytes());
            list.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            list.extend(data);
        }
        body.extend(u16::try_from(list.len()).expect("short").to_be_bytes());
        body.extend(list);
        let mut handshake = vec![1, 0];
        handshake.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
        handshake.extend(body);
        let record = |fragment: &[u8]| {
            let len = u16::try_from(fragment.len()).expect("short").to_be_bytes();
            [&[0x16, 3, 1][..], &len, fragment].concat()
        };
        handshake.chunks(record_len).flat_map(record).collect()
    }

    fn sni(name: &str) -> (u16, Vec<u8>) {
        let len = u8::try_from(name.len()).expect("short");
        (0, [&[0, len + 3, 0, 0, len][..], name.as_bytes()].concat())
    }

    fn named(name: &str) -> Hello {
        Hello::Client { server_name: Some(name.to_owned()) }
    }

    #[test]
    fn the_name_is_read_across_records_and_pieces() {
        for record_len in [1, 50, 16_384] {
            let bytes = hello(&[(10, vec![0, 2, 0, 29]), sni("API.example.com"), (43, vec![2, 3, 4])], record_len);
            for end in 0..bytes.len() {
                assert_eq!(client_hello(&bytes[..end]), Hello::Incomplete, "{record_len} {end}");
            }
            assert_eq!(client_hello(&bytes), named("api.example.com"));
            assert_eq!(client_hello(&[&bytes[..], b"\x14\x03\x03"].concat()), named("api.example.com"));
        }
        assert_eq!(client_hello(&hello(&[(43, vec![2, 3, 4])], 100)), Hello::Client { server_name: None });
    }

    #[test]
    fn what_is_no_hello_is_told() {
        for bytes in [&b"GET / HTTP/1.1"[..], b"SSH-2.0-x", b"\x80\x2e\x01", b"\x15\x03\x01"] {
            assert_eq!(client_hello(bytes), Hello::NotTls);
        }
        let twice = hello(&[sni("a.example"), sni("b.example")], 16_384);
        let two_names = hello(&[(0, [&[0, 8, 0, 0, 1][..], b"a", &[0, 0, 1], b"b"].concat())], 16_384);
        let with_null = hello(&[sni("a.example\0.b")], 16_384);
        let not_a_hello = b"\x16\x03\x01\x00\x04\x02\x00\x00\x00".to_vec();
        let other_record_within = [&hello(&[sni("a.example")], 20)[..25], b"\x17\x03\x03\x00\x01x"].concat();
        let empty_record = b"\x16\x03\x01\x00\x00".to_vec();
        let too_long = b"\x16\x03\x01\x00\x04\x01\xff\xff\xff".to_vec();
        for bytes in [twice, two_names, with_null, not_a_hello, other_record_within, empty_record, too_long] {
            assert_eq!(client_hello(&bytes), Hello::Malformed, "{bytes:?}");
        }
    }
}

//! Compressed bodies, unpacked piece by piece as they pass, within bounds. What passes is never
//! touched: this reads a copy, and gives up on what does not decode or unpacks to too much.

use std::io::{self, Write};

use structured_zstd::decoding::FrameDecoder;

/// Unpacks one body.
pub(crate) enum Decoder {
    /// It is not compressed.
    Plain,
    /// gzip (RFC 1952).
    Gzip(Box<flate2::write::MultiGzDecoder<Unpacked>>),
    /// deflate as HTTP means it: zlib (RFC 1950).
    Zlib(Box<flate2::write::ZlibDecoder<Unpacked>>),
    /// Brotli (RFC 7932).
    Brotli(Box<brotli_decompressor::DecompressorWriter<Unpacked>>),
    /// Zstandard (RFC 8878).
    Zstd(Box<Zstd>),
    /// It cannot be read (any more).
    GivenUp,
}

impl Decoder {
    /// For a body with this `content-encoding`, lowercase.
    pub(crate) fn new(encoding: Option<&str>) -> Self {
        match encoding {
            None => Decoder::Plain,
            Some("gzip" | "x-gzip") => Decoder::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Unpacked::default()))),
            Some("deflate") => Decoder::Zlib(Box::new(flate2::write::ZlibDecoder::new(Unpacked::default()))),
            Some("br") => {
                let writer = brotli_decompressor::DecompressorWriter::new(Unpacked::default(), BROTLI_BUFFER_BYTES);
                Decoder::Brotli(Box::new(writer))
            }
            Some("zstd") => Decoder::Zstd(Box::default()),
            Some(_) => Decoder::GivenUp,
        }
    }

    /// Unpacks the next piece and hands what came of it to `each`.
    pub(crate) fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let pushed = match self {
            Decoder::Plain => {
                each(piece);
                Ok(())
            }
            Decoder::Gzip(writer) => through(piece, &mut **writer, |writer| writer.get_mut(), &mut each),
            Decoder::Zlib(writer) => through(piece, &mut **writer, |writer| writer.get_mut(), &mut each),
            Decoder::Brotli(writer) => through(piece, &mut **writer, |writer| writer.get_mut(), &mut each),
            Decoder::Zstd(zstd) => zstd.push(piece, &mut each),
            Decoder::GivenUp => Ok(()),
        };
        if pushed.is_err() {
            *self = Decoder::GivenUp;
        }
    }

    /// The body has ended: what is still held goes to `each`. Whether all of it could be read.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(&[u8])) -> bool {
        let ended = match self {
            Decoder::Plain => Ok(()),
            Decoder::Gzip(writer) => writer.try_finish().map(|()| writer.get_mut().give(&mut each)),
            Decoder::Zlib(writer) => writer.try_finish().map(|()| writer.get_mut().give(&mut each)),
            Decoder::Brotli(writer) => writer.close().map(|()| writer.get_mut().give(&mut each)),
            Decoder::Zstd(zstd) => zstd.finish(&mut each),
            Decoder::GivenUp => Err(io::ErrorKind::InvalidData.into()),
        };
        ended.is_ok()
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Decoder::Plain => "Plain",
            Decoder::GivenUp => "GivenUp",
            _ => "Decoder",
        })
    }
}

/// Where a decoder writes: taken out after each piece, and bounded over the whole body.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    bytes: Vec<u8>,
    total: u64,
}

impl Unpacked {
    fn give(&mut self, each: &mut impl FnMut(&[u8])) {
        if !self.bytes.is_empty() {
            each(&self.bytes);
            self.bytes.clear();
        }
        // A piece that unpacked to much is not kept room for.
        self.bytes.shrink_to(STEP_BYTES);
    }
}

impl Write for Unpacked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.total += bytes.len() as u64;
        if self.total > TOTAL_BYTES_MAX || self.bytes.len() + bytes.len() > HELD_BYTES_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a piece in small steps, so that what unpacks to much is seen before it is all in memory.
fn through<W: Write>(
    piece: &[u8],
    writer: &mut W,
    held: fn(&mut W) -> &mut Unpacked,
    each: &mut impl FnMut(&[u8]),
) -> io::Result<()> {
    for step in piece.chunks(STEP_BYTES) {
        writer.write_all(step)?;
        // Events are read as they come, not when a buffer is full.
        writer.flush()?;
        held(writer).give(each);
    }
    Ok(())
}

/// A Zstandard frame, block by block.
#[derive(Default)]
pub(crate) struct Zstd {
    decoder: Option<FrameDecoder>,
    pending: Vec<u8>,
    total: u64,
}

impl Zstd {
    fn push(&mut self, piece: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        for step in piece.chunks(HELD_BYTES_MAX / 4) {
            self.pending.extend_from_slice(step);
            if self.decoder.is_none() && self.pending.len() < ZSTD_HEADER_BYTES_MAX {
                continue;
            }
            self.drain(each)?;
        }
        Ok(())
    }

    fn finish(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        self.drain(each)?;
        let done = self.decoder.as_ref().is_some_and(FrameDecoder::is_finished);
        if done { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn drain(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
        if self.decoder.is_none() {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(ZSTD_WINDOW_BYTES_MAX).map_err(broken)?;
            let mut source = self.pending.as_slice();
            decoder.reset(&mut source).map_err(broken)?;
            let read = self.pending.len() - source.len();
            self.pending.drain(..read);
            self.decoder = Some(decoder);
        }
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        let mut out = vec![0; 64 * 1024];
        loop {
            let (read, written) = decoder.decode_from_to(&self.pending, &mut out).map_err(broken)?;
            self.pending.drain(..read);
            self.total += written as u64;
            if self.total > TOTAL_BYTES_MAX || self.pending.len() > HELD_BYTES_MAX {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            if written > 0 {
                each(&out[..written]);
            }
            if read == 0 && written == 0 {
                return Ok(());
            }
        }
    }
}

/// How much of a compressed body is unpacked at a time.
const STEP_BYTES: usize = 4096;

/// What one step may unpack to: gzip reaches a thousandfold, and more is a bomb.
const HELD_BYTES_MAX: usize = 8 << 20;

/// What a whole body may unpack to before it is given up.
const TOTAL_BYTES_MAX: u64 = 256 << 20;

const BROTLI_BUFFER_BYTES: usize = 4096;

/// A frame's header has at most so many bytes (RFC 8878, section 3.1.1.1), with its magic number.
const ZSTD_HEADER_BYTES_MAX: usize = 18;

/// What HTTP allows a Zstandard window to have (RFC 9659).
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(encoding: &str, packed: &[u8], piece_len: usize) -> Option<Vec<u8>> {
        let mut decoder = Decoder::new(Some(encoding));
        let mut out = Vec::new();
        for piece in packed.chunks(piece_len) {
            decoder.push(piece, |bytes| out.extend_from_slice(bytes));
        }
        decoder.finish(|bytes| out.extend_from_slice(bytes)).then_some(out)
    }

    fn packed(encoding: &str, plain: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::fast();
        match encoding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(plain).expect("memory takes it");
                encoder.finish().expect("memory takes it")
            }
            "deflate" => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(plain).expect("memory takes it");
                encoder.finish().expect("memory takes it")
            }
            "zstd" => structured_zstd::encoding::compress_slice_to_vec(
                plain,
                structured_zstd::encoding::CompressionLevel::Fastest,
            ),
            other => panic!("no encoder for {other}"),
        }
    }

    #[test]
    fn every_encoding_is_read_in_pieces_of_any_size() {
        let plain: Vec<u8> = (0..60_000u32).flat_map(|number| (number % 977).to_le_bytes()).collect();
        for encoding in ["gzip", "deflate", "zstd"] {
            let packed = packed(encoding, &plain);
            for piece_len in [1, 17, 4096, packed.len()] {
                assert!(
                    unpacked(encoding, &packed, piece_len).as_deref() == Some(&plain[..]),
                    "{encoding} {piece_len}"
                );
            }
            assert_eq!(unpacked(encoding, &packed[..packed.len() / 2], 512), None, "{encoding}: cut off");
            assert_eq!(unpacked(encoding, b"no such thing, and long enough for a header", 7), None, "{encoding}");
        }
        // "hello" in one uncompressed and one last, empty metablock.
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        for piece_len in [1, 9] {
            assert_eq!(unpacked("br", &brotli, piece_len).as_deref(), Some(&b"hello"[..]));
        }
        assert_eq!(unpacked("br", &brotli[..5], 2), None);
        assert_eq!(unpacked("compress", b"x", 1), None);
    }

    #[test]
    fn a_bomb_is_given_up() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..300 {
            encoder.write_all(&zeros).expect("memory takes it");
        }
        let bomb = encoder.finish().expect("memory takes it");
        let mut decoder = Decoder::new(Some("gzip"));
        let (mut total, mut largest) = (0, 0);
        decoder.push(&bomb, |bytes| {
            total += bytes.len() as u64;
            largest = largest.max(bytes.len());
        });
        assert!(matches!(decoder, Decoder::GivenUp) && total <= TOTAL_BYTES_MAX && largest <= HELD_BYTES_MAX);
    }
}

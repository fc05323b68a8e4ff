//! Canonical ustar (POSIX.1-1988): the outside of every portable artifact, written and read strictly.
//!
//! ```text
//! header 512 │ data │ zeros to 512     once per member
//! zeros 1024                           the end; nothing after it
//!
//! header: name [100] │ mode "0000644\0" │ uid, gid "0000000\0" │ size, 11 octal digits and \0
//!         │ mtime "00000000000\0" │ checksum │ type '0' │ link [100] zeros │ "ustar\0" "00" │ zeros
//! ```
//!
//! The reader rebuilds the one header that name and size allow and compares all 512 bytes, so a
//! link, a device, an owner, a time, an extension or a second spelling of a number cannot stand in
//! an artifact. It never seeks, never allocates for a claim of size, and never writes.

use std::io::{self, Read, Write};

use crate::member;

/// Size of a ustar block, in bytes.
pub const BLOCK_BYTES: usize = 512;
/// Members of one artifact: configurations of some thousand agents fit.
pub const MEMBERS_MAX: usize = 4_096;
/// Bytes of one member; payloads of a million calls fit compressed.
pub const MEMBER_BYTES_MAX: u64 = 2 << 30;
/// Bytes of one artifact.
pub const TOTAL_BYTES_MAX: u64 = 4 << 30;

/// The header of a member, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberHeader {
    /// The name, one of the fixed list.
    pub name: String,
    /// Bytes of data.
    pub size: u64,
    /// Byte offset of the header in the archive.
    pub offset: u64,
}

/// An archive that is not canonical, or one that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not a canonical archive.
    #[error("byte {offset}: {what}")]
    Malformed {
        /// Where, from the start of the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The bytes ended too early.
    #[error("byte {offset}: the file ends inside {what}; it was cut off, fetch it again")]
    Truncated {
        /// Where, from the start of the file.
        offset: u64,
        /// What was being read.
        what: String,
    },
    /// Reading failed.
    #[error("reading failed at byte {offset}: {source}")]
    Read {
        /// Where, from the start of the file.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// Writing failed.
    #[error("writing failed: {0}")]
    Write(#[source] io::Error),
}

/// The header that a member with this name and size has, or why it cannot have one.
fn canonical_header(name: &str, size: u64) -> Result<tar::Header, String> {
    member::check_name(name)?;
    if size > MEMBER_BYTES_MAX {
        return Err(format!("{name} would have {size} bytes, more than {MEMBER_BYTES_MAX}"));
    }
    let mut header = tar::Header::new_ustar();
    header.set_path(name).map_err(|error| format!("the name {name:?} does not fit: {error}"))?;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// Fields of a header by their last byte, to name the one that differs.
const FIELDS: [(usize, &str); 13] = [
    (100, "name is followed by stray bytes"),
    (108, "mode is not 0644"),
    (116, "owner is not 0"),
    (124, "group is not 0"),
    (136, "size is not spelled as 11 octal digits"),
    (148, "time is not 0"),
    (156, "checksum is wrong"),
    (157, "type is not a regular file"),
    (257, "link name is not empty"),
    (265, "magic is not that of ustar"),
    (329, "owner's or group's name is not empty"),
    (345, "device number is not empty"),
    (512, "name prefix or padding is not empty"),
];

fn difference(found: &[u8; BLOCK_BYTES], wanted: &[u8; BLOCK_BYTES]) -> Option<&'static str> {
    // The checksum follows from the rest, so it is named only when nothing else differs.
    let differs = |at: &usize| found[*at] != wanted[*at];
    let at = (0..148).chain(156..BLOCK_BYTES).find(differs).or_else(|| (148..156).find(differs))?;
    FIELDS.iter().find(|(end, _)| at < *end).map(|(_, what)| *what)
}

/// Reads a canonical archive from front to back; as a [`Read`] it gives the current member's data.
#[derive(Debug)]
pub struct ArchiveReader<R> {
    inner: R,
    offset: u64,
    members: usize,
    last: Option<String>,
    left: u64,
    padding: usize,
    ended: bool,
}

impl<R: Read> ArchiveReader<R> {
    /// Starts at the first byte of an archive; reads nothing yet.
    pub const fn new(inner: R) -> Self {
        ArchiveReader { inner, offset: 0, members: 0, last: None, left: 0, padding: 0, ended: false }
    }

    /// The next member, or `None` after the last one, when the end was as it must be. What is left
    /// of the member before is skipped.
    ///
    /// # Errors
    /// [`ArchiveError`] at the first byte that is not canonical. The reader is of no use after it.
    pub fn next_member(&mut self) -> Result<Option<MemberHeader>, ArchiveError> {
        if self.ended {
            return Ok(None);
        }
        self.finish_member()?;
        let offset = self.offset;
        let mut block = [0u8; BLOCK_BYTES];
        self.fill(&mut block, "a member's header")?;
        if block == [0; BLOCK_BYTES] {
            self.end(offset)?;
            return Ok(None);
        }
        let malformed = |what: String| ArchiveError::Malformed { offset, what };
        let header = parse_header(&block, offset).map_err(malformed)?;
        self.check_place(&header).map_err(malformed)?;
        self.members += 1;
        self.last = Some(header.name.clone());
        self.left = header.size;
        let tail = usize::try_from(header.size % BLOCK_BYTES as u64).expect("below 512");
        self.padding = if tail == 0 { 0 } else { BLOCK_BYTES - tail };
        Ok(Some(header))
    }

    /// The current member's data, which must not be longer than `max` bytes.
    ///
    /// # Errors
    /// [`ArchiveError`] when it is longer or cannot be read.
    pub fn read_member(&mut self, header: &MemberHeader, max: u64) -> Result<Vec<u8>, ArchiveError> {
        if header.size > max {
            let what = format!("{} has {} bytes, more than the {max} it may have", header.name, header.size);
            return Err(ArchiveError::Malformed { offset: header.offset, what });
        }
        // Grows with what really arrives; the claimed size is only a bound.
        let mut bytes = Vec::new();
        let left = self.left;
        let read = self.by_ref().take(left).read_to_end(&mut bytes);
        read.map_err(|source| ArchiveError::Read { offset: self.offset, source })?;
        if self.left != 0 {
            return Err(ArchiveError::Truncated { offset: self.offset, what: header.name.clone() });
        }
        Ok(bytes)
    }

    /// What it reads from.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Bytes read so far.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    fn finish_member(&mut self) -> Result<(), ArchiveError> {
        let mut scratch = [0u8; 8 * 1024];
        while self.left > 0 {
            let read = self.read(&mut scratch);
            let read = read.map_err(|source| ArchiveError::Read { offset: self.offset, source })?;
            if read == 0 {
                let what = self.last.clone().unwrap_or_default();
                return Err(ArchiveError::Truncated { offset: self.offset, what });
            }
        }
        let mut padding = [0u8; BLOCK_BYTES];
        let padding = &mut padding[..self.padding];
        let offset = self.offset;
        self.padding = 0;
        self.fill(padding, "the zeros after a member")?;
        if padding.iter().any(|byte| *byte != 0) {
            let what = "the bytes that fill a member's last block are not zero".to_owned();
            return Err(ArchiveError::Malformed { offset, what });
        }
        Ok(())
    }

    /// Order, uniqueness and the bounds that are known before any data is read.
    fn check_place(&self, header: &MemberHeader) -> Result<(), String> {
        let name = &header.name;
        match &self.last {
            None if name != member::MANIFEST => {
                return Err(format!("the first member is {name}, not {}", member::MANIFEST));
            }
            Some(last) if name == last => return Err(format!("{name} stands there twice")),
            Some(_) if name == member::MANIFEST => return Err(format!("{name} stands there twice")),
            Some(last) if last != member::MANIFEST && name < last => {
                return Err(format!("{name} stands after {last}; members are sorted"));
            }
            None | Some(_) => {}
        }
        if self.members == MEMBERS_MAX {
            return Err(format!("it has more than {MEMBERS_MAX} members"));
        }
        if self.offset.saturating_add(header.size) > TOTAL_BYTES_MAX {
            return Err(format!("with {name} it would have more than {TOTAL_BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn end(&mut self, offset: u64) -> Result<(), ArchiveError> {
        if self.members == 0 {
            return Err(ArchiveError::Malformed { offset, what: "it has no members".into() });
        }
        let mut block = [0u8; BLOCK_BYTES];
        self.fill(&mut block, "the two blocks of zeros at its end")?;
        if block != [0; BLOCK_BYTES] {
            let what = "one block of zeros stands before more data".into();
            return Err(ArchiveError::Malformed { offset, what });
        }
        let offset = self.offset;
        let mut more = [0u8; 1];
        match self.inner.read(&mut more) {
            Ok(0) => {
                self.ended = true;
                Ok(())
            }
            Ok(_) => Err(ArchiveError::Malformed { offset, what: "bytes follow the end of the archive".into() }),
            Err(source) => Err(ArchiveError::Read { offset, source }),
        }
    }

    fn fill(&mut self, buffer: &mut [u8], what: &str) -> Result<(), ArchiveError> {
        match self.inner.read_exact(buffer) {
            Ok(()) => {
                self.offset += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(ArchiveError::Truncated { offset: self.offset, what: what.to_owned() })
            }
            Err(source) => Err(ArchiveError::Read { offset: self.offset, source }),
        }
    }
}

impl<R: Read> Read for ArchiveReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }
}

fn parse_header(block: &[u8; BLOCK_BYTES], offset: u64) -> Result<MemberHeader, String> {
    let name = &block[..100];
    let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
    let name = std::str::from_utf8(name).map_err(|_| "a member's name is not UTF-8".to_owned())?;
    let digits = &block[124..135];
    if block[135] != 0 || !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return Err("a member's size is not spelled as 11 octal digits".into());
    }
    let size = digits.iter().fold(0u64, |size, digit| size << 3 | u64::from(digit - b'0'));
    let wanted = canonical_header(name, size)?;
    match difference(block, wanted.as_bytes()) {
        None => Ok(MemberHeader { name: name.to_owned(), size, offset }),
        Some(what) => Err(format!("the header of {name}: its {what}")),
    }
}

/// Writes a canonical archive; refuses whatever [`ArchiveReader`] would refuse.
#[derive(Debug)]
pub struct ArchiveWriter<W> {
    inner: W,
    members: usize,
    last: Option<String>,
    written: u64,
}

impl<W: Write> ArchiveWriter<W> {
    /// Starts an archive.
    pub const fn new(inner: W) -> Self {
        ArchiveWriter { inner, members: 0, last: None, written: 0 }
    }

    /// Writes a member of exactly `size` bytes from `data`.
    ///
    /// # Errors
    /// [`ArchiveError`] when the member cannot stand here, has another size or cannot be written.
    pub fn append(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<(), ArchiveError> {
        let malformed = |what: String| ArchiveError::Malformed { offset: self.written, what };
        let header = canonical_header(name, size).map_err(malformed)?;
        let in_order = match self.last.as_deref() {
            None => name == member::MANIFEST,
            Some(member::MANIFEST) => name != member::MANIFEST,
            Some(last) => name > last && name != member::MANIFEST,
        };
        if !in_order {
            return Err(malformed(format!("{name} cannot stand here; the manifest is first, the rest is sorted")));
        }
        let total = self.written.saturating_add(size).saturating_add(4 * BLOCK_BYTES as u64);
        if self.members == MEMBERS_MAX || total > TOTAL_BYTES_MAX {
            return Err(malformed(format!("{name} does not fit any more")));
        }
        self.inner.write_all(header.as_bytes()).map_err(ArchiveError::Write)?;
        let copied = io::copy(&mut data.take(size), &mut self.inner).map_err(ArchiveError::Write)?;
        if copied != size {
            return Err(malformed(format!("{name} has {copied} bytes where {size} were said")));
        }
        let tail = size % BLOCK_BYTES as u64;
        let padding = if tail == 0 { 0 } else { BLOCK_BYTES as u64 - tail };
        io::copy(&mut io::repeat(0).take(padding), &mut self.inner).map_err(ArchiveError::Write)?;
        self.members += 1;
        self.last = Some(name.to_owned());
        self.written += BLOCK_BYTES as u64 + size + padding;
        Ok(())
    }

    /// Writes the end and gives the number of bytes of the whole archive.
    ///
    /// # Errors
    /// [`ArchiveError::Write`] when it cannot be written.
    pub fn finish(mut self) -> Result<u64, ArchiveError> {
        self.inner.write_all(&[0; 2 * BLOCK_BYTES]).map_err(ArchiveError::Write)?;
        self.inner.flush().map_err(ArchiveError::Write)?;
        Ok(self.written + 2 * BLOCK_BYTES as u64)
    }
}

//! Blocking ends of a private socket, for processes that use threads.

use std::io::{self, BufReader, Read, Write};
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use super::{Frame, FrameError, decode_frame, encode_frame, frame_len};

/// A connection that broke or spoke nonsense.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed or the other side closed it.
    #[error("the connection to the monitor broke: {0}")]
    Io(#[from] io::Error),
    /// A frame could not be read or written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An answer to another request than the one that was sent.
    #[error("the monitor answered out of order")]
    OutOfOrder,
}

/// Frames in both directions over one stream.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Connection {
    /// Wraps a connected stream.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Connection { writer: stream.try_clone()?, reader: BufReader::new(stream) })
    }

    /// The halves, for a reader and a writer thread.
    pub fn split(self) -> (BufReader<UnixStream>, UnixStream) {
        (self.reader, self.writer)
    }
}

/// Reads the next frame; `None` when the other side closed between frames.
///
/// # Errors
/// [`ClientError`] when the stream breaks or carries something else.
pub fn read_frame<T: Serialize + DeserializeOwned>(reader: &mut impl Read) -> Result<Option<Frame<T>>, ClientError> {
    let mut prefix = [0; 4];
    match reader.read(&mut prefix)? {
        0 => return Ok(None),
        read => reader.read_exact(&mut prefix[read..])?,
    }
    let mut body = vec![0; frame_len(prefix)?];
    reader.read_exact(&mut body)?;
    Ok(Some(decode_frame(&body)?))
}

/// Writes one frame.
///
/// # Errors
/// [`ClientError`] when the stream breaks or the message is too long.
pub fn write_frame<T: Serialize>(writer: &mut impl Write, frame: &Frame<T>) -> Result<(), ClientError> {
    Ok(writer.write_all(&encode_frame(frame)?)?)
}

/// A client that asks one thing at a time.
#[derive(Debug)]
pub struct Client<Request, Reply> {
    connection: Connection,
    next_id: u64,
    messages: PhantomData<(Request, Reply)>,
}

impl<Request: Serialize, Reply: Serialize + DeserializeOwned> Client<Request, Reply> {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path).map_err(|error| explain(path, error))?;
        Ok(Client { connection: Connection::new(stream)?, next_id: 0, messages: PhantomData })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError`] when the connection breaks.
    pub fn call(&mut self, body: Request) -> Result<Reply, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        write_frame(&mut self.connection.writer, &Frame { id, body })?;
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
        let frame: Frame<Reply> = read_frame(&mut self.connection.reader)?.ok_or_else(closed)?;
        if frame.id == id { Ok(frame.body) } else { Err(ClientError::OutOfOrder) }
    }
}

/// The address of a Unix socket holds about a hundred bytes, which a home deep in a tree exceeds.
pub(super) fn explain(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::InvalidInput {
        return error;
    }
    let len = path.as_os_str().len();
    io::Error::new(
        error.kind(),
        format!("{} has {len} bytes, too many for a socket; move the home to a shorter path", path.display()),
    )
}

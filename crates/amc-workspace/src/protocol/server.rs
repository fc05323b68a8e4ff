//! The listening end of a private socket: who may connect, and how frames become answers.

use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::net::sockopt::socket_peercred;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Frame, read_frame, write_frame};
use crate::home;

/// Listens at `path`, mode 0600, in place of a socket that a dead process left there. Whoever calls
/// this knows that no living process listens there. The directory must be closed to others, so that
/// nobody connects before the mode is set.
///
/// # Errors
/// When the socket cannot be made, or its directory is looser than 0700.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    home::check_mode(path.parent().unwrap_or(Path::new("/")), 0o700).map_err(io::Error::other)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|error| super::blocking::explain(path, error))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether the process at the other end runs as this one's user, or as root.
pub fn is_trusted(stream: &UnixStream) -> bool {
    socket_peercred(stream).is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// The process at the other end.
pub fn peer_pid(stream: &UnixStream) -> Option<i32> {
    socket_peercred(stream).ok().map(|peer| peer.pid.as_raw_nonzero().get())
}

/// Answers frames one after the other until the other side is gone.
pub fn serve<Request, Reply>(stream: &UnixStream, mut answer: impl FnMut(Request) -> Reply)
where
    Request: Serialize + DeserializeOwned,
    Reply: Serialize,
{
    let Ok(writer) = stream.try_clone() else { return };
    let (mut reader, mut writer) = (BufReader::new(stream), writer);
    while let Ok(Some(Frame { id, body })) = read_frame::<Request>(&mut reader) {
        if write_frame(&mut writer, &Frame { id, body: answer(body) }).is_err() {
            return;
        }
    }
}

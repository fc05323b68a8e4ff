//! The private sockets: who may connect, and how frames become answers.

use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use amc_evidence::PayloadRef;
use amc_evidence::event::{Stored, StoredBytes};
use amc_workspace::protocol::gateway::{Capture, CapturedPayload};
use amc_workspace::protocol::{Frame, Refusal, read_frame, write_frame};
use rustix::net::sockopt::socket_peercred;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Listens at `path`, mode 0600, in place of a socket that a dead process left there.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether the process at the other end runs as this one's user, or as root.
pub(crate) fn is_trusted(stream: &UnixStream) -> bool {
    socket_peercred(stream).is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// The process at the other end.
pub(crate) fn peer_pid(stream: &UnixStream) -> Option<i32> {
    socket_peercred(stream).ok().map(|peer| peer.pid.as_raw_nonzero().get())
}

/// Answers frames one after the other until the other side is gone.
pub(crate) fn serve<Request, Reply>(stream: &UnixStream, mut answer: impl FnMut(Request) -> Reply)
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

/// The reference and the bytes to store of a body that a keyless process captured.
pub(crate) fn payload(captured: CapturedPayload) -> Result<(PayloadRef, Option<Vec<u8>>), Refusal> {
    let CapturedPayload { wire_sha256, wire_len, media_type, capture, bytes } = captured;
    let differing = |rules| StoredBytes { sha256: amc_crypto::sha256(&bytes), len: bytes.len() as u64, rules };
    let stored = match capture {
        Capture::Full => Stored::Full,
        Capture::Redacted(rules) => Stored::Redacted(differing(rules)),
        Capture::Truncated(rules) => Stored::Truncated(differing(rules)),
        Capture::Omitted => Stored::Omitted,
    };
    if stored == Stored::Full && (wire_len != bytes.len() as u64 || amc_crypto::sha256(&bytes) != wire_sha256) {
        return Err(Refusal::Invalid("a body said to be whole is not the one that passed".to_owned()));
    }
    let bytes = (stored != Stored::Omitted).then_some(bytes);
    Ok((PayloadRef { wire_sha256, wire_len, media_type, stored }, bytes))
}

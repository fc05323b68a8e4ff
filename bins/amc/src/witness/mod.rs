//! The HTTP side of witnessing (C2SP tlog-witness), without a key: `serve` carries other logs' checkpoints to the
//! monitor, which compares, records and cosigns; `push` asks outside witnesses for cosignatures of this workspace's
//! logs. What arrives over the network is parsed here and verified again by whoever signs or relies on it.

mod push;
mod serve;

pub(crate) use push::{cosigned, push};
pub(crate) use serve::serve;

/// The last part of the protocol's one path.
const ADD_CHECKPOINT: &str = "add-checkpoint";

/// Media type of the size in a 409.
const SIZE_TYPE: &str = "text/x.tlog.size";

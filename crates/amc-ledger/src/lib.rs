//! The durable log on disk: segments, group commit, recovery, payload packs, tiles, checkpoints;
//! readers that need no lock and no key; a verifier that never writes.
//!
//! ```text
//! <log>/checkpoint                 the newest published signed checkpoint, replaced atomically
//! <log>/segments/<first index>.seg events and a signed checkpoint per flush, append only
//! <log>/payloads/<number>.pack     bytes that stand apart from events
//! <log>/tile/<L>/<N>               full hash tiles (C2SP tlog-tiles)
//! <log>/index/                     sled: rebuilt from the segments, never needed to verify
//! <log>/lock                       held by the one writer
//! ```
//!
//! An append returns only when its event is durable. Nothing here deletes evidence, and nothing
//! retries after a failed write. Synchronous; clock, keys and storage come in as arguments. The
//! byte formats are in `docs/formats/ledger.md`.
//!
//! To embed it, begin with the programs in `examples/`: `write` ([`create`], [`Writer`]), `read`
//! ([`LogReader`], [`verify()`]) and `prove` ([`Tree`] with `amc_crypto::merkle`).

#![forbid(unsafe_code)]

mod engine;
mod error;
mod export;
mod frame;
mod index;
pub mod line;
pub mod pair;
mod payload;
mod publish;
mod reader;
mod recovery;
mod reindex;
pub mod revocation;
mod snapshot;
mod storage;
pub mod succeed;
#[cfg(test)]
mod tests;
mod tiles;
mod verify;
pub mod witness;
mod writer;

pub use error::{AppendError, FileError, IndexError, OpenError, ReadError, ReindexError};
pub use export::ExportedTiles;
pub use reader::{Events, LogReader, PayloadLocation, StoredEvent, Tree};
pub use reindex::{Reindexed, reindex};
pub use verify::{Progress, RevokedKey, VerifyMode, VerifyOptions, VerifyReport, verify};
pub use writer::{Appended, CallPart, Pending, Recovery, RequestPlace, Signers, Writer, create};

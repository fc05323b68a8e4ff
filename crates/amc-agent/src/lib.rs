//! What an agent may link: it keeps the receipts of its model calls, verifies them, and writes trace
//! lines that name them. It holds no key, opens no socket and never speaks for AMC: what is written
//! here is the agent's own word, and counts only where a receipt ties it to recorded evidence.
//!
//! Receipts follow `docs/formats/` (compact JWS, `alg` EdDSA); trace lines are one JSON object each
//! on the agent's standard output.

#![forbid(unsafe_code)]

pub mod receipts;
pub mod trace;

pub use receipts::{ReceiptBook, Receipts, verify};
pub use trace::{TraceError, TraceEvent, TraceLine};

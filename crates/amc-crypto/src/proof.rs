//! Proof files (C2SP tlog-proof v1): one event, its audit path and a checkpoint, checkable alone.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64(event body)>
//! index <n>
//! <base64(hash)>            one line each, leaf side first
//!
//! <checkpoint note>
//! ```

use amc_core::Digest;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::note::Note;

/// The first line of every proof file.
pub const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The text of a `.tlog-proof` for the event at `index`.
pub fn encode(event_body: &[u8], index: u64, path: &[Digest], checkpoint: &Note) -> String {
    let hashes: String = path.iter().map(|hash| STANDARD.encode(hash.0) + "\n").collect();
    format!("{HEADER}\nextra {}\nindex {index}\n{hashes}\n{checkpoint}", STANDARD.encode(event_body))
}

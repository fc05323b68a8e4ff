//! A mark in every artifact that links this crate. The boundary check looks for its bytes: they
//! must be absent from what an agent may load and present in the signers' binaries.

/// The mark. `#[used]` keeps it through release builds and link-time optimisation, where a plain
/// constant or static that nobody reads would vanish.
#[used]
pub static TRIPWIRE: [u8; 29] = *b"AMC-TRIPWIRE-SIGNER-LINKED-v1";

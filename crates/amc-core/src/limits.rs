//! Bounds on every input, each with its reason.

/// An event body: small enough that a reader never allocates much for a claim of length, large
/// enough for any typed field; bodies of any size go into payloads.
pub const EVENT_BYTES_MAX: usize = 65_535;
/// A media type in a payload reference (RFC 6838 allows 127 for each half; real ones are short).
pub const MEDIA_TYPE_BYTES_MAX: usize = 127;
/// The list of redaction rules that a payload reference names.
pub const RULES_BYTES_MAX: usize = 255;
/// Stored bytes of one payload; what passes beyond is hashed, counted and not kept.
pub const PAYLOAD_STORED_BYTES_MAX: usize = 1 << 20;
/// One frame on a private socket: a stored payload and an event beside it.
pub const FRAME_BYTES_MAX: usize = PAYLOAD_STORED_BYTES_MAX + 2 * EVENT_BYTES_MAX;
/// A signed note: 16 KiB holds a checkpoint with more than a hundred cosignatures.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;
/// Signature lines in a note, as many as C2SP asks implementations to bear.
pub const NOTE_SIGNATURES_MAX: usize = 100;
/// A trust policy file: 32 logs, witnesses and groups fit many times over.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// A DSSE envelope of ours: manifests of some thousand members fit.
pub const ENVELOPE_BYTES_MAX: usize = 4 << 20;
/// A configuration file.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Argument vector entries recorded in a session's opening event.
pub const ARGV_ENTRIES_MAX: usize = 64;
/// Bytes recorded of one argument.
pub const ARGV_ENTRY_BYTES_MAX: usize = 512;
/// Length of an agent id or a workspace name, as FORMATS says (`{0,63}` after the first).
pub const NAME_BYTES_MAX: usize = 64;
/// Request ids that clients choose themselves.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// A compact JWS receipt; ours take about one kilobyte.
pub const RECEIPT_BYTES_MAX: usize = 8 * 1024;

//! Scoring: facts from verified evidence, the question bank, gates, caps, the IntegrityIndex and
//! the report.
//!
//! Pure: the same input gives the same bytes on every machine and in any order of reading. This
//! crate reads no clock, no environment, no file and no payload body; it knows no network and uses
//! no floats. Levels and weights are basis points, every division rounds down, ages are whole
//! seconds. Events enter as [`VerifiedEvent`](amc_evidence::VerifiedEvent)s only.
//!
//! The way of one run: [`select`] says which events count, [`sessions`] puts them into sessions,
//! [`correlate`] holds the agent's trace against them, [`detect`] turns them into [`facts`] (and
//! [`reported`] what was handed in), [`gate`] finds the level that the facts support,
//! [`caps`] takes away what may not stand, [`integrity`] says how far to trust it, and [`mod@score`]
//! writes the [`Report`]. `docs/concepts/scoring.md` tells it for people.

#![forbid(unsafe_code)]

pub mod actions;
pub mod bank;
mod calls;
pub mod caps;
pub mod claims;
pub mod coalesce;
pub mod configs;
pub mod correlate;
pub mod detect;
pub mod drift;
pub mod explain;
pub mod facts;
pub mod gate;
pub mod integrity;
mod judge;
pub mod question;
pub mod render;
pub mod report;
pub mod reported;
pub mod score;
pub mod select;
pub mod sessions;
pub mod source;
mod summary;
mod upstreams;

pub use bank::{Bank, BankError, SHIPPED_BANK};
pub use claims::{Claims, ClaimsError, Target, TargetError};
pub use explain::explain;
pub use report::{Label, Report, Status};
pub use score::{ScoreInput, score, score_selected};
pub use select::{Selected, Selector, select_audit};
pub use source::{EvidenceSource, SourceError};

/// The name and version of this scorer. A report names the scorer that made it; a verifier that
/// lacks that one says `SCORER_UNSUPPORTED`. Any change of a number here is a new version.
pub const SCORER: &str = "amc-scorer/1";

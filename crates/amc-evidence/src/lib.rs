//! The event record and the receipt, and the rules over a stream of events.
//!
//! Pure: no file, no clock, no key. [`event`] is one record; [`log`] is the state machine that both
//! the writer of a log and everybody who verifies one run over its events, so they cannot disagree;
//! [`verify`] turns stored bytes into a [`VerifiedEvent`]; [`receipt`] derives a receipt's claims
//! from an event and checks them against one.

#![forbid(unsafe_code)]

pub mod event;
pub mod log;
pub mod receipt;
pub mod session;
pub mod verify;

pub use event::{Event, PayloadRef, SignedEvent, Stored};
pub use log::{Content, Draft, LogState, NextEvent};
pub use session::{OpenSession, SessionPlan, SessionRules};
pub use verify::{Changed, EventRecord, EventTrust, KeyHistory, Seen, SeenHash, VerifiedEvent};

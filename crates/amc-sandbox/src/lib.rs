//! Starting an agent: a clean environment, captured streams, the exit status passed on.
//!
//! This crate holds no key and decides no tier. It starts a process, copies its streams while it
//! records them, and reports its end. The bare start is here; containment comes beside it.

#![forbid(unsafe_code)]

mod claim;
pub mod command;
pub mod environment;
pub mod isolation;
pub mod machine;
pub mod probe;
pub mod process;
pub mod recorder;
pub mod redact;
mod terminal;
pub mod traces;

pub use command::{Executable, ResolveError};
pub use environment::{Environment, Routes};
pub use isolation::{Asked, Chosen, Start};
pub use process::{Launch, LaunchError};
pub use recorder::{Continuing, Recorded, Recorder, RecorderError};

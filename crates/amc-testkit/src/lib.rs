//! What tests and walk-throughs need beside the product: a demo model, and handles on processes.
//!
//! Nothing here ships with AMC and nothing but dev-dependencies names this crate. The demo model is
//! no language model: it answers every prompt by a fixed rule, and its answers say so.

#![forbid(unsafe_code)]

pub mod answer;
pub mod client;
pub mod model;
pub mod process;

pub use model::{DemoModel, ModelOptions};
pub use process::{Program, binary};

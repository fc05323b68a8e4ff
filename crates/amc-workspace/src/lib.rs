//! The `.amc` directory: its layout and permissions, signed configuration, the trust policy, and
//! the typed protocol of the private sockets.
//!
//! No key is here and no network: sockets are Unix sockets under `run/`. Every process of AMC that
//! opens a home goes through this crate, so that a file has one place and one check.

#![forbid(unsafe_code)]

pub mod agent_config;
pub mod answer;
pub mod call;
pub mod clock;
pub mod config;
pub mod duration;
pub mod generation;
pub mod hardening;
pub mod home;
pub mod opening;
pub mod passphrase;
pub mod pins;
pub mod protocol;
pub mod providers;
pub mod signed;

pub use agent_config::AgentConfig;
pub use answer::{Answer, Exit, Failure};
pub use clock::SystemClock;
pub use config::{AmcConfig, GatewayConfig, Provider};
pub use home::{Home, HomeError};
pub use opening::Opening;
pub use signed::{SignedFile, agent_of_path};

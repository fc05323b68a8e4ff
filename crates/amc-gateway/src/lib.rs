//! The LLM reverse proxy and the egress proxy: what an unmodified agent sends to a model, and to
//! anywhere else, passes here, and what passed is handed to the monitor as typed evidence.
//!
//! Bodies go through byte for byte and unbuffered, both ways. This process holds no signing key: it
//! knows the providers' keys and the agents' leases, submits fields, and the monitor builds, orders
//! and signs the events (`docs/ARCHITECTURE.md`, `docs/formats/receipts.md`).
//!
//! ```text
//! agent ─► server ─► call ─► routes, credentials ─► upstream ─► provider
//!                     │ tap, facts, redact, record
//!                     └────────► monitor (run/gateway.sock)
//! ```

#![forbid(unsafe_code)]

mod body;
mod call;
mod credentials;
pub mod egress;
mod error;
mod facts;
mod forward;
mod granted;
mod harden;
mod headers;
mod limits;
mod log;
mod metrics;
mod monitor;
mod otlp;
mod probes;
mod receipts;
mod record;
mod redact;
mod refusal;
mod reload;
mod routes;
mod server;
mod state;
mod tap;
mod upstream;
mod websocket;

pub use error::GatewayError;
pub use harden::{Hardening, OWN_USER, become_own_user, harden};
pub use monitor::Socket;
pub use server::{Options, run, serve};

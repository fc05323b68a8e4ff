//! The gateway against a peer that speaks the monitor's protocol over a real socket, and against
//! real upstreams: the demo model, and connections that a test plays by hand.
#![expect(clippy::unwrap_used, reason = "tests")]

mod egress;
mod evidence;
mod leases;
mod lies;
mod life;
mod monitor;
mod otlp;
mod providers;
mod receipts;
mod refusals;
mod relay;
mod rig;
mod secrets;
mod upstream;
mod websocket;

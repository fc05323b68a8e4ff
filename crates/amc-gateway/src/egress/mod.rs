//! The egress proxy: HTTP CONNECT and absolute-form HTTP for an agent's other traffic, default deny.
//!
//! In this order, and each before the next: whose lease, is the host written in its one spelling, is
//! it allowed, what addresses has it, are all of them of the public internet, does one answer, and in
//! a tunnel: does the TLS ClientHello name the same host. The address that was checked is the one
//! that is dialled.

mod addresses;
mod hello;
mod rules;
mod serve;
mod target;
mod tunnel;

pub use addresses::is_public;
pub use hello::{Hello, client_hello};
pub use rules::Resolver;
pub(crate) use rules::Rules;
pub(crate) use serve::{Egress, connection};
pub use target::Target;

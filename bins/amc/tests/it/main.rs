//! The whole product from outside: real processes, real logs, the command line as its page describes it.
//!
//! One test binary. The binaries beside `amc` must be built: `cargo build --workspace --bins`.

mod answer;
mod attacks;
mod bad_input;
mod boundary;
mod bundle_more;
mod certs;
mod channels;
mod ci_recipe;
mod configs;
mod deploy;
mod doctor;
mod egress;
mod gate_outputs;
mod gateway_life;
mod holder;
mod home;
mod hostile;
mod http2;
mod json;
mod leases;
mod passphrases;
mod probe;
mod probe_elsewhere;
mod reported;
mod reports;
mod roles;
mod rotation;
mod secrets;
mod services;
mod succeed;
mod vault;
mod witness;
mod witnesses;
mod wrap;

//! What the public face of this crate promises, as one test program.

mod common;
mod events;
mod rules;

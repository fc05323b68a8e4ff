//! The home, its configuration files and the private sockets, from outside: what is taken, what is
//! refused, and that a refusal names its place.

mod config;
mod frames;
mod home;
mod signed;

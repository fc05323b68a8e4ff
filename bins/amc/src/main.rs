//! amc.
fn main() {}

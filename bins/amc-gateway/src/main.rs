//! amc-gateway.
fn main() {}

//! amc-monitor.
fn main() {}

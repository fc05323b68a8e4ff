//! amc-auditor.
fn main() {}

//! amc-testkit.

//! amc-sandbox.

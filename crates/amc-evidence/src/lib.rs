//! amc-evidence.

//! amc-bundle.

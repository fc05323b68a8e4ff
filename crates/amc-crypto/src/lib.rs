//! amc-crypto.

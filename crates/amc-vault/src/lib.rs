//! amc-vault.

//! amc-ledger.

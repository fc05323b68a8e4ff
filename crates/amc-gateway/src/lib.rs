//! amc-gateway.

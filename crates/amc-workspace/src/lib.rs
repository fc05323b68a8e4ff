//! amc-workspace.

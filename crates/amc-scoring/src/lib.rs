//! amc-scoring.

//! amc-agent.

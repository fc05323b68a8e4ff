//! Tests of scoring over real logs, generated facts and pages.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bank;
mod boundary;
mod coalesced;
mod continued;
mod detectors;
mod drift;
mod gates;
mod hostile;
mod lint;
mod pages;
mod properties;
mod reported;
mod runs;
mod schema;
mod showcase;
mod tables;
mod traces;
mod world;

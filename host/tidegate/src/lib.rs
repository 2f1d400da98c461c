//! The Tidegate host: serves handlers that are WASI components.
//!
//! The command line and the wiring; `docs/architecture.md` has the map of the crates below.

pub mod application;
pub mod compose;
pub mod config;
pub mod host;
mod metrics;

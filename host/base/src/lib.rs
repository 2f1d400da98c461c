//! What every crate of the host stands on: clocks and alarms, disks, who runs when, what may be held,
//! and what metrics and settings are made of.
//!
//! Knows nothing of actors, of components, or of the network.

pub mod budget;
pub mod clock;
pub mod config;
pub mod disk;
pub mod fair;
pub mod gather;
pub mod hash;
pub mod memory;
pub mod metrics;
pub mod rate;
pub mod sync;
pub mod timer;
pub mod workers;

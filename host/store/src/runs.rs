//! Which run of a store wrote what, so that an epoch and a version name one content for ever.
//!
//! Each opening of a store is a *run* with a random name. A record that another run has written
//! goes on in an epoch of this run's own: a folder that was copied, or put back, has one past
//! and many futures, and none of them counts in the epoch of another.
//!
//! Invariant: in one epoch only one run makes versions. Within a run, the same record goes on in
//! the same epoch however often it is loaded before that is stored.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Length of the names of runs and of the epochs that they begin, in bytes.
const NAME: usize = 6;

/// A run of a store.
#[derive(Debug)]
pub struct Run(Arc<str>);

impl Default for Run {
    fn default() -> Run {
        Run::new()
    }
}

impl Run {
    /// One that begins now.
    pub fn new() -> Run {
        let mut name = [0; NAME];
        getrandom::fill(&mut name).expect("the system has random numbers");
        Run(hex(&name))
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.0
    }

    /// The epoch of its own in which it goes on from another one.
    pub fn epoch_after(&self, epoch: &str) -> Arc<str> {
        let mut hash = Sha256::new();
        // All names of runs are of one length.
        hash.update(&*self.0);
        hash.update(epoch);
        hex(&hash.finalize()[..NAME])
    }
}

fn hex(bytes: &[u8]) -> Arc<str> {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().into()
}

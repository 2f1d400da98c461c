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

use super::record::{Begun, Stored};

/// Length of the names of runs and of the epochs that they begin, in bytes.
const NAME: usize = 6;

/// A run of a store.
#[derive(Debug)]
pub(super) struct Run(Arc<str>);

impl Run {
    pub(super) fn new() -> Run {
        let mut name = [0; NAME];
        getrandom::fill(&mut name).expect("the system has random numbers");
        Run(hex(&name))
    }

    /// Names itself in a record that it writes.
    pub(super) fn sign(&self, stored: &mut Stored) {
        stored.run = self.0.clone();
    }

    /// Goes on from what is stored.
    pub(super) fn take_over(&self, stored: &mut Stored) {
        if stored.run != self.0 {
            stored.go_on_as(Begun {
                epoch: self.epoch_after(&stored.epoch),
                run: self.0.clone(),
            });
            stored.is_begun = true;
        }
    }

    fn epoch_after(&self, epoch: &str) -> Arc<str> {
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

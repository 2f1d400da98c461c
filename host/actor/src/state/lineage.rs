//! The epochs that an actor's present one goes on from.
//!
//! An actor that another run of the store has written goes on in an epoch of its own
//! (`store`). Who comes back with an earlier epoch and a version that both have in common has
//! missed what came since, and nothing else.

use std::sync::Arc;

use tidegate_core::protocol::Since;
use tidegate_core::turn::{Begun, Change, Earlier, Stored};

use super::Parts;

/// Where the present epoch comes from. Actors that were not loaded from another run have none.
#[derive(Debug)]
pub(crate) struct Lineage {
    /// The oldest first.
    earlier: Vec<Earlier>,
    /// The run whose epoch this is, as long as the store does not say so.
    begun_by: Option<Arc<str>>,
}

impl Lineage {
    /// That of an actor as it was loaded.
    pub(crate) fn of(stored: &mut Stored) -> Option<Box<Lineage>> {
        let earlier = std::mem::take(&mut stored.earlier);
        (!earlier.is_empty()).then(|| {
            Box::new(Lineage {
                earlier,
                begun_by: stored.is_begun.then(|| stored.run.clone()),
            })
        })
    }

    /// The epochs before this one.
    pub(crate) fn earlier(&self) -> &[Earlier] {
        &self.earlier
    }

    /// Whether the store does not yet say that the epoch has begun.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun_by.is_some()
    }

    /// The store says so.
    pub(crate) fn is_stored(&mut self) {
        self.begun_by = None;
    }
}

impl Parts {
    /// Which version of the present history somebody holds who has seen this; none if what they
    /// hold may be something else.
    pub(crate) fn version_of(&self, since: &Since) -> Option<u64> {
        if *since.epoch == *self.shown.epoch {
            return Some(since.version);
        }
        let earlier = self.history.lineage.as_ref()?.earlier.iter();
        let mut earlier =
            earlier.filter(|earlier| *self.shown.name_of(&earlier.epoch) == *since.epoch);
        let left = earlier.next()?;
        (since.version <= left.version).then_some(since.version)
    }

    /// What the next change says of the epoch.
    pub(crate) fn begins(&self) -> Option<Box<Begun>> {
        let run = self.history.lineage.as_ref()?.begun_by.clone()?;
        let epoch = self.history.epoch.clone();
        Some(Box::new(Begun { epoch, run }))
    }

    /// Whether what the store has leads to the present history.
    pub(crate) fn goes_on_from(&self, base: &Stored, changes: &[Change]) -> bool {
        let mut begun = changes
            .iter()
            .rev()
            .filter_map(|change| change.begins.as_ref());
        let epoch = begun.next().map_or(&base.epoch, |begun| &begun.epoch);
        let is_earlier = |lineage: &Lineage| lineage.earlier.iter().any(|e| e.epoch == *epoch);
        *epoch == self.history.epoch || self.history.lineage.as_deref().is_some_and(is_earlier)
    }
}

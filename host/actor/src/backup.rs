//! Actors that are copied out of a host that runs, and into one.

use std::sync::Arc;

use tidegate_core::turn::Stored;
use tidegate_core::{ActorKey, Failure};

use super::activation::Activation;
use super::mailbox::Retire;
use super::table::Admission;
use super::{Actors, new_epoch};
use crate::state::unavailable;

/// What happens to an actor that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the other one is refused.
    Stays,
    /// It is replaced.
    GivesWay,
}

impl Actors {
    /// An actor as of one commit that is safe; none where there is nothing to keep. What it is
    /// taken for elsewhere begins a history of its own, so the copy says nothing of earlier ones.
    pub async fn copy(&self, key: &ActorKey) -> Result<Option<Stored>, Failure> {
        let copied = self.copy_whole(key).await?;
        Ok(copied.map(|stored| Stored {
            run: "".into(),
            earlier: Vec::new(),
            ..stored
        }))
    }

    async fn copy_whole(&self, key: &ActorKey) -> Result<Option<Stored>, Failure> {
        let actor = self.shared.table.get(key);
        if let Some(live) = actor.as_ref().and_then(|actor| actor.loaded()) {
            live.at_rest().await;
            let stored = live.to_stored();
            live.gate.passed().await?;
            return Ok(Some(stored).filter(|stored| !stored.is_new()));
        }
        let stored = self.shared.store.load(key).await;
        let stored = stored.map_err(|error| unavailable(&error))?;
        Ok(stored.map(|(stored, _)| stored))
    }

    /// Why an actor could not be taken in as things are, if so.
    pub async fn check_restore(
        &self,
        key: &ActorKey,
        stored: Stored,
        existing: Existing,
    ) -> Result<(), Failure> {
        self.prepare(key, stored, existing).await.map(drop)
    }

    /// Takes in an actor, in a new epoch; it is safe when this returns. One that is in
    /// memory is not replaced, because whoever uses it would not notice.
    pub async fn restore(
        &self,
        key: &ActorKey,
        stored: Stored,
        existing: Existing,
    ) -> Result<(), Failure> {
        let shared = &self.shared;
        let (actor, mut stored) = self.prepare(key, stored, existing).await?;
        stored.begin_as(new_epoch());
        // It comes into memory as it is to be: nobody can load what was there before, and
        // who finds it waits at its gate until it is stored.
        let resident = shared.table.get_or_insert(key, Admission::IfRoom, || {
            shared.wake_later(key, None);
            actor.begin_as(stored, shared);
            actor.clone()
        });
        let resident = resident.ok_or_else(super::too_many_actors)?;
        if !Arc::ptr_eq(&resident, &actor) {
            return Err(in_use(key));
        }
        let passed = actor.settle(shared).await;
        if passed.is_err() {
            actor.part(Retire::Always, shared);
        }
        passed
    }

    async fn prepare(
        &self,
        key: &ActorKey,
        stored: Stored,
        existing: Existing,
    ) -> Result<(Arc<Activation>, Stored), Failure> {
        let shared = &self.shared;
        let slot = shared.router.resolve(key.actor.as_str());
        let slot = slot.ok_or_else(|| Failure::unknown_actor(key.actor.as_str()))?;
        let actor = Activation::new(key.clone(), slot, shared);
        let stored = actor.fitted(stored).await?;
        if shared.table.get(key).is_some() {
            return Err(in_use(key));
        }
        if existing == Existing::Stays {
            let found = shared.store.load(key).await;
            if found.map_err(|error| unavailable(&error))?.is_some() {
                return Err(Failure::actor_exists(key));
            }
        }
        Ok((actor, stored))
    }
}

fn in_use(key: &ActorKey) -> Failure {
    Failure::actor_in_use(key)
}

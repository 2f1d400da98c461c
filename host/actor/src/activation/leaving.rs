//! How an actor leaves memory, or begins anew.
//!
//! The consumer of its queue calls this, between two items; so does whoever imports an actor.
//!
//! Invariant: an actor gives up its key only once all that it was is stored, or nothing is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_core::turn::Stored;
use tidegate_core::{Client, Failure, Origin};
use tidegate_engine::Hook;
use tracing::warn;

use super::super::mailbox::Retire;
use super::super::sleeping::Wake;
use super::super::{Shared, new_epoch};
use super::Activation;
use super::schedules::Schedules;
use crate::state::{ActorState, unavailable};
use crate::turn::{Clock, Undecided};

impl Activation {
    /// Begins anew, as if it had never been. Who subscribes sees the new state; who is
    /// connected is announced again. True when nobody is left and it has gone.
    pub(super) async fn destroy(
        self: &Arc<Self>,
        live: &Arc<ActorState>,
        shared: &Arc<Shared>,
    ) -> Result<bool, Failure> {
        live.gate.passed().await?;
        let removed = shared.store.remove(&self.key).await;
        removed.map_err(|error| unavailable(&error))?;
        // Without a component there will be no new life.
        let component = self.slot.component();
        let declared = component.as_deref().and_then(|c| self.type_in(c).ok());
        let Some(declared) = declared else {
            return Ok(self.leave(Retire::Withdrawn, live, shared));
        };
        live.begin_again(&declared.state, new_epoch());
        if let Some(component) = &component {
            live.adopt_and_show(component).await;
        }
        // The new state may be for others than the old one.
        live.authorize_again(None, Undecided::Leave).await;
        self.activated.store(false, Ordering::Relaxed);
        *self.schedules() = Schedules::default();
        // As they are now: their claims may be newer than their contact.
        let connected: Vec<Client> = live
            .parts()
            .presence
            .ids()
            .filter_map(|id| shared.remote.presence.client(id))
            .collect();
        if connected.is_empty() && self.leave(Retire::WhenIdle, live, shared) {
            return Ok(true);
        }
        live.show_again().await;
        if !connected.is_empty() {
            self.activate(live, shared).await;
        }
        for client in connected {
            let origin = Origin::Client(client);
            self.run_hook(Hook::Connect, origin, live, shared).await;
        }
        Ok(false)
    }

    /// Leaves memory, unless there is a reason to stay. True when the actor is gone.
    pub(super) async fn retire(
        self: &Arc<Self>,
        how: Retire,
        live: &Arc<ActorState>,
        shared: &Arc<Shared>,
    ) -> bool {
        // It may have been used since it was found idle.
        if how == Retire::WhenIdle && !self.is_idle(live, shared) {
            return false;
        }
        if self.activated.swap(false, Ordering::Relaxed) {
            *self.schedules() = Schedules::default();
            self.run_hook(Hook::Deactivate, Origin::Host, live, shared)
                .await;
        }
        if live.gate.passed().await.is_err() {
            return false;
        }
        let mut stored = live.to_stored();
        // A host that stops, or another one that goes on, is no reason for its timers to end.
        let ends_timers = !matches!(how, Retire::Always | Retire::Moved);
        if ends_timers {
            stored.timers.retain(|stored| stored.timer.outlive);
        }
        if !live.announces_ends() {
            let connections = std::mem::take(&mut stored.connections);
            if !connections.is_empty() {
                shared
                    .detached_connections()
                    .insert(self.key.clone(), connections);
            }
        }
        // Timers that have fired and come again stand elsewhere now.
        let changed = {
            let parts = live.parts();
            parts.had_timers() || parts.outbox.has_settled()
        };
        let wake = wake_of(&stored, &shared.clock);
        // An actor that nothing ever happened to comes back the same without being kept.
        let retired = match (stored.is_new(), live.is_kept()) {
            (true, false) => Ok(()),
            (true, true) => shared.store.remove(&self.key).await.map(drop),
            (false, _) => {
                let durability = self.durability();
                let retired = shared.store.retire(&self.key, stored, changed, durability);
                retired.await
            }
        };
        if let Err(error) = retired {
            warn!(actor = %self.key, %error, "an actor stays in memory because it cannot be stored");
            shared.detached_connections().remove(&self.key);
            self.touch(shared);
            return false;
        }
        // Not before the store has forgotten them, too.
        if ends_timers {
            live.parts().timers.end_with_activity();
        }
        let left = self.leave(how, live, shared);
        match left {
            // Its new home wakes it.
            true if how == Retire::Moved => {}
            true => shared.wake_later(&self.key, wake),
            false => drop(shared.detached_connections().remove(&self.key)),
        }
        left
    }

    /// Waits until what it began with is stored, and leaves memory unless it is used.
    pub(crate) async fn settle(&self, shared: &Shared) -> Result<(), Failure> {
        let Some(live) = self.loaded() else {
            return Ok(());
        };
        live.gate.passed().await?;
        let stored = live.to_stored();
        let wake = wake_of(&stored, &shared.clock);
        let durability = self.durability();
        let retired = shared.store.retire(&self.key, stored, false, durability);
        retired.await.map_err(|error| unavailable(&error))?;
        if self.part(Retire::WhenIdle, shared) {
            shared.wake_later(&self.key, wake);
        }
        Ok(())
    }

    /// Gives up the key, unless there is a reason to stay.
    pub(crate) fn part(&self, how: Retire, shared: &Shared) -> bool {
        self.loaded()
            .is_some_and(|live| self.leave(how, live, shared))
    }

    /// Gives up the key, unless there is a reason to stay.
    fn leave(&self, how: Retire, live: &ActorState, shared: &Shared) -> bool {
        let left = shared.table.remove_if(&self.key, self.serial, || {
            let mut mailbox = self.mailbox();
            // Under one lock with whoever joins: they join this actor, or its successor.
            if !live.subscribers.leave_memory(how == Retire::WhenIdle) {
                return false;
            }
            let leaves = mailbox.close(how);
            if !leaves {
                live.subscribers.stay();
            }
            leaves
        });
        if left && how == Retire::Withdrawn {
            live.subscribers.end(live, &self.withdrawn());
        }
        left
    }
}

/// When an actor that leaves memory is to come back: when a timer is due, or after a while
/// where messages of it have not reached their receivers.
fn wake_of(stored: &Stored, clock: &Clock) -> Option<Wake> {
    let wake = Wake::of_timers(&stored.timers);
    if stored.outbox.is_empty() {
        return wake;
    }
    let ahead_ms = clock.ahead_ms();
    let again = Wake::after(clock.steady_ms().saturating_add(SEND_AGAIN_MS));
    match wake {
        Some(timers) if timers.due_ms(ahead_ms) <= again.due_ms(ahead_ms) => Some(timers),
        Some(timers) => Some(again.like(&timers)),
        None => Some(again),
    }
}

/// When an actor that left memory with messages that are not settled sends them again.
const SEND_AGAIN_MS: u64 = 10_000;

//! Consumes an actor's queue: one item after the other, until it is empty or the actor leaves memory.
//!
//! Invariants: an actor has one consumer at a time; however it ends, every item is answered.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use tidegate_base::gather::while_ready;
use tidegate_base::timer::Due;
use tidegate_core::failure::code;
use tidegate_core::{Client, Failure, Origin};
use tidegate_delivery::Close;
use tidegate_engine::Hook;
use tracing::{debug, info, warn};

use super::super::inline::pause_inline;
use super::super::mailbox::{Item, Retire};
use super::super::{Shared, new_epoch};
use super::Activation;
use crate::state::ActorState;
use crate::turn::Which;

/// Consumes an actor's queue until it is empty or the actor leaves memory.
pub(super) async fn drain(mut guard: DrainGuard) {
    let (actor, shared) = (guard.actor.clone(), guard.shared.clone());
    let live = match actor.live(&shared).await {
        Ok(live) => live,
        Err(failure) => {
            // A crowd that finds no room must not fill the log; the metrics count it.
            match &*failure.code {
                code::ACTOR_LIMIT => debug!(actor = %actor.key, %failure, "no room for an actor"),
                _ => warn!(actor = %actor.key, %failure, "an actor cannot be loaded"),
            }
            return guard.fail(&failure);
        }
    };
    // Gathers what turns let out while more of them wait.
    let mut corked = None;
    loop {
        let pace = pin!(live.keep_pace(shared.run_ahead));
        if let Err(failure) = while_ready(&mut corked, pace).await {
            return guard.lose(&failure);
        }
        if !actor.activated.load(Ordering::Relaxed) {
            let mut activated = Box::pin(actor.activate(live, &shared));
            while_ready(&mut corked, activated.as_mut()).await;
        }
        let next = actor.mailbox().next();
        let Some((item, is_more)) = next else {
            break;
        };
        if is_more && corked.is_none() {
            corked = Some(live.gate.batch().cork());
        }
        actor.slot.metrics.queued.dec();
        let keeps_awake = !matches!(&item, Item::Due(which, _) if live.is_idle_timer(*which));
        match item {
            Item::Call(call) => {
                let ran = pin!(actor.run_call(call, live, &shared));
                while_ready(&mut corked, ran).await;
            }
            Item::Due(which, due) => {
                let mut ran = Box::pin(actor.run_due(which, due, live, &shared));
                while_ready(&mut corked, ran.as_mut()).await;
            }
            Item::Connect(arrival) => {
                let client = &arrival.client;
                if let Some(id) = &client.connection {
                    live.parts().presence.add(id.clone(), client.user.clone());
                }
                let origin = Origin::Client(client.clone());
                let mut ran = Box::pin(actor.run_hook(Hook::Connect, origin, live, &shared));
                while_ready(&mut corked, ran.as_mut()).await;
            }
            Item::Disconnect(client) => {
                let mut ran = Box::pin(disconnect(&actor, client, live, &shared));
                while_ready(&mut corked, ran.as_mut()).await;
            }
            Item::Retire(how) => {
                corked = None;
                if Box::pin(actor.retire(how, live, &shared)).await {
                    debug!(actor = %actor.key, "deactivated");
                    actor.slot.metrics.retired.inc();
                    if how == Retire::Moved {
                        return guard.move_on(live);
                    }
                    let failure = match how {
                        Retire::Withdrawn => actor.withdrawn(),
                        _ => Failure::host_shutting_down(),
                    };
                    return guard.fail(&failure);
                }
                continue;
            }
            Item::Fit(done) => {
                corked = None;
                // Who does not wait any longer wants no answer.
                let _ = done.send(Box::pin(actor.follow(live, &shared)).await);
            }
            Item::Destroy(done) => {
                corked = None;
                match Box::pin(actor.destroy(live, &shared)).await {
                    Ok(gone) => {
                        info!(actor = %actor.key, "destroyed");
                        // Who does not wait any longer wants no answer.
                        let _ = done.send(Ok(()));
                        if gone {
                            return guard.fail(&actor.withdrawn());
                        }
                    }
                    Err(failure) => drop(done.send(Err(failure))),
                }
            }
        }
        live.commit_happenings(&*shared.store, actor.durability());
        corked = corked.filter(|corked| is_more && !corked.is_due());
        if let Some(failure) = live.gate.broken() {
            drop(corked);
            // A successor takes no message before those are told that were lost.
            let _ = live.gate.passed().await;
            return guard.lose(&failure);
        }
        if keeps_awake {
            actor.touch(&shared);
        }
        if is_more {
            // It goes on soon, and what has gathered is worth the wait.
            pause_inline().await;
        }
        // Tokio cannot interrupt a loop that never waits.
        let budget = pin!(tokio::task::coop::consume_budget());
        while_ready(&mut corked, budget).await;
    }
    // Should what is under way be lost, somebody must tell those who watch.
    let (actor, shared) = (guard.actor.clone(), guard.shared.clone());
    let departure = async move |outcome: Result<(), Failure>| {
        if outcome.is_err() {
            let _ = actor.deliver(Item::Due(Which::Wake, Due::Moment(0)), &shared);
        }
    };
    // Where nothing is under way nothing can be lost.
    let _ = live.gate.leave(departure);
    guard.finished = true;
}

pub(super) async fn disconnect(
    actor: &Arc<Activation>,
    client: Client,
    live: &Arc<ActorState>,
    shared: &Arc<Shared>,
) {
    // Once only: also one that was found to be gone gets here again.
    if let Some(id) = &client.connection
        && !live.parts().presence.remove(id)
    {
        return;
    }
    let origin = Origin::Client(client);
    actor.run_hook(Hook::Disconnect, origin, live, shared).await;
}

/// Ends a consumer's job however it ends: even after a panic of the host's own code the
/// callers get an answer and the actor's key gets a successor.
pub(super) struct DrainGuard {
    pub(super) actor: Arc<Activation>,
    pub(super) shared: Arc<Shared>,
    pub(super) finished: bool,
}

impl DrainGuard {
    /// Ends the actor; what is left in its queue gets this answer.
    fn fail(mut self, failure: &Failure) {
        self.finished = true;
        self.abandon(failure);
    }

    /// Ends an actor that goes on at another host: what is left in its queue, and who watches it,
    /// goes after it.
    fn move_on(mut self, live: &ActorState) {
        self.finished = true;
        let epoch = live.parts().shown.epoch.clone();
        let watchers = live.subscribers.take_watchers(&epoch);
        let rest = self.actor.mailbox().take_rest();
        self.shared.instances.forget(&self.actor);
        for item in rest {
            self.actor.slot.metrics.queued.dec();
            if let Err(undelivered) = self.shared.deliver(&self.actor.key, item) {
                undelivered
                    .item
                    .refuse(&self.actor.key, undelivered.failure);
            }
        }
        self.shared.send_after(&self.actor.key, watchers);
    }

    /// Ends an actor whose commits the store has lost; it is loaded again as it was last
    /// safe. Its subscribers come back to that.
    fn lose(self, failure: &Failure) {
        warn!(actor = %self.actor.key, %failure, "an actor is given up and loaded again");
        let actor = self.actor.clone();
        self.fail(failure);
        // Behind its end: who joins meanwhile either sees that or is among these.
        if let Some(live) = actor.loaded() {
            live.subscribers.close(Close::Lost);
        }
    }

    /// Keeps what was committed, as a history of its own. A store that cannot do this at once
    /// has every commit already.
    fn salvage(&self) {
        let Some(live) = self.actor.loaded() else {
            return;
        };
        let mut stored = live.to_stored();
        stored.begin_as(new_epoch());
        let (key, durability) = (&self.actor.key, self.actor.durability());
        let kept = self.shared.store.retire(key, stored, true, durability);
        if let Some(Err(error)) = kept.now_or_never() {
            warn!(actor = %self.actor.key, %error, "an actor's state is lost");
        }
    }

    /// What was to happen to an actor that was not loaded happens another time.
    fn come_again(&self, item: &Item, failure: &Failure) {
        match item {
            Item::Due(Which::Wake, _) => {
                let passes = matches!(
                    &*failure.code,
                    code::ACTOR_LIMIT | code::HOST_MEMORY | code::STORE_UNAVAILABLE
                );
                if passes {
                    self.shared.wake_again(&self.actor.key);
                }
            }
            // Its next call is its first contact.
            Item::Connect(arrival) => {
                if let Some(id) = &arrival.client.connection {
                    self.shared.connections.forget_contact(id, &self.actor.key);
                }
            }
            _ => {}
        }
    }

    fn abandon(&self, failure: &Failure) {
        if let Some(live) = self.actor.loaded() {
            live.subscribers.leave_memory(false);
        }
        let rest = self.actor.mailbox().take_rest();
        // A successor takes no message before those are told that were before it.
        let was_loaded = self.actor.loaded().is_some();
        for item in rest {
            self.actor.slot.metrics.queued.dec();
            if !was_loaded {
                self.come_again(&item, failure);
            }
            item.refuse(&self.actor.key, failure.clone());
        }
        self.shared
            .table
            .remove_if(&self.actor.key, self.actor.serial, || true);
        self.shared.instances.forget(&self.actor);
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if !self.finished {
            self.salvage();
            self.abandon(&Failure::host_failed());
            if let Some(live) = self.actor.loaded() {
                live.subscribers.close(Close::Lost);
            }
        }
        self.shared.drain_ended();
    }
}

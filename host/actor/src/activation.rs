//! One actor in memory: its queue, its state, its instance, and the turns it runs.
//!
//! Invariants: one turn at a time, in the order of the queue; every item that enters the
//! queue is run or answered; a failing hook or turn never stops the queue.

mod consumer;
mod leaving;
mod running;
mod schedules;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::manifest::ActorType;
use tidegate_core::turn::{Change, Connected, Stored};
use tidegate_core::{ActorKey, Failure, Origin};
use tidegate_engine::{Component, Hook, Instance};
use tidegate_store::{Commit, Committed, Durability, Weight};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::consumer::{DrainGuard, disconnect, drain};
use self::running::was_cancelled;
use self::schedules::Schedules;
use super::inline::InlineRun;
use super::instances;
use super::lanes::Consumer;
use super::mail::Blocked;
use super::mailbox::{Bounds, Call, Delivered, Ending, Item, Mailbox};
use super::{Shared, new_epoch};
use crate::claim::Slot;
use crate::state::{ActorState, unavailable};
use crate::turn::{Fitted, Undecided, fitted};

/// One actor in memory.
pub(super) struct Activation {
    pub(super) key: ActorKey,
    /// Tells this actor from earlier ones of the same key.
    pub(super) serial: u64,
    /// Which component serves it.
    pub(super) slot: Arc<Slot>,
    live: OnceCell<Arc<ActorState>>,
    mailbox: Mutex<Mailbox>,
    instance: Mutex<Option<Box<Instance>>>,
    /// The component, by serial number, of which the list of instances knows that it has one.
    pub(super) parked_of: AtomicU64,
    activated: AtomicBool,
    /// Whether it has been told the end of connections that had closed before it was in memory.
    pub(super) has_parted: AtomicBool,
    /// The manifest's schedules, while it is active.
    schedules: Mutex<Schedules>,
    /// Messages whose turns the store has refused.
    blocked: Mutex<Blocked>,
    /// When it last had something to do, in milliseconds since the host began.
    last_busy: AtomicU64,
}

impl Activation {
    pub(super) fn new(key: ActorKey, slot: Arc<Slot>, shared: &Shared) -> Arc<Activation> {
        slot.metrics.in_memory.inc();
        Arc::new(Activation {
            key,
            serial: shared.next_serial(),
            slot,
            live: OnceCell::new(),
            mailbox: Mutex::default(),
            instance: Mutex::new(None),
            parked_of: AtomicU64::new(instances::NONE),
            activated: AtomicBool::new(false),
            has_parted: AtomicBool::new(false),
            schedules: Mutex::default(),
            blocked: Mutex::default(),
            last_busy: AtomicU64::new(shared.uptime_ms()),
        })
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock()
    }

    /// The component that serves it now.
    fn component(&self) -> Result<Arc<Component>, Failure> {
        let component = self.slot.component();
        component.ok_or_else(|| self.withdrawn())
    }

    /// Which component serves it now, by serial number.
    pub(super) fn serving(&self) -> Option<u64> {
        self.slot.serving()
    }

    /// How safe its commits are.
    fn durability(&self) -> Durability {
        self.slot.durability()
    }

    /// What callers are told of an actor type that no component serves.
    fn withdrawn(&self) -> Failure {
        Failure::unknown_actor(self.key.actor.as_str())
    }

    fn type_in<'c>(&self, component: &'c Component) -> Result<&'c ActorType, Failure> {
        let declared = component.manifest.actors.get(self.key.actor.as_str());
        declared.ok_or_else(|| self.withdrawn())
    }

    /// Answers queued calls that nobody wants the results of.
    pub(super) fn drop_cancelled(&self) {
        let cancelled = self.mailbox().take_cancelled();
        cancelled.into_iter().for_each(|call| self.give_up(call));
    }

    /// Answers the newest of them.
    pub(super) fn drop_newest_cancelled(&self) {
        let cancelled = self.mailbox().take_newest_cancelled();
        if let Some(call) = cancelled {
            self.give_up(call);
        }
    }

    fn give_up(&self, call: Call) {
        self.slot.metrics.queued.dec();
        call.reply.send(Err(was_cancelled()));
    }

    /// How many items wait in its queue.
    pub(super) fn queue_depth(&self) -> usize {
        self.mailbox().len()
    }

    /// Whether it has an instance that waits for work.
    pub(super) fn has_instance(&self) -> bool {
        self.instance.lock().is_some()
    }

    /// Queues an item and sees to it that somebody consumes the queue.
    pub(super) fn deliver(self: &Arc<Self>, item: Item, shared: &Arc<Shared>) -> Delivered {
        self.deliver_inline(item, shared).0
    }

    /// Queues an item. Who consumes the queue is for the caller to start if nobody does.
    pub(super) fn deliver_inline(
        self: &Arc<Self>,
        item: Item,
        shared: &Arc<Shared>,
    ) -> (Delivered, Option<InlineRun>) {
        let bounds = Bounds {
            items: shared.settings.mailbox_items,
            bytes: shared.settings.mailbox_bytes,
        };
        let delivered = self.mailbox().deliver(item, bounds);
        match delivered {
            Delivered::Idle => {
                self.slot.metrics.queued.inc();
                let ready = self.consumer(shared);
                return (delivered, Some(ready));
            }
            Delivered::Queued => drop(self.slot.metrics.queued.inc()),
            Delivered::Full(_) | Delivered::Gone(_) => {}
        }
        (delivered, None)
    }

    /// Runs `activate` if that has not happened; false if the actor has left memory.
    pub(super) fn wake(self: &Arc<Self>, shared: &Arc<Shared>) -> bool {
        let mut mailbox = self.mailbox();
        if mailbox.is_gone() {
            return false;
        }
        if !self.activated.load(Ordering::Relaxed) && mailbox.begin() {
            drop(mailbox);
            drop(self.consumer(shared));
        }
        true
    }

    fn consumer(self: &Arc<Self>, shared: &Arc<Shared>) -> InlineRun {
        let guard = DrainGuard {
            actor: self.clone(),
            shared: shared.clone(),
            finished: false,
        };
        shared.drain_started();
        let consumer = Consumer::new(move || drain(guard));
        InlineRun::new(consumer, self.slot.share(), shared.lanes.clone())
    }

    /// Ends the turns that stand between it and its end, which somebody has waited for.
    pub(super) fn end_turns(&self, ending: Ending) {
        let running = self.mailbox().end_turns(ending);
        if let Some(running) = running {
            running.cancel();
        }
    }

    /// Lets a turn begin that this ends, unless turns are ended now.
    fn begin_turn(&self, cancel: &CancellationToken) -> Result<(), Failure> {
        let begun = self.mailbox().begin_turn(cancel);
        begun.map_err(|ending| self.ended(ending))
    }

    /// Why a turn was given up.
    fn given_up(&self) -> Failure {
        let ending = self.mailbox().ending();
        ending.map_or_else(was_cancelled, |ending| self.ended(ending))
    }

    fn ended(&self, ending: Ending) -> Failure {
        match ending {
            Ending::Destroyed => Failure::actor_destroyed(),
            Ending::Withdrawn => self.withdrawn(),
            Ending::Stopping => Failure::host_shutting_down(),
        }
    }

    /// Its state, loaded on first use.
    pub(super) async fn live(&self, shared: &Shared) -> Result<&Arc<ActorState>, Failure> {
        let load = async || {
            let (key, slot) = (self.key.clone(), self.slot.clone());
            match shared.store.load(&self.key).await {
                Ok(None) => {
                    let component = self.component()?;
                    let declared = &self.type_in(&component)?.state;
                    let gather = shared.gather();
                    Ok(ActorState::initial(
                        key,
                        slot,
                        declared,
                        new_epoch(),
                        gather,
                    ))
                }
                Ok(Some((mut stored, weight))) => {
                    shared.sleeping.restore(&key, &mut stored);
                    let component = self.slot.component();
                    let (clock, gather) = (shared.clock.clone(), shared.gather());
                    let is_long = weight.whole > LONG_RECORD;
                    let restore = {
                        let key = key.clone();
                        move || ActorState::restored(key, slot, stored, weight, &clock, gather)
                    };
                    let live = match component.as_ref().filter(|_| is_long) {
                        Some(component) => {
                            let runtime = Handle::current();
                            let restore = move || {
                                // Its timers are set on the runtime.
                                let _runtime = runtime.enter();
                                restore()
                            };
                            component.aside(restore).await?
                        }
                        None => restore(),
                    };
                    if let Some(component) = component {
                        self.fit(&component, &live, shared).await?;
                    }
                    Ok(live)
                }
                Err(error) => Err(unavailable(&error)),
            }
        };
        let load = async || {
            let live = load().await?;
            live.charge()?;
            // Where it finds no room it is still to be woken.
            shared.wake_later(&self.key, None);
            let held = shared
                .detached_connections()
                .remove(&self.key)
                .unwrap_or_default();
            let is_open = |connected: &Connected| shared.remote.presence.is_open(&connected.id);
            live.parts()
                .presence
                .extend(held.into_iter().filter(is_open));
            Ok(live)
        };
        match self.live.get() {
            Some(live) => Ok(live),
            None => Box::pin(self.live.get_or_try_init(load)).await,
        }
    }

    /// Sees to it that the state is one of the component's, which would misread another.
    async fn fit(
        &self,
        component: &Component,
        live: &ActorState,
        shared: &Shared,
    ) -> Result<Fitted, Failure> {
        let store = &*shared.store;
        live.fit(component, store, self.durability(), new_epoch)
            .await
    }

    /// Whether the state is one of the component that serves the actor now.
    pub(super) fn fits(&self, live: &ActorState) -> bool {
        let component = self.slot.component();
        component.is_none_or(|component| live.fits(&component))
    }

    /// Its state, if it was loaded.
    pub(super) fn loaded(&self) -> Option<&Arc<ActorState>> {
        self.live.get()
    }

    pub(super) fn touch(&self, shared: &Shared) {
        self.last_busy.store(shared.uptime_ms(), Ordering::Relaxed);
    }

    /// How long it has had nothing to do, in milliseconds.
    pub(super) fn idle_ms(&self, shared: &Shared) -> u64 {
        let last_busy = self.last_busy.load(Ordering::Relaxed);
        shared.uptime_ms().saturating_sub(last_busy)
    }

    /// Whether it had nothing to do for long and nobody watches it.
    fn is_idle(&self, live: &ActorState, shared: &Shared) -> bool {
        self.idle_ms(shared) >= shared.idle_timeout_ms()
            && live.subscribers.is_empty()
            && !live.parts().keeps_awake()
    }

    /// Whether it had nothing to do since `before` and nobody watches it.
    pub(super) fn is_idle_since(&self, before: u64) -> bool {
        self.last_busy.load(Ordering::Relaxed) < before
            && self.mailbox().is_idle()
            && self
                .loaded()
                .is_none_or(|live| live.subscribers.is_empty() && !live.parts().keeps_awake())
    }

    pub(super) fn take_instance(&self) -> Option<Box<Instance>> {
        self.instance.lock().take()
    }

    fn park(self: &Arc<Self>, instance: Box<Instance>, shared: &Shared) {
        let of = instance.serial();
        *self.instance.lock() = Some(instance);
        shared.instances.used(self, of);
    }

    /// Goes by the rules of the component that serves the actor now.
    async fn adopt(
        &self,
        component: &Component,
        live: &Arc<ActorState>,
        shared: &Shared,
    ) -> Result<(), Failure> {
        match self.fit(component, live, shared).await? {
            Fitted::AsItIs => live.adopt_and_show(component).await,
            Fitted::Anew => {
                live.authorize_again(None, Undecided::Leave).await;
                live.show_again().await;
            }
        }
        if self.activated.load(Ordering::Relaxed) {
            self.begin_schedules(component, shared);
        }
        Ok(())
    }

    /// Goes by the rules of the component that serves the actor now.
    async fn follow(&self, live: &Arc<ActorState>, shared: &Shared) -> Result<(), Failure> {
        match self.slot.component() {
            Some(component) => self.adopt(&component, live, shared).await,
            None => Ok(()),
        }
    }

    async fn activate(self: &Arc<Self>, live: &Arc<ActorState>, shared: &Arc<Shared>) {
        if !self.activated.swap(true, Ordering::Relaxed) {
            debug!(actor = %self.key, "activated");
            // Ahead of what its turns will send.
            let left = live.parts().outbox.take_left();
            for sent in left {
                shared.post(&self.key, sent);
            }
            if let Some(component) = self.slot.component() {
                self.begin_schedules(&component, shared);
            }
            self.run_hook(Hook::Activate, Origin::Host, live, shared)
                .await;
            // Connections that were open when the host died, or closed while the actor was
            // not in memory.
            let gone = live.parts().presence.clients();
            for client in gone {
                let id = client.connection.as_deref();
                if !id.is_some_and(|id| shared.remote.presence.is_open(id)) {
                    disconnect(self, client, live, shared).await;
                }
            }
            self.has_parted.store(true, Ordering::Release);
        }
    }

    /// What came from elsewhere, as the component that serves the actor now may go on with it.
    pub(super) async fn fitted(&self, stored: Stored) -> Result<Stored, Failure> {
        let component = self.component()?;
        self.type_in(&component)?;
        fitted(&component, &self.key, stored, new_epoch).await
    }

    /// Begins its life with what came from elsewhere, which is stored behind its gate.
    pub(super) fn begin_as(&self, stored: Stored, shared: &Shared) {
        let change = Change {
            version: stored.version,
            ..Change::default()
        };
        let commit = Commit {
            key: &self.key,
            change: &change,
            durability: self.durability(),
            due_ms: stored.first_due_ms(),
        };
        let committed = shared
            .store
            .commit(commit, &mut Weight::default(), &|| stored.clone());
        let (key, slot) = (self.key.clone(), self.slot.clone());
        // Without its weight, its next commit writes it whole again.
        let (weight, gather) = (Weight::default(), shared.gather());
        let live = ActorState::restored(key, slot, stored, weight, &shared.clock, gather);
        match committed {
            Committed::Now => {}
            Committed::Later(safe) => live
                .gate
                .commit(async move { safe.await.map_err(|error| unavailable(&error)) }),
            Committed::Refused(error) => live.gate.commit(async move { Err(unavailable(&error)) }),
        }
        // Nobody else has the actor yet.
        let _ = self.live.set(live);
    }
}

/// A record that is longer is made an actor of on a worker's thread.
const LONG_RECORD: usize = 128 << 10;

impl Drop for Activation {
    fn drop(&mut self) {
        self.slot.metrics.in_memory.dec();
    }
}

//! One actor in memory: its queue, its state, its instance, and the turns it runs.
//!
//! Invariants: one turn at a time, in the order of the queue; every item that enters the
//! queue is run or answered; a failing hook or turn never stops the queue.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use serde_json::Value;
use tidegate_core::failure::code;
use tidegate_core::manifest::ActorType;
use tidegate_core::{ActorKey, Failure, schema, unambiguous};
use tokio::sync::OnceCell;
use tracing::{debug, warn};

use super::mailbox::{Bounds, Call, Delivered, Item, Mailbox, Retire};
use super::{Shared, new_epoch, shutting_down};
use crate::engine::{Component, Crash, Hook, Instance, Origin, Turn};
use crate::fanout::Close;
use crate::rooms::Client;
use crate::store::Stored;
use crate::turn::{Effects, Live, Stage, release};

/// One actor in memory.
pub(super) struct Actor {
    pub(super) key: ActorKey,
    /// Tells this actor from earlier ones of the same key.
    pub(super) serial: u64,
    component: Arc<Component>,
    live: OnceCell<Arc<Live>>,
    mailbox: Mutex<Mailbox>,
    instance: Mutex<Option<Instance>>,
    activated: AtomicBool,
    /// When it last had something to do, in milliseconds since the host began.
    last_busy: AtomicU64,
}

/// What starting a turn takes from the item that causes it.
struct Cause {
    origin: Origin,
    traceparent: Option<String>,
}

impl Cause {
    fn of(origin: Origin) -> Cause {
        Cause {
            origin,
            traceparent: None,
        }
    }
}

impl Actor {
    pub(super) fn new(key: ActorKey, component: Arc<Component>, shared: &Shared) -> Arc<Actor> {
        Arc::new(Actor {
            key,
            serial: shared.next_serial(),
            component,
            live: OnceCell::new(),
            mailbox: Mutex::default(),
            instance: Mutex::new(None),
            activated: AtomicBool::new(false),
            last_busy: AtomicU64::new(shared.uptime_ms()),
        })
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn actor_type(&self) -> &ActorType {
        let actors = &self.component.manifest.actors;
        actors
            .get(self.key.actor.as_str())
            .expect("the router found it there")
    }

    /// Queues an item and sees to it that somebody consumes the queue.
    pub(super) fn deliver(self: &Arc<Self>, item: Item, shared: &Arc<Shared>) -> Delivered {
        let bounds = Bounds {
            items: shared.settings.mailbox_items,
            bytes: shared.settings.mailbox_bytes,
        };
        let delivered = self.mailbox().deliver(item, bounds);
        if let Delivered::Idle = delivered {
            self.start(shared);
        }
        delivered
    }

    /// Runs `activate` if that has not happened; false if the actor has left memory.
    pub(super) fn wake(self: &Arc<Self>, shared: &Arc<Shared>) -> bool {
        let mut mailbox = self.mailbox();
        if mailbox.is_gone() {
            return false;
        }
        if !self.activated.load(Ordering::Relaxed) && mailbox.begin() {
            drop(mailbox);
            self.start(shared);
        }
        true
    }

    fn start(self: &Arc<Self>, shared: &Arc<Shared>) {
        let guard = DrainGuard {
            actor: self.clone(),
            shared: shared.clone(),
            finished: false,
        };
        shared.drain_started();
        tokio::spawn(drain(guard));
    }

    /// Its state, loaded on first use.
    pub(super) async fn live(&self, shared: &Shared) -> Result<&Arc<Live>, Failure> {
        let load = async || {
            let hidden = self.actor_type().state.hidden.clone();
            let unavailable =
                |detail: String| Failure::host(code::STORE_UNAVAILABLE).message(detail);
            match shared.store.load(&self.key).await {
                Ok(None) => {
                    let initial = self.actor_type().state.initial.clone();
                    Ok(Live::initial(
                        self.key.clone(),
                        initial,
                        hidden,
                        new_epoch(),
                    ))
                }
                Ok(Some(mut stored)) => {
                    stored
                        .connections
                        .retain(|(id, _)| shared.connections.is_open(id));
                    Live::restored(self.key.clone(), stored, hidden).map_err(|error| {
                        unavailable(format!("the stored state is damaged: {error}"))
                    })
                }
                Err(error) => Err(unavailable(error.to_string())),
            }
        };
        self.live.get_or_try_init(load).await
    }

    /// Its state, if it was loaded.
    pub(super) fn loaded(&self) -> Option<&Arc<Live>> {
        self.live.get()
    }

    pub(super) fn touch(&self, shared: &Shared) {
        self.last_busy.store(shared.uptime_ms(), Ordering::Relaxed);
    }

    /// Whether it had nothing to do for long and nobody watches it.
    fn is_idle(&self, live: &Live, shared: &Shared) -> bool {
        let last_busy = self.last_busy.load(Ordering::Relaxed);
        let idle_ms = shared.uptime_ms().saturating_sub(last_busy);
        idle_ms >= shared.settings.idle_timeout_ms && live.audience.is_empty()
    }

    /// Whether it had nothing to do since `before` and nobody watches it.
    pub(super) fn is_idle_since(&self, before: u64) -> bool {
        self.last_busy.load(Ordering::Relaxed) < before
            && self.mailbox().is_idle()
            && self.loaded().is_none_or(|live| live.audience.is_empty())
    }

    pub(super) fn take_instance(&self) -> Option<Instance> {
        self.instance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn park(self: &Arc<Self>, instance: Instance, shared: &Shared) {
        if !instance.is_worth_keeping() {
            return;
        }
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = Some(instance);
        shared.instances.used(self, Arc::downgrade(self));
    }

    async fn instance(&self, what: &str, shared: &Shared) -> Result<Instance, Failure> {
        match self.take_instance() {
            Some(instance) => Ok(instance),
            None => {
                let made = self.component.instantiate().await;
                made.map_err(|crash| self.report(crash, what, shared))
            }
        }
    }

    fn turn(&self, cause: Cause, shared: &Shared) -> Turn {
        let now_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_millis() as u64);
        Turn {
            this: self.key.clone(),
            id: shared.next_turn_id(),
            origin: cause.origin,
            now_ms,
            deadline: Instant::now() + self.component.limits().turn_deadline(),
            attempt: 1,
            key: None,
            traceparent: cause.traceparent,
        }
    }

    async fn run_call(self: &Arc<Self>, call: Call, live: &Arc<Live>, shared: &Shared) {
        let Call {
            method,
            input,
            client,
            traceparent,
            reply,
        } = call;
        let cause = Cause {
            origin: Origin::Client(client),
            traceparent,
        };
        match self.run_method(&method, input, cause, live, shared).await {
            Ok((effects, result)) => {
                count(&shared.counters.turns);
                release(effects, Some((reply, result)));
            }
            Err(failure) => {
                count(&shared.counters.failed_calls);
                reply.send(Err(failure));
            }
        }
    }

    /// The turn of a method: what it lets out, or why it left no trace.
    async fn run_method(
        self: &Arc<Self>,
        method: &str,
        input: Option<String>,
        cause: Cause,
        live: &Arc<Live>,
        shared: &Shared,
    ) -> Result<(Effects, Option<String>), Failure> {
        self.check_call(method, input.as_deref())?;
        let mut instance = self.instance(method, shared).await?;
        let turn = self.turn(cause, shared);
        let stage = Stage::new(live.clone(), self.component.clone());
        let (mut stage, result) = instance.invoke(&turn, method, input.as_ref(), stage).await;
        let result = self.after_call(instance, result, method, shared)?;
        if let Some(result) = &result {
            stage.check_result(method, result, shared.settings.validate_results)?;
        }
        let effects = self.commit(stage, method, shared).await?;
        Ok((effects, result))
    }

    /// Keeps the instance, or reports why it is lost.
    fn after_call<T>(
        self: &Arc<Self>,
        instance: Instance,
        result: Result<Result<T, Failure>, Crash>,
        what: &str,
        shared: &Shared,
    ) -> Result<T, Failure> {
        match result {
            Ok(result) => {
                self.park(instance, shared);
                result
            }
            Err(crash) => Err(self.report(crash, what, shared)),
        }
    }

    async fn commit(&self, stage: Stage, what: &str, shared: &Shared) -> Result<Effects, Failure> {
        stage.commit(&*shared.store).await.inspect_err(|failure| {
            // A fault of the handler or of the store, not of the caller.
            warn!(actor = %self.key, turn_of = what, %failure, "a turn did not commit");
        })
    }

    fn check_call(&self, method: &str, input: Option<&str>) -> Result<(), Failure> {
        let Some(declared) = self.actor_type().methods.get(method) else {
            return Err(Failure::unknown_method(self.key.actor.as_str(), method));
        };
        let parsed: Value = match input {
            Some(input) => unambiguous::parse(input).map_err(|error| {
                Failure::host(code::INPUT_INVALID)
                    .message(format!("Validation failed for {method}: /: {error}"))
            })?,
            None => Value::Null,
        };
        match &declared.input {
            Some(schema) => schema
                .check(&parsed)
                .map_err(|violations| schema::input_failure(method, &violations)),
            None => Ok(()),
        }
    }

    /// Runs a hook, if the actor type has it. Its failure is logged and nothing else: no
    /// caller waits for it.
    async fn run_hook(
        self: &Arc<Self>,
        hook: Hook,
        origin: Origin,
        live: &Arc<Live>,
        shared: &Shared,
    ) {
        let hooks = &self.actor_type().hooks;
        let declared = match hook {
            Hook::Activate => hooks.activate,
            Hook::Deactivate => hooks.deactivate,
            Hook::Connect => hooks.connect,
            Hook::Disconnect => hooks.disconnect,
        };
        if !declared {
            return;
        }
        let ran = async {
            let mut instance = self.instance(hook.name(), shared).await?;
            let turn = self.turn(Cause::of(origin), shared);
            let stage = Stage::new(live.clone(), self.component.clone());
            let (stage, result) = instance.run_hook(&turn, hook, stage).await;
            self.after_call(instance, result, hook.name(), shared)?;
            self.commit(stage, hook.name(), shared).await
        };
        match ran.await {
            Ok(effects) => {
                count(&shared.counters.turns);
                release(effects, None);
            }
            Err(failure) => {
                let failed_hooks = count(&shared.counters.failed_hooks);
                warn!(actor = %self.key, hook = hook.name(), %failure, failed_hooks, "a hook failed");
            }
        }
    }

    fn report(&self, crash: Crash, what: &str, shared: &Shared) -> Failure {
        count(&shared.counters.crashes);
        warn!(
            actor = %self.key,
            component = self.component.name(),
            turn_of = what,
            code = %crash.failure.code,
            "a handler crashed: {}",
            crash.detail
        );
        crash.failure
    }

    /// Leaves memory, unless there is a reason to stay. True when the actor is gone.
    async fn retire(self: &Arc<Self>, how: Retire, live: &Arc<Live>, shared: &Arc<Shared>) -> bool {
        // It may have been used since it was found idle.
        if how == Retire::WhenIdle && !self.is_idle(live, shared) {
            return false;
        }
        if self.activated.swap(false, Ordering::Relaxed) {
            self.run_hook(Hook::Deactivate, Origin::Host, live, shared)
                .await;
        }
        let stored = live.to_stored();
        // An actor that nothing ever happened to comes back the same without being kept.
        let is_new = stored.version == 0 && stored.connections.is_empty();
        if !is_new && let Err(error) = shared.store.retire(&self.key, stored).await {
            warn!(actor = %self.key, %error, "an actor stays in memory because it cannot be stored");
            self.touch(shared);
            return false;
        }
        shared.table.remove_if(&self.key, self.serial, || {
            let mut mailbox = self.mailbox();
            if how == Retire::WhenIdle && !live.audience.is_empty() {
                return false;
            }
            mailbox.close(how)
        })
    }
}

/// Counts one more; gives the number so far.
fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

/// Consumes an actor's queue until it is empty or the actor leaves memory.
async fn drain(mut guard: DrainGuard) {
    let (actor, shared) = (guard.actor.clone(), guard.shared.clone());
    let live = match actor.live(&shared).await {
        Ok(live) => live,
        Err(failure) => {
            warn!(actor = %actor.key, %failure, "an actor cannot be loaded");
            return guard.fail(&failure);
        }
    };
    loop {
        if !actor.activated.swap(true, Ordering::Relaxed) {
            debug!(actor = %actor.key, "activated");
            actor
                .run_hook(Hook::Activate, Origin::Host, live, &shared)
                .await;
        }
        let next = actor.mailbox().next();
        let Some(item) = next else {
            break;
        };
        match item {
            Item::Call(call) => actor.run_call(call, live, &shared).await,
            Item::Connect(client) => {
                if let Some(id) = &client.connection {
                    live.ledger().connected(id.clone(), client.user.clone());
                }
                let origin = Origin::Client(client);
                actor.run_hook(Hook::Connect, origin, live, &shared).await;
            }
            Item::Disconnect(client) => disconnect(&actor, client, live, &shared).await,
            Item::Retire(how) => {
                if actor.retire(how, live, &shared).await {
                    debug!(actor = %actor.key, "deactivated");
                    return guard.fail(&shutting_down());
                }
                continue;
            }
        }
        actor.touch(&shared);
        // Tokio cannot interrupt a loop that never waits.
        tokio::task::coop::consume_budget().await;
    }
    guard.finished = true;
}

async fn disconnect(actor: &Arc<Actor>, client: Client, live: &Arc<Live>, shared: &Shared) {
    if let Some(id) = &client.connection {
        live.ledger().disconnected(id);
    }
    let origin = Origin::Client(client);
    actor.run_hook(Hook::Disconnect, origin, live, shared).await;
}

/// Ends a consumer's job however it ends: even after a panic of the host's own code the
/// callers get an answer and the actor's key gets a successor.
struct DrainGuard {
    actor: Arc<Actor>,
    shared: Arc<Shared>,
    finished: bool,
}

impl DrainGuard {
    /// Ends the actor; what is left in its queue gets this answer.
    fn fail(mut self, failure: &Failure) {
        self.finished = true;
        self.abandon(failure);
    }

    /// Keeps what was committed, as a history of its own, and sends the subscribers away:
    /// they come back to the successor. A store that cannot do this at once has every
    /// commit already.
    fn salvage(&self) {
        let Some(live) = self.actor.loaded() else {
            return;
        };
        let stored = Stored {
            epoch: new_epoch(),
            ..live.to_stored()
        };
        let kept = self.shared.store.retire(&self.actor.key, stored);
        if let Some(Err(error)) = kept.now_or_never() {
            warn!(actor = %self.actor.key, %error, "an actor's state is lost");
        }
        live.audience.close(Close::Lost);
    }

    fn abandon(&self, failure: &Failure) {
        let rest = self.actor.mailbox().take_rest();
        self.shared
            .table
            .remove_if(&self.actor.key, self.actor.serial, || true);
        self.shared.instances.forget(self.actor.serial);
        for item in rest {
            item.refuse(&self.actor.key, failure.clone());
        }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if !self.finished {
            self.salvage();
            self.abandon(&Failure::host(code::INTERNAL).message("the host failed"));
        }
        self.shared.drain_ended();
    }
}

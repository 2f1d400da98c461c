//! One actor in memory: its queue, its state, its instance, and the turns it runs.
//!
//! Invariants: one turn at a time, in the order of the queue; every item that enters the
//! queue is run or answered; a failing hook or turn never stops the queue.

mod consumer;
mod leaving;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidegate_base::clock::instant;
use tidegate_base::metrics::{self, Entry, Stopwatch};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_base::timer::{Alarm, Due};
use tidegate_core::call::Firing;
use tidegate_core::cron::Cron;
use tidegate_core::failure::code;
use tidegate_core::manifest::{ActorType, Method};
use tidegate_core::{ActorKey, CallEnvelope, Failure, Origin, RequestId};
use tidegate_engine::{Component, Crash, Hook, Instance, Turn};
use tidegate_registry::router::Slot;
use tidegate_store::{Change, Commit, Committed, Connected, Durability, Received, Stored, Weight};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::consumer::{DrainGuard, disconnect, drain};
use super::inline::InlineRun;
use super::instances;
use super::lanes::Consumer;
use super::mail::Blocked;
use super::mailbox::{Bounds, Call, Delivered, Ending, Item, Mailbox};
use super::{Shared, new_epoch, shutting_down};
use crate::state::{ActorState, unavailable};
use crate::turn::{
    Caller, Chunks, Effects, Fitted, IdempotencyKey, Reply, Stage, TimerKey, TurnContext,
    Undecided, Which, answer, check_input, check_input_elsewhere, fitted, let_out,
};

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

/// The schedules of an actor that is active.
#[derive(Default)]
struct Schedules {
    /// The component whose schedules they are.
    of: u64,
    /// When they began, on the process's own clock.
    since_ms: u64,
    all: Vec<Scheduled>,
}

/// One of them.
#[derive(Default)]
struct Scheduled {
    alarm: Option<Alarm>,
    /// Its last moment that has fired; 0 for none.
    fired_ms: u64,
}

/// What starting a turn takes from the item that causes it.
struct Trigger {
    began: Instant,
    origin: Origin,
    traceparent: Option<String>,
    request: Option<RequestId>,
    depth: u32,
    deadline: Option<Instant>,
    cancel: CancellationToken,
    chunks: Option<Chunks>,
    key: Option<String>,
    keyed: Option<IdempotencyKey>,
    received: Option<Received>,
}

impl Trigger {
    fn of(origin: Origin) -> Trigger {
        Trigger {
            began: instant(),
            origin,
            traceparent: None,
            request: None,
            depth: 0,
            deadline: None,
            cancel: CancellationToken::new(),
            chunks: None,
            key: None,
            keyed: None,
            received: None,
        }
    }
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
            Ending::Destroyed => {
                Failure::host(code::ACTOR_DESTROYED).message("the actor was destroyed meanwhile")
            }
            Ending::Withdrawn => self.withdrawn(),
            Ending::Stopping => shutting_down(),
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
            let held = shared.absent().remove(&self.key).unwrap_or_default();
            let is_open = |connected: &Connected| shared.connections.is_open(&connected.id);
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

    async fn instance(
        &self,
        component: &Component,
        what: What<'_>,
        shared: &Shared,
    ) -> Result<Box<Instance>, Failure> {
        // One of an older version of the component has served its last turn.
        match self
            .take_instance()
            .filter(|instance| instance.is_of(component))
        {
            Some(instance) => Ok(instance),
            None => {
                let mut made = Box::pin(component.instantiate()).await;
                if matches!(&made, Err(crash) if crash.failure.code == code::HOST_MEMORY) {
                    shared.instances.evict_some(instances::MANY);
                    made = Box::pin(component.instantiate()).await;
                }
                made.map(Box::new).map_err(|crash| self.report(crash, what))
            }
        }
    }

    fn turn(&self, trigger: &Trigger, patience: Duration, shared: &Shared) -> Turn {
        let began = trigger.began;
        let deadline = began + patience;
        let deadline = trigger.deadline.map_or(deadline, |end| end.min(deadline));
        Turn {
            this: self.key.clone(),
            id: shared.next_turn_id(),
            origin: trigger.origin.clone(),
            now_ms: shared.clock.now_ms(),
            deadline,
            allowed: deadline.saturating_duration_since(began),
            attempt: 1,
            key: trigger.key.clone(),
            traceparent: trigger.traceparent.clone(),
            request: trigger.request.clone(),
        }
    }

    fn stage(
        &self,
        live: &Arc<ActorState>,
        component: Arc<Component>,
        turn: &Turn,
        trigger: &Trigger,
        streaming: Option<Duration>,
        shared: &Arc<Shared>,
    ) -> Stage {
        Stage::new(TurnContext {
            live: live.clone(),
            component,
            store: shared.store.clone(),
            dispatch: shared.dispatch(),
            clock: shared.clock.clone(),
            caller: Caller {
                actor: self.key.clone(),
                depth: trigger.depth,
                deadline: turn.deadline,
                traceparent: trigger.traceparent.as_deref().map(Into::into),
            },
            chunks: trigger.chunks.clone(),
            keyed: trigger.keyed.clone(),
            bounds: shared.key_bounds(),
            received: trigger.received.clone(),
            messages: shared.mail_bounds(),
            cancel: trigger.cancel.clone(),
            began: turn.began(),
            streaming,
            recheck: shared.recheck(),
            durability: self.durability(),
            run_ahead: shared.run_ahead,
        })
    }

    async fn run_call(
        self: &Arc<Self>,
        call: Box<Call>,
        live: &Arc<ActorState>,
        shared: &Arc<Shared>,
    ) {
        let Call {
            envelope,
            deadline,
            // Until the turn is over, which has the input.
            share: _share,
            cancel,
            arrived,
            mut watch,
            reply,
        } = *call;
        watch.passed(metrics::Stage::Queue);
        if cancel.is_cancelled() {
            return reply.send(Err(was_cancelled()));
        }
        let received = received(&envelope);
        let CallEnvelope {
            method,
            mut input,
            origin,
            depth,
            key,
            traceparent,
            request,
            ..
        } = envelope;
        if let Some(received) = &received {
            if live.has_received(received) {
                return answer(live, reply, Ok(None)).await;
            }
            if !self.blocked().lets_in(received) {
                return answer(live, reply, Err(blocked())).await;
            }
        }
        let metrics = &self.slot.metrics;
        let began = instant();
        metrics.waits.observe((began - arrived).as_secs_f64());
        let keyed = match &key {
            Some(key) => match Box::pin(self.keyed(&origin, &method, key, &mut input)).await {
                Ok(keyed) => Some(keyed),
                Err(failure) => return reply.send(Err(failure)),
            },
            None => None,
        };
        let bounds = shared.key_bounds();
        if let Some(keyed) = &keyed
            && let Some(known) = live.answered(keyed, shared.clock.steady_ms(), bounds)
        {
            return answer(live, reply, known).await;
        }
        let trigger = Trigger {
            began,
            origin,
            traceparent,
            request,
            depth,
            deadline,
            cancel,
            chunks: reply.chunks(),
            key,
            keyed,
            received: received.clone(),
        };
        let ran = self
            .run_method(&method, input, trigger, &mut watch, live, shared)
            .await;
        metrics.seconds.observe((instant() - began).as_secs_f64());
        match ran {
            Ok((effects, result)) => {
                metrics.committed(Entry::Call);
                let to = reply;
                let reply = Reply { to, result, watch };
                let_out(effects, Some(reply), shared.recheck()).await;
            }
            Err(failure) => {
                metrics.failed(Entry::Call, &failure.code);
                if is_told_nowhere_else(&failure) {
                    warn!(actor = %self.key, %method, %failure, "a call failed");
                }
                // Long work may still go on for a turn that has ended.
                Box::pin(live.at_rest()).await;
                let is_to_come =
                    matches!(&*failure.code, code::STORE_UNAVAILABLE | code::HOST_MEMORY);
                if let Some(received) = received.filter(|_| is_to_come) {
                    self.blocked().note(received);
                }
                answer(live, reply, Err(failure)).await;
            }
        }
    }

    /// What a call is known by that is to run once.
    async fn keyed(
        &self,
        origin: &Origin,
        method: &str,
        key: &str,
        input: &mut Option<String>,
    ) -> Result<IdempotencyKey, Failure> {
        let caller = caller_of(origin);
        let long = input.take_if(|input| input.len() > LONG_INPUT);
        let Some(long) = long else {
            return Ok(IdempotencyKey::new(&caller, method, key, input.as_deref()));
        };
        let (method, key) = (method.to_owned(), key.to_owned());
        let work = move || {
            let keyed = IdempotencyKey::new(&caller, &method, &key, Some(&long));
            (keyed, long)
        };
        let (keyed, long) = self.component()?.aside(work).await?;
        *input = Some(long);
        Ok(keyed)
    }

    /// The turn of a timer or schedule that is due, unless it was cancelled meanwhile.
    async fn run_due(
        self: &Arc<Self>,
        which: Which,
        due: Due,
        live: &Arc<ActorState>,
        shared: &Arc<Shared>,
    ) {
        let mut fired = None;
        let (method, input, origin) = match which {
            // It was only to bring the actor into memory.
            Which::Wake => return,
            Which::Timer(id) => {
                let taken = live.parts().timers.take_due(id, due, &shared.clock);
                let Some(timer) = taken else {
                    return;
                };
                fired = Some((id, timer.clone()));
                let due_ms = timer.due_ms;
                (
                    timer.method,
                    timer.input,
                    Origin::Timer(Firing { id, due_ms }),
                )
            }
            Which::Schedule(place) => {
                let due_ms = match due {
                    Due::Steady(ms) => ms.saturating_add_signed(shared.clock.ahead_ms()),
                    // The clock was set back: what comes next is to be worked out anew.
                    Due::Calendar(ms) if shared.clock.now_ms() < ms => {
                        return self.schedule(place, shared);
                    }
                    Due::Moment(ms) | Due::Calendar(ms) => ms,
                };
                let Ok(component) = self.component() else {
                    return;
                };
                let schedules = self.type_in(&component).map(|declared| &declared.cron);
                let Some((method, _)) = schedules.ok().and_then(|all| all.iter().nth(place)) else {
                    return;
                };
                if let Some(scheduled) = self.schedules().all.get_mut(place) {
                    scheduled.fired_ms = due_ms;
                }
                let origin = Origin::Cron(Firing { id: 0, due_ms });
                (method.clone(), None, origin)
            }
        };
        let metrics = &self.slot.metrics;
        let trigger = Trigger::of(origin);
        let began = trigger.began;
        let input = input.as_deref().map(str::to_owned);
        let mut watch = Stopwatch::default();
        let ran = self
            .run_method(method.as_str(), input, trigger, &mut watch, live, shared)
            .await;
        metrics.seconds.observe((instant() - began).as_secs_f64());
        match ran {
            Ok((effects, _)) => {
                metrics.committed(Entry::Timer);
                let_out(effects, None, shared.recheck()).await;
            }
            Err(failure) => {
                metrics.failed(Entry::Timer, &failure.code);
                // Long work may still go on for a turn that has ended.
                Box::pin(live.at_rest()).await;
                warn!(actor = %self.key, %method, %failure, "a timer's turn failed");
                // It is stored as it was, and must not be forgotten here alone; nor is it lost
                // where nobody runs it any more.
                let is_to_come = matches!(
                    &*failure.code,
                    code::STORE_UNAVAILABLE
                        | code::HOST_MEMORY
                        | code::HOST_SHUTTING_DOWN
                        | code::ACTOR_UNKNOWN
                );
                if is_to_come && let Some(fired) = fired {
                    let mut parts = live.parts();
                    let timers = &mut parts.timers;
                    return timers.put_back(&self.key, fired, FIRE_AGAIN_MS, &shared.clock);
                }
            }
        }
        match which {
            Which::Timer(id) => {
                let mut parts = live.parts();
                parts.timers.set_again(&self.key, id, &shared.clock);
            }
            Which::Schedule(place) => self.schedule(place, shared),
            Which::Wake => {}
        }
    }

    fn blocked(&self) -> MutexGuard<'_, Blocked> {
        self.blocked.lock()
    }

    fn schedules(&self) -> MutexGuard<'_, Schedules> {
        self.schedules.lock()
    }

    /// Whether the schedules are those of this component, or it is not active.
    fn is_scheduled(&self, component: &Component) -> bool {
        !self.activated.load(Ordering::Relaxed) || self.schedules().of == component.serial
    }

    /// Begins the schedules of this component, unless they run.
    fn begin_schedules(&self, component: &Component, shared: &Shared) {
        let Ok(declared) = self.type_in(component) else {
            return;
        };
        {
            let mut schedules = self.schedules();
            if schedules.of == component.serial {
                return;
            }
            *schedules = Schedules {
                of: component.serial,
                since_ms: shared.clock.steady_ms(),
                all: declared.cron.iter().map(|_| Scheduled::default()).collect(),
            };
        }
        for place in 0..declared.cron.len() {
            self.schedule(place, shared);
        }
    }

    /// Sets one of the schedules for the next time that it is due.
    fn schedule(&self, place: usize, shared: &Shared) {
        let Some(component) = self.slot.component() else {
            return;
        };
        let declared = self.type_in(&component).ok();
        let mut schedules = self.schedules();
        let cron = declared.and_then(|declared| declared.cron.values().nth(place));
        let clock = &shared.clock;
        let next = cron.and_then(|cron| match cron {
            // An interval is a span of time.
            Cron::Every { .. } => cron
                .next_after(schedules.since_ms, clock.steady_ms())
                .map(Due::Steady),
            Cron::Schedule(schedule) => {
                let fired_ms = schedules.all.get(place).map_or(0, |one| one.fired_ms);
                let now_ms = clock.now_ms();
                // What a clock that was set back a little shows once more has fired.
                let again = fired_ms.saturating_sub(now_ms) <= SAME_MOMENT_MS;
                let after_ms = if again { now_ms.max(fired_ms) } else { now_ms };
                schedule.next_after(after_ms).map(Due::Calendar)
            }
        });
        let key = TimerKey {
            actor: self.key.clone(),
            which: Which::Schedule(place),
        };
        if let Some(scheduled) = schedules.all.get_mut(place) {
            scheduled.alarm = next.map(|due| clock.set(due, key));
        }
    }

    /// The turn of a method: what it lets out, or why it left no trace.
    async fn run_method(
        self: &Arc<Self>,
        method: &str,
        input: Option<String>,
        trigger: Trigger,
        watch: &mut Stopwatch,
        live: &Arc<ActorState>,
        shared: &Arc<Shared>,
    ) -> Result<(Effects, Option<String>), Failure> {
        self.begin_turn(&trigger.cancel)?;
        let component = self.component()?;
        let declared = self.method(&component, method)?;
        let limits = component.limits();
        let streaming = declared.streaming.as_ref();
        let streaming = streaming.map(|streaming| Duration::from_millis(streaming.interval_ms));
        let patience = match (declared.deadline_ms, streaming) {
            (Some(deadline_ms), _) => {
                Duration::from_millis(deadline_ms.min(limits.max_deadline_ms))
            }
            (None, Some(_)) => Duration::from_millis(limits.streaming_deadline_ms),
            (None, None) => limits.turn_deadline(),
        };
        let schema = declared.input.as_ref();
        let checked = check_input(method, schema, input.as_deref(), limits);
        let spelled = match checked {
            Some(checked) => checked?,
            None => {
                let input = input.as_deref();
                let deadline = trigger.began + patience;
                let checked = check_input_elsewhere(method, schema, input, &component, deadline);
                Box::pin(checked).await?
            }
        };
        let input = spelled.or(input);
        // What is rare takes room only when it happens: this future is copied now and then.
        if !live.goes_by(&component) || !self.is_scheduled(&component) {
            Box::pin(self.adopt(&component, live, shared)).await?;
        }
        let turn = self.turn(&trigger, patience, shared);
        let what = What {
            entry: method,
            turn: &turn,
        };
        debug!(
            actor = %self.key,
            turn = turn.id,
            request = turn.request.as_ref().map(tracing::field::display),
            method,
            "a turn begins"
        );
        let mut instance = self.instance(&component, what, shared).await?;
        let stage = self.stage(live, component.clone(), &turn, &trigger, streaming, shared);
        watch.passed(metrics::Stage::Prepare);
        let ran = {
            let staged = stage.clone();
            let mut invoke = pin!(instance.invoke(&turn, method, input.as_ref(), staged));
            let grace = Duration::from_millis(shared.settings.cancel_grace_ms);
            let mut given_up = pin!(given_up(&trigger.cancel, grace));
            loop {
                tokio::select! {
                    biased;
                    (_, result) = invoke.as_mut() => break Some(result),
                    () = given_up.as_mut() => break None,
                    () = stage.tick_due() => {
                        // A failure fails the turn at its end.
                        if let Err(failure) = Box::pin(stage.tick()).await {
                            debug!(actor = %self.key, %failure, "a tick did not commit");
                        }
                    }
                }
            }
        };
        watch.passed(metrics::Stage::Handler);
        if streaming.is_some() {
            Box::pin(stage.ticked()).await;
        }
        let Some(result) = ran else {
            // Its guest is in the middle of something.
            drop(instance);
            stage.discard();
            return Err(self.given_up());
        };
        let result = self
            .after_call(instance, result, what, shared)
            .inspect_err(|_| stage.discard())?;
        let result = match result {
            Some(result) => {
                let checked = stage
                    .checked_result(method, result, shared.settings.validate_results)
                    .await;
                Some(checked.inspect_err(|_| stage.discard())?)
            }
            None => None,
        };
        let effects = self.commit(&stage, result.as_deref(), what).await?;
        watch.passed(metrics::Stage::Commit);
        Ok((effects, result))
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

    /// Keeps the instance, or reports why it is lost.
    fn after_call<T>(
        self: &Arc<Self>,
        instance: Box<Instance>,
        result: Result<Result<T, Failure>, Crash>,
        what: What<'_>,
        shared: &Shared,
    ) -> Result<T, Failure> {
        match result {
            Ok(result) => {
                self.park(instance, shared);
                result
            }
            Err(crash) => Err(self.report(crash, what)),
        }
    }

    async fn commit(
        &self,
        stage: &Stage,
        result: Option<&str>,
        what: What<'_>,
    ) -> Result<Effects, Failure> {
        stage.commit(result).await.inspect_err(|failure| {
            stage.discard();
            if failure.code == code::HOST_MEMORY {
                // Nobody's fault alone, and a crowd of them must not fill the log.
                return debug!(actor = %self.key, %failure, "a turn found no room");
            }
            // A fault of the handler or of the store, not of the caller.
            warn!(
                actor = %self.key,
                turn_of = what.entry,
                turn = what.turn.id,
                request = what.turn.request.as_ref().map(tracing::field::display),
                %failure,
                "a turn did not commit"
            );
        })
    }

    fn method<'c>(&self, component: &'c Component, method: &str) -> Result<&'c Method, Failure> {
        let declared = self.type_in(component)?.methods.get(method);
        declared.ok_or_else(|| Failure::unknown_method(self.key.actor.as_str(), method))
    }

    /// Runs a hook, if the actor type has it. Its failure is logged and nothing else: no
    /// caller waits for it.
    async fn run_hook(
        self: &Arc<Self>,
        hook: Hook,
        origin: Origin,
        live: &Arc<ActorState>,
        shared: &Arc<Shared>,
    ) {
        // Without a component there is nothing to run.
        let Some(component) = self.slot.component() else {
            return;
        };
        let Ok(declared) = self.type_in(&component) else {
            return;
        };
        let declared = match hook {
            Hook::Activate => declared.hooks.activate,
            Hook::Deactivate => declared.hooks.deactivate,
            Hook::Connect => declared.hooks.connect,
            Hook::Disconnect => declared.hooks.disconnect,
        };
        if !declared {
            return;
        }
        let metrics = &self.slot.metrics;
        let trigger = Trigger::of(origin);
        let began = trigger.began;
        let turn = self.turn(&trigger, component.limits().turn_deadline(), shared);
        let ran = async {
            self.begin_turn(&trigger.cancel)?;
            self.adopt(&component, live, shared).await?;
            let what = What {
                entry: hook.name(),
                turn: &turn,
            };
            let mut instance = self.instance(&component, what, shared).await?;
            let stage = self.stage(live, component.clone(), &turn, &trigger, None, shared);
            let grace = Duration::from_millis(shared.settings.cancel_grace_ms);
            let ran = tokio::select! {
                biased;
                (_, result) = instance.run_hook(&turn, hook, stage.clone()) => Some(result),
                () = given_up(&trigger.cancel, grace) => None,
            };
            let Some(result) = ran else {
                // Its guest is in the middle of something.
                drop(instance);
                stage.discard();
                return Err(self.given_up());
            };
            self.after_call(instance, result, what, shared)?;
            self.commit(&stage, None, what).await
        };
        let ran = ran.await;
        metrics.seconds.observe((instant() - began).as_secs_f64());
        match ran {
            Ok(effects) => {
                metrics.committed(Entry::Hook);
                let_out(effects, None, shared.recheck()).await;
            }
            Err(failure) => {
                metrics.failed(Entry::Hook, &failure.code);
                // Long work may still go on for a turn that has ended.
                Box::pin(live.at_rest()).await;
                warn!(actor = %self.key, hook = hook.name(), turn = turn.id, %failure, "a hook failed");
            }
        }
    }

    fn report(&self, crash: Crash, what: What<'_>) -> Failure {
        self.slot.metrics.crashes.inc();
        warn!(
            actor = %self.key,
            turn_of = what.entry,
            turn = what.turn.id,
            request = what.turn.request.as_ref().map(tracing::field::display),
            code = %crash.failure.code,
            "a handler crashed: {}",
            crash.detail
        );
        crash.failure
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
                if !id.is_some_and(|id| shared.connections.is_open(id)) {
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

/// A clock that is set back by no more than this has a schedule wait for what it has not shown yet;
/// beyond it, moments come again. Cron implementations draw the line there, too.
const SAME_MOMENT_MS: u64 = 3 * 60 * 60 * 1000;

/// A record that is longer is made an actor of on a worker's thread.
const LONG_RECORD: usize = 128 << 10;

/// An input that is longer is compared with others on such a thread.
const LONG_INPUT: usize = 128 << 10;

/// When a timer whose turn the store has refused rings again.
const FIRE_AGAIN_MS: u64 = 1_000;

/// The name under which a caller's idempotency keys are its own. Clients without a user
/// share one.
fn caller_of(origin: &Origin) -> String {
    match origin {
        Origin::Client(client) => {
            let claims = client.user.as_deref();
            let claims = claims.and_then(|claims| serde_json::from_str::<Value>(claims).ok());
            let subject = claims.and_then(|claims| Some(claims.get("sub")?.as_str()?.to_owned()));
            format!("user {}", subject.unwrap_or_default())
        }
        Origin::Actor(key) => format!("actor {key}"),
        Origin::Timer(_) | Origin::Cron(_) | Origin::Host => "host".to_owned(),
    }
}

/// Which mail a call is, as its receiver remembers it.
fn received(call: &CallEnvelope) -> Option<Received> {
    let (Some(mail), Origin::Actor(from)) = (&call.mail, &call.origin) else {
        return None;
    };
    Some(Received {
        actor: from.actor.as_str().into(),
        id: from.id.as_str().into(),
        epoch: mail.epoch.clone(),
        seq: mail.seq,
    })
}

/// Whether a failure has a detail that the log does not have from where it was found.
fn is_told_nowhere_else(failure: &Failure) -> bool {
    let of_commit = [
        code::OUTPUT_INVALID,
        code::STATE_INVALID,
        code::STORE_UNAVAILABLE,
    ];
    failure.detail.is_some() && !of_commit.contains(&&*failure.code)
}

fn blocked() -> Failure {
    Failure::host(code::STORE_UNAVAILABLE)
        .message("a message before this one is to be delivered again first")
}

/// Completes when a turn that is told to end has had its time to do so.
async fn given_up(cancel: &CancellationToken, grace: Duration) {
    cancel.cancelled().await;
    tokio::time::sleep(grace).await;
}

fn was_cancelled() -> Failure {
    Failure::host(code::CALL_CANCELLED).message("the caller has cancelled the call")
}

/// What an account in the log is about.
#[derive(Clone, Copy)]
struct What<'a> {
    /// The method or hook.
    entry: &'a str,
    turn: &'a Turn,
}

impl Drop for Activation {
    fn drop(&mut self) {
        self.slot.metrics.in_memory.dec();
    }
}

//! The turns of an actor: what triggers one, how it runs, and what becomes of it.
//!
//! All turns go one way: [`Activation::run_turn`] runs the guest with a [`Stage`] for its imports,
//! commits what that has staged, counts it and lets it out. What is special to calls, timers and
//! hooks lies before it and behind it.
//!
//! Invariant: a turn that fails leaves no trace, and whoever waits for it is told why.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_base::clock::instant;
use tidegate_base::sync::MutexGuard;
use tidegate_base::timer::Due;
use tidegate_core::call::Firing;
use tidegate_core::failure::code;
use tidegate_core::manifest::Method;
use tidegate_core::turn::IdempotencyKey;
use tidegate_core::turn::Received;
use tidegate_core::turn::idempotency::caller_of;
use tidegate_core::{CallEnvelope, Failure, Origin, RequestId};
use tidegate_engine::{Component, Crash, Hook, Instance, Turn};
use tidegate_registry::calls::Caller;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::super::Shared;
use super::super::instances;
use super::super::mail::Blocked;
use super::super::mailbox::Call;
use super::Activation;
use crate::metrics::{self, Entry, Stopwatch};
use crate::state::ActorState;
use crate::turn::{
    Chunks, Effects, Reply, ReplyTo, Stage, TurnContext, Which, answer, check_input,
    check_input_elsewhere, let_out,
};

/// An input that is longer is compared with others on a worker's thread.
const LONG_INPUT: usize = 128 << 10;

/// When a timer whose turn the store has refused rings again.
const FIRE_AGAIN_MS: u64 = 1_000;

/// What a turn runs.
enum Work<'w> {
    /// A method, with its input.
    Method(&'w str, Option<String>),
    Hook(Hook),
}

impl Work<'_> {
    /// As the log names it.
    fn name(&self) -> &str {
        match self {
            Work::Method(name, _) => name,
            Work::Hook(hook) => hook.name(),
        }
    }
}

/// What sets a turn off, and what of it the turn needs.
struct Trigger<'w> {
    work: Work<'w>,
    /// As what it is counted.
    entry: Entry,
    began: Instant,
    origin: Origin,
    traceparent: Option<String>,
    request: Option<RequestId>,
    depth: u32,
    deadline: Option<Instant>,
    cancel: CancellationToken,
    key: Option<String>,
    keyed: Option<IdempotencyKey>,
    received: Option<Received>,
    watch: Stopwatch,
    /// Who gets the result.
    reply: Option<ReplyTo>,
    /// The turn's id once it has one, where nobody gets a result.
    turn: Option<String>,
}

impl<'w> Trigger<'w> {
    /// One that nobody waits for.
    fn new(work: Work<'w>, entry: Entry, origin: Origin) -> Trigger<'w> {
        Trigger {
            work,
            entry,
            began: instant(),
            origin,
            traceparent: None,
            request: None,
            depth: 0,
            deadline: None,
            cancel: CancellationToken::new(),
            key: None,
            keyed: None,
            received: None,
            watch: Stopwatch::default(),
            reply: None,
            turn: None,
        }
    }

    fn chunks(&self) -> Option<Chunks> {
        self.reply.as_ref().and_then(ReplyTo::chunks)
    }
}

/// A turn that failed, and who is to be told.
struct Failed {
    failure: Failure,
    reply: Option<ReplyTo>,
    /// Its id, where nobody waits for it and only the log tells.
    turn: Option<String>,
}

/// What an account in the log is about.
#[derive(Clone, Copy)]
struct What<'a> {
    /// The method or hook.
    entry: &'a str,
    turn: &'a Turn,
}

impl Activation {
    /// The turn of a call.
    pub(super) async fn run_call(
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
        let began = instant();
        let metrics = &self.slot.metrics;
        metrics.waits.observe((began - arrived).as_secs_f64());
        let keyed = match &key {
            Some(key) => match Box::pin(self.keyed(&origin, &method, key, &mut input)).await {
                Ok(keyed) => Some(keyed),
                Err(failure) => return reply.send(Err(failure)),
            },
            None => None,
        };
        if let Some(keyed) = &keyed
            && let Some(known) = live.answered(keyed, shared.clock.steady_ms(), shared.key_bounds())
        {
            return answer(live, reply, known).await;
        }
        let trigger = Trigger {
            work: Work::Method(&method, input),
            entry: Entry::Call,
            began,
            origin,
            traceparent,
            request,
            depth,
            deadline,
            cancel,
            key,
            keyed,
            received: received.clone(),
            watch,
            reply: Some(reply),
            turn: None,
        };
        let Err(Failed { failure, reply, .. }) = self.run_turn(trigger, live, shared).await else {
            return;
        };
        if is_told_nowhere_else(&failure) {
            warn!(actor = %self.key, %method, %failure, "a call failed");
        }
        let is_to_come = matches!(&*failure.code, code::STORE_UNAVAILABLE | code::HOST_MEMORY);
        if let Some(received) = received.filter(|_| is_to_come) {
            self.blocked().note(received);
        }
        if let Some(reply) = reply {
            answer(live, reply, Err(failure)).await;
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
    pub(super) async fn run_due(
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
        let input = input.as_deref().map(str::to_owned);
        let work = Work::Method(method.as_str(), input);
        let trigger = Trigger::new(work, Entry::Timer, origin);
        if let Err(Failed { failure, turn, .. }) = self.run_turn(trigger, live, shared).await {
            warn!(actor = %self.key, %method, turn, %failure, "a timer's turn failed");
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
        match which {
            Which::Timer(id) => {
                let mut parts = live.parts();
                parts.timers.set_again(&self.key, id, &shared.clock);
            }
            Which::Schedule(place) => self.schedule(place, shared),
            Which::Wake => {}
        }
    }

    /// Runs a hook, if the actor type has it. Its failure is logged and nothing else: no
    /// caller waits for it.
    pub(super) async fn run_hook(
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
        let trigger = Trigger::new(Work::Hook(hook), Entry::Hook, origin);
        if let Err(Failed { failure, turn, .. }) = self.run_turn(trigger, live, shared).await {
            warn!(actor = %self.key, hook = hook.name(), turn, %failure, "a hook failed");
        }
    }

    /// Runs a turn, counts it, and lets out what it has staged, with the result.
    async fn run_turn(
        self: &Arc<Self>,
        mut trigger: Trigger<'_>,
        live: &Arc<ActorState>,
        shared: &Arc<Shared>,
    ) -> Result<(), Failed> {
        let ran = self.run(&mut trigger, live, shared).await;
        let Trigger {
            entry,
            began,
            watch,
            reply,
            turn,
            ..
        } = trigger;
        let metrics = &self.slot.metrics;
        metrics.seconds.observe((instant() - began).as_secs_f64());
        match ran {
            Ok((effects, result)) => {
                metrics.committed(entry);
                let reply = reply.map(|to| Reply { to, result, watch });
                let_out(effects, reply, shared.recheck()).await;
                Ok(())
            }
            Err(failure) => {
                metrics.failed(entry, &failure.code);
                // Long work may still go on for a turn that has ended.
                Box::pin(live.at_rest()).await;
                Err(Failed {
                    failure,
                    reply,
                    turn,
                })
            }
        }
    }

    /// Runs the guest and commits what it has staged: what the turn lets out, or why it left no
    /// trace.
    async fn run(
        self: &Arc<Self>,
        trigger: &mut Trigger<'_>,
        live: &Arc<ActorState>,
        shared: &Arc<Shared>,
    ) -> Result<(Effects, Option<String>), Failure> {
        self.begin_turn(&trigger.cancel)?;
        let component = self.component()?;
        let limits = component.limits();
        let mut streaming = None;
        let mut patience = limits.turn_deadline();
        if let Work::Method(method, input) = &mut trigger.work {
            let declared = self.method(&component, method)?;
            if let Some(declared) = &declared.streaming {
                streaming = Some(Duration::from_millis(declared.interval_ms));
                patience = Duration::from_millis(limits.streaming_deadline_ms);
            }
            if let Some(deadline_ms) = declared.deadline_ms {
                patience = Duration::from_millis(deadline_ms.min(limits.max_deadline_ms));
            }
            let schema = declared.input.as_ref();
            let spelled = match check_input(method, schema, input.as_deref(), limits) {
                Some(checked) => checked?,
                None => {
                    let (input, deadline) = (input.as_deref(), trigger.began + patience);
                    let checked =
                        check_input_elsewhere(method, schema, input, &component, deadline);
                    Box::pin(checked).await?
                }
            };
            if spelled.is_some() {
                *input = spelled;
            }
        }
        // What is rare takes room only when it happens: this future is copied now and then.
        if !live.goes_by(&component) || !self.is_scheduled(&component) {
            Box::pin(self.adopt(&component, live, shared)).await?;
        }
        let turn = self.turn(trigger, patience, shared);
        if trigger.reply.is_none() {
            trigger.turn = Some(turn.id.clone());
        }
        let what = What {
            entry: trigger.work.name(),
            turn: &turn,
        };
        debug!(
            actor = %self.key,
            turn = turn.id,
            request = turn.request.as_ref().map(tracing::field::display),
            turn_of = what.entry,
            "a turn begins"
        );
        let mut instance = self.instance(&component, what, shared).await?;
        let stage = self.stage(live, component.clone(), &turn, trigger, streaming, shared);
        trigger.watch.passed(metrics::Stage::Prepare);
        let ran = {
            let staged = stage.clone();
            let mut invoke = pin!(async {
                match &trigger.work {
                    Work::Method(method, input) => {
                        instance
                            .invoke(&turn, method, input.as_ref(), staged)
                            .await
                            .1
                    }
                    Work::Hook(hook) => {
                        let ran = instance.run_hook(&turn, *hook, staged).await.1;
                        ran.map(|done| done.map(|()| None))
                    }
                }
            });
            let grace = Duration::from_millis(shared.settings.cancel_grace_ms);
            let mut given_up = pin!(given_up(&trigger.cancel, grace));
            loop {
                tokio::select! {
                    biased;
                    result = invoke.as_mut() => break Some(result),
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
        trigger.watch.passed(metrics::Stage::Handler);
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
                    .checked_result(what.entry, result, shared.settings.validate_results)
                    .await;
                Some(checked.inspect_err(|_| stage.discard())?)
            }
            None => None,
        };
        let effects = self.commit(&stage, result.as_deref(), what).await?;
        trigger.watch.passed(metrics::Stage::Commit);
        Ok((effects, result))
    }

    fn turn(&self, trigger: &Trigger<'_>, patience: Duration, shared: &Shared) -> Turn {
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
        trigger: &Trigger<'_>,
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
            chunks: trigger.chunks(),
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

    fn blocked(&self) -> MutexGuard<'_, Blocked> {
        self.blocked.lock()
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
    Failure::mail_out_of_order()
}

/// Completes when a turn that is told to end has had its time to do so.
async fn given_up(cancel: &CancellationToken, grace: Duration) {
    cancel.cancelled().await;
    tokio::time::sleep(grace).await;
}

pub(super) fn was_cancelled() -> Failure {
    Failure::call_cancelled()
}

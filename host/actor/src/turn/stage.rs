//! What a running turn has staged, and the guest's view of it.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::value::RawValue;
use tidegate_base::budget::{FREE, Share};
use tidegate_base::clock::instant;
use tidegate_base::config::Limits;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::document::{Op, OpError};
use tidegate_core::failure::code;
use tidegate_core::json::{ParseError, Size};
use tidegate_core::manifest::ActorType;
use tidegate_core::meter::{Exhausted, Meter};
use tidegate_core::schema::{Refused, Schema};
use tidegate_core::{ActorId, Document, Failure, Json, Name, PatchOp, Pointer, patch};
use tidegate_delivery::Recipients;
use tidegate_engine::{
    ActorCalls, Audience, CallResult, Component, Connections, Flush, Invocation, NewTimer, Outbox,
    Outgoing, Pending, StateRead, StateWrite, Step, Timers, TurnControl, Unparsed, WayOut,
};
use tidegate_registry::calls::Caller;
use tidegate_store::{ActorRecords, Change, Durability, Keyspace, Outcome, Received};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::dispatch::Dispatch;
use super::idempotency::{Bounds, IdempotencyKey};
use super::migrate::Fit;
use super::release::{Chunks, Effects, StagedEvent, let_out};
use super::timers::{Clock, StoredTimer, Timer, TimerChange};
use super::work::{Budget, TurnMeter, elsewhere, is_short};
use crate::live::{Body, frame};
use crate::state::replay_buffer;
use crate::state::{ActorState, Parts, next_token, unavailable};

/// What an event, and each connection that it is addressed to, weighs beside its text.
const EVENT_COST: usize = 64;

/// Longest delay of a timer: ten years, in milliseconds.
const MAX_DELAY_MS: u64 = 10 * 366 * 24 * 60 * 60 * 1000;

/// What changed of a state, if anything did.
type Patches = Option<Vec<PatchOp>>;

/// What a turn begins with.
pub struct TurnContext {
    /// The actor.
    pub live: Arc<ActorState>,
    /// The code that runs it.
    pub component: Arc<Component>,
    /// Where it commits to.
    pub store: Arc<dyn Keyspace<ActorRecords>>,
    /// The way to other actors.
    pub dispatch: Arc<dyn Dispatch>,
    /// What its timers are set on.
    pub clock: Clock,
    /// As whom it calls others.
    pub caller: Caller,
    /// Who hears parts of its result.
    pub chunks: Option<Chunks>,
    /// The call, if it is to run once.
    pub keyed: Option<IdempotencyKey>,
    /// How many such calls are remembered.
    pub bounds: Bounds,
    /// The message that it is the turn of.
    pub received: Option<Received>,
    /// How many messages may be under way, and how many senders are remembered.
    pub messages: MailBounds,
    /// Set when its caller wants the result no longer.
    pub cancel: CancellationToken,
    /// When it began.
    pub began: Instant,
    /// How often what it has staged is let out while it runs; none lets it out at the end.
    pub streaming: Option<Duration>,
    /// Time from a commit until guards are asked again.
    pub recheck: Duration,
    /// When its commits are safe.
    pub durability: Durability,
    /// How many of them may be under way.
    pub run_ahead: usize,
}

/// How much is kept of an actor's messages.
#[derive(Clone, Copy, Debug)]
pub struct MailBounds {
    /// Messages that it has sent and that are not settled.
    pub unsettled: usize,
    /// What these may weigh, in bytes.
    pub bytes: usize,
    /// Senders whose messages it remembers to have heard.
    pub senders: usize,
}

/// What one turn has staged so far. The guest's imports and the runner of the turn share it.
///
/// The state document is changed in place, with an undo log, in the parts that the
/// actor's subscribers share: they see its last committed content at any time. What was not
/// committed when the last handle goes is rolled back.
#[derive(Clone)]
pub struct Stage(Arc<Shared>);

struct Shared {
    context: TurnContext,
    staged: Mutex<Staged>,
    /// Something staged became fit to be let out, or a tick has ended.
    became_fit: Notify,
}

struct Staged {
    events: Vec<StagedEvent>,
    timers: Vec<TimerChange>,
    sends: Vec<Invocation>,
    /// What has been staged since the last commit, in bytes.
    bytes: usize,
    /// What has been taken for these of the host's budget; most turns stage too little.
    share: Option<Share>,
    /// What the host may yet do on the turn's data.
    budget: Budget,
    /// Calls to other actors so far.
    calls: usize,
    /// A limit that was passed: the turn fails even if the guest does not mind.
    exceeded: Option<Failure>,
    /// The guest has declared what is staged fit to be seen.
    is_fit: bool,
    /// When the next tick is due, on a grid of intervals.
    next_tick: Instant,
    /// A tick has committed since that was last asked.
    has_ticked: bool,
    /// A commit is under way.
    committing: bool,
    open: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let staged = self.staged.get_mut();
        if staged.open {
            self.context.live.parts().history.rollback();
        }
    }
}

/// Says that a tick is over, also one that is given up.
struct TickEnds(Stage);

impl Drop for TickEnds {
    fn drop(&mut self) {
        self.0.staged().committing = false;
        self.0.0.became_fit.notify_waiters();
    }
}

impl Stage {
    /// The beginning of a turn.
    pub fn new(context: TurnContext) -> Stage {
        let next_tick = context.began + context.streaming.unwrap_or_default();
        let budget = Budget::new(context.component.limits().work_steps);
        Stage(Arc::new(Shared {
            context,
            staged: Mutex::new(Staged {
                events: Vec::new(),
                timers: Vec::new(),
                sends: Vec::new(),
                bytes: 0,
                share: None,
                budget,
                calls: 0,
                exceeded: None,
                is_fit: false,
                next_tick,
                has_ticked: false,
                committing: false,
                open: true,
            }),
            became_fit: Notify::new(),
        }))
    }

    fn staged(&self) -> MutexGuard<'_, Staged> {
        self.0.staged.lock()
    }

    fn live(&self) -> &Arc<ActorState> {
        &self.0.context.live
    }

    fn limits(&self) -> &Limits {
        self.0.context.component.limits()
    }

    fn actor_type(&self) -> Option<&ActorType> {
        let actors = &self.0.context.component.manifest.actors;
        actors.get(self.live().key.actor.as_str())
    }

    fn charge(&self, bytes: usize) -> Result<(), Failure> {
        let limit = self.limits().effects_bytes;
        let all = {
            let mut staged = self.staged();
            staged.bytes = staged.bytes.saturating_add(bytes);
            staged.bytes
        };
        if all > limit {
            let failure = Failure::host(code::TURN_EFFECTS_LIMIT)
                .message(format!("the turn staged more than {limit} bytes"))
                .param("limit", limit);
            return Err(self.exceed(failure));
        }
        if all <= FREE {
            return Ok(());
        }
        let budget = &self.live().slot.metrics.budgets().outbound;
        let taken = budget.relieved(|| {
            let staged = &mut *self.staged();
            let share = staged.share.get_or_insert_with(|| budget.empty_share());
            share.fit(staged.bytes)
        });
        taken.map_err(|exhausted| self.exceed(exhausted.failure()))
    }

    /// Fails the turn if the state would take more than it may, as text or in memory.
    fn charge_state(&self, size: Size) -> Result<(), Failure> {
        let limits = self.limits();
        if size.text > limits.state_bytes {
            return Err(self.exceed(state_too_long(limits.state_bytes)));
        }
        if size.memory > limits.state_memory_bytes {
            return Err(self.exceed(state_too_large(limits.state_memory_bytes)));
        }
        Ok(())
    }

    /// Notes a limit that was passed.
    fn exceed(&self, failure: Failure) -> Failure {
        let mut staged = self.staged();
        staged.exceeded.get_or_insert_with(|| failure.clone());
        failure
    }

    /// Has work done elsewhere, within the turn's account. A failure fails the turn.
    async fn elsewhere<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut TurnMeter) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let context = &self.0.context;
        let before = self.staged().budget.clone();
        let mut after = before.clone();
        let done = elsewhere(
            &context.component,
            &mut after,
            context.caller.deadline,
            work,
        )
        .await;
        self.settle(&before, &after, done)
    }

    /// Has work done on the document elsewhere, within the turn's account.
    async fn on_document<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Document, &mut TurnMeter) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let context = &self.0.context;
        let before = self.staged().budget.clone();
        let mut after = before.clone();
        let live = self.live();
        let done = live
            .on_document(
                &context.component,
                &mut after,
                context.caller.deadline,
                work,
            )
            .await;
        self.settle(&before, &after, done)
    }

    /// Takes from the account what was used of a copy. Whoever has passed it fails even if the
    /// guest does not mind.
    fn settle<T>(
        &self,
        before: &Budget,
        after: &Budget,
        done: Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut staged = self.staged();
        staged.budget.take_used(before, after);
        if let Err(failure) = &done
            && matches!(&*failure.code, code::TURN_WORK_LIMIT | code::TURN_DEADLINE)
        {
            staged.exceeded.get_or_insert_with(|| failure.clone());
        }
        done
    }

    /// Checks a JSON text against a schema, here if that is little; none where it is not.
    fn check_text(&self, schema: &Schema, text: &str) -> Option<Checked> {
        if !is_short(text.len()) {
            return None;
        }
        let value = match Json::parse_within(text, self.limits().state_memory_bytes) {
            Ok(value) => value,
            Err(error) => return Some(Err(error.to_string())),
        };
        let mut allowance = self.staged().budget.at_once();
        let checked = schema.check_metered(&value, &mut allowance);
        self.staged().budget.settle(&allowance);
        settled(checked, value)
    }

    /// Checks the result of a method: it must be JSON, within the turn's account, and,
    /// where that is asked for, what the manifest says. Returns it with its integers written as
    /// such.
    pub async fn checked_result(
        &self,
        method: &str,
        result: String,
        validate: bool,
    ) -> Result<String, Failure> {
        self.charge(result.len())?;
        let invalid = |detail: String| {
            Failure::host(code::OUTPUT_INVALID)
                .message(format!("{method} returned an invalid result"))
                .detail(detail)
        };
        let schema = self
            .actor_type()
            .and_then(|actor| actor.methods.get(method))
            .and_then(|method| method.output.as_ref())
            .filter(|_| validate);
        let checked = match schema {
            Some(schema) => self.check_text(schema, &result),
            None => is_short(result.len()).then(|| check_json(&result)),
        };
        if let Some(checked) = checked {
            let spelled = checked.map_err(invalid)?;
            return Ok(spelled.unwrap_or(result));
        }
        let (schema, most) = (schema.cloned(), self.limits().state_memory_bytes);
        let checked = Box::pin(self.elsewhere(move |meter| {
            let checked = check_elsewhere(schema.as_ref(), &result, most, meter)?;
            Ok(checked.map(|spelled| spelled.unwrap_or(result)))
        }));
        checked.await?.map_err(invalid)
    }

    /// Commits the rest: checks what is staged, hands it to the store, and returns what may
    /// leave once the gate lets it.
    ///
    /// On failure everything since the last commit is rolled back.
    pub async fn commit(&self, result: Option<&str>) -> Result<Effects, Failure> {
        let outcome = match result {
            Some(result) => Outcome::Result(result.into()),
            None => Outcome::Nothing,
        };
        let effects = self.commit_staged(outcome).await?;
        self.staged().open = false;
        Ok(effects)
    }

    /// Rolls back what was staged since the last commit.
    pub fn discard(&self) {
        let mut staged = self.staged();
        if std::mem::replace(&mut staged.open, false) {
            drop(staged);
            self.live().parts().history.rollback();
        }
    }

    /// Completes when a tick is due: something is fit to be let out, and the last time is an
    /// interval ago. Never in a turn that does not stream.
    pub async fn tick_due(&self) {
        if self.0.context.streaming.is_none() {
            return std::future::pending().await;
        }
        loop {
            let became_fit = self.0.became_fit.notified();
            let (is_fit, next_tick) = {
                let staged = self.staged();
                (staged.is_fit && !staged.committing, staged.next_tick)
            };
            if is_fit {
                self.0.context.component.sleeps().until(next_tick).await;
                // It may have changed meanwhile, or have left another way.
                if self.staged().is_fit {
                    return;
                }
            } else {
                became_fit.await;
            }
        }
    }

    /// Commits what is staged and lets it out, while the turn goes on. A failure fails the
    /// turn.
    pub async fn tick(&self) -> Result<(), Failure> {
        match self.begin_tick() {
            true => self.end_tick().await,
            false => Ok(()),
        }
    }

    /// Lets a tick begin, unless nothing is to be let out or the turn is over.
    fn begin_tick(&self) -> bool {
        let mut staged = self.staged();
        let begins = staged.open && staged.is_fit && !staged.committing;
        staged.committing |= begins;
        begins
    }

    async fn end_tick(&self) -> Result<(), Failure> {
        let ends = TickEnds(self.clone());
        // The guest may have asked for long work, as to read the state, and waits for it.
        self.live().at_rest().await;
        let committed = self.commit_staged(Outcome::Begun).await;
        {
            let mut staged = self.staged();
            staged.budget.refill();
            // One that was late does not make the next ones so, nor are two sent in a row.
            let interval = self.0.context.streaming.unwrap_or_default();
            let grid = staged.next_tick + interval;
            staged.next_tick = grid.max(instant() + interval / 2);
            match &committed {
                Ok(_) => staged.has_ticked = true,
                Err(failure) => drop(staged.exceeded.get_or_insert_with(|| failure.clone())),
            }
        }
        // Whatever comes behind it is let out behind it.
        let_out(committed?, None, self.0.context.recheck).await;
        drop(ends);
        self.live().keep_pace(self.0.context.run_ahead).await
    }

    /// Waits until no tick is under way that somebody has begun and not waited for.
    pub async fn ticked(&self) {
        loop {
            let changed = self.0.became_fit.notified();
            if !self.staged().committing {
                return;
            }
            changed.await;
        }
    }

    async fn commit_staged(&self, outcome: Outcome) -> Result<Effects, Failure> {
        if let Some(broken) = self.live().gate.broken() {
            return Err(broken);
        }
        let (prepared, bytes) = {
            let mut staged = self.staged();
            if let Some(exceeded) = staged.exceeded.clone() {
                return Err(exceeded);
            }
            staged.is_fit = false;
            let prepared = self.prepare_at_once(&mut staged.budget)?;
            let patches = prepared.as_ref().and_then(Option::as_deref);
            let shown = self.live().parts().shown_bytes(patches.unwrap_or_default());
            (prepared, staged.bytes.saturating_add(shown))
        };
        match prepared {
            Some(patches) if is_short(bytes) => self.finish(patches, outcome),
            prepared => Box::pin(self.commit_elsewhere(prepared, bytes, outcome)).await,
        }
    }

    /// The patch to commit, none when the state has not changed; or nothing where that takes too
    /// long to find out here.
    fn prepare_at_once(&self, budget: &mut Budget) -> Result<Option<Patches>, Failure> {
        let mut parts = self.live().parts();
        if !parts.history.document.is_dirty() {
            return Ok(Some(None));
        }
        let fits = parts.history.fit.is_of(&self.0.context.component);
        let mut allowance = budget.at_once();
        let prepared = self.prepare(&mut parts.history.document, fits, &mut allowance);
        budget.settle(&allowance);
        let prepared = match prepared {
            Ok(prepared) => prepared?,
            Err(Exhausted) => return Ok(None),
        };
        if prepared.is_none() {
            // The document has the same content again, so the old token still names it;
            // the new one names it as well and may be in the guest's memory.
            parts.accept();
        }
        Ok(Some(prepared))
    }

    /// What changed, if it may.
    fn prepare(
        &self,
        document: &mut Document,
        fits: bool,
        meter: &mut dyn Meter,
    ) -> Result<Result<Patches, Failure>, Exhausted> {
        let mut patches = document.changes_metered(meter)?;
        let declared = self.actor_type();
        if let Some(schema) = declared.and_then(|actor| actor.state.schema.as_ref())
            && !patches.is_empty()
        {
            let state = document.value();
            let checked = if fits {
                schema.check_changes_metered(state, &patches, meter)
            } else {
                schema.check_metered(state, meter)
            };
            let loose = match checked {
                Ok(loose) => loose,
                Err(Refused::Exhausted(exhausted)) => return Err(exhausted),
                Err(Refused::Violations(violations)) => {
                    let message = format!("the turn would leave an invalid state: {violations}");
                    return Ok(Err(Failure::host(code::STATE_INVALID).message(message)));
                }
            };
            if !loose.is_empty() {
                document.spell_integers(&loose);
                patches = document.changes_metered(meter)?;
            }
        }
        if patches.is_empty() {
            return Ok(Ok(None));
        }
        Ok(Ok(Some(patches)))
    }

    /// Commits what is much.
    async fn commit_elsewhere(
        &self,
        prepared: Option<Patches>,
        bytes: usize,
        outcome: Outcome,
    ) -> Result<Effects, Failure> {
        let patches = match prepared {
            Some(patches) => patches,
            None => {
                let fits = self
                    .live()
                    .parts()
                    .history
                    .fit
                    .is_of(&self.0.context.component);
                let stage = self.clone();
                let prepare = move |document: &mut Document, meter: &mut TurnMeter| {
                    let prepared = stage.prepare(document, fits, meter);
                    prepared.unwrap_or_else(|Exhausted| Err(meter.failure()))
                };
                let patches = self.on_document(prepare).await?;
                if patches.is_none() {
                    self.live().parts().accept();
                }
                patches
            }
        };
        let (stage, runtime) = (self.clone(), Handle::current());
        let finish = move |meter: &mut TurnMeter| {
            meter.charge_text(bytes)?;
            // What it wakes may begin tasks.
            let _runtime = runtime.enter();
            stage.finish(patches, outcome)
        };
        self.elsewhere(finish).await
    }

    fn finish(&self, patches: Patches, outcome: Outcome) -> Result<Effects, Failure> {
        let context = &self.0.context;
        let live = &context.live;
        let (share, events, timers, sends) = {
            let mut staged = self.staged();
            staged.bytes = 0;
            (
                staged.share.take(),
                std::mem::take(&mut staged.events),
                std::mem::take(&mut staged.timers),
                std::mem::take(&mut staged.sends),
            )
        };
        let mut parts = live.parts();
        let changed = patches.is_some();
        // A turn that commits more than once has heard its message with the first.
        let received = context.received.as_ref();
        let received = received
            .filter(|received| !parts.inbox.knows(received))
            .cloned();
        let answer = context.keyed.as_ref().map(|keyed| {
            // Their age is a span of time.
            let now_ms = context.clock.steady_ms();
            parts.answers.prune(now_ms, context.bounds);
            keyed.answer(now_ms, outcome, context.bounds)
        });
        let mut change = Change {
            version: parts.history.version + u64::from(changed),
            begins: None,
            patches: patches.unwrap_or_default(),
            timers: timers.clone(),
            connections: Vec::new(),
            answer,
            sends: parts.outbox.number(sends, &parts.history.epoch),
            settled: Vec::new(),
            received,
        };
        parts.take_for(&change)?;
        parts.add_happenings(&mut change);
        if !change.is_empty() {
            // It shares what the document holds.
            let state = &|parts: &Parts| parts.history.document.value().clone();
            let store = &*context.store;
            live.commit(&mut parts, &change, store, context.durability, state)
                .map_err(|error| unavailable(&error))?;
        }
        if let Some(answer) = change.answer {
            parts.answers.add(answer);
        }
        if let Some(received) = change.received {
            parts.inbox.note(received, context.messages.senders);
        }
        let sends = parts.outbox.add(change.sends);
        parts.timers.change(&live.key, timers, &context.clock);
        let patch = changed.then(|| {
            parts.accept();
            // `prepare` has checked it.
            parts.history.fit = Fit::of(&context.component);
            parts.history.version += 1;
            parts.shown.encoded = None;
            let shown = patch::without_hidden(change.patches, &parts.shown.hidden);
            if shown.is_empty() {
                return None;
            }
            let version = parts.history.version;
            let from = std::mem::replace(&mut parts.shown.version, version);
            if !parts.shown.is_watched {
                // Who comes back to it from another time finds the change in the store.
                return None;
            }
            let (state, epoch) = (parts.history.document.value(), parts.shown.epoch.clone());
            let body = replay_buffer::body(&shown, state, epoch, from, version);
            let message = Arc::new(frame(&live.key, body));
            parts.shown.replay.add(from, version, &message);
            Some((message, version))
        });
        drop(parts);
        Ok(Effects {
            live: live.clone(),
            component: context.component.clone(),
            dispatch: context.dispatch.clone(),
            changed,
            patch: patch.flatten(),
            events,
            sends,
            _share: share,
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Parts) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        // Until the guest says again that it is.
        self.staged().is_fit = false;
        let (token, size) = {
            let mut parts = self.live().parts();
            change(&mut parts)?;
            let token = next_token();
            parts.history.token = token;
            (token, parts.history.document.size())
        };
        self.charge_state(size)?;
        Ok(token)
    }

    /// Why a text does not become the state.
    fn refused(&self, error: ParseError) -> Failure {
        match error {
            ParseError::TooLarge { bytes } => self.exceed(state_too_large(bytes)),
            ParseError::Malformed(error) => Failure::host(code::STATE_MALFORMED)
                .message(format!("the state is not JSON: {error}")),
        }
    }

    /// Stages a change of the document that takes long.
    fn write_elsewhere(
        &self,
        change: impl FnOnce(&mut Document, &mut TurnMeter) -> Result<(), Failure> + Send + 'static,
    ) -> Step<Result<u64, Failure>> {
        let stage = self.clone();
        Step::Later(Box::pin(async move {
            // Until the guest says again that it is.
            stage.staged().is_fit = false;
            stage.on_document(change).await?;
            stage.write(|_| Ok(()))
        }))
    }

    /// Stages operations that take long to parse or to apply.
    fn patch_elsewhere(
        &self,
        ops: impl FnOnce() -> Result<Vec<Op>, Failure> + Send + 'static,
        bytes: usize,
    ) -> Step<Result<u64, Failure>> {
        self.write_elsewhere(move |document, meter| {
            meter.charge_text(bytes)?;
            match document.apply_metered(&ops()?, meter) {
                Ok(()) => Ok(()),
                Err(OpError::Exhausted { .. }) => Err(meter.failure()),
                Err(error) => Err(op_failure(error)),
            }
        })
    }

    /// Stages an event whose payload was checked.
    fn stage_event(
        &self,
        event: String,
        payload: String,
        to: Audience,
        checked: Checked,
    ) -> Result<(), Failure> {
        let spelled = checked.map_err(|detail| {
            Failure::host(code::EVENT_INVALID)
                .message(format!("the payload of `{event}` is invalid: {detail}"))
                .param("event", event.clone())
        })?;
        let to = match to {
            Audience::Everyone => Recipients::Everyone,
            Audience::Only(ids) => Recipients::Only(HashSet::from_iter(ids)),
            Audience::Except(ids) => Recipients::Except(HashSet::from_iter(ids)),
        };
        let body = Body::Event {
            name: event,
            payload: spelled.unwrap_or(payload),
        };
        let message = frame(&self.live().key, body);
        self.staged().events.push(StagedEvent { message, to });
        Ok(())
    }

    /// What a method of the actor takes.
    fn input_of(&self, method: &Name) -> Option<&Schema> {
        let method = self.actor_type()?.methods.get(method.as_str())?;
        method.input.as_ref()
    }

    /// Stages a timer whose input was checked.
    fn stage_timer(&self, method: Name, timer: NewTimer, checked: Checked) -> Result<u64, Failure> {
        let spelled = checked.map_err(|detail| {
            Failure::host(code::TIMER_INVALID_INPUT)
                .message(format!("the input for `{method}` is invalid: {detail}"))
                .param("method", method.as_str())
        })?;
        let limit = self.limits().timers;
        let mut staged = self.staged();
        let mut parts = self.live().parts();
        let set = staged.timers.iter().filter(|change| change.sets()).count();
        if parts.timers.len() + set >= limit {
            return Err(Failure::host(code::TIMER_LIMIT)
                .message(format!("an actor may have {limit} timers"))
                .param("limit", limit));
        }
        let id = parts.timers.next_id();
        let clock = &self.0.context.clock;
        let steady_ms = clock.steady_ms().saturating_add(timer.delay_ms);
        let timer = Timer {
            method,
            input: spelled.or(timer.input).map(Into::into),
            due_ms: steady_ms.saturating_add_signed(clock.ahead_ms()),
            steady_ms: Some(steady_ms),
            every_ms: timer.every_ms,
            idle: timer.idle,
            outlive: timer.outlive,
        };
        staged
            .timers
            .push(TimerChange::Set(StoredTimer { id, timer }));
        Ok(id)
    }

    fn check_timer(&self, timer: &NewTimer) -> Result<Name, Failure> {
        let delays = [Some(timer.delay_ms), timer.every_ms].into_iter().flatten();
        if delays.clone().any(|delay| delay > MAX_DELAY_MS) || timer.every_ms == Some(0) {
            return Err(Failure::host(code::TIMER_INVALID_DELAY)
                .message(format!(
                    "expected a delay of at most {MAX_DELAY_MS} ms, and an interval of at least 1 ms"
                ))
                .param("max", MAX_DELAY_MS));
        }
        let methods = self.actor_type().map(|actor| &actor.methods);
        let found = methods.and_then(|methods| methods.get_key_value(timer.method.as_str()));
        let Some((name, _)) = found else {
            return Err(Failure::host(code::TIMER_UNKNOWN_METHOD)
                .message(format!("there is no method `{}`", timer.method))
                .param("method", timer.method.as_str()));
        };
        Ok(name.clone())
    }
}

impl StateRead for Stage {
    fn token(&mut self) -> u64 {
        self.live().parts().history.token
    }

    fn read(&mut self) -> Step<Result<String, Failure>> {
        {
            let parts = self.live().parts();
            if is_short(parts.history.document.size().text) {
                return Step::Done(Ok(parts.history.document.to_text()));
            }
        }
        let stage = self.clone();
        Step::Later(Box::pin(async move {
            let read = |document: &mut Document, meter: &mut TurnMeter| {
                let text = document.to_text();
                meter.charge_text(text.len()).map(|()| text)
            };
            stage.on_document(read).await
        }))
    }

    fn get(&mut self, pointer: Pointer) -> Step<Result<Option<String>, Failure>> {
        {
            let parts = self.live().parts();
            let Some(value) = parts.history.document.get(&pointer) else {
                return Step::Done(Ok(None));
            };
            if let Some(text) = short_text(value, parts.history.document.size().text) {
                return Step::Done(Ok(Some(text)));
            }
        }
        let stage = self.clone();
        Step::Later(Box::pin(async move {
            let read = move |document: &mut Document, meter: &mut TurnMeter| {
                let text = document.get(&pointer).map(Json::to_text);
                meter.charge_text(text.as_ref().map_or(0, String::len))?;
                Ok(text)
            };
            stage.on_document(read).await
        }))
    }
}

impl StateWrite for Stage {
    fn replace(&mut self, doc: String) -> Step<Result<u64, Failure>> {
        if let Err(failure) = Stage::charge(self, doc.len()) {
            return Step::Done(Err(failure));
        }
        let (limit, most) = {
            let limits = self.limits();
            (limits.state_bytes, limits.state_memory_bytes)
        };
        if doc.len() > limit {
            return Step::Done(Err(self.exceed(state_too_long(limit))));
        }
        if is_short(doc.len()) {
            let value = match Json::parse_within(&doc, most) {
                Ok(value) => value,
                Err(error) => return Step::Done(Err(self.refused(error))),
            };
            return Step::Done(self.write(|parts| {
                parts.history.document.replace(value);
                Ok(())
            }));
        }
        let stage = self.clone();
        self.write_elsewhere(move |document, meter| {
            document.replace(meter.parse(&doc, most, |error| stage.refused(error))?);
            Ok(())
        })
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Failure> {
        Stage::charge(self, bytes)
    }

    fn patch(&mut self, ops: Unparsed) -> Step<Result<u64, Failure>> {
        let bytes = ops.bytes;
        let most = self.limits().state_memory_bytes;
        if !is_short(bytes) {
            return self.patch_elsewhere(move || ops.parse(most), bytes);
        }
        let ops = match ops.parse(most) {
            Ok(ops) => ops,
            Err(failure) => return Step::Done(Err(failure)),
        };
        let mut allowance = self.staged().budget.at_once();
        let mut is_long = false;
        let patched = self.write(|parts| {
            let applied = parts.history.document.apply_metered(&ops, &mut allowance);
            is_long = matches!(applied, Err(OpError::Exhausted { .. }));
            applied.map_err(op_failure)
        });
        self.staged().budget.settle(&allowance);
        match is_long {
            true => self.patch_elsewhere(move || Ok(ops), bytes),
            false => Step::Done(patched),
        }
    }
}

impl TurnControl for Stage {
    fn checkpoint(&mut self, when: Flush) -> Pending<Result<(), Failure>> {
        if self.0.context.streaming.is_none() {
            return Box::pin(std::future::ready(Ok(())));
        }
        {
            let mut staged = self.staged();
            if let Some(exceeded) = staged.exceeded.clone() {
                return Box::pin(std::future::ready(Err(exceeded)));
            }
            staged.is_fit = true;
        }
        self.0.became_fit.notify_waiters();
        match when {
            Flush::Due => Box::pin(std::future::ready(Ok(()))),
            Flush::Now => {
                let stage = self.clone();
                Box::pin(async move {
                    // It begins while the guest runs, so that whoever ends the turn waits for it,
                    // and goes on to its end, also when the guest is ended meanwhile.
                    if stage.begin_tick() {
                        let ticking = stage.clone();
                        let ticked = tokio::spawn(async move { ticking.end_tick().await }).await;
                        ticked.unwrap_or_else(|_| {
                            Err(Failure::host(code::INTERNAL).message("the host failed"))
                        })?;
                    }
                    stage.live().gate.passed().await
                })
            }
        }
    }

    fn has_ticked(&mut self) -> bool {
        std::mem::take(&mut self.staged().has_ticked)
    }

    fn is_cancelled(&mut self) -> bool {
        let context = &self.0.context;
        context.cancel.is_cancelled() || context.chunks.as_ref().is_some_and(Chunks::is_gone)
    }
}

impl Outbox for Stage {
    fn emit(&mut self, event: String, payload: String, to: Audience) -> Step<Result<(), Failure>> {
        let ids = match &to {
            Audience::Everyone => &[],
            Audience::Only(ids) | Audience::Except(ids) => ids.as_slice(),
        };
        let addresses: usize = ids.iter().map(|id| id.len() + EVENT_COST).sum();
        let charged = EVENT_COST + event.len() + payload.len() + addresses;
        if let Err(failure) = Stage::charge(self, charged) {
            return Step::Done(Err(failure));
        }
        let declared = self.actor_type();
        let Some(schema) = declared.and_then(|actor| actor.events.get(event.as_str())) else {
            return Step::Done(Err(Failure::host(code::EVENT_UNKNOWN)
                .message(format!("the manifest declares no event `{event}`"))
                .param("event", event)));
        };
        let schema = Some(schema).filter(|schema| !schema.takes_all());
        let checked = match schema {
            Some(schema) => self.check_text(schema, &payload),
            None => is_short(payload.len()).then(|| check_json(&payload)),
        };
        if let Some(checked) = checked {
            return Step::Done(self.stage_event(event, payload, to, checked));
        }
        let (stage, schema) = (self.clone(), schema.cloned());
        let most = self.limits().state_memory_bytes;
        Step::Later(Box::pin(async move {
            let checked = stage.elsewhere(move |meter| {
                let checked = check_elsewhere(schema.as_ref(), &payload, most, meter)?;
                Ok((payload, checked))
            });
            let (payload, checked) = checked.await?;
            stage.stage_event(event, payload, to, checked)
        }))
    }

    fn chunk(&mut self, payload: String) -> Pending<Result<(), Failure>> {
        let Some(chunks) = self.0.context.chunks.clone() else {
            return Box::pin(std::future::ready(Ok(())));
        };
        if let Err(detail) = check_json(&payload) {
            let failure = Failure::host(code::OUTPUT_INVALID)
                .message(format!("a chunk is not JSON: {detail}"));
            return Box::pin(std::future::ready(Err(failure)));
        }
        let stage = self.clone();
        let passed = self.live().gate.passed();
        Box::pin(async move {
            passed.await?;
            let patience = Duration::from_millis(stage.limits().chunk_timeout_ms);
            match tokio::time::timeout(patience, chunks.send(payload)).await {
                Ok(()) => Ok(()),
                Err(_) => {
                    let failure = Failure::host(code::CALL_SLOW_CONSUMER)
                        .message("the caller does not read what the method streams to it");
                    let mut staged = stage.staged();
                    staged.exceeded.get_or_insert_with(|| failure.clone());
                    Err(failure)
                }
            }
        })
    }
}

impl Connections for Stage {
    fn connections(&mut self) -> Vec<String> {
        let parts = self.live().parts();
        parts.presence.ids().map(|id| id.to_string()).collect()
    }
}

impl Timers for Stage {
    fn set_timer(&mut self, timer: NewTimer) -> Step<Result<u64, Failure>> {
        let input = timer.input.as_ref().map_or(0, String::len);
        let charged = Stage::charge(self, EVENT_COST + timer.method.len() + input);
        let method = match charged.and_then(|()| self.check_timer(&timer)) {
            Ok(method) => method,
            Err(failure) => return Step::Done(Err(failure)),
        };
        let text = timer.input.as_deref().unwrap_or("null");
        let schema = self.input_of(&method);
        let checked = match schema {
            Some(schema) => self.check_text(schema, text),
            None => is_short(text.len()).then(|| check_json(text)),
        };
        if let Some(checked) = checked {
            return Step::Done(self.stage_timer(method, timer, checked));
        }
        let (stage, schema) = (self.clone(), schema.cloned());
        let most = self.limits().state_memory_bytes;
        Step::Later(Box::pin(async move {
            let checked = stage.elsewhere(move |meter| {
                let text = timer.input.as_deref().unwrap_or("null");
                let checked = check_elsewhere(schema.as_ref(), text, most, meter)?;
                Ok((timer, checked))
            });
            let (timer, checked) = checked.await?;
            stage.stage_timer(method, timer, checked)
        }))
    }

    fn cancel_timer(&mut self, id: u64) -> bool {
        let mut staged = self.staged();
        let before = staged.timers.len();
        staged.timers.retain(|change| !change.is_setting(id));
        if staged.timers.len() < before {
            return true;
        }
        let is_cancelled = staged.timers.iter().any(|change| change.cancels(id));
        let exists = !is_cancelled && self.live().parts().timers.has(id);
        if exists {
            staged.timers.push(TimerChange::Cancel(id));
        }
        exists
    }
}

impl ActorCalls for Stage {
    fn call(&mut self, calls: Vec<Invocation>) -> Pending<Vec<CallResult>> {
        let stage = self.clone();
        let passed = self.live().gate.passed();
        Box::pin(async move {
            let passed = passed.await;
            let limit = stage.limits().calls;
            let context = &stage.0.context;
            let calls = calls.into_iter().map(|call| -> Pending<CallResult> {
                let mut staged = stage.staged();
                staged.calls += 1;
                match &passed {
                    Err(failure) => Box::pin(std::future::ready(Err(failure.clone()))),
                    Ok(()) if staged.calls <= limit => {
                        context.dispatch.call(context.caller.clone(), call)
                    }
                    Ok(()) => Box::pin(std::future::ready(Err(too_many_calls(limit)))),
                }
            });
            let calls: Vec<_> = calls.collect();
            join_all(calls).await
        })
    }

    fn send(&mut self, call: Invocation) -> Result<(), Failure> {
        let input = call.input.as_ref().map_or(0, String::len);
        let names = call.actor.len() + call.id.len() + call.method.len();
        Stage::charge(self, EVENT_COST + names + input)?;
        if let Some(input) = &call.input {
            check_json(input).map_err(|detail| {
                Failure::host(code::INPUT_INVALID)
                    .message(format!("the input is not JSON: {detail}"))
            })?;
        }
        ActorId::check(&call.id)?;
        let limit = self.limits().calls;
        let bounds = self.0.context.messages;
        let mut staged = self.staged();
        staged.calls += 1;
        if staged.calls > limit {
            return Err(too_many_calls(limit));
        }
        let parts = self.live().parts();
        if parts.outbox.len() + staged.sends.len() >= bounds.unsettled
            || parts.outbox.bytes() >= bounds.bytes
        {
            return Err(Failure::host(code::MESSAGE_LIMIT)
                .message(format!(
                    "{} messages of the actor have not reached their receivers",
                    parts.outbox.len()
                ))
                .param("limit", bounds.unsettled)
                .param("limitBytes", bounds.bytes));
        }
        drop(parts);
        staged.sends.push(call);
        Ok(())
    }
}

impl Outgoing for Stage {
    fn way_out(&mut self) -> WayOut {
        let live = self.live().clone();
        Arc::new(move || Box::pin(live.gate.passed()))
    }
}

fn too_many_calls(limit: usize) -> Failure {
    Failure::host(code::CALL_LIMIT)
        .message(format!("one turn may make {limit} calls to other actors"))
        .param("limit", limit)
}

/// A value as JSON text; none where that is long. `at_most` is known of its length.
pub(crate) fn short_text(value: &Json, at_most: usize) -> Option<String> {
    struct Bounded(Vec<u8>);
    impl io::Write for Bounded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !is_short(self.0.len() + bytes.len()) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    if is_short(at_most) {
        return Some(value.to_text());
    }
    let mut text = Bounded(Vec::new());
    serde_json::to_writer(&mut text, value).ok()?;
    String::from_utf8(text.0).ok()
}

/// What a check has found: the text with its integers written as such, none where they are; or
/// what is wrong with it.
type Checked = Result<Option<String>, String>;

/// What a check has found; none if it was given up.
fn settled(checked: Result<Vec<Pointer>, Refused>, mut value: Json) -> Option<Checked> {
    match checked {
        Ok(loose) if loose.is_empty() => Some(Ok(None)),
        Ok(loose) => {
            value.spell_integers(&loose);
            Some(Ok(Some(value.to_text())))
        }
        Err(Refused::Violations(violations)) => Some(Err(violations.to_string())),
        Err(Refused::Exhausted(_)) => None,
    }
}

/// Checks a JSON text, if there is a schema against that; fails where that takes too long.
fn check_elsewhere(
    schema: Option<&Schema>,
    text: &str,
    most: usize,
    meter: &mut TurnMeter,
) -> Result<Checked, Failure> {
    meter.charge_text(text.len())?;
    let Some(schema) = schema else {
        return Ok(check_json(text));
    };
    let value = match Json::parse_within(text, most) {
        Ok(value) => value,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let checked = schema.check_metered(&value, meter);
    settled(checked, value).ok_or_else(|| meter.failure())
}

/// What a state is that is too long as text.
fn state_too_long(limit: usize) -> Failure {
    Failure::host(code::STATE_TOO_LARGE)
        .message(format!(
            "the state is longer than {limit} bytes (`state-bytes`)"
        ))
        .param("limit", limit)
        .param("setting", "state-bytes")
}

/// What a state is that takes too much memory.
fn state_too_large(limit: usize) -> Failure {
    Failure::host(code::STATE_TOO_LARGE)
        .message(format!(
            "the state takes more than {limit} bytes of memory (`state-memory-bytes`)"
        ))
        .param("limit", limit)
        .param("setting", "state-memory-bytes")
}

fn check_json(text: &str) -> Checked {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn op_failure(error: OpError) -> Failure {
    let code = match &error {
        OpError::NoSuchPlace { .. } => code::STATE_NO_SUCH_PLACE,
        OpError::NotAString { .. } => code::STATE_NOT_A_STRING,
        OpError::RemovesDocument { .. } | OpError::TooDeep { .. } => code::STATE_MALFORMED,
        OpError::Exhausted { .. } => code::TURN_WORK_LIMIT,
    };
    Failure::host(code)
        .message(error.to_string())
        .param("pointer", error.pointer())
}

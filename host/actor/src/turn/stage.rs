//! What a running turn has staged, and the guest's view of it.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tidegate_base::budget::{FREE, Share};
use tidegate_base::clock::instant;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::document::{Op, OpError};
use tidegate_core::manifest::ActorType;
use tidegate_core::meter::{Exhausted, Meter};
use tidegate_core::schema::Schema;
use tidegate_core::turn::idempotency::{self, IdempotencyKey};
use tidegate_core::turn::state::{self, Before};
use tidegate_core::turn::{self, Checked, Effects as Taken, Limits, check, mail, timers};
use tidegate_core::turn::{Outcome, Received};
use tidegate_core::{Document, Failure, Json, Name, PatchOp, Pointer};
use tidegate_delivery::Recipients;
use tidegate_engine::{
    ActorCalls, Audience, CallResult, Component, Connections, Flush, Invocation, NewTimer, Outbox,
    Outgoing, Pending, StateRead, StateWrite, Step, Timers, TurnControl, Unparsed, WayOut, config,
};
use tidegate_registry::calls::Caller;
use tidegate_store::{Durability, Keyspace};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::dispatch::Dispatch;
use super::release::{Chunks, Effects, StagedEvent, let_out};
use super::timers::{Clock, StoredTimer, Timer, TimerChange};
use super::work::{Budget, TurnMeter, elsewhere, is_short};
use crate::live::{Body, frame};
use crate::records::ActorRecords;
use crate::state::{ActorState, Parts, TurnCommit, next_token};

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
    pub bounds: idempotency::Bounds,
    /// The message that it is the turn of.
    pub received: Option<Received>,
    /// How many messages may be under way, and how many senders are remembered.
    pub messages: mail::Bounds,
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
    effects: turn::Staged<StagedEvent>,
    /// What has been taken for these of the host's budget; most turns stage too little.
    share: Option<Share>,
    /// What the host may yet do on the turn's data.
    budget: Budget,
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
        let limits = limits_of(context.component.limits());
        Stage(Arc::new(Shared {
            context,
            staged: Mutex::new(Staged {
                effects: turn::Staged::new(limits),
                share: None,
                budget: Budget::new(limits.work_steps),
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

    fn limits(&self) -> &config::Limits {
        self.0.context.component.limits()
    }

    fn actor_type(&self) -> Option<&ActorType> {
        let actors = &self.0.context.component.manifest.actors;
        actors.get(self.live().key.actor.as_str())
    }

    fn charge(&self, bytes: usize) -> Result<(), Failure> {
        let all = self.staged().effects.account.charge(bytes)?;
        if all <= FREE {
            return Ok(());
        }
        let budget = &self.live().slot.metrics.budgets().outbound;
        let taken = budget.relieved(|| {
            let staged = &mut *self.staged();
            let share = staged.share.get_or_insert_with(|| budget.empty_share());
            share.fit(staged.effects.account.bytes())
        });
        taken.map_err(|exhausted| self.exceed(exhausted.failure()))
    }

    /// Notes a failure that the turn does not survive.
    fn exceed(&self, failure: Failure) -> Failure {
        self.staged().effects.account.exceed(failure)
    }

    /// Notes why a text does not become the state.
    fn refused(&self, failure: Failure) -> Failure {
        self.staged().effects.account.note_state(failure)
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
        done.map_err(|failure| staged.effects.account.note_work(failure))
    }

    /// Checks a JSON text, if there is a schema against that, here if that is little; none where it
    /// is not.
    fn check_text(&self, schema: Option<&Schema>, text: &str) -> Option<Checked> {
        if !is_short(text.len()) {
            return None;
        }
        if schema.is_none() {
            return Some(check::json(text));
        }
        let mut allowance = self.staged().budget.at_once();
        let most = self.limits().state_memory_bytes;
        let checked = check::text(schema, text, most, &mut allowance);
        self.staged().budget.settle(&allowance);
        checked.ok()
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
        let invalid = |detail: String| Failure::output_invalid(method).detail(detail);
        let schema = self
            .actor_type()
            .and_then(|actor| actor.methods.get(method))
            .and_then(|method| method.output.as_ref())
            .filter(|_| validate);
        if let Some(checked) = self.check_text(schema, &result) {
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
                (
                    staged.effects.is_fit && !staged.committing,
                    staged.next_tick,
                )
            };
            if is_fit {
                self.0.context.component.sleeps().until(next_tick).await;
                // It may have changed meanwhile, or have left another way.
                if self.staged().effects.is_fit {
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
        let begins = staged.open && staged.effects.is_fit && !staged.committing;
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
                Err(failure) => drop(staged.effects.account.exceed(failure.clone())),
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
            staged.effects.account.check()?;
            staged.effects.is_fit = false;
            let prepared = self.prepare_at_once(&mut staged.budget)?;
            let patches = prepared.as_ref().and_then(Option::as_deref);
            let shown = self.live().parts().shown_bytes(patches.unwrap_or_default());
            (
                prepared,
                staged.effects.account.bytes().saturating_add(shown),
            )
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
        let declared = self.actor_type();
        let schema = declared.and_then(|actor| actor.state.schema.as_ref());
        state::changes(document, schema, Before::fits(fits), meter)
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
        let (share, taken) = {
            let mut staged = self.staged();
            (staged.share.take(), staged.effects.take())
        };
        let Taken {
            events,
            timers,
            sends,
        } = taken;
        let keyed = context.keyed.as_ref();
        let received = context.received.as_ref();
        let committed = context.live.commit_turn(TurnCommit {
            patches,
            timers,
            sends,
            outcome,
            keyed: keyed.map(|keyed| (keyed, context.bounds)),
            received: received.map(|received| (received, context.messages.senders)),
            component: &context.component,
            clock: &context.clock,
            store: &*context.store,
            durability: context.durability,
        })?;
        Ok(Effects {
            live: context.live.clone(),
            component: context.component.clone(),
            dispatch: context.dispatch.clone(),
            changed: committed.changed,
            patch: committed.patch,
            events,
            sends: committed.sends,
            _share: share,
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Parts) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        // Until the guest says again that it is.
        self.staged().effects.is_fit = false;
        let (token, size) = {
            let mut parts = self.live().parts();
            change(&mut parts)?;
            let token = next_token();
            parts.history.token = token;
            (token, parts.history.document.size())
        };
        let checked = limits_of(self.limits()).check_state(size);
        checked.map_err(|failure| self.exceed(failure))?;
        Ok(token)
    }

    /// Stages a change of the document that takes long.
    fn write_elsewhere(
        &self,
        change: impl FnOnce(&mut Document, &mut TurnMeter) -> Result<(), Failure> + Send + 'static,
    ) -> Step<Result<u64, Failure>> {
        let stage = self.clone();
        Step::Later(Box::pin(async move {
            // Until the guest says again that it is.
            stage.staged().effects.is_fit = false;
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
        let work_steps = self.limits().work_steps;
        self.write_elsewhere(move |document, meter| {
            meter.charge_text(bytes)?;
            match document.apply_metered(&ops()?, meter) {
                Ok(()) => Ok(()),
                Err(OpError::Exhausted { .. }) => Err(meter.failure()),
                Err(error) => Err(state::op_failure(&error, work_steps)),
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
        let payload = check::event_payload(&event, payload, checked)?;
        let to = match to {
            Audience::Everyone => Recipients::Everyone,
            Audience::Only(ids) => Recipients::Only(HashSet::from_iter(ids)),
            Audience::Except(ids) => Recipients::Except(HashSet::from_iter(ids)),
        };
        let body = Body::Event {
            name: event,
            payload,
        };
        let message = frame(&self.live().key, body);
        self.staged()
            .effects
            .events
            .push(StagedEvent { message, to });
        Ok(())
    }

    /// Stages a timer whose input was checked.
    fn stage_timer(
        &self,
        method: Name,
        mut timer: NewTimer,
        checked: Checked,
    ) -> Result<u64, Failure> {
        let input = timer.take_input(checked)?;
        let mut staged = self.staged();
        let staged = &mut staged.effects;
        let mut parts = self.live().parts();
        timers::check_room(parts.timers.len(), &staged.timers, staged.account.limits())?;
        let id = parts.timers.next_id();
        let clock = &self.0.context.clock;
        let steady_ms = clock.steady_ms().saturating_add(timer.delay_ms);
        let timer = Timer {
            method,
            input: input.map(Into::into),
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
        let limits = limits_of(self.limits());
        if is_short(doc.len()) {
            let value = match state::parse_whole(&doc, &limits) {
                Ok(value) => value,
                Err(failure) => return Step::Done(Err(self.refused(failure))),
            };
            return Step::Done(self.write(|parts| {
                parts.history.document.replace(value);
                Ok(())
            }));
        }
        if let Err(failure) = limits.check_state_text(doc.len()) {
            return Step::Done(Err(self.refused(failure)));
        }
        let stage = self.clone();
        self.write_elsewhere(move |document, meter| {
            meter.charge_text(doc.len())?;
            let parsed = state::parse_whole(&doc, &limits);
            document.replace(parsed.map_err(|failure| stage.refused(failure))?);
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
        let work_steps = self.limits().work_steps;
        let patched = self.write(|parts| {
            let applied = parts.history.document.apply_metered(&ops, &mut allowance);
            is_long = matches!(applied, Err(OpError::Exhausted { .. }));
            applied.map_err(|error| state::op_failure(&error, work_steps))
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
            if let Err(exceeded) = staged.effects.account.check() {
                return Box::pin(std::future::ready(Err(exceeded)));
            }
            staged.effects.is_fit = true;
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
                        ticked.unwrap_or_else(|_| Err(Failure::host_failed()))?;
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
        let cost = check::event_cost(&event, &payload, ids);
        if let Err(failure) = Stage::charge(self, cost) {
            return Step::Done(Err(failure));
        }
        let declared = self.actor_type();
        let Some(schema) = declared.and_then(|actor| actor.events.get(event.as_str())) else {
            return Step::Done(Err(Failure::event_unknown(&event)));
        };
        let schema = Some(schema).filter(|schema| !schema.takes_all());
        if let Some(checked) = self.check_text(schema, &payload) {
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
        if let Err(failure) = check::chunk(&payload) {
            return Box::pin(std::future::ready(Err(failure)));
        }
        let stage = self.clone();
        let passed = self.live().gate.passed();
        Box::pin(async move {
            passed.await?;
            let patience = Duration::from_millis(stage.limits().chunk_timeout_ms);
            match tokio::time::timeout(patience, chunks.send(payload)).await {
                Ok(()) => Ok(()),
                Err(_) => Err(stage.exceed(Failure::call_slow_consumer())),
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
        if let Err(failure) = Stage::charge(self, timer.cost()) {
            return Step::Done(Err(failure));
        }
        let none = BTreeMap::new();
        let methods = self.actor_type().map_or(&none, |actor| &actor.methods);
        let (method, schema) = match timer.check(methods) {
            Ok((name, method)) => (name.clone(), method.input.as_ref()),
            Err(failure) => return Step::Done(Err(failure)),
        };
        if let Some(checked) = self.check_text(schema, timer.checked_input()) {
            return Step::Done(self.stage_timer(method, timer, checked));
        }
        let (stage, schema) = (self.clone(), schema.cloned());
        let most = self.limits().state_memory_bytes;
        Step::Later(Box::pin(async move {
            let checked = stage.elsewhere(move |meter| {
                let text = timer.checked_input();
                let checked = check_elsewhere(schema.as_ref(), text, most, meter)?;
                Ok((timer, checked))
            });
            let (timer, checked) = checked.await?;
            stage.stage_timer(method, timer, checked)
        }))
    }

    fn cancel_timer(&mut self, id: u64) -> bool {
        let mut staged = self.staged();
        let exists = || Ok::<_, Infallible>(self.live().parts().timers.has(id));
        let Ok(is_cancelled) = timers::cancel(&mut staged.effects.timers, id, exists);
        is_cancelled
    }
}

impl ActorCalls for Stage {
    fn call(&mut self, calls: Vec<Invocation>) -> Pending<Vec<CallResult>> {
        let stage = self.clone();
        let passed = self.live().gate.passed();
        Box::pin(async move {
            let passed = passed.await;
            let context = &stage.0.context;
            let calls = calls.into_iter().map(|call| -> Pending<CallResult> {
                let charged = stage.staged().effects.account.charge_call();
                match passed.clone().and(charged) {
                    Err(failure) => Box::pin(std::future::ready(Err(failure))),
                    Ok(()) => context.dispatch.call(context.caller.clone(), call),
                }
            });
            let calls: Vec<_> = calls.collect();
            join_all(calls).await
        })
    }

    fn send(&mut self, call: Invocation) -> Result<(), Failure> {
        Stage::charge(self, mail::cost(&call))?;
        mail::check(&call)?;
        let mut staged = self.staged();
        let staged = &mut staged.effects;
        staged.account.charge_call()?;
        let unsettled = self.live().parts().outbox.unsettled();
        unsettled.check_room(staged.sends.len(), self.0.context.messages)?;
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

/// What of a component's limits is that of its turns.
fn limits_of(limits: &config::Limits) -> Limits {
    Limits {
        effects_bytes: limits.effects_bytes,
        state_bytes: limits.state_bytes,
        state_memory_bytes: limits.state_memory_bytes,
        work_steps: limits.work_steps,
        timers: limits.timers,
        calls: limits.calls,
    }
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

/// Checks a JSON text, if there is a schema against that; fails where that takes too long.
fn check_elsewhere(
    schema: Option<&Schema>,
    text: &str,
    most: usize,
    meter: &mut TurnMeter,
) -> Result<Checked, Failure> {
    meter.charge_text(text.len())?;
    check::text(schema, text, most, meter).map_err(|Exhausted| meter.failure())
}

#[cfg(test)]
mod tests {
    use tidegate_core::turn::limits::Times;

    use super::*;
    use crate::config::Actors;

    #[test]
    fn what_holds_without_settings_is_what_the_rules_say() {
        let limits = config::Limits::default();
        assert_eq!(limits_of(&limits), Limits::DEFAULT);
        let times = Times {
            turn_ms: limits.turn_deadline_ms,
            streaming_ms: limits.streaming_deadline_ms,
            chunk_ms: limits.chunk_timeout_ms,
        };
        assert_eq!(times, Times::DEFAULT);
        let actors = Actors::default();
        let keys = idempotency::Bounds {
            calls: actors.max_keys,
            age_ms: actors.key_ttl_ms,
            bytes: actors.max_keys_bytes,
        };
        assert_eq!(keys, idempotency::Bounds::DEFAULT);
        let mail = mail::Bounds {
            unsettled: actors.max_unsettled,
            bytes: actors.max_unsettled_bytes,
            senders: actors.max_senders,
        };
        assert_eq!(mail, mail::Bounds::DEFAULT);
        assert_eq!(actors.max_call_depth, turn::calls::MAX_DEPTH);
    }
}

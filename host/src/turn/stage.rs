//! What a running turn has staged, and the guest's view of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::value::RawValue;
use tidegate_core::document::{Op, OpError};
use tidegate_core::failure::code;
use tidegate_core::json::{ParseError, Size};
use tidegate_core::manifest::ActorType;
use tidegate_core::meter::Unmetered;
use tidegate_core::schema::Refused;
use tidegate_core::{ActorId, Failure, Json, Name, PatchOp, Pointer, Schema, patch};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::answers::{Bounds, Keyed};
use super::ledger::{Ledger, Live, next_token, unavailable};
use super::migrate::Fit;
use super::outside::{Caller, Outside};
use super::recent;
use super::release::{Chunks, Effects, StagedEvent, let_out};
use super::timers::{Clock, StoredTimer, Timer, TimerChange};
use crate::budget::{Exhausted, FREE, Share};
use crate::clock::instant;
use crate::config::Limits;
use crate::engine::{
    Audience, CallResult, Component, Flush, Imports, Invocation, NewTimer, Pending, WayOut,
};
use crate::fanout::{Body, Message, Recipients};
use crate::store::{Change, Durability, Heard, Outcome, Store};

/// What an event, and each connection that it is addressed to, weighs beside its text.
const EVENT_COST: usize = 64;

/// Longest delay of a timer: ten years, in milliseconds.
const MAX_DELAY_MS: u64 = 10 * 366 * 24 * 60 * 60 * 1000;

/// What a turn begins with.
pub struct Given {
    /// The actor.
    pub live: Arc<Live>,
    /// The code that runs it.
    pub component: Arc<Component>,
    /// Where it commits to.
    pub store: Arc<dyn Store>,
    /// The way to other actors.
    pub outside: Arc<dyn Outside>,
    /// What its timers are set on.
    pub clock: Clock,
    /// As whom it calls others.
    pub caller: Caller,
    /// Who hears parts of its result.
    pub chunks: Option<Chunks>,
    /// The call, if it is to run once.
    pub keyed: Option<Keyed>,
    /// How many such calls are remembered.
    pub bounds: Bounds,
    /// The message that it is the turn of.
    pub heard: Option<Heard>,
    /// How many messages may be under way, and how many senders are remembered.
    pub messages: MessageBounds,
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
pub struct MessageBounds {
    /// Messages that it has sent and that are not settled.
    pub unsettled: usize,
    /// What these may weigh, in bytes.
    pub bytes: usize,
    /// Senders whose messages it remembers to have heard.
    pub senders: usize,
}

/// What one turn has staged so far. The guest's imports and the runner of the turn share it.
///
/// The state document is changed in place, with an undo log, in the ledger that the
/// actor's subscribers share: they see its last committed content at any time. What was not
/// committed when the last handle goes is rolled back.
#[derive(Clone)]
pub struct Stage(Arc<Shared>);

struct Shared {
    given: Given,
    staged: Mutex<Staged>,
    /// Something staged became fit to be let out.
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
        if staged.unwrap_or_else(PoisonError::into_inner).open {
            self.given.live.ledger().rollback();
        }
    }
}

impl Stage {
    /// The beginning of a turn.
    pub fn new(given: Given) -> Stage {
        let next_tick = given.began + given.streaming.unwrap_or_default();
        Stage(Arc::new(Shared {
            given,
            staged: Mutex::new(Staged {
                events: Vec::new(),
                timers: Vec::new(),
                sends: Vec::new(),
                bytes: 0,
                share: None,
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
        self.0.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> &Arc<Live> {
        &self.0.given.live
    }

    fn limits(&self) -> &Limits {
        self.0.given.component.limits()
    }

    fn actor_type(&self) -> Option<&ActorType> {
        let actors = &self.0.given.component.manifest.actors;
        actors.get(self.live().key.actor.as_str())
    }

    fn charge(&self, bytes: usize) -> Result<(), Failure> {
        let limit = self.limits().effects_bytes;
        let mut staged = self.staged();
        staged.bytes = staged.bytes.saturating_add(bytes);
        let failure = if staged.bytes <= limit {
            match self.fit(&mut staged) {
                Ok(()) => return Ok(()),
                Err(exhausted) => exhausted.failure(),
            }
        } else {
            Failure::host(code::TURN_EFFECTS_LIMIT)
                .message(format!("the turn staged more than {limit} bytes"))
                .param("limit", limit)
        };
        staged.exceeded.get_or_insert_with(|| failure.clone());
        Err(failure)
    }

    /// Takes what is staged from the host's budget.
    fn fit(&self, staged: &mut Staged) -> Result<(), Exhausted> {
        if staged.bytes <= FREE {
            return Ok(());
        }
        let budget = &self.live().slot.metrics.budgets().outbound;
        let share = staged.share.get_or_insert_with(|| budget.empty_share());
        share.fit(staged.bytes)
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

    /// A JSON text, parsed, and none that takes more memory than a state may.
    fn parse(&self, text: &str) -> Result<Json, ParseError> {
        Json::parse_within(text, self.limits().state_memory_bytes)
    }

    /// Checks a JSON text by a schema. Returns it with its integers written as such, none where
    /// they are.
    fn check_text(&self, schema: &Schema, text: &str) -> Result<Option<String>, String> {
        let mut value = self.parse(text).map_err(|error| error.to_string())?;
        let loose = schema
            .check_metered(&value, &mut Unmetered)
            .map_err(|refused| refused.to_string())?;
        if loose.is_empty() {
            return Ok(None);
        }
        value.spell_integers(&loose);
        Ok(Some(value.to_text()))
    }

    /// Checks the result of a method: it must be JSON, within the turn's account, and,
    /// where that is asked for, what the manifest says. Returns it with its integers written as
    /// such, none where they are.
    pub fn check_result(
        &self,
        method: &str,
        result: &str,
        validate: bool,
    ) -> Result<Option<String>, Failure> {
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
        match schema {
            Some(schema) => self.check_text(schema, result).map_err(invalid),
            None => check_json(result).map(|()| None).map_err(invalid),
        }
    }

    /// Commits the rest: checks what is staged, hands it to the store, and returns what may
    /// leave once the gate lets it.
    ///
    /// On failure everything since the last commit is rolled back.
    pub fn commit(&self, result: Option<&str>) -> Result<Effects, Failure> {
        let outcome = match result {
            Some(result) => Outcome::Result(result.into()),
            None => Outcome::Nothing,
        };
        let effects = self.commit_staged(outcome)?;
        self.staged().open = false;
        Ok(effects)
    }

    /// Rolls back what was staged since the last commit.
    pub fn discard(&self) {
        let mut staged = self.staged();
        if std::mem::replace(&mut staged.open, false) {
            drop(staged);
            self.live().ledger().rollback();
        }
    }

    /// Completes when a tick is due: something is fit to be let out, and the last time is an
    /// interval ago. Never in a turn that does not stream.
    pub async fn tick_due(&self) {
        if self.0.given.streaming.is_none() {
            return std::future::pending().await;
        }
        loop {
            let became_fit = self.0.became_fit.notified();
            let (is_fit, next_tick) = {
                let staged = self.staged();
                (staged.is_fit && !staged.committing, staged.next_tick)
            };
            if is_fit {
                self.0.given.component.sleeps().until(next_tick).await;
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
        {
            let mut staged = self.staged();
            if !staged.is_fit || staged.committing {
                return Ok(());
            }
            staged.committing = true;
        }
        let committed = self.commit_staged(Outcome::Begun);
        {
            let mut staged = self.staged();
            staged.committing = false;
            // One that was late does not make the next ones so, nor are two sent in a row.
            let interval = self.0.given.streaming.unwrap_or_default();
            let grid = staged.next_tick + interval;
            staged.next_tick = grid.max(instant() + interval / 2);
            match &committed {
                Ok(_) => staged.has_ticked = true,
                Err(failure) => drop(staged.exceeded.get_or_insert_with(|| failure.clone())),
            }
        }
        let_out(committed?, None, self.0.given.recheck).await;
        self.live().keep_pace(self.0.given.run_ahead).await
    }

    fn commit_staged(&self, outcome: Outcome) -> Result<Effects, Failure> {
        if let Some(broken) = self.live().gate.broken() {
            return Err(broken);
        }
        let patches = {
            let mut staged = self.staged();
            if let Some(exceeded) = staged.exceeded.clone() {
                return Err(exceeded);
            }
            staged.is_fit = false;
            self.prepare()?
        };
        self.finish(patches, outcome)
    }

    /// The patch to commit, none when the state has not changed.
    fn prepare(&self) -> Result<Option<Vec<PatchOp>>, Failure> {
        let mut ledger = self.live().ledger();
        if !ledger.document.is_dirty() {
            return Ok(None);
        }
        let mut patches = ledger.document.changes();
        let declared = self.actor_type();
        if let Some(schema) = declared.and_then(|actor| actor.state.schema.as_ref())
            && !patches.is_empty()
        {
            let state = ledger.document.value();
            let checked = if ledger.fit.is_of(&self.0.given.component) {
                schema.check_changes_metered(state, &patches, &mut Unmetered)
            } else {
                schema.check_metered(state, &mut Unmetered)
            };
            let loose = checked.map_err(|refused| match refused {
                Refused::Violations(violations) => Failure::host(code::STATE_INVALID).message(
                    format!("the turn would leave an invalid state: {violations}"),
                ),
                Refused::Exhausted(exhausted) => {
                    Failure::host(code::TURN_WORK_LIMIT).message(exhausted.to_string())
                }
            })?;
            if !loose.is_empty() {
                ledger.document.spell_integers(&loose);
                patches = ledger.document.changes();
            }
        }
        if patches.is_empty() {
            // The document has the same content again, so the old token still names it;
            // the new one names it as well and may be in the guest's memory.
            ledger.accept();
            return Ok(None);
        }
        Ok(Some(patches))
    }

    fn finish(&self, patches: Option<Vec<PatchOp>>, outcome: Outcome) -> Result<Effects, Failure> {
        let given = &self.0.given;
        let live = &given.live;
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
        let mut ledger = live.ledger();
        let changed = patches.is_some();
        // A turn that commits more than once has heard its message with the first.
        let heard = given.heard.as_ref();
        let heard = heard.filter(|heard| !ledger.hearing.knows(heard)).cloned();
        let answer = given.keyed.as_ref().map(|keyed| {
            // Their age is a span of time.
            let now_ms = given.clock.steady_ms();
            ledger.answers.prune(now_ms, given.bounds);
            keyed.answer(now_ms, outcome, given.bounds)
        });
        let mut change = Change {
            version: ledger.version + u64::from(changed),
            begins: None,
            patches: patches.unwrap_or_default(),
            timers: timers.clone(),
            connections: Vec::new(),
            answer,
            sends: ledger.outbox.number(sends, &ledger.epoch),
            settled: Vec::new(),
            heard,
        };
        ledger.take_for(&change)?;
        ledger.add_happenings(&mut change);
        if !change.is_empty() {
            // It shares what the document holds.
            let state = &|ledger: &Ledger| ledger.document.value().clone();
            let store = &*given.store;
            live.commit(&mut ledger, &change, store, given.durability, state)
                .map_err(|error| unavailable(&error))?;
        }
        if let Some(answer) = change.answer {
            ledger.answers.add(answer);
        }
        if let Some(heard) = change.heard {
            ledger.hearing.note(heard, given.messages.senders);
        }
        let sends = ledger.outbox.add(change.sends);
        for change in timers {
            ledger.timers.change(&live.key, change, &given.clock);
        }
        let patch = changed.then(|| {
            ledger.accept();
            // `prepare` has checked it.
            ledger.fit = Fit::of(&given.component);
            ledger.version += 1;
            ledger.encoded = None;
            let shown = patch::without_hidden(change.patches, &ledger.hidden);
            if shown.is_empty() {
                return None;
            }
            let version = ledger.version;
            let from = std::mem::replace(&mut ledger.shown_version, version);
            if !ledger.is_watched {
                // Who comes back to it from another time finds the change in the store.
                return None;
            }
            let (state, epoch) = (ledger.document.value(), ledger.shown_epoch.clone());
            let body = recent::body(&shown, state, epoch, from, version);
            let message = Arc::new(Message::new(live.key.clone(), body));
            ledger.recent.add(from, version, &message);
            Some((message, version))
        });
        drop(ledger);
        Ok(Effects {
            live: live.clone(),
            component: given.component.clone(),
            outside: given.outside.clone(),
            changed,
            patch: patch.flatten(),
            events,
            sends,
            _share: share,
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Ledger) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        // Until the guest says again that it is.
        self.staged().is_fit = false;
        let mut ledger = self.live().ledger();
        change(&mut ledger)?;
        let token = next_token();
        ledger.token = token;
        Ok(token)
    }

    /// The method of a timer, and its input if that is to be written otherwise.
    fn check_timer(&self, timer: &NewTimer) -> Result<(Name, Option<String>), Failure> {
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
        let Some((name, method)) = found else {
            return Err(Failure::host(code::TIMER_UNKNOWN_METHOD)
                .message(format!("there is no method `{}`", timer.method))
                .param("method", timer.method.as_str()));
        };
        let invalid = |detail: String| {
            Failure::host(code::TIMER_INVALID_INPUT)
                .message(format!("the input for `{name}` is invalid: {detail}"))
                .param("method", name.as_str())
        };
        let input = timer.input.as_deref().unwrap_or("null");
        let spelled = match &method.input {
            Some(schema) => self.check_text(schema, input).map_err(invalid)?,
            None => check_json(input).map(|()| None).map_err(invalid)?,
        };
        Ok((name.clone(), spelled))
    }
}

impl Imports for Stage {
    fn token(&mut self) -> u64 {
        self.live().ledger().token
    }

    fn read(&mut self) -> String {
        self.live().ledger().document.to_text()
    }

    fn replace(&mut self, doc: String) -> Result<u64, Failure> {
        Stage::charge(self, doc.len())?;
        let limits = self.limits();
        if doc.len() > limits.state_bytes {
            return Err(self.exceed(state_too_long(limits.state_bytes)));
        }
        let value = self.parse(&doc).map_err(|error| match error {
            ParseError::TooLarge { bytes } => self.exceed(state_too_large(bytes)),
            ParseError::Malformed(error) => Failure::host(code::STATE_MALFORMED)
                .message(format!("the state is not JSON: {error}")),
        })?;
        // Before a second form of it is held.
        drop(doc);
        self.write(|ledger| {
            ledger.document.replace(value);
            Ok(())
        })?;
        let (token, size) = {
            let ledger = self.live().ledger();
            (ledger.token, ledger.document.size())
        };
        self.charge_state(size)?;
        Ok(token)
    }

    fn get(&mut self, pointer: &Pointer) -> Option<String> {
        self.live()
            .ledger()
            .document
            .get(pointer)
            .map(Json::to_text)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Failure> {
        Stage::charge(self, bytes)
    }

    fn patch(&mut self, ops: Vec<Op>) -> Result<u64, Failure> {
        let token = self.write(|ledger| ledger.document.apply(&ops).map_err(op_failure))?;
        let size = self.live().ledger().document.size();
        self.charge_state(size)?;
        Ok(token)
    }

    fn checkpoint(&mut self, when: Flush) -> Pending<Result<(), Failure>> {
        if self.0.given.streaming.is_none() {
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
                    stage.tick().await?;
                    stage.live().gate.passed().await
                })
            }
        }
    }

    fn has_ticked(&mut self) -> bool {
        std::mem::take(&mut self.staged().has_ticked)
    }

    fn is_cancelled(&mut self) -> bool {
        let given = &self.0.given;
        given.cancel.is_cancelled() || given.chunks.as_ref().is_some_and(Chunks::is_gone)
    }

    fn emit(&mut self, event: String, payload: String, to: Audience) -> Result<(), Failure> {
        let ids = match &to {
            Audience::Everyone => &[],
            Audience::Only(ids) | Audience::Except(ids) => ids.as_slice(),
        };
        let addresses: usize = ids.iter().map(|id| id.len() + EVENT_COST).sum();
        Stage::charge(self, EVENT_COST + event.len() + payload.len() + addresses)?;
        let declared = self.actor_type();
        let Some(schema) = declared.and_then(|actor| actor.events.get(event.as_str())) else {
            return Err(Failure::host(code::EVENT_UNKNOWN)
                .message(format!("the manifest declares no event `{event}`"))
                .param("event", event));
        };
        let invalid = |detail: String| {
            Failure::host(code::EVENT_INVALID)
                .message(format!("the payload of `{event}` is invalid: {detail}"))
                .param("event", event.clone())
        };
        let payload = if schema.takes_all() {
            check_json(&payload).map_err(invalid)?;
            payload
        } else {
            let spelled = self.check_text(schema, &payload).map_err(invalid)?;
            spelled.unwrap_or(payload)
        };
        let to = match to {
            Audience::Everyone => Recipients::Everyone,
            Audience::Only(ids) => Recipients::Only(HashSet::from_iter(ids)),
            Audience::Except(ids) => Recipients::Except(HashSet::from_iter(ids)),
        };
        let body = Body::Event {
            name: event,
            payload,
        };
        let message = Message::new(self.live().key.clone(), body);
        self.staged().events.push(StagedEvent { message, to });
        Ok(())
    }

    fn chunk(&mut self, payload: String) -> Pending<Result<(), Failure>> {
        let Some(chunks) = self.0.given.chunks.clone() else {
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

    fn connections(&mut self) -> Vec<String> {
        let ledger = self.live().ledger();
        ledger.connections.keys().map(|id| id.to_string()).collect()
    }

    fn set_timer(&mut self, timer: NewTimer) -> Result<u64, Failure> {
        let input = timer.input.as_ref().map_or(0, String::len);
        Stage::charge(self, EVENT_COST + timer.method.len() + input)?;
        let (method, spelled) = self.check_timer(&timer)?;
        let limit = self.limits().timers;
        let mut staged = self.staged();
        let mut ledger = self.live().ledger();
        let set = staged.timers.iter().filter(|change| change.sets()).count();
        if ledger.timers.len() + set >= limit {
            return Err(Failure::host(code::TIMER_LIMIT)
                .message(format!("an actor may have {limit} timers"))
                .param("limit", limit));
        }
        let id = ledger.timers.next_id();
        let clock = &self.0.given.clock;
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

    fn cancel_timer(&mut self, id: u64) -> bool {
        let mut staged = self.staged();
        let before = staged.timers.len();
        staged.timers.retain(|change| !change.is_setting(id));
        if staged.timers.len() < before {
            return true;
        }
        let is_cancelled = staged.timers.iter().any(|change| change.cancels(id));
        let exists = !is_cancelled && self.live().ledger().timers.has(id);
        if exists {
            staged.timers.push(TimerChange::Cancel(id));
        }
        exists
    }

    fn call(&mut self, calls: Vec<Invocation>) -> Pending<Vec<CallResult>> {
        let stage = self.clone();
        let passed = self.live().gate.passed();
        Box::pin(async move {
            let passed = passed.await;
            let limit = stage.limits().calls;
            let given = &stage.0.given;
            let calls = calls.into_iter().map(|call| -> Pending<CallResult> {
                let mut staged = stage.staged();
                staged.calls += 1;
                match &passed {
                    Err(failure) => Box::pin(std::future::ready(Err(failure.clone()))),
                    Ok(()) if staged.calls <= limit => {
                        given.outside.call(given.caller.clone(), call)
                    }
                    Ok(()) => Box::pin(std::future::ready(Err(too_many_calls(limit)))),
                }
            });
            let calls: Vec<_> = calls.collect();
            join_all(calls).await
        })
    }

    fn way_out(&mut self) -> WayOut {
        let live = self.live().clone();
        Arc::new(move || Box::pin(live.gate.passed()))
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
        let bounds = self.0.given.messages;
        let mut staged = self.staged();
        staged.calls += 1;
        if staged.calls > limit {
            return Err(too_many_calls(limit));
        }
        let ledger = self.live().ledger();
        if ledger.outbox.len() + staged.sends.len() >= bounds.unsettled
            || ledger.outbox.bytes() >= bounds.bytes
        {
            return Err(Failure::host(code::MESSAGE_LIMIT)
                .message(format!(
                    "{} messages of the actor have not reached their receivers",
                    ledger.outbox.len()
                ))
                .param("limit", bounds.unsettled)
                .param("limitBytes", bounds.bytes));
        }
        drop(ledger);
        staged.sends.push(call);
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

fn state_too_long(limit: usize) -> Failure {
    Failure::host(code::STATE_TOO_LARGE)
        .message(format!(
            "the state is longer than {limit} bytes (`state-bytes`)"
        ))
        .param("limit", limit)
        .param("setting", "state-bytes")
}

fn state_too_large(limit: usize) -> Failure {
    Failure::host(code::STATE_TOO_LARGE)
        .message(format!(
            "the state takes more than {limit} bytes of memory (`state-memory-bytes`)"
        ))
        .param("limit", limit)
        .param("setting", "state-memory-bytes")
}

fn too_many_calls(limit: usize) -> Failure {
    Failure::host(code::CALL_LIMIT)
        .message(format!("one turn may make {limit} calls to other actors"))
        .param("limit", limit)
}

fn check_json(text: &str) -> Result<(), String> {
    serde_json::from_str::<&RawValue>(text)
        .map(|_| ())
        .map_err(|error| error.to_string())
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

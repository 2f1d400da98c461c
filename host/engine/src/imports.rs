//! The interfaces that a guest imports, as one Rust trait, and its plumbing to the
//! generated bindings.
//!
//! `turn` implements [`Imports`]. Every call is counted here, before it does anything,
//! so that a flood of them ends the turn.

use std::pin::Pin;

use tidegate_core::document::Op;
use tidegate_core::failure::code;
use tidegate_core::json::ParseError;
use tidegate_core::{Failure, Json, Pointer};

use super::bindings::tidegate::realtime as wit;
use super::instance::{GuestContext, Stop};

/// Who gets an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Audience {
    /// Every subscriber.
    Everyone,
    /// These connections only.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

/// When what is staged becomes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// At the next tick of a streaming method.
    Due,
    /// Before the call returns.
    Now,
}

/// A timer that a guest sets.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTimer {
    /// From now until it fires first, in milliseconds.
    pub delay_ms: u64,
    /// From then on until it fires again; none fires once.
    pub every_ms: Option<u64>,
    /// The method that it calls.
    pub method: String,
    /// With this input.
    pub input: Option<String>,
    /// It does not by itself keep the actor in memory.
    pub idle: bool,
    /// It survives deactivation and wakes the actor.
    pub outlive: bool,
}

/// A guest's call to an actor.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// The actor type, as the guest spells it.
    pub actor: String,
    /// The actor's id.
    pub id: String,
    /// The method.
    pub method: String,
    /// Its input.
    pub input: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
    /// How long to wait.
    pub timeout_ms: Option<u64>,
}

/// What a guest waits for. It owns what it needs, because the guest's imports are elsewhere
/// meanwhile.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is done at once, or has to be waited for: most of what a guest asks of its host is little.
pub enum Step<T> {
    /// It is done.
    Done(T),
    /// It is done elsewhere.
    Later(Pending<T>),
}

impl<T> Step<T> {
    /// What comes of it.
    pub async fn done(self) -> T {
        match self {
            Step::Done(done) => done,
            Step::Later(pending) => pending.await,
        }
    }
}

/// Waits until everything that a guest builds on is safe, so that something may leave.
pub type WayOut = std::sync::Arc<dyn Fn() -> Pending<Result<(), Failure>> + Send + Sync>;

/// What became of a call.
pub type CallResult = Result<Option<String>, Failure>;

/// What the host does for the guest during one call. The semantics of each function are
/// those of the WIT function of the same name.
pub trait Imports: Send + 'static {
    /// `state.token`
    fn token(&mut self) -> u64;
    /// `state.read`
    fn read(&mut self) -> Step<Result<String, Failure>>;
    /// `state.replace`
    fn replace(&mut self, doc: String) -> Step<Result<u64, Failure>>;
    /// `state.get`
    fn get(&mut self, pointer: Pointer) -> Step<Result<Option<String>, Failure>>;
    /// Charges what the guest hands over to the turn's account.
    fn charge(&mut self, bytes: usize) -> Result<(), Failure>;
    /// `state.patch`; what the operations weigh is already charged.
    fn patch(&mut self, ops: Unparsed) -> Step<Result<u64, Failure>>;
    /// `turns.checkpoint`
    fn checkpoint(&mut self, when: Flush) -> Pending<Result<(), Failure>>;
    /// Whether a tick has committed since this was last asked.
    fn has_ticked(&mut self) -> bool;
    /// `turns.cancelled`
    fn is_cancelled(&mut self) -> bool;
    /// `outbox.emit`
    fn emit(&mut self, event: String, payload: String, to: Audience) -> Step<Result<(), Failure>>;
    /// `outbox.chunk`
    fn chunk(&mut self, payload: String) -> Pending<Result<(), Failure>>;
    /// `outbox.connections`
    fn connections(&mut self) -> Vec<String>;
    /// `timers.after` and `timers.every`
    fn set_timer(&mut self, timer: NewTimer) -> Step<Result<u64, Failure>>;
    /// `timers.cancel`
    fn cancel_timer(&mut self, id: u64) -> bool;
    /// `actors.call` and `actors.call-all`: one result for each, in their order.
    fn call(&mut self, calls: Vec<Invocation>) -> Pending<Vec<CallResult>>;
    /// `actors.send`
    fn send(&mut self, call: Invocation) -> Result<(), Failure>;
    /// What HTTP requests of the guest wait for.
    fn way_out(&mut self) -> WayOut;
    /// Lets the implementer have itself back after the call.
    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send>;
}

type Trappable<T> = wasmtime::Result<T>;

impl From<Failure> for wit::types::Failure {
    fn from(failure: Failure) -> Self {
        wit::types::Failure {
            code: failure.code.into_owned(),
            message: failure.message,
            params: failure.params.map(|params| params.to_string()),
            http_status: Some(failure.status),
        }
    }
}

impl From<wit::types::Failure> for Failure {
    fn from(failure: wit::types::Failure) -> Self {
        Failure::from_guest(
            failure.code,
            failure.message,
            failure.params,
            failure.http_status,
        )
    }
}

/// What an operation weighs beside its texts.
const OP_COST: usize = 64;

/// What the ops weigh, in bytes.
fn weight(ops: &[wit::state::Op]) -> usize {
    ops.iter()
        .map(|op| {
            OP_COST
                + match op {
                    wit::state::Op::Add(entry) | wit::state::Op::Replace(entry) => {
                        entry.pointer.len() + entry.value.len()
                    }
                    wit::state::Op::Remove(pointer) => pointer.len(),
                    wit::state::Op::Append(tail) => tail.pointer.len() + tail.text.len(),
                }
        })
        .sum()
}

/// Operations as a guest hands them over, as text.
pub struct Unparsed {
    ops: Vec<wit::state::Op>,
    /// What they weigh, in bytes.
    pub bytes: usize,
}

impl Unparsed {
    /// The operations, with their pointers and values parsed, which take so many bytes of memory
    /// at most.
    pub fn parse(self, most: usize) -> Result<Vec<Op>, Failure> {
        parse_ops(self.ops, most)
    }
}

fn parse_ops(ops: Vec<wit::state::Op>, most: usize) -> Result<Vec<Op>, Failure> {
    let pointer = |text: String| {
        Pointer::parse(&text).map_err(|_| {
            Failure::host(code::STATE_NO_SUCH_PLACE)
                .message(format!("`{text}` is not a JSON pointer"))
                .param("pointer", text)
        })
    };
    let mut left = most;
    let mut value = |json: &str| {
        let value = Json::parse_within(json, left).map_err(|error| match error {
            ParseError::Malformed(error) => Failure::host(code::STATE_MALFORMED)
                .message(format!("a value is not JSON: {error}")),
            ParseError::TooLarge { .. } => Failure::host(code::STATE_TOO_LARGE)
                .message(format!(
                    "the operations hold values that take more than {most} bytes of memory \
                     (`state-memory-bytes`)"
                ))
                .param("limit", most)
                .param("setting", "state-memory-bytes"),
        })?;
        left = left.saturating_sub(value.size().memory);
        Ok::<_, Failure>(value)
    };
    let parse = |op| {
        Ok(match op {
            wit::state::Op::Add(entry) => Op::Add {
                value: value(&entry.value)?,
                pointer: pointer(entry.pointer)?,
            },
            wit::state::Op::Replace(entry) => Op::Replace {
                value: value(&entry.value)?,
                pointer: pointer(entry.pointer)?,
            },
            wit::state::Op::Remove(place) => Op::Remove {
                pointer: pointer(place)?,
            },
            wit::state::Op::Append(tail) => Op::Append {
                pointer: pointer(tail.pointer)?,
                text: tail.text,
            },
        })
    };
    ops.into_iter().map(parse).collect()
}

impl GuestContext {
    /// The running turn's imports, after counting this call.
    fn turn(&mut self) -> Trappable<&mut dyn Imports> {
        self.count_host_call()?;
        match self.imports.as_deref_mut() {
            Some(imports) => Ok(imports),
            None => Err(Stop::OutsideTurn.into()),
        }
    }
}

impl wit::types::Host for GuestContext {}

impl wit::state::Host for GuestContext {
    fn token(&mut self) -> Trappable<u64> {
        Ok(self.turn()?.token())
    }

    async fn read(&mut self) -> Trappable<String> {
        let read = self.turn()?.read();
        Ok(read.done().await.map_err(Stop::Failed)?)
    }

    async fn replace(&mut self, doc: String) -> Trappable<Result<u64, wit::types::Failure>> {
        let replaced = self.turn()?.replace(doc);
        Ok(replaced.done().await.map_err(Into::into))
    }

    async fn get(&mut self, pointer: String) -> Trappable<Option<String>> {
        let turn = self.turn()?;
        Ok(match Pointer::parse(&pointer) {
            Ok(pointer) => turn.get(pointer).done().await.map_err(Stop::Failed)?,
            Err(_) => None,
        })
    }

    async fn patch(
        &mut self,
        ops: Vec<wit::state::Op>,
    ) -> Trappable<Result<u64, wit::types::Failure>> {
        let turn = self.turn()?;
        let bytes = weight(&ops);
        // Charged before it is parsed, which makes it larger.
        if let Err(failure) = turn.charge(bytes) {
            return Ok(Err(failure.into()));
        }
        let patched = turn.patch(Unparsed { ops, bytes });
        Ok(patched.done().await.map_err(Into::into))
    }
}

impl wit::turns::Host for GuestContext {
    async fn checkpoint(
        &mut self,
        when: wit::turns::Flush,
    ) -> Trappable<Result<(), wit::types::Failure>> {
        let when = match when {
            wit::turns::Flush::Due => Flush::Due,
            wit::turns::Flush::Now => Flush::Now,
        };
        let flushed = self.turn()?.checkpoint(when);
        Ok(flushed.await.map_err(Into::into))
    }

    fn cancelled(&mut self) -> Trappable<bool> {
        Ok(self.turn()?.is_cancelled())
    }
}

impl wit::outbox::Host for GuestContext {
    async fn emit(
        &mut self,
        event: String,
        payload: String,
        to: wit::outbox::Audience,
    ) -> Trappable<Result<(), wit::types::Failure>> {
        let to = match to {
            wit::outbox::Audience::Everyone => Audience::Everyone,
            wit::outbox::Audience::Only(ids) => Audience::Only(ids),
            wit::outbox::Audience::Except(ids) => Audience::Except(ids),
        };
        let emitted = self.turn()?.emit(event, payload, to);
        Ok(emitted.done().await.map_err(Into::into))
    }

    async fn chunk(&mut self, payload: String) -> Trappable<Result<(), wit::types::Failure>> {
        let sent = self.turn()?.chunk(payload);
        Ok(sent.await.map_err(Into::into))
    }

    fn connections(&mut self) -> Trappable<Vec<String>> {
        Ok(self.turn()?.connections())
    }
}

impl GuestContext {
    async fn set_timer(
        &mut self,
        delay_ms: u64,
        every_ms: Option<u64>,
        method: String,
        input: Option<String>,
        life: wit::timers::Life,
    ) -> Trappable<Result<u64, wit::types::Failure>> {
        let timer = NewTimer {
            delay_ms,
            every_ms,
            method,
            input,
            idle: life.contains(wit::timers::Life::IDLE),
            outlive: life.contains(wit::timers::Life::OUTLIVE),
        };
        let set = self.turn()?.set_timer(timer);
        Ok(set.done().await.map_err(Into::into))
    }
}

impl wit::timers::Host for GuestContext {
    async fn after(
        &mut self,
        ms: u64,
        method: String,
        input: Option<String>,
        life: wit::timers::Life,
    ) -> Trappable<Result<u64, wit::types::Failure>> {
        self.set_timer(ms, None, method, input, life).await
    }

    async fn every(
        &mut self,
        ms: u64,
        method: String,
        input: Option<String>,
        life: wit::timers::Life,
    ) -> Trappable<Result<u64, wit::types::Failure>> {
        self.set_timer(ms, Some(ms), method, input, life).await
    }

    fn cancel(&mut self, id: u64) -> Trappable<bool> {
        Ok(self.turn()?.cancel_timer(id))
    }
}

impl From<wit::actors::Invocation> for Invocation {
    fn from(call: wit::actors::Invocation) -> Self {
        Invocation {
            actor: call.to.actor,
            id: call.to.id,
            method: call.method,
            input: call.input,
            key: call.key,
            timeout_ms: call.timeout_ms,
        }
    }
}

impl wit::actors::Host for GuestContext {
    async fn call(
        &mut self,
        call: wit::actors::Invocation,
    ) -> Trappable<Result<Option<String>, wit::types::Failure>> {
        let called = self.turn()?.call(vec![call.into()]);
        let mut results = called.await;
        let result = results.pop().unwrap_or_else(|| {
            Err(Failure::host(code::INTERNAL).message("the call was not answered"))
        });
        Ok(result.map_err(Into::into))
    }

    async fn call_all(
        &mut self,
        calls: Vec<wit::actors::Invocation>,
    ) -> Trappable<Vec<Result<Option<String>, wit::types::Failure>>> {
        let calls = calls.into_iter().map(Into::into).collect();
        let called = self.turn()?.call(calls);
        let results = called.await.into_iter();
        Ok(results.map(|result| result.map_err(Into::into)).collect())
    }

    fn send(
        &mut self,
        call: wit::actors::Invocation,
    ) -> Trappable<Result<(), wit::types::Failure>> {
        Ok(self.turn()?.send(call.into()).map_err(Into::into))
    }
}

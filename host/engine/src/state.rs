//! `tidegate:realtime/state`: the actor's document.
//!
//! Reading it is a capability of its own, because who decides what others may see reads the state
//! and changes nothing. Invariant: what a guest hands over is charged before it is parsed, which
//! makes it larger.

use tidegate_core::document::Op;
use tidegate_core::turn::state::{Spelled, parse_ops};
use tidegate_core::{Failure, Pointer};

use super::bindings::tidegate::realtime::{state as wit, types};
use super::imports::{Step, Trappable};
use super::instance::{GuestContext, Stop};

/// Reads the state.
pub trait StateRead: Send {
    /// `state.token`
    fn token(&mut self) -> u64;
    /// `state.read`
    fn read(&mut self) -> Step<Result<String, Failure>>;
    /// `state.get`
    fn get(&mut self, pointer: Pointer) -> Step<Result<Option<String>, Failure>>;
}

/// Stages changes of the state.
pub trait StateWrite: Send {
    /// `state.replace`
    fn replace(&mut self, doc: String) -> Step<Result<u64, Failure>>;
    /// Charges what the guest hands over to the turn's account.
    fn charge(&mut self, bytes: usize) -> Result<(), Failure>;
    /// `state.patch`; what the operations weigh is already charged.
    fn patch(&mut self, ops: Unparsed) -> Step<Result<u64, Failure>>;
}

/// An operation as the rules of a turn have it.
fn spelled(op: wit::Op) -> Spelled<String> {
    match op {
        wit::Op::Add(entry) => Spelled::Add(entry.pointer, entry.value),
        wit::Op::Replace(entry) => Spelled::Replace(entry.pointer, entry.value),
        wit::Op::Remove(pointer) => Spelled::Remove(pointer),
        wit::Op::Append(tail) => Spelled::Append(tail.pointer, tail.text),
    }
}

/// What an operation weighs, in bytes.
fn cost(op: &wit::Op) -> usize {
    match op {
        wit::Op::Add(entry) => Spelled::Add(&*entry.pointer, &*entry.value),
        wit::Op::Replace(entry) => Spelled::Replace(&*entry.pointer, &*entry.value),
        wit::Op::Remove(pointer) => Spelled::Remove(&**pointer),
        wit::Op::Append(tail) => Spelled::Append(&*tail.pointer, &*tail.text),
    }
    .cost()
}

/// Operations as a guest hands them over, as text.
pub struct Unparsed {
    ops: Vec<wit::Op>,
    /// What they weigh, in bytes.
    pub bytes: usize,
}

impl Unparsed {
    /// The operations, with their pointers and values parsed, which take so many bytes of memory
    /// at most.
    pub fn parse(self, most: usize) -> Result<Vec<Op>, Failure> {
        parse_ops(self.ops.into_iter().map(spelled), most)
    }
}

impl wit::Host for GuestContext {
    fn token(&mut self) -> Trappable<u64> {
        Ok(self.imports()?.state().token())
    }

    async fn read(&mut self) -> Trappable<String> {
        let read = self.imports()?.state().read();
        Ok(read.done().await.map_err(Stop::Failed)?)
    }

    async fn replace(&mut self, doc: String) -> Trappable<Result<u64, types::Failure>> {
        let replaced = match self.imports()?.state_write() {
            Ok(state) => state.replace(doc),
            Err(refused) => return Ok(Err(refused.into())),
        };
        Ok(replaced.done().await.map_err(Into::into))
    }

    async fn get(&mut self, pointer: String) -> Trappable<Option<String>> {
        let state = self.imports()?.state();
        Ok(match Pointer::parse(&pointer) {
            Ok(pointer) => state.get(pointer).done().await.map_err(Stop::Failed)?,
            Err(_) => None,
        })
    }

    async fn patch(&mut self, ops: Vec<wit::Op>) -> Trappable<Result<u64, types::Failure>> {
        let state = self.imports()?.state_write();
        let bytes = ops.iter().map(cost).sum();
        let charged = state.and_then(|state| state.charge(bytes).map(|()| state));
        let patched = match charged {
            Ok(state) => state.patch(Unparsed { ops, bytes }),
            Err(failure) => return Ok(Err(failure.into())),
        };
        Ok(patched.done().await.map_err(Into::into))
    }
}

//! `tidegate:realtime/state`: the actor's document.
//!
//! Reading it is a capability of its own, because who decides what others may see reads the state
//! and changes nothing. Invariant: what a guest hands over is charged before it is parsed, which
//! makes it larger.

use tidegate_core::document::Op;
use tidegate_core::failure::code;
use tidegate_core::json::ParseError;
use tidegate_core::{Failure, Json, Pointer};

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

/// What an operation weighs beside its texts.
const OP_COST: usize = 64;

/// What the ops weigh, in bytes.
fn weight(ops: &[wit::Op]) -> usize {
    ops.iter()
        .map(|op| {
            OP_COST
                + match op {
                    wit::Op::Add(entry) | wit::Op::Replace(entry) => {
                        entry.pointer.len() + entry.value.len()
                    }
                    wit::Op::Remove(pointer) => pointer.len(),
                    wit::Op::Append(tail) => tail.pointer.len() + tail.text.len(),
                }
        })
        .sum()
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
        parse_ops(self.ops, most)
    }
}

fn parse_ops(ops: Vec<wit::Op>, most: usize) -> Result<Vec<Op>, Failure> {
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
            wit::Op::Add(entry) => Op::Add {
                value: value(&entry.value)?,
                pointer: pointer(entry.pointer)?,
            },
            wit::Op::Replace(entry) => Op::Replace {
                value: value(&entry.value)?,
                pointer: pointer(entry.pointer)?,
            },
            wit::Op::Remove(place) => Op::Remove {
                pointer: pointer(place)?,
            },
            wit::Op::Append(tail) => Op::Append {
                pointer: pointer(tail.pointer)?,
                text: tail.text,
            },
        })
    };
    ops.into_iter().map(parse).collect()
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
        let bytes = weight(&ops);
        let charged = state.and_then(|state| state.charge(bytes).map(|()| state));
        let patched = match charged {
            Ok(state) => state.patch(Unparsed { ops, bytes }),
            Err(failure) => return Ok(Err(failure.into())),
        };
        Ok(patched.done().await.map_err(Into::into))
    }
}

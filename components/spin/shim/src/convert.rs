//! Between the contract's types and the project's own.

use tidegate_core::document::Op;
use tidegate_core::failure::code;
use tidegate_core::json::ParseError;
use tidegate_core::{ActorKey, Failure, Json, Pointer};

use crate::bindings::exports::tidegate::realtime::state as wit_state;
use crate::bindings::tidegate::realtime::types as wit;
use crate::stage::{STATE_MEMORY_BYTES, state_too_large};

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> Self {
        wit::Failure {
            code: failure.code.into_owned(),
            message: failure.message,
            params: failure.params.map(|params| params.to_string()),
            http_status: Some(failure.status),
        }
    }
}

impl From<wit::Failure> for Failure {
    fn from(failure: wit::Failure) -> Self {
        Failure::from_guest(
            failure.code,
            failure.message,
            failure.params,
            failure.http_status,
        )
    }
}

impl From<&ActorKey> for wit::ActorRef {
    fn from(key: &ActorKey) -> Self {
        wit::ActorRef {
            actor: key.actor.to_string(),
            id: key.id.to_string(),
        }
    }
}

/// What an operation weighs beside its texts.
const OP_COST: usize = 64;

/// What operations weigh, in bytes.
pub(crate) fn weight(ops: &[wit_state::Op]) -> usize {
    let weight = |op: &wit_state::Op| match op {
        wit_state::Op::Add(entry) | wit_state::Op::Replace(entry) => {
            entry.pointer.len() + entry.value.len()
        }
        wit_state::Op::Remove(pointer) => pointer.len(),
        wit_state::Op::Append(tail) => tail.pointer.len() + tail.text.len(),
    };
    ops.iter().map(|op| OP_COST + weight(op)).sum()
}

/// Operations with their pointers and values parsed.
pub(crate) fn parse_ops(ops: Vec<wit_state::Op>) -> Result<Vec<Op>, Failure> {
    let pointer = |text: String| {
        Pointer::parse(&text).map_err(|_| {
            Failure::host(code::STATE_NO_SUCH_PLACE)
                .message(format!("`{text}` is not a JSON pointer"))
                .param("pointer", text)
        })
    };
    let value = |json: &str| {
        Json::parse_within(json, STATE_MEMORY_BYTES).map_err(|error| match error {
            ParseError::Malformed(error) => Failure::host(code::STATE_MALFORMED)
                .message(format!("a value is not JSON: {error}")),
            ParseError::TooLarge { .. } => state_too_large(),
        })
    };
    let parse = |op| {
        Ok(match op {
            wit_state::Op::Add(entry) => Op::Add {
                value: value(&entry.value)?,
                pointer: pointer(entry.pointer)?,
            },
            wit_state::Op::Replace(entry) => Op::Replace {
                value: value(&entry.value)?,
                pointer: pointer(entry.pointer)?,
            },
            wit_state::Op::Remove(place) => Op::Remove {
                pointer: pointer(place)?,
            },
            wit_state::Op::Append(tail) => Op::Append {
                pointer: pointer(tail.pointer)?,
                text: tail.text,
            },
        })
    };
    ops.into_iter().map(parse).collect()
}

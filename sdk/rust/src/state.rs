//! The decoded state of a resident instance, kept from turn to turn beside the host's token
//! for it. It is only ever kept under a token whose content it equals: a turn takes it out,
//! and puts it back after a read, or after what it changed is staged. A turn that fails or
//! unwinds in between leaves nothing behind.

use std::any::Any;
use std::cell::RefCell;

use serde::Serialize;

use crate::host::Host;
use crate::{Actor, Failure};

struct Slot {
    token: u64,
    state: Box<dyn Any>,
}

thread_local! {
    /// One is enough: an instance serves one actor.
    static KEPT: RefCell<Option<Slot>> = const { RefCell::new(None) };
}

/// A decoded state with the JSON text that the host holds for it.
pub(crate) struct Decoded<A> {
    pub(crate) value: A,
    text: String,
    token: u64,
}

impl<A: Actor> Decoded<A> {
    /// The state as the turn sees it now, from the last turn where nothing has changed since.
    pub(crate) fn load(host: &dyn Host) -> Result<Box<Self>, Failure> {
        let token = host.token();
        if let Some(slot) = KEPT.take()
            && slot.token == token
            && let Ok(state) = slot.state.downcast::<Self>()
        {
            return Ok(state);
        }
        let text = host.read();
        let value = crate::place::decode(&text).map_err(|error| mismatch(A::NAME, &error))?;
        Ok(Box::new(Self { value, text, token }))
    }

    /// Stages the state if it differs from what the host holds, and keeps it.
    pub(crate) fn save(mut self: Box<Self>, host: &dyn Host) -> Result<(), Failure> {
        let text = serde_json::to_string(&self.value).map_err(malformed)?;
        if text != self.text {
            self.token = host.replace(&text)?;
            self.text = text;
        }
        self.keep();
        Ok(())
    }

    /// Keeps a state that the turn has not changed.
    pub(crate) fn keep(self: Box<Self>) {
        KEPT.set(Some(Slot {
            token: self.token,
            state: self,
        }));
    }
}

/// The stored state is not one that this version of the actor can decode.
pub(crate) fn mismatch(actor: &str, error: &str) -> Failure {
    Failure::new("state.mismatch")
        .message(format!(
            "the state does not fit the actor type {actor}: {error}"
        ))
        .status(500)
}

/// A value that JSON cannot express.
pub(crate) fn malformed(error: serde_json::Error) -> Failure {
    Failure::new("state.malformed")
        .message(format!("the state is not JSON: {error}"))
        .status(500)
}

/// What a method returned, as the host wants it.
pub(crate) fn encode_output(value: &impl Serialize) -> Result<Option<String>, Failure> {
    serde_json::to_string(value).map(Some).map_err(|error| {
        Failure::new("output.invalid")
            .message(format!("the result is not JSON: {error}"))
            .status(500)
    })
}

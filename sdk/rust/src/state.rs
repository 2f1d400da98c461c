//! Decoded states, kept from turn to turn beside the host's token for them. One is only ever
//! kept under a token whose content it equals: a turn takes it out, and puts it back after a
//! read, or after what it changed is staged. A turn that fails or unwinds in between leaves
//! nothing behind.
//!
//! An instance that runs turns serves one actor and keeps one state; one that answers access
//! questions serves many, and keeps those that it was asked about last.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use serde::Serialize;

use crate::host::Host;
use crate::{Actor, Failure};

/// How much JSON text the kept states have together, but for the last one.
const KEPT_BYTES: usize = 1 << 20;
/// How many states are kept.
const KEPT_STATES: usize = 64;

/// A kept state. Tokens alone name contents; the actor tells which older one it replaces.
struct Slot {
    actor_id: Rc<str>,
    token: u64,
    bytes: usize,
    state: Box<dyn Any>,
}

thread_local! {
    /// The last one is the one that was used last.
    static KEPT: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// Takes out what is kept of an actor.
fn take<A: Actor>(actor_id: &str) -> Option<(u64, Box<Decoded<A>>)> {
    let slot = KEPT.with_borrow_mut(|kept| {
        let is_wanted = |slot: &Slot| *slot.actor_id == *actor_id && slot.state.is::<Decoded<A>>();
        let at = kept.iter().rposition(is_wanted)?;
        Some(kept.remove(at))
    })?;
    let state = slot.state.downcast().ok()?;
    Some((slot.token, state))
}

fn put(slot: Slot) {
    KEPT.with_borrow_mut(|kept| {
        let mut bytes: usize = kept.iter().map(|slot| slot.bytes).sum();
        let mut oldest = 0;
        while kept.len() - oldest >= KEPT_STATES || bytes > KEPT_BYTES {
            bytes -= kept[oldest].bytes;
            oldest += 1;
        }
        kept.drain(..oldest);
        kept.push(slot);
    });
}

/// A decoded state with the JSON text that the host holds for it.
pub(crate) struct Decoded<A> {
    pub(crate) value: A,
    actor_id: Rc<str>,
    text: String,
    token: u64,
}

impl<A: Actor> Decoded<A> {
    /// The state as the host shows it now, from the last time where nothing has changed since.
    pub(crate) fn load(host: &dyn Host, actor_id: &str) -> Result<Box<Self>, Failure> {
        let token = host.token();
        if let Some((kept, state)) = take::<A>(actor_id)
            && kept == token
        {
            return Ok(state);
        }
        let text = host.read();
        let value = crate::place::decode(&text).map_err(|error| mismatch(A::NAME, &error))?;
        Ok(Box::new(Self {
            value,
            actor_id: actor_id.into(),
            text,
            token,
        }))
    }

    /// Stages the state if it differs from what the host holds, and keeps it.
    pub(crate) fn save(mut self: Box<Self>, host: &dyn Host) -> Result<(), Failure> {
        self.stage(host)?;
        self.keep();
        Ok(())
    }

    /// Stages the state if it differs from what the host holds; whether it does.
    pub(crate) fn stage(&mut self, host: &dyn Host) -> Result<bool, Failure> {
        let text = serde_json::to_string(&self.value).map_err(malformed)?;
        let differs = text != self.text;
        if differs {
            self.token = host.replace(&text)?;
            self.text = text;
        }
        Ok(differs)
    }

    /// Keeps a state that the turn has not changed.
    pub(crate) fn keep(self: Box<Self>) {
        put(Slot {
            actor_id: self.actor_id.clone(),
            token: self.token,
            bytes: self.text.len(),
            state: self,
        });
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

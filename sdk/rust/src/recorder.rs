//! The [`Host`] of native tests: one actor's state, events and connections in memory, with
//! the promises of `wit/actor.wit`. A token is never reused, also not by another recorder of
//! the process, because the decoded state of all of them is kept in one place.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::Failure;
use crate::host::{Audience, Host, Op};

static TOKENS: AtomicU64 = AtomicU64::new(1);

fn new_token() -> u64 {
    TOKENS.fetch_add(1, Ordering::Relaxed)
}

/// An event that was emitted, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sent {
    pub(crate) event: String,
    pub(crate) payload: Value,
    pub(crate) audience: Audience,
}

pub(crate) struct Recorder(RefCell<Recording>);

pub(crate) struct Recording {
    state: Value,
    token: u64,
    pub(crate) events: Vec<Sent>,
    pub(crate) connections: Vec<String>,
    pub(crate) cancelled: bool,
    /// How often the whole state crossed the border, in and out.
    pub(crate) reads: usize,
    pub(crate) replaces: usize,
    /// How many events a turn may emit.
    pub(crate) events_limit: usize,
}

/// The state and the events at the beginning of a turn.
pub(crate) struct Savepoint {
    state: Value,
    token: u64,
    events: usize,
}

impl Recorder {
    pub(crate) fn new(state: Value) -> Self {
        Self(RefCell::new(Recording {
            state,
            token: new_token(),
            events: Vec::new(),
            connections: Vec::new(),
            cancelled: false,
            reads: 0,
            replaces: 0,
            events_limit: usize::MAX,
        }))
    }

    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut Recording) -> R) -> R {
        body(&mut self.0.borrow_mut())
    }

    pub(crate) fn state(&self) -> Value {
        self.0.borrow().state.clone()
    }

    pub(crate) fn set_state(&self, state: Value) -> u64 {
        self.with(|recording| {
            recording.state = state;
            recording.token = new_token();
            recording.token
        })
    }

    pub(crate) fn savepoint(&self) -> Savepoint {
        self.with(|recording| Savepoint {
            state: recording.state.clone(),
            token: recording.token,
            events: recording.events.len(),
        })
    }

    /// Discards what was staged since, as the host does when a turn fails: the old token is
    /// valid again, for the old content.
    pub(crate) fn roll_back(&self, to: Savepoint) {
        self.with(|recording| {
            recording.state = to.state;
            recording.token = to.token;
            recording.events.truncate(to.events);
        });
    }
}

impl Host for Recorder {
    fn token(&self) -> u64 {
        self.0.borrow().token
    }

    fn read(&self) -> String {
        self.with(|recording| {
            recording.reads += 1;
            recording.state.to_string()
        })
    }

    fn replace(&self, doc: &str) -> Result<u64, Failure> {
        let state = parse(doc)?;
        self.with(|recording| recording.replaces += 1);
        Ok(self.set_state(state))
    }

    fn get(&self, pointer: &str) -> Option<String> {
        self.0.borrow().state.pointer(pointer).map(Value::to_string)
    }

    fn patch(&self, op: Op<'_>) -> Result<(), Failure> {
        let mut state = self.state();
        apply(&mut state, op)?;
        self.set_state(state);
        Ok(())
    }

    fn emit(&self, event: &str, payload: &str, to: &Audience) -> Result<(), Failure> {
        let payload = parse(payload)?;
        self.with(|recording| {
            if recording.events.len() >= recording.events_limit {
                return Err(Failure::new("turn.effects-limit"));
            }
            recording.events.push(Sent {
                event: event.to_owned(),
                payload,
                audience: to.clone(),
            });
            Ok(())
        })
    }

    fn connections(&self) -> Vec<String> {
        self.0.borrow().connections.clone()
    }

    fn cancelled(&self) -> bool {
        self.0.borrow().cancelled
    }
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::new("state.malformed").message(error.to_string()))
}

fn apply(state: &mut Value, op: Op<'_>) -> Result<(), Failure> {
    let applied = match op {
        Op::Add { pointer, value } => add(state, pointer, parse(value)?),
        Op::Replace { pointer, value } => {
            let value = parse(value)?;
            state.pointer_mut(pointer).map(|place| *place = value)
        }
        Op::Remove { pointer } => remove(state, pointer),
        Op::Append { pointer, text } => match state.pointer_mut(pointer) {
            Some(Value::String(string)) => {
                string.push_str(text);
                Some(())
            }
            Some(_) => {
                return Err(Failure::new("state.not-a-string").param("pointer", pointer));
            }
            None => None,
        },
    };
    let (Op::Add { pointer, .. }
    | Op::Replace { pointer, .. }
    | Op::Remove { pointer }
    | Op::Append { pointer, .. }) = op;
    applied.ok_or_else(|| Failure::new("state.no-such-place").param("pointer", pointer))
}

fn add(state: &mut Value, pointer: &str, value: Value) -> Option<()> {
    let Some((parent, last)) = pointer.rsplit_once('/') else {
        *state = value;
        return Some(());
    };
    match state.pointer_mut(parent)? {
        Value::Object(members) => {
            members.insert(unescape(last), value);
        }
        Value::Array(elements) => {
            let index = match last {
                "-" => elements.len(),
                digits => index(digits)?,
            };
            if index > elements.len() {
                return None;
            }
            elements.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(state: &mut Value, pointer: &str) -> Option<()> {
    let (parent, last) = pointer.rsplit_once('/')?;
    match state.pointer_mut(parent)? {
        Value::Object(members) => members.remove(&unescape(last)).map(drop),
        Value::Array(elements) => {
            let index = index(last).filter(|index| *index < elements.len())?;
            elements.remove(index);
            Some(())
        }
        _ => None,
    }
}

/// RFC 6901 array indices have no sign and no leading zero.
fn index(digits: &str) -> Option<usize> {
    let plain = digits == "0" || !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|_| plain)
}

fn unescape(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

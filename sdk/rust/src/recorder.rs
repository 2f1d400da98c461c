//! The [`Host`] of native tests: one actor's state, events, timers and calls in memory, with
//! the promises of `wit/actor.wit`. Its time is virtual: it passes when a turn waits, or when
//! a test says so. A token is never reused, also not by another recorder of
//! the process, because the decoded state of all of them is kept in one place.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::Failure;
use crate::actor::Outcome;
use crate::host::{Audience, Flush, Host, Invocation, NewTimer, Op};
use crate::timer::whole_millis;

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

/// A timer that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Armed {
    pub(crate) id: u64,
    pub(crate) due: u64,
    pub(crate) timer: NewTimer,
}

/// What becomes of calls to other actors.
pub(crate) type Answer = Box<dyn FnMut(&Invocation) -> Result<Value, Failure>>;

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
    /// In milliseconds.
    pub(crate) now: u64,
    pub(crate) timers: Vec<Armed>,
    last_timer: u64,
    /// Calls that somebody waited for, and those that nobody did.
    pub(crate) calls: Vec<Invocation>,
    pub(crate) sent: Vec<Invocation>,
    pub(crate) answer: Option<Answer>,
    pub(crate) chunks: Vec<Value>,
    /// When subscribers saw which state.
    pub(crate) updates: Vec<(u64, Value)>,
    stream: Option<Stream>,
    /// Every commit fails from now on.
    pub(crate) is_broken: bool,
}

/// A streaming method that runs.
struct Stream {
    interval: u64,
    flushed_at: u64,
    /// What is staged is fit to be seen.
    fit: bool,
    /// Its last tick, if it has had one.
    committed: Option<Savepoint>,
    /// The state that subscribers have.
    seen: u64,
}

/// What a turn that fails goes back to.
#[derive(Clone)]
pub(crate) struct Savepoint {
    state: Value,
    token: u64,
    events: usize,
    timers: Vec<Armed>,
    sent: usize,
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
            now: 0,
            timers: Vec::new(),
            last_timer: 0,
            calls: Vec::new(),
            sent: Vec::new(),
            answer: None,
            chunks: Vec::new(),
            updates: Vec::new(),
            stream: None,
            is_broken: false,
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

    /// Discards what was staged since, as the host does when a turn fails: the old token is
    /// valid again, for the old content. What a streaming method has had committed stays.
    pub(crate) fn roll_back(&self, to: Savepoint) {
        self.with(|recording| {
            let committed = recording.stream.take().and_then(|stream| stream.committed);
            let to = committed.unwrap_or(to);
            recording.state = to.state;
            recording.token = to.token;
            recording.events.truncate(to.events);
            recording.timers = to.timers;
            recording.sent.truncate(to.sent);
        });
    }

    /// The beginning of a turn, of a streaming method if there is an interval.
    pub(crate) fn begin(&self, interval: Option<u64>) -> Savepoint {
        self.with(|recording| {
            recording.stream = interval.map(|interval| Stream {
                interval,
                flushed_at: recording.now,
                fit: false,
                committed: None,
                seen: recording.token,
            });
            recording.savepoint()
        })
    }

    /// The end of a turn that succeeded and began there.
    pub(crate) fn finish(&self, began: &Savepoint) {
        self.with(|recording| {
            let stream = recording.stream.take();
            let seen = stream.map_or(began.token, |stream| stream.seen);
            recording.show(seen);
        });
    }
}

impl Recording {
    pub(crate) fn savepoint(&self) -> Savepoint {
        Savepoint {
            state: self.state.clone(),
            token: self.token,
            events: self.events.len(),
            timers: self.timers.clone(),
            sent: self.sent.len(),
        }
    }

    fn show(&mut self, seen: u64) {
        if self.token != seen {
            self.updates.push((self.now, self.state.clone()));
        }
    }

    /// Commits what is fit to be seen, if the next tick is not after `until`.
    fn tick(&mut self, until: u64) {
        if let Some(stream) = &self.stream {
            let due = stream.flushed_at.saturating_add(stream.interval);
            if stream.fit && due <= until {
                self.now = self.now.max(due);
                self.commit();
            }
        }
    }

    fn commit(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            self.show(stream.seen);
            stream.flushed_at = self.now;
            stream.fit = false;
            stream.seen = self.token;
            stream.committed = Some(self.savepoint());
            self.stream = Some(stream);
        }
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

    fn checkpoint(&self, when: Flush) -> Result<(), Failure> {
        self.with(|recording| {
            if recording.is_broken {
                return Err(Failure::new("store.unavailable").status(503));
            }
            if let Some(stream) = &mut recording.stream {
                stream.fit = true;
            }
            match when {
                Flush::Due => recording.tick(recording.now),
                Flush::Now => recording.commit(),
            }
            Ok(())
        })
    }

    fn chunk(&self, payload: &str) -> Result<(), Failure> {
        let payload = parse(payload)?;
        self.with(|recording| recording.chunks.push(payload));
        Ok(())
    }

    fn set_timer(&self, timer: NewTimer) -> Result<u64, Failure> {
        self.with(|recording| {
            let due = recording.now.checked_add(timer.ms);
            let Some(due) = due.filter(|_| timer.ms > 0 || !timer.repeats) else {
                return Err(Failure::new("timer.invalid-delay"));
            };
            recording.last_timer += 1;
            let id = recording.last_timer;
            recording.timers.push(Armed { id, due, timer });
            Ok(id)
        })
    }

    fn cancel_timer(&self, id: u64) -> bool {
        self.with(|recording| {
            let before = recording.timers.len();
            recording.timers.retain(|armed| armed.id != id);
            recording.timers.len() < before
        })
    }

    fn call(&self, calls: Vec<Invocation>) -> Vec<Outcome> {
        // Taken out, so that an answer may look at the recorder.
        let mut answer = self.with(|recording| recording.answer.take());
        let outcomes = calls
            .iter()
            .map(|call| match &mut answer {
                Some(answer) => answer(call).map(|value| Some(value.to_string())),
                None => Err(Failure::new("actor.unknown")
                    .message(format!("Unknown actor: {}", call.actor))
                    .status(404)),
            })
            .collect();
        self.with(|recording| {
            recording.answer = answer;
            recording.calls.extend(calls);
        });
        outcomes
    }

    fn send(&self, call: Invocation) -> Result<(), Failure> {
        self.with(|recording| recording.sent.push(call));
        Ok(())
    }

    fn sleep(&self, duration: Duration) {
        self.with(|recording| {
            let until = recording.now.saturating_add(whole_millis(duration));
            recording.tick(until);
            recording.now = until;
        });
    }

    fn clock(&self) -> Duration {
        Duration::from_millis(self.0.borrow().now)
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

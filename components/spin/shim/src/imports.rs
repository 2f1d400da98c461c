//! What the handler imports: the plumbing from the contract's functions to the running
//! turn's stage.

use std::time::{Duration, Instant};

use tidegate_core::failure::code;
use tidegate_core::json::ParseError;
use tidegate_core::{Failure, Json, Pointer};
use tidegate_spin_base::response::Written;
use tidegate_spin_base::signature::{Purpose, Statement};
use tidegate_spin_base::{clock, sse, values};

use crate::Shim;
use crate::bindings::exports::tidegate::realtime::{access, actors, outbox, state, timers, turns};
use crate::bindings::tidegate::realtime::types as wit;
use crate::calls::{self, Invocation};
use crate::convert::{parse_ops, weight};
use crate::declared::Against;
use crate::messages::Message;
use crate::stage::{
    self, CALLS, EVENT_COST, Listener, Mode, STATE_MEMORY_BYTES, Stage, TIMERS, check_json,
};
use crate::timers::{self as actor_timers, NewTimer, TimerChange};

/// Time for a caller to read a chunk: the host's `chunk-timeout-ms`.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

type Result<T> = std::result::Result<T, wit::Failure>;

/// Changes something: not what a guard may do.
fn change<T>(run: impl FnOnce(&mut Stage) -> std::result::Result<T, Failure>) -> Result<T> {
    stage::with(|stage| {
        stage.check_mode()?;
        stage.tick_if_due()?;
        run(stage)
    })
    .map_err(Into::into)
}

/// Reads something.
fn look<T>(run: impl FnOnce(&mut Stage) -> T) -> T {
    stage::with(|stage| {
        if stage.given.mode == Mode::Turn {
            // A failure fails the turn at its end.
            let _ = stage.tick_if_due();
        }
        run(stage)
    })
}

impl state::Guest for Shim {
    fn token() -> u64 {
        look(|stage| stage.token)
    }

    fn read() -> String {
        look(|stage| stage.document.to_text())
    }

    fn replace(doc: String) -> Result<u64> {
        change(|stage| {
            stage.charge(doc.len())?;
            stage.charge_text(doc.len())?;
            let value =
                Json::parse_within(&doc, STATE_MEMORY_BYTES).map_err(|error| match error {
                    ParseError::TooLarge { .. } => stage.exceed(stage::state_too_large()),
                    ParseError::Malformed(error) => Failure::host(code::STATE_MALFORMED)
                        .message(format!("the state is not JSON: {error}")),
                })?;
            drop(doc);
            stage.write(|document, _| {
                document.replace(value);
                Ok(())
            })
        })
    }

    fn get(pointer: String) -> Option<String> {
        let pointer = Pointer::parse(&pointer).ok()?;
        look(|stage| stage.document.get(&pointer).map(Json::to_text))
    }

    fn patch(ops: Vec<state::Op>) -> Result<u64> {
        change(|stage| {
            let bytes = weight(&ops);
            // Charged before it is parsed, which makes it larger.
            stage.charge(bytes)?;
            stage.charge_text(bytes)?;
            let ops = parse_ops(ops).map_err(|failure| stage.exceed_if(failure))?;
            stage.write(|document, work| {
                document
                    .apply_metered(&ops, work)
                    .map_err(|error| stage::op_failure(&error))
            })
        })
    }
}

impl turns::Guest for Shim {
    fn checkpoint(when: turns::Flush) -> Result<()> {
        stage::with(|stage| {
            stage.check_mode()?;
            stage.checkpoint(when == turns::Flush::Now)
        })
        .map_err(Into::into)
    }

    fn cancelled() -> bool {
        look(|stage| {
            // What can come to nothing should end soon.
            stage.is_doomed() || stage.given.request.response.borrow().is_gone()
        })
    }
}

impl outbox::Guest for Shim {
    fn emit(event: String, payload: String, to: outbox::Audience) -> Result<()> {
        change(|stage| {
            let ids = match &to {
                outbox::Audience::Everyone => &[],
                outbox::Audience::Only(ids) | outbox::Audience::Except(ids) => ids.as_slice(),
            };
            let addresses: usize = ids.iter().map(|id| id.len() + EVENT_COST).sum();
            stage.charge(EVENT_COST + event.len() + payload.len() + addresses)?;
            let declared = stage.given.declared.clone();
            if !declared.events.contains_key(event.as_str()) {
                return Err(Failure::host(code::EVENT_UNKNOWN)
                    .message(format!("the manifest declares no event `{event}`"))
                    .param("event", event));
            }
            let invalid = |detail: String| {
                Failure::host(code::EVENT_INVALID)
                    .message(format!("the payload of `{event}` is invalid: {detail}"))
                    .param("event", event.clone())
            };
            let spelled = if declared.takes_any(&event) {
                check_json(&payload).map_err(invalid)?;
                None
            } else {
                let checked = declared.check_text(Against::Event(&event), &payload)?;
                checked.map_err(invalid)?
            };
            let payload = spelled.unwrap_or(payload);
            match to {
                // There are no connections here that it could reach.
                outbox::Audience::Only(_) => {}
                outbox::Audience::Everyone | outbox::Audience::Except(_) => {
                    stage.events.push((event, payload));
                }
            }
            Ok(())
        })
    }

    fn chunk(payload: String) -> Result<()> {
        change(|stage| {
            if stage.given.listener == Listener::Nobody {
                return Ok(());
            }
            check_json(&payload).map_err(|detail| {
                Failure::host(code::OUTPUT_INVALID)
                    .message(format!("a chunk is not JSON: {detail}"))
            })?;
            stage.go_live()?;
            let request = stage.given.request.clone();
            let mut response = request.response.borrow_mut();
            response.begin_stream();
            let event = sse::event("chunk", None, &payload);
            match response.event_within(&event, Some(CHUNK_TIMEOUT.min(stage.left()))) {
                // A listener that is gone hears nothing.
                Written::Sent | Written::Gone => Ok(()),
                Written::Late => {
                    let failure = Failure::host(code::CALL_SLOW_CONSUMER)
                        .message("the caller does not read what the method streams to it");
                    Err(stage.exceed(failure))
                }
            }
        })
    }

    fn connections() -> Vec<String> {
        look(|_| Vec::new())
    }
}

fn set_timer(timer: NewTimer) -> Result<u64> {
    change(|stage| {
        let input = timer.input.as_ref().map_or(0, String::len);
        stage.charge(EVENT_COST + timer.method.len() + input)?;
        let (method, spelled) = actor_timers::check(&timer, &stage.given.declared)?;
        let set = stage.timers.iter();
        let set = set
            .filter(|change| matches!(change, TimerChange::Set { .. }))
            .count();
        let given = &mut stage.given;
        let (actor, id) = (given.key.actor.as_str(), given.key.id.as_str());
        let count =
            "SELECT count(*) FROM tidegate_timers WHERE actor = ?1 AND id = ?2 AND timer > 0";
        let rows = given.request.database.read(count, &values![actor, id])?;
        let kept = match rows.into_iter().next() {
            Some(mut row) => row.number()?,
            None => 0,
        };
        if kept.saturating_add(set as u64) >= TIMERS as u64 {
            return Err(Failure::host(code::TIMER_LIMIT)
                .message(format!("an actor may have {TIMERS} timers"))
                .param("limit", TIMERS));
        }
        given.place.last_timer += 1;
        let id = given.place.last_timer;
        stage.timers.push(TimerChange::Set {
            id: id as i64,
            method: method.to_string(),
            input: spelled.or(timer.input),
            due_ms: clock::unix_ms().saturating_add(timer.delay_ms),
            every_ms: timer.every_ms,
        });
        Ok(id)
    })
}

impl timers::Guest for Shim {
    // An actor on Spin never leaves memory, so that how long a timer outlives that, and
    // whether it prevents it, makes no difference.
    fn after(ms: u64, method: String, input: Option<String>, _: timers::Life) -> Result<u64> {
        set_timer(NewTimer {
            delay_ms: ms,
            every_ms: None,
            method,
            input,
        })
    }

    fn every(ms: u64, method: String, input: Option<String>, _: timers::Life) -> Result<u64> {
        set_timer(NewTimer {
            delay_ms: ms,
            every_ms: Some(ms),
            method,
            input,
        })
    }

    fn cancel(id: u64) -> bool {
        let cancel = change(|stage| {
            let wanted = i64::try_from(id).unwrap_or(i64::MAX);
            let before = stage.timers.len();
            stage.timers.retain(|change| !change.sets(wanted));
            if stage.timers.len() < before {
                return Ok(true);
            }
            let cancelled = TimerChange::Cancel(wanted);
            let given = &stage.given;
            let has_ended = given.fired.as_ref() == Some(&cancelled);
            if has_ended || stage.timers.contains(&cancelled) {
                return Ok(false);
            }
            let (actor, name) = (given.key.actor.as_str(), given.key.id.as_str());
            let found = given.request.database.read(
                "SELECT 1 FROM tidegate_timers WHERE actor = ?1 AND id = ?2 AND timer = ?3",
                &values![actor, name, wanted.max(0)],
            )?;
            let exists = !found.is_empty();
            if exists {
                stage.timers.push(cancelled);
            }
            Ok(exists)
        });
        cancel.unwrap_or(false)
    }
}

impl From<actors::Invocation> for Invocation {
    fn from(call: actors::Invocation) -> Self {
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

fn too_many_calls() -> Failure {
    Failure::host(code::CALL_LIMIT)
        .message(format!("one turn may make {CALLS} calls to other actors"))
        .param("limit", CALLS)
}

/// Begins a call of the running turn; returns it and when its time is over.
fn begin_call(
    stage: &mut Stage,
    call: &Invocation,
) -> std::result::Result<(calls::Begun, Instant), Failure> {
    stage.calls += 1;
    if stage.calls > CALLS {
        return Err(too_many_calls());
    }
    let given = &stage.given;
    let request = given.request.clone();
    let Some(key) = &request.internal_key else {
        return Err(calls::no_key());
    };
    let id = tidegate_spin_base::head::actor_id(&call.id)?;
    // The one that called this turn comes first, this actor last.
    let mut chain = given.chain.clone();
    chain.push((&given.key).into());
    if chain.len() > calls::MAX_DEPTH {
        let limit = calls::MAX_DEPTH;
        return Err(Failure::host(code::CALL_DEPTH_LIMIT)
            .message(format!("calls of actors nest deeper than {limit}"))
            .param("limit", limit));
    }
    let waits = |one: &tidegate_spin_base::signature::ActorRef| {
        one.actor == call.actor && one.id == id.as_str()
    };
    if chain.iter().any(waits) {
        let (to, from) = (format!("{}/{}", call.actor, call.id), &given.key);
        return Err(Failure::host(code::CALL_DEADLOCK)
            .message(format!("{to} waits for {from}, which would wait for it")));
    }
    let left = stage.left();
    let timeout = call
        .timeout_ms
        .map_or(left, |ms| Duration::from_millis(ms).min(left));
    let mut statement = Statement::new(Purpose::Call, clock::unix_ms());
    statement.chain = chain;
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    statement.deadline_ms = Some(clock::unix_ms().saturating_add(timeout_ms));
    let until = Instant::now() + timeout;
    let traceparent = stage.given.traceparent.clone();
    // The callee keeps what it did, whatever becomes of this turn.
    stage.go_live()?;
    let begun = calls::begin(call, &statement, traceparent.as_deref(), key)?;
    Ok((begun, until))
}

impl actors::Guest for Shim {
    fn call(call: actors::Invocation) -> Result<Option<String>> {
        change(|stage| {
            let (begun, until) = begin_call(stage, &call.into())?;
            begun.result(until)
        })
    }

    fn call_all(all: Vec<actors::Invocation>) -> Vec<Result<Option<String>>> {
        let begun: Vec<_> = all
            .into_iter()
            .map(|call| change(|stage| begin_call(stage, &call.into())))
            .collect();
        let results = begun.into_iter().map(|begun| {
            let (begun, until) = begun?;
            begun.result(until).map_err(wit::Failure::from)
        });
        results.collect()
    }

    fn send(call: actors::Invocation) -> Result<()> {
        change(|stage| {
            let call = Invocation::from(call);
            let input = call.input.as_ref().map_or(0, String::len);
            let names = call.actor.len() + call.id.len() + call.method.len();
            stage.charge(EVENT_COST + names + input)?;
            if let Some(input) = &call.input {
                check_json(input).map_err(|detail| {
                    Failure::host(code::INPUT_INVALID)
                        .message(format!("the input is not JSON: {detail}"))
                })?;
            }
            if stage.given.request.internal_key.is_none() {
                return Err(calls::no_key());
            }
            // SQLite cuts such a text where it is read from JSON, in the older versions of Spin.
            let key = call.key.as_deref().unwrap_or_default();
            if [&*call.actor, &*call.id, &*call.method, key]
                .concat()
                .contains('\0')
            {
                return Err(Failure::host(code::UNSUPPORTED_ON_SPIN)
                    .message("a message whose receiver or key has a NUL in it cannot be kept"));
            }
            stage.calls += 1;
            if stage.calls > CALLS {
                return Err(too_many_calls());
            }
            stage.messages.push(Message(call));
            Ok(())
        })
    }
}

/// Stands in where a handler has no guard: then everybody may see everything.
impl access::Guest for Shim {
    fn authorize(_: wit::ActorRef, who: Vec<access::Subscription>) -> Vec<Result<()>> {
        stage::with(|stage| stage.given.request.is_unguarded.set(true));
        who.iter().map(|_| Ok(())).collect()
    }

    fn project(_: wit::ActorRef, who: Vec<wit::Client>) -> Vec<access::View> {
        stage::with(|stage| stage.given.request.is_unguarded.set(true));
        who.iter().map(|_| access::View::Whole).collect()
    }
}

//! What the handler imports: the plumbing from the contract's functions to the running
//! turn's stage.

use std::time::{Duration, Instant};

use tidegate_core::turn::limits::Times;
use tidegate_core::turn::timers::check_room;
use tidegate_core::turn::{
    Invocation, NewTimer, StoredTimer, Timer, TimerChange, calls as rules_of_calls, check, mail,
    state as rules, timers as rules_of_timers,
};
use tidegate_core::{ActorId, ActorKey, Failure, Json, Name, Pointer};
use tidegate_spin_base::response::Written;
use tidegate_spin_base::signature::{ActorRef, Purpose, Statement};
use tidegate_spin_base::{clock, sse};

use crate::Shim;
use crate::bindings::exports::tidegate::realtime::{access, actors, outbox, state, timers, turns};
use crate::bindings::tidegate::realtime::types as wit;
use crate::calls;
use crate::convert::{cost, spelled};
use crate::declared::Against;
use crate::stage::{self, LIMITS, Listener, Mode, Stage};
use crate::timers::{self as actor_timers, TimerRow};

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
            let value = rules::parse_whole(&doc, &LIMITS)
                .map_err(|failure| stage.staged.account.note_state(failure))?;
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
            let bytes = ops.iter().map(cost).sum();
            // Charged before it is parsed, which makes it larger.
            stage.charge(bytes)?;
            stage.charge_text(bytes)?;
            let ops = ops.into_iter().map(spelled);
            let ops = rules::parse_ops(ops, LIMITS.state_memory_bytes)?;
            stage.write(|document, work| {
                document
                    .apply_metered(&ops, work)
                    .map_err(|error| rules::op_failure(&error, LIMITS.work_steps))
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
            stage.charge(check::event_cost(&event, &payload, ids))?;
            let declared = &stage.given.declared;
            if !declared.events.contains_key(event.as_str()) {
                return Err(Failure::event_unknown(&event));
            }
            let checked = stage.check_text(Some(Against::Event(&event)), &payload)?;
            let payload = check::event_payload(&event, payload, checked)?;
            match to {
                // There are no connections here that it could reach.
                outbox::Audience::Only(_) => {}
                outbox::Audience::Everyone | outbox::Audience::Except(_) => {
                    stage.staged.events.push((event, payload));
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
            check::chunk(&payload)?;
            stage.go_live()?;
            let request = stage.given.request.clone();
            let mut response = request.response.borrow_mut();
            response.begin_stream();
            let event = sse::event("chunk", None, &payload);
            let timeout = Duration::from_millis(Times::DEFAULT.chunk_ms);
            match response.event_within(&event, Some(timeout.min(stage.left()))) {
                // A listener that is gone hears nothing.
                Written::Sent | Written::Gone => Ok(()),
                Written::Late => Err(stage.exceed(Failure::call_slow_consumer())),
            }
        })
    }

    fn connections() -> Vec<String> {
        look(|_| Vec::new())
    }
}

fn set_timer(
    delay_ms: u64,
    every_ms: Option<u64>,
    method: String,
    input: Option<String>,
    life: timers::Life,
) -> Result<u64> {
    let mut timer = NewTimer {
        delay_ms,
        every_ms,
        method,
        input,
        idle: life.contains(timers::Life::IDLE),
        outlive: life.contains(timers::Life::OUTLIVE),
    };
    change(|stage| {
        stage.charge(timer.cost())?;
        let (method, _) = timer.check(&stage.given.declared.methods)?;
        let method = method.clone();
        let against = Against::Input(method.as_str());
        let checked = stage.check_text(Some(against), timer.checked_input())?;
        let input = timer.take_input(checked)?;
        let given = &mut stage.given;
        let kept = actor_timers::count(&given.request.database, &given.key)?;
        check_room(kept, &stage.staged.timers, &LIMITS)?;
        given.place.last_timer += 1;
        let id = given.place.last_timer;
        let timer = Timer {
            method,
            input: input.map(Into::into),
            due_ms: clock::unix_ms().saturating_add(delay_ms),
            steady_ms: None,
            every_ms,
            idle: timer.idle,
            outlive: timer.outlive,
        };
        let set = TimerChange::Set(StoredTimer { id, timer });
        stage.staged.timers.push(set);
        Ok(id)
    })
}

impl timers::Guest for Shim {
    // An actor on Spin never leaves memory, so that how long a timer outlives that, and
    // whether it prevents it, makes no difference.
    fn after(ms: u64, method: String, input: Option<String>, life: timers::Life) -> Result<u64> {
        set_timer(ms, None, method, input, life)
    }

    fn every(ms: u64, method: String, input: Option<String>, life: timers::Life) -> Result<u64> {
        set_timer(ms, Some(ms), method, input, life)
    }

    fn cancel(id: u64) -> bool {
        let cancel = change(|stage| {
            let given = &stage.given;
            let exists = || {
                let has_ended = given.fired == Some(TimerRow::Gone(actor_timers::row_of(id)));
                match has_ended {
                    true => Ok::<_, Failure>(false),
                    false => Ok(actor_timers::exists(
                        &given.request.database,
                        &given.key,
                        id,
                    )?),
                }
            };
            rules_of_timers::cancel(&mut stage.staged.timers, id, exists)
        });
        cancel.unwrap_or(false)
    }
}

/// Begins a call of the running turn; returns it and when its time is over.
fn begin_call(
    stage: &mut Stage,
    call: &Invocation,
) -> std::result::Result<(calls::Begun, Instant), Failure> {
    stage.staged.account.charge_call()?;
    let given = &stage.given;
    let request = given.request.clone();
    let Some(key) = &request.internal_key else {
        return Err(calls::no_key());
    };
    let called = ActorKey {
        actor: Name::parse(&call.actor).map_err(|_| Failure::unknown_actor(&call.actor))?,
        id: ActorId::parse(&call.id)?,
    };
    // The one that called this turn comes first, this actor last.
    let mut chain = given.chain.clone();
    chain.push((&given.key).into());
    if chain.len() > rules_of_calls::MAX_DEPTH as usize {
        return Err(Failure::call_depth_limit(rules_of_calls::MAX_DEPTH));
    }
    if chain.contains(&ActorRef::from(&called)) {
        return Err(Failure::call_deadlock(&called, &given.key));
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
            stage.charge(mail::cost(&call))?;
            mail::check(&call)?;
            if stage.given.request.internal_key.is_none() {
                return Err(calls::no_key());
            }
            // SQLite cuts such a text where it is read from JSON, in the older versions of Spin.
            let key = call.key.as_deref().unwrap_or_default();
            if [&*call.actor, &*call.id, &*call.method, key]
                .concat()
                .contains('\0')
            {
                return Err(Failure::unsupported_on_spin(
                    "a message whose receiver or key has a NUL in it cannot be kept",
                ));
            }
            stage.staged.account.charge_call()?;
            stage.check_mail_room()?;
            stage.staged.sends.push(call);
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

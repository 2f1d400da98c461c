//! Runs turns: loads the actor, runs what is due before, runs the handler, commits; and
//! again when somebody else was faster.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate_core::call::{Firing, Origin};
use tidegate_core::manifest::Method;
use tidegate_core::meter::{Allowance, Exhausted};
use tidegate_core::turn::idempotency::caller_of;
use tidegate_core::turn::limits::Times;
use tidegate_core::turn::state::{misfit, unfit};
use tidegate_core::turn::{IdempotencyKey, Outcome, check};
use tidegate_core::{ActorKey, Failure, Json};
use tidegate_spin_base::signature::ActorRef;
use tidegate_spin_base::{clock, settings};

use crate::bindings::tidegate::realtime::types as wit;
use crate::declared::{Against, Declared};
use crate::rows::{self, Commit, Lease, Leases, Loaded, Refusal};
use crate::stage::{self, End, Given, LIMITS, Listener, Mode, Request, Stage, Time, out_of_work};
use crate::timers::{self, Due, TimerRow};
use crate::{answers, guest};

/// How often a turn is run before its caller is told that the actor is busy.
const MAX_ATTEMPTS: u32 = 8;
/// How long the first of them waits for the next, at most; it doubles each time.
const BACKOFF: Duration = Duration::from_millis(10);
/// How long a turn waits for its place among others, in milliseconds, unless
/// `TIDEGATE_BUSY_WAIT_MS` says otherwise.
const BUSY_WAIT_MS: u64 = 30_000;
/// How long what is due waits, when the clock has ticked.
const WAKE_WAIT: Duration = Duration::from_secs(1);
/// How often it looks whether another's lease has ended: at first, and at last.
const BUSY_LOOK: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(60)];
/// Time for turns.
const TIMES: Times = Times::DEFAULT;
/// How many timers that are due one request runs, at most.
const MAX_DUE: usize = 64;
/// How often a timer's turn is begun that never ends.
const MAX_TRIES: u64 = 3;

/// A call of a method.
pub(crate) struct Call {
    /// The method, as the caller spells it.
    pub(crate) method: String,
    /// Its input.
    pub(crate) input: Option<String>,
    /// Who calls.
    pub(crate) origin: Origin,
    /// The actors that wait for it.
    pub(crate) chain: Vec<ActorRef>,
    /// The idempotency key.
    pub(crate) key: Option<String>,
    /// The name of the message that it is, and whose.
    pub(crate) message: Option<String>,
    /// When its caller waits no longer, in milliseconds since the Unix epoch.
    pub(crate) deadline_ms: Option<u64>,
    /// Its trace context.
    pub(crate) traceparent: Option<String>,
    /// Who hears parts of its result.
    pub(crate) listener: Listener,
}

/// A turn about to run.
struct Begin<'a> {
    method: &'a str,
    input: Option<String>,
    origin: Origin,
    chain: Vec<ActorRef>,
    key: Option<String>,
    keyed: Option<IdempotencyKey>,
    deadline_ms: Option<u64>,
    traceparent: Option<String>,
    listener: Listener,
    fired: Option<TimerRow>,
    turn_id: &'a str,
    attempt: u32,
}

/// What became of one attempt.
enum Ran {
    /// It came to an end.
    Done(Result<Option<String>, Failure>),
    /// It ran, and somebody else was faster.
    Again,
    /// It did not run, because somebody else was faster.
    Late,
}

/// Runs a call as one turn.
pub(crate) async fn call(
    request: &Rc<Request>,
    key: &ActorKey,
    call: Call,
) -> Result<Option<String>, Failure> {
    let turn_id = clock::random_id(8);
    let keyed = match (&call.message, &call.key) {
        (Some(message), _) => Some(answers::of_message(&call.method, message)),
        (None, Some(once)) => {
            let caller = caller_of(&call.origin);
            Some(IdempotencyKey::new(
                &caller,
                &call.method,
                once,
                call.input.as_deref(),
            ))
        }
        (None, None) => None,
    };
    let until = Until::patience();
    let mut attempt = 1;
    while attempt <= MAX_ATTEMPTS && Instant::now() < until.others {
        let Some(loaded) = prepare(request, key, until, &mut 0).await? else {
            back_off(attempt);
            continue;
        };
        if let Some(keyed) = &keyed
            && let Some(known) = answers::known(keyed, &request.database, key, clock::unix_ms())?
        {
            return match call.message {
                Some(_) => Ok(None),
                None => known,
            };
        }
        let begin = Begin {
            method: &call.method,
            input: call.input.clone(),
            origin: call.origin.clone(),
            chain: call.chain.clone(),
            key: call.key.clone(),
            keyed: keyed.clone(),
            deadline_ms: call.deadline_ms,
            traceparent: call.traceparent.clone(),
            listener: call.listener,
            fired: None,
            turn_id: &turn_id,
            attempt,
        };
        match run(request, key, loaded, begin).await? {
            Ran::Done(result) => return result,
            Ran::Late => back_off(1),
            Ran::Again => {
                back_off(attempt);
                attempt += 1;
            }
        }
    }
    Err(Failure::actor_busy())
}

/// Runs what of the actor is due, and says how many turns that were.
///
/// A tick that wakes many does not wait for a long turn of one: what is due runs before the
/// next turn in any case.
pub(crate) async fn wake(request: &Rc<Request>, key: &ActorKey) -> Result<usize, Failure> {
    let (mut until, mut ran) = (Until::patience(), 0);
    until.others = until.others.min(Instant::now() + WAKE_WAIT);
    while Instant::now() < until.others {
        match prepare(request, key, until, &mut ran).await? {
            Some(_) => return Ok(ran),
            None => back_off(1),
        }
    }
    Err(Failure::actor_busy())
}

/// Until when a turn waits for its place.
#[derive(Clone, Copy)]
struct Until {
    /// For the turns of others to end.
    others: Instant,
    /// For what is due to run before it.
    due: Instant,
}

impl Until {
    fn patience() -> Until {
        let wait_ms = settings::number("TIDEGATE_BUSY_WAIT_MS", BUSY_WAIT_MS);
        let until = Instant::now() + Duration::from_millis(wait_ms);
        Until {
            others: until,
            due: until,
        }
    }
}

fn back_off(attempt: u32) {
    clock::sleep(clock::jitter(BACKOFF * (1 << attempt.min(6))));
}

/// Waits until nobody has the actor's lease, and reads it.
fn load(request: &Request, key: &ActorKey, until: Instant) -> Result<Loaded, Failure> {
    let [mut pause, longest] = BUSY_LOOK;
    loop {
        let loaded = rows::load(&request.database, key)?;
        if loaded.leased_until_ms <= clock::unix_ms() {
            return Ok(loaded);
        }
        loop {
            if Instant::now() >= until {
                return Err(Failure::actor_busy());
            }
            clock::sleep(pause / 2 + clock::jitter(pause));
            pause = (pause * 3 / 2).min(longest);
            if rows::leased_until_ms(&request.database, key)? <= clock::unix_ms() {
                break;
            }
        }
    }
}

/// The actor, ready for its next turn; none if somebody else was faster, or if more is due than
/// there is time for.
///
/// Counts the turns that were due and ran before.
async fn prepare(
    request: &Rc<Request>,
    key: &ActorKey,
    until: Until,
    ran: &mut usize,
) -> Result<Option<Loaded>, Failure> {
    let declared = request.declared.clone();
    let mut loaded = load(request, key, until.others)?;
    state_of(&loaded, &declared)?;
    match activate(request, key, &declared, &mut loaded).await? {
        Step::Done => {}
        Step::Reload => loaded = load(request, key, until.others)?,
        Step::Again => return Ok(None),
    }
    for _ in 0..MAX_DUE {
        let now_ms = clock::unix_ms();
        if loaded.first_due_ms.is_none_or(|due_ms| due_ms > now_ms) {
            break;
        }
        let Some(due) = Due::first(&request.database, key, now_ms)? else {
            break;
        };
        if Instant::now() >= until.due {
            return Ok(None);
        }
        match run_due(request, key, &declared, loaded, due).await? {
            Ran::Again | Ran::Late => return Ok(None),
            Ran::Done(_) => *ran += 1,
        }
        loaded = load(request, key, until.others)?;
    }
    Ok(Some(loaded))
}

/// The state of an actor, if it fits the handler that serves it.
pub(crate) fn state_of(loaded: &Loaded, declared: &Rc<Declared>) -> Result<Json, Failure> {
    let Some(stored) = &loaded.state else {
        return Ok(declared.state.initial.clone());
    };
    let mut state = Json::parse(&stored.text).map_err(Failure::store_damaged)?;
    // What was committed under the schema satisfies it.
    let schema = match loaded.place.fit == declared.fit() {
        true => None,
        false => declared.schema(Against::State)?,
    };
    let version = u32::try_from(stored.version).unwrap_or(u32::MAX);
    let found = misfit(
        (declared.state.version, schema.as_ref()),
        (&state, version),
        &mut Allowance::new(LIMITS.work_steps),
    );
    match found.map_err(|Exhausted| out_of_work())? {
        Ok(loose) => state.spell_integers(&loose),
        Err(misfit) => {
            declared.confirm(Against::State)?;
            return Err(unfit(format!("{misfit}; on Spin states are not migrated")));
        }
    }
    Ok(state)
}

enum Step {
    /// There was nothing to do.
    Done,
    /// The actor is another one now.
    Reload,
    /// Somebody else was faster.
    Again,
}

/// Activates an actor that never was, and sets the schedules of the manifest.
///
/// An actor on Spin is activated once: nothing ever deactivates it. That it was is committed
/// before the hook runs, with the lease in the same commit, so that a hook that crashes is
/// not run for ever, and no turn comes before it.
async fn activate(
    request: &Rc<Request>,
    key: &ActorKey,
    declared: &Rc<Declared>,
    loaded: &mut Loaded,
) -> Result<Step, Failure> {
    let schedules = timers::schedules_of(declared);
    let is_new = loaded.place.activated_ms.is_none();
    let has_hook = is_new && declared.hooks.activate;
    if !has_hook && schedules == loaded.place.schedules {
        return Ok(Step::Done);
    }
    let now_ms = clock::unix_ms();
    let since_ms = loaded.place.activated_ms.unwrap_or(now_ms);
    let before = loaded
        .place
        .schedules
        .as_deref()
        .map_or(0, |all| all.lines().count());
    let set = timers::begin_schedules(declared, before, since_ms, now_ms);
    let mut place = loaded.place.clone();
    place.activated_ms = Some(since_ms);
    place.schedules = schedules;
    let lease = has_hook.then(|| Lease::new(now_ms + TIMES.turn_ms));
    let commit = Commit {
        state: (!place.exists).then_some(&declared.state.initial),
        timers: &set,
        ..Commit::default()
    };
    let leases = Leases {
        mine: None,
        next: lease.as_ref(),
    };
    let database = &request.database;
    match rows::commit(database, key, &mut place, declared, &commit, leases) {
        Ok(_) => {}
        Err(Refusal::Conflict) => return Ok(Step::Again),
        Err(Refusal::Database(error)) => return Err(error.into()),
    }
    if has_hook {
        let given = Given {
            request: request.clone(),
            key: key.clone(),
            declared: declared.clone(),
            state: state_of(loaded, declared)?,
            place,
            chain: Vec::new(),
            traceparent: None,
            listener: Listener::Nobody,
            keyed: None,
            time: Time::new(TIMES.turn_ms, None, database),
            streaming: None,
            fired: None,
            mode: Mode::Turn,
        };
        let stage = Stage::new(given).with_lease(lease);
        let deadline_ms = stage.deadline_ms();
        stage::enter(stage);
        let turn = wit::Turn {
            this: key.into(),
            turn_id: clock::random_id(8),
            origin: wit::Origin::Host,
            now_ms: clock::unix_ms(),
            deadline_ms,
            attempt: 1,
            key: None,
            traceparent: None,
        };
        let result = guest::activate(turn).await;
        let stage = stage::leave();
        let end = match result {
            Ok(()) => stage.finish(Outcome::Nothing),
            Err(failure) => stage.discard(failure),
        };
        if let End::Failed(failure) = end {
            tidegate_spin_base::log!("{key}: the hook `activate` failed: {failure}");
        }
    }
    Ok(Step::Reload)
}

/// The turn of a timer that is due.
async fn run_due(
    request: &Rc<Request>,
    key: &ActorKey,
    declared: &Rc<Declared>,
    loaded: Loaded,
    due: Due,
) -> Result<Ran, Failure> {
    let now_ms = clock::unix_ms();
    let since_ms = loaded.place.activated_ms.unwrap_or(now_ms);
    let fired = due.fired(declared, since_ms, now_ms);
    if due.tries >= MAX_TRIES {
        tidegate_spin_base::log!("{key}: the turn of a timer never ends: {}", due.method);
        let commit = Commit {
            timers: std::slice::from_ref(&fired),
            ..Commit::default()
        };
        let mut place = loaded.place.clone();
        let database = &request.database;
        let leases = Leases::default();
        return match rows::commit(database, key, &mut place, declared, &commit, leases) {
            Ok(_) => Ok(Ran::Done(Ok(None))),
            Err(Refusal::Conflict) => Ok(Ran::Again),
            Err(Refusal::Database(error)) => Err(error.into()),
        };
    }
    let firing = Firing {
        id: due.id.max(0).unsigned_abs(),
        due_ms: due.due_ms,
    };
    let turn_id = clock::random_id(8);
    let begin = Begin {
        method: &due.method,
        input: due.input.clone(),
        origin: match due.id < 0 {
            true => Origin::Cron(firing),
            false => Origin::Timer(firing),
        },
        chain: Vec::new(),
        key: None,
        keyed: None,
        deadline_ms: None,
        traceparent: None,
        listener: Listener::Nobody,
        fired: Some(fired),
        turn_id: &turn_id,
        attempt: 1,
    };
    let ran = run_noted(request, key, loaded, begin, Some(&due)).await?;
    if let Ran::Done(Err(failure)) = &ran {
        tidegate_spin_base::log!("{key}: a timer's turn failed: {}: {failure}", due.method);
    }
    Ok(ran)
}

async fn run(
    request: &Rc<Request>,
    key: &ActorKey,
    loaded: Loaded,
    begin: Begin<'_>,
) -> Result<Ran, Failure> {
    run_noted(request, key, loaded, begin, None).await
}

/// One attempt at the turn of a method. Fails when it did not begin: its timer has not fired then.
async fn run_noted(
    request: &Rc<Request>,
    key: &ActorKey,
    loaded: Loaded,
    begin: Begin<'_>,
    due: Option<&Due>,
) -> Result<Ran, Failure> {
    let declared = request.declared.clone();
    let checked = check_call(key, &declared, begin.method, begin.input.as_deref());
    let (method, spelled, refusal) = match checked {
        Ok((method, spelled)) => (method.clone(), spelled, None),
        // A timer that calls what is no more has fired all the same.
        Err(failure) if due.is_some() => (NO_METHOD, None, Some(failure)),
        Err(failure) => return Err(failure),
    };
    let state = state_of(&loaded, &declared)?;
    let streaming = method.streaming;
    let streaming = streaming.map(|streaming| Duration::from_millis(streaming.interval_ms));
    let limit_ms = match (method.deadline_ms, streaming) {
        (Some(deadline_ms), _) => deadline_ms,
        (None, Some(_)) => settings::number("TIDEGATE_STREAMING_DEADLINE_MS", TIMES.streaming_ms),
        (None, None) => settings::number("TIDEGATE_TURN_DEADLINE_MS", TIMES.turn_ms),
    };
    let mut stage = Stage::new(Given {
        request: request.clone(),
        key: key.clone(),
        declared,
        place: loaded.place,
        state,
        chain: begin.chain,
        traceparent: begin.traceparent.clone(),
        listener: begin.listener,
        keyed: begin.keyed,
        time: Time::new(limit_ms, begin.deadline_ms, &request.database),
        streaming,
        fired: begin.fired,
        mode: Mode::Turn,
    });
    // A streaming turn ticks, and a timer's is counted: both are the only one from the
    // beginning. Where many write, so is whoever has run in vain once.
    let alone = streaming.is_some() || due.is_some() || begin.attempt > 1;
    if alone && let Err(failure) = stage.take_lease() {
        return match stage.is_doomed() {
            true => Ok(Ran::Late),
            false => Err(failure),
        };
    }
    if let Some(due) = due
        && let Err(error) = due.note_try(&request.database, key)
    {
        stage.abandon();
        return Err(error.into());
    }
    if let Some(failure) = refusal {
        return Ok(ended(stage.discard(failure), None));
    }
    stage.begin_time();
    let (now_ms, deadline_ms) = (clock::unix_ms(), stage.deadline_ms());
    stage::enter(stage);
    let turn = wit::Turn {
        this: key.into(),
        turn_id: begin.turn_id.to_owned(),
        origin: (&begin.origin).into(),
        now_ms,
        deadline_ms,
        attempt: begin.attempt,
        key: begin.key,
        traceparent: begin.traceparent,
    };
    let input = spelled.or(begin.input);
    let result = guest::invoke(turn, begin.method, input).await;
    let mut stage = stage::leave();
    let result = result.and_then(|result| {
        let spelled = match &result {
            Some(result) => stage.check_result(begin.method, result)?,
            None => None,
        };
        Ok(spelled.or(result))
    });
    Ok(match result {
        Err(failure) => ended(stage.discard(failure), None),
        // Whatever it says, it said it of a state that is no more.
        Ok(_) if stage.is_doomed() => ended(stage.discard(Failure::actor_busy()), None),
        Ok(result) => {
            let outcome = match &result {
                Some(result) => Outcome::Result(result.as_str().into()),
                None => Outcome::Nothing,
            };
            ended(stage.finish(outcome), result)
        }
    })
}

/// Stands in for a method that the actor type has not.
const NO_METHOD: Method = Method {
    description: None,
    input: None,
    output: None,
    streaming: None,
    deadline_ms: None,
};

fn ended(end: End, result: Option<String>) -> Ran {
    match end {
        End::Committed => Ran::Done(Ok(result)),
        End::Again => Ran::Again,
        End::Failed(failure) => Ran::Done(Err(failure)),
    }
}

/// The method of a call that may be made, and its input with the integers written as such, none
/// where they are.
fn check_call<'d>(
    key: &ActorKey,
    declared: &'d Declared,
    method: &str,
    input: Option<&str>,
) -> Result<(&'d Method, Option<String>), Failure> {
    let Some(found) = declared.methods.get(method) else {
        return Err(Failure::unknown_method(key.actor.as_str(), method));
    };
    let against = Against::Input(method);
    let schema = declared.schema(against)?;
    let checked = check::input(
        method,
        schema.as_ref(),
        input,
        LIMITS.state_memory_bytes,
        &mut Allowance::new(LIMITS.work_steps),
    );
    let checked = checked.map_err(|Exhausted| out_of_work())?;
    if checked.is_err() {
        declared.confirm(against)?;
    }
    Ok((found, checked?))
}

//! Tests of a handler without a host, by plain `cargo test`.
//!
//! Two ways, which need nothing but the actor's type:
//!
//! - call its methods as what they are, functions on a struct, with a
//!   [`Context::test`];
//! - drive it as a client would, by names and JSON, with [`Actor`]: hooks run, turns that
//!   fail are undone, connections receive what is meant for them, time passes when you
//!   [say so](Actor::advance), and other actors answer [as you want](Actor::on_call).
//!
//! ```
//! use tidegate_sdk::prelude::*;
//! use tidegate_sdk::test::{self, json};
//!
//! #[derive(Default, Serialize, Deserialize, JsonSchema)]
//! pub struct Counter { count: i64 }
//!
//! #[actor]
//! impl Counter {
//!     pub fn increment(&mut self, by: i64) -> i64 { self.count += by; self.count }
//! }
//!
//! let mut counter = Counter::default();
//! assert_eq!(counter.increment(2), 2);
//!
//! let mut counter = test::Actor::<Counter>::new("a");
//! assert_eq!(counter.invoke("increment", json!({"by": 2})), Ok(json!(2)));
//! assert_eq!(counter.state(), json!({"count": 2}));
//! ```
//!
//! What the host checks by JSON Schema it checks before and after the handler runs; here,
//! inputs only have to decode.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use serde::Serialize;

pub use serde_json::{Value, json};

use crate::access::{self, Shown, Subject, Subscriber, Viewer};
use crate::actor::{Cron, Hook, Outcome};
use crate::context::{Client, ConnectionIds, Origin, Turn};
use crate::host::Audience;
use crate::recorder::{Armed, Recorder, Recording, Sent};
use crate::timer::Firing;
use crate::{Context, Event, Failure, Tracked, dispatch, manifest, stored};

mod done;

use done::json_of;
pub use done::{Called, Fired, Timer, Update};

/// An event that was emitted: which, with what, to whom.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test::Emitted;
///
/// #[derive(Event)]
/// enum DoorEvent { Opened { by: String } }
///
/// let opened = Emitted::except("c1", DoorEvent::Opened { by: "Ann".into() });
/// assert_eq!(opened.event(), "opened");
/// assert_eq!(opened.payload()["by"], "Ann");
/// assert!(!opened.reaches("c1") && opened.reaches("c2"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted(Sent);

impl Emitted {
    /// What [`Context::emit`] sends.
    pub fn everyone(event: impl Event) -> Self {
        Self::new(event, Audience::Everyone)
    }

    /// What [`Context::to`] sends.
    pub fn to(connections: impl ConnectionIds, event: impl Event) -> Self {
        Self::new(event, Audience::Only(connections.into_ids()))
    }

    /// What [`Context::except`] sends.
    pub fn except(connections: impl ConnectionIds, event: impl Event) -> Self {
        Self::new(event, Audience::Except(connections.into_ids()))
    }

    fn new(event: impl Event, audience: Audience) -> Self {
        let payload = event
            .payload()
            .and_then(|text| serde_json::from_str(&text))
            .unwrap_or_else(|error| panic!("{} is not JSON: {error}", event.name()));
        Self(Sent {
            event: event.name().to_owned(),
            payload,
            audience,
        })
    }

    /// The event's name.
    pub fn event(&self) -> &str {
        &self.0.event
    }

    /// Its payload.
    pub fn payload(&self) -> &Value {
        &self.0.payload
    }

    /// Whether a subscriber with this connection gets it.
    pub fn reaches(&self, connection: &str) -> bool {
        let among = |ids: &[String]| ids.iter().any(|id| id == connection);
        match &self.0.audience {
            Audience::Everyone => true,
            Audience::Only(ids) => among(ids),
            Audience::Except(ids) => !among(ids),
        }
    }
}

fn take<T>(recorder: &Recorder, of: fn(&mut Recording) -> &mut Vec<T>) -> Vec<T> {
    recorder.with(|recording| std::mem::take(of(recording)))
}

fn answer_with(
    recorder: &Recorder,
    mut answer: impl FnMut(&Called) -> Result<Value, Failure> + 'static,
) {
    recorder.with(|recording| {
        recording.answer = Some(Box::new(move |call| answer(&Called(call.clone()))));
    });
}

/// How many firings one [`Actor::advance`] makes at most.
const FIRINGS: usize = 1_000_000;

/// A plain HTTP request without a token.
const ANONYMOUS: Client = Client {
    connection: None,
    user: None,
};

fn turn(actor: &str, id: &str, origin: Origin, now: u64, number: u64) -> Turn {
    Turn {
        actor: actor.to_owned(),
        actor_id: id.to_owned(),
        turn_id: format!("test-{number}"),
        origin,
        now,
        deadline: now.saturating_add(5_000),
        attempt: 1,
        key: None,
        traceparent: None,
    }
}

impl<A: crate::Actor> Context<A> {
    /// A context for a test of one method: of an anonymous plain HTTP request at the time
    /// 0, unless told otherwise.
    ///
    /// ```
    /// use tidegate_sdk::prelude::*;
    /// use tidegate_sdk::test::Emitted;
    ///
    /// #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// struct Door { opened_at: u64 }
    ///
    /// #[derive(Event)]
    /// enum DoorEvent { Opened }
    ///
    /// #[actor(events = DoorEvent)]
    /// impl Door {
    ///     pub fn open(&mut self, ctx: &mut Context<Self>) {
    ///         self.opened_at = ctx.now();
    ///         ctx.others().emit(DoorEvent::Opened);
    ///     }
    /// }
    ///
    /// let mut ctx = Context::test().connection("c1").connections(["c1", "c2"]).now(5);
    /// let mut door = Door::default();
    /// door.open(&mut ctx);
    /// assert_eq!(door.opened_at, 5);
    /// assert_eq!(ctx.emitted(), [Emitted::except("c1", DoorEvent::Opened)]);
    /// ```
    pub fn test() -> TestContext<A> {
        let recorder = Rc::new(Recorder::new(Value::Null));
        let turn = turn(A::NAME, "test", Origin::Client(ANONYMOUS), 0, 1);
        TestContext {
            context: Context::new(Rc::clone(&recorder) as Rc<_>, turn),
            recorder,
        }
    }
}

/// A [`Context`] that a test has made: pass `&mut ctx` where a method wants
/// one, and ask it afterwards what was [emitted](Self::emitted).
pub struct TestContext<A> {
    context: Context<A>,
    recorder: Rc<Recorder>,
}

impl<A: crate::Actor> TestContext<A> {
    /// The id of the actor, `test` by default.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.context.turn.actor_id = id.into();
        self
    }

    /// The connection that calls; one of the open ones, too.
    #[must_use]
    pub fn connection(mut self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.recorder.with(|recording| {
            if !recording.connections.contains(&id) {
                recording.connections.push(id.clone());
            }
        });
        self.client().connection = Some(id);
        self
    }

    /// The open connections.
    #[must_use]
    pub fn connections(self, ids: impl ConnectionIds) -> Self {
        self.recorder
            .with(|recording| recording.connections = ids.into_ids());
        self
    }

    /// The verified claims of the client.
    #[must_use]
    pub fn user(mut self, claims: impl Serialize) -> Self {
        self.client().user = Some(claims_text(claims));
        self
    }

    /// The time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now(mut self, ms: u64) -> Self {
        self.context.turn.now = ms;
        self.recorder.with(|recording| recording.now = ms);
        self
    }

    /// What caused the turn, where it was not a client.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.context.turn.origin = origin;
        self
    }

    /// As if the caller had cancelled.
    #[must_use]
    pub fn cancelled(self) -> Self {
        self.recorder.with(|recording| recording.cancelled = true);
        self
    }

    /// What other actors answer: a result, or a failure. Without it every call fails with
    /// `actor.unknown`.
    #[must_use]
    pub fn on_call(self, answer: impl FnMut(&Called) -> Result<Value, Failure> + 'static) -> Self {
        answer_with(&self.recorder, answer);
        self
    }

    /// What was emitted since this was last asked.
    pub fn emitted(&mut self) -> Vec<Emitted> {
        let events = take(&self.recorder, |recording| &mut recording.events);
        events.into_iter().map(Emitted).collect()
    }

    /// The calls that were waited for since this was last asked.
    pub fn calls(&mut self) -> Vec<Called> {
        let calls = take(&self.recorder, |recording| &mut recording.calls);
        calls.into_iter().map(Called).collect()
    }

    /// The calls that were sent since this was last asked.
    pub fn sent(&mut self) -> Vec<Called> {
        let sent = take(&self.recorder, |recording| &mut recording.sent);
        sent.into_iter().map(Called).collect()
    }

    /// The parts of the result that were sent ahead of it since this was last asked.
    pub fn chunks(&mut self) -> Vec<Value> {
        take(&self.recorder, |recording| &mut recording.chunks)
    }

    /// The timers that are set.
    pub fn timers(&self) -> Vec<Timer> {
        let timers = self.recorder.with(|recording| recording.timers.clone());
        timers.into_iter().map(Timer).collect()
    }

    fn client(&mut self) -> &mut Client {
        let origin = &mut self.context.turn.origin;
        if !matches!(origin, Origin::Client(_)) {
            *origin = Origin::Client(ANONYMOUS);
        }
        match origin {
            Origin::Client(client) => client,
            _ => unreachable!("it was just made one"),
        }
    }
}

impl<A> Deref for TestContext<A> {
    type Target = Context<A>;

    fn deref(&self) -> &Context<A> {
        &self.context
    }
}

impl<A> DerefMut for TestContext<A> {
    fn deref_mut(&mut self) -> &mut Context<A> {
        &mut self.context
    }
}

fn claims_text(claims: impl Serialize) -> String {
    serde_json::to_string(&claims).unwrap_or_else(|error| panic!("claims are JSON: {error}"))
}

impl<A: crate::Actor> Tracked<A> {
    /// A state for a test of one tracked method. See it afterwards with
    /// `get::<A>(pointer![])`.
    ///
    /// ```
    /// use tidegate_sdk::prelude::*;
    ///
    /// #[derive(Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
    /// struct Notes { text: String }
    ///
    /// #[actor]
    /// impl Notes {
    ///     pub fn write(state: &mut Tracked<Self>, text: String) -> Result<()> {
    ///         state.append(["text"], &text)
    ///     }
    /// }
    ///
    /// let mut state = Tracked::test(&Notes { text: "Hi".into() });
    /// Notes::write(&mut state, "!".into()).unwrap();
    /// assert_eq!(state.get(pointer![]), Ok(Some(Notes { text: "Hi!".into() })));
    /// ```
    pub fn test(state: &A) -> Self {
        let state = serde_json::to_value(state)
            .unwrap_or_else(|error| panic!("the state of {} is not JSON: {error}", A::NAME));
        Self::new(Rc::new(Recorder::new(state)))
    }
}

/// One actor of type `A`, driven as clients drive it.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test::{self, json};
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Room { here: Vec<String> }
///
/// #[derive(Event)]
/// enum RoomEvent { Entered { who: String } }
///
/// #[actor(events = RoomEvent)]
/// impl Room {
///     #[connect]
///     fn entered(&mut self, ctx: &mut Context<Self>) {
///         if let Some(who) = ctx.connection().map(str::to_owned) {
///             self.here.push(who.clone());
///             ctx.others().emit(RoomEvent::Entered { who });
///         }
///     }
///
///     pub fn lock(&mut self) -> Result<()> {
///         self.here.clear();
///         Err(Failure::new("room.no-key"))
///     }
/// }
///
/// let mut room = test::Actor::<Room>::new("lobby");
/// room.connect("c1").unwrap();
/// room.connect("c2").unwrap();
/// assert_eq!(room.received("c1"), [("entered".to_owned(), json!({"who": "c2"}))]);
/// assert_eq!(room.received("c2"), []);
///
/// let failure = room.from("c1").invoke("lock", None).unwrap_err();
/// assert_eq!(failure.code(), "room.no-key");
/// assert_eq!(room.state(), json!({"here": ["c1", "c2"]}), "a turn that fails is undone");
/// ```
pub struct Actor<A> {
    recorder: Rc<Recorder>,
    id: String,
    turns: u64,
    resident: bool,
    emitted: Vec<Emitted>,
    inboxes: BTreeMap<String, Vec<(String, Value)>>,
    /// The claims that the open connections came with.
    users: BTreeMap<String, String>,
    /// The methods with an interval, and when each is due: while the actor is in memory.
    schedules: Vec<(&'static str, u64, u64)>,
    actor: PhantomData<fn() -> A>,
}

impl<A: crate::Actor> Actor<A> {
    /// A new actor with the initial state, at the time 0, with no connections.
    ///
    /// # Panics
    /// When the actor's manifest contradicts itself: a hidden member that the state has not.
    pub fn new(id: impl Into<String>) -> Self {
        let manifest = manifest::describe::<A>();
        Self {
            recorder: Rc::new(Recorder::new(manifest["state"]["initial"].clone())),
            id: id.into(),
            turns: 0,
            resident: false,
            emitted: Vec::new(),
            inboxes: BTreeMap::new(),
            users: BTreeMap::new(),
            schedules: Vec::new(),
            actor: PhantomData,
        }
    }

    /// What the component's manifest says of this actor type: schemas, descriptions, hooks.
    pub fn manifest(&self) -> Value {
        manifest::describe::<A>()
    }

    /// What `#[migrate]` makes of a state that an actor with this id has stored under this
    /// version.
    pub fn migrate(id: impl Into<String>, version: u32, state: Value) -> Result<Value, Failure> {
        let migrated = stored::migrate::<A>(&id.into(), version, state.to_string())?;
        Ok(serde_json::from_str(&migrated).expect("it was encoded a moment ago"))
    }

    /// Sets the time of the turns to come, in milliseconds since the Unix epoch.
    pub fn set_now(&mut self, ms: u64) {
        self.recorder.with(|recording| recording.now = ms);
    }

    /// The time, in milliseconds since the Unix epoch. It passes when a turn waits, and by
    /// [`advance`](Self::advance).
    pub fn now(&self) -> u64 {
        self.recorder.with(|recording| recording.now)
    }

    /// Lets so many milliseconds pass: timers and schedules with an interval fire when they
    /// are due, each in a turn of its own. Tells which, in their order. Schedules begin when
    /// the actor enters memory; those with a cron expression are for [`cron`](Self::cron).
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use tidegate_sdk::prelude::*;
    /// use tidegate_sdk::test::{self, json};
    ///
    /// #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// struct Presence { users: BTreeMap<String, u64> }
    ///
    /// #[actor]
    /// impl Presence {
    ///     pub fn heartbeat(&mut self, ctx: &Context<Self>, user: String) {
    ///         self.users.insert(user, ctx.now());
    ///     }
    ///
    ///     #[cron(every = "30s")]
    ///     pub fn cleanup(&mut self, ctx: &Context<Self>) {
    ///         self.users.retain(|_, seen| ctx.now().saturating_sub(*seen) <= 30_000);
    ///     }
    /// }
    ///
    /// let mut presence = test::Actor::<Presence>::new("a");
    /// presence.invoke("heartbeat", json!({"user": "ann"})).unwrap();
    /// presence.advance(30_000);
    /// assert_eq!(presence.state()["users"]["ann"], 0);
    /// let fired = presence.advance(30_000);
    /// assert_eq!((fired[0].method.as_str(), fired[0].due), ("cleanup", 60_000));
    /// assert_eq!(presence.state()["users"], json!({}));
    /// ```
    ///
    /// # Panics
    /// When timers set each other for ever without time passing.
    pub fn advance(&mut self, ms: u64) -> Vec<Fired> {
        let until = self.now().saturating_add(ms);
        let mut fired = Vec::new();
        while let Some(firing) = self.fire_next(until) {
            fired.push(firing);
            assert!(fired.len() < FIRINGS, "{FIRINGS} firings in {ms} ms");
        }
        let now = self.now().max(until);
        self.set_now(now);
        fired
    }

    /// Runs a method with `#[cron]` as if it were due now.
    ///
    /// # Panics
    /// When it is no such method.
    pub fn cron(&mut self, method: &str) -> Result<Value, Failure> {
        let known = A::METHODS
            .iter()
            .any(|known| known.name == method && known.cron.is_some());
        assert!(known, "{} has no method {method} with #[cron]", A::NAME);
        let origin = Origin::Cron(Firing::new(0, self.now()));
        self.invoke_by(origin, method, None)
    }

    /// Fires what is due next, if it is due by then.
    fn fire_next(&mut self, until: u64) -> Option<Fired> {
        let timer = self.recorder.with(|recording| {
            let timers = recording.timers.iter();
            timers.min_by_key(|armed| (armed.due, armed.id)).cloned()
        });
        let schedules = self.schedules.iter();
        let schedule = schedules.min_by_key(|(_, _, due)| *due).copied();
        let timer = timer.filter(|armed| armed.due <= until);
        let schedule = schedule.filter(|(_, _, due)| *due <= until);
        match (timer, schedule) {
            (Some(armed), Some((_, _, due))) if armed.due <= due => Some(self.fire_timer(&armed)),
            (_, Some((method, _, due))) => Some(self.fire_schedule(method, due)),
            (Some(armed), None) => Some(self.fire_timer(&armed)),
            (None, None) => None,
        }
    }

    fn fire_timer(&mut self, armed: &Armed) -> Fired {
        let now = self.now().max(armed.due);
        self.set_now(now);
        self.recorder.with(|recording| {
            recording.timers.retain_mut(|known| {
                if known.id == armed.id {
                    known.due = following(known.due, known.timer.ms, now);
                    return known.timer.repeats;
                }
                true
            });
        });
        let origin = Origin::Timer(Firing::new(armed.id, armed.due));
        let method = armed.timer.method;
        Fired {
            method: method.to_owned(),
            due: armed.due,
            outcome: self.invoke_by(origin, method, armed.timer.input.clone()),
        }
    }

    fn fire_schedule(&mut self, method: &'static str, due: u64) -> Fired {
        let now = self.now().max(due);
        self.set_now(now);
        for (known, every, next) in &mut self.schedules {
            if *known == method {
                *next = following(due, *every, now);
            }
        }
        let origin = Origin::Cron(Firing::new(0, due));
        Fired {
            method: method.to_owned(),
            due,
            outcome: self.invoke_by(origin, method, None),
        }
    }

    /// The timers that are set.
    pub fn timers(&self) -> Vec<Timer> {
        let timers = self.recorder.with(|recording| recording.timers.clone());
        timers.into_iter().map(Timer).collect()
    }

    /// What other actors answer: a result, or a failure. Without it every call fails with
    /// `actor.unknown`.
    pub fn on_call(&mut self, answer: impl FnMut(&Called) -> Result<Value, Failure> + 'static) {
        answer_with(&self.recorder, answer);
    }

    /// The calls that were waited for since this was last asked, also those of turns that
    /// failed.
    pub fn calls(&mut self) -> Vec<Called> {
        let calls = take(&self.recorder, |recording| &mut recording.calls);
        calls.into_iter().map(Called).collect()
    }

    /// The calls that were sent since this was last asked.
    pub fn sent(&mut self) -> Vec<Called> {
        let sent = take(&self.recorder, |recording| &mut recording.sent);
        sent.into_iter().map(Called).collect()
    }

    /// The parts of results that were sent ahead of them since this was last asked, also
    /// those of turns that failed.
    pub fn chunks(&mut self) -> Vec<Value> {
        take(&self.recorder, |recording| &mut recording.chunks)
    }

    /// The states that subscribers have been sent since this was last asked: one for a turn
    /// that changed the state, several for a streaming one. See [`Live`](crate::Live).
    pub fn updates(&mut self) -> Vec<Update> {
        let updates = take(&self.recorder, |recording| &mut recording.updates);
        let updates = updates.into_iter();
        updates.map(|(at, state)| Update { at, state }).collect()
    }

    /// Whether the callers to come cancel.
    pub fn set_cancelled(&mut self, cancelled: bool) {
        self.recorder
            .with(|recording| recording.cancelled = cancelled);
    }

    /// The state that the last successful turn left.
    pub fn state(&self) -> Value {
        self.recorder.state()
    }

    /// Puts another state in place of the stored one, such as one that an earlier version of
    /// the actor has left.
    pub fn set_state(&mut self, state: Value) {
        self.recorder.set_state(state);
    }

    /// Invokes a method as an anonymous plain HTTP request does. Gives `null` where the
    /// method returns nothing. The input is what `json!` makes, or `None`.
    ///
    /// # Panics
    /// When a failure is not one that the host would pass on: its code or its status breaks
    /// the rules of [`Failure`](struct@Failure).
    pub fn invoke(
        &mut self,
        method: &str,
        input: impl Into<Option<Value>>,
    ) -> Result<Value, Failure> {
        self.anonymous().invoke(method, input)
    }

    /// The client with this connection, to [`invoke`](Caller::invoke) as. Its first contact
    /// runs the `connect` hook.
    pub fn from(&mut self, connection: impl Into<String>) -> Caller<'_, A> {
        let connection = connection.into();
        Caller {
            client: Client {
                user: self.users.get(&connection).cloned(),
                connection: Some(connection),
            },
            actor: self,
        }
    }

    /// A client with a token of these verified claims, who comes by plain HTTP.
    ///
    /// ```
    /// use tidegate_sdk::prelude::*;
    /// use tidegate_sdk::test::{self, json};
    ///
    /// #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// struct Mirror {}
    ///
    /// #[derive(Serialize, Deserialize, JsonSchema)]
    /// struct Claims { sub: String }
    ///
    /// #[actor]
    /// impl Mirror {
    ///     pub fn me(&self, ctx: &Context<Self>) -> Result<Option<Claims>> { ctx.user() }
    /// }
    ///
    /// let mut mirror = test::Actor::<Mirror>::new("a");
    /// let ann = json!({"sub": "ann"});
    /// assert_eq!(mirror.user(&ann).invoke("me", None), Ok(ann.clone()));
    /// assert_eq!(mirror.from("c1").user(&ann).invoke("me", None), Ok(ann));
    /// ```
    pub fn user(&mut self, claims: impl Serialize) -> Caller<'_, A> {
        self.anonymous().user(claims)
    }

    fn anonymous(&mut self) -> Caller<'_, A> {
        Caller {
            actor: self,
            client: ANONYMOUS,
        }
    }

    /// Whether an anonymous plain HTTP request may subscribe, as
    /// [`Caller::may_subscribe`] has it.
    pub fn may_subscribe(&mut self, to: Subject) -> Result<(), Failure> {
        self.anonymous().may_subscribe(to)
    }

    /// What an anonymous plain HTTP request is shown of the state, as [`Caller::view`] has it.
    pub fn view(&mut self) -> Option<Value> {
        self.anonymous().view()
    }

    /// Opens a connection: the `connect` hook, which runs once for each. A connection whose
    /// hook fails is open all the same.
    pub fn connect(&mut self, connection: impl Into<String>) -> Result<(), Failure> {
        self.open(connection.into(), None)
    }

    fn open(&mut self, connection: String, user: Option<String>) -> Result<(), Failure> {
        let known = self.recorder.with(|recording| {
            let known = recording.connections.contains(&connection);
            if !known {
                recording.connections.push(connection.clone());
            }
            known
        });
        if known {
            return Ok(());
        }
        self.inboxes.entry(connection.clone()).or_default();
        if let Some(claims) = &user {
            self.users.insert(connection.clone(), claims.clone());
        }
        let client = Client {
            connection: Some(connection),
            user,
        };
        self.hook(Hook::Connect, Origin::Client(client))
    }

    /// Closes a connection: the `disconnect` hook, if the connection was open.
    pub fn disconnect(&mut self, connection: &str) -> Result<(), Failure> {
        let known = self.recorder.with(|recording| {
            let before = recording.connections.len();
            recording.connections.retain(|id| id != connection);
            recording.connections.len() < before
        });
        if !known {
            return Ok(());
        }
        let client = Client {
            connection: Some(connection.to_owned()),
            user: self.users.remove(connection),
        };
        self.hook(Hook::Disconnect, Origin::Client(client))
    }

    /// Brings the actor into memory, if it is not there: the `activate` hook. The first turn
    /// does it by itself, and panics when it fails.
    pub fn activate(&mut self) -> Result<(), Failure> {
        if self.resident {
            return Ok(());
        }
        self.resident = true;
        let now = self.now();
        self.schedules = A::METHODS
            .iter()
            .filter_map(|method| match method.cron? {
                Cron::Every(ms) => Some((method.name, ms, now + ms)),
                Cron::Schedule(_) => None,
            })
            .collect();
        self.hook(Hook::Activate, Origin::Host)
    }

    /// Has the actor leave memory, if it is there: the `deactivate` hook. The state stays;
    /// timers go, but for those that [outlive](crate::TimerOptions::outlive) it.
    pub fn deactivate(&mut self) -> Result<(), Failure> {
        if !self.resident {
            return Ok(());
        }
        let result = self.hook(Hook::Deactivate, Origin::Host);
        self.resident = false;
        self.schedules.clear();
        self.recorder.with(|recording| {
            recording.timers.retain(|armed| armed.timer.outlive);
        });
        result
    }

    /// What was emitted since this was last asked.
    pub fn emitted(&mut self) -> Vec<Emitted> {
        std::mem::take(&mut self.emitted)
    }

    /// Which events, by name and payload, a connection has received since this was last
    /// asked. Every open connection subscribes.
    pub fn received(&mut self, connection: &str) -> Vec<(String, Value)> {
        self.inboxes
            .get_mut(connection)
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn invoke_as(
        &mut self,
        client: Client,
        method: &str,
        input: Option<Value>,
    ) -> Result<Value, Failure> {
        let input = input.map(|input| input.to_string());
        self.invoke_by(Origin::Client(client), method, input)
    }

    fn invoke_by(
        &mut self,
        origin: Origin,
        method: &str,
        input: Option<String>,
    ) -> Result<Value, Failure> {
        let known = A::METHODS.iter().find(|known| known.name == method);
        let interval = known.and_then(|known| known.stream_ms);
        let output = self.turn(origin, interval, |recorder, turn| {
            dispatch::invoke::<A>(recorder, turn, method, input.as_deref())
        })?;
        Ok(json_of(output.as_deref()).unwrap_or_default())
    }

    fn hook(&mut self, hook: Hook, origin: Origin) -> Result<(), Failure> {
        self.turn(origin, None, |recorder, turn| {
            dispatch::hook::<A>(recorder, turn, hook)
        })
        .map(drop)
    }

    fn turn(
        &mut self,
        origin: Origin,
        interval: Option<u64>,
        run: impl FnOnce(Rc<Recorder>, Turn) -> Outcome,
    ) -> Outcome {
        self.activate()
            .unwrap_or_else(|failure| panic!("the activate hook failed: {failure}"));
        self.turns += 1;
        let turn = turn(A::NAME, &self.id, origin, self.now(), self.turns);
        let began = self.recorder.begin(interval);
        let outcome = run(Rc::clone(&self.recorder), turn);
        match &outcome {
            Ok(_) => self.recorder.finish(&began),
            Err(failure) => {
                check(failure);
                self.recorder.roll_back(began);
            }
        }
        let events = self
            .recorder
            .with(|recording| std::mem::take(&mut recording.events));
        let open = self
            .recorder
            .with(|recording| recording.connections.clone());
        for event in events.into_iter().map(Emitted) {
            for id in open.iter().filter(|id| event.reaches(id)) {
                let inbox = self.inboxes.entry(id.clone()).or_default();
                inbox.push((event.event().to_owned(), event.payload().clone()));
            }
            self.emitted.push(event);
        }
        outcome
    }
}

/// The first time after `now` that is a whole number of intervals after `due`.
fn following(due: u64, every: u64, now: u64) -> u64 {
    match now.saturating_sub(due).checked_div(every) {
        Some(missed) => due.saturating_add(every.saturating_mul(missed + 1)),
        None => due,
    }
}

fn check(failure: &Failure) {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let code = failure.code();
    assert!(
        code.len() <= 128 && code.split(['-', '.']).all(is_part),
        "the host does not pass on the code {code:?}: codes match [a-z0-9]+([-.][a-z0-9]+)*"
    );
    let status = failure.http_status().unwrap_or(400);
    assert!(
        (400..=599).contains(&status),
        "{code} has the HTTP status {status}: failures have 400 to 599"
    );
}

/// A client of an [`Actor`]: what [`Actor::from`] and [`Actor::user`] give.
pub struct Caller<'a, A> {
    actor: &'a mut Actor<A>,
    client: Client,
}

impl<A: crate::Actor> Caller<'_, A> {
    /// The verified claims of the client's token. A connection keeps those that it was
    /// opened with until it is given others.
    #[must_use]
    pub fn user(mut self, claims: impl Serialize) -> Self {
        self.client.user = Some(claims_text(claims));
        self
    }

    /// Opens the connection, as [`Actor::connect`] does; nothing for plain HTTP.
    pub fn connect(self) -> Result<(), Failure> {
        match self.client.connection {
            Some(connection) => self.actor.open(connection, self.client.user),
            None => Ok(()),
        }
    }

    /// Invokes a method, as [`Actor::invoke`] does.
    ///
    /// # Panics
    /// As [`Actor::invoke`], and when the `connect` hook fails.
    pub fn invoke(self, method: &str, input: impl Into<Option<Value>>) -> Result<Value, Failure> {
        let Self { actor, client } = self;
        if let Some(connection) = &client.connection {
            actor
                .open(connection.clone(), client.user.clone())
                .unwrap_or_else(|failure| panic!("the connect hook failed: {failure}"));
            if let Some(claims) = &client.user {
                actor.users.insert(connection.clone(), claims.clone());
            }
        }
        actor.invoke_as(client, method, input.into())
    }

    /// Asks `#[authorize]`: whether the client may subscribe to this, or read it once, or go
    /// on, if they subscribe already. No hook runs. An actor without `#[authorize]` is open.
    ///
    /// # Panics
    /// When the failure is not one that the host would pass on.
    pub fn may_subscribe(self, to: Subject) -> Result<(), Failure> {
        let viewer = Viewer::new(self.actor.id.as_str().into(), self.client);
        let who = [Subscriber::new(viewer, to)];
        let host = Rc::clone(&self.actor.recorder);
        let mut decisions = access::authorize::<A>(host, &self.actor.id, &who);
        let decision = decisions.pop().unwrap_or(Ok(()));
        if let Err(failure) = &decision {
            check(failure);
        }
        decision
    }

    /// Asks `#[project]`: what the client is shown, `None` for nothing. An actor without
    /// `#[project]` shows all of the state; hidden members are left out in any case. Whether
    /// the client may subscribe at all is another question:
    /// [`may_subscribe`](Self::may_subscribe).
    pub fn view(self) -> Option<Value> {
        let who = [Viewer::new(self.actor.id.as_str().into(), self.client)];
        let host = Rc::clone(&self.actor.recorder);
        let mut shown = match access::project::<A>(host, &self.actor.id, &who).pop()? {
            Shown::Whole => self.actor.state(),
            Shown::Document(text) => {
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
            }
            Shown::Nothing | Shown::SameAs(_) => return None,
        };
        if let Value::Object(members) = &mut shown {
            members.retain(|name, _| !A::HIDDEN.contains(&name.as_str()));
        }
        Some(shown)
    }
}

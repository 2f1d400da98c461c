//! Tests of a handler without a host, by plain `cargo test`.
//!
//! Two ways, which need nothing but the actor's type:
//!
//! - call its methods as what they are, functions on a struct, with a
//!   [`Context::test`];
//! - drive it as a client would, by names and JSON, with [`Actor`]: hooks run, turns that
//!   fail are undone, and connections receive what is meant for them.
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
use crate::actor::{Hook, Outcome};
use crate::context::{Client, ConnectionIds, Origin, Turn};
use crate::host::Audience;
use crate::recorder::{Recorder, Sent};
use crate::{Context, Event, Failure, Tracked, dispatch, manifest};

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

    /// What was emitted since this was last asked.
    pub fn emitted(&mut self) -> Vec<Emitted> {
        let events = self
            .recorder
            .with(|recording| std::mem::take(&mut recording.events));
        events.into_iter().map(Emitted).collect()
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
    now: u64,
    turns: u64,
    resident: bool,
    emitted: Vec<Emitted>,
    inboxes: BTreeMap<String, Vec<(String, Value)>>,
    /// The claims that the open connections came with.
    users: BTreeMap<String, String>,
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
            now: 0,
            turns: 0,
            resident: false,
            emitted: Vec::new(),
            inboxes: BTreeMap::new(),
            users: BTreeMap::new(),
            actor: PhantomData,
        }
    }

    /// What the component's manifest says of this actor type: schemas, descriptions, hooks.
    pub fn manifest(&self) -> Value {
        manifest::describe::<A>()
    }

    /// Sets the time of the turns to come, in milliseconds since the Unix epoch.
    pub fn set_now(&mut self, ms: u64) {
        self.now = ms;
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
        self.hook(Hook::Activate, Origin::Host)
    }

    /// Has the actor leave memory, if it is there: the `deactivate` hook. The state stays.
    pub fn deactivate(&mut self) -> Result<(), Failure> {
        if !self.resident {
            return Ok(());
        }
        let result = self.hook(Hook::Deactivate, Origin::Host);
        self.resident = false;
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
        let output = self.turn(Origin::Client(client), |recorder, turn| {
            dispatch::invoke::<A>(recorder, turn, method, input.as_deref())
        })?;
        Ok(output.map_or(Value::Null, |text| {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
        }))
    }

    fn hook(&mut self, hook: Hook, origin: Origin) -> Result<(), Failure> {
        self.turn(origin, |recorder, turn| {
            dispatch::hook::<A>(recorder, turn, hook)
        })
        .map(drop)
    }

    fn turn(&mut self, origin: Origin, run: impl FnOnce(Rc<Recorder>, Turn) -> Outcome) -> Outcome {
        self.activate()
            .unwrap_or_else(|failure| panic!("the activate hook failed: {failure}"));
        self.turns += 1;
        let turn = turn(A::NAME, &self.id, origin, self.now, self.turns);
        let savepoint = self.recorder.savepoint();
        let outcome = run(Rc::clone(&self.recorder), turn);
        if let Err(failure) = &outcome {
            check(failure);
            self.recorder.roll_back(savepoint);
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

//! [`Context`]: what a method or hook knows of its turn, and how it speaks to clients. Made
//! by the dispatch for each turn, or by [`Context::test`] in a native test. Whatever it
//! fails to stage fails the turn, also when the method does not look.

use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use crate::event::{Event, EventOf};
use crate::host::{Audience, Flush, Host};
use crate::timer::Firing;

/// The turn that a method or hook of the actor `A` is running: who called, when, and the
/// way to emit events. Ask for it with a parameter `ctx: &mut Context<Self>`, or
/// `&Context<Self>` where you only look.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// pub struct Bell {
///     rung_at: Option<u64>,
/// }
///
/// #[derive(Event)]
/// pub enum BellEvent {
///     Rung { by: Option<String> },
/// }
///
/// #[actor(events = BellEvent)]
/// impl Bell {
///     pub fn ring(&mut self, ctx: &mut Context<Self>) {
///         self.rung_at = Some(ctx.now());
///         let by = ctx.connection().map(str::to_owned);
///         ctx.emit(BellEvent::Rung { by });
///     }
/// }
///
/// let mut ctx = Context::test().connection("c1").now(5);
/// let mut bell = Bell::default();
/// bell.ring(&mut ctx);
/// assert_eq!(bell.rung_at, Some(5));
/// ```
pub struct Context<A> {
    host: Rc<dyn Host>,
    pub(crate) turn: Turn,
    failed: Option<Failure>,
    /// The turn ended ahead of its method, which has not touched the state.
    pub(crate) refused: bool,
    /// The method streams, and something is staged that is not declared fit to be seen.
    unfit: bool,
    streams: bool,
    actor: PhantomData<fn() -> A>,
}

impl<A> Context<A> {
    pub(crate) fn new(host: Rc<dyn Host>, turn: Turn) -> Self {
        Self {
            host,
            turn,
            failed: None,
            refused: false,
            unfit: false,
            streams: false,
            actor: PhantomData,
        }
    }

    /// Of a streaming method.
    pub(crate) fn streaming(self) -> Self {
        Self {
            streams: true,
            ..self
        }
    }

    pub(crate) fn host(&self) -> Rc<dyn Host> {
        Rc::clone(&self.host)
    }

    /// What could not be staged during the turn, if anything.
    pub(crate) fn take_failure(&mut self) -> Result<(), Failure> {
        self.failed.take().map_or(Ok(()), Err)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Has the turn fail with the first thing that went wrong.
    pub(crate) fn note(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.failed.get_or_insert(failure);
        }
    }

    /// Notes that something was staged, or could not be.
    pub(crate) fn staged<T>(&mut self, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(value) => {
                self.unfit = self.streams;
                Some(value)
            }
            Err(failure) => {
                self.note(Err(failure));
                None
            }
        }
    }

    /// Declares what is staged fit to be seen, ahead of anything that waits. A turn that is
    /// to fail does not wait any more.
    pub(crate) fn before_waiting(&mut self) -> Result<(), Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        if std::mem::take(&mut self.unfit) {
            self.checkpoint(Flush::Due)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, when: Flush) -> Result<(), Failure> {
        let flushed = self.host.checkpoint(when);
        self.note(flushed.clone());
        flushed
    }

    /// The id of this actor: `room-1` for `chat/room-1`.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// fn greeting(ctx: &Context<Door>) -> String {
    ///     format!("this is {}", ctx.id())
    /// }
    /// assert_eq!(greeting(&Context::test().id("front")), "this is front");
    /// ```
    pub fn id(&self) -> &str {
        &self.turn.actor_id
    }

    /// The actor type: `chat` for `chat/room-1`.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// assert_eq!(Context::<Door>::test().actor(), "door");
    /// ```
    pub fn actor(&self) -> &str {
        &self.turn.actor
    }

    /// The client that caused the turn. `None` when another actor, a timer or the host did.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// use tidegate_sdk::Origin;
    /// assert!(Context::<Door>::test().client().is_some());
    /// assert!(Context::<Door>::test().origin(Origin::Host).client().is_none());
    /// ```
    pub fn client(&self) -> Option<&Client> {
        match &self.turn.origin {
            Origin::Client(client) => Some(client),
            _ => None,
        }
    }

    /// The id of the WebSocket connection that caused the turn. `None` for a plain HTTP
    /// request, and when no client did.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// fn is_remote(ctx: &Context<Door>) -> bool {
    ///     ctx.connection().is_some()
    /// }
    /// assert!(is_remote(&Context::test().connection("c1")));
    /// assert!(!is_remote(&Context::test()));
    /// ```
    pub fn connection(&self) -> Option<&str> {
        self.client()?.connection.as_deref()
    }

    /// The verified claims of the client's token. `Ok(None)` for an anonymous client, and
    /// when no client caused the turn; fails with `user.mismatch` when the claims are not a
    /// `T`.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// #[derive(Serialize, Deserialize)]
    /// struct Claims { sub: String }
    ///
    /// fn who(ctx: &Context<Door>) -> Result<String> {
    ///     let claims: Option<Claims> = ctx.user()?;
    ///     Ok(claims.ok_or(Failure::new("door.anonymous").status(401))?.sub)
    /// }
    /// let ann = Claims { sub: "ann".into() };
    /// assert_eq!(who(&Context::test().user(&ann)).unwrap(), "ann");
    /// assert_eq!(who(&Context::test()).unwrap_err().code(), "door.anonymous");
    /// ```
    pub fn user<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        self.client().map_or(Ok(None), Client::user)
    }

    /// When the turn began, in milliseconds since the Unix epoch.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// assert_eq!(Context::<Door>::test().now(1_000).turn().now, 1_000);
    /// ```
    pub fn now(&self) -> u64 {
        self.turn.now
    }

    /// The connections that have had contact with this actor and are still open, in the
    /// order of their first contact.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// fn watchers(ctx: &Context<Door>) -> usize {
    ///     ctx.connections().len()
    /// }
    /// assert_eq!(watchers(&Context::test().connections(["c1", "c2"])), 2);
    /// ```
    pub fn connections(&self) -> Vec<String> {
        self.host.connections()
    }

    /// Everything the host says of the turn.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// let ctx = Context::<Door>::test();
    /// assert_eq!(ctx.turn().attempt, 1);
    /// ```
    pub fn turn(&self) -> &Turn {
        &self.turn
    }

    /// What caused the turn.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[actor] impl Door {}
    /// use tidegate_sdk::Origin;
    ///
    /// fn is_knock(ctx: &Context<Door>) -> bool {
    ///     matches!(ctx.origin(), Origin::Client(_))
    /// }
    /// assert!(is_knock(&Context::test()));
    /// ```
    pub fn origin(&self) -> &Origin {
        &self.turn.origin
    }

    /// Waits. Other actors go on meanwhile, but this one's queue waits too: its deadline runs.
    ///
    /// Fails when the turn is to fail in any case, because something could not be staged.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[actor] impl Door {}
    /// fn creak(ctx: &mut Context<Door>) -> Result<()> {
    ///     ctx.sleep(secs(3))
    /// }
    /// creak(&mut Context::test())?; // a test does not wait
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn sleep(&mut self, duration: Duration) -> Result<(), Failure> {
        self.before_waiting()?;
        self.host.sleep(duration);
        Ok(())
    }

    /// Sends a part of the result to the caller, ahead of the result.
    ///
    /// It is *live*: it leaves at once, while the turn runs, and is not undone when the turn
    /// fails. Waits while the caller reads too slowly. Without a caller that listens it does
    /// nothing. Fails when it cannot be sent, or when the turn is to fail in any case.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Agent {}
    /// # #[actor] impl Agent {}
    /// fn generate(ctx: &mut Context<Agent>) -> Result<String> {
    ///     let words = ["Hello", " world"];
    ///     for word in words {
    ///         ctx.chunk(word)?;
    ///     }
    ///     Ok(words.concat())
    /// }
    /// let mut ctx = Context::test();
    /// assert_eq!(generate(&mut ctx).unwrap(), "Hello world");
    /// assert_eq!(ctx.chunks(), ["Hello", " world"]);
    /// ```
    pub fn chunk(&mut self, payload: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
        let payload = serde_json::to_string(payload).map_err(|error| {
            Failure::new("chunk.invalid")
                .message(format!("the chunk is not JSON: {error}"))
                .status(500)
        })?;
        self.before_waiting()?;
        self.host.chunk(&payload)
    }

    /// In a streaming method: has subscribers see what is staged before this returns, rather
    /// than at the next tick. Seldom needed. Elsewhere it does nothing.
    pub fn flush(&mut self) -> Result<(), Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        self.unfit = false;
        self.checkpoint(Flush::Now)
    }

    /// Whether the caller has cancelled, or is gone; also, whether the turn is to fail in any
    /// case, because something could not be staged. A long method that sees `true` should
    /// return soon: after a grace period the host interrupts it.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// fn swing(ctx: &Context<Door>) -> u32 {
    ///     (0..100).take_while(|_| !ctx.cancelled()).count() as u32
    /// }
    /// assert_eq!(swing(&Context::test()), 100);
    /// assert_eq!(swing(&Context::test().cancelled()), 0);
    /// ```
    pub fn cancelled(&self) -> bool {
        self.has_failed() || self.host.cancelled()
    }

    /// Sends an event to everyone who subscribes to the actor's events.
    ///
    /// It leaves when the turn succeeds, after the state's change and before the caller has
    /// its result; a turn that fails sends nothing. An event that the host refuses (too
    /// many, too large) fails the turn.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// let mut ctx = Context::<Door>::test();
    /// ctx.emit(DoorEvent::Opened);
    /// assert!(ctx.emitted()[0].reaches("anyone"));
    /// ```
    pub fn emit<E: EventOf<A>>(&mut self, event: E) {
        self.stage(event, &Audience::Everyone);
    }

    /// The subscribers with these connections, to [`emit`](Recipients::emit) to.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Cards {}
    /// # #[derive(Event)] enum CardsEvent { YourHand { cards: Vec<String> } }
    /// #[actor(events = CardsEvent)]
    /// impl Cards {
    ///     pub fn deal(&mut self, ctx: &mut Context<Self>) {
    ///         for id in ctx.connections() {
    ///             let cards = vec!["ace of spades".to_owned()];
    ///             ctx.to(&id).emit(CardsEvent::YourHand { cards });
    ///         }
    ///     }
    /// }
    /// ```
    pub fn to(&mut self, connections: impl ConnectionIds) -> Recipients<'_, A> {
        self.recipients(Audience::Only(connections.into_ids()))
    }

    /// All subscribers but these connections.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// let mut ctx = Context::<Door>::test();
    /// ctx.except(["c1", "c2"]).emit(DoorEvent::Opened);
    /// let emitted = ctx.emitted();
    /// assert!(!emitted[0].reaches("c2") && emitted[0].reaches("c3"));
    /// ```
    pub fn except(&mut self, connections: impl ConnectionIds) -> Recipients<'_, A> {
        self.recipients(Audience::Except(connections.into_ids()))
    }

    /// All subscribers but the connection that caused the turn.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// let mut ctx = Context::<Door>::test().connection("c1");
    /// ctx.others().emit(DoorEvent::Opened);
    /// let emitted = ctx.emitted();
    /// assert!(!emitted[0].reaches("c1") && emitted[0].reaches("c2"));
    /// ```
    pub fn others(&mut self) -> Recipients<'_, A> {
        let own = self.connection().map(str::to_owned);
        self.recipients(Audience::Except(own.into_iter().collect()))
    }

    /// The connection that caused the turn; nobody where there is none.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
    /// # #[derive(Event)] enum DoorEvent { Opened }
    /// # #[actor(events = DoorEvent)] impl Door {}
    /// let mut ctx = Context::<Door>::test().connection("c1");
    /// ctx.caller().emit(DoorEvent::Opened);
    /// let emitted = ctx.emitted();
    /// assert!(emitted[0].reaches("c1") && !emitted[0].reaches("c2"));
    /// ```
    pub fn caller(&mut self) -> Recipients<'_, A> {
        let own = self.connection().map(str::to_owned);
        self.recipients(Audience::Only(own.into_iter().collect()))
    }

    fn recipients(&mut self, audience: Audience) -> Recipients<'_, A> {
        Recipients {
            context: self,
            audience,
        }
    }

    fn stage<E: Event>(&mut self, event: E, audience: &Audience) {
        if self.failed.is_some() {
            return;
        }
        let staged = event
            .payload()
            .map_err(|error| {
                Failure::new("event.invalid")
                    .message(format!("{} is not JSON: {error}", event.name()))
                    .status(500)
            })
            .and_then(|payload| self.host.emit(event.name(), &payload, audience));
        self.staged(staged);
    }
}

/// Some of an actor's event subscribers: what [`Context::to`], [`Context::except`],
/// [`Context::others`] and [`Context::caller`] give. See there for examples.
#[must_use = "nothing is sent before `emit`"]
pub struct Recipients<'a, A> {
    context: &'a mut Context<A>,
    audience: Audience,
}

impl<A> Recipients<'_, A> {
    /// Sends them an event. Everything said of [`Context::emit`] holds here.
    pub fn emit<E: EventOf<A>>(self, event: E) {
        self.context.stage(event, &self.audience);
    }
}

/// One connection id, or several: `&str`, `&String`, `Option<&str>`, and arrays, slices and
/// vectors of strings.
///
/// ```
/// use tidegate_sdk::{ConnectionIds, Context, prelude::*};
/// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
/// # #[derive(Event)] enum DoorEvent { Opened }
/// # #[actor(events = DoorEvent)] impl Door {}
///
/// fn open_for(ctx: &mut Context<Door>, guests: impl ConnectionIds) {
///     ctx.to(guests).emit(DoorEvent::Opened);
/// }
/// let mut ctx = Context::test();
/// open_for(&mut ctx, "c1");
/// open_for(&mut ctx, ["c1", "c2"]);
/// open_for(&mut ctx, vec!["c1".to_owned()]);
/// open_for(&mut ctx, None::<&str>);
/// assert_eq!(ctx.emitted().len(), 4);
/// ```
pub trait ConnectionIds {
    #[doc(hidden)]
    fn into_ids(self) -> Vec<String>;
}

impl ConnectionIds for &str {
    fn into_ids(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl ConnectionIds for &String {
    fn into_ids(self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl ConnectionIds for String {
    fn into_ids(self) -> Vec<String> {
        vec![self]
    }
}

impl<S: AsRef<str>> ConnectionIds for Option<S> {
    fn into_ids(self) -> Vec<String> {
        self.iter().map(|id| id.as_ref().to_owned()).collect()
    }
}

impl<S: AsRef<str>> ConnectionIds for &[S] {
    fn into_ids(self) -> Vec<String> {
        self.iter().map(|id| id.as_ref().to_owned()).collect()
    }
}

impl<S: AsRef<str>> ConnectionIds for &Vec<S> {
    fn into_ids(self) -> Vec<String> {
        self.as_slice().into_ids()
    }
}

impl<S: AsRef<str>> ConnectionIds for Vec<S> {
    fn into_ids(self) -> Vec<String> {
        self.as_slice().into_ids()
    }
}

impl<S: AsRef<str>, const N: usize> ConnectionIds for [S; N] {
    fn into_ids(self) -> Vec<String> {
        self.as_slice().into_ids()
    }
}

impl<S: AsRef<str>, const N: usize> ConnectionIds for &[S; N] {
    fn into_ids(self) -> Vec<String> {
        self.as_slice().into_ids()
    }
}

/// Who called.
///
/// ```
/// use tidegate_sdk::{Client, Failure};
///
/// fn is_admin(client: &Client) -> Result<bool, Failure> {
///     #[derive(serde::Deserialize)]
///     struct Claims { admin: bool }
///     Ok(client.user::<Claims>()?.is_some_and(|claims| claims.admin))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// The id of the WebSocket connection; `None` for a plain HTTP request.
    pub connection: Option<String>,
    pub(crate) user: Option<String>,
}

impl Client {
    /// The verified claims of the client's token, as in [`Context::user`].
    pub fn user<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        let Some(claims) = &self.user else {
            return Ok(None);
        };
        serde_json::from_str(claims).map(Some).map_err(|error| {
            Failure::new("user.mismatch")
                .message(format!("the token's claims do not fit: {error}"))
                .status(403)
        })
    }
}

/// What caused a turn.
///
/// ```
/// use tidegate_sdk::{Origin, prelude::*};
/// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Door {}
/// # #[actor] impl Door {}
///
/// fn is_internal(ctx: &Context<Door>) -> bool {
///     matches!(ctx.turn().origin, Origin::Actor { .. } | Origin::Host)
/// }
/// assert!(is_internal(&Context::test().origin(Origin::Host)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A client's call, or its first contact or its leaving.
    Client(Client),
    /// Another actor.
    Actor {
        /// Its type.
        actor: String,
        /// Its id.
        id: String,
    },
    /// A timer of this actor.
    Timer(Firing),
    /// A schedule: `#[cron]`.
    Cron(Firing),
    /// The host itself: `activate` and `deactivate`.
    Host,
}

impl Origin {
    /// What came due, if a timer or a schedule did.
    pub(crate) fn firing(&self) -> Option<Firing> {
        match self {
            Self::Timer(firing) | Self::Cron(firing) => Some(*firing),
            _ => None,
        }
    }
}

/// What the host says of a turn: the handling of one call, hook or timer by one actor, all
/// of whose effects become visible together or not at all. [`Context::turn`] gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// The actor type.
    pub actor: String,
    /// The actor's id.
    pub actor_id: String,
    /// Unique among all turns of a host; the same when a turn runs again.
    pub turn_id: String,
    /// What caused it.
    pub origin: Origin,
    /// When it began, in milliseconds since the Unix epoch.
    pub now: u64,
    /// When the host interrupts it, in milliseconds since the Unix epoch.
    pub deadline: u64,
    /// 1 on the first run of this turn, then 2, 3, ….
    pub attempt: u32,
    /// The idempotency key that the caller gave.
    pub key: Option<String>,
    /// The caller's W3C `traceparent`.
    pub traceparent: Option<String>,
}

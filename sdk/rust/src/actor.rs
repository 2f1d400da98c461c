//! [`Actor`]: what `#[actor]` says of a type, as data. The macro writes the tables, the
//! [`manifest`](crate::manifest) and the [`dispatch`](crate::dispatch) read them.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::live::Live;
use crate::proxy::Proxy;
use crate::schema::Document;
use crate::{Context, Failure, Stored, Subscriber, Tracked, View, Viewer};

/// An actor type: a state with methods. [`#[actor]`](macro@crate::actor) implements it.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct ChatRoom {}
///
/// #[actor]
/// impl ChatRoom {}
///
/// assert_eq!(ChatRoom::NAME, "chatRoom");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an actor",
    note = "put `#[actor]` on its `impl` block"
)]
pub trait Actor: Default + Serialize + DeserializeOwned + JsonSchema + 'static {
    /// The methods, for timers and for other actors to invoke by way of `W`.
    #[doc(hidden)]
    type Methods<W>: Proxy<Way = W>;
    /// The name by which clients know the type.
    const NAME: &'static str;
    /// The doc comment of the `impl` block.
    #[doc(hidden)]
    const DESCRIPTION: Option<&'static str>;
    /// Members of the state that nobody but the actor is shown.
    #[doc(hidden)]
    const HIDDEN: &'static [&'static str];
    /// Which version of the state this is.
    #[doc(hidden)]
    const VERSION: u32;
    /// What makes such a state from one of another version.
    #[doc(hidden)]
    const MIGRATE: Option<Migrate<Self>>;
    /// What callers may invoke.
    #[doc(hidden)]
    const METHODS: &'static [Method<Self>];
    /// What the host calls, one function for a hook.
    #[doc(hidden)]
    const HOOKS: &'static [(Hook, Run<Self>)];
    /// Who may subscribe, if the actor decides it.
    #[doc(hidden)]
    const AUTHORIZE: Option<Look<Self, Subscriber, ()>>;
    /// When the host asks it again about those who subscribe, if not at each commit.
    #[doc(hidden)]
    const RECHECK: Option<&'static str>;
    /// What each client sees of the state, if the actor decides it.
    #[doc(hidden)]
    const PROJECT: Option<Look<Self, Viewer, View>>;
    /// The names of the events with the schemas of their payloads.
    #[doc(hidden)]
    fn events() -> Vec<(&'static str, Document)>;
}

/// What callers may invoke.
pub struct Method<A> {
    /// By which callers know it.
    pub name: &'static str,
    /// Its doc comment.
    pub description: Option<&'static str>,
    /// The schema of its input, if it has one.
    pub input: Option<fn() -> Document>,
    /// The schema of its result, if it has one.
    pub output: fn() -> Option<Document>,
    /// How often subscribers see what it changes while it runs, in milliseconds, if they do.
    pub stream_ms: Option<u64>,
    /// How long a turn of it may take, in milliseconds, in place of the host's default.
    pub deadline_ms: Option<u64>,
    /// When it runs by the clock, if it does.
    pub cron: Option<Cron>,
    /// How to call it.
    pub run: Run<A>,
}

/// When a method runs by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cron {
    /// At every multiple of so many milliseconds.
    Every(u64),
    /// When a cron expression says so.
    Schedule(&'static str),
}

/// How a method or hook gets at the state. It decides what the dispatch loads and saves.
pub enum Run<A> {
    /// `&self`: the state is decoded and not written back.
    Read(fn(&A, &mut Context<A>, Input<'_>) -> Outcome),
    /// `&mut self`: the state is decoded, and written back when it changed.
    Write(fn(&mut A, &mut Context<A>, Input<'_>) -> Outcome),
    /// `Tracked<Self>`: the state stays with the host.
    Tracked(fn(&mut Tracked<A>, &mut Context<A>, Input<'_>) -> Outcome),
    /// `Live<Self>`: the state is decoded, and written back whenever the method waits.
    Live(fn(&mut Live<A>, Input<'_>) -> Outcome),
}

/// How a function that decides about a `W` gets at the state.
pub enum Look<A, W, R> {
    /// `&self`: the state is decoded.
    Read(fn(&A, &W) -> Result<R, Failure>),
    /// `&Tracked<Self>`: the state stays with the host.
    Tracked(fn(&Tracked<A>, &W) -> Result<R, Failure>),
}

/// How an actor makes its state from one of another version.
pub type Migrate<A> = fn(&Stored) -> Result<A, Failure>;

/// The result of a turn: JSON text, or nothing.
pub type Outcome = Result<Option<String>, Failure>;

/// A moment in an actor's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// It entered memory.
    Activate,
    /// It is about to leave memory.
    Deactivate,
    /// First contact of a connection.
    Connect,
    /// Such a connection has closed.
    Disconnect,
}

impl Hook {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Deactivate => "deactivate",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
        }
    }
}

/// What a caller sent: JSON text, or nothing.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub(crate) Option<&'a str>);

impl Input<'_> {
    /// Decodes the whole input; an absent one is `null`, where the type takes that.
    pub fn whole<T: DeserializeOwned>(self) -> Result<T, Failure> {
        match self.0 {
            Some(text) => decode(text),
            None => decode("null").map_err(|_| missing()),
        }
    }

    /// Decodes an object of parameters; an absent input is an object without members.
    pub fn parameters<T: DeserializeOwned>(self) -> Result<T, Failure> {
        match self.0 {
            Some(text) if text.trim() != "null" => decode(text),
            _ => decode("{}"),
        }
    }
}

/// The failure of a call without the input that its method needs.
fn missing() -> Failure {
    Failure::new("input.invalid").message("/: missing")
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    crate::place::decode(text).map_err(|error| Failure::new("input.invalid").message(error))
}

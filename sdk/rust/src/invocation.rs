//! Calls to other actors: typed where the actor type is known to the crate, by name
//! otherwise; one at a time or several at once; with the result awaited, or not.

use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::actor::Actor;
use crate::host;
use crate::proxy::{self, Encoded, Proxy, Way};
use crate::timer::whole_millis;
use crate::{Context, Failure};

/// One call to an actor, whose result is a `T`: made by [`to`](Invocation::to) or
/// [`by_name`](Self::by_name), given options, and then [called](Self::call),
/// [sent](Self::send), or called with others at once ([`Context::call_all`]).
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test::{self, json};
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Shelf { books: u32 }
///
/// #[actor]
/// impl Shelf {
///     pub fn count(&self) -> u32 { self.books }
/// }
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Library {}
///
/// #[actor]
/// impl Library {
///     pub fn books(&self, ctx: &mut Context<Self>) -> u32 {
///         let shelves = ["a", "b", "c"];
///         let counts = ctx.call_all(shelves.map(|shelf| {
///             Invocation::to::<Shelf>(shelf).count().within(secs(1))
///         }));
///         counts.into_iter().flatten().sum()
///     }
/// }
///
/// let mut library = test::Actor::<Library>::new("main");
/// library.on_call(|call| match call.id() {
///     "b" => Err(Failure::new("call.timeout")),
///     _ => Ok(json!(7)),
/// });
/// assert_eq!(library.invoke("books", None), Ok(json!(14)));
/// ```
#[must_use = "nothing happens before `call` or `send`"]
pub struct Invocation<T> {
    /// The call, or why it cannot be made.
    wanted: Result<host::Invocation, Failure>,
    result: PhantomData<fn() -> T>,
}

/// The way to make an [`Invocation`].
pub struct Preparing {
    actor: &'static str,
    id: String,
}

impl<T> Way<T> for Preparing {
    type Returned = Invocation<T>;
    const READS: bool = true;

    fn invoke(self, method: &'static str, input: Encoded) -> Invocation<T> {
        Invocation::new(self.actor, self.id, method, input)
    }
}

/// The way to call and wait.
pub struct Calling<'a, A> {
    context: &'a mut Context<A>,
    to: Preparing,
}

impl<A, T: DeserializeOwned> Way<T> for Calling<'_, A> {
    type Returned = Result<T, Failure>;
    const READS: bool = true;

    fn invoke(self, method: &'static str, input: Encoded) -> Result<T, Failure> {
        let invocation: Invocation<T> = self.to.invoke(method, input);
        invocation.call(self.context)
    }
}

/// The way to call without waiting.
pub struct Sending<'a, A> {
    context: &'a mut Context<A>,
    to: Preparing,
}

impl<A, T> Way<T> for Sending<'_, A> {
    type Returned = ();
    const READS: bool = false;

    fn invoke(self, method: &'static str, input: Encoded) {
        let invocation: Invocation<T> = self.to.invoke(method, input);
        invocation.send(self.context);
    }
}

impl Invocation<()> {
    /// A call to the actor of type `A` with this id: name the method, with its input.
    pub fn to<A: Actor>(id: impl Into<String>) -> A::Methods<Preparing> {
        Proxy::over(preparing::<A>(id))
    }
}

fn preparing<A: Actor>(id: impl Into<String>) -> Preparing {
    Preparing {
        actor: A::NAME,
        id: id.into(),
    }
}

impl<T> Invocation<T> {
    /// A call by names. A method without input takes `&()`.
    pub fn by_name(
        actor: impl Into<String>,
        id: impl Into<String>,
        method: impl Into<String>,
        input: &(impl Serialize + ?Sized),
    ) -> Self {
        Self::new(actor, id, method, proxy::encode(input).map(Some))
    }

    fn new(
        actor: impl Into<String>,
        id: impl Into<String>,
        method: impl Into<String>,
        input: Encoded,
    ) -> Self {
        Self {
            wanted: input.map(|input| host::Invocation {
                actor: actor.into(),
                id: id.into(),
                method: method.into(),
                input,
                key: None,
                timeout_ms: None,
            }),
            result: PhantomData,
        }
    }

    /// How long to wait at most; the call then fails with `call.timeout`. Otherwise until the
    /// deadline of the turn.
    pub fn within(mut self, timeout: Duration) -> Self {
        if let Ok(wanted) = &mut self.wanted {
            wanted.timeout_ms = Some(whole_millis(timeout));
        }
        self
    }

    /// An idempotency key: a second call of this actor with the same key, to the same method
    /// of the same actor, returns the first one's result.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        if let Ok(wanted) = &mut self.wanted {
            wanted.key = Some(key.into());
        }
        self
    }

    /// Calls and waits, as [`Context::call`] does.
    pub fn call<A>(self, ctx: &mut Context<A>) -> Result<T, Failure>
    where
        T: DeserializeOwned,
    {
        let mut results = ctx.call_all([self]);
        results
            .pop()
            .unwrap_or_else(|| Err(Failure::new("call.unanswered").status(500)))
    }

    /// Calls when the turn has succeeded and does not wait, as [`Context::send`] does.
    pub fn send<A>(self, ctx: &mut Context<A>) {
        let sent = self.wanted.and_then(|wanted| ctx.host().send(wanted));
        ctx.staged(sent);
    }
}

impl<A> Context<A> {
    /// Calls another actor and waits for the result: name the method, with its input.
    ///
    /// The call is *live*: the other actor keeps what it did even when this turn fails
    /// afterwards. This actor's queue waits too. A call that would wait for itself, directly
    /// or through others, fails with `call.deadlock`.
    ///
    /// The state of this turn is staged, not committed: the other actor does not see it.
    ///
    /// ```
    /// use tidegate_sdk::prelude::*;
    /// use tidegate_sdk::test::{self, json};
    ///
    /// #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// struct Match { players: Vec<String> }
    ///
    /// #[actor]
    /// impl Match {
    ///     pub fn initialize(&mut self, players: Vec<String>) -> usize {
    ///         self.players = players;
    ///         self.players.len()
    ///     }
    /// }
    ///
    /// #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// struct Lobby { players: Vec<String>, matches: u32 }
    ///
    /// #[actor]
    /// impl Lobby {
    ///     pub fn start_match(&mut self, ctx: &mut Context<Self>) -> Result<String> {
    ///         self.matches += 1;
    ///         let id = format!("{}-{}", ctx.id(), self.matches);
    ///         let players = std::mem::take(&mut self.players);
    ///         ctx.call::<Match>(&id).initialize(players)?;
    ///         Ok(id)
    ///     }
    /// }
    ///
    /// let mut lobby = test::Actor::<Lobby>::new("l");
    /// lobby.set_state(json!({"players": ["Ann", "Ben"], "matches": 0}));
    /// lobby.on_call(|_| Ok(json!(2)));
    /// assert_eq!(lobby.invoke("startMatch", None), Ok(json!("l-1")));
    /// let call = &lobby.calls()[0];
    /// assert_eq!((call.actor(), call.id(), call.method()), ("match", "l-1", "initialize"));
    /// assert_eq!(call.input(), Some(json!({"players": ["Ann", "Ben"]})));
    /// ```
    pub fn call<B: Actor>(&mut self, id: impl Into<String>) -> B::Methods<Calling<'_, A>> {
        Proxy::over(Calling {
            context: self,
            to: preparing::<B>(id),
        })
    }

    /// Calls another actor when this turn has succeeded, and does not wait: name the method,
    /// with its input. Nobody hears of the result. A turn that fails sends nothing.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Worker {}
    /// # #[actor] impl Worker { pub fn process(&mut self, items: Vec<String>) {} }
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Boss { items: Vec<String> }
    /// # #[actor] impl Boss {
    /// pub fn delegate(&mut self, ctx: &mut Context<Self>) {
    ///     for worker in ["a", "b", "c"] {
    ///         ctx.send::<Worker>(worker).process(self.items.clone());
    ///     }
    /// }
    /// # }
    /// let mut ctx = Context::test();
    /// Boss::default().delegate(&mut ctx);
    /// assert_eq!(ctx.sent().len(), 3);
    /// ```
    pub fn send<B: Actor>(&mut self, id: impl Into<String>) -> B::Methods<Sending<'_, A>> {
        Proxy::over(Sending {
            context: self,
            to: preparing::<B>(id),
        })
    }

    /// [`call`](Self::call) by names, for actor types that this crate does not know. A method
    /// without input takes `&()`. Fails with `call.mismatch` when the result is not a `T`.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # use tidegate_sdk::test::json;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Agent {}
    /// # #[actor] impl Agent {}
    /// fn search(ctx: &mut Context<Agent>, query: &str) -> Result<Vec<String>> {
    ///     ctx.call_by_name("researcher", "topic", "search", &json!({"query": query}))
    /// }
    /// let mut ctx = Context::test().on_call(|_| Ok(json!(["one", "two"])));
    /// assert_eq!(search(&mut ctx, "…").unwrap(), ["one", "two"]);
    /// ```
    pub fn call_by_name<T: DeserializeOwned>(
        &mut self,
        actor: impl Into<String>,
        id: impl Into<String>,
        method: impl Into<String>,
        input: &(impl Serialize + ?Sized),
    ) -> Result<T, Failure> {
        Invocation::by_name(actor, id, method, input).call(self)
    }

    /// [`send`](Self::send) by names, for actor types that this crate does not know. A method
    /// without input takes `&()`.
    ///
    /// ```
    /// # use tidegate_sdk::prelude::*;
    /// # use tidegate_sdk::test::json;
    /// # #[derive(Default, Serialize, Deserialize, JsonSchema)] struct Agent {}
    /// # #[actor] impl Agent {}
    /// let mut ctx = Context::<Agent>::test();
    /// ctx.send_by_name("worker", "abc", "process", &json!({"data": [1, 2]}));
    /// assert_eq!(ctx.sent()[0].actor(), "worker");
    /// ```
    pub fn send_by_name(
        &mut self,
        actor: impl Into<String>,
        id: impl Into<String>,
        method: impl Into<String>,
        input: &(impl Serialize + ?Sized),
    ) {
        Invocation::<()>::by_name(actor, id, method, input).send(self);
    }

    /// Makes several calls at once and waits for all of them: the results in the order of the
    /// calls. See [`Invocation`].
    pub fn call_all<T: DeserializeOwned>(
        &mut self,
        calls: impl IntoIterator<Item = Invocation<T>>,
    ) -> Vec<Result<T, Failure>> {
        let fit = self.before_waiting();
        let mut wanted = Vec::new();
        let refused: Vec<Option<Failure>> = calls
            .into_iter()
            .map(|call| match (call.wanted, &fit) {
                (Ok(invocation), Ok(())) => {
                    wanted.push(invocation);
                    None
                }
                (Err(failure), _) => Some(failure),
                (_, Err(failure)) => Some(failure.clone()),
            })
            .collect();
        let mut answers = match wanted.is_empty() {
            true => Vec::new(),
            false => self.host().call(wanted),
        }
        .into_iter();
        refused
            .into_iter()
            .map(|refused| match refused {
                Some(failure) => Err(failure),
                None => match answers.next() {
                    Some(answer) => decode(answer?.as_deref()),
                    None => Err(Failure::new("call.unanswered").status(500)),
                },
            })
            .collect()
    }
}

fn decode<T: DeserializeOwned>(answer: Option<&str>) -> Result<T, Failure> {
    crate::place::decode(answer.unwrap_or("null")).map_err(|error| {
        Failure::new("call.mismatch")
            .message(format!("the result does not fit: {error}"))
            .status(500)
    })
}

//! `#[before]`: what decides about a call ahead of its method, inside the same turn. The
//! code that `#[actor]` writes calls the author's function and hands what it returns to the
//! methods that ask for it, so the types of both are checked where the author wrote them.

use serde::de::DeserializeOwned;

use crate::actor::{Input, Outcome};
use crate::context::Origin;
use crate::state::Decoded;
use crate::{Actor, Context, Failure, Tracked};

/// A call that a `#[before]` function decides about: which method, with what input. Who calls
/// is in the [`Context`].
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test::{self, json};
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Board { posts: Vec<String> }
///
/// #[derive(Deserialize)]
/// struct Claims { sub: String }
///
/// #[actor]
/// impl Board {
///     /// Everybody reads, who has a token writes.
///     #[before]
///     fn author(&self, ctx: &Context<Self>, call: &Call<'_>) -> Result<Option<String>> {
///         let claims: Option<Claims> = ctx.user()?;
///         if claims.is_none() && call.method() != "posts" {
///             return Err(Failure::new("board.sign-in").status(401));
///         }
///         Ok(claims.map(|claims| claims.sub))
///     }
///
///     pub fn post(&mut self, #[before] author: Option<String>, text: String) {
///         self.posts.push(format!("{}: {text}", author.unwrap_or_default()));
///     }
///
///     pub fn posts(&self) -> Vec<String> { self.posts.clone() }
/// }
///
/// let mut board = test::Actor::<Board>::new("a");
/// let refused = board.invoke("post", json!({"text": "Hi"})).unwrap_err();
/// assert_eq!(refused.code(), "board.sign-in");
/// board.user(json!({"sub": "ann"})).invoke("post", json!({"text": "Hi"})).unwrap();
/// assert_eq!(board.invoke("posts", None), Ok(json!(["ann: Hi"])));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    method: &'a str,
    input: Input<'a>,
}

impl<'a> Call<'a> {
    #[doc(hidden)]
    pub fn new(method: &'a str, input: Input<'a>) -> Self {
        Self { method, input }
    }

    /// The method, by the name that callers know.
    pub fn method(&self) -> &str {
        self.method
    }

    /// The input, decoded. An absent one is `null`, or an object without members for a `T`
    /// that is never `null`. Fails with `input.invalid` when the input is not a `T`.
    ///
    /// ```
    /// use tidegate_sdk::prelude::*;
    ///
    /// /// The input of every method that is about an amount.
    /// #[derive(Deserialize)]
    /// struct Amount { amount: u64 }
    ///
    /// fn check(call: &Call<'_>) -> Result<()> {
    ///     if call.method() == "pay" && call.input::<Amount>()?.amount > 1_000 {
    ///         return Err(Failure::new("bank.too-much").param("max", 1_000));
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        match self.input.0 {
            Some(_) => self.input.whole(),
            None => self.input.whole().or_else(|_| self.input.parameters()),
        }
    }

    /// The input as JSON text; `None` when it is absent.
    pub fn raw_input(&self) -> Option<&str> {
        self.input.0
    }
}

/// Whether somebody called: not the host and not the actor itself, by a timer or a schedule.
pub fn is_called<A>(ctx: &Context<A>) -> bool {
    matches!(ctx.turn.origin, Origin::Client(_) | Origin::Actor { .. })
}

/// The outcome of a call that `#[before]` refuses: the method has not run.
pub fn refuse<A>(ctx: &mut Context<A>, failure: Failure) -> Outcome {
    ctx.refused = true;
    Err(failure)
}

/// The state by place, for a `#[before]` that wants it so ahead of a method that does not.
pub fn tracked<A: Actor>(ctx: &Context<A>) -> Tracked<A> {
    Tracked::new(ctx.host())
}

/// The decoded state, for a `#[before]` that wants it so ahead of a method that does not.
pub struct Whole<A>(Box<Decoded<A>>);

impl<A: Actor> Whole<A> {
    /// Decodes the state, unless it is kept.
    pub fn load(ctx: &Context<A>) -> Result<Self, Failure> {
        Decoded::load(&*ctx.host(), ctx.id()).map(Self)
    }

    /// The state.
    pub fn state(&self) -> &A {
        &self.0.value
    }

    /// Keeps it for later.
    pub fn keep(self) {
        self.0.keep();
    }
}

/// Every type passes as itself, and nothing else does: this gives the mistake of a method
/// that asks for another type than `#[before]` returns words of its own.
#[diagnostic::on_unimplemented(
    message = "`#[before]` returns `{Self}`, but this method asks for `{Wanted}`",
    label = "`#[before]` returns `{Self}`",
    note = "the parameter's type is what `#[before]` returns, without its `Result`: `&T` or `T`"
)]
pub trait Passes<Wanted: ?Sized> {
    /// By reference.
    fn pass(&self) -> &Wanted;
    /// By value.
    fn pass_whole(self) -> Wanted
    where
        Wanted: Sized;
}

impl<T> Passes<T> for T {
    fn pass(&self) -> &T {
        self
    }

    fn pass_whole(self) -> T {
        self
    }
}

/// What `#[before]` returned, by reference.
pub fn passed<Wanted: ?Sized, Given: Passes<Wanted>>(given: &Given) -> &Wanted {
    given.pass()
}

/// What `#[before]` returned, by value.
pub fn passed_whole<Wanted, Given: Passes<Wanted>>(given: Given) -> Wanted {
    given.pass_whole()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;
    use crate::dispatch;
    use crate::host::Host;
    use crate::prelude::*;
    use crate::recorder::Recorder;
    use crate::timer::Firing;

    /// Where callers leave their names; every method counts the guard's runs.
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Desk {
        open: bool,
        names: Vec<String>,
    }

    #[derive(Event)]
    enum DeskEvent {
        Knock,
    }

    #[derive(Debug, PartialEq)]
    struct Guest {
        name: String,
    }

    #[derive(Deserialize)]
    struct Options {
        shout: Option<bool>,
    }

    #[actor(events = DeskEvent)]
    impl Desk {
        #[before]
        fn guest(&self, call: &Call<'_>, ctx: &mut Context<Self>) -> Result<Guest> {
            ctx.emit(DeskEvent::Knock);
            if !self.open && call.method() != "openUp" {
                return Err(Failure::new("desk.closed"));
            }
            let shout = call.input::<Options>()?.shout == Some(true);
            Ok(Guest {
                name: ctx.id().to_owned() + if shout { "!" } else { "" },
            })
        }

        #[method(name = "openUp")]
        pub fn open(&mut self) {
            self.open = true;
        }

        pub fn sign(&mut self, #[before] guest: Guest, times: usize) -> usize {
            self.names.extend(vec![guest.name; times]);
            self.names.len()
        }

        pub fn name(&self, #[before] guest: &Guest) -> String {
            guest.name.clone()
        }

        pub fn push(state: &mut Tracked<Self>, #[before] guest: &Guest) -> Result<()> {
            state.push(["names"], &guest.name)
        }

        pub fn peek(&self) -> usize {
            self.names.len()
        }
    }

    /// An actor with a guard that reads by place.
    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Shelf {
        open: bool,
        #[serde(default)]
        books: usize,
    }

    #[actor]
    impl Shelf {
        #[before]
        fn guard(state: &Tracked<Self>) -> Result<bool> {
            match state.get(["open"])? {
                Some(true) => Ok(true),
                _ => Err(Failure::new("shelf.closed")),
            }
        }

        pub fn put(&mut self, #[before] _open: bool) -> usize {
            self.books += 1;
            self.books
        }

        pub fn count(state: &Tracked<Self>, #[before] _open: &bool) -> Result<Option<usize>> {
            state.get(["books"])
        }
    }

    fn call<A: Actor>(
        host: &Rc<Recorder>,
        origin: Origin,
        method: &str,
        input: Option<Value>,
    ) -> Outcome {
        let mut turn = Context::<A>::test().origin(origin).turn().clone();
        turn.actor_id = "ann".to_owned();
        let input = input.map(|input| input.to_string());
        dispatch::invoke::<A>(
            Rc::clone(host) as Rc<dyn Host>,
            turn,
            method,
            input.as_deref(),
        )
    }

    fn as_client<A: Actor>(host: &Rc<Recorder>, method: &str, input: Option<Value>) -> Outcome {
        let origin = Context::<A>::test().turn().origin.clone();
        call::<A>(host, origin, method, input)
    }

    fn desk(open: bool) -> Rc<Recorder> {
        Rc::new(Recorder::new(json!({"open": open, "names": []})))
    }

    fn code(outcome: Outcome) -> String {
        outcome.unwrap_err().code().to_owned()
    }

    fn knocks(host: &Recorder) -> usize {
        host.with(|recording| std::mem::take(&mut recording.events).len())
    }

    #[test]
    fn a_refused_call_does_not_reach_its_method() {
        let host = desk(false);
        let refused = as_client::<Desk>(&host, "sign", Some(json!({"times": 1})));
        assert_eq!(code(refused), "desk.closed");
        assert_eq!(host.state(), json!({"open": false, "names": []}));
        assert_eq!(as_client::<Desk>(&host, "openUp", None), Ok(None));
        assert_eq!(host.state()["open"], true);
    }

    #[test]
    fn a_refused_call_keeps_the_decoded_state() {
        let host = desk(false);
        for _ in 0..3 {
            let refused = as_client::<Desk>(&host, "sign", Some(json!({"times": 1})));
            assert_eq!(code(refused), "desk.closed");
        }
        assert_eq!(host.with(|recording| recording.reads), 1);
    }

    #[test]
    fn what_it_returns_reaches_methods_of_every_kind() {
        let host = desk(true);
        let signed = as_client::<Desk>(&host, "sign", Some(json!({"times": 2})));
        assert_eq!(signed, Ok(Some("2".to_owned())));
        as_client::<Desk>(&host, "push", Some(json!({"shout": true}))).unwrap();
        let name = as_client::<Desk>(&host, "name", None);
        assert_eq!(name, Ok(Some(r#""ann""#.to_owned())));
        assert_eq!(host.state()["names"], json!(["ann", "ann", "ann!"]));
    }

    #[test]
    fn a_guard_by_place_stands_before_methods_of_every_kind() {
        let host = Rc::new(Recorder::new(json!({"open": false, "books": 0})));
        for method in ["put", "count"] {
            let refused = as_client::<Shelf>(&host, method, None);
            assert_eq!(code(refused), "shelf.closed");
        }
        host.set_state(json!({"open": true, "books": 1}));
        assert_eq!(
            as_client::<Shelf>(&host, "put", None),
            Ok(Some("2".to_owned()))
        );
        assert_eq!(
            as_client::<Shelf>(&host, "count", None),
            Ok(Some("2".to_owned()))
        );
    }

    #[test]
    fn clients_and_actors_are_asked_and_the_actor_itself_is_not() {
        let host = desk(false);
        let client = Context::<Desk>::test().turn().origin.clone();
        let other = Origin::Actor {
            actor: "desk".to_owned(),
            id: "other".to_owned(),
        };
        for origin in [client, other] {
            assert_eq!(
                code(call::<Desk>(&host, origin, "peek", None)),
                "desk.closed"
            );
            assert_eq!(knocks(&host), 1);
        }
        for origin in [
            Origin::Timer(Firing::new(1, 0)),
            Origin::Cron(Firing::new(0, 0)),
            Origin::Host,
        ] {
            let outcome = call::<Desk>(&host, origin, "peek", None);
            assert_eq!(outcome, Ok(Some("0".to_owned())));
            assert_eq!(knocks(&host), 0);
        }
    }

    #[test]
    fn a_method_that_asks_for_its_value_never_runs_without_it() {
        let host = desk(false);
        let timer = || Origin::Timer(Firing::new(1, 0));
        assert_eq!(
            code(call::<Desk>(&host, timer(), "name", None)),
            "desk.closed"
        );
        let host = desk(true);
        let name = call::<Desk>(&host, timer(), "name", None);
        assert_eq!(name, Ok(Some(r#""ann""#.to_owned())));
    }

    #[test]
    fn an_absent_input_is_null_or_an_object_without_members() {
        let absent = Call::new("m", Input(None));
        assert_eq!(absent.input::<Option<u8>>(), Ok(None));
        assert_eq!(absent.input::<Options>().map(|o| o.shout), Ok(None));
        assert_eq!(absent.raw_input(), None);
        let failure = absent.input::<u8>().unwrap_err();
        assert_eq!(failure.code(), "input.invalid");
        let present = Call::new("m", Input(Some(r#"{"shout": 7}"#)));
        let failure = present.input::<Options>().map(|o| o.shout).unwrap_err();
        assert!(failure.text().starts_with("/shout: "), "{failure}");
    }

    #[test]
    fn what_it_returns_is_no_part_of_the_input() {
        let manifest = crate::manifest::describe::<Desk>();
        let members = manifest["methods"]["sign"]["input"]["properties"].clone();
        assert_eq!(members.as_object().unwrap().len(), 1, "{members}");
        assert_eq!(manifest["methods"]["name"].get("input"), None);
        assert_eq!(manifest["methods"].get("guest"), None);
    }
}

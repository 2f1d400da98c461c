//! The attribute and derive macros of `tidegate-sdk`, which re-exports and documents them.
//! Each reads the author's code into a small model, reports misuse at the author's own
//! tokens, and writes tables that the SDK interprets.

mod actor;
mod event;
mod failure;
mod hygiene;
mod method;
mod migrate;
mod name;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes an actor of a type: goes on its `impl` block.
///
/// Every `pub fn` with a receiver is a method that clients can call:
///
/// | the author writes | and gets |
/// |---|---|
/// | `pub fn add(&mut self, …)` | a method that changes the state |
/// | `pub fn total(&self, …)` | a method that only reads it |
/// | `pub fn add(state: &mut Tracked<Self>, …)` | a method on a state that is not decoded |
/// | a parameter `ctx: &mut Context<Self>` or `&Context<Self>` | the turn: who called, when, and a way to emit |
/// | a parameter named `input` | the whole input |
/// | any other parameters | members of the input object, by their names in lower camelCase; `Option<T>` is optional |
/// | `-> T`, `-> Result<T, E>` with `E: Into<Failure>` | the result, or a failure that undoes the turn |
/// | a doc comment, on a method or a parameter | its description in the manifest |
/// | `#[serde(…)]`, `#[schemars(…)]` on a parameter | the same as on a field |
/// | `#[method(name = "…")]` | another name than the function's in lower camelCase |
/// | `#[activate]`, `#[deactivate]`, `#[connect]`, `#[disconnect]` | a hook, called by the host only |
/// | `#[cron(every = "30s")]`, `#[cron(schedule = "0 3 * * *")]` | a method that runs by the clock while the actor is in memory; it must do without input |
/// | `#[stream]`, `#[stream(interval = "16ms")]` on `pub fn f(state: &mut Live<Self>, …)` | a method whose changes subscribers see while it runs; `&mut Tracked<Self>` streams too |
/// | `#[deadline("5m")]` | how long a turn of the method may take |
/// | `#[before] fn f(&self, ctx: &Context<Self>, call: &Call<'_>) -> Result<T, E>` | what runs before each method that a client or another actor calls; `Err` refuses the call |
/// | a parameter `#[before] x: &T`, or `x: T` | what `#[before]` returned |
/// | `#[authorize] fn f(&self, who: &Subscriber) -> Result<(), E>` | who may subscribe to the state and to the events, and read them |
/// | `#[authorize(recheck = "later")]` | the same, asked again some time after a change of the state instead of before the change is sent |
/// | `#[project] fn f(&self, who: &Viewer) -> View` | what of the state each of them sees |
/// | `#[migrate] fn f(stored: &Stored) -> Result<Self, E>` | the state, from one that another version of the component has stored |
///
/// Every method can also be named by timers (`ctx.after(secs(10)).add(1)`) and by other actors
/// (`ctx.call::<Chat>("room-1").add(1)`), with the same parameters but for the context and what
/// `#[before]` returns. These then need `Serialize`, and a result that is read `Deserialize`.
///
/// `#[before]`, `#[authorize]` and `#[project]` functions also take `state: &Tracked<Self>` in
/// the place of `&self`. An actor has one of each at most; one that should do several things
/// calls several functions. An actor with `#[authorize]` or `#[project]` is exported by
/// `export!(guarded Chat)`, one with `#[migrate]` by `export!(migrating Chat)`.
///
/// `#[before]` runs inside the turn, but not before hooks, nor before methods that the
/// actor's own timers and schedules call: these come from the actor itself. A method that
/// asks for what it returns never runs without it, whoever calls.
///
/// Arguments: `name = "…"` (else the type's name in lower camelCase), `events = E` or
/// `events(E, F)` (the types of the events that it emits), `hidden("a", "b")` (members of
/// the state that nobody but the actor is shown), `version = 1` (which version of the state
/// this is, else 0: states that were stored under another one go through `#[migrate]`).
#[proc_macro_attribute]
pub fn actor(arguments: TokenStream, item: TokenStream) -> TokenStream {
    actor::expand(arguments.into(), item.into()).into()
}

/// Has the component test itself before it takes over: goes on one plain function without
/// parameters, at most once in a component.
///
/// It returns nothing, or a `Result<(), E>` with `E: Into<Failure>`. The host calls it on a new
/// instance after an upload and before a rollback, and refuses the component with
/// `component.self-test` when it fails, panics or takes longer than a turn may. It sees the
/// component's variables, and nothing of the host.
#[proc_macro_attribute]
pub fn self_test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    migrate::expand_self_test(arguments.into(), item.into()).into()
}

/// Implements the trait `Event`: a family of events from an enum, or one from a struct.
///
/// On an enum, each variant is an event: its name in lower camelCase, and as payload what
/// the variant holds (`null` when it holds nothing). Fields are camelCase on the wire; they
/// take `#[serde(…)]` and `#[schemars(…)]` attributes. On a struct, which then needs
/// `Serialize` and `JsonSchema`, the event's name is the struct's and the payload the
/// struct. `#[event(name = "…")]` on either gives another name.
#[proc_macro_derive(Event, attributes(event, serde, schemars))]
pub fn event(item: TokenStream) -> TokenStream {
    event::expand(parse_macro_input!(item))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Implements `Into<Failure>` for an enum of reasons, or for a struct that is one.
///
/// The code is `#[failure(prefix = "…")]` of the type, a dot, and the variant's name in
/// kebab case; the params are the variant's fields, in lower camelCase. On a variant:
/// `#[failure(status = 403)]`, `message = "only {owner} may do this"`, `code = "…"` (the
/// whole code), or `transparent` for a variant that holds another failure and is made
/// from it by `?`.
#[proc_macro_derive(Failure, attributes(failure))]
pub fn failure(item: TokenStream) -> TokenStream {
    failure::expand(parse_macro_input!(item))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

//! [`export!`](crate::export): makes a component of actor types. Implements the exports of
//! `wit/` for any [`Handler`]; `access` is exported only where an actor is marked `guarded`,
//! `migrate` only where one is marked `migrating`.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::access::{Shown, Subject, Subscriber, Viewer};
use crate::actor::Hook;
use crate::bindings::exports::tidegate::realtime::{actor, manifest};
use crate::bindings::guard::exports::tidegate::realtime::access;
use crate::bindings::migration::exports::tidegate::realtime::migrate;
use crate::bindings::tidegate::realtime::types;
use crate::dispatch::{self, Handler};
use crate::imports;

/// The component of a handler.
pub struct Component<H>(PhantomData<H>);

impl<H: Handler> manifest::Guest for Component<H> {
    fn describe() -> String {
        crate::manifest::manifest::<H>()
    }
}

impl<H: Handler> actor::Guest for Component<H> {
    fn invoke(
        turn: types::Turn,
        method: String,
        input: Option<String>,
    ) -> Result<Option<String>, types::Failure> {
        let turn = imports::turn(turn);
        dispatch::invoke_any::<H>(imports::host(), turn, &method, input.as_deref())
            .map_err(imports::contract_failure)
    }

    fn activate(turn: types::Turn) -> Result<(), types::Failure> {
        hook::<H>(turn, Hook::Activate)
    }

    fn deactivate(turn: types::Turn) -> Result<(), types::Failure> {
        hook::<H>(turn, Hook::Deactivate)
    }

    fn connect(turn: types::Turn) -> Result<(), types::Failure> {
        hook::<H>(turn, Hook::Connect)
    }

    fn disconnect(turn: types::Turn) -> Result<(), types::Failure> {
        hook::<H>(turn, Hook::Disconnect)
    }
}

fn hook<H: Handler>(turn: types::Turn, hook: Hook) -> Result<(), types::Failure> {
    dispatch::hook_any::<H>(imports::host(), imports::turn(turn), hook)
        .map_err(imports::contract_failure)
}

impl<H: Handler> access::Guest for Component<H> {
    fn authorize(
        this: types::ActorRef,
        who: Vec<access::Subscription>,
    ) -> Vec<Result<(), types::Failure>> {
        let id = Rc::from(this.id.as_str());
        let who: Vec<Subscriber> = who
            .into_iter()
            .map(|subscription| {
                let subject = match subscription.to {
                    access::Subject::State => Subject::State,
                    access::Subject::Events => Subject::Events,
                };
                Subscriber::new(viewer(&id, subscription.who), subject)
            })
            .collect();
        dispatch::authorize_any::<H>(imports::host(), &this.actor, &this.id, &who)
            .into_iter()
            .map(|decision| decision.map_err(imports::contract_failure))
            .collect()
    }

    fn project(this: types::ActorRef, who: Vec<types::Client>) -> Vec<access::View> {
        let id = Rc::from(this.id.as_str());
        let who: Vec<Viewer> = who.into_iter().map(|client| viewer(&id, client)).collect();
        dispatch::project_any::<H>(imports::host(), &this.actor, &this.id, &who)
            .into_iter()
            .map(|shown| match shown {
                Shown::Whole => access::View::Whole,
                Shown::Document(text) => access::View::Document(text),
                Shown::SameAs(place) => access::View::SameAs(place),
                Shown::Nothing => access::View::Nothing,
            })
            .collect()
    }
}

impl<H: Handler> migrate::Guest for Component<H> {
    fn migrate(
        this: types::ActorRef,
        state: String,
        version: u32,
    ) -> Result<String, types::Failure> {
        dispatch::migrate_any::<H>(&this.actor, &this.id, version, state)
            .map_err(imports::contract_failure)
    }
}

/// The outcome of a self-test, as the contract has it.
#[cfg(target_family = "wasm")]
pub fn tested(outcome: Result<(), crate::Failure>) -> Result<(), types::Failure> {
    outcome.map_err(imports::contract_failure)
}

fn viewer(actor_id: &Rc<str>, client: types::Client) -> Viewer {
    Viewer::new(Rc::clone(actor_id), imports::client(client))
}

/// Makes a component of one or more actor types: once, at the root of a `cdylib` crate.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// pub struct Counter { count: i64 }
///
/// #[actor]
/// impl Counter {
///     pub fn value(&self) -> i64 { self.count }
/// }
///
/// tidegate_sdk::export!(Counter);
/// # fn main() {}
/// ```
///
/// An actor that decides who may see it is marked `guarded`, and the component then exports
/// `access`; without the mark, or with one too many, it does not compile.
///
/// ```
/// # use tidegate_sdk::prelude::*;
/// # #[derive(Default, Serialize, Deserialize, JsonSchema)] pub struct Counter { count: i64 }
/// # #[actor] impl Counter {}
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// pub struct Safe { code: u32 }
///
/// #[actor]
/// impl Safe {
///     #[authorize]
///     fn may_see(&self, who: &Subscriber) -> Result<()> {
///         Err(Failure::new("safe.closed").status(403))
///     }
/// }
///
/// tidegate_sdk::export!(Counter, guarded Safe);
/// # fn main() {}
/// ```
///
/// In the same way one that makes its state from those of older versions, by `#[migrate]`, is
/// marked `migrating`, or `guarded migrating`; see [`Stored`](crate::Stored).
#[macro_export]
macro_rules! export {
    // The actors one by one: those before it in brackets, then whether any is guarded, and
    // whether any migrates.
    (@read [$($actors:tt)*] $guard:ident $move:ident;
        guarded migrating $actor:ty $(, $($rest:tt)*)?) => {
        $crate::export!(@read [$($actors)* {guarded migrating $actor}] guarded migrating;
            $($($rest)*)?);
    };
    (@read [$($actors:tt)*] $guard:ident $move:ident;
        migrating guarded $actor:ty $(, $($rest:tt)*)?) => {
        $crate::export!(@read [$($actors)* {guarded migrating $actor}] guarded migrating;
            $($($rest)*)?);
    };
    (@read [$($actors:tt)*] $guard:ident $move:ident;
        guarded $actor:ty $(, $($rest:tt)*)?) => {
        $crate::export!(@read [$($actors)* {guarded fixed $actor}] guarded $move; $($($rest)*)?);
    };
    (@read [$($actors:tt)*] $guard:ident $move:ident;
        migrating $actor:ty $(, $($rest:tt)*)?) => {
        $crate::export!(@read [$($actors)* {open migrating $actor}] $guard migrating;
            $($($rest)*)?);
    };
    (@read [$($actors:tt)*] $guard:ident $move:ident; $actor:ty $(, $($rest:tt)*)?) => {
        $crate::export!(@read [$($actors)* {open fixed $actor}] $guard $move; $($($rest)*)?);
    };
    (@read [$({$guarded:ident $moved:ident $actor:ty})+] $guard:ident $move:ident;) => {
        const _: () = {
            struct Exported;

            impl $crate::__private::Handler for Exported {
                const ACTORS: &'static [$crate::__private::ActorType] =
                    &[$($crate::__private::ActorType::of::<$actor>()),+];
            }

            assert!(
                $crate::__private::distinct(&[$(<$actor as $crate::Actor>::NAME),+]),
                "two of these actors have the same name: give one another with #[actor(name = \"…\")]",
            );
            $($crate::export!(@check $guarded $actor);)+
            $($crate::export!(@check $moved $actor);)+

            #[cfg(target_family = "wasm")]
            type Component = $crate::__private::Component<Exported>;
            #[cfg(target_family = "wasm")]
            $crate::bindings::export!(Component with_types_in $crate::bindings);
            $crate::export!(@also $guard);
            $crate::export!(@also $move);
        };
    };
    (@check guarded $actor:ty) => {
        assert!(
            $crate::__private::ActorType::of::<$actor>().is_guarded(),
            concat!(
                "`", stringify!($actor), "` has no #[authorize] and no #[project]: \
                 remove the mark `guarded`",
            ),
        );
    };
    (@check open $actor:ty) => {
        assert!(
            !$crate::__private::ActorType::of::<$actor>().is_guarded(),
            concat!(
                "`", stringify!($actor), "` decides who may see it, by #[authorize] or \
                 #[project]: mark it here, `guarded ", stringify!($actor), "`",
            ),
        );
    };
    (@check migrating $actor:ty) => {
        assert!(
            $crate::__private::ActorType::of::<$actor>().is_migrating(),
            concat!(
                "`", stringify!($actor), "` has no #[migrate]: remove the mark `migrating`",
            ),
        );
    };
    (@check fixed $actor:ty) => {
        assert!(
            !$crate::__private::ActorType::of::<$actor>().is_migrating(),
            concat!(
                "`", stringify!($actor), "` makes its state from older ones, by #[migrate]: \
                 mark it here, `migrating ", stringify!($actor), "`",
            ),
        );
    };
    (@also guarded) => {
        #[cfg(target_family = "wasm")]
        $crate::bindings::guard::export!(Component with_types_in $crate::bindings::guard);
    };
    (@also migrating) => {
        #[cfg(target_family = "wasm")]
        $crate::bindings::migration::export!(
            Component with_types_in $crate::bindings::migration
        );
    };
    (@also open) => {};
    (@also fixed) => {};
    ($($actors:tt)+) => {
        $crate::export!(@read [] open fixed; $($actors)+);
    };
}

//! [`export!`](crate::export): makes a component of actor types. Implements the exports of
//! `wit/` for any [`Handler`].

use std::marker::PhantomData;
use std::rc::Rc;

use crate::actor::Hook;
use crate::bindings::exports::tidegate::realtime::{actor, manifest};
use crate::bindings::tidegate::realtime::types;
use crate::dispatch::{self, Handler};
use crate::imports::{self, Imports};

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
        dispatch::invoke_any::<H>(Rc::new(Imports), turn, &method, input.as_deref())
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
    dispatch::hook_any::<H>(Rc::new(Imports), imports::turn(turn), hook)
        .map_err(imports::contract_failure)
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
#[macro_export]
macro_rules! export {
    ($($actor:ty),+ $(,)?) => {
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

            #[cfg(target_family = "wasm")]
            type Component = $crate::__private::Component<Exported>;
            #[cfg(target_family = "wasm")]
            $crate::bindings::export!(Component with_types_in $crate::bindings);
        };
    };
}

//! States that another version of the component has stored, and what `#[migrate]` makes of
//! them.

use serde::de::DeserializeOwned;

use crate::{Actor, Failure, state};

/// A state that another version of the component has stored: what a `#[migrate]` function
/// makes the actor's new state from.
///
/// The host asks for it when an actor's next turn, or somebody who looks at it, finds a state
/// whose [`version`](Stored::version) is not the one of `#[actor(version = …)]`, or which the
/// schema refuses. What the function returns is stored before anybody sees it. A failure
/// leaves everything as it is, and callers get `state.unfit`.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test::{self, json};
///
/// /// As it was before: one name.
/// #[derive(Deserialize)]
/// struct OnlyName { name: String }
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// struct Profile { first: String, last: String }
///
/// #[actor(version = 1)]
/// impl Profile {
///     #[migrate]
///     fn from_stored(stored: &Stored) -> Result<Self> {
///         match stored.version() {
///             0 => {
///                 let OnlyName { name } = stored.read()?;
///                 let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
///                 Ok(Profile { first: first.into(), last: last.into() })
///             }
///             _ => Err(Failure::new("profile.newer").message("roll forward again")),
///         }
///     }
/// }
///
/// // The mark has the component export `migrate`.
/// tidegate_sdk::export!(migrating Profile);
///
/// # fn main() {
/// let old = json!({"name": "Ann Lee"});
/// let new = test::Actor::<Profile>::migrate("ann", 0, old);
/// assert_eq!(new, Ok(json!({"first": "Ann", "last": "Lee"})));
/// let newer = test::Actor::<Profile>::migrate("ann", 2, json!({}));
/// assert_eq!(newer.unwrap_err().code(), "profile.newer");
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Stored {
    actor: &'static str,
    id: String,
    version: u32,
    text: String,
}

impl Stored {
    /// The id of the actor: `room-1` for `chat/room-1`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Which version of the state it is: that of `#[actor(version = …)]` at the time, 0 where
    /// there was none. It is higher than the actor's own when somebody went back to an older
    /// version of the component.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The state, as a type that it had then, or as a `serde_json::Value`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        crate::place::decode(&self.text).map_err(|error| state::mismatch(self.actor, &error))
    }

    /// The stored state as JSON text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A migration without its Rust type.
pub(crate) type Migrate = fn(&str, u32, String) -> Result<String, Failure>;

/// Why an actor type without `#[migrate]` takes no state of another version.
pub(crate) fn no_migration(actor: &str) -> Failure {
    Failure::new("state.unfit")
        .message(format!("the actor type {actor} has no `#[migrate]`"))
        .status(500)
}

/// The new state as JSON text.
pub(crate) fn migrate<A: Actor>(id: &str, version: u32, text: String) -> Result<String, Failure> {
    let migrate = A::MIGRATE.ok_or_else(|| no_migration(A::NAME))?;
    let stored = Stored {
        actor: A::NAME,
        id: id.to_owned(),
        version,
        text,
    };
    serde_json::to_string(&migrate(&stored)?).map_err(state::malformed)
}

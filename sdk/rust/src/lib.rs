#![doc = include_str!("../README.md")]

// The macros write `::tidegate_sdk::…`, also in this crate's own tests.
extern crate self as tidegate_sdk;

mod access;
mod actor;
mod before;
#[doc(hidden)]
pub mod bindings;
mod context;
mod dispatch;
mod event;
mod export;
mod failure;
mod host;
pub mod http;
mod imports;
mod invocation;
mod live;
mod manifest;
#[cfg(any(all(target_family = "wasm", feature = "allocator"), test))]
mod memory;
mod place;
mod pointer;
pub mod prelude;
mod proxy;
mod recorder;
mod returned;
#[doc(hidden)]
pub mod schema;
mod state;
mod stored;
pub mod test;
mod timer;
mod tracked;

#[cfg(all(target_family = "wasm", feature = "allocator"))]
#[global_allocator]
static ALLOCATOR: memory::Lists = memory::Lists::new();

pub use access::{Subject, Subscriber, View, Viewer};
pub use actor::Actor;
pub use before::Call;
pub use context::{Client, ConnectionIds, Context, Origin, Recipients, Turn};
pub use event::{Event, EventOf};
pub use failure::{Failure, Result};
pub use invocation::Invocation;
pub use live::Live;
pub use pointer::Pointer;
pub use stored::Stored;
pub use timer::{Firing, TimerId, TimerOptions, millis, minutes, secs};
pub use tracked::Tracked;

/// ```
/// use tidegate_sdk::prelude::*;
/// use tidegate_sdk::test::{self, json};
///
/// #[derive(Default, Serialize, Deserialize, JsonSchema)]
/// #[serde(rename_all = "camelCase")]
/// pub struct Shop { stock: u32, cash_box: u64 }
///
/// #[derive(Deserialize, JsonSchema)]
/// pub struct Order { pieces: u32, name: Option<String> }
///
/// #[actor(name = "corner-shop", hidden("cashBox"))]
/// impl Shop {
///     /// Fills the shelves.
///     pub fn restock(
///         &mut self,
///         /// How many pieces arrive.
///         #[schemars(range(min = 1))]
///         pieces: u32,
///         #[serde(default)]
///         paid_in_cash: bool,
///     ) {
///         self.stock += pieces;
///         self.cash_box += u64::from(paid_in_cash);
///     }
///
///     pub fn order(&mut self, input: Order) -> Result<u32> {
///         let left = self.stock.checked_sub(input.pieces);
///         self.stock = left.ok_or(Failure::new("shop.sold-out"))?;
///         Ok(self.stock)
///     }
///
///     #[method(name = "isOpen")]
///     pub fn open(&self) -> bool { true }
///
///     #[activate]
///     fn unlock(&mut self) {}
/// }
///
/// let mut shop = test::Actor::<Shop>::new("main-street");
/// shop.invoke("restock", json!({"pieces": 3, "paidInCash": true})).unwrap();
/// assert_eq!(shop.invoke("order", json!({"pieces": 2})), Ok(json!(1)));
/// assert_eq!(shop.invoke("isOpen", None), Ok(json!(true)));
/// assert_eq!(shop.manifest()["hooks"], json!(["activate"]));
/// ```
pub use tidegate_sdk_macros::actor;

/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Serialize, JsonSchema)]
/// pub struct Message { text: String }
///
/// #[derive(Event)]
/// pub enum ChatEvent {
///     /// Somebody said something.
///     MessageSent(Message),
///     Typing { user_name: String },
///     #[event(name = "wiped")]
///     Cleared,
/// }
///
/// let typing = ChatEvent::Typing { user_name: "Ann".into() };
/// assert_eq!(typing.name(), "typing");
/// assert_eq!(typing.payload().unwrap(), r#"{"userName":"Ann"}"#);
/// assert_eq!(ChatEvent::Cleared.name(), "wiped");
/// assert_eq!(ChatEvent::Cleared.payload().unwrap(), "null");
/// ```
pub use tidegate_sdk_macros::Event;

/// ```
/// use tidegate_sdk::prelude::*;
///
/// const GREETINGS: &str = r#"{"en": "Hello", "de": "Hallo"}"#;
///
/// #[self_test]
/// fn greetings_are_json() -> Result<()> {
///     match serde_json::from_str::<serde_json::Value>(GREETINGS) {
///         Ok(_) => Ok(()),
///         Err(error) => Err(Failure::new("greetings.broken").message(error.to_string())),
///     }
/// }
///
/// assert_eq!(greetings_are_json(), Ok(()));
/// ```
pub use tidegate_sdk_macros::self_test;

/// ```
/// use tidegate_sdk::prelude::*;
///
/// #[derive(Failure)]
/// #[failure(prefix = "room")]
/// pub enum RoomError {
///     Locked,
///     #[failure(status = 403, message = "only {owner} may do this")]
///     NotTheOwner { owner: String },
///     #[failure(transparent)]
///     Other(Failure),
/// }
///
/// let failure = Failure::from(RoomError::NotTheOwner { owner: "Ann".into() });
/// assert_eq!(failure.code(), "room.not-the-owner");
/// assert_eq!(failure.text(), "only Ann may do this");
/// assert_eq!(failure.params()["owner"], "Ann");
/// assert_eq!(failure.http_status(), Some(403));
/// ```
pub use tidegate_sdk_macros::Failure;

/// What the macros' code needs; no part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::actor::{Cron, Hook, Input, Look, Method, Migrate, Outcome, Run};
    pub use crate::before::{
        Call, Passes, Whole, is_called, passed, passed_whole, refuse, tracked,
    };
    pub use crate::dispatch::{ActorType, Handler};
    pub use crate::export::Component;
    #[cfg(target_family = "wasm")]
    pub use crate::export::tested;
    pub use crate::proxy::{Carries, Proxy, Way};
    pub use crate::returned::{Returned, ReturnedAny, Returns, ReturnsAny};
    pub use crate::schema::{self, Document};
    pub use {schemars, serde, serde_json};

    /// Whether no two of these names are equal.
    pub const fn distinct(names: &[&str]) -> bool {
        let mut i = 0;
        while i < names.len() {
            let mut j = i + 1;
            while j < names.len() {
                if equal(names[i].as_bytes(), names[j].as_bytes()) {
                    return false;
                }
                j += 1;
            }
            i += 1;
        }
        true
    }

    /// Whether no two names in any of these lists are equal; each list is distinct itself.
    pub const fn distinct_all(lists: &[&[&str]]) -> bool {
        let mut i = 0;
        while i < lists.len() {
            let mut j = i + 1;
            while j < lists.len() {
                if overlap(lists[i], lists[j]) {
                    return false;
                }
                j += 1;
            }
            i += 1;
        }
        true
    }

    const fn overlap(a: &[&str], b: &[&str]) -> bool {
        let mut i = 0;
        while i < a.len() {
            let mut j = 0;
            while j < b.len() {
                if equal(a[i].as_bytes(), b[j].as_bytes()) {
                    return true;
                }
                j += 1;
            }
            i += 1;
        }
        false
    }

    const fn equal(a: &[u8], b: &[u8]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        let mut i = 0;
        while i < a.len() {
            if a[i] != b[i] {
                return false;
            }
            i += 1;
        }
        true
    }
}

/// The guide and the project's front page, whose examples are tests too.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../docs/handlers.md")]
    struct Guide;
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    /// What is known only when a call is compiled: that a method hides its `Result` from it.
    ///
    /// ```compile_fail,E0080
    /// use tidegate_sdk::prelude::*;
    ///
    /// type Answer<T> = std::result::Result<T, Failure>;
    ///
    /// #[derive(Default, Serialize, Deserialize, JsonSchema)]
    /// struct Shy {}
    ///
    /// #[actor]
    /// impl Shy {
    ///     pub fn count(&self) -> Answer<u32> { Ok(1) }
    /// }
    ///
    /// let _ = Invocation::to::<Shy>("a").count();
    /// ```
    struct HiddenResult;
}

#![doc = include_str!("../README.md")]

// The macros write `::tidegate_sdk::…`, also in this crate's own tests.
extern crate self as tidegate_sdk;

mod actor;
#[doc(hidden)]
pub mod bindings;
mod context;
mod dispatch;
mod event;
mod export;
mod failure;
mod host;
mod imports;
mod manifest;
mod place;
mod pointer;
pub mod prelude;
mod recorder;
mod returned;
#[doc(hidden)]
pub mod schema;
mod state;
pub mod test;
mod tracked;

pub use actor::Actor;
pub use context::{Client, ConnectionIds, Context, Origin, Recipients, Turn};
pub use event::{Emits, Event};
pub use failure::{Failure, Result};
pub use pointer::Pointer;
pub use tidegate_sdk_macros::{Event, Failure, actor};
pub use tracked::Tracked;

/// What the macros' code needs; no part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::actor::{Hook, Input, Method, Outcome, Run};
    pub use crate::dispatch::{ActorType, Handler};
    pub use crate::export::Component;
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

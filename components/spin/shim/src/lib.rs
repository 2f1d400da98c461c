//! What a handler imports on Spin: its actor's state, and the way out of it.
//!
//! One request is one instance. `control` takes it from the gateway; `serve` answers it,
//! as one line of thought that asks the handler where it needs to (`guest`). A turn
//! stages what it does in a `stage`, which the handler's imports (`imports`) reach, and
//! commits it to Spin's SQLite (`rows`): once, if nobody else has meanwhile; else the turn
//! runs again (`turn`).
//!
//! Invariants: what a turn staged is in the database in one transaction, or not at all; a
//! turn that has done something that cannot be undone holds the actor's lease, and is never
//! run again.

// Natively there is nothing but the tests.
#![cfg_attr(not(target_family = "wasm"), allow(dead_code))]

mod answers;
mod bindings;
mod calls;
mod convert;
mod declared;
mod guest;
mod imports;
mod messages;
mod rows;
mod serve;
mod stage;
mod tick;
mod timers;
mod turn;
mod views;

use bindings::exports::tidegate::spin::control::{Guest, Job, Outcome};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Shim;

impl Guest for Shim {
    fn begin(request: IncomingRequest, response: ResponseOutparam) -> Option<Job> {
        guest::begin(serve::serve(request, response))
    }

    fn finish(outcome: Outcome) -> Option<Job> {
        guest::finish(outcome)
    }
}

// Other linkers refuse the names that a component's exports have.
#[cfg(target_family = "wasm")]
bindings::export!(Shim with_types_in bindings);

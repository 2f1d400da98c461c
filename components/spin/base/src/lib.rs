//! What the pieces of a Spin application share: the database and its tables, HTTP in and
//! out, who calls, and how one component of the application trusts another.
//!
//! `shim` and `events` stand on it. It knows nothing of turns. What is pure in it (heads,
//! tokens, signatures, server-sent events) has no imports and is tested natively; the rest
//! is a thin face over WASI and Spin, which only a component has.

mod bindings;
pub mod clock;
pub mod commit;
pub mod database;
pub mod door;
pub mod head;
pub mod incoming;
pub mod log;
pub mod look;
pub mod outgoing;
mod queue;
pub mod response;
pub mod settings;
pub mod signature;
pub mod sse;
pub mod tables;
pub mod tokens;

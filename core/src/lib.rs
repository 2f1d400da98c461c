//! The pure parts of Tidegate: the wire protocol, the manifest, cron schedules, JSON
//! documents and their patches, schemas and failures; the rules of a turn; text that is fit for a
//! log; and what HTTP headers mean to the doors.
//!
//! Nothing here does I/O, spawns, reads a clock or is async, so that the same code runs
//! in the host and, compiled to wasm, on Spin.

pub mod call;
pub mod canonical;
pub mod client;
pub mod cron;
pub mod document;
pub mod failure;
pub mod http;
pub mod json;
pub mod manifest;
pub mod meter;
pub mod name;
pub mod patch;
pub mod place;
pub mod pointer;
pub mod printable;
pub mod protocol;
pub mod schema;
pub mod turn;
pub mod unambiguous;

pub use call::{CallEnvelope, Origin};
pub use client::{Client, RequestId};
pub use document::Document;
pub use failure::Failure;
pub use json::Json;
pub use manifest::Manifest;
pub use meter::Meter;
pub use name::{ActorId, ActorKey, Name};
pub use patch::PatchOp;
pub use pointer::Pointer;
pub use schema::Schema;

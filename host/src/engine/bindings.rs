//! What `wit/` says, as Rust: the only place that names generated types' origin.
//!
//! Imports that may have to wait are asynchronous on the host's side; for the guest
//! every function is synchronous.

#![allow(missing_docs, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "actors-handler",
    imports: {
        "tidegate:realtime/turns.checkpoint": async | trappable,
        "tidegate:realtime/outbox.chunk": async | trappable,
        "tidegate:realtime/actors.call": async | trappable,
        "tidegate:realtime/actors.call-all": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});

pub use self::tidegate::realtime::types;

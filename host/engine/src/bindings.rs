//! What `wit/` says, as Rust: the only place that names generated types' origin.
//!
//! Imports that may have to wait are asynchronous on the host's side; for the guest
//! every function is synchronous.

#![allow(missing_docs, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "actors-handler",
    imports: {
        "tidegate:realtime/state.read": async | trappable,
        "tidegate:realtime/state.replace": async | trappable,
        "tidegate:realtime/state.get": async | trappable,
        "tidegate:realtime/state.patch": async | trappable,
        "tidegate:realtime/outbox.emit": async | trappable,
        "tidegate:realtime/timers.after": async | trappable,
        "tidegate:realtime/timers.every": async | trappable,
        "tidegate:realtime/turns.checkpoint": async | trappable,
        "tidegate:realtime/outbox.chunk": async | trappable,
        "tidegate:realtime/actors.call": async | trappable,
        "tidegate:realtime/actors.call-all": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});

pub use self::tidegate::realtime::types;

/// The exports that any component may have or not.
pub mod optional {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package tidegate:host;
            world optional {
                export tidegate:realtime/migrate@0.1.0;
                export tidegate:realtime/self-test@0.1.0;
            }
        ",
        world: "tidegate:host/optional",
        with: {
            "tidegate:realtime/types": super::tidegate::realtime::types,
        },
        exports: { default: async },
    });

    pub use self::exports::tidegate::realtime::{migrate, self_test};
}

/// The guard of a component that decides who may see its actors.
pub mod guarded {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "guarded-actors-handler",
        with: {
            "tidegate:realtime/types": super::tidegate::realtime::types,
            "tidegate:realtime/state": super::tidegate::realtime::state,
            "tidegate:realtime/turns": super::tidegate::realtime::turns,
            "tidegate:realtime/outbox": super::tidegate::realtime::outbox,
            "tidegate:realtime/timers": super::tidegate::realtime::timers,
            "tidegate:realtime/actors": super::tidegate::realtime::actors,
        },
        imports: { default: trappable },
        exports: { default: async },
    });

    pub use self::exports::tidegate::realtime::access;
}

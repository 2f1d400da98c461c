//! What `wit/` says, as Rust: the only place that names generated types' origin.
//!
//! Imports that may have to wait are asynchronous on the host's side; for the guest
//! every function is synchronous. Each export is looked up by itself: a component has any of them.

#![allow(missing_docs, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package tidegate:host;
        world handler {
            include tidegate:realtime/imports@0.1.0;
            export tidegate:realtime/manifest@0.1.0;
            export tidegate:realtime/actor@0.1.0;
            export tidegate:realtime/access@0.1.0;
            export tidegate:realtime/migrate@0.1.0;
            export tidegate:realtime/self-test@0.1.0;
        }
    ",
    world: "tidegate:host/handler",
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

pub use self::exports::tidegate::realtime as exported;
pub use self::tidegate::realtime::types;

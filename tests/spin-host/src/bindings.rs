//! What `wit/spin.wit` says, as Rust, and what a guest's store holds.

#![allow(missing_docs, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "platform",
    imports: { default: async | trappable },
    with: { "fermyon:spin/sqlite.connection": crate::sqlite::Connection },
});

pub(crate) use self::fermyon::spin::{sqlite, variables};

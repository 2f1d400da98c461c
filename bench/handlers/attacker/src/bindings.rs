//! What wit-bindgen makes of `wit/`. Without the SDK between, because the SDK would refuse
//! half of what this handler does.

#![allow(
    clippy::all,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    dead_code
)]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guarded-actors-handler",
});

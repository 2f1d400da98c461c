//! What wit-bindgen makes of `wit/`, for the world `actors-handler`. Generated once, here;
//! only [`imports`](crate::imports) and [`export`](crate::export) name what is in it.

#![allow(
    clippy::all,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    dead_code
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "actors-handler",
    pub_export_macro: true,
    default_bindings_module: "tidegate_sdk::bindings",
});

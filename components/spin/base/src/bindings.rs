//! What wit-bindgen makes of Spin's two interfaces. [`database`](crate::database) and
//! [`settings`](crate::settings) alone name what is in it.

#![allow(
    clippy::all,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    dead_code
)]

wit_bindgen::generate!({
    path: ["../wit/deps/spin.wit"],
    inline: "
        package tidegate:spin-base;
        world base {
            import fermyon:spin/sqlite@2.0.0;
            import fermyon:spin/variables@2.0.0;
        }
    ",
    generate_all,
});

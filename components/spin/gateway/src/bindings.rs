//! What wit-bindgen makes of the world `gateway`, but for the export, which the crate
//! `wasip2` has.

#![allow(
    clippy::all,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    dead_code
)]

wit_bindgen::generate!({
    path: ["../../../wit", "../wit"],
    inline: "
        package tidegate:spin-gateway;
        world pieces {
            import tidegate:realtime/manifest@0.1.0;
            import tidegate:realtime/actor@0.1.0;
            import tidegate:realtime/access@0.1.0;
            import tidegate:spin/control@0.1.0;
        }
    ",
    with: {
        "wasi:clocks/monotonic-clock@0.2.12": wasip2::clocks::monotonic_clock,
        "wasi:io/error@0.2.12": wasip2::io::error,
        "wasi:io/poll@0.2.12": wasip2::io::poll,
        "wasi:io/streams@0.2.12": wasip2::io::streams,
        "wasi:http/types@0.2.12": wasip2::http::types,
    },
    generate_all,
});

//! What wit-bindgen makes of the world `shim`, but for what `tidegate-spin-base` and the
//! crate `wasip2` have. [`convert`](crate::convert) and the implementations of the exports
//! name what is in it.

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
        package tidegate:spin-shim;
        world pieces {
            export tidegate:realtime/state@0.1.0;
            export tidegate:realtime/turns@0.1.0;
            export tidegate:realtime/outbox@0.1.0;
            export tidegate:realtime/timers@0.1.0;
            export tidegate:realtime/actors@0.1.0;
            export tidegate:realtime/access@0.1.0;
            export tidegate:spin/control@0.1.0;
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

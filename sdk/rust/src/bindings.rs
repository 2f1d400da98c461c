//! What wit-bindgen makes of `wit/`: the world `actors-handler`, and beside it what the world
//! `guarded-actors-handler` adds. Generated once, here; only [`imports`](crate::imports) and
//! [`export`](crate::export) name what is in it.

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

/// The export `access` alone: a component that exports both is in the world
/// `guarded-actors-handler`, and one that leaves this out in the world `actors-handler`.
pub mod guard {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tidegate:sdk;
            world guard {
                export tidegate:realtime/access@0.1.0;
            }
        ",
        with: {
            "tidegate:realtime/types@0.1.0": super::tidegate::realtime::types,
        },
        pub_export_macro: true,
        default_bindings_module: "tidegate_sdk::bindings::guard",
    });
}

/// The export `migrate` alone, for components with an actor that is marked `migrating`.
pub mod migration {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tidegate:sdk;
            world migration {
                export tidegate:realtime/migrate@0.1.0;
            }
        ",
        with: {
            "tidegate:realtime/types@0.1.0": super::tidegate::realtime::types,
        },
        pub_export_macro: true,
        default_bindings_module: "tidegate_sdk::bindings::migration",
    });
}

/// The export `self-test` alone, for components with a function that is `#[self_test]`.
pub mod probe {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package tidegate:sdk;
            world probe {
                export tidegate:realtime/self-test@0.1.0;
            }
        ",
        with: {
            "tidegate:realtime/types@0.1.0": super::tidegate::realtime::types,
        },
        pub_export_macro: true,
        default_bindings_module: "tidegate_sdk::bindings::probe",
    });
}

//! Any text is a frame or a refusal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::protocol::{self, ClientFrame};

fuzz_target!(|text: &str| {
    match protocol::parse(text) {
        Ok(ClientFrame::Rpc(rpc)) => {
            assert!(!rpc.id.is_empty());
            let answer = protocol::rpc_result(&rpc.id, rpc.input.map(|input| input.get()));
            let answer: serde_json::Value = match serde_json::from_str(&answer) {
                Ok(answer) => answer,
                // The input is checked for syntax only: see `Rpc::input`.
                Err(_) => return,
            };
            assert_eq!(answer["id"], *rpc.id);
        }
        Ok(_) => {}
        Err(error) => {
            let frame = protocol::error(&error.failure, &error.to);
            serde_json::from_str::<serde_json::Value>(&frame).expect("refusals are JSON");
        }
    }
});

//! Any text is a manifest or an error that says something.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::Manifest;

fuzz_target!(|text: &str| {
    if let Err(error) = Manifest::parse(text) {
        assert!(!error.to_string().is_empty());
    }
});

//! For any two documents, the patch leads from the first to the second.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate_core::patch;

fuzz_target!(|texts: (&str, &str)| {
    let (Ok(old), Ok(new)) = (
        serde_json::from_str::<Value>(texts.0),
        serde_json::from_str::<Value>(texts.1),
    ) else {
        return;
    };
    let ops = patch::diff(&old, &new);
    let mut patched = old.clone();
    patch::apply(&mut patched, &ops).expect("the patch applies");
    assert_eq!(patched, new);
    assert_eq!(ops.is_empty(), old == new);
});

//! For any two documents, the patch leads from the first to the second, with its members in
//! their order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::{Json, patch};

fuzz_target!(|texts: (&str, &str)| {
    let (Ok(old), Ok(new)) = (Json::parse(texts.0), Json::parse(texts.1)) else {
        return;
    };
    assert_eq!(old.size().text, old.to_text().len());
    let ops = patch::diff(&old, &new);
    let mut patched = old.clone();
    patch::apply(&mut patched, &ops).expect("the patch applies");
    assert_eq!(patched.to_text(), new.to_text());
    assert_eq!(ops.is_empty(), old.to_text() == new.to_text());
});

//! Any schema compiles or is refused, and any value is checked against it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate_core::Schema;

fuzz_target!(|texts: (&str, &str)| {
    let (Ok(schema), Ok(value)) = (
        serde_json::from_str::<Value>(texts.0),
        serde_json::from_str::<Value>(texts.1),
    ) else {
        return;
    };
    if let Ok(schema) = Schema::compile(&schema)
        && let Err(violations) = schema.check(&value)
    {
        assert!(!violations.to_string().is_empty());
    }
});

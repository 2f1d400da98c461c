//! Any schema compiles or is refused, and any value is checked against it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tidegate_core::meter::Allowance;
use tidegate_core::schema::Refused;
use tidegate_core::{Json, Schema};

fuzz_target!(|texts: (&str, &str)| {
    let (Ok(schema), Ok(mut value)) = (
        serde_json::from_str::<Value>(texts.0),
        Json::parse(texts.1),
    ) else {
        return;
    };
    let Ok(schema) = Schema::compile(&schema) else {
        return;
    };
    match schema.check_metered(&value, &mut Allowance::new(1 << 20)) {
        Ok(loose) => {
            value.spell_integers(&loose);
            assert!(schema.check(&value).is_ok());
        }
        Err(Refused::Violations(violations)) => assert!(!violations.to_string().is_empty()),
        Err(Refused::Exhausted(_)) => {}
    }
});

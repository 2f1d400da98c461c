//! Whether the input of a call is one: JSON without ambiguity, as the method's schema has it.
//!
//! `actor` asks before each turn: here, where that is little, and else on a worker's thread, under
//! the turn's deadline.

use std::time::Instant;

use tidegate_base::config::Limits;
use tidegate_core::failure::code;
use tidegate_core::json::ParseError;
use tidegate_core::schema::{self, Refused, Schema};
use tidegate_core::{Failure, Json, Pointer};
use tidegate_engine::Component;

use super::work::{Budget, TurnMeter, elsewhere, is_short};

/// What a check has found: the input with its integers written as such, none where they are.
type Checked = Result<Option<String>, Failure>;

/// An input as a value, which takes so many bytes of memory at most; an absent one is `null`.
fn parse(method: &str, input: Option<&str>, most: usize) -> Result<Json, Failure> {
    let Some(input) = input else {
        return Ok(Json::Null);
    };
    Json::parse_unambiguous_within(input, most).map_err(|error| {
        let failure = Failure::host(code::INPUT_INVALID);
        let text = format!("Validation failed for {method}: /: {error}");
        match error {
            ParseError::Malformed(_) => failure.message(text),
            ParseError::TooLarge { bytes } => failure
                .message(format!("{text} (`state-memory-bytes`)"))
                .param("limit", bytes)
                .param("setting", "state-memory-bytes"),
        }
    })
}

/// What a check has found; none if it was given up.
fn settled(
    method: &str,
    input: Option<&str>,
    checked: Result<Vec<Pointer>, Refused>,
    mut parsed: Json,
) -> Option<Checked> {
    match checked {
        Ok(loose) if loose.is_empty() => Some(Ok(None)),
        Ok(loose) => {
            parsed.spell_integers(&loose);
            Some(Ok(Some(parsed.to_text())))
        }
        Err(Refused::Violations(violations)) => {
            Some(Err(schema::input_failure(method, input, violations)))
        }
        Err(Refused::Exhausted(_)) => None,
    }
}

/// Checks an input, and returns it with its integers written as such, none where they are. None
/// at all where that takes too long here.
pub fn check_input(
    method: &str,
    schema: Option<&Schema>,
    input: Option<&str>,
    limits: &Limits,
) -> Option<Checked> {
    if input.is_some_and(|input| !is_short(input.len())) {
        return None;
    }
    let parsed = match parse(method, input, limits.state_memory_bytes) {
        Ok(parsed) => parsed,
        Err(failure) => return Some(Err(failure)),
    };
    let Some(schema) = schema else {
        return Some(Ok(None));
    };
    let mut allowance = Budget::new(limits.work_steps).at_once();
    let checked = schema.check_metered(&parsed, &mut allowance);
    settled(method, input, checked, parsed)
}

/// Checks an input on a worker's thread.
///
/// # Errors
///
/// Those of the input, `turn.work-limit` or `turn.deadline`.
pub async fn check_input_elsewhere(
    method: &str,
    schema: Option<&Schema>,
    input: Option<&str>,
    component: &Component,
    deadline: Instant,
) -> Checked {
    let mut budget = Budget::new(component.limits().work_steps);
    let most = component.limits().state_memory_bytes;
    let (method, schema) = (method.to_owned(), schema.cloned());
    let input = input.map(str::to_owned);
    let check = move |meter: &mut TurnMeter| {
        let input = input.as_deref();
        meter.charge_text(input.map_or(0, str::len))?;
        let parsed = parse(&method, input, most)?;
        let Some(schema) = &schema else {
            return Ok(None);
        };
        let checked = schema.check_metered(&parsed, meter);
        settled(&method, input, checked, parsed).unwrap_or_else(|| Err(meter.failure()))
    };
    elsewhere(component, &mut budget, deadline, check).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_absent_input_is_told_as_missing_and_at_once_however_long_the_schema_is() {
        // About as many as may apply to one place.
        let mut parts = vec![json!({"minimum": 0, "maxLength": 9, "maxItems": 9}); 4_000];
        parts.push(json!({"type": "object"}));
        let schema = Schema::compile(&json!({"allOf": parts})).unwrap();
        let check = |input| check_input("say", Some(&schema), input, &Limits::default());
        let absent = check(None).expect("nothing is soon looked at").unwrap_err();
        assert_eq!(absent.code, code::INPUT_INVALID);
        assert!(absent.text().contains("missing: expected object"));
        // `null` is something that was sent.
        let null = check(Some("null")).expect("a null is too").unwrap_err();
        assert!(null.text().contains("expected object, found null"));
    }
}

//! Whether inputs, results and payloads are what the manifest says.
//!
//! A schema that is absent takes any JSON. A number that is an integer to the schema and is not
//! written as one is written so before a typed reader gets it: a check returns the text that is to
//! be used in place of the one that was checked, and none where that is the same. A check that the
//! meter gives up has found nothing.

use serde_json::value::RawValue;

use crate::failure::Failure;
use crate::json::{Json, ParseError};
use crate::meter::{Exhausted, Meter};
use crate::schema::{self, Refused, Schema};

/// What a check has found: the text with its integers written as such, none where they are; or
/// what is wrong with it.
pub type Checked = Result<Option<String>, String>;

/// Whether a text is JSON.
pub fn json(text: &str) -> Checked {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks a JSON text, whose value may take so many bytes of memory.
///
/// # Errors
///
/// The meter gave up.
pub fn text(
    schema: Option<&Schema>,
    text: &str,
    most: usize,
    meter: &mut dyn Meter,
) -> Result<Checked, Exhausted> {
    let Some(schema) = schema else {
        return Ok(json(text));
    };
    let mut value = match Json::parse_within(text, most) {
        Ok(value) => value,
        Err(error) => return Ok(Err(error.to_string())),
    };
    match schema.check_metered(&value, meter) {
        Ok(loose) if loose.is_empty() => Ok(Ok(None)),
        Ok(loose) => {
            value.spell_integers(&loose);
            Ok(Ok(Some(value.to_text())))
        }
        Err(Refused::Violations(violations)) => Ok(Err(violations.to_string())),
        Err(Refused::Exhausted(exhausted)) => Err(exhausted),
    }
}

/// Checks the input of a call, whose value may take so many bytes of memory. It must be JSON
/// without ambiguity; an absent one is checked as `null`. Fails with `input.invalid`.
///
/// # Errors
///
/// The meter gave up.
pub fn input(
    method: &str,
    schema: Option<&Schema>,
    input: Option<&str>,
    most: usize,
    meter: &mut dyn Meter,
) -> Result<Result<Option<String>, Failure>, Exhausted> {
    let mut value = match input.map(|input| Json::parse_unambiguous_within(input, most)) {
        None => Json::Null,
        Some(Ok(value)) => value,
        Some(Err(error)) => return Ok(Err(malformed_input(method, &error))),
    };
    let Some(schema) = schema else {
        return Ok(Ok(None));
    };
    match schema.check_metered(&value, meter) {
        Ok(loose) if loose.is_empty() => Ok(Ok(None)),
        Ok(loose) => {
            value.spell_integers(&loose);
            Ok(Ok(Some(value.to_text())))
        }
        Err(Refused::Violations(violations)) => {
            Ok(Err(schema::input_failure(method, input, violations)))
        }
        Err(Refused::Exhausted(exhausted)) => Err(exhausted),
    }
}

fn malformed_input(method: &str, error: &ParseError) -> Failure {
    match error {
        ParseError::Malformed(_) => Failure::input_malformed(method, error),
        ParseError::TooLarge { bytes } => Failure::input_too_large(method, error, *bytes),
    }
}

/// A part of a result must be JSON.
///
/// # Errors
///
/// `output.invalid`
pub fn chunk(payload: &str) -> Result<(), Failure> {
    match json(payload) {
        Ok(_) => Ok(()),
        Err(detail) => Err(Failure::chunk_not_json(detail)),
    }
}

/// The payload of an event as it is sent.
///
/// # Errors
///
/// `event.invalid`
pub fn event_payload(event: &str, payload: String, checked: Checked) -> Result<String, Failure> {
    match checked {
        Ok(spelled) => Ok(spelled.unwrap_or(payload)),
        Err(detail) => Err(Failure::event_invalid(event, detail)),
    }
}

/// What an event weighs that is addressed to these connections.
pub fn event_cost(event: &str, payload: &str, ids: &[String]) -> usize {
    let addresses: usize = ids.iter().map(|id| id.len() + super::EFFECT_COST).sum();
    super::EFFECT_COST + event.len() + payload.len() + addresses
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::failure::code;
    use crate::meter::{Allowance, Unmetered};
    use crate::patch::samples::document;

    const MOST: usize = 1 << 20;

    fn schema(source: &serde_json::Value) -> Schema {
        Schema::compile(source).unwrap()
    }

    #[test]
    fn an_absent_input_is_told_as_missing_and_at_once_however_long_the_schema_is() {
        // About as many as may apply to one place.
        let mut parts = vec![json!({"minimum": 0, "maxLength": 9, "maxItems": 9}); 4_000];
        parts.push(json!({"type": "object"}));
        let schema = schema(&json!({"allOf": parts}));
        let check = |text| {
            input(
                "say",
                Some(&schema),
                text,
                MOST,
                &mut Allowance::new(20_000),
            )
        };
        let absent = check(None).expect("nothing is soon looked at").unwrap_err();
        assert_eq!(absent.code, code::INPUT_INVALID);
        assert!(absent.text().contains("missing: expected object"));
        // `null` is something that was sent.
        let null = check(Some("null")).expect("a null is too").unwrap_err();
        assert!(null.text().contains("expected object, found null"));
    }

    #[test]
    fn an_input_that_is_too_large_names_the_setting() {
        let refused = input("say", None, Some("[1,2,3]"), 24, &mut Unmetered).unwrap();
        let failure = refused.unwrap_err();
        assert_eq!(failure.code, code::INPUT_INVALID);
        let params = failure.params.unwrap();
        assert_eq!(params["limit"], 24);
        assert_eq!(params["setting"], "state-memory-bytes");
    }

    #[test]
    fn an_input_with_a_member_twice_is_refused_also_without_a_schema() {
        let refused = input("say", None, Some(r#"{"a":1,"a":2}"#), MOST, &mut Unmetered);
        let failure = refused.unwrap().unwrap_err();
        assert!(failure.text().starts_with("Validation failed for say: /: "));
    }

    #[test]
    fn a_check_that_is_given_up_has_found_nothing() {
        let schema = schema(&json!({"items": {"type": "integer"}}));
        let mut little = Allowance::new(1);
        assert_eq!(
            text(Some(&schema), "[1,2,3]", MOST, &mut little),
            Err(Exhausted)
        );
        let mut little = Allowance::new(1);
        let given_up = input("say", Some(&schema), Some("[1,2,3]"), MOST, &mut little);
        assert_eq!(given_up, Err(Exhausted));
    }

    #[test]
    fn an_invalid_payload_is_refused_by_the_name_of_its_event() {
        assert_eq!(
            event_payload("note", "1.0".to_owned(), Ok(Some("1".to_owned()))),
            Ok("1".to_owned())
        );
        assert_eq!(
            event_payload("note", "1".to_owned(), Ok(None)),
            Ok("1".to_owned())
        );
        let failure = event_payload("note", "1".to_owned(), Err("/: no".to_owned())).unwrap_err();
        assert_eq!(failure.text(), "the payload of `note` is invalid: /: no");
        assert_eq!(failure.params.unwrap()["event"], "note");
    }

    proptest! {
        #[test]
        fn what_passes_comes_back_with_its_integers_written_as_such(
            number in -9i64..9, zeros in 0usize..3,
        ) {
            let schema = schema(&json!({"items": {"type": "integer"}}));
            let written = match zeros {
                0 => format!("[{number}]"),
                zeros => format!("[{number}.{}]", "0".repeat(zeros)),
            };
            // There is no negative zero among the integers.
            prop_assume!(number != 0 || zeros == 0);
            let expected = (zeros > 0).then(|| format!("[{number}]"));
            let checked = text(Some(&schema), &written, MOST, &mut Unmetered);
            prop_assert_eq!(checked, Ok(Ok(expected.clone())));
            let checked = input("say", Some(&schema), Some(&written), MOST, &mut Unmetered);
            prop_assert_eq!(checked, Ok(Ok(expected)));
        }

        #[test]
        fn without_a_schema_any_json_passes_as_it_is(document in document()) {
            let written = document.to_text();
            prop_assert_eq!(text(None, &written, 0, &mut Unmetered), Ok(Ok(None)));
            prop_assert_eq!(json(&written), Ok(None));
            let twice = format!("{written} {written}");
            prop_assert!(json(&twice).is_err());
        }
    }
}

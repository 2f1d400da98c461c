//! What a turn makes of its actor's document: operations as a guest hands them over, the change
//! that a commit makes, and whether a stored state is one of this handler.
//!
//! Invariant: what a turn commits satisfies the schema of the state, and is no larger than it may
//! be; of what is refused nothing is left in the document.

use super::limits::Limits;
use crate::document::{Document, Op, OpError};
use crate::failure::Failure;
use crate::json::{Json, ParseError};
use crate::meter::{Exhausted, Meter};
use crate::patch::PatchOp;
use crate::pointer::Pointer;
use crate::schema::{Refused, Schema};

/// What an operation weighs beside its texts.
const OP_COST: usize = 64;

/// An operation as a guest spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelled<T> {
    /// A value is added at this place.
    Add(T, T),
    /// The value at this place becomes another.
    Replace(T, T),
    /// What is at this place goes.
    Remove(T),
    /// A text is added to the one at this place.
    Append(T, T),
}

impl Spelled<&str> {
    /// What it weighs, in bytes: it is charged before it is parsed, which makes it larger.
    pub fn cost(&self) -> usize {
        OP_COST
            + match self {
                Spelled::Add(pointer, text)
                | Spelled::Replace(pointer, text)
                | Spelled::Append(pointer, text) => pointer.len() + text.len(),
                Spelled::Remove(pointer) => pointer.len(),
            }
    }
}

/// Operations with their pointers and values parsed, which take so many bytes of memory at most.
///
/// # Errors
///
/// `state.no-such-place`, `state.malformed`, or `state.too-large`.
pub fn parse_ops(
    ops: impl IntoIterator<Item = Spelled<String>>,
    most: usize,
) -> Result<Vec<Op>, Failure> {
    let pointer = |text: String| Pointer::parse(&text).map_err(|_| Failure::not_a_pointer(text));
    let mut left = most;
    let mut value = |json: &str| {
        let value = Json::parse_within(json, left).map_err(|error| match error {
            ParseError::Malformed(error) => Failure::value_not_json(error),
            ParseError::TooLarge { .. } => Failure::values_too_large(most),
        })?;
        left = left.saturating_sub(value.size().memory);
        Ok::<_, Failure>(value)
    };
    let parse = |op: Spelled<String>| {
        Ok(match op {
            Spelled::Add(place, json) => Op::Add {
                value: value(&json)?,
                pointer: pointer(place)?,
            },
            Spelled::Replace(place, json) => Op::Replace {
                value: value(&json)?,
                pointer: pointer(place)?,
            },
            Spelled::Remove(place) => Op::Remove {
                pointer: pointer(place)?,
            },
            Spelled::Append(place, text) => Op::Append {
                pointer: pointer(place)?,
                text,
            },
        })
    };
    ops.into_iter().map(parse).collect()
}

/// Why an operation is not applied, as the guest is told. `work_steps` are those of the turn.
pub fn op_failure(error: &OpError, work_steps: u64) -> Failure {
    let failure = match error {
        OpError::NoSuchPlace { .. } => Failure::state_no_such_place,
        OpError::NotAString { .. } => Failure::state_not_a_string,
        OpError::RemovesDocument { .. } | OpError::TooDeep { .. } => Failure::state_malformed_at,
        OpError::Exhausted { .. } => return Failure::turn_work_limit(work_steps),
    };
    failure(error, error.pointer().to_owned())
}

/// Why a text does not become the state.
pub fn parse_failure(error: &ParseError) -> Failure {
    match error {
        ParseError::TooLarge { bytes } => Failure::state_too_large(*bytes),
        ParseError::Malformed(error) => Failure::state_not_json(error),
    }
}

/// The text of a whole state as its value, within the limits of a turn.
///
/// # Errors
///
/// `state.too-large`, `state.malformed`
pub fn parse_whole(text: &str, limits: &Limits) -> Result<Json, Failure> {
    limits.check_state_text(text.len())?;
    Json::parse_within(text, limits.state_memory_bytes).map_err(|error| parse_failure(&error))
}

/// Whether a document was one of this schema before it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It was: what changed is looked at.
    Fits,
    /// Nobody knows: all of it is looked at.
    Unknown,
}

impl Before {
    /// It was, if this holds.
    pub fn fits(fits: bool) -> Before {
        match fits {
            true => Before::Fits,
            false => Before::Unknown,
        }
    }
}

/// The patch that a commit makes of what changed in a document, none where it has the content again
/// that it had; numbers that are integers to the schema are written as such.
///
/// Fails with `state.invalid` where the document must not be committed as it is.
///
/// # Errors
///
/// The meter gave up.
pub fn changes(
    document: &mut Document,
    schema: Option<&Schema>,
    before: Before,
    meter: &mut dyn Meter,
) -> Result<Result<Option<Vec<PatchOp>>, Failure>, Exhausted> {
    let mut patches = document.changes_metered(meter)?;
    if let Some(schema) = schema.filter(|_| !patches.is_empty()) {
        let state = document.value();
        let checked = match before {
            Before::Fits => schema.check_changes_metered(state, &patches, meter),
            Before::Unknown => schema.check_metered(state, meter),
        };
        let loose = match checked {
            Ok(loose) => loose,
            Err(Refused::Exhausted(exhausted)) => return Err(exhausted),
            Err(Refused::Violations(violations)) => {
                return Ok(Err(Failure::state_invalid(violations)));
            }
        };
        if !loose.is_empty() {
            document.spell_integers(&loose);
            patches = document.changes_metered(meter)?;
        }
    }
    Ok(Ok((!patches.is_empty()).then_some(patches)))
}

/// What of a stored state is not as a handler declares it; of one that fits, where numbers stand
/// that are to be written as integers.
///
/// # Errors
///
/// The meter gave up.
pub fn misfit(
    (version, schema): (u32, Option<&Schema>),
    (state, of): (&Json, u32),
    meter: &mut dyn Meter,
) -> Result<Result<Vec<Pointer>, String>, Exhausted> {
    if version != of {
        return Ok(Err(format!(
            "it is version {of} of the state, expected version {version}"
        )));
    }
    let Some(schema) = schema else {
        return Ok(Ok(Vec::new()));
    };
    match schema.check_metered(state, meter) {
        Ok(loose) => Ok(Ok(loose)),
        Err(Refused::Violations(violations)) => Ok(Err(violations.to_string())),
        Err(Refused::Exhausted(exhausted)) => Err(exhausted),
    }
}

/// `state.unfit`; why it is so is for operators.
pub fn unfit(reason: impl Into<Box<str>>) -> Failure {
    Failure::state_unfit().detail(reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::failure::code;
    use crate::meter::{Allowance, Unmetered};
    use crate::patch;
    use crate::patch::samples::document;

    fn schema(source: &serde_json::Value) -> Schema {
        Schema::compile(source).unwrap()
    }

    fn spelled(ops: &[Spelled<&str>]) -> Vec<Spelled<String>> {
        let own = |text: &str| text.to_owned();
        let spelled = ops.iter().map(|op| match *op {
            Spelled::Add(place, json) => Spelled::Add(own(place), own(json)),
            Spelled::Replace(place, json) => Spelled::Replace(own(place), own(json)),
            Spelled::Remove(place) => Spelled::Remove(own(place)),
            Spelled::Append(place, text) => Spelled::Append(own(place), own(text)),
        });
        spelled.collect()
    }

    #[test]
    fn operations_weigh_their_texts_and_some_more() {
        assert_eq!(Spelled::Add("/a", "[1]").cost(), 64 + 5);
        assert_eq!(Spelled::Remove("/a").cost(), 64 + 2);
        assert_eq!(Spelled::Append("/a", "bc").cost(), 64 + 4);
    }

    #[test]
    fn operations_share_the_memory_that_their_values_may_take() {
        let code = |ops: &[Spelled<&str>], most| {
            parse_ops(spelled(ops), most).map_err(|failure| failure.code)
        };
        let one = [Spelled::Add("/a", "1")];
        assert!(code(&one, 24).is_ok());
        let two = [Spelled::Add("/a", "1"), Spelled::Replace("/a", "2")];
        assert_eq!(code(&two, 24).unwrap_err(), code::STATE_TOO_LARGE);
        assert!(code(&two, 48).is_ok());
        let wrong = [Spelled::Remove("a")];
        assert_eq!(code(&wrong, 48).unwrap_err(), code::STATE_NO_SUCH_PLACE);
        let wrong = [Spelled::Add("/a", "{")];
        assert_eq!(code(&wrong, 48).unwrap_err(), code::STATE_MALFORMED);
    }

    #[test]
    fn a_whole_state_is_within_the_limits() {
        let limits = Limits {
            state_bytes: 9,
            state_memory_bytes: 120,
            ..Limits::DEFAULT
        };
        assert!(parse_whole("[1,2,3]", &limits).is_ok());
        let failure = parse_whole("[1,2,3,4]  ", &limits).unwrap_err();
        assert_eq!(failure.code, code::STATE_TOO_LARGE);
        let failure = parse_whole("[1,2,3,4]", &limits).unwrap_err();
        assert_eq!(failure.code, code::STATE_TOO_LARGE);
        let failure = parse_whole("[1,", &limits).unwrap_err();
        assert_eq!(failure.code, code::STATE_MALFORMED);
    }

    #[test]
    fn an_invalid_state_is_not_committed() {
        let schema = schema(&json!({"properties": {"n": {"type": "integer"}}}));
        let mut document = Document::new(Json::parse(r#"{"n":1}"#).unwrap());
        document.replace(Json::parse(r#"{"n":"x"}"#).unwrap());
        for before in [Before::Fits, Before::Unknown] {
            let changed = changes(&mut document, Some(&schema), before, &mut Unmetered);
            let failure = changed.unwrap().unwrap_err();
            assert_eq!(failure.code, code::STATE_INVALID);
            assert!(
                failure
                    .text()
                    .starts_with("the turn would leave an invalid state: /n: ")
            );
        }
    }

    #[test]
    fn integers_are_committed_as_such_and_are_no_change_where_they_were() {
        let schema = schema(&json!({"properties": {"n": {"type": "integer"}}}));
        let mut document = Document::new(Json::parse(r#"{"n":1}"#).unwrap());
        document.replace(Json::parse(r#"{"n":2.0}"#).unwrap());
        let changed = changes(&mut document, Some(&schema), Before::Fits, &mut Unmetered);
        assert!(changed.unwrap().unwrap().is_some());
        assert_eq!(document.to_text(), r#"{"n":2}"#);
        document.accept();
        document.replace(Json::parse(r#"{"n":2e0}"#).unwrap());
        let changed = changes(&mut document, Some(&schema), Before::Fits, &mut Unmetered);
        assert_eq!(changed, Ok(Ok(None)));
    }

    #[test]
    fn a_state_of_another_version_or_schema_does_not_fit() {
        let schema = schema(&json!({"items": {"type": "integer"}}));
        let state = Json::parse("[1.0]").unwrap();
        let fits = |declared, version| {
            misfit((declared, Some(&schema)), (&state, version), &mut Unmetered).unwrap()
        };
        assert_eq!(fits(1, 1).unwrap().len(), 1);
        assert_eq!(
            fits(2, 1).unwrap_err(),
            "it is version 1 of the state, expected version 2"
        );
        let other = Json::parse(r#"["x"]"#).unwrap();
        let found = misfit((1, Some(&schema)), (&other, 1), &mut Unmetered).unwrap();
        assert!(found.unwrap_err().starts_with("/0: "));
        assert_eq!(
            misfit((1, None), (&other, 1), &mut Unmetered),
            Ok(Ok(Vec::new()))
        );
    }

    proptest! {
        #[test]
        fn what_is_committed_leads_from_what_was_to_what_is(old in document(), new in document()) {
            let mut document = Document::new(old.clone());
            document.replace(new.clone());
            let changed = changes(&mut document, None, Before::Unknown, &mut Unmetered);
            let patches = changed.unwrap().unwrap();
            prop_assert_eq!(patches.is_none(), old == new);
            let mut patched = old;
            patch::apply(&mut patched, &patches.unwrap_or_default()).unwrap();
            prop_assert_eq!(patched, new);
        }

        #[test]
        fn where_the_meter_gives_up_the_document_can_still_be_taken_back(
            old in document(), new in document(), steps in 0u64..20,
        ) {
            let mut document = Document::new(old.clone());
            document.replace(new);
            let _ = changes(&mut document, None, Before::Unknown, &mut Allowance::new(steps));
            document.rollback();
            prop_assert_eq!(document.value(), &old);
        }
    }
}

//! What of a state somebody is shown.
//!
//! Invariant: nobody is shown a hidden member, neither of the state
//! ([`strip_hidden`](crate::patch::strip_hidden)) nor of what a guard makes of it.

use std::borrow::Cow;

use crate::failure::Failure;
use crate::json::Json;
use crate::patch;

/// What a guard shows somebody in place of the state, which may take so many bytes of memory.
///
/// # Errors
///
/// `handler.failed`: it is not JSON, or takes more.
pub fn own(text: &str, hidden: &[String], most: usize) -> Result<Json, Failure> {
    let document = Json::parse_within(text, most).map_err(Failure::view_not_json)?;
    if let Cow::Owned(shown) = patch::strip_hidden(&document, hidden) {
        return Ok(shown);
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::code;
    use crate::patch::samples::{document, name};

    #[test]
    fn a_view_is_json_that_is_taken() {
        let view = own(r#"{"a":1,"b":2}"#, &["b".to_owned()], 1_000).unwrap();
        assert_eq!(view.to_text(), r#"{"a":1}"#);
        assert_eq!(own("{", &[], 1_000).unwrap_err().code, code::HANDLER_FAILED);
        assert_eq!(
            own("[1,2]", &[], 24).unwrap_err().code,
            code::HANDLER_FAILED
        );
    }

    proptest! {
        #[test]
        fn nobody_is_shown_what_is_hidden(
            state in document(), hidden in prop::collection::vec(name(), 0..4),
        ) {
            let shown = own(&state.to_text(), &hidden, usize::MAX).unwrap();
            for member in &hidden {
                prop_assert!(shown.get(member).is_none());
            }
            for (member, value) in state.as_object().into_iter().flat_map(|object| object.iter()) {
                if !hidden.iter().any(|hidden| hidden == member.as_str()) {
                    prop_assert_eq!(shown.get(member), Some(value));
                }
            }
            prop_assert_eq!(&shown, &*patch::strip_hidden(&state, &hidden));
        }
    }
}

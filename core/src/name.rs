//! The names that people give things, parsed once at the edge and valid ever after: the
//! names of a manifest, and the ids of actors.
//!
//! The manifest parser and the router make them; everything behind those trusts them.
//! They are cheap to clone, and maps keyed by [`Name`] are searched by `&str`.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure::{Failure, cut};

/// The most bytes of a [`Name`].
pub const NAME_MAX_BYTES: usize = 64;
/// The most bytes of an [`ActorId`].
pub const ACTOR_ID_MAX_BYTES: usize = 256;

/// The name of an actor type, a method or an event: `[A-Za-z][A-Za-z0-9_-]*`, 64 bytes at
/// most.
///
/// ```
/// use tidegate_core::Name;
/// assert_eq!(Name::parse("counter").unwrap().as_str(), "counter");
/// assert_eq!(
///     Name::parse("9lives").unwrap_err().to_string(),
///     "expected a name (a letter, then letters, digits, `_` or `-`, 64 bytes at most), \
///      found \"9lives\""
/// );
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A text that is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a name (a letter, then letters, digits, `_` or `-`, {NAME_MAX_BYTES} bytes at \
     most), found {found}"
)]
pub struct NameError {
    found: String,
}

/// The id of an actor within its type: any Unicode text of 1 to 256 bytes but `.` and `..`.
///
/// Those two are steps in a URL's path (RFC 3986, section 5.2.4), also percent-encoded
/// (WHATWG URL, section 4.4): an actor of that name could not be called over HTTP, and a
/// request for it would reach another route.
///
/// ```
/// use tidegate_core::ActorId;
/// assert!(ActorId::parse("room-1").is_ok());
/// assert!(ActorId::parse("..").is_err());
/// assert_eq!(
///     ActorId::parse("").unwrap_err().to_string(),
///     "expected an actor id of 1 to 256 bytes, found an empty string"
/// );
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(Arc<str>);

/// A text that is not an [`ActorId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an actor id of 1 to {ACTOR_ID_MAX_BYTES} bytes, found {}", match bytes {
    0 => "an empty string".to_owned(),
    1 => "`.`, which is a step in a path".to_owned(),
    2 => "`..`, which is a step in a path".to_owned(),
    bytes => format!("{bytes} bytes"),
})]
pub struct ActorIdError {
    bytes: usize,
}

/// Names one actor: its type and its id, displayed as `chat/room-1`, with what is not
/// printable escaped.
///
/// The display form is for people and logs; it is not parsed, since an id may contain `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorKey {
    /// The actor type.
    pub actor: Name,
    /// The id within the type.
    pub id: ActorId,
}

impl Name {
    /// Takes a text for a name, or says what a name is.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        let mut bytes = text.bytes();
        let well_formed = text.len() <= NAME_MAX_BYTES
            && bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if well_formed {
            Ok(Name(text.into()))
        } else {
            Err(NameError {
                found: describe(text),
            })
        }
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ActorId {
    /// Takes a text for an actor id, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<ActorId, ActorIdError> {
        ActorId::check(text)?;
        Ok(ActorId(text.into()))
    }

    /// Whether a text is an actor id that clients and handlers may name.
    pub fn check(text: &str) -> Result<(), ActorIdError> {
        match (text, text.len()) {
            ("." | "..", bytes) => Err(ActorIdError { bytes }),
            (_, 1..=ACTOR_ID_MAX_BYTES) => Ok(()),
            (_, bytes) => Err(ActorIdError { bytes }),
        }
    }

    /// Takes the id of an actor that exists, whose name may be `.` or `..`.
    ///
    /// For what is read from a store or an export, and for operators, who list and remove
    /// such actors; clients and handlers name actors by [`parse`](ActorId::parse).
    pub fn stored(text: &str) -> Result<ActorId, ActorIdError> {
        match text.len() {
            1..=ACTOR_ID_MAX_BYTES => Ok(ActorId(text.into())),
            bytes => Err(ActorIdError { bytes }),
        }
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ActorKey {
    /// The key of the actor of this type with this id.
    pub fn new(actor: Name, id: ActorId) -> ActorKey {
        ActorKey { actor, id }
    }
}

/// A text as an error shows it: quoted, and short.
fn describe(text: &str) -> String {
    if text.is_empty() {
        return "an empty string".to_owned();
    }
    let shown = format!("{:?}", cut(text));
    if text.len() > NAME_MAX_BYTES {
        format!("{shown} ({} bytes)", text.len())
    } else {
        shown
    }
}

macro_rules! text_type {
    ($type:ident, $error:ident) => {
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::str::FromStr for $type {
            type Err = $error;

            fn from_str(text: &str) -> Result<$type, $error> {
                $type::parse(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

text_type!(Name, NameError);
text_type!(ActorId, ActorIdError);

impl fmt::Display for ActorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.actor)?;
        // Ids come from outside, and what breaks lines, turns their direction or moves a
        // terminal's cursor could forge what a log says.
        for c in self.id.0.chars() {
            match c {
                '\'' | '"' | '\\' => f.write_char(c)?,
                c => write!(f, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        Failure::request_malformed(error)
    }
}

impl From<ActorIdError> for Failure {
    fn from(error: ActorIdError) -> Failure {
        Failure::actor_invalid_id(error, ACTOR_ID_MAX_BYTES)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        Name::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// What was an id once is one: see [`ActorId::stored`].
impl<'de> Deserialize<'de> for ActorId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ActorId, D::Error> {
        ActorId::stored(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;
    use crate::failure::code;

    #[test]
    fn names_are_letters_then_letters_digits_underscores_and_hyphens() {
        for good in ["a", "Z", "counter", "lab-2_x", &"a".repeat(64)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "1a",
            "_a",
            "-a",
            "a b",
            "a/b",
            "ä",
            "aä",
            "a.b",
            "__proto__",
            "a\n",
            "a\u{0}",
            &"a".repeat(65),
        ] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_name_is_shown_short() {
        let error = Name::parse(&"x".repeat(1 << 20)).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
        assert!(error.ends_with("(1048576 bytes)"), "{error}");
    }

    #[test]
    fn an_actor_id_is_any_text_of_1_to_256_bytes() {
        for good in [
            "1",
            " ",
            "\u{0}",
            "a/b",
            "🦀",
            "é",
            "\u{202e}",
            &"ä".repeat(128),
        ] {
            assert_eq!(ActorId::parse(good).unwrap().as_str(), good);
        }
        assert!(ActorId::parse("").is_err());
        assert!(ActorId::parse(&"a".repeat(257)).is_err());
        assert!(ActorId::parse(&"🦀".repeat(65)).is_err());
    }

    #[test]
    fn a_step_in_a_path_is_no_actor_id_of_clients() {
        for dots in [".", ".."] {
            let error = ActorId::parse(dots).unwrap_err().to_string();
            assert!(error.ends_with(&format!("found `{dots}`, which is a step in a path")));
            assert_eq!(ActorId::stored(dots).unwrap().as_str(), dots);
        }
        for good in ["...", ".a", "a.", "./", " ."] {
            assert!(ActorId::parse(good).is_ok(), "{good}");
        }
        assert!(ActorId::stored("").is_err());
    }

    #[test]
    fn a_refused_actor_id_becomes_a_failure_that_names_the_limit() {
        let failure = Failure::from(ActorId::parse(&"a".repeat(300)).unwrap_err());
        assert_eq!(failure.code, code::ACTOR_INVALID_ID);
        assert_eq!(
            failure.text(),
            "expected an actor id of 1 to 256 bytes, found 300 bytes"
        );
        assert_eq!(failure.status, 400);
    }

    #[test]
    fn maps_are_searched_by_str() {
        let name = Name::parse("chat").unwrap();
        assert_eq!(BTreeMap::from([(name.clone(), 1)]).get("chat"), Some(&1));
        assert_eq!(HashMap::from([(name, 1)]).get("chat"), Some(&1));
    }

    #[test]
    fn a_key_displays_as_type_and_id() {
        let key = ActorKey::new(
            Name::parse("chat").unwrap(),
            ActorId::parse("room-1").unwrap(),
        );
        assert_eq!(key.to_string(), "chat/room-1");
        let forger = ActorId::parse("a\n2026 ERROR \"b\"\u{1b}[2J\u{202e}ü").unwrap();
        let key_of_forger = ActorKey::new(key.actor.clone(), forger);
        assert_eq!(
            key_of_forger.to_string(),
            "chat/a\\n2026 ERROR \"b\"\\u{1b}[2J\\u{202e}ü"
        );
        assert_eq!(key, key.clone());
    }

    proptest! {
        #[test]
        fn a_name_is_what_its_pattern_says(text in "[A-Za-z0-9_ä-]{0,70}") {
            let first = text.chars().next();
            let expected = text.len() <= 64
                && first.is_some_and(|c| c.is_ascii_alphabetic())
                && !text.contains('ä');
            prop_assert_eq!(Name::parse(&text).is_ok(), expected);
        }

        #[test]
        fn any_text_is_an_actor_id_if_its_length_is_right(text in ".{0,300}") {
            let is_step = text == "." || text == "..";
            let fits = (1..=256).contains(&text.len());
            prop_assert_eq!(ActorId::parse(&text).is_ok(), fits && !is_step);
        }
    }
}

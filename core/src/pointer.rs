//! JSON pointers (RFC 6901): the names of places in a document.
//!
//! The edge parses a pointer once, where a guest or a client sends it; patches and
//! documents work with its tokens. A [`Pointer`] is valid by construction: its tokens
//! are unescaped, and writing it yields text that parses to the same tokens.

use std::borrow::Cow;
use std::fmt;

use crate::json::Json;

/// A place in a JSON document, as the member names and array indexes that lead to it.
///
/// ```
/// use tidegate_core::Pointer;
///
/// let pointer = Pointer::parse("/o/a~1b~0c/0").unwrap();
/// assert_eq!(pointer.tokens(), ["o", "a/b~c", "0"]);
/// assert_eq!(pointer.to_string(), "/o/a~1b~0c/0");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pointer {
    tokens: Vec<String>,
}

/// Why a text is no JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// The text is neither empty nor starts with `/`.
    #[error("expected a JSON pointer, empty or starting with `/`, found `{pointer}`")]
    NoLeadingSlash {
        /// The text.
        pointer: String,
    },
    /// A `~` is followed by something other than `0` or `1`.
    #[error("expected `~0` or `~1` after each `~` of a JSON pointer, found `{pointer}`")]
    BadEscape {
        /// The text.
        pointer: String,
    },
}

impl Pointer {
    /// The whole document.
    pub const fn root() -> Self {
        Self { tokens: Vec::new() }
    }

    /// Parses the text form: `""` is the whole document, `/a/0` the first element of
    /// member `a`, `/` the member whose name is empty.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        if text.is_empty() {
            return Ok(Self::root());
        }
        let Some(tokens) = text.strip_prefix('/') else {
            return Err(PointerError::NoLeadingSlash {
                pointer: text.to_owned(),
            });
        };
        let tokens = tokens
            .split('/')
            .map(|token| unescape(token).map(Cow::into_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| PointerError::BadEscape {
                pointer: text.to_owned(),
            })?;
        Ok(Self { tokens })
    }

    /// The unescaped tokens, from the root down.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Whether this is the whole document.
    pub fn is_root(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Goes one level down: to a member, or to the element with a decimal index.
    pub fn push(&mut self, token: impl Into<String>) {
        self.tokens.push(token.into());
    }

    /// The value at this place, `None` where there is none. `-` names the place after an
    /// array's last element, so there is never a value at it.
    pub fn resolve<'v>(&self, document: &'v Json) -> Option<&'v Json> {
        resolve(&self.tokens, document)
    }
}

/// Writes the text form, with `~` and `/` in tokens escaped.
impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tokens.iter().try_for_each(|token| {
            f.write_str("/")?;
            write_escaped(f, token)
        })
    }
}

/// Follows unescaped tokens down from `value`.
pub(crate) fn resolve<'v>(tokens: &[String], value: &'v Json) -> Option<&'v Json> {
    tokens
        .iter()
        .try_fold(value, |value, token| value.child(token))
}

/// The index that a token means in an array: decimal digits without a leading zero.
pub(crate) fn array_index(token: &str) -> Option<usize> {
    let leading_zero = token.len() > 1 && token.starts_with('0');
    if leading_zero || !token.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    token.parse().ok()
}

/// Undoes the escaping of one token; `None` when a `~` starts no escape.
pub(crate) fn unescape(token: &str) -> Option<Cow<'_, str>> {
    let mut parts = token.split('~');
    let first = parts.next()?;
    if first.len() == token.len() {
        return Some(Cow::Borrowed(token));
    }
    let mut plain = String::with_capacity(token.len());
    plain.push_str(first);
    for part in parts {
        let (escaped, rest) = match part.as_bytes().first()? {
            b'0' => ('~', &part[1..]),
            b'1' => ('/', &part[1..]),
            _ => return None,
        };
        plain.push(escaped);
        plain.push_str(rest);
    }
    Some(Cow::Owned(plain))
}

/// Writes one token with `~` as `~0` and `/` as `~1`.
pub(crate) fn write_escaped(out: &mut impl fmt::Write, token: &str) -> fmt::Result {
    let mut rest = token;
    while let Some(at) = rest.find(['~', '/']) {
        out.write_str(&rest[..at])?;
        out.write_str(if rest.as_bytes()[at] == b'~' {
            "~0"
        } else {
            "~1"
        })?;
        rest = &rest[at + 1..];
    }
    out.write_str(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::testing::json;

    fn at<'v>(pointer: &str, document: &'v Json) -> Option<&'v Json> {
        Pointer::parse(pointer).unwrap().resolve(document)
    }

    #[test]
    fn the_examples_of_rfc_6901_resolve() {
        let document = json!({
            "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4,
            "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8
        });
        assert_eq!(at("", &document), Some(&document));
        assert_eq!(at("/foo", &document), Some(&json!(["bar", "baz"])));
        assert_eq!(at("/foo/0", &document), Some(&json!("bar")));
        for (pointer, value) in [
            ("/", 0),
            ("/a~1b", 1),
            ("/c%d", 2),
            ("/e^f", 3),
            ("/g|h", 4),
            ("/i\\j", 5),
            ("/k\"l", 6),
            ("/ ", 7),
            ("/m~0n", 8),
        ] {
            assert_eq!(at(pointer, &document), Some(&json!(value)), "{pointer}");
        }
    }

    #[test]
    fn an_escaped_tilde_does_not_start_another_escape() {
        assert_eq!(Pointer::parse("/~01").unwrap().tokens(), ["~1"]);
    }

    #[test]
    fn array_indexes_are_plain_decimals_in_range() {
        let document = json!({"a": [[1], 2]});
        assert_eq!(at("/a/0/0", &document), Some(&json!(1)));
        for nowhere in [
            "/a/2",
            "/a/-",
            "/a/-1",
            "/a/+1",
            "/a/01",
            "/a/00",
            "/a/1.0",
            "/a/",
            "/a/ 1",
            "/a/٠",
            "/a/99999999999999999999999",
        ] {
            assert_eq!(at(nowhere, &document), None, "{nowhere}");
        }
    }

    #[test]
    fn there_is_nothing_below_a_scalar() {
        let document = json!({"n": null, "s": "text"});
        assert_eq!(at("/n/x", &document), None);
        assert_eq!(at("/s/0", &document), None);
    }

    #[test]
    fn text_that_is_no_pointer_is_refused() {
        assert_eq!(
            Pointer::parse("a/b"),
            Err(PointerError::NoLeadingSlash {
                pointer: "a/b".into()
            })
        );
        for bad in ["/~", "/a~", "/~2", "/ok/~x", "/~~"] {
            assert_eq!(
                Pointer::parse(bad),
                Err(PointerError::BadEscape {
                    pointer: bad.into()
                })
            );
        }
    }

    #[test]
    fn pushed_tokens_are_taken_literally() {
        let mut pointer = Pointer::root();
        assert!(pointer.is_root());
        pointer.push("a/b~c");
        pointer.push("0");
        assert_eq!(pointer.to_string(), "/a~1b~0c/0");
    }

    proptest! {
        #[test]
        fn writing_and_parsing_returns_the_same_tokens(tokens in prop::collection::vec("[~/01a-é]{0,4}", 0..5)) {
            let mut pointer = Pointer::root();
            for token in &tokens {
                pointer.push(token.as_str());
            }
            let parsed = Pointer::parse(&pointer.to_string()).unwrap();
            prop_assert_eq!(parsed.tokens(), &tokens);
        }

        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_is_written_back(text in "[~/01a-é]{0,12}") {
            if let Ok(pointer) = Pointer::parse(&text) {
                prop_assert_eq!(pointer.to_string(), text);
            }
        }
    }
}

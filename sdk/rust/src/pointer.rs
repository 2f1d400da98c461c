//! [`Pointer`]: a place in the state, for [`Tracked`](crate::Tracked). Built from segments,
//! which it escapes, so that a key with a slash in it never reaches another place.

use std::fmt;

/// A JSON pointer (RFC 6901) to a place in the state, made of unescaped segments.
///
/// Everything that takes a place takes an array of segments as well, and
/// [`pointer!`](crate::pointer) mixes segments of different types.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// let key = "a/b";
/// assert_eq!(pointer!["rows", key, 0].to_string(), "/rows/a~1b/0");
/// assert_eq!(Pointer::from(["rows", key]), pointer!["rows"].join(key));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// The whole state.
    ///
    /// ```
    /// assert_eq!(tidegate_sdk::Pointer::root().to_string(), "");
    /// ```
    pub fn root() -> Self {
        Self::default()
    }

    /// The place `segment` within this one.
    ///
    /// ```
    /// assert_eq!(tidegate_sdk::Pointer::root().join("a~b").to_string(), "/a~0b");
    /// ```
    #[must_use]
    pub fn join(mut self, segment: impl fmt::Display) -> Self {
        self.0.push('/');
        for c in segment.to_string().chars() {
            match c {
                '~' => self.0.push_str("~0"),
                '/' => self.0.push_str("~1"),
                c => self.0.push(c),
            }
        }
        self
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Pointer> for Pointer {
    fn from(pointer: &Pointer) -> Self {
        pointer.clone()
    }
}

impl<S: fmt::Display, const N: usize> From<[S; N]> for Pointer {
    fn from(segments: [S; N]) -> Self {
        segments.iter().fold(Self::root(), Self::join)
    }
}

impl<S: fmt::Display, const N: usize> From<&[S; N]> for Pointer {
    fn from(segments: &[S; N]) -> Self {
        segments.iter().fold(Self::root(), Self::join)
    }
}

impl<S: fmt::Display> From<&[S]> for Pointer {
    fn from(segments: &[S]) -> Self {
        segments.iter().fold(Self::root(), Self::join)
    }
}

/// A [`Pointer`] from segments of any displayable types: `pointer!["rows", key, 3]`;
/// `pointer![]` is the whole state.
///
/// ```
/// use tidegate_sdk::prelude::*;
/// assert_eq!(pointer![].to_string(), "");
/// assert_eq!(pointer!["rows", 3].to_string(), "/rows/3");
/// ```
#[macro_export]
macro_rules! pointer {
    ($($segment:expr),* $(,)?) => {
        $crate::Pointer::root()$(.join(&$segment))*
    };
}

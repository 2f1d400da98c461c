//! [`Failure`]: why something did not happen, as data that a program can act on. Handlers
//! make failures, the host sends them to callers; the contract is `failure` in `wit/types.wit`.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// Why a method did not do what it was asked: a stable code, and what else helps.
///
/// A method that returns `Err` fails its turn: the state, the events and everything else
/// that the turn staged are discarded, and the caller gets the failure. Most handlers
/// derive it for an enum of their own (see [`derive@Failure`](macro@crate::Failure)).
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// let failure = Failure::new("chat.too-long")
///     .message("a message has at most 200 characters")
///     .param("max", 200)
///     .status(413);
/// assert_eq!(failure.code(), "chat.too-long");
/// assert_eq!(failure.to_string(), "chat.too-long: a message has at most 200 characters");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    code: Cow<'static, str>,
    message: Option<Cow<'static, str>>,
    params: Map<String, Value>,
    status: Option<u16>,
}

impl Failure {
    /// A failure with a code for programs: dotted, lower case, stable over time, of the
    /// pattern `[a-z0-9]+([-.][a-z0-9]+)*` and at most 128 bytes. The host replaces a
    /// code of any other shape by `handler.failed`; [`test`](crate::test) panics on it.
    ///
    /// ```
    /// use tidegate_sdk::Failure;
    /// assert_eq!(Failure::new("cards.not-your-turn").code(), "cards.not-your-turn");
    /// ```
    pub fn new(code: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: code.into(),
            message: None,
            params: Map::new(),
            status: None,
        }
    }

    /// Says it to people. Without a message, clients are shown the code.
    ///
    /// ```
    /// use tidegate_sdk::Failure;
    /// let failure = Failure::new("room.full").message("this room is full");
    /// assert_eq!(failure.text(), "this room is full");
    /// ```
    #[must_use]
    pub fn message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Adds a value that a translated message needs.
    ///
    /// A value that JSON cannot express (a map whose keys are not strings) is left out:
    /// it must not hide the failure itself.
    ///
    /// ```
    /// use tidegate_sdk::Failure;
    /// let failure = Failure::new("room.full").param("seats", 4);
    /// assert_eq!(failure.params()["seats"], 4);
    /// ```
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.params.insert(name.into(), value);
        }
        self
    }

    /// Sets the HTTP status, 400 to 599. It is 400 without this.
    ///
    /// ```
    /// use tidegate_sdk::Failure;
    /// assert_eq!(Failure::new("room.full").status(409).http_status(), Some(409));
    /// ```
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The code.
    ///
    /// ```
    /// assert_eq!(tidegate_sdk::Failure::new("room.full").code(), "room.full");
    /// ```
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What people are shown: the message, or the code where there is none.
    ///
    /// ```
    /// assert_eq!(tidegate_sdk::Failure::new("room.full").text(), "room.full");
    /// ```
    pub fn text(&self) -> &str {
        self.own_message().unwrap_or(&self.code)
    }

    pub(crate) fn own_message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// The values for a translated message.
    ///
    /// ```
    /// assert!(tidegate_sdk::Failure::new("room.full").params().is_empty());
    /// ```
    pub fn params(&self) -> &Map<String, Value> {
        &self.params
    }

    /// The HTTP status, if one was given.
    ///
    /// ```
    /// assert_eq!(tidegate_sdk::Failure::new("room.full").http_status(), None);
    /// ```
    pub fn http_status(&self) -> Option<u16> {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.code),
            None => f.write_str(&self.code),
        }
    }
}

impl std::error::Error for Failure {}

/// What fallible handler code returns: `Result<T>` fails with a [`Failure`], `Result<T, E>`
/// with an `E` of your own.
///
/// ```
/// use tidegate_sdk::prelude::*;
///
/// fn seat(taken: usize) -> Result<usize> {
///     if taken == 4 {
///         return Err(Failure::new("room.full"));
///     }
///     Ok(taken)
/// }
/// assert_eq!(seat(4).unwrap_err().code(), "room.full");
/// ```
pub type Result<T, E = Failure> = core::result::Result<T, E>;

//! Why something did not happen, as data: a stable code, a text for people, parameters.
//!
//! Every refusal that leaves the host is a [`Failure`], whether a guest returned it or the
//! host made it, and this module alone decides how one looks on the wire. It keeps two
//! promises to clients: a code always has the shape of `wit/types.wit`, and a text is
//! never empty.

mod catalog;

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

pub use self::catalog::{Declared, code};

/// The most bytes of a guest's message that clients are shown.
pub const MESSAGE_MAX_BYTES: usize = 4096;
/// The most bytes of a guest's params; longer ones are dropped.
pub const PARAMS_MAX_BYTES: usize = 16 << 10;
/// The most bytes of a failure's code.
pub const CODE_MAX_BYTES: usize = 128;
/// The most characters of somebody else's text that a message repeats.
pub(crate) const ECHO_MAX_CHARS: usize = 64;

/// Why something did not happen, as data that a program can act on.
///
/// ```
/// use tidegate_core::Failure;
/// let failure = Failure::new("chat.too-long")
///     .message("That is too long.")
///     .param("max", 200);
/// assert_eq!(failure.text(), "That is too long.");
/// assert_eq!(
///     serde_json::to_string(&failure).unwrap(),
///     r#"{"code":"chat.too-long","message":"That is too long.","params":{"max":200}}"#
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Stable and dotted, lower case, for programs.
    pub code: Cow<'static, str>,
    /// For people; without it they are shown the code.
    pub message: Option<String>,
    /// Values for a translated message, a JSON object.
    pub params: Option<Value>,
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// What operators are told besides: paths, errors of the system, contents of states.
    ///
    /// It is in the log, where a failure is displayed, and behind the operators' doors;
    /// nothing that is sent to clients or handlers has it.
    pub detail: Option<Box<str>>,
}

impl Failure {
    /// A failure with this code and the status 400.
    pub fn new(code: impl Into<Cow<'static, str>>) -> Failure {
        Failure {
            code: code.into(),
            message: None,
            params: None,
            status: 400,
            detail: None,
        }
    }

    /// `actor.unknown`, in the words of Zocket's protocol.
    pub fn unknown_actor(actor: &str) -> Failure {
        Failure::actor_unknown(&cut(actor))
    }

    /// `method.unknown`, in the words of Zocket's protocol.
    pub fn unknown_method(actor: &str, method: &str) -> Failure {
        Failure::method_unknown(&cut(actor), &cut(method))
    }

    /// What a guest returned, made fit to be shown: `wit/types.wit` says which codes and
    /// statuses are allowed, everything else falls back to a safe value.
    pub fn from_guest(
        code: String,
        message: Option<String>,
        params: Option<String>,
        status: Option<u16>,
    ) -> Failure {
        let code = if is_code(&code) {
            Cow::Owned(code)
        } else {
            Cow::Borrowed(code::HANDLER_FAILED)
        };
        let message = message.map(|mut message| {
            message.truncate(message.floor_char_boundary(MESSAGE_MAX_BYTES));
            message
        });
        let params = params.filter(|params| params.len() <= PARAMS_MAX_BYTES);
        if let Some(failure) = Failure::own_fault(&code, message.as_deref(), params.as_deref()) {
            return failure;
        }
        Failure {
            code,
            message,
            params: params
                .and_then(|params| serde_json::from_str::<Map<String, Value>>(&params).ok())
                .map(Value::Object),
            status: status
                .filter(|status| (400..=599).contains(status))
                .unwrap_or(400),
            detail: None,
        }
    }

    /// What a handler passes on to its caller of what it was told about its own work: that a
    /// place of its state does not exist, that its event does not fit. Where, and with which
    /// values, is for operators.
    fn own_fault(code: &str, message: Option<&str>, params: Option<&str>) -> Option<Failure> {
        const ABOUT: [&str; 4] = ["event.", "output.", "state.", "timer."];
        let mut known = code::ALL.iter();
        let known = known.find(|known| {
            let is_about = ABOUT.iter().any(|part| known.code.starts_with(part));
            // A limit is no place.
            known.code == code && known.status == 500 && is_about && code != code::STATE_TOO_LARGE
        })?;
        let failure = Failure::new(known.code)
            .message(known.meaning)
            .status(known.status);
        let detail = [message, params].into_iter().flatten();
        let detail = detail.collect::<Vec<_>>().join(" ");
        Some(match detail.is_empty() {
            true => failure,
            false => failure.detail(detail),
        })
    }

    /// Sets the text for people.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Failure {
        self.message = Some(message.into());
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<Value>) -> Failure {
        let mut params = match self.params.take() {
            Some(Value::Object(params)) => params,
            _ => Map::new(),
        };
        params.insert(name.into(), value.into());
        self.params = Some(Value::Object(params));
        self
    }

    /// Sets the HTTP status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Failure {
        self.status = status;
        self
    }

    /// Sets what operators are told, and nobody else.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Box<str>>) -> Failure {
        self.detail = Some(detail.into());
        self
    }

    /// What people are shown: the message, or the code where there is none.
    ///
    /// Never empty, because Zocket's client takes an empty error for success.
    pub fn text(&self) -> &str {
        match self.shown_message() {
            Some(message) => message,
            None if self.code.is_empty() => code::INTERNAL,
            None => &self.code,
        }
    }

    /// The body of an HTTP error, `{"error": {code, message, params}}`.
    ///
    /// The message is always there, as [`Failure::text`] gives it.
    pub fn http_body(&self) -> String {
        self.body(None)
    }

    /// The body of an HTTP error for operators: `detail` is in it, where there is one.
    pub fn operators_body(&self) -> String {
        self.body(self.detail.as_deref())
    }

    fn body(&self, detail: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            params: Option<&'a Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a str>,
        }
        json(&Body {
            error: Error {
                code: &self.code,
                message: self.text(),
                params: self.params.as_ref(),
                detail,
            },
        })
    }

    fn shown_message(&self) -> Option<&str> {
        self.message.as_deref().filter(|text| !text.is_empty())
    }
}

/// For the log: with the detail that clients are not told.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shown_message() {
            Some(message) => write!(f, "{}: {message}", self.code)?,
            None => f.write_str(self.text())?,
        }
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// `{code, message?, params?}`: the `failure` of a WebSocket frame.
impl Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", &self.code)?;
        if let Some(message) = self.shown_message() {
            map.serialize_entry("message", message)?;
        }
        if let Some(params) = &self.params {
            map.serialize_entry("params", params)?;
        }
        map.end()
    }
}

/// The JSON text of a value whose serialization cannot fail: strings, JSON values and
/// structs of them.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("strings and JSON values serialize")
}

/// At most `ECHO_MAX_CHARS` characters of a text that came from outside, so that a
/// message never carries a megabyte back; a cut text ends in `…`.
pub fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(ECHO_MAX_CHARS) {
        None => Cow::Borrowed(text),
        Some(_) => {
            let kept: String = text.chars().take(ECHO_MAX_CHARS - 1).collect();
            Cow::Owned(kept + "…")
        }
    }
}

/// Whether a code matches `[a-z0-9]+([-.][a-z0-9]+)*` and is short enough.
fn is_code(code: &str) -> bool {
    code.len() <= CODE_MAX_BYTES
        && code.split(['-', '.']).all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn guest(code: &str) -> Failure {
        Failure::from_guest(code.to_owned(), None, None, None)
    }

    #[test]
    fn the_text_is_the_message() {
        assert_eq!(Failure::new("a.b").message("No.").text(), "No.");
    }

    #[test]
    fn the_text_falls_back_to_the_code_when_the_message_is_absent_or_empty() {
        assert_eq!(Failure::new("a.b").text(), "a.b");
        assert_eq!(Failure::new("a.b").message("").text(), "a.b");
    }

    #[test]
    fn the_text_is_not_empty_even_without_a_code() {
        assert!(!Failure::new("").message("").text().is_empty());
    }

    #[test]
    fn a_new_failure_has_the_status_400() {
        assert_eq!(Failure::new("a.b").status, 400);
        assert_eq!(Failure::new("a.b").status(409).status, 409);
    }

    #[test]
    fn parameters_gather_in_one_object() {
        let failure = Failure::new("a.b").param("max", 2).param("by", "x");
        assert_eq!(failure.params, Some(json!({"max": 2, "by": "x"})));
    }

    #[test]
    fn the_wire_form_leaves_out_what_is_absent() {
        assert_eq!(json(&Failure::new("a.b")), r#"{"code":"a.b"}"#);
        assert_eq!(json(&Failure::new("a.b").message("")), r#"{"code":"a.b"}"#);
        assert_eq!(
            json(&Failure::new("a.b").message("m").param("k", 1)),
            r#"{"code":"a.b","message":"m","params":{"k":1}}"#
        );
    }

    #[test]
    fn the_http_body_always_has_a_message() {
        assert_eq!(
            Failure::new("a.b").http_body(),
            r#"{"error":{"code":"a.b","message":"a.b"}}"#
        );
        assert_eq!(
            Failure::new("a.b").message("m").param("k", 1).http_body(),
            r#"{"error":{"code":"a.b","message":"m","params":{"k":1}}}"#
        );
    }

    #[test]
    fn a_detail_is_for_operators_alone() {
        let failure = Failure::new("a.b").message("m").detail("/var/lib/x");
        assert_eq!(json(&failure), r#"{"code":"a.b","message":"m"}"#);
        assert_eq!(
            failure.http_body(),
            r#"{"error":{"code":"a.b","message":"m"}}"#
        );
        assert_eq!(failure.text(), "m");
        assert_eq!(
            failure.operators_body(),
            r#"{"error":{"code":"a.b","message":"m","detail":"/var/lib/x"}}"#
        );
        assert_eq!(failure.to_string(), "a.b: m (/var/lib/x)");
    }

    #[test]
    fn a_guests_good_code_is_kept() {
        for good in ["a", "chat.forbidden", "a-b.c9", &"a".repeat(128)] {
            assert_eq!(guest(good).code, good);
        }
    }

    #[test]
    fn a_guests_bad_code_becomes_handler_failed() {
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a-.b",
            "A.b",
            "a b",
            "a_b",
            "ä",
            "a\n",
            "a.b\u{0}",
            &"a".repeat(129),
        ] {
            assert_eq!(guest(bad).code, code::HANDLER_FAILED, "{bad:?}");
        }
    }

    #[test]
    fn what_a_guest_passes_on_about_its_state_is_not_for_its_caller() {
        let message = Some("found none at `/secret/x`".to_owned());
        let params = Some(r#"{"pointer":"/secret/x"}"#.to_owned());
        let code = "state.no-such-place".to_owned();
        let failure = Failure::from_guest(code, message, params, Some(400));
        assert_eq!((failure.status, failure.params.as_ref()), (500, None));
        assert_eq!(
            failure.text(),
            "The handler named a place that the state does not have."
        );
        assert!(!failure.http_body().contains("secret"));
        assert!(failure.to_string().contains("secret"));
        let bare = Failure::from_guest("event.invalid".to_owned(), None, None, None);
        assert_eq!(bare.detail, None);
        let own = Failure::from_guest("state.odd".to_owned(), Some("m".to_owned()), None, None);
        assert_eq!(own.text(), "m");
    }

    #[test]
    fn a_guests_parameters_must_be_a_json_object() {
        let with =
            |params: &str| Failure::from_guest("a".into(), None, Some(params.into()), None).params;
        assert_eq!(with(r#"{"max":200}"#), Some(json!({"max": 200})));
        for bad in ["", "[]", "1", "null", "{", r#"{"a":1} x"#] {
            assert_eq!(with(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_guests_status_outside_400_to_599_becomes_400() {
        let with = |status| Failure::from_guest("a".into(), None, None, Some(status)).status;
        assert_eq!(with(400), 400);
        assert_eq!(with(599), 599);
        for bad in [0, 101, 200, 399, 600, u16::MAX] {
            assert_eq!(with(bad), 400, "{bad}");
        }
    }

    #[test]
    fn a_guests_long_message_is_cut_between_characters() {
        let long = format!("a{}", "ä".repeat(4096));
        let failure = Failure::from_guest("a".into(), Some(long.clone()), None, None);
        let kept = failure.message.unwrap();
        assert_eq!(kept.len(), MESSAGE_MAX_BYTES - 1);
        assert!(long.starts_with(&kept));
    }

    #[test]
    fn every_code_of_the_host_is_listed_once_has_the_agreed_shape_and_an_error_status() {
        let mut seen = std::collections::BTreeSet::new();
        for Declared {
            code,
            status,
            meaning,
            params,
        } in code::ALL
        {
            assert!(is_code(code), "{code}");
            assert!(seen.insert(code), "{code} is listed twice");
            assert!((400..=599).contains(status), "{code}");
            assert!(meaning.ends_with('.'), "{code}");
            let is_camel = |name: &&str| name.chars().all(|c| c.is_ascii_alphabetic());
            assert!(params.iter().all(is_camel), "{code}: {params:?}");
        }
    }

    #[test]
    fn a_failure_of_the_host_is_what_is_declared() {
        let failure = Failure::message_limit(3, 2, 9);
        assert_eq!((&*failure.code, failure.status), (code::MESSAGE_LIMIT, 500));
        let text = "3 messages of the actor have not reached their receivers";
        assert_eq!(failure.text(), text);
        let params = json!({"limit": 2, "limitBytes": 9});
        assert_eq!(failure.params, Some(params));
    }

    #[test]
    fn unknown_actors_and_methods_read_as_zockets_server_says_them() {
        assert_eq!(Failure::unknown_actor("nope").text(), "Unknown actor: nope");
        assert_eq!(Failure::unknown_actor("nope").status, 404);
        let failure = Failure::unknown_method("chat", "toString");
        assert_eq!(failure.text(), "Unknown method: toString");
        assert_eq!(
            failure.params,
            Some(json!({"actor": "chat", "method": "toString"}))
        );
    }

    #[test]
    fn a_long_name_is_not_echoed_whole() {
        let failure = Failure::unknown_actor(&"ä".repeat(100_000));
        assert!(failure.text().len() < 200);
        assert!(failure.text().ends_with('…'));
    }

    #[test]
    fn a_failure_displays_its_code_and_its_message() {
        assert_eq!(Failure::new("a.b").message("No.").to_string(), "a.b: No.");
        assert_eq!(Failure::new("a.b").to_string(), "a.b");
    }

    proptest! {
        #[test]
        fn whatever_a_guest_returns_is_shown_within_the_rules(
            code in ".*",
            message in proptest::option::of(".*"),
            params in proptest::option::of(".*"),
            status in proptest::option::of(any::<u16>()),
        ) {
            let failure = Failure::from_guest(code, message, params, status);
            prop_assert!(is_code(&failure.code));
            prop_assert!(!failure.text().is_empty());
            prop_assert!((400..=599).contains(&failure.status));
            prop_assert!(failure.params.as_ref().is_none_or(Value::is_object));
            let body: Value = serde_json::from_str(&failure.http_body()).unwrap();
            prop_assert_eq!(&body["error"]["code"], &json!(failure.code));
        }
    }
}

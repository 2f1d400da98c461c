//! Why something did not happen, as data: a stable code, a text for people, parameters.
//!
//! Every refusal that leaves the host is a [`Failure`], whether a guest returned it or the
//! host made it, and this module alone decides how one looks on the wire. It keeps two
//! promises to clients: a code always has the shape of `wit/types.wit`, and a text is
//! never empty.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

/// The most bytes of a guest's message that clients are shown.
pub const MESSAGE_MAX_BYTES: usize = 4096;
/// The most bytes of a guest's params; longer ones are dropped.
pub const PARAMS_MAX_BYTES: usize = 16 << 10;
/// The most bytes of a failure's code.
pub const CODE_MAX_BYTES: usize = 128;
/// The most characters of somebody else's text that a message repeats.
pub(crate) const ECHO_MAX_CHARS: usize = 64;

/// The stable codes of the host.
///
/// A code's meaning never changes; new codes may come. `docs/protocol.md` lists them from
/// [`ALL`](code::ALL).
pub mod code {
    macro_rules! codes {
        ($($name:ident = $code:literal, $status:literal, $meaning:literal;)*) => {
            $(#[doc = $meaning] pub const $name: &str = $code;)*

            /// Every code of the host, with its HTTP status and its meaning.
            pub const ALL: &[(&str, u16, &str)] = &[$(($code, $status, $meaning)),*];
        };
    }

    codes! {
        FRAME_MALFORMED = "frame.malformed", 400, "The WebSocket frame is not JSON, or not a frame of the protocol.";
        FRAME_TOO_LARGE = "frame.too-large", 413, "The WebSocket message is larger than the host accepts.";
        FRAME_NOT_UTF8 = "frame.not-utf8", 400, "The WebSocket message is not UTF-8 text.";
        FRAME_UNKNOWN_TYPE = "frame.unknown-type", 400, "The frame's `type` is none that a client may send.";
        RPC_DUPLICATE_ID = "rpc.duplicate-id", 409, "A call with this id is still running on the same connection.";
        RPC_IN_FLIGHT_LIMIT = "rpc.in-flight-limit", 429, "The connection has too many calls that wait for a result.";
        ACTOR_UNKNOWN = "actor.unknown", 404, "No component serves an actor type of this name.";
        ACTOR_INVALID_ID = "actor.invalid-id", 400, "The actor id is empty, longer than 256 bytes, `.` or `..`.";
        ACTOR_MOVING = "actor.moving", 503, "The actor moves to another host; try again later.";
        ACTOR_LIMIT = "actor.limit", 503, "The host has as many actors in memory as it may; try again later.";
        METHOD_UNKNOWN = "method.unknown", 404, "The actor type has no method of this name.";
        INPUT_INVALID = "input.invalid", 400, "The input is not JSON or does not satisfy the method's schema.";
        MAILBOX_FULL = "mailbox.full", 503, "The actor has too many calls waiting; try again later.";
        CALL_DEADLOCK = "call.deadlock", 409, "The call would wait for itself, directly or through other actors.";
        CALL_KEY_REUSED = "call.key-reused", 422, "The idempotency key was used with another input before.";
        CALL_INTERRUPTED = "call.interrupted", 409, "A call with this idempotency key was begun and did not end; it is not run again.";
        CALL_CANCELLED = "call.cancelled", 409, "The caller has cancelled the call.";
        CALL_TIMEOUT = "call.timeout", 504, "The called actor did not answer in time.";
        CALL_DEPTH_LIMIT = "call.depth-limit", 500, "Calls between actors nest deeper than they may.";
        CALL_LIMIT = "call.limit", 500, "The turn made more calls to other actors than it may.";
        CALL_LOST = "call.lost", 503, "The host that the call went to is gone, and nobody knows whether it ran; with an idempotency key it can be made again.";
        CALL_SLOW_CONSUMER = "call.slow-consumer", 409, "The caller does not read what the method streams to it.";
        HANDLER_TRAPPED = "handler.trapped", 500, "The handler crashed; what it had staged is discarded.";
        HANDLER_FAILED = "handler.failed", 500, "The handler failed without a code of the agreed shape.";
        TURN_DEADLINE = "turn.deadline", 504, "The turn took longer than it may.";
        TURN_MEMORY_LIMIT = "turn.memory-limit", 500, "The handler wanted more memory than it may have.";
        TURN_STACK_LIMIT = "turn.stack-limit", 500, "The handler's calls nest deeper than its stack allows.";
        TURN_HOST_CALL_LIMIT = "turn.host-call-limit", 500, "The turn called the host more often than it may.";
        TURN_EFFECTS_LIMIT = "turn.effects-limit", 500, "The turn staged more than it may.";
        TURN_WORK_LIMIT = "turn.work-limit", 500, "The turn had the host do more work on its data than it may: operations on large arrays, or a schema of many parts for a large value.";
        OUTPUT_INVALID = "output.invalid", 500, "The method's result is not JSON or does not satisfy its schema.";
        STATE_INVALID = "state.invalid", 500, "The state that the turn leaves does not satisfy its schema.";
        STATE_MALFORMED = "state.malformed", 500, "The handler staged something that is not JSON.";
        STATE_NO_SUCH_PLACE = "state.no-such-place", 500, "The handler named a place that the state does not have.";
        STATE_NOT_A_STRING = "state.not-a-string", 500, "The handler appended text to a place that holds no string.";
        STATE_TOO_LARGE = "state.too-large", 500, "The state that the turn leaves is longer than it may be.";
        STATE_READ_ONLY = "state.read-only", 500, "The handler tried to change the state where it may only read.";
        EVENT_UNKNOWN = "event.unknown", 500, "The handler emitted an event that its manifest does not declare.";
        EVENT_INVALID = "event.invalid", 500, "The handler emitted a payload that the event's schema refuses.";
        TIMER_UNKNOWN_METHOD = "timer.unknown-method", 500, "The handler set a timer for a method that it does not have.";
        TIMER_INVALID_INPUT = "timer.invalid-input", 500, "The handler set a timer with an input that the method refuses.";
        TIMER_INVALID_DELAY = "timer.invalid-delay", 500, "The handler set a timer with a delay outside the allowed range.";
        MESSAGE_LIMIT = "message.limit", 500, "The actor has sent as many messages as may be on their way.";
        TIMER_LIMIT = "timer.limit", 500, "The actor has as many timers as it may.";
        STATE_UNFIT = "state.unfit", 500, "The stored state does not fit the handler that serves the actor now, and is not migrated.";
        STORE_UNAVAILABLE = "store.unavailable", 503, "The state could not be loaded or saved; try again later.";
        STORE_BUSY = "store.busy", 503, "On Spin: the database was busy with the writes of others for too long; `params.retryAfterMs` says when to try again.";
        HOST_MEMORY = "host.memory", 503, "The host has no memory left for this; try again later, after `params.retryAfterMs` where that is said.";
        HOST_CUT_OFF = "host.cut-off", 503, "The host cannot reach the others of its cluster; try again later.";
        HOST_SHUTTING_DOWN = "host.shutting-down", 503, "The host is shutting down; connect again later.";
        HOST_NOT_SUPPORTED = "host.not-supported", 501, "This host does not offer what was asked for.";
        REQUEST_MALFORMED = "request.malformed", 400, "The HTTP request is not one that this route understands.";
        REQUEST_TOO_LARGE = "request.too-large", 413, "The HTTP request's body is larger than the host accepts.";
        REQUEST_TIMEOUT = "request.timeout", 408, "The HTTP request's body did not arrive in time.";
        REQUEST_NOT_FOUND = "request.not-found", 404, "No route has this path.";
        REQUEST_METHOD_NOT_ALLOWED = "request.method-not-allowed", 405, "The route does not take this HTTP method.";
        REQUEST_UPGRADE_REQUIRED = "request.upgrade-required", 426, "The request asks for a WebSocket by another version of HTTP or of the WebSocket protocol than 1.1 and 13.";
        REQUEST_NOT_ACCEPTABLE = "request.not-acceptable", 406, "The request refuses the only form that the answer has.";
        REQUEST_UNSUPPORTED_MEDIA = "request.unsupported-media", 415, "The HTTP request's body is of a type or coding that the route does not read.";
        REQUEST_EXPECTATION = "request.expectation", 417, "The request expects something that the host does not do; it knows `100-continue`.";
        REQUEST_FORBIDDEN_HOST = "request.forbidden-host", 403, "The `Host` header names none of the host's allowed names.";
        REQUEST_FORBIDDEN_ORIGIN = "request.forbidden-origin", 403, "The `Origin` header names none of the allowed origins.";
        AUTH_REQUIRED = "auth.required", 401, "The host wants a token, and none was sent.";
        AUTH_INVALID = "auth.invalid", 401, "The token is not one that the host accepts; `params.reason` says why.";
        AUTH_EXPIRED = "auth.expired", 401, "The token has expired; send a new one.";
        AUTH_OTHER_USER = "auth.other-user", 403, "The new token is not of the user whose connection this is.";
        AUTH_NOT_CONFIGURED = "auth.not-configured", 501, "The host has no key to verify tokens with: everybody is anonymous.";
        ACCESS_CLOSED = "access.closed", 403, "Nobody may subscribe to actors of this type or read them.";
        ACCESS_LIMIT = "access.limit", 503, "Too many subscriptions wait for the actor's guard; try again later.";
        ADMIN_UNAUTHORIZED = "admin.unauthorized", 401, "This route wants the admin key as a bearer token.";
        RATE_FRAMES = "rate.frames", 429, "The connection sends frames faster than it may; the frame was not read.";
        RATE_CALLS = "rate.calls", 429, "The user calls faster than they may; the call was not made.";
        RATE_ACTORS = "rate.actors", 429, "Actors of the component come into memory faster than they may; try again later.";
        CONNECTION_ADDRESS_LIMIT = "connection.address-limit", 429, "The client's address has as many connections as it may.";
        ACTOR_BUSY = "actor.busy", 409, "On Spin: other turns of the actor were in the way for too long; try again.";
        ACTOR_EXISTS = "actor.exists", 409, "There is such an actor already.";
        ACTOR_IN_USE = "actor.in-use", 409, "The actor is in memory, where it cannot be replaced; try again later.";
        IMPORT_INVALID = "import.invalid", 422, "The file is not a whole export; the message says where it is wrong.";
        ACTOR_DESTROYED = "actor.destroyed", 409, "The actor was destroyed while the call ran or waited.";
        ACTOR_NOT_FOUND = "actor.not-found", 404, "There is no such actor, in memory or stored.";
        COMPONENT_INVALID = "component.invalid", 422, "The upload is not a component that the host can serve; the message says why.";
        COMPONENT_INVALID_NAME = "component.invalid-name", 400, "A component's name is not of the agreed shape.";
        COMPONENT_TOO_LARGE = "component.too-large", 413, "The upload is larger than a component may be, or takes more to compile; the message says what, `params.which` the setting.";
        COMPONENT_BUSY = "component.busy", 409, "Another upload of this component, or too many others, are under way; try again later.";
        COMPONENT_CONFLICT = "component.conflict", 409, "Another component serves an actor type of the upload.";
        COMPONENT_IN_USE = "component.in-use", 409, "Actors that only this component serves are in memory.";
        COMPONENT_UNKNOWN = "component.unknown", 404, "No component of this name is loaded.";
        COMPONENT_VERSION_UNKNOWN = "component.version-unknown", 404, "No such version of the component is kept.";
        COMPONENT_DAMAGED = "component.damaged", 500, "The file of the component's version is damaged or missing; the message names it.";
        COMPONENT_SELF_TEST = "component.self-test", 422, "The component's self-test failed; the message says why, `params.code` is its own code.";
        COMPONENT_TIMEOUT = "component.timeout", 504, "The upload took too long to compile or to describe itself.";
        CONNECTION_LIMIT = "connection.limit", 503, "The host has as many connections as it may.";
        CONNECTION_ACTOR_LIMIT = "connection.actor-limit", 429, "The connection has had contact with as many actors as it may.";
        UNSUPPORTED_ON_SPIN = "unsupported.on-spin", 501, "The host offers this, Spin does not, or not as the application is set up; the message says what.";
        INTERNAL = "internal", 500, "The host failed; its log says why.";
    }

    /// The HTTP status of a code of the host; 400 for any other code.
    pub fn status_of(code: &str) -> u16 {
        ALL.iter()
            .find(|(known, ..)| *known == code)
            .map_or(400, |(_, status, _)| *status)
    }
}

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

    /// A failure of the host, with a code of [`code`] and that code's status.
    pub fn host(code: &'static str) -> Failure {
        Failure::new(code).status(code::status_of(code))
    }

    /// `actor.unknown`, in the words of Zocket's protocol.
    pub fn unknown_actor(actor: &str) -> Failure {
        Failure::host(code::ACTOR_UNKNOWN)
            .message(format!("Unknown actor: {}", cut(actor)))
            .param("actor", cut(actor))
    }

    /// `method.unknown`, in the words of Zocket's protocol.
    pub fn unknown_method(actor: &str, method: &str) -> Failure {
        Failure::host(code::METHOD_UNKNOWN)
            .message(format!("Unknown method: {}", cut(method)))
            .param("actor", cut(actor))
            .param("method", cut(method))
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
        let (code, status, meaning) = known.find(|(known, status, _)| {
            let is_about = ABOUT.iter().any(|part| known.starts_with(part));
            // A limit is no place.
            *known == code && *status == 500 && is_about && *known != code::STATE_TOO_LARGE
        })?;
        let failure = Failure::new(*code).message(*meaning).status(*status);
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
        for (code, status, meaning) in code::ALL {
            assert!(is_code(code), "{code}");
            assert!(seen.insert(code), "{code} is listed twice");
            assert!((400..=599).contains(status), "{code}");
            assert!(meaning.ends_with('.'), "{code}");
            assert_eq!(code::status_of(code), *status);
        }
    }

    #[test]
    fn a_code_that_is_not_the_hosts_has_the_status_400() {
        assert_eq!(code::status_of("chat.forbidden"), 400);
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

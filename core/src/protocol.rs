//! The WebSocket frames: what clients send, parsed, and what they are sent, encoded.
//!
//! The gateway parses with [`parse`]; release and fan-out encode with the functions below.
//! Both are hot. A client frame is read in one pass and borrows from the received text;
//! its `input` stays JSON text. Documents in server frames come as JSON text and are
//! spliced in as they are.
//!
//! The frames are those of Zocket's published protocol, with additions that its client
//! ignores: `failure`, `epoch`, `version`, `from`, and the frame type `error`.
//! `docs/protocol.md` shows each of them.
//!
//! Invariant: no frame of the server has an empty `error`, or both `error` and `result`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::document::MAX_NESTING;
use crate::failure::{Failure, code, cut, json};

/// The most bytes of a call's `id`.
pub const RPC_ID_MAX_BYTES: usize = 128;

/// One frame of a client.
#[derive(Clone, Debug)]
pub enum ClientFrame<'a> {
    /// `rpc`: calls a method.
    Rpc(Rpc<'a>),
    /// `state:sub`: subscribes to an actor's state; also asks for a fresh snapshot.
    StateSub(Target<'a>),
    /// `state:unsub`: the opposite.
    StateUnsub(Target<'a>),
    /// `event:sub`: subscribes to an actor's events.
    EventSub(Target<'a>),
    /// `event:unsub`: the opposite.
    EventUnsub(Target<'a>),
}

/// A call. The texts are as the client sent them: only `id` is checked.
#[derive(Clone, Debug)]
pub struct Rpc<'a> {
    /// Names the call in its result: 1 to 128 bytes.
    pub id: Cow<'a, str>,
    /// The actor type.
    pub actor: Cow<'a, str>,
    /// The actor's id.
    pub actor_id: Cow<'a, str>,
    /// The method.
    pub method: Cow<'a, str>,
    /// The input as JSON text, which nests no deeper than
    /// [`MAX_NESTING`]; `None` when the frame has none, which is not the
    /// same as `null`.
    ///
    /// The text is valid JSON by its syntax alone: a number too large for a double or half
    /// of a surrogate pair is found by whoever parses it.
    pub input: Option<&'a RawValue>,
}

/// The actor that a subscription frame names, as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The actor type.
    pub actor: Cow<'a, str>,
    /// The actor's id.
    pub actor_id: Cow<'a, str>,
}

/// Why a text is not a frame that a client may send.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{failure}")]
pub struct FrameError {
    /// What the client is told. Its parameter `path` names the field, if it is one.
    pub failure: Failure,
    /// The id of the call that the frame was meant to be: answer with [`rpc_failure`].
    /// Without it, answer with [`error`].
    pub rpc_id: Option<String>,
}

/// Reads one frame of a client.
///
/// Fields that the frame's type does not have are ignored, so that the protocol can grow.
/// A field that the type does have and that appears twice is refused: which one counts
/// would depend on the reader (RFC 8259, section 4).
///
/// ```
/// use tidegate_core::protocol::{ClientFrame, parse};
/// let text = r#"{"type":"rpc","id":"1","actor":"counter","actorId":"a","method":"add","input":{"by":2}}"#;
/// let ClientFrame::Rpc(call) = parse(text).unwrap() else { panic!() };
/// assert_eq!(call.method, "add");
/// assert_eq!(call.input.unwrap().get(), r#"{"by":2}"#);
/// ```
pub fn parse<'a>(text: &'a str) -> Result<ClientFrame<'a>, FrameError> {
    let mut fields = read(text)?;
    let kind = std::mem::take(&mut fields.kind)
        .text("type")
        .map_err(refuse)?;
    let subscription: fn(Target<'a>) -> ClientFrame<'a> = match &*kind {
        "rpc" => return call(fields),
        "state:sub" => ClientFrame::StateSub,
        "state:unsub" => ClientFrame::StateUnsub,
        "event:sub" => ClientFrame::EventSub,
        "event:unsub" => ClientFrame::EventUnsub,
        unknown => {
            let message = format!(
                "/type: expected rpc, state:sub, state:unsub, event:sub or event:unsub, found {:?}",
                cut(unknown)
            );
            return Err(refuse(
                Failure::host(code::FRAME_UNKNOWN_TYPE)
                    .message(message)
                    .param("path", "/type"),
            ));
        }
    };
    Ok(subscription(Target {
        actor: fields.actor.text("actor").map_err(refuse)?,
        actor_id: fields.actor_id.text("actorId").map_err(refuse)?,
    }))
}

fn call(fields: Fields<'_>) -> Result<ClientFrame<'_>, FrameError> {
    let id = fields.id.text("id").map_err(refuse)?;
    if id.is_empty() || id.len() > RPC_ID_MAX_BYTES {
        let found = match id.len() {
            0 => "an empty string".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        let message = format!("expected a string of 1 to {RPC_ID_MAX_BYTES} bytes, found {found}");
        return Err(refuse(malformed_field("id", &message)));
    }
    let refuse = |failure| FrameError {
        failure,
        rpc_id: Some(id.clone().into_owned()),
    };
    let input = match fields.input {
        Input::Absent => None,
        Input::Once(input) if nests_within(input.get(), MAX_NESTING) => Some(input),
        Input::Once(_) => {
            let message = format!("arrays and objects nest deeper than {MAX_NESTING} levels");
            return Err(refuse(malformed_field("input", &message)));
        }
        Input::Twice => return Err(refuse(malformed_field("input", "appears twice"))),
    };
    Ok(ClientFrame::Rpc(Rpc {
        actor: fields.actor.text("actor").map_err(refuse)?,
        actor_id: fields.actor_id.text("actorId").map_err(refuse)?,
        method: fields.method.text("method").map_err(refuse)?,
        input,
        id,
    }))
}

/// What a frame says, whatever its type.
#[derive(Default)]
struct Fields<'a> {
    kind: Field<'a>,
    id: Field<'a>,
    actor: Field<'a>,
    actor_id: Field<'a>,
    method: Field<'a>,
    input: Input<'a>,
}

/// A field that should be a string.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    /// It is of this other JSON type.
    Other(&'static str),
    Twice,
}

#[derive(Default)]
enum Input<'a> {
    #[default]
    Absent,
    Once(&'a RawValue),
    Twice,
}

impl<'a> Field<'a> {
    fn text(self, name: &str) -> Result<Cow<'a, str>, Failure> {
        match self {
            Field::Text(text) => Ok(text),
            Field::Absent => Err(malformed_field(name, "missing")),
            Field::Other(found) => {
                let message = format!("expected string, found {found}");
                Err(malformed_field(name, &message))
            }
            Field::Twice => Err(malformed_field(name, "appears twice")),
        }
    }
}

fn malformed(message: String) -> Failure {
    Failure::host(code::FRAME_MALFORMED).message(message)
}

fn malformed_field(name: &str, message: &str) -> Failure {
    malformed(format!("/{name}: {message}")).param("path", format!("/{name}"))
}

fn refuse(failure: Failure) -> FrameError {
    FrameError {
        failure,
        rpc_id: None,
    }
}

/// Reads the fields of a frame, or says why the text is no JSON object.
fn read(text: &str) -> Result<Fields<'_>, FrameError> {
    let not_json = |error| refuse(malformed(format!("not JSON: {error}")));
    let first = text.bytes().find(|b| !b" \t\r\n".contains(b));
    if first == Some(b'{') {
        let mut json = serde_json::Deserializer::from_str(text);
        return json
            .deserialize_map(FieldsVisitor)
            .and_then(|fields| json.end().map(|()| fields))
            .map_err(not_json);
    }
    serde_json::from_str::<IgnoredAny>(text).map_err(not_json)?;
    let found = match first {
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    };
    Err(refuse(malformed(format!(
        "expected an object, found {found}"
    ))))
}

struct FieldsVisitor;

impl<'a> Visitor<'a> for FieldsVisitor {
    type Value = Fields<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Fields<'a>, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let field = match key {
                Key::Type => &mut fields.kind,
                Key::Id => &mut fields.id,
                Key::Actor => &mut fields.actor,
                Key::ActorId => &mut fields.actor_id,
                Key::Method => &mut fields.method,
                Key::Input => {
                    let input = map.next_value()?;
                    fields.input = match fields.input {
                        Input::Absent => Input::Once(input),
                        _ => Input::Twice,
                    };
                    continue;
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let value = map.next_value_seed(FieldSeed)?;
            *field = match field {
                Field::Absent => value,
                _ => Field::Twice,
            };
        }
        Ok(fields)
    }
}

enum Key {
    Type,
    Id,
    Actor,
    ActorId,
    Method,
    Input,
    Other,
}

struct KeySeed;

impl<'a> DeserializeSeed<'a> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(match name {
            "type" => Key::Type,
            "id" => Key::Id,
            "actor" => Key::Actor,
            "actorId" => Key::ActorId,
            "method" => Key::Method,
            "input" => Key::Input,
            _ => Key::Other,
        })
    }
}

/// Reads any JSON value, keeps strings and notes the type of anything else. `IgnoredAny`
/// skips what is nested without recursion, so depth costs no stack.
struct FieldSeed;

impl<'a> DeserializeSeed<'a> for FieldSeed {
    type Value = Field<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Field<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for FieldSeed {
    type Value = Field<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Field<'a>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Field<'a>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Field<'a>, E> {
        Ok(Field::Text(Cow::Owned(text)))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field<'a>, E> {
        Ok(Field::Other("boolean"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Field<'a>, E> {
        Ok(Field::Other("number"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field<'a>, E> {
        Ok(Field::Other("number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field<'a>, E> {
        Ok(Field::Other("number"))
    }

    fn visit_unit<E>(self) -> Result<Field<'a>, E> {
        Ok(Field::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Field<'a>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Other("array"))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Field<'a>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other("object"))
    }
}

/// Whether the arrays and objects of a valid JSON text nest at most so many levels deep.
fn nests_within(json: &str, levels: usize) -> bool {
    // Each level takes an opening and a closing bracket.
    if json.len() <= 2 * levels {
        return true;
    }
    let mut depth = 0;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' if depth == levels => return false,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => _ = bytes.next(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    true
}

/// `welcome`, the first frame of every connection: tells the client its id.
pub fn welcome(client_id: &str) -> String {
    Encoder::new("welcome", client_id.len())
        .text("clientId", client_id)
        .finish()
}

/// `rpc:result` of a call that succeeded, `result` being JSON text. Without a result the
/// frame has no such field.
pub fn rpc_result(id: &str, result: Option<&str>) -> String {
    let frame = Encoder::new("rpc:result", id.len() + result.map_or(0, str::len)).text("id", id);
    match result {
        Some(result) => frame.json("result", result),
        None => frame,
    }
    .finish()
}

/// `rpc:result` of a call that failed: `error` is the text that Zocket's client throws,
/// `failure` the same as data.
pub fn rpc_failure(id: &str, failure: &Failure) -> String {
    Encoder::new("rpc:result", id.len() + 2 * failure.text().len())
        .text("id", id)
        .text("error", failure.text())
        .json("failure", &json(failure))
        .finish()
}

/// `event`: something that an actor emitted, `payload` being JSON text.
pub fn event(actor: &str, actor_id: &str, event: &str, payload: &str) -> String {
    Encoder::new("event", actor.len() + actor_id.len() + payload.len())
        .text("actor", actor)
        .text("actorId", actor_id)
        .text("event", event)
        .json("payload", payload)
        .finish()
}

/// `state:snapshot`: the whole state, JSON text, at this place in the actor's history.
pub fn snapshot(actor: &str, actor_id: &str, state: &str, epoch: &str, version: u64) -> String {
    Encoder::new(
        "state:snapshot",
        actor.len() + actor_id.len() + state.len() + epoch.len(),
    )
    .text("actor", actor)
    .text("actorId", actor_id)
    .json("state", state)
    .text("epoch", epoch)
    .number("version", version)
    .finish()
}

/// `state:patch`: what leads from version `from` to `version`; `patches` is the JSON text
/// of an array of operations. A subscriber whose last version is below `from`, or whose
/// epoch differs, has missed something and asks for a snapshot.
pub fn patch(
    actor: &str,
    actor_id: &str,
    patches: &str,
    epoch: &str,
    from: u64,
    version: u64,
) -> String {
    Encoder::new(
        "state:patch",
        actor.len() + actor_id.len() + patches.len() + epoch.len(),
    )
    .text("actor", actor)
    .text("actorId", actor_id)
    .json("patches", patches)
    .text("epoch", epoch)
    .number("from", from)
    .number("version", version)
    .finish()
}

/// `error`: a failure that is no call's result. `id` is that of the frame that caused it,
/// where it had one.
pub fn error(failure: &Failure, id: Option<&str>) -> String {
    let mut frame = Encoder::new("error", failure.code.len() + failure.text().len())
        .text("code", &failure.code)
        .text("message", failure.text());
    if let Some(params) = &failure.params {
        frame = frame.json("params", &json(params));
    }
    if let Some(id) = id {
        frame = frame.text("id", id);
    }
    frame.finish()
}

/// Writes one frame, field by field.
struct Encoder(String);

impl Encoder {
    /// Names of fields, quotes and numbers fit into this much beside the values.
    const OVERHEAD: usize = 128;

    fn new(kind: &str, values: usize) -> Encoder {
        let mut text = String::with_capacity(values + Encoder::OVERHEAD);
        text.push_str("{\"type\":\"");
        text.push_str(kind);
        text.push('"');
        Encoder(text)
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn text(mut self, name: &str, value: &str) -> Encoder {
        self.name(name);
        let plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
        if value.bytes().all(plain) {
            self.0.push('"');
            self.0.push_str(value);
            self.0.push('"');
        } else {
            self.0.push_str(&json(&value));
        }
        self
    }

    fn json(mut self, name: &str, value: &str) -> Encoder {
        self.name(name);
        self.0.push_str(value);
        self
    }

    fn number(mut self, name: &str, value: u64) -> Encoder {
        self.name(name);
        self.0.push_str(&value.to_string());
        self
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn rpc(text: &str) -> Rpc<'_> {
        match parse(text) {
            Ok(ClientFrame::Rpc(call)) => call,
            other => panic!("expected a call, found {other:?}"),
        }
    }

    fn refusal(text: &str) -> FrameError {
        match parse(text) {
            Err(error) => error,
            Ok(frame) => panic!("{text} was taken for {frame:?}"),
        }
    }

    fn message(text: &str) -> String {
        let error = refusal(text);
        assert_eq!(error.failure.code, code::FRAME_MALFORMED);
        error.failure.text().to_owned()
    }

    fn call_with_input(input: &str) -> String {
        format!(
            r#"{{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m","input":{input}}}"#
        )
    }

    const CALL: &str = r#"{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m"}"#;

    #[test]
    fn a_call_is_read_and_borrows_from_the_text() {
        let text = call_with_input(r#" {"by": 2} "#);
        let call = rpc(&text);
        assert!(matches!(call.id, Cow::Borrowed("7")));
        assert!(matches!(call.actor, Cow::Borrowed("a")));
        assert!(matches!(call.actor_id, Cow::Borrowed("1")));
        assert!(matches!(call.method, Cow::Borrowed("m")));
        assert_eq!(call.input.unwrap().get(), r#"{"by": 2}"#);
    }

    #[test]
    fn an_absent_input_is_not_a_null_input() {
        assert!(rpc(CALL).input.is_none());
        assert_eq!(rpc(&call_with_input("null")).input.unwrap().get(), "null");
    }

    #[test]
    fn subscriptions_are_read() {
        let read = |kind: &str| {
            let text = format!(r#"{{"type":"{kind}","actor":"chat","actorId":"räum/1"}}"#);
            let (name, target) = match parse(&text).unwrap() {
                ClientFrame::StateSub(target) => ("state:sub", target),
                ClientFrame::StateUnsub(target) => ("state:unsub", target),
                ClientFrame::EventSub(target) => ("event:sub", target),
                ClientFrame::EventUnsub(target) => ("event:unsub", target),
                ClientFrame::Rpc(_) => panic!("{kind} was taken for a call"),
            };
            assert_eq!(name, kind);
            assert_eq!((&*target.actor, &*target.actor_id), ("chat", "räum/1"));
        };
        ["state:sub", "state:unsub", "event:sub", "event:unsub"]
            .into_iter()
            .for_each(read);
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let call =
            rpc(r#"{"input":[1],"method":"m","actorId":"1","actor":"a","id":"7","type":"rpc"}"#);
        assert_eq!((&*call.id, call.input.unwrap().get()), ("7", "[1]"));
    }

    #[test]
    fn escaped_names_and_values_are_unescaped() {
        let call = rpc(
            r#"{"t\u0079pe":"r\u0070c","id":"\"\\\n","actor":"\ud83e\udd80","actorId":"\/","method":"m"}"#,
        );
        assert_eq!(
            (&*call.id, &*call.actor, &*call.actor_id),
            ("\"\\\n", "🦀", "/")
        );
    }

    #[test]
    fn fields_that_the_type_does_not_have_are_ignored() {
        rpc(r#"{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m","x":[{}],"x":null}"#);
        let text = r#"{"type":"state:sub","id":7,"method":{},"input":1,"input":2,"actor":"a","actorId":"1"}"#;
        assert!(matches!(parse(text), Ok(ClientFrame::StateSub(_))));
    }

    #[test]
    fn junk_is_refused_with_its_position() {
        assert_eq!(
            message("not json"),
            "not JSON: expected ident at line 1 column 2"
        );
        assert_eq!(
            message(r#"{"type":"rpc""#),
            "not JSON: EOF while parsing an object at line 1 column 13"
        );
        assert!(message("").starts_with("not JSON: EOF"));
        assert!(message(" \n ").starts_with("not JSON: EOF"));
        assert!(message("\u{feff}{}").starts_with("not JSON: "));
        assert!(message("{} {}").starts_with("not JSON: trailing characters"));
        assert!(message("[1,]").starts_with("not JSON: "));
        assert!(message("{\"a\":\"\u{0}\"}").starts_with("not JSON: "));
    }

    #[test]
    fn a_frame_that_is_no_object_is_named() {
        for (text, found) in [
            ("null", "null"),
            ("[]", "array"),
            (" [1, {}]", "array"),
            ("\"x\"", "string"),
            ("-1.5", "number"),
            ("0", "number"),
            ("true", "boolean"),
            ("false", "boolean"),
        ] {
            assert_eq!(message(text), format!("expected an object, found {found}"));
        }
    }

    #[test]
    fn a_missing_or_unknown_type_is_named() {
        assert_eq!(message("{}"), "/type: missing");
        assert_eq!(
            message(r#"{"type":1}"#),
            "/type: expected string, found number"
        );
        let error = refusal(r#"{"type":"zzz"}"#);
        assert_eq!(error.failure.code, code::FRAME_UNKNOWN_TYPE);
        assert_eq!(
            error.failure.text(),
            "/type: expected rpc, state:sub, state:unsub, event:sub or event:unsub, found \"zzz\""
        );
    }

    #[test]
    fn a_long_unknown_type_is_shown_short() {
        let text = format!(r#"{{"type":"{}"}}"#, "z".repeat(1 << 20));
        assert!(refusal(&text).failure.text().len() < 300);
    }

    #[test]
    fn a_server_frames_type_is_unknown_from_a_client() {
        let error = refusal(r#"{"type":"rpc:result","id":"1"}"#);
        assert_eq!(error.failure.code, code::FRAME_UNKNOWN_TYPE);
        assert_eq!(error.rpc_id, None);
    }

    #[test]
    fn wrong_field_types_are_named_by_path() {
        for (value, found) in [
            ("1", "number"),
            ("-1", "number"),
            ("1.5", "number"),
            ("null", "null"),
            ("true", "boolean"),
            ("[[1]]", "array"),
            ("{\"a\":{}}", "object"),
        ] {
            let text = format!(r#"{{"type":"state:sub","actor":"a","actorId":{value}}}"#);
            assert_eq!(
                message(&text),
                format!("/actorId: expected string, found {found}")
            );
        }
        let error = refusal(r#"{"type":"state:sub","actor":"a","actorId":1}"#);
        assert_eq!(error.failure.params, Some(json!({"path": "/actorId"})));
    }

    #[test]
    fn missing_fields_are_named_by_path() {
        assert_eq!(message(r#"{"type":"state:sub"}"#), "/actor: missing");
        assert_eq!(
            message(r#"{"type":"event:unsub","actor":"a"}"#),
            "/actorId: missing"
        );
        assert_eq!(message(r#"{"type":"rpc"}"#), "/id: missing");
        assert_eq!(
            message(r#"{"type":"rpc","id":"7","actor":"a","actorId":"1"}"#),
            "/method: missing"
        );
    }

    #[test]
    fn a_malformed_call_with_a_good_id_is_answered_under_that_id() {
        for text in [
            r#"{"type":"rpc","id":"7"}"#,
            r#"{"type":"rpc","id":"7","actor":1,"actorId":"1","method":"m"}"#,
            r#"{"type":"rpc","id":"7","actor":"a","actor":"b","actorId":"1","method":"m"}"#,
        ] {
            assert_eq!(refusal(text).rpc_id.as_deref(), Some("7"), "{text}");
        }
    }

    #[test]
    fn a_malformed_call_without_a_good_id_is_not_answered_under_an_id() {
        let long = format!(r#"{{"type":"rpc","id":"{}"}}"#, "x".repeat(129));
        for (text, expected) in [
            (
                r#"{"type":"rpc","id":7}"#,
                "/id: expected string, found number",
            ),
            (
                r#"{"type":"rpc","id":""}"#,
                "/id: expected a string of 1 to 128 bytes, found an empty string",
            ),
            (
                &long,
                "/id: expected a string of 1 to 128 bytes, found 129 bytes",
            ),
            (r#"{"type":"rpc","id":"1","id":"2"}"#, "/id: appears twice"),
        ] {
            assert_eq!(message(text), expected);
            assert_eq!(refusal(text).rpc_id, None);
        }
        assert_eq!(refusal(r#"{"type":"zzz","id":"7"}"#).rpc_id, None);
    }

    #[test]
    fn an_id_of_128_bytes_is_accepted() {
        let id = "ä".repeat(64);
        let text = CALL.replace("\"7\"", &format!("\"{id}\""));
        assert_eq!(rpc(&text).id, id);
    }

    #[test]
    fn a_field_that_appears_twice_is_refused() {
        assert_eq!(
            message(r#"{"type":"rpc","type":"rpc"}"#),
            "/type: appears twice"
        );
        assert_eq!(
            message(r#"{"type":"state:sub","actor":"a","actorId":"1","actorId":"1"}"#),
            "/actorId: appears twice"
        );
        let text = call_with_input("1,\"input\":2");
        assert_eq!(message(&text), "/input: appears twice");
    }

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn an_input_as_deep_as_json_values_are_parsed_is_accepted() {
        let text = call_with_input(&nested(MAX_NESTING));
        let input = rpc(&text).input.unwrap();
        assert!(serde_json::from_str::<Value>(input.get()).is_ok());
    }

    #[test]
    fn a_deeper_input_is_refused_under_its_id() {
        let objects = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        for input in [nested(MAX_NESTING + 1), objects(MAX_NESTING + 1)] {
            let text = call_with_input(&input);
            assert_eq!(
                message(&text),
                "/input: arrays and objects nest deeper than 127 levels"
            );
            assert_eq!(refusal(&text).rpc_id.as_deref(), Some("7"));
        }
    }

    #[test]
    fn brackets_in_strings_and_side_by_side_are_not_depth() {
        let brackets = format!("[\"{}\\\"\\\\\"]", "[".repeat(500));
        assert!(rpc(&call_with_input(&brackets)).input.is_some());
        let wide = format!("[{}[]]", "[{}],".repeat(500));
        assert!(rpc(&call_with_input(&wide)).input.is_some());
    }

    #[test]
    fn depth_bombs_are_refused_on_a_small_stack() {
        let bomb = nested(500_000);
        let texts = [
            bomb.clone(),
            bomb[..500_000].to_owned(),
            call_with_input(&bomb),
            call_with_input(&bomb[..500_000]),
            format!(r#"{{"type":{bomb}}}"#),
            format!(r#"{{"type":"rpc","id":{}}}"#, "{\"a\":".repeat(200_000)),
        ];
        let check = move || texts.iter().all(|text| parse(text).is_err());
        let thread = std::thread::Builder::new().stack_size(128 << 10);
        assert!(thread.spawn(check).unwrap().join().unwrap());
    }

    #[test]
    fn a_deep_field_that_nobody_reads_is_ignored() {
        let text = format!(
            r#"{{"type":"state:sub","x":{},"actor":"a","actorId":"1"}}"#,
            nested(100_000)
        );
        assert!(parse(&text).is_ok());
    }

    #[test]
    fn the_welcome_tells_the_client_its_id() {
        assert_eq!(welcome("c1"), r#"{"type":"welcome","clientId":"c1"}"#);
    }

    #[test]
    fn a_result_has_no_result_field_when_there_is_none() {
        assert_eq!(rpc_result("r1", None), r#"{"type":"rpc:result","id":"r1"}"#);
        assert_eq!(
            rpc_result("r1", Some("null")),
            r#"{"type":"rpc:result","id":"r1","result":null}"#
        );
        assert_eq!(
            rpc_result("r1", Some("{\"a\": 1}")),
            r#"{"type":"rpc:result","id":"r1","result":{"a": 1}}"#
        );
    }

    #[test]
    fn a_failed_call_carries_the_text_and_the_data() {
        let failure = Failure::new("a.b").message("No.").param("k", 1);
        assert_eq!(
            rpc_failure("r1", &failure),
            r#"{"type":"rpc:result","id":"r1","error":"No.","failure":{"code":"a.b","message":"No.","params":{"k":1}}}"#
        );
    }

    #[test]
    fn the_error_of_a_failed_call_is_never_empty() {
        for failure in [Failure::new("a.b"), Failure::new("a.b").message("")] {
            assert_eq!(
                rpc_failure("r1", &failure),
                r#"{"type":"rpc:result","id":"r1","error":"a.b","failure":{"code":"a.b"}}"#
            );
        }
    }

    #[test]
    fn an_event_splices_its_payload() {
        assert_eq!(
            event("lab", "1", "e", "{\"x\":1}"),
            r#"{"type":"event","actor":"lab","actorId":"1","event":"e","payload":{"x":1}}"#
        );
    }

    #[test]
    fn a_snapshot_ends_with_its_place_in_history() {
        assert_eq!(
            snapshot("lab", "1", "{\"n\":0}", "e1", 7),
            r#"{"type":"state:snapshot","actor":"lab","actorId":"1","state":{"n":0},"epoch":"e1","version":7}"#
        );
    }

    #[test]
    fn a_patch_names_the_version_that_it_applies_to() {
        assert_eq!(
            patch("lab", "1", "[]", "e1", 7, 9),
            r#"{"type":"state:patch","actor":"lab","actorId":"1","patches":[],"epoch":"e1","from":7,"version":9}"#
        );
    }

    #[test]
    fn an_error_frame_carries_the_failure_flat() {
        assert_eq!(
            error(&Failure::new("a.b"), None),
            r#"{"type":"error","code":"a.b","message":"a.b"}"#
        );
        assert_eq!(
            error(&Failure::new("a.b").message("m").param("k", 1), Some("7")),
            r#"{"type":"error","code":"a.b","message":"m","params":{"k":1},"id":"7"}"#
        );
    }

    /// Text made of the pieces of frames, which reaches deeper than random characters do.
    fn frame_like() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\",
            "\"type\"",
            "\"rpc\"",
            "\"id\"",
            "\"actor\"",
            "\"actorId\"",
            "\"method\"",
            "\"input\"",
            "\"state:sub\"",
            "1",
            "-",
            "1e999",
            "null",
            "true",
            " ",
            "\\u0000",
            "\\ud800",
            "é",
            "\u{0}",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    /// A valid call with one stretch of it replaced.
    fn damaged_call() -> impl Strategy<Value = String> {
        (0..CALL.len(), 0..8usize, ".{0,3}").prop_map(|(at, length, with)| {
            let end = (at + length).min(CALL.len());
            format!("{}{with}{}", &CALL[..at], &CALL[end..])
        })
    }

    proptest! {
        #[test]
        fn no_text_makes_parse_panic(text in prop_oneof![".*", frame_like(), damaged_call()]) {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.failure.text().is_empty());
                prop_assert!(serde_json::from_str::<Value>(&super::error(&error.failure, None)).is_ok());
            }
        }

        #[test]
        fn a_call_reads_as_it_was_written(
            id in ".{1,32}", actor in ".*", actor_id in ".*", method in ".*",
            input in proptest::option::of(".*"),
        ) {
            let mut frame = json!({
                "type": "rpc", "id": id, "actor": actor, "actorId": actor_id, "method": method,
            });
            if let Some(input) = &input {
                frame["input"] = json!({"a": [input]});
            }
            let text = frame.to_string();
            let call = rpc(&text);
            prop_assert_eq!(
                (&*call.id, &*call.actor, &*call.actor_id, &*call.method),
                (&*id, &*actor, &*actor_id, &*method)
            );
            let read = call.input.map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap());
            prop_assert_eq!(read, input.map(|input| json!({"a": [input]})));
        }

        #[test]
        fn server_frames_are_json_and_hold_what_they_were_given(
            actor in ".*", id in ".*", text in ".*", from in any::<u64>(), version in any::<u64>(),
        ) {
            let read = |frame: String| serde_json::from_str::<Value>(&frame).unwrap();
            let value = json!([text]).to_string();
            let failure = Failure::new("a.b").message(&*text).param("t", &*text);
            prop_assert_eq!(read(welcome(&id)), json!({"type": "welcome", "clientId": id}));
            prop_assert_eq!(
                read(rpc_result(&id, Some(&value))),
                json!({"type": "rpc:result", "id": id, "result": [text]})
            );
            prop_assert_eq!(
                read(rpc_failure(&id, &failure)),
                json!({"type": "rpc:result", "id": id, "error": failure.text(), "failure": failure})
            );
            prop_assert_eq!(
                read(event(&actor, &id, &text, &value)),
                json!({"type": "event", "actor": actor, "actorId": id, "event": text, "payload": [text]})
            );
            prop_assert_eq!(
                read(snapshot(&actor, &id, &value, &text, version)),
                json!({
                    "type": "state:snapshot", "actor": actor, "actorId": id, "state": [text],
                    "epoch": text, "version": version,
                })
            );
            prop_assert_eq!(
                read(patch(&actor, &id, &value, &text, from, version)),
                json!({
                    "type": "state:patch", "actor": actor, "actorId": id, "patches": [text],
                    "epoch": text, "from": from, "version": version,
                })
            );
            prop_assert_eq!(
                read(error(&failure, Some(&id))),
                json!({
                    "type": "error", "code": "a.b", "message": failure.text(),
                    "params": {"t": text}, "id": id,
                })
            );
        }
    }
}

//! The WebSocket frames: what clients send, parsed, and what they are sent, encoded.
//!
//! The gateway parses with [`parse`]; release and fan-out encode with the functions below.
//! Both are hot. A client frame is read in one pass and borrows from the received text;
//! its `input` stays JSON text. Documents in server frames come as JSON text and are
//! spliced in as they are.
//!
//! The frames are those of Zocket's published protocol, with additions that its client
//! ignores: `failure`, `epoch`, `version`, `from`, and the frame types `auth`, `auth:ok`,
//! `rpc:cancel`, `rpc:stream` and `error`.
//! `docs/protocol.md` shows each of them.
//!
//! Invariant: no frame of the server has an empty `error`, or both `error` and `result`.

mod envelope;

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

pub use self::envelope::{Envelope, FrameKind, Scan};
use crate::document::MAX_NESTING;
use crate::failure::{Failure, cut, json};

/// The most bytes of a call's `id`.
pub const RPC_ID_MAX_BYTES: usize = 128;

/// One frame of a client.
#[derive(Clone, Debug)]
pub enum ClientFrame<'a> {
    /// `rpc`: calls a method.
    Rpc(Rpc<'a>),
    /// `state:sub`: subscribes to an actor's state; also asks for a fresh snapshot.
    ///
    /// With `since`, what the client has of it already.
    StateSub(Target<'a>, Option<Since>),
    /// `state:unsub`: the opposite.
    StateUnsub(Target<'a>),
    /// `event:sub`: subscribes to an actor's events.
    EventSub(Target<'a>),
    /// `event:unsub`: the opposite.
    EventUnsub(Target<'a>),
    /// `rpc:cancel`: the result of a call is not wanted any longer.
    Cancel {
        /// The call's id, 1 to 128 bytes; perhaps no call has it.
        id: Cow<'a, str>,
    },
    /// `auth`: a new token for the open connection.
    Auth {
        /// The token as the client sent it. It is a secret: not for logs.
        token: Cow<'a, str>,
    },
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
    /// The idempotency key, 1 to 128 bytes: calls of one user to one method with the same
    /// key run once.
    pub key: Option<Cow<'a, str>>,
}

/// A place in an actor's history that a client has seen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Since {
    /// Which history.
    pub epoch: String,
    /// Where in it.
    pub version: u64,
}

/// The actor that a subscription frame names, as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The actor type.
    pub actor: Cow<'a, str>,
    /// The actor's id.
    pub actor_id: Cow<'a, str>,
}

impl Target<'_> {
    /// The target apart from the frame.
    pub fn into_owned(self) -> Target<'static> {
        Target {
            actor: Cow::Owned(self.actor.into_owned()),
            actor_id: Cow::Owned(self.actor_id.into_owned()),
        }
    }
}

/// Why a text is not a frame that a client may send.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{failure}")]
pub struct FrameError {
    /// What the client is told. Its parameter `path` names the field, if it is one.
    pub failure: Failure,
    /// Whom to tell. Where it has the id of a call ([`Envelope::rpc_id`]), answer with
    /// [`rpc_failure`], else with [`error`].
    pub to: Box<Envelope>,
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
pub fn parse(text: &str) -> Result<ClientFrame<'_>, FrameError> {
    frame(text).map_err(|failure| FrameError {
        failure,
        to: Box::new(Envelope::find(text.as_bytes())),
    })
}

fn frame<'a>(text: &'a str) -> Result<ClientFrame<'a>, Failure> {
    let mut fields = read(text)?;
    let kind = std::mem::take(&mut fields.kind).text("type")?;
    let since = std::mem::take(&mut fields.since);
    let subscription: fn(Target<'a>) -> ClientFrame<'a> = match &*kind {
        "rpc" => return call(fields),
        "rpc:cancel" => {
            let id = rpc_id(fields.id)?;
            return Ok(ClientFrame::Cancel { id });
        }
        "state:sub" => {
            let since = since_of(since)?;
            return Ok(ClientFrame::StateSub(target(fields)?, since));
        }
        "state:unsub" => ClientFrame::StateUnsub,
        "event:sub" => ClientFrame::EventSub,
        "event:unsub" => ClientFrame::EventUnsub,
        "auth" => {
            let token = fields.token.text("token")?;
            return Ok(ClientFrame::Auth { token });
        }
        unknown => {
            return Err(Failure::frame_unknown_type(&cut(unknown)));
        }
    };
    Ok(subscription(target(fields)?))
}

fn target(fields: Fields<'_>) -> Result<Target<'_>, Failure> {
    Ok(Target {
        actor: fields.actor.text("actor")?,
        actor_id: fields.actor_id.text("actorId")?,
    })
}

fn since_of(field: Input<'_>) -> Result<Option<Since>, Failure> {
    let since = match field {
        Input::Absent => return Ok(None),
        Input::Once(since) => since.get(),
        Input::Twice => return Err(malformed_field("since", "appears twice")),
    };
    if since == "null" {
        return Ok(None);
    }
    let since = serde_json::from_str(since).map(Some);
    since.map_err(|_| {
        let expected = "expected {\"epoch\": string, \"version\": number}";
        malformed_field("since", expected)
    })
}

fn call(fields: Fields<'_>) -> Result<ClientFrame<'_>, Failure> {
    let id = rpc_id(fields.id)?;
    let input = match fields.input {
        Input::Absent => None,
        Input::Once(input) if nests_within(input.get(), MAX_NESTING) => Some(input),
        Input::Once(_) => {
            let message = format!("arrays and objects nest deeper than {MAX_NESTING} levels");
            return Err(malformed_field("input", &message));
        }
        Input::Twice => return Err(malformed_field("input", "appears twice")),
    };
    Ok(ClientFrame::Rpc(Rpc {
        actor: fields.actor.text("actor")?,
        actor_id: fields.actor_id.text("actorId")?,
        method: fields.method.text("method")?,
        key: match fields.key {
            Field::Absent => None,
            key => Some(sized("key", key)?),
        },
        input,
        id,
    }))
}

fn rpc_id(field: Field<'_>) -> Result<Cow<'_, str>, Failure> {
    sized("id", field)
}

/// A text of 1 to 128 bytes.
fn sized<'a>(name: &'static str, field: Field<'a>) -> Result<Cow<'a, str>, Failure> {
    let text = field.text(name)?;
    let found = match text.len() {
        1..=RPC_ID_MAX_BYTES => return Ok(text),
        0 => "an empty string".to_owned(),
        bytes => format!("{bytes} bytes"),
    };
    let message = format!("expected a string of 1 to {RPC_ID_MAX_BYTES} bytes, found {found}");
    Err(malformed_field(name, &message))
}

/// What a frame says, whatever its type.
#[derive(Default)]
struct Fields<'a> {
    kind: Field<'a>,
    id: Field<'a>,
    actor: Field<'a>,
    actor_id: Field<'a>,
    method: Field<'a>,
    token: Field<'a>,
    key: Field<'a>,
    input: Input<'a>,
    since: Input<'a>,
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

fn malformed_field(name: &str, message: &str) -> Failure {
    Failure::frame_malformed_at(&format!("/{name}"), message)
}

/// Reads the fields of a frame, or says why the text is no JSON object.
fn read(text: &str) -> Result<Fields<'_>, Failure> {
    let not_json = |error| Failure::frame_malformed(format_args!("not JSON: {error}"));
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
    Err(Failure::frame_malformed(format_args!(
        "expected an object, found {found}"
    )))
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
                Key::Token => &mut fields.token,
                Key::Once => &mut fields.key,
                Key::Input | Key::Since => {
                    let value = map.next_value()?;
                    let field = match key {
                        Key::Input => &mut fields.input,
                        _ => &mut fields.since,
                    };
                    *field = match field {
                        Input::Absent => Input::Once(value),
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
    Token,
    Once,
    Input,
    Since,
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
            "token" => Key::Token,
            "key" => Key::Once,
            "input" => Key::Input,
            "since" => Key::Since,
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

/// `rpc:stream`: something that a running call tells its caller ahead of its result, `chunk`
/// being JSON text.
pub fn rpc_stream(id: &str, chunk: &str) -> String {
    Encoder::new("rpc:stream", id.len() + chunk.len())
        .text("id", id)
        .json("chunk", chunk)
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

/// `error`: a failure that is no call's result. What is known of the frame that it answers
/// names it: `frame` and `id`, and the actor among the parameters.
pub fn error(failure: &Failure, to: &Envelope) -> String {
    let mut frame = Encoder::new("error", failure.code.len() + failure.text().len())
        .text("code", &failure.code)
        .text("message", failure.text());
    let named = match to.actor.is_some() || to.actor_id.is_some() {
        true => Cow::Owned(to.name_actor(failure.clone())),
        false => Cow::Borrowed(failure),
    };
    if let Some(params) = &named.params {
        frame = frame.json("params", &json(params));
    }
    if let Some(kind) = to.kind {
        frame = frame.text("frame", kind.as_str());
    }
    if let Some(id) = &to.id {
        frame = frame.text("id", id);
    }
    frame.finish()
}

/// `auth:ok`: the token of an `auth` frame is in force, until this time in milliseconds
/// since 1970 where it has an end.
pub fn auth_ok(expires_at_ms: Option<u64>) -> String {
    let frame = Encoder::new("auth:ok", 0);
    match expires_at_ms {
        Some(expires_at_ms) => frame.number("expiresAt", expires_at_ms),
        None => frame,
    }
    .finish()
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
mod tests;

//! Finds out what a frame is to be answered with that cannot be used: too large, not JSON, not
//! UTF-8, cut short.
//!
//! A caller waits for its id, whatever is wrong with the frame that carries it. [`Scan`] reads
//! a frame in pieces, as they arrive, and keeps no more than names and ids may be long.

use std::mem;

use serde_json::Value;

use super::{ClientFrame, RPC_ID_MAX_BYTES, Target};
use crate::failure::Failure;
use crate::name::{ACTOR_ID_MAX_BYTES, NAME_MAX_BYTES};

/// The types of frames that clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// `rpc`
    Rpc,
    /// `rpc:cancel`
    Cancel,
    /// `state:sub`
    StateSub,
    /// `state:unsub`
    StateUnsub,
    /// `event:sub`
    EventSub,
    /// `event:unsub`
    EventUnsub,
    /// `auth`
    Auth,
}

impl FrameKind {
    const ALL: [FrameKind; 7] = [
        FrameKind::Rpc,
        FrameKind::Cancel,
        FrameKind::StateSub,
        FrameKind::StateUnsub,
        FrameKind::EventSub,
        FrameKind::EventUnsub,
        FrameKind::Auth,
    ];

    /// As a frame's `type` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            FrameKind::Rpc => "rpc",
            FrameKind::Cancel => "rpc:cancel",
            FrameKind::StateSub => "state:sub",
            FrameKind::StateUnsub => "state:unsub",
            FrameKind::EventSub => "event:sub",
            FrameKind::EventUnsub => "event:unsub",
            FrameKind::Auth => "auth",
        }
    }

    /// The kind whose `type` this is.
    pub fn of(kind: &str) -> Option<FrameKind> {
        FrameKind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)
    }
}

/// Which frame an answer is to, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Its type, if it is one of the protocol.
    pub kind: Option<FrameKind>,
    /// Its id, of 1 to 128 bytes.
    pub id: Option<String>,
    /// The actor type that it names.
    pub actor: Option<String>,
    /// The id of the actor that it names.
    pub actor_id: Option<String>,
}

impl Envelope {
    /// The envelope of a frame of which no more is known, or needed, than its type.
    pub fn new(kind: FrameKind) -> Envelope {
        Envelope {
            kind: Some(kind),
            ..Envelope::default()
        }
    }

    /// The envelope of the call with this id.
    pub fn of_call(id: &str) -> Envelope {
        Envelope {
            id: Some(id.to_owned()),
            ..Envelope::new(FrameKind::Rpc)
        }
    }

    /// What can be found of a frame in a text, or in bytes that should be one.
    ///
    /// ```
    /// use tidegate_core::protocol::Envelope;
    /// let broken = r#"{"type":"rpc","id":"7","input":{"by":}"#;
    /// assert_eq!(Envelope::find(broken.as_bytes()).rpc_id(), Some("7"));
    /// ```
    pub fn find(bytes: &[u8]) -> Envelope {
        let mut scan = Scan::default();
        scan.read(bytes);
        scan.finish()
    }

    /// The envelope of a frame that is in order.
    pub fn of(frame: &ClientFrame<'_>) -> Envelope {
        let of_target = |kind, target: &Target<'_>| Envelope {
            actor: short(&target.actor, NAME_MAX_BYTES),
            actor_id: short(&target.actor_id, ACTOR_ID_MAX_BYTES),
            ..Envelope::new(kind)
        };
        match frame {
            ClientFrame::Rpc(call) => Envelope::of_call(&call.id),
            ClientFrame::Cancel { id } => Envelope {
                id: Some(id.as_ref().to_owned()),
                ..Envelope::new(FrameKind::Cancel)
            },
            ClientFrame::Auth { .. } => Envelope::new(FrameKind::Auth),
            ClientFrame::StateSub(target, _) => of_target(FrameKind::StateSub, target),
            ClientFrame::StateUnsub(target) => of_target(FrameKind::StateUnsub, target),
            ClientFrame::EventSub(target) => of_target(FrameKind::EventSub, target),
            ClientFrame::EventUnsub(target) => of_target(FrameKind::EventUnsub, target),
        }
    }

    /// The id under which a caller waits for an `rpc:result`.
    pub fn rpc_id(&self) -> Option<&str> {
        self.id
            .as_deref()
            .filter(|_| self.kind == Some(FrameKind::Rpc))
    }

    /// The failure with the actor that the frame names among its parameters.
    #[must_use]
    pub fn name_actor(&self, mut failure: Failure) -> Failure {
        for (name, text) in [("actor", &self.actor), ("actorId", &self.actor_id)] {
            let is_there = |params: &Value| params.get(name).is_some();
            if let Some(text) = text
                && !failure.params.as_ref().is_some_and(is_there)
            {
                failure = failure.param(name, text.as_str());
            }
        }
        failure
    }
}

fn short(text: &str, max: usize) -> Option<String> {
    (text.len() <= max).then(|| text.to_owned())
}

/// Reads a frame, in pieces of any size, for its [`Envelope`].
///
/// It looks at the members of the outermost object alone, and forgives what is wrong between
/// and within the others, so that a broken input does not hide the id behind it.
#[derive(Debug, Default)]
pub struct Scan {
    depth: u64,
    place: Place,
    /// The string that is being read, without its quotes: no more than [`LONGEST`] bytes.
    string: Vec<u8>,
    /// It is longer than that, or nobody wants it.
    is_dropped: bool,
    /// The member whose value comes next, if it is one that counts.
    member: Option<Member>,
    kind: Found<Option<FrameKind>>,
    id: Found<String>,
    actor: Found<String>,
    actor_id: Found<String>,
}

/// The longest string that counts, an actor's id, each byte of it an escape of six.
const LONGEST: usize = 6 * ACTOR_ID_MAX_BYTES;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between strings, or in a number or a word.
    #[default]
    Between,
    /// In a string.
    String,
    /// In a string, behind a backslash.
    Escape,
    /// Behind a string that is a member's name, if a colon follows.
    AfterString,
    /// Behind the outermost object, or what is none.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Kind,
    Id,
    Actor,
    ActorId,
}

/// What a member says, which may be there several times.
#[derive(Debug, Default)]
enum Found<T> {
    #[default]
    Nothing,
    Once(T),
    /// It says different things.
    Unclear,
}

impl<T: PartialEq> Found<T> {
    fn add(&mut self, value: T) {
        *self = match mem::take(self) {
            Found::Nothing => Found::Once(value),
            Found::Once(first) if first == value => Found::Once(first),
            _ => Found::Unclear,
        };
    }

    fn known(self) -> Option<T> {
        match self {
            Found::Once(value) => Some(value),
            Found::Nothing | Found::Unclear => None,
        }
    }

    fn is_known(&self) -> bool {
        matches!(self, Found::Once(_))
    }
}

impl Scan {
    /// Reads the next bytes.
    pub fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = match self.place {
                Place::Over => return,
                // A long text is read over faster.
                Place::String if self.is_dropped => {
                    let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
                    let Some(end) = end else { return };
                    self.step(rest[end]);
                    &rest[end + 1..]
                }
                _ => {
                    self.step(byte);
                    behind
                }
            };
        }
    }

    /// Whether further bytes can add nothing that is needed.
    pub fn is_done(&self) -> bool {
        if self.place == Place::Over {
            return true;
        }
        match self.kind {
            Found::Once(Some(FrameKind::Rpc | FrameKind::Cancel)) => self.id.is_known(),
            Found::Once(Some(FrameKind::Auth)) => true,
            Found::Once(Some(_)) => self.actor.is_known() && self.actor_id.is_known(),
            _ => false,
        }
    }

    /// What was found.
    pub fn finish(self) -> Envelope {
        Envelope {
            kind: self.kind.known().flatten(),
            id: self.id.known(),
            actor: self.actor.known(),
            actor_id: self.actor_id.known(),
        }
    }

    fn step(&mut self, byte: u8) {
        match self.place {
            Place::Between => self.between(byte),
            Place::String => match byte {
                b'"' => self.end_string(),
                b'\\' => {
                    self.keep(byte);
                    self.place = Place::Escape;
                }
                _ => self.keep(byte),
            },
            Place::Escape => {
                self.keep(byte);
                self.place = Place::String;
            }
            Place::AfterString => match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b':' => {
                    self.member = self.named();
                    self.place = Place::Between;
                }
                _ => {
                    self.place = Place::Between;
                    self.between(byte);
                }
            },
            Place::Over => {}
        }
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return,
            b'{' | b'[' if self.depth > 0 => self.depth += 1,
            b'{' => self.depth = 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.place = Place::Over;
                }
            }
            b'"' if self.depth > 0 => {
                self.place = Place::String;
                self.string.clear();
                self.is_dropped = self.depth > 1;
                return;
            }
            // Whatever it is, it is no object.
            _ if self.depth == 0 => self.place = Place::Over,
            _ => {}
        }
        self.member = None;
    }

    fn keep(&mut self, byte: u8) {
        self.is_dropped |= self.string.len() == LONGEST;
        if !self.is_dropped {
            self.string.push(byte);
        }
    }

    fn end_string(&mut self) {
        self.place = Place::Between;
        if self.depth > 1 {
            return;
        }
        let Some(member) = self.member.take() else {
            self.place = Place::AfterString;
            return;
        };
        let text = self.text();
        let within = |max| text.clone().filter(|text| (1..=max).contains(&text.len()));
        match member {
            // A frame that is a call by one of its types has a caller who waits.
            Member::Kind => match text.as_deref().and_then(FrameKind::of) {
                Some(FrameKind::Rpc) => self.kind = Found::Once(Some(FrameKind::Rpc)),
                _ if matches!(self.kind, Found::Once(Some(FrameKind::Rpc))) => {}
                kind => self.kind.add(kind),
            },
            Member::Id => match within(RPC_ID_MAX_BYTES) {
                Some(id) => self.id.add(id),
                None => self.id = Found::Unclear,
            },
            Member::Actor => match within(NAME_MAX_BYTES) {
                Some(actor) => self.actor.add(actor),
                None => self.actor = Found::Unclear,
            },
            Member::ActorId => match within(ACTOR_ID_MAX_BYTES) {
                Some(id) => self.actor_id.add(id),
                None => self.actor_id = Found::Unclear,
            },
        }
    }

    fn named(&self) -> Option<Member> {
        match &*self.text()? {
            "type" => Some(Member::Kind),
            "id" => Some(Member::Id),
            "actor" => Some(Member::Actor),
            "actorId" => Some(Member::ActorId),
            _ => None,
        }
    }

    /// The string that was read; none if it is too long, or not one of JSON.
    fn text(&self) -> Option<String> {
        if self.is_dropped {
            return None;
        }
        let quoted = [b"\"", self.string.as_slice(), b"\""].concat();
        serde_json::from_slice(&quoted).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(text: &str) -> Envelope {
        Envelope::find(text.as_bytes())
    }

    #[test]
    fn a_call_is_found_whatever_is_wrong_behind_its_id() {
        for text in [
            r#"{"type":"rpc","id":"7","input":"#,
            r#"{"type":"rpc","id":"7","input":{"by":}}"#,
            r#"{"type":"rpc","id":"7","actor":5,"actorId":null}"#,
            r#"{"type":"rpc","id":"7","id":"7"}"#,
            r#"{"type":"rpc","type":"auth","id":"7"}"#,
            r#"{"type":"state:sub","type":"rpc","id":"7"}"#,
            r#"{"type":"rpc","id":"7"} and more"#,
            r#"{"type":"rpc" "id":"7"}"#,
            r#"{"type" : "rpc", "input":[{"id":"8","type":"auth"},"}",'], "id" :"7""#,
            r#"{"id":"\u0037","method":"\"","type":"\u0072pc"}"#,
        ] {
            assert_eq!(find(text).rpc_id(), Some("7"), "{text}");
        }
        let mut bytes = br#"{"type":"rpc","input":""#.to_vec();
        bytes.extend([0xff, 0xfe]);
        bytes.extend(br#"","id":"7"}"#);
        assert_eq!(Envelope::find(&bytes).rpc_id(), Some("7"));
    }

    #[test]
    fn what_names_no_call_is_none() {
        let long = format!(r#"{{"type":"rpc","id":"{}"}}"#, "a".repeat(129));
        for text in [
            "",
            "[]",
            r#""rpc""#,
            r#"[{"type":"rpc","id":"7"}]"#,
            r#"{"type":"rpc"}"#,
            r#"{"type":"rpc","id":7}"#,
            r#"{"type":"rpc","id":""}"#,
            r#"{"type":"rpc","id":"7","id":"8"}"#,
            r#"{"type":"rpc","id":{"id":"7"}}"#,
            r#"{"type":"rpc","input":{"id":"7"}}"#,
            r#"{"type":"auth","id":"7"}"#,
            r#"{"id":"7"}"#,
            r#"{"type":"rpc","id":"\ud800"}"#,
            &long,
        ] {
            assert_eq!(find(text).rpc_id(), None, "{text}");
        }
    }

    #[test]
    fn a_subscription_is_found_by_its_actor() {
        let envelope = find(r#"{"type":"event:sub","actorId":"a/é","actor":"chat","since":{"#);
        assert_eq!(envelope.kind, Some(FrameKind::EventSub));
        assert_eq!(envelope.actor.as_deref(), Some("chat"));
        assert_eq!(envelope.actor_id.as_deref(), Some("a/é"));
        let failure = envelope.name_actor(Failure::new("a.b").param("actor", "x"));
        let params = serde_json::json!({"actor": "x", "actorId": "a/é"});
        assert_eq!(failure.params, Some(params));
    }

    #[test]
    fn it_is_done_once_it_knows_whom_to_answer() {
        let mut scan = Scan::default();
        scan.read(br#"{"actor":"a","type":"rpc","input":"#);
        assert!(!scan.is_done());
        scan.read(&[b'['; 100_000]);
        scan.read(&[b']'; 100_000]);
        scan.read(br#","id":"7""#);
        assert!(scan.is_done());
        assert_eq!(scan.finish().rpc_id(), Some("7"));
    }

    proptest! {
        #[test]
        fn the_cut_does_not_matter(text in r#"[{}\[\]",: \\a-eé]{0,40}"#, at in 0usize..40) {
            let text = text.replace('a', "\"type\":\"rpc\",").replace('b', "\"id\":\"7\",");
            let bytes = text.as_bytes();
            let (one, other) = bytes.split_at(at.min(bytes.len()));
            let mut scan = Scan::default();
            scan.read(one);
            scan.read(other);
            prop_assert!(scan.string.len() <= LONGEST);
            prop_assert_eq!(scan.finish(), Envelope::find(bytes));
        }

        #[test]
        fn what_a_good_frame_says_is_found(id in ".{1,30}", input in ".{0,30}") {
            let frame = serde_json::json!({"input": {"id": input}, "id": id, "type": "rpc"});
            let envelope = find(&frame.to_string());
            prop_assert_eq!(envelope.rpc_id(), Some(&*id));
        }
    }
}

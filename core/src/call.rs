//! A call of an actor's method: what is said of it wherever it goes.
//!
//! What exists on one machine only (who waits for the answer, the moment when that is given up,
//! how it is cancelled) is the host's affair and no part of it, so that it can travel.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::client::{Client, RequestId};
use crate::name::ActorKey;

/// What caused a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// A client.
    Client(Client),
    /// Another actor.
    Actor(ActorKey),
    /// A timer of the actor.
    Timer(Firing),
    /// A schedule of the manifest.
    Cron(Firing),
    /// The host.
    Host,
}

/// A timer or schedule that came due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Firing {
    /// The timer's id.
    pub id: u64,
    /// When it was due, in milliseconds since the Unix epoch.
    pub due_ms: u64,
}

/// Which of its sender's mail a call is; the sender is the call's origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mail {
    /// The history of the sender that it was sent in.
    #[serde(with = "text")]
    pub epoch: Arc<str>,
    /// Its number there.
    pub seq: u64,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallEnvelope {
    /// The method.
    pub method: String,
    /// Its input as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Who calls.
    pub origin: Origin,
    /// How many calls of actors lie behind it.
    #[serde(default)]
    pub depth: u32,
    /// The idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The mail that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<Mail>,
    /// Actors elsewhere that wait for its answer, directly or through others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ActorKey>,
    /// The caller's W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The request that it came with, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
}

impl CallEnvelope {
    /// A call with nothing but what every call has.
    pub fn new(method: impl Into<String>, input: Option<String>, origin: Origin) -> CallEnvelope {
        CallEnvelope {
            method: method.into(),
            input,
            origin,
            depth: 0,
            key: None,
            mail: None,
            chain: Vec::new(),
            traceparent: None,
            request: None,
        }
    }

    /// What its texts take, in bytes.
    pub fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.method.len() + length(&self.input) + length(&self.key)
    }
}

/// Shared text as a JSON string.
pub(crate) mod text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Into::into)
    }
}

/// Shared text that may be absent.
pub(crate) mod maybe_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        text: &Option<Arc<str>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        text.as_deref().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::{ActorId, Name};

    fn origins() -> impl Strategy<Value = Origin> {
        let text = || proptest::option::of("\\PC{0,12}".prop_map(Arc::<str>::from));
        let key = ("[a-z]{1,6}", "[a-z0-9/-]{1,6}").prop_filter_map("an id", |(actor, id)| {
            Some(ActorKey {
                actor: Name::parse(&actor).ok()?,
                id: ActorId::parse(&id).ok()?,
            })
        });
        let firing = || (any::<u64>(), any::<u64>()).prop_map(|(id, due_ms)| Firing { id, due_ms });
        prop_oneof![
            (text(), text())
                .prop_map(|(connection, user)| Origin::Client(Client { connection, user })),
            key.prop_map(Origin::Actor),
            firing().prop_map(Origin::Timer),
            firing().prop_map(Origin::Cron),
            Just(Origin::Host),
        ]
    }

    proptest! {
        #[test]
        fn it_arrives_as_it_was_sent(
            origin in origins(),
            (method, input, key) in ("\\PC{0,9}", proptest::option::of("\\PC{0,30}"), proptest::option::of("\\PC{0,9}")),
            (depth, seq) in (any::<u32>(), proptest::option::of(any::<u64>())),
        ) {
            let sent = CallEnvelope {
                depth,
                key,
                mail: seq.map(|seq| Mail { epoch: "e".into(), seq }),
                chain: match &origin {
                    Origin::Actor(key) => vec![key.clone()],
                    _ => Vec::new(),
                },
                request: Some(RequestId::Http("r".into())),
                ..CallEnvelope::new(method, input, origin)
            };
            let text = serde_json::to_string(&sent).unwrap();
            prop_assert_eq!(serde_json::from_str::<CallEnvelope>(&text).unwrap(), sent);
        }
    }
}

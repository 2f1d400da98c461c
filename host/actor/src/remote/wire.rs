//! What hosts say to each other of actors: JSON texts.
//!
//! Invariant: what is read was written by a host of this version or the one before; anything else
//! is an error, and nothing is done.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_core::place::Kind;
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, CallEnvelope, Client, Failure};
use tidegate_registry::placement::Parcel;

use crate::live::{Stream, Update};
use crate::turn::Read;

/// What an actor's host is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Ask {
    /// To run a method.
    Call {
        actor: ActorKey,
        call: Box<CallEnvelope>,
        /// How long its caller waits from now on.
        patience_ms: Option<u64>,
    },
    /// For its state, as somebody may see it.
    Read { actor: ActorKey, client: Client },
    /// To forget its state.
    Destroy { actor: ActorKey },
}

/// What a host is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    tag = "tell",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub(super) enum Tell {
    /// A connection has contact with an actor of yours.
    Connect { actor: ActorKey, client: Client },
    /// It has closed.
    Disconnect { actor: ActorKey, client: Client },
    /// A receiver of mine wants to see an actor of yours.
    Watch {
        actor: ActorKey,
        stream: Stream,
        #[serde(with = "text")]
        watcher: Arc<str>,
        client: Client,
        since: Option<Since>,
    },
    /// It does not any more.
    Unwatch {
        actor: ActorKey,
        stream: Stream,
        #[serde(with = "text")]
        watcher: Arc<str>,
    },
    /// A receiver of yours is shown this.
    Update {
        #[serde(with = "text")]
        watcher: Arc<str>,
        update: Update,
    },
    /// It is shown no more, and this is why.
    Ended {
        actor: ActorKey,
        stream: Stream,
        #[serde(with = "text")]
        watcher: Arc<str>,
        failure: WireFailure,
    },
    /// It does not read what cannot be made up for.
    Closed {
        actor: ActorKey,
        stream: Stream,
        #[serde(with = "text")]
        watcher: Arc<str>,
    },
    /// An actor has left here for another host: who watches it is to look there.
    Moved { actor: ActorKey },
}

fn parcel(of: &impl Serialize) -> Parcel {
    Parcel {
        kind: Kind::Actor,
        text: serde_json::to_string(of).expect("it consists of what JSON can hold"),
    }
}

fn misread(error: &serde_json::Error) -> Failure {
    Failure::internal("the hosts of the cluster do not understand each other")
        .detail(error.to_string())
}

impl Ask {
    pub(super) fn parcel(&self) -> Parcel {
        parcel(self)
    }

    pub(super) fn read(text: &str) -> Result<Ask, Failure> {
        serde_json::from_str(text).map_err(|error| misread(&error))
    }

    /// Whom it is about.
    pub(super) fn actor(&self) -> &ActorKey {
        match self {
            Ask::Call { actor, .. } | Ask::Read { actor, .. } | Ask::Destroy { actor } => actor,
        }
    }
}

impl Tell {
    pub(super) fn parcel(&self) -> Parcel {
        parcel(self)
    }

    pub(super) fn read(text: &str) -> Result<Tell, Failure> {
        serde_json::from_str(text).map_err(|error| misread(&error))
    }
}

/// A failure as it travels, without what is for operators of the host that it comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WireFailure {
    code: String,
    message: Option<String>,
    params: Option<serde_json::Value>,
    status: u16,
}

impl From<&Failure> for WireFailure {
    fn from(failure: &Failure) -> WireFailure {
        WireFailure {
            code: failure.code.to_string(),
            message: failure.message.clone(),
            params: failure.params.clone(),
            status: failure.status,
        }
    }
}

impl From<WireFailure> for Failure {
    fn from(failure: WireFailure) -> Failure {
        Failure {
            params: failure.params,
            message: failure.message,
            ..Failure::new(failure.code).status(failure.status)
        }
    }
}

/// What becomes of an [`Ask`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    Done(Option<String>),
    Failed(WireFailure),
}

impl Answer {
    pub(super) fn text(answer: Result<Option<String>, Failure>) -> String {
        let answer = match answer {
            Ok(done) => Answer::Done(done),
            Err(failure) => Answer::Failed((&failure).into()),
        };
        parcel(&answer).text
    }

    pub(super) fn read(text: &str) -> Result<Option<String>, Failure> {
        match serde_json::from_str(text).map_err(|error| misread(&error))? {
            Answer::Done(done) => Ok(done),
            Answer::Failed(failure) => Err(failure.into()),
        }
    }
}

/// What was read of an actor.
#[derive(Serialize, Deserialize)]
struct WireRead {
    state: String,
    epoch: String,
    version: u64,
}

pub(super) fn text_of(read: &Read) -> String {
    let Read {
        state,
        epoch,
        version,
    } = read;
    let read = WireRead {
        state: state.to_string(),
        epoch: epoch.to_string(),
        version: *version,
    };
    parcel(&read).text
}

pub(super) fn read_of(text: &str) -> Result<Read, Failure> {
    let read: WireRead = serde_json::from_str(text).map_err(|error| misread(&error))?;
    Ok(Read {
        state: read.state.into(),
        epoch: read.epoch.into(),
        version: read.version,
    })
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_core::failure::code;
    use tidegate_core::{ActorId, Name, Origin};

    use super::*;
    use crate::live::Body;

    fn key() -> ActorKey {
        ActorKey {
            actor: Name::parse("chat").unwrap(),
            // Such an id may be stored, though nobody can ask for it any more.
            id: ActorId::stored("..").unwrap(),
        }
    }

    #[test]
    fn what_is_told_arrives_as_it_was_sent() {
        let bodies = [
            Body::Snapshot {
                state: r#"{"a":1.50,"b":[]}"#.into(),
                epoch: "e".into(),
                version: 7,
            },
            Body::Patch {
                patches: r#"[{"op":"remove","path":"/b"}]"#.to_owned(),
                extended: Some("[]".to_owned()),
                epoch: "e".into(),
                from: 6,
                version: 7,
            },
            Body::Event {
                name: "said".to_owned(),
                payload: r#""é\n""#.to_owned(),
            },
        ];
        for body in bodies {
            let (actor, watcher) = (key(), "c1-ab".into());
            let tell = Tell::Update {
                watcher,
                update: Update { actor, body },
            };
            let read = Tell::read(&tell.parcel().text).unwrap();
            assert_eq!(format!("{read:?}"), format!("{tell:?}"));
        }
    }

    #[test]
    fn what_is_asked_arrives_as_it_was_sent() {
        let call = CallEnvelope {
            depth: 3,
            key: Some("k".to_owned()),
            ..CallEnvelope::new("add", Some("{\"by\":1}".to_owned()), Origin::Host)
        };
        let ask = Ask::Call {
            actor: key(),
            call: Box::new(call),
            patience_ms: Some(250),
        };
        let read = Ask::read(&ask.parcel().text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{ask:?}"));
        assert_eq!(read.actor(), &key());
    }

    #[test]
    fn a_failure_arrives_without_what_is_for_operators() {
        let failure = Failure::mailbox_full().param("limit", 3).detail("where");
        let read = Answer::read(&Answer::text(Err(failure.clone()))).unwrap_err();
        let sent = Failure {
            detail: None,
            ..failure
        };
        assert_eq!(read, sent);
        assert_eq!(read.params, Some(json!({"limit": 3})));
        let done = Answer::text(Ok(Some("1".to_owned())));
        assert_eq!(Answer::read(&done), Ok(Some("1".to_owned())));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert_eq!(Ask::read("{}").unwrap_err().code, code::INTERNAL);
        assert_eq!(
            Tell::read(r#"{"tell":"dance"}"#).unwrap_err().code,
            code::INTERNAL
        );
        assert_eq!(Answer::read("").unwrap_err().code, code::INTERNAL);
    }
}

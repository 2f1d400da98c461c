//! A chat room: messages, who is here, who is typing.
//!
//! The state is what a client draws: the latest messages and who is online. Events are what
//! passes by: somebody typing, a message worth a sound.

use std::collections::BTreeMap;

use tidegate_sdk::prelude::*;

/// How many characters a message may have.
const TEXT_MAX: usize = 2_000;
/// How many characters a name may have.
const NAME_MAX: usize = 40;
/// How many messages a room keeps at least.
const HISTORY: usize = 100;

/// A chat room: its latest messages, and who is here.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// Oldest first.
    messages: Vec<Message>,
    /// By connection.
    online: BTreeMap<String, Presence>,
    /// How many messages there ever were.
    sent: u64,
}

/// What somebody said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// 1 for the first of the room, then 2, 3, ….
    pub id: u64,
    /// The name under which it was said.
    pub author: String,
    /// The text.
    pub text: String,
    /// When, in milliseconds since the Unix epoch.
    pub sent_at: u64,
}

/// Somebody who has the room open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Absent until they join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: u64,
}

/// What passes by.
#[derive(Event)]
pub enum ChatEvent {
    /// Somebody said something.
    Message(Message),
    /// Somebody else is typing.
    Typing {
        /// Who.
        name: String,
    },
}

/// Why the room refuses.
#[derive(Failure)]
#[failure(prefix = "chat")]
pub enum ChatError {
    /// There is nothing in it.
    #[failure(message = "say something")]
    EmptyMessage,
    /// It is longer than a message may be.
    #[failure(message = "a message has at most {max} characters, this one has {length}")]
    TooLong {
        /// How many characters are allowed.
        max: usize,
        /// How many there were.
        length: usize,
    },
    /// The caller has no name here yet.
    #[failure(status = 403, message = "join the room before you speak")]
    NotJoined,
    /// A plain HTTP request, which cannot be here.
    #[failure(message = "only a WebSocket connection can be in a room")]
    NoConnection,
    /// The name is empty, or too long.
    #[failure(message = "a name has 1 to {max} characters")]
    InvalidName {
        /// How many characters are allowed.
        max: usize,
    },
    /// Somebody else here has it.
    #[failure(status = 409, message = "{name} is already here")]
    NameTaken {
        /// The name.
        name: String,
    },
}

#[actor(events = ChatEvent)]
impl Chat {
    /// Takes a name, or another one.
    pub fn join(&mut self, ctx: &Context<Self>, name: String) -> Result<(), ChatError> {
        let connection = ctx.connection().ok_or(ChatError::NoConnection)?;
        let name = name.trim().to_owned();
        if name.is_empty() || name.chars().count() > NAME_MAX {
            return Err(ChatError::InvalidName { max: NAME_MAX });
        }
        let is_taken = |(id, other): (&String, &Presence)| {
            id != connection && other.name.as_ref() == Some(&name)
        };
        if self.online.iter().any(is_taken) {
            return Err(ChatError::NameTaken { name });
        }
        self.presence(connection, ctx.now()).name = Some(name);
        Ok(())
    }

    /// Says something to the room.
    pub fn send(&mut self, ctx: &mut Context<Self>, text: String) -> Result<Message, ChatError> {
        let author = self.name_of(ctx)?.to_owned();
        let text = text.trim().to_owned();
        let length = text.chars().count();
        if length == 0 {
            return Err(ChatError::EmptyMessage);
        }
        if length > TEXT_MAX {
            return Err(ChatError::TooLong {
                max: TEXT_MAX,
                length,
            });
        }
        self.sent += 1;
        let message = Message {
            id: self.sent,
            author,
            text,
            sent_at: ctx.now(),
        };
        self.keep(message.clone());
        ctx.emit(ChatEvent::Message(message.clone()));
        Ok(message)
    }

    /// Tells the others that the caller is typing.
    pub fn typing(&self, ctx: &mut Context<Self>) -> Result<(), ChatError> {
        let name = self.name_of(ctx)?.to_owned();
        ctx.others().emit(ChatEvent::Typing { name });
        Ok(())
    }

    /// The latest messages, oldest first: all that the room keeps, or at most `limit`.
    pub fn history(&self, limit: Option<usize>) -> Vec<Message> {
        let skipped = self
            .messages
            .len()
            .saturating_sub(limit.unwrap_or(usize::MAX));
        self.messages[skipped..].to_vec()
    }

    #[connect]
    fn arrived(&mut self, ctx: &mut Context<Self>) {
        if let Some(connection) = ctx.connection() {
            self.presence(connection, ctx.now());
        }
    }

    #[disconnect]
    fn left(&mut self, ctx: &mut Context<Self>) {
        if let Some(connection) = ctx.connection() {
            self.online.remove(connection);
        }
    }

    /// Connections that closed while the actor was not in memory, such as in a crash of the
    /// host, have not said goodbye.
    #[activate]
    fn woke(&mut self, ctx: &mut Context<Self>) {
        let open = ctx.connections();
        self.online
            .retain(|connection, _| open.contains(connection));
    }

    fn presence(&mut self, connection: &str, now: u64) -> &mut Presence {
        self.online
            .entry(connection.to_owned())
            .or_insert(Presence {
                name: None,
                since: now,
            })
    }

    fn name_of(&self, ctx: &Context<Self>) -> Result<&str, ChatError> {
        let connection = ctx.connection().ok_or(ChatError::NoConnection)?;
        self.online
            .get(connection)
            .and_then(|presence| presence.name.as_deref())
            .ok_or(ChatError::NotJoined)
    }

    /// Forgets half of a full history at once: without its first element an array moves as a
    /// whole, which would make the patch of every message as large as the history.
    fn keep(&mut self, message: Message) {
        self.messages.push(message);
        if self.messages.len() > 2 * HISTORY {
            self.messages.drain(..HISTORY);
        }
    }
}

tidegate_sdk::export!(Chat);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::test::{self, Emitted, json};

    /// A room where Ann (`c1`) and Ben (`c2`) have joined and Cem (`c3`) only listens.
    fn room() -> test::Actor<Chat> {
        let mut room = test::Actor::new("lobby");
        for (connection, name) in [("c1", "Ann"), ("c2", "Ben")] {
            room.from(connection)
                .invoke("join", json!({"name": name}))
                .unwrap();
        }
        room.connect("c3").unwrap();
        room
    }

    fn code(result: Result<test::Value>) -> String {
        result.unwrap_err().code().to_owned()
    }

    #[test]
    fn a_message_is_kept_and_reaches_everyone() {
        let mut room = room();
        room.set_now(1_000);
        let message = json!({"id": 1, "author": "Ann", "text": "Hi", "sentAt": 1_000});
        let sent = room.from("c1").invoke("send", json!({"text": " Hi\n"}));
        assert_eq!(sent, Ok(message.clone()));
        assert_eq!(room.state()["messages"], json!([message]));
        for connection in ["c1", "c2", "c3"] {
            let received = room.received(connection);
            assert_eq!(received, [("message".to_owned(), message.clone())]);
        }
    }

    #[test]
    fn typing_reaches_the_others() {
        let chat = Chat {
            online: BTreeMap::from([(
                "c1".to_owned(),
                Presence {
                    name: Some("Ann".to_owned()),
                    since: 0,
                },
            )]),
            ..Chat::default()
        };
        let mut ctx = Context::test().connection("c1");
        assert!(chat.typing(&mut ctx).is_ok());
        let name = "Ann".to_owned();
        assert_eq!(
            ctx.emitted(),
            [Emitted::except("c1", ChatEvent::Typing { name })]
        );
    }

    #[test]
    fn only_who_has_joined_may_speak() {
        let mut room = room();
        let text = json!({"text": "Hi"});
        let listener = room.from("c3").invoke("send", text.clone());
        assert_eq!(code(listener), "chat.not-joined");
        assert_eq!(code(room.invoke("send", text)), "chat.no-connection");
        assert_eq!(room.state()["messages"], json!([]));
    }

    #[test]
    fn a_message_is_neither_empty_nor_too_long() {
        let mut room = room();
        let empty = room.from("c1").invoke("send", json!({"text": " \n"}));
        assert_eq!(code(empty), "chat.empty-message");
        let long = "ä".repeat(TEXT_MAX + 1);
        let failure = room
            .from("c1")
            .invoke("send", json!({"text": long}))
            .unwrap_err();
        assert_eq!(failure.code(), "chat.too-long");
        assert_eq!(failure.params()["max"], TEXT_MAX);
        assert_eq!(failure.params()["length"], TEXT_MAX + 1);
    }

    #[test]
    fn a_name_is_taken_once() {
        let mut room = room();
        let mut join = |connection, name: &str| {
            room.from(connection)
                .invoke("join", json!({"name": name}))
                .map(drop)
                .map_err(|failure| failure.code().to_owned())
        };
        assert_eq!(join("c3", "Ann"), Err("chat.name-taken".to_owned()));
        assert_eq!(join("c3", "  "), Err("chat.invalid-name".to_owned()));
        assert_eq!(join("c1", "Anna"), Ok(()), "another name instead");
        assert_eq!(join("c3", "Ann"), Ok(()));
    }

    #[test]
    fn presence_follows_the_connections() {
        let mut room = room();
        let online = room.state()["online"].clone();
        assert_eq!(online["c1"]["name"], "Ann");
        assert_eq!(online["c3"], json!({"since": 0}));
        room.disconnect("c1").unwrap();
        assert!(room.state()["online"].get("c1").is_none());
    }

    #[test]
    fn those_who_left_unseen_are_gone_after_waking() {
        let mut room = room();
        room.deactivate().unwrap();
        let mut state = room.state();
        state["online"]["ghost"] = json!({"name": "Eve", "since": 0});
        room.set_state(state);
        room.activate().unwrap();
        let online = room.state()["online"].clone();
        assert!(online.get("ghost").is_none());
        assert_eq!(online["c2"]["name"], "Ben");
    }

    #[test]
    fn the_history_is_bounded() {
        let mut room = room();
        for n in 0..250 {
            let text = json!({"text": n.to_string()});
            room.from("c1").invoke("send", text).unwrap();
        }
        let kept = room.invoke("history", None).unwrap();
        let kept = kept.as_array().unwrap();
        assert!((HISTORY..=2 * HISTORY).contains(&kept.len()));
        assert_eq!(kept[kept.len() - 1]["id"], 250);
        let last = room.invoke("history", json!({"limit": 2})).unwrap();
        assert_eq!(last, json!(kept[kept.len() - 2..]));
    }
}

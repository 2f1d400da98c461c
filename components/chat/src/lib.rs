//! A chat room: messages, who is here, who is typing.
//!
//! The state is what a client draws: the latest messages and who is online. Events are what
//! passes by: somebody typing, a message worth a sound.
//!
//! A room is public until somebody with a token makes it private. From then on everybody but
//! its members is refused its methods, its state and its events.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_sdk::Client;
use tidegate_sdk::prelude::*;

/// How many characters a message may have.
const TEXT_MAX: usize = 2_000;
/// How many characters a name may have.
const NAME_MAX: usize = 40;
/// How many messages a room keeps at least.
const HISTORY: usize = 100;
/// How many members a private room may have.
const MEMBERS_MAX: usize = 500;
/// No connection has this id.
const NOBODY: &str = "";

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
    /// Absent in a public room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private: Option<Private>,
}

/// Who may be in a private room. Users are known by the `sub` of their tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Private {
    /// Who made it private, and says who its members are.
    pub owner: String,
    /// The owner is one of them.
    pub members: BTreeSet<String>,
}

/// Who calls, as far as a token says it.
#[derive(Debug)]
pub struct Caller {
    user: Option<User>,
}

/// The claims of a token that the room looks at.
#[derive(Debug, Deserialize)]
struct User {
    sub: String,
    name: Option<String>,
}

impl User {
    /// Claims of another shape name nobody.
    fn of(client: Option<&Client>) -> Option<Self> {
        client?.user().ok().flatten()
    }
}

impl Caller {
    fn sub(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.sub.as_str())
    }

    fn signed_in(&self) -> Result<&User, ChatError> {
        self.user.as_ref().ok_or(ChatError::SignIn)
    }
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
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Absent until they join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In a private room the `sub` of their token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
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
        /// Who types.
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
    /// A plain HTTP request, which cannot be here. Where there are no others, as on Spin, nobody
    /// is, and everybody says a name with what they send.
    #[failure(
        message = "only a WebSocket connection can be in a room: say a `name` with what you send"
    )]
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
    /// It takes a token.
    #[failure(status = 401, message = "sign in first")]
    SignIn,
    /// The room is private, and the caller no member.
    #[failure(status = 403, message = "only members may enter this room")]
    MembersOnly,
    /// Only the owner says who is a member.
    #[failure(status = 403, message = "only the owner of the room may do this")]
    NotOwner,
    /// There are no members here.
    #[failure(status = 409, message = "this room is public")]
    NotPrivate,
    /// It has an owner.
    #[failure(status = 409, message = "this room is private already")]
    AlreadyPrivate,
    /// It is somebody else's room, too.
    #[failure(
        status = 409,
        message = "only a room that nobody else uses can be made private"
    )]
    InUse,
    /// The owner cannot be expelled.
    #[failure(status = 409, message = "the owner stays a member")]
    OwnerStays,
    /// There is no such member.
    #[failure(status = 404, message = "{member} is no member")]
    NoSuchMember {
        /// Whom the caller named.
        member: String,
    },
    /// There are as many as there may be.
    #[failure(message = "a room has at most {max} members")]
    TooManyMembers {
        /// How many are allowed.
        max: usize,
    },
}

#[actor(events = ChatEvent)]
impl Chat {
    /// Who calls, if they may.
    #[before]
    fn caller(&self, ctx: &Context<Self>) -> Result<Caller, ChatError> {
        self.admit(ctx.client())
    }

    /// A private room is its members' alone. Asked again after changes, so that the
    /// subscriptions of somebody who is expelled end.
    #[authorize]
    fn may_subscribe(&self, who: &Subscriber) -> Result<(), ChatError> {
        self.admit(Some(who.client())).map(drop)
    }

    /// Makes the room the caller's own, for them and these other members. Nobody else may be
    /// here, and nothing may have been said yet.
    pub fn make_private(
        &mut self,
        ctx: &Context<Self>,
        #[before] caller: &Caller,
        /// The `sub` claims of their tokens.
        members: BTreeSet<String>,
    ) -> Result<(), ChatError> {
        let owner = caller.signed_in()?.sub.clone();
        if self.private.is_some() {
            return Err(ChatError::AlreadyPrivate);
        }
        let is_other = |connection: &String| ctx.connection() != Some(connection);
        if self.sent > 0 || self.online.keys().any(is_other) {
            return Err(ChatError::InUse);
        }
        let mut private = Private { members, owner };
        private.members.insert(private.owner.clone());
        private.check_size()?;
        for presence in self.online.values_mut() {
            presence.user = Some(private.owner.clone());
        }
        self.private = Some(private);
        Ok(())
    }

    /// Makes somebody a member of a private room; the owner may.
    pub fn invite(
        &mut self,
        #[before] caller: &Caller,
        /// The `sub` claim of their token.
        member: String,
    ) -> Result<(), ChatError> {
        let private = self.owned(caller)?;
        private.members.insert(member);
        private.check_size()
    }

    /// Ends somebody's membership; the owner may.
    pub fn expel(
        &mut self,
        #[before] caller: &Caller,
        /// The `sub` claim of their token.
        member: String,
    ) -> Result<(), ChatError> {
        let private = self.owned(caller)?;
        if member == private.owner {
            return Err(ChatError::OwnerStays);
        }
        if !private.members.remove(&member) {
            return Err(ChatError::NoSuchMember { member });
        }
        self.online
            .retain(|_, presence| presence.user.as_ref() != Some(&member));
        Ok(())
    }

    /// Takes a name, or another one.
    pub fn join(
        &mut self,
        ctx: &Context<Self>,
        #[before] caller: &Caller,
        name: String,
    ) -> Result<(), ChatError> {
        let connection = ctx.connection().ok_or(ChatError::NoConnection)?;
        let name = self.free_name(&name, connection, caller)?;
        self.list(connection, caller, Some(name), ctx.now());
        Ok(())
    }

    /// Says something to the room.
    pub fn send(
        &mut self,
        ctx: &mut Context<Self>,
        #[before] caller: &Caller,
        text: String,
        /// Who says it, of those who cannot be here: who has joined, speaks as who they are.
        name: Option<String>,
    ) -> Result<Message, ChatError> {
        let author = self.name_of(ctx, caller, name)?;
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
    pub fn typing(
        &self,
        ctx: &mut Context<Self>,
        #[before] caller: &Caller,
        /// Who, of those who cannot be here.
        name: Option<String>,
    ) -> Result<(), ChatError> {
        let name = self.name_of(ctx, caller, name)?;
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

    /// Runs for whoever knocks, also for those who are then refused: they are not here.
    #[connect]
    fn arrived(&mut self, ctx: &mut Context<Self>) {
        let (Some(connection), Ok(caller)) = (ctx.connection(), self.admit(ctx.client())) else {
            return;
        };
        let name = caller.user.as_ref().and_then(|user| user.name.as_deref());
        let name = name.map(|name| name.trim().to_owned());
        let name = name.filter(|name| is_name(name) && !self.is_taken(name, connection, &caller));
        self.list(connection, &caller, name, ctx.now());
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

    /// Who this client is, if they may be here.
    fn admit(&self, client: Option<&Client>) -> Result<Caller, ChatError> {
        let user = User::of(client);
        match (&self.private, &user) {
            (None, _) => {}
            (Some(_), None) => return Err(ChatError::SignIn),
            (Some(private), Some(user)) if private.members.contains(&user.sub) => {}
            (Some(_), Some(_)) => return Err(ChatError::MembersOnly),
        }
        Ok(Caller { user })
    }

    /// The private room, for its owner to change.
    fn owned(&mut self, caller: &Caller) -> Result<&mut Private, ChatError> {
        let user = caller.signed_in()?;
        let private = self.private.as_mut().ok_or(ChatError::NotPrivate)?;
        if user.sub != private.owner {
            return Err(ChatError::NotOwner);
        }
        Ok(private)
    }

    /// Whether somebody else has the name; the other connections of a user are not.
    fn is_taken(&self, name: &str, connection: &str, caller: &Caller) -> bool {
        self.online.iter().any(|(id, other)| {
            let is_same_user = caller.sub().is_some() && other.user.as_deref() == caller.sub();
            let is_same = id == connection || is_same_user;
            !is_same && other.name.as_deref() == Some(name)
        })
    }

    /// Lists a connection as here, under this name.
    fn list(&mut self, connection: &str, caller: &Caller, name: Option<String>, now: u64) {
        let presence = self.online.entry(connection.to_owned());
        let presence = presence.or_insert(Presence {
            since: now,
            ..Presence::default()
        });
        presence.name = name;
        // In public, who somebody is beyond their name is nobody's business.
        presence.user = self.private.as_ref().and(caller.sub()).map(str::to_owned);
    }

    /// Under which name the caller speaks: a connection as it has joined, a plain HTTP request
    /// under the one that it says, or else that of its token.
    fn name_of(
        &self,
        ctx: &Context<Self>,
        caller: &Caller,
        said: Option<String>,
    ) -> Result<String, ChatError> {
        let Some(connection) = ctx.connection() else {
            let of_token = || caller.user.as_ref()?.name.clone();
            let name = said.or_else(of_token).ok_or(ChatError::NoConnection)?;
            return self.free_name(&name, NOBODY, caller);
        };
        self.online
            .get(connection)
            .and_then(|presence| presence.name.clone())
            .ok_or(ChatError::NotJoined)
    }

    /// A name that is one, and nobody else's.
    fn free_name(
        &self,
        name: &str,
        connection: &str,
        caller: &Caller,
    ) -> Result<String, ChatError> {
        let name = name.trim().to_owned();
        if !is_name(&name) {
            return Err(ChatError::InvalidName { max: NAME_MAX });
        }
        match self.is_taken(&name, connection, caller) {
            true => Err(ChatError::NameTaken { name }),
            false => Ok(name),
        }
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

impl Private {
    fn check_size(&self) -> Result<(), ChatError> {
        if self.members.len() > MEMBERS_MAX {
            return Err(ChatError::TooManyMembers { max: MEMBERS_MAX });
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= NAME_MAX
}

tidegate_sdk::export!(guarded Chat);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_sdk::Subject;
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
                    ..Presence::default()
                },
            )]),
            ..Chat::default()
        };
        let mut ctx = Context::test().connection("c1");
        let caller = Caller { user: None };
        assert!(chat.typing(&mut ctx, &caller, None).is_ok());
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
    fn who_cannot_be_here_says_a_name_with_each_message() {
        let mut room = room();
        let said = |name: &str| json!({"text": "Hi", "name": name});
        let sent = room.invoke("send", said(" Dee ")).unwrap();
        assert_eq!(sent["author"], "Dee");
        assert_eq!(code(room.invoke("send", said("Ann"))), "chat.name-taken");
        assert_eq!(code(room.invoke("send", said(" "))), "chat.invalid-name");
        let dee = room.user(json!({"sub": "dee", "name": "Dee"}));
        let sent = dee.invoke("send", json!({"text": "Hi"})).unwrap();
        assert_eq!(sent["author"], "Dee", "the name of the token");
        room.from("c1").invoke("send", said("Eve")).unwrap();
        let last = room.state()["messages"][2].clone();
        assert_eq!(last["author"], "Ann", "who is here, is who they are");
        assert_eq!(room.state()["online"].as_object().unwrap().len(), 3);
        room.invoke("typing", json!({"name": "Dee"})).unwrap();
        let received = room.received("c3");
        let typing = json!({"name": "Dee"});
        assert_eq!(received.last(), Some(&("typing".to_owned(), typing)));
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

    fn claims(sub: &str) -> test::Value {
        json!({"sub": sub})
    }

    /// A room that Ann owns, of which Ben is a member. Both have joined, Ann as `a`, Ben as
    /// `b`.
    fn private_room() -> test::Actor<Chat> {
        let mut room = test::Actor::new("den");
        let members = json!({"members": ["ben"]});
        room.from("a")
            .user(claims("ann"))
            .invoke("makePrivate", members)
            .unwrap();
        for (connection, sub) in [("a", "ann"), ("b", "ben")] {
            room.from(connection)
                .user(claims(sub))
                .invoke("join", json!({"name": sub}))
                .unwrap();
        }
        room
    }

    fn seen(result: Result<(), Failure>) -> String {
        result.map_or_else(|failure| failure.code().to_owned(), |()| "yes".to_owned())
    }

    fn online(room: &test::Actor<Chat>) -> Vec<String> {
        let state = room.state();
        let online = state["online"].as_object().unwrap();
        online.keys().cloned().collect()
    }

    #[test]
    fn members_use_a_private_room_like_any_other() {
        let mut room = private_room();
        assert_eq!(
            room.state()["private"],
            json!({"owner": "ann", "members": ["ann", "ben"]})
        );
        room.from("b")
            .invoke("send", json!({"text": "Hi"}))
            .unwrap();
        for connection in ["a", "b"] {
            let received = room.received(connection);
            assert_eq!(received[0].1["text"], "Hi", "{connection}");
        }
        let history = room.user(claims("ben")).invoke("history", None);
        assert_eq!(history.unwrap()[0]["text"], "Hi", "over plain HTTP, too");
        room.from("a").invoke("typing", None).unwrap();
        assert_eq!(room.received("a"), []);
        assert_eq!(room.received("b").len(), 1);
    }

    #[test]
    fn others_are_refused_every_method_of_a_private_room() {
        let mut room = private_room();
        let before = room.state()["private"].clone();
        for (method, input) in [
            ("join", json!({"name": "Eve"})),
            ("send", json!({"text": "Hi"})),
            ("typing", json!({})),
            ("history", json!({})),
            ("makePrivate", json!({"members": ["eve"]})),
            ("invite", json!({"member": "eve"})),
            ("expel", json!({"member": "ben"})),
        ] {
            let eve = room.from("e").user(claims("eve"));
            assert_eq!(code(eve.invoke(method, input.clone())), "chat.members-only");
            let eve = room.user(claims("eve"));
            assert_eq!(code(eve.invoke(method, input.clone())), "chat.members-only");
            assert_eq!(code(room.invoke(method, input.clone())), "chat.sign-in");
            let nobody = room.from("n").user(json!({"id": 7}));
            assert_eq!(code(nobody.invoke(method, input)), "chat.sign-in");
        }
        assert_eq!(online(&room), ["a", "b"], "who is refused is not here");
        assert_eq!(room.state()["private"], before);
    }

    #[test]
    fn others_see_nothing_of_a_private_room() {
        let mut room = private_room();
        for to in [Subject::State, Subject::Events] {
            let eve = room.from("e").user(claims("eve")).may_subscribe(to);
            assert_eq!(seen(eve), "chat.members-only");
            let eve = room.user(claims("eve")).may_subscribe(to);
            assert_eq!(seen(eve), "chat.members-only");
            assert_eq!(seen(room.may_subscribe(to)), "chat.sign-in");
            assert_eq!(seen(room.from("b").may_subscribe(to)), "yes");
            let ben = room.user(claims("ben")).may_subscribe(to);
            assert_eq!(seen(ben), "yes", "over plain HTTP, too");
        }
    }

    #[test]
    fn anybody_sees_a_public_room_and_who_is_here() {
        let mut room = room();
        room.from("c4").user(claims("dee")).connect().unwrap();
        for to in [Subject::State, Subject::Events] {
            assert_eq!(seen(room.may_subscribe(to)), "yes");
        }
        let state = room.state();
        assert_eq!(state["online"]["c4"], json!({"since": 0}), "not by whom");
        assert_eq!(state.get("private"), None);
    }

    #[test]
    fn who_subscribed_before_a_room_was_private_is_refused_when_asked_again() {
        let mut room = test::Actor::<Chat>::new("den");
        for to in [Subject::State, Subject::Events] {
            let eve = room.user(claims("eve")).may_subscribe(to);
            assert_eq!(seen(eve), "yes");
        }
        let make = json!({"members": []});
        let ann = room.user(claims("ann"));
        ann.invoke("makePrivate", make).unwrap();
        for to in [Subject::State, Subject::Events] {
            let eve = room.user(claims("eve")).may_subscribe(to);
            assert_eq!(seen(eve), "chat.members-only");
        }
    }

    #[test]
    fn an_expelled_member_is_gone_and_refused_when_asked_again() {
        let mut room = private_room();
        let ben = room.from("b2").user(claims("ben"));
        ben.connect().unwrap();
        assert_eq!(online(&room), ["a", "b", "b2"]);
        room.from("a")
            .invoke("expel", json!({"member": "ben"}))
            .unwrap();
        assert_eq!(online(&room), ["a"]);
        for to in [Subject::State, Subject::Events] {
            assert_eq!(seen(room.from("b").may_subscribe(to)), "chat.members-only");
            assert_eq!(seen(room.from("a").may_subscribe(to)), "yes");
        }
        let sent = room.from("b").invoke("send", json!({"text": "Hi"}));
        assert_eq!(code(sent), "chat.members-only");
    }

    #[test]
    fn an_invited_user_enters_with_the_connection_that_was_refused() {
        let mut room = private_room();
        let eve = room.from("e").user(claims("eve"));
        assert_eq!(code(eve.invoke("history", None)), "chat.members-only");
        let invite = json!({"member": "eve"});
        let ben = room.from("b").invoke("invite", invite.clone());
        assert_eq!(code(ben), "chat.not-owner");
        room.from("a").invoke("invite", invite).unwrap();
        assert_eq!(online(&room), ["a", "b"], "until they join");
        assert_eq!(seen(room.from("e").may_subscribe(Subject::State)), "yes");
        room.from("e")
            .invoke("join", json!({"name": "Eve"}))
            .unwrap();
        assert_eq!(online(&room), ["a", "b", "e"]);
        room.from("a")
            .invoke("expel", json!({"member": "eve"}))
            .unwrap();
        assert_eq!(online(&room), ["a", "b"], "the room knows whose it was");
    }

    #[test]
    fn only_an_unused_room_can_be_made_private() {
        let make = json!({"members": ["ben"]});
        let mut room = room();
        let ann = room.user(claims("ann"));
        assert_eq!(code(ann.invoke("makePrivate", make.clone())), "chat.in-use");
        assert_eq!(
            code(room.invoke("makePrivate", make.clone())),
            "chat.sign-in"
        );

        let mut room = test::Actor::<Chat>::new("den");
        room.from("b").user(claims("ben")).connect().unwrap();
        let mut ann = |method, input| {
            let ann = room.user(claims("ann")).invoke(method, input);
            ann.map_err(|failure| failure.code().to_owned())
        };
        let public = ann("invite", json!({"member": "eve"}));
        assert_eq!(public, Err("chat.not-private".to_owned()));
        let shared = ann("makePrivate", make.clone());
        assert_eq!(shared, Err("chat.in-use".to_owned()), "Ben is here");
        room.disconnect("b").unwrap();
        let mut ann = |method, input| {
            let ann = room.user(claims("ann")).invoke(method, input);
            ann.map_err(|failure| failure.code().to_owned())
        };
        let many: Vec<_> = (0..MEMBERS_MAX).map(|n| n.to_string()).collect();
        let crowded = ann("makePrivate", json!({"members": many}));
        assert_eq!(crowded, Err("chat.too-many-members".to_owned()));
        assert_eq!(ann("makePrivate", make.clone()), Ok(json!(null)));
        let again = ann("makePrivate", make);
        assert_eq!(again, Err("chat.already-private".to_owned()));
        let owner = ann("expel", json!({"member": "ann"}));
        assert_eq!(owner, Err("chat.owner-stays".to_owned()));
        let nobody = ann("expel", json!({"member": "eve"}));
        assert_eq!(nobody, Err("chat.no-such-member".to_owned()));
    }

    #[test]
    fn what_was_said_in_public_stays_public() {
        let mut room = room();
        room.from("c1")
            .invoke("send", json!({"text": "Hi"}))
            .unwrap();
        for connection in ["c1", "c2", "c3"] {
            room.disconnect(connection).unwrap();
        }
        let make = json!({"members": []});
        let late = room.user(claims("ann")).invoke("makePrivate", make);
        assert_eq!(code(late), "chat.in-use");
    }

    #[test]
    fn a_token_brings_a_name_unless_somebody_else_has_it() {
        let mut room = room();
        let dee = json!({"sub": "dee", "name": " Dee "});
        room.from("d1").user(&dee).connect().unwrap();
        let ann = json!({"sub": "another", "name": "Ann"});
        room.from("a2").user(ann).connect().unwrap();
        let long = json!({"sub": "long", "name": "x".repeat(NAME_MAX + 1)});
        room.from("l").user(long).connect().unwrap();
        let name = |connection: &str| room.state()["online"][connection]["name"].clone();
        assert_eq!(name("d1"), "Dee");
        assert_eq!((name("a2"), name("l")), (json!(null), json!(null)));
        let sent = room.from("d1").invoke("send", json!({"text": "Hi"}));
        assert_eq!(sent.unwrap()["author"], "Dee");
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

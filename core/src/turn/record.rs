//! Actors and their changes as they are kept: JSON, documented in `docs/durability.md`.
//!
//! Invariant: a whole record with the changes that follow it gives what the turns
//! committed; what does not fit together is refused, never guessed at.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::call::{maybe_text, text};
use crate::json::Json;
use crate::name::Name;
use crate::patch::{self, PatchError, PatchOp};

/// An actor as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stored {
    /// Names the history that `version` counts in.
    #[serde(with = "text")]
    pub epoch: Arc<str>,
    /// Commits that changed the state since the history began.
    pub version: u64,
    /// The run of a store that has written in this epoch. None is written to by two.
    #[serde(with = "text", default, skip_serializing_if = "is_unnamed")]
    pub run: Arc<str>,
    /// The epochs that this one goes on from, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
    /// What is stored is of the last of these; the next change says that an epoch begins.
    #[serde(skip)]
    pub is_begun: bool,
    /// The state document.
    pub state: Json,
    /// Which version of the state that is, as the manifest counts them.
    #[serde(default, skip_serializing_if = "is_unversioned")]
    pub state_version: u32,
    /// Open connections that have had contact with the actor, in order of contact, with
    /// the claims of each as JSON.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<Connected>,
    /// What its turns have set for later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<StoredTimer>,
    /// The highest id that a timer has had.
    #[serde(default)]
    pub last_timer: u64,
    /// Calls with idempotency keys, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// Messages that it has sent and that are not settled, in the order of their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<Sent>,
    /// The highest number that a message has had.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub last_sent: u64,
    /// The last messages that it has received, the longest silent sender first.
    #[serde(rename = "heard", default, skip_serializing_if = "Vec::is_empty")]
    pub received: Vec<Received>,
}

/// Why a change does not follow a record.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DoesNotFollow {
    /// It makes a version that does not come next.
    #[error("version {found} follows {last}")]
    Version {
        /// The version that it makes.
        found: u64,
        /// The version of the record.
        last: u64,
    },
    /// What it changes in the state is not there.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

/// An epoch that another one goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// Its name.
    #[serde(with = "text")]
    pub epoch: Arc<str>,
    /// The last version that the two have in common.
    pub version: u64,
}

/// An epoch that begins where another one is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    /// Its name.
    #[serde(with = "text")]
    pub epoch: Arc<str>,
    /// The run of a store that writes in it.
    #[serde(with = "text")]
    pub run: Arc<str>,
}

/// What a message to another actor weighs beside its texts, in bytes.
pub const SENT_COST: usize = 160;

/// A message to another actor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// Counts the messages of its sender.
    pub seq: u64,
    /// The history of the sender that it was sent in.
    #[serde(with = "text")]
    pub epoch: Arc<str>,
    /// The actor type of the receiver.
    #[serde(with = "text")]
    pub actor: Arc<str>,
    /// The receiver's id.
    #[serde(with = "text")]
    pub id: Arc<str>,
    /// The method.
    #[serde(with = "text")]
    pub method: Arc<str>,
    /// Its input.
    #[serde(with = "maybe_text", default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Arc<str>>,
    /// Its idempotency key.
    #[serde(with = "maybe_text", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
}

impl Sent {
    /// What it takes of the memory, in bytes.
    pub fn weight(&self) -> usize {
        let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        SENT_COST + self.id.len() + self.method.len() + text(&self.input) + text(&self.key)
    }
}

/// The last message that was heard of a sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    /// The actor type of the sender.
    #[serde(with = "text")]
    pub actor: Arc<str>,
    /// The sender's id.
    #[serde(with = "text")]
    pub id: Arc<str>,
    /// The history of the sender that it was sent in.
    #[serde(with = "text")]
    pub epoch: Arc<str>,
    /// Its number.
    pub seq: u64,
}

fn is_unnamed(run: &Arc<str>) -> bool {
    run.is_empty()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_unversioned(state_version: &u32) -> bool {
    *state_version == 0
}

/// What became of a call with an idempotency key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// The digest of user, method and key.
    #[serde(with = "text")]
    pub call: Arc<str>,
    /// The digest of the input.
    #[serde(with = "text")]
    pub input: Arc<str>,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What it came to.
    pub outcome: Outcome,
}

/// How far a call with an idempotency key has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It has committed something, and not ended.
    Begun,
    /// It has returned nothing.
    Nothing,
    /// It has returned this JSON text.
    #[serde(with = "text")]
    Result(Arc<str>),
}

/// A connection that has had contact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connected {
    /// Its id.
    #[serde(with = "text")]
    pub id: Arc<str>,
    /// Its claims as JSON.
    #[serde(with = "maybe_text", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<str>>,
}

/// A timer as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredTimer {
    /// Its id.
    pub id: u64,
    /// The rest.
    #[serde(flatten)]
    pub timer: Timer,
}

/// One timer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timer {
    /// The method that it calls.
    #[serde(with = "name")]
    pub method: Name,
    /// With this input.
    #[serde(with = "maybe_text", default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Arc<str>>,
    /// When it is due, in milliseconds since the Unix epoch.
    pub due_ms: u64,
    /// How often it is due again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// It does not by itself keep the actor in memory.
    #[serde(default)]
    pub idle: bool,
    /// It survives deactivation.
    #[serde(default)]
    pub outlive: bool,
    /// When it is due on the clock of the process that set it, which nobody sets; none of one
    /// that another process has set. Not stored.
    #[serde(skip)]
    pub steady_ms: Option<u64>,
}

impl Timer {
    /// The moment at which it is due, where the wall clock is so far ahead of the process's own.
    pub fn due_ms(&self, ahead_ms: i64) -> u64 {
        match self.steady_ms {
            Some(ms) => ms.saturating_add_signed(ahead_ms),
            None => self.due_ms,
        }
    }
}

/// What one turn changes of an actor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    /// The version that it makes; the same as before where no patch changes the state.
    pub version: u64,
    /// The epoch that it is the first of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<Box<Begun>>,
    /// What changes in the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchOp>,
    /// What changes of the timers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<TimerChange>,
    /// What changes of the connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<ConnectionChange>,
    /// The call with an idempotency key that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The messages that it sends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sends: Vec<Sent>,
    /// The numbers of messages that need not be sent again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<u64>,
    /// The message that made it.
    #[serde(rename = "heard", default, skip_serializing_if = "Option::is_none")]
    pub received: Option<Received>,
}

/// A timer that is set, or is no more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TimerChange {
    /// It is set, perhaps anew.
    Set(StoredTimer),
    /// It was cancelled, or has fired for the last time.
    Cancel(u64),
}

impl TimerChange {
    /// Of which timer.
    pub fn id(&self) -> u64 {
        match self {
            TimerChange::Set(set) => set.id,
            TimerChange::Cancel(id) => *id,
        }
    }

    /// Whether it sets one.
    pub fn sets(&self) -> bool {
        matches!(self, TimerChange::Set(_))
    }

    /// Whether it sets this one.
    pub fn is_setting(&self, id: u64) -> bool {
        matches!(self, TimerChange::Set(set) if set.id == id)
    }

    /// Whether it cancels this one.
    pub fn cancels(&self, id: u64) -> bool {
        matches!(self, TimerChange::Cancel(cancelled) if *cancelled == id)
    }
}

/// A connection that comes or goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConnectionChange {
    /// It has contact.
    Opened(Connected),
    /// It has closed.
    #[serde(with = "text")]
    Closed(Arc<str>),
}

impl Stored {
    /// How many earlier epochs are remembered: one for each run of the host that changed the
    /// actor.
    pub const EARLIER: usize = 16;

    /// Goes on in another epoch, which begins here.
    pub fn go_on_as(&mut self, begun: Begun) {
        let left = Earlier {
            epoch: std::mem::replace(&mut self.epoch, begun.epoch),
            version: self.version,
        };
        self.run = begun.run;
        self.earlier.push(left);
        let excess = self.earlier.len().saturating_sub(Stored::EARLIER);
        self.earlier.drain(..excess);
    }

    /// Becomes a history of its own: nothing that was known of another one holds.
    pub fn begin_as(&mut self, epoch: Arc<str>) {
        self.epoch = epoch;
        self.earlier = Vec::new();
        self.is_begun = false;
    }

    /// Reads a whole record.
    pub fn parse(text: &str) -> Result<Stored, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// As a whole record.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("records consist of what JSON can hold")
    }

    /// Whether nothing ever happened to the actor: it comes back the same without being kept.
    pub fn is_new(&self) -> bool {
        self.version == 0
            && self.connections.is_empty()
            && self.timers.is_empty()
            // Another timer must not get the id of one that there was.
            && self.last_timer == 0
            && self.answers.is_empty()
            && self.outbox.is_empty()
            && self.received.is_empty()
    }

    /// When it is to come into memory: when the first of its timers is due, or as soon as can
    /// be where messages of it are not settled.
    pub fn first_due_ms(&self) -> Option<u64> {
        let dues = self.timers.iter().map(|stored| stored.timer.due_ms);
        match self.outbox.is_empty() {
            true => dues.min(),
            false => Some(0),
        }
    }

    /// Makes one change.
    ///
    /// # Errors
    ///
    /// It does not follow what there is, which stays as it was.
    pub fn apply(&mut self, change: Change) -> Result<(), DoesNotFollow> {
        let expected = self.version + u64::from(!change.patches.is_empty());
        if change.version != expected {
            return Err(DoesNotFollow::Version {
                found: change.version,
                last: self.version,
            });
        }
        patch::apply(&mut self.state, &change.patches)?;
        if let Some(begun) = &change.begins {
            self.go_on_as((**begun).clone());
        }
        self.version = change.version;
        self.apply_happenings(&change);
        Ok(())
    }

    /// Makes what a change has beside patches.
    pub fn apply_happenings(&mut self, change: &Change) {
        for change in &change.timers {
            match change {
                TimerChange::Set(timer) => {
                    self.last_timer = self.last_timer.max(timer.id);
                    self.timers.retain(|other| other.id != timer.id);
                    self.timers.push(timer.clone());
                }
                TimerChange::Cancel(id) => self.timers.retain(|timer| timer.id != *id),
            }
        }
        for change in &change.connections {
            match change {
                ConnectionChange::Opened(opened) => {
                    self.connections.retain(|other| other.id != opened.id);
                    self.connections.push(opened.clone());
                }
                ConnectionChange::Closed(id) => self.connections.retain(|other| other.id != *id),
            }
        }
        if let Some(answer) = &change.answer {
            self.answers.retain(|other| other.call != answer.call);
            self.answers.push(answer.clone());
        }
        for sent in &change.sends {
            self.last_sent = self.last_sent.max(sent.seq);
            self.outbox.push(sent.clone());
        }
        if !change.settled.is_empty() {
            let settled: HashSet<u64> = change.settled.iter().copied().collect();
            self.outbox.retain(|sent| !settled.contains(&sent.seq));
        }
        if let Some(received) = &change.received {
            let of =
                |other: &Received| (other.actor.clone(), other.id.clone(), other.epoch.clone());
            self.received.retain(|other| of(other) != of(received));
            self.received.push(received.clone());
        }
    }
}

impl Change {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.patches.is_empty()
            && self.timers.is_empty()
            && self.connections.is_empty()
            && self.answer.is_none()
            && self.sends.is_empty()
            && self.settled.is_empty()
            && self.received.is_none()
    }

    /// Reads a change.
    pub fn parse(text: &str) -> Result<Change, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// As text.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("changes consist of what JSON can hold")
    }
}

/// A name as a JSON string.
mod name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::name::Name;

    pub(super) fn serialize<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        Name::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored() -> Stored {
        Stored {
            epoch: "e".into(),
            version: 3,
            run: "r".into(),
            earlier: vec![earlier("d", 2)],
            is_begun: false,
            state: json!({"count": 1, "text": "ab"}).into(),
            state_version: 0,
            connections: vec![Connected {
                id: "c1".into(),
                user: Some(r#"{"sub":"ann"}"#.into()),
            }],
            timers: vec![timer(1, 500)],
            last_timer: 4,
            answers: Vec::new(),
            outbox: vec![sent(1), sent(2)],
            last_sent: 2,
            received: vec![received(4)],
        }
    }

    fn earlier(epoch: &str, version: u64) -> Earlier {
        Earlier {
            epoch: epoch.into(),
            version,
        }
    }

    fn begun(epoch: &str) -> Option<Box<Begun>> {
        Some(Box::new(Begun {
            epoch: epoch.into(),
            run: "s".into(),
        }))
    }

    fn sent(seq: u64) -> Sent {
        Sent {
            seq,
            epoch: "e".into(),
            actor: "log".into(),
            id: "a".into(),
            method: "add".into(),
            input: Some("[1]".into()),
            key: None,
        }
    }

    fn received(seq: u64) -> Received {
        Received {
            actor: "log".into(),
            id: "b".into(),
            epoch: "f".into(),
            seq,
        }
    }

    fn timer(id: u64, due_ms: u64) -> StoredTimer {
        StoredTimer {
            id,
            timer: Timer {
                method: Name::parse("tick").unwrap(),
                input: Some("1".into()),
                due_ms,
                every_ms: Some(10),
                idle: true,
                outlive: false,
                steady_ms: None,
            },
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let stored = stored();
        assert_eq!(Stored::parse(&stored.to_text()).unwrap(), stored);
        let change = Change {
            version: 4,
            begins: begun("f"),
            patches: vec![PatchOp::Remove {
                path: "/count".to_owned(),
            }],
            timers: vec![TimerChange::Set(timer(7, 9)), TimerChange::Cancel(1)],
            connections: vec![ConnectionChange::Closed("c1".into())],
            answer: Some(Answer {
                call: "a".into(),
                input: "b".into(),
                at_ms: 7,
                outcome: Outcome::Result("[1]".into()),
            }),
            sends: vec![sent(3)],
            settled: vec![1],
            received: Some(received(9)),
        };
        assert_eq!(Change::parse(&change.to_text()).unwrap(), change);
    }

    #[test]
    fn a_record_without_a_version_of_its_state_is_of_version_0() {
        let before = r#"{"epoch":"e","version":1,"state":{"count":1},"lastTimer":0}"#;
        let stored = Stored::parse(before).unwrap();
        assert_eq!(stored.state_version, 0);
        assert_eq!(stored.to_text(), before);
        let later = Stored {
            state_version: 2,
            ..stored
        };
        assert!(later.to_text().contains(r#""stateVersion":2"#));
        assert_eq!(Stored::parse(&later.to_text()).unwrap(), later);
    }

    #[test]
    fn changes_add_up() {
        let mut stored = stored();
        let grown = PatchOp::StrIns {
            path: "/text".to_owned(),
            pos: 2,
            text: "c".to_owned(),
        };
        let change = Change {
            version: 4,
            begins: begun("f"),
            patches: vec![grown],
            timers: vec![TimerChange::Cancel(1), TimerChange::Set(timer(7, 9))],
            connections: vec![
                ConnectionChange::Closed("c1".into()),
                ConnectionChange::Opened(Connected {
                    id: "c2".into(),
                    user: None,
                }),
            ],
            answer: None,
            sends: vec![sent(3)],
            settled: vec![1, 2],
            received: Some(received(9)),
        };
        stored.apply(change).unwrap();
        assert_eq!((&*stored.epoch, &*stored.run), ("f", "s"));
        assert_eq!(stored.earlier, [earlier("d", 2), earlier("e", 3)]);
        assert_eq!((stored.outbox, stored.last_sent), (vec![sent(3)], 3));
        assert_eq!(stored.received, [received(9)]);
        stored.outbox = Vec::new();
        assert_eq!(stored.state.get("text").and_then(Json::as_str), Some("abc"));
        assert_eq!(stored.timers, [timer(7, 9)]);
        assert_eq!((stored.version, stored.last_timer), (4, 7));
        assert_eq!(stored.connections[0].id.as_ref(), "c2");
        let nothing = Change {
            version: 4,
            timers: vec![TimerChange::Cancel(7)],
            ..Change::default()
        };
        stored.apply(nothing).unwrap();
        assert_eq!(stored.first_due_ms(), None);
    }

    #[test]
    fn only_the_last_epochs_are_remembered() {
        let mut stored = stored();
        for number in 0..50 {
            let change = Change {
                version: 3,
                begins: begun(&number.to_string()),
                ..Change::default()
            };
            stored.apply(change).unwrap();
        }
        assert_eq!(stored.earlier.len(), Stored::EARLIER);
        assert_eq!(stored.earlier.last(), Some(&earlier("48", 3)));
        stored.begin_as("other".into());
        assert_eq!((&*stored.epoch, stored.earlier), ("other", Vec::new()));
    }

    #[test]
    fn a_gap_in_the_history_is_damage() {
        let skipped = Change {
            version: 5,
            patches: vec![PatchOp::Remove {
                path: "/count".to_owned(),
            }],
            ..Change::default()
        };
        let mut stored = stored();
        let before = stored.clone();
        assert!(stored.apply(skipped).is_err());
        assert_eq!(stored, before);
        assert!(Stored::parse("{}").is_err());
        assert!(Change::parse(r#"{"version": 1, "later": true}"#).is_err());
    }
}

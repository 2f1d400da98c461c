//! The mail of one actor: what it has sent and is not settled, and how much it has heard of
//! others.
//!
//! A message is part of the commit of the turn that sent it; it is
//! settled once the receiver's own commit says that it was received, or once it is certain that
//! no turn of the receiver will come of it. What is not settled is sent again when the
//! sender comes into memory, and the receiver drops what it has heard before.
//!
//! Invariant: to one receiver the messages of a sender are delivered in their order, so that
//! the number of the last one heard tells of all before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;

use super::calls::Invocation;
use super::record::{Change, Received, Sent};
use super::{EFFECT_COST, check};
use crate::failure::Failure;
use crate::name::ActorId;

/// How much is kept of an actor's mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Mail that it has sent and that is not settled.
    pub unsettled: usize,
    /// What this may weigh, in bytes.
    pub bytes: usize,
    /// Senders whose mail it remembers to have received.
    pub senders: usize,
}

impl Bounds {
    /// What holds where nobody says otherwise.
    pub const DEFAULT: Bounds = Bounds {
        unsettled: 10_000,
        bytes: 4 << 20,
        senders: 1_000,
    };
}

/// What mail weighs that a turn stages, in bytes.
pub fn cost(call: &Invocation) -> usize {
    let input = call.input.as_ref().map_or(0, String::len);
    EFFECT_COST + call.actor.len() + call.id.len() + call.method.len() + input
}

/// Whether this can be mail: its input is JSON, and an actor can have its id.
///
/// # Errors
///
/// `input.invalid`, `actor.invalid-id`
pub fn check(call: &Invocation) -> Result<(), Failure> {
    if let Some(input) = &call.input {
        check::json(input).map_err(Failure::input_not_json)?;
    }
    Ok(ActorId::check(&call.id)?)
}

/// What of an actor's mail has not reached its receivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// How many there are.
    pub count: usize,
    /// What they weigh, in bytes.
    pub bytes: usize,
}

impl Unsettled {
    /// Whether a turn that has staged so many may send a further one.
    ///
    /// # Errors
    ///
    /// `message.limit`
    pub fn check_room(self, staged: usize, bounds: Bounds) -> Result<(), Failure> {
        if self.count + staged < bounds.unsettled && self.bytes < bounds.bytes {
            return Ok(());
        }
        Err(Failure::message_limit(
            self.count,
            bounds.unsettled,
            bounds.bytes,
        ))
    }
}

/// What an actor has sent.
#[derive(Debug, Default)]
pub struct Outbox {
    unsettled: BTreeMap<u64, Kept>,
    bytes: usize,
    last: u64,
    /// What was settled since the last commit.
    settled: Vec<u64>,
}

#[derive(Debug)]
struct Kept {
    sent: Arc<Sent>,
    /// It is with its receiver, or on the way there.
    under_way: bool,
}

impl Outbox {
    /// What an actor has sent that comes back into memory.
    pub fn restored(stored: Vec<Sent>, last: u64) -> Outbox {
        let mut outbox = Outbox {
            last,
            ..Outbox::default()
        };
        for sent in stored {
            outbox.insert(Arc::new(sent), false);
        }
        outbox
    }

    /// One that has sent nothing, and goes on counting: what is under way must not be taken for
    /// later than what comes.
    pub fn emptied(&self) -> Outbox {
        Outbox {
            last: self.last,
            ..Outbox::default()
        }
    }

    /// What to store of it.
    pub fn to_stored(&self) -> Vec<Sent> {
        let unsettled = self.unsettled.values();
        unsettled
            .map(|unsettled| (*unsettled.sent).clone())
            .collect()
    }

    fn insert(&mut self, sent: Arc<Sent>, under_way: bool) {
        self.last = self.last.max(sent.seq);
        self.bytes += sent.weight();
        let kept = Kept { sent, under_way };
        self.unsettled.insert(kept.sent.seq, kept);
    }

    /// Numbers messages that a turn sends in this epoch.
    pub fn number(&self, sends: Vec<Invocation>, epoch: &Arc<str>) -> Vec<Sent> {
        let numbers = self.last + 1..;
        let numbered = numbers.zip(sends).map(|(seq, call)| Sent {
            seq,
            epoch: epoch.clone(),
            actor: call.actor.into(),
            id: call.id.into(),
            method: call.method.into(),
            input: call.input.map(Into::into),
            key: call.key.map(Into::into),
        });
        numbered.collect()
    }

    /// Takes in what was committed, which is about to leave.
    pub fn add(&mut self, sends: Vec<Sent>) -> Vec<Arc<Sent>> {
        let sends = sends.into_iter().map(Arc::new);
        let sends: Vec<Arc<Sent>> = sends.collect();
        for sent in &sends {
            self.insert(sent.clone(), true);
        }
        sends
    }

    /// What must leave again, in its order.
    pub fn take_left(&mut self) -> Vec<Arc<Sent>> {
        let left = self.unsettled.values_mut();
        let left = left.filter(|unsettled| !unsettled.under_way);
        left.map(|unsettled| {
            unsettled.under_way = true;
            unsettled.sent.clone()
        })
        .collect()
    }

    /// A message needs not be sent again.
    pub fn settle(&mut self, sent: &Sent) {
        let known = self.unsettled.get(&sent.seq);
        if known.is_some_and(|known| known.sent.epoch == sent.epoch) {
            self.unsettled.remove(&sent.seq);
            self.bytes -= sent.weight();
            self.settled.push(sent.seq);
        }
    }

    /// What was settled since this was last asked; alone it is not worth a commit, because
    /// receivers know what they have heard.
    pub fn take_settled(&mut self, in_any_case: bool) -> Vec<u64> {
        match in_any_case {
            true => std::mem::take(&mut self.settled),
            false => Vec::new(),
        }
    }

    /// Whether the store does not know of all that is settled.
    pub fn has_settled(&self) -> bool {
        !self.settled.is_empty()
    }

    /// Whether some are under way, whose end is to be noted.
    pub fn is_under_way(&self) -> bool {
        self.unsettled.values().any(|unsettled| unsettled.under_way)
    }

    /// How many are not settled, with this change.
    pub fn len_with(&self, change: &Change) -> usize {
        self.unsettled.len() + change.sends.len()
    }

    /// How many are not settled.
    pub fn len(&self) -> usize {
        self.unsettled.len()
    }

    /// Whether all are settled.
    pub fn is_empty(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// What they weigh in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What has not reached its receivers.
    pub fn unsettled(&self) -> Unsettled {
        Unsettled {
            count: self.len(),
            bytes: self.bytes,
        }
    }

    /// The highest number that one has had.
    pub fn last(&self) -> u64 {
        self.last
    }
}

/// The actor type and the id of a sender, and the history that it sent in.
type Sender = (Arc<str>, Arc<str>, Arc<str>);

/// How much an actor has heard of others, the longest silent first. Most hear of none, and have
/// no room for it.
#[derive(Debug, Default)]
pub struct Inbox(Option<Box<IndexMap<Sender, u64>>>);

impl Inbox {
    /// What an actor has heard that comes back into memory.
    pub fn restored(stored: Vec<Received>) -> Inbox {
        let mut inbox = Inbox::default();
        for received in stored {
            inbox.note(received, usize::MAX);
        }
        inbox
    }

    /// What to store of it.
    pub fn to_stored(&self) -> Vec<Received> {
        let received = self.0.iter().flat_map(|received| received.iter());
        let received = received.map(|((actor, id, epoch), seq)| Received {
            actor: actor.clone(),
            id: id.clone(),
            epoch: epoch.clone(),
            seq: *seq,
        });
        received.collect()
    }

    /// Of how many it has heard.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |received| received.len())
    }

    /// Whether it has heard of none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has heard this before.
    pub fn knows(&self, received: &Received) -> bool {
        let Some(known) = &self.0 else {
            return false;
        };
        // Tuples of shared text are only found by their like.
        let key = (
            received.actor.clone(),
            received.id.clone(),
            received.epoch.clone(),
        );
        known.get(&key).is_some_and(|seq| *seq >= received.seq)
    }

    /// Remembers a message, and at most `limit` senders.
    pub fn note(&mut self, received: Received, limit: usize) {
        let key = (received.actor, received.id, received.epoch);
        let known = self.0.get_or_insert_default();
        known.shift_remove(&key);
        if known.len() >= limit.max(1) {
            let excess = known.len() + 1 - limit.max(1);
            known.drain(..excess);
        }
        known.insert(key, received.seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str) -> Invocation {
        Invocation {
            actor: "log".to_owned(),
            id: "a".to_owned(),
            method: method.to_owned(),
            input: Some("1".to_owned()),
            key: None,
            timeout_ms: None,
        }
    }

    fn received(id: &str, epoch: &str, seq: u64) -> Received {
        Received {
            actor: "log".into(),
            id: id.into(),
            epoch: epoch.into(),
            seq,
        }
    }

    #[test]
    fn what_is_not_settled_leaves_again() {
        let mut outbox = Outbox::default();
        let epoch: Arc<str> = "e".into();
        let sends = outbox.number(vec![call("a"), call("b"), call("c")], &epoch);
        let numbers: Vec<u64> = sends.iter().map(|sent| sent.seq).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let sends = outbox.add(sends);
        assert!(outbox.take_left().is_empty(), "all are under way");
        outbox.settle(&sends[1]);
        assert!(outbox.is_under_way() && outbox.has_settled());

        let mut outbox = Outbox::restored(outbox.to_stored(), outbox.last());
        assert!(!outbox.is_under_way());
        let left = outbox.take_left();
        assert_eq!(left, [sends[0].clone(), sends[2].clone()]);
        let of_another_life = Sent {
            epoch: "f".into(),
            ..(*left[0]).clone()
        };
        outbox.settle(&of_another_life);
        assert_eq!(outbox.len(), 2);
        left.iter().for_each(|sent| outbox.settle(sent));
        assert_eq!((outbox.len(), outbox.bytes()), (0, 0));
        assert_eq!(outbox.take_settled(false), [0; 0]);
        assert_eq!(outbox.take_settled(true), [1, 3]);
        assert_eq!(outbox.number(vec![call("d")], &epoch)[0].seq, 4);
    }

    #[test]
    fn what_was_heard_is_known() {
        let mut inbox = Inbox::default();
        inbox.note(received("a", "e", 5), 2);
        assert!(inbox.knows(&received("a", "e", 4)) && inbox.knows(&received("a", "e", 5)));
        assert!(!inbox.knows(&received("a", "e", 6)));
        assert!(!inbox.knows(&received("a", "f", 5)), "another history");
        assert!(!inbox.knows(&received("b", "e", 5)));
        inbox.note(received("b", "e", 1), 2);
        inbox.note(received("a", "e", 6), 2);
        inbox.note(received("c", "e", 1), 2);
        assert!(!inbox.knows(&received("b", "e", 1)), "silent for longest");
        let inbox = Inbox::restored(inbox.to_stored());
        assert!(inbox.knows(&received("a", "e", 6)) && inbox.knows(&received("c", "e", 1)));
    }
}

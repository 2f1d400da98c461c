//! Messages on their way: from the gate of the sender to the queue of the receiver, and the
//! receiver's word back.
//!
//! A receiver that has no room now is tried again; what is meant for it meanwhile waits
//! behind. What a stopping host does not deliver is in the sender's last commit and leaves
//! again when the sender comes back into memory.
//!
//! Invariant: to one receiver the messages of one sender are delivered in their order; one whose
//! turn the store has refused is delivered again before any that comes after it, since a receiver
//! takes what lies before the last one that it has heard for heard.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tidegate_core::failure::code;
use tidegate_core::{ActorKey, Failure};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::mailbox::{Call, Item};
use super::{CALL_COST, Shared, Undelivered};
use crate::budget::Exhausted;
use crate::clock::instant;
use crate::engine::Origin;
use crate::metrics::Stopwatch;
use crate::store::{Heard, Sent};
use crate::turn::ReplyTo;

/// Time until a receiver that has no room is tried again: doubled from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// How long a receiver that no component serves may take to be served: a host that starts, or
/// whose component is replaced, has it soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sender and a receiver.
type Pair = (ActorKey, ActorKey);

/// Messages whose receivers have no room.
#[derive(Default)]
pub(super) struct Held(Mutex<HashMap<Pair, VecDeque<Arc<Sent>>>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<Pair, VecDeque<Arc<Sent>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a message wait if others of its pair do. False if none does.
    fn join(&self, pair: &Pair, sent: &Arc<Sent>) -> bool {
        let mut held = self.lock();
        let queue = held.get_mut(pair);
        queue.map(|queue| insert(queue, sent)).is_some()
    }

    /// Has a message wait. True if it is the first of its pair: somebody must try again.
    fn begin(&self, pair: &Pair, sent: &Arc<Sent>) -> bool {
        let mut held = self.lock();
        let is_first = !held.contains_key(pair);
        insert(held.entry(pair.clone()).or_default(), sent);
        is_first
    }

    /// The first one that waits; none ends the queue.
    fn first(&self, pair: &Pair) -> Option<Arc<Sent>> {
        let mut held = self.lock();
        let first = held.get(pair).and_then(VecDeque::front).cloned();
        if first.is_none() {
            held.remove(pair);
        }
        first
    }

    fn len(&self, pair: &Pair) -> usize {
        self.lock().get(pair).map_or(0, VecDeque::len)
    }

    fn remove(&self, pair: &Pair, sent: &Arc<Sent>) {
        if let Some(queue) = self.lock().get_mut(pair) {
            queue.retain(|other| other != sent);
        }
    }
}

/// The actor type and the id of a sender, which goes on counting its messages when it goes on
/// in another epoch.
type Sender = (Arc<str>, Arc<str>);

/// The first message of each sender whose turn the store has refused, by its number.
#[derive(Default)]
pub(super) struct Postponed(HashMap<Sender, u64>);

impl Postponed {
    /// Whether a message may have its turn: not before one that was refused.
    pub(super) fn lets_in(&mut self, heard: &Heard) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let key = (heard.actor.clone(), heard.id.clone());
        match self.0.get(&key) {
            Some(first) if heard.seq > *first => false,
            Some(_) => {
                self.0.remove(&key);
                true
            }
            None => true,
        }
    }

    pub(super) fn note(&mut self, heard: Heard) {
        self.0.insert((heard.actor, heard.id), heard.seq);
    }
}

/// Puts a message where its number says, unless it is there: the sender may have been loaded
/// again, and what a receiver that has gone gives back is earlier than what came meanwhile.
fn insert(queue: &mut VecDeque<Arc<Sent>>, sent: &Arc<Sent>) {
    if queue.contains(sent) {
        return;
    }
    let is_later = |other: &Arc<Sent>| other.seq > sent.seq;
    let place = queue.iter().position(is_later);
    queue.insert(place.unwrap_or(queue.len()), sent.clone());
}

impl Shared {
    /// Takes charge of a message whose turn has committed.
    pub(super) fn post(&self, from: &ActorKey, sent: Arc<Sent>) {
        let Some(to) = address(&sent) else {
            let failure = Failure::host(code::ACTOR_INVALID_ID);
            return self.give_up_message(from, &sent, &failure);
        };
        let pair = (from.clone(), to);
        if self.held.join(&pair, &sent) {
            return;
        }
        let Err(failure) = self.hand_over(&pair, &sent) else {
            return;
        };
        debug!(%from, to = %pair.1, %failure, "a message waits");
        self.hold(pair, &sent, PAUSES[0]);
    }

    /// Has a message be tried again after a pause, with those behind it.
    fn hold(&self, pair: Pair, sent: &Arc<Sent>, pause: Duration) {
        // A host that stops tries nothing again, and lets nothing pass either.
        if self.held.begin(&pair, sent) && !self.is_closing() {
            tokio::spawn(try_again(self.itself.clone(), pair, pause));
        }
    }

    /// Puts a message into the queue of its receiver.
    fn hand_over(&self, (from, to): &Pair, sent: &Arc<Sent>) -> Result<(), Failure> {
        let answered = {
            let (shared, from, sent) = (self.itself.clone(), from.clone(), sent.clone());
            move |result: Result<Option<String>, Failure>| {
                if let Some(shared) = shared.upgrade() {
                    shared.message_answered(&from, &sent, result.err());
                }
            }
        };
        let budget = &self.budgets.inputs;
        let share = budget.share(CALL_COST + sent.weight());
        let share = share.map_err(Exhausted::failure)?;
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let call = Call {
            method: (*sent.method).to_owned(),
            input: text(&sent.input),
            origin: Origin::Actor(from.clone()),
            depth: 0,
            key: text(&sent.key),
            heard: Some(Heard {
                actor: from.actor.as_str().into(),
                id: from.id.as_str().into(),
                epoch: sent.epoch.clone(),
                seq: sent.seq,
            }),
            deadline: None,
            traceparent: None,
            request: None,
            share: Some(share),
            cancel: CancellationToken::new(),
            arrived: instant(),
            watch: Stopwatch::default(),
            reply: ReplyTo::then(answered),
        };
        self.deliver(to, Item::Call(Box::new(call)))
            .map_err(|undelivered| {
                let Undelivered { failure, item } = *undelivered;
                if let Item::Call(call) = item {
                    call.reply.forget();
                }
                failure
            })
    }

    /// The receiver has run a message's turn, or never will.
    fn message_answered(&self, from: &ActorKey, sent: &Arc<Sent>, failure: Option<Failure>) {
        if let Some(failure) = &failure {
            match &*failure.code {
                // It waits with its sender until there is room.
                code::STORE_UNAVAILABLE
                | code::HOST_SHUTTING_DOWN
                | code::ACTOR_LIMIT
                | code::HOST_MEMORY => {
                    if let Some(to) = address(sent) {
                        return self.hold((from.clone(), to), sent, PAUSES[1]);
                    }
                }
                // Its component has gone, perhaps for a moment.
                code::ACTOR_UNKNOWN if self.key(&sent.actor, &sent.id).is_err() => {
                    return self.post(from, sent.clone());
                }
                _ => {}
            }
            let to = format!("{}/{}", sent.actor, sent.id);
            warn!(%from, to, method = %sent.method, %failure, "a message has failed");
        }
        self.with_outbox_of(from, |outbox| outbox.settle(sent));
    }

    fn give_up_message(&self, from: &ActorKey, sent: &Sent, failure: &Failure) {
        let to = format!("{}/{}", sent.actor, sent.id);
        warn!(%from, to, method = %sent.method, %failure, "a message is lost");
        self.with_outbox_of(from, |outbox| outbox.settle(sent));
    }

    /// A sender that has left memory learns it from the receiver when it sends again.
    fn with_outbox_of(&self, from: &ActorKey, change: impl FnOnce(&mut crate::turn::Outbox)) {
        if let Some(actor) = self.table.get(from)
            && let Some(live) = actor.loaded()
        {
            change(&mut live.ledger().outbox);
        }
    }
}

fn address(sent: &Sent) -> Option<ActorKey> {
    Some(ActorKey {
        actor: tidegate_core::Name::parse(&sent.actor).ok()?,
        id: tidegate_core::ActorId::stored(&sent.id).ok()?,
    })
}

/// Delivers what waits for a receiver, as it has room.
async fn try_again(shared: Weak<Shared>, pair: Pair, mut pause: Duration) {
    let longest = PAUSES[1];
    let began = instant();
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.is_closing() {
            // They are in the sender's last commit.
            return;
        }
        // Those that are refused at once wait for the next round.
        for _ in 0..shared.held.len(&pair) {
            let Some(sent) = shared.held.first(&pair) else {
                break;
            };
            match shared.hand_over(&pair, &sent) {
                Ok(()) => pause = PAUSES[0],
                Err(failure) => {
                    let is_served = failure.code != code::ACTOR_UNKNOWN;
                    if is_served || instant() - began < PATIENCE {
                        break;
                    }
                    shared.give_up_message(&pair.0, &sent, &failure);
                }
            }
            shared.held.remove(&pair, &sent);
        }
        if shared.held.first(&pair).is_none() {
            return;
        }
        pause = (pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(seq: u64) -> Arc<Sent> {
        Arc::new(Sent {
            seq,
            epoch: "e".into(),
            actor: "log".into(),
            id: "a".into(),
            method: "add".into(),
            input: None,
            key: None,
        })
    }

    #[test]
    fn what_waits_keeps_its_order() {
        let held = Held::default();
        let key = |id: &str| {
            address(&Sent {
                id: id.into(),
                ..(*sent(0)).clone()
            })
            .unwrap()
        };
        let pair = (key("a"), key("b"));
        assert!(!held.join(&pair, &sent(1)), "nothing waits");
        assert!(held.begin(&pair, &sent(3)));
        assert!(held.join(&pair, &sent(2)));
        assert!(held.join(&pair, &sent(2)), "the same again");
        assert!(!held.begin(&pair, &sent(1)), "somebody tries already");
        assert!(!held.join(&(key("a"), key("c")), &sent(3)));
        let mut left = Vec::new();
        while let Some(first) = held.first(&pair) {
            left.push(first.seq);
            held.remove(&pair, &first);
        }
        assert_eq!(left, [1, 2, 3]);
        assert!(!held.join(&pair, &sent(4)), "the queue has ended");
    }

    #[test]
    fn nothing_has_its_turn_before_what_was_refused() {
        let heard = |seq| Heard {
            actor: "log".into(),
            id: "b".into(),
            // The sender came back in between.
            epoch: if seq < 7 { "e" } else { "f" }.into(),
            seq,
        };
        let mut postponed = Postponed::default();
        assert!(postponed.lets_in(&heard(5)));
        postponed.note(heard(5));
        assert!(!postponed.lets_in(&heard(6)) && !postponed.lets_in(&heard(7)));
        assert!(postponed.lets_in(&heard(5)), "it comes again");
        assert!(postponed.lets_in(&heard(6)));
    }
}

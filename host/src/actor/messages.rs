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
use std::sync::{Arc, Weak};
use std::time::Duration;

use tidegate_core::failure::code;
use tidegate_core::{ActorKey, Failure, Name};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::held::{Due, PAUSES, Pair, Refused};
use super::lanes::BATCH;
use super::mailbox::{Call, Item};
use super::{CALL_COST, Shared, Undelivered};
use crate::budget::Exhausted;
use crate::clock::instant;
use crate::engine::Origin;
use crate::fair::Share;
use crate::metrics::Stopwatch;
use crate::store::{Heard, Sent};
use crate::turn::ReplyTo;

/// How long a receiver that no component serves may take to be served: a host that starts, or
/// whose component is replaced, has it soon.
const PATIENCE: Duration = Duration::from_secs(60);

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
        self.hold(&pair, &sent, PAUSES[0], Refused::of(&failure));
    }

    /// Has a message be tried again after a pause, with those behind it.
    fn hold(&self, pair: &Pair, sent: &Arc<Sent>, pause: Duration, why: Refused) {
        if self.held.begin(pair, sent, pause, why, instant()) {
            tokio::spawn(watch(self.itself.clone(), self.held.earlier.clone()));
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
                        let pair = (from.clone(), to);
                        return self.hold(&pair, sent, PAUSES[1], Refused::Other);
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

    /// Has some of what is due tried by lanes, as work of the senders' components. False if nothing
    /// is due.
    fn try_due(&self) -> bool {
        let all = self.held.take_due(instant());
        let is_some = !all.is_empty();
        let mut by_share: Vec<(Arc<Share>, Vec<Pair>)> = Vec::new();
        for due in all {
            let pair = match due {
                Due::One(pair) => pair,
                Due::Crowd(name) => {
                    let crowd = self.held.take_crowd(&name);
                    let share = crowd.front().map(|pair| self.share_of(pair));
                    let tries = try_crowd(self.itself.clone(), name, crowd);
                    self.lanes.spawn(share.unwrap_or_default(), Box::pin(tries));
                    continue;
                }
            };
            let share = self.share_of(&pair);
            let known = by_share
                .iter_mut()
                .find(|(other, _)| Arc::ptr_eq(other, &share));
            match known {
                Some((_, pairs)) => pairs.push(pair),
                None => by_share.push((share, vec![pair])),
            }
        }
        for (share, pairs) in by_share {
            let tries = try_all(self.itself.clone(), pairs);
            self.lanes.spawn(share, Box::pin(tries));
        }
        is_some
    }

    /// Whose time it takes to deliver these.
    fn share_of(&self, (from, _): &Pair) -> Arc<Share> {
        let slot = self.router.resolve(from.actor.as_str());
        slot.map_or_else(Arc::default, |slot| slot.share())
    }

    /// Delivers what waits for a receiver, as far as it has room. Says whether it took any, and
    /// why it took no more.
    fn try_again(&self, pair: &Pair) -> (bool, Refused) {
        let mut has_moved = false;
        // Those that are refused at once wait for the next round.
        for _ in 0..self.held.len(pair) {
            let Some((sent, began)) = self.held.first(pair) else {
                break;
            };
            // Where there is no room for the receiver nothing need be made for it.
            let room = self.actor(&pair.1);
            match room.and_then(|_| self.hand_over(pair, &sent)) {
                Ok(()) => has_moved = true,
                Err(failure) => {
                    let is_served = failure.code != code::ACTOR_UNKNOWN;
                    if is_served || instant() - began < PATIENCE {
                        return (has_moved, Refused::of(&failure));
                    }
                    self.give_up_message(&pair.0, &sent, &failure);
                }
            }
            self.held.remove(pair, &sent);
        }
        (has_moved, Refused::Other)
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

pub(super) fn address(sent: &Sent) -> Option<ActorKey> {
    Some(ActorKey {
        actor: tidegate_core::Name::parse(&sent.actor).ok()?,
        id: tidegate_core::ActorId::stored(&sent.id).ok()?,
    })
}

/// Has what is due tried, until nothing waits any more.
async fn watch(shared: Weak<Shared>, earlier: Arc<Notify>) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            // A host that stops tries nothing again: they are in their senders' last commits.
            if shared.is_closing() {
                return;
            }
            if shared.try_due() {
                drop(shared);
                // There may be more, for which others are not to wait.
                yield_now().await;
                continue;
            }
            shared.held.next()
        };
        let Some(next) = next else {
            return;
        };
        let due = async {
            match next {
                Some(at) => sleep_until(at.into()).await,
                // All are being tried.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = earlier.notified() => {}
        }
    }
}

/// Delivers what waits for these receivers, as they have room.
async fn try_all(shared: Weak<Shared>, pairs: Vec<Pair>) {
    let mut began = instant();
    for pair in pairs {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.is_closing() {
            return;
        }
        let (has_moved, why) = shared.try_again(&pair);
        shared.held.tried(&pair, has_moved, why, instant());
        drop(shared);
        if instant() - began >= BATCH {
            yield_now().await;
            began = instant();
        }
    }
}

/// Delivers what waits for the receivers of a crowd, until no more of them may come.
async fn try_crowd(shared: Weak<Shared>, name: Name, mut crowd: VecDeque<Pair>) {
    let mut began = instant();
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if shared.is_closing() {
            return;
        }
        let Some(pair) = crowd.pop_front() else {
            return shared.held.put_back_crowd(&name, crowd, instant());
        };
        let (has_moved, why) = shared.try_again(&pair);
        if why == Refused::TooFast {
            crowd.push_front(pair);
            return shared.held.put_back_crowd(&name, crowd, instant());
        }
        shared.held.tried(&pair, has_moved, why, instant());
        drop(shared);
        if instant() - began >= BATCH {
            yield_now().await;
            began = instant();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

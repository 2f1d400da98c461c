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

use tidegate_base::budget::Exhausted;
use tidegate_base::clock::instant;
use tidegate_base::fair::Share;
use tidegate_core::call::Mail;
use tidegate_core::failure::code;
use tidegate_core::turn::Outbox;
use tidegate_core::turn::{Received, Sent};
use tidegate_core::{ActorKey, CallEnvelope, Failure, Name, Origin};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::lanes::{BATCH, Consumer};
use super::mail_queue::{Before, Crowd, Due, PAUSES, Pair, Refused};
use super::mailbox::{Call, Item};
use super::{CALL_COST, Shared, Undelivered};
use crate::metrics::Stopwatch;
use crate::turn::ReplyTo;

/// How long a receiver that no component serves may take to be served: a host that starts, or
/// whose component is replaced, has it soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many messages of one pair are delivered at a stretch.
const MANY_MESSAGES: usize = 64;

/// The actor type and the id of a sender, which goes on counting its messages when it goes on
/// in another epoch.
type Sender = (Arc<str>, Arc<str>);

/// The first message of each sender whose turn the store has refused, by its number.
#[derive(Default)]
pub(super) struct Blocked(HashMap<Sender, u64>);

impl Blocked {
    /// Whether a message may have its turn: not before one that was refused.
    pub(super) fn lets_in(&mut self, received: &Received) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let key = (received.actor.clone(), received.id.clone());
        match self.0.get(&key) {
            Some(first) if received.seq > *first => false,
            Some(_) => {
                self.0.remove(&key);
                true
            }
            None => true,
        }
    }

    pub(super) fn note(&mut self, received: Received) {
        self.0.insert((received.actor, received.id), received.seq);
    }
}

impl Shared {
    /// Takes charge of a message whose turn has committed.
    pub(super) fn post(&self, from: &ActorKey, sent: Arc<Sent>) {
        let Some(to) = address(&sent) else {
            let failure = Failure::receiver_invalid();
            return self.give_up_message(from, &sent, &failure);
        };
        let pair = (from.clone(), to);
        match self.mail_queue.join(&pair, &sent) {
            Before::Own => return,
            // They were there first.
            Before::Crowd if self.table.get(&pair.1).is_none() => {
                return self.hold(&pair, &sent, PAUSES[0], Refused::TooFast);
            }
            Before::Crowd | Before::Nothing => {}
        }
        let Err(failure) = self.hand_over(&pair, &sent) else {
            return;
        };
        debug!(%from, to = %pair.1, %failure, "a message waits");
        self.hold(&pair, &sent, PAUSES[0], Refused::of(&failure));
    }

    /// Has a message be tried again after a pause, with those behind it.
    fn hold(&self, pair: &Pair, sent: &Arc<Sent>, pause: Duration, why: Refused) {
        if self.mail_queue.begin(pair, sent, pause, why, instant()) {
            tokio::spawn(watch(self.itself.clone(), self.mail_queue.earlier.clone()));
        }
    }

    /// Puts a message into the queue of its receiver, or on its way there.
    fn hand_over(&self, pair: &Pair, sent: &Arc<Sent>) -> Result<(), Failure> {
        match self.itself().carry(pair, sent) {
            true => Ok(()),
            false => self.hand_over_here(pair, sent),
        }
    }

    /// Puts a message into the queue of its receiver, which is at home here.
    pub(super) fn hand_over_here(
        &self,
        (from, to): &Pair,
        sent: &Arc<Sent>,
    ) -> Result<(), Failure> {
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
        let call = Call {
            envelope: envelope_of(from, sent),
            deadline: None,
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
    pub(super) fn message_answered(
        &self,
        from: &ActorKey,
        sent: &Arc<Sent>,
        failure: Option<Failure>,
    ) {
        if let Some(failure) = &failure {
            match &*failure.code {
                // It waits with its sender until there is room.
                code::STORE_UNAVAILABLE
                | code::HOST_SHUTTING_DOWN
                | code::ACTOR_LIMIT
                | code::HOST_MEMORY
                | code::ACTOR_MOVING => {
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
        let all = self.mail_queue.take_due(instant());
        let is_some = !all.is_empty();
        let mut by_share: Vec<(Arc<Share>, VecDeque<Pair>)> = Vec::new();
        for due in all {
            let pair = match due {
                Due::One(pair) => pair,
                Due::Crowd(crowd) => {
                    let share = self.share_of(&crowd.0);
                    let tries = Tries {
                        shared: self.itself.clone(),
                        pairs: self.mail_queue.take_crowd(&crowd),
                        crowd: Some(crowd),
                    };
                    self.lanes.spawn(share, Consumer::new(|| try_all(tries)));
                    continue;
                }
            };
            let share = self.share_of(&pair.0.actor);
            let known = by_share
                .iter_mut()
                .find(|(other, _)| Arc::ptr_eq(other, &share));
            match known {
                Some((_, pairs)) => pairs.push_back(pair),
                None => by_share.push((share, VecDeque::from([pair]))),
            }
        }
        for (share, pairs) in by_share {
            let tries = Tries {
                shared: self.itself.clone(),
                pairs,
                crowd: None,
            };
            self.lanes.spawn(share, Consumer::new(|| try_all(tries)));
        }
        is_some
    }

    /// Whose time it takes to deliver what actors of this type have sent.
    fn share_of(&self, sender: &Name) -> Arc<Share> {
        match self.router.resolve(sender.as_str()) {
            Some(slot) => slot.share(),
            None => self.mail_queue.nobodys.clone(),
        }
    }

    /// Delivers what waits for a receiver, as far as it has room. Says whether it took any, and
    /// why it took no more.
    fn try_again(&self, pair: &Pair) -> (bool, Refused) {
        let mut has_moved = false;
        let mut why = Refused::Other;
        // Those that are refused at once wait for the next round.
        for _ in 0..MANY_MESSAGES {
            let Some(sent) = self.mail_queue.take_first(pair) else {
                break;
            };
            // Where there is no room for the receiver nothing need be made for it.
            let room = self.actor(&pair.1);
            match room.and_then(|_| self.hand_over(pair, &sent)) {
                Ok(()) => has_moved = true,
                Err(failure) => {
                    why = Refused::of(&failure);
                    let is_served = why != Refused::Unserved;
                    if is_served || self.mail_queue.unserved_for(pair, instant()) < PATIENCE {
                        self.mail_queue.give_back(pair, &sent);
                        break;
                    }
                    self.give_up_message(&pair.0, &sent, &failure);
                    has_moved = true;
                }
            }
        }
        (has_moved, why)
    }

    fn give_up_message(&self, from: &ActorKey, sent: &Sent, failure: &Failure) {
        let to = format!("{}/{}", sent.actor, sent.id);
        warn!(%from, to, method = %sent.method, %failure, "a message is lost");
        self.with_outbox_of(from, |outbox| outbox.settle(sent));
    }

    /// A sender that has left memory learns it from the receiver when it sends again.
    fn with_outbox_of(&self, from: &ActorKey, change: impl FnOnce(&mut Outbox)) {
        if let Some(actor) = self.table.get(from)
            && let Some(live) = actor.loaded()
        {
            change(&mut live.parts().outbox);
        }
    }
}

/// A message as the call that it is to its receiver.
pub(super) fn envelope_of(from: &ActorKey, sent: &Sent) -> CallEnvelope {
    let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
    CallEnvelope {
        key: text(&sent.key),
        mail: Some(Mail {
            epoch: sent.epoch.clone(),
            seq: sent.seq,
        }),
        ..CallEnvelope::new(
            &*sent.method,
            text(&sent.input),
            Origin::Actor(from.clone()),
        )
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
            shared.mail_queue.next()
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

/// What a lane is to try. However it ends, what is left goes back.
struct Tries {
    shared: Weak<Shared>,
    pairs: VecDeque<Pair>,
    /// The crowd that they are, of whom no more is tried than is let in.
    crowd: Option<Crowd>,
}

impl Drop for Tries {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let (left, now) = (std::mem::take(&mut self.pairs), instant());
        match self.crowd.take() {
            Some(crowd) => shared.mail_queue.put_back_crowd(crowd, left, now),
            None => left
                .iter()
                .for_each(|pair| shared.mail_queue.tried(pair, false, Refused::Other, now)),
        }
    }
}

/// Delivers what waits for these receivers, as they have room.
async fn try_all(mut tries: Tries) {
    let mut began = instant();
    while let Some(pair) = tries.pairs.front().cloned() {
        let Some(shared) = tries.shared.upgrade() else {
            return;
        };
        if shared.is_closing() {
            return;
        }
        let (has_moved, why) = shared.try_again(&pair);
        if why == Refused::TooFast && tries.crowd.is_some() {
            return;
        }
        tries.pairs.pop_front();
        shared.mail_queue.tried(&pair, has_moved, why, instant());
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
        let received = |seq| Received {
            actor: "log".into(),
            id: "b".into(),
            // The sender came back in between.
            epoch: if seq < 7 { "e" } else { "f" }.into(),
            seq,
        };
        let mut blocked = Blocked::default();
        assert!(blocked.lets_in(&received(5)));
        blocked.note(received(5));
        assert!(!blocked.lets_in(&received(6)) && !blocked.lets_in(&received(7)));
        assert!(blocked.lets_in(&received(5)), "it comes again");
        assert!(blocked.lets_in(&received(6)));
    }
}

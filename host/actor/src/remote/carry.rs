//! Mail to actors at other hosts: one message of a pair at a time, until each is answered.
//!
//! A receiver remembers the last message that it had of each sender, so the next of a pair may not
//! pass one that has perhaps not arrived.
//!
//! Invariant: the messages of a pair that is carried keep their order, and none is passed over.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_base::sync::Mutex;
use tidegate_core::Failure;
use tidegate_core::failure::code;
use tidegate_core::turn::Sent;
use tidegate_registry::placement::Home;
use tokio::time::timeout;

use super::super::Shared;
use super::super::mail::envelope_of;
use super::super::mail_queue::{PAUSES, Pair};
use super::wire::Ask;

/// Mail on its way to other hosts.
#[derive(Default)]
pub(super) struct Carried {
    pairs: Mutex<HashMap<Pair, VecDeque<Arc<Sent>>>>,
    /// How many pairs; mostly none.
    count: AtomicUsize,
}

/// What became of one message.
enum Carriage {
    /// It need not be sent again.
    Settled(Result<(), Failure>),
    /// It is to be tried again after a while.
    Again,
    /// The sender goes on at another host, which sends it.
    NotOurs,
}

impl Shared {
    /// Takes charge of a message whose receiver, or sender, is not at home here, or which others
    /// of its pair are before. False where it is for who delivers here.
    pub(crate) fn carry(self: &Arc<Self>, pair: &Pair, sent: &Arc<Sent>) -> bool {
        let carried = &self.remote.carried;
        let is_here = matches!(self.remote.home(&pair.1), Home::Here(_))
            && matches!(self.remote.home(&pair.0), Home::Here(_));
        if is_here && carried.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut pairs = carried.pairs.lock();
        if is_here && !pairs.contains_key(pair) {
            return false;
        }
        let is_first = !pairs.contains_key(pair);
        pairs
            .entry(pair.clone())
            .or_default()
            .push_back(sent.clone());
        carried.count.store(pairs.len(), Ordering::Release);
        drop(pairs);
        if is_first {
            tokio::spawn(carry_all(self.clone(), pair.clone()));
        }
        true
    }

    /// Ends the carrying of a pair if nothing of it is left, or all of it is given up.
    fn carried(&self, pair: &Pair, gives_up: bool) -> Option<Arc<Sent>> {
        let mut pairs = self.remote.carried.pairs.lock();
        let first = pairs.get(pair).and_then(|queue| queue.front().cloned());
        if first.is_none() || gives_up {
            pairs.remove(pair);
            self.remote
                .carried
                .count
                .store(pairs.len(), Ordering::Release);
            return None;
        }
        first
    }

    async fn carry_one(&self, pair: &Pair, sent: &Arc<Sent>) -> Carriage {
        let (from, to) = pair;
        match self.remote.home(from) {
            Home::Here(_) => {}
            _ => return Carriage::NotOurs,
        }
        let home = match self.remote.home(to) {
            Home::There(home) => home,
            Home::Moving => return Carriage::Again,
            Home::Here(_) => {
                return match self.hand_over_here(pair, sent) {
                    Ok(()) => Carriage::Settled(Ok(())),
                    Err(_) => Carriage::Again,
                };
            }
        };
        let ask = Ask::Call {
            actor: to.clone(),
            call: Box::new(envelope_of(from, sent)),
            patience_ms: None,
        };
        let failure = match self.ask(&home, &ask).await {
            Ok(_) => {
                self.message_answered(from, sent, None);
                return Carriage::Settled(Ok(()));
            }
            Err(failure) => failure,
        };
        let is_to_come = matches!(
            &*failure.code,
            code::CALL_LOST
                | code::ACTOR_MOVING
                | code::HOST_CUT_OFF
                | code::HOST_SHUTTING_DOWN
                | code::HOST_MEMORY
                | code::STORE_UNAVAILABLE
                | code::ACTOR_LIMIT
                | code::MAILBOX_FULL
                | code::RATE_ACTORS
                | code::ACTOR_UNKNOWN
        );
        match is_to_come {
            true => Carriage::Again,
            false => Carriage::Settled(Err(failure)),
        }
    }
}

/// Carries the messages of a pair, one after the other, until none is left.
async fn carry_all(shared: Arc<Shared>, pair: Pair) {
    let mut pause = PAUSES[0];
    while let Some(sent) = shared.carried(&pair, false) {
        let changed = shared.remote.placement.homes.changed();
        match shared.carry_one(&pair, &sent).await {
            Carriage::Settled(settled) => {
                if let Err(failure) = settled {
                    shared.message_answered(&pair.0, &sent, Some(failure));
                }
                pause = PAUSES[0];
                let mut pairs = shared.remote.carried.pairs.lock();
                if let Some(queue) = pairs.get_mut(&pair) {
                    queue.pop_front();
                }
            }
            Carriage::Again => {
                // Sooner where its home is known by then.
                let _ = timeout(pause, changed).await;
                pause = Duration::min(2 * pause, PAUSES[1]);
            }
            Carriage::NotOurs => drop(shared.carried(&pair, true)),
        }
    }
}

//! Messages that wait for their receivers, and when each is tried again.
//!
//! Pure data; `messages` delivers.
//!
//! Invariants: the messages of one pair keep their order; each pair is due once, or in a crowd that
//! is, or is being tried.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_core::failure::code;
use tidegate_core::{ActorKey, Failure, Name};
use tokio::sync::Notify;

use crate::store::Sent;

/// Time until a receiver that has no room is tried again: doubled from the first to the last.
pub(super) const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// When receivers that come into memory too fast are tried again, as many as may come by then.
const CROWD_PAUSE: Duration = Duration::from_millis(50);

/// How many that are due are handed to lanes at once.
const MANY_DUE: usize = 256;

/// A sender and a receiver.
pub(super) type Pair = (ActorKey, ActorKey);

/// Messages whose receivers have no room, and when each is tried again.
///
/// A stranger's crowd may bring tens of thousands of pairs, so these have no tasks of their own:
/// one waits for all, and they are tried on lanes, as work of the sender's component. Where
/// receivers come into memory faster than they may, theirs wait in one line, of which no more is
/// tried than is let in.
#[derive(Default)]
pub(super) struct Held {
    waiting: Mutex<Waiting>,
    /// Something is to be tried earlier than what was to come next.
    pub(super) earlier: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    queues: HashMap<Pair, Queue>,
    /// When they are tried again. Each queue is here once, or in a crowd, or is being tried.
    due: BTreeMap<(Instant, u64), Due>,
    /// Those whose receivers come into memory too fast, by the receivers' type. Each crowd is due
    /// once, or is being tried.
    crowds: HashMap<Name, VecDeque<Pair>>,
    next_number: u64,
    /// Somebody waits for what is due.
    is_watched: bool,
}

/// What is to be tried again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    One(Pair),
    Crowd(Name),
}

/// What waits for one receiver, of one sender.
struct Queue {
    messages: VecDeque<Arc<Sent>>,
    /// For how long it has been waited before it is tried next.
    pause: Duration,
    began: Instant,
}

/// Why a receiver does not take a message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not in memory, where others of its type come faster than they may.
    TooFast,
    Other,
}

impl Refused {
    pub(super) fn of(failure: &Failure) -> Refused {
        match failure.code == code::RATE_ACTORS {
            true => Refused::TooFast,
            false => Refused::Other,
        }
    }
}

impl Waiting {
    /// Has a pair be tried again after its pause, or, if it was refused for that, with the crowd.
    /// True if that is before anything else.
    fn set(&mut self, pair: &Pair, pause: Duration, why: Refused, now: Instant) -> bool {
        if why == Refused::Other {
            return self.set_due(Due::One(pair.clone()), now + pause);
        }
        let name = &pair.1.actor;
        if let Some(crowd) = self.crowds.get_mut(name) {
            crowd.push_back(pair.clone());
            return false;
        }
        self.crowds
            .insert(name.clone(), VecDeque::from([pair.clone()]));
        self.set_due(Due::Crowd(name.clone()), now + CROWD_PAUSE)
    }

    fn set_due(&mut self, due: Due, at: Instant) -> bool {
        let number = self.next_number;
        self.next_number += 1;
        let first = self.due.first_key_value();
        let is_earlier = first.is_none_or(|((first, _), _)| at < *first);
        self.due.insert((at, number), due);
        is_earlier
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a message wait if others of its pair do. False if none does.
    pub(super) fn join(&self, pair: &Pair, sent: &Arc<Sent>) -> bool {
        let mut waiting = self.lock();
        let queue = waiting.queues.get_mut(pair);
        queue
            .map(|queue| insert(&mut queue.messages, sent))
            .is_some()
    }

    /// Has a message wait for so long, or for what its pair waits for already. True if somebody
    /// must begin to watch what is due.
    pub(super) fn begin(
        &self,
        pair: &Pair,
        sent: &Arc<Sent>,
        pause: Duration,
        why: Refused,
        now: Instant,
    ) -> bool {
        let mut waiting = self.lock();
        if let Some(queue) = waiting.queues.get_mut(pair) {
            insert(&mut queue.messages, sent);
            return false;
        }
        let queue = Queue {
            messages: VecDeque::from([sent.clone()]),
            pause,
            began: now,
        };
        waiting.queues.insert(pair.clone(), queue);
        if waiting.set(pair, pause, why, now) {
            self.earlier.notify_one();
        }
        !std::mem::replace(&mut waiting.is_watched, true)
    }

    /// What is to be tried now, some of it.
    pub(super) fn take_due(&self, now: Instant) -> Vec<Due> {
        let mut waiting = self.lock();
        let mut due = Vec::new();
        // What is later may be much, and is not to be touched.
        while due.len() < MANY_DUE
            && let Some(first) = waiting.due.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        due
    }

    /// When the next pair is due. None ends the watch: nothing waits.
    pub(super) fn next(&self) -> Option<Option<Instant>> {
        let mut waiting = self.lock();
        if waiting.queues.is_empty() {
            waiting.is_watched = false;
            return None;
        }
        let first = waiting.due.first_key_value();
        Some(first.map(|((at, _), _)| *at))
    }

    /// The first one that waits, and since when some of its pair do.
    pub(super) fn first(&self, pair: &Pair) -> Option<(Arc<Sent>, Instant)> {
        let waiting = self.lock();
        let queue = waiting.queues.get(pair)?;
        Some((queue.messages.front()?.clone(), queue.began))
    }

    pub(super) fn len(&self, pair: &Pair) -> usize {
        let waiting = self.lock();
        let queue = waiting.queues.get(pair);
        queue.map_or(0, |queue| queue.messages.len())
    }

    pub(super) fn remove(&self, pair: &Pair, sent: &Arc<Sent>) {
        if let Some(queue) = self.lock().queues.get_mut(pair) {
            queue.messages.retain(|other| other != sent);
        }
    }

    /// Those of a crowd, which are to be tried in their order.
    pub(super) fn take_crowd(&self, name: &Name) -> VecDeque<Pair> {
        let mut waiting = self.lock();
        let crowd = waiting.crowds.get_mut(name);
        crowd.map(std::mem::take).unwrap_or_default()
    }

    /// As many of a crowd have been tried as were let in; these are left.
    pub(super) fn put_back_crowd(&self, name: &Name, mut left: VecDeque<Pair>, now: Instant) {
        let mut waiting = self.lock();
        left.extend(waiting.crowds.remove(name).into_iter().flatten());
        if left.is_empty() {
            return;
        }
        waiting.crowds.insert(name.clone(), left);
        if waiting.set_due(Due::Crowd(name.clone()), now + CROWD_PAUSE) {
            self.earlier.notify_one();
        }
    }

    /// A pair has been tried, and some of its messages were taken or none.
    pub(super) fn tried(&self, pair: &Pair, has_moved: bool, why: Refused, now: Instant) {
        let mut waiting = self.lock();
        let Some(queue) = waiting.queues.get_mut(pair) else {
            return;
        };
        if queue.messages.is_empty() {
            waiting.queues.remove(pair);
            if waiting.queues.is_empty() {
                // The watch ends.
                self.earlier.notify_one();
            }
            return;
        }
        queue.pause = match has_moved {
            true => PAUSES[0],
            false => (queue.pause * 2).min(PAUSES[1]),
        };
        let pause = queue.pause;
        if waiting.set(pair, pause, why, now) {
            self.earlier.notify_one();
        }
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

#[cfg(test)]
mod tests {
    use super::super::messages::address;
    use super::*;
    use crate::clock::instant;

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
        let now = instant();
        let begin = |seq| held.begin(&pair, &sent(seq), PAUSES[0], Refused::Other, now);
        assert!(!held.join(&pair, &sent(1)), "nothing waits");
        assert!(begin(3), "nobody watches");
        assert!(held.join(&pair, &sent(2)));
        assert!(held.join(&pair, &sent(2)), "the same again");
        assert!(!begin(1), "somebody watches");
        assert!(!held.join(&(key("a"), key("c")), &sent(3)));
        let mut left = Vec::new();
        while let Some((first, _)) = held.first(&pair) {
            left.push(first.seq);
            held.remove(&pair, &first);
        }
        assert_eq!(left, [1, 2, 3]);
        held.tried(&pair, true, Refused::Other, now);
        assert!(!held.join(&pair, &sent(4)), "the queue has ended");
        assert_eq!(held.next(), None);
    }

    #[test]
    fn what_is_refused_is_tried_less_and_less_often() {
        let held = Held::default();
        let key = |id: &str| {
            address(&Sent {
                id: id.into(),
                ..(*sent(0)).clone()
            })
            .unwrap()
        };
        let pairs = [(key("a"), key("b")), (key("a"), key("c"))];
        let began = instant();
        let mut now = began;
        assert!(held.begin(&pairs[0], &sent(1), PAUSES[0], Refused::Other, now));
        assert!(!held.begin(&pairs[1], &sent(2), PAUSES[1], Refused::Other, now));
        let mut tried = Vec::new();
        while now < began + 3 * PAUSES[1] {
            let next = held
                .next()
                .expect("they wait")
                .expect("none is being tried");
            assert!(held.take_due(next - Duration::from_nanos(1)).is_empty());
            now = next;
            for due in held.take_due(now) {
                let Due::One(pair) = due else {
                    panic!("none came too fast");
                };
                tried.push(((now - began).as_millis(), pair.1.id.to_string()));
                held.tried(&pair, false, Refused::Other, now);
            }
        }
        let of = |id: &str| -> Vec<u128> {
            let tried = tried.iter().filter(|(_, other)| other == id);
            tried.map(|(ms, _)| *ms).collect()
        };
        assert_eq!(of("b"), [5, 15, 35, 75, 155, 315, 635, 1275, 2275]);
        assert_eq!(of("c"), [1000, 2000, 3000]);
        // One that was taken has the others tried soon.
        held.join(&pairs[0], &sent(9));
        held.remove(&pairs[0], &sent(1));
        let due = held.take_due(now + PAUSES[1]);
        held.tried(&pairs[0], true, Refused::Other, now);
        assert_eq!(due.len(), 2);
        assert_eq!(held.next(), Some(Some(now + PAUSES[0])));
    }

    #[test]
    fn those_who_come_too_fast_wait_in_one_line() {
        let held = Held::default();
        let now = instant();
        let pair = |number: usize| -> Pair {
            let key = |id: String| {
                address(&Sent {
                    id: id.as_str().into(),
                    ..(*sent(0)).clone()
                })
                .unwrap()
            };
            (key("sender".to_owned()), key(number.to_string()))
        };
        for number in 0..1_000 {
            held.begin(&pair(number), &sent(1), PAUSES[0], Refused::TooFast, now);
        }
        assert_eq!(held.next(), Some(Some(now + CROWD_PAUSE)));
        let now = now + CROWD_PAUSE;
        let name = pair(0).1.actor;
        assert_eq!(held.take_due(now), [Due::Crowd(name.clone())]);
        let mut crowd = held.take_crowd(&name);
        assert_eq!(crowd.len(), 1_000);
        assert_eq!(held.next(), Some(None), "it is being tried");
        // Ten are let in; another comes meanwhile, and one finds no room for other reasons.
        for number in 0..10 {
            let tried = crowd.pop_front().unwrap();
            assert_eq!(tried, pair(number));
            held.remove(&tried, &sent(1));
            held.tried(&tried, true, Refused::Other, now);
        }
        held.begin(&pair(1_000), &sent(1), PAUSES[0], Refused::TooFast, now);
        let full = crowd.pop_front().unwrap();
        held.tried(&full, false, Refused::Other, now);
        held.put_back_crowd(&name, crowd, now);
        let now = now + CROWD_PAUSE;
        let due = held.take_due(now);
        assert_eq!(due, [Due::One(full), Due::Crowd(name.clone())]);
        let crowd: Vec<Pair> = held.take_crowd(&name).into();
        assert_eq!(crowd, (11..=1_000).map(pair).collect::<Vec<_>>());
        for pair in &crowd {
            held.remove(pair, &sent(1));
            held.tried(pair, true, Refused::Other, now);
        }
        held.put_back_crowd(&name, VecDeque::new(), now);
        assert!(held.lock().crowds.is_empty());
    }
}

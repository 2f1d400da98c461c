//! Messages that wait for their receivers, and when each is tried again.
//!
//! Pure data; `mail` delivers.
//!
//! Invariants: the messages of one pair keep their order; each pair is due once, or in a crowd that
//! is, or is being tried.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_base::fair::Share;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::failure::code;
use tidegate_core::turn::Sent;
use tidegate_core::{ActorKey, Failure, Name};
use tokio::sync::Notify;

/// Time until a receiver that has no room is tried again: doubled from the first to the last.
pub(super) const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// When receivers that come into memory too fast are tried again, as many as may come by then.
const CROWD_PAUSE: Duration = Duration::from_millis(50);

/// How many that are due are handed to lanes at once.
const MANY_DUE: usize = 256;

/// A sender and a receiver.
pub(super) type Pair = (ActorKey, ActorKey);

/// The type of the senders and that of the receivers, so that a crowd is one component's work.
pub(super) type Crowd = (Name, Name);

fn crowd_of((from, to): &Pair) -> Crowd {
    (from.actor.clone(), to.actor.clone())
}

/// Messages whose receivers have no room, and when each is tried again.
///
/// A stranger's crowd may bring tens of thousands of pairs, so these have no tasks of their own:
/// one waits for all, and they are tried on lanes, as work of the sender's component. Where
/// receivers come into memory faster than they may, theirs wait in one line, of which no more is
/// tried than is let in.
#[derive(Default)]
pub(super) struct MailQueue {
    waiting: Mutex<Waiting>,
    /// Something is to be tried earlier than what was to come next.
    pub(super) earlier: Arc<Notify>,
    /// Whose work it is to deliver messages of senders whose type is not known any more.
    pub(super) nobodys: Arc<Share>,
}

#[derive(Default)]
struct Waiting {
    queues: HashMap<Pair, Queue>,
    /// When they are tried again. Each queue is here once, or in a crowd, or is being tried.
    due: BTreeMap<(Instant, u64), Due>,
    /// Those whose receivers come into memory too fast. Each crowd is due once, or is being tried.
    crowds: HashMap<Crowd, VecDeque<Pair>>,
    next_number: u64,
    /// Somebody waits for what is due.
    is_watched: bool,
}

/// What is to be tried again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    One(Pair),
    Crowd(Crowd),
}

/// What waits for one receiver, of one sender.
struct Queue {
    messages: VecDeque<Arc<Sent>>,
    /// For how long it has been waited before it is tried next.
    pause: Duration,
    /// Since when nobody has served the receiver.
    unserved_since: Option<Instant>,
}

/// What a message finds before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    /// Others of its pair wait, and it behind them.
    Own,
    /// Others wait whose receivers come into memory too fast, as would its own.
    Crowd,
}

/// Why a receiver does not take a message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not in memory, where others of its type come faster than they may.
    TooFast,
    /// No component serves its type.
    Unserved,
    Other,
}

impl Refused {
    pub(super) fn of(failure: &Failure) -> Refused {
        match &*failure.code {
            code::RATE_ACTORS => Refused::TooFast,
            code::ACTOR_UNKNOWN => Refused::Unserved,
            _ => Refused::Other,
        }
    }
}

impl Waiting {
    /// Has a pair be tried again after its pause, or, if it was refused for that, with the crowd.
    /// True if that is before anything else.
    fn set(&mut self, pair: &Pair, pause: Duration, why: Refused, now: Instant) -> bool {
        if why != Refused::TooFast {
            return self.set_due(Due::One(pair.clone()), now + pause);
        }
        let key = crowd_of(pair);
        if let Some(crowd) = self.crowds.get_mut(&key) {
            crowd.push_back(pair.clone());
            return false;
        }
        let crowd = VecDeque::from([pair.clone()]);
        self.crowds.insert(key.clone(), crowd);
        self.set_due(Due::Crowd(key), now + CROWD_PAUSE)
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

impl MailQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Has a message wait if others of its pair do, and says what else is before it.
    pub(super) fn join(&self, pair: &Pair, sent: &Arc<Sent>) -> Before {
        let mut waiting = self.lock();
        if let Some(queue) = waiting.queues.get_mut(pair) {
            insert(&mut queue.messages, sent);
            return Before::Own;
        }
        match !waiting.crowds.is_empty() && waiting.crowds.contains_key(&crowd_of(pair)) {
            true => Before::Crowd,
            false => Before::Nothing,
        }
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
            unserved_since: None,
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

    /// Takes out the first one that waits. Its queue stays, so that what comes meanwhile waits behind.
    pub(super) fn take_first(&self, pair: &Pair) -> Option<Arc<Sent>> {
        self.lock().queues.get_mut(pair)?.messages.pop_front()
    }

    /// Puts one back that was not taken.
    pub(super) fn give_back(&self, pair: &Pair, sent: &Arc<Sent>) {
        if let Some(queue) = self.lock().queues.get_mut(pair) {
            insert(&mut queue.messages, sent);
        }
    }

    /// For how long nobody has served the receiver, which is so now.
    pub(super) fn unserved_for(&self, pair: &Pair, now: Instant) -> Duration {
        let mut waiting = self.lock();
        let queue = waiting.queues.get_mut(pair);
        queue.map_or(Duration::ZERO, |queue| {
            now.saturating_duration_since(*queue.unserved_since.get_or_insert(now))
        })
    }

    /// Those of a crowd, which are to be tried in their order.
    pub(super) fn take_crowd(&self, key: &Crowd) -> VecDeque<Pair> {
        let mut waiting = self.lock();
        let crowd = waiting.crowds.get_mut(key);
        crowd.map(std::mem::take).unwrap_or_default()
    }

    /// As many of a crowd have been tried as were let in; these are left.
    pub(super) fn put_back_crowd(&self, key: Crowd, mut left: VecDeque<Pair>, now: Instant) {
        let mut waiting = self.lock();
        left.extend(waiting.crowds.remove(&key).into_iter().flatten());
        if left.is_empty() {
            return;
        }
        waiting.crowds.insert(key.clone(), left);
        if waiting.set_due(Due::Crowd(key), now + CROWD_PAUSE) {
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
                // A crowd's room is given back, and the watch ends.
                waiting.queues = HashMap::new();
                self.earlier.notify_one();
            }
            return;
        }
        queue.pause = match has_moved {
            true => PAUSES[0],
            false => (queue.pause * 2).min(PAUSES[1]),
        };
        if why != Refused::Unserved {
            queue.unserved_since = None;
        }
        let pause = queue.pause;
        if waiting.set(pair, pause, why, now) {
            self.earlier.notify_one();
        }
    }
}

/// Puts a message where its number says, unless it is there: the sender may have been loaded
/// again, and what a receiver that has gone gives back is earlier than what came meanwhile.
fn insert(queue: &mut VecDeque<Arc<Sent>>, sent: &Arc<Sent>) {
    // Mostly it is the last one.
    let mut place = queue.len();
    while place > 0 && queue[place - 1].seq > sent.seq {
        place -= 1;
    }
    let same = queue.range(..place).rev();
    let mut same = same.take_while(|other| other.seq == sent.seq);
    if !same.any(|other| other == sent) {
        queue.insert(place, sent.clone());
    }
}

#[cfg(test)]
mod tests {
    use tidegate_base::clock::instant;

    use super::super::mail::address;
    use super::*;

    fn key(id: &str) -> ActorKey {
        let to = Sent {
            id: id.into(),
            ..(*sent(0)).clone()
        };
        address(&to).unwrap()
    }

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
        let queue = MailQueue::default();
        let pair = (key("a"), key("b"));
        let now = instant();
        let begin = |seq| queue.begin(&pair, &sent(seq), PAUSES[0], Refused::Other, now);
        assert_eq!(queue.join(&pair, &sent(1)), Before::Nothing);
        assert!(begin(3), "nobody watches");
        assert_eq!(queue.join(&pair, &sent(2)), Before::Own);
        assert_eq!(queue.join(&pair, &sent(2)), Before::Own, "the same again");
        assert!(!begin(1), "somebody watches");
        let other = (key("a"), key("c"));
        assert_eq!(queue.join(&other, &sent(3)), Before::Nothing);
        let first = queue.take_first(&pair).unwrap();
        assert_eq!(
            queue.join(&pair, &sent(4)),
            Before::Own,
            "one is on its way"
        );
        queue.give_back(&pair, &first);
        let mut left = Vec::new();
        while let Some(first) = queue.take_first(&pair) {
            left.push(first.seq);
        }
        assert_eq!(left, [1, 2, 3, 4]);
        queue.tried(&pair, true, Refused::Other, now);
        assert_eq!(queue.join(&pair, &sent(5)), Before::Nothing);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn what_is_refused_is_tried_less_and_less_often() {
        let queue = MailQueue::default();
        let pairs = [(key("a"), key("b")), (key("a"), key("c"))];
        let began = instant();
        let mut now = began;
        assert!(queue.begin(&pairs[0], &sent(1), PAUSES[0], Refused::Other, now));
        assert!(!queue.begin(&pairs[1], &sent(2), PAUSES[1], Refused::Other, now));
        let mut tried = Vec::new();
        while now < began + 3 * PAUSES[1] {
            let next = queue
                .next()
                .expect("they wait")
                .expect("none is being tried");
            assert!(queue.take_due(next - Duration::from_nanos(1)).is_empty());
            now = next;
            for due in queue.take_due(now) {
                let Due::One(pair) = due else {
                    panic!("none came too fast");
                };
                tried.push(((now - began).as_millis(), pair.1.id.to_string()));
                queue.tried(&pair, false, Refused::Other, now);
            }
        }
        let of = |id: &str| -> Vec<u128> {
            let tried = tried.iter().filter(|(_, other)| other == id);
            tried.map(|(ms, _)| *ms).collect()
        };
        assert_eq!(of("b"), [5, 15, 35, 75, 155, 315, 635, 1275, 2275]);
        assert_eq!(of("c"), [1000, 2000, 3000]);
        // One that was taken has the others tried soon.
        queue.join(&pairs[0], &sent(9));
        queue.take_first(&pairs[0]);
        let due = queue.take_due(now + PAUSES[1]);
        queue.tried(&pairs[0], true, Refused::Other, now);
        assert_eq!(due.len(), 2);
        assert_eq!(queue.next(), Some(Some(now + PAUSES[0])));
    }

    #[test]
    fn how_long_nobody_serves_a_receiver_begins_when_that_is_so() {
        let queue = MailQueue::default();
        let (pair, began) = ((key("a"), key("b")), instant());
        queue.begin(&pair, &sent(1), PAUSES[0], Refused::Other, began);
        let minute = Duration::from_secs(60);
        let now = began + 2 * minute;
        assert_eq!(queue.unserved_for(&pair, now), Duration::ZERO);
        queue.tried(&pair, false, Refused::Unserved, now);
        assert_eq!(queue.unserved_for(&pair, now + minute), minute);
        queue.tried(&pair, false, Refused::Other, now + minute);
        assert_eq!(queue.unserved_for(&pair, now + 2 * minute), Duration::ZERO);
    }

    #[test]
    fn those_who_come_too_fast_wait_in_one_line() {
        let queue = MailQueue::default();
        let now = instant();
        let pair = |number: usize| -> Pair { (key("sender"), key(&number.to_string())) };
        for number in 0..1_000 {
            queue.begin(&pair(number), &sent(1), PAUSES[0], Refused::TooFast, now);
        }
        assert_eq!(queue.next(), Some(Some(now + CROWD_PAUSE)));
        let now = now + CROWD_PAUSE;
        let key = crowd_of(&pair(0));
        assert_eq!(queue.take_due(now), [Due::Crowd(key.clone())]);
        let mut crowd = queue.take_crowd(&key);
        assert_eq!(queue.join(&pair(2_000), &sent(1)), Before::Crowd);
        assert_eq!(crowd.len(), 1_000);
        assert_eq!(queue.next(), Some(None), "it is being tried");
        // Ten are let in; another comes meanwhile, and one finds no room for other reasons.
        for number in 0..10 {
            let tried = crowd.pop_front().unwrap();
            assert_eq!(tried, pair(number));
            queue.take_first(&tried);
            queue.tried(&tried, true, Refused::Other, now);
        }
        queue.begin(&pair(1_000), &sent(1), PAUSES[0], Refused::TooFast, now);
        let full = crowd.pop_front().unwrap();
        queue.tried(&full, false, Refused::Other, now);
        queue.put_back_crowd(key.clone(), crowd, now);
        let now = now + CROWD_PAUSE;
        let due = queue.take_due(now);
        assert_eq!(due, [Due::One(full), Due::Crowd(key.clone())]);
        let crowd: Vec<Pair> = queue.take_crowd(&key).into();
        assert_eq!(crowd, (11..=1_000).map(pair).collect::<Vec<_>>());
        for pair in &crowd {
            queue.take_first(pair);
            queue.tried(pair, true, Refused::Other, now);
        }
        queue.put_back_crowd(key, VecDeque::new(), now);
        assert!(queue.lock().crowds.is_empty());
    }
}

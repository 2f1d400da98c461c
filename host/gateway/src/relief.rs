//! Makes room when all receivers together are owed too much: those that are owed most are closed.
//!
//! A receiver that does not read holds what it is owed until its own limits end it. While there is
//! room that is its own affair; when there is none, it stands in the way of those who read.
//!
//! Invariant: nobody is closed who is owed little, unless those who are owed little are so many
//! that they leave no room themselves.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tidegate_base::budget::{Budget, Exhausted, FREE, Relief, Share};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_delivery::connections::Connection;
use tidegate_delivery::{Close, Outlet};
use tokio::sync::Notify;
use tracing::warn;

use super::Shared;
use super::sse::SseOutlet;

/// Who is owed no more than this, in bytes, is the last to be closed.
const LITTLE: usize = 64 << 10;

/// Time until it is looked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Somebody who is owed something.
pub(super) trait Receiver: Send + Sync {
    /// How much, in bytes.
    fn owed(&self) -> usize;
    /// Ends it, and what it is owed.
    fn cut(&self);
    /// What it is owed still will not be for long.
    fn is_ending(&self) -> bool;
}

impl Receiver for Connection {
    fn owed(&self) -> usize {
        self.outbound().queued().bytes
    }

    fn cut(&self) {
        self.close(Close::Slow);
    }

    fn is_ending(&self) -> bool {
        !self.outbound().is_open()
    }
}

impl Receiver for SseOutlet {
    fn owed(&self) -> usize {
        self.queued_bytes()
    }

    fn cut(&self) {
        self.close(Close::Slow);
    }

    fn is_ending(&self) -> bool {
        // One that is cut is owed nothing any more.
        false
    }
}

/// Ends an HTTP connection when it is told to.
#[derive(Clone, Default)]
pub(super) struct Cut(Arc<Notify>);

impl Cut {
    /// Completes when it is.
    pub(super) async fn told(&self) {
        self.0.notified().await;
    }
}

/// A response over HTTP that is being read.
struct Answer {
    bytes: usize,
    cut: Cut,
    was_cut: AtomicBool,
}

impl Receiver for Answer {
    fn owed(&self) -> usize {
        self.bytes
    }

    fn cut(&self) {
        self.was_cut.store(true, Ordering::Relaxed);
        self.cut.0.notify_one();
    }

    fn is_ending(&self) -> bool {
        self.was_cut.load(Ordering::Relaxed)
    }
}

/// The receivers that are no WebSockets.
#[derive(Clone, Default)]
pub(super) struct Receivers(Arc<Open>);

#[derive(Default)]
struct Open {
    next: AtomicU64,
    all: Mutex<HashMap<u64, Weak<dyn Receiver>>>,
    /// Held while some are closed, so that no two do so for the same want.
    relieving: Mutex<()>,
}

/// Keeps a receiver among those that are open.
pub(super) struct Listed {
    open: Arc<Open>,
    number: u64,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<dyn Receiver>>> {
        self.all.lock()
    }
}

impl Receivers {
    pub(super) fn list(&self, receiver: Weak<dyn Receiver>) -> Listed {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.lock().insert(number, receiver);
        Listed {
            open: self.0.clone(),
            number,
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.open.lock().remove(&self.number);
    }
}

/// Text of a response, and what it has taken until it is written.
struct Owed<T> {
    text: T,
    _share: Share,
    _listed: Listed,
    _answer: Arc<Answer>,
}

impl<T: AsRef<str>> AsRef<[u8]> for Owed<T> {
    fn as_ref(&self) -> &[u8] {
        self.text.as_ref().as_bytes()
    }
}

impl Shared {
    /// What a client over HTTP is owed and may take its time to read.
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn owed<T>(&self, text: T, cut: &Cut) -> Result<Bytes, Exhausted>
    where
        T: AsRef<str> + Send + 'static,
    {
        let bytes = text.as_ref().len();
        if bytes <= FREE {
            return Ok(Bytes::copy_from_slice(text.as_ref().as_bytes()));
        }
        let budget = &self.budgets.outbound;
        let share = budget.relieved(|| budget.share(bytes))?;
        let cut = cut.clone();
        let answer = Arc::new(Answer {
            bytes,
            cut,
            was_cut: AtomicBool::new(false),
        });
        let receiver: Arc<dyn Receiver> = answer.clone();
        Ok(Bytes::from_owner(Owed {
            text,
            _share: share,
            _listed: self.receivers.list(Arc::downgrade(&receiver)),
            _answer: answer,
        }))
    }
}

/// Sees to it that there is room, until it is dropped.
pub(super) async fn relieve(shared: Weak<Shared>) {
    let budget = shared
        .upgrade()
        .map(|shared| shared.budgets.outbound.clone());
    let Some(budget) = budget else {
        return;
    };
    let relief: Weak<dyn Relief> = shared.clone();
    budget.relieved_by(relief);
    loop {
        budget.pressed().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        if budget.is_pressed() {
            shared.make_room();
        }
        drop(shared);
        tokio::time::sleep(PAUSE).await;
    }
}

impl Relief for Shared {
    fn make_room(&self) {
        let _one_at_a_time = self.receivers.0.relieving.lock();
        let connections = self.connections.all().into_iter();
        let connections = connections.map(|connection| connection as Arc<dyn Receiver>);
        let others: Vec<Arc<dyn Receiver>> = {
            let open = self.receivers.0.lock();
            open.values().filter_map(Weak::upgrade).collect()
        };
        let all = connections.chain(others);
        let closed = close_fullest(&self.budgets.outbound, all);
        if closed > 0 {
            warn!(
                connections = closed,
                "the host's memory for what clients are owed became scarce: those that were owed \
                 most are closed"
            );
        }
    }
}

/// Closes those that are owed most, until no more than half of what there is room for is taken.
/// Those that are owed little have their turn only where the others do not suffice to let anybody
/// in again. Returns how many were closed.
fn close_fullest(budget: &Budget, all: impl Iterator<Item = Arc<dyn Receiver>>) -> usize {
    let (mut owed, mut ending) = (Vec::new(), 0_usize);
    for receiver in all {
        match (receiver.owed(), receiver.is_ending()) {
            (0, _) => {}
            (bytes, true) => ending = ending.saturating_add(bytes),
            (bytes, false) => owed.push((bytes, receiver)),
        }
    }
    owed.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
    let much = owed.partition_point(|(bytes, _)| *bytes > LITTLE);
    let mut left = budget.used();
    let mut closed = 0;
    for (place, (bytes, receiver)) in owed.into_iter().enumerate() {
        let is_enough = left <= budget.limit() / 2;
        // What is about to be given back need not be asked of those who are owed little.
        if is_enough || place == much && left.saturating_sub(ending) <= budget.reserved_from() {
            break;
        }
        receiver.cut();
        closed += 1;
        // What a response was owed is given back only when its task has seen to it.
        left = budget.used().min(left.saturating_sub(bytes));
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that is owed what it has taken, until it is cut.
    struct Owing(Mutex<Share>);

    impl Receiver for Owing {
        fn owed(&self) -> usize {
            self.0.lock().taken()
        }

        fn cut(&self) {
            self.0.lock().set(0).unwrap();
        }

        fn is_ending(&self) -> bool {
            false
        }
    }

    fn owing(budget: &Arc<Budget>, count: usize, bytes: usize) -> Vec<Arc<dyn Receiver>> {
        let shares = (0..count).map(|_| budget.share(bytes).expect("room"));
        let owing = shares.map(|share| Arc::new(Owing(Mutex::new(share))) as Arc<dyn Receiver>);
        owing.collect()
    }

    fn still_owed(receivers: &[Arc<dyn Receiver>]) -> usize {
        let owed = receivers.iter().filter(|receiver| receiver.owed() > 0);
        owed.count()
    }

    #[test]
    fn many_who_are_owed_little_make_room_when_they_leave_none() {
        let budget = Budget::new("test", 1 << 20);
        let all = owing(&budget, 16, LITTLE);
        assert!(budget.share(1).is_err());
        assert_eq!(close_fullest(&budget, all.iter().cloned()), 8);
        assert_eq!(still_owed(&all), 8);
        assert_eq!(budget.used(), budget.limit() / 2);
    }

    #[test]
    fn who_is_owed_little_is_left_alone_while_others_are_owed_much() {
        let budget = Budget::new("test", 1 << 20);
        let much = owing(&budget, 3, 2 * LITTLE);
        let little = owing(&budget, 10, LITTLE);
        let all = much.iter().chain(&little).cloned();
        assert_eq!(close_fullest(&budget, all), 3);
        assert_eq!((still_owed(&much), still_owed(&little)), (0, 10));
        assert!(!budget.is_pressed());
    }
}

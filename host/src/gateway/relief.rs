//! Makes room when all receivers together are owed too much: those that are owed most are closed.
//!
//! A receiver that does not read holds what it is owed until its own limits end it. While there is
//! room that is its own affair; when there is none, it stands in the way of those who read.
//!
//! Invariant: nobody is closed who is owed little.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::warn;

use super::Doors;
use super::sse::SseOutlet;
use crate::budget::{Exhausted, FREE, Share};
use crate::fanout::{Close, Outlet};
use crate::rooms::Connection;

/// Who is owed no more than this, in bytes, is left alone.
const LITTLE: usize = 64 << 10;

/// Time until it is looked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Somebody who is owed something.
pub(super) trait Receiver: Send + Sync {
    /// How much, in bytes.
    fn owed(&self) -> usize;
    /// Ends it, and what it is owed.
    fn cut(&self);
}

impl Receiver for Connection {
    fn owed(&self) -> usize {
        self.outbound().queued().bytes
    }

    fn cut(&self) {
        self.close(Close::Slow);
    }
}

impl Receiver for SseOutlet {
    fn owed(&self) -> usize {
        self.queued_bytes()
    }

    fn cut(&self) {
        self.close(Close::Slow);
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
}

impl Receiver for Answer {
    fn owed(&self) -> usize {
        self.bytes
    }

    fn cut(&self) {
        self.cut.0.notify_one();
    }
}

/// The receivers that are no WebSockets.
#[derive(Clone, Default)]
pub(super) struct Receivers(Arc<Open>);

#[derive(Default)]
struct Open {
    next: AtomicU64,
    all: Mutex<HashMap<u64, Weak<dyn Receiver>>>,
}

/// Keeps a receiver among those that are open.
pub(super) struct Listed {
    open: Arc<Open>,
    number: u64,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Weak<dyn Receiver>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Doors {
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
        let share = self.metrics.budgets.outbound.share(bytes)?;
        let cut = cut.clone();
        let answer = Arc::new(Answer { bytes, cut });
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
pub(super) async fn relieve(doors: Weak<Doors>) {
    let budget = doors
        .upgrade()
        .map(|doors| doors.metrics.budgets.outbound.clone());
    let Some(budget) = budget else {
        return;
    };
    loop {
        budget.pressed().await;
        let Some(doors) = doors.upgrade() else {
            return;
        };
        if budget.is_pressed() {
            close_fullest(&doors);
        }
        drop(doors);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Closes those that are owed most, until no more than half of what there is room for is taken.
fn close_fullest(doors: &Doors) {
    let budget = &doors.metrics.budgets.outbound;
    let connections = doors.connections.all().into_iter();
    let connections = connections.map(|connection| connection as Arc<dyn Receiver>);
    let others: Vec<Arc<dyn Receiver>> = {
        let open = doors.receivers.0.lock();
        open.values().filter_map(Weak::upgrade).collect()
    };
    let all = connections.chain(others);
    let mut owed: Vec<_> = all
        .map(|receiver| (receiver.owed(), receiver))
        .filter(|(bytes, _)| *bytes > LITTLE)
        .collect();
    owed.sort_by_key(|(bytes, _)| Reverse(*bytes));
    let mut left = budget.used();
    let mut closed = 0;
    for (bytes, receiver) in owed {
        // What a response was owed is given back only when its task has seen to it.
        left = budget.used().min(left.saturating_sub(bytes));
        receiver.cut();
        closed += 1;
        if left <= budget.limit() / 2 {
            break;
        }
    }
    if closed > 0 {
        warn!(
            connections = closed,
            "the host's memory for what clients are owed became scarce: those that were owed most \
             are closed"
        );
    }
}

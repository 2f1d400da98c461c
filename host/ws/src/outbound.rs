//! What one connection is owed: a bounded queue in front of its socket.
//!
//! Fan-out, release and the gateway push into an [`Outbound`] from any task; the connection's own
//! task ([`Socket::run`](super::Socket::run)) writes what could not be written at once.
//!
//! Invariants:
//!
//! - A push never waits: it writes what the socket has room for and queues the rest, or is refused.
//! - Bytes are written by whoever holds the write half, and the half is taken out of the state while
//!   it is written to. So frames never interleave, and no lock is held during a system call.
//! - A queue that is not empty always has somebody who will write it: the holder of the half, the
//!   holder of a [`Cork`], or the connection's task, which was woken or waits for room.

mod queue;

use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use thiserror::Error;
use tidegate_base::budget::{Budget, Budgets, Exhausted};
use tidegate_base::sync::{Mutex, MutexGuard};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use self::queue::{Batch, Phase, State};
use super::{Close, CloseCode, Frame, Settings};

/// How many writes a pusher makes for what others pushed meanwhile, before the connection's task
/// takes over.
const MAX_ROUNDS: usize = 8;

/// How many pongs wait at most; RFC 6455 section 5.5.3 lets older ones go unanswered.
const MAX_CONTROL: usize = 64;

/// How much one connection may be owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboundLimits {
    /// Bytes queued, frame headers included, at or above which a frame is refused. A frame that
    /// starts below it is taken whole, so one of any size fits an empty queue. Default 4 MiB.
    pub max_bytes: usize,
    /// Frames queued at or above which a frame is refused. Default 16 384.
    pub max_frames: usize,
}

impl Default for OutboundLimits {
    fn default() -> Self {
        Self {
            max_bytes: 4 << 20,
            max_frames: 16_384,
        }
    }
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The queue is at a limit: the client reads too slowly. [`Outbound::drained`] tells when
    /// there is room again.
    #[error("the connection's outbound queue is full")]
    Full,
    /// All queues together are too long, which need not be this client's fault.
    #[error(transparent)]
    NoRoom(Exhausted),
    /// The connection is closing or gone; nothing will ever be taken again.
    #[error("the connection is closed")]
    Closed,
}

/// What waits in an [`Outbound`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Frames that are not wholly handed to the socket.
    pub frames: usize,
    /// Bytes that are not handed to the socket.
    pub bytes: usize,
}

/// What went through an [`Outbound`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames wholly handed to the socket.
    pub frames: u64,
    /// Bytes handed to the socket.
    pub bytes: u64,
    /// Writes that took something; `frames / writes` is what coalescing saves.
    pub writes: u64,
    /// Pushes refused because the queue was full.
    pub refused: u64,
}

/// The sending side of one connection, shared by everyone who has something to say to it.
#[derive(Debug)]
pub struct Outbound {
    settings: Arc<Settings>,
    state: Mutex<State>,
    drained: Notify,
}

impl Outbound {
    pub(super) fn new(half: OwnedWriteHalf, settings: Arc<Settings>) -> Self {
        Self {
            settings,
            state: Mutex::new(State::new(Some(half))),
            drained: Notify::new(),
        }
    }

    /// Sends a frame: at once if nothing is queued and the socket has room, else in its turn.
    ///
    /// Success means that the frame was taken, not that it was received.
    ///
    /// # Errors
    /// [`Refused::Full`] if the queue is at a limit, [`Refused::NoRoom`] if all queues together
    /// are, [`Refused::Closed`] after [`Outbound::close`] or the end of the connection. No part of
    /// the frame is then sent.
    pub fn push(&self, frame: Frame) -> Result<(), Refused> {
        let mut state = self.admit()?;
        let is_shared = frame.is_shared();
        let frame = frame.into_bytes();
        if state.count(&frame, is_shared, self.budget()).is_err() {
            // What only a cork holds back may be all that is in the way.
            state = self.relax(state);
            if state.phase != Phase::Open {
                return Err(Refused::Closed);
            }
            if let Err(exhausted) = state.count(&frame, is_shared, self.budget()) {
                state.starve(self.settings.outbound);
                return Err(Refused::NoRoom(exhausted));
            }
        }
        if state.may_write() && state.is_empty() {
            self.write_out(state, Some(frame));
        } else {
            state.frames.push_back(frame);
            self.write_if_free(state);
        }
        Ok(())
    }

    /// Holds back what anyone pushes until the cork is dropped, and then writes it together.
    ///
    /// For one synchronous stretch that may push several times; should that fill the queue, it is
    /// written before anything is refused. A [`Cork`] is not `Send`, so that a
    /// spawned task cannot hold one across an await.
    pub fn cork(self: &Arc<Self>) -> Cork {
        self.begin_cork();
        Cork {
            outbound: Arc::clone(self),
            not_send: PhantomData,
        }
    }

    /// Closes the connection: what is queued goes out, then the close frame, then the socket ends,
    /// all within [`Settings::close_timeout`](super::Settings::close_timeout).
    ///
    /// Only the first call counts.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) {
        self.end(Some(&Close::new(code, reason)), Unsent::Sent);
    }

    /// Closes the connection like [`Outbound::close`], but drops what is queued, so that a client
    /// that reads too slowly may still learn the reason in time.
    pub fn close_discarding(&self, code: CloseCode, reason: impl Into<String>) {
        self.end(Some(&Close::new(code, reason)), Unsent::Dropped);
    }

    /// Whether frames are still taken; once false, it stays so.
    pub fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    /// What waits to be written now.
    pub fn queued(&self) -> Queued {
        self.lock().queued
    }

    /// What has been written so far.
    pub fn counters(&self) -> Counters {
        self.lock().counters
    }

    /// Resolves once the queue has fallen to a quarter of its limits after a [`Refused::Full`], or
    /// the connection is closed; at once if nothing was refused since.
    pub async fn drained(&self) {
        self.until(|state| !state.overflowed).await;
    }

    /// Resolves once no more than `bytes` are queued, or the connection is closed.
    pub async fn fallen_to(&self, bytes: usize) {
        let has_fallen = |state: &mut State| {
            let has_fallen = state.queued.bytes <= bytes;
            state.is_awaited |= !has_fallen;
            has_fallen
        };
        self.until(has_fallen).await;
    }

    /// Resolves once this is so of the queue, or the connection is closed. It is asked whenever
    /// the queue has been drained, or has become shorter while `is_awaited` says so.
    async fn until(&self, is_so: impl Fn(&mut State) -> bool) {
        loop {
            let notified = self.drained.notified();
            tokio::pin!(notified);
            // Registered before the check, so that a drain between the two is not missed.
            notified.as_mut().enable();
            {
                let mut state = self.lock();
                if state.phase != Phase::Open || is_so(&mut state) {
                    return;
                }
            }
            notified.await;
        }
    }

    /// What its queue is taken from.
    fn budget(&self) -> &Arc<Budget> {
        &self.settings.budgets.outbound
    }

    /// What all connections together may hold.
    pub fn budgets(&self) -> &Budgets {
        &self.settings.budgets
    }

    /// The settings of the connection.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic half-way through a change runs under the lock.
        self.state.lock()
    }

    /// The state, if there is room for another frame.
    fn admit(&self) -> Result<MutexGuard<'_, State>, Refused> {
        let mut state = self.lock();
        if state.is_full(self.settings.outbound) {
            state = self.relax(state);
        }
        if state.phase != Phase::Open {
            return Err(Refused::Closed);
        }
        if state.is_full(self.settings.outbound) {
            return Err(state.overflow());
        }
        Ok(state)
    }

    /// Writes what only a cork holds back.
    fn relax<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.corks == 0 || state.blocked {
            return state;
        }
        self.write_out(state, None);
        self.lock()
    }

    fn write_if_free(&self, state: MutexGuard<'_, State>) {
        if state.may_write() {
            self.write_out(state, None);
        }
    }

    /// Writes `first` and then the queue, until nothing is left or the socket is full.
    ///
    /// Corks are the caller's business, and so is that `first`, which is counted but not queued,
    /// comes only with an empty queue.
    fn write_out<'a>(&'a self, mut state: MutexGuard<'a, State>, first: Option<Bytes>) {
        let Some(half) = state.half.take() else {
            return;
        };
        let mut batch = Batch::of(first);
        let mut relieved = false;
        for _ in 0..MAX_ROUNDS {
            batch.fill(&mut state);
            if batch.is_empty() {
                break;
            }
            drop(state);
            let result = batch.write(&half);
            state = self.lock();
            state.settle(&mut batch, result);
            relieved |= state.relieve(self.settings.outbound);
            relieved |= std::mem::take(&mut state.is_awaited);
            if state.blocked || matches!(state.phase, Phase::Broken | Phase::Over) {
                break;
            }
        }
        state.uncount(self.budget());
        let unwanted = match state.phase {
            Phase::Open | Phase::Closing => state.half.replace(half),
            Phase::Broken | Phase::Over => Some(half),
        };
        // The task waits for room, takes over what is left, or goes on with the closing.
        let task = if !state.is_empty() || state.phase != Phase::Open {
            state.task.take()
        } else {
            None
        };
        let broken = state.phase == Phase::Broken;
        drop(state);
        drop(unwanted);
        if relieved || broken {
            self.drained.notify_waiters();
        }
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// What becomes of queued frames when the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    Sent,
    Dropped,
}

/// For those who see to it that every cork ends.
impl Outbound {
    /// Holds back all writing until as many [`Outbound::end_cork`].
    pub fn begin_cork(&self) {
        self.lock().corks += 1;
    }

    /// Ends one [`Outbound::begin_cork`] and writes what has gathered.
    pub fn end_cork(&self) {
        let mut state = self.lock();
        state.corks -= 1;
        if !state.is_empty() {
            self.write_if_free(state);
        }
    }
}

/// The side of the connection's own task, which alone may call these.
impl Outbound {
    /// Sends a ping or a pong ahead of all data.
    pub(super) fn push_control(&self, frame: Frame) {
        let mut state = self.lock();
        if state.control.len() >= MAX_CONTROL {
            state = self.relax(state);
        }
        if state.phase != Phase::Open {
            return;
        }
        if state.control.len() >= MAX_CONTROL
            && let Some(oldest) = state.control.pop_front()
        {
            state.queued.subtract(&oldest);
        }
        let frame = frame.into_bytes();
        state.queued.add(&frame);
        state.control.push_back(frame);
        self.write_if_free(state);
    }

    /// Queues the close frame, after which nothing is taken any more. Only the first call counts.
    pub(super) fn end(&self, close: Option<&Close>, unsent: Unsent) {
        let mut state = self.lock();
        if state.phase != Phase::Open {
            return;
        }
        state.phase = Phase::Closing;
        if unsent == Unsent::Dropped {
            state.discard();
            state.uncount(self.budget());
        }
        state.overflowed = false;
        let frame = Frame::close(close).into_bytes();
        state.queued.add(&frame);
        state.frames.push_back(frame);
        let task = state.task.take();
        self.write_if_free(state);
        self.drained.notify_waiters();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Writes what is queued as the socket finds room. Resolves when the connection has been
    /// closing for [`Settings::close_timeout`]; whatever is not done by then is not worth waiting for.
    pub(super) async fn drive(&self) {
        poll_fn(|cx| match self.pump(cx) {
            Phase::Open => Poll::Pending,
            Phase::Closing | Phase::Broken | Phase::Over => Poll::Ready(()),
        })
        .await;
        let pump = poll_fn(|cx| {
            self.pump(cx);
            Poll::<()>::Pending
        });
        // The time-out is the only way out of a future that never resolves. Boxed, because an
        // open connection need not have the room for it.
        let _elapsed = Box::pin(timeout(self.settings.close_timeout, pump)).await;
    }

    /// Writes what can be written now, and has the task woken when there is more to do.
    fn pump(&self, cx: &mut Context<'_>) -> Phase {
        let mut written = false;
        loop {
            let mut state = self.lock();
            if state.blocked
                && let Some(half) = &state.half
                && half.as_ref().poll_write_ready(cx).is_ready()
            {
                // An error of the socket shows in the write that follows.
                state.blocked = false;
            }
            if !state.may_write() || state.is_empty() {
                state.register(cx);
                return state.phase;
            }
            if written {
                // Others push as fast as the socket takes it: let the worker's other tasks run.
                cx.waker().wake_by_ref();
                return state.phase;
            }
            self.write_out(state, None);
            written = true;
        }
    }

    /// Resolves when [`Outbound::close`] was called.
    pub(super) async fn closing(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.phase == Phase::Closing {
                return Poll::Ready(());
            }
            state.register(cx);
            Poll::Pending
        })
        .await;
    }

    /// Resolves when the close frame has been written, or never will be.
    pub(super) async fn flushed(&self) {
        poll_fn(|cx| {
            let mut state = self.lock();
            let done = match state.phase {
                Phase::Open => false,
                Phase::Closing => state.is_empty() && state.half.is_some(),
                Phase::Broken | Phase::Over => true,
            };
            if done {
                return Poll::Ready(());
            }
            state.register(cx);
            Poll::Pending
        })
        .await;
    }

    /// Whether [`Outbound::close`] was called.
    pub(super) fn is_closing(&self) -> bool {
        self.lock().phase == Phase::Closing
    }

    /// What a write failed with, if one did.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.lock().failure.take()
    }

    /// When the peer last gave a sign of life by making room for what it is owed.
    pub(super) fn progress(&self) -> Option<Instant> {
        self.lock().progress
    }

    /// Sends the FIN; all is written.
    pub(super) fn finish(&self) {
        let half = self.lock().half.take();
        drop(half);
    }

    /// Gives up the socket and the queue, for good.
    pub(super) fn release(&self) {
        let mut state = self.lock();
        state.phase = Phase::Over;
        state.abandon();
        state.uncount(self.budget());
        state.task = None;
        // Held by a writer, it is dropped as soon as that one is back.
        let half = state.half.take();
        drop(state);
        drop(half);
        self.drained.notify_waiters();
    }
}

/// While it lives, pushes to its connection only queue; see [`Outbound::cork`].
#[derive(Debug)]
pub struct Cork {
    outbound: Arc<Outbound>,
    not_send: PhantomData<*const ()>,
}

impl Drop for Cork {
    fn drop(&mut self) {
        self.outbound.end_cork();
    }
}

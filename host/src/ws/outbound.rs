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

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use thiserror::Error;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{Close, CloseCode, Frame};

/// How many frames one write takes along.
const MAX_SLICES: usize = 64;

/// How many writes a pusher makes for what others pushed meanwhile, before the connection's task
/// takes over.
const MAX_ROUNDS: usize = 8;

/// How many pongs wait at most; RFC 6455 section 5.5.3 lets older ones go unanswered.
const MAX_CONTROL: usize = 64;

/// The room for frames that an idle connection may keep; a larger queue is given back once empty.
const KEPT_CAPACITY: usize = 8;

/// The low-water mark is this fraction of the limits.
const LOW_WATER: usize = 4;

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
    /// The queue is at a limit: the client reads too slowly. [`Outbound::drained`] tells when there
    /// is room again.
    #[error("the connection's outbound queue is full")]
    Full,
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
    limits: OutboundLimits,
    state: Mutex<State>,
    drained: Notify,
}

#[derive(Debug)]
struct State {
    /// Absent while somebody writes, and once all is written for good. Dropping it sends the FIN.
    half: Option<OwnedWriteHalf>,
    phase: Phase,
    /// The rest of a frame whose beginning is on the wire.
    partial: Option<Bytes>,
    /// Pings and pongs, which go before all whole frames.
    control: VecDeque<Bytes>,
    frames: VecDeque<Bytes>,
    /// What is in the three fields above and in the hands of a writer.
    queued: Queued,
    /// The socket had no room; the connection's task waits for some.
    blocked: bool,
    /// The socket has been full since the queue was last empty, so that what it takes now, the peer
    /// must have made room for.
    congested: bool,
    /// When a congested socket last took bytes.
    progress: Option<Instant>,
    /// How many hold back the writing.
    corks: usize,
    /// A frame was refused and the queue has not fallen to the low-water mark since.
    overflowed: bool,
    /// The connection's task.
    task: Option<Waker>,
    /// What a write failed with.
    failure: Option<io::Error>,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The close frame is queued or written.
    Closing,
    /// A write failed: nothing reaches the peer any more, though it may still be heard.
    Broken,
    Over,
}

impl Outbound {
    pub(super) fn new(half: OwnedWriteHalf, limits: OutboundLimits) -> Self {
        Self {
            limits,
            state: Mutex::new(State::new(Some(half))),
            drained: Notify::new(),
        }
    }

    /// Sends a frame: at once if nothing is queued and the socket has room, else in its turn.
    ///
    /// Success means that the frame was taken, not that it was received.
    ///
    /// # Errors
    /// [`Refused::Full`] if the queue is at a limit, [`Refused::Closed`] after [`Outbound::close`]
    /// or the end of the connection. No part of the frame is then sent.
    pub fn push(&self, frame: Frame) -> Result<(), Refused> {
        let mut state = self.admit()?;
        let frame = frame.into_bytes();
        state.queued.add(&frame);
        if state.may_write() && state.is_empty() {
            self.write_out(state, Some(frame));
        } else {
            state.frames.push_back(frame);
            self.write_if_free(state);
        }
        Ok(())
    }

    /// Sends frames that belong together: all or none, and in one write if the socket has room.
    ///
    /// # Errors
    /// As of [`Outbound::push`]; the limits are checked once, before the first frame.
    pub fn push_batch(&self, frames: impl IntoIterator<Item = Frame>) -> Result<(), Refused> {
        // Collected first: the caller's iterator must not run under the lock.
        let frames: VecDeque<Bytes> = frames.into_iter().map(Frame::into_bytes).collect();
        let mut state = self.admit()?;
        for frame in &frames {
            state.queued.add(frame);
        }
        if state.frames.is_empty() {
            state.frames = frames;
        } else {
            state.frames.extend(frames);
        }
        self.write_if_free(state);
        Ok(())
    }

    /// Holds back what anyone pushes until the cork is dropped, and then writes it together.
    ///
    /// For one synchronous stretch that may push several times; should that fill the queue, it is
    /// written before anything is refused. A [`Cork`] is not `Send`, so that a
    /// spawned task cannot hold one across an await.
    pub fn cork(self: &Arc<Self>) -> Cork {
        self.hold();
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
        let notified = self.drained.notified();
        tokio::pin!(notified);
        // Registered before the check, so that a drain between the two is not missed.
        notified.as_mut().enable();
        if self.lock().overflowed {
            notified.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic half-way through a change runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if there is room for another frame.
    fn admit(&self) -> Result<MutexGuard<'_, State>, Refused> {
        let mut state = self.lock();
        if state.is_full(self.limits) {
            state = self.relax(state);
        }
        if state.phase != Phase::Open {
            return Err(Refused::Closed);
        }
        if state.is_full(self.limits) {
            state.overflowed = true;
            state.counters.refused += 1;
            return Err(Refused::Full);
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
            relieved |= state.relieve(self.limits);
            if state.blocked || matches!(state.phase, Phase::Broken | Phase::Over) {
                break;
            }
        }
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

/// The side of the connection's own task, which alone may call these.
impl Outbound {
    /// Holds back all writing until as many [`Outbound::unhold`].
    pub(super) fn hold(&self) {
        self.lock().corks += 1;
    }

    /// Ends one [`Outbound::hold`] and writes what has gathered.
    pub(super) fn unhold(&self) {
        let mut state = self.lock();
        state.corks -= 1;
        if !state.is_empty() {
            self.write_if_free(state);
        }
    }

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
    /// closing for `close_timeout`; whatever is not done by then is not worth waiting for.
    pub(super) async fn drive(&self, close_timeout: Duration) {
        poll_fn(|cx| match self.pump(cx) {
            Phase::Open => Poll::Pending,
            Phase::Closing | Phase::Broken | Phase::Over => Poll::Ready(()),
        })
        .await;
        let pump = poll_fn(|cx| {
            self.pump(cx);
            Poll::<()>::Pending
        });
        // The time-out is the only way out of a future that never resolves.
        let _elapsed = timeout(close_timeout, pump).await;
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
        state.task = None;
        // Held by a writer, it is dropped as soon as that one is back.
        let half = state.half.take();
        drop(state);
        drop(half);
        self.drained.notify_waiters();
    }
}

impl State {
    fn new(half: Option<OwnedWriteHalf>) -> Self {
        Self {
            half,
            phase: Phase::Open,
            partial: None,
            control: VecDeque::new(),
            frames: VecDeque::new(),
            queued: Queued::default(),
            blocked: false,
            congested: false,
            progress: None,
            corks: 0,
            overflowed: false,
            task: None,
            failure: None,
            counters: Counters::default(),
        }
    }

    /// Whether a limit is reached; an empty queue is never full.
    fn is_full(&self, limits: OutboundLimits) -> bool {
        let Queued { frames, bytes } = self.queued;
        frames > 0 && (bytes >= limits.max_bytes || frames >= limits.max_frames)
    }

    fn may_write(&self) -> bool {
        self.half.is_some() && !self.blocked && self.corks == 0
    }

    fn is_empty(&self) -> bool {
        self.partial.is_none() && self.control.is_empty() && self.frames.is_empty()
    }

    /// Drops all frames of which nothing is on the wire.
    fn discard(&mut self) {
        for frame in self.control.drain(..).chain(self.frames.drain(..)) {
            self.queued.subtract(&frame);
        }
        self.control = VecDeque::new();
        self.frames = VecDeque::new();
    }

    /// Drops everything, because nothing will be written any more.
    fn abandon(&mut self) {
        self.discard();
        if let Some(torn) = self.partial.take() {
            self.queued.subtract(&torn);
        }
        self.overflowed = false;
    }

    /// Counts off what a write took of `batch` and puts the rest back to the front of the queue.
    fn settle(&mut self, batch: &mut Batch, result: io::Result<usize>) {
        let taken = match result {
            Ok(taken) if taken > 0 => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                self.congested = true;
                0
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            failed => {
                self.failure = failed.err();
                if self.phase != Phase::Over {
                    self.phase = Phase::Broken;
                }
                0
            }
        };
        if taken > 0 {
            self.counters.writes += 1;
            self.counters.bytes += taken as u64;
            self.queued.bytes -= taken;
            if self.congested {
                self.progress = Some(Instant::now());
            }
        }
        self.take_back(batch, taken);
        if matches!(self.phase, Phase::Broken | Phase::Over) {
            self.abandon();
        }
        if self.is_empty() {
            self.congested = false;
            // What a burst made room for is not kept by a connection at rest.
            if self.frames.capacity() > KEPT_CAPACITY {
                self.frames = VecDeque::new();
            }
            if self.control.capacity() > KEPT_CAPACITY {
                self.control = VecDeque::new();
            }
        }
    }

    /// Drops the frames that `taken` bytes cover, and puts the others back where they came from.
    fn take_back(&mut self, batch: &mut Batch, taken: usize) {
        let mut sent = 0;
        let mut rest = taken;
        for frame in batch.frames() {
            if rest < frame.len() {
                break;
            }
            rest -= frame.len();
            sent += 1;
        }
        self.counters.frames += sent as u64;
        self.queued.frames -= sent;
        // From the back, so that what is put to the front comes to stand in order.
        while batch.len() > sent
            && let Some(mut frame) = batch.pop()
        {
            let position = batch.len();
            let torn = position == 0 && batch.torn;
            if position == sent && (rest > 0 || torn) {
                frame.advance(rest);
                self.partial = Some(frame);
            } else if position < batch.control_end {
                self.control.push_front(frame);
            } else {
                self.frames.push_front(frame);
            }
        }
        *batch = Batch::of(None);
    }

    /// Whether the queue has just fallen to the low-water mark after a refusal.
    fn relieve(&mut self, limits: OutboundLimits) -> bool {
        let relieved = self.overflowed
            && self.queued.bytes <= limits.max_bytes / LOW_WATER
            && self.queued.frames <= limits.max_frames / LOW_WATER;
        if relieved {
            self.overflowed = false;
        }
        relieved
    }

    fn register(&mut self, cx: &Context<'_>) {
        match &self.task {
            Some(task) if task.will_wake(cx.waker()) => {}
            _ => self.task = Some(cx.waker().clone()),
        }
    }
}

impl Queued {
    fn add(&mut self, frame: &Bytes) {
        self.frames += 1;
        self.bytes += frame.len();
    }

    fn subtract(&mut self, frame: &Bytes) {
        self.frames -= 1;
        self.bytes -= frame.len();
    }
}

/// Frames on their way from the queue to the socket: a torn one, then control frames up to
/// `control_end`, then data.
///
/// The first has its own place, because most writes carry one frame and should not allocate.
struct Batch {
    first: Option<Bytes>,
    others: Vec<Bytes>,
    torn: bool,
    control_end: usize,
}

impl Batch {
    fn of(first: Option<Bytes>) -> Self {
        Self {
            first,
            others: Vec::new(),
            torn: false,
            control_end: 0,
        }
    }

    /// Takes what is next in the queue, if there is nothing yet.
    fn fill(&mut self, state: &mut State) {
        if !self.is_empty() {
            return;
        }
        if let Some(partial) = state.partial.take() {
            self.torn = true;
            self.push(partial);
        }
        let free = MAX_SLICES - self.len();
        let control = free.min(state.control.len());
        let frames = (free - control).min(state.frames.len());
        self.others
            .reserve_exact((self.len() + control + frames).saturating_sub(1));
        for frame in state.control.drain(..control) {
            self.push(frame);
        }
        self.control_end = self.len();
        for frame in state.frames.drain(..frames) {
            self.push(frame);
        }
    }

    fn write(&self, half: &OwnedWriteHalf) -> io::Result<usize> {
        if self.others.is_empty() {
            return self
                .first
                .as_ref()
                .map_or(Ok(0), |only| half.try_write(only));
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        for (slice, frame) in slices.iter_mut().zip(self.frames()) {
            *slice = IoSlice::new(frame);
        }
        half.try_write_vectored(&slices[..self.len()])
    }

    fn frames(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.others)
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    fn push(&mut self, frame: Bytes) {
        match &self.first {
            None => self.first = Some(frame),
            Some(_) => self.others.push(frame),
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.others.pop().or_else(|| self.first.take())
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
        self.outbound.unhold();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue of two pongs and three frames, each of three bytes.
    fn queue() -> State {
        let mut state = State::new(None);
        for text in ["a", "b", "c"] {
            let frame = Frame::text(text).into_bytes();
            state.queued.add(&frame);
            state.frames.push_back(frame);
        }
        for payload in ["1", "2"] {
            let frame = Frame::pong(payload.as_bytes()).into_bytes();
            state.queued.add(&frame);
            state.control.push_back(frame);
        }
        state
    }

    /// Lets the socket take so many bytes of the queue, write by write.
    fn write(state: &mut State, writes: &[usize]) -> Vec<u8> {
        let mut wire = Vec::new();
        for taken in writes {
            let mut batch = Batch::of(None);
            batch.fill(state);
            let bytes: Vec<u8> = batch.frames().flatten().copied().collect();
            wire.extend_from_slice(&bytes[..*taken]);
            state.settle(&mut batch, Ok(*taken));
        }
        wire
    }

    #[test]
    fn however_much_each_write_takes_the_wire_is_the_same() {
        const WIRE: &[u8] = b"\x8a\x011\x8a\x012\x81\x01a\x81\x01b\x81\x01c";
        for first in 1..WIRE.len() - 1 {
            for second in 1..WIRE.len() - first {
                let mut state = queue();
                let writes = [first, second, WIRE.len() - first - second];
                assert_eq!(write(&mut state, &writes), WIRE, "{writes:?}");
                assert!(state.is_empty());
                assert_eq!(state.queued, Queued::default());
                assert_eq!(state.counters.frames, 5);
                assert_eq!(state.counters.bytes, WIRE.len() as u64);
            }
        }
    }

    #[test]
    fn a_write_that_takes_nothing_leaves_the_queue_as_it_was() {
        let mut state = queue();
        // Into the middle of the first frame behind the pongs.
        write(&mut state, &[7]);
        let (queued, control, frames) = (state.queued, state.control.len(), state.frames.len());
        let mut batch = Batch::of(None);
        batch.fill(&mut state);
        state.settle(&mut batch, Err(io::ErrorKind::WouldBlock.into()));
        assert!(state.blocked);
        assert_eq!(state.partial.as_deref(), Some(&b"\x01a"[..]));
        assert_eq!(
            (state.queued, state.control.len(), state.frames.len()),
            (queued, control, frames)
        );
    }

    #[test]
    fn a_pong_overtakes_whole_frames_but_no_pong() {
        for (taken, wire) in [
            (1, &b"\x011\x8a\x012\x8a\x013\x81\x01a"[..]),
            (7, &b"\x01a\x8a\x013\x81\x01b"[..]),
        ] {
            let mut state = queue();
            write(&mut state, &[taken]);
            let pong = Frame::pong(b"3").into_bytes();
            state.queued.add(&pong);
            state.control.push_back(pong);
            assert_eq!(write(&mut state, &[wire.len()]), wire);
        }
    }

    #[test]
    fn a_write_that_fails_gives_everything_up() {
        let mut state = queue();
        write(&mut state, &[7]);
        let mut batch = Batch::of(None);
        batch.fill(&mut state);
        state.settle(&mut batch, Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(state.phase, Phase::Broken);
        assert!(state.is_empty());
        assert_eq!(state.queued, Queued::default());
    }

    #[test]
    fn a_drained_queue_keeps_no_room() {
        let mut state = State::new(None);
        for _ in 0..1000 {
            let frame = Frame::text("x").into_bytes();
            state.queued.add(&frame);
            state.frames.push_back(frame);
        }
        while !state.is_empty() {
            let frames = MAX_SLICES.min(state.frames.len());
            write(&mut state, &[3 * frames]);
        }
        assert!(state.frames.capacity() <= KEPT_CAPACITY);
    }
}

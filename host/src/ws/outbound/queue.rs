//! The queue behind [`Outbound`](super::Outbound): what waits, in which order, and what a write took
//! of it; no I/O but the one write of a [`Batch`].
//!
//! Invariant: [`Queued`] counts what waits here and what a writer has in its hands.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Waker};

use bytes::{Buf, Bytes};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use super::{Counters, OutboundLimits, Queued};

/// How many frames one write takes along.
const MAX_SLICES: usize = 64;

/// The low-water mark is this fraction of the limits.
const LOW_WATER: usize = 4;

/// All that changes of an [`Outbound`](super::Outbound), under its lock.
#[derive(Debug)]
pub(super) struct State {
    /// Absent while somebody writes, and once all is written for good. Dropping it sends the FIN.
    pub(super) half: Option<OwnedWriteHalf>,
    pub(super) phase: Phase,
    /// The rest of a frame whose beginning is on the wire.
    pub(super) partial: Option<Bytes>,
    /// Pings and pongs, which go before all whole frames.
    pub(super) control: Control,
    pub(super) frames: VecDeque<Bytes>,
    /// What is in the three fields above and in the hands of a writer.
    pub(super) queued: Queued,
    /// The socket had no room; the connection's task waits for some.
    pub(super) blocked: bool,
    /// The socket has been full since the queue was last empty, so that what it takes now, the peer
    /// must have made room for.
    pub(super) congested: bool,
    /// When a congested socket last took bytes.
    pub(super) progress: Option<Instant>,
    /// How many hold back the writing.
    pub(super) corks: usize,
    /// A frame was refused and the queue has not fallen to the low-water mark since.
    pub(super) overflowed: bool,
    /// The connection's task.
    pub(super) task: Option<Waker>,
    /// What a write failed with.
    pub(super) failure: Option<io::Error>,
    pub(super) counters: Counters,
}

/// Pings and pongs. Few connections ever have one that waits, so none has room for any before.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "an empty queue takes four words, a box one"
)]
pub(super) struct Control(Option<Box<VecDeque<Bytes>>>);

impl Control {
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |frames| frames.len())
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push_back(&mut self, frame: Bytes) {
        self.0.get_or_insert_default().push_back(frame);
    }

    fn push_front(&mut self, frame: Bytes) {
        self.0.get_or_insert_default().push_front(frame);
    }

    pub(super) fn pop_front(&mut self) -> Option<Bytes> {
        self.0.as_mut()?.pop_front()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The close frame is queued or written.
    Closing,
    /// A write failed: nothing reaches the peer any more, though it may still be heard.
    Broken,
    Over,
}

impl State {
    pub(super) fn new(half: Option<OwnedWriteHalf>) -> Self {
        Self {
            half,
            phase: Phase::Open,
            partial: None,
            control: Control::default(),
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
    pub(super) fn is_full(&self, limits: OutboundLimits) -> bool {
        let Queued { frames, bytes } = self.queued;
        frames > 0 && (bytes >= limits.max_bytes || frames >= limits.max_frames)
    }

    pub(super) fn may_write(&self) -> bool {
        self.half.is_some() && !self.blocked && self.corks == 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partial.is_none() && self.control.is_empty() && self.frames.is_empty()
    }

    /// Drops all frames of which nothing is on the wire.
    pub(super) fn discard(&mut self) {
        let control = std::mem::take(&mut self.control).0.unwrap_or_default();
        let frames = std::mem::take(&mut self.frames);
        for frame in control.into_iter().chain(frames) {
            self.queued.subtract(&frame);
        }
    }

    /// Drops everything, because nothing will be written any more.
    pub(super) fn abandon(&mut self) {
        self.discard();
        if let Some(torn) = self.partial.take() {
            self.queued.subtract(&torn);
        }
        self.overflowed = false;
    }

    /// Counts off what a write took of `batch` and puts the rest back to the front of the queue.
    pub(super) fn settle(&mut self, batch: &mut Batch, result: io::Result<usize>) {
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
            // A connection at rest keeps no room for frames: most are at rest.
            self.frames = VecDeque::new();
            self.control = Control::default();
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
    pub(super) fn relieve(&mut self, limits: OutboundLimits) -> bool {
        let relieved = self.overflowed
            && self.queued.bytes <= limits.max_bytes / LOW_WATER
            && self.queued.frames <= limits.max_frames / LOW_WATER;
        if relieved {
            self.overflowed = false;
        }
        relieved
    }

    pub(super) fn register(&mut self, cx: &Context<'_>) {
        match &self.task {
            Some(task) if task.will_wake(cx.waker()) => {}
            _ => self.task = Some(cx.waker().clone()),
        }
    }
}

impl Queued {
    pub(super) fn add(&mut self, frame: &Bytes) {
        self.frames += 1;
        self.bytes += frame.len();
    }

    pub(super) fn subtract(&mut self, frame: &Bytes) {
        self.frames -= 1;
        self.bytes -= frame.len();
    }
}

/// Frames on their way from the queue to the socket: a torn one, then control frames up to
/// `control_end`, then data.
///
/// The first has its own place, because most writes carry one frame and should not allocate.
pub(super) struct Batch {
    first: Option<Bytes>,
    others: Vec<Bytes>,
    torn: bool,
    control_end: usize,
}

impl Batch {
    pub(super) fn of(first: Option<Bytes>) -> Self {
        Self {
            first,
            others: Vec::new(),
            torn: false,
            control_end: 0,
        }
    }

    /// Takes what is next in the queue, if there is nothing yet.
    pub(super) fn fill(&mut self, state: &mut State) {
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
        while self.len() < MAX_SLICES
            && let Some(frame) = state.control.pop_front()
        {
            self.push(frame);
        }
        self.control_end = self.len();
        for frame in state.frames.drain(..frames) {
            self.push(frame);
        }
    }

    pub(super) fn write(&self, half: &OwnedWriteHalf) -> io::Result<usize> {
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

    pub(super) fn is_empty(&self) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::Frame;

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
        assert_eq!(state.frames.capacity(), 0);
    }
}

//! The queue behind [`Outbound`](super::Outbound): what waits, in which order, and what a write took
//! of it; no I/O but the one write of a [`Batch`].
//!
//! Invariant: [`Queued`] counts what waits here and what a writer has in its hands.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Waker};

use bytes::{Buf, Bytes};
use tidegate_base::budget::{Budget, Chunks, Exhausted};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::Instant;

use super::{Counters, OutboundLimits, Queued, Refused};

/// How many frames one write takes along.
const MAX_SLICES: usize = 64;

/// For how many frames room is made when more than one begins to wait.
const FIRST_ROOM: usize = 8;

/// What a frame that waits costs beside its bytes, in bytes: its place in the queue, which may
/// have room for as many again.
const FRAME_COST: usize = 2 * size_of::<Bytes>();

/// The low-water mark is this fraction of the limits.
const LOW_WATER: usize = 4;

/// All that changes of an [`Outbound`](super::Outbound), under its lock.
#[derive(Debug)]
pub(super) struct State {
    /// Absent while somebody writes, and once all is written for good. Dropping it sends the FIN.
    pub(super) half: Option<OwnedWriteHalf>,
    pub(super) phase: Phase,
    /// The first of `frames` is the rest of one whose beginning is on the wire.
    pub(super) torn: bool,
    /// Pings and pongs, which go before all whole frames.
    pub(super) control: Control,
    pub(super) frames: Frames,
    /// What is in the two fields above and in the hands of a writer.
    pub(super) queued: Queued,
    /// What of these bytes is this connection's alone, or more: others are taken from the budget
    /// once for all who wait for them.
    own_bytes: u32,
    /// What has been taken for them, and for the places of all frames.
    taken: Chunks,
    /// The socket had no room; the connection's task waits for some.
    pub(super) blocked: bool,
    /// The socket has been full since the queue was last empty, so that what it takes now, the peer
    /// must have made room for.
    pub(super) congested: bool,
    /// When a congested socket last took bytes.
    pub(super) progress: Option<Instant>,
    /// How many hold back the writing: one for each actor at most that has more turns to take.
    pub(super) corks: u32,
    /// A frame was refused and the queue has not fallen to the low-water mark since.
    pub(super) overflowed: bool,
    /// Somebody wants to know when the queue becomes shorter.
    pub(super) is_awaited: bool,
    /// The connection's task.
    pub(super) task: Option<Waker>,
    /// What a write failed with.
    pub(super) failure: Option<io::Error>,
    pub(super) counters: Counters,
}

/// Frames in their order. The first has its own place, because a receiver of a fan-out often has
/// one that waits for the rest of the wave, and should not allocate for it.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Present unless all of it is empty.
    first: Option<Bytes>,
    others: VecDeque<Bytes>,
}

impl Frames {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push_back(&mut self, frame: Bytes) {
        if self.first.is_none() {
            self.first = Some(frame);
            return;
        }
        if self.others.capacity() == 0 {
            self.others.reserve_exact(FIRST_ROOM);
        }
        self.others.push_back(frame);
    }

    fn push_front(&mut self, frame: Bytes) {
        if let Some(second) = self.first.replace(frame) {
            self.others.push_front(second);
        }
    }

    fn pop_front(&mut self) -> Option<Bytes> {
        let first = self.first.take();
        self.first = self.others.pop_front();
        first
    }

    fn pop_back(&mut self) -> Option<Bytes> {
        self.others.pop_back().or_else(|| self.first.take())
    }

    fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.others)
    }
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

fn cost(own_bytes: u32, frames: usize) -> usize {
    own_bytes as usize + frames * FRAME_COST
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
            torn: false,
            control: Control::default(),
            frames: Frames::default(),
            queued: Queued::default(),
            own_bytes: 0,
            taken: Chunks::default(),
            blocked: false,
            congested: false,
            progress: None,
            corks: 0,
            overflowed: false,
            is_awaited: false,
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

    /// Notes that a frame was not taken.
    pub(super) fn overflow(&mut self) -> Refused {
        self.overflowed = true;
        self.counters.refused += 1;
        Refused::Full
    }

    /// Notes that a frame was not taken because all queues together are too long. One that is
    /// short need not become shorter first.
    pub(super) fn starve(&mut self, limits: OutboundLimits) {
        self.overflowed = !self.is_low(limits);
        self.counters.refused += 1;
    }

    /// Counts a frame that is about to wait, or to be written.
    ///
    /// # Errors
    /// The budget has no room for it; then nothing has changed.
    pub(super) fn count(
        &mut self,
        frame: &Bytes,
        is_shared: bool,
        budget: &Budget,
    ) -> Result<(), Exhausted> {
        let own = match is_shared {
            true => 0,
            // No queue is that long.
            false => u32::try_from(frame.len()).unwrap_or(u32::MAX),
        };
        let own_bytes = self.own_bytes.saturating_add(own);
        let cost = cost(own_bytes, self.queued.frames + 1);
        self.taken.fit(cost, budget)?;
        self.own_bytes = own_bytes;
        self.queued.add(frame);
        Ok(())
    }

    /// Gives back what is not needed any more.
    pub(super) fn uncount(&mut self, budget: &Budget) {
        // Frames leave in their order, whosever they are: what is left bounds what is left of its
        // own.
        let left = u32::try_from(self.queued.bytes).unwrap_or(u32::MAX);
        self.own_bytes = self.own_bytes.min(left);
        let cost = cost(self.own_bytes, self.queued.frames);
        // It was counted before, so this takes nothing.
        let _ = self.taken.fit(cost, budget);
    }

    pub(super) fn may_write(&self) -> bool {
        self.half.is_some() && !self.blocked && self.corks == 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.frames.is_empty()
    }

    /// Drops all frames of which nothing is on the wire.
    pub(super) fn discard(&mut self) {
        let mut control = std::mem::take(&mut self.control);
        let mut frames = std::mem::take(&mut self.frames);
        if self.torn {
            self.frames.first = frames.pop_front();
        }
        while let Some(frame) = control.pop_front().or_else(|| frames.pop_front()) {
            self.queued.subtract(&frame);
        }
    }

    /// Drops everything, because nothing will be written any more.
    pub(super) fn abandon(&mut self) {
        self.torn = false;
        self.discard();
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
            self.frames = Frames::default();
            self.control = Control::default();
        }
    }

    /// Drops the frames that `taken` bytes cover, and puts the others back where they came from.
    fn take_back(&mut self, batch: &mut Batch, taken: usize) {
        let mut sent = 0;
        let mut rest = taken;
        for frame in batch.frames.iter() {
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
                self.torn = true;
                self.frames.push_front(frame);
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
        let relieved = self.overflowed && self.is_low(limits);
        if relieved {
            self.overflowed = false;
        }
        relieved
    }

    fn is_low(&self, limits: OutboundLimits) -> bool {
        self.queued.bytes <= limits.max_bytes / LOW_WATER
            && self.queued.frames <= limits.max_frames / LOW_WATER
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
pub(super) struct Batch {
    frames: Frames,
    torn: bool,
    control_end: usize,
}

impl Batch {
    pub(super) fn of(first: Option<Bytes>) -> Self {
        let others = VecDeque::new();
        Self {
            frames: Frames { first, others },
            torn: false,
            control_end: 0,
        }
    }

    /// Takes what is next in the queue, if there is nothing yet.
    pub(super) fn fill(&mut self, state: &mut State) {
        if !self.is_empty() {
            return;
        }
        self.torn = std::mem::take(&mut state.torn);
        if state.control.is_empty() && state.frames.len() <= MAX_SLICES {
            // As it is, with the room that was made for it.
            self.frames = std::mem::take(&mut state.frames);
            self.control_end = usize::from(self.torn);
            return;
        }
        if self.torn {
            self.frames.first = state.frames.pop_front();
        }
        self.take(|| state.control.pop_front());
        self.control_end = self.len();
        self.take(|| state.frames.pop_front());
    }

    fn take(&mut self, mut next: impl FnMut() -> Option<Bytes>) {
        while self.len() < MAX_SLICES
            && let Some(frame) = next()
        {
            self.frames.push_back(frame);
        }
    }

    pub(super) fn write(&self, half: &OwnedWriteHalf) -> io::Result<usize> {
        if let (Some(only), 1) = (&self.frames.first, self.len()) {
            return half.try_write(only);
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        for (slice, frame) in slices.iter_mut().zip(self.frames.iter()) {
            *slice = IoSlice::new(frame);
        }
        half.try_write_vectored(&slices[..self.len()])
    }

    fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.frames.pop_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;

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
            let bytes: Vec<u8> = batch.frames.iter().flatten().copied().collect();
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
        assert!(state.torn);
        assert_eq!(state.frames.first.as_deref(), Some(&b"\x01a"[..]));
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
        assert_eq!(state.frames.others.capacity(), 0);
    }

    #[test]
    fn one_frame_waits_without_an_allocation() {
        let mut state = State::new(None);
        let frame = Frame::text("x").into_bytes();
        state.queued.add(&frame);
        state.frames.push_back(frame);
        assert_eq!(state.frames.others.capacity(), 0);
        assert_eq!(write(&mut state, &[3]), b"\x81\x01x");
    }

    #[test]
    fn what_is_discarded_is_all_but_a_torn_frame() {
        for (taken, left) in [(0, &b""[..]), (1, b"\x011"), (7, b"\x01a")] {
            let mut state = queue();
            if taken > 0 {
                write(&mut state, &[taken]);
            }
            state.discard();
            assert_eq!(state.queued.bytes, left.len());
            assert_eq!(
                state.frames.iter().flatten().copied().collect::<Vec<_>>(),
                left
            );
            state.abandon();
            assert!(state.is_empty());
            assert_eq!(state.queued, Queued::default());
        }
    }
}

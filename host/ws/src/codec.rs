//! From bytes to messages: what RFC 6455 asks of a server that reads, without I/O.
//!
//! `connection` feeds a [`Decoder`] whatever a read brought, in pieces of any size. The same bytes
//! give the same items however they are cut. The decoder holds at most [`Limits::max_message`]
//! bytes, allocates for what has arrived and never for what a header merely claims, takes that from
//! the host's budget, and holds nothing on the heap between messages.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use soketto::Parsing;
use soketto::base::{self, Codec, Header, OpCode};
use thiserror::Error;
use tidegate_base::budget::{Budget, Exhausted, FREE, Share};
use tokio::time::Instant;

use super::{Close, CloseCode};

/// The longest frame header: two bytes, a length of eight, a mask of four.
const MAX_HEADER: usize = 14;

/// The largest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// How large a client's messages may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, in bytes of payload over all its fragments, that is taken in. A larger
    /// one is skipped to its end and reported as [`Incoming::TooLarge`]. Default 1 MiB.
    pub max_message: usize,
    /// The largest message, in bytes, that is worth skipping. A larger one ends the connection with
    /// 1009 as soon as a header declares it. Default 64 MiB.
    pub max_discard: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message: 1 << 20,
            max_discard: 64 << 20,
        }
    }
}

impl Limits {
    /// The size beyond which the connection ends.
    fn largest(self) -> u64 {
        self.max_discard.max(self.max_message as u64)
    }
}

/// Looks through a message that is skipped, in pieces as they arrive, and keeps what it needs to
/// tell the client about it.
pub trait Skim: Default + Send + 'static {
    /// Looks at a further piece.
    fn read(&mut self, piece: &[u8]);

    /// It needs to see no more.
    fn is_done(&self) -> bool;
}

/// Looks at nothing of what is skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread;

impl Skim for Unread {
    fn read(&mut self, _: &[u8]) {}

    fn is_done(&self) -> bool {
        true
    }
}

/// What the client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<S = Unread> {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Bytes),
    /// The end of a message over [`Limits::max_message`], whose content is gone.
    TooLarge {
        /// The size of the message in bytes.
        size: u64,
        /// What was seen of it.
        seen: Box<S>,
    },
    /// The end of a message for which the host had no memory, whose content is gone.
    NoRoom {
        /// The size of the message in bytes.
        size: u64,
        /// What was seen of it.
        seen: Box<S>,
        /// What is used up.
        exhausted: Exhausted,
    },
    /// A ping, to be answered with a pong of the same payload.
    Ping(Bytes),
    /// A pong, asked for or not.
    Pong(Bytes),
    /// The start or the end of the closing handshake; whatever follows it is ignored.
    Close(Option<Close>),
}

/// A breach of RFC 6455 that ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Section 5.1: a client masks every frame.
    #[error("a client's frame must be masked")]
    Unmasked,
    /// Section 5.2: a reserved bit without an extension that defines it.
    #[error("reserved bit {0} is set without an extension")]
    ReservedBit(u8),
    /// Section 5.2: an opcode that has no meaning.
    #[error("the opcode is reserved")]
    ReservedOpcode,
    /// Section 5.2: a length takes the smallest form that holds it, below 2^63.
    #[error("the payload length is not in its shortest form")]
    InvalidLength,
    /// Section 5.5: a control frame comes in one piece.
    #[error("a control frame must not be fragmented")]
    FragmentedControl,
    /// Section 5.5: a control frame carries at most 125 bytes.
    #[error("a control frame carries at most 125 bytes")]
    ControlTooLong,
    /// Section 5.4: a continuation continues something.
    #[error("a continuation frame without a message to continue")]
    NothingToContinue,
    /// Section 5.4: a message ends before the next begins.
    #[error("a new message before the fragmented one ended")]
    Interleaved,
    /// Section 8.1: text is UTF-8.
    #[error("the text is not valid UTF-8")]
    InvalidUtf8,
    /// Section 5.5.1: the body of a close frame is empty or starts with a code.
    #[error("a close body must be empty or hold a code of two bytes")]
    InvalidCloseBody,
    /// Section 7.4: some codes never appear in a frame.
    #[error("close code {0} must not be sent")]
    InvalidCloseCode(u16),
    /// A message over [`Limits::max_discard`].
    #[error("a message of {size} bytes, where {limit} are the limit")]
    TooLarge {
        /// The size that the client declared, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
}

impl ProtocolError {
    /// The code with which the connection is closed.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::InvalidUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::TooLarge { .. } => CloseCode::TOO_LARGE,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl From<base::Error> for ProtocolError {
    fn from(error: base::Error) -> Self {
        match error {
            base::Error::InvalidReservedBit(bit) => Self::ReservedBit(bit),
            base::Error::FragmentedControl => Self::FragmentedControl,
            base::Error::InvalidControlFrameLen => Self::ControlTooLong,
            base::Error::PayloadTooLarge { actual, .. } if actual >> 63 != 0 => Self::InvalidLength,
            base::Error::PayloadTooLarge { actual, maximum } => Self::TooLarge {
                size: actual,
                limit: maximum,
            },
            _ => Self::ReservedOpcode,
        }
    }
}

/// Turns a client's bytes into messages.
#[derive(Debug)]
pub struct Decoder<S = Unread> {
    limits: Limits,
    codec: Codec,
    stage: Stage,
    /// The message whose last fragment is yet to come.
    message: Option<Assembly<S>>,
}

/// Where in the stream the decoder stands.
#[derive(Debug)]
enum Stage {
    /// In a header, of which `len` bytes have arrived.
    Header { bytes: [u8; MAX_HEADER], len: u8 },
    /// In the payload of a data frame.
    Data(Payload),
    /// In the payload of a control frame. Boxed, because every connection at rest is in a header.
    Control(Box<Control>),
    /// Behind a close frame or an error, where nothing counts any more.
    Over,
}

/// A control frame, which has its own buffer because it may come in the middle of a message.
#[derive(Debug)]
struct Control {
    opcode: OpCode,
    payload: Payload,
    body: Vec<u8>,
}

const AT_HEADER: Stage = Stage::Header {
    bytes: [0; MAX_HEADER],
    len: 0,
};

/// The rest of a frame's payload.
#[derive(Debug)]
struct Payload {
    remaining: usize,
    /// The masking key, rotated so that its first byte masks the next payload byte.
    mask: [u8; 4],
    /// Whether the frame is the last of its message.
    fin: bool,
}

/// A message under assembly.
#[derive(Debug)]
struct Assembly<S> {
    kind: Kind<S>,
    /// Payload bytes declared by the headers so far.
    size: u64,
    /// The payload that has arrived, unmasked.
    payload: Vec<u8>,
    /// Present where it is long; most messages are small and come whole.
    long: Option<Box<Long>>,
}

/// What is known of a message that does not come at once.
#[derive(Debug, Default)]
struct Long {
    /// What the payload has taken of the budget.
    share: Option<Share>,
    /// Since when it is not complete.
    since: Option<Instant>,
}

#[derive(Debug)]
enum Kind<S> {
    Text {
        /// How much of the payload is known to be whole UTF-8 characters.
        checked: usize,
    },
    Binary,
    /// Larger than [`Limits::max_message`]: counted and looked through, not kept.
    Skipped(Box<S>),
    /// More than the host has memory for: likewise.
    NoRoom(Box<S>),
}

/// How much of a skipped message is looked through at once; a whole number of masks.
const SKIM: usize = 1024;

impl<S: Skim> Decoder<S> {
    /// A decoder at the beginning of a connection.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            // A position in a message is kept in 32 bits.
            max_message: limits.max_message.min(u32::MAX as usize),
            ..limits
        };
        let mut codec = Codec::new();
        codec.set_max_data_size(usize::try_from(limits.largest()).unwrap_or(usize::MAX));
        Self {
            limits,
            codec,
            stage: AT_HEADER,
            message: None,
        }
    }

    /// Since when a message is not complete, as [`Decoder::note_unfinished`] was told.
    pub fn unfinished_since(&self) -> Option<Instant> {
        self.message.as_ref()?.long.as_ref()?.since
    }

    /// Notes when a message that has begun and is not complete was first seen to be so.
    pub fn note_unfinished(&mut self, now: Instant) {
        if let Some(message) = &mut self.message {
            let long = message.long.get_or_insert_default();
            long.since.get_or_insert(now);
        }
    }

    /// The next item of the stream, taken from the front of `input`; `None` when `input` is used up.
    ///
    /// Call it until it returns `None`, then again with what arrives next.
    ///
    /// # Errors
    /// The client broke the protocol. The decoder ignores whatever it is fed afterwards.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Incoming<S>>, ProtocolError> {
        static UNLIMITED: LazyLock<Arc<Budget>> = LazyLock::new(Budget::unlimited);
        self.decode_within(input, &UNLIMITED)
    }

    /// The next item of the stream, where messages under assembly are taken from a budget, which is always the same.
    ///
    /// # Errors
    /// The client broke the protocol. The decoder ignores whatever it is fed afterwards.
    pub fn decode_within(
        &mut self,
        input: &mut &[u8],
        budget: &Arc<Budget>,
    ) -> Result<Option<Incoming<S>>, ProtocolError> {
        let result = self.advance(input, budget);
        if matches!(result, Err(_) | Ok(Some(Incoming::Close(_)))) {
            self.stage = Stage::Over;
            self.message = None;
        }
        result
    }

    fn advance(
        &mut self,
        input: &mut &[u8],
        budget: &Arc<Budget>,
    ) -> Result<Option<Incoming<S>>, ProtocolError> {
        loop {
            match &mut self.stage {
                Stage::Over => {
                    *input = &[];
                    return Ok(None);
                }
                Stage::Header { bytes, len } => {
                    let parsed = if *len == 0 {
                        self.codec.decode_header(input)?
                    } else {
                        self.codec.decode_header(&bytes[..usize::from(*len)])?
                    };
                    match parsed {
                        Parsing::Done { value, offset } => {
                            if *len == 0 {
                                *input = &input[offset..];
                            }
                            self.begin_frame(&value, offset)?;
                        }
                        Parsing::NeedMore(_) if input.is_empty() => return Ok(None),
                        // A header that was cut is gathered only as far as it is known to reach, so
                        // that no byte of the payload is taken with it.
                        Parsing::NeedMore(missing) => {
                            let wanted = if *len == 0 { input.len() } else { missing };
                            let (taken, rest) = input.split_at(wanted.min(input.len()));
                            let end = usize::from(*len) + taken.len();
                            bytes[usize::from(*len)..end].copy_from_slice(taken);
                            *len = end as u8;
                            *input = rest;
                        }
                    }
                }
                Stage::Data(payload) => {
                    let message = self.message.as_mut().expect("a data frame has a message");
                    message.take(payload, input, budget)?;
                    if payload.remaining > 0 {
                        return Ok(None);
                    }
                    let fin = payload.fin;
                    self.stage = AT_HEADER;
                    if fin && let Some(message) = self.message.take() {
                        return message.finish(budget).map(Some);
                    }
                }
                Stage::Control(control) => {
                    control.payload.take(input, &mut control.body);
                    if control.payload.remaining > 0 {
                        return Ok(None);
                    }
                    let opcode = control.opcode;
                    let body = std::mem::take(&mut control.body);
                    self.stage = AT_HEADER;
                    return match opcode {
                        OpCode::Ping => Ok(Some(Incoming::Ping(body.into()))),
                        OpCode::Pong => Ok(Some(Incoming::Pong(body.into()))),
                        _ => close_body(&body).map(|close| Some(Incoming::Close(close))),
                    };
                }
            }
        }
    }

    /// Checks a header of `header_len` bytes and opens its payload.
    fn begin_frame(&mut self, header: &Header, header_len: usize) -> Result<(), ProtocolError> {
        if !header.is_masked() {
            return Err(ProtocolError::Unmasked);
        }
        let size = header.payload_len();
        let shortest = match size {
            0..=125 => 6,
            126..=0xffff => 8,
            _ => MAX_HEADER,
        };
        if header_len != shortest {
            return Err(ProtocolError::InvalidLength);
        }
        let payload = Payload {
            remaining: size,
            mask: header.mask().to_be_bytes(),
            fin: header.is_fin(),
        };
        let opcode = header.opcode();
        if opcode.is_control() {
            self.stage = Stage::Control(Box::new(Control {
                opcode,
                payload,
                body: Vec::new(),
            }));
            return Ok(());
        }
        let kind = match opcode {
            OpCode::Continue => None,
            OpCode::Text => Some(Kind::Text { checked: 0 }),
            _ => Some(Kind::Binary),
        };
        let message = match (&mut self.message, kind) {
            (Some(_), Some(_)) => return Err(ProtocolError::Interleaved),
            (None, None) => return Err(ProtocolError::NothingToContinue),
            (Some(message), None) => message,
            (none, Some(kind)) => none.insert(Assembly::new(kind)),
        };
        message.declare(size, self.limits)?;
        self.stage = Stage::Data(payload);
        Ok(())
    }
}

impl Payload {
    /// What `into` must have room for to take what has arrived; none if it has.
    fn room(&self, input: &[u8], into: &Vec<u8>) -> Option<usize> {
        let arrived = self.remaining.min(input.len());
        let needed = into.len() + arrived;
        if needed <= into.capacity() {
            return None;
        }
        // Doubling keeps growth linear; the end of the message caps it, so that a message that came
        // in one piece takes exactly its size.
        let end = if self.fin {
            into.len() + self.remaining
        } else {
            usize::MAX
        };
        Some(needed.max(end.min(2 * into.capacity())))
    }

    /// Moves what has arrived of the payload from `input` to the end of `into`, unmasked.
    fn take(&mut self, input: &mut &[u8], into: &mut Vec<u8>) {
        let start = into.len();
        if let Some(room) = self.room(input, into) {
            into.reserve_exact(room - start);
        }
        let arrived = self.split(input);
        into.extend_from_slice(arrived);
        unmask(&mut into[start..], self.mask);
        self.mask.rotate_left(arrived.len() % 4);
    }

    /// Takes what has arrived of the payload off `input`, and looks through it as far as `seen`
    /// wants to.
    fn skim(&mut self, input: &mut &[u8], seen: &mut impl Skim) {
        let arrived = self.split(input);
        for piece in arrived.chunks(SKIM) {
            if seen.is_done() {
                break;
            }
            let mut plain = [0; SKIM];
            let plain = &mut plain[..piece.len()];
            plain.copy_from_slice(piece);
            unmask(plain, self.mask);
            seen.read(plain);
        }
        self.mask.rotate_left(arrived.len() % 4);
    }

    /// Takes what has arrived of the payload off `input`.
    fn split<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let (arrived, rest) = input.split_at(self.remaining.min(input.len()));
        *input = rest;
        self.remaining -= arrived.len();
        arrived
    }
}

impl<S: Skim> Assembly<S> {
    fn new(kind: Kind<S>) -> Self {
        Self {
            kind,
            size: 0,
            payload: Vec::new(),
            long: None,
        }
    }

    /// Adds the size of one more frame and decides whether the message is still kept.
    fn declare(&mut self, size: usize, limits: Limits) -> Result<(), ProtocolError> {
        self.size = self.size.saturating_add(size as u64);
        if self.size > limits.largest() {
            return Err(ProtocolError::TooLarge {
                size: self.size,
                limit: limits.largest(),
            });
        }
        if self.size > limits.max_message as u64 {
            self.skip(Kind::Skipped);
        }
        Ok(())
    }

    /// Keeps nothing of the message, neither what came nor what will.
    fn skip(&mut self, kind: fn(Box<S>) -> Kind<S>) {
        if self.is_skipped() {
            return;
        }
        let mut seen = Box::new(S::default());
        seen.read(&std::mem::take(&mut self.payload));
        self.kind = kind(seen);
        if let Some(long) = &mut self.long {
            long.share = None;
        }
    }

    fn is_skipped(&self) -> bool {
        matches!(self.kind, Kind::Skipped(_) | Kind::NoRoom(_))
    }

    /// Takes from the budget what the payload is about to grow to.
    fn charge(&mut self, room: usize, budget: &Arc<Budget>) {
        if room <= FREE {
            return;
        }
        let long = self.long.get_or_insert_default();
        let share = long.share.get_or_insert_with(|| budget.empty_share());
        if share.fit(room).is_err() {
            self.skip(Kind::NoRoom);
        }
    }

    fn take(
        &mut self,
        payload: &mut Payload,
        input: &mut &[u8],
        budget: &Arc<Budget>,
    ) -> Result<(), ProtocolError> {
        if !self.is_skipped()
            && let Some(room) = payload.room(input, &self.payload)
        {
            self.charge(room, budget);
        }
        match &mut self.kind {
            Kind::Skipped(seen) | Kind::NoRoom(seen) => payload.skim(input, &mut **seen),
            Kind::Binary => payload.take(input, &mut self.payload),
            Kind::Text { checked } => {
                payload.take(input, &mut self.payload);
                // The beginning of a character may wait for its rest.
                match simdutf8::compat::from_utf8(&self.payload[*checked..]) {
                    Ok(_) => *checked = self.payload.len(),
                    Err(error) if error.error_len().is_some() => {
                        return Err(ProtocolError::InvalidUtf8);
                    }
                    Err(error) => *checked += error.valid_up_to(),
                }
            }
        }
        Ok(())
    }

    fn finish(self, budget: &Budget) -> Result<Incoming<S>, ProtocolError> {
        match self.kind {
            Kind::Skipped(seen) => Ok(Incoming::TooLarge {
                size: self.size,
                seen,
            }),
            Kind::NoRoom(seen) => Ok(Incoming::NoRoom {
                size: self.size,
                seen,
                exhausted: budget.exhausted(),
            }),
            Kind::Binary => Ok(Incoming::Binary(self.payload.into())),
            Kind::Text { checked } if checked < self.payload.len() => {
                Err(ProtocolError::InvalidUtf8)
            }
            Kind::Text { .. } => {
                // SAFETY: `take` validated the payload up to `checked`, which is its end.
                Ok(Incoming::Text(unsafe {
                    String::from_utf8_unchecked(self.payload)
                }))
            }
        }
    }
}

/// Removes the mask, a word at a time where soketto's `apply_mask` goes byte by byte.
fn unmask(data: &mut [u8], mask: [u8; 4]) {
    let word = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let (words, tail) = data.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn close_body(body: &[u8]) -> Result<Option<Close>, ProtocolError> {
    let (code, reason) = match body {
        [] => return Ok(None),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        [_] => return Err(ProtocolError::InvalidCloseBody),
    };
    let code = CloseCode::new(code).ok_or(ProtocolError::InvalidCloseCode(code))?;
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
    debug_assert!(body.len() <= MAX_CONTROL);
    Ok(Some(Close::new(code, reason)))
}

#[cfg(test)]
mod tests;

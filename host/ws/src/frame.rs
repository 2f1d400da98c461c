//! Server frames, encoded once and shared by every socket that they go to.
//!
//! Built by whoever has something to say (release, fan-out, gateway), written by `outbound`.
//! A [`Frame`] is one whole, unmasked, final RFC 6455 frame in one buffer: header and payload
//! leave with a single slice, and a clone costs a reference count.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use soketto::base::{Codec, Header, OpCode};
use tidegate_base::budget::{Budget, Exhausted, SharedBytes};

use super::Close;

/// The longest header of an unmasked frame: two bytes and a length of eight.
const HEADROOM: usize = 10;

/// One encoded frame, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
    /// Its bytes have been taken from a budget, once for all queues that it waits in.
    is_shared: bool,
}

impl Frame {
    /// A text message in one frame.
    ///
    /// Copies `text` once; a [`FrameBuilder`] encodes in place without that copy.
    pub fn text(text: impl AsRef<str>) -> Self {
        encode(OpCode::Text, text.as_ref().as_bytes())
    }

    /// A text message in one frame, for many connections: it is taken from the budget here, and
    /// not by each queue that it waits in.
    ///
    /// # Errors
    /// The budget has no room for it.
    pub fn shared_text(text: impl AsRef<str>, budget: &Arc<Budget>) -> Result<Self, Exhausted> {
        Ok(Self {
            bytes: budget.bytes(Self::encoded_text(text))?,
            is_shared: true,
        })
    }

    /// A text message in one frame, as bytes that a budget is charged for.
    pub fn encoded_text(text: impl AsRef<str>) -> Vec<u8> {
        encoded(OpCode::Text, text.as_ref().as_bytes())
    }

    /// What [`Frame::encoded_text`] made, for many connections.
    pub fn of_shared(bytes: &SharedBytes) -> Self {
        Self {
            bytes: bytes.bytes(),
            is_shared: true,
        }
    }

    /// A binary message in one frame.
    pub fn binary(payload: impl AsRef<[u8]>) -> Self {
        encode(OpCode::Binary, payload.as_ref())
    }

    /// A ping without payload.
    pub fn ping() -> Self {
        Self {
            bytes: Bytes::from_static(&[0x89, 0]),
            is_shared: false,
        }
    }

    /// The answer to a ping: a pong that carries the ping's `payload`, of which no more than the
    /// 125 bytes of a control frame are taken.
    pub fn pong(payload: &[u8]) -> Self {
        encode(OpCode::Pong, &payload[..payload.len().min(125)])
    }

    /// A close frame, with a body or empty.
    pub fn close(close: Option<&Close>) -> Self {
        let Some(close) = close else {
            return encode(OpCode::Close, &[]);
        };
        let mut body = Vec::with_capacity(2 + close.reason().len());
        body.extend_from_slice(&close.code().get().to_be_bytes());
        body.extend_from_slice(close.reason().as_bytes());
        encode(OpCode::Close, &body)
    }

    /// The frame as it goes onto the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The payload without the frame header.
    pub fn payload(&self) -> &[u8] {
        let header = match self.bytes[1] {
            127 => 10,
            126 => 4,
            _ => 2,
        };
        &self.bytes[header..]
    }

    /// Size on the wire in bytes, header included; it is what counts against
    /// [`OutboundLimits::max_bytes`](super::OutboundLimits::max_bytes).
    pub fn wire_len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether its bytes have been taken from a budget already.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

/// Encodes a frame's payload straight into the frame's buffer.
///
/// ```
/// # use tidegate_ws::FrameBuilder;
/// let mut frame = FrameBuilder::new();
/// serde_json::to_writer(&mut frame, &serde_json::json!({"type": "welcome"})).unwrap();
/// assert_eq!(frame.text().unwrap().payload(), br#"{"type":"welcome"}"#);
/// ```
#[derive(Debug)]
pub struct FrameBuilder {
    /// The payload, behind room for the longest header.
    buffer: Vec<u8>,
}

impl FrameBuilder {
    /// An empty payload.
    pub fn new() -> Self {
        Self::with_capacity(118)
    }

    /// An empty payload with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(HEADROOM + bytes);
        buffer.resize(HEADROOM, 0);
        Self { buffer }
    }

    /// Appends to the payload.
    pub fn extend(&mut self, payload: &[u8]) {
        self.buffer.extend_from_slice(payload);
    }

    /// The payload so far.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[HEADROOM..]
    }

    /// A text frame of the payload.
    ///
    /// # Errors
    /// The payload is not UTF-8, which a text frame may not carry.
    pub fn text(self) -> Result<Frame, simdutf8::basic::Utf8Error> {
        simdutf8::basic::from_utf8(self.payload())?;
        Ok(self.finish(OpCode::Text))
    }

    /// A binary frame of the payload.
    pub fn binary(self) -> Frame {
        self.finish(OpCode::Binary)
    }

    fn finish(mut self, opcode: OpCode) -> Frame {
        let mut codec = Codec::new();
        let mut header = Header::new(opcode);
        header.set_payload_len(self.payload().len());
        let header = codec.encode_header(&header);
        let start = HEADROOM - header.len();
        self.buffer[start..HEADROOM].copy_from_slice(header);
        Frame {
            bytes: Bytes::from(self.buffer).slice(start..),
            is_shared: false,
        }
    }
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl io::Write for FrameBuilder {
    fn write(&mut self, payload: &[u8]) -> io::Result<usize> {
        self.extend(payload);
        Ok(payload.len())
    }

    fn write_all(&mut self, payload: &[u8]) -> io::Result<()> {
        self.extend(payload);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn encode(opcode: OpCode, payload: &[u8]) -> Frame {
    Frame {
        bytes: encoded(opcode, payload).into(),
        is_shared: false,
    }
}

fn encoded(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut codec = Codec::new();
    let mut header = Header::new(opcode);
    header.set_payload_len(payload.len());
    let header = codec.encode_header(&header);
    let mut bytes = Vec::with_capacity(header.len() + payload.len());
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CloseCode;

    #[test]
    fn lengths_use_the_shortest_form() {
        assert_eq!(Frame::text("hi").as_bytes(), b"\x81\x02hi");
        assert_eq!(Frame::binary([7; 125]).as_bytes()[..2], [0x82, 125]);
        assert_eq!(Frame::binary([7; 126]).as_bytes()[..4], [0x82, 126, 0, 126]);
        let long = Frame::binary(vec![7; 65_536]);
        assert_eq!(long.as_bytes()[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(long.payload(), vec![7; 65_536]);
    }

    #[test]
    fn a_built_frame_equals_a_copied_one() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(size);
            let mut builder = FrameBuilder::new();
            builder.extend(text.as_bytes());
            assert_eq!(builder.text().unwrap(), Frame::text(&text));
        }
    }

    #[test]
    fn a_text_frame_is_utf8() {
        let mut builder = FrameBuilder::new();
        builder.extend(b"\xff");
        assert!(builder.text().is_err());
    }

    #[test]
    fn control_frames_carry_their_bodies() {
        assert_eq!(Frame::ping().as_bytes(), [0x89, 0]);
        assert_eq!(Frame::pong(b"abc").as_bytes(), b"\x8a\x03abc");
        assert_eq!(Frame::close(None).as_bytes(), [0x88, 0]);
        let close = Close::new(CloseCode::GOING_AWAY, "bye");
        assert_eq!(
            Frame::close(Some(&close)).as_bytes(),
            b"\x88\x05\x03\xe9bye"
        );
    }
}

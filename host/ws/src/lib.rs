//! The WebSocket layer: RFC 6455 server connections over plain TCP, without extensions.
//!
//! The gateway calls it: [`handshake`] checks the upgrade request, [`Socket`] takes the upgraded
//! stream and reads it for a [`Handler`], and everything that has something to say to the client
//! pushes pre-encoded [`Frame`]s into the connection's [`Outbound`].
//!
//! Framing is the sans-I/O codec of the `soketto` crate. The message layer above it is our own,
//! because a fan-out server needs five things that no WebSocket crate we know of offers together:
//!
//! - a [`Frame`] is encoded once and its bytes are shared by every socket that it goes to;
//! - any task may push at any time, writes to the socket itself when there is room, and never
//!   waits;
//! - all that a connection is owed leaves in one vectored write;
//! - a message that is too large is skipped and reported, and the connection lives on;
//! - an idle connection owns no buffer, in either direction.
//!
//! Invariants, kept by the modules named:
//!
//! - Frames reach the wire whole and in the order of their pushes; only pings and pongs overtake
//!   (`outbound`).
//! - What a connection holds in memory is bounded by [`Settings`], and what all hold together by
//!   their budgets, whatever the client does or fails to do (`codec`, `outbound`).
//! - [`Socket::run`] is the connection's only task. When it returns or is dropped, the socket is
//!   closed and the queue is empty, however many `Arc<Outbound>` are still around (`connection`).

mod close;
mod codec;
mod connection;
mod frame;
pub mod handshake;
mod outbound;

pub use close::{Close, CloseCode};
pub use codec::{Decoder, Incoming, Limits, ProtocolError, Skim, Unread};
pub use connection::{Ended, Handler, Inbound, KeepAlive, Settings, Socket, UpgradeError};
pub use frame::{Frame, FrameBuilder};
pub use outbound::{Cork, Counters, Outbound, OutboundLimits, Queued, Refused};

//! One connection from its upgrade to its end: reading, keep-alive and the closing handshake.
//!
//! The gateway makes a [`Socket`] of the upgraded stream, hands its [`Outbound`] to whoever owes
//! the client something, and runs it in the connection's task.
//!
//! Invariants:
//!
//! - Messages reach the [`Handler`] in order and one at a time; while it is busy, nothing is read.
//! - A connection that waits for its client owns no read buffer: the buffer belongs to the worker
//!   thread and is lent for a read and the handling of what it brought.
//! - The end is bounded: from the first close frame, either way, to the release of the socket it
//!   takes at most [`Settings::close_timeout`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tidegate_base::budget::{Budgets, Exhausted};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, sleep_until};

use super::outbound::Unsent;
use super::{
    Close, CloseCode, Decoder, Frame, Incoming, Limits, Outbound, OutboundLimits, ProtocolError,
    Skim, Unread,
};

/// How much one read takes at most.
const READ_BUFFER: usize = 16 << 10;

/// What a connection may cost and how long it may be silent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How large the client's messages may be.
    pub incoming: Limits,
    /// How much the client may be owed.
    pub outbound: OutboundLimits,
    /// How a peer that is gone is found out.
    pub keep_alive: KeepAlive,
    /// How long the closing may take: what is queued, both close frames, and the peer's end of the
    /// TCP connection. Then the socket is reset. Default 5 s.
    pub close_timeout: Duration,
    /// How long a message may take from its first byte to its last. Pings and pongs make no
    /// difference. Default 30 s.
    pub message_timeout: Duration,
    /// What all connections together may hold.
    pub budgets: Budgets,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            incoming: Limits::default(),
            outbound: OutboundLimits::default(),
            keep_alive: KeepAlive::default(),
            close_timeout: Duration::from_secs(5),
            message_timeout: Duration::from_secs(30),
            budgets: Budgets::default(),
        }
    }
}

/// How a peer that is gone is found out.
///
/// Whatever arrives is a sign of life, and so is room that the peer makes for what it is owed. The
/// time that the handler takes does not count, since nothing is read then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// After how much silence a ping is sent. Default 30 s.
    pub ping_interval: Duration,
    /// How long after a ping the connection is given up, if the silence goes on. Default 20 s.
    pub pong_timeout: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(20),
        }
    }
}

/// One message of the client, for its [`Handler`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound<S = Unread> {
    /// A text.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// A message over [`Limits::max_message`] that was skipped.
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// What was seen of it.
        seen: Box<S>,
    },
    /// A message that the host had no memory for and skipped.
    NoRoom {
        /// Its size in bytes.
        size: u64,
        /// What was seen of it.
        seen: Box<S>,
        /// What is used up.
        exhausted: Exhausted,
    },
}

/// Who acts on what a client says.
///
/// Any `FnMut(Inbound) -> impl Future<Output = ()>` is one.
pub trait Handler: Send {
    /// Looks through messages that are skipped.
    type Skim: Skim;

    /// Acts on one message, and returns what remains to be done if that may have to wait. The next
    /// is read only after it; whoever awaits there holds the client back, and only this client.
    /// The connection has room for that future all the time, so a large one is better boxed.
    ///
    /// Not finished [`Settings::close_timeout`] after the connection began to close, it is dropped.
    fn on_message(
        &mut self,
        message: Inbound<Self::Skim>,
    ) -> Option<impl Future<Output = ()> + Send>;

    /// All that one read has brought is acted on. What is pushed meanwhile leaves with what was
    /// pushed before, unless a message had to wait.
    fn on_rest(&mut self) {}
}

impl<F, R> Handler for F
where
    F: FnMut(Inbound) -> R + Send,
    R: Future<Output = ()> + Send,
{
    type Skim = Unread;

    fn on_message(&mut self, message: Inbound) -> Option<impl Future<Output = ()> + Send> {
        Some(self(message))
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// The client closed it, with the code and reason given.
    ByPeer(Option<Close>),
    /// [`Outbound::close`] was called.
    ByHost {
        /// Whether the client confirmed in time.
        confirmed: bool,
    },
    /// The client broke the protocol and was told so.
    Violation(ProtocolError),
    /// The client did not answer a ping.
    Silent,
    /// The client began a message and did not end it in time.
    Unfinished,
    /// The stream ended or failed without a close frame; no error if it just ended.
    Lost(Option<io::Error>),
}

/// Why an upgraded connection cannot become a [`Socket`].
#[derive(Debug, Error)]
pub enum UpgradeError {
    /// It was not served as `TokioIo<TcpStream>`.
    #[error("the upgraded connection is not a TCP stream of this server")]
    NotTcp,
    /// The TCP connection is gone already.
    #[error("the upgraded connection is gone: {0}")]
    Gone(io::Error),
}

/// A connection that has been upgraded and not yet run.
#[derive(Debug)]
pub struct Socket<S = Unread> {
    /// Boxed, because a future that takes it over has room for it twice.
    reader: Box<Reader<S>>,
}

impl<S: Skim> Socket<S> {
    /// A connection over `stream`, of which `read_ahead` has already been read behind the
    /// handshake.
    ///
    /// Switches Nagle's algorithm off: coalescing is done here, where it is known what belongs
    /// together.
    ///
    /// # Errors
    /// The socket's options cannot be set: it is gone already.
    pub fn new(
        stream: TcpStream,
        read_ahead: Bytes,
        settings: impl Into<Arc<Settings>>,
    ) -> io::Result<Self> {
        let settings = settings.into();
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let now = Instant::now();
        let reader = Reader {
            read,
            // What is empty may still be a part of a buffer.
            read_ahead: (!read_ahead.is_empty()).then(|| Box::new(read_ahead)),
            decoder: Decoder::new(settings.incoming),
            watch: Watch::new(settings.keep_alive, now),
            last_heard: now,
            ending: None,
            heard_close: false,
            outbound: Released(Arc::new(Outbound::new(write, settings))),
        };
        Ok(Self {
            reader: Box::new(reader),
        })
    }

    /// A connection over the TCP stream of an HTTP/1 upgrade, with what hyper has read behind the
    /// request.
    ///
    /// # Errors
    /// The connection was not served as `TokioIo<TcpStream>`, or is gone.
    pub fn from_upgraded(
        upgraded: Upgraded,
        settings: impl Into<Arc<Settings>>,
    ) -> Result<Self, UpgradeError> {
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| UpgradeError::NotTcp)?;
        Self::new(parts.io.into_inner(), parts.read_buf, settings).map_err(UpgradeError::Gone)
    }

    /// The sending side, to be shared.
    pub fn outbound(&self) -> &Arc<Outbound> {
        &self.reader.outbound.0
    }

    /// Runs the connection to its end: reads for `handler`, writes what is pushed, answers pings,
    /// keeps alive, and does the closing handshake whoever starts it.
    ///
    /// When it returns or is dropped, the socket is closed and nothing is queued.
    pub fn run<H: Handler<Skim = S>>(self, handler: &mut H) -> impl Future<Output = Ended> + Send {
        // This and what it runs are no `async fn`: those have room for their arguments twice, and
        // every connection has room for all of them.
        let mut reader = self.reader;
        let outbound = reader.outbound.0.clone();
        async move {
            let ended = tokio::select! {
                biased;
                () = outbound.drive() => None,
                ended = reader.converse(handler) => Some(ended),
            };
            ended.unwrap_or_else(|| {
                // The peer gets no more time, and the kernel shall not keep what it did not read.
                reader.reset();
                let lost = || {
                    outbound
                        .take_failure()
                        .map(|error| Ended::Lost(Some(error)))
                };
                let unconfirmed = Ended::ByHost { confirmed: false };
                reader.ending.take().or_else(lost).unwrap_or(unconfirmed)
            })
        }
    }
}

/// The outbound side, given up however the connection's task ends.
#[derive(Debug)]
struct Released(Arc<Outbound>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// The reading part of the connection's task.
#[derive(Debug)]
struct Reader<S> {
    read: OwnedReadHalf,
    /// What was read before the connection was a WebSocket; most clients wait.
    read_ahead: Option<Box<Bytes>>,
    decoder: Decoder<S>,
    /// When to ping and when to give up.
    watch: Watch,
    last_heard: Instant,
    /// Why the connection is closing, once it is.
    ending: Option<Ended>,
    /// The peer has said the last word it will be listened to.
    heard_close: bool,
    /// Released last, however this ends.
    outbound: Released,
}

impl<S: Skim> Reader<S> {
    fn converse<H: Handler<Skim = S>>(
        &mut self,
        handler: &mut H,
    ) -> impl Future<Output = Ended> + Send {
        let read_ahead = self.read_ahead.take();
        async move {
            if let Some(read_ahead) = read_ahead {
                // Rare, and no reason to have room for it ever after.
                Box::pin(self.take_in(&read_ahead, handler)).await;
            }
            if let Err(lost) = self.listen(handler).await {
                return lost;
            }
            self.close_down().await
        }
    }

    /// Reads until one side closes, whose reason is then in `ending`.
    ///
    /// # Errors
    /// The connection ended without a closing handshake.
    fn listen<H: Handler<Skim = S>>(
        &mut self,
        handler: &mut H,
    ) -> impl Future<Output = Result<(), Ended>> + Send {
        let due = self.watch.due;
        async move {
            let mut alarm = pin!(sleep_until(due));
            while self.ending.is_none() {
                let chunk = tokio::select! {
                    biased;
                    () = self.outbound.0.closing() => {
                        self.ending = Some(Ended::ByHost { confirmed: false });
                        continue;
                    }
                    chunk = read(&mut self.read) => chunk?,
                    () = alarm.as_mut() => {
                        if self.is_overdue(Instant::now()) {
                            self.end_unfinished();
                            continue;
                        }
                        let keep_alive = self.outbound.0.settings().keep_alive;
                        let progress = self.outbound.0.progress().unwrap_or(self.last_heard);
                        let alive = self.last_heard.max(progress);
                        match self.watch.ring(keep_alive, Instant::now(), alive) {
                            Ring::Ping => self.outbound.0.push_control(Frame::ping()),
                            Ring::Wait => {}
                            Ring::GiveUp => {
                                self.reset();
                                return Err(Ended::Silent);
                            }
                        }
                        alarm.as_mut().reset(self.alarm());
                        continue;
                    }
                };
                let was_unfinished = self.decoder.unfinished_since().is_some();
                self.take_in(&chunk, handler).await;
                // Most messages come whole: then no alarm is set.
                if was_unfinished || self.decoder.unfinished_since().is_some() {
                    alarm.as_mut().reset(self.alarm());
                }
                // Somebody who sends all the time is not to wait for the alarm.
                if self.is_overdue(self.last_heard) {
                    self.end_unfinished();
                }
            }
            Ok(())
        }
    }

    /// When to look next whether the peer is there, and whether it has finished what it began.
    fn alarm(&self) -> Instant {
        let timeout = self.outbound.0.settings().message_timeout;
        let due = self.decoder.unfinished_since();
        let due = due.map(|since| after(since, timeout));
        due.map_or(self.watch.due, |due| due.min(self.watch.due))
    }

    fn is_overdue(&self, now: Instant) -> bool {
        let timeout = self.outbound.0.settings().message_timeout;
        let since = self.decoder.unfinished_since();
        since.is_some_and(|since| now >= after(since, timeout))
    }

    /// Closes on a peer that does not end what it has begun.
    fn end_unfinished(&mut self) {
        if self.ending.is_none() {
            let close = Close::new(CloseCode::POLICY, "a message took too long");
            self.outbound.0.end(Some(&close), Unsent::Sent);
            self.ending = Some(Ended::Unfinished);
        }
    }

    /// Acts on all that `bytes` complete.
    ///
    /// What the handler pushes meanwhile leaves together, at the end or when the handler has to
    /// wait, whichever is first.
    fn take_in<H: Handler<Skim = S>>(
        &mut self,
        mut input: &[u8],
        handler: &mut H,
    ) -> impl Future<Output = ()> + Send {
        let outbound = self.outbound.0.clone();
        async move {
            let mut hold = Hold::new(&outbound);
            let budget = &outbound.budgets().inputs;
            loop {
                let message = match self.decoder.decode_within(&mut input, budget) {
                    Ok(None) => break,
                    Ok(Some(Incoming::NoRoom {
                        size,
                        seen,
                        exhausted,
                    })) => Inbound::NoRoom {
                        size,
                        seen,
                        exhausted,
                    },
                    Ok(Some(Incoming::Text(text))) => Inbound::Text(text),
                    Ok(Some(Incoming::Binary(bytes))) => Inbound::Binary(bytes),
                    Ok(Some(Incoming::TooLarge { size, seen })) => Inbound::TooLarge { size, seen },
                    Ok(Some(Incoming::Ping(payload))) => {
                        self.outbound.0.push_control(Frame::pong(&payload));
                        continue;
                    }
                    Ok(Some(Incoming::Pong(_))) => continue,
                    Ok(Some(Incoming::Close(close))) => {
                        let echo = close.as_ref().map(|close| Close::from(close.code()));
                        self.outbound.0.end(echo.as_ref(), Unsent::Sent);
                        self.ending = Some(Ended::ByPeer(close));
                        self.heard_close = true;
                        break;
                    }
                    Err(error) => {
                        let close = Close::new(error.close_code(), error.to_string());
                        self.outbound.0.end(Some(&close), Unsent::Sent);
                        self.ending = Some(Ended::Violation(error));
                        self.heard_close = true;
                        break;
                    }
                };
                if let Some(remains) = handler.on_message(message) {
                    // Boxed, because messages seldom have to wait.
                    Box::pin(hold.during(remains)).await;
                }
                if self.outbound.0.is_closing() {
                    self.listen_for_close(input);
                    break;
                }
            }
            handler.on_rest();
            // The silence of a peer that nobody listened to means nothing.
            self.last_heard = Instant::now();
            self.decoder.note_unfinished(self.last_heard);
        }
    }

    /// Finishes the closing handshake that `ending` began; the close frame is queued.
    async fn close_down(&mut self) -> Ended {
        let (mut written, mut finished) = (false, false);
        loop {
            if written && self.heard_close && !finished {
                finished = true;
                self.outbound.0.finish();
            }
            tokio::select! {
                biased;
                () = self.outbound.0.flushed(), if !written => written = true,
                chunk = read(&mut self.read) => match chunk {
                    Ok(chunk) => self.listen_for_close(&chunk),
                    // A peer that has said all it has to say may still listen.
                    Err(Ended::Lost(None)) if !written => break self.outbound.0.flushed().await,
                    Err(_) => break,
                },
            }
        }
        match self.ending.take() {
            Some(Ended::ByHost { .. }) | None => Ended::ByHost {
                confirmed: self.heard_close,
            },
            Some(ended) => ended,
        }
    }

    /// Looks for the peer's close frame in `bytes`; what else is in there comes too late.
    fn listen_for_close(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        let outbound = self.outbound.0.clone();
        let budget = &outbound.budgets().inputs;
        while !self.heard_close {
            match self.decoder.decode_within(&mut input, budget) {
                Ok(None) => break,
                Ok(Some(Incoming::Close(_))) | Err(_) => self.heard_close = true,
                Ok(Some(_)) => {}
            }
        }
    }

    /// Makes the kernel drop what is unsent when the socket is closed, instead of keeping it for a
    /// peer that does not read.
    fn reset(&self) {
        // A socket that is already gone needs no reset.
        let _gone = self.read.as_ref().set_zero_linger();
    }
}

/// Holds pushes back while messages of one read are handled.
struct Hold<'a> {
    outbound: &'a Outbound,
    held: bool,
}

impl<'a> Hold<'a> {
    fn new(outbound: &'a Outbound) -> Self {
        outbound.begin_cork();
        Self {
            outbound,
            held: true,
        }
    }

    /// Runs `future`; should it have to wait, nothing else waits with it.
    async fn during(&mut self, future: impl Future<Output = ()>) {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let poll = future.as_mut().poll(cx);
            if poll.is_pending() {
                self.end();
            }
            poll
        })
        .await;
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.held) {
            self.outbound.end_cork();
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// When to ping and when to give up.
#[derive(Debug)]
struct Watch {
    /// When the ping was sent that is not answered.
    pinged: Option<Instant>,
    due: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Ring {
    Ping,
    Wait,
    GiveUp,
}

impl Watch {
    fn new(keep_alive: KeepAlive, now: Instant) -> Self {
        Self {
            pinged: None,
            due: after(now, keep_alive.ping_interval),
        }
    }

    /// What to do at `now`, after `due`, if the last sign of life was at `alive`.
    fn ring(&mut self, keep_alive: KeepAlive, now: Instant, alive: Instant) -> Ring {
        let KeepAlive {
            ping_interval,
            pong_timeout,
        } = keep_alive;
        self.pinged = self.pinged.filter(|pinged| alive <= *pinged);
        let (ring, due) = match self.pinged.map(|pinged| after(pinged, pong_timeout)) {
            Some(deadline) if now >= deadline => (Ring::GiveUp, deadline),
            Some(deadline) => (Ring::Wait, deadline),
            None if now >= after(alive, ping_interval) => {
                self.pinged = Some(now);
                (Ring::Ping, after(now, pong_timeout))
            }
            None => (Ring::Wait, after(alive, ping_interval)),
        };
        // A look at least once an interval, so that a peer that answers is pinged again in time.
        self.due = due.min(after(now, ping_interval));
        ring
    }
}

/// `delay` after `start`, or so late that it never comes.
fn after(start: Instant, delay: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);
    start.checked_add(delay).unwrap_or(start + FAR)
}

thread_local! {
    /// The read buffer of this worker, while it is not lent.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// What one read brought, in the worker's buffer, which goes back when it is dropped.
struct Chunk {
    buffer: Box<[u8]>,
    len: usize,
}

impl Chunk {
    fn empty() -> Self {
        let free = BUFFER.try_with(Cell::take).ok().flatten();
        // A worker whose buffer is lent to a connection that waits for its handler needs another.
        let buffer = free.unwrap_or_else(|| vec![0; READ_BUFFER].into());
        Self { buffer, len: 0 }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that ends has no more use for it.
        let _ending = BUFFER.try_with(|free| free.set(Some(buffer)));
    }
}

/// The next bytes of the stream, at least one.
///
/// # Errors
/// The stream has ended or failed.
async fn read(stream: &mut OwnedReadHalf) -> Result<Chunk, Ended> {
    poll_fn(|cx| {
        let mut chunk = Chunk::empty();
        let mut buffer = ReadBuf::new(&mut chunk.buffer);
        let result = std::task::ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
        chunk.len = buffer.filled().len();
        Poll::Ready(match result {
            Ok(()) if chunk.len > 0 => Ok(chunk),
            Ok(()) => Err(Ended::Lost(None)),
            Err(error) => Err(Ended::Lost(Some(error))),
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: KeepAlive = KeepAlive {
        ping_interval: Duration::from_secs(30),
        pong_timeout: Duration::from_secs(20),
    };

    #[test]
    fn a_silent_peer_is_pinged_and_then_given_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(KEEP_ALIVE, start);
        assert_eq!(watch.due, at(30));
        assert_eq!(watch.ring(KEEP_ALIVE, at(30), start), Ring::Ping);
        assert_eq!(watch.due, at(50));
        assert_eq!(watch.ring(KEEP_ALIVE, at(50), start), Ring::GiveUp);
    }

    #[test]
    fn a_sign_of_life_starts_the_watch_anew() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(KEEP_ALIVE, start);
        assert_eq!(watch.ring(KEEP_ALIVE, at(30), at(12)), Ring::Wait);
        assert_eq!(watch.due, at(42));
        assert_eq!(watch.ring(KEEP_ALIVE, at(42), at(12)), Ring::Ping);
        assert_eq!(watch.ring(KEEP_ALIVE, at(62), at(43)), Ring::Wait);
        assert_eq!(watch.due, at(73));
        assert_eq!(watch.ring(KEEP_ALIVE, at(73), at(43)), Ring::Ping);
    }

    #[test]
    fn a_long_time_out_does_not_delay_the_next_ping() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let keep_alive = KeepAlive {
            pong_timeout: Duration::from_secs(100),
            ..KEEP_ALIVE
        };
        let mut watch = Watch::new(keep_alive, start);
        assert_eq!(watch.ring(keep_alive, at(30), start), Ring::Ping);
        assert_eq!(watch.due, at(60));
        assert_eq!(watch.ring(keep_alive, at(60), at(31)), Ring::Wait);
        assert_eq!(watch.ring(keep_alive, at(61), at(31)), Ring::Ping);
        assert_eq!(watch.ring(keep_alive, at(91), at(31)), Ring::Wait);
        assert_eq!(watch.ring(keep_alive, at(161), at(31)), Ring::GiveUp);
    }

    #[test]
    fn an_interval_beyond_time_is_never_due() {
        let keep_alive = KeepAlive {
            ping_interval: Duration::MAX,
            ..KEEP_ALIVE
        };
        let start = Instant::now();
        let watch = Watch::new(keep_alive, start);
        assert!(watch.due > start + Duration::from_secs(60 * 60 * 24));
    }

    #[test]
    fn a_worker_lends_one_buffer_again_and_again() {
        let first = Chunk::empty().buffer.as_ptr();
        assert_eq!(Chunk::empty().buffer.as_ptr(), first);
        let lent = Chunk::empty();
        assert_ne!(Chunk::empty().buffer.as_ptr(), lent.buffer.as_ptr());
    }
}

//! The TCP stream under an HTTP connection: what hyper does not know of time, and of clients
//! that have closed their side.
//!
//! hyper reads and writes through a [`Wire`]. It ends a connection that rests too long between
//! two requests, and one whose request's head takes too long once it has begun; and it keeps
//! an eye on the client while a request is answered. One that has closed its side may wait for
//! the answer all the same (RFC 9112, section 9.6), or be gone, which to TCP is alike until
//! something is written. So it is asked for a sign of life: what is sent to a client that is
//! gone comes back as a reset, and the request ends with its connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::Version;
use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::upgrade::Upgraded;
use tidegate_base::sync::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// An interim answer (RFC 9110, section 15.2.1): who did not ask for leave to send a body reads
/// over it.
const SIGN_OF_LIFE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How long a connection may be in which state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the first byte of a request's head to its last; also from the beginning of the
    /// connection to the first byte.
    pub(super) head: Duration,
    /// From an answer to the next request.
    pub(super) rest: Duration,
    /// From the end of the client's side until it is asked for a sign of life.
    pub(super) half_closed: Duration,
}

/// How far the conversation on a connection is, as the wire, the requests and the answers tell
/// each other.
pub(super) struct Conversation {
    place: Mutex<Place>,
    /// The client has closed its side and has not been asked since whether it is there.
    wants_sign_of_life: AtomicBool,
    /// The stream, once hyper has given it up in the middle of a head.
    given_up: Mutex<Option<TcpStream>>,
    /// What has to wait until the answer has begun.
    later: Mutex<Option<Later>>,
}

type Later = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing has come since the connection began.
    New { since: Instant },
    /// Nothing has come since the last answer.
    AtRest { since: Instant },
    /// The head of a request has begun to come.
    InHead { since: Instant },
    /// A request is worked on, and nothing of the answer is written.
    Asked(Version),
    /// Its answer is written.
    Answering,
}

impl Conversation {
    pub(super) fn new() -> Arc<Conversation> {
        let since = Instant::now();
        Arc::new(Conversation {
            place: Mutex::new(Place::New { since }),
            wants_sign_of_life: AtomicBool::new(false),
            given_up: Mutex::new(None),
            later: Mutex::new(None),
        })
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock()
    }

    /// The head of a request is there.
    pub(super) fn asked(&self, version: Version) {
        *self.place() = Place::Asked(version);
    }

    /// The head of its answer is.
    pub(super) fn answering(&self) {
        *self.place() = Place::Answering;
        let mut later = self.later.lock();
        if let Some(later) = later.take() {
            tokio::spawn(later);
        }
    }

    /// The connection is over: what waits for an answer is given up, and nothing waits for one
    /// from here on.
    fn end(&self) {
        let mut later = self.later.lock();
        // Nobody is asked any more.
        let since = Instant::now();
        *self.place() = Place::AtRest { since };
        let given_up = later.take();
        drop(later);
        drop(given_up);
    }

    /// Does something once the answer to the request has begun.
    pub(super) fn once_answering(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Locked while the place is looked at, so that what comes to be answering takes it.
        let mut later = self.later.lock();
        match *self.place() {
            Place::Asked(_) => *later = Some(Box::pin(work)),
            _ => drop(tokio::spawn(work)),
        }
    }

    /// The answer is written, or given up.
    pub(super) fn answered(&self) {
        let since = Instant::now();
        *self.place() = Place::AtRest { since };
    }

    /// The rest of a request's body has been read, perhaps long after the answer.
    pub(super) fn body_read(&self) {
        let mut place = self.place();
        // What came was not the head of another request.
        if let Place::InHead { .. } | Place::AtRest { .. } = *place {
            let since = Instant::now();
            *place = Place::AtRest { since };
        }
    }

    /// The stream of a connection that is over, on which the client may still be sending the
    /// head of a request that is refused.
    pub(super) fn take_given_up(&self) -> Option<TcpStream> {
        let mut given_up = self.given_up.lock();
        given_up.take()
    }

    /// Whether something should be written, so that a client that is gone is found out. Once
    /// for each time that this is asked for.
    pub(super) fn take_wants_sign_of_life(&self) -> bool {
        // Most of the time a read is all that this costs.
        self.wants_sign_of_life.load(Ordering::Relaxed)
            && self.wants_sign_of_life.swap(false, Ordering::Relaxed)
    }
}

/// Ends a conversation when it is dropped. What waits for an answer may hold the conversation that
/// holds it, and would stay for ever where none comes.
pub(super) struct Ends(pub(super) Arc<Conversation>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A TCP stream, as hyper uses it.
pub(super) struct Wire {
    /// There until the end.
    stream: Option<TcpStream>,
    conversation: Arc<Conversation>,
    patience: Patience,
    /// Set for a moment that is not later than the next that counts.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Something waits to be written.
    is_blocked: bool,
    /// The client has closed its side.
    half_closed: Option<HalfClosed>,
    /// What the client is told whose request's head takes too long.
    too_late: fn() -> Bytes,
}

/// What is known of a client that has closed its side.
#[derive(Clone, Copy, Debug)]
struct HalfClosed {
    look_at: Instant,
    was_asked: bool,
}

impl Wire {
    pub(super) fn new(
        stream: TcpStream,
        conversation: Arc<Conversation>,
        patience: Patience,
        too_late: fn() -> Bytes,
    ) -> Wire {
        Wire {
            stream: Some(stream),
            conversation,
            patience,
            alarm: None,
            is_blocked: false,
            half_closed: None,
            too_late,
        }
    }

    /// The stream of a connection that has been upgraded, and what hyper has read of it beyond
    /// the request; none of a connection that was not served through a wire.
    pub(super) fn of_upgraded(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
        let mut parts = upgraded.downcast::<Wire>().ok()?;
        Some((parts.io.stream.take()?, parts.read_buf))
    }

    fn stream(&mut self) -> &mut TcpStream {
        let stream = self.stream.as_mut();
        stream.expect("it is taken out when nobody reads or writes any more")
    }

    /// Whether the moment has come; if not, the task is woken then.
    fn is_due(&mut self, moment: Instant, cx: &mut Context<'_>) -> bool {
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(moment)));
        // One that is early is set again when it rings, which saves setting it each time.
        if moment < alarm.deadline() {
            alarm.as_mut().reset(moment);
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if moment <= alarm.deadline() {
                return true;
            }
            alarm.as_mut().reset(moment);
        }
        false
    }

    /// Waits for the next request as long as there is patience for it.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let place = *self.conversation.place();
        let moment = match place {
            Place::New { since } | Place::InHead { since } => since + self.patience.head,
            Place::AtRest { since } => since + self.patience.rest,
            Place::Asked(_) | Place::Answering => return Poll::Pending,
        };
        // A client that still reads the last answer is not at rest; how long it may take for
        // that, the kernel watches.
        if self.is_blocked || !self.is_due(moment, cx) {
            return Poll::Pending;
        }
        if let Place::InHead { .. } = place {
            // As far as that goes without waiting.
            let late = (self.too_late)();
            let _ = self.stream().try_write(&late);
        }
        Poll::Ready(())
    }

    /// Looks after the client while a request is answered.
    ///
    /// # Errors
    /// It is gone.
    fn look_after(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let place = *self.conversation.place();
        let version = match place {
            Place::Asked(version) => Some(version),
            Place::Answering => None,
            Place::New { .. } | Place::AtRest { .. } | Place::InHead { .. } => return Ok(()),
        };
        if self.half_closed.is_none() {
            if version.is_none() {
                // A stream of events may be there for hours, and needs none.
                self.alarm = None;
            }
            let mut byte = [0];
            match self.stream().poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
                Poll::Ready(Ok(0)) => {}
                // The next request, which waits for its turn.
                Poll::Ready(Ok(_)) | Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
            }
            self.half_closed = Some(HalfClosed {
                look_at: Instant::now() + self.patience.half_closed,
                was_asked: false,
            });
            if version.is_none() {
                self.ask_through_answer(cx);
            }
        }
        while let Some(mut state) = self.half_closed
            && self.is_due(state.look_at, cx)
        {
            if let Some(error) = self.stream().take_error()? {
                return Err(error);
            }
            state.look_at = Instant::now() + self.patience.half_closed;
            if !std::mem::replace(&mut state.was_asked, true) {
                match version {
                    // An older client would take it for the answer (RFC 9110, section 15.2).
                    Some(version) if version < Version::HTTP_11 => {}
                    Some(_) => drop(self.stream().try_write(SIGN_OF_LIFE)),
                    None => self.ask_through_answer(cx),
                }
            }
            self.half_closed = Some(state);
        }
        Ok(())
    }

    /// Has the answer write something, if it can.
    fn ask_through_answer(&self, cx: &Context<'_>) {
        let wanted = &self.conversation.wants_sign_of_life;
        wanted.store(true, Ordering::Relaxed);
        cx.waker().wake_by_ref();
    }

    fn note_written<T>(&mut self, written: Poll<T>) -> Poll<T> {
        self.is_blocked = written.is_pending();
        written
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let place = *self.conversation.place();
        // To close it now would reset it, and the client might lose what it was told (RFC 9112,
        // section 9.6).
        if let Place::InHead { .. } = place {
            *self.conversation.given_up.lock() = self.stream.take();
        }
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: nothing is uninitialized through either view, and what is filled is what was
        // written.
        let mut into = ReadBuf::uninit(unsafe { buffer.as_mut() });
        let read = Pin::new(self.stream()).poll_read(cx, &mut into);
        let length = into.filled().len();
        // SAFETY: the stream has written so many bytes.
        unsafe { buffer.advance(length) };
        match read {
            Poll::Ready(Ok(())) if length > 0 => {
                let mut place = self.conversation.place();
                if let Place::New { .. } | Place::AtRest { .. } = *place {
                    let since = Instant::now();
                    *place = Place::InHead { since };
                }
                Poll::Ready(Ok(()))
            }
            // Without a byte it is the end of what is read.
            Poll::Pending => self.poll_patience(cx).map(Ok),
            ended => ended,
        }
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream()).poll_write(cx, bytes);
        self.note_written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream()).poll_write_vectored(cx, buffers);
        self.note_written(written)
    }

    /// hyper asks for this whenever it has done what it could and nothing is left to write,
    /// also while it waits for an answer.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(self.stream()).poll_flush(cx))?;
        Poll::Ready(self.look_after(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_connection_that_ends_before_its_answer_leaves_nothing_behind() {
        let conversation = Conversation::new();
        let ends = Ends(conversation.clone());
        conversation.asked(Version::HTTP_11);
        let held = conversation.clone();
        conversation.once_answering(async move { held.body_read() });
        let left = Arc::downgrade(&conversation);
        drop((conversation, ends));
        assert!(left.upgrade().is_none());
    }

    #[tokio::test]
    async fn nothing_waits_for_the_answer_of_a_connection_that_is_over() {
        let conversation = Conversation::new();
        conversation.asked(Version::HTTP_11);
        drop(Ends(conversation.clone()));
        let (done, is_done) = oneshot::channel();
        conversation.once_answering(async move { done.send(()).expect("it is waited for") });
        assert_eq!(is_done.await, Ok(()));
    }
}

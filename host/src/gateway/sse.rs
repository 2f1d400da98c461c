//! Streams of server-sent events: the HTTP form of subscriptions.
//!
//! A stream is a receiver like a WebSocket, but not a connection: handlers are not told
//! of it, and events that are meant for single connections do not reach it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use tidegate_core::{ActorKey, Failure};

use crate::actor::{self, Actors};
use crate::auth::limits::AddressPermit;
use crate::fanout::{Close, Dialect, Message, Offer, Outlet, Refresh, sse};
use crate::metrics::Connected;
use crate::rooms::Client;

/// The sending side of a stream.
pub(super) struct SseOutlet {
    id: Arc<str>,
    user: Option<Arc<str>>,
    dialect: Dialect,
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    missed: Option<Arc<dyn Refresh>>,
    closed: bool,
    /// What is queued is the last.
    ending: bool,
    waker: Option<Waker>,
}

impl SseOutlet {
    pub(super) fn new(
        id: Arc<str>,
        user: Option<Arc<str>>,
        dialect: Dialect,
        max_bytes: usize,
    ) -> SseOutlet {
        SseOutlet {
            id,
            user,
            dialect,
            max_bytes,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) {
        let mut state = self.state();
        state.closed = true;
        state.queue = VecDeque::new();
        state.missed = None;
        state.wake();
    }

    /// Says why, behind what is queued, and ends.
    fn finish(&self, failure: &Failure) {
        let mut state = self.state();
        if state.closed || state.ending {
            return;
        }
        let last = Bytes::from(sse("error", None, &failure.http_body()));
        state.bytes += last.len();
        state.queue.push_back(last);
        state.missed = None;
        state.ending = true;
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Outlet for SseOutlet {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn offer(&self, message: &Message) -> Offer {
        let bytes = message.server_sent_event(self.dialect);
        let mut state = self.state();
        if state.closed || state.ending {
            return Offer::Gone;
        }
        if state.bytes >= self.max_bytes {
            return Offer::Full;
        }
        state.bytes += bytes.len();
        state.queue.push_back(bytes.clone());
        state.wake();
        Offer::Taken
    }

    fn refresh_later(&self, source: Arc<dyn Refresh>) {
        let mut state = self.state();
        state.missed = Some(source);
        state.wake();
    }

    fn close(&self, _: Close) {
        self.cut();
    }

    fn client(&self) -> Client {
        Client {
            connection: None,
            user: self.user.clone(),
        }
    }

    fn end(&self, _: &ActorKey, failure: &Failure) {
        self.finish(failure);
    }
}

/// The receiving side: the body of a response. Dropping it ends the subscription.
pub(super) struct SseStream {
    outlet: Arc<SseOutlet>,
    actors: Arc<Actors>,
    key: ActorKey,
    stream: actor::Stream,
    /// Ends the stream, and perhaps says why.
    ended: Pin<Box<dyn Future<Output = Option<Failure>> + Send>>,
    _held: Held,
}

/// What a stream holds as long as it is open.
pub(super) type Held = (Connected, Option<AddressPermit>);

impl SseStream {
    pub(super) fn new(
        outlet: Arc<SseOutlet>,
        actors: Arc<Actors>,
        key: ActorKey,
        stream: actor::Stream,
        ended: impl Future<Output = Option<Failure>> + Send + 'static,
        held: Held,
    ) -> SseStream {
        SseStream {
            outlet,
            actors,
            key,
            stream,
            ended: Box::pin(ended),
            _held: held,
        }
    }
}

impl Stream for SseStream {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let missed = {
                let mut state = self.outlet.state();
                if let Some(bytes) = state.queue.pop_front() {
                    state.bytes -= bytes.len();
                    return Poll::Ready(Some(Ok(bytes)));
                }
                if state.closed || state.ending {
                    return Poll::Ready(None);
                }
                state.waker = Some(cx.waker().clone());
                state.missed.take()
            };
            match missed {
                Some(source) => source.refresh(&self.outlet.id),
                None => break,
            }
        }
        if let Poll::Ready(why) = self.ended.as_mut().poll(cx) {
            self.outlet.cut();
            let last = why.map(|failure| Ok(Bytes::from(sse("error", None, &failure.http_body()))));
            return Poll::Ready(last);
        }
        Poll::Pending
    }
}

impl Drop for SseStream {
    fn drop(&mut self) {
        self.outlet.cut();
        self.actors
            .unsubscribe(&self.key, self.stream, &self.outlet.id);
    }
}

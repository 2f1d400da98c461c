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

use super::caller::{expired, has_expired};
use super::relief::Listed;
use crate::actor::{self, Actors};
use crate::auth::limits::AddressPermit;
use crate::budget::{Budget, Chunks};
use crate::fanout::{Close, Dialect, Message, Offer, Outlet, Refresh, sse};
use crate::metrics::Connected;
use crate::rooms::Client;
use crate::ws::OutboundLimits;

/// What something that is queued costs beside its bytes.
const PLACE_COST: usize = 2 * size_of::<Bytes>();

/// The sending side of a stream.
pub(super) struct SseOutlet {
    id: Arc<str>,
    user: Option<Arc<str>>,
    dialect: Dialect,
    limits: OutboundLimits,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// What has been taken for the places of what is queued; the bytes are taken once for all
    /// receivers.
    taken: Chunks,
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
        limits: OutboundLimits,
        budget: Arc<Budget>,
    ) -> SseOutlet {
        SseOutlet {
            id,
            user,
            dialect,
            limits,
            budget,
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
        state.bytes = 0;
        state.missed = None;
        // It only gives back.
        let _ = state.taken.fit(0, &self.budget);
        state.wake();
    }

    /// Says why, in the place of what is queued, and ends.
    fn finish_now(&self, failure: &Failure) {
        let mut state = self.state();
        if !state.closed {
            state.queue.clear();
            state.bytes = 0;
            // It only gives back.
            let _ = state.taken.fit(0, &self.budget);
            state.ending = false;
        }
        drop(state);
        self.finish(failure);
    }

    /// What it has not read yet, in bytes.
    pub(super) fn queued_bytes(&self) -> usize {
        self.state().bytes
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
        let mut state = self.state();
        if state.closed || state.ending {
            return Offer::Gone;
        }
        let frames = state.queue.len();
        if state.bytes >= self.limits.max_bytes || frames >= self.limits.max_frames {
            return Offer::Full;
        }
        let Ok(bytes) = message.server_sent_event(self.dialect, &self.budget) else {
            return Offer::Full;
        };
        let cost = (frames + 1) * PLACE_COST;
        if state.taken.fit(cost, &self.budget).is_err() {
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
    /// When the token of whoever reads is good no longer.
    refused_from_ms: Option<u64>,
    _held: Held,
}

/// What a stream holds as long as it is open.
pub(super) type Held = (Connected, Option<AddressPermit>, Listed);

impl SseStream {
    pub(super) fn new(
        outlet: Arc<SseOutlet>,
        actors: Arc<Actors>,
        key: ActorKey,
        stream: actor::Stream,
        ended: impl Future<Output = Option<Failure>> + Send + 'static,
        refused_from_ms: Option<u64>,
        held: Held,
    ) -> SseStream {
        SseStream {
            outlet,
            actors,
            key,
            stream,
            ended: Box::pin(ended),
            refused_from_ms,
            _held: held,
        }
    }
}

impl Stream for SseStream {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Before what is queued, which has no end where much happens.
        if has_expired(self.refused_from_ms) {
            self.refused_from_ms = None;
            self.outlet.finish_now(&expired());
        }
        loop {
            let missed = {
                let mut state = self.outlet.state();
                if let Some(bytes) = state.queue.pop_front() {
                    state.bytes -= bytes.len();
                    let cost = state.queue.len() * PLACE_COST;
                    // It only gives back.
                    let _ = state.taken.fit(cost, &self.outlet.budget);
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

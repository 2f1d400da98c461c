//! Streams of server-sent events: the HTTP form of subscriptions.
//!
//! A stream is a receiver like a WebSocket, but not a connection: handlers are not told
//! of it, and events that are meant for single connections do not reach it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tidegate_actor::{self as actor, Actors};
use tidegate_auth::limits::AddressPermit;
use tidegate_base::budget::{Budget, Chunks, Exhausted};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::{ActorKey, Client, Failure};
use tidegate_delivery::{Close, Dialect, Offer, Outlet, SharedFrame, Source, sse};
use tidegate_ws::OutboundLimits;
use tokio::time::{Sleep, sleep};

use super::caller::has_expired;
use super::metrics::Connected;
use super::relief::Listed;

/// What something that is queued costs beside its bytes.
const PLACE_COST: usize = 2 * size_of::<Bytes>();

/// Time until what found no room among what all are owed is tried again.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(100);

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
    missed: Option<Arc<dyn Source>>,
    /// Something found no room among what all are owed since that was last looked after.
    found_no_room: bool,
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
        self.state.lock()
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
    fn no_room(&mut self, exhausted: Exhausted) -> Offer {
        self.found_no_room = true;
        Offer::NoRoom(exhausted)
    }

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

    fn offer(&self, message: &SharedFrame) -> Offer {
        let mut state = self.state();
        if state.closed || state.ending {
            return Offer::Gone;
        }
        let frames = state.queue.len();
        if state.bytes >= self.limits.max_bytes || frames >= self.limits.max_frames {
            return Offer::Full;
        }
        let bytes = match message.server_sent_event(self.dialect, &self.budget) {
            Ok(bytes) => bytes,
            Err(exhausted) => return state.no_room(exhausted),
        };
        let cost = (frames + 1) * PLACE_COST;
        if let Err(exhausted) = state.taken.fit(cost, &self.budget) {
            return state.no_room(exhausted);
        }
        state.bytes += bytes.len();
        state.queue.push_back(bytes.clone());
        state.wake();
        Offer::Taken
    }

    fn refresh_later(&self, source: Arc<dyn Source>) {
        let mut state = self.state();
        state.missed = Some(source);
        state.wake();
    }

    fn make_room(&self) {
        self.budget.make_room();
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

    fn end(&self, _: &dyn Source, failure: &Failure) {
        self.finish(failure);
    }
}

/// Takes out what is queued, and makes up for what was missed.
struct Reading {
    outlet: Arc<SseOutlet>,
    /// What was missed is not tried again before this ends.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Reading {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let missed = {
                let mut state = self.outlet.state();
                if let Some(bytes) = state.queue.pop_front() {
                    state.bytes -= bytes.len();
                    let cost = state.queue.len() * PLACE_COST;
                    // It only gives back.
                    let _ = state.taken.fit(cost, &self.outlet.budget);
                    return Poll::Ready(Some(bytes));
                }
                if state.closed || state.ending {
                    return Poll::Ready(None);
                }
                state.waker = Some(cx.waker().clone());
                if std::mem::take(&mut state.found_no_room) {
                    self.pause = Some(Box::pin(sleep(NO_ROOM_PAUSE)));
                }
                if let Some(pause) = &mut self.pause {
                    if pause.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    self.pause = None;
                }
                state.missed.take()
            };
            match missed {
                Some(source) => source.refresh(&self.outlet.id),
                None => return Poll::Pending,
            }
        }
    }
}

/// The receiving side: the body of a response. Dropping it ends the subscription.
pub(super) struct SseStream {
    reading: Reading,
    actors: Arc<Actors>,
    key: ActorKey,
    stream: actor::Stream,
    /// Ends the stream, and perhaps says why.
    ended: Pin<Box<dyn Future<Output = Option<Failure>> + Send>>,
    /// When the token of whoever reads is good no longer.
    refused_from_ms: Option<u64>,
    _lease: StreamLease,
}

/// What a stream holds as long as it is open.
pub(super) type StreamLease = (Connected, Option<AddressPermit>, Listed);

impl SseStream {
    pub(super) fn new(
        outlet: Arc<SseOutlet>,
        actors: Arc<Actors>,
        key: ActorKey,
        stream: actor::Stream,
        ended: impl Future<Output = Option<Failure>> + Send + 'static,
        refused_from_ms: Option<u64>,
        lease: StreamLease,
    ) -> SseStream {
        let reading = Reading {
            outlet,
            pause: None,
        };
        SseStream {
            reading,
            actors,
            key,
            stream,
            ended: Box::pin(ended),
            refused_from_ms,
            _lease: lease,
        }
    }
}

impl Stream for SseStream {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Before what is queued, which has no end where much happens.
        if has_expired(self.refused_from_ms) {
            self.refused_from_ms = None;
            self.reading.outlet.finish_now(&Failure::auth_expired());
        }
        if let Poll::Ready(next) = self.reading.poll_next(cx) {
            return Poll::Ready(next.map(Ok));
        }
        if let Poll::Ready(why) = self.ended.as_mut().poll(cx) {
            self.reading.outlet.cut();
            let last = why.map(|failure| Ok(Bytes::from(sse("error", None, &failure.http_body()))));
            return Poll::Ready(last);
        }
        Poll::Pending
    }
}

impl Drop for SseStream {
    fn drop(&mut self) {
        let outlet = &self.reading.outlet;
        outlet.cut();
        self.actors.unsubscribe(&self.key, self.stream, &outlet.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidegate_delivery::Content;

    use super::*;

    /// A text that is too long for what is left, and how often it was sent anew.
    struct Text {
        refreshed: AtomicUsize,
        to: Arc<SseOutlet>,
        itself: Weak<Text>,
    }

    #[derive(Debug)]
    struct Long;

    impl Content for Long {
        fn text(&self, dialect: Dialect) -> String {
            self.server_sent_event(dialect)
        }

        fn server_sent_event(&self, _: Dialect) -> String {
            "x".repeat(600_000)
        }
    }

    impl Source for Text {
        fn refresh(&self, _: &str) {
            self.refreshed.fetch_add(1, Ordering::Relaxed);
            let offered = self.to.offer(&SharedFrame::new(Long));
            if let Offer::NoRoom(_) = offered {
                self.to.refresh_later(self.itself.upgrade().unwrap());
            }
        }

        fn name_in(&self, failure: Failure) -> Failure {
            failure
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_finds_no_room_tries_again_after_a_pause() {
        let budget = Budget::new("test", 1 << 20);
        let limits = OutboundLimits::default();
        let (id, dialect) = ("s".into(), Dialect::Plain);
        let outlet = SseOutlet::new(id, None, dialect, limits, budget.clone());
        let outlet = Arc::new(outlet);
        let source = Arc::new_cyclic(|itself| Text {
            refreshed: AtomicUsize::new(0),
            to: outlet.clone(),
            itself: itself.clone(),
        });
        let others = budget.share(300_000).unwrap();
        outlet.refresh_later(source.clone());
        let mut reading = Reading {
            outlet,
            pause: None,
        };
        let mut next = std::pin::pin!(std::future::poll_fn(|cx| reading.poll_next(cx)));
        let waited = tokio::time::timeout(NO_ROOM_PAUSE * 7 / 2, next.as_mut()).await;
        assert!(waited.is_err());
        assert_eq!(source.refreshed.load(Ordering::Relaxed), 4);
        drop(others);
        let bytes = next.await.expect("it goes on");
        assert_eq!(bytes.len(), 600_000);
        assert_eq!(source.refreshed.load(Ordering::Relaxed), 5);
    }
}

//! The body of an answer, as it is written: it tells the conversation when it ends, and a
//! stream of events speaks now and then, also when there is nothing to say.
//!
//! Proxies close what is silent for too long, and a client that is gone is only found out by
//! writing to it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior};

use super::wire::Conversation;

/// How often a silent stream of events shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A comment (WHATWG HTML, section 9.2.5), between two events.
const COMMENT: &[u8] = b": keep-alive\n\n";

/// The media type of a stream of events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// A body that is written.
pub(super) struct Answer {
    body: Body,
    /// Only of a stream of events, whose frames are whole events.
    keep_alive: Option<Box<Interval>>,
    conversation: Arc<Conversation>,
}

impl Answer {
    /// The response as it is written from now on.
    pub(super) fn begin(
        response: Response,
        conversation: Arc<Conversation>,
    ) -> hyper::Response<Answer> {
        conversation.answering();
        let kind = response.headers().get(CONTENT_TYPE);
        let keep_alive = kind.is_some_and(|kind| kind == EVENT_STREAM).then(|| {
            let mut keep_alive = tokio::time::interval(KEEP_ALIVE);
            keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
            keep_alive.reset();
            Box::new(keep_alive)
        });
        response.map(|body| Answer {
            body,
            keep_alive,
            conversation,
        })
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        let answer = &mut *self;
        let Some(keep_alive) = &mut answer.keep_alive else {
            return frame;
        };
        if frame.is_ready() {
            keep_alive.reset();
            return frame;
        }
        if answer.conversation.take_wants_sign_of_life() || keep_alive.poll_tick(cx).is_ready() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.conversation.answered();
    }
}

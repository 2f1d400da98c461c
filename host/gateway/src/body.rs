//! The body of a request, read to its end also where the request is refused before.
//!
//! A server that closes a socket while its client still writes resets the connection, and the
//! client may lose the answer that it was sent (RFC 9112, section 9.6). So what a handler
//! leaves unread is read over, within limits. `serve` wraps every body in this.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::EXPECT;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tidegate_base::budget::{Budget, Exhausted, FREE, Share};
use tidegate_core::Failure;

use super::Shared;
use super::wire::Conversation;

/// How much of a body is read until others have their turn, in bytes.
const STRETCH: usize = 64 << 10;

/// A body whose rest is read over once nobody reads it any more.
pub(super) struct ReadOver {
    incoming: Option<Incoming>,
    shared: Arc<Shared>,
    /// The client sends it, or has been told to. One that waits for leave may send it all the
    /// same, after a while.
    is_sent: bool,
    conversation: Arc<Conversation>,
}

impl ReadOver {
    pub(super) fn new(
        incoming: Incoming,
        headers: &HeaderMap,
        shared: Arc<Shared>,
        conversation: Arc<Conversation>,
    ) -> ReadOver {
        ReadOver {
            incoming: Some(incoming),
            shared,
            is_sent: !headers.contains_key(EXPECT),
            conversation,
        }
    }
}

impl Body for ReadOver {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // To read it is to give leave.
        self.is_sent = true;
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ReadOver {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        if incoming.is_end_stream() {
            return;
        }
        let reading = read_over(incoming, self.shared.clone());
        let conversation = self.conversation.clone();
        let reading = async move {
            reading.await;
            conversation.body_read();
        };
        match self.is_sent {
            true => drop(tokio::spawn(reading)),
            // To read it before the answer would be to ask for it.
            false => self.conversation.once_answering(reading),
        }
    }
}

/// A whole body, and what it has taken of the budget, if it is not small.
///
/// # Errors
/// It is longer than `limit`, it ends early, or there is no room for it.
pub(super) async fn read_within(
    mut body: axum::body::Body,
    limit: usize,
    budget: &Arc<Budget>,
) -> Result<(Vec<u8>, Option<Share>), Failure> {
    let mut bytes = Vec::new();
    let mut share = None;
    let mut at_a_stretch = 0;
    while let Some(frame) = body.frame().await {
        let early = |_| Failure::body_ended_early();
        let Ok(data) = frame.map_err(early)?.into_data() else {
            continue;
        };
        let needed = bytes.len() + data.len();
        if needed > limit {
            return Err(Failure::request_too_large(limit as u64));
        }
        if needed > bytes.capacity() {
            let end = body.size_hint().exact();
            let end = end.map_or(limit, |rest| (needed as u64).saturating_add(rest) as usize);
            let room = needed.max(end.min(limit).min(2 * bytes.capacity()));
            if room > FREE {
                let share = share.get_or_insert_with(|| budget.empty_share());
                share.fit(room).map_err(Exhausted::failure)?;
            }
            bytes.reserve_exact(room - bytes.len());
        }
        bytes.extend_from_slice(&data);
        at_a_stretch += data.len();
        if at_a_stretch >= STRETCH {
            at_a_stretch = 0;
            // What comes fast must not keep others waiting until it ends.
            tokio::task::yield_now().await;
        }
    }
    Ok((bytes, share))
}

async fn read_over(mut incoming: Incoming, shared: Arc<Shared>) {
    let settings = &shared.settings;
    let mut left = settings.max_discard_bytes;
    let reading = async {
        while let Some(Ok(frame)) = incoming.frame().await {
            let read = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let patience = Duration::from_millis(settings.close_timeout_ms);
    // Past a limit the connection is closed with what is still on its way.
    tokio::select! {
        _late = tokio::time::timeout(patience, reading) => {}
        () = shared.stopped() => {}
    }
}

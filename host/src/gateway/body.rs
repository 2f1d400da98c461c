//! The body of a request, read to its end also by a request that is refused before.
//!
//! A server that closes a socket while its client still writes resets the connection, and the
//! client may lose the answer that it was sent (RFC 9112, section 9.6). So what a handler
//! leaves unread is read over, within limits. `serve` wraps every body in this.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How much is read over of what nobody wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

/// A body whose rest is read over once nobody reads it any more.
pub(super) struct ReadOver {
    incoming: Option<Incoming>,
    limits: Limits,
}

impl ReadOver {
    pub(super) fn new(incoming: Incoming, limits: Limits) -> ReadOver {
        ReadOver {
            incoming: Some(incoming),
            limits,
        }
    }

    /// Reads over nothing: a client that waits for leave to send its body (`Expect`) never sends one
    /// that is refused.
    pub(super) fn as_it_is(incoming: Incoming) -> ReadOver {
        let none = Limits {
            bytes: 0,
            time: Duration::ZERO,
        };
        ReadOver::new(incoming, none)
    }
}

impl Body for ReadOver {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
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
        if self.limits.bytes > 0 && !incoming.is_end_stream() {
            tokio::spawn(read_over(incoming, self.limits));
        }
    }
}

async fn read_over(mut incoming: Incoming, limits: Limits) {
    let mut left = limits.bytes;
    let reading = async {
        while let Some(Ok(frame)) = incoming.frame().await {
            let read = frame.data_ref().map_or(0, |data| data.remaining() as u64);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Past either limit the connection is closed with what is still on its way.
    let _ = tokio::time::timeout(limits.time, reading).await;
}

//! A guest's standard output and error: whole lines to the host's log, labelled with the
//! actor, and no more of them per turn than the limit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tidegate_base::sync::Mutex;
use tidegate_core::{ActorKey, RequestId};
use tokio::io::AsyncWrite;
use tracing::info;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// Longest piece of output without a line break that is kept together.
const MAX_LINE: usize = 8 << 10;

#[derive(Clone, Copy, Debug)]
pub(super) enum Channel {
    Stdout,
    Stderr,
}

/// One of the two streams of an instance.
#[derive(Clone)]
pub(super) struct GuestLog {
    shared: Arc<Mutex<Shared>>,
    channel: Channel,
}

/// What the two streams share: the label and the account of the running turn.
struct Shared {
    component: Arc<str>,
    actor: Option<ActorKey>,
    turn: String,
    request: Option<RequestId>,
    left: usize,
    lines: [Vec<u8>; 2],
}

impl GuestLog {
    /// The two streams of a new instance.
    pub(super) fn pair(component: Arc<str>) -> (GuestLog, GuestLog) {
        let shared = Arc::new(Mutex::new(Shared {
            component,
            actor: None,
            turn: String::new(),
            request: None,
            left: MAX_LINE,
            lines: [Vec::new(), Vec::new()],
        }));
        let stream = |channel| GuestLog {
            shared: shared.clone(),
            channel,
        };
        (stream(Channel::Stdout), stream(Channel::Stderr))
    }

    /// Labels what follows and opens a new account of `limit` bytes.
    pub(super) fn begin_turn(
        &self,
        actor: &ActorKey,
        turn: &str,
        request: Option<&RequestId>,
        limit: usize,
    ) {
        let mut shared = self.lock();
        if shared.actor.as_ref() != Some(actor) {
            shared.actor = Some(actor.clone());
        }
        shared.turn.clear();
        shared.turn.push_str(turn);
        shared.request = request.cloned();
        shared.left = limit;
    }

    /// Writes out lines that the guest has not ended.
    pub(super) fn end_turn(&self) {
        let mut shared = self.lock();
        for channel in [Channel::Stdout, Channel::Stderr] {
            shared.end_line(channel);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock()
    }

    fn take(&self, bytes: &[u8]) {
        let mut shared = self.lock();
        if shared.left == 0 {
            return;
        }
        let kept = bytes.len().min(shared.left);
        shared.left -= kept;
        for &byte in &bytes[..kept] {
            if byte == b'\n' {
                shared.end_line(self.channel);
            } else {
                let line = &mut shared.lines[self.channel as usize];
                line.push(byte);
                if line.len() >= MAX_LINE {
                    shared.end_line(self.channel);
                }
            }
        }
        if shared.left == 0 {
            shared.end_line(self.channel);
            shared.lines[self.channel as usize]
                .extend_from_slice(b"(further output of this turn is dropped)");
            shared.end_line(self.channel);
        }
    }
}

impl Shared {
    fn end_line(&mut self, channel: Channel) {
        let line = &mut self.lines[channel as usize];
        if line.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(line);
        let stream = match channel {
            Channel::Stdout => "stdout",
            Channel::Stderr => "stderr",
        };
        match &self.actor {
            Some(actor) => {
                let request = self.request.as_ref().map(tracing::field::display);
                info!(target: "guest", component = %self.component, %actor, turn = %self.turn, request, stream, "{text}");
            }
            None => info!(target: "guest", component = %self.component, stream, "{text}"),
        }
        line.clear();
    }
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestLog {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_LINE)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestLog {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestLog {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

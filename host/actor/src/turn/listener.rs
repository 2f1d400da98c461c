//! Somebody over HTTP who hears parts of a result ahead of it.
//!
//! Invariant: what waits for a listener is bounded in bytes, and taken from what there is for all
//! receivers; whoever has more to say waits.

use std::sync::Arc;
use std::time::Duration;

use tidegate_base::budget::{Budget, Share};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Parts that wait for a listener.
const PARTS_AHEAD: usize = 64;
/// What they may be long, in bytes; a single one may be longer.
const BYTES_AHEAD: u32 = 256 << 10;
/// How often it is looked whether there is room again where all receivers together are owed too
/// much.
const PAUSE: Duration = Duration::from_millis(5);

/// The speaker's side.
#[derive(Clone)]
pub struct Listener {
    parts: mpsc::Sender<Chunk>,
    ahead: Arc<Semaphore>,
    budget: Arc<Budget>,
}

/// A part of a result, and the room that it takes until it is dropped.
pub struct Chunk {
    /// JSON text.
    pub text: String,
    _ahead: Option<OwnedSemaphorePermit>,
    _share: Share,
}

impl Listener {
    /// A listener, and what it hears.
    pub fn new(budget: Arc<Budget>) -> (Listener, mpsc::Receiver<Chunk>) {
        let (parts, received) = mpsc::channel(PARTS_AHEAD);
        let listener = Listener {
            parts,
            ahead: Arc::new(Semaphore::new(BYTES_AHEAD as usize)),
            budget,
        };
        (listener, received)
    }

    /// Sends a part once the listener has heard enough of what was before it. One that is gone
    /// hears nothing.
    pub(super) async fn send(&self, text: String) {
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let ahead = self
            .ahead
            .clone()
            .acquire_many_owned(bytes.min(BYTES_AHEAD));
        let ahead = tokio::select! {
            ahead = ahead => ahead.ok(),
            () = self.parts.closed() => return,
        };
        let share = loop {
            match self.budget.share(text.len()) {
                Ok(share) => break share,
                Err(_) if self.is_gone() => return,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let part = Chunk {
            text,
            _ahead: ahead,
            _share: share,
        };
        // One that is gone wants no more.
        let _ = self.parts.send(part).await;
    }

    /// Whether nobody listens any more.
    pub(super) fn is_gone(&self) -> bool {
        self.parts.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_does_not_read_holds_no_more_than_the_bound() {
        let budget = Budget::new("test", 1 << 30);
        let (listener, mut received) = Listener::new(budget.clone());
        let speaking = tokio::spawn(async move {
            for _ in 0..8 {
                listener.send("x".repeat(100 << 10)).await;
            }
        });
        let mut count = 0;
        while let Some(chunk) = received.recv().await {
            count += chunk.text.len() >> 10;
            assert!(budget.used() <= (BYTES_AHEAD as usize) + (100 << 10));
        }
        speaking.await.unwrap();
        assert_eq!((count, budget.used()), (800, 0));
    }

    #[tokio::test]
    async fn nobody_speaks_for_ever_to_one_who_is_gone() {
        let (listener, received) = Listener::new(Budget::new("test", 0));
        drop(received);
        listener.send("x".to_owned()).await;
    }
}

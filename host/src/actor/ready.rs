//! An actor with work in its queue that nobody has begun.
//!
//! A task for each call costs its making, and often a wake-up of another core. Whoever brings
//! work to an actor at rest may run it instead, until the work has to wait; `gateway` does so
//! for what one read of a socket has brought.
//!
//! Invariant: what is ready is run, if not here, then as a task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Waker};

use tracing::error;

/// A queue's consumer that has not begun.
#[must_use = "dropped, it becomes a task at once"]
pub struct Ready(Option<Consumer>);

type Consumer = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Ready {
    pub(super) fn new(consumer: impl Future<Output = ()> + Send + 'static) -> Ready {
        // Boxed before it becomes a task, because tokio would copy all of it several times.
        Ready(Some(Box::pin(consumer)))
    }

    /// Runs it on this thread. What has to wait goes on as a task.
    pub fn run(mut self) {
        let Some(mut consumer) = self.0.take() else {
            return;
        };
        // What wakes it before it is a task is not missed: a task begins by polling.
        let mut nobody = Context::from_waker(Waker::noop());
        let poll = catch_unwind(AssertUnwindSafe(|| consumer.as_mut().poll(&mut nobody)));
        match poll {
            Ok(poll) if poll.is_ready() => {}
            Ok(_) => self.0 = Some(consumer),
            // As it would end a task: the panic is logged by its hook, and the consumer has
            // seen to the actor as it was dropped.
            Err(_) => error!("the consumer of an actor's queue has panicked"),
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some(consumer) = self.0.take() {
            tokio::spawn(consumer);
        }
    }
}

//! An actor with work in its queue that nobody has begun.
//!
//! A task for each call costs its making, and often a wake-up of another core. Whoever brings
//! work to an actor at rest may run it instead, until the work has to wait; `gateway` does so
//! for what one read of a socket has brought.
//!
//! Invariants: what is ready is run, if not here, then as a task; whoever runs it here is back
//! soon.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tracing::error;

thread_local! {
    /// Until when this thread may run a consumer where its work arrived, while it does.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A queue's consumer that has not begun.
#[must_use = "dropped, it becomes a task at once"]
pub struct Ready(Option<Consumer>);

type Consumer = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Ready {
    pub(super) fn new(consumer: impl Future<Output = ()> + Send + 'static) -> Ready {
        // Boxed before it becomes a task, because tokio would copy all of it several times.
        Ready(Some(Box::pin(consumer)))
    }

    /// Runs these on this thread for so long, but for the turn that is under way then. What is
    /// left, or has to wait, goes on as tasks.
    pub(super) fn run_all(all: Vec<Ready>, patience: Duration) {
        let mut all = all.into_iter();
        let Some(first) = all.next() else {
            return;
        };
        let until = Instant::now() + patience;
        first.run(until);
        for ready in all {
            // Dropped, it is a task.
            if Instant::now() < until {
                ready.run(until);
            }
        }
    }

    fn run(mut self, until: Instant) {
        let Some(mut consumer) = self.0.take() else {
            return;
        };
        // What wakes it before it is a task is not missed: a task begins by polling.
        let mut nobody = Context::from_waker(Waker::noop());
        UNTIL.set(Some(until));
        let poll = catch_unwind(AssertUnwindSafe(|| consumer.as_mut().poll(&mut nobody)));
        UNTIL.set(None);
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

/// Between two items: waits, so that it becomes a task, if it has been run here for long.
pub(super) async fn make_way() {
    let until = UNTIL.get();
    if until.is_some_and(|until| Instant::now() >= until) {
        // A task that is polled goes on at once.
        poll_fn(|_| match UNTIL.get() {
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    const SHORT: Duration = Duration::from_micros(200);
    /// So long that no test is as slow.
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn what_need_not_wait_has_run_when_this_returns() {
        let ran = Arc::new(AtomicBool::new(false));
        let runs = ran.clone();
        let ready = Ready::new(async move {
            make_way().await;
            runs.store(true, Ordering::Relaxed);
        });
        Ready::run_all(vec![ready], LONG);
        assert!(ran.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_waits_goes_on_as_a_task() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (going, doing) = (go.clone(), done.clone());
        let all = vec![Ready::new(async move {
            going.notified().await;
            tokio::task::yield_now().await;
            doing.notify_one();
        })];
        Ready::run_all(all, LONG);
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn what_is_dropped_is_run_all_the_same() {
        let done = Arc::new(Notify::new());
        let doing = done.clone();
        drop(Ready::new(async move { doing.notify_one() }));
        done.notified().await;
    }

    #[tokio::test]
    async fn nobody_is_kept_for_long() {
        // Each of these is late after its first item.
        let (ran, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let all = [(); 3].map(|()| {
            let (ran, done) = (ran.clone(), done.clone());
            Ready::new(async move {
                for _ in 0..2 {
                    let began = Instant::now();
                    while began.elapsed() < SHORT {}
                    make_way().await;
                    if ran.fetch_add(1, Ordering::Relaxed) + 1 == 6 {
                        done.notify_one();
                    }
                }
            })
        });
        Ready::run_all(all.into(), SHORT);
        // The first was in its first item; the others have not begun.
        assert_eq!(ran.load(Ordering::Relaxed), 0);
        done.notified().await;
    }

    #[tokio::test]
    async fn a_panic_ends_nobody_else() {
        let ran = Arc::new(AtomicBool::new(false));
        let runs = ran.clone();
        let panics = Ready::new(async { panic!("as planned") });
        let other = Ready::new(async move { runs.store(true, Ordering::Relaxed) });
        Ready::run_all(vec![panics, other], LONG);
        while !ran.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        // It is not taken to be here any more.
        make_way().await;
    }
}

//! Inline running: work begun where it arrives, on the thread that brought it.
//!
//! A task for each call costs its making, and often a wake-up of another core. Whoever brings
//! work to an actor at rest may run it instead, until the work has to wait; `gateway` does so
//! for what one read of a socket has brought. Where others wait for a lane, only work of a
//! component that has had no more than they have is run so.
//!
//! Invariants: what is ready is run, if not here, then on a lane; whoever runs it here is back
//! soon.

use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tidegate_base::clock::instant;
use tidegate_base::fair::Share;
use tracing::error;

use super::lanes::{Consumer, Lanes};

thread_local! {
    /// Until when this thread may run a consumer where its work arrived, while it does.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A queue's consumer that has not begun.
#[must_use = "dropped, it goes to a lane at once"]
pub struct InlineRun {
    consumer: Option<Consumer>,
    /// Whose time it takes.
    share: Arc<Share>,
    lanes: Arc<Lanes>,
}

impl InlineRun {
    pub(super) fn new(consumer: Consumer, share: Arc<Share>, lanes: Arc<Lanes>) -> InlineRun {
        InlineRun {
            consumer: Some(consumer),
            share,
            lanes,
        }
    }

    /// Runs these on this thread for so long, but for the turn that is under way then. What is
    /// left, or has to wait, goes on in lanes.
    pub(super) fn run_all(all: Vec<InlineRun>, patience: Duration) {
        if all.is_empty() {
            return;
        }
        let mut now = instant();
        let until = now + patience;
        for ready in all {
            // Dropped, it goes to a lane.
            if now < until && ready.lanes.lets_pass(&ready.share) {
                now = ready.run(now, until);
            }
        }
    }

    /// Runs it until the one moment from the other on, and returns what time it is then.
    fn run(mut self, now: Instant, until: Instant) -> Instant {
        let Some(mut consumer) = self.consumer.take() else {
            return now;
        };
        // What wakes it before it is in a lane is not missed: a lane begins by polling.
        let mut nobody = Context::from_waker(Waker::noop());
        UNTIL.set(Some(until));
        let poll = catch_unwind(AssertUnwindSafe(|| consumer.poll(&mut nobody)));
        UNTIL.set(None);
        let after = instant();
        self.lanes.charge(&self.share, after - now);
        match poll {
            Ok(poll) if poll.is_ready() => {}
            Ok(_) => self.consumer = Some(consumer),
            // As it would end in a lane: the panic is logged by its hook, and the consumer has
            // seen to the actor as it was dropped.
            Err(_) => error!("the consumer of an actor's queue has panicked"),
        }
        after
    }
}

impl Drop for InlineRun {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            self.lanes.spawn(self.share.clone(), consumer);
        }
    }
}

/// Between two items: waits, so that it goes to a lane, if it has been run here for long.
pub(super) async fn pause_inline() {
    let until = UNTIL.get();
    if until.is_some_and(|until| instant() >= until) {
        // In a lane it goes on at once.
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

    fn ready(consumer: impl Future<Output = ()> + Send + 'static, lanes: &Arc<Lanes>) -> InlineRun {
        InlineRun::new(Consumer::new(|| consumer), Arc::default(), lanes.clone())
    }

    const SHORT: Duration = Duration::from_micros(200);
    /// So long that no test is as slow.
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn what_need_not_wait_has_run_when_this_returns() {
        let ran = Arc::new(AtomicBool::new(false));
        let runs = ran.clone();
        let work = async move {
            pause_inline().await;
            runs.store(true, Ordering::Relaxed);
        };
        InlineRun::run_all(vec![ready(work, &Lanes::new())], LONG);
        assert!(ran.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_waits_goes_on_in_a_lane() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (going, doing) = (go.clone(), done.clone());
        let work = async move {
            going.notified().await;
            tokio::task::yield_now().await;
            doing.notify_one();
        };
        InlineRun::run_all(vec![ready(work, &Lanes::new())], LONG);
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn what_is_dropped_is_run_all_the_same() {
        let done = Arc::new(Notify::new());
        let doing = done.clone();
        drop(ready(async move { doing.notify_one() }, &Lanes::new()));
        done.notified().await;
    }

    #[tokio::test]
    async fn nobody_is_kept_for_long() {
        // Each of these is late after its first item.
        let (ran, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let lanes = Lanes::new();
        let all = [(); 3].map(|()| {
            let (ran, done) = (ran.clone(), done.clone());
            let work = async move {
                for _ in 0..2 {
                    let began = Instant::now();
                    while began.elapsed() < SHORT {}
                    pause_inline().await;
                    if ran.fetch_add(1, Ordering::Relaxed) + 1 == 6 {
                        done.notify_one();
                    }
                }
            };
            ready(work, &lanes)
        });
        InlineRun::run_all(all.into(), SHORT);
        // The first was in its first item; the others have not begun.
        assert_eq!(ran.load(Ordering::Relaxed), 0);
        done.notified().await;
    }

    #[tokio::test]
    async fn where_others_wait_only_who_has_had_little_is_run_here() {
        let (lanes, hog) = (Lanes::new(), Arc::<Share>::default());
        let (ran, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let work = || {
            let (ran, done) = (ran.clone(), done.clone());
            async move {
                ran.fetch_add(1, Ordering::Relaxed);
                done.notify_one();
            }
        };
        // One waits that was not charged anything.
        let of_hog = work();
        let of_hog = || of_hog;
        drop(ready(work(), &lanes));
        lanes.charge(&hog, Duration::from_secs(1));
        let all = vec![
            InlineRun::new(Consumer::new(of_hog), hog, lanes.clone()),
            ready(work(), &lanes),
        ];
        InlineRun::run_all(all, LONG);
        assert_eq!(ran.load(Ordering::Relaxed), 1);
        while ran.load(Ordering::Relaxed) < 3 {
            done.notified().await;
        }
    }

    #[tokio::test]
    async fn a_panic_ends_nobody_else() {
        let ran = Arc::new(AtomicBool::new(false));
        let runs = ran.clone();
        let lanes = Lanes::new();
        let panics = ready(async { panic!("as planned") }, &lanes);
        let other = ready(async move { runs.store(true, Ordering::Relaxed) }, &lanes);
        InlineRun::run_all(vec![panics, other], LONG);
        while !ran.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        // It is not taken to be here any more.
        pause_inline().await;
    }
}

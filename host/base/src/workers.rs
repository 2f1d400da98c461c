//! Threads for long work of the host's own: applying, comparing, checking and encoding large
//! documents, which cannot be interrupted to let others run.
//!
//! They have a lower priority than those that serve. Whoever hands work over waits for it, while
//! its thread serves others. What waits for a thread is ordered by [`crate::fair`].
//!
//! Invariant: one component never has all of them, so another's work begins when a piece of its
//! own ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::fair::{FairQueue, Share};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How much they yield to those that serve (nice(2)).
const NICENESS: i32 = 5;

/// The threads, which begin with the first work and end with this.
pub struct Workers {
    threads: usize,
    began: OnceLock<()>,
    shared: Arc<Shared>,
}

struct Shared {
    waiting: FairQueue<Job>,
    state: Mutex<State>,
    /// Something waits, or has ended.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whose work is under way, once for each piece.
    busy: Vec<Arc<Share>>,
    closed: bool,
}

struct Job {
    share: Arc<Share>,
    work: Box<dyn FnOnce() + Send>,
}

impl Workers {
    /// So many threads, at least two.
    pub fn new(threads: usize) -> Workers {
        Workers {
            threads: threads.max(2),
            began: OnceLock::new(),
            shared: Arc::new(Shared {
                waiting: FairQueue::default(),
                state: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Has work done, as this share's, and waits for it. None if it has panicked. Once it has
    /// begun it goes on when nobody waits any longer.
    pub async fn run<T: Send + 'static>(
        &self,
        share: &Arc<Share>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.began.get_or_init(|| self.begin());
        let (told, done) = oneshot::channel();
        let job = Job {
            share: share.clone(),
            work: Box::new(move || {
                // What nobody waits for is not begun.
                if !told.is_closed() {
                    drop(told.send(work()));
                }
            }),
        };
        self.shared.waiting.push(share, job);
        // Under its lock, so that no thread goes to sleep between looking and this.
        drop(self.shared.state());
        self.shared.changed.notify_one();
        done.await.ok()
    }

    fn begin(&self) {
        for number in 0..self.threads {
            let (shared, at_most) = (self.shared.clone(), self.threads - 1);
            let begun = std::thread::Builder::new()
                .name(format!("work-{number}"))
                .spawn(move || work(&shared, at_most));
            if let Err(error) = begun {
                warn!(%error, "a thread for long work does not begin");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Does what waits, of each share no more than so much at once.
fn work(shared: &Shared, at_most: usize) {
    // On Linux this concerns the calling thread alone. Without it they work as well, only less
    // politely.
    let _ = rustix::process::nice(NICENESS);
    let mut state = shared.state();
    while !state.closed {
        let has_room = |share: &Arc<Share>| {
            let busy = state.busy.iter().filter(|busy| Arc::ptr_eq(busy, share));
            busy.count() < at_most
        };
        let Some(job) = shared.waiting.pop_where(has_room) else {
            state = shared.changed.wait(state);
            continue;
        };
        state.busy.push(job.share.clone());
        drop(state);
        let began = Instant::now();
        // The panic is logged by its hook, and whoever waits is told by what was dropped.
        if catch_unwind(AssertUnwindSafe(job.work)).is_err() {
            error!("long work of the host has panicked");
        }
        shared.waiting.charge(&job.share, began.elapsed());
        state = shared.state();
        let place = state
            .busy
            .iter()
            .position(|busy| Arc::ptr_eq(busy, &job.share));
        if let Some(place) = place {
            state.busy.swap_remove(place);
        }
        // Others of this share may have waited for that.
        shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn work_is_done_and_its_result_comes_back() {
        let workers = Workers::new(2);
        let share = Arc::default();
        let all = (0..100).map(|n| workers.run(&share, move || n * n));
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all, (0..100).map(|n| Some(n * n)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn work_of_one_share_leaves_a_thread_to_others() {
        let workers = Workers::new(2);
        let (hog, other) = (Arc::default(), Arc::default());
        let (go, going) = mpsc::channel::<()>();
        let going = Arc::new(Mutex::new(going));
        let held = (0..10).map(|_| {
            let going = going.clone();
            workers.run(&hog, move || going.lock().recv().is_ok())
        });
        let held = futures_util::future::join_all(held);
        let rest = async {
            // Each waits behind nothing but its own.
            for n in 0..10 {
                assert_eq!(workers.run(&other, move || n).await, Some(n));
            }
            (0..10).for_each(|_| go.send(()).unwrap());
        };
        let (held, ()) = tokio::join!(held, rest);
        assert_eq!(held, vec![Some(true); 10]);
    }

    #[tokio::test]
    async fn a_panic_is_told_and_ends_no_thread() {
        let workers = Workers::new(2);
        let share = Arc::default();
        for _ in 0..5 {
            let failed: Option<()> = workers.run(&share, || panic!("as planned")).await;
            assert_eq!(failed, None);
        }
        assert_eq!(workers.run(&share, || 1).await, Some(1));
    }
}

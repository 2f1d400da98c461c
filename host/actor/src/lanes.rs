//! Where consumers of actors' queues run: on a few tasks of the runtime, the lanes, however many
//! actors have work.
//!
//! A task for each would put all of them into the runtime's one queue, ahead of every socket and
//! of every other component. Here they wait in a [`FairQueue`], by component; a lane runs one
//! until it has to wait, and lets the runtime's other tasks run in between.
//!
//! Invariants: a consumer that has begun is polled until it is done, whatever another does; no
//! lane keeps a thread for longer than one consumer's poll and [`BATCH`] take; where there are
//! several lanes and components, work whose pieces are long leaves one lane to the others; of a
//! component's consumers that are ready few have begun, however many wait, since each may hold an
//! instance, unless those go on and on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tidegate_base::clock::{instant, thread_time};
use tidegate_base::fair::{FairQueue, LONG, Share};
use tidegate_base::sync::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{coop, yield_now};
use tracing::error;

/// For how long a lane runs consumers, but for the one that is under way then, until it lets the
/// runtime's other tasks run.
pub(super) const BATCH: Duration = Duration::from_micros(200);

/// A consumer of an actor's queue.
pub(super) enum Consumer {
    /// It has not begun, and takes little room: crowds of them wait. None while it begins.
    WaitGraph(Option<Box<dyn FnOnce() -> Begun + Send>>),
    /// It has.
    Begun(Begun),
}

type Begun = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Consumer {
    /// One that begins so, when it is polled.
    pub(super) fn new<F>(begin: impl FnOnce() -> F + Send + 'static) -> Consumer
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Consumer::WaitGraph(Some(Box::new(move || Box::pin(begin()))))
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Consumer::WaitGraph(begin) = self
            && let Some(begin) = begin.take()
        {
            *self = Consumer::Begun(begin());
        }
        match self {
            Consumer::Begun(begun) => begun.as_mut().poll(context),
            // It has panicked as it began.
            Consumer::WaitGraph(_) => Poll::Ready(()),
        }
    }
}

/// The lanes of a host's actors, and who waits for one.
pub(super) struct Lanes {
    ready: FairQueue<Arc<Task>>,
    /// Tells a lane that rests of work.
    work: Notify,
    /// How many there are, once they have begun.
    began: OnceLock<usize>,
    /// How many of them run work whose pieces are long.
    long: AtomicUsize,
    closed: AtomicBool,
}

/// A consumer that has begun, or waits to.
struct Task {
    /// None once it is done. Locked by the lane that polls it alone.
    consumer: Mutex<Option<Consumer>>,
    state: AtomicU8,
    share: Arc<Share>,
    lanes: Arc<Lanes>,
}

/// It waits for something.
const WAITING: u8 = 0;
/// It waits for a lane.
const READY: u8 = 1;
/// A lane polls it.
const RUNNING: u8 = 2;
/// A lane polls it, and what it waits for has come meanwhile.
const WOKEN: u8 = 3;
/// It has ended.
const DONE: u8 = 4;

impl Lanes {
    /// Lanes that begin with the first consumer.
    pub(super) fn new() -> Arc<Lanes> {
        Arc::new(Lanes {
            ready: FairQueue::default(),
            work: Notify::new(),
            began: OnceLock::new(),
            long: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Runs a consumer, as this share's. Must be called within a tokio runtime.
    pub(super) fn spawn(self: &Arc<Self>, share: Arc<Share>, consumer: Consumer) {
        self.began.get_or_init(|| {
            let lanes = Handle::current().metrics().num_workers();
            for _ in 0..lanes {
                tokio::spawn(lane(Lane(self.clone())));
            }
            lanes
        });
        let has_begun = matches!(consumer, Consumer::Begun(_));
        let task = Task {
            consumer: Mutex::new(Some(consumer)),
            state: AtomicU8::new(READY),
            share,
            lanes: self.clone(),
        };
        self.enter(Arc::new(task), has_begun);
    }

    /// Whether work of this share may run where it arrives, ahead of what waits for a lane.
    pub(super) fn lets_pass(&self, share: &Share) -> bool {
        self.ready.lets_pass(share)
    }

    /// Charges a share what its work has taken where it arrived. If that was long, the system has
    /// let others run, or what is left goes on here, where it is known for what it is.
    pub(super) fn charge(&self, share: &Share, took: Duration) {
        self.ready.charge(share, took.min(LONG));
    }

    /// Who comes next. Where several components have work, those whose pieces are long never have
    /// all lanes, so that the others wait for no slice of theirs.
    fn next(&self) -> Option<Arc<Task>> {
        let lanes = self.began.get().copied().unwrap_or(1);
        let is_full = self.long.load(Ordering::Relaxed) + 1 >= lanes.max(2);
        match is_full && self.ready.is_contended() {
            true => self.ready.pop_where(|share| !share.is_long()),
            false => self.ready.pop(),
        }
    }

    fn enter(&self, task: Arc<Task>, has_begun: bool) {
        let share = task.share.clone();
        match has_begun {
            true => self.ready.push_begun(&share, task),
            false => self.ready.push(&share, task),
        }
        if self.closed.load(Ordering::Acquire) {
            return drop(self.ready.take_all());
        }
        self.work.notify_one();
    }

    /// Ends the lanes. Consumers that wait are dropped, as those of a runtime that ends are.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.work.notify_waiters();
        self.work.notify_one();
        drop(self.ready.take_all());
    }
}

/// Closes the lanes when the runtime drops them.
struct Lane(Arc<Lanes>);

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn lane(lane: Lane) {
    let lanes = &lane.0;
    let mut began = instant();
    while !lanes.closed.load(Ordering::Acquire) {
        let Some(task) = lanes.next() else {
            lanes.work.notified().await;
            began = instant();
            continue;
        };
        let is_long = task.share.is_long();
        if is_long {
            lanes.long.fetch_add(1, Ordering::Relaxed);
        }
        if !lanes.ready.is_empty() {
            // For another lane, if one rests.
            lanes.work.notify_one();
        }
        let (begun, before) = (instant(), thread_time());
        task.clone().run();
        // Not what the system has let others do meanwhile.
        let ran = thread_time().saturating_sub(before);
        let now = instant();
        lanes.ready.charge_standing(&task.share, ran, now - begun);
        if is_long {
            lanes.long.fetch_sub(1, Ordering::Relaxed);
        }
        if now - began >= BATCH || !coop::has_budget_remaining() {
            yield_now().await;
            began = instant();
        }
    }
}

impl Task {
    fn run(self: Arc<Self>) {
        self.state.store(RUNNING, Ordering::Release);
        let waker = Waker::from(self.clone());
        let mut place = self.consumer.lock();
        let Some(consumer) = place.as_mut() else {
            return;
        };
        let poll = catch_unwind(AssertUnwindSafe(|| {
            consumer.poll(&mut Context::from_waker(&waker))
        }));
        let is_done = match poll {
            Ok(Poll::Ready(())) => true,
            Ok(Poll::Pending) => false,
            // The panic is logged by its hook, and the consumer sees to the actor as it is
            // dropped.
            Err(_) => {
                error!("the consumer of an actor's queue has panicked");
                true
            }
        };
        if is_done {
            self.state.store(DONE, Ordering::Release);
            let consumer = place.take();
            drop(place);
            return drop(consumer);
        }
        drop(place);
        let rests =
            self.state
                .compare_exchange(RUNNING, WAITING, Ordering::AcqRel, Ordering::Acquire);
        if rests.is_err() {
            self.state.store(READY, Ordering::Release);
            self.lanes.clone().enter(self, true);
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let step = |state| match state {
            WAITING => Some(READY),
            RUNNING => Some(WOKEN),
            // It is to be polled, or done.
            _ => None,
        };
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        if before == Ok(WAITING) {
            self.lanes.clone().enter(self, true);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.clone().wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tidegate_base::fair::MANY_BEGUN;
    use tokio::sync::oneshot;

    use super::*;

    fn boxed(work: impl Future<Output = ()> + Send + 'static) -> Consumer {
        Consumer::new(|| work)
    }

    /// Ends a poll as a guest's turn does that is interrupted: to be polled again at once. The
    /// runtime's own `yield_now` waits until the runtime has looked at its sockets.
    async fn interrupted() {
        let mut is_over = false;
        std::future::poll_fn(|context| {
            if is_over {
                return Poll::Ready(());
            }
            is_over = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_that_begins_ends_also_what_waits_and_what_yields() {
        let (lanes, done) = (Lanes::new(), Arc::new(AtomicUsize::new(0)));
        let (ended, all_ended) = oneshot::channel();
        let ended = Arc::new(Mutex::new(Some(ended)));
        for number in 0..1_000 {
            let (done, ended) = (done.clone(), ended.clone());
            let work = async move {
                match number % 3 {
                    0 => yield_now().await,
                    1 => tokio::time::sleep(Duration::from_millis(1)).await,
                    _ => {}
                }
                if done.fetch_add(1, Ordering::Relaxed) == 999 {
                    let ended = ended.lock().take();
                    ended.expect("it is sent once").send(()).unwrap();
                }
            };
            lanes.spawn(Arc::default(), boxed(work));
        }
        all_ended.await.unwrap();
    }

    #[tokio::test]
    async fn of_a_crowd_whose_pieces_are_interrupted_few_have_begun() {
        const CROWD: usize = 2_000;
        let (lanes, crowd) = (Lanes::new(), Arc::<Share>::default());
        let under_way = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let left = Arc::new(AtomicUsize::new(CROWD));
        for _ in 0..CROWD {
            let (under_way, most, left) = (under_way.clone(), most.clone(), left.clone());
            let work = async move {
                let now = under_way.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                for _ in 0..5 {
                    interrupted().await;
                }
                under_way.fetch_sub(1, Ordering::Relaxed);
                left.fetch_sub(1, Ordering::Relaxed);
            };
            lanes.spawn(crowd.clone(), boxed(work));
        }
        while left.load(Ordering::Relaxed) > 0 {
            yield_now().await;
        }
        // As many as wait, the one that runs, and those that begin all the same.
        let most = most.load(Ordering::Relaxed);
        assert!(most <= MANY_BEGUN + 8, "{most} at once");
    }

    #[tokio::test]
    async fn a_crowd_of_one_share_lets_another_pass() {
        let (lanes, crowd) = (Lanes::new(), Arc::<Share>::default());
        let before = Arc::new(AtomicUsize::new(0));
        for _ in 0..1_000 {
            let before = before.clone();
            let work = async move {
                before.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(50));
            };
            lanes.spawn(crowd.clone(), boxed(work));
        }
        // The crowd has begun.
        while before.load(Ordering::Relaxed) == 0 {
            yield_now().await;
        }
        let (told, ran) = oneshot::channel();
        let (lanes, count) = (lanes.clone(), before.clone());
        let work = async move { assert!(told.send(count.load(Ordering::Relaxed)).is_ok()) };
        lanes.spawn(Arc::default(), boxed(work));
        assert!(ran.await.unwrap() < 1_000);
    }

    #[tokio::test]
    async fn a_panic_ends_its_own_consumer_alone() {
        let lanes = Lanes::new();
        lanes.spawn(Arc::default(), boxed(async { panic!("as planned") }));
        let (told, ran) = oneshot::channel();
        lanes.spawn(Arc::default(), boxed(async move { told.send(()).unwrap() }));
        ran.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_when_the_lanes_close_is_dropped() {
        let lanes = Lanes::new();
        let (held, dropped) = oneshot::channel::<()>();
        let work = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        lanes.close();
        lanes.spawn(Arc::default(), boxed(work));
        assert!(dropped.await.is_err());
    }
}

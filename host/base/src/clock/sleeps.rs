//! Waiting for a moment to a tenth of a millisecond.
//!
//! Tokio's timers count in whole milliseconds and round up, and so does the wait for the kernel's
//! events below them: a task that sleeps wakes up to two milliseconds late, and all that are due
//! within one millisecond wake at once. That is nothing for a deadline and much for a stream of
//! 60 beats a second.
//!
//! Here one descriptor of the kernel (`timerfd_create(2)`), watched like a socket, is set for the
//! earliest of all moments that somebody waits for. Where there is no such thing, or no descriptor
//! left, tokio's timers do it.
//!
//! Invariants: nobody wakes before the time; the descriptor is set for the earliest moment, or an
//! earlier one.

use std::time::{Duration, Instant};

/// What waits for moments. All clones share one descriptor, which is opened by the first that
/// waits, in its runtime. It goes on while a test has paused tokio's timers.
#[derive(Clone)]
pub struct Sleeps {
    /// None goes by tokio's timers, whatever there is.
    #[cfg(target_os = "linux")]
    alarm: Option<std::sync::Arc<std::sync::OnceLock<linux::Running>>>,
}

impl Default for Sleeps {
    fn default() -> Self {
        Sleeps {
            #[cfg(target_os = "linux")]
            alarm: Some(std::sync::Arc::default()),
        }
    }
}

impl std::fmt::Debug for Sleeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleeps").finish_non_exhaustive()
    }
}

impl Sleeps {
    /// What goes by tokio's timers, also while a test has paused them.
    pub fn by_tokio() -> Sleeps {
        Sleeps {
            #[cfg(target_os = "linux")]
            alarm: None,
        }
    }

    /// Returns at this moment, if it has not passed. Dropped before, it leaves nothing behind.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a driver of I/O.
    pub async fn until(&self, due: Instant) {
        #[cfg(target_os = "linux")]
        if let Some(alarm) = self.alarm.as_deref().and_then(linux::Running::of) {
            return alarm.wait(due).await;
        }
        tokio::time::sleep_until(due.into()).await;
    }

    /// Returns after so long.
    ///
    /// # Panics
    ///
    /// As [`until`](Self::until) does.
    pub async fn pause(&self, time: Duration) {
        match super::instant().checked_add(time) {
            Some(due) => self.until(due).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeMap;
    use std::future::Future;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::pin::Pin;
    use std::sync::{Arc, OnceLock};
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant};

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::task::AbortHandle;

    use crate::sync::{Mutex, MutexGuard};

    /// Moments that are less than this apart are waited for together, at the last of them.
    const SLACK: Duration = Duration::from_micros(100);

    /// An alarm and the task that serves it, which ends with this.
    pub(super) struct Running {
        alarm: Arc<Alarm>,
        task: AbortHandle,
    }

    impl Running {
        /// The one that is there, or a new one; none if there is no descriptor for it.
        pub(super) fn of(place: &OnceLock<Running>) -> Option<&Arc<Alarm>> {
            if place.get().is_none() {
                let alarm = Arc::new(Alarm::new().ok()?);
                let task = tokio::spawn(serve(alarm.clone())).abort_handle();
                // Somebody else's may be there by now; then this one ends here.
                let _ = place.set(Running { alarm, task });
            }
            place.get().map(|running| &running.alarm)
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    /// A descriptor that becomes readable when the first of those who wait is due.
    pub(super) struct Alarm {
        timer: AsyncFd<OwnedFd>,
        waiting: Mutex<Waiting>,
    }

    /// Who waits, in the order of their moments.
    #[derive(Default)]
    struct Waiting {
        wakers: BTreeMap<Place, Waker>,
        next: u64,
    }

    /// When somebody is due, and how many began to wait before.
    type Place = (Instant, u64);

    impl Alarm {
        fn new() -> io::Result<Alarm> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // SAFETY: a descriptor that is owned is open, and the same one, until it is dropped.
            let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE)? };
            Ok(Alarm {
                timer,
                waiting: Mutex::default(),
            })
        }

        pub(super) fn wait(&self, due: Instant) -> Wait<'_> {
            let place = None;
            Wait {
                alarm: self,
                due,
                place,
            }
        }

        fn waiting(&self) -> MutexGuard<'_, Waiting> {
            // A waker that panics as it is cloned or dropped leaves the map as it was.
            self.waiting.lock()
        }

        /// Sets the descriptor for a moment, in the place of another.
        fn set(&self, due: Instant) {
            let left = due.saturating_duration_since(Instant::now()) + SLACK;
            let time = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                },
            };
            // It fails only for times that are none.
            let set = timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &time);
            debug_assert!(set.is_ok());
        }

        /// Takes those who are due, and sets the descriptor for the first of the others.
        fn take_due(&self, due: &mut Vec<Waker>) {
            let mut waiting = self.waiting();
            let now = Instant::now();
            while let Some(first) = waiting.wakers.first_entry() {
                let (at, _) = *first.key();
                if at > now {
                    self.set(at);
                    return;
                }
                due.push(first.remove());
            }
        }
    }

    async fn serve(alarm: Arc<Alarm>) {
        let mut due = Vec::new();
        // It fails when the runtime ends.
        while let Ok(mut ready) = alarm.timer.readable().await {
            // Nothing is read: the descriptor is readable until it is set again, and watched for
            // becoming so.
            ready.clear_ready();
            alarm.take_due(&mut due);
            due.drain(..).for_each(Waker::wake);
        }
    }

    /// Somebody's wait.
    pub(super) struct Wait<'a> {
        alarm: &'a Alarm,
        due: Instant,
        /// Where it is on the list, once it was put there.
        place: Option<Place>,
    }

    impl Future for Wait<'_> {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if Instant::now() >= self.due {
                return Poll::Ready(());
            }
            let mut waiting = self.alarm.waiting();
            let place = match self.place {
                Some(place) => place,
                None => {
                    waiting.next += 1;
                    (self.due, waiting.next)
                }
            };
            let waker = context.waker();
            match waiting.wakers.get_mut(&place) {
                Some(known) => known.clone_from(waker),
                None => {
                    waiting.wakers.insert(place, waker.clone());
                    let first = waiting.wakers.first_key_value();
                    if first.is_some_and(|(first, _)| *first == place) {
                        self.alarm.set(self.due);
                    }
                }
            }
            drop(waiting);
            self.place = Some(place);
            Poll::Pending
        }
    }

    impl Drop for Wait<'_> {
        fn drop(&mut self) {
            if let Some(place) = self.place {
                let waker = self.alarm.waiting().wakers.remove(&place);
                // Its destructor is somebody else's code, which runs without the lock.
                drop(waker);
            }
        }
    }

    #[cfg(test)]
    impl super::Sleeps {
        /// How many wait.
        pub(super) fn len(&self) -> usize {
            let running = self.alarm.as_deref().and_then(OnceLock::get);
            running.map_or(0, |running| running.alarm.waiting().wakers.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(flavor = "multi_thread")]
    async fn all_wake_at_their_time_and_not_before() {
        let sleeps = Sleeps::default();
        let began = Instant::now();
        let tasks = (0..200_u32).map(|number| {
            let sleeps = sleeps.clone();
            // Neither in the order of their moments, nor one moment each.
            let due = began + MS / 4 * (number * 37 % 101);
            tokio::spawn(async move {
                sleeps.until(due).await;
                assert!(Instant::now() >= due);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(sleeps.len(), 0);
    }

    #[tokio::test]
    async fn an_earlier_one_is_not_held_up_by_a_later_one() {
        let sleeps = Sleeps::default();
        let mut late = Box::pin(sleeps.pause(Duration::from_secs(3_600)));
        assert_eq!(futures_util::poll!(&mut late), Poll::Pending);
        sleeps.pause(5 * MS).await;
        assert_eq!(sleeps.len(), 1);
        assert_eq!(futures_util::poll!(&mut late), Poll::Pending);
        drop(late);
        assert_eq!(sleeps.len(), 0);
        // Nor does what was given up.
        sleeps.pause(5 * MS).await;
    }

    #[tokio::test]
    async fn the_longest_waits_are_waited_for() {
        let sleeps = Sleeps::default();
        for time in [Duration::from_nanos(u64::MAX), Duration::MAX] {
            let mut long = Box::pin(sleeps.pause(time));
            assert_eq!(futures_util::poll!(&mut long), Poll::Pending);
            sleeps.pause(MS).await;
            assert_eq!(futures_util::poll!(&mut long), Poll::Pending);
        }
    }

    #[tokio::test]
    async fn what_has_passed_is_not_waited_for() {
        let sleeps = Sleeps::default();
        assert_eq!(
            futures_util::poll!(Box::pin(sleeps.until(Instant::now()))),
            Poll::Ready(())
        );
        assert_eq!(sleeps.len(), 0);
    }
}

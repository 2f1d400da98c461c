//! The process's own clock, and how far the wall clock has been set away from it.
//!
//! Spans of time are measured on a clock that nobody sets. It begins with what the wall clock
//! shows, so that the two show the same until somebody sets the other one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{WallClock, instant};

/// The wall clock was set when it is found off by more than this. What is less may come of the
/// two clocks' being read one after the other, and is found when it has added up.
const STEP_MS: i64 = 20;
/// So much may pass between the two readings; else they are made again, as often as [`TRIES`].
const READING: Duration = Duration::from_millis(1);
const TRIES: usize = 4;
/// How often the clocks are compared for those who wait for a moment of the wall clock.
const LOOK: Duration = Duration::from_secs(1);

/// A clock that goes on as the process does.
#[derive(Debug)]
pub struct SteadyClock {
    wall: WallClock,
    began: Instant,
    began_at: Duration,
    ahead_ms: AtomicI64,
}

impl SteadyClock {
    /// Begins with what this wall clock shows.
    pub fn begin(wall: WallClock) -> SteadyClock {
        SteadyClock {
            began: instant(),
            began_at: wall.now(),
            ahead_ms: AtomicI64::new(0),
            wall,
        }
    }

    /// The wall clock that it began with.
    pub fn wall(&self) -> &WallClock {
        &self.wall
    }

    /// What it shows: the time since 1970 began, if nobody has set the wall clock since.
    pub fn now(&self) -> Duration {
        self.began_at + (instant() - self.began)
    }

    /// Compares the two: how far the wall clock is ahead, in milliseconds.
    pub fn ahead_ms(&self) -> i64 {
        let (mut steady, mut wall) = (self.now(), self.wall.now());
        for _ in 1..TRIES {
            if self.now() - steady < READING {
                break;
            }
            (steady, wall) = (self.now(), self.wall.now());
        }
        let ahead = wall.as_micros() as i64 - steady.as_micros() as i64;
        let ahead_ms = (ahead + 500).div_euclid(1000);
        let known_ms = self.known_ahead_ms();
        if (ahead_ms - known_ms).abs() <= STEP_MS {
            return known_ms;
        }
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        ahead_ms
    }

    /// How far it was ahead when the two were compared last, in milliseconds.
    pub fn known_ahead_ms(&self) -> i64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }
}

/// Tells those who wait for a moment of the system's clock when that was set. All clones share one
/// task, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct Steps(Arc<Watch>);

#[derive(Debug)]
struct Watch {
    stepped: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Steps {
    /// Begins to watch the system's clock.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn watch() -> Steps {
        Steps::watch_on(WallClock::default())
    }

    fn watch_on(wall: WallClock) -> Steps {
        let stepped = Arc::new(Notify::new());
        let tell = stepped.clone();
        let task = tokio::spawn(async move {
            let clock = SteadyClock::begin(wall);
            let mut ahead_ms = 0;
            loop {
                tokio::time::sleep(LOOK).await;
                if std::mem::replace(&mut ahead_ms, clock.ahead_ms()) != ahead_ms {
                    tell.notify_waiters();
                }
            }
        });
        Steps(Arc::new(Watch {
            stepped,
            task: task.abort_handle(),
        }))
    }

    /// Completes when the system's clock shows this many milliseconds since 1970, also if it is
    /// set meanwhile.
    pub async fn until_ms(&self, at_ms: u64) {
        self.until(at_ms, super::system_ms).await;
    }

    async fn until(&self, at_ms: u64, now_ms: impl Fn() -> u64) {
        loop {
            let mut stepped = std::pin::pin!(self.0.stepped.notified());
            // One that comes from here on is not missed.
            stepped.as_mut().enable();
            let left = at_ms.saturating_sub(now_ms());
            if left == 0 {
                return;
            }
            tokio::select! {
                // A day at a time, since timers have a range.
                () = tokio::time::sleep(Duration::from_millis(left.min(DAY_MS))) => {}
                () = stepped => {}
            }
        }
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_700_000_000);

    /// A wall clock that goes with tokio's, and what it is set ahead by.
    fn settable() -> (WallClock, Arc<AtomicI64>) {
        let (began, set_ms) = (instant(), Arc::new(AtomicI64::new(0)));
        let set = set_ms.clone();
        let clock = move || {
            let ms = set.load(Ordering::Relaxed);
            let shown = (START + (instant() - began)).as_millis() as u64;
            Duration::from_millis(shown.saturating_add_signed(ms))
        };
        (WallClock::told(clock), set_ms)
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_when_the_wall_clock_is_set() {
        let (wall, set_ms) = settable();
        let clock = SteadyClock::begin(wall.clone());
        assert_eq!(clock.ahead_ms(), 0);
        for ms in [-30_000, 5, 31_536_000_000, 0] {
            set_ms.store(ms, Ordering::Relaxed);
            tokio::time::advance(Duration::from_millis(250)).await;
            let steady_ms = clock.now().as_millis() as i64;
            assert_eq!(wall.now_ms() as i64 - steady_ms, ms);
            let expected = if ms == 5 { 5 } else { ms };
            assert!((clock.ahead_ms() - expected).abs() <= STEP_MS, "{ms}");
        }
        assert_eq!(clock.now(), START + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_moment_follows_the_wall_clock() {
        let (wall, set_ms) = settable();
        let steps = Steps::watch_on(wall.clone());
        let at_ms = wall.now_ms() + 3_600_000;
        let began = instant();
        let wait = steps.until(at_ms, || wall.now_ms());
        let set = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            set_ms.store(3_600_000, Ordering::Relaxed);
        };
        tokio::join!(wait, set);
        assert!(instant() - began <= Duration::from_secs(12));
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_that_is_put_off_is_waited_for() {
        let (wall, set_ms) = settable();
        let steps = Steps::watch_on(wall.clone());
        let at_ms = wall.now_ms() + 5_000;
        set_ms.store(-60_000, Ordering::Relaxed);
        let began = instant();
        steps.until(at_ms, || wall.now_ms()).await;
        assert!(wall.now_ms() >= at_ms);
        assert!(instant() - began >= Duration::from_secs(65));
    }
}

//! What time it is.
//!
//! Actors, their turns and their timers ask here: a [`WallClock`] for moments that outlast the
//! process, [`instant`] for how long something takes.
//!
//! Invariant: who waits on tokio's timers for a time that it has from here waits as long as it
//! meant to, also while a test has paused those timers.

mod set;
mod sleeps;
mod steady;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use sleeps::Sleeps;
pub use steady::{SteadyClock, Steps};

/// Tells the time since 1970 began (UTC): the system's clock, unless another one was named.
#[derive(Clone, Default)]
pub struct WallClock(Option<Told>);

type Told = Arc<dyn Fn() -> Duration + Send + Sync>;

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WallClock({:?})", self.now())
    }
}

impl WallClock {
    /// A clock that shows what this says.
    pub fn told(now: impl Fn() -> Duration + Send + Sync + 'static) -> WallClock {
        WallClock(Some(Arc::new(now)))
    }

    /// The time since 1970 began.
    pub fn now(&self) -> Duration {
        match &self.0 {
            None => system_time(),
            Some(told) => told(),
        }
    }

    /// What waits for its moments: tokio's timers where it was told the time.
    pub fn sleeps(&self) -> Sleeps {
        match &self.0 {
            None => Sleeps::default(),
            Some(_) => Sleeps::by_tokio(),
        }
    }

    /// What it shows, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now().as_millis() as u64
    }
}

/// The time since 1970 began, by the system's clock.
pub fn system_time() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    set::apply(since.unwrap_or_default())
}

/// What the system's clock shows, in whole milliseconds.
pub fn system_ms() -> u64 {
    system_time().as_millis() as u64
}

/// What the system's clock shows, up to some milliseconds late and for a fraction of the cost.
pub fn coarse_system_ms() -> u64 {
    #[cfg(target_os = "linux")]
    {
        set::apply(read(libc::CLOCK_REALTIME_COARSE)).as_millis() as u64
    }
    #[cfg(not(target_os = "linux"))]
    system_ms()
}

/// A clock of the system, through its C library: what else finds the kernel's page of clocks does
/// not run under valgrind.
#[cfg(any(target_os = "linux", not(test)))]
fn read(clock: libc::clockid_t) -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes to `now` alone.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut now) } != 0;
    debug_assert!(!failed, "there is a clock {clock}");
    let seconds = Duration::from_secs(now.tv_sec.try_into().unwrap_or(0));
    seconds + Duration::from_nanos(now.tv_nsec.try_into().unwrap_or(0))
}

/// Now, on the clock that tokio's timers go by.
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// For how long this thread has run: what others had of its core meanwhile does not count.
#[cfg(not(test))]
pub fn thread_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// In a test, which may pause time, what passes of it.
#[cfg(test)]
pub fn thread_time() -> Duration {
    thread_local!(static BEGAN: Instant = instant());
    instant().saturating_duration_since(BEGAN.with(|began| *began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_with_the_timers() {
        let (began, base) = (instant(), Duration::from_secs(1_000));
        let clock = WallClock::told(move || base + (instant() - began));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(clock.now_ms(), 1_005_000);
        assert!(WallClock::default().now_ms() > 1_700_000_000_000);
    }
}

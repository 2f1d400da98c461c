//! Raises the engine's epoch at a steady pace while guests run, so that they look up.
//!
//! Invariant: a guest that computes is looked at within two ticks. While none runs the thread
//! rests, and costs an idle host nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// After so many ticks that nobody ran in, the thread rests.
const QUIET_TICKS: u32 = 50;

/// Nobody has run since the last tick.
const QUIET: u8 = 0;
/// Somebody has.
const BUSY: u8 = 1;
/// The thread rests until somebody runs.
const RESTING: u8 = 2;

/// Every instance holds it: it ticks as long as there is a guest that might run.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: AtomicU8,
    stop: AtomicBool,
}

impl Ticker {
    /// Ticks at this pace, until told not to go on.
    pub(super) fn start(pace: Duration, tick: impl Fn() -> bool + Send + 'static) -> Ticker {
        let shared: Arc<Shared> = Arc::default();
        let seen = shared.clone();
        let thread = std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || seen.tick_at(pace, tick))
            .expect("the system starts one thread");
        Ticker {
            shared,
            thread: Some(thread),
        }
    }

    /// Notes that a guest is about to run.
    pub(super) fn runs(&self) {
        // Mostly it is noted already, and what all read stays in their caches.
        if self.shared.state.load(Ordering::Relaxed) != BUSY
            && self.shared.state.swap(BUSY, Ordering::AcqRel) == RESTING
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Shared {
    fn tick_at(&self, pace: Duration, tick: impl Fn() -> bool) {
        let mut quiet = 0;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(pace);
            if !tick() {
                return;
            }
            quiet =
                match self
                    .state
                    .compare_exchange(BUSY, QUIET, Ordering::AcqRel, Ordering::Relaxed)
                {
                    Ok(_) => 0,
                    Err(_) => quiet + 1,
                };
            if quiet < QUIET_TICKS {
                continue;
            }
            let rests =
                self.state
                    .compare_exchange(QUIET, RESTING, Ordering::AcqRel, Ordering::Relaxed);
            // It may wake for nothing.
            while rests.is_ok()
                && self.state.load(Ordering::Acquire) == RESTING
                && !self.stop.load(Ordering::Relaxed)
            {
                std::thread::park();
            }
            quiet = 0;
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const PACE: Duration = Duration::from_millis(1);

    fn counted() -> (Ticker, Arc<AtomicU64>) {
        let ticks: Arc<AtomicU64> = Arc::default();
        let counter = ticks.clone();
        let ticker = Ticker::start(PACE, move || {
            counter.fetch_add(1, Ordering::Relaxed);
            true
        });
        (ticker, ticks)
    }

    fn wait_until(is_so: impl Fn() -> bool) {
        while !is_so() {
            std::thread::sleep(PACE);
        }
    }

    #[test]
    fn it_rests_while_nobody_runs_and_ticks_again_for_who_does() {
        let (ticker, ticks) = counted();
        for _ in 0..3 {
            wait_until(|| ticker.shared.state.load(Ordering::Relaxed) == RESTING);
            // A tick that was under way has ended.
            let before = ticks.load(Ordering::Relaxed);
            std::thread::sleep(20 * PACE);
            assert_eq!(ticks.load(Ordering::Relaxed), before);
            ticker.runs();
            wait_until(|| ticks.load(Ordering::Relaxed) > before);
        }
    }

    #[test]
    fn it_ticks_on_while_somebody_runs() {
        let (ticker, ticks) = counted();
        let enough = u64::from(3 * QUIET_TICKS);
        wait_until(|| {
            ticker.runs();
            ticks.load(Ordering::Relaxed) >= enough
        });
        assert_ne!(ticker.shared.state.load(Ordering::Relaxed), RESTING);
    }

    #[test]
    fn it_ends_while_it_rests_and_when_it_is_told_to() {
        let (ticker, _) = counted();
        wait_until(|| ticker.shared.state.load(Ordering::Relaxed) == RESTING);
        drop(ticker);
        let told = Ticker::start(PACE, || false);
        wait_until(|| told.thread.as_ref().is_some_and(JoinHandle::is_finished));
    }
}

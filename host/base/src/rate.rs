//! How often something may happen: token buckets (`governor`), and when to try again.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{NotUntil, Quota, RateLimiter};
use tidegate_core::Failure;

/// Something came too fast: when it may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// Milliseconds from now, at least 1.
    pub ms: u64,
}

impl RetryAfter {
    /// What a limiter says that has refused.
    pub fn of<C: Clock>(refused: &NotUntil<C::Instant>, clock: &C) -> RetryAfter {
        RetryAfter::new(refused.wait_time_from(clock.now()))
    }

    fn new(wait: Duration) -> RetryAfter {
        let ms = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        RetryAfter { ms: ms.max(1) }
    }

    /// The value of a `retry-after` header: whole seconds, rounded up.
    pub fn seconds(self) -> u64 {
        self.ms.div_ceil(1000)
    }

    /// `rate.frames`, with `retryAfterMs`.
    pub fn frames(self) -> Failure {
        Failure::rate_frames(self.ms)
    }

    /// `rate.calls`, with `retryAfterMs`.
    pub fn calls(self) -> Failure {
        Failure::rate_calls(self.ms)
    }

    /// `rate.actors`, with `retryAfterMs`.
    pub fn actors(self) -> Failure {
        Failure::rate_actors(self.ms)
    }
}

/// So much per second on average, and `burst` at once; 0 per second sets no limit.
pub fn quota(per_second: u32, burst: u32) -> Option<Quota> {
    let rate = NonZeroU32::new(per_second)?;
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Some(Quota::per_second(rate).allow_burst(burst))
}

/// A limit on how often one thing happens. None costs nothing.
pub struct RateLimit<C: Clock = DefaultClock> {
    limiter: Option<Limiter<C>>,
}

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl RateLimit {
    /// So many times per second on average, and `burst` at once; 0 per second sets no limit.
    pub fn new(per_second: u32, burst: u32) -> RateLimit {
        RateLimit::with_clock(per_second, burst, DefaultClock::default())
    }
}

impl<C: Clock> RateLimit<C> {
    fn with_clock(per_second: u32, burst: u32, clock: C) -> RateLimit<C> {
        RateLimit {
            limiter: quota(per_second, burst)
                .map(|quota| RateLimiter::direct_with_clock(quota, clock)),
        }
    }

    /// Counts one time, or says when the next may come. A refused one is not counted.
    pub fn check(&self) -> Result<(), RetryAfter> {
        match &self.limiter {
            None => Ok(()),
            Some(limiter) => limiter
                .check()
                .map_err(|refused| RetryAfter::of(&refused, limiter.clock())),
        }
    }
}

impl<C: Clock> fmt::Debug for RateLimit<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use serde_json::json;
    use tidegate_core::failure::code;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_average_rate() {
        let clock = FakeRelativeClock::default();
        let limit = RateLimit::with_clock(10, 3, clock.clone());
        for _ in 0..3 {
            assert_eq!(limit.check(), Ok(()));
        }
        assert_eq!(limit.check(), Err(RetryAfter { ms: 100 }));
        clock.advance(Duration::from_millis(99));
        assert_eq!(limit.check(), Err(RetryAfter { ms: 1 }));
        clock.advance(Duration::from_millis(1));
        assert_eq!(limit.check(), Ok(()));
        assert_eq!(limit.check(), Err(RetryAfter { ms: 100 }));
    }

    #[test]
    fn a_burst_of_zero_still_lets_one_pass() {
        let limit = RateLimit::with_clock(10, 0, FakeRelativeClock::default());
        assert_eq!(limit.check(), Ok(()));
        assert!(limit.check().is_err());
    }

    #[test]
    fn a_rate_of_zero_sets_no_limit() {
        let limit = RateLimit::new(0, 1);
        assert!((0..10_000).all(|_| limit.check().is_ok()));
    }

    #[test]
    fn a_refusal_says_when_to_try_again() {
        let failure = RetryAfter { ms: 1500 }.calls();
        assert_eq!((failure.status, &*failure.code), (429, code::RATE_CALLS));
        assert_eq!(failure.params, Some(json!({"retryAfterMs": 1500})));
        assert_eq!(RetryAfter { ms: 20 }.frames().code, code::RATE_FRAMES);
        assert_eq!(RetryAfter { ms: 1500 }.seconds(), 2);
        assert_eq!(RetryAfter { ms: 1 }.seconds(), 1);
        assert_eq!(RetryAfter::new(Duration::ZERO).ms, 1);
        assert_eq!(RetryAfter::new(Duration::from_micros(1001)).ms, 2);
    }
}

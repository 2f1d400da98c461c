//! How often and how much: calls of a user, connections of an address. A limit of 0 is none, and
//! then costs nothing.
//!
//! Invariant: what these remember has a bound, however many users and addresses come.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use tidegate_base::rate::{RetryAfter, quota};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::Failure;

use super::address::counted;

/// Users, and as many addresses, that are told apart.
const MAX_KEYS: usize = 100_000;
/// Once there are more, all share so many allowances.
const SHARED_KEYS: u64 = 65_536;
/// How often idle ones are forgotten.
const SWEEP_MS: u64 = 10_000;
/// Calls after which the number of keys is looked at between two sweeps.
const CALLS_PER_LOOK: u32 = 1_024;

/// Calls per user: by the token's subject, or by address where there is none.
///
/// Whoever has not called for as long as a full allowance takes to come back is forgotten,
/// every 10 s and with the next call. If more than 100 000 users, or as many addresses, are
/// left, all of that kind share 65 536 allowances, chosen by a keyed hash, until there are
/// fewer. A flood of addresses thus narrows what anonymous clients may do, and leaves users
/// with a token alone.
pub struct CallLimits<C: Clock = DefaultClock> {
    limits: Option<(Keyed<C>, Keyed<C>)>,
}

impl CallLimits {
    /// So many calls per second on average, and `burst` at once; 0 per second sets no limit.
    pub fn new(per_second: u32, burst: u32) -> CallLimits {
        CallLimits::with_clock(per_second, burst, MAX_KEYS, DefaultClock::default())
    }
}

impl<C: Clock> CallLimits<C> {
    fn with_clock(per_second: u32, burst: u32, max_keys: usize, clock: C) -> CallLimits<C>
    where
        C: Clone,
    {
        CallLimits {
            limits: quota(per_second, burst).map(|quota| {
                let keyed = || Keyed::new(quota, max_keys, clock.clone());
                (keyed(), keyed())
            }),
        }
    }

    /// Counts one call of a user, or says when the next may come. A refused one is not
    /// counted.
    pub fn check(&self, subject: Option<&str>, address: IpAddr) -> Result<(), RetryAfter> {
        match (&self.limits, subject) {
            (None, _) => Ok(()),
            (Some((subjects, _)), Some(subject)) => {
                subjects.check(subjects.hashes.hash_one(subject))
            }
            (Some((_, addresses)), None) => {
                addresses.check(addresses.hashes.hash_one(counted(address)))
            }
        }
    }
}

impl<C: Clock> fmt::Debug for CallLimits<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallLimits").finish_non_exhaustive()
    }
}

/// Rates by key. A key is a hash with a secret seed: a subject may be long, and nobody
/// outside can look for two that share one.
struct Keyed<C: Clock> {
    limiter: RateLimiter<u64, DashMapStateStore<u64>, C, NoOpMiddleware<C::Instant>>,
    hashes: RandomState,
    max_keys: usize,
    began: C::Instant,
    /// When idle keys are forgotten next, in milliseconds since `began`.
    next_sweep_ms: AtomicU64,
    calls: AtomicU32,
    is_full: AtomicBool,
}

impl<C: Clock> Keyed<C> {
    fn new(quota: Quota, max_keys: usize, clock: C) -> Keyed<C> {
        Keyed {
            began: clock.now(),
            limiter: RateLimiter::new(quota, DashMapStateStore::default(), clock),
            hashes: RandomState::new(),
            max_keys,
            next_sweep_ms: AtomicU64::new(SWEEP_MS),
            calls: AtomicU32::new(0),
            is_full: AtomicBool::new(false),
        }
    }

    fn check(&self, key: u64) -> Result<(), RetryAfter> {
        self.forget_idle();
        let key = match self.is_full.load(Ordering::Relaxed) {
            true => key % SHARED_KEYS,
            false => key,
        };
        self.limiter
            .check_key(&key)
            .map_err(|refused| RetryAfter::of(&refused, self.limiter.clock()))
    }

    fn forget_idle(&self) {
        let now = self.limiter.clock().now();
        let now_ms = Duration::from(now.duration_since(self.began)).as_millis() as u64;
        let due = self.next_sweep_ms.load(Ordering::Relaxed);
        let is_due = now_ms >= due
            && self
                .next_sweep_ms
                .compare_exchange(due, now_ms + SWEEP_MS, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let looks = calls.is_multiple_of(CALLS_PER_LOOK);
        if is_due || (looks && self.limiter.len() > self.max_keys) {
            self.limiter.retain_recent();
            let is_full = self.limiter.len() > self.max_keys;
            self.is_full.store(is_full, Ordering::Relaxed);
        }
    }
}

/// Open connections per address. IPv6 addresses count by their /64.
#[derive(Clone, Debug)]
pub struct AddressLimits {
    max: usize,
    open: Open,
}

/// How many connections each address has; none has 0.
type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection that counts for its address until this is dropped.
#[derive(Debug)]
pub struct AddressPermit {
    counted: Option<(IpAddr, Open)>,
}

impl AddressLimits {
    /// At most so many connections of one address; 0 sets no limit.
    pub fn new(max: usize) -> AddressLimits {
        AddressLimits {
            max,
            open: Arc::default(),
        }
    }

    /// Lets a connection in, or fails with `connection.address-limit`.
    pub fn admit(&self, address: IpAddr) -> Result<AddressPermit, Failure> {
        if self.max == 0 {
            return Ok(AddressPermit { counted: None });
        }
        let address = counted(address);
        let mut open = lock(&self.open);
        let count = open.entry(address).or_insert(0);
        if *count >= self.max {
            return Err(Failure::connection_address_limit(self.max));
        }
        *count += 1;
        Ok(AddressPermit {
            counted: Some((address, self.open.clone())),
        })
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let Some((address, open)) = self.counted.take() else {
            return;
        };
        let mut open = lock(&open);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

fn lock(open: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    // The counts are right after every statement, so a panic elsewhere leaves them usable.
    open.lock()
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use tidegate_core::failure::code;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn calls(max_keys: usize) -> (CallLimits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (
            CallLimits::with_clock(10, 2, max_keys, clock.clone()),
            clock,
        )
    }

    #[test]
    fn a_rate_of_zero_sets_no_limit() {
        let calls = CallLimits::new(0, 1);
        for _ in 0..10_000 {
            assert_eq!(calls.check(None, address("1.1.1.1")), Ok(()));
        }
    }

    #[test]
    fn users_count_apart_from_each_other_wherever_they_call_from() {
        let (limits, _) = calls(100);
        for _ in 0..2 {
            assert_eq!(limits.check(Some("ann"), address("1.1.1.1")), Ok(()));
        }
        let refused = Err(RetryAfter { ms: 100 });
        assert_eq!(limits.check(Some("ann"), address("2.2.2.2")), refused);
        assert_eq!(limits.check(Some("bob"), address("1.1.1.1")), Ok(()));
        assert_eq!(limits.check(None, address("1.1.1.1")), Ok(()));
    }

    #[test]
    fn who_is_anonymous_counts_by_address() {
        let (limits, clock) = calls(100);
        assert_eq!(limits.check(None, address("2001:db8::1")), Ok(()));
        assert_eq!(limits.check(None, address("2001:db8::2")), Ok(()));
        assert!(limits.check(None, address("2001:db8::3")).is_err());
        assert_eq!(limits.check(None, address("2001:db8:0:1::3")), Ok(()));
        clock.advance(Duration::from_millis(100));
        assert_eq!(limits.check(None, address("2001:db8::3")), Ok(()));
    }

    #[test]
    fn a_subject_that_reads_like_an_address_is_not_that_address() {
        let (limits, _) = calls(100);
        for _ in 0..2 {
            assert_eq!(limits.check(Some("1.1.1.1"), address("9.9.9.9")), Ok(()));
        }
        assert_eq!(limits.check(None, address("1.1.1.1")), Ok(()));
    }

    #[test]
    fn idle_users_are_forgotten() {
        let (limits, clock) = calls(100_000);
        for user in 0..500 {
            assert_eq!(
                limits.check(Some(&user.to_string()), address("1.1.1.1")),
                Ok(())
            );
        }
        let (subjects, _) = limits.limits.as_ref().unwrap();
        assert_eq!(subjects.limiter.len(), 500);
        clock.advance(Duration::from_millis(SWEEP_MS));
        assert_eq!(limits.check(Some("ann"), address("1.1.1.1")), Ok(()));
        assert_eq!(subjects.limiter.len(), 1);
    }

    #[test]
    fn who_used_up_an_allowance_is_not_forgotten_before_it_is_back() {
        let clock = FakeRelativeClock::default();
        let limits = CallLimits::with_clock(1, 100, 100, clock.clone());
        for _ in 0..100 {
            assert_eq!(limits.check(Some("ann"), address("1.1.1.1")), Ok(()));
        }
        clock.advance(Duration::from_millis(SWEEP_MS));
        for _ in 0..10 {
            assert_eq!(limits.check(Some("ann"), address("1.1.1.1")), Ok(()));
        }
        assert!(limits.check(Some("ann"), address("1.1.1.1")).is_err());
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_memory_without_end_nor_stop_users() {
        let (limits, clock) = calls(1_000);
        for n in 0..300_000u32 {
            let _ = limits.check(None, IpAddr::V4(n.into()));
        }
        let (subjects, addresses) = limits.limits.as_ref().unwrap();
        let bound = 1_000 + CALLS_PER_LOOK as usize + SHARED_KEYS as usize;
        assert!(
            addresses.limiter.len() <= bound,
            "{}",
            addresses.limiter.len()
        );
        assert!(addresses.is_full.load(Ordering::Relaxed));
        assert!(!subjects.is_full.load(Ordering::Relaxed));
        assert_eq!(limits.check(Some("ann"), address("1.1.1.1")), Ok(()));

        clock.advance(Duration::from_millis(SWEEP_MS));
        assert_eq!(limits.check(None, address("1.1.1.1")), Ok(()));
        assert!(!addresses.is_full.load(Ordering::Relaxed));
        assert_eq!(addresses.limiter.len(), 1);
    }

    #[test]
    fn an_address_has_so_many_connections_at_a_time() {
        let limits = AddressLimits::new(2);
        let first = limits.admit(address("1.1.1.1")).unwrap();
        let _second = limits.admit(address("::ffff:1.1.1.1")).unwrap();
        let refused = limits.admit(address("1.1.1.1")).unwrap_err();
        assert_eq!(
            (refused.status, &*refused.code),
            (429, code::CONNECTION_ADDRESS_LIMIT)
        );
        assert!(limits.admit(address("1.1.1.2")).is_ok());
        drop(first);
        assert!(limits.admit(address("1.1.1.1")).is_ok());
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let limits = AddressLimits::new(2);
        let permits: Vec<_> = (0..100u32)
            .map(|n| limits.admit(IpAddr::V4(n.into())).unwrap())
            .collect();
        assert_eq!(lock(&limits.open).len(), 100);
        drop(permits);
        assert_eq!(lock(&limits.open).len(), 0);
    }

    #[test]
    fn permits_of_many_threads_add_up() {
        let limits = AddressLimits::new(1_000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        drop(limits.admit(address("1.1.1.1")).unwrap());
                    }
                });
            }
        });
        assert_eq!(lock(&limits.open).len(), 0);
    }

    #[test]
    fn a_limit_of_zero_connections_is_none() {
        let limits = AddressLimits::new(0);
        let permits: Vec<_> = (0..100).map(|_| limits.admit(address("1.1.1.1"))).collect();
        assert!(permits.iter().all(Result::is_ok));
        assert_eq!(lock(&limits.open).len(), 0);
    }
}

//! The time, and waiting.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasip2::clocks::monotonic_clock;
use wasip2::io::poll;
pub use wasip2::io::poll::Pollable;

/// Now, in milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

/// Does nothing for so long.
pub fn sleep(time: Duration) {
    monotonic_clock::subscribe_duration(nanos(time)).block();
}

/// Waits for one thing, at most so long. False when it has not come.
pub fn wait(what: &Pollable, patience: Duration) -> bool {
    let timer = monotonic_clock::subscribe_duration(nanos(patience));
    poll::poll(&[what, &timer]).contains(&0)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// This many random bytes in hexadecimal.
pub fn random_id(bytes: usize) -> String {
    let random = wasip2::random::random::get_random_bytes(bytes as u64);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random span below this one, for those that try again at the same time.
pub fn jitter(below: Duration) -> Duration {
    let below = u64::try_from(below.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(random_below(below))
}

/// A random number below this one.
pub fn random_below(below: u64) -> u64 {
    wasip2::random::random::get_random_u64() % below.max(1)
}

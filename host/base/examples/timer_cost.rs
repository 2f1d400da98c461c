//! What a timer costs, by the structure that holds it.
//!
//! ```text
//! cargo run --release -p tidegate-base --example timer_cost -- [COUNT]
//! ```
//!
//! The first row is the host's clock as it is, with its lock and its task; the others are
//! the structures that it could be made of, bare. `futures_util` polls the wheel, which has
//! no other way to give out what is due.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use tidegate_base::timer::{Due, Timers};
use tokio_util::time::DelayQueue;

/// Far enough ahead that nothing is due before everything is set.
const AHEAD_MS: u64 = 3_600_000;
const ROUNDS: usize = 5;

/// Time to set all, to cancel all, and to take all when they are due.
type Costs = [Duration; 3];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let usage = "usage: timer_cost [COUNT]";
    let count: usize = std::env::args()
        .nth(1)
        .map_or(100_000, |count| count.parse().expect(usage));
    println!("{count} timers; ns each, best of {ROUNDS}");
    println!(
        "{:<20} {:>8} {:>8} {:>14}",
        "", "set", "cancel", "take when due"
    );
    let order = shuffled(count);
    let mut best = [[Duration::MAX; 3]; 4];
    for _ in 0..ROUNDS {
        let round = [
            timers(&order).await,
            map(&order),
            heap(&order),
            wheel(&order).await,
        ];
        for (best, costs) in best.iter_mut().zip(round) {
            for (best, cost) in best.iter_mut().zip(costs) {
                *best = cost.min(*best);
            }
        }
    }
    let names = [
        "Timers",
        "bare BTreeMap",
        "bare BinaryHeap",
        "bare DelayQueue",
    ];
    for (name, costs) in names.iter().zip(best) {
        let [set, cancel, take] = costs.map(|cost| match cost {
            Duration::MAX => "-".to_owned(),
            cost => (cost.as_nanos() / count as u128).to_string(),
        });
        println!("{name:<20} {set:>8} {cancel:>8} {take:>14}");
    }
}

/// The numbers below `count`, in an order that no structure likes best.
fn shuffled(count: usize) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count as u64).collect();
    order.sort_unstable_by_key(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    order
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

async fn timers(order: &[u64]) -> Costs {
    let rung = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(tokio::sync::Notify::new());
    let (counted, told, count) = (rung.clone(), done.clone(), order.len());
    let timers = Timers::start(move |key: u64, _| {
        black_box(key);
        if counted.fetch_add(1, Ordering::Relaxed) + 1 == count {
            told.notify_one();
        }
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = now.expect("a clock after 1970").as_millis() as u64;
    let (alarms, set) = timed(|| {
        let due = order
            .iter()
            .map(|n| timers.set(Due::Moment(now_ms + AHEAD_MS + n / 100), *n));
        due.collect::<Vec<_>>()
    });
    let ((), cancel) = timed(|| drop(alarms));
    // All are due at one moment, which comes when all are set.
    let due_ms = now_ms + (set * 4).as_millis() as u64 + 50;
    let alarms: Vec<_> = order
        .iter()
        .map(|n| timers.set(Due::Moment(due_ms), *n))
        .collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let left = Duration::from_millis(due_ms).saturating_sub(now.expect("a clock after 1970"));
    let began = Instant::now() + left;
    done.notified().await;
    let take = began.elapsed();
    drop(alarms);
    [set, cancel, take]
}

fn map(order: &[u64]) -> Costs {
    let filled = || {
        let places = order.iter().map(|n| (n / 100, *n));
        let mut map = BTreeMap::new();
        for place in places {
            map.insert(place, place.1);
        }
        map
    };
    let (mut map, set) = timed(filled);
    let ((), cancel) = timed(|| {
        for n in order {
            black_box(map.remove(&(n / 100, *n)));
        }
    });
    let mut map = filled();
    let ((), take) = timed(|| while black_box(map.pop_first()).is_some() {});
    [set, cancel, take]
}

/// A heap cannot take out what is cancelled: its cost is that of coming by it later.
fn heap(order: &[u64]) -> Costs {
    let mut heap = BinaryHeap::new();
    let ((), set) = timed(|| {
        for n in order {
            heap.push(Reverse((n / 100, *n, *n)));
        }
    });
    let ((), take) = timed(|| while black_box(heap.pop()).is_some() {});
    [set, Duration::MAX, take]
}

async fn wheel(order: &[u64]) -> Costs {
    let mut wheel = DelayQueue::new();
    let (keys, set) = timed(|| {
        let ahead = |n: &u64| Duration::from_millis(AHEAD_MS + n / 100);
        let keys = order.iter().map(|n| wheel.insert(*n, ahead(n)));
        keys.collect::<Vec<_>>()
    });
    let ((), cancel) = timed(|| {
        for key in &keys {
            black_box(wheel.remove(key));
        }
    });
    let due = tokio::time::Instant::now() + set * 2 + Duration::from_millis(50);
    for n in order {
        wheel.insert_at(*n, due);
    }
    tokio::time::sleep_until(due).await;
    let began = Instant::now();
    while let Some(expired) = wheel.next().await {
        black_box(expired.into_inner());
    }
    [set, cancel, began.elapsed()]
}

//! When alarms ring: by each clock, and when that is set.

use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::time::{Instant, advance};

use super::*;

/// What the tests' wall clock shows at first.
const START_MS: u64 = 1_700_000_000_000;
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// Timers whose wall clock goes with tokio's, and can be set.
struct Bench {
    timers: Timers<u32>,
    rung: mpsc::UnboundedReceiver<Rung>,
    began: Instant,
    jumped_ms: Arc<AtomicI64>,
}

/// A key, its time, and what the wall clock showed when it rang.
type Rung = (u32, u64, u64);

impl Bench {
    fn new() -> Bench {
        let (tell, rung) = mpsc::unbounded_channel();
        let (began, jumped_ms) = (Instant::now(), Arc::new(AtomicI64::new(0)));
        let clock = {
            let jumped_ms = jumped_ms.clone();
            move || {
                let jumped = jumped_ms.load(Ordering::Relaxed);
                let start = Duration::from_millis(START_MS.saturating_add_signed(jumped));
                start + began.elapsed()
            }
        };
        let shown = clock.clone();
        let timers = Timers::start_on(WallClock::told(clock), move |key, due| {
            let (Due::Moment(due_ms) | Due::Steady(due_ms) | Due::Calendar(due_ms)) = due;
            let now_ms = shown().as_millis() as u64;
            // The receiver is gone when the test is over.
            let _ = tell.send((key, due_ms, now_ms));
        });
        Bench {
            timers,
            rung,
            began,
            jumped_ms,
        }
    }

    fn now_ms(&self) -> u64 {
        let jumped = self.jumped_ms.load(Ordering::Relaxed);
        START_MS.saturating_add_signed(jumped) + self.began.elapsed().as_millis() as u64
    }

    fn jump(&self, ms: i64) {
        self.jumped_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn set_in(&self, ms: u64, key: u32) -> Alarm {
        self.timers.set(Due::Moment(self.now_ms() + ms), key)
    }

    async fn next(&mut self) -> Rung {
        self.rung.recv().await.expect("the clock runs")
    }

    /// Lets so much time pass, with all that happens in it.
    async fn pass(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    fn is_silent(&mut self) -> bool {
        self.rung.try_recv().is_err()
    }
}

#[tokio::test(start_paused = true)]
async fn an_alarm_rings_at_its_time() {
    let mut bench = Bench::new();
    let alarm = bench.set_in(250, 1);
    let (key, due_ms, now_ms) = bench.next().await;
    assert_eq!((key, Due::Moment(due_ms)), (1, alarm.due()));
    assert!((due_ms..=due_ms + 1).contains(&now_ms), "{due_ms} {now_ms}");
    assert!(bench.timers.is_empty());
}

#[tokio::test(start_paused = true)]
async fn alarms_ring_in_the_order_of_their_times_and_then_of_setting() {
    let mut bench = Bench::new();
    let _alarms = [(30, 3), (10, 1), (20, 2), (30, 4)].map(|(ms, key)| bench.set_in(ms, key));
    for expected in 1..=4 {
        assert_eq!(bench.next().await.0, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_moment_that_has_passed_is_due_at_once() {
    let mut bench = Bench::new();
    let _alarms = [0, START_MS - 5].map(|due_ms| bench.timers.set(Due::Moment(due_ms), 7));
    let before = Instant::now();
    bench.next().await;
    bench.next().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_alarm_does_not_wait_for_a_later_one() {
    let mut bench = Bench::new();
    let _late = bench.set_in(60_000, 2);
    bench.pass(100).await;
    let _soon = bench.set_in(5, 1);
    assert_eq!(bench.next().await.0, 1);
    assert!(bench.began.elapsed() < Duration::from_millis(110));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_alarm_does_not_ring() {
    let mut bench = Bench::new();
    let dropped = bench.set_in(10, 1);
    let _kept = bench.set_in(20, 2);
    drop(dropped);
    assert_eq!(bench.next().await.0, 2);
}

#[tokio::test(start_paused = true)]
async fn alarms_years_away_wait_and_can_be_cancelled() {
    let mut bench = Bench::new();
    let alarms = [
        bench.set_in(10 * YEAR_MS, 1),
        bench.timers.set(Due::Moment(u64::MAX), 2),
        bench.timers.set(Due::Steady(i64::MAX as u64), 3),
    ];
    bench.pass(60 * 60 * 1000).await;
    assert!(bench.is_silent());
    assert_eq!(bench.timers.len(), 3);
    drop(alarms);
    assert_eq!(bench.timers.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_forward_makes_alarms_due_within_a_second() {
    let mut bench = Bench::new();
    let _alarm = bench.set_in(10 * YEAR_MS, 1);
    bench.pass(300).await;
    bench.jump(10 * YEAR_MS as i64);
    let before = Instant::now();
    bench.next().await;
    assert!(before.elapsed() <= LOOK, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_back_makes_no_alarm_ring_early() {
    let mut bench = Bench::new();
    let alarm = bench.set_in(2_000, 1);
    bench.pass(1_500).await;
    bench.jump(-10_000);
    let (_, due_ms, now_ms) = bench.next().await;
    assert_eq!(Due::Moment(due_ms), alarm.due());
    assert!((due_ms..=due_ms + 1).contains(&now_ms), "{due_ms} {now_ms}");
}

#[tokio::test(start_paused = true)]
async fn a_span_ends_when_it_has_passed_however_the_clock_is_set() {
    for jump in [-30_000, 30_000, YEAR_MS as i64, -(YEAR_MS as i64)] {
        let mut bench = Bench::new();
        let due = Due::Steady(bench.timers.steady_ms() + 2_000);
        let _alarm = bench.timers.set(due, 1);
        bench.pass(500).await;
        bench.jump(jump);
        let before = Instant::now();
        bench.next().await;
        let waited = before.elapsed();
        let left = Duration::from_millis(1_500);
        assert!(
            waited >= left && waited <= left + Duration::from_millis(2),
            "{waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn how_far_the_clock_was_set_ahead_is_known() {
    let bench = Bench::new();
    assert_eq!(bench.timers.ahead_ms(), 0);
    bench.jump(-30_000);
    assert_eq!(bench.timers.ahead_ms(), -30_000);
    bench.jump(30_000);
    assert_eq!(bench.timers.ahead_ms(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_has_the_calendar_worked_out_anew() {
    let mut bench = Bench::new();
    let due_ms = bench.now_ms() + YEAR_MS;
    let _calendar = bench.timers.set(Due::Calendar(due_ms), 1);
    let _moment = bench.timers.set(Due::Moment(due_ms), 2);
    bench.pass(300).await;
    bench.jump(-(YEAR_MS as i64));
    let before = Instant::now();
    let (key, rang_ms, now_ms) = bench.next().await;
    assert_eq!((key, rang_ms), (1, due_ms));
    assert!(now_ms < due_ms);
    assert!(before.elapsed() <= LOOK, "{:?}", before.elapsed());
    bench.pass(60_000).await;
    assert!(bench.is_silent());
}

#[tokio::test(start_paused = true)]
async fn alarms_of_all_kinds_ring_in_one_order() {
    let mut bench = Bench::new();
    let (wall, steady) = (bench.now_ms(), bench.timers.steady_ms());
    let _alarms = [
        bench.timers.set(Due::Moment(wall + 30), 3),
        bench.timers.set(Due::Steady(steady + 10), 1),
        bench.timers.set(Due::Calendar(wall + 20), 2),
        bench.timers.set(Due::Steady(steady + 40), 4),
    ];
    for expected in 1..=4 {
        assert_eq!(bench.next().await.0, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_set_and_dropped_leaves_nothing() {
    let bench = Bench::new();
    for key in 0..100_000 {
        drop(bench.set_in(1_000 + u64::from(key), key));
    }
    assert_eq!(bench.timers.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_clock_stops_with_its_last_handle() {
    let Bench {
        timers, mut rung, ..
    } = Bench::new();
    let alarm = timers.set(Due::Moment(START_MS + 10), 1);
    let other = timers.clone();
    drop(timers);
    assert_eq!(other.len(), 1);
    drop(other);
    // The channel closes because the task, which held its other end, has ended.
    assert_eq!(rung.recv().await, None);
    drop(alarm);
}

#[tokio::test(start_paused = true)]
async fn alarms_can_be_set_and_dropped_while_one_rings() {
    let held: Arc<Mutex<Option<Alarm>>> = Arc::default();
    let slot: Arc<std::sync::OnceLock<Timers<u32>>> = Arc::default();
    let (tell, mut rung) = mpsc::unbounded_channel();
    let timers = {
        let (held, slot) = (held.clone(), slot.clone());
        Timers::start(move |key, due| {
            let _ = tell.send(key);
            if key < 3 {
                // Under a lock of the clock this would not return.
                let next = slot.get().unwrap().set(due, key + 1);
                *held.lock() = Some(next);
            }
        })
    };
    slot.set(timers.clone()).unwrap();
    *held.lock() = Some(timers.set(Due::Moment(0), 1));
    for expected in 1..=3 {
        assert_eq!(rung.recv().await, Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_panics_silences_no_other() {
    let (tell, mut rung) = mpsc::unbounded_channel();
    let timers = Timers::start(move |key: u32, _| {
        assert_ne!(key, 1, "this one goes wrong");
        let _ = tell.send(key);
    });
    let _alarms = [1, 2].map(|key| timers.set(Due::Moment(u64::from(key)), key));
    assert_eq!(rung.recv().await, Some(2));
}

#[tokio::test]
async fn the_systems_clock_is_the_one_that_counts() {
    let (tell, mut rung) = mpsc::unbounded_channel();
    let timers = Timers::start(move |(), due| {
        let _ = tell.send((due, WallClock::default().now()));
    });
    let due = WallClock::default().now() + Duration::from_millis(30);
    let _alarm = timers.set(Due::Moment(due.as_millis() as u64), ());
    let (_, rang) = rung.recv().await.unwrap();
    assert!(rang.as_millis() >= due.as_millis());
}

/// What may happen to a clock.
#[derive(Clone, Debug)]
enum Act {
    Set { in_ms: u64 },
    Drop { which: usize },
    Pass { ms: u64 },
    Jump { ms: i64 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..5_000_u64).prop_map(|in_ms| Act::Set { in_ms }),
        3 => any::<usize>().prop_map(|which| Act::Drop { which }),
        3 => (1..1_500_u64).prop_map(|ms| Act::Pass { ms }),
        1 => (-2_000..2_000_i64).prop_map(|ms| Act::Jump { ms }),
    ];
    proptest::collection::vec(act, 1..80)
}

proptest! {
    #[test]
    fn exactly_what_is_not_cancelled_rings_never_early_and_in_order(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            let mut alarms: Vec<(u32, Alarm)> = Vec::new();
            let (mut rung, mut cancelled) = (Vec::new(), Vec::new());
            let mut count = 0;
            let mut ordered = Vec::new();
            for act in acts {
                match act {
                    Act::Set { in_ms } => {
                        alarms.push((count, bench.set_in(in_ms, count)));
                        count += 1;
                    }
                    Act::Drop { which } if !alarms.is_empty() => {
                        let (key, alarm) = alarms.swap_remove(which % alarms.len());
                        drop(alarm);
                        cancelled.push(key);
                    }
                    Act::Drop { .. } => {}
                    Act::Pass { ms } => advance(Duration::from_millis(ms)).await,
                    Act::Jump { ms } => bench.jump(ms),
                }
                // What rang by now rang before what follows: only a group of alarms that
                // wait together has an order.
                let mut group = Vec::new();
                while let Ok(one) = bench.rung.try_recv() {
                    group.push(one);
                }
                ordered.push(group.clone());
                rung.extend(group);
            }
            bench.pass(20_000).await;
            let mut group = Vec::new();
            while let Ok(one) = bench.rung.try_recv() {
                group.push(one);
            }
            ordered.push(group.clone());
            rung.extend(group);

            let keys: Vec<u32> = rung.iter().map(|(key, ..)| *key).collect();
            for key in 0..count {
                let times = keys.iter().filter(|rang| **rang == key).count();
                // One that is dropped after it rang has rung.
                let fits = times == 1 || (times == 0 && cancelled.contains(&key));
                prop_assert!(fits, "{key} rang {times} times");
            }
            for (key, due_ms, now_ms) in &rung {
                prop_assert!(now_ms >= due_ms, "{key} rang at {now_ms}, due {due_ms}");
            }
            for group in ordered {
                prop_assert!(group.is_sorted_by_key(|(key, due_ms, _)| (*due_ms, *key)));
            }
            prop_assert_eq!(bench.timers.len(), 0);
            Ok(())
        })?;
    }
}

//! What is not to be lost beside states: timers, and who is connected.
//!
//! In each round clients have contact with `visits` actors and set timers of `clock` actors.
//! These write down all that happens to them, so one look at the end tells everything: each
//! timer that was acknowledged has fired once, and everybody who came has left, once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_tests::{Actor, Host, Socket, WallClock, actor};

use crate::Random;

/// Actors of either type.
const ACTORS: u64 = 3;
/// Timers that one client sets in a round.
const TIMERS: usize = 8;
/// The longest delay of a timer.
const DELAY_MS: u64 = 400;
/// An interval, which is set once.
pub(crate) const INTERVAL_MS: u64 = 200;
/// How many more of its ticks are waited for at the end.
const TICKS: usize = 8;
/// How soon a host notices that its clock was set, with something to spare.
const NOTICED_MS: u64 = 1_500;

/// What the clients have set, and which of it they know to be set.
#[derive(Clone, Default)]
pub(crate) struct Errands(Arc<Mutex<Vec<bool>>>);

/// What has become of it.
pub(crate) struct Account {
    timers: usize,
    visitors: usize,
    ticks: usize,
    pub(crate) wrong: Vec<String>,
}

impl Errands {
    fn with<T>(&self, visit: impl FnOnce(&mut Vec<bool>) -> T) -> T {
        visit(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the interval.
    pub(crate) async fn begin(&self, host: &Host) {
        let mut socket = host.connect().await;
        let timer = json!({"label": "tick", "ms": INTERVAL_MS, "every": true});
        let set = socket
            .call(&grid(), "set", json!({"timers": [timer]}))
            .await;
        set.result();
    }

    /// Runs errands until the connection breaks.
    pub(crate) async fn run(self, mut socket: Socket, mut random: Random) {
        for _ in 0..TIMERS {
            let visits = actor("visits", &random.below(ACTORS).to_string());
            if !socket.try_call(&visits, "call", Value::Null).await {
                return;
            }
            let label = self.with(|set| {
                set.push(false);
                set.len() - 1
            });
            let stays = random.below(2) == 0;
            let timer = json!({
                "label": label.to_string(), "ms": random.below(DELAY_MS),
                "idle": stays, "outlive": stays,
            });
            let clock = actor("clock", &random.below(ACTORS).to_string());
            if !socket
                .try_call(&clock, "set", json!({"timers": [timer]}))
                .await
            {
                return;
            }
            // The answers to both.
            for _ in 0..2 {
                let Ok(answer) = socket.try_next().await else {
                    return;
                };
                if answer["result"].is_array() {
                    self.with(|set| set[label] = true);
                }
            }
        }
        while socket.try_next().await.is_ok() {}
    }

    /// Looks at what there is.
    pub(crate) async fn account(&self, host: &Host, clock: &WallClock) -> Account {
        // Beyond all moments that a host has stored by a clock that was ahead of what it is.
        clock.set_ahead(2 * crate::CLOCK_OFF_MS as i64);
        let mut socket = host.connect().await;
        let mut wrong = Vec::new();
        let mut fired: BTreeMap<String, u32> = BTreeMap::new();
        let acknowledged = self.with(|set| set.clone());
        // All that is set is due by then, and nothing may follow.
        let end = Instant::now() + Duration::from_millis(DELAY_MS + NOTICED_MS);
        for number in 0..ACTORS {
            let clock = actor("clock", &number.to_string());
            let rest = end.saturating_duration_since(Instant::now());
            let rest = json!({"ms": rest.as_millis() as u64 + 50});
            socket.call(&clock, "dawdle", rest).await.result();
            socket.call(&clock, "count", None).await.result();
            for firing in list(&state(&mut socket, &clock).await, "firings") {
                let label = firing["label"].as_str().unwrap_or_default();
                *fired.entry(label.to_owned()).or_default() += 1;
            }
        }
        for (label, acknowledged) in acknowledged.iter().enumerate() {
            match fired.remove(&label.to_string()) {
                None if *acknowledged => wrong.push(format!("timer {label} was lost")),
                None | Some(1) => {}
                Some(times) => wrong.push(format!("timer {label} has fired {times} times")),
            }
        }
        if !fired.is_empty() {
            wrong.push(format!("nobody has set {fired:?}"));
        }
        let ticks = all_ticks(&mut socket, &mut wrong).await;
        for pair in ticks.windows(2) {
            let [first, second] = [&pair[0], &pair[1]];
            if !follows(first, second) {
                wrong.push(format!("the interval came at {first}, then at {second}"));
            }
        }
        let mut visitors = 0;
        for number in 0..ACTORS {
            let visits = actor("visits", &number.to_string());
            socket.call(&visits, "call", None).await.result();
            let state = state(&mut socket, &visits).await;
            let mut came = names(&state, "connects");
            let mut left = names(&state, "disconnects");
            left.push(socket.id().to_owned());
            came.sort();
            left.sort();
            visitors += came.len();
            if came != left {
                wrong.push(format!("{visits}: {came:?} came, and {left:?} left"));
            }
        }
        Account {
            timers: acknowledged.len(),
            ticks: ticks.len(),
            visitors,
            wrong,
        }
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (timers, ticks, visitors) = (self.timers, self.ticks, self.visitors);
        write!(
            f,
            "timers {timers}, ticks of an interval {ticks}, visitors {visitors}"
        )?;
        for wrong in &self.wrong {
            write!(f, "\n{wrong}")?;
        }
        Ok(())
    }
}

/// The ticks so far and some more, which come as often as they should.
async fn all_ticks(socket: &mut Socket, wrong: &mut Vec<String>) -> Vec<Value> {
    let begun = Instant::now();
    let before = list(&state(socket, &grid()).await, "firings").len();
    let is_enough = |state: &Value| list(state, "firings").len() >= before + TICKS;
    let ticks = list(&socket.watch(&grid(), is_enough).await, "firings");
    let came = (ticks.len() - before) as u128;
    // One may have been late, and one was due at once.
    let most = begun.elapsed().as_millis() / u128::from(INTERVAL_MS) + 2;
    if came > most {
        wrong.push(format!(
            "the interval came {came} times, and was due {most} times at most"
        ));
    }
    ticks
}

/// Whether a tick may come after another. The clock is set by whole intervals, and by too many of
/// them for two ticks to be due at the same time, unless it was set back meanwhile.
fn follows(first: &Value, second: &Value) -> bool {
    let time = |tick: &Value, name: &str| tick[name].as_u64().unwrap_or_default();
    match time(second, "due").abs_diff(time(first, "due")) {
        0 => time(second, "now") < time(first, "now"),
        step => step % INTERVAL_MS == 0,
    }
}

fn grid() -> Actor {
    actor("clock", "grid")
}

async fn state(socket: &mut Socket, actor: &Actor) -> Value {
    let snapshot = socket.watch(actor, |_| true).await;
    socket.unsubscribe_state(actor).await;
    snapshot
}

fn list(state: &Value, name: &str) -> Vec<Value> {
    state[name].as_array().cloned().unwrap_or_default()
}

fn names(state: &Value, name: &str) -> Vec<String> {
    let names = list(state, name).into_iter();
    names
        .map(|name| name.as_str().unwrap_or_default().to_owned())
        .collect()
}

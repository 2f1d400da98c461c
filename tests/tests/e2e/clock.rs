//! Hosts whose wall clock is set: spans of time end when they have passed, moments come when the
//! clock shows them.

use serde_json::{Value, json};
use tidegate_tests::{Actor, Builder, Folder, Host, Socket, WallClock, actor, token};

/// More than a test waits for anything.
const LONG_MS: i64 = 30_000;
const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;

fn by(clock: &WallClock) -> Builder {
    Host::builder().component("lab").clock(clock)
}

async fn set(socket: &mut Socket, clock: &Actor, timer: Value) {
    let set = json!({"timers": [timer]});
    socket.call(clock, "set", set).await.result();
}

/// Waits until so many timers have fired.
async fn fired(host: &Host, clock: &Actor, count: usize) -> Vec<Value> {
    let firings = |state: &Value| state["firings"].as_array().map_or(0, Vec::len);
    let mut watcher = host.connect().await;
    let state = watcher.watch(clock, |state| firings(state) >= count).await;
    state["firings"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn an_interval_goes_on_whenever_the_clock_is_set() {
    let wall = WallClock::new();
    let host = by(&wall).start().await;
    let clock = actor("clock", "a");
    let mut socket = host.connect().await;
    set(
        &mut socket,
        &clock,
        json!({"label": "tick", "ms": 100, "every": true}),
    )
    .await;
    let mut count = fired(&host, &clock, 2).await.len();
    for ahead_ms in [-LONG_MS, 0, YEAR_MS, -YEAR_MS] {
        wall.set_ahead(ahead_ms);
        count = fired(&host, &clock, count + 3).await.len();
    }
    // Each was told the moment by the clock as it was.
    let firings = fired(&host, &clock, count).await;
    let [first, last] = [&firings[0], &firings[count - 1]];
    let due = |firing: &Value| firing["due"].as_i64().expect("a time");
    assert!((due(first) - due(last) - YEAR_MS).abs() < LONG_MS);
    assert!(last["now"].as_i64().expect("a time") >= due(last));
}

#[tokio::test]
async fn a_delay_ends_although_the_clock_was_set_back() {
    let wall = WallClock::new();
    let host = by(&wall).start().await;
    let clock = actor("clock", "a");
    let mut socket = host.connect().await;
    set(&mut socket, &clock, json!({"label": "late", "ms": 1_500})).await;
    wall.set_ahead(-LONG_MS);
    fired(&host, &clock, 1).await;
}

#[tokio::test]
async fn a_delay_does_not_end_because_the_clock_was_set_ahead() {
    let wall = WallClock::new();
    let host = by(&wall).start().await;
    let clock = actor("clock", "a");
    let mut socket = host.connect().await;
    set(
        &mut socket,
        &clock,
        json!({"label": "hour", "ms": 3_600_000}),
    )
    .await;
    wall.set_ahead(2 * 3_600_000);
    set(&mut socket, &clock, json!({"label": "now", "ms": 1_500})).await;
    let firings = fired(&host, &clock, 1).await;
    assert_eq!(firings[0]["label"], "now");
}

#[tokio::test]
async fn a_timer_of_an_actor_that_left_memory_comes_when_its_span_has_passed() {
    let wall = WallClock::new();
    let idle = "actors.idle-timeout-ms=50";
    let host = by(&wall).set(idle).start().await;
    let clock = actor("clock", "a");
    let mut socket = host.connect().await;
    let timer = json!({"label": "late", "ms": 2_000, "idle": true, "outlive": true});
    set(&mut socket, &clock, timer).await;
    host.until_asleep(&clock).await;
    wall.set_ahead(-LONG_MS);
    fired(&host, &clock, 1).await;
}

#[tokio::test]
async fn a_clock_that_was_years_ahead_when_the_host_began_holds_nothing_up() {
    let wall = WallClock::new();
    wall.set_ahead(5 * YEAR_MS);
    let folder = Folder::new();
    let on = || by(&wall).data(folder.path());
    let host = on().start().await;
    let clock = actor("clock", "a");
    let mut socket = host.connect().await;
    set(
        &mut socket,
        &clock,
        json!({"label": "tick", "ms": 100, "every": true}),
    )
    .await;
    let count = fired(&host, &clock, 1).await.len();
    wall.set_ahead(0);
    let count = fired(&host, &clock, count + 20).await.len();
    // What is stored is by the clock as it is.
    host.kill().await;
    let host = on().start().await;
    fired(&host, &clock, count + 3).await;
}

#[tokio::test]
async fn a_stored_timer_follows_a_clock_that_is_corrected_after_the_start() {
    let wall = WallClock::new();
    let folder = Folder::new();
    let on = || by(&wall).data(folder.path());
    let host = on().start().await;
    let clock = actor("clock", "a");
    let mut socket = host.connect().await;
    let timer = json!({"label": "late", "ms": 3_000, "outlive": true});
    set(&mut socket, &clock, timer).await;
    host.kill().await;
    // A machine whose clock begins in another year until the network tells it better.
    wall.set_ahead(-YEAR_MS);
    let host = on().start().await;
    let mut watcher = host.connect().await;
    let nothing = watcher.subscribe_state(&clock).await;
    assert_eq!(nothing["state"]["firings"], json!([]));
    wall.set_ahead(0);
    fired(&host, &clock, 1).await;
}

#[tokio::test]
async fn a_schedule_of_intervals_goes_on_when_the_clock_is_set_back() {
    let wall = WallClock::new();
    let host = by(&wall).start().await;
    let presence = actor("presence", "a");
    let mut socket = host.connect().await;
    let here = json!({"user": "ann"});
    socket.call(&presence, "heartbeat", here).await.result();
    let cleaned = |state: &Value| state["cleanups"].as_array().map_or(0, Vec::len);
    let state = socket.watch(&presence, |state| cleaned(state) >= 1).await;
    let before = cleaned(&state);
    wall.set_ahead(-LONG_MS);
    let mut watcher = host.connect().await;
    watcher
        .watch(&presence, |state| cleaned(state) >= before + 3)
        .await;
}

#[tokio::test]
async fn a_remembered_answer_outlasts_a_clock_that_is_set_ahead() {
    let wall = WallClock::new();
    let host = by(&wall).start().await;
    let lab = || {
        host.post("/actors/lab/1/count")
            .header("idempotency-key", "once")
            .json(&json!({}))
    };
    assert_eq!(lab().send().await.json(), json!(1));
    wall.set_ahead(YEAR_MS);
    assert_eq!(lab().send().await.json(), json!(1));
}

#[tokio::test]
async fn a_token_that_the_clock_has_passed_is_good_for_nothing_more() {
    let wall = WallClock::new();
    let host = by(&wall).with_tokens().start().await;
    let lab = actor("lab", "1");
    let token = token::of("ann");
    let mut caller = Socket::signed_in(&host, &token).await;
    let mut silent = Socket::signed_in(&host, &token).await;
    assert_eq!(caller.call(&lab, "count", json!({})).await.result(), 1);
    let path = format!("/actors/lab/1/state?token={token}");
    let request = host.get(&path).header("accept", "text/event-stream");
    let mut stream = request.stream().await;
    stream.expect("snapshot").await;
    wall.set_ahead(2 * 3_600_000);
    // Those that are told nothing, because nothing happens.
    assert_eq!(silent.closed().await.code, 4401);
    let last = stream.expect("error").await;
    assert!(last.data.to_string().contains("auth.expired"), "{last:?}");
    stream.ends().await;
    assert_eq!(caller.closed().await.code, 4401);
}

#[tokio::test]
async fn a_call_behind_a_token_that_the_clock_has_passed_is_not_taken() {
    let wall = WallClock::new();
    let host = by(&wall).with_tokens().start().await;
    let lab = actor("lab", "1");
    let mut caller = Socket::signed_in(&host, &token::of("ann")).await;
    wall.set_ahead(2 * 3_600_000);
    // The host looks at its clock with each frame, and a test's host at its file now and then.
    let mut taken = 0;
    let closed = loop {
        caller.begin_call(&lab, "count", json!({})).await;
        match caller.try_next().await {
            Ok(frame) if frame["type"] == "rpc:result" => taken += 1,
            Ok(other) => panic!("{other}"),
            Err(closed) => break closed,
        }
    };
    assert_eq!(closed.code, 4401);
    let exp = token::seconds_from_now(4 * 3600);
    let lasting = token::with_claims(&json!({"sub": "ann", "exp": exp}));
    let mut again = Socket::signed_in(&host, &lasting).await;
    let count = again.call(&lab, "count", json!({})).await.result();
    // The one that was under way when the connection was closed may have been taken before.
    let before = count.as_u64().expect("a number") - 1;
    assert!((taken..=taken + 1).contains(&before), "{before} of {taken}");
}

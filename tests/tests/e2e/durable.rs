//! What a host that is killed knows again when it is started on the same folder.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Actor, Builder, Folder, Host, PATIENCE, Socket, actor};

fn on(folder: &Folder, handler: &str) -> Builder {
    Host::builder().component(handler).data(folder.path())
}

/// What the host knows of an actor, without bringing it into memory.
async fn about(host: &Host, actor: &Actor) -> Value {
    let path = format!("/actors/{actor}");
    host.admin(Method::GET, &path).send().await.json()
}

/// Asks until what is known of an actor is as wanted.
async fn until(host: &Host, actor: &Actor, wanted: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let about = about(host, actor).await;
            if wanted(&about) {
                return about;
            }
        }
    };
    let about = tokio::time::timeout(PATIENCE, asking).await;
    about.unwrap_or_else(|_| panic!("{actor} never becomes as wanted"))
}

fn is_asleep(about: &Value) -> bool {
    about["inMemory"] == false
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock that is set").as_millis() as u64
}

/// Sets one timer of a `clock`.
async fn set_timer(socket: &mut Socket, clock: &Actor, timer: Value) -> Value {
    let set = socket.call(clock, "set", json!({"timers": [timer]})).await;
    set.result()[0].clone()
}

fn firings(state: &Value) -> &[Value] {
    state["firings"].as_array().map_or(&[], Vec::as_slice)
}

fn dues(state: &Value) -> Vec<u64> {
    let firings = firings(state).iter();
    firings
        .map(|firing| firing["due"].as_u64().expect("a time"))
        .collect()
}

/// The firings of a `clock`, once it has been idle in a turn for so long.
async fn firings_after(host: &Host, clock: &Actor, ms: u64) -> Vec<Value> {
    let mut socket = host.connect().await;
    let dawdled = socket.call(clock, "dawdle", json!({"ms": ms})).await;
    dawdled.result();
    // Behind what was due during that turn.
    socket.call(clock, "count", None).await.result();
    firings(&about(host, clock).await["state"]).to_vec()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = Folder::new();
    let counter = actor("counter", "a");
    let mut before = Value::Null;
    for round in 0..3 {
        let host = on(&folder, "counter").start().await;
        let mut socket = host.connect().await;
        let snapshot = socket.subscribe_state(&counter).await;
        assert_eq!(snapshot["state"], json!({"count": round * 6}));
        assert_eq!(snapshot["version"], round * 3, "versions go on");
        if round > 0 {
            // Where the first of the calls had led.
            let version = before["version"].as_u64().expect("a version") + 1;
            let since = json!({"epoch": before["epoch"], "version": version});
            let mut reader = host.connect().await;
            reader
                .send(json!({
                    "type": "state:sub", "actor": "counter", "actorId": "a", "since": since,
                }))
                .await;
            let missed = reader.next().await;
            assert_eq!(missed["type"], "state:patch", "it is one history");
        }
        before = snapshot;
        for by in 1..=3 {
            socket.call(&counter, "increment", json!({"by": by})).await;
        }
        host.kill().await;
    }
}

#[tokio::test]
async fn what_http_was_told_is_there_after_a_kill() {
    let folder = Folder::new();
    let host = on(&folder, "counter").start().await;
    let increment = host.post("/actors/counter/a/increment");
    let told = increment.json(&json!({"by": 7})).send().await;
    assert_eq!(told.status, 200);
    host.kill().await;
    let host = on(&folder, "counter").start().await;
    let read = host.get("/actors/counter/a/state").send().await.json();
    assert_eq!(read["state"], json!({"count": 7}));
}

#[tokio::test]
async fn what_a_subscriber_was_shown_is_there_after_a_kill() {
    let folder = Folder::new();
    let host = on(&folder, "counter").start().await;
    let counter = actor("counter", "a");
    let (mut caller, mut watcher) = (host.connect().await, host.connect().await);
    watcher.subscribe_state(&counter).await;
    for _ in 0..50 {
        caller
            .begin_call(&counter, "increment", json!({"by": 1}))
            .await;
    }
    let mut shown = Value::Null;
    for _ in 0..5 {
        shown = watcher.expect_type("state:patch").await;
    }
    host.kill().await;
    let host = on(&folder, "counter").start().await;
    let after = host.connect().await.subscribe_state(&counter).await;
    assert!(after["version"].as_u64() >= shown["version"].as_u64());
    assert_eq!(after["state"]["count"], after["version"], "each counts one");
}

#[tokio::test]
async fn what_an_event_told_of_is_there_after_a_kill() {
    let folder = Folder::new();
    let lab = actor("lab", "1");
    let host = on(&folder, "lab").start().await;
    let (mut caller, mut listener) = (host.connect().await, host.connect().await);
    listener.subscribe_events(&lab).await;
    // Behind the subscription, which nothing acknowledges.
    listener.call(&lab, "zero", None).await.result();
    for _ in 0..50 {
        caller.begin_call(&lab, "twice", None).await;
    }
    let mut told = None;
    for _ in 0..7 {
        told = listener.expect_type("event").await["payload"]["x"].as_u64();
    }
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let state = host.connect().await.subscribe_state(&lab).await["state"].clone();
    assert!(state["n"].as_u64() >= told, "{state} after {told:?}");
}

#[tokio::test]
async fn what_a_stream_has_shown_is_there_after_a_kill() {
    let folder = Folder::new();
    let ticker = actor("ticker", "1");
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    let endless = json!({"stepMs": 5});
    let watching = {
        let mut watcher = host.connect().await;
        let ticker = ticker.clone();
        tokio::spawn(async move {
            let far = |state: &Value| state["n"].as_u64() >= Some(20);
            watcher.watch(&ticker, far).await
        })
    };
    socket.begin_call(&ticker, "forever", endless).await;
    let shown = watching.await.expect("it counts");
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let state = host.connect().await.subscribe_state(&ticker).await["state"].clone();
    assert!(
        state["n"].as_u64() >= shown["n"].as_u64(),
        "{state} after {shown}"
    );
}

#[tokio::test]
async fn both_sides_of_a_call_between_actors_are_there_after_a_kill() {
    let folder = Folder::new();
    let (caller, lab) = (actor("caller", "1"), actor("lab", "1"));
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    let order = json!({"actor": "lab", "id": "1", "method": "count"});
    for expected in 1..=5 {
        let counted = socket.call(&caller, "call", order.clone()).await;
        assert_eq!(counted.result(), expected);
    }
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    // Two connections, since the first is told of its own arrival at the lab.
    let lab = host.connect().await.subscribe_state(&lab).await;
    assert_eq!(lab["state"]["n"], 5);
    let caller = host.connect().await.subscribe_state(&caller).await;
    assert_eq!(caller["state"]["calls"], 5);
}

#[tokio::test]
async fn an_orderly_stop_keeps_everything_too() {
    let folder = Folder::new();
    let counter = actor("counter", "a");
    let mut host = on(&folder, "counter").start().await;
    let mut socket = host.connect().await;
    socket.call(&counter, "increment", json!({"by": 2})).await;
    let before = socket.subscribe_state(&counter).await;
    socket.close().await;
    host.terminate().await;
    assert!(host.ended().await.success());
    let host = on(&folder, "counter").start().await;
    let after = host.connect().await.subscribe_state(&counter).await;
    assert_eq!(
        (&after["state"], &after["version"]),
        (&before["state"], &before["version"])
    );
}

#[tokio::test]
async fn a_failed_turn_is_not_found_after_a_kill() {
    let folder = Folder::new();
    let lab = actor("lab", "1");
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    socket.call(&lab, "count", None).await.result();
    let failed = socket.call(&lab, "mutThrow", None).await;
    assert_eq!(failed.code(), "lab.boom");
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let state = host.connect().await.subscribe_state(&lab).await;
    assert_eq!(
        (&state["state"]["n"], &state["state"]["a"]),
        (&json!(1), &json!([1, 2, 3]))
    );
}

#[tokio::test]
async fn actors_that_had_left_memory_come_back() {
    let folder = Folder::new();
    let counter = actor("counter", "a");
    let host = on(&folder, "counter")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    for expected in [3, 6] {
        let count = socket.call(&counter, "increment", json!({"by": 3})).await;
        assert_eq!(count.result(), expected);
        until(&host, &counter, is_asleep).await;
    }
    host.kill().await;
    let host = on(&folder, "counter").start().await;
    assert_eq!(about(&host, &counter).await["inMemory"], false);
    let mut socket = host.connect().await;
    let count = socket.call(&counter, "increment", json!({"by": 3})).await;
    assert_eq!(count.result(), 9);
}

#[tokio::test]
async fn a_large_state_comes_back() {
    let folder = Folder::new();
    let lab = actor("lab", "1");
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    for _ in 0..5 {
        socket
            .call(&lab, "fill", json!({"bytes": 500_000}))
            .await
            .result();
    }
    for _ in 0..5 {
        socket.call(&lab, "count", None).await.result();
    }
    let before = host.get("/actors/lab/1/state").send().await.json();
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let after = host.get("/actors/lab/1/state").send().await.json();
    assert!(after["state"] == before["state"] && after["version"] == before["version"]);
}

#[tokio::test]
async fn who_was_connected_at_the_kill_is_said_to_have_left_once() {
    let folder = Folder::new();
    let visits = actor("visits", "1");
    let mut gone: Vec<String> = Vec::new();
    for _ in 0..3 {
        let host = on(&folder, "lab").start().await;
        let mut socket = host.connect().await;
        // It has contact with this, and is behind all that activation does.
        socket.call(&visits, "call", None).await.result();
        let known = socket.call(&visits, "known", None).await.result();
        assert_eq!(known, json!([socket.id()]), "no ghosts");
        let state = socket.subscribe_state(&visits).await["state"].clone();
        assert_eq!(state["disconnects"], json!(gone));
        gone.push(socket.id().to_owned());
        assert_eq!(state["connects"], json!(gone));
        host.kill().await;
    }
}

#[tokio::test]
async fn who_looks_first_after_a_kill_sees_nobody_who_is_gone() {
    let folder = Folder::new();
    let visits = actor("visits", "1");
    let path = "/actors/visits/1/state";
    let mut gone: Vec<String> = Vec::new();
    for way in ["read", "stream", "socket"] {
        let host = on(&folder, "lab").start().await;
        let mut socket = host.connect().await;
        socket.call(&visits, "call", None).await.result();
        gone.push(socket.id().to_owned());
        host.kill().await;
        // So much that a slow machine is no reason for showing less.
        let patient = on(&folder, "lab").set("actors.connect-wait-ms=10000");
        let host = patient.start().await;
        let state = match way {
            "read" => host.get(path).send().await.json()["state"].clone(),
            "stream" => {
                let request = host.get(path).header("accept", "text/event-stream");
                let mut stream = request.stream().await;
                stream.expect("snapshot").await.data["state"].clone()
            }
            _ => {
                let mut socket = host.connect().await;
                let snapshot = socket.subscribe_state(&visits).await;
                gone.push(socket.id().to_owned());
                snapshot["state"].clone()
            }
        };
        let left = state["disconnects"].as_array().expect("a list").clone();
        let known = gone.iter().filter(|id| left.contains(&json!(id))).count();
        let expected = if way == "socket" {
            gone.len() - 1
        } else {
            gone.len()
        };
        assert_eq!(known, expected, "{way}: {state}");
        host.kill().await;
    }
}

#[tokio::test]
async fn who_left_while_the_actor_slept_is_no_ghost_after_a_kill() {
    let folder = Folder::new();
    let visits = actor("visits", "1");
    let host = on(&folder, "lab")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    socket.call(&visits, "call", None).await.result();
    let id = socket.id().to_owned();
    until(&host, &visits, is_asleep).await;
    socket.close().await;
    let told = |about: &Value| about["state"]["disconnects"] == json!([id]);
    until(&host, &visits, told).await;
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    socket.call(&visits, "call", None).await.result();
    let state = socket.subscribe_state(&visits).await["state"].clone();
    assert_eq!(state["disconnects"], json!([id]), "told once");
}

#[tokio::test]
async fn a_chat_room_shows_nobody_who_is_not_there() {
    let folder = Folder::new();
    let room = actor("chat", "r");
    let host = on(&folder, "chat").start().await;
    let (mut ann, mut bob) = (host.connect().await, host.connect().await);
    ann.call(&room, "join", json!({"name": "ann"}))
        .await
        .result();
    bob.call(&room, "join", json!({"name": "bob"}))
        .await
        .result();
    let sent = ann.call(&room, "send", json!({"text": "hello"})).await;
    sent.result();
    host.kill().await;
    let host = on(&folder, "chat").start().await;
    let mut ann = host.connect().await;
    // The name is free again.
    ann.call(&room, "join", json!({"name": "ann"}))
        .await
        .result();
    let state = ann.subscribe_state(&room).await["state"].clone();
    let online = state["online"].as_object().expect("by connection");
    assert_eq!(online.keys().collect::<Vec<_>>(), [ann.id()]);
    assert_eq!(state["messages"][0]["text"], "hello");
}

#[tokio::test]
async fn a_timer_that_came_due_while_the_host_was_dead_fires_once() {
    let folder = Folder::new();
    let clock = actor("clock", "1");
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    let timer = json!({"label": "late", "ms": 400});
    let id = set_timer(&mut socket, &clock, timer).await;
    let before = about(&host, &clock).await;
    assert_eq!(firings(&before["state"]), [] as [Value; 0]);
    host.kill().await;
    // Nobody runs who could say that the time has come.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let host = on(&folder, "lab").start().await;
    // Nobody touches the actor: the timer wakes it.
    let fired = |about: &Value| !firings(&about["state"]).is_empty();
    let late = until(&host, &clock, fired).await["state"].clone();
    assert_eq!(
        (&late["firings"][0]["id"], &late["firings"][0]["label"]),
        (&id, &json!("late"))
    );
    let [due, now] = ["due", "now"].map(|time| late["firings"][0][time].as_u64());
    assert!(now > due, "how late it is, is seen: {late}");
    assert_eq!(firings_after(&host, &clock, 100).await.len(), 1);
    // Nor does the next run fire it again.
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    assert_eq!(firings_after(&host, &clock, 100).await.len(), 1);
}

#[tokio::test]
async fn a_timer_that_fired_before_the_kill_does_not_fire_again() {
    let folder = Folder::new();
    let clock = actor("clock", "1");
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    let watching = {
        let mut watcher = host.connect().await;
        let clock = clock.clone();
        tokio::spawn(async move {
            let fired = |state: &Value| !firings(state).is_empty();
            watcher.watch(&clock, fired).await
        })
    };
    set_timer(&mut socket, &clock, json!({"label": "once", "ms": 1})).await;
    watching.await.expect("it fires");
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    assert_eq!(firings_after(&host, &clock, 200).await.len(), 1);
}

#[tokio::test]
async fn a_cancelled_timer_stays_cancelled() {
    let folder = Folder::new();
    let clock = actor("clock", "1");
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    let id = set_timer(&mut socket, &clock, json!({"label": "no", "ms": 1_000})).await;
    let cancelled = socket.call(&clock, "cancel", json!({"id": id})).await;
    assert_eq!(cancelled.result(), true);
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    assert_eq!(firings_after(&host, &clock, 1_100).await, [] as [Value; 0]);
    // Its id is not given again.
    let mut socket = host.connect().await;
    let next = set_timer(&mut socket, &clock, json!({"label": "next", "ms": 60_000})).await;
    assert!(next.as_u64() > id.as_u64(), "{next} after {id}");
}

#[tokio::test]
async fn an_interval_goes_on_on_its_grid() {
    const EVERY: u64 = 100;
    let folder = Folder::new();
    let clock = actor("clock", "1");
    let mut seen = 0;
    let mut all = Vec::new();
    for run in 0..3 {
        let host = on(&folder, "lab").start().await;
        let mut socket = host.connect().await;
        if run == 0 {
            let timer = json!({"label": "tick", "ms": EVERY, "every": true});
            set_timer(&mut socket, &clock, timer).await;
        }
        let enough = |state: &Value| firings(state).len() >= seen + 3;
        let state = socket.watch(&clock, enough).await;
        let now = dues(&state);
        assert!(now.starts_with(&all), "what fired stays: {all:?}, {now:?}");
        (seen, all) = (now.len(), now);
        host.kill().await;
    }
    for pair in all.windows(2) {
        assert!(pair[0] < pair[1], "each once: {all:?}");
        assert_eq!((pair[1] - pair[0]) % EVERY, 0, "on the grid: {all:?}");
    }
    let times: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(times.len(), all.len());
}

#[tokio::test]
async fn an_actor_that_sleeps_is_woken_by_a_timer_that_outlives() {
    let folder = Folder::new();
    let clock = actor("clock", "1");
    let sleepy = || on(&folder, "lab").set("actors.idle-timeout-ms=50");
    let host = sleepy().start().await;
    let mut socket = host.connect().await;
    let timer = json!({"label": "wake", "ms": 1_500, "idle": true, "outlive": true});
    set_timer(&mut socket, &clock, timer).await;
    until(&host, &clock, is_asleep).await;
    host.kill().await;
    let host = sleepy().start().await;
    let fired = |about: &Value| firings(&about["state"]).len() == 1;
    until(&host, &clock, fired).await;
}

#[tokio::test]
async fn leaving_memory_clears_timers_on_disk_too() {
    let folder = Folder::new();
    let clock = actor("clock", "1");
    let host = on(&folder, "lab")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    let timer = json!({"label": "cleared", "ms": 1_500, "idle": true});
    set_timer(&mut socket, &clock, timer).await;
    let due = now_ms() + 1_500;
    until(&host, &clock, is_asleep).await;
    assert!(now_ms() < due, "the machine is too slow for this test");
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let rest = due.saturating_sub(now_ms()) + 200;
    assert_eq!(firings_after(&host, &clock, rest).await, [] as [Value; 0]);
}

#[tokio::test]
async fn an_orderly_stop_loses_no_timer() {
    let folder = Folder::new();
    let clock = actor("clock", "1");
    let mut host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    set_timer(&mut socket, &clock, json!({"label": "later", "ms": 1_000})).await;
    socket.close().await;
    host.terminate().await;
    assert!(host.ended().await.success());
    let host = on(&folder, "lab").start().await;
    let fired = |about: &Value| firings(&about["state"]).len() == 1;
    until(&host, &clock, fired).await;
}

#[tokio::test]
async fn a_destroyed_actor_stays_destroyed() {
    let folder = Folder::new();
    let (gone, kept) = (actor("clock", "gone"), actor("clock", "kept"));
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    for clock in [&gone, &kept] {
        let timer = json!({"label": "no", "ms": 1_000_000, "outlive": true});
        set_timer(&mut socket, clock, timer).await;
        let fired = json!({"label": "by hand"});
        socket.call(clock, "fired", fired).await.result();
    }
    socket.close().await;
    // Who is connected would be announced to the new one.
    until(&host, &gone, |about| about["connections"] == json!([])).await;
    let destroyed = host
        .admin(Method::DELETE, "/actors/clock/gone")
        .send()
        .await;
    assert_eq!(destroyed.status, 204);
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let listed = host.admin(Method::GET, "/actors").send().await.json();
    let ids = listed["actors"].as_array().expect("a listing").iter();
    let ids: Vec<&Value> = ids.map(|actor| &actor["id"]).collect();
    assert_eq!(ids, ["kept"]);
    let state = host.connect().await.subscribe_state(&gone).await;
    assert_eq!(
        (&state["state"]["firings"], &state["version"]),
        (&json!([]), &json!(0))
    );
}

#[tokio::test]
async fn who_was_announced_to_an_actor_begun_anew_leaves_it_after_a_kill() {
    let folder = Folder::new();
    let visits = actor("visits", "1");
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    socket.call(&visits, "call", None).await.result();
    let destroyed = host.admin(Method::DELETE, "/actors/visits/1").send().await;
    assert_eq!(destroyed.status, 204);
    socket.call(&visits, "call", None).await.result();
    let gone = socket.id().to_owned();
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    let calls = socket.call(&visits, "call", None).await;
    assert_eq!(calls.result(), 2, "the one before it is forgotten");
    let state = socket.subscribe_state(&visits).await["state"].clone();
    assert_eq!(state["connects"], json!([gone, socket.id()]));
    assert_eq!(state["disconnects"], json!([gone]));
}

#[tokio::test]
async fn actors_wait_for_a_component_that_is_not_there() {
    let folder = Folder::new();
    let clock = actor("clock", "1");
    let host = on(&folder, "lab").start().await;
    let mut socket = host.connect().await;
    socket
        .call(&clock, "fired", json!({"label": "by hand"}))
        .await
        .result();
    set_timer(&mut socket, &clock, json!({"label": "late", "ms": 300})).await;
    host.kill().await;
    let host = on(&folder, "counter").start().await;
    let unknown = host.connect().await.call(&clock, "count", None).await;
    assert_eq!(unknown.code(), "actor.unknown");
    host.kill().await;
    let host = on(&folder, "lab").start().await;
    let fired = |about: &Value| firings(&about["state"]).len() == 2;
    let state = until(&host, &clock, fired).await["state"].clone();
    assert_eq!(state["firings"][1]["label"], "late");
}

/// Subscribes to an actor, leaves, and waits until there is no such actor.
async fn forgotten_at(level: &str) {
    let folder = Folder::new();
    let host = on(&folder, "counter")
        .durability(level)
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    let counter = actor("counter", "untouched");
    socket.subscribe_state(&counter).await;
    socket.close().await;
    let gone = |about: &Value| about["error"]["code"] == "actor.not-found";
    until(&host, &counter, gone).await;
}

#[tokio::test]
async fn an_actor_that_nothing_happened_to_is_not_kept_on_disk() {
    forgotten_at("strict").await;
}

#[tokio::test]
async fn an_actor_that_nothing_happened_to_is_not_kept_in_memory() {
    forgotten_at("none").await;
}

#[tokio::test]
async fn memory_forgets() {
    let folder = Folder::new();
    let counter = actor("counter", "a");
    for _ in 0..2 {
        let host = on(&folder, "counter").argument("--memory").start().await;
        let mut socket = host.connect().await;
        let count = socket.call(&counter, "increment", json!({"by": 1})).await;
        assert_eq!(count.result(), 1);
        host.kill().await;
    }
    assert!(!folder.path().join("store").exists());
}

#[tokio::test]
async fn each_component_is_as_durable_as_it_says() {
    let folder = Folder::new();
    let host = || {
        on(&folder, "counter")
            .durability("none")
            .component("lab")
            .durability("relaxed")
            .component("chat")
    };
    let (none, relaxed, strict) = (actor("counter", "a"), actor("lab", "a"), actor("chat", "a"));
    for run in 1..=2 {
        let host = host().start().await;
        let mut socket = host.connect().await;
        let count = socket.call(&none, "increment", json!({"by": 1})).await;
        assert_eq!(count.result(), 1);
        assert_eq!(socket.call(&relaxed, "count", None).await.result(), run);
        let name = format!("ann {run}");
        socket
            .call(&strict, "join", json!({"name": name}))
            .await
            .result();
        let sent = socket.call(&strict, "send", json!({"text": "hi"})).await;
        assert_eq!(sent.result()["id"], run);
        host.kill().await;
    }
}

#[tokio::test]
async fn an_actor_that_need_not_last_leaves_memory_and_comes_back() {
    let folder = Folder::new();
    let counter = actor("counter", "a");
    let host = on(&folder, "counter")
        .durability("none")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    for expected in 1..=2 {
        let count = socket.call(&counter, "increment", json!({"by": 1})).await;
        assert_eq!(count.result(), expected);
        until(&host, &counter, is_asleep).await;
    }
}

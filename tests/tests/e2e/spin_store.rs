//! What an application on Spin keeps in its database, and for how long: messages that could
//! not be delivered, leases of turns that ended badly, timers, the outbox, answers.
//!
//! What only time would do is done to the database: a row is made due, or old.

use rusqlite::Connection;
use serde_json::{Value, json};
use tidegate_tests::spin::{Spin, SpinBuilder, TICK_KEY};
use tidegate_tests::{EventStream, Folder, PATIENCE, Request, token};

/// The database of the applications whose data is kept in this folder.
fn database(folder: &Folder) -> Connection {
    Connection::open(folder.path().join("sqlite_db.db")).expect("opening the database")
}

/// The one number that a query finds.
fn number(database: &Connection, query: &str) -> i64 {
    let found = database.query_row(query, [], |row| row.get(0));
    found.unwrap_or_else(|error| panic!("{query}: {error}"))
}

fn execute(database: &Connection, statement: &str) -> usize {
    let changed = database.execute(statement, []);
    changed.unwrap_or_else(|error| panic!("{statement}: {error}"))
}

fn messages(database: &Connection) -> i64 {
    number(database, "SELECT count(*) FROM tidegate_messages")
}

/// Has all messages be due.
fn hurry(database: &Connection) {
    execute(database, "UPDATE tidegate_messages SET due_ms = 0");
}

fn puppet(data: &Folder) -> SpinBuilder {
    Spin::builder().component("puppet").data(data.path())
}

fn call(on: &Spin, path: &str, input: Value) -> Request {
    on.post(&format!("/actors/{path}")).json(&input)
}

/// Calls a method and returns its result.
async fn result(on: &Spin, path: &str, input: Value) -> Value {
    let response = call(on, path, input).send().await;
    assert_eq!(response.status, 200, "{path}: {response:?}");
    response.json()
}

async fn state(on: &Spin, actor: &str) -> Value {
    let read = on.get(&format!("/actors/{actor}/state")).send().await;
    assert_eq!(read.status, 200, "{actor}: {read:?}");
    read.json()["state"].clone()
}

async fn log(on: &Spin, actor: &str) -> Vec<Value> {
    let state = state(on, actor).await;
    state["log"].as_array().cloned().unwrap_or_default()
}

fn door(on: &Spin) -> Request {
    let key = format!("Bearer {TICK_KEY}");
    on.post("/_tidegate/tick").header("authorization", &key)
}

/// Has the clock tick, and says what that did.
async fn tick(on: &Spin) -> Value {
    let ticked = door(on).send().await;
    assert_eq!(ticked.status, 200, "{ticked:?}");
    ticked.json()
}

/// Does something again and again until it comes to what is wanted.
async fn until<T>(what: &str, mut again: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = again().await {
                return found;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("{what}: never"))
}

/// Waits until the message whose delivery fails was tried.
async fn tried(on: &Spin, database: &Connection) {
    until("a message is tried", async || {
        // The time that it takes is that of a request.
        on.get("/health").send().await;
        let waiting = "SELECT count(*) FROM tidegate_messages WHERE tries = 0";
        (number(database, waiting) == 0).then_some(())
    })
    .await;
    assert_eq!(messages(database), 1, "what fails is kept");
}

fn to(actor: &str, id: &str, method: &str, input: Value) -> Value {
    json!({"actor": actor, "id": id, "method": method, "input": input})
}

fn from_a(input: &str) -> Value {
    json!({"by": "actor", "actor": "puppet", "id": "a", "input": input})
}

/// Ticks until the message has arrived, and then once more.
async fn arrives_once(on: &Spin, database: &Connection, input: &str) {
    until("the message arrives", async || {
        hurry(database);
        tick(on).await;
        (!log(on, "puppet/b").await.is_empty()).then_some(())
    })
    .await;
    hurry(database);
    tick(on).await;
    assert_eq!(log(on, "puppet/b").await, [from_a(input)]);
    assert_eq!(messages(database), 0);
}

// Messages

#[tokio::test]
async fn a_message_waits_for_an_actor_type_that_nobody_serves() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    let steps = json!([{"send": to("counter", "c", "increment", json!({"by": 3}))}]);
    result(&on, "puppet/a/run", steps).await;
    let rows = database(&data);
    tried(&on, &rows).await;
    // Nor does it stop the clock.
    hurry(&rows);
    assert_eq!(tick(&on).await["messages"], 0);
    on.kill().await;
    let on = puppet(&data).component("counter").start().await;
    hurry(&rows);
    assert_eq!(tick(&on).await["messages"], 1);
    assert_eq!(state(&on, "counter/c").await, json!({"count": 3}));
    tick(&on).await;
    assert_eq!(state(&on, "counter/c").await, json!({"count": 3}));
    assert_eq!(messages(&rows), 0);
}

/// To Spin a request to a component that is not there is a crash of whoever sends it.
#[tokio::test]
async fn a_message_to_a_component_that_is_missing_does_not_stop_the_others() {
    let data = Folder::new();
    let on = puppet(&data)
        .variable("TIDEGATE_ACTORS", "puppet=puppet,counter=counter")
        .allow("http://counter.spin.internal");
    let on = on.start().await;
    let steps = json!([
        {"send": to("counter", "c", "increment", json!({"by": 3}))},
        {"send": to("puppet", "b", "note", json!("behind it"))},
    ]);
    result(&on, "puppet/a/run", steps).await;
    let rows = database(&data);
    until("the other arrives", async || {
        let ticked = door(&on).send().await;
        assert!([200, 500].contains(&ticked.status.as_u16()), "{ticked:?}");
        (!log(&on, "puppet/b").await.is_empty()).then_some(())
    })
    .await;
    assert_eq!(log(&on, "puppet/b").await, [from_a("behind it")]);
    on.kill().await;
    let on = puppet(&data).component("counter").start().await;
    until("it arrives, too", async || {
        hurry(&rows);
        tick(&on).await;
        (messages(&rows) == 0).then_some(())
    })
    .await;
    assert_eq!(state(&on, "counter/c").await, json!({"count": 3}));
}

#[tokio::test]
async fn a_message_whose_receiver_answers_with_an_error_is_delivered_by_a_tick() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    result(&on, "puppet/b/run", json!([{"set": {"n": 1}}])).await;
    let rows = database(&data);
    let damage = "UPDATE tidegate_actors SET state = '{' || state WHERE id = 'b'";
    assert_eq!(execute(&rows, damage), 1);
    let broken = on.get("/actors/puppet/b/state").send().await;
    broken.failed(503, "store.unavailable");
    let steps = json!([{"send": to("puppet", "b", "note", json!("once"))}]);
    result(&on, "puppet/a/run", steps).await;
    tried(&on, &rows).await;
    let repair = "UPDATE tidegate_actors SET state = substr(state, 2) WHERE id = 'b'";
    execute(&rows, repair);
    arrives_once(&on, &rows, "once").await;
}

#[tokio::test]
async fn a_message_that_was_committed_before_a_kill_is_delivered_after_it() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    // Its receiver is busy, so that it cannot have arrived.
    let busy = json!([{"chunk": "begun"}, {"sleep": 60_000}]);
    let mut busy = call(&on, "puppet/b/stream", busy).stream().await;
    busy.expect("chunk").await;
    let steps = json!([{"send": to("puppet", "b", "note", json!("once"))}]);
    result(&on, "puppet/a/run", steps).await;
    on.kill().await;
    let rows = database(&data);
    assert_eq!(messages(&rows), 1);
    // The time of the killed turn is over.
    execute(&rows, "UPDATE tidegate_actors SET lease_until = 0");
    let on = puppet(&data).start().await;
    arrives_once(&on, &rows, "once").await;
}

#[tokio::test]
async fn a_message_that_never_arrives_is_given_up() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    let rows = database(&data);
    let steps = json!([{"send": to("counter", "c", "increment", json!({"by": 3}))}]);
    // The last try fails, or has ended whoever made it.
    for tries in [9, 10] {
        result(&on, "puppet/a/run", steps.clone()).await;
        tried(&on, &rows).await;
        execute(
            &rows,
            &format!("UPDATE tidegate_messages SET due_ms = 0, tries = {tries}"),
        );
        assert_eq!(tick(&on).await["messages"], 1);
        assert_eq!(messages(&rows), 0);
    }
}

#[tokio::test]
async fn a_second_delivery_of_a_message_is_dropped() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    let send = |input: &str| json!([{"send": to("puppet", "b", "note", json!(input))}]);
    result(&on, "puppet/a/run", send("one")).await;
    let rows = database(&data);
    until("it is delivered", async || {
        on.get("/health").send().await;
        (messages(&rows) == 0).then_some(())
    })
    .await;
    // As if its sender had ended before it could write down that it has arrived.
    execute(
        &rows,
        "INSERT INTO tidegate_messages
            (seq, from_actor, from_id, actor, id, method, input, at_ms, due_ms)
         SELECT seq, 'puppet', 'a', 'puppet', 'b', 'note', '\"one\"', 0, 0
         FROM sqlite_sequence WHERE name = 'tidegate_messages'",
    );
    assert_eq!(tick(&on).await["messages"], 1);
    assert_eq!(log(&on, "puppet/b").await, [from_a("one")]);
    // The next has another number.
    result(&on, "puppet/a/run", send("one")).await;
    until("the next is delivered", async || {
        on.get("/health").send().await;
        (messages(&rows) == 0).then_some(())
    })
    .await;
    assert_eq!(log(&on, "puppet/b").await, [from_a("one"), from_a("one")]);
}

// The outbox

async fn come_back(on: &Spin, id: &str) -> EventStream {
    let request = on.get("/actors/counter/a/state");
    request.header("last-event-id", id).stream().await
}

#[tokio::test]
async fn the_outbox_is_kept_short_and_who_has_missed_more_gets_a_snapshot() {
    let data = Folder::new();
    let on = Spin::builder().component("counter").data(data.path());
    let on = on.variable("TIDEGATE_OUTBOX_ROWS", "4").start().await;
    for _ in 0..10 {
        result(&on, "counter/a/increment", json!({"by": 1})).await;
    }
    let rows = database(&data);
    let kept = || number(&rows, "SELECT count(*) FROM tidegate_outbox");
    assert_eq!(kept(), 10, "room is made now and then");
    tick(&on).await;
    assert_eq!(kept(), 4);
    let read = on.get("/actors/counter/a/state").send().await.json();
    let epoch = read["epoch"].as_str().unwrap_or_default();
    // Patches 7 to 10 are left.
    let mut stream = come_back(&on, &format!("{epoch}:6")).await;
    for version in 7..=10 {
        assert_eq!(stream.expect("patch").await.data["version"], version);
    }
    let mut late = come_back(&on, &format!("{epoch}:5")).await;
    let snapshot = late.expect("snapshot").await.data;
    assert_eq!(snapshot["state"], json!({"count": 10}));
    // Both go on.
    result(&on, "counter/a/increment", json!({"by": 1})).await;
    for stream in [&mut stream, &mut late] {
        let patch = stream.expect("patch").await.data;
        assert_eq!(
            (&patch["from"], &patch["version"]),
            (&json!(10), &json!(11))
        );
    }
}

#[tokio::test]
async fn the_outbox_forgets_what_is_old() {
    let data = Folder::new();
    let on = Spin::builder().component("counter").data(data.path());
    let on = on.start().await;
    for _ in 0..3 {
        result(&on, "counter/a/increment", json!({"by": 1})).await;
    }
    let rows = database(&data);
    let kept = || number(&rows, "SELECT count(*) FROM tidegate_outbox");
    tick(&on).await;
    assert_eq!(kept(), 3, "nothing is old yet");
    let read = on.get("/actors/counter/a/state").send().await.json();
    let epoch = read["epoch"].as_str().unwrap_or_default();
    let eleven_minutes = 11 * 60 * 1000;
    execute(
        &rows,
        &format!("UPDATE tidegate_outbox SET at_ms = at_ms - {eleven_minutes} WHERE version < 3"),
    );
    tick(&on).await;
    assert_eq!(kept(), 1);
    let mut stream = come_back(&on, &format!("{epoch}:2")).await;
    assert_eq!(stream.expect("patch").await.data["version"], 3);
    come_back(&on, &format!("{epoch}:1"))
        .await
        .expect("snapshot")
        .await;
    // With nothing left of it, whoever listens still misses nothing.
    execute(&rows, "UPDATE tidegate_outbox SET at_ms = 0");
    tick(&on).await;
    assert_eq!(kept(), 0);
    let mut late = come_back(&on, &format!("{epoch}:2")).await;
    late.expect("snapshot").await;
    result(&on, "counter/a/increment", json!({"by": 1})).await;
    for stream in [&mut stream, &mut late] {
        assert_eq!(stream.expect("patch").await.data["version"], 4);
    }
}

// Timers

#[tokio::test]
async fn a_timer_whose_turn_traps_is_given_up_and_stops_nothing() {
    let data = Folder::new();
    let on = puppet(&data).variable("TIDEGATE_LEASE_MS", "200");
    let on = on.start().await;
    let steps = json!([
        {"after": {"ms": 1, "method": "run", "input": [{"set": {"n": 7}}, {"trap": null}]}},
        {"after": {"ms": 2, "input": "behind it"}},
    ]);
    result(&on, "puppet/a/run", steps).await;
    let mut failed = 0;
    let log = until("the timer behind it fires", async || {
        failed += tick(&on).await["failed"].as_u64().unwrap_or_default();
        let log = log(&on, "puppet/a").await;
        (!log.is_empty()).then_some(log)
    })
    .await;
    assert_eq!((log.len(), &log[0]["input"]), (1, &json!("behind it")));
    assert_eq!(failed, 3, "so often it is tried");
    let timers = "SELECT count(*) FROM tidegate_timers";
    assert_eq!(number(&database(&data), timers), 0);
    assert_eq!(state(&on, "puppet/a").await["n"], 0);
    result(&on, "puppet/a/run", json!([{"set": {"n": 1}}])).await;
}

#[tokio::test]
async fn timers_of_a_type_that_nobody_serves_do_not_stop_the_clock() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    let later = json!([{"after": {"ms": 1, "input": "later"}}]);
    result(&on, "puppet/a/run", later).await;
    on.kill().await;
    let rows = database(&data);
    // In any order, there is one in front of it.
    for actor in ["aaa", "zzz"] {
        execute(
            &rows,
            &format!(
                "INSERT INTO tidegate_timers (actor, id, timer, method, due_ms)
                 VALUES ('{actor}', 'x', 1, 'note', 0)"
            ),
        );
    }
    let on = puppet(&data).start().await;
    until("the other fires", async || {
        tick(&on).await;
        (!log(&on, "puppet/a").await.is_empty()).then_some(())
    })
    .await;
    // They wait until somebody serves them.
    let waiting = "SELECT count(*) FROM tidegate_timers";
    assert_eq!(number(&rows, waiting), 2);
}

#[tokio::test]
async fn an_actor_whose_turn_is_long_does_not_hold_up_the_clock() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    let steps = json!([{"chunk": "begun"}, {"count": {"to": 1_000_000, "each": 20}}]);
    let mut long = call(&on, "clockwork/a/stream", steps).stream().await;
    long.expect("chunk").await;
    let rows = database(&data);
    execute(&rows, "UPDATE tidegate_timers SET due_ms = 0");
    execute(
        &rows,
        "INSERT INTO tidegate_messages (from_actor, from_id, actor, id, method, at_ms, due_ms)
         VALUES ('puppet', 'a', 'puppet', 'b', 'note', 0, 0)",
    );
    assert_eq!(
        tick(&on).await,
        json!({"woken": 0, "failed": 0, "messages": 1})
    );
    // What was due is late, and runs.
    drop(long);
    until("the schedule runs", async || {
        tick(&on).await;
        (!log(&on, "clockwork/a").await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn schedules_run_at_ticks() {
    let on = Spin::builder().component("puppet").start().await;
    assert_eq!(tick(&on).await["woken"], 0, "nobody is there yet");
    result(&on, "clockwork/a/run", json!([])).await;
    let log = until("it runs twice", async || {
        tick(&on).await;
        let log = log(&on, "clockwork/a").await;
        (log.len() >= 2).then_some(log)
    })
    .await;
    let due = |entry: &Value| entry["due"].as_u64().unwrap_or_default();
    for entry in &log {
        assert_eq!(entry["by"], "cron");
        assert!(entry["now"].as_u64() >= entry["due"].as_u64(), "{entry}");
    }
    let step = due(&log[1]) - due(&log[0]);
    assert!(step > 0 && step.is_multiple_of(100), "{log:?}");
}

// Leases

#[tokio::test]
async fn a_turn_that_traps_with_the_lease_holds_up_the_next_call_and_no_more() {
    let data = Folder::new();
    let on = puppet(&data).variable("TIDEGATE_LEASE_MS", "300");
    let on = on.start().await;
    let steps = json!([{"set": {"n": 1}}, {"chunk": "begun"}, {"append": "lost"}, {"trap": null}]);
    let mut stream = call(&on, "puppet/a/run", steps).stream().await;
    stream.expect("chunk").await;
    stream.ends().await;
    result(&on, "puppet/a/run", json!([{"append": "kept"}])).await;
    let state = state(&on, "puppet/a").await;
    assert_eq!((&state["n"], &state["text"]), (&json!(0), &json!("kept")));
    let held = "SELECT count(*) FROM tidegate_actors WHERE lease IS NOT NULL";
    assert_eq!(number(&database(&data), held), 0);
}

/// `b` counts, and with each step renews its lease; `a` waits for `b`, in silence.
#[tokio::test]
async fn a_turn_that_is_silent_for_too_long_is_overtaken_and_leaves_nothing() {
    let data = Folder::new();
    let on = puppet(&data).variable("TIDEGATE_LEASE_MS", "2000");
    let on = on.start().await;
    let counting = json!([{"chunk": "begun"}, {"count": {"to": 100_000, "each": 20}}]);
    let mut heard = call(&on, "puppet/b/stream", counting).stream().await;
    heard.expect("chunk").await;
    let rows = database(&data);
    let lease = || {
        number(
            &rows,
            "SELECT lease_until FROM tidegate_actors WHERE id = 'b'",
        )
    };
    let first = lease();
    let waiting = json!([
        {"chunk": "begun"},
        {"set": {"n": 1}},
        {"call": to("puppet", "b", "note", json!("later"))},
        {"set": {"n": 2}},
    ]);
    let mut silent = call(&on, "puppet/a/stream", waiting).stream().await;
    silent.expect("chunk").await;
    result(&on, "puppet/a/run", json!([{"append": "faster"}])).await;
    // The one that is heard from is not overtaken.
    assert!(lease() > first, "it is renewed");
    assert_eq!(log(&on, "puppet/b").await, Vec::<Value>::new());
    drop(heard);
    let error = silent.expect("error").await.data;
    assert_eq!(error["error"]["code"], "actor.busy");
    silent.ends().await;
    let after = state(&on, "puppet/a").await;
    assert_eq!((&after["n"], &after["text"]), (&json!(0), &json!("faster")));
    // What it called was called.
    assert_eq!(log(&on, "puppet/b").await, [from_a("later")]);
}

#[tokio::test]
async fn a_stream_whose_client_is_gone_is_told_and_ends_as_a_turn_does() {
    let data = Folder::new();
    // Nobody waits until a lease is over by itself.
    let on = puppet(&data)
        .variable("TIDEGATE_LEASE_MS", "60000")
        .variable("TIDEGATE_BUSY_WAIT_MS", "100");
    let on = on.start().await;
    let steps = json!([
        {"set": {"text": "begun"}},
        {"checkpoint": "now"},
        {"chunk": "begun"},
        {"count": {"to": 1_000_000, "each": 20}},
        {"append": ", ended"},
    ]);
    let mut stream = call(&on, "puppet/a/stream", steps).stream().await;
    stream.expect("chunk").await;
    let busy = call(&on, "puppet/a/run", json!([{"set": {"n": 0}}]));
    busy.send().await.failed(409, "actor.busy");
    assert_eq!(state(&on, "puppet/a").await["text"], "begun");
    drop(stream);
    let counted = until("it ends", async || {
        let state = state(&on, "puppet/a").await;
        (state["text"] == "begun, ended").then(|| state["n"].clone())
    })
    .await;
    assert!(counted.as_u64().is_some_and(|n| n > 0), "{counted}");
    result(&on, "puppet/a/run", json!([{"append": "."}])).await;
    let after = state(&on, "puppet/a").await;
    assert_eq!(
        (&after["text"], &after["n"]),
        (&json!("begun, ended."), &counted)
    );
}

// Others

#[tokio::test]
async fn actors_of_several_components_are_called_at_once() {
    let mut on = Spin::builder();
    for handler in ["puppet", "counter", "lab"] {
        on = on.component(handler);
    }
    let on = on.start().await;
    let calls = json!([
        to("counter", "c", "increment", json!({"by": 3})),
        to("puppet", "b", "note", json!("hi")),
        to("lab", "l", "mutThrow", Value::Null),
        to("nobody", "x", "y", Value::Null),
        to("counter", "c", "increment", json!({"by": "many"})),
        to("lab", "l", "count", Value::Null),
    ]);
    let told = result(&on, "puppet/a/run", json!([{"callAll": calls}])).await;
    let expected = json!([
        3,
        "noted",
        {"failed": "lab.boom"},
        {"failed": "actor.unknown"},
        {"failed": "input.invalid"},
        1,
    ]);
    assert_eq!(told, json!([expected]));
    assert_eq!(state(&on, "counter/c").await, json!({"count": 3}));
    assert_eq!(log(&on, "puppet/b").await, [from_a("hi")]);
}

#[tokio::test]
async fn streams_of_a_client_who_loses_access_end() {
    let on = Spin::builder().component("lab").with_tokens();
    let on = on.start().await;
    let signed_in = |request: Request, user: &str| {
        request.header("authorization", &format!("Bearer {}", token::of(user)))
    };
    let as_ann = async |method: &str, input: Value| {
        let call = call(&on, &format!("vault/1/{method}"), input);
        let response = signed_in(call, "ann").send().await;
        assert!(response.status.is_success(), "{method}: {response:?}");
    };
    as_ann("claim", json!({})).await;
    as_ann("admitUser", json!({"sub": "ben"})).await;
    let watch = async |what: &str, user: &str| {
        let path = format!("/actors/vault/1/{what}");
        signed_in(on.get(&path), user).stream().await
    };
    let mut events = watch("events", "ben").await;
    let mut view = watch("state", "ben").await;
    let mut anns = watch("events", "ann").await;
    view.expect("snapshot").await;
    as_ann("barUser", json!({"sub": "ben"})).await;
    // One shows him what he may see, the other is asked about again after a commit.
    for stream in [&mut view, &mut events] {
        let error = stream.expect("error").await.data;
        assert_eq!(error["error"]["code"], "vault.not-admitted");
        stream.ends().await;
    }
    as_ann("ring", json!({"text": "hello"})).await;
    let event = anns.expect("event").await.data;
    assert_eq!(event["payload"], json!({"text": "hello"}));
}

#[tokio::test]
async fn a_state_of_another_schema_is_as_it_was_until_it_is_written() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    let items = json!({"items": [{"count": 1}]});
    result(&on, "inventory/1/run", json!([{"set": items}])).await;
    // As it may be where the schema asks for no integers.
    let other = r#"UPDATE tidegate_actors SET state = '{"items":[{"count":1.0}]}', fit = ''"#;
    execute(&database(&data), other);
    // An answer is written, and no state.
    let unchanged = call(&on, "inventory/1/run", json!([])).header("idempotency-key", "k");
    assert_eq!(unchanged.send().await.status, 200);
    assert_eq!(state(&on, "inventory/1").await, items);
}

// Answers

/// Calls with an idempotency key.
async fn keyed(on: &Spin, id: &str, key: &str) -> Value {
    let request = call(on, &format!("counter/{id}/increment"), json!({"by": 1}));
    let response = request.header("idempotency-key", key).send().await;
    assert_eq!(response.status, 200, "{key}: {response:?}");
    response.json()
}

#[tokio::test]
async fn an_actor_remembers_so_many_answers() {
    let data = Folder::new();
    let on = Spin::builder().component("counter").data(data.path());
    let on = on.variable("TIDEGATE_MAX_KEYS", "3").start().await;
    for (key, count) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("b", 2), ("d", 4)] {
        assert_eq!(keyed(&on, "x", key).await, count, "{key}");
    }
    let rows = database(&data);
    assert_eq!(number(&rows, "SELECT count(*) FROM tidegate_answers"), 3);
    // The oldest is forgotten, and others' answers are their own affair.
    assert_eq!(keyed(&on, "y", "a").await, 1);
    assert_eq!(keyed(&on, "x", "d").await, 4);
    assert_eq!(keyed(&on, "x", "a").await, 5);
}

#[tokio::test]
async fn answers_are_forgotten_after_a_day() {
    let data = Folder::new();
    let on = Spin::builder().component("counter").data(data.path());
    let on = on.start().await;
    for (id, key, count) in [("x", "a", 1), ("x", "b", 2), ("x", "a", 1), ("y", "a", 1)] {
        assert_eq!(keyed(&on, id, key).await, count, "{id} {key}");
    }
    let rows = database(&data);
    let kept = || number(&rows, "SELECT count(*) FROM tidegate_answers");
    tick(&on).await;
    assert_eq!(kept(), 3);
    let hours = 25 * 60 * 60 * 1000;
    execute(
        &rows,
        &format!("UPDATE tidegate_answers SET at_ms = at_ms - {hours}"),
    );
    // It runs again, and what is as old is forgotten with it.
    assert_eq!(keyed(&on, "x", "a").await, 3);
    assert_eq!(kept(), 2);
    // So are those of actors that nobody calls any longer.
    tick(&on).await;
    assert_eq!(kept(), 1);
    assert_eq!(keyed(&on, "x", "a").await, 3);
}

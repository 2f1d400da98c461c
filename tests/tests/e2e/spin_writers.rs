//! Many who write to the one database of an application on Spin: what they wait for, for how
//! long, and what becomes of those that wait.
//!
//! The database is kept busy by the test itself, which begins to write and does not commit.

use futures_util::future::{join, join_all};
use rusqlite::Connection;
use serde_json::{Value, json};
use tidegate_tests::spin::{Spin, SpinBuilder};
use tidegate_tests::{Folder, Response};

/// The database of the applications whose data is kept in this folder.
fn database(folder: &Folder) -> Connection {
    Connection::open(folder.path().join("sqlite_db.db")).expect("opening the database")
}

fn text(database: &Connection, query: &str) -> String {
    let found = database.query_row(query, [], |row| row.get(0));
    found.unwrap_or_else(|error| panic!("{query}: {error}"))
}

fn execute(database: &Connection, statements: &str) {
    let done = database.execute_batch(statements);
    done.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

async fn run(on: &Spin, path: &str, steps: &Value) -> Response {
    let request = on.post(&format!("/actors/puppet/{path}"));
    request.json(steps).send().await
}

async fn increment(on: &Spin, id: &str) -> Response {
    let request = on.post(&format!("/actors/counter/{id}/increment"));
    request.json(&json!({"by": 1})).send().await
}

async fn state(on: &Spin, actor: &str) -> Value {
    let read = on.get(&format!("/actors/{actor}/state")).send().await;
    assert_eq!(read.status, 200, "{actor}: {read:?}");
    read.json()["state"].clone()
}

fn puppet(data: &Folder) -> SpinBuilder {
    Spin::builder().component("puppet").data(data.path())
}

#[tokio::test]
async fn a_burst_on_a_new_database_is_all_counted() {
    const CALLS: usize = 200;
    const ACTORS: usize = 20;
    let data = Folder::new();
    // However slow the disk is, and the machine.
    let on = Spin::builder()
        .component("counter")
        .data(data.path())
        .variable("TIDEGATE_DURABILITY", "relaxed")
        .variable("TIDEGATE_TURN_DEADLINE_MS", "60000")
        .start()
        .await;
    let ids: Vec<String> = (0..CALLS).map(|n| (n % ACTORS).to_string()).collect();
    for answer in join_all(ids.iter().map(|id| increment(&on, id))).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for id in 0..ACTORS {
        let count = json!({"count": CALLS / ACTORS});
        assert_eq!(state(&on, &format!("counter/{id}")).await, count);
    }
    // However many were reading, it was set up as it should be.
    assert_eq!(text(&database(&data), "PRAGMA journal_mode"), "wal");
}

#[tokio::test]
async fn a_database_that_stays_busy_is_said_and_read_all_the_same() {
    let data = Folder::new();
    let on = puppet(&data).variable("TIDEGATE_DATABASE_WAIT_MS", "100");
    let on = on.start().await;
    let set = json!([{"set": {"n": 1}}]);
    assert_eq!(run(&on, "1/run", &set).await.status, 200);
    let writer = database(&data);
    execute(&writer, "BEGIN IMMEDIATE");
    let refused = run(&on, "1/run", &json!([{"set": {"n": 2}}])).await;
    let error = refused.failed(503, "store.busy");
    assert_eq!(error["params"], json!({"retryAfterMs": 1000}));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(state(&on, "puppet/1").await["n"], 1);
    // A turn that changes nothing needs nobody's leave.
    assert_eq!(run(&on, "1/run", &json!([])).await.status, 200);
    execute(&writer, "COMMIT");
    assert_eq!(run(&on, "1/run", &set).await.status, 200);
}

#[tokio::test]
async fn a_timer_that_is_due_while_the_database_is_busy_is_not_lost() {
    let data = Folder::new();
    let on = puppet(&data).variable("TIDEGATE_DATABASE_WAIT_MS", "100");
    let on = on.start().await;
    let set = json!([{"after": {"ms": 0}}]);
    assert_eq!(run(&on, "1/run", &set).await.status, 200);
    let writer = database(&data);
    execute(&writer, "BEGIN IMMEDIATE");
    let refused = run(&on, "1/run", &json!([])).await;
    refused.failed(503, "store.busy");
    execute(&writer, "COMMIT");
    assert_eq!(run(&on, "1/run", &json!([])).await.status, 200);
    let log = state(&on, "puppet/1").await["log"].clone();
    assert_eq!(log.as_array().map(Vec::len), Some(1), "{log}");
    assert_eq!(log[0]["by"], "timer");
}

/// `hasty` has 300 ms.
#[tokio::test]
async fn waiting_for_the_database_is_not_the_turns_time() {
    let data = Folder::new();
    let on = puppet(&data).start().await;
    assert_eq!(
        run(&on, "1/run", &json!([{"set": {"n": 1}}])).await.status,
        200
    );
    let writer = database(&data);
    execute(&writer, "BEGIN IMMEDIATE");
    // Its first chunk waits for the right to be the only one that writes to the actor.
    let steps = json!([{"chunk": "first"}, {"set": {"n": 2}}]);
    let waits = on.post("/actors/puppet/1/hasty").json(&steps).stream();
    let others = async {
        // All of that time, and more, has passed for those that come meanwhile.
        let late = run(&on, "2/hasty", &json!([{"sleep": 400}])).await;
        let error = late.failed(504, "turn.deadline");
        assert_eq!(error["params"], json!({"limitMs": 300}));
        execute(&writer, "COMMIT");
    };
    let (mut stream, ()) = join(waits, others).await;
    stream.expect("chunk").await;
    stream.expect("result").await;
    assert_eq!(state(&on, "puppet/1").await["n"], 2);
}

#[tokio::test]
async fn tables_of_an_earlier_version_are_completed() {
    let data = Folder::new();
    let on = Spin::builder().component("counter").data(data.path());
    let on = on.start().await;
    assert_eq!(increment(&on, "a").await.status, 200);
    let all = "DROP VIEW tidegate_commits_1; DROP TABLE tidegate_queue;";
    for (missing, count) in [(all, 2), ("DROP TABLE tidegate_queue;", 3)] {
        execute(&database(&data), missing);
        assert_eq!(increment(&on, "a").await.json(), count, "{missing}");
    }
}

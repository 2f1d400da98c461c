//! What actors do later: timers and schedules.

use serde_json::{Value, json};
use tidegate_tests::{Actor, Host, Socket, actor};

async fn log_of(socket: &mut Socket, actor: &Actor, entries: usize) -> Vec<Value> {
    let long = |state: &Value| state["log"].as_array().map_or(0, Vec::len) >= entries;
    let state = socket.watch(actor, long).await;
    state["log"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_timer_calls_a_method_once() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([{"after": {"ms": 50, "method": "note", "input": "hello"}}]);
    let set = socket.call(&puppet, "run", steps).await.result();
    let log = log_of(&mut socket, &puppet, 1).await;
    assert_eq!(log[0]["by"], "timer");
    assert_eq!(log[0]["id"], set[0]);
    assert_eq!(log[0]["input"], "hello");
    assert!(
        log[0]["now"].as_u64() >= log[0]["due"].as_u64(),
        "never early"
    );
    let cancelled = json!([{"cancel": set[0]}]);
    let gone = socket.call(&puppet, "run", cancelled).await.result();
    assert_eq!(gone, json!([false]), "it has fired");
}

#[tokio::test]
async fn an_interval_goes_on_until_it_is_cancelled() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([{"every": {"ms": 20}}]);
    let set = socket.call(&puppet, "run", steps).await.result();
    let log = log_of(&mut socket, &puppet, 3).await;
    let dues: Vec<u64> = log
        .iter()
        .map(|entry| entry["due"].as_u64().unwrap())
        .collect();
    for pair in dues.windows(2) {
        let step = pair[1] - pair[0];
        assert!(step > 0 && step % 20 == 0, "on the grid: {dues:?}");
    }
    let cancel = json!([{"cancel": set[0]}, {"cancel": set[0]}]);
    let cancelled = socket.call(&puppet, "run", cancel).await.result();
    assert_eq!(cancelled, json!([true, false]));
    let state = host.get("/actors/puppet/1/state").send().await.json();
    let fired = state["state"]["log"].as_array().map_or(0, Vec::len);
    // Long enough for two more.
    let wait = json!([{"sleep": 50}]);
    socket.call(&puppet, "run", wait).await.result();
    let state = host.get("/actors/puppet/1/state").send().await.json();
    assert_eq!(state["state"]["log"].as_array().map_or(0, Vec::len), fired);
}

#[tokio::test]
async fn a_slow_turn_piles_up_no_firings() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([{"every": {"ms": 10}}]);
    socket.call(&puppet, "run", steps).await.result();
    log_of(&mut socket, &puppet, 1).await;
    let before = host.get("/actors/puppet/1/state").send().await.json();
    let before = before["state"]["log"].as_array().map_or(0, Vec::len);
    socket
        .call(&puppet, "run", json!([{"sleep": 500}]))
        .await
        .result();
    let state = host.get("/actors/puppet/1/state").send().await.json();
    let log = state["state"]["log"].as_array().unwrap();
    let dues: Vec<u64> = log
        .iter()
        .map(|entry| entry["due"].as_u64().unwrap())
        .collect();
    let gap = dues.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(
        gap >= Some(400) || log.len() <= before + 2,
        "what was missed is not made up for: {dues:?}"
    );
}

#[tokio::test]
async fn a_turn_that_fails_sets_and_cancels_nothing() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let kept = json!([{"after": {"ms": 100, "input": "kept"}}]);
    let kept = socket.call(&puppet, "run", kept).await.result();
    let failing = json!([
        {"after": {"ms": 1, "input": "never"}},
        {"cancel": kept[0]},
        {"fail": "puppet.no"},
    ]);
    assert_eq!(
        socket.call(&puppet, "run", failing).await.code(),
        "puppet.no"
    );
    let log = log_of(&mut socket, &puppet, 1).await;
    assert_eq!(log[0]["input"], "kept");
}

#[tokio::test]
async fn what_cannot_be_set_is_said() {
    let host = Host::builder()
        .component("puppet")
        .limit("timers", 100)
        .start()
        .await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([
        {"after": {"ms": 1, "method": "nothing"}},
        {"after": {"ms": 1, "method": "strict"}},
        {"after": {"ms": 1, "method": "strict", "input": "text"}},
        {"after": {"ms": 9_223_372_036_854_775_807_u64}},
        {"every": {"ms": 0}},
        {"timers": 1_000},
        {"after": {"ms": 0}},
    ]);
    let told = socket.call(&puppet, "run", steps).await.result();
    let failed = |code: &str| json!({"failed": code});
    assert_eq!(
        told,
        json!([
            failed("timer.unknown-method"),
            failed("timer.invalid-input"),
            failed("timer.invalid-input"),
            failed("timer.invalid-delay"),
            failed("timer.invalid-delay"),
            100,
            failed("timer.limit"),
        ])
    );
}

#[tokio::test]
async fn a_timer_of_no_time_fires_at_once() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let now = json!([{"after": {"ms": 0}}]);
    socket.call(&puppet, "run", now).await.result();
    assert_eq!(log_of(&mut socket, &puppet, 1).await.len(), 1);
}

#[tokio::test]
async fn a_timer_set_while_waking_fires() {
    let host = Host::serving(["puppet"]).await;
    let eager = actor("eager", "1");
    let mut socket = host.connect().await;
    let log = log_of(&mut socket, &eager, 1).await;
    assert_eq!(log[0]["input"], "activated");
}

async fn idle_host() -> Host {
    Host::builder()
        .component("puppet")
        .set("actors.idle-timeout-ms=100")
        .start()
        .await
}

#[tokio::test]
async fn a_timer_keeps_its_actor_in_memory_unless_it_says_otherwise() {
    let host = idle_host().await;
    let mut socket = host.connect().await;
    let (awake, idle) = (actor("puppet", "awake"), actor("puppet", "idle"));
    let steps = json!([{"after": {"ms": 3_600_000}}, {"set": {"n": 1}}]);
    socket.call(&awake, "run", steps).await.result();
    let steps = json!([{"after": {"ms": 3_600_000, "idle": true}}, {"set": {"n": 1}}]);
    socket.call(&idle, "run", steps).await.result();
    host.until_asleep(&idle).await;
    let about = host
        .admin(http::Method::GET, "/actors/puppet/awake")
        .send()
        .await;
    assert_eq!(about.json()["inMemory"], true);
}

#[tokio::test]
async fn a_timer_that_outlives_wakes_its_actor() {
    let host = idle_host().await;
    let mut socket = host.connect().await;
    let puppet = actor("puppet", "1");
    let steps = json!([
        {"every": {"ms": 1_000, "idle": true, "outlive": true, "input": "wake"}},
        {"after": {"ms": 600, "idle": true, "input": "cleared"}},
    ]);
    socket.call(&puppet, "run", steps).await.result();
    host.until_asleep(&actor("puppet", "1")).await;
    let fired = async {
        loop {
            let about = host
                .admin(http::Method::GET, "/actors/puppet/1")
                .send()
                .await;
            let log = about.json()["state"]["log"].clone();
            if log.as_array().map_or(0, Vec::len) >= 2 {
                return log;
            }
        }
    };
    let log = tokio::time::timeout(tidegate_tests::PATIENCE, fired).await;
    let log = log.expect("it wakes again and again");
    for entry in log.as_array().unwrap() {
        assert_eq!(entry["input"], "wake", "the other was cleared: {log}");
    }
}

#[tokio::test]
async fn a_schedule_runs_while_the_actor_is_active() {
    let host = idle_host().await;
    let clockwork = actor("clockwork", "1");
    let mut socket = host.connect().await;
    let log = log_of(&mut socket, &clockwork, 3).await;
    for entry in &log {
        assert_eq!(entry["by"], "cron");
    }
    socket.unsubscribe_state(&clockwork).await;
    socket.close().await;
    // It does not keep the actor awake, unless each firing counts as work.
    let about = host
        .admin(http::Method::GET, "/actors/clockwork/1")
        .send()
        .await;
    assert_eq!(about.status, 200);
}

#[tokio::test]
async fn a_destroyed_actor_has_no_timers() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    socket.subscribe_state(&puppet).await;
    let steps = json!([{"every": {"ms": 10}}]);
    socket.call(&puppet, "run", steps).await.result();
    let gone = host
        .admin(http::Method::DELETE, "/actors/puppet/1")
        .send()
        .await;
    assert_eq!(gone.status, 204);
    socket
        .call(&puppet, "run", json!([{"sleep": 50}]))
        .await
        .result();
    let state = host.get("/actors/puppet/1/state").send().await.json();
    assert_eq!(state["state"]["log"], json!([]));
}

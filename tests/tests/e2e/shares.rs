//! What one component may take of its host: actors that come into memory, and the host's own work
//! on large documents.

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Builder, Host, actor};

/// A host on which two actors of the component may come at once, and then one a second.
fn few_new_actors(component: &str) -> Builder {
    Host::builder()
        .component(component)
        .limit("new-actors-per-second", 1)
        .limit("new-actors-burst", 2)
}

#[tokio::test]
async fn new_actors_beyond_the_rate_are_refused_for_a_while() {
    let host = few_new_actors("puppet").start().await;
    let mut socket = host.connect().await;
    // All at once, so that a new one may come to few of them.
    let mut calls = Vec::new();
    for id in 0..20 {
        let puppet = actor("puppet", &id.to_string());
        calls.push(socket.begin_call(&puppet, "run", json!([])).await);
    }
    let mut codes = Vec::new();
    while !calls.is_empty() {
        let frame = socket.next().await;
        calls.retain(|call| frame["id"] != call.as_str());
        if let Some(failure) = frame.get("failure") {
            codes.push(failure["code"].clone());
            let wait = failure["params"]["retryAfterMs"].as_u64();
            assert!(wait.is_some_and(|ms| (1..=1_000).contains(&ms)), "{frame}");
        }
    }
    assert!(
        !codes.is_empty() && codes.iter().all(|code| code == "rate.actors"),
        "{codes:?}"
    );
    // Those that are there are not concerned.
    for _ in 0..10 {
        let reply = socket.call(&actor("puppet", "0"), "run", json!([])).await;
        assert_eq!(reply.frame.get("failure"), None, "{reply:?}");
    }
}

#[tokio::test]
async fn a_refusal_over_http_says_when_to_come_back() {
    let host = few_new_actors("puppet").start().await;
    let mut ids = 0..;
    let refused = loop {
        let path = format!("/actors/puppet/{}/run", ids.next().unwrap_or(0));
        let response = host.post(&path).json(&json!([])).send().await;
        if !response.status.is_success() {
            break response;
        }
    };
    refused.failed(429, "rate.actors");
    assert_eq!(refused.headers["retry-after"], "1");
}

#[tokio::test]
async fn messages_to_new_actors_wait_for_the_rate() {
    let host = Host::builder()
        .component("puppet")
        .limit("new-actors-per-second", 20)
        .limit("new-actors-burst", 1)
        .start()
        .await;
    let mut socket = host.connect().await;
    let send = |n: usize| {
        let (actor, method) = ("puppet", "note");
        json!({"send": {"actor": actor, "id": format!("n{n}"), "method": method, "input": n}})
    };
    let steps: Vec<Value> = (0..10).map(send).collect();
    let reply = socket
        .call(&actor("puppet", "a"), "run", json!(steps))
        .await;
    assert_eq!(reply.frame.get("failure"), None, "{reply:?}");
    for n in 0..10 {
        // Whoever asks may be refused as well.
        let path = format!("/actors/puppet/n{n}/state");
        loop {
            let read = host.get(&path).send().await.json();
            if read["state"]["log"][0]["input"] == n {
                break;
            }
        }
    }
}

/// A text so long that the host deals with it elsewhere.
fn long_text() -> String {
    "x".repeat(150_000)
}

#[tokio::test]
async fn a_large_state_is_written_shown_and_read_like_a_small_one() {
    let host = Host::builder().component("puppet").start().await;
    let puppet = actor("puppet", "1");
    let mut watcher = host.connect().await;
    watcher.subscribe_state(&puppet).await;
    let mut socket = host.connect().await;
    let texts: Vec<Value> = vec![long_text().into(); 3];
    let steps = json!([{"set": {"log": texts}}, {"append": long_text()}, {"emit": long_text()}]);
    let reply = socket.call(&puppet, "run", steps).await;
    assert_eq!(reply.result(), json!([null, null, null]));
    let state = watcher
        .watch(&puppet, |state| state["text"] == long_text())
        .await;
    assert_eq!(state["log"], json!(texts));
    // A small change of a large state, and a turn that leaves nothing of a large one.
    for n in 1..=3 {
        let failed =
            json!([{"set": {"log": [], "text": long_text() + "y"}}, {"fail": "puppet.no"}]);
        let reply = socket.call(&puppet, "run", failed).await;
        assert_eq!(reply.code(), "puppet.no");
        let reply = socket
            .call(&puppet, "run", json!([{"set": {"n": n}}]))
            .await;
        assert_eq!(reply.result(), json!([null]));
    }
    let read = host.get("/actors/puppet/1/state").send().await.json();
    assert_eq!(
        read["state"],
        json!({"log": texts, "text": long_text(), "n": 3})
    );
    let mut late = host.connect().await;
    let shown = late.subscribe_state(&puppet).await;
    assert_eq!(shown["state"], read["state"]);
    let about = host.admin(Method::GET, "/actors/puppet/1");
    assert_eq!(about.send().await.json()["state"], read["state"]);
}

#[tokio::test]
async fn work_of_the_host_for_a_turn_has_a_limit() {
    let host = Host::builder()
        .component("puppet")
        .limit("work-steps", 2_000)
        .start()
        .await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([{"set": {"text": long_text()}}]);
    let reply = socket.call(&puppet, "run", steps).await;
    assert_eq!(reply.code(), "turn.work-limit");
    assert_eq!(reply.frame["failure"]["params"]["limit"], 2_000);
    // Nothing of it stays.
    let reply = socket
        .call(&puppet, "run", json!([{"set": {"n": 1}}]))
        .await;
    assert_eq!(reply.result(), json!([null]));
    let read = host.get("/actors/puppet/1/state").send().await.json();
    assert_eq!(read["state"], json!({"log": [], "text": "", "n": 1}));
}

#[tokio::test]
async fn a_large_state_survives_turns_that_end_in_the_middle_of_the_hosts_work() {
    // What ends the turns is the time that they have.
    let host = Host::builder()
        .component("puppet")
        .limit("effects-bytes", 1 << 30)
        .start()
        .await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let large: Vec<Value> = vec!["x".repeat(100).into(); 5_000];
    let sets = json!([{"set": {"log": large}}, {"set": {"text": long_text()}}]);
    let steps = json!([{"repeat": {"times": 10_000, "steps": sets}}]);
    for n in 1..=5 {
        let reply = socket.call(&puppet, "hasty", steps.clone()).await;
        assert_eq!(reply.code(), "turn.deadline");
        let reply = socket
            .call(&puppet, "run", json!([{"set": {"n": n}}]))
            .await;
        assert_eq!(reply.result(), json!([null]));
    }
    let read = host.get("/actors/puppet/1/state").send().await.json();
    assert_eq!(read["state"], json!({"log": [], "text": "", "n": 5}));
}

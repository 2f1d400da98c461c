//! A handler in plain JavaScript, without an SDK: the contract is not Rust's.

use serde_json::{Value, json};
use tidegate_tests::{Host, actor};

#[tokio::test]
async fn javascript_serves_calls_and_subscribers() {
    let host = Host::serving(["js"]).await;
    let tally = actor("tally", "1");
    let mut socket = host.connect().await;
    socket.call(&tally, "increment", json!({"by": 7})).await;
    let snapshot = socket.subscribe_state(&tally).await;
    assert_eq!(snapshot["state"], json!({"count": 7, "visitors": 1}));
    socket.subscribe_events(&tally).await;
    let reply = socket.call(&tally, "increment", json!({"by": 5})).await;
    assert_eq!(reply.types_before(), ["state:patch", "event"]);
    assert_eq!(
        reply.patches(),
        &json!([{"op": "replace", "path": "/count", "value": 12}])
    );
    assert_eq!(reply.before[1]["event"], "milestone");
    assert_eq!(reply.before[1]["payload"], json!({"count": 10}));
    assert_eq!(reply.result(), 12);
}

#[tokio::test]
async fn javascript_sends_events_to_one_connection() {
    let host = Host::serving(["js"]).await;
    let tally = actor("tally", "1");
    let (mut one, mut two) = (host.connect().await, host.connect().await);
    for socket in [&mut one, &mut two] {
        socket.subscribe_events(&tally).await;
        socket.call(&tally, "increment", json!({"by": 0})).await;
    }
    let reply = one.call(&tally, "whisper", json!({"count": 3})).await;
    assert_eq!(reply.types_before(), ["event"]);
    assert_eq!(reply.frame.get("result"), None);
    let reply = two.call(&tally, "increment", json!({"by": 0})).await;
    assert_eq!(reply.before, [Value::Null; 0]);
}

#[tokio::test]
async fn what_javascript_throws_is_a_failure() {
    let host = Host::serving(["js"]).await;
    let tally = actor("tally", "1");
    let mut socket = host.connect().await;
    let reply = socket.call(&tally, "refuse", None).await;
    assert_eq!(reply.error(), "not today");
    assert_eq!(
        reply.frame["failure"],
        json!({"code": "tally.refused", "message": "not today", "params": {"day": "today"}})
    );
    let response = host.post("/actors/tally/1/refuse").send().await;
    response.failed(409, "tally.refused");
    assert_eq!(
        socket
            .call(&tally, "increment", json!({"by": 1}))
            .await
            .result(),
        1
    );
}

#[tokio::test]
async fn a_mistake_in_javascript_fails_its_turn_only() {
    let host = Host::serving(["js"]).await;
    let tally = actor("tally", "1");
    let mut socket = host.connect().await;
    socket.call(&tally, "increment", json!({"by": 1})).await;
    let reply = socket.call(&tally, "crash", None).await;
    assert_eq!(reply.code(), "handler.trapped");
    assert!(
        !reply.frame.to_string().contains("property"),
        "{}",
        reply.frame
    );
    assert_eq!(
        socket
            .call(&tally, "increment", json!({"by": 1}))
            .await
            .result(),
        2
    );
}

#[tokio::test]
async fn inputs_are_validated_for_javascript_too() {
    let host = Host::serving(["js"]).await;
    let mut socket = host.connect().await;
    let reply = socket
        .call(&actor("tally", "1"), "increment", json!({"by": "x"}))
        .await;
    assert_eq!(
        reply.error(),
        "Validation failed for increment: /by: expected integer, found string"
    );
}

//! Calls that run once, whatever happens to the connection: idempotency keys.

use serde_json::{Value, json};
use tidegate_tests::{Host, Reply, Socket, actor, token};

async fn keyed(socket: &mut Socket, method: &str, input: Value, key: &str) -> Reply {
    let id = format!("{method}-{key}-{}", socket.id());
    socket
        .send(json!({
            "type": "rpc", "id": id, "actor": "counter", "actorId": "a",
            "method": method, "input": input, "key": key,
        }))
        .await;
    socket.result_of(&id).await
}

#[tokio::test]
async fn a_call_with_a_key_runs_once() {
    let host = Host::serving(["counter"]).await;
    let mut first = host.connect().await;
    let by = |by: i64| json!({"by": by});
    assert_eq!(
        keyed(&mut first, "increment", by(2), "k1").await.result(),
        2
    );
    // The connection is lost, and the client does not know whether the call was heard.
    first.vanish();
    let mut second = host.connect().await;
    let again = keyed(&mut second, "increment", by(2), "k1").await;
    assert_eq!(again.result(), 2);
    assert_eq!(
        keyed(&mut second, "increment", by(2), "k2").await.result(),
        4
    );
    let other = keyed(&mut second, "increment", by(3), "k1").await;
    assert_eq!(other.code(), "call.key-reused");
    // Another method's keys are its own.
    let other = keyed(&mut second, "reset", json!(null), "k1").await;
    other.result();
}

#[tokio::test]
async fn over_http_the_key_is_a_header() {
    let host = Host::serving(["counter"]).await;
    for _ in 0..3 {
        let call = host.post("/actors/counter/a/increment");
        let call = call.header("idempotency-key", "\"once\"");
        let answer = call.json(&json!({"by": 5})).send().await;
        assert_eq!(answer.json(), 5);
    }
    let call = host.post("/actors/counter/a/increment");
    let call = call.header("idempotency-key", &"x".repeat(129));
    let refused = call.json(&json!({"by": 5})).send().await;
    refused.failed(400, "request.malformed");
}

#[tokio::test]
async fn an_equal_input_is_the_same_however_it_is_spelled() {
    let host = Host::serving(["counter"]).await;
    for input in [r#"{"by":5}"#, r#" { "by" : 5.0 } "#, r#"{"\u0062y":5e0}"#] {
        let call = host.post("/actors/counter/a/increment");
        let call = call.header("idempotency-key", "once").body(input);
        assert_eq!(call.send().await.json(), 5, "{input}");
    }
    let call = host.post("/actors/counter/a/increment");
    let call = call.header("idempotency-key", "once").body(r#"{"by":6}"#);
    call.send().await.failed(422, "call.key-reused");
}

#[tokio::test]
async fn keys_are_their_users_own() {
    let host = Host::builder()
        .component("counter")
        .with_tokens()
        .start()
        .await;
    let mut ann = Socket::signed_in(&host, &token::of("ann")).await;
    let mut ben = Socket::signed_in(&host, &token::of("ben")).await;
    let one = json!({"by": 1});
    assert_eq!(
        keyed(&mut ann, "increment", one.clone(), "k")
            .await
            .result(),
        1
    );
    assert_eq!(keyed(&mut ben, "increment", one, "k").await.result(), 2);
}

#[tokio::test]
async fn what_failed_is_run_again_and_what_was_seen_is_not() {
    let host = Host::serving(["lab"]).await;
    let ticker = actor("ticker", "1");
    let mut socket = host.connect().await;
    let mut call = async |id: &str, steps: u64, key: &str| {
        let input = json!({"steps": steps, "stepMs": 50});
        let frame = json!({
            "type": "rpc", "id": id, "actor": ticker.kind, "actorId": ticker.id,
            "method": "failAfter", "input": input, "key": key,
        });
        socket.send(frame).await;
        socket.result_of(id).await
    };
    // Nothing of it was committed.
    assert_eq!(call("1", 0, "none").await.code(), "ticker.no");
    assert_eq!(call("2", 0, "none").await.code(), "ticker.no");
    // Its subscribers may have seen a part of it.
    assert_eq!(call("3", 3, "some").await.code(), "ticker.no");
    assert_eq!(call("4", 3, "some").await.code(), "call.interrupted");
}

#[tokio::test]
async fn only_so_many_are_remembered() {
    let host = Host::builder()
        .component("counter")
        .set("actors.max-keys=2")
        .start()
        .await;
    let mut socket = host.connect().await;
    for key in ["a", "b", "c"] {
        keyed(&mut socket, "increment", json!({"by": 1}), key).await;
    }
    let by = json!({"by": 1});
    assert_eq!(
        keyed(&mut socket, "increment", by.clone(), "c")
            .await
            .result(),
        3
    );
    let again = keyed(&mut socket, "increment", by, "a").await;
    assert_eq!(again.result(), 4, "it is forgotten, and runs again");
}

#[tokio::test]
async fn a_key_is_a_short_text() {
    let host = Host::serving(["counter"]).await;
    let mut socket = host.connect().await;
    for bad in [json!(""), json!("x".repeat(129)), json!(7)] {
        let frame = json!({
            "type": "rpc", "id": "1", "actor": "counter", "actorId": "a",
            "method": "increment", "input": {"by": 1}, "key": bad,
        });
        socket.send(frame).await;
        assert_eq!(socket.result_of("1").await.code(), "frame.malformed");
    }
}

//! Subscriptions and calls as streams of server-sent events.

use serde_json::{Value, json};
use tidegate_tests::{Builder, Host, actor, dialect};

#[tokio::test]
async fn a_state_stream_is_a_snapshot_and_patches() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut stream = host.get("/actors/counter/a/state").stream().await;
    let snapshot = stream.expect("snapshot").await;
    assert_eq!(
        (&snapshot.data["state"], &snapshot.data["version"]),
        (&json!({"count": 0}), &json!(0))
    );
    let epoch = snapshot.data["epoch"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(snapshot.id, Some(format!("{epoch}:0")));
    let mut caller = host.connect().await;
    for count in 1..=3 {
        caller.call(&counter, "increment", json!({"by": 1})).await;
        let patch = stream.expect("patch").await;
        assert_eq!(
            patch.data,
            json!({
                "patches": [{"op": "replace", "path": "/count", "value": count}],
                "epoch": epoch, "from": count - 1, "version": count,
            })
        );
        assert_eq!(patch.id, Some(format!("{epoch}:{count}")));
    }
}

#[tokio::test]
async fn a_stream_and_a_socket_see_the_same() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    socket.call(&lab, "zero", None).await;
    let mut stream = host.get("/actors/lab/1/state").stream().await;
    let mut state = stream.expect("snapshot").await.data["state"].clone();
    for method in ["unshift", "slash", "splice", "twice", "nested"] {
        socket.call(&lab, method, None).await;
        dialect::apply(&mut state, &stream.expect("patch").await.data["patches"]);
    }
    assert_eq!(socket.subscribe_state(&lab).await["state"], state);
}

#[tokio::test]
async fn a_text_with_line_breaks_stays_one_event() {
    let host = Host::serving(["lab"]).await;
    let mut stream = host.get("/actors/lab/1/events").stream().await;
    let text = "one\ntwo\r\n\nthree\revent: fake\ndata: {}\n\n";
    let request = host
        .post("/actors/lab/1/announce")
        .json(&json!({"text": text}));
    request.send().await;
    let event = stream.expect("event").await;
    assert_eq!(
        event.data,
        json!({"event": "note", "payload": {"text": text}})
    );
}

#[tokio::test]
async fn an_event_stream_gets_the_actors_events_only() {
    let host = Host::serving(["lab"]).await;
    let mut stream = host.get("/actors/lab/1/events").stream().await;
    let mut caller = host.connect().await;
    caller
        .call(&actor("lab", "2"), "announce", json!({"text": "elsewhere"}))
        .await;
    caller.call(&actor("lab", "1"), "twice", None).await;
    for x in 1..=2 {
        assert_eq!(
            stream.expect("event").await.data,
            json!({"event": "e", "payload": {"x": x}})
        );
    }
}

#[tokio::test]
async fn private_events_do_not_reach_a_stream() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut stream = host.get("/actors/lab/1/events").stream().await;
    let mut socket = host.connect().await;
    let private = json!({"to": [socket.id()], "text": "psst"});
    socket.call(&lab, "tell", private).await;
    socket.call(&lab, "announce", json!({"text": "all"})).await;
    assert_eq!(
        stream.expect("event").await.data["payload"],
        json!({"text": "all"})
    );
}

#[tokio::test]
async fn a_call_may_be_answered_as_a_stream() {
    let host = Host::serving(["lab"]).await;
    let mut stream = host.post("/actors/lab/1/count").stream().await;
    assert_eq!(stream.expect("result").await.data, json!(1));
    stream.ends().await;
    let mut stream = host.post("/actors/lab/1/undef").stream().await;
    assert_eq!(stream.expect("result").await.data, Value::Null);
    stream.ends().await;
    let mut stream = host.post("/actors/lab/1/mutThrow").stream().await;
    let error = stream.expect("error").await.data;
    assert_eq!(error["error"]["code"], "lab.boom");
    stream.ends().await;
}

#[tokio::test]
async fn a_stream_of_an_unknown_actor_is_refused() {
    let host = Host::serving(["lab"]).await;
    for path in ["/actors/nope/1/state", "/actors/nope/1/events"] {
        let request = host.get(path).header("accept", "text/event-stream");
        request.send().await.failed(404, "actor.unknown");
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_lets_the_actor_go() {
    let host = Host::builder()
        .component("lab")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut stream = host.get("/actors/visits/1/state").stream().await;
    stream.expect("snapshot").await;
    drop(stream);
    host.logged("deactivated 1 times").await;
}

/// More than what the host, and the systems beneath it and its client, hold for one stream.
const ROUNDS: u32 = 300;
const BYTES: u32 = 200_000;

/// A host that holds little for a stream that is not read.
fn impatient() -> Builder {
    Host::builder()
        .component("lab")
        .set("gateway.outbound-bytes=262144")
}

#[tokio::test]
async fn a_state_stream_that_was_not_read_ends_up_with_the_current_state() {
    let host = impatient().start().await;
    let lab = actor("lab", "1");
    let mut caller = host.connect().await;
    caller.call(&lab, "zero", None).await;
    let mut stream = host.get("/actors/lab/1/state").stream().await;
    stream.expect("snapshot").await;
    let before = host.resident_bytes();
    for n in 1..=ROUNDS {
        let reply = caller.call(&lab, "fill", json!({"bytes": BYTES})).await;
        assert_eq!(reply.result(), n);
    }
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "the host has grown by {grown} bytes");
    let mut events = 0;
    loop {
        let event = stream.next().await;
        events += 1;
        if event.event == "snapshot" && event.data["state"]["n"] == ROUNDS {
            break;
        }
    }
    assert!(events < ROUNDS, "nothing was left out");
    // It is in step again.
    caller.call(&lab, "count", None).await;
    let patch = stream.expect("patch").await.data;
    assert_eq!(
        patch["patches"],
        json!([{"op": "replace", "path": "/n", "value": ROUNDS + 1}])
    );
}

#[tokio::test]
async fn an_event_stream_that_is_not_read_is_ended() {
    let host = impatient()
        .set("gateway.write-timeout-ms=500")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let lab = actor("lab", "1");
    let stream = host.get("/actors/lab/1/events").stream().await;
    let mut caller = host.connect().await;
    let before = host.resident_bytes();
    for _ in 0..ROUNDS {
        let reply = caller.call(&lab, "blare", json!({"bytes": BYTES})).await;
        assert_eq!(reply.frame.get("error"), None);
    }
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "the host has grown by {grown} bytes");
    // Nobody watches the actor any more.
    host.logged("lab 1 leaves memory").await;
    let events = stream.rest().await;
    assert!(events.len() < ROUNDS as usize, "nothing was left out");
}

//! Events: who gets them, and who does not.

use serde_json::{Value, json};
use tidegate_tests::{Actor, Host, Socket, actor};

/// Sockets that subscribe to the actor's events and are known to do so.
async fn listeners<const N: usize>(host: &Host, actor: &Actor) -> [Socket; N] {
    let mut sockets = Vec::new();
    for _ in 0..N {
        let mut socket = host.connect().await;
        socket.subscribe_events(actor).await;
        socket.call(actor, "zero", None).await;
        sockets.push(socket);
    }
    let Ok(sockets) = sockets.try_into() else {
        unreachable!("as many as were made");
    };
    sockets
}

/// The texts of the notes that a socket has got by now.
async fn notes(socket: &mut Socket, actor: &Actor) -> Vec<Value> {
    // Whatever was sent to this socket before comes before this result.
    let reply = socket.call(actor, "zero", None).await;
    let events = reply
        .before
        .into_iter()
        .filter(|frame| frame["type"] == "event");
    events
        .map(|event| event["payload"]["text"].clone())
        .collect()
}

#[tokio::test]
async fn an_event_has_a_name_and_a_payload() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut socket] = listeners(&host, &lab).await;
    let reply = socket.call(&lab, "announce", json!({"text": "hi"})).await;
    assert_eq!(
        reply.before,
        [
            json!({"type": "event", "actor": "lab", "actorId": "1", "event": "note", "payload": {"text": "hi"}})
        ]
    );
}

#[tokio::test]
async fn only_subscribers_get_events() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut listener] = listeners(&host, &lab).await;
    let [mut elsewhere] = listeners(&host, &actor("lab", "2")).await;
    let mut watcher = host.connect().await;
    watcher.subscribe_state(&lab).await;
    let mut caller = host.connect().await;
    let reply = caller.call(&lab, "announce", json!({"text": "hi"})).await;
    assert_eq!(reply.types_before(), [""; 0]);
    assert_eq!(notes(&mut listener, &lab).await, ["hi"]);
    assert_eq!(notes(&mut watcher, &lab).await, [""; 0]);
    assert_eq!(notes(&mut elsewhere, &lab).await, [""; 0]);
}

#[tokio::test]
async fn subscribing_twice_is_subscribing_once() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut socket] = listeners(&host, &lab).await;
    socket.subscribe_events(&lab).await;
    socket.call(&lab, "announce", json!({"text": "hi"})).await;
    let reply = socket
        .call(&lab, "announce", json!({"text": "again"}))
        .await;
    assert_eq!(reply.before.len(), 1, "{reply:?}");
}

#[tokio::test]
async fn nothing_comes_after_the_end_of_a_subscription() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut socket] = listeners(&host, &lab).await;
    socket.unsubscribe_events(&lab).await;
    let reply = socket.call(&lab, "announce", json!({"text": "hi"})).await;
    assert_eq!(reply.before, [Value::Null; 0]);
}

#[tokio::test]
async fn an_event_to_one_connection_reaches_nobody_else() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut one, mut two, mut three] = listeners(&host, &lab).await;
    let to = json!({"to": [two.id()], "text": "psst"});
    one.call(&lab, "tell", to).await;
    assert_eq!(notes(&mut one, &lab).await, [""; 0]);
    assert_eq!(notes(&mut two, &lab).await, ["psst"]);
    assert_eq!(notes(&mut three, &lab).await, [""; 0]);
}

#[tokio::test]
async fn an_event_to_several_connections_reaches_each_once() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut one, mut two, mut three] = listeners(&host, &lab).await;
    let to = json!({"to": [two.id(), three.id(), two.id(), "nobody"], "text": "psst"});
    one.call(&lab, "tell", to).await;
    assert_eq!(notes(&mut one, &lab).await, [""; 0]);
    assert_eq!(notes(&mut two, &lab).await, ["psst"]);
    assert_eq!(notes(&mut three, &lab).await, ["psst"]);
}

#[tokio::test]
async fn an_event_to_nobody_reaches_nobody() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut one, mut two] = listeners(&host, &lab).await;
    one.call(&lab, "tell", json!({"to": [], "text": "psst"}))
        .await;
    assert_eq!(notes(&mut one, &lab).await, [""; 0]);
    assert_eq!(notes(&mut two, &lab).await, [""; 0]);
}

#[tokio::test]
async fn an_event_to_a_connection_that_does_not_subscribe_is_not_sent() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    let own = json!({"to": [socket.id()], "text": "psst"});
    let reply = socket.call(&lab, "tell", own).await;
    assert_eq!(reply.before, [Value::Null; 0]);
}

#[tokio::test]
async fn an_event_except_some_reaches_the_others() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut one, mut two, mut three] = listeners(&host, &lab).await;
    let but = json!({"but": [one.id(), two.id()], "text": "surprise"});
    one.call(&lab, "tellOthers", but).await;
    assert_eq!(notes(&mut one, &lab).await, [""; 0]);
    assert_eq!(notes(&mut two, &lab).await, [""; 0]);
    assert_eq!(notes(&mut three, &lab).await, ["surprise"]);
}

#[tokio::test]
async fn events_keep_their_order() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let [mut listener] = listeners(&host, &lab).await;
    let mut caller = host.connect().await;
    for number in 0..100 {
        let text = number.to_string();
        caller
            .begin_call(&lab, "announce", json!({"text": text}))
            .await;
    }
    for number in 0..100 {
        let event = listener.expect_type("event").await;
        assert_eq!(event["payload"]["text"], number.to_string());
    }
}

#[tokio::test]
async fn an_event_that_breaks_the_manifest_fails_its_turn() {
    let host = Host::serving(["hostile"]).await;
    let hostile = actor("hostile", "1");
    let mut socket = host.connect().await;
    socket.subscribe_events(&hostile).await;
    for (method, code) in [
        ("undeclaredEvent", "event.unknown"),
        ("mistypedEvent", "event.invalid"),
        ("malformedEvent", "event.invalid"),
    ] {
        let reply = socket.call(&hostile, method, None).await;
        assert_eq!(reply.code(), code, "{method}");
        assert_eq!(reply.before, [Value::Null; 0], "{method}");
    }
}

//! The moments of an actor's life, and who counts as a connection.

use serde_json::{Value, json};
use tidegate_tests::{Builder, Folder, Host, Socket, actor};

#[tokio::test]
async fn a_connection_is_announced_at_its_first_contact_only() {
    let host = Host::serving(["lab"]).await;
    let visits = actor("visits", "1");
    let mut socket = host.connect().await;
    socket.call(&visits, "call", None).await;
    socket.subscribe_events(&visits).await;
    socket.subscribe_state(&visits).await;
    socket.unsubscribe_state(&visits).await;
    socket.call(&visits, "call", None).await;
    let state = socket.subscribe_state(&visits).await["state"].clone();
    assert_eq!(state["connects"], json!([socket.id()]));
    assert_eq!(state["disconnects"], json!([]));
}

#[tokio::test]
async fn a_subscription_is_a_contact() {
    let host = Host::serving(["lab"]).await;
    for kind in ["state:sub", "event:sub"] {
        let visits = actor("visits", kind);
        let mut socket = host.connect().await;
        socket
            .send(json!({"type": kind, "actor": "visits", "actorId": kind}))
            .await;
        let mut other = host.connect().await;
        let id = socket.id().to_owned();
        let arrived = |state: &Value| {
            state["connects"]
                .as_array()
                .is_some_and(|ids| ids.contains(&json!(id)))
        };
        other.watch(&visits, arrived).await;
    }
}

/// A host where those that come are shown what their coming changed, however long that takes.
fn patient() -> Builder {
    Host::builder()
        .component("lab")
        .set("actors.connect-wait-ms=10000")
}

#[tokio::test]
async fn a_first_subscriber_sees_its_own_coming() {
    let folder = Folder::new();
    let on_disk = patient().data(folder.path());
    for host in [on_disk.start().await, patient().start().await] {
        for round in 0..80 {
            let visits = actor("visits", &round.to_string());
            let mut socket = host.connect().await;
            let snapshot = socket.subscribe_state(&visits).await;
            assert_eq!(snapshot["state"]["connects"], json!([socket.id()]));
        }
    }
}

#[tokio::test]
async fn who_called_or_listened_first_sees_its_own_coming_as_well() {
    let folder = Folder::new();
    let host = patient().data(folder.path()).start().await;
    let first = async |socket: &mut Socket, id: &str, first: Value| {
        let state = json!({"type": "state:sub", "actor": "visits", "actorId": id});
        socket.send(first).await;
        socket.send(state).await;
        let snapshot = loop {
            let frame = socket.next().await;
            if frame["type"] != "rpc:result" {
                break frame;
            }
        };
        assert_eq!(snapshot["type"], "state:snapshot");
        assert_eq!(snapshot["state"]["connects"], json!([socket.id()]));
    };
    for round in 0..20 {
        let (called, heard) = (format!("called {round}"), format!("heard {round}"));
        let mut socket = host.connect().await;
        let call = json!({
            "type": "rpc", "id": "1", "actor": "visits", "actorId": called, "method": "known",
        });
        first(&mut socket, &called, call).await;
        let listen = json!({"type": "event:sub", "actor": "visits", "actorId": heard});
        first(&mut socket, &heard, listen).await;
    }
}

#[tokio::test]
async fn a_first_subscriber_does_not_wait_for_a_busy_actor() {
    let host = Host::serving(["lab"]).await;
    let visits = actor("visits", "busy");
    let mut busy = host.connect().await;
    busy.call(&visits, "known", None).await.result();
    let call = busy.begin_call(&visits, "call", json!({"ms": 3_000})).await;
    // Frames are taken in order, so once this is answered that one is in the queue.
    busy.call(&actor("lab", "1"), "zero", None).await;
    let mut socket = host.connect().await;
    let snapshot = socket.subscribe_state(&visits).await;
    assert_eq!(snapshot["state"]["calls"], 0, "the call has not ended");
    assert_eq!(snapshot["state"]["connects"], json!([busy.id()]));
    busy.result_of(&call).await.result();
    // And what its coming changes follows.
    let id = socket.id().to_owned();
    let came = |state: &Value| {
        let ids = state["connects"].as_array();
        ids.is_some_and(|ids| ids.contains(&json!(id)))
    };
    socket.watch(&visits, came).await;
}

#[tokio::test]
async fn each_actor_is_told_of_the_connections_it_meets() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for id in ["a", "b"] {
        let visits = actor("visits", id);
        socket.call(&visits, "call", None).await;
        let state = socket.subscribe_state(&visits).await["state"].clone();
        assert_eq!(state["connects"], json!([socket.id()]));
    }
}

#[tokio::test]
async fn a_closed_socket_is_a_disconnect_and_an_unsubscription_is_not() {
    let host = Host::serving(["lab"]).await;
    let visits = actor("visits", "1");
    let mut witness = host.connect().await;
    let mut socket = host.connect().await;
    socket.subscribe_state(&visits).await;
    socket.subscribe_events(&visits).await;
    socket.unsubscribe_state(&visits).await;
    socket.unsubscribe_events(&visits).await;
    socket.call(&visits, "call", None).await;
    let state = witness.subscribe_state(&visits).await["state"].clone();
    assert_eq!(state["disconnects"], json!([]));
    let id = socket.id().to_owned();
    socket.close().await;
    let left = |state: &Value| state["disconnects"] == json!([id]);
    witness.watch(&visits, left).await;
}

#[tokio::test]
async fn a_connection_that_only_called_is_a_connection() {
    let host = Host::serving(["lab"]).await;
    let visits = actor("visits", "1");
    let mut witness = host.connect().await;
    witness.subscribe_state(&visits).await;
    let mut caller = host.connect().await;
    let known = caller.call(&visits, "known", None).await.result();
    assert_eq!(known, json!([witness.id(), caller.id()]));
    let id = caller.id().to_owned();
    caller.vanish();
    witness
        .watch(&visits, |state| state["disconnects"] == json!([id]))
        .await;
    let known = witness.call(&visits, "known", None).await.result();
    assert_eq!(known, json!([witness.id()]));
}

#[tokio::test]
async fn a_disconnect_comes_after_the_calls_that_were_queued() {
    let host = Host::serving(["lab"]).await;
    let visits = actor("visits", "1");
    let mut witness = host.connect().await;
    witness.subscribe_state(&visits).await;
    let mut caller = host.connect().await;
    caller.begin_call(&visits, "call", json!({"ms": 100})).await;
    caller.begin_call(&visits, "call", None).await;
    let id = caller.id().to_owned();
    // Frames are taken in order, so once this is answered those two are in the queue.
    caller.call(&actor("lab", "1"), "zero", None).await;
    caller.vanish();
    let state = witness
        .watch(&visits, |state| state["disconnects"] == json!([id]))
        .await;
    assert_eq!(state["calls"], 2);
}

#[tokio::test]
async fn plain_http_is_no_connection() {
    let host = patient().start().await;
    let visits = actor("visits", "1");
    host.post("/actors/visits/1/call").send().await;
    let mut stream = host.get("/actors/visits/1/state").stream().await;
    stream.expect("snapshot").await;
    let known = host.post("/actors/visits/1/known").send().await.json();
    assert_eq!(known, json!([]));
    let mut socket = host.connect().await;
    let state = socket.subscribe_state(&visits).await["state"].clone();
    assert_eq!(
        (&state["connects"], &state["calls"]),
        (&json!([socket.id()]), &json!(1))
    );
}

#[tokio::test]
async fn an_actor_is_activated_once() {
    let host = Host::serving(["lab"]).await;
    let visits = actor("visits", "1");
    let mut socket = host.connect().await;
    for _ in 0..3 {
        socket.call(&visits, "call", None).await;
    }
    let state = socket.subscribe_state(&visits).await["state"].clone();
    assert_eq!(
        (&state["activations"], &state["deactivations"]),
        (&json!(1), &json!(0))
    );
}

#[tokio::test]
async fn an_idle_actor_leaves_memory_and_keeps_its_state() {
    let host = Host::builder()
        .component("lab")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    let visits = actor("visits", "1");
    socket.call(&visits, "call", None).await;
    host.logged("deactivated 1 times").await;
    assert_eq!(socket.call(&visits, "call", None).await.result(), 2);
    let state = socket.subscribe_state(&visits).await["state"].clone();
    assert_eq!(
        (&state["activations"], &state["deactivations"]),
        (&json!(2), &json!(1))
    );
    // The connection has not come anew: it is the actor that was away.
    assert_eq!(state["connects"], json!([socket.id()]));
}

#[tokio::test]
async fn a_subscriber_keeps_an_actor_in_memory() {
    let host = Host::builder()
        .component("lab")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    let (watched, idle) = (actor("visits", "watched"), actor("visits", "idle"));
    socket.subscribe_state(&watched).await;
    for times in 1..=3 {
        socket.call(&idle, "call", None).await;
        host.logged(&format!("deactivated {times} times")).await;
    }
    let state = socket.watch(&watched, |_| true).await;
    assert_eq!(state["deactivations"], 0);
}

#[tokio::test]
async fn a_version_goes_on_after_the_actor_was_away() {
    let host = Host::builder()
        .component("lab")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    let visits = actor("visits", "1");
    socket.call(&visits, "call", None).await;
    let before = host.get("/actors/visits/1/state").send().await.json();
    host.logged("deactivated 1 times").await;
    let after = host.get("/actors/visits/1/state").send().await.json();
    assert_eq!(after["epoch"], before["epoch"]);
    assert!(after["version"].as_u64() > before["version"].as_u64());
}

#[tokio::test]
async fn a_failing_hook_never_wedges_the_actor() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 200)
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    for how in ["fail", "trap", "loop"] {
        let wedge = actor("wedge", how);
        for count in 1..=2 {
            let mut socket = host.connect().await;
            let snapshot = socket.subscribe_state(&wedge).await;
            assert_eq!(snapshot["state"], json!({"pings": count - 1}), "{how}");
            let reply = socket.call(&wedge, "ping", None).await;
            assert_eq!(reply.result(), count, "{how}");
            assert_eq!(reply.types_before(), ["state:patch"], "{how}");
            socket.close().await;
        }
    }
}

#[tokio::test]
async fn a_failing_hook_is_logged() {
    let host = Host::serving(["hostile"]).await;
    let mut socket = host.connect().await;
    socket.call(&actor("wedge", "fail"), "ping", None).await;
    let line = host.logged("wedge.hook").await;
    assert!(line.contains("wedge/fail"), "{line}");
}

#[tokio::test]
async fn a_client_that_is_gone_without_a_word_is_noticed() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.ping-interval-ms=100")
        .set("gateway.pong-timeout-ms=1000")
        .start()
        .await;
    let visits = actor("visits", "1");
    let mut silent = host.connect().await;
    silent.call(&visits, "call", None).await;
    let id = silent.id().to_owned();
    // Nobody reads this socket from here on, so nobody answers the pings; the one that
    // waits does.
    let mut witness = host.connect().await;
    witness
        .watch(&visits, |state| state["disconnects"] == json!([id]))
        .await;
    drop(silent);
}

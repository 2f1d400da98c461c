//! How many actors are in memory at once, and what becomes of those for whom there is no
//! room.

use serde_json::{Value, json};
use tidegate_tests::{Actor, Builder, Host, PATIENCE, Socket, actor};

fn room_for(actors: usize) -> Builder {
    Host::builder()
        .component("lab")
        .set(&format!("actors.max-in-memory={actors}"))
}

/// Asks for the state until there is room for the actor, and returns it.
async fn admitted(socket: &mut Socket, actor: &Actor) -> Value {
    let asking = async {
        loop {
            let subscription =
                json!({"type": "state:sub", "actor": actor.kind, "actorId": actor.id});
            socket.send(subscription).await;
            let frame = socket.next().await;
            match frame["type"].as_str() {
                Some("state:snapshot") => return frame["state"].clone(),
                Some("error") => assert_eq!(frame["code"], "actor.limit", "{frame}"),
                _ => panic!("expected an answer to a subscription, found {frame}"),
            }
        }
    };
    let admitted = tokio::time::timeout(PATIENCE, asking).await;
    admitted.unwrap_or_else(|_| panic!("there is never room for {actor}"))
}

#[tokio::test]
async fn an_actor_beyond_the_limit_is_refused_at_every_door() {
    let host = room_for(2).start().await;
    let mut socket = host.connect().await;
    let inside = [actor("lab", "1"), actor("visits", "2")];
    socket.call(&inside[0], "count", None).await.result();
    socket.call(&inside[1], "call", None).await.result();
    let third = actor("visits", "3");
    let reply = socket.call(&third, "call", None).await;
    assert_eq!(reply.code(), "actor.limit");
    for kind in ["state:sub", "event:sub"] {
        let subscription = json!({"type": kind, "actor": "visits", "actorId": "3"});
        socket.send(subscription).await;
        let error = socket.expect_type("error").await;
        assert_eq!(error["code"], "actor.limit", "{kind}");
        assert_eq!(error["params"]["actorId"], "3", "{kind}");
    }
    let call = host.post("/actors/visits/3/call").send().await;
    call.failed(503, "actor.limit");
    for what in ["state", "events"] {
        let path = format!("/actors/visits/3/{what}");
        let stream = host.get(&path).header("accept", "text/event-stream");
        stream.send().await.failed(503, "actor.limit");
    }
    let read = host.get("/actors/visits/3/state").send().await;
    read.failed(503, "actor.limit");
    // Those that are in are served on.
    assert_eq!(socket.call(&inside[0], "count", None).await.result(), 2);
    assert_eq!(socket.call(&inside[1], "call", None).await.result(), 2);
}

#[tokio::test]
async fn a_refused_first_contact_is_none() {
    let host = room_for(1).set("actors.idle-timeout-ms=50").start().await;
    let (inside, outside) = (actor("lab", "1"), actor("visits", "1"));
    let mut holder = host.connect().await;
    holder.subscribe_state(&inside).await;
    let mut socket = host.connect().await;
    let refused = socket.call(&outside, "call", None).await;
    assert_eq!(refused.code(), "actor.limit");
    for kind in ["state:sub", "event:sub"] {
        socket
            .send(json!({"type": kind, "actor": "visits", "actorId": "1"}))
            .await;
        let error = socket.expect_type("error").await;
        assert_eq!(error["code"], "actor.limit", "{kind}");
    }
    holder.unsubscribe_state(&inside).await;
    admitted(&mut socket, &outside).await;
    // The hook runs behind the snapshot and ahead of the call.
    assert_eq!(socket.call(&outside, "call", None).await.result(), 1);
    let state = socket.watch(&outside, |_| true).await;
    assert_eq!(state["connects"], json!([socket.id()]));
}

#[tokio::test]
async fn a_disconnect_reaches_an_actor_that_is_not_in_memory_although_there_is_no_room() {
    let host = room_for(1).set("actors.idle-timeout-ms=50").start().await;
    let (visits, other) = (actor("visits", "1"), actor("lab", "1"));
    let mut guest = host.connect().await;
    guest.call(&visits, "call", None).await.result();
    let id = guest.id().to_owned();
    host.logged("deactivated 1 times").await;
    let mut holder = host.connect().await;
    admitted(&mut holder, &other).await;
    guest.close().await;
    // It came in to be told, and left.
    host.logged("deactivated 2 times").await;
    holder.unsubscribe_state(&other).await;
    let mut witness = host.connect().await;
    let state = admitted(&mut witness, &visits).await;
    assert_eq!(state["disconnects"], json!([id]));
}

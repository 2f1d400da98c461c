//! The host's orderly end: turns finish, sockets are closed, state hooks run.

use serde_json::json;
use tidegate_tests::{Host, actor};

#[tokio::test]
async fn sockets_are_closed_as_going_away() {
    let mut host = Host::serving(["lab"]).await;
    let (mut one, mut two) = (host.connect().await, host.connect().await);
    one.subscribe_state(&actor("lab", "1")).await;
    host.terminate().await;
    assert_eq!(one.closed().await.code, 1001);
    assert_eq!(two.closed().await.code, 1001);
    assert!(host.ended().await.success());
}

#[tokio::test]
async fn a_running_turn_finishes_and_its_caller_is_told() {
    let mut host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    let slow = socket.begin_call(&lab, "slow", json!({"ms": 500})).await;
    let queued = socket.begin_call(&lab, "count", None).await;
    // Frames are taken in order, so once this is answered the turn is under way.
    socket.call(&actor("lab", "2"), "zero", None).await;
    host.terminate().await;
    assert_eq!(socket.result_of(&slow).await.result(), 1);
    assert_eq!(socket.result_of(&queued).await.result(), 2);
    assert_eq!(socket.closed().await.code, 1001);
    assert!(host.ended().await.success());
}

#[tokio::test]
async fn actors_are_deactivated() {
    let mut host = Host::serving(["lab"]).await;
    host.post("/actors/visits/1/call").send().await;
    host.terminate().await;
    assert!(host.ended().await.success());
    let line = host.logged("deactivated 1 times").await;
    assert!(line.contains("visits/1"), "{line}");
}

#[tokio::test]
async fn streams_end() {
    let mut host = Host::serving(["lab"]).await;
    let mut stream = host.get("/actors/visits/1/events").stream().await;
    host.terminate().await;
    stream.ends().await;
    assert!(host.ended().await.success());
}

#[tokio::test]
async fn nobody_is_let_in_any_more() {
    let mut host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 2_000)
        .start()
        .await;
    let mut socket = host.connect().await;
    // Keeps the host from ending before it has been tried.
    let busy = socket
        .begin_call(&actor("hostile", "busy"), "sleep", None)
        .await;
    socket.call(&actor("hostile", "free"), "ping", None).await;
    host.terminate().await;
    // The signal takes its time to arrive; until then calls are served.
    let refused = loop {
        let reply = socket.call(&actor("hostile", "free"), "ping", None).await;
        if reply.frame.get("error").is_some() {
            break reply;
        }
    };
    assert_eq!(refused.code(), "host.shutting-down");
    assert_eq!(socket.result_of(&busy).await.code(), "turn.deadline");
    assert_eq!(socket.closed().await.code, 1001);
    assert!(host.ended().await.success());
}

#[tokio::test]
async fn an_endless_turn_does_not_keep_the_host() {
    let mut host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 3_600_000)
        .set("gateway.shutdown-grace-ms=100")
        .start()
        .await;
    let mut socket = host.connect().await;
    for method in ["sleep", "loop"] {
        socket
            .begin_call(&actor("hostile", method), method, None)
            .await;
    }
    socket.call(&actor("hostile", "free"), "ping", None).await;
    host.terminate().await;
    assert_eq!(socket.closed().await.code, 1001);
    host.ended().await;
}

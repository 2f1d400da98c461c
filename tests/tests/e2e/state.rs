//! Subscriptions to the state: snapshots, versions, and what a failed turn leaves.

use serde_json::{Value, json};
use tidegate_tests::{Host, actor};

#[tokio::test]
async fn a_subscriber_gets_the_initial_state() {
    let host = Host::serving(["counter"]).await;
    let mut socket = host.connect().await;
    let snapshot = socket.subscribe_state(&actor("counter", "a")).await;
    assert_eq!(snapshot["actor"], "counter");
    assert_eq!(snapshot["actorId"], "a");
    assert_eq!(snapshot["state"], json!({"count": 0}));
    assert_eq!(snapshot["version"], 0);
    assert!(
        snapshot["epoch"]
            .as_str()
            .is_some_and(|epoch| !epoch.is_empty())
    );
}

#[tokio::test]
async fn the_caller_sees_patch_then_events_then_result() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    socket.subscribe_events(&lab).await;
    socket.subscribe_state(&lab).await;
    // Past the patch of `connect`.
    socket.call(&lab, "zero", None).await;
    let reply = socket.call(&lab, "twice", None).await;
    assert_eq!(reply.types_before(), ["state:patch", "event", "event"]);
    assert_eq!(
        reply.patches(),
        &json!([{"op": "replace", "path": "/n", "value": 2}])
    );
    assert_eq!(reply.before[1]["payload"], json!({"x": 1}));
    assert_eq!(reply.before[2]["payload"], json!({"x": 2}));
    assert_eq!(reply.result(), 2);
}

#[tokio::test]
async fn every_subscriber_sees_every_change() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let (mut one, mut two) = (host.connect().await, host.connect().await);
    one.subscribe_state(&counter).await;
    two.subscribe_state(&counter).await;
    one.call(&counter, "increment", json!({"by": 2})).await;
    let patch = two.expect_type("state:patch").await;
    assert_eq!(
        patch["patches"],
        json!([{"op": "replace", "path": "/count", "value": 2}])
    );
    two.call(&counter, "increment", json!({"by": 3})).await;
    let patch = one.expect_type("state:patch").await;
    assert_eq!(
        patch["patches"],
        json!([{"op": "replace", "path": "/count", "value": 5}])
    );
}

#[tokio::test]
async fn versions_follow_each_other_without_a_gap() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut caller = host.connect().await;
    caller.call(&lab, "count", None).await;
    let mut socket = host.connect().await;
    let snapshot = socket.subscribe_state(&lab).await;
    let mut version = snapshot["version"].clone();
    for method in [
        "count",
        "noop",
        "whisperToSelf",
        "mutThrow",
        "count",
        "twice",
    ] {
        caller.call(&lab, method, None).await;
    }
    caller.call(&lab, "set", json!({"n": -1})).await;
    loop {
        let patch = socket.expect_type("state:patch").await;
        assert_eq!(patch["epoch"], snapshot["epoch"]);
        assert_eq!(patch["from"], version, "{patch}");
        assert!(patch["version"].as_u64() > version.as_u64(), "{patch}");
        version = patch["version"].clone();
        if patch["patches"][0]["value"] == -1 {
            break;
        }
    }
    assert_eq!(socket.subscribe_state(&lab).await["version"], version);
}

#[tokio::test]
async fn each_subscription_sends_a_snapshot_and_patches_come_once() {
    let host = Host::serving(["counter"]).await;
    let mut socket = host.connect().await;
    let counter = actor("counter", "a");
    let first = socket.subscribe_state(&counter).await;
    let second = socket.subscribe_state(&counter).await;
    assert_eq!(first, second);
    let reply = socket.call(&counter, "increment", json!({"by": 1})).await;
    assert_eq!(reply.types_before(), ["state:patch"]);
}

#[tokio::test]
async fn a_snapshot_holds_every_committed_call() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut caller = host.connect().await;
    for by in 1..=5 {
        caller.call(&counter, "increment", json!({"by": by})).await;
    }
    let snapshot = host.connect().await.subscribe_state(&counter).await;
    assert_eq!(snapshot["state"], json!({"count": 15}));
    assert_eq!(snapshot["version"], 5);
}

#[tokio::test]
async fn nothing_comes_after_the_end_of_a_subscription() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut socket = host.connect().await;
    socket.subscribe_state(&counter).await;
    socket.unsubscribe_state(&counter).await;
    let reply = socket.call(&counter, "increment", json!({"by": 1})).await;
    assert_eq!(reply.types_before(), [""; 0]);
}

#[tokio::test]
async fn a_subscriber_of_another_actor_hears_nothing() {
    let host = Host::serving(["counter"]).await;
    let mut socket = host.connect().await;
    socket.subscribe_state(&actor("counter", "a")).await;
    let reply = socket
        .call(&actor("counter", "b"), "increment", json!({"by": 1}))
        .await;
    assert_eq!(reply.types_before(), [""; 0]);
}

#[tokio::test]
async fn a_client_that_comes_back_gets_a_fresh_snapshot() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut first = host.connect().await;
    let before = first.subscribe_state(&counter).await;
    let id = first.id().to_owned();
    first.vanish();
    let mut caller = host.connect().await;
    caller.call(&counter, "increment", json!({"by": 4})).await;
    let mut second = host.connect().await;
    let after = second.subscribe_state(&counter).await;
    assert_ne!(second.id(), id);
    assert_eq!(after["state"], json!({"count": 4}));
    assert_eq!(after["epoch"], before["epoch"]);
}

#[tokio::test]
async fn a_failed_turn_leaves_nothing() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    socket.subscribe_events(&lab).await;
    socket.call(&lab, "zero", None).await;
    let before = socket.subscribe_state(&lab).await;
    let reply = socket.call(&lab, "mutThrow", None).await;
    assert_eq!(reply.error(), "boom");
    assert_eq!(reply.code(), "lab.boom");
    assert_eq!(reply.types_before(), [""; 0]);
    assert_eq!(socket.subscribe_state(&lab).await, before);
    assert_eq!(socket.call(&lab, "count", None).await.result(), 1);
}

#[tokio::test]
async fn a_write_without_a_change_sends_nothing() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    socket.call(&lab, "zero", None).await;
    let before = socket.subscribe_state(&lab).await;
    let reply = socket.call(&lab, "noop", None).await;
    assert_eq!(reply.types_before(), [""; 0]);
    assert_eq!(
        socket.subscribe_state(&lab).await["version"],
        before["version"]
    );
}

#[tokio::test]
async fn hidden_members_are_never_shown() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    socket.call(&lab, "zero", None).await;
    let snapshot = socket.subscribe_state(&lab).await;
    assert!(snapshot["state"].is_object());
    assert_eq!(snapshot["state"].get("secret"), None);
    let reply = socket.call(&lab, "whisperToSelf", None).await;
    assert_eq!((reply.result(), reply.types_before()), (json!(1), vec![]));
    let read = host.get("/actors/lab/1/state").send().await.json();
    assert_eq!(read["state"].get("secret"), None);
}

#[tokio::test]
async fn joining_does_not_wait_for_a_running_turn() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 3_600_000)
        .start()
        .await;
    let mut socket = host.connect().await;
    let hostile = actor("hostile", "1");
    socket.call(&hostile, "ping", None).await;
    socket.begin_call(&hostile, "sleep", None).await;
    let snapshot = socket.subscribe_state(&hostile).await;
    assert_eq!(snapshot["state"], json!({"pings": 1}));
    let read = host.get("/actors/hostile/1/state").send().await.json();
    assert_eq!(read["state"], json!({"pings": 1}));
}

#[tokio::test]
async fn joining_does_not_wait_for_the_connect_hook() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 3_600_000)
        .start()
        .await;
    let mut socket = host.connect().await;
    let snapshot = socket.subscribe_state(&actor("wedge", "loop")).await;
    assert_eq!(snapshot["state"], json!({"pings": 0}));
}

#[tokio::test]
async fn a_snapshot_comes_before_any_patch() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut caller = host.connect().await;
    for _ in 0..20 {
        for _ in 0..10 {
            caller.begin_call(&lab, "count", None).await;
        }
        let mut socket = host.connect().await;
        // Fails on a patch that comes first.
        let snapshot = socket.subscribe_state(&lab).await;
        caller.begin_call(&lab, "count", None).await;
        let patch = socket.expect_type("state:patch").await;
        assert_eq!(patch["from"], snapshot["version"]);
    }
}

#[tokio::test]
async fn a_state_that_breaks_its_schema_is_refused() {
    let host = Host::serving(["hostile"]).await;
    let mut socket = host.connect().await;
    let hostile = actor("hostile", "1");
    let before = socket.subscribe_state(&hostile).await;
    let reply = socket.call(&hostile, "mistypedState", None).await;
    assert_eq!(reply.code(), "state.invalid");
    assert_eq!(reply.types_before(), [""; 0]);
    assert_eq!(socket.subscribe_state(&hostile).await, before);
}

#[tokio::test]
async fn a_change_within_a_large_state_that_breaks_its_schema_is_refused() {
    let host = Host::serving(["puppet"]).await;
    let mut socket = host.connect().await;
    let inventory = actor("inventory", "1");
    let mut set = async |members: Value| {
        let steps = json!([{"set": members}]);
        socket.call(&inventory, "run", Some(steps)).await
    };
    let items = vec![json!({"count": 0}); 100];
    set(json!({"items": items})).await.result();
    for (members, detail) in [
        (
            json!({"items/50/count": "7"}),
            "/items/50/count: expected integer, found string",
        ),
        (json!({"items/99": {}}), "/items/99/count: missing"),
        (
            json!({"items/-": {"count": 1}}),
            "/items: expected at most 100 elements, found 101",
        ),
        (json!({"items": null}), "/items: expected array, found null"),
    ] {
        let refused = set(members).await;
        assert_eq!(refused.code(), "state.invalid");
        let message = refused.error();
        assert!(message.ends_with(detail), "{message}");
    }
    set(json!({"items/50/count": 7, "note": "allowed"}))
        .await
        .result();
    let snapshot = socket.subscribe_state(&inventory).await;
    let mut expected = items;
    expected[50] = json!({"count": 7});
    assert_eq!(
        snapshot["state"],
        json!({"items": expected, "note": "allowed"})
    );
}

#[tokio::test]
async fn the_state_outlives_the_instance() {
    let host = Host::builder()
        .component("lab")
        .set("actors.resident-instances=1")
        .start()
        .await;
    let mut socket = host.connect().await;
    let (one, two) = (actor("lab", "1"), actor("lab", "2"));
    for count in 1..=5 {
        for actor in [&one, &two] {
            assert_eq!(socket.call(actor, "count", None).await.result(), count);
        }
    }
    // Guest memory was not what kept the counts: it has been replaced again and again.
    socket.call(&one, "turnsOfInstance", None).await;
    socket.call(&two, "turnsOfInstance", None).await;
    assert_eq!(socket.call(&one, "turnsOfInstance", None).await.result(), 1);
}

#[tokio::test]
async fn another_run_of_the_host_is_another_epoch() {
    let mut epochs: Vec<Value> = Vec::new();
    for _ in 0..2 {
        let host = Host::serving(["counter"]).await;
        let snapshot = host
            .connect()
            .await
            .subscribe_state(&actor("counter", "a"))
            .await;
        epochs.push(snapshot["epoch"].clone());
    }
    assert_ne!(epochs[0], epochs[1]);
}

//! The patches that changes become, in the dialect that Zocket's published client applies
//! correctly. The steps are those of the recorded session with Zocket's own server, with
//! the one difference that member names are escaped (RFC 6901).

use serde_json::{Value, json};
use tidegate_tests::{Host, actor, dialect};

#[tokio::test]
async fn changes_become_the_patches_that_zockets_client_understands() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    socket.call(&lab, "zero", None).await;
    let snapshot = socket.subscribe_state(&lab).await;
    let mut state = snapshot["state"].clone();
    let steps = [
        (
            "unshift",
            json!([
                {"op": "replace", "path": "/a/0", "value": 0},
                {"op": "replace", "path": "/a/1", "value": 1},
                {"op": "replace", "path": "/a/2", "value": 2},
                {"op": "add", "path": "/a/3", "value": 3},
            ]),
        ),
        (
            "splice",
            json!([
                {"op": "replace", "path": "/a/1", "value": 3},
                {"op": "remove", "path": "/a/3"},
                {"op": "remove", "path": "/a/2"},
            ]),
        ),
        ("trunc", json!([{"op": "remove", "path": "/a/1"}])),
        (
            "slash",
            json!([{"op": "add", "path": "/o/a~1b~0c", "value": 1}]),
        ),
        (
            "slashIn",
            json!([{"op": "add", "path": "/o/x~1y", "value": {"k": 1}}]),
        ),
        (
            "slashSet",
            json!([{"op": "replace", "path": "/o/x~1y/k", "value": 2}]),
        ),
        (
            "twice",
            json!([{"op": "replace", "path": "/n", "value": 2}]),
        ),
        ("del", json!([{"op": "remove", "path": "/o/x~1y"}])),
        (
            "nested",
            json!([{"op": "add", "path": "/o/deep", "value": {"l": [{"v": 1}]}}]),
        ),
        (
            "nested2",
            json!([
                {"op": "replace", "path": "/o/deep/l/0/v", "value": 2},
                {"op": "add", "path": "/o/deep/l/1", "value": {"v": 3}},
            ]),
        ),
    ];
    for (method, expected) in steps {
        let reply = socket.call(&lab, method, None).await;
        assert_eq!(reply.patches(), &expected, "{method}");
        dialect::apply(&mut state, reply.patches());
    }
    assert_eq!(state["a"], json!([0]));
    assert_eq!(socket.subscribe_state(&lab).await["state"], state);
}

#[tokio::test]
async fn a_client_that_follows_the_patches_has_the_state() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    let mut state: Value = socket.subscribe_state(&lab).await["state"].clone();
    let methods = [
        "unshift", "unshift", "splice", "nested", "trunc", "slash", "nested2", "unshift",
        "slashIn", "trunc", "trunc", "trunc", "noop", "slashSet", "twice", "nested", "del",
        "nested2",
    ];
    for method in methods {
        let reply = socket.call(&lab, method, None).await;
        for frame in reply.before {
            dialect::apply(&mut state, &frame["patches"]);
        }
    }
    assert_eq!(socket.subscribe_state(&lab).await["state"], state);
}

#[tokio::test]
async fn a_change_of_a_large_state_is_sent_alone() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    socket.call(&lab, "fill", json!({"bytes": 200_000})).await;
    socket.subscribe_state(&lab).await;
    let reply = socket.call(&lab, "count", None).await;
    assert_eq!(
        reply.patches(),
        &json!([{"op": "replace", "path": "/n", "value": 2}])
    );
}

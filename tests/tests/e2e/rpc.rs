//! Calls over WebSocket: results, failures, validation, order.

use serde_json::{Value, json};
use tidegate_tests::{Host, Socket, actor};

#[tokio::test]
async fn the_welcome_comes_first_and_names_the_client() {
    let host = Host::serving(["lab"]).await;
    let (one, two) = (host.connect().await, host.connect().await);
    assert!(!one.id().is_empty());
    assert_ne!(one.id(), two.id());
}

#[tokio::test]
async fn any_path_and_query_upgrades() {
    let host = Host::serving(["lab"]).await;
    for path in ["/", "/ws", "/some/where/else?token=x&y=%20"] {
        let mut socket = Socket::connect(&host, path).await;
        let reply = socket.call(&actor("lab", "1"), "zero", None).await;
        assert_eq!(reply.result(), 0, "{path}");
    }
}

#[tokio::test]
async fn a_result_carries_the_id_of_its_call() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for id in ["r1", " ", "ключ 🔑", &"x".repeat(128)] {
        socket
            .send(
                json!({"type": "rpc", "id": id, "actor": "lab", "actorId": "1", "method": "zero"}),
            )
            .await;
        let result = socket.expect_type("rpc:result").await;
        assert_eq!(result, json!({"type": "rpc:result", "id": id, "result": 0}));
    }
}

#[tokio::test]
async fn a_method_that_returns_nothing_has_no_result() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    let nothing = socket.call(&lab, "undef", None).await;
    assert_eq!(nothing.frame.get("result"), None);
    let null = socket.call(&lab, "nul", None).await;
    assert_eq!(null.frame.get("result"), Some(&Value::Null));
    for reply in [nothing, null] {
        assert_eq!(reply.frame.get("error"), None);
        assert_eq!(reply.frame.get("failure"), None);
    }
}

#[tokio::test]
async fn any_json_passes_through_unchanged() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let inputs = json!([
        null, true, 0, -1, 9_007_199_254_740_993_i64, u64::MAX, i64::MIN, 0.1, 1e300, "",
        "\u{0}\n\"\\/ \u{2028} ü 漢 🎉", [], {}, [[[{"": {"a/b~c": [null]}}]]],
    ]);
    for input in inputs.as_array().expect("an array") {
        let reply = socket.call(&actor("lab", "1"), "echo", input.clone()).await;
        assert_eq!(&reply.result(), input);
    }
}

#[tokio::test]
async fn unknown_actors_and_methods_are_named() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for name in ["nope", "toString", "__proto__", "lab2", "Lab"] {
        let reply = socket.call(&actor(name, "1"), "zero", None).await;
        assert_eq!(reply.error(), format!("Unknown actor: {name}"));
        assert_eq!(reply.code(), "actor.unknown");
    }
    for name in ["nope", "toString", "__proto__", "came", "constructor", ""] {
        let reply = socket.call(&actor("lab", "1"), name, None).await;
        assert_eq!(reply.error(), format!("Unknown method: {name}"));
        assert_eq!(reply.code(), "method.unknown");
    }
}

#[tokio::test]
async fn an_invalid_input_is_refused_with_the_path_first() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    let reply = socket.call(&lab, "announce", json!({"text": 7})).await;
    assert_eq!(
        reply.error(),
        "Validation failed for announce: /text: expected string, found number"
    );
    assert_eq!(reply.code(), "input.invalid");
    for input in [None, Some(json!({})), Some(json!([])), Some(json!("x"))] {
        let reply = socket.call(&lab, "slow", input).await;
        assert!(
            reply.error().starts_with("Validation failed for slow: /"),
            "{reply:?}"
        );
        assert_eq!(reply.code(), "input.invalid");
    }
}

#[tokio::test]
async fn a_refused_input_never_reaches_the_handler() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    let before = socket.call(&lab, "turnsOfInstance", None).await.result();
    let refused = socket.call(&lab, "set", json!({"n": "x"})).await;
    assert_eq!(refused.code(), "input.invalid");
    let after = socket.call(&lab, "turnsOfInstance", None).await.result();
    assert_eq!(after.as_u64(), before.as_u64().map(|turns| turns + 1));
}

#[tokio::test]
async fn a_failure_is_data() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    let taken = socket.call(&lab, "taken", json!({"owner": "Ann"})).await;
    assert_eq!(taken.error(), "taken by Ann");
    assert_eq!(
        taken.frame["failure"],
        json!({"code": "lab.taken", "message": "taken by Ann", "params": {"owner": "Ann"}})
    );
    assert_eq!(taken.frame.get("result"), None);
}

#[tokio::test]
async fn an_error_is_never_empty() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let silent = socket.call(&actor("lab", "1"), "silent", None).await;
    assert_eq!(silent.error(), "lab.silent");
    assert_eq!(silent.code(), "lab.silent");
}

#[tokio::test]
async fn calls_of_one_actor_run_in_order() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    let slow = socket.begin_call(&lab, "slow", json!({"ms": 50})).await;
    let fast = socket.begin_call(&lab, "count", None).await;
    let slow = socket.result_of(&slow).await;
    assert_eq!((slow.result(), slow.before.len()), (json!(1), 0));
    assert_eq!(socket.result_of(&fast).await.result(), 2);
}

#[tokio::test]
async fn actors_do_not_wait_for_each_other() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 3_600_000)
        .start()
        .await;
    let mut socket = host.connect().await;
    socket
        .begin_call(&actor("hostile", "busy"), "sleep", None)
        .await;
    let reply = socket.call(&actor("hostile", "free"), "ping", None).await;
    assert_eq!(reply.result(), 1);
}

#[tokio::test]
async fn a_busy_guest_does_not_hold_up_the_others() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 3_600_000)
        .start()
        .await;
    let mut socket = host.connect().await;
    // More of them than there are processors.
    for id in 0..16 {
        let busy = actor("hostile", &format!("busy-{id}"));
        socket.begin_call(&busy, "loop", None).await;
    }
    let reply = socket.call(&actor("hostile", "free"), "ping", None).await;
    assert_eq!(reply.result(), 1);
}

#[tokio::test]
async fn ten_thousand_pipelined_calls_are_answered_in_order() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    let mut ids = Vec::new();
    for _ in 0..10_000 {
        ids.push(socket.begin_call(&lab, "count", None).await);
    }
    for (count, id) in (1..).zip(ids) {
        let frame = socket.expect_type("rpc:result").await;
        assert_eq!(
            frame,
            json!({"type": "rpc:result", "id": id, "result": count})
        );
    }
}

#[tokio::test]
async fn a_full_mailbox_refuses_with_a_code_and_keeps_what_it_has() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 2_000)
        .set("actors.mailbox-items=10")
        .start()
        .await;
    let mut socket = host.connect().await;
    let hostile = actor("hostile", "1");
    let first = socket.begin_call(&hostile, "sleep", None).await;
    let mut pings = Vec::new();
    for _ in 0..100 {
        pings.push(socket.begin_call(&hostile, "ping", None).await);
    }
    let replies = socket.result_of(&first).await;
    assert_eq!(replies.code(), "turn.deadline");
    // While the queue stood still, those that found it full were told at once.
    assert!(replies.before.len() >= 89, "{}", replies.before.len());
    for refused in &replies.before {
        assert_eq!(refused["failure"]["code"], "mailbox.full");
    }
    for count in 1..=pings.len() - replies.before.len() {
        let served = socket.expect_type("rpc:result").await;
        assert_eq!(served["result"], count, "{served}");
    }
}

#[tokio::test]
async fn a_connection_has_only_so_many_calls_in_flight() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 3_600_000)
        .set("gateway.max-calls-in-flight=2")
        .start()
        .await;
    let mut socket = host.connect().await;
    let hostile = actor("hostile", "1");
    socket.begin_call(&hostile, "sleep", None).await;
    socket.begin_call(&hostile, "ping", None).await;
    let third = socket.call(&hostile, "ping", None).await;
    assert_eq!(third.code(), "rpc.in-flight-limit");
    let other = host
        .connect()
        .await
        .call(&actor("hostile", "2"), "ping", None)
        .await;
    assert_eq!(other.result(), 1);
}

#[tokio::test]
async fn an_id_in_flight_is_not_taken_twice() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let call = |ms: u32| {
        json!({"type": "rpc", "id": "same", "actor": "lab", "actorId": "1",
               "method": "slow", "input": {"ms": ms}})
    };
    socket.send(call(200)).await;
    socket.send(call(0)).await;
    let error = socket.expect_type("error").await;
    assert_eq!(
        (&error["code"], &error["id"]),
        (&json!("rpc.duplicate-id"), &json!("same"))
    );
    assert_eq!(socket.expect_type("rpc:result").await["result"], 1);
    // Answered, the id is free again.
    socket.send(call(0)).await;
    assert_eq!(socket.expect_type("rpc:result").await["result"], 2);
}

#[tokio::test]
async fn the_queued_calls_of_a_vanished_client_still_run() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut witness = host.connect().await;
    let mut client = host.connect().await;
    client.begin_call(&lab, "slow", json!({"ms": 100})).await;
    client.begin_call(&lab, "count", None).await;
    client.begin_call(&lab, "count", None).await;
    // Frames are taken in order, so once this is answered those three are in the queue.
    client.call(&actor("lab", "2"), "zero", None).await;
    client.vanish();
    witness.watch(&lab, |state| state["n"] == 3).await;
}

#[tokio::test]
async fn actors_are_told_apart_by_their_whole_id() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let ids = [
        "a",
        "A",
        "a ",
        " a",
        "a/b",
        "a%2Fb",
        "...",
        "\u{0}",
        "\u{7f}",
        "\n",
        "é",
        "e\u{301}",
        "漢字",
        "👩‍👩‍👧‍👦",
        "\u{202e}abc",
        "\u{feff}",
        "\u{10ffff}",
        "null",
        "\"",
        "\\",
    ];
    for id in ids {
        let reply = socket.call(&actor("lab", id), "who", None).await.result();
        assert_eq!(reply["id"], id);
        let reply = socket.call(&actor("lab", id), "count", None).await;
        assert_eq!(reply.result(), 1, "{id:?} is another actor's");
    }
}

#[tokio::test]
async fn an_actor_id_has_1_to_256_bytes() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for id in ["x".repeat(256), "ß".repeat(128), "🎉".repeat(64)] {
        let reply = socket.call(&actor("lab", &id), "zero", None).await;
        assert_eq!(reply.result(), 0);
    }
    for id in [String::new(), "x".repeat(257), "ß".repeat(129)] {
        let reply = socket.call(&actor("lab", &id), "zero", None).await;
        assert_eq!(reply.code(), "actor.invalid-id");
    }
}

#[tokio::test]
async fn the_calls_in_flight_of_a_connection_hold_only_so_many_bytes() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 3_600_000)
        .set("gateway.max-calls-bytes=100000")
        .start()
        .await;
    let mut socket = host.connect().await;
    let hostile = actor("hostile", "1");
    let input = json!("x".repeat(40_000));
    socket.begin_call(&hostile, "sleep", None).await;
    for _ in 0..2 {
        socket.begin_call(&hostile, "ping", input.clone()).await;
    }
    let refused = socket.call(&hostile, "ping", input.clone()).await;
    assert_eq!(refused.code(), "rpc.in-flight-limit");
    assert_eq!(refused.before, [Value::Null; 0]);
    // Another connection has an account of its own, and what is answered is free again.
    let mut other = host.connect().await;
    for count in 1..=5 {
        let reply = other
            .call(&actor("hostile", "2"), "ping", input.clone())
            .await;
        assert_eq!(reply.result(), count);
    }
}

#[tokio::test]
async fn an_input_with_a_member_twice_is_refused() {
    let host = Host::serving(["counter", "lab"]).await;
    let mut socket = host.connect().await;
    for input in [
        r#"{"by":1,"by":2}"#,
        r#"{"by":1,"by":1}"#,
        r#"{"by":1,"\u0062y":2}"#,
        r#"{"by":1,"x":[{"y":{"z":1,"z":2}}]}"#,
    ] {
        let frame = format!(
            r#"{{"type":"rpc","id":"1","actor":"counter","actorId":"a","method":"increment","input":{input}}}"#
        );
        socket.send_text(&frame).await;
        let result = socket.expect_type("rpc:result").await;
        assert_eq!(result["failure"]["code"], "input.invalid", "{input}");
    }
    let value = socket.call(&actor("counter", "a"), "value", None).await;
    assert_eq!(value.result(), 0);
    // The same name in different objects is no repetition.
    let echoed = json!({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]});
    let reply = socket
        .call(&actor("lab", "1"), "echo", echoed.clone())
        .await;
    assert_eq!(reply.result(), echoed);
}

#[tokio::test]
async fn results_are_checked_where_that_is_asked_for() {
    for (setting, mistyped) in [("true", None), ("false", Some(json!("text")))] {
        let host = Host::builder()
            .component("hostile")
            .set(&format!("actors.validate-results={setting}"))
            .start()
            .await;
        let mut socket = host.connect().await;
        let hostile = actor("hostile", "1");
        let reply = socket.call(&hostile, "mistypedResult", None).await;
        match mistyped {
            Some(result) => assert_eq!(reply.result(), result),
            None => assert_eq!(reply.code(), "output.invalid"),
        }
        // What is no JSON is never passed on.
        let reply = socket.call(&hostile, "malformedResult", None).await;
        assert_eq!(reply.code(), "output.invalid", "{setting}");
    }
}

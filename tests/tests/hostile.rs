//! Guests that misbehave: only their own turn suffers.

use serde_json::{Value, json};
use tidegate_tests::{Builder, Host, actor};

/// Limits that the misbehaviours soon run into.
fn narrow() -> Builder {
    Host::builder()
        .component("hostile")
        .limit("memory-bytes", 32 << 20)
        .limit("turn-deadline-ms", 1_000)
        .limit("host-calls", 1_000)
        .limit("effects-bytes", 4 << 20)
        .limit("state-bytes", 1 << 20)
}

/// What happens when the guest does that, as its caller sees it.
const MISDEEDS: [(&str, &str); 18] = [
    ("loop", "turn.deadline"),
    ("sleep", "turn.deadline"),
    ("allocate", "turn.memory-limit"),
    ("recurse", "turn.stack-limit"),
    ("trap", "handler.trapped"),
    ("panic", "handler.trapped"),
    ("floodImports", "turn.host-call-limit"),
    ("floodEvents", "turn.effects-limit"),
    ("insistOnEvents", "turn.effects-limit"),
    ("hugeState", "state.too-large"),
    ("malformedState", "state.malformed"),
    ("deepState", "state.malformed"),
    ("malformedPatch", "state.no-such-place"),
    ("malformedResult", "output.invalid"),
    ("mistypedResult", "output.invalid"),
    ("mistypedState", "state.invalid"),
    ("malformedCode", "handler.failed"),
    ("malformedParams", "hostile.params"),
];

#[tokio::test]
async fn a_misdeed_fails_its_own_turn_with_a_stable_code() {
    let host = narrow().start().await;
    let mut socket = host.connect().await;
    for (method, code) in MISDEEDS {
        let reply = socket.call(&actor("hostile", method), method, None).await;
        assert_eq!(reply.code(), code, "{method}: {reply:?}");
        assert_eq!(reply.frame.get("result"), None);
    }
}

#[tokio::test]
async fn the_actor_lives_on_with_its_last_committed_state() {
    let host = narrow().start().await;
    let hostile = actor("hostile", "1");
    let mut socket = host.connect().await;
    socket.subscribe_events(&hostile).await;
    socket.subscribe_state(&hostile).await;
    for (count, (method, _)) in (1..).zip(MISDEEDS) {
        let reply = socket.call(&hostile, method, None).await;
        assert_eq!(
            reply.before,
            [Value::Null; 0],
            "{method} left something behind"
        );
        let reply = socket.call(&hostile, "ping", None).await;
        assert_eq!(reply.result(), count, "after {method}");
        assert_eq!(
            reply.patches(),
            &json!([{"op": "replace", "path": "/pings", "value": count}]),
            "after {method}"
        );
    }
}

#[tokio::test]
async fn the_neighbours_calls_keep_flowing() {
    let host = narrow().component("counter").start().await;
    let counter = actor("counter", "a");
    let mut neighbour = host.connect().await;
    let mut count = 0;
    for (method, _) in MISDEEDS {
        let mut culprit = host.connect().await;
        let hostile = actor("hostile", "1");
        let misdeed = culprit.call(&hostile, method, None);
        tokio::pin!(misdeed);
        let mut done = false;
        while !done {
            count += 1;
            let call = neighbour.call(&counter, "increment", json!({"by": 1}));
            tokio::pin!(call);
            let reply = loop {
                tokio::select! {
                    reply = &mut call => break reply,
                    _ = &mut misdeed, if !done => done = true,
                }
            };
            assert_eq!(reply.result(), count, "beside {method}");
        }
    }
}

#[tokio::test]
async fn an_endless_turn_of_a_neighbour_delays_nobody() {
    let host = Host::builder()
        .component("hostile")
        .limit("turn-deadline-ms", 3_600_000)
        .component("counter")
        .start()
        .await;
    let mut socket = host.connect().await;
    for id in 0..8 {
        socket
            .begin_call(&actor("hostile", &id.to_string()), "loop", None)
            .await;
    }
    for count in 1..=100 {
        let reply = socket
            .call(&actor("counter", "a"), "increment", json!({"by": 1}))
            .await;
        assert_eq!(reply.result(), count);
    }
}

#[tokio::test]
async fn a_panic_is_told_to_the_log_only() {
    let host = narrow().start().await;
    let mut socket = host.connect().await;
    let reply = socket.call(&actor("hostile", "1"), "panic", None).await;
    assert!(
        !reply.frame.to_string().contains("secret"),
        "{}",
        reply.frame
    );
    let line = host.logged("the secret is 42").await;
    assert!(line.contains("hostile/1"), "{line}");
}

#[tokio::test]
async fn what_a_guest_prints_is_labelled_in_the_log() {
    let host = narrow().start().await;
    let mut socket = host.connect().await;
    socket
        .call(&actor("hostile", "printer"), "print", None)
        .await;
    for text in ["to standard output", "to standard error"] {
        let line = host.logged(text).await;
        assert!(line.contains("hostile/printer"), "{line}");
    }
}

#[tokio::test]
async fn a_guest_cannot_flood_the_log() {
    let host = narrow().limit("log-bytes", 10_000).start().await;
    let mut socket = host.connect().await;
    let hostile = actor("hostile", "1");
    let reply = socket.call(&hostile, "floodLog", None).await;
    assert_eq!(reply.frame.get("error"), None);
    // Everything that came before is in the log when this is.
    socket.call(&hostile, "print", None).await;
    host.logged("to standard error").await;
    let flood = host.log().matches("flood ").count();
    assert!((1..=10_000 / "flood ".len()).contains(&flood), "{flood}");
}

#[tokio::test]
async fn a_guest_sees_the_variables_that_it_was_granted_and_no_others() {
    let host = narrow()
        .variable("GREETING", "hello\n\"world\"")
        .start()
        .await;
    let mut socket = host.connect().await;
    let reply = socket
        .call(&actor("hostile", "1"), "environment", None)
        .await;
    assert_eq!(reply.result(), json!({"GREETING": "hello\n\"world\""}));
}

#[tokio::test]
async fn a_guest_has_no_files_and_no_sockets() {
    let host = narrow().start().await;
    let mut socket = host.connect().await;
    let hostile = actor("hostile", "1");
    assert_eq!(socket.call(&hostile, "files", None).await.result(), false);
    // Its own host would answer, if only it could be reached.
    let address = json!(host.address());
    let reply = socket.call(&hostile, "sockets", address).await;
    assert_eq!(reply.result(), false);
}

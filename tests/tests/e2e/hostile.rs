//! Guests that misbehave: only their own turn suffers.

use serde_json::{Value, json};
use tidegate_tests::{Builder, Folder, Host, Socket, actor, guest};

/// Limits that the misbehaviours soon run into.
fn narrow() -> Builder {
    Host::builder()
        .set("actors.validate-results=true")
        .component("hostile")
        .limit("memory-bytes", 32 << 20)
        .limit("turn-deadline-ms", 1_000)
        .limit("host-calls", 1_000)
        .limit("effects-bytes", 4 << 20)
        .limit("state-bytes", 1 << 20)
}

/// What happens when the guest does that, as its caller sees it.
const MISDEEDS: [(&str, &str); 21] = [
    ("loop", "turn.deadline"),
    ("sleep", "turn.deadline"),
    ("allocate", "turn.memory-limit"),
    ("recurse", "turn.stack-limit"),
    ("trap", "handler.trapped"),
    ("panic", "handler.trapped"),
    ("floodImports", "turn.host-call-limit"),
    ("floodEvents", "turn.effects-limit"),
    ("floodRecipients", "turn.effects-limit"),
    ("floodClock", "turn.deadline"),
    ("floodOutput", "turn.deadline"),
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

#[tokio::test]
async fn a_crash_after_a_refused_allocation_is_a_crash() {
    let host = narrow().start().await;
    let hostile = actor("hostile", "1");
    let mut socket = host.connect().await;
    let refused = socket.call(&hostile, "surviveRefusal", None).await;
    assert_eq!(refused.result(), true);
    for method in ["panic", "trap"] {
        let reply = socket.call(&hostile, method, None).await;
        assert_eq!(reply.code(), "handler.trapped", "{method}");
    }
}

#[tokio::test]
async fn the_instance_is_replaced_after_a_crash() {
    let host = narrow().start().await;
    let hostile = actor("hostile", "1");
    let mut socket = host.connect().await;
    for misdeed in ["trap", "panic", "loop", "allocate", "recurse"] {
        for turns in 1..=2 {
            let reply = socket.call(&hostile, "turnsOfInstance", None).await;
            assert_eq!(reply.result(), turns, "before {misdeed}");
        }
        socket.call(&hostile, misdeed, None).await.code();
    }
    // The crash of one actor takes nothing from another.
    let other = actor("hostile", "2");
    for turns in 1..=2 {
        let reply = socket.call(&other, "turnsOfInstance", None).await;
        assert_eq!(reply.result(), turns);
        socket.call(&hostile, "trap", None).await.code();
    }
}

/// An actor whose state has some 8,000 of 10,000 bytes.
async fn nearly_full() -> (Host, Socket) {
    let host = Host::builder()
        .component("hostile")
        .limit("state-bytes", 10_000)
        .start()
        .await;
    let mut socket = host.connect().await;
    let reply = socket
        .call(&actor("hostile", "1"), "append", json!(8_000))
        .await;
    assert_eq!(reply.frame.get("error"), None);
    (host, socket)
}

#[tokio::test]
async fn a_turn_that_shrinks_the_state_and_fails_makes_no_room() {
    let (host, mut socket) = nearly_full().await;
    let hostile = actor("hostile", "1");
    let reply = socket.call(&hostile, "shrinkAndFail", None).await;
    assert_eq!(reply.code(), "hostile.shrunk");
    let reply = socket.call(&hostile, "append", json!(4_000)).await;
    assert_eq!(reply.code(), "state.too-large");
    let state = host.get("/actors/hostile/1/state").send().await.json()["state"].to_string();
    assert!((8_000..=10_000).contains(&state.len()), "{}", state.len());
}

#[tokio::test]
async fn a_turn_that_grows_the_state_and_fails_takes_no_room() {
    let (_host, mut socket) = nearly_full().await;
    let hostile = actor("hostile", "1");
    for _ in 0..3 {
        let reply = socket.call(&hostile, "growAndFail", json!(1_500)).await;
        assert_eq!(reply.code(), "hostile.grown");
    }
    let reply = socket.call(&hostile, "growAndFail", json!(4_000)).await;
    assert_eq!(reply.code(), "state.too-large");
    let reply = socket.call(&hostile, "append", json!(1_500)).await;
    assert_eq!(reply.frame.get("error"), None);
}

/// A host that serves this handler, written in WebAssembly text.
async fn serving_text(module: &str, run: &str) -> Host {
    let folder = Folder::new();
    let file = folder.path().join("small.wasm");
    std::fs::write(&file, guest::component(module, run)).expect("writing a component");
    Host::builder().file("small", &file).start().await
}

#[tokio::test]
async fn tables_do_not_grow_for_ever() {
    let grow = |table: &str| {
        format!(
            "(loop $more (br_if $more (i32.ne (i32.const -1)
                (table.grow {table} (ref.null func) (i32.const 1000)))))"
        )
    };
    let tables = "(table $one 1 funcref) (table $two 1 funcref)";
    // What one has taken, the other cannot have.
    let half = "(drop (table.grow $one (ref.null func) (i32.const 60000)))
        (if (i32.ne (i32.const -1) (table.grow $two (ref.null func) (i32.const 60000)))
            (then (return (i32.const 64))))
        (unreachable)";
    for run in [format!("{} (unreachable)", grow("$one")), half.to_owned()] {
        let host = serving_text(tables, &run).await;
        let mut socket = host.connect().await;
        let small = actor("small", "1");
        for _ in 0..2 {
            let reply = socket.call(&small, "run", None).await;
            assert_eq!(reply.code(), "turn.memory-limit", "{run}");
        }
    }
    // A guest that takes the refusal for an answer has done nothing wrong.
    let host = serving_text(tables, &grow("$one")).await;
    let reply = host
        .connect()
        .await
        .call(&actor("small", "1"), "run", None)
        .await;
    assert_eq!(reply.frame.get("error"), None);
}

#[tokio::test]
async fn a_state_of_small_parts_is_charged_by_the_memory_that_it_takes() {
    let host = Host::builder()
        .component("puppet")
        .limit("state-memory-bytes", 8 << 20)
        .start()
        .await;
    let fill = |times: u64| json!([{"fill": {"with": r#"{"":0}"#, "times": times}}]);
    // 100 000 parts of 80 bytes in memory and 7 of text.
    let mut socket = host.connect().await;
    let puppet = actor("puppet", "a");
    socket.call(&puppet, "run", fill(100_000)).await.result();
    let reply = socket.call(&puppet, "run", fill(110_000)).await;
    assert_eq!(reply.code(), "state.too-large");
    assert_eq!(
        reply.frame["failure"]["params"],
        json!({"limit": 8 << 20, "setting": "state-memory-bytes"})
    );
    // It is as it was.
    let state = host.get("/actors/puppet/a/state").send().await.json();
    assert_eq!(state["state"].as_array().map(Vec::len), Some(100_000));
}

#[tokio::test]
async fn a_state_of_small_parts_takes_the_memory_that_it_is_charged() {
    let host = Host::builder()
        .component("puppet")
        .limit("turn-deadline-ms", 120_000)
        .start()
        .await;
    let mut socket = host.connect().await;
    let before = host.resident_bytes();
    let steps = json!([{"fill": {"with": r#"{"":0}"#, "times": 400_000}}]);
    socket
        .call(&actor("puppet", "a"), "run", steps)
        .await
        .result();
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 160 << 20, "a state of 32 MB took {grown} bytes");
}

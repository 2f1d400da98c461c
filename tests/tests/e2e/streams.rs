//! Methods that are seen while they run: streams of patches, parts of results, cancelling.

use serde_json::{Value, json};
use tidegate_tests::{Host, Socket, actor};

#[tokio::test]
async fn a_streaming_method_is_seen_while_it_runs() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut watcher = host.connect().await;
    watcher.subscribe_state(&puppet).await;
    let mut caller = host.connect().await;
    let steps = json!([
        {"set": {"status": "thinking"}},
        {"checkpoint": "due"},
        {"sleep": 1000},
        {"set": {"status": "done"}},
    ]);
    let call = caller.begin_call(&puppet, "stream", steps).await;
    let patch = watcher.expect_type("state:patch").await;
    assert_eq!(patch["patches"][0]["value"], "thinking");
    let patch = watcher.expect_type("state:patch").await;
    assert_eq!(patch["patches"][0]["value"], "done");
    caller.result_of(&call).await.result();
}

#[tokio::test]
async fn patches_come_once_per_interval_and_all_of_them_add_up() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut watcher = host.connect().await;
    watcher.subscribe_state(&puppet).await;
    let mut caller = host.connect().await;
    let steps = json!([{"count": {"to": 200, "each": 2}}]);
    let call = caller.begin_call(&puppet, "stream", steps).await;
    let mut patches: Vec<u64> = Vec::new();
    while patches.last() != Some(&200) {
        let patch = watcher.expect_type("state:patch").await;
        assert_eq!(patch["patches"].as_array().map(Vec::len), Some(1));
        patches.push(patch["patches"][0]["value"].as_u64().unwrap());
    }
    caller.result_of(&call).await.result();
    assert!(
        patches.len() < 150,
        "several steps share a patch: {patches:?}"
    );
    assert!(patches.len() > 2, "they come while it runs: {patches:?}");
    assert!(patches.is_sorted());
    // Who joins late ends with the same.
    let mut late = host.connect().await;
    let state = late.subscribe_state(&puppet).await;
    assert_eq!(state["state"]["n"], 200);
}

#[tokio::test]
async fn who_joins_in_the_middle_ends_with_the_same() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut caller = host.connect().await;
    let steps = json!([{"count": {"to": 100, "each": 3}}]);
    let call = caller.begin_call(&puppet, "stream", steps).await;
    let mut middle = host.connect().await;
    let state = middle.watch(&puppet, |state| state["n"] == 100).await;
    assert_eq!(state["n"], 100);
    caller.result_of(&call).await.result();
}

#[tokio::test]
async fn what_was_let_out_stays_when_the_rest_fails() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([
        {"set": {"n": 1}},
        {"emit": "kept"},
        {"checkpoint": "now"},
        {"set": {"n": 2}},
        {"emit": "lost"},
        {"fail": "puppet.late"},
    ]);
    socket.subscribe_state(&puppet).await;
    socket.subscribe_events(&puppet).await;
    let failed = socket.call(&puppet, "stream", steps).await;
    assert_eq!(failed.code(), "puppet.late");
    assert_eq!(failed.types_before(), ["state:patch", "event"]);
    let state = host.get("/actors/puppet/1/state").send().await.json();
    assert_eq!(state["state"]["n"], 1);
    let next = socket
        .call(&puppet, "run", json!([{"set": {"n": 3}}]))
        .await;
    assert_eq!(next.types_before(), ["state:patch"]);
}

#[tokio::test]
async fn what_is_not_declared_fit_is_not_seen() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    socket.subscribe_state(&puppet).await;
    let steps = json!([{"set": {"n": 1}}, {"sleep": 200}, {"set": {"n": 2}}]);
    let reply = socket.call(&puppet, "stream", steps).await;
    assert_eq!(reply.types_before(), ["state:patch"]);
    assert_eq!(reply.patches()[0]["value"], 2);
}

#[tokio::test]
async fn elsewhere_a_checkpoint_does_nothing() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    socket.subscribe_state(&puppet).await;
    let steps = json!([{"set": {"n": 1}}, {"checkpoint": "now"}, {"fail": "puppet.no"}]);
    let reply = socket.call(&puppet, "run", steps).await;
    assert_eq!(reply.code(), "puppet.no");
    assert!(reply.types_before().is_empty());
}

#[tokio::test]
async fn parts_of_a_result_come_before_it_and_to_the_caller_alone() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let (mut caller, mut other) = (host.connect().await, host.connect().await);
    other.subscribe_state(&puppet).await;
    let steps = json!([{"chunk": "a"}, {"chunk": {"b": 2}}, {"chunk": null}]);
    let reply = caller.call(&puppet, "run", steps).await;
    reply.result();
    let chunks: Vec<&Value> = reply.before.iter().map(|frame| &frame["chunk"]).collect();
    assert_eq!(chunks, [&json!("a"), &json!({"b": 2}), &json!(null)]);
    assert!(
        reply
            .before
            .iter()
            .all(|frame| frame["type"] == "rpc:stream")
    );
    assert!(
        reply
            .before
            .iter()
            .all(|frame| frame["id"] == reply.frame["id"])
    );
    let reply = other.call(&puppet, "run", json!([])).await;
    assert!(reply.types_before().is_empty(), "{reply:?}");
}

#[tokio::test]
async fn parts_are_not_held_back_and_not_undone() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([{"chunk": 1}, {"sleep": 300}, {"fail": "puppet.no"}]);
    let call = socket.begin_call(&puppet, "run", steps).await;
    assert_eq!(socket.expect_type("rpc:stream").await["chunk"], 1);
    assert_eq!(socket.result_of(&call).await.code(), "puppet.no");
}

#[tokio::test]
async fn over_http_parts_are_events() {
    let host = Host::serving(["puppet"]).await;
    let request = host
        .post("/actors/puppet/1/run")
        .header("accept", "text/event-stream")
        .json(&json!([{"chunk": 1}, {"chunk": 2}]));
    let mut stream = request.stream().await;
    assert_eq!(stream.expect("chunk").await.data, 1);
    assert_eq!(stream.expect("chunk").await.data, 2);
    assert_eq!(stream.expect("result").await.data, json!([null, null]));
    stream.ends().await;
    let request = host
        .post("/actors/puppet/1/run")
        .header("accept", "text/event-stream")
        .json(&json!([{"chunk": 1}, {"fail": "puppet.no"}]));
    let mut stream = request.stream().await;
    stream.expect("chunk").await;
    assert_eq!(
        stream.expect("error").await.data["error"]["code"],
        "puppet.no"
    );
}

async fn cancel(socket: &mut Socket, id: &str) {
    socket.send(json!({"type": "rpc:cancel", "id": id})).await;
}

#[tokio::test]
async fn a_running_call_is_asked_to_stop() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    socket.subscribe_state(&puppet).await;
    let steps = json!([{"count": {"to": 1_000_000, "each": 2}}]);
    let call = socket.begin_call(&puppet, "stream", steps).await;
    socket.expect_type("state:patch").await;
    cancel(&mut socket, &call).await;
    cancel(&mut socket, &call).await;
    let stopped = socket.result_of(&call).await.result();
    assert!(stopped[0]["cancelled at"].is_u64(), "{stopped}");
}

#[tokio::test]
async fn a_call_that_does_not_listen_is_interrupted() {
    let host = Host::builder()
        .component("puppet")
        .set("actors.cancel-grace-ms=50")
        .start()
        .await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    for deaf in [json!({"sleep": 100_000}), json!({"spin": 4_000})] {
        let steps = json!([{"set": {"n": 7}}, {"chunk": 1}, deaf]);
        let call = socket.begin_call(&puppet, "stream", steps).await;
        socket.expect_type("rpc:stream").await;
        cancel(&mut socket, &call).await;
        assert_eq!(socket.result_of(&call).await.code(), "call.cancelled");
    }
    let state = host.get("/actors/puppet/1/state").send().await.json();
    assert_eq!(state["state"]["n"], 0, "nothing of it stays");
    let next = socket.call(&puppet, "note", json!(null)).await;
    assert_eq!(next.result(), "noted");
}

#[tokio::test]
async fn a_queued_call_is_taken_back() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let slow = socket
        .begin_call(&puppet, "run", json!([{"chunk": 1}, {"sleep": 1000}]))
        .await;
    socket.expect_type("rpc:stream").await;
    let queued = socket.begin_call(&puppet, "note", json!(null)).await;
    cancel(&mut socket, &queued).await;
    // Answered at once, not behind the slow one.
    assert_eq!(socket.result_of(&queued).await.code(), "call.cancelled");
    socket.result_of(&slow).await.result();
    cancel(&mut socket, "never there").await;
    let state = host.get("/actors/puppet/1/state").send().await.json();
    assert_eq!(state["state"]["log"], json!([]));
}

#[tokio::test]
async fn a_method_has_the_time_that_its_manifest_says() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let late = socket
        .call(&puppet, "hasty", json!([{"sleep": 10_000}]))
        .await;
    assert_eq!(late.code(), "turn.deadline");
    assert_eq!(late.frame["failure"]["params"], json!({"limitMs": 300}));
}

#[tokio::test]
async fn a_stream_may_call_the_host_for_as_long_as_it_ticks() {
    let host = Host::builder()
        .component("lab")
        .limit("host-calls", 100)
        .start()
        .await;
    let ticker = actor("ticker", "1");
    let mut socket = host.connect().await;
    let write = json!({"token": "x", "times": 200, "stepMs": 2});
    assert_eq!(socket.call(&ticker, "write", write).await.result(), 200);
    // Without a wait in between there is no tick.
    let write = json!({"token": "x", "times": 200, "stepMs": 0});
    let flood = socket.call(&ticker, "write", write).await;
    assert_eq!(flood.code(), "turn.host-call-limit");
}

#[tokio::test]
async fn appended_text_is_sent_as_text_to_those_who_understand() {
    const TOKENS: usize = 200;
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "1");
    let mut caller = host.connect().await;
    // A short text is as cheap to replace.
    let begin = "-".repeat(100);
    let set = json!([{"set": {"text": begin}}]);
    caller.call(&puppet, "run", set).await.result();
    let mut plain = host.connect().await;
    let mut extended = Socket::connect(&host, "/ws?patch=str_ins").await;
    plain.subscribe_state(&puppet).await;
    extended.subscribe_state(&puppet).await;
    for _ in 0..TOKENS {
        let append = json!([{"append": "tök\u{1f30a} "}]);
        caller.call(&puppet, "run", append).await.result();
    }
    let (mut plain_bytes, mut extended_bytes) = (0, 0);
    let mut text: Vec<u16> = begin.encode_utf16().collect();
    let mut whole = String::new();
    for _ in 0..TOKENS {
        let patch = plain.expect_type("state:patch").await;
        plain_bytes += patch.to_string().len();
        assert_eq!(patch["patches"][0]["op"], "replace");
        whole = patch["patches"][0]["value"].as_str().unwrap().to_owned();
        let patch = extended.expect_type("state:patch").await;
        extended_bytes += patch.to_string().len();
        let op = &patch["patches"][0];
        assert_eq!(op["op"], "str_ins", "{patch}");
        assert_eq!(op["pos"].as_u64(), Some(text.len() as u64));
        text.extend(op["str"].as_str().unwrap().encode_utf16());
    }
    assert_eq!(String::from_utf16(&text).unwrap(), whole);
    assert!(
        extended_bytes * 3 < plain_bytes,
        "{extended_bytes} bytes against {plain_bytes}"
    );
}

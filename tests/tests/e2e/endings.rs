//! Turns that do not end by themselves: they end with their actor, their component and their host,
//! whatever deadline a manifest gives them.

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Actor, Builder, Host, Socket, actor};

/// The methods by which the handler does not end, computing or waiting, each with a deadline of a
/// day.
const ENDLESS: [&str; 2] = ["loop", "sleep"];
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A host that allows these deadlines, and gives turns that are to end little time.
fn allowing(max_deadline_ms: u64) -> Builder {
    let day = json!({"deadlineMs": DAY_MS});
    let manifest = json!({
        "tidegate": "0.1",
        "actors": {"hostile": {
            "state": {"initial": {"pings": 0}},
            "methods": {"ping": {}, "loop": day, "sleep": day},
            "events": {"noise": true},
        }},
    });
    Host::builder()
        .component("hostile")
        .variable("DESCRIBE", &manifest.to_string())
        .limit("max-deadline-ms", max_deadline_ms)
        .set("actors.end-grace-ms=50")
        .set("actors.cancel-grace-ms=50")
        .set("gateway.shutdown-grace-ms=50")
}

/// Begins a turn that does not end, and a call behind it. The ids of both calls.
async fn begin(socket: &mut Socket, hostile: &Actor, method: &str) -> [String; 2] {
    let endless = socket.begin_call(hostile, method, None).await;
    let queued = socket.begin_call(hostile, "ping", None).await;
    // Frames are taken in order, so once this is answered both are with their actor.
    socket.call(&actor("hostile", "other"), "ping", None).await;
    [endless, queued]
}

#[tokio::test]
async fn an_actor_is_destroyed_whatever_it_runs() {
    let host = allowing(DAY_MS).start().await;
    let mut socket = host.connect().await;
    for method in ENDLESS {
        let hostile = actor("hostile", method);
        socket.call(&hostile, "ping", None).await;
        let calls = begin(&mut socket, &hostile, method).await;
        let path = format!("/actors/hostile/{method}");
        let destroyed = host.admin(Method::DELETE, &path).send().await;
        assert!(destroyed.status.is_success(), "{method}: {destroyed:?}");
        for call in calls {
            let reply = socket.result_of(&call).await;
            assert_eq!(reply.code(), "actor.destroyed", "{method}");
        }
        // It begins anew.
        let reply = socket.call(&hostile, "ping", None).await;
        assert_eq!(reply.result(), 1, "{method}");
    }
}

#[tokio::test]
async fn a_turn_that_ends_in_time_is_not_cut_off_by_its_actors_end() {
    let host = Host::builder()
        .component("puppet")
        .set("actors.end-grace-ms=60000")
        .start()
        .await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([{"checkpoint": "now"}, {"chunk": "begun"}, {"sleep": 300}]);
    let call = socket.begin_call(&puppet, "stream", steps).await;
    socket.expect_type("rpc:stream").await;
    let path = "/actors/puppet/1";
    let destroyed = host.admin(Method::DELETE, path).send().await;
    assert!(destroyed.status.is_success(), "{destroyed:?}");
    let reply = socket.result_of(&call).await;
    assert_eq!(reply.frame.get("error"), None, "{reply:?}");
}

#[tokio::test]
async fn a_turn_that_is_to_end_is_told_before_it_is_interrupted() {
    let host = Host::builder()
        .component("puppet")
        .set("actors.end-grace-ms=50")
        .set("actors.cancel-grace-ms=60000")
        .start()
        .await;
    let puppet = actor("puppet", "1");
    let mut socket = host.connect().await;
    let steps = json!([{"count": {"to": 1_000_000, "each": 5}}]);
    let call = socket.begin_call(&puppet, "stream", steps).await;
    socket
        .watch(&puppet, |state| state["n"].as_u64() > Some(0))
        .await;
    let path = "/actors/puppet/1";
    let destroyed = host.admin(Method::DELETE, path).send().await;
    assert!(destroyed.status.is_success(), "{destroyed:?}");
    // It stopped counting by itself.
    let reply = socket.result_of(&call).await;
    let is_told = reply.result()[0].get("cancelled at").is_some();
    assert!(is_told, "{reply:?}");
}

#[tokio::test]
async fn a_component_is_removed_by_force_whatever_it_runs() {
    for method in ENDLESS {
        let host = allowing(DAY_MS).start().await;
        let mut socket = host.connect().await;
        let hostile = actor("hostile", "1");
        let calls = begin(&mut socket, &hostile, method).await;
        let path = "/components/hostile?force=true";
        let removed = host.admin(Method::DELETE, path).send().await;
        assert!(removed.status.is_success(), "{method}: {removed:?}");
        for call in calls {
            let reply = socket.result_of(&call).await;
            assert_eq!(reply.code(), "actor.unknown", "{method}");
        }
        let path = "/actors/hostile/1";
        loop {
            let about = host.admin(Method::GET, path).send().await;
            if about.status == 404 || about.json()["inMemory"] == false {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_host_stops_whatever_it_runs() {
    let mut host = allowing(DAY_MS).start().await;
    let mut callers = Vec::new();
    for method in ENDLESS {
        let mut socket = host.connect().await;
        let calls = begin(&mut socket, &actor("hostile", method), method).await;
        callers.push((socket, calls));
    }
    host.terminate().await;
    for (mut socket, calls) in callers {
        for call in calls {
            let reply = socket.result_of(&call).await;
            assert_eq!(reply.code(), "host.shutting-down");
        }
        assert_eq!(socket.closed().await.code, 1001);
    }
    assert!(host.ended().await.success());
    assert!(!host.log().contains("finish the turns"), "{}", host.log());
}

#[tokio::test]
async fn a_manifest_gets_no_longer_deadline_than_the_operator_allows() {
    let host = allowing(100).start().await;
    let mut socket = host.connect().await;
    for method in ENDLESS {
        let reply = socket.call(&actor("hostile", method), method, None).await;
        assert_eq!(reply.code(), "turn.deadline");
        assert_eq!(reply.frame["failure"]["params"], json!({"limitMs": 100}));
    }
    let line = host.logged("max-deadline-ms").await;
    for part in ["hostile", "loop", "86400000", "100"] {
        assert!(line.contains(part), "{line}");
    }
    let ping = socket.call(&actor("hostile", "1"), "ping", None).await;
    assert_eq!(ping.result(), Value::from(1));
}

/// It computes when its time is over, and then asks for a last tick.
#[tokio::test]
async fn a_stream_that_is_cut_off_lets_out_nothing_behind_its_end() {
    let host = Host::builder()
        .component("puppet")
        .limit("streaming-deadline-ms", 30);
    let host = host.start().await;
    let mut socket = host.connect().await;
    let puppet = actor("puppet", "1");
    socket.subscribe_events(&puppet).await;
    let told = json!([{"spin": 2}, {"emit": "tick"}, {"checkpoint": "now"}]);
    let stream = json!([{"repeat": {"times": 1_000_000, "steps": told}}]);
    for _ in 0..30 {
        let cut_off = socket.call(&puppet, "stream", stream.clone()).await;
        assert_eq!(cut_off.code(), "turn.deadline");
        // What it let out came before that.
        let next = socket.call(&puppet, "run", json!([{"sleep": 10}])).await;
        next.result();
        assert_eq!(next.before, Vec::<Value>::new());
    }
}

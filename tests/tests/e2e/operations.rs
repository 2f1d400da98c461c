//! What operators see: metrics, actors, the log, whether the host is well.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Folder, Host, PATIENCE, actor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The series of the metrics page.
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    async fn of(host: &Host) -> Metrics {
        let page = host.admin(Method::GET, "/metrics").send().await;
        assert_eq!(page.status, 200);
        let kind = page.headers["content-type"].to_str().unwrap();
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        let series = text.lines().filter(|line| !line.starts_with('#'));
        let series = series.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        Metrics(series.collect())
    }

    /// The page once this series has this value. What a client has seen is counted a moment
    /// later.
    async fn once(host: &Host, series: &str, value: f64) -> Metrics {
        let seen = async {
            loop {
                let metrics = Metrics::of(host).await;
                if metrics.0.get(series) == Some(&value) {
                    return metrics;
                }
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(PATIENCE, seen).await {
            Ok(metrics) => metrics,
            Err(_) => panic!("{series} is {:?}", Metrics::of(host).await.0.get(series)),
        }
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let value = self.0.get(series);
        *value.unwrap_or_else(|| panic!("no {series} in {:#?}", self.0))
    }

    /// The sum of all series of a metric that have this label.
    fn sum(&self, metric: &str, label: &str) -> f64 {
        let series = self.0.iter();
        let found = series
            .filter(|(name, _)| name.split('{').next() == Some(metric) && name.contains(label));
        found.map(|(_, value)| value).sum()
    }
}

#[tokio::test]
async fn the_numbers_add_up() {
    let host = Host::serving(["lab", "counter"]).await;
    let counter = actor("counter", "a");
    let (mut one, mut two) = (host.connect().await, host.connect().await);
    for socket in [&mut one, &mut two] {
        socket.subscribe_state(&counter).await;
        socket.subscribe_events(&counter).await;
        // Behind this answer the subscriptions count.
        socket.call(&counter, "value", json!(null)).await.result();
    }
    // 10 steps of 11 pass 100 once: 10 patches, 1 event, each for two.
    for _ in 0..10 {
        let step = one.call(&counter, "increment", json!({"by": 11})).await;
        step.result();
    }
    for _ in 0..3 {
        one.call(&counter, "increment", json!({"by": i64::MAX}))
            .await
            .code();
    }
    for _ in 0..2 {
        one.call(&counter, "increment", json!({})).await.code();
    }
    let unknown = host.post("/actors/counter/a/nope").send().await;
    unknown.failed(404, "method.unknown");
    one.send_text("rubbish").await;
    one.expect_type("error").await;
    two.watch(&counter, |state| state["count"] == 110).await;
    // 2 welcomes, 3 snapshots, 17 results, 20 patches, 2 events, 1 error.
    let metrics = Metrics::once(&host, "tidegate_frames_sent_total", 45.0).await;
    let counts = [
        (
            r#"tidegate_turns_total{actor="counter",entry="call"}"#,
            12.0,
        ),
        (
            r#"tidegate_turn_failures_total{actor="counter",entry="call",code="counter.overflow"}"#,
            3.0,
        ),
        (
            r#"tidegate_turn_failures_total{actor="counter",entry="call",code="input.invalid"}"#,
            2.0,
        ),
        (
            r#"tidegate_turn_failures_total{actor="counter",entry="call",code="method.unknown"}"#,
            1.0,
        ),
        (r#"tidegate_turn_seconds_count{actor="counter"}"#, 18.0),
        (
            r#"tidegate_queue_wait_seconds_count{actor="counter"}"#,
            18.0,
        ),
        (r#"tidegate_queued_items{actor="counter"}"#, 0.0),
        (r#"tidegate_actors_in_memory{actor="counter"}"#, 1.0),
        (r#"tidegate_actors_in_memory{actor="lab"}"#, 0.0),
        (
            r#"tidegate_messages_published_total{actor="counter",form="patch"}"#,
            10.0,
        ),
        (
            r#"tidegate_messages_delivered_total{actor="counter",form="patch"}"#,
            20.0,
        ),
        (
            r#"tidegate_messages_published_total{actor="counter",form="event"}"#,
            1.0,
        ),
        (
            r#"tidegate_messages_delivered_total{actor="counter",form="event"}"#,
            2.0,
        ),
        (r#"tidegate_refusals_total{code="frame.malformed"}"#, 1.0),
        (r#"tidegate_connections{kind="websocket"}"#, 2.0),
        (
            r#"tidegate_connections_opened_total{kind="websocket"}"#,
            2.0,
        ),
        ("tidegate_components", 2.0),
        ("tidegate_instances", 1.0),
        // 3 + 3 to begin with, 15 calls, the rubbish, and the watcher's subscription.
        ("tidegate_frames_received_total", 23.0),
    ];
    for (series, expected) in counts {
        assert_eq!(metrics.value(series), expected, "{series}");
    }
    assert!(metrics.value("tidegate_sent_bytes_total") > 1000.0);
    assert!(metrics.value("tidegate_received_bytes_total") > 500.0);
    let buckets = metrics.sum("tidegate_turn_seconds_bucket", r#"actor="counter""#);
    assert!(buckets >= 18.0);
    one.close().await;
    let open = r#"tidegate_connections{kind="websocket"}"#;
    let metrics = Metrics::once(&host, open, 1.0).await;
    // The close frame is one as well.
    assert_eq!(metrics.value("tidegate_frames_sent_total"), 46.0);
}

#[tokio::test]
async fn the_numbers_of_the_store_add_up() {
    let folder = Folder::new();
    let on = || Host::builder().component("counter").data(folder.path());
    let host = on().start().await;
    let empty = Metrics::of(&host).await;
    assert_eq!(empty.value("tidegate_store_up"), 1.0);
    assert_eq!(empty.value("tidegate_store_appends_total"), 0.0);
    let mut socket = host.connect().await;
    // One after the other, so that each is a write and a sync of its own.
    for id in ["a", "b"] {
        for _ in 0..10 {
            let counter = actor("counter", id);
            let step = socket.call(&counter, "increment", json!({"by": 1})).await;
            step.result();
        }
    }
    // This changes nothing, so it writes nothing.
    let counter = actor("counter", "a");
    socket.call(&counter, "value", json!(null)).await.result();
    let metrics = Metrics::of(&host).await;
    for (series, expected) in [
        ("tidegate_store_up", 1.0),
        ("tidegate_store_appends_total", 20.0),
        ("tidegate_store_writes_total", 20.0),
        (r#"tidegate_store_keys{kind="disk"}"#, 2.0),
        (r#"tidegate_store_keys{kind="memory"}"#, 0.0),
        ("tidegate_store_waiting_commits", 0.0),
        ("tidegate_store_waiting_bytes", 0.0),
        ("tidegate_store_segments", 1.0),
        ("tidegate_store_compactions_total", 0.0),
        ("tidegate_store_damaged_segments", 0.0),
    ] {
        assert_eq!(metrics.value(series), expected, "{series}");
    }
    let syncs = metrics.value("tidegate_store_sync_seconds_count");
    assert!(syncs >= 20.0, "{syncs}");
    let most = r#"tidegate_store_sync_seconds_bucket{le="+Inf"}"#;
    assert_eq!(metrics.value(most), syncs);
    assert!(metrics.value("tidegate_store_sync_seconds_sum") > 0.0);
    let appended = metrics.value("tidegate_store_appended_bytes_total");
    let bytes = metrics.sum("tidegate_store_disk_bytes", "state=");
    assert!(metrics.value(r#"tidegate_store_disk_bytes{state="live"}"#) > 0.0);
    // What was there before the first commit: the header of the file, and a mark.
    let before = empty.sum("tidegate_store_disk_bytes", "state=");
    let appended_before = empty.value("tidegate_store_appended_bytes_total");
    assert_eq!(bytes - before, appended - appended_before);
    host.kill().await;

    let host = on().start().await;
    let again = Metrics::of(&host).await;
    assert_eq!(again.value(r#"tidegate_store_keys{kind="disk"}"#), 2.0);
    assert_eq!(again.value("tidegate_store_appends_total"), 0.0);
    let read = again.value("tidegate_store_recovery_bytes");
    assert!(read >= appended - appended_before, "{read}");
    assert!(again.value("tidegate_store_recovery_seconds") > 0.0);
}

#[tokio::test]
async fn a_store_in_memory_says_what_it_holds() {
    let host = Host::builder()
        .component("counter")
        .argument("--memory")
        .set("actors.idle-timeout-ms=20")
        .start()
        .await;
    let increment = host.post("/actors/counter/a/increment");
    increment.json(&json!({"by": 1})).send().await;
    let keys = r#"tidegate_store_keys{kind="memory"}"#;
    let metrics = Metrics::once(&host, keys, 1.0).await;
    assert_eq!(metrics.value("tidegate_store_up"), 1.0);
    assert_eq!(metrics.sum("tidegate_store_segments", ""), 0.0);
}

#[tokio::test]
async fn what_crashes_and_what_is_evicted_is_counted() {
    let host = Host::builder()
        .component("hostile")
        .component("counter")
        .set("actors.resident-instances=1")
        .start()
        .await;
    let mut socket = host.connect().await;
    for id in ["a", "b", "c"] {
        let counter = actor("counter", id);
        socket
            .call(&counter, "increment", json!({"by": 1}))
            .await
            .result();
    }
    let hostile = actor("hostile", "1");
    let crash = socket.call(&hostile, "trap", json!(null)).await;
    assert_eq!(crash.code(), "handler.trapped");
    let metrics = Metrics::of(&host).await;
    assert_eq!(metrics.value("tidegate_instances_evicted_total"), 2.0);
    let crashes = r#"tidegate_crashes_total{actor="hostile"}"#;
    assert_eq!(metrics.value(crashes), 1.0);
}

#[tokio::test]
async fn actors_are_listed_page_by_page() {
    let host = Host::builder()
        .component("counter")
        .component("lab")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    let mut socket = host.connect().await;
    let mut expected = Vec::new();
    for number in 0..25 {
        let counter = actor("counter", &format!("{number:02}/ä"));
        let step = json!({"by": 1});
        socket.call(&counter, "increment", step).await.result();
        expected.push(counter.id);
    }
    let watched = actor("lab", "w");
    socket.subscribe_state(&watched).await;
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/actors?actor=counter&limit=10{after}");
        let page = host.admin(Method::GET, &path).send().await.json();
        for listed in page["actors"].as_array().unwrap() {
            seen.push(listed["id"].as_str().unwrap().to_owned());
        }
        match page["next"].as_str() {
            Some(next) => {
                let escaped: String = next.bytes().map(|byte| format!("%{byte:02x}")).collect();
                after = format!("&after={escaped}");
            }
            None => break,
        }
    }
    assert_eq!(seen, expected, "each once, in order, in memory or stored");
    let prefixed = host
        .admin(Method::GET, "/actors?prefix=1&actor=counter")
        .send()
        .await;
    assert_eq!(prefixed.json()["actors"].as_array().map(Vec::len), Some(10));
    let all = host.admin(Method::GET, "/actors?limit=1000").send().await;
    assert_eq!(all.json()["actors"].as_array().map(Vec::len), Some(26));
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "after=nothing",
        "color=red",
    ] {
        let path = format!("/actors?{query}");
        let refused = host.admin(Method::GET, &path).send().await;
        refused.failed(400, "request.malformed");
    }
}

#[tokio::test]
async fn an_actor_is_looked_at_without_being_disturbed() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    socket.call(&lab, "count", json!(null)).await.result();
    socket.subscribe_state(&lab).await;
    socket.begin_call(&lab, "slow", json!({"ms": 10_000})).await;
    for _ in 0..3 {
        socket.begin_call(&lab, "count", json!(null)).await;
    }
    let about = async || {
        let about = host.admin(Method::GET, "/actors/lab/1").send().await;
        assert_eq!(about.status, 200);
        about.json()
    };
    let busy = loop {
        let about = about().await;
        if about["queueDepth"] == 3 {
            break about;
        }
    };
    assert_eq!(busy["inMemory"], true);
    assert_eq!(busy["stateSubscribers"], 1);
    assert_eq!(busy["connections"], json!([socket.id()]));
    assert!(busy["state"].is_object());
    let never = host.admin(Method::GET, "/actors/lab/never").send().await;
    never.failed(404, "actor.not-found");
    let unknown = host.admin(Method::GET, "/actors/nope/1").send().await;
    unknown.failed(404, "actor.not-found");
}

#[tokio::test]
async fn a_destroyed_actor_begins_again() {
    let host = Host::serving(["counter", "chat"]).await;
    let counter = actor("counter", "a");
    let mut socket = host.connect().await;
    let before = socket.subscribe_state(&counter).await;
    socket
        .call(&counter, "increment", json!({"by": 7}))
        .await
        .result();
    let destroyed = host.admin(Method::DELETE, "/actors/counter/a").send().await;
    assert_eq!(destroyed.status, 204);
    let after = socket.expect_type("state:snapshot").await;
    assert_eq!(after["state"], json!({"count": 0}));
    assert_ne!(after["epoch"], before["epoch"], "another history");
    let reply = socket.call(&counter, "increment", json!({"by": 1})).await;
    assert_eq!(reply.result(), 1);
    assert_eq!(reply.types_before(), ["state:patch"]);
    // Who is connected is announced to the new life.
    let room = actor("chat", "lobby");
    let join = json!({"name": "Ann"});
    socket.call(&room, "join", join).await.result();
    host.admin(Method::DELETE, "/actors/chat/lobby")
        .send()
        .await;
    let state = host.get("/actors/chat/lobby/state").send().await.json();
    let online = state["state"]["online"].as_object().unwrap();
    assert_eq!(online.keys().collect::<Vec<_>>(), [socket.id()]);
    let never = host.admin(Method::DELETE, "/actors/counter/z").send().await;
    never.failed(404, "actor.not-found");
}

#[tokio::test]
async fn an_actor_that_is_only_stored_is_destroyed_as_well() {
    let host = Host::builder()
        .component("counter")
        .set("actors.idle-timeout-ms=30")
        .start()
        .await;
    let step = host
        .post("/actors/counter/a/increment")
        .json(&json!({"by": 7}));
    step.send().await;
    let path = "/actors/counter/a";
    while host.admin(Method::GET, path).send().await.json()["inMemory"] == true {}
    let destroyed = host.admin(Method::DELETE, path).send().await;
    assert_eq!(destroyed.status, 204);
    let gone = host.admin(Method::GET, path).send().await;
    gone.failed(404, "actor.not-found");
}

#[tokio::test]
async fn a_request_is_followed_through_the_log() {
    let host = Host::builder()
        .component("hostile")
        .argument("--log=json")
        .start()
        .await;
    let request = host
        .post("/actors/hostile/1/trap")
        .header("x-request-id", "from-the-proxy");
    let answer = request.send().await;
    assert_eq!(answer.headers["x-request-id"], "from-the-proxy");
    let line = host.logged("a handler crashed").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["fields"]["request"], "from-the-proxy");
    assert!(line["fields"]["turn"].is_string(), "{line}");
    // What cannot be an id gets another.
    for id in ["", "white space", "\u{e4}", &"x".repeat(200)] {
        let request = host.get("/health").header("x-request-id", id);
        let answer = request.send().await;
        let given = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(given.len(), 16, "{given}");
    }
}

#[tokio::test]
async fn a_frame_is_followed_into_the_handlers_output() {
    let host = Host::builder().component("hostile").start().await;
    let mut socket = host.connect().await;
    socket
        .send(json!({
            "type": "rpc", "id": "say", "actor": "hostile", "actorId": "1", "method": "panic",
        }))
        .await;
    let line = host.logged("the secret is 42").await;
    let request = format!("request={}/say", socket.id());
    assert!(line.contains(&request), "{line}");
}

#[tokio::test]
async fn a_host_that_stops_is_not_ready() {
    let host = Host::serving(["lab"]).await;
    let ready = host.get("/ready").send().await;
    assert_eq!(
        (ready.status.as_u16(), ready.json()),
        (200, json!({"ready": true}))
    );
    // A connection that is kept, as load balancers do, and work that keeps the host.
    let mut balancer = TcpStream::connect(host.address()).await.unwrap();
    let mut answer = vec![0; 1024];
    let mut ask = async || {
        let question = b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n";
        balancer.write_all(question).await.unwrap();
        let read = balancer.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    };
    assert!(ask().await.starts_with("HTTP/1.1 200 "));
    let mut socket = host.connect().await;
    socket
        .begin_call(&actor("lab", "1"), "slow", json!({"ms": 4_000}))
        .await;
    socket.call(&actor("lab", "2"), "zero", None).await;
    host.terminate().await;
    let unready = async {
        loop {
            let answer = ask().await;
            if answer.starts_with("HTTP/1.1 503 ") {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, unready).await;
    assert!(answer.expect("an answer").contains("host.shutting-down"));
}

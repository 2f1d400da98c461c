//! Components that come and go while the host serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::cli::tidegate;
use tidegate_tests::{ADMIN_KEY, Host, PATIENCE, Response, actor, guest, handlers_folder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn handler(name: &str) -> Vec<u8> {
    let file = handlers_folder().join(name).with_extension("wasm");
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

async fn put(host: &Host, name: &str, bytes: impl Into<bytes::Bytes>) -> Response {
    let request = host.admin(Method::PUT, &format!("/components/{name}"));
    request.body(bytes).send().await
}

async fn components(host: &Host) -> Value {
    let listed = host.admin(Method::GET, "/components").send().await;
    assert_eq!(listed.status, 200);
    listed.json()["components"].clone()
}

#[tokio::test]
async fn a_new_version_takes_over_while_a_hundred_clients_call() {
    const CLIENTS: usize = 100;
    let host = Arc::new(Host::serving(["counter"]).await);
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicU64::new(0));
    let mut watcher = host.connect().await;
    let shared = actor("counter", "shared");
    watcher.subscribe_state(&shared).await;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (host, stop, made) = (host.clone(), stop.clone(), made.clone());
            tokio::spawn(async move {
                let mut socket = host.connect().await;
                let own = actor("counter", &format!("own-{number}"));
                let shared = actor("counter", "shared");
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    calls += 1;
                    let reply = socket.call(&own, "increment", json!({"by": 1})).await;
                    assert_eq!(reply.result(), calls, "no call is lost or made twice");
                    let reply = socket.call(&shared, "increment", json!({"by": 1})).await;
                    reply.result();
                    made.fetch_add(1, Ordering::Relaxed);
                }
                calls
            })
        })
        .collect();
    let enough = |count: u64| {
        let made = made.clone();
        let until = made.load(Ordering::Relaxed) + count;
        async move {
            while made.load(Ordering::Relaxed) < until {
                tokio::task::yield_now().await;
            }
        }
    };
    enough(500).await;
    for version in ["counter2", "counter", "counter2"] {
        let deployed = put(&host, "counter", handler(version)).await;
        assert_eq!(deployed.status, 200, "{deployed:?}");
        assert_eq!(deployed.json()["changed"], true);
        enough(300).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sum = 0;
    for client in clients {
        sum += client.await.expect("no call failed");
    }
    let mut socket = host.connect().await;
    let count = socket.call(&shared, "value", json!(null)).await.result();
    assert_eq!(count, sum, "no count is lost");
    let version = socket.call(&shared, "version", json!(null)).await;
    assert_eq!(version.result(), 2, "the new code serves");
    // Clients notice nothing: the watcher has seen every step, in one connection.
    let seen = watcher.watch(&shared, |state| state["count"] == count);
    seen.await;
}

#[tokio::test]
async fn a_running_turn_finishes_on_the_old_code() {
    let host = Host::serving(["lab"]).await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    socket.call(&lab, "count", json!(null)).await.result();
    let mut changed = handler("lab");
    // An empty custom section: another file, the same code.
    changed.extend(b"\0\x05\x04test");
    let slow = socket.begin_call(&lab, "slow", json!({"ms": 1000})).await;
    let deployed = put(&host, "lab", changed).await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
    assert_eq!(socket.result_of(&slow).await.result(), 2);
    assert_eq!(socket.call(&lab, "count", json!(null)).await.result(), 3);
}

#[tokio::test]
async fn what_the_new_version_hides_is_seen_no_more() {
    let host = Host::serving(["counter2"]).await;
    // Loaded under its file's name; a version of it without the hidden member.
    let counter = actor("counter", "a");
    let mut socket = host.connect().await;
    let shown = socket.subscribe_state(&counter).await;
    assert_eq!(shown["state"].get("asked"), None);
    let plain = guest::component_saying(
        r#"{"tidegate": "0.1", "actors": {"counter": {"methods": {"run": {}}}}}"#,
        "",
        "",
    );
    let deployed = put(&host, "counter2", plain).await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
    let again = socket.expect_type("state:snapshot").await;
    assert_eq!(again["state"]["asked"], 0, "it is hidden no more");
    let deployed = put(&host, "counter2", handler("counter2")).await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
    let again = socket.expect_type("state:snapshot").await;
    assert_eq!(again["state"], json!({"count": 0}));
}

#[tokio::test]
async fn a_component_arrives_is_listed_and_goes() {
    let host = Host::serving(["counter"]).await;
    let deployed = put(&host, "lab", handler("lab")).await.json();
    assert_eq!(deployed["name"], "lab");
    assert_eq!(deployed["replaced"], Value::Null);
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    assert_eq!(socket.call(&lab, "count", json!(null)).await.result(), 1);
    let listed = components(&host).await;
    let found = listed.as_array().unwrap().iter();
    let found: Vec<_> = found
        .filter(|component| component["name"] == "lab")
        .collect();
    let [found] = found.as_slice() else {
        panic!("expected it once: {listed}")
    };
    assert_eq!(found["digest"], deployed["digest"]);
    assert_eq!(found["actorsInMemory"], 1);
    assert_eq!(found["instances"], 1);
    assert!(found["bytes"].as_u64() > Some(1000));
    assert!(found["manifest"]["actors"]["lab"]["methods"]["count"].is_object());
    let remove = async |query: &str| {
        let path = format!("/components/lab{query}");
        host.admin(Method::DELETE, &path).send().await
    };
    remove("").await.failed(409, "component.in-use");
    assert_eq!(socket.call(&lab, "count", json!(null)).await.result(), 2);
    socket.subscribe_state(&lab).await;
    assert_eq!(remove("?force=true").await.status, 200);
    let told = socket.expect_type("error").await;
    assert_eq!(told["code"], "actor.unknown");
    assert_eq!(told["params"]["actorId"], "1");
    let gone = socket.call(&lab, "count", json!(null)).await;
    assert_eq!(gone.code(), "actor.unknown");
    remove("").await.failed(404, "component.unknown");
    // Its actors are where they were when it comes back.
    put(&host, "lab", handler("lab")).await;
    assert_eq!(socket.call(&lab, "count", json!(null)).await.result(), 3);
}

#[tokio::test]
async fn the_same_bytes_change_nothing() {
    let host = Host::serving(["counter"]).await;
    let again = put(&host, "counter", handler("counter")).await;
    assert_eq!(again.json()["changed"], false);
}

#[tokio::test]
async fn an_upload_that_is_refused_changes_nothing() {
    let host = Host::builder()
        .component("counter")
        .set("engine.max-component-bytes=2000000")
        .start()
        .await;
    let counter = actor("counter", "a");
    let mut socket = host.connect().await;
    let before = components(&host).await;
    let good = handler("counter2");
    let core = b"\0asm\x01\0\0\0".to_vec();
    let cases = [
        (Vec::new(), 422, "component.invalid"),
        (b"#!/bin/sh\nrm -rf /".to_vec(), 422, "component.invalid"),
        (core, 422, "component.invalid"),
        (good[..good.len() / 2].to_vec(), 422, "component.invalid"),
        (good[..9].to_vec(), 422, "component.invalid"),
        (vec![0; 2_000_001], 413, "component.too-large"),
        (
            guest::component_saying("not JSON", "", ""),
            422,
            "component.invalid",
        ),
        (
            guest::component("", "(loop $again (br $again))"),
            409,
            "component.in-use",
        ),
    ];
    socket
        .call(&counter, "increment", json!({"by": 1}))
        .await
        .result();
    for (bytes, status, code) in cases {
        let refused = put(&host, "counter", bytes).await;
        refused.failed(status, code);
    }
    put(&host, "second", good)
        .await
        .failed(409, "component.conflict");
    let after = components(&host).await;
    assert_eq!(before[0]["digest"], after[0]["digest"]);
    assert_eq!(after.as_array().map(Vec::len), Some(1));
    let reply = socket.call(&counter, "increment", json!({"by": 1})).await;
    assert_eq!(reply.result(), 2);
}

#[tokio::test]
async fn names_are_names() {
    let host = Host::serving(["counter"]).await;
    for name in [
        "..%2f..%2fetc%2fpasswd",
        "a%20b",
        "9lives",
        "%00",
        ".",
        "a.wasm",
        "ä",
    ] {
        let escaped = name.replace('ä', "%c3%a4");
        let path = format!("/components/{escaped}");
        let refused = host.admin(Method::PUT, &path).body("x").send().await;
        refused.failed(400, "component.invalid-name");
    }
    let long = "x".repeat(65);
    let path = format!("/components/{long}");
    let refused = host.admin(Method::PUT, &path).body("x").send().await;
    refused.failed(400, "component.invalid-name");
}

/// Begins an upload and sends only a part of it.
async fn begin_upload(host: &Host, name: &str) -> TcpStream {
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let head = format!(
        "PUT /_tidegate/components/{name} HTTP/1.1\r\nhost: localhost\r\n\
         authorization: Bearer {ADMIN_KEY}\r\ncontent-length: 1000\r\n\
         expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The host asks for the body once the name is taken.
    let mut answer = [0; 25];
    let asked = stream.read_exact(&mut answer);
    tokio::time::timeout(PATIENCE, asked)
        .await
        .expect("an upload is asked for")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"\0asm").await.unwrap();
    stream
}

#[tokio::test]
async fn one_upload_for_one_name_at_a_time() {
    let host = Host::serving(["counter"]).await;
    let first = begin_upload(&host, "lab").await;
    let second = put(&host, "lab", handler("lab")).await;
    second.failed(409, "component.busy");
    // Another name is another matter.
    let other = put(&host, "counter", handler("counter2")).await;
    assert_eq!(other.status, 200);
    drop(first);
    let freed = async { while put(&host, "lab", handler("lab")).await.status != 200 {} };
    tokio::time::timeout(PATIENCE, freed)
        .await
        .expect("a broken upload gives its name back");
}

#[tokio::test]
async fn an_upload_that_stops_is_given_up() {
    let host = Host::builder()
        .component("counter")
        .set("admin.upload-timeout-ms=200")
        .start()
        .await;
    let mut stalled = begin_upload(&host, "lab").await;
    let mut answer = vec![0; 12];
    stalled.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn an_upload_that_compiles_too_long_is_refused() {
    let host = Host::builder()
        .component("counter")
        .set("admin.compile-timeout-ms=1")
        .set("engine.cache-dir=")
        .start()
        .await;
    let refused = put(&host, "lab", handler("lab")).await;
    refused.failed(504, "component.timeout");
    let listed = components(&host).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn progress_is_told_to_who_asks() {
    let host = Host::serving(["counter"]).await;
    let request = host
        .admin(Method::PUT, "/components/lab")
        .header("accept", "text/event-stream")
        .body(handler("lab"));
    let mut stream = request.stream().await;
    for stage in ["compiling", "checking", "swapping"] {
        assert_eq!(stream.expect("progress").await.data["stage"], stage);
    }
    let result = stream.expect("result").await;
    assert_eq!(result.data["name"], "lab");
    stream.ends().await;
    let request = host
        .admin(Method::PUT, "/components/lab")
        .header("accept", "text/event-stream")
        .body("rubbish");
    let mut stream = request.stream().await;
    assert_eq!(stream.expect("progress").await.data["stage"], "compiling");
    let refused = stream.expect("error").await;
    assert_eq!(refused.data["error"]["code"], "component.invalid");
}

#[tokio::test]
async fn the_command_line_deploys() {
    let host = Host::serving(["counter"]).await;
    let file = handlers_folder().join("counter2.wasm");
    let url = format!("http://{}", host.address());
    let outcome = tidegate(["deploy"])
        .arg(&file)
        .arg("--name=counter")
        .arg(format!("--to={url}"))
        .variable("TIDEGATE_ADMIN_KEY", ADMIN_KEY)
        .run()
        .await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.out.starts_with("deployed counter "), "{outcome:?}");
    let mut socket = host.connect().await;
    let counter = actor("counter", "a");
    let version = socket.call(&counter, "version", json!(null)).await;
    assert_eq!(version.result(), 2);
}

#[tokio::test]
async fn the_operators_doors_want_the_key() {
    let host = Host::serving(["counter"]).await;
    let wrong = format!("Bearer {}", "x".repeat(ADMIN_KEY.len()));
    let paths = [
        "/components",
        "/components/counter",
        "/actors",
        "/actors/counter/a",
        "/metrics",
        "/nothing",
    ];
    for path in paths {
        let full = format!("/_tidegate{path}");
        for method in [Method::GET, Method::PUT, Method::DELETE, Method::POST] {
            let request = host.request(method.clone(), &full);
            request.send().await.failed(401, "admin.unauthorized");
            let request = host.request(method.clone(), &format!("{full}?key={ADMIN_KEY}"));
            request.send().await.failed(401, "admin.unauthorized");
            let request = host.request(method.clone(), &format!("{full}?token={ADMIN_KEY}"));
            request.send().await.failed(401, "admin.unauthorized");
            let request = host.request(method, &full);
            let request = request.header("authorization", &wrong);
            request.send().await.failed(401, "admin.unauthorized");
        }
    }
    let nothing = host.admin(Method::GET, "/nothing").send().await;
    nothing.failed(404, "request.not-found");
    let rebound = host
        .admin(Method::GET, "/components")
        .header("host", "evil.example");
    rebound.send().await.failed(403, "request.forbidden-host");
    let page = host
        .admin(Method::GET, "/components")
        .header("origin", "https://evil.example");
    page.send().await.failed(403, "request.forbidden-origin");
}

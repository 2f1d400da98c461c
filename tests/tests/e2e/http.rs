//! The HTTP forms of the operations, and who may use them.

use serde_json::json;
use tidegate_tests::{Host, PATIENCE, actor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_call_is_a_post() {
    let host = Host::serving(["counter"]).await;
    let request = host
        .post("/actors/counter/a/increment")
        .json(&json!({"by": 2}));
    let response = request.send().await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.json(), 2);
}

#[tokio::test]
async fn the_content_type_of_a_form_does_no_harm() {
    let host = Host::serving(["counter"]).await;
    // What `curl -d` sends.
    let request = host
        .post("/actors/counter/a/increment")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(r#"{"by":1}"#);
    assert_eq!(request.send().await.json(), 1);
}

#[tokio::test]
async fn an_empty_body_is_no_input() {
    let host = Host::serving(["lab"]).await;
    let response = host.post("/actors/lab/1/count").send().await;
    assert_eq!((response.status.as_u16(), response.json()), (200, json!(1)));
}

#[tokio::test]
async fn no_result_is_no_content() {
    let host = Host::serving(["lab"]).await;
    let response = host.post("/actors/lab/1/undef").send().await;
    assert_eq!((response.status.as_u16(), response.body.len()), (204, 0));
    let response = host.post("/actors/lab/1/nul").send().await;
    assert_eq!(
        (response.status.as_u16(), response.json()),
        (200, json!(null))
    );
}

#[tokio::test]
async fn http_and_websocket_reach_the_same_actor() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut socket = host.connect().await;
    socket.subscribe_state(&counter).await;
    let request = host
        .post("/actors/counter/a/increment")
        .json(&json!({"by": 5}));
    request.send().await;
    let patch = socket.expect_type("state:patch").await;
    assert_eq!(
        patch["patches"],
        json!([{"op": "replace", "path": "/count", "value": 5}])
    );
}

#[tokio::test]
async fn a_failure_has_its_status_and_is_json() {
    let host = Host::serving(["lab"]).await;
    let request = host
        .post("/actors/lab/1/taken")
        .json(&json!({"owner": "Ann"}));
    let response = request.send().await;
    assert_eq!(response.headers["content-type"], "application/json");
    let error = response.failed(409, "lab.taken");
    assert_eq!(
        error,
        json!({"code": "lab.taken", "message": "taken by Ann", "params": {"owner": "Ann"}})
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let host = Host::serving(["lab"]).await;
    let unknown = host.post("/actors/nope/1/count").send().await;
    assert_eq!(
        unknown.failed(404, "actor.unknown")["message"],
        "Unknown actor: nope"
    );
    let unknown = host.post("/actors/lab/1/nope").send().await;
    assert_eq!(
        unknown.failed(404, "method.unknown")["message"],
        "Unknown method: nope"
    );
    host.get("/actors/nope/1/state")
        .send()
        .await
        .failed(404, "actor.unknown");
    for path in [
        "/nothing",
        "/nothing/here",
        "/actors",
        "/actors/lab",
        "/actors/lab/1",
    ] {
        host.get(path).send().await.failed(404, "request.not-found");
    }
}

#[tokio::test]
async fn the_wrong_http_method_is_refused() {
    let host = Host::serving(["lab"]).await;
    let get = host.get("/actors/lab/1/count").send().await;
    get.failed(405, "request.method-not-allowed");
    let post = host.post("/health").send().await;
    post.failed(405, "request.method-not-allowed");
}

#[tokio::test]
async fn an_invalid_input_is_a_bad_request() {
    let host = Host::serving(["lab"]).await;
    let request = host
        .post("/actors/lab/1/announce")
        .json(&json!({"text": 7}));
    let error = request.send().await.failed(400, "input.invalid");
    assert_eq!(
        error["message"],
        "Validation failed for announce: /text: expected string, found number"
    );
}

#[tokio::test]
async fn a_body_that_is_not_json_is_a_bad_request() {
    let host = Host::serving(["lab"]).await;
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    for body in [
        b"{".to_vec(),
        b"not json".to_vec(),
        b"\xff".to_vec(),
        b"{} {}".to_vec(),
        open.clone().into_bytes(),
        format!("{open}{close}").into_bytes(),
    ] {
        let response = host.post("/actors/lab/1/echo").body(body).send().await;
        assert_eq!(response.status, 400, "{response:?}");
        let code = response.json()["error"]["code"].clone();
        assert!(
            code == "request.malformed" || code == "input.invalid",
            "{code}"
        );
    }
    assert_eq!(host.post("/actors/lab/1/count").send().await.json(), 1);
}

#[tokio::test]
async fn an_oversized_body_is_refused() {
    let host = Host::serving(["lab"]).await;
    let body = json!("x".repeat(1 << 20));
    let response = host.post("/actors/lab/1/echo").json(&body).send().await;
    response.failed(413, "request.too-large");
}

#[tokio::test]
async fn the_state_can_be_read() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut socket = host.connect().await;
    socket.call(&counter, "increment", json!({"by": 3})).await;
    let snapshot = socket.subscribe_state(&counter).await;
    let read = host.get("/actors/counter/a/state").send().await.json();
    assert_eq!(
        read,
        json!({"state": {"count": 3}, "epoch": snapshot["epoch"], "version": snapshot["version"]})
    );
}

#[tokio::test]
async fn an_actor_that_nobody_has_called_has_its_initial_state() {
    let host = Host::serving(["counter"]).await;
    let read = host.get("/actors/counter/new/state").send().await.json();
    assert_eq!(
        (&read["state"], &read["version"]),
        (&json!({"count": 0}), &json!(0))
    );
}

#[tokio::test]
async fn ids_are_percent_decoded() {
    let host = Host::serving(["lab"]).await;
    for (path, id) in [
        ("a%2Fb", "a/b"),
        ("%E6%BC%A2%20%F0%9F%8E%89", "漢 🎉"),
        ("a+b", "a+b"),
        ("%25", "%"),
        ("a%3Fb", "a?b"),
    ] {
        let who = host
            .post(&format!("/actors/lab/{path}/who"))
            .send()
            .await
            .json();
        assert_eq!(who["id"], id);
    }
    let invalid = host.post("/actors/lab/%FF/who").send().await;
    assert_eq!(invalid.status, 400);
    let long = format!("/actors/lab/{}/who", "x".repeat(257));
    host.post(&long)
        .send()
        .await
        .failed(400, "actor.invalid-id");
}

#[tokio::test]
async fn the_host_says_that_it_is_well() {
    let host = Host::serving(["lab"]).await;
    let health = host.get("/health").send().await;
    assert_eq!(
        (health.status.as_u16(), health.json()),
        (200, json!({"ok": true}))
    );
}

#[tokio::test]
async fn a_foreign_host_name_is_refused() {
    let host = Host::serving(["lab"]).await;
    for name in [
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
    ] {
        let health = host.get("/health").header("host", name).send().await;
        health.failed(403, "request.forbidden-host");
        let call = host
            .post("/actors/lab/1/count")
            .header("host", name)
            .send()
            .await;
        call.failed(403, "request.forbidden-host");
    }
    for name in ["localhost", "127.0.0.1:1", "[::1]:3000"] {
        let health = host.get("/health").header("host", name).send().await;
        assert_eq!(health.status, 200, "{name}");
    }
    // None of the refused calls has run.
    assert_eq!(host.post("/actors/lab/1/count").send().await.json(), 1);
}

#[tokio::test]
async fn a_configured_host_name_is_answered() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.hosts=[\"live.example\"]")
        .start()
        .await;
    let health = host
        .get("/health")
        .header("host", "live.example")
        .send()
        .await;
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let host = Host::serving(["lab"]).await;
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "file://",
    ] {
        let call = host
            .post("/actors/lab/1/count")
            .header("origin", origin)
            .send()
            .await;
        call.failed(403, "request.forbidden-origin");
        let upgrade = upgrade(host.get("/ws"))
            .header("origin", origin)
            .send()
            .await;
        upgrade.failed(403, "request.forbidden-origin");
    }
    assert_eq!(host.post("/actors/lab/1/count").send().await.json(), 1);
}

#[tokio::test]
async fn own_pages_and_those_of_this_machine_may_connect() {
    let host = Host::serving(["lab"]).await;
    let own = format!("http://{}", host.address());
    for origin in [
        own.as_str(),
        "http://localhost:5173",
        "http://127.0.0.1:8080",
    ] {
        let call = host
            .post("/actors/lab/1/count")
            .header("origin", origin)
            .send()
            .await;
        assert_eq!(call.status, 200, "{origin}");
        assert_eq!(call.headers["access-control-allow-origin"], origin);
    }
}

#[tokio::test]
async fn a_configured_origin_may_connect() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.origins=[\"https://app.example\"]")
        .start()
        .await;
    let origin = "https://app.example";
    let call = host
        .post("/actors/lab/1/count")
        .header("origin", origin)
        .send()
        .await;
    assert_eq!(call.json(), 1);
    assert_eq!(call.headers["access-control-allow-origin"], origin);
}

#[tokio::test]
async fn a_browser_may_ask_before_it_calls() {
    let host = Host::serving(["lab"]).await;
    let preflight = host
        .options("/actors/lab/1/count")
        .header("origin", "http://localhost:5173")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type")
        .send()
        .await;
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.headers["access-control-allow-origin"],
        "http://localhost:5173"
    );
}

#[tokio::test]
async fn a_broken_upgrade_is_explained() {
    let host = Host::serving(["lab"]).await;
    let old = upgrade(host.get("/ws"))
        .header("sec-websocket-version", "8")
        .send()
        .await;
    old.failed(426, "request.upgrade-required");
    assert_eq!(old.headers["sec-websocket-version"], "13");
    let posted = upgrade(host.post("/ws")).send().await;
    posted.failed(405, "request.method-not-allowed");
    assert_eq!(posted.headers["allow"], "GET");
    let keyless = host
        .get("/ws")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13");
    keyless.send().await.failed(400, "request.malformed");
}

/// A WebSocket handshake that is expected to fail.
fn upgrade(request: tidegate_tests::Request) -> tidegate_tests::Request {
    request
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test]
async fn requests_that_another_site_caused_are_refused() {
    let host = Host::serving(["lab"]).await;
    // Browsers leave `Origin` out of many requests that a page makes, but say this.
    let get = |path: &str, site: &str| host.get(path).header("sec-fetch-site", site);
    for path in ["/actors/lab/1/state", "/actors/lab/1/events"] {
        for mode in ["no-cors", "cors", "websocket"] {
            let request = get(path, "cross-site").header("sec-fetch-mode", mode);
            let response = request.send().await;
            response.failed(403, "request.forbidden-origin");
        }
        let response = get(path, "cross-site").send().await;
        response.failed(403, "request.forbidden-origin");
    }
    let path = "/actors/lab/1/state";
    for site in ["same-origin", "none"] {
        assert_eq!(get(path, site).send().await.status, 200, "{site}");
    }
    // Somebody follows a link, and no page sees the answer.
    let request = get(path, "cross-site").header("sec-fetch-mode", "navigate");
    assert_eq!(request.send().await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_times_out() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.body-timeout-ms=50")
        .set("gateway.close-timeout-ms=50")
        .start()
        .await;
    let mut stream = TcpStream::connect(host.address())
        .await
        .expect("connecting");
    let half = "POST /actors/lab/1/count HTTP/1.1\r\nhost: localhost\r\n\
                content-length: 100\r\n\r\n{\"half\":";
    stream.write_all(half.as_bytes()).await.expect("sending");
    let mut answer = String::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    end.expect("the host lets go of it").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"request.timeout\""), "{answer}");
    // The call has not run.
    assert_eq!(host.post("/actors/lab/1/count").send().await.json(), 1);
}

#[tokio::test]
async fn a_client_that_writes_its_whole_body_first_hears_why_it_is_refused() {
    let host = Host::builder()
        .component("counter")
        .set("gateway.max-discard-bytes=8000000")
        .start()
        .await;
    let body = vec![b'1'; 7_000_000];
    for (path, more, status) in [
        ("/actors/counter/a/increment", "", "413"),
        (
            "/actors/counter/a/increment",
            "Expect: 100-continue\r\n",
            "413",
        ),
        ("/actors/counter", "", "404"),
        ("/health", "", "405"),
        ("/_tidegate/import", "", "401"),
    ] {
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        let length = body.len();
        let host_name = host.address();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host_name}\r\nContent-Length: {length}\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // All of it, in pieces, before a byte of the answer is read.
        for piece in body.chunks(100_000) {
            stream.write_all(piece).await.expect(path);
            tokio::task::yield_now().await;
        }
        let (mut answer, mut piece) = (String::new(), [0; 1024]);
        while !answer.contains(&format!("HTTP/1.1 {status} ")) {
            let read = stream.read(&mut piece).await.expect(path);
            assert!(read > 0, "{path}: {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
    }
}

#[tokio::test]
async fn an_input_with_a_member_twice_is_a_bad_request() {
    let host = Host::serving(["counter"]).await;
    let request = host
        .post("/actors/counter/a/increment")
        .body(r#"{"by":1,"by":2}"#);
    request.send().await.failed(400, "input.invalid");
    let value = host.post("/actors/counter/a/value").send().await;
    assert_eq!(value.json(), 0);
}

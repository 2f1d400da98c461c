//! HTTP connections in time: clients that close their side and wait, clients that are gone,
//! connections that rest, and heads that never come to their end.

use serde_json::json;
use tidegate_tests::raw::Raw;
use tidegate_tests::{Host, Socket, actor};

fn call(host: &Host, version: &str, path: &str, lines: &str, body: &str) -> String {
    format!(
        "POST {path} {version}\r\nHost: {}\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        host.address(),
        body.len()
    )
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_is_answered() {
    // It is not asked whether it is there, however long an answer takes.
    let host = Host::builder()
        .component("counter")
        .set("gateway.half-closed-timeout-ms=60000")
        .start()
        .await;
    for count in 1..=20 {
        let mut raw = Raw::to(&host).await;
        let path = "/actors/counter/a/increment";
        raw.send(call(&host, "HTTP/1.1", path, "", r#"{"by":1}"#))
            .await;
        raw.end().await;
        let answer = raw.answer(true).await;
        assert_eq!((answer.status, answer.body), (200, count.to_string()));
        raw.ended().await;
    }
    // What is pipelined before the end is answered as well.
    let mut raw = Raw::to(&host).await;
    let one = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host.address());
    raw.send([one.as_str(), &one].concat()).await;
    raw.end().await;
    for _ in 0..2 {
        assert_eq!(raw.answer(true).await.status, 200);
    }
    raw.ended().await;
}

#[tokio::test]
async fn a_client_that_has_closed_its_side_may_wait_long() {
    let host = Host::serving(["puppet"]).await;
    let steps = json!([{"sleep": 1_200}]).to_string();
    let mut raw = Raw::to(&host).await;
    raw.send(call(&host, "HTTP/1.1", "/actors/puppet/1/run", "", &steps))
        .await;
    raw.end().await;
    // It is asked once whether it is there.
    assert_eq!(raw.answer(true).await.status, 100);
    assert_eq!(raw.answer(true).await.status, 200);
    raw.ended().await;

    let mut old = Raw::to(&host).await;
    old.send(call(&host, "HTTP/1.0", "/actors/puppet/2/run", "", &steps))
        .await;
    old.end().await;
    assert_eq!(old.answer(true).await.status, 200);
    old.ended().await;
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_no_request() {
    let host = Host::serving(["counter"]).await;
    let mut raw = Raw::to(&host).await;
    let path = "/actors/counter/a/increment";
    let whole = call(&host, "HTTP/1.1", path, "", r#"{"by":1}"#);
    raw.send(&whole[..whole.len() - 1]).await;
    raw.end().await;
    let answer = raw.answer(true).await;
    assert_eq!((answer.status, &*answer.code()), (400, "request.malformed"));
    raw.ended().await;
    let state = host.get("/actors/counter/a/state").send().await.json();
    assert_eq!(state["state"]["count"], 0);
}

#[tokio::test]
async fn a_stream_goes_on_to_a_client_that_has_closed_its_side() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut raw = Raw::to(&host).await;
    let accept = "Accept: text/event-stream";
    let address = host.address();
    raw.send(format!(
        "GET /actors/counter/a/state HTTP/1.1\r\nHost: {address}\r\n{accept}\r\n\r\n"
    ))
    .await;
    raw.end().await;
    assert_eq!(raw.answer(false).await.status, 200);
    until(&mut raw, "event: snapshot").await;
    // What it is asked by, whether it is there.
    until(&mut raw, ": keep-alive").await;
    let mut socket = host.connect().await;
    socket.call(&counter, "increment", json!({"by": 1})).await;
    until(&mut raw, "event: patch").await;
}

async fn until(raw: &mut Raw, line: &str) {
    while raw.line().await.as_deref() != Some(line) {}
}

#[tokio::test]
async fn an_upgrade_of_a_client_that_has_closed_its_side_is_answered_and_ends() {
    let host = Host::serving(["counter"]).await;
    let mut raw = Raw::to(&host).await;
    raw.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        host.address()
    ))
    .await;
    raw.end().await;
    assert_eq!(raw.answer(false).await.status, 101);
    while raw.line().await.is_some() {}
}

/// How a client goes away.
#[derive(Clone, Copy, Debug)]
enum Way {
    Closed,
    Reset,
}

#[tokio::test]
async fn the_call_of_a_client_that_is_gone_is_cancelled() {
    let host = Host::serving(["puppet"]).await;
    let mut socket = host.connect().await;
    let mut number = 0;
    for way in [Way::Closed, Way::Reset] {
        for accept in ["", "Accept: text/event-stream\r\n"] {
            number += 1;
            let puppet = actor("puppet", &number.to_string());
            // It runs for half an hour, and listens.
            let steps = json!([{"count": {"to": 1_000_000, "each": 2}}]).to_string();
            let path = format!("/actors/puppet/{number}/stream");
            let mut raw = Raw::to(&host).await;
            raw.send(call(&host, "HTTP/1.1", &path, accept, &steps))
                .await;
            begins(&mut socket, &number.to_string()).await;
            match way {
                Way::Closed => drop(raw),
                Way::Reset => raw.reset(),
            }
            let next = socket.call(&puppet, "note", json!(null)).await;
            assert_eq!(next.result(), "noted", "{way:?} {accept}");
        }
    }
}

/// Waits until something of a call to this actor is seen.
async fn begins(socket: &mut Socket, id: &str) {
    let puppet = actor("puppet", id);
    socket.subscribe_state(&puppet).await;
    socket.expect_type("state:patch").await;
    socket.unsubscribe_state(&puppet).await;
}

#[tokio::test]
async fn a_connection_may_rest_longer_than_a_head_may_take() {
    let host = Host::builder()
        .component("counter")
        .set("gateway.header-timeout-ms=500")
        .start()
        .await;
    let health = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host.address());
    let mut at_rest = Raw::to(&host).await;
    at_rest.send(&health).await;
    assert_eq!(at_rest.answer(true).await.status, 200);
    // Meanwhile another takes too long over its head, on a connection of its own and on one
    // that was of use before.
    for was_used in [false, true] {
        let mut slow = Raw::to(&host).await;
        if was_used {
            slow.send(&health).await;
            assert_eq!(slow.answer(true).await.status, 200);
        }
        slow.send(&health[..20]).await;
        let late = slow.answer(true).await;
        assert_eq!((late.status, &*late.code()), (408, "request.timeout"));
        assert_eq!(late.header("connection"), "close");
        slow.ended().await;
    }
    at_rest.send(&health).await;
    assert_eq!(at_rest.answer(true).await.status, 200);
}

#[tokio::test]
async fn a_connection_that_rests_too_long_is_let_go() {
    let host = Host::builder()
        .component("counter")
        .set("gateway.keep-alive-timeout-ms=50")
        .start()
        .await;
    let health = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", host.address());
    let mut raw = Raw::to(&host).await;
    raw.send(&health).await;
    assert_eq!(raw.answer(true).await.status, 200);
    raw.ended().await;
}

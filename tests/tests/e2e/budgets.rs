//! What all clients and actors together may make the host hold: when that is used up, it says so,
//! and nobody who asks for little is harmed.

use std::time::{Duration, Instant};

use futures_util::future::select_all;
use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Builder, Host, PATIENCE, Reply, Socket, actor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A budget of 1 MiB, of which the last quarter is for those who hold little.
const SMALL: &str = "1048576";

fn host_with(budget: &str) -> Builder {
    Host::builder()
        .component("lab")
        .set(&format!("memory.{budget}={SMALL}"))
}

/// A figure of a budget, as the metrics show it.
async fn figure(host: &Host, budget: &str, name: &str) -> usize {
    let page = host.admin(Method::GET, "/metrics").send().await;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    let series = format!("tidegate_memory_{name}{{budget=\"{budget}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    let value = value.unwrap_or_else(|| panic!("no {series} in\n{page}"));
    value.parse().expect("a number")
}

/// What is held of a budget, which is never more than may be.
async fn used(host: &Host, budget: &str) -> usize {
    let used = figure(host, budget, "used_bytes").await;
    let limit = figure(host, budget, "limit_bytes").await;
    assert!(
        used <= limit,
        "{used} bytes of {budget} are held, of {limit}"
    );
    used
}

/// Waits until so much of a budget is held.
async fn until_used(host: &Host, budget: &str, wanted: impl Fn(usize) -> bool) {
    let waiting = async {
        while !wanted(used(host, budget).await) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(
        waited.is_ok(),
        "{} bytes of {budget} are held",
        used(host, budget).await
    );
}

/// A failure says that the host's memory is used up, and when to try again.
fn assert_no_room(failure: &Value, budget: &str) {
    assert_eq!(failure["code"], "host.memory", "{failure}");
    assert_eq!(failure["params"]["budget"], budget, "{failure}");
    assert!(
        failure["params"]["retryAfterMs"].as_u64() > Some(0),
        "{failure}"
    );
}

/// A request whose body has not arrived as a whole.
struct Upload(TcpStream);

const BODY: usize = 350_000;

impl Upload {
    async fn begin(host: &Host, id: usize) -> Upload {
        let mut stream = TcpStream::connect(host.address())
            .await
            .expect("connecting");
        let head = format!(
            "POST /actors/lab/{id}/echo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            BODY + 2
        );
        stream.write_all(head.as_bytes()).await.expect("a head");
        let body = format!("\"{}", "x".repeat(BODY));
        stream.write_all(body.as_bytes()).await.expect("a body");
        Upload(stream)
    }

    async fn finish(mut self) -> String {
        // One that was refused is not waited for.
        let _ = self.0.write_all(b"\"").await;
        let mut answer = String::new();
        let reading = tokio::time::timeout(PATIENCE, self.0.read_to_string(&mut answer));
        reading.await.expect("the answer ends").expect("an answer");
        answer
    }
}

#[tokio::test]
async fn a_body_that_there_is_no_room_for_is_refused_and_the_others_are_served() {
    let host = host_with("inputs-bytes").start().await;
    let mut uploads = Vec::new();
    for id in 0..2 {
        uploads.push(Upload::begin(&host, id).await);
    }
    until_used(&host, "inputs", |used| used >= 2 * BODY).await;
    let refused = Upload::begin(&host, 2).await.finish().await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    let (_, body) = refused.split_once("\r\n\r\n").expect("a body");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_no_room(&body["error"], "inputs");
    // Who asks for little is served all the same.
    let reply = host.post("/actors/lab/small/count").send().await;
    assert_eq!(reply.json(), 1);
    for upload in uploads {
        let answer = upload.finish().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    until_used(&host, "inputs", |used| used == 0).await;
}

#[tokio::test]
async fn messages_that_are_not_complete_have_a_limit_together() {
    let host = host_with("inputs-bytes").start().await;
    let part = format!("\"{}", "x".repeat(BODY));
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = host.connect().await;
        client.send_part(&part, true, false).await;
        clients.push(client);
    }
    let refused = async { while figure(&host, "inputs", "refusals_total").await == 0 {} };
    tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("some find no room");
    // Who asks for little is served all the same.
    let reply = clients_call(&host).await;
    assert_eq!(reply, 1);
    let (mut whole, mut refused) = (0, 0);
    for client in &mut clients {
        client.send_part("\"", false, true).await;
        let error = client.expect_type("error").await;
        match error["code"].as_str() {
            // A text is no frame of the protocol.
            Some("frame.malformed") => whole += 1,
            _ => {
                assert_no_room(&error, "inputs");
                refused += 1;
            }
        }
        used(&host, "inputs").await;
        // The connection lives.
        client.call(&actor("lab", "1"), "zero", None).await.result();
    }
    assert!(
        whole > 0 && refused > 0,
        "{whole} came, {refused} were refused"
    );
    until_used(&host, "inputs", |used| used == 0).await;
}

/// A small call on a connection of its own.
async fn clients_call(host: &Host) -> Value {
    let mut client = host.connect().await;
    let reply = client.call(&actor("lab", "1"), "count", None).await;
    reply.result().clone()
}

#[tokio::test]
async fn a_connection_that_ends_gives_back_what_it_held() {
    let host = host_with("inputs-bytes").start().await;
    let mut client = host.connect().await;
    client.send_part(&"x".repeat(BODY), true, false).await;
    until_used(&host, "inputs", |used| used >= BODY).await;
    drop(client);
    until_used(&host, "inputs", |used| used == 0).await;
}

#[tokio::test]
async fn a_message_that_does_not_end_in_time_closes_its_socket() {
    let host = host_with("inputs-bytes")
        .set("gateway.message-timeout-ms=100")
        .set("gateway.ping-interval-ms=10")
        .start()
        .await;
    let mut client = host.connect().await;
    let reply = client.call(&actor("lab", "1"), "count", None).await;
    assert_eq!(reply.result(), 1, "a whole message is no matter");
    client.send_part("{", true, false).await;
    // It goes on to answer pings, which makes no difference.
    let closed = client.closed().await;
    assert_eq!(
        (closed.code, &*closed.reason),
        (1008, "a message took too long")
    );
}

#[tokio::test]
async fn calls_that_wait_have_a_limit_together() {
    let host = host_with("inputs-bytes").start().await;
    let mut client = host.connect().await;
    let input = json!("x".repeat(100_000));
    client
        .begin_call(&actor("lab", "1"), "slow", json!({"ms": 2_000}))
        .await;
    for _ in 0..12 {
        client
            .begin_call(&actor("lab", "1"), "echo", input.clone())
            .await;
    }
    let (mut served, mut refused) = (0, 0);
    while served + refused < 13 {
        let frame = client.next().await;
        match frame.get("failure") {
            None if frame["type"] == "rpc:result" => served += 1,
            // A message that there was no room to read has no id.
            failure => {
                assert_no_room(failure.unwrap_or(&frame), "inputs");
                refused += 1;
            }
        }
        used(&host, "inputs").await;
    }
    assert!(
        served > 1 && refused > 1,
        "{served} served, {refused} refused"
    );
    until_used(&host, "inputs", |used| used == 0).await;
}

#[tokio::test]
async fn those_who_are_owed_most_are_closed_when_all_are_owed_too_much() {
    let host = host_with("outbound-bytes").start().await;
    let mut slow = Vec::new();
    for id in 0..4 {
        let mut client = Socket::connect_narrow(&host).await;
        client
            .subscribe_events(&actor("lab", &id.to_string()))
            .await;
        client
            .call(&actor("lab", &id.to_string()), "zero", None)
            .await;
        slow.push(client);
    }
    let mut reader = host.connect().await;
    reader.subscribe_events(&actor("lab", "0")).await;
    reader.call(&actor("lab", "0"), "zero", None).await;
    // More than what the host, and the system beneath it, hold for these.
    let closed = async {
        loop {
            for id in 0..4 {
                let lab = actor("lab", &id.to_string());
                reader
                    .call(&lab, "blare", json!({"bytes": 30_000}))
                    .await
                    .result();
            }
            used(&host, "outbound").await;
            if host.log().contains("those that were owed most") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("somebody is closed");
    // Those that were not closed are not at their end.
    let ends = slow.iter_mut().map(|client| Box::pin(client.closed()));
    let (closed, ..) = tokio::time::timeout(PATIENCE, select_all(ends))
        .await
        .expect("one of them is closed");
    assert_eq!(closed.code, 4008);
    // Who reads has missed nothing and goes on.
    let reply = reader.call(&actor("lab", "0"), "count", None).await;
    assert_eq!(reply.result(), 1);
}

#[tokio::test]
async fn states_have_a_limit_together_and_idle_actors_make_room() {
    let host = host_with("actors-bytes").start().await;
    let mut client = host.connect().await;
    // Who watches an actor keeps it in memory.
    let mut watcher = host.connect().await;
    let fill = json!({"bytes": 120_000});
    let mut filled = 0;
    let refused = loop {
        let lab = actor("lab", &filled.to_string());
        watcher.subscribe_events(&lab).await;
        watcher.call(&lab, "zero", None).await.result();
        let reply = client.call(&lab, "fill", fill.clone()).await;
        used(&host, "actors").await;
        match reply.frame.get("failure") {
            None => filled += 1,
            Some(failure) => break failure.clone(),
        }
    };
    assert_no_room(&refused, "actors");
    assert!((1..30).contains(&filled), "{filled}");
    // What is in memory goes on, and so do small actors.
    let reply = client.call(&actor("lab", "0"), "count", None).await;
    assert_eq!(reply.result(), 2);
    let reply = client.call(&actor("lab", "small"), "count", None).await;
    assert_eq!(reply.result(), 1);
    watcher.close().await;
    // Idle ones leave, and then there is room again.
    let room = async {
        let lab = actor("lab", &filled.to_string());
        let refused = |reply: &Reply| reply.frame.get("failure").is_some();
        while refused(&client.call(&lab, "fill", fill.clone()).await) {}
        // What left memory is kept.
        let lab = actor("lab", "0");
        let mut reply = client.call(&lab, "count", None).await;
        while refused(&reply) {
            reply = client.call(&lab, "count", None).await;
        }
        assert_eq!(reply.result(), 3);
    };
    tokio::time::timeout(PATIENCE, room)
        .await
        .expect("idle actors leave");
}

/// A host whose idle actors leave at once, and of which 120 000 bytes of state are a good part.
fn crowded() -> Builder {
    host_with("actors-bytes")
        .component("puppet")
        .set("actors.idle-timeout-ms=100")
}

/// Somebody who keeps so many large actors in memory that there is no room for another.
async fn crowd(host: &Host) -> Socket {
    let mut watcher = host.connect().await;
    for number in 0..30 {
        let lab = actor("lab", &format!("crowd-{number}"));
        watcher.subscribe_events(&lab).await;
        let fill = json!({"bytes": 120_000});
        let reply = watcher.call(&lab, "fill", fill).await;
        if reply.frame.get("failure").is_some() {
            return watcher;
        }
    }
    panic!("there is room for 30 large actors");
}

#[tokio::test]
async fn a_timer_whose_actor_finds_no_room_fires_once_there_is_some() {
    let host = crowded().start().await;
    let mut socket = host.connect().await;
    let after = Duration::from_secs(2);
    let mut attempt = 0;
    let (id, watcher) = loop {
        attempt += 1;
        assert!(attempt < 10, "there is always room when it is due");
        let id = attempt.to_string();
        let steps = json!([
            {"set": {"text": "x".repeat(120_000)}},
            {"after": {"ms": after.as_millis(), "idle": true, "outlive": true, "input": "wake"}},
        ]);
        let began = Instant::now();
        socket
            .call(&actor("puppet", &id), "run", steps)
            .await
            .result();
        host.until_asleep(&actor("puppet", &id)).await;
        let watcher = crowd(&host).await;
        if began.elapsed() < after {
            break (id, watcher);
        }
        // The crowd came too late to be in its way.
        watcher.close().await;
    };
    let before = figure(&host, "actors", "refusals_total").await;
    let refused = async { while figure(&host, "actors", "refusals_total").await <= before {} };
    let refused = tokio::time::timeout(PATIENCE, refused).await;
    refused.expect("it finds no room when it is due");
    let fired = async || {
        let path = format!("/actors/puppet/{id}");
        let about = host.admin(Method::GET, &path).send().await;
        about.json()["state"]["log"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(fired().await, 0);
    watcher.close().await;
    let again = async { while fired().await == 0 {} };
    let again = tokio::time::timeout(PATIENCE, again).await;
    again.expect("it fires once there is room");
}

#[tokio::test]
async fn an_actor_that_found_no_room_is_told_of_a_connection_when_it_comes_again() {
    let host = crowded().start().await;
    let mut socket = host.connect().await;
    let lab = actor("lab", "1");
    let fill = host.post("/actors/lab/1/fill");
    assert_eq!(
        fill.json(&json!({"bytes": 120_000})).send().await.status,
        200
    );
    host.until_asleep(&actor("lab", "1")).await;
    let watcher = crowd(&host).await;
    let refused = socket.call(&lab, "count", None).await;
    assert_eq!(
        refused.frame["failure"]["code"], "actor.limit",
        "{}",
        refused.frame
    );
    watcher.close().await;
    let served = async {
        let is_refused = |reply: &Reply| reply.frame.get("failure").is_some();
        while is_refused(&socket.call(&lab, "count", None).await) {}
    };
    let served = tokio::time::timeout(PATIENCE, served).await;
    served.expect("there is room again");
    let state = host.get("/actors/lab/1/state").send().await.json();
    assert_eq!(state["state"]["seen"], json!([socket.id()]));
}

#[tokio::test]
async fn answers_that_are_remembered_have_a_limit_together() {
    let host = host_with("actors-bytes").start().await;
    let mut watcher = host.connect().await;
    let text = json!("x".repeat(50_000));
    let mut kept = 0;
    loop {
        let id = kept.to_string();
        watcher.subscribe_events(&actor("lab", &id)).await;
        watcher
            .call(&actor("lab", &id), "zero", None)
            .await
            .result();
        let request = host.post(&format!("/actors/lab/{id}/echo")).json(&text);
        let answer = request.header("idempotency-key", "k").send().await;
        used(&host, "actors").await;
        match answer.status.as_u16() {
            200 => kept += 1,
            _ => {
                assert_no_room(&answer.failed(503, "host.memory"), "actors");
                break;
            }
        }
    }
    assert!((2..21).contains(&kept), "{kept}");
    // What was remembered is answered from memory.
    let request = host.post("/actors/lab/0/echo").json(&text);
    let answer = request.header("idempotency-key", "k").send().await;
    assert_eq!(answer.json(), text);
}

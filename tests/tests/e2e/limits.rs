//! How fast and how many.

use serde_json::json;
use tidegate_tests::{Host, Socket, actor, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn frames_beyond_the_rate_are_answered_and_not_read() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.frames-per-second=1")
        .set("gateway.frames-burst=5")
        .start()
        .await;
    let lab = actor("lab", "1");
    let mut socket = host.connect().await;
    let mut counted = 0;
    let refused = loop {
        let reply = socket.call(&lab, "count", json!(null)).await;
        match reply.frame.get("failure") {
            None => counted += 1,
            Some(failure) => break failure.clone(),
        }
    };
    assert_eq!(refused["code"], "rate.frames");
    let wait = refused["params"]["retryAfterMs"].as_u64().unwrap();
    assert!((1..=1000).contains(&wait), "{refused}");
    assert!(counted >= 5, "{counted}");
    // Another connection has an account of its own.
    let mut other = host.connect().await;
    let reply = other.call(&lab, "count", json!(null)).await;
    assert_eq!(reply.result(), counted + 1, "what was refused was not run");
}

#[tokio::test]
async fn a_users_calls_count_over_all_doors() {
    let host = Host::builder()
        .component("lab")
        .with_tokens()
        .set("gateway.calls-per-second=1")
        .set("gateway.calls-burst=4")
        .start()
        .await;
    let lab = actor("lab", "1");
    let ann = token::of("ann");
    let (mut one, mut two) = (
        Socket::signed_in(&host, &ann).await,
        Socket::signed_in(&host, &ann).await,
    );
    let mut allowed = 0;
    while one
        .call(&lab, "count", json!(null))
        .await
        .frame
        .get("failure")
        .is_none()
    {
        allowed += 1;
    }
    assert!(allowed >= 4, "{allowed}");
    // One more may have come back to her account meanwhile.
    let mut last = two.call(&lab, "count", json!(null)).await;
    while last.frame.get("failure").is_none() {
        last = two.call(&lab, "count", json!(null)).await;
    }
    assert_eq!(last.code(), "rate.calls");
    let over_http = loop {
        let request = host
            .post("/actors/lab/1/count")
            .header("authorization", &format!("Bearer {ann}"));
        let answer = request.send().await;
        if answer.status != 200 {
            break answer;
        }
    };
    over_http.failed(429, "rate.calls");
    assert_eq!(over_http.headers["retry-after"], "1");
    let mut ben = Socket::signed_in(&host, &token::of("ben")).await;
    ben.call(&lab, "count", json!(null)).await.result();
}

/// What the host says to a connection that is at its end at once.
async fn said(host: &Host) -> String {
    let mut stream = TcpStream::connect(host.address())
        .await
        .expect("connecting");
    // The host may have closed it already.
    let _ = stream.shutdown().await;
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said).await;
    said
}

#[tokio::test]
async fn one_address_may_not_take_all_places() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-connections-per-address=2")
        .start()
        .await;
    let (one, _two) = (host.connect().await, host.connect().await);
    // Said before anything is asked.
    let refused = said(&host).await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("connection.address-limit"), "{refused}");
    one.close().await;
    let again = async { while !said(&host).await.is_empty() {} };
    tokio::time::timeout(tidegate_tests::PATIENCE, again)
        .await
        .expect("a place becomes free");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_clients_count() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.trusted-proxies=[\"127.0.0.1\"]")
        .set("gateway.max-connections-per-address=1")
        .start()
        .await;
    let stream = |client: &str| {
        host.get("/actors/lab/1/state")
            .header("accept", "text/event-stream")
            .header("x-forwarded-for", client)
    };
    let mut one = stream("192.0.2.1").stream().await;
    one.expect("snapshot").await;
    // What the client itself wrote stands further left.
    let refused = stream("198.51.100.7, 192.0.2.1").send().await;
    refused.failed(429, "connection.address-limit");
    let mut other = stream("192.0.2.2").stream().await;
    other.expect("snapshot").await;
}

#[tokio::test]
async fn who_is_not_a_trusted_proxy_is_not_believed() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.calls-per-second=1")
        .set("gateway.calls-burst=2")
        .start()
        .await;
    let mut answers = Vec::new();
    for number in 0..6 {
        let request = host
            .post("/actors/lab/1/count")
            .header("x-forwarded-for", &format!("192.0.2.{number}"));
        answers.push(request.send().await.status.as_u16());
    }
    assert!(answers.contains(&429), "{answers:?}");
}

//! How many may come, and that the host stands it when more do.

use serde_json::json;
use tidegate_tests::{Host, PATIENCE, actor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the host says to somebody who only asks how it is.
async fn health(host: &Host) -> String {
    let asking = async {
        let mut stream = TcpStream::connect(host.address()).await?;
        let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    // A refusal may cut the connection under the request.
    asking.await.unwrap_or_default()
}

/// Asks until the host is well again.
async fn recovers(host: &Host) {
    let asking = async { while !health(host).await.starts_with("HTTP/1.1 200 ") {} };
    let recovered = tokio::time::timeout(PATIENCE, asking).await;
    assert!(recovered.is_ok(), "the host does not recover");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_until_there_is_room() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-connections=3")
        .start()
        .await;
    let lab = actor("lab", "1");
    let (mut one, two, three) = (
        host.connect().await,
        host.connect().await,
        host.connect().await,
    );
    let mut fourth = TcpStream::connect(host.address())
        .await
        .expect("connecting");
    let mut answer = String::new();
    fourth.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("connection.limit"), "{answer}");
    assert_eq!(one.call(&lab, "zero", None).await.result(), 0);
    two.close().await;
    recovers(&host).await;
    three.close().await;
}

/// More sockets than a host with few descriptors can have.
async fn crowd(host: &Host) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..100 {
        let stream = TcpStream::connect(host.address()).await;
        crowd.push(stream.expect("connecting"));
    }
    crowd
}

#[tokio::test]
async fn a_full_descriptor_table_does_not_stop_the_host() {
    let host = Host::builder()
        .component("lab")
        .descriptors(64)
        .set("gateway.reserved-descriptors=0")
        .start()
        .await;
    let lab = actor("lab", "1");
    let mut early = host.connect().await;
    let crowd = crowd(&host).await;
    host.logged("out of file descriptors").await;
    for count in 1..=10 {
        assert_eq!(early.call(&lab, "count", None).await.result(), count);
    }
    drop(crowd);
    recovers(&host).await;
    let reply = host
        .connect()
        .await
        .call(&lab, "echo", json!("hello"))
        .await;
    assert_eq!(reply.result(), "hello");
}

#[tokio::test]
async fn sockets_leave_the_store_its_descriptors() {
    let host = Host::builder()
        .component("lab")
        .descriptors(64)
        .set("store.segment-bytes=4096")
        .start()
        .await;
    host.logged("file descriptors for 32 sockets").await;
    let lab = actor("lab", "1");
    let mut early = host.connect().await;
    let crowd = crowd(&host).await;
    // Enough for several segments, each of which is a file.
    for count in 1..=200 {
        assert_eq!(early.call(&lab, "count", None).await.result(), count);
    }
    drop(crowd);
    recovers(&host).await;
}

#[tokio::test]
async fn a_client_that_sends_no_request_is_let_go() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.header-timeout-ms=50")
        .start()
        .await;
    let mut stream = TcpStream::connect(host.address())
        .await
        .expect("connecting");
    stream
        .write_all(b"GET /heal")
        .await
        .expect("half a request");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the host waits for ever");
}

//! How many may come, and that the host stands it when more do.

use std::io::ErrorKind;
use std::net::SocketAddr;

use serde_json::json;
use tidegate_tests::{ADMIN_KEY, Host, PATIENCE, actor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What the host says to somebody who reads from it.
async fn read(host: &Host, path: &str) -> String {
    let asking = async {
        let mut stream = TcpStream::connect(host.address()).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    // A refusal may cut the connection under the request.
    asking.await.unwrap_or_default()
}

/// Asks until the host has room for a client again.
async fn recovers(host: &Host) {
    serves(host, "/actors/lab/other/state").await;
}

/// Asks until it has room for one who reads this.
async fn serves(host: &Host, path: &str) {
    let asking = async { while !read(host, path).await.starts_with("HTTP/1.1 200 ") {} };
    let recovered = tokio::time::timeout(PATIENCE, asking).await;
    assert!(recovered.is_ok(), "the host does not recover");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_until_there_is_room() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-connections=3")
        .set("gateway.reserved-timeout-ms=50")
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

#[tokio::test]
async fn of_a_flood_of_refused_connections_some_are_told_why_and_the_others_reset() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-connections=1")
        .set("gateway.reserved-connections=0")
        .set("gateway.refusal-answers-per-second=1")
        .start()
        .await;
    let _one = host.connect().await;
    let mut told = 0;
    // More than seconds pass meanwhile.
    for _ in 0..200 {
        // The reset may come while it still connects.
        let heard = async {
            let mut answer = String::new();
            let mut refused = TcpStream::connect(host.address()).await?;
            refused.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        match heard.await {
            Ok(answer) => {
                assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
                told += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    assert!((1..100).contains(&told), "{told}");
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

/// Connects from another address of this machine than clients usually do.
async fn connect_from(source: &str, host: &Host) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0))?;
    socket
        .connect(host.address().parse().expect("an address"))
        .await
}

/// The status line of the answer to a GET, with the operators' key.
async fn status_of(mut stream: TcpStream, path: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ADMIN_KEY}\r\n\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .expect("a request");
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    let read = tokio::time::timeout(PATIENCE, reading).await;
    read.expect("the answer ends").expect("an answer");
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn probes_and_operators_are_heard_when_clients_have_taken_every_place() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-connections=2")
        .start()
        .await;
    let _crowd = (host.connect().await, host.connect().await);
    for (path, status) in [
        ("/health", "200 OK"),
        ("/ready", "200 OK"),
        ("/_tidegate/metrics", "200 OK"),
        ("/actors/lab/1/state", "503 Service Unavailable"),
        ("/healthy", "503 Service Unavailable"),
    ] {
        let stream = connect_from("127.0.0.1", &host).await.expect("connecting");
        assert_eq!(
            status_of(stream, path).await,
            format!("HTTP/1.1 {status}"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn one_address_does_not_keep_the_reserved_places_from_others() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-connections=1")
        .set("gateway.reserved-connections=4")
        .set("gateway.reserved-timeout-ms=3600000")
        .start()
        .await;
    let _client = host.connect().await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(connect_from("127.0.0.1", &host).await.expect("connecting"));
    }
    // Half of the reserved places are all that one address gets.
    for stream in &mut silent[2..] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    let probe = connect_from("127.0.0.2", &host).await.expect("connecting");
    assert_eq!(status_of(probe, "/health").await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_reserved_place_is_not_held_without_a_request() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-connections=1")
        .set("gateway.reserved-connections=1")
        .set("gateway.reserved-timeout-ms=50")
        .start()
        .await;
    let _client = host.connect().await;
    for beginning in [
        "",
        "GET /heal",
        "GET /health HTTP/1.1\r\nhost: localhost\r\n",
    ] {
        let mut slow = connect_from("127.0.0.1", &host).await.expect("connecting");
        slow.write_all(beginning.as_bytes())
            .await
            .expect("a beginning");
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await;
        assert!(
            end.is_ok(),
            "the host waits for ever for the rest of {beginning:?}"
        );
    }
    // The last one has its place until the host has seen it go.
    serves(&host, "/health").await;
}

#[tokio::test]
async fn an_address_that_may_be_a_proxys_is_told_of_in_the_log() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-connections-per-address=1")
        .start()
        .await;
    let _client = host.connect().await;
    let probe = connect_from("127.0.0.1", &host).await.expect("connecting");
    assert_eq!(status_of(probe, "/health").await, "HTTP/1.1 200 OK");
    let line = host.logged("gateway.trusted-proxies").await;
    assert!(line.contains("127.0.0.1"), "{line}");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-head-bytes=8192")
        .start()
        .await;
    let long = format!("/health?{}", "x".repeat(10_000));
    let stream = connect_from("127.0.0.1", &host).await.expect("connecting");
    let status = status_of(stream, &long).await;
    assert!(status.starts_with("HTTP/1.1 4"), "{status}");
}

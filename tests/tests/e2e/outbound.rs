//! What handlers may ask other servers for, and what becomes of it.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::{Actor, Builder, Host, PATIENCE, Socket, actor, handlers_folder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server whose every answer the test gives by hand.
struct Server {
    listener: TcpListener,
}

/// A connection to it, on which a request has arrived.
struct Peer {
    stream: TcpStream,
    /// The request line and the headers, in lower case.
    head: String,
    /// What came behind the head so far.
    body: Vec<u8>,
}

/// Waits no longer than every other test does.
async fn patiently<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        Server {
            listener: listener.expect("a free port"),
        }
    }

    fn url(&self, path: &str) -> String {
        let address = self.listener.local_addr().expect("it listens");
        format!("http://{address}{path}")
    }

    async fn asked(&self) -> Peer {
        let asked = async {
            let (stream, _) = self.listener.accept().await.expect("a connection");
            let mut peer = Peer {
                stream,
                head: String::new(),
                body: Vec::new(),
            };
            let end = loop {
                let end = peer.body.windows(4).position(|four| four == b"\r\n\r\n");
                match end {
                    Some(end) => break end + 4,
                    None => assert!(peer.read().await, "the request broke off"),
                }
            };
            let body = peer.body.split_off(end);
            peer.head = String::from_utf8_lossy(&peer.body).to_lowercase();
            peer.body = body;
            peer
        };
        patiently("a request", asked).await
    }

    async fn answer(&self, answer: &str) -> String {
        let mut peer = self.asked().await;
        peer.send(answer).await;
        peer.head
    }
}

impl Peer {
    /// Reads more of the body; whether there was more.
    async fn read(&mut self) -> bool {
        let read = patiently("a read", self.stream.read_buf(&mut self.body)).await;
        read.is_ok_and(|bytes| bytes > 0)
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let written = self.stream.write_all(bytes.as_ref()).await;
        written.expect("the host reads");
    }

    /// Sends a piece of a chunked body.
    async fn chunk(&mut self, text: &str) {
        self.send(&format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    /// Waits until the host has closed the connection.
    async fn closed(&mut self) {
        while self.read().await {}
    }
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

fn whole(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn asker() -> Actor {
    actor("asker", "1")
}

fn allowing() -> Builder {
    Host::builder()
        .component("outbound")
        .allow("http://127.0.0.1:*")
}

async fn reachable() -> (Server, Host, Socket) {
    let (server, host) = (Server::start().await, allowing().start().await);
    let socket = host.connect().await;
    (server, host, socket)
}

#[tokio::test]
async fn a_request_reaches_an_allowed_host_and_its_response_the_handler() {
    let (server, _host, mut socket) = reachable().await;
    let input = json!({"url": server.url("/a/b?c=d#e")});
    let call = socket.begin_call(&asker(), "get", input).await;
    let head = server.answer(&whole("404 Not Found", "nothing")).await;
    assert!(head.starts_with("get /a/b?c=d http/1.1\r\n"), "{head}");
    let host = server.url("").replace("http://", "host: ");
    assert!(head.contains(&host), "{head}");
    let expected = json!({"status": 404, "kind": "text/plain", "text": "nothing"});
    assert_eq!(socket.result_of(&call).await.result(), expected);
}

#[tokio::test]
async fn a_body_is_sent_whole_and_with_its_length() {
    let (server, _host, mut socket) = reachable().await;
    let input = json!({
        "url": server.url("/"), "bytes": 300_000, "headers": [["authorization", "Bearer x"]],
    });
    let call = socket.begin_call(&asker(), "post", input).await;
    let mut peer = server.asked().await;
    assert!(
        peer.head.contains("authorization: bearer x\r\n"),
        "{}",
        peer.head
    );
    assert!(
        peer.head.contains("content-length: 300000\r\n"),
        "{}",
        peer.head
    );
    while peer.body.len() < 300_000 {
        assert!(peer.read().await, "{} bytes", peer.body.len());
    }
    assert!(peer.body.iter().all(|byte| *byte == b'x'));
    peer.send(&whole("200 OK", "")).await;
    assert_eq!(socket.result_of(&call).await.result()["status"], 200);
}

#[tokio::test]
async fn a_server_that_answers_before_it_has_read_the_body_is_heard() {
    let (server, _host, mut socket) = reachable().await;
    let input = json!({"url": server.url("/"), "bytes": 8_000_000, "headers": []});
    let call = socket.begin_call(&asker(), "post", input).await;
    let mut peer = server.asked().await;
    peer.send(&whole("413 Content Too Large", "no")).await;
    assert_eq!(socket.result_of(&call).await.result()["status"], 413);
}

#[tokio::test]
async fn each_line_is_read_when_it_has_arrived() {
    let (server, _host, mut socket) = reachable().await;
    let input = json!({"url": server.url("/stream"), "page": server.url("/page")});
    let call = socket.begin_call(&asker(), "acknowledge", input).await;
    let mut stream = server.asked().await;
    stream.send(CHUNKED).await;
    for line in ["one", "two", "three"] {
        // In two pieces, of which the first alone is no line.
        let (head, tail) = line.split_at(1);
        stream.chunk(head).await;
        stream.chunk(&format!("{tail}\r\n")).await;
        // The handler asks only after it has the line, and the next one is not sent yet.
        let head = server
            .answer(&whole("200 OK", &format!("seen {line}")))
            .await;
        assert!(head.contains(&format!("/page?{line} ")), "{head}");
    }
    stream.send("0\r\n\r\n").await;
    assert_eq!(socket.result_of(&call).await.result(), 3);
    let snapshot = socket.subscribe_state(&asker()).await;
    assert_eq!(
        snapshot["state"]["lines"],
        json!(["seen one", "seen two", "seen three"])
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_within_a_line_is_a_failure_and_no_line() {
    let (server, _host, mut socket) = reachable().await;
    for close in ["chunked", "with a length"] {
        let input = json!({"url": server.url("/")});
        let call = socket.begin_call(&asker(), "tolerate", input).await;
        let mut peer = server.asked().await;
        match close {
            "chunked" => {
                peer.send(CHUNKED).await;
                peer.chunk("one\ntw").await;
            }
            _ => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
                peer.send(&format!("{head}one\ntw")).await;
            }
        }
        drop(peer);
        let lines = socket.result_of(&call).await.result();
        assert_eq!(lines, json!(["one", "http.failed incomplete"]), "{close}");
    }
}

#[tokio::test]
async fn a_turn_that_fails_on_a_broken_body_keeps_nothing() {
    let (server, _host, mut socket) = reachable().await;
    let input = json!({"url": server.url("/")});
    let call = socket.begin_call(&asker(), "lines", input).await;
    let mut peer = server.asked().await;
    peer.send(CHUNKED).await;
    peer.chunk("one\n").await;
    drop(peer);
    let reply = socket.result_of(&call).await;
    assert_eq!(reply.code(), "http.failed");
    assert_eq!(reply.frame["failure"]["params"]["reason"], "incomplete");
    let snapshot = socket.subscribe_state(&asker()).await;
    assert_eq!(snapshot["state"]["lines"], json!([]));
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up_after_the_handlers_timeout() {
    let (server, _host, mut socket) = reachable().await;
    for begun in [false, true] {
        let input = json!({"url": server.url("/"), "silenceMs": 150});
        let call = socket.begin_call(&asker(), "lines", input).await;
        let mut peer = server.asked().await;
        if begun {
            peer.send(CHUNKED).await;
            peer.chunk("one\n").await;
        }
        let reply = socket.result_of(&call).await;
        assert_eq!(reply.code(), "http.timeout", "begun: {begun}");
        assert_eq!(
            reply.frame["failure"]["params"]["host"],
            server.url("")[7..]
        );
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_given_up_after_the_components_timeout() {
    let server = Server::start().await;
    let host = allowing()
        .limit("outbound-connect-timeout-ms", 100)
        .limit("outbound-first-byte-timeout-ms", 100)
        .start()
        .await;
    let mut socket = host.connect().await;
    let input = json!({"url": server.url("/")});
    let call = socket.begin_call(&asker(), "get", input).await;
    let mut peer = server.asked().await;
    assert_eq!(socket.result_of(&call).await.code(), "http.timeout");
    peer.closed().await;
}

#[tokio::test]
async fn a_turn_that_waits_for_a_server_ends_at_its_deadline_and_closes_the_connection() {
    let server = Server::start().await;
    let host = allowing().limit("turn-deadline-ms", 300).start().await;
    let mut socket = host.connect().await;
    let input = json!({"url": server.url("/")});
    let call = socket.begin_call(&asker(), "lines", input.clone()).await;
    let mut peer = server.asked().await;
    peer.send(CHUNKED).await;
    assert_eq!(socket.result_of(&call).await.code(), "turn.deadline");
    peer.closed().await;
    // The actor goes on.
    let call = socket.begin_call(&asker(), "lines", input).await;
    server.answer(&whole("200 OK", "a\nb")).await;
    assert_eq!(socket.result_of(&call).await.result(), 2);
}

#[tokio::test]
async fn what_is_no_http_is_a_failure() {
    let (server, _host, mut socket) = reachable().await;
    for garbage in [
        "\u{0}\u{1}garbage\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "SSH-2.0-x\r\n",
        "",
    ] {
        let input = json!({"url": server.url("/")});
        let call = socket.begin_call(&asker(), "get", input).await;
        server.answer(garbage).await;
        let reply = socket.result_of(&call).await;
        assert_eq!(reply.code(), "http.failed", "{garbage:?}");
    }
}

#[tokio::test]
async fn a_body_of_garbage_ends_the_lines_with_a_reason() {
    let (server, _host, mut socket) = reachable().await;
    let no_text = b"4\r\n\xff\xfe\n\n\r\n0\r\n\r\n".as_slice();
    let no_chunk = b"zz\r\nx\r\n".as_slice();
    for (garbage, reason) in [(no_text, "not-utf8"), (no_chunk, "incomplete")] {
        let input = json!({"url": server.url("/")});
        let call = socket.begin_call(&asker(), "tolerate", input).await;
        let mut peer = server.asked().await;
        peer.send(CHUNKED).await;
        peer.chunk("one\n").await;
        peer.send(garbage).await;
        drop(peer);
        let lines = socket.result_of(&call).await.result();
        assert_eq!(lines, json!(["one", format!("http.failed {reason}")]));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure_with_a_reason() {
    let (server, _host, mut socket) = reachable().await;
    let url = server.url("/");
    drop(server);
    let reply = socket.call(&asker(), "get", json!({"url": url})).await;
    assert_eq!(reply.code(), "http.failed");
    assert_eq!(
        reply.frame["failure"]["params"]["reason"],
        "connection-refused"
    );
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_not_asked_and_warned_about_once() {
    let server = Server::start().await;
    let host = Host::builder()
        .component("outbound")
        .allow("*://*:*")
        .allow("http://127.0.0.1:1")
        .start()
        .await;
    let mut socket = host.connect().await;
    let url = server.url("/");
    let port = url.trim_end_matches('/').rsplit(':').next().unwrap();
    let mut ways = vec![
        url.clone(),
        url.clone(),
        format!("http://localhost:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
    ];
    // A name that leads inside; most machines know themselves by one.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name = format!("{}:{port}", name.trim().to_lowercase());
    if tokio::net::lookup_host(&name).await.is_ok() {
        ways.push(format!("http://{name}/"));
    }
    for url in ways {
        let reply = socket.call(&asker(), "get", json!({"url": url})).await;
        assert_eq!(reply.code(), "http.denied", "{url}");
    }
    let refused = format!("127.0.0.1:{port}");
    host.logged(&refused).await;
    host.logged(&format!("localhost:{port}")).await;
    let log = host.log();
    let warnings = log
        .lines()
        .filter(|line| line.contains("refused a request"));
    let about = warnings.filter(|line| line.contains(&format!("http://{refused}")));
    assert_eq!(about.count(), 1, "{log}");
    // Had one been sent, it would stand before this one in the listener's queue.
    let probe = TcpStream::connect(&refused).await.unwrap();
    let (first, _) = server.listener.accept().await.unwrap();
    assert_eq!(first.peer_addr().unwrap(), probe.local_addr().unwrap());
}

#[tokio::test]
async fn without_a_list_nothing_is_allowed() {
    let server = Server::start().await;
    let host = Host::serving(["outbound"]).await;
    let mut socket = host.connect().await;
    let reply = socket
        .call(&asker(), "get", json!({"url": server.url("/")}))
        .await;
    assert_eq!(reply.code(), "http.denied");
}

#[tokio::test]
async fn a_redirect_is_the_handlers_to_follow() {
    let (server, _host, mut socket) = reachable().await;
    let input = json!({"url": server.url("/")});
    let call = socket.begin_call(&asker(), "get", input).await;
    let redirect = "HTTP/1.1 302 Found\r\nlocation: http://localhost/\r\ncontent-length: 0\r\n\r\n";
    server.answer(redirect).await;
    assert_eq!(socket.result_of(&call).await.result()["status"], 302);
}

#[tokio::test]
async fn headers_of_the_connection_are_not_the_handlers_to_set() {
    let (server, _host, mut socket) = reachable().await;
    for header in ["host", "transfer-encoding", "connection"] {
        let input = json!({"url": server.url("/"), "bytes": 0, "headers": [[header, "x"]]});
        let reply = socket.call(&asker(), "post", input).await;
        assert_eq!(reply.frame["failure"]["params"]["reason"], "invalid-header");
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_of_a_turn_fail() {
    let server = Server::start().await;
    let host = allowing().limit("outbound-requests", 3).start().await;
    let mut socket = host.connect().await;
    let input = json!({"url": server.url("/"), "times": 5});
    let call = socket.begin_call(&asker(), "flood", input).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut peer = server.asked().await;
        peer.send(CHUNKED).await;
        peers.push(peer);
    }
    let limit = "http.failed connection-limit-reached";
    let outcomes = socket.result_of(&call).await.result();
    assert_eq!(outcomes, json!(["ok", "ok", "ok", limit, limit]));
    // Another turn has an account of its own.
    let input = json!({"url": server.url("/"), "times": 1});
    let call = socket.begin_call(&asker(), "flood", input).await;
    server.answer(CHUNKED).await;
    assert_eq!(socket.result_of(&call).await.result(), json!(["ok"]));
}

#[tokio::test]
async fn what_a_turn_leaves_open_is_closed_with_it() {
    let (server, _host, mut socket) = reachable().await;
    let call = socket
        .begin_call(&asker(), "leak", json!({"url": server.url("/")}))
        .await;
    let mut peer = server.asked().await;
    peer.send(CHUNKED).await;
    assert_eq!(socket.result_of(&call).await.result(), 200);
    peer.closed().await;
}

#[tokio::test]
async fn guests_that_wait_for_a_server_take_no_threads() {
    const ACTORS: usize = 200;
    let server = Server::start().await;
    let host = allowing().limit("turn-deadline-ms", 60_000).start().await;
    let mut socket = host.connect().await;
    let before = host.threads();
    let mut calls = Vec::new();
    for number in 0..ACTORS {
        let asker = actor("asker", &number.to_string());
        let input = json!({"url": server.url("/")});
        calls.push(socket.begin_call(&asker, "get", input).await);
    }
    let mut peers = Vec::new();
    while peers.len() < ACTORS {
        peers.push(server.asked().await);
    }
    let threads = host.threads();
    assert!(threads < before + 16, "{before} threads, then {threads}");
    for peer in &mut peers {
        peer.send(&whole("200 OK", "")).await;
    }
    let mut answered = 0;
    while answered < ACTORS {
        let frame = socket.expect_type("rpc:result").await;
        assert_eq!(frame["result"]["status"], 200, "{frame}");
        answered += 1;
    }
}

#[tokio::test]
async fn a_guest_cannot_fill_the_hosts_memory_with_header_fields() {
    let host = allowing().start().await;
    let mut socket = host.connect().await;
    let before = host.resident_bytes();
    let reply = socket.call(&asker(), "hoard", json!(null)).await;
    assert_eq!(reply.code(), "handler.trapped");
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
}

#[tokio::test]
async fn an_entry_that_is_not_for_this_host_is_refused_by_name() {
    let builder = Host::builder().component("outbound").allow("http://self");
    let refusal = builder.refused().await;
    refusal.says([
        "component.outbound",
        "allowed_outbound_hosts",
        "`http://self`",
    ]);
}

#[test]
fn only_a_component_that_sends_requests_imports_what_sends_them() {
    let imports = |name: &str| {
        let file = handlers_folder().join(name).with_extension("wasm");
        let bytes = std::fs::read(file).expect("built by `cargo xtask handlers`");
        bytes.windows(10).any(|ten| ten == b"wasi:http/")
    };
    assert!(imports("outbound"));
    assert!(!imports("counter"));
    assert!(!imports("chat"));
}

#[tokio::test]
async fn a_server_that_pauses_within_the_timeout_is_waited_for() {
    let (server, _host, mut socket) = reachable().await;
    let input: Value = json!({"url": server.url("/"), "silenceMs": 10_000});
    let call = socket.begin_call(&asker(), "lines", input).await;
    let mut peer = server.asked().await;
    peer.send(CHUNKED).await;
    for line in ["a\n", "b\n"] {
        // The pause is what is tested: there is no event to wait for.
        tokio::time::sleep(Duration::from_millis(100)).await;
        peer.chunk(line).await;
    }
    peer.send("0\r\n\r\n").await;
    assert_eq!(socket.result_of(&call).await.result(), 2);
}

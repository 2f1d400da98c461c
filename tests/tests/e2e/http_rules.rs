//! RFC 9110 and 9112 at the door, byte by byte: what a request has to be before a route looks at
//! it, and what every answer says.

use http::Method;
use tidegate_tests::raw::{Answer, Raw};
use tidegate_tests::{Host, actor};

async fn host() -> Host {
    Host::builder()
        .component("counter")
        .set("gateway.hosts=[\"live.example\"]")
        .start()
        .await
}

/// Sends a request as it stands and reads the answer.
async fn ask(host: &Host, request: &str) -> Answer {
    let mut raw = Raw::to(host).await;
    raw.send(request).await;
    raw.answer(!request.starts_with("HEAD")).await
}

/// A request with these lines behind the first and `Host`, and this body.
fn request(first: &str, lines: &[&str], body: &str) -> String {
    let mut request = format!("{first} HTTP/1.1\r\nHost: live.example\r\n");
    for line in lines {
        request += &format!("{line}\r\n");
    }
    if !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request + "\r\n" + body
}

/// Status, code of the failure, and a header with what it says.
type Expected = (u16, &'static str, &'static str, &'static str);

async fn expect(host: &Host, table: &[(&str, Expected)]) {
    for (request, (status, code, header, value)) in table {
        let answer = ask(host, request).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (*status, *code),
            "{request}\n{answer:?}"
        );
        if !header.is_empty() {
            assert_eq!(answer.header(header), *value, "{request}\n{answer:?}");
        }
        let date = answer.header("date");
        assert!(date.ends_with(" GMT"), "{request}\n{answer:?}");
    }
}

#[tokio::test]
async fn a_request_names_one_host_that_is_this_one() {
    let host = host().await;
    let malformed = (400, "request.malformed", "", "");
    let forbidden = (403, "request.forbidden-host", "", "");
    let fine = (200, "", "content-type", "application/json");
    expect(
        &host,
        &[
            ("GET /health HTTP/1.1\r\n\r\n", malformed),
            (
                "GET /health HTTP/1.1\r\nHost: live.example\r\nHost: live.example\r\n\r\n",
                malformed,
            ),
            ("GET /health HTTP/1.1\r\nHost:\r\n\r\n", malformed),
            ("GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", malformed),
            (
                "GET /health HTTP/1.1\r\nHost: u@live.example\r\n\r\n",
                malformed,
            ),
            (
                "GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
                forbidden,
            ),
            ("GET /health HTTP/1.1\r\nHost: live.example\r\n\r\n", fine),
            (
                "GET /health HTTP/1.1\r\nHost: Live.Example.:80\r\n\r\n",
                fine,
            ),
            ("GET /health HTTP/1.1\r\nHost: localhost.\r\n\r\n", fine),
            // A client that is older than the header, as some probes are.
            ("GET /health HTTP/1.0\r\n\r\n", fine),
            ("GET /ready HTTP/1.0\r\n\r\n", fine),
            (
                "GET /health HTTP/1.0\r\nHost: evil.example\r\n\r\n",
                forbidden,
            ),
            (
                "GET /health HTTP/1.0\r\nOrigin: http://evil.example\r\n\r\n",
                (403, "request.forbidden-origin", "", ""),
            ),
            // The target goes before the header.
            (
                "GET http://live.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
                fine,
            ),
            (
                "GET http://evil.example/health HTTP/1.1\r\nHost: live.example\r\n\r\n",
                forbidden,
            ),
            ("GET http://live.example/health HTTP/1.1\r\n\r\n", malformed),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_target_is_a_path_or_an_address_of_the_web() {
    let host = host().await;
    let malformed = (400, "request.malformed", "", "");
    let nothing = (404, "request.not-found", "", "");
    let all = "GET,HEAD,POST,PUT,DELETE,OPTIONS";
    expect(
        &host,
        &[
            (&request("GET live.example", &[], ""), malformed),
            (
                &request("GET ftp://live.example/health", &[], ""),
                malformed,
            ),
            (&request("GET *", &[], ""), malformed),
            (&request("OPTIONS *", &[], ""), (204, "", "allow", all)),
            (
                &request("CONNECT live.example:80", &[], ""),
                (405, "request.method-not-allowed", "allow", all),
            ),
            (&request("GET /nothing", &[], ""), nothing),
            (&request("POST /nothing", &[], ""), nothing),
            (&request("GET //health", &[], ""), nothing),
            (&request("GET /health/", &[], ""), nothing),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_answered_with_those_that_it_does() {
    let host = host().await;
    let not_allowed = |allow| (405, "request.method-not-allowed", "allow", allow);
    let (read, call) = ("GET,HEAD,POST,OPTIONS", "POST,OPTIONS");
    expect(
        &host,
        &[
            (&request("POST /health", &[], ""), not_allowed("GET,HEAD")),
            (&request("TRACE /health", &[], ""), not_allowed("GET,HEAD")),
            (&request("BREW /ready", &[], ""), not_allowed("GET,HEAD")),
            (
                &request("OPTIONS /health", &[], ""),
                (204, "", "allow", "GET,HEAD"),
            ),
            (&request("DELETE /", &[], ""), not_allowed("GET,HEAD")),
            (
                &request("GET /actors/counter/a/increment", &[], ""),
                not_allowed(call),
            ),
            (
                &request("HEAD /actors/counter/a/increment", &[], ""),
                (405, "", "allow", call),
            ),
            (
                &request("PATCH /actors/counter/a/increment", &[], ""),
                not_allowed(call),
            ),
            (
                &request("DELETE /actors/counter/a/state", &[], ""),
                not_allowed(read),
            ),
            (
                &request("PUT /actors/counter/a/events", &[], ""),
                not_allowed(read),
            ),
            (
                &request("OPTIONS /actors/counter/a/state", &[], ""),
                (204, "", "allow", read),
            ),
            (
                &request("OPTIONS /actors/counter/a/increment", &[], ""),
                (204, "", "allow", call),
            ),
            (
                &request(
                    "POST /ws",
                    &["Connection: upgrade", "Upgrade: websocket"],
                    "",
                ),
                not_allowed("GET"),
            ),
        ],
    )
    .await;
    let admin = host
        .admin(Method::PATCH, "/components/counter")
        .send()
        .await;
    admin.failed(405, "request.method-not-allowed");
    assert_eq!(admin.headers["allow"], "GET,HEAD,PUT,DELETE");
}

#[tokio::test]
async fn a_head_is_what_a_get_would_say_without_its_body() {
    let host = host().await;
    for path in [
        "/health",
        "/ready",
        "/",
        "/actors/counter/a/state",
        "/nothing",
    ] {
        let got = ask(&host, &request(&format!("GET {path}"), &[], "")).await;
        let mut raw = Raw::to(&host).await;
        let asked = request(&format!("HEAD {path}"), &["Connection: close"], "");
        raw.send(asked).await;
        let head = raw.answer(false).await;
        raw.ended().await;
        assert_eq!(head.status, got.status, "{path}");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), got.header(name), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn an_expectation_is_met_or_refused() {
    let host = host().await;
    let call = "POST /actors/counter/a/increment";
    let pony = request(call, &["Expect: a-pony"], r#"{"by":1}"#);
    expect(&host, &[(&pony, (417, "request.expectation", "", ""))]).await;

    let mut raw = Raw::to(&host).await;
    raw.send(request(
        call,
        &["Expect: 100-continue", "Content-Length: 8"],
        "",
    ))
    .await;
    assert_eq!(raw.answer(true).await.status, 100);
    raw.send(r#"{"by":1}"#).await;
    assert_eq!(raw.answer(true).await.body, "1");

    // What is refused in any case is not asked for.
    for (lines, status) in [
        (["Expect: 100-continue", "Content-Length: 1048577"], 413),
        (
            [
                "Expect: 100-continue",
                "Content-Type: text/xml\r\nContent-Length: 8",
            ],
            415,
        ),
    ] {
        let refused = ask(&host, &request(call, &lines, "")).await;
        assert_eq!(refused.status, status, "{lines:?}");
    }
    let refused = ask(
        &host,
        &request(
            "POST /actors/nobody/a/x",
            &["Expect: 100-continue", "Content-Length: 8"],
            "",
        ),
    )
    .await;
    assert_eq!((refused.status, &*refused.code()), (404, "actor.unknown"));
}

#[tokio::test]
async fn a_body_is_framed_once_and_read_as_it_is_said_to_be() {
    let host = host().await;
    let call = "POST /actors/counter/a/increment";
    let one = r#"{"by":1}"#;
    let media = (415, "request.unsupported-media", "", "");
    let fine = (200, "", "", "");
    expect(
        &host,
        &[
            (
                &request(call, &["Transfer-Encoding: gzip, chunked"], ""),
                (501, "request.malformed", "", ""),
            ),
            (
                &request(call, &["Content-Encoding: gzip"], one),
                (
                    415,
                    "request.unsupported-media",
                    "accept-encoding",
                    "identity",
                ),
            ),
            (
                &request(
                    call,
                    &["Content-Type: multipart/form-data; boundary=x"],
                    one,
                ),
                media,
            ),
            (
                &request(
                    call,
                    &["Content-Type: application/json; charset=utf-16"],
                    one,
                ),
                media,
            ),
            (
                &request(
                    call,
                    &["Content-Type: application/json", "Content-Type: text/xml"],
                    one,
                ),
                media,
            ),
            (
                &request(
                    call,
                    &["Content-Type: application/json; charset=utf-8"],
                    one,
                ),
                fine,
            ),
            (
                &request(call, &["Content-Type: application/vnd.x+json"], one),
                fine,
            ),
            (
                &request(
                    call,
                    &["Content-Type: application/x-www-form-urlencoded"],
                    one,
                ),
                fine,
            ),
            (&request(call, &[], one), fine),
            (&request(call, &["Range: bytes=0-0"], one), fine),
        ],
    )
    .await;
    // What is not HTTP is answered by its status alone.
    for lines in [
        &["Content-Length: 8", "Content-Length: 9"][..],
        &["Content-Length: x"],
        &["Transfer-Encoding: chunked, identity"],
        &["No colon"],
    ] {
        let answer = ask(&host, &request(call, lines, "")).await;
        assert!(matches!(answer.status, 400 | 501), "{lines:?} {answer:?}");
    }
    // Two lengths that contradict each other: one counts, and nothing follows.
    let mut raw = Raw::to(&host).await;
    let both = ["Transfer-Encoding: chunked", "Content-Length: 3"];
    raw.send(request(call, &both, "")).await;
    raw.send("8\r\n{\"by\":1}\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n")
        .await;
    let answer = raw.answer(true).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), "close");
    raw.ended().await;
}

#[tokio::test]
async fn heads_have_a_limit() {
    let host = host().await;
    let long = "x".repeat(65 << 10);
    let answer = ask(
        &host,
        &request("GET /health", &[&format!("X-Long: {long}")], ""),
    )
    .await;
    assert_eq!(answer.status, 431);
    let answer = ask(&host, &request(&format!("GET /{long}"), &[], "")).await;
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
    for (count, status) in [(100, 200), (101, 431)] {
        // With `Host`.
        let headers: Vec<String> = (1..count).map(|n| format!("X-{n}: y")).collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = ask(&host, &request("GET /health", &headers, "")).await;
        assert_eq!(answer.status, status, "{count} headers");
    }
}

#[tokio::test]
async fn the_more_welcome_form_is_sent() {
    let host = host().await;
    let state = "GET /actors/counter/a/state";
    let (json, stream) = ("application/json", "text/event-stream");
    for (accept, expected) in [
        ("text/event-stream", stream),
        ("application/json;q=0.5, text/event-stream", stream),
        ("text/event-stream;q=0", json),
        ("text/event-stream; q=0.0, */*", json),
        ("text/event-stream;q=0.5, application/json", json),
        ("*/*", json),
        ("image/png", json),
    ] {
        let asked = request(state, &[&format!("Accept: {accept}")], "");
        let answer = ask(&host, &asked).await;
        assert_eq!(answer.header("content-type"), expected, "{accept}");
    }
    let events = request(
        "GET /actors/counter/a/events",
        &["Accept: text/event-stream;q=0"],
        "",
    );
    expect(&host, &[(&events, (406, "request.not-acceptable", "", ""))]).await;
}

#[tokio::test]
async fn one_idempotency_key_is_taken_and_two_are_refused() {
    let host = host().await;
    let call =
        |lines: &[&str]| request("POST /actors/counter/keyed/increment", lines, r#"{"by":1}"#);
    let same = ["Idempotency-Key: \"k\"", "Idempotency-Key: k"];
    for _ in 0..2 {
        assert_eq!(ask(&host, &call(&same)).await.body, "1");
    }
    let two = call(&["Idempotency-Key: k", "Idempotency-Key: l"]);
    expect(&host, &[(&two, (400, "request.malformed", "", ""))]).await;
    assert_eq!(ask(&host, &call(&[])).await.body, "2");
}

#[tokio::test]
async fn a_step_in_a_path_is_no_actor() {
    let host = host().await;
    let invalid = (400, "actor.invalid-id", "", "");
    expect(
        &host,
        &[
            (&request("GET /actors/counter/../state", &[], ""), invalid),
            (&request("GET /actors/counter/%2e/state", &[], ""), invalid),
            (
                &request("POST /actors/counter/%2E%2e/increment", &[], ""),
                invalid,
            ),
        ],
    )
    .await;
    let mut socket = host.connect().await;
    for dots in [".", ".."] {
        let refused = socket.call(&actor("counter", dots), "value", None).await;
        assert_eq!(refused.code(), "actor.invalid-id");
        assert!(refused.error().contains("a step in a path"), "{dots}");
    }
    assert_eq!(
        socket
            .call(&actor("counter", "..."), "value", None)
            .await
            .result(),
        0
    );
}

#[tokio::test]
async fn a_connection_goes_on_or_ends_as_it_is_said() {
    let host = host().await;
    let mut raw = Raw::to(&host).await;
    for _ in 0..2 {
        raw.send(request("GET /health", &[], "")).await;
        let answer = raw.answer(true).await;
        assert_ne!(answer.header("connection"), "close");
    }
    raw.send(request("GET /health", &["Connection: close"], ""))
        .await;
    assert_eq!(raw.answer(true).await.header("connection"), "close");
    raw.ended().await;

    let mut old = Raw::to(&host).await;
    old.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    assert_eq!(old.answer(true).await.header("connection"), "keep-alive");
    old.send("GET /health HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.answer(true).await.status, 200);
    old.ended().await;
}

/// The headers that a table of `docs/protocol.md` names, the first or the second.
fn documented(table: usize) -> Vec<&'static str> {
    const PAGE: &str = include_str!("../../../docs/protocol.md");
    let section = PAGE.split("\n### Headers\n").nth(1);
    let section = section.and_then(|rest| rest.split("\n### ").next());
    let section = section.expect("a section on headers");
    let table = section.split("| header | what it says |").nth(table + 1);
    let rows = table.expect("a table of headers").lines();
    rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .collect()
}

#[tokio::test]
async fn pages_may_send_and_read_the_documented_headers() {
    let host = Host::builder()
        .component("counter")
        .set("gateway.origins=[\"https://app.example\"]")
        .start()
        .await;
    let preflight = host
        .options("/actors/counter/a/increment")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "idempotency-key")
        .send()
        .await;
    assert_eq!(preflight.status, 204);
    let listed = |response: &tidegate_tests::Response, name: &str| {
        let list = response.headers[name].to_str().expect("a text");
        list.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    let allowed = listed(&preflight, "access-control-allow-headers");
    assert_eq!(allowed, documented(0));
    let called = host
        .post("/actors/counter/a/increment")
        .header("origin", "https://app.example")
        .header("idempotency-key", "k")
        .json(&serde_json::json!({"by": 1}))
        .send()
        .await;
    assert_eq!(
        called.headers["access-control-allow-origin"],
        "https://app.example"
    );
    let exposed = listed(&called, "access-control-expose-headers");
    assert_eq!(exposed, documented(1));
}

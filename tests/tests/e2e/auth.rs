//! Who is calling: tokens at every door.

use serde_json::{Value, json};
use tidegate_tests::{Host, Request, Socket, actor, token};

async fn host() -> Host {
    let builder = Host::builder().component("lab").with_tokens();
    builder.start().await
}

/// A request to upgrade.
fn upgrade(host: &Host, path: &str) -> Request {
    host.get(path)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test]
async fn without_a_key_everybody_is_anonymous() {
    let host = Host::serving(["lab"]).await;
    let mut socket = Socket::signed_in(&host, "anything").await;
    let vault = actor("vault", "1");
    let knock = socket.call(&vault, "knock", json!({})).await;
    assert_eq!(knock.result()["sub"], "nobody");
    socket
        .send(json!({"type": "auth", "token": "anything"}))
        .await;
    let refusal = socket.expect_type("error").await;
    assert_eq!(refusal["code"], "auth.not-configured");
}

#[tokio::test]
async fn with_a_key_nobody_comes_in_without_a_token() {
    let host = host().await;
    let refused = upgrade(&host, "/ws").send().await;
    refused.failed(401, "auth.required");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    let requests = [
        host.post("/actors/lab/1/count"),
        host.get("/actors/lab/1/state"),
        host.get("/actors/lab/1/events"),
        host.get("/actors/lab/1/state")
            .header("accept", "text/event-stream"),
        // In the query a token is for clients that cannot set headers.
        host.post(&format!("/actors/lab/1/count?token={}", token::of("ann"))),
        host.get(&format!("/actors/lab/1/state?token={}", token::of("ann"))),
    ];
    for request in requests {
        request.send().await.failed(401, "auth.required");
    }
    let health = host.get("/health").send().await;
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn the_claims_are_what_the_handler_sees() {
    let host = host().await;
    let vault = actor("vault", "1");
    let token = token::of("ann");
    let mut socket = Socket::signed_in(&host, &token).await;
    let knock = socket.call(&vault, "knock", json!({})).await;
    assert_eq!(knock.result()["sub"], "ann");
    let over_http = host
        .post("/actors/vault/1/knock")
        .header("authorization", &format!("Bearer {token}"))
        .json(&json!({}));
    assert_eq!(over_http.send().await.json()["sub"], "ann");
}

#[tokio::test]
async fn an_event_stream_takes_a_token_in_its_query() {
    let host = host().await;
    let path = format!("/actors/lab/1/state?token={}", token::of("ann"));
    let request = host.get(&path).header("accept", "text/event-stream");
    request.stream().await.expect("snapshot").await;
}

#[tokio::test]
async fn anonymous_clients_come_in_where_that_is_allowed() {
    let builder = Host::builder().component("lab").with_tokens();
    let host = builder.set("auth.allow-anonymous=true").start().await;
    let vault = actor("vault", "1");
    let mut nobody = host.connect().await;
    let knock = nobody.call(&vault, "knock", json!({})).await;
    assert_eq!(knock.result()["sub"], "nobody");
    let wrong = upgrade(&host, "/ws?token=wrong").send().await;
    wrong.failed(401, "auth.invalid");
    nobody
        .send(json!({"type": "auth", "token": token::of("ann")}))
        .await;
    nobody.expect_type("auth:ok").await;
    let knock = nobody.call(&vault, "knock", json!({})).await;
    assert_eq!(knock.result()["sub"], "ann");
}

#[tokio::test]
async fn tokens_that_are_not_valid_are_refused_everywhere() {
    let builder = Host::builder().component("lab").with_tokens();
    let builder = builder.set("auth.audience=tests").set("auth.leeway-ms=0");
    let host = builder.start().await;
    let claims = |change: Value| {
        let mut claims = json!({
            "sub": "ann", "aud": "tests", "exp": token::seconds_from_now(3600),
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let good = token::with_claims(&claims(json!({})));
    upgrade(&host, "/actors/lab/1/state")
        .header("authorization", &format!("Bearer {good}"))
        .send()
        .await
        .json();
    let (_, rest) = good.split_once('.').unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{rest}");
    let cases = [
        (unsigned, "auth.invalid"),
        (good[..good.len() - 5].to_owned(), "auth.invalid"),
        (
            token::signed(&claims(json!({})), b"another secret, which is long enough"),
            "auth.invalid",
        ),
        (
            token::with_claims(&claims(json!({"aud": "others"}))),
            "auth.invalid",
        ),
        (
            token::with_claims(&claims(json!({"nbf": token::seconds_from_now(60)}))),
            "auth.invalid",
        ),
        (
            token::with_claims(&claims(json!({"exp": token::seconds_from_now(-60)}))),
            "auth.expired",
        ),
        ("x".repeat(20_000), "auth.invalid"),
        ("💣".to_owned(), "auth.invalid"),
        (String::new(), "auth.invalid"),
    ];
    for (token, code) in cases {
        let header = host
            .get("/actors/lab/1/state")
            .header("authorization", &format!("Bearer {token}"));
        // What no header can hold is not sent.
        if token.is_ascii() {
            header.send().await.failed(401, code);
        }
        let escaped: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
        if escaped.len() < 60_000 {
            let path = format!("/ws?token={escaped}");
            upgrade(&host, &path).send().await.failed(401, code);
        }
    }
}

#[tokio::test]
async fn a_token_of_100_kilobytes_ends_nothing() {
    let host = host().await;
    let long = "x".repeat(100_000);
    let header = host
        .get("/actors/lab/1/state")
        .header("authorization", &format!("Bearer {long}"));
    let answer = header.send().await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let token = token::of("ann");
    let mut socket = Socket::signed_in(&host, &token).await;
    socket.send(json!({"type": "auth", "token": long})).await;
    let refusal = socket.expect_type("error").await;
    assert_eq!(refusal["code"], "auth.invalid");
    let lab = actor("lab", "1");
    assert_eq!(socket.call(&lab, "count", json!({})).await.result(), 1);
}

#[tokio::test]
async fn a_connection_ends_with_its_token() {
    let builder = Host::builder().component("lab").with_tokens();
    let host = builder.set("auth.leeway-ms=0").start().await;
    let exp = token::seconds_from_now(2);
    let token = token::with_claims(&json!({"sub": "ann", "exp": exp}));
    let mut socket = Socket::signed_in(&host, &token).await;
    let path = format!("/actors/lab/1/state?token={token}");
    let request = host.get(&path).header("accept", "text/event-stream");
    let mut stream = request.stream().await;
    stream.expect("snapshot").await;
    let closed = socket.closed().await;
    assert_eq!(closed.code, 4401, "{closed:?}");
    let last = stream.expect("error").await;
    assert!(last.data.to_string().contains("auth.expired"), "{last:?}");
    stream.ends().await;
}

#[tokio::test]
async fn a_new_token_keeps_the_connection() {
    let builder = Host::builder().component("lab").with_tokens();
    let host = builder.set("auth.leeway-ms=0").start().await;
    let lab = actor("lab", "1");
    let exp = token::seconds_from_now(2);
    let short = token::with_claims(&json!({"sub": "ann", "exp": exp}));
    let mut socket = Socket::signed_in(&host, &short).await;
    let mut other = Socket::signed_in(&host, &short).await;
    // It has a contact already, so that nothing but the call changes the state.
    socket.call(&lab, "zero", json!({})).await.result();
    socket.subscribe_state(&lab).await;
    let later = token::seconds_from_now(3600);
    let long = token::with_claims(&json!({"sub": "ann", "exp": later}));
    socket.send(json!({"type": "auth", "token": long})).await;
    let renewed = socket.expect_type("auth:ok").await;
    assert!(
        renewed["expiresAt"].as_i64() >= Some(later * 1000),
        "{renewed}"
    );
    // The other one did not renew.
    assert_eq!(other.closed().await.code, 4401);
    let reply = socket.call(&lab, "count", json!({})).await;
    assert_eq!(reply.types_before(), ["state:patch"]);
}

#[tokio::test]
async fn a_connection_stays_its_users() {
    let host = host().await;
    let mut socket = Socket::signed_in(&host, &token::of("ann")).await;
    socket
        .send(json!({"type": "auth", "token": token::of("eve")}))
        .await;
    let refusal = socket.expect_type("error").await;
    assert_eq!(refusal["code"], "auth.other-user");
    let vault = actor("vault", "1");
    let knock = socket.call(&vault, "knock", json!({})).await;
    assert_eq!(knock.result()["sub"], "ann");
}

#[tokio::test]
async fn a_token_may_be_among_the_offered_subprotocols() {
    let host = host().await;
    let ann = token::of("ann");
    let offering = |offer: &str| upgrade(&host, "/ws").header("sec-websocket-protocol", offer);
    let accepted = offering(&format!("tidegate, tidegate.token.{ann}"));
    let accepted = accepted.head().await;
    assert_eq!(accepted.status, 101);
    assert_eq!(accepted.headers["sec-websocket-protocol"], "tidegate");
    // Never sent back, also where it is all that is offered.
    let alone = offering(&format!("tidegate.token.{ann}")).head().await;
    assert_eq!(alone.status, 101);
    assert_eq!(alone.headers.get("sec-websocket-protocol"), None);

    let forged = token::signed(
        &json!({"sub": "ann"}),
        b"another secret of more than 32 bytes....",
    );
    let refused = offering(&format!("tidegate, tidegate.token.{forged}"));
    let error = refused.send().await.failed(401, "auth.invalid");
    assert_eq!(error["params"]["reason"], "signature");
    for (offer, header) in [
        (
            format!("tidegate.token.{ann}, tidegate.token.{forged}"),
            None,
        ),
        (format!("tidegate.token.{forged}"), Some(&ann)),
        ("tidegate, tidegate.token.".to_owned(), None),
    ] {
        let mut request = offering(&offer);
        if let Some(token) = header {
            request = request.header("authorization", &format!("Bearer {token}"));
        }
        let error = request.send().await.failed(401, "auth.invalid");
        assert_eq!(error["params"]["reason"], "malformed", "{offer}");
    }
    // Elsewhere it is no place for one.
    let request = host.get("/actors/lab/1/state");
    let request = request.header("sec-websocket-protocol", &format!("tidegate.token.{ann}"));
    request.send().await.failed(401, "auth.required");
}

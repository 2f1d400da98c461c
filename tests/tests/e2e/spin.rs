//! What is only so on Spin: the composition, its manifest, and what is missing in one.

use std::path::Path;

use serde_json::json;
use tidegate_tests::cli::tidegate;
use tidegate_tests::spin::Spin;
use tidegate_tests::{Request, handlers_folder, project};

/// `tidegate compose` of a file, and what it wrote.
async fn composed(handler: &Path) -> Vec<u8> {
    let command = tidegate(["compose"]).arg(handler).arg("-o").arg("app.wasm");
    let (outcome, folder) = command.run_in_folder().await;
    assert_eq!(outcome.printed(), "");
    std::fs::read(folder.path().join("app.wasm")).expect("a composite")
}

#[tokio::test]
async fn every_handler_stands_unchanged_in_its_composite() {
    let mut count = 0;
    for entry in std::fs::read_dir(handlers_folder()).expect("handlers") {
        let file = entry.expect("a file").path();
        if file.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let handler = std::fs::read(&file).expect("a handler");
        let composite = composed(&file).await;
        // Every window of this length is compared, the quick way first.
        let head = &handler[..64.min(handler.len())];
        let mut starts = composite.windows(head.len()).enumerate();
        let found = starts.any(|(at, window)| {
            window == head && composite.get(at..at + handler.len()) == Some(&handler)
        });
        assert!(found, "{} is not in its composite", file.display());
        count += 1;
    }
    assert!(count > 5, "only {count} handlers were there");
}

#[tokio::test]
async fn what_is_no_handler_is_refused_in_one_sentence() {
    let compose = |text: &'static [u8]| {
        let command = tidegate(["compose", "handler.wasm", "-o", "app.wasm"]);
        command.file("handler.wasm", text).run()
    };
    compose(b"\0asm\x01\0\0\0")
        .await
        .failed(["handler.wasm", "wasm32-wasip2"]);
    compose(b"\0asm\x0d\0\x01\0").await.failed([
        "handler.wasm",
        "tidegate:realtime/manifest",
        "none",
    ]);
    compose(b"(component)").await.failed(["text"]);
    compose(b"").await.failed(["not WebAssembly"]);
    let missing = tidegate(["compose", "nothing.wasm", "-o", "app.wasm"]).run();
    missing.await.failed(["cannot read nothing.wasm"]);
    let nowhere = tidegate(["compose", "--events", "-o", "/proc/nothing/app.wasm"]).run();
    nowhere
        .await
        .failed(["cannot write /proc/nothing/app.wasm"]);
}

#[tokio::test]
async fn what_is_refused_is_not_written() {
    let command = tidegate(["compose", "handler.wasm", "-o", "app.wasm"]);
    let command = command
        .file("handler.wasm", b"")
        .file("app.wasm", b"as it was");
    let (outcome, folder) = command.run_in_folder().await;
    outcome.failed([]);
    let kept = std::fs::read(folder.path().join("app.wasm")).expect("a file");
    assert_eq!(kept, b"as it was");
}

#[tokio::test]
async fn the_examples_are_a_spin_application() {
    let manifest = project().join("spin.toml");
    let spin = Spin::builder().application(&manifest).start().await;
    let mut stream = spin.get("/actors/counter/a/state").stream().await;
    stream.expect("snapshot").await;
    let increment = spin.post("/actors/counter/a/increment");
    assert_eq!(increment.json(&json!({"by": 2})).send().await.json(), 2);
    let patch = stream.expect("patch").await.data;
    assert_eq!(patch["patches"][0]["value"], 2);
    for actor in ["chat", "cards", "game", "agent", "tool"] {
        let read = spin.get(&format!("/actors/{actor}/1/state")).send().await;
        assert_eq!(
            (read.status.as_u16(), &read.json()["version"]),
            (200, &json!(0)),
            "{actor}"
        );
    }
    let unknown = spin.post("/actors/nobody/1/x").send().await;
    unknown.failed(404, "actor.unknown");
}

/// Nobody is connected here: a chat is talked in all the same.
#[tokio::test]
async fn a_chat_is_talked_in_without_connections() {
    let spin = Spin::builder().component("chat").start().await;
    let send = |input| spin.post("/actors/chat/1/send").json(&input).send();
    let nobody = send(json!({"text": "Hi"})).await;
    let error = nobody.failed(400, "chat.no-connection");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("`name`"), "{message}");
    let mut stream = spin.get("/actors/chat/1/events").stream().await;
    let said = send(json!({"text": "Hi", "name": "Ann"})).await;
    assert_eq!(
        (said.status.as_u16(), &said.json()["author"]),
        (200, &json!("Ann"))
    );
    let event = stream.expect("event").await.data;
    assert_eq!(event["payload"]["text"], "Hi");
}

#[tokio::test]
async fn a_path_says_which_methods_it_takes() {
    let spin = Spin::builder().component("counter").start().await;
    for (path, methods) in [
        ("/health", "GET,HEAD,OPTIONS"),
        ("/actors/counter/a/state", "GET,HEAD,POST,OPTIONS"),
        ("/actors/counter/a/increment", "POST,OPTIONS"),
    ] {
        let request = |method| Request::new(spin.address(), method, path);
        let options = request(http::Method::OPTIONS).send().await;
        assert_eq!(
            (options.status.as_u16(), options.headers["allow"].as_bytes()),
            (204, methods.as_bytes())
        );
        let put = request(http::Method::PUT).send().await;
        put.failed(405, "request.method-not-allowed");
        assert_eq!(put.headers["allow"], methods, "{path}");
    }
    let get = spin.get("/actors/counter/a/increment").send().await;
    assert_eq!(get.headers["allow"], "POST,OPTIONS");
}

#[tokio::test]
async fn pages_may_name_a_call_and_read_when_to_come_again() {
    let spin = Spin::builder()
        .component("counter")
        .origins("https://app.example");
    let spin = spin.start().await;
    let ask = Request::new(
        spin.address(),
        http::Method::OPTIONS,
        "/actors/counter/a/increment",
    )
    .header("origin", "https://app.example")
    .header("access-control-request-method", "POST");
    let allowed = ask.send().await;
    assert_eq!(allowed.status, 204);
    let listed = |name: &str| {
        let list = allowed.headers[name].to_str().unwrap_or_default();
        list.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    let headers = listed("access-control-allow-headers");
    for name in ["authorization", "idempotency-key", "last-event-id"] {
        assert!(headers.iter().any(|header| header == name), "{headers:?}");
    }
    let exposed = listed("access-control-expose-headers");
    for name in ["retry-after", "allow"] {
        assert!(exposed.iter().any(|header| header == name), "{exposed:?}");
    }
}

#[tokio::test]
async fn a_missing_grant_of_the_database_is_said() {
    let spin = Spin::builder().component("counter").without_database();
    let spin = spin.start().await;
    let increment = spin.post("/actors/counter/a/increment");
    let refused = increment.json(&json!({"by": 1})).send().await;
    for refused in [refused, spin.get("/actors/counter/a/state").send().await] {
        let error = refused.failed(503, "store.unavailable");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("sqlite_databases"), "{message}");
    }
}

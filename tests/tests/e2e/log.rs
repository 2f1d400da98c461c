//! What stands in the log, and on an operator's terminal, is the host's own word: text from
//! outside neither ends a line nor steers a terminal.

use serde_json::{Value, json};
use tidegate_tests::cli::{Scripted, tidegate};
use tidegate_tests::guest::hostile;
use tidegate_tests::{Folder, Host, actor};

/// Ends its line, begins another as the host would, clears the screen, and writes backwards.
const FORGED: &str = "x\n2026-01-01T00:00:00.000000Z  INFO tidegate: forged\r\u{1b}[2J\u{9b}2J\u{85}\u{2028}\u{202e}";

/// Asserts that nothing in the text is more than a line of plain characters.
#[track_caller]
fn assert_plain(log: &str) {
    for line in log.lines() {
        let odd = line
            .chars()
            .find(|c| c.is_control() && *c != '\t' || ('\u{2028}'..='\u{202e}').contains(c));
        assert_eq!(odd, None, "{line:?}");
        assert!(!line.starts_with("2026-01-01"), "{line}");
    }
}

#[tokio::test]
async fn a_name_from_outside_forges_no_line() {
    let host = Host::serving(["lab", "counter"]).await;
    let mut socket = host.connect().await;
    let order = json!({"actor": "counter", "id": "a", "method": FORGED});
    let caller = actor("caller", "a");
    socket.call(&caller, "send", order).await.result();
    let line = host.logged("a message has failed").await;
    assert!(line.contains("method=x\\n2026-01-01T"), "{line}");
    assert_plain(&host.log());
}

#[tokio::test]
async fn a_guest_forges_no_line() {
    let folder = Folder::new();
    let file = folder.path().join("small.wasm");
    std::fs::write(&file, hostile::forging_backtrace(FORGED)).expect("writing a component");
    let host = Host::builder().file("small", &file).start().await;
    let mut socket = host.connect().await;
    let small = actor("small", "a");
    let reply = socket.call(&small, "run", None).await;
    assert_eq!(reply.code(), "handler.trapped");
    let line = host.logged("wasm backtrace").await;
    assert!(line.contains("forged\\r\\x1b"), "{line}");
    assert_plain(&host.log());
}

#[tokio::test]
async fn a_log_in_json_is_as_plain() {
    let host = Host::builder()
        .component("lab")
        .component("counter")
        .argument("--log=json")
        .start()
        .await;
    let mut socket = host.connect().await;
    let order = json!({"actor": "counter", "id": "a", "method": FORGED});
    let caller = actor("caller", "a");
    socket.call(&caller, "send", order).await.result();
    let line = host.logged("a message has failed").await;
    let event: Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!(event["fields"]["method"], FORGED);
    assert_plain(&host.log());
}

#[tokio::test]
async fn what_another_host_says_steers_no_terminal() {
    let body = json!({"components": [{
        "name": FORGED, "digest": "d", "bytes": 1, "actors": [FORGED], "actorsInMemory": 0,
        "instances": 0,
    }]});
    let remote = Scripted::answering(
        "200 OK",
        "content-type: application/json",
        &body.to_string(),
    )
    .await;
    let command = tidegate(["components"]).arg(format!("--to={}", remote.url()));
    let command = command.variable("TIDEGATE_ADMIN_KEY", "some-key-of-an-operator");
    assert_plain(&command.run().await.printed());

    let body = json!({"error": {"code": FORGED, "message": FORGED}});
    let remote = Scripted::answering(
        "422 Unprocessable Content",
        "content-type: application/json",
        &body.to_string(),
    )
    .await;
    let command = tidegate(["remove", "lab"]).arg(format!("--to={}", remote.url()));
    let command = command.variable("TIDEGATE_ADMIN_KEY", "some-key-of-an-operator");
    let outcome = command.run().await;
    assert_plain(&outcome.err);
    outcome.failed(["the host refuses: x\\n2026"]);
}

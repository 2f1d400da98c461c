//! Components that test themselves before they take over.

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Builder, Folder, Host, Response, handlers_folder};

fn handler(name: &str) -> Vec<u8> {
    let file = handlers_folder().join(name).with_extension("wasm");
    std::fs::read(file).expect("reading a component")
}

/// A host that serves the counter, with the variable that says what the self-test of the
/// handler `moved` does.
fn telling(outcome: &str) -> Builder {
    let host = Host::builder().component("counter");
    host.variable("SELF_TEST", outcome)
}

async fn put(host: &Host) -> Response {
    let request = host.admin(Method::PUT, "/components/counter");
    request.body(handler("moved")).send().await
}

async fn versions(host: &Host) -> Value {
    let path = "/components/counter/versions";
    host.admin(Method::GET, path).send().await.json()
}

#[tokio::test]
async fn a_component_that_is_well_takes_over() {
    let host = telling("nothing").start().await;
    let deployed = put(&host).await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
    assert_eq!(versions(&host).await["serving"], 2);
}

#[tokio::test]
async fn a_self_test_that_fails_refuses_the_upload() {
    let folder = Folder::new();
    let host = telling("fail").data(folder.path()).start().await;
    let added = host.post("/actors/counter/a/increment");
    assert_eq!(added.json(&json!({"by": 2})).send().await.json(), 2);
    let error = put(&host).await.failed(422, "component.self-test");
    assert_eq!(
        error["message"],
        "its self-test failed: moved.unwell: not today"
    );
    assert_eq!(error["params"]["code"], "moved.unwell");
    let versions = versions(&host).await;
    assert_eq!(versions["serving"], 1);
    assert_eq!(versions["versions"].as_array().map(Vec::len), Some(1));
    let value = host.post("/actors/counter/a/value").send().await;
    assert_eq!(value.json(), 2, "the old version serves on");
    host.kill().await;
    let host = telling("fail").data(folder.path()).start().await;
    let value = host.post("/actors/counter/a/value").send().await;
    assert_eq!(value.json(), 2);
}

#[tokio::test]
async fn a_self_test_that_does_not_return_refuses_it_too() {
    let host = telling("panic").start().await;
    let error = put(&host).await.failed(422, "component.self-test");
    assert_eq!(error["params"]["code"], "handler.trapped");
    assert_eq!(versions(&host).await["serving"], 1);

    let host = telling("loop").limit("turn-deadline-ms", 300).start().await;
    let error = put(&host).await.failed(422, "component.self-test");
    assert_eq!(error["params"]["code"], "turn.deadline");
    assert_eq!(versions(&host).await["serving"], 1);
}

#[tokio::test]
async fn going_back_is_refused_in_the_same_way() {
    let folder = Folder::new();
    let host = telling("nothing").data(folder.path()).start().await;
    assert_eq!(put(&host).await.status, 200);
    let back = async |host: &Host, version: u64| {
        let request = host.admin(Method::POST, "/components/counter/rollback");
        request.json(&json!({"version": version})).send().await
    };
    assert_eq!(back(&host, 1).await.status, 200);
    host.kill().await;
    let host = telling("fail").data(folder.path()).start().await;
    back(&host, 2).await.failed(422, "component.self-test");
    assert_eq!(versions(&host).await["serving"], 1);
}

#[tokio::test]
async fn what_has_served_before_is_not_asked_again_at_a_start() {
    let folder = Folder::new();
    let host = telling("nothing").data(folder.path()).start().await;
    assert_eq!(put(&host).await.status, 200);
    host.kill().await;
    let host = telling("fail").data(folder.path()).start().await;
    assert_eq!(versions(&host).await["serving"], 2);
}

#[tokio::test]
async fn a_host_does_not_start_with_a_new_file_that_fails() {
    let folder = Folder::new();
    let named = |outcome: &str| {
        let host = Host::builder().component("moved").data(folder.path());
        host.variable("SELF_TEST", outcome)
    };
    let refused = named("fail").refused().await;
    refused.says(["its self-test failed", "moved.unwell", "not today"]);
    drop(named("nothing").start().await);
}

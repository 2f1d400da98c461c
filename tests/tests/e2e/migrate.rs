//! States that outlive the version of the component that stored them: `migrate`.
//!
//! The example `counter` stores `{count}`; the handler `moved` is its next version, which
//! stores `{sum, made_from}`.

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Actor, Builder, Folder, Host, Response, actor, guest, handlers_folder};

fn handler(name: &str) -> Vec<u8> {
    let file = handlers_folder().join(name).with_extension("wasm");
    std::fs::read(file).expect("reading a component")
}

fn on(folder: &Folder) -> Builder {
    Host::builder().component("counter").data(folder.path())
}

fn counter(id: &str) -> Actor {
    actor("counter", id)
}

async fn deploy(host: &Host, component: Vec<u8>) {
    let request = host.admin(Method::PUT, "/components/counter");
    let deployed = request.body(component).send().await;
    assert_eq!(deployed.status, 200, "{deployed:?}");
    assert_eq!(deployed.json()["changed"], true);
}

async fn go_back(host: &Host) {
    let request = host.admin(Method::POST, "/components/counter/rollback");
    let gone = request.json(&json!({})).send().await;
    assert_eq!(gone.status, 200, "{gone:?}");
}

async fn call(host: &Host, id: &str, method: &str, input: Value) -> Response {
    let call = host.post(&format!("/actors/counter/{id}/{method}"));
    call.json(&input).send().await
}

async fn add(host: &Host, id: &str, by: i64) -> Value {
    let added = call(host, id, "increment", json!({"by": by})).await;
    assert_eq!(added.status, 200, "{added:?}");
    added.json()
}

async fn value(host: &Host, id: &str) -> Response {
    call(host, id, "value", Value::Null).await
}

async fn read(host: &Host, id: &str) -> Value {
    let path = format!("/actors/counter/{id}/state");
    host.get(&path).send().await.json()
}

/// What is stored of an actor, without bringing it into memory.
async fn about(host: &Host, id: &str) -> Value {
    let path = format!("/actors/counter/{id}");
    host.admin(Method::GET, &path).send().await.json()
}

fn place_of(about: &Value) -> [&Value; 4] {
    ["state", "stateVersion", "epoch", "version"].map(|field| &about[field])
}

fn migrations(host: &Host) -> usize {
    host.log().matches("migrated a state").count()
}

/// Stores these counts, one for each actor, and dies.
async fn store(folder: &Folder, counts: &[(&str, i64)]) {
    let host = on(folder).start().await;
    for (id, count) in counts {
        add(&host, id, *count).await;
    }
    host.kill().await;
}

#[tokio::test]
async fn a_stored_state_is_migrated_once_and_stays_so_after_a_kill() {
    let folder = Folder::new();
    store(&folder, &[("a", 5), ("b", 6)]).await;
    let host = on(&folder).start().await;
    let before = about(&host, "a").await;
    assert_eq!(before["inMemory"], false);
    deploy(&host, handler("moved")).await;
    assert_eq!(migrations(&host), 0, "what nobody asks for is left alone");
    let seen = read(&host, "a").await;
    assert_eq!(seen["state"], json!({"sum": 5, "made_from": [0]}));
    assert_ne!(seen["epoch"], before["epoch"], "it is another history");
    let line = host.logged("migrated a state").await;
    assert!(
        line.contains("counter/a") && line.contains("to=1"),
        "{line}"
    );
    host.logged(r#"migrates {"count":5} of a"#).await;
    host.kill().await;

    let host = on(&folder).start().await;
    let kept = about(&host, "a").await;
    assert_eq!(kept["inMemory"], false);
    let [state, state_version, _, version] = place_of(&kept);
    assert_eq!(
        [state, state_version, version],
        [&seen["state"], &json!(1), &seen["version"]]
    );
    assert_eq!(value(&host, "a").await.json(), 5);
    assert_eq!(add(&host, "a", 2).await, 7);
    assert_eq!(migrations(&host), 0, "once was enough");
    assert_eq!(add(&host, "b", 1).await, 7);
    assert_eq!(migrations(&host), 1);
    host.kill().await;
    let host = on(&folder).start().await;
    assert_eq!(value(&host, "b").await.json(), 7);
    assert_eq!(migrations(&host), 0);
}

#[tokio::test]
async fn an_actor_in_memory_is_migrated_under_those_who_watch_it() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    add(&host, "a", 5).await;
    let mut watcher = host.connect().await;
    let before = watcher.subscribe_state(&counter("a")).await;
    deploy(&host, handler("moved")).await;
    let after = watcher.expect_type("state:snapshot").await;
    assert_eq!(after["state"], json!({"sum": 5, "made_from": [0]}));
    assert_ne!(after["epoch"], before["epoch"]);
    // Shown is what is safe.
    assert_eq!(about(&host, "a").await["stateVersion"], 1);
    let mut caller = host.connect().await;
    let added = caller
        .call(&counter("a"), "increment", json!({"by": 3}))
        .await;
    assert_eq!(added.result(), 8);
    let patch = watcher.expect_type("state:patch").await;
    assert_eq!(patch["patches"][0]["path"], "/sum");
    assert_eq!(migrations(&host), 1);
    host.kill().await;
    let host = on(&folder).start().await;
    assert_eq!(value(&host, "a").await.json(), 8);
}

#[tokio::test]
async fn all_who_come_at_once_see_one_migration() {
    let folder = Folder::new();
    store(&folder, &[("a", 5)]).await;
    let host = on(&folder).start().await;
    deploy(&host, handler("moved")).await;
    let all = (0..24).map(|number| {
        let host = &host;
        async move {
            match number % 3 {
                0 => read(host, "a").await["epoch"].clone(),
                1 => {
                    let mut socket = host.connect().await;
                    socket.subscribe_state(&counter("a")).await["epoch"].clone()
                }
                _ => {
                    let found = value(host, "a").await;
                    assert_eq!(found.json(), 5);
                    Value::Null
                }
            }
        }
    });
    let seen = futures_util::future::join_all(all).await;
    let epoch = read(&host, "a").await["epoch"].clone();
    for seen in seen.into_iter().filter(|seen| !seen.is_null()) {
        assert_eq!(seen, epoch);
    }
    assert_eq!(migrations(&host), 1);
}

#[tokio::test]
async fn what_comes_with_a_state_stays_with_it() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let keyed = async |host: &Host| {
        let call = host.post("/actors/counter/a/increment");
        let call = call.header("idempotency-key", "\"once\"");
        call.json(&json!({"by": 5})).send().await.json()
    };
    assert_eq!(keyed(&host).await, 5);
    host.kill().await;
    let host = on(&folder).start().await;
    deploy(&host, handler("moved")).await;
    assert_eq!(keyed(&host).await, 5);
    assert_eq!(value(&host, "a").await.json(), 5, "it has not run again");
}

#[tokio::test]
async fn a_state_that_is_not_migrated_stays_as_it_is() {
    let folder = Folder::new();
    let odd = [("refused", 13), ("trap", 14), ("loop", 15), ("large", 1001)];
    store(&folder, &odd).await;
    let quick = || {
        let host = Host::builder().component("counter");
        host.limit("guard-deadline-ms", 300).data(folder.path())
    };
    let host = quick().start().await;
    deploy(&host, handler("moved")).await;
    for (id, status, code, said) in [
        (
            "refused",
            500,
            "state.unfit",
            "counter.unlucky: 13 is no sum",
        ),
        ("trap", 500, "handler.trapped", "migrating the stored state"),
        ("loop", 504, "turn.deadline", "300 ms"),
        ("large", 500, "state.unfit", "what `migrate` made of it"),
    ] {
        let before = about(&host, id).await;
        assert_eq!(before["stateVersion"], 0);
        for _ in 0..2 {
            let error = value(&host, id).await.failed(status, code);
            let is_told = error["message"].as_str().unwrap().contains(said);
            // What is wrong with a state is for operators.
            assert_eq!(is_told, code != "state.unfit", "{error}");
            host.logged(said).await;
        }
        let path = format!("/actors/counter/{id}/state");
        host.get(&path).send().await.failed(status, code);
        assert_eq!(place_of(&about(&host, id).await), place_of(&before));
    }
    let error = value(&host, "refused").await.failed(500, "state.unfit");
    assert_eq!(error["params"]["refusal"], "counter.unlucky");
    let path = "/actors/counter/other/increment";
    let other = host.post(path).json(&json!({"by": 1})).send().await;
    assert_eq!(other.json(), 1, "others are served");
    assert_eq!(migrations(&host), 0);
    host.kill().await;

    let host = quick().start().await;
    go_back(&host).await;
    for (id, count) in odd {
        assert_eq!(value(&host, id).await.json(), count);
    }
}

#[tokio::test]
async fn an_actor_in_memory_that_is_not_migrated_goes_on_once_the_old_version_is_back() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let mut socket = host.connect().await;
    let odd = counter("odd");
    let before = socket.subscribe_state(&odd).await;
    let by = |by: i64| json!({"by": by});
    socket.call(&odd, "increment", by(13)).await.result();
    deploy(&host, handler("moved")).await;
    for _ in 0..2 {
        let refused = socket.call(&odd, "increment", by(1)).await;
        assert_eq!(refused.code(), "state.unfit");
        let path = "/actors/counter/odd/state";
        host.get(path).send().await.failed(500, "state.unfit");
    }
    go_back(&host).await;
    let added = socket.call(&odd, "increment", by(1)).await;
    assert_eq!(added.result(), 14);
    let after = read(&host, "odd").await;
    assert_eq!(after["state"], json!({"count": 14}));
    assert_eq!(
        (&after["epoch"], &after["version"]),
        (&before["epoch"], &json!(2))
    );
}

#[tokio::test]
async fn going_back_behind_a_migration_is_refused_until_the_new_version_is_back() {
    let folder = Folder::new();
    store(&folder, &[("a", 5)]).await;
    let host = on(&folder).start().await;
    deploy(&host, handler("moved")).await;
    assert_eq!(add(&host, "a", 1).await, 6);
    go_back(&host).await;
    value(&host, "a").await.failed(500, "state.unfit");
    host.logged("version 1 of the state, expected version 0")
        .await;
    host.kill().await;
    let host = on(&folder).start().await;
    value(&host, "a").await.failed(500, "state.unfit");
    assert_eq!(
        add(&host, "new", 2).await,
        2,
        "new actors are the old version's"
    );
    deploy(&host, handler("moved")).await;
    assert_eq!(value(&host, "a").await.json(), 6);
    assert_eq!(value(&host, "new").await.json(), 2);
}

/// A component without `migrate` whose states are of this version.
fn of_version(version: u32) -> Vec<u8> {
    let manifest = format!(
        r#"{{"tidegate": "0.1", "actors": {{"counter": {{
            "state": {{"version": {version}}}, "methods": {{"value": {{}}}}}}}}}}"#
    );
    guest::component_saying(&manifest, "", "")
}

async fn export(host: &Host) -> String {
    let exported = host.admin(Method::GET, "/export").send().await;
    String::from_utf8(exported.body.to_vec()).expect("an export is text")
}

async fn import(host: &Host, text: &str) -> Response {
    let request = host.admin(Method::POST, "/import");
    request.body(text.to_owned()).send().await
}

fn exported(state: Value, version: u32) -> String {
    let stored = json!({
        "epoch": "e", "version": 4, "state": state, "stateVersion": version, "lastTimer": 0,
    });
    let lines = [
        json!({"tidegate": "export", "format": 1}),
        json!({"actor": "counter", "id": "a", "stored": stored}),
        json!({"end": {"actors": 1}}),
    ];
    lines.map(|line| format!("{line}\n")).concat()
}

#[tokio::test]
async fn a_migration_may_accept_what_a_newer_version_has_stored() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    deploy(&host, of_version(2)).await;
    let text = exported(json!({"halves": 14}), 2);
    assert_eq!(import(&host, &text).await.json()["imported"], 1);
    let stored = about(&host, "a").await;
    assert_eq!(stored["stateVersion"], 2);
    assert!(export(&host).await.contains(r#""stateVersion":2"#));
    deploy(&host, handler("moved")).await;
    assert_eq!(value(&host, "a").await.json(), 7);
    assert_eq!(read(&host, "a").await["state"]["made_from"], json!([2]));
}

#[tokio::test]
async fn an_import_is_migrated_or_refused() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    deploy(&host, handler("moved")).await;
    let unlucky = import(&host, &exported(json!({"count": 13}), 0)).await;
    let error = unlucky.failed(500, "state.unfit");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("line 2") && message.contains("nothing is imported"),
        "{message}"
    );
    let detail = error["detail"].as_str().unwrap();
    assert!(detail.contains("13 is no sum"), "{detail}");
    let unknown = import(&host, &exported(json!({"sum": 1}), 7)).await;
    let error = unknown.failed(500, "state.unfit");
    assert_eq!(error["params"]["refusal"], "counter.from-the-future");
    let old = import(&host, &exported(json!({"count": 21}), 0)).await;
    assert_eq!(old.json()["imported"], 1);
    let stored = about(&host, "a").await;
    assert_eq!(stored["stateVersion"], 1, "it is stored as it is served");
    assert_eq!(stored["state"]["sum"], 21);
    assert_eq!(value(&host, "a").await.json(), 21);
}

#[tokio::test]
async fn a_number_alone_is_a_reason_to_refuse() {
    let folder = Folder::new();
    store(&folder, &[("a", 5)]).await;
    let host = on(&folder).start().await;
    // Any state satisfies its schema.
    deploy(&host, of_version(1)).await;
    value(&host, "a").await.failed(500, "state.unfit");
    host.logged("version 0 of the state").await;
    deploy(&host, of_version(0)).await;
    assert_eq!(value(&host, "a").await.status, 204);
}

#[tokio::test]
async fn a_member_with_a_default_needs_no_migration() {
    let folder = Folder::new();
    store(&folder, &[("a", 5)]).await;
    let host = on(&folder).start().await;
    let before = read(&host, "a").await;
    // It has one member more, and no `migrate`.
    deploy(&host, handler("counter2")).await;
    let added = add(&host, "a", 1).await;
    assert_eq!(added, 6);
    let after = read(&host, "a").await;
    assert_eq!(after["version"], 2);
    go_back(&host).await;
    assert_eq!(add(&host, "a", 1).await, 7);
    assert_eq!(read(&host, "a").await["epoch"], before["epoch"]);
}

#[tokio::test]
async fn an_actor_to_which_nothing_happened_begins_as_the_new_version_has_it() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let mut watcher = host.connect().await;
    let before = host.get("/actors/counter/a/state").send().await.json();
    assert_eq!(before["state"], json!({"count": 0}));
    watcher.subscribe_state(&counter("b")).await;
    deploy(&host, handler("moved")).await;
    let after = read(&host, "a").await;
    assert_eq!(after["state"], json!({"sum": 0, "made_from": []}));
    assert_eq!(after["version"], 0);
}

#[tokio::test]
async fn without_a_disk_states_are_migrated_all_the_same() {
    let host = Host::builder()
        .component("counter")
        .argument("--memory")
        .set("actors.idle-timeout-ms=50")
        .start()
        .await;
    add(&host, "a", 5).await;
    host.until_asleep(&actor("counter", "a")).await;
    deploy(&host, handler("moved")).await;
    assert_eq!(add(&host, "a", 1).await, 6);
    assert_eq!(read(&host, "a").await["state"]["made_from"], json!([0]));
}

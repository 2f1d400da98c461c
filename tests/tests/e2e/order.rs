//! Members stand in one order, that in which they came, for whoever looks at a state.

use http::Method;
use serde_json::{Value, json};
use tidegate_core::{Json, PatchOp, patch};
use tidegate_tests::{Builder, Folder, Host};

fn on(folder: &Folder) -> Builder {
    Host::builder().component("puppet").data(folder.path())
}

/// Sets and removes members of a puppet's state, one after the other in one turn.
async fn run(host: &Host, steps: Value) {
    let path = "/actors/puppet/a/run";
    assert_eq!(host.post(path).json(&steps).send().await.status, 200);
}

/// The member `state` of a text, as it stands there.
fn state_in(text: &[u8]) -> String {
    let text = std::str::from_utf8(text).unwrap();
    Json::parse(text).unwrap().get("state").unwrap().to_text()
}

async fn read(host: &Host) -> String {
    let response = host.get("/actors/puppet/a/state").send().await;
    state_in(&response.body)
}

#[tokio::test]
async fn members_stand_in_the_order_in_which_they_came_for_everybody() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let mut watcher = host.get("/actors/puppet/a/state").stream().await;
    watcher.expect("snapshot").await;
    let mut seen = Json::parse(&state_in(watcher.data().as_bytes())).unwrap();
    let turns = [
        json!([{"set": {"zz": 1}}, {"set": {"mm": {"y": 1}}}, {"set": {"aa": 2}}]),
        json!([{"set": {"zz": {"n": 3}}}, {"set": {"7": 1}}, {"set": {"": 0}}]),
        // One that goes and comes again within a turn keeps its place, later on it is the last.
        json!([{"remove": "mm"}, {"set": {"mm": 5}}, {"remove": "log"}]),
        json!([{"set": {"log": []}}, {"set": {"bb": 1}}]),
    ];
    for turn in turns {
        run(&host, turn).await;
        watcher.expect("patch").await;
        let told = Json::parse(watcher.data()).unwrap();
        let patches = told.get("patches").unwrap().to_text();
        let patches: Vec<PatchOp> = serde_json::from_str(&patches).unwrap();
        patch::apply(&mut seen, &patches).unwrap();
        assert_eq!(seen.to_text(), read(&host).await);
    }
    let expected = r#"{"n":0,"text":"","zz":{"n":3},"mm":5,"aa":2,"7":1,"":0,"log":[],"bb":1}"#;
    assert_eq!(seen.to_text(), expected);

    let exported = host.admin(Method::GET, "/export").send().await;
    let exported = String::from_utf8(exported.body.to_vec()).unwrap();
    assert!(exported.contains(expected), "{exported}");
    let about = host.admin(Method::GET, "/actors/puppet/a").send().await;
    assert_eq!(state_in(&about.body), expected);

    host.kill().await;
    let host = on(&folder).start().await;
    assert_eq!(read(&host).await, expected);
    run(&host, json!([{"set": {"ab": 1}}])).await;
    assert!(read(&host).await.ends_with(r#""bb":1,"ab":1}"#));

    let other = Folder::new();
    let copy = on(&other).start().await;
    let import = copy.admin(Method::POST, "/import").body(exported);
    assert_eq!(import.send().await.status, 200);
    assert_eq!(read(&copy).await, expected);
}

#[tokio::test]
async fn a_result_keeps_the_order_that_the_handler_gives_it() {
    let host = Host::serving(["puppet"]).await;
    let echo = r#"{"zz":1,"aa":{"y":1,"x":2}}"#;
    let response = host.post("/actors/puppet/a/echo").body(echo).send().await;
    assert_eq!(&response.body[..], echo.as_bytes());
}

#[tokio::test]
async fn a_state_that_is_written_whole_in_another_order_keeps_its_own() {
    let host = Host::serving(["puppet"]).await;
    let whole = |text: &str| json!([{"whole": text}]);
    run(&host, whole(r#"{"a":{"x":1,"y":2},"b":1}"#)).await;
    let mut watcher = host.get("/actors/puppet/a/state").stream().await;
    watcher.expect("snapshot").await;
    run(&host, whole(r#"{"new":0,"b":2,"a":{"z":3,"y":2,"x":1}}"#)).await;
    watcher.expect("patch").await;
    let told = Json::parse(watcher.data()).unwrap();
    assert_eq!(
        told.get("patches").unwrap().to_text(),
        r#"[{"op":"add","path":"/a/z","value":3},{"op":"replace","path":"/b","value":2},{"op":"add","path":"/new","value":0}]"#
    );
    let expected = r#"{"a":{"x":1,"y":2,"z":3},"b":2,"new":0}"#;
    assert_eq!(read(&host).await, expected);
    // The same in yet another order is no change.
    run(&host, whole(r#"{"b":2,"new":0,"a":{"y":2,"z":3,"x":1}}"#)).await;
    run(&host, json!([{"set": {"last": 1}}])).await;
    watcher.expect("patch").await;
    assert!(watcher.data().contains(r#""path":"/last""#));
}

//! Messages between actors: what was sent by a turn that committed is delivered once and in
//! order, whatever happens on the way.

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Actor, Builder, Folder, Host, Socket, actor, handlers_folder};

/// A step of a `puppet`.
fn send(id: &str, method: &str, input: impl Into<Value>) -> Value {
    json!({"send": {"actor": "puppet", "id": id, "method": method, "input": input.into()}})
}

fn on(folder: &Folder) -> Builder {
    Host::builder().component("puppet").data(folder.path())
}

/// What an actor has noted, once so many notes are there.
async fn notes(socket: &mut Socket, puppet: &Actor, count: usize) -> Vec<Value> {
    let log = |state: &Value| state["log"].as_array().cloned().unwrap_or_default();
    let state = socket
        .watch(puppet, |state| log(state).len() >= count)
        .await;
    socket.unsubscribe_state(puppet).await;
    let inputs = log(&state).into_iter().map(|note| note["input"].clone());
    inputs.collect()
}

/// Has an actor be busy with a turn that does not end by itself.
async fn occupy(socket: &mut Socket, puppet: &Actor) -> String {
    let steps = json!([{"checkpoint": "now"}, {"chunk": "busy"}, {"sleep": 60_000}]);
    let id = socket.begin_call(puppet, "stream", steps).await;
    socket.expect_type("rpc:stream").await;
    id
}

#[tokio::test]
async fn a_message_that_waited_when_the_host_was_killed_is_delivered_once() {
    let folder = Folder::new();
    let (a, b) = (actor("puppet", "a"), actor("puppet", "b"));
    let host = on(&folder).start().await;
    let mut busy = host.connect().await;
    occupy(&mut busy, &b).await;
    let mut socket = host.connect().await;
    let steps = json!([send("b", "note", 1), send("b", "note", 2)]);
    socket.call(&a, "run", steps).await.result();
    host.kill().await;

    // Nobody has contact with either of them.
    let host = on(&folder).start().await;
    let mut socket = host.connect().await;
    assert_eq!(notes(&mut socket, &b, 2).await, [1, 2]);
    // That they have arrived need not be known to their sender's record yet.
    host.kill().await;

    let host = on(&folder).start().await;
    let mut socket = host.connect().await;
    let more = json!([send("b", "note", 3)]);
    socket.call(&a, "run", more).await.result();
    assert_eq!(notes(&mut socket, &b, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn an_orderly_stop_loses_no_message() {
    let folder = Folder::new();
    let (a, b) = (actor("puppet", "a"), actor("puppet", "b"));
    let mut host = on(&folder)
        .set("gateway.shutdown-grace-ms=100")
        .start()
        .await;
    let mut busy = host.connect().await;
    occupy(&mut busy, &b).await;
    let mut socket = host.connect().await;
    let steps = json!([send("b", "note", "late")]);
    socket.call(&a, "run", steps).await.result();
    host.terminate().await;
    host.ended().await;

    let host = on(&folder).start().await;
    let mut socket = host.connect().await;
    assert_eq!(notes(&mut socket, &b, 1).await, ["late"]);
}

#[tokio::test]
async fn messages_wait_for_room_and_keep_their_order() {
    let host = Host::builder()
        .component("puppet")
        .set("actors.mailbox-items=2")
        .start()
        .await;
    let (a, b) = (actor("puppet", "a"), actor("puppet", "b"));
    let mut busy = host.connect().await;
    let call = occupy(&mut busy, &b).await;
    let mut socket = host.connect().await;
    for tens in 0..3 {
        let numbers = tens * 10..(tens + 1) * 10;
        let steps: Vec<Value> = numbers.map(|n| send("b", "note", n)).collect();
        socket.call(&a, "run", Value::from(steps)).await.result();
    }
    // Others are served meanwhile.
    let steps = json!([send("c", "note", "not behind")]);
    socket.call(&a, "run", steps).await.result();
    assert_eq!(
        notes(&mut socket, &actor("puppet", "c"), 1).await,
        ["not behind"]
    );
    busy.send(json!({"type": "rpc:cancel", "id": call})).await;
    let expected: Vec<Value> = (0..30).map(Value::from).collect();
    assert_eq!(notes(&mut socket, &b, 30).await, expected);
}

#[tokio::test]
async fn so_many_messages_may_be_on_their_way() {
    let host = Host::builder()
        .component("puppet")
        .set("actors.max-unsettled=3")
        .start()
        .await;
    let (a, b) = (actor("puppet", "a"), actor("puppet", "b"));
    let mut busy = host.connect().await;
    let call = occupy(&mut busy, &b).await;
    let mut socket = host.connect().await;
    let steps = json!([send("b", "note", 1), send("b", "note", 2)]);
    socket.call(&a, "run", steps).await.result();
    let steps = json!([send("b", "note", 3), send("b", "note", 4)]);
    let told = socket.call(&a, "run", steps).await.result();
    assert_eq!(told[0], Value::Null);
    assert_eq!(told[1]["failed"], "message.limit");
    busy.send(json!({"type": "rpc:cancel", "id": call})).await;
    assert_eq!(notes(&mut socket, &b, 3).await, [1, 2, 3]);
    // What has arrived makes room, once its receiver has said so.
    let mut number = 4;
    while number < 8 {
        let steps = json!([send("b", "note", number)]);
        if socket.call(&a, "run", steps).await.result()[0].is_null() {
            number += 1;
        }
    }
    let expected: Vec<Value> = (1..8).map(Value::from).collect();
    assert_eq!(notes(&mut socket, &b, 7).await, expected);
}

#[tokio::test]
async fn a_message_that_fails_is_not_sent_again() {
    let folder = Folder::new();
    let a = actor("puppet", "a");
    let b = actor("puppet", "b");
    let host = on(&folder).start().await;
    let mut socket = host.connect().await;
    let failing = send("b", "run", json!([{"fail": "puppet.no"}]));
    let steps = json!([failing, send("b", "note", 1)]);
    socket.call(&a, "run", steps).await.result();
    host.logged("a message has failed").await;
    assert_eq!(notes(&mut socket, &b, 1).await, [1]);
    // With its next commit the sender's record says so.
    socket.call(&a, "note", json!(2)).await.result();
    host.kill().await;
    let host = on(&folder).start().await;
    let mut socket = host.connect().await;
    let steps = json!([send("b", "note", 3)]);
    socket.call(&a, "run", steps).await.result();
    assert_eq!(notes(&mut socket, &b, 2).await, [1, 3]);
    assert!(!host.log().contains("a message has failed"));
}

#[tokio::test]
async fn a_message_waits_for_a_component_that_is_not_there_yet() {
    let folder = Folder::new();
    let host = on(&folder).start().await;
    let a = actor("puppet", "a");
    let mut socket = host.connect().await;
    let order = json!({"actor": "counter", "id": "c", "method": "increment", "input": {"by": 5}});
    let steps = json!([{"send": order}]);
    socket.call(&a, "run", steps).await.result();
    host.kill().await;
    let host = on(&folder).start().await;
    let counter = std::fs::read(handlers_folder().join("counter.wasm")).expect("the counter");
    let put = host.admin(Method::PUT, "/components/counter").body(counter);
    assert_eq!(put.send().await.status, 200);
    let mut socket = host.connect().await;
    let counter = actor("counter", "c");
    socket.watch(&counter, |state| state["count"] == 5).await;
}

#[tokio::test]
async fn a_back_up_has_the_messages_that_are_on_their_way() {
    let folder = Folder::new();
    let (a, b) = (actor("puppet", "a"), actor("puppet", "b"));
    let host = on(&folder).start().await;
    let mut busy = host.connect().await;
    occupy(&mut busy, &b).await;
    let mut socket = host.connect().await;
    let steps = json!([send("b", "note", 1)]);
    socket.call(&a, "run", steps).await.result();
    let exported = host.admin(Method::GET, "/export").send().await;
    assert_eq!(exported.status, 200);
    let other = Host::serving(["puppet"]).await;
    let imported = other.admin(Method::POST, "/import");
    let imported = imported.body(exported.body).send().await;
    assert_eq!(imported.status, 200, "{imported:?}");
    let mut socket = other.connect().await;
    socket.call(&a, "note", json!("awake")).await.result();
    assert_eq!(notes(&mut socket, &b, 1).await, [1]);
}

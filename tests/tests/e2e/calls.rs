//! Calls between actors.

use serde_json::{Value, json};
use tidegate_tests::{Host, actor};

fn call(id: &str, method: &str, input: Value) -> Value {
    json!({"actor": "puppet", "id": id, "method": method, "input": input})
}

#[tokio::test]
async fn an_actor_calls_another_and_gets_its_result() {
    let host = Host::serving(["puppet", "counter"]).await;
    let puppet = actor("puppet", "a");
    let mut socket = host.connect().await;
    let other = json!({"actor": "counter", "id": "c", "method": "increment", "input": {"by": 3}});
    let steps = json!([{"call": call("b", "note", json!("hi"))}, {"call": other}]);
    let told = socket.call(&puppet, "run", steps).await.result();
    assert_eq!(told, json!(["noted", 3]));
    let state = host.get("/actors/puppet/b/state").send().await.json();
    let entry = json!({"by": "actor", "actor": "puppet", "id": "a", "input": "hi"});
    assert_eq!(state["state"]["log"], json!([entry]));
}

#[tokio::test]
async fn failures_of_the_called_are_told() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "a");
    let mut socket = host.connect().await;
    let steps = json!([
        {"call": call("b", "run", json!([{"fail": "other.no"}]))},
        {"call": call("b", "run", json!([{"trap": 1}]))},
        {"call": call("b", "nothing", json!(null))},
        {"call": call("b", "strict", json!("text"))},
        {"call": {"actor": "nobody", "id": "x", "method": "y"}},
        {"call": {"actor": "puppet", "id": "", "method": "y"}},
        {"call": {"actor": "puppet", "id": "b", "method": "run", "input": [{"sleep": 3000}], "timeout": 50}},
    ]);
    let told = socket.call(&puppet, "run", steps).await.result();
    let codes: Vec<&str> = told
        .as_array()
        .unwrap()
        .iter()
        .map(|told| told["failed"].as_str().unwrap_or("?"))
        .collect();
    assert_eq!(
        codes,
        [
            "other.no",
            "handler.trapped",
            "method.unknown",
            "input.invalid",
            "actor.unknown",
            "actor.invalid-id",
            "call.timeout"
        ]
    );
}

#[tokio::test]
async fn a_call_that_would_wait_for_itself_fails_at_once() {
    let host = Host::serving(["puppet"]).await;
    let a = actor("puppet", "a");
    let mut socket = host.connect().await;
    let itself = json!([{"call": call("a", "note", json!(null))}]);
    let told = socket.call(&a, "run", itself).await.result();
    assert_eq!(told[0]["failed"], "call.deadlock");
    let circle = call(
        "b",
        "run",
        json!([{"call": call("a", "note", json!(null))}]),
    );
    let told = socket
        .call(&a, "run", json!([{"call": circle}]))
        .await
        .result();
    assert_eq!(told[0][0]["failed"], "call.deadlock");
    let long = call(
        "c",
        "run",
        json!([{"call": call("a", "note", json!(null))}]),
    );
    let long = call("b", "run", json!([{"call": long}]));
    let told = socket
        .call(&a, "run", json!([{"call": long}]))
        .await
        .result();
    assert_eq!(told[0][0][0]["failed"], "call.deadlock");
}

#[tokio::test]
async fn two_that_call_each_other_do_not_hang() {
    let host = Host::serving(["puppet"]).await;
    let (a, b) = (actor("puppet", "a"), actor("puppet", "b"));
    let mut socket = host.connect().await;
    let towards = |id: &str| json!([{"sleep": 100}, {"call": call(id, "note", json!(null))}]);
    let one = socket.begin_call(&a, "run", towards("b")).await;
    let two = socket.begin_call(&b, "run", towards("a")).await;
    // Whoever comes second closes the circle.
    let first = socket.next().await;
    let second = socket.next().await;
    let results = [&first, &second].map(|frame| frame["result"][1].clone());
    let ids = [&first, &second].map(|frame| frame["id"].as_str().unwrap().to_owned());
    assert!(ids.contains(&one) && ids.contains(&two), "{ids:?}");
    let deadlocks = results
        .iter()
        .filter(|result| result["failed"] == "call.deadlock")
        .count();
    assert!(deadlocks <= 1, "{results:?}");
    assert!(results.contains(&json!("noted")), "{results:?}");
}

#[tokio::test]
async fn several_are_called_at_once() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "a");
    let mut socket = host.connect().await;
    // Each waits until the other two have begun, or would, if they ran one by one.
    let slow = |id: &str| call(id, "run", json!([{"sleep": 1500}, {"set": {"n": 1}}]));
    let steps = json!([
        {"callAll": [slow("b"), slow("c"), slow("d"), call("a", "note", json!(null))]},
    ]);
    // One by one they would run into the deadline of 5 s before the last.
    let more = json!([{"callAll": [slow("e"), slow("f"), slow("g"), slow("h")]}]);
    let told = socket.call(&puppet, "run", steps).await.result();
    assert_eq!(told[0][0], json!([null, null]));
    assert_eq!(told[0][3]["failed"], "call.deadlock");
    let told = socket.call(&puppet, "run", more).await.result();
    assert_eq!(told[0][3], json!([null, null]));
}

#[tokio::test]
async fn a_message_is_sent_when_the_turn_has_committed() {
    let host = Host::serving(["puppet"]).await;
    let a = actor("puppet", "a");
    let b = actor("puppet", "b");
    let mut socket = host.connect().await;
    let failing = json!([{"send": call("b", "note", json!("never"))}, {"fail": "puppet.no"}]);
    assert_eq!(socket.call(&a, "run", failing).await.code(), "puppet.no");
    let steps = json!([
        {"send": call("b", "note", json!("once"))},
        {"send": call("a", "note", json!("to itself"))},
    ]);
    assert_eq!(
        socket.call(&a, "run", steps).await.result(),
        json!([null, null])
    );
    let noted = |state: &Value| state["log"].as_array().is_some_and(|log| !log.is_empty());
    let state = socket.watch(&b, noted).await;
    assert_eq!(state["log"].as_array().map(Vec::len), Some(1));
    assert_eq!(state["log"][0]["input"], "once");
    let state = socket.watch(&a, noted).await;
    assert_eq!(state["log"][0]["input"], "to itself");
}

#[tokio::test]
async fn calls_nest_so_deep_and_no_deeper() {
    let host = Host::builder()
        .component("puppet")
        .set("actors.max-call-depth=3")
        .start()
        .await;
    let puppet = actor("puppet", "0");
    let mut socket = host.connect().await;
    let mut steps = json!([]);
    for depth in (1..=5).rev() {
        steps = json!([{"call": call(&depth.to_string(), "run", steps)}]);
    }
    let told = socket.call(&puppet, "run", steps).await.result();
    assert_eq!(told, json!([[[[{"failed": "call.depth-limit"}]]]]));
}

#[tokio::test]
async fn one_turn_makes_so_many_calls() {
    let host = Host::builder()
        .component("puppet")
        .limit("calls", 2)
        .start()
        .await;
    let puppet = actor("puppet", "a");
    let mut socket = host.connect().await;
    let note = json!({"call": call("b", "note", json!(null))});
    let steps = json!([note, note, note, {"send": call("b", "note", json!(null))}]);
    let told = socket.call(&puppet, "run", steps).await.result();
    let failed = json!({"failed": "call.limit"});
    assert_eq!(told, json!(["noted", "noted", failed, failed]));
}

#[tokio::test]
async fn the_called_has_no_longer_than_the_caller() {
    let host = Host::serving(["puppet"]).await;
    let puppet = actor("puppet", "a");
    let mut socket = host.connect().await;
    let steps = json!([{"call": call("b", "run", json!([{"deadline": null}]))}]);
    let told = socket.call(&puppet, "hasty", steps).await.result();
    assert!(told[0][0].as_u64() <= Some(300), "{told}");
}

//! A number without a fraction is an integer, however it is written: wherever a schema declares
//! one, typed readers get what they can read.

use serde_json::json;
use tidegate_tests::Host;

async fn host() -> Host {
    Host::builder()
        .component("puppet")
        .component("counter")
        .set("actors.validate-results=true")
        .start()
        .await
}

async fn post(host: &Host, path: &str, body: &str) -> String {
    let response = host.post(path).body(body.to_owned()).send().await;
    String::from_utf8(response.body.to_vec()).unwrap()
}

#[tokio::test]
async fn an_input_is_handed_over_as_the_integer_that_it_is() {
    let host = host().await;
    for (input, handed) in [
        ("1.0", "1"),
        ("1e2", "100"),
        ("-0", "0"),
        ("-3.0", "-3"),
        ("7", "7"),
        ("1e19", "10000000000000000000"),
    ] {
        let path = "/actors/puppet/a/echoInteger";
        assert_eq!(post(&host, path, input).await, handed, "{input}");
    }
    let refused = host.post("/actors/puppet/a/echoInteger").body("1.5");
    let error = refused.send().await.failed(400, "input.invalid");
    assert_eq!(
        error["params"]["issues"][0]["message"],
        "expected integer, found 1.5"
    );
    // Where no integer is declared the text is the caller's.
    assert_eq!(post(&host, "/actors/puppet/a/echo", "1.0").await, "1.0");
}

#[tokio::test]
async fn a_typed_handler_reads_it() {
    let host = host().await;
    for (by, count) in [("1.0", "1"), ("1e2", "101"), ("-1.0e0", "100")] {
        let body = format!(r#"{{"by":{by}}}"#);
        assert_eq!(
            post(&host, "/actors/counter/a/increment", &body).await,
            count
        );
    }
    // What the type does not hold is refused with its place.
    let request = host
        .post("/actors/counter/a/increment")
        .body(r#"{"by":1e19}"#);
    let error = request.send().await.failed(400, "input.invalid");
    assert_eq!(error["params"]["issues"][0]["path"], "/by");
}

#[tokio::test]
async fn results_events_and_states_are_written_as_integers() {
    let host = host().await;
    assert_eq!(post(&host, "/actors/puppet/a/float", "null").await, "1");

    let mut events = host.get("/actors/puppet/a/events").stream().await;
    let steps = json!([{"emitText": "1e1"}]);
    let emitted = host.post("/actors/puppet/a/run").json(&steps).send().await;
    assert_eq!(emitted.status, 200);
    events.next().await;
    assert!(events.data().contains("10") && !events.data().contains("10.0"));

    let steps = json!([{"whole": r#"{"items":[{"count":1.0},{"count":2},{"count":-0}]}"#}]);
    let written = host
        .post("/actors/inventory/a/run")
        .json(&steps)
        .send()
        .await;
    assert_eq!(written.status, 200);
    let state = host.get("/actors/inventory/a/state").send().await;
    let text = String::from_utf8(state.body.to_vec()).unwrap();
    assert!(
        text.contains(r#"{"items":[{"count":1},{"count":2},{"count":0}]}"#),
        "{text}"
    );
}

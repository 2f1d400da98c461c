//! One behaviour, two places: every test here runs against the host and against the same
//! handlers composed for Spin. Where the two differ, the test says how.
//!
//! `on_spin` is served by the test host; with `TIDEGATE_SPIN=1` by the `spin` on the PATH.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_tests::target::{Application, Served, Target};
use tidegate_tests::{Folder, PATIENCE, Request, Response, dialect, spin, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_host {
            use super::Target;
            $(#[tokio::test] async fn $name() { super::$name(Target::Host).await; })*
        }
        mod on_spin {
            use super::Target;
            $(#[tokio::test] async fn $name() { super::$name(Target::Spin).await; })*
        }
    };
}

on_both!(
    a_call_returns_its_result,
    a_method_without_a_result_returns_no_content,
    an_empty_body_is_no_input,
    an_input_that_the_schema_refuses_says_where,
    an_input_that_was_not_sent_is_missing,
    what_is_unknown_is_not_found,
    a_body_that_is_not_json_is_refused,
    a_member_twice_is_refused,
    a_body_of_five_megabytes_is_refused,
    the_wrong_http_method_is_refused,
    each_path_leads_to_the_same_place,
    no_other_method_is_taken_for_a_call,
    a_turn_that_takes_too_long_says_what_it_may,
    a_failure_has_its_status_message_and_params,
    ids_are_percent_decoded,
    the_state_can_be_read,
    an_actor_that_nobody_has_called_has_its_initial_state,
    hidden_members_are_never_shown,
    a_failed_call_leaves_nothing,
    what_a_handler_must_not_do_fails_its_turn,
    a_turn_stages_so_much_and_no_more,
    a_handler_that_traps_harms_its_own_call_alone,
    a_stream_that_traps_ends_early,
    a_host_with_a_key_wants_a_token,
    a_guard_decides_who_sees,
    a_guard_decides_what_is_seen,
    a_guarded_stream_is_each_clients_own,
    chunks_come_before_the_result,
    a_stream_of_chunks_may_end_in_an_error,
    chunks_come_while_the_method_runs,
    a_streaming_method_is_seen_while_it_runs,
    what_was_let_out_stays_when_the_rest_fails,
    a_state_stream_is_a_snapshot_and_patches,
    text_that_grows_is_sent_as_text_to_those_who_ask,
    an_event_stream_has_the_actors_events_only,
    a_stream_of_an_unknown_actor_is_refused,
    a_state_stream_goes_on_from_its_last_event,
    another_history_is_sent_whole,
    a_call_with_a_key_runs_once,
    a_key_is_of_one_input,
    a_key_is_a_short_text,
    keys_are_their_users_own,
    a_timer_fires,
    an_interval_goes_on_until_it_is_cancelled,
    a_turn_that_fails_sets_no_timer,
    what_cannot_be_set_is_said,
    the_clocks_door_is_locked,
    actors_call_each_other,
    failures_of_the_called_are_told,
    a_call_that_would_wait_for_itself_fails,
    several_are_called_at_once,
    a_message_arrives_once_the_turn_has_committed,
    a_hundred_increments_at_once_are_all_counted,
    first_writes_to_new_actors_at_once_are_all_counted,
    calls_during_a_stream_are_kept_apart,
    a_kill_in_the_middle_of_a_turn_leaves_nothing,
    what_was_acknowledged_is_there_after_a_kill,
    a_body_that_is_cut_off_is_no_call,
    a_call_that_is_cut_off_leaves_its_whole_turn_or_nothing,
    pages_of_other_sites_are_refused,
    a_websocket_is_for_the_host_alone,
    the_host_says_that_it_is_well,
);

/// A call of a method.
fn call(on: &Served, path: &str, input: Value) -> Request {
    on.post(&format!("/actors/{path}")).json(&input)
}

/// Calls a method and returns its result.
async fn result(on: &Served, path: &str, input: Value) -> Value {
    let response = call(on, path, input).send().await;
    assert_eq!(response.status, 200, "{path}: {response:?}");
    response.json()
}

/// The state of an actor.
async fn state(on: &Served, actor: &str) -> Value {
    let read = on.get(&format!("/actors/{actor}/state")).send().await;
    assert_eq!(read.status, 200, "{actor}: {read:?}");
    read.json()["state"].clone()
}

fn signed_in(request: Request, user: &str) -> Request {
    request.header("authorization", &format!("Bearer {}", token::of(user)))
}

/// Has the clock tick: on Spin nothing wakes an actor by itself.
async fn tick(on: &Served) {
    if on.target() == Target::Spin {
        let door = on.post("/_tidegate/tick");
        let key = format!("Bearer {}", spin::TICK_KEY);
        let ticked = door.header("authorization", &key).send().await;
        assert!(ticked.status.is_success(), "{ticked:?}");
    }
}

/// Reads a state again and again, with a tick before each time, until it is as wanted.
async fn until(on: &Served, actor: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let reading = async {
        loop {
            tick(on).await;
            let state = state(on, actor).await;
            if wanted(&state) {
                return state;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, reading).await;
    found.unwrap_or_else(|_| panic!("{actor} does not become what is wanted"))
}

fn log_of(state: &Value) -> &[Value] {
    state["log"].as_array().map_or(&[], Vec::as_slice)
}

// Calls

async fn a_call_returns_its_result(on: Target) {
    let on = on.serving(["counter"]).await;
    let response = call(&on, "counter/a/increment", json!({"by": 2}))
        .send()
        .await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["cache-control"], "no-store");
    assert_eq!(response.json(), 2);
    let again = result(&on, "counter/a/increment", json!({"by": 3})).await;
    assert_eq!(again, 5);
}

async fn a_method_without_a_result_returns_no_content(on: Target) {
    let on = on.serving(["lab"]).await;
    let response = on.post("/actors/lab/1/undef").send().await;
    assert_eq!((response.status.as_u16(), response.body.len()), (204, 0));
    let response = on.post("/actors/lab/1/nul").send().await;
    assert_eq!(
        (response.status.as_u16(), response.json()),
        (200, Value::Null)
    );
}

async fn an_empty_body_is_no_input(on: Target) {
    let on = on.serving(["lab"]).await;
    let response = on.post("/actors/lab/1/count").send().await;
    assert_eq!((response.status.as_u16(), response.json()), (200, json!(1)));
}

async fn an_input_that_the_schema_refuses_says_where(on: Target) {
    let on = on.serving(["lab"]).await;
    let response = call(&on, "lab/1/announce", json!({"text": 7})).send().await;
    let error = response.failed(400, "input.invalid");
    assert_eq!(
        error,
        json!({
            "code": "input.invalid",
            "message": "Validation failed for announce: /text: expected string, found number",
            "params": {"issues": [{"message": "expected string, found number", "path": "/text"}]},
        })
    );
}

async fn an_input_that_was_not_sent_is_missing(on: Target) {
    let on = on.serving(["lab"]).await;
    let absent = on.post("/actors/lab/1/announce").send().await;
    let error = absent.failed(400, "input.invalid");
    let said = "missing: expected object";
    let message = format!("Validation failed for announce: /: {said}");
    assert_eq!(error["message"], message);
    let issues = json!([{"message": said, "path": ""}]);
    assert_eq!(error["params"]["issues"], issues);
    // Who has written `null` is told of it.
    let null = call(&on, "lab/1/announce", Value::Null).send().await;
    let error = null.failed(400, "input.invalid");
    let said = error["params"]["issues"][0]["message"].as_str();
    assert_eq!(said, Some("expected object, found null"));
}

async fn what_is_unknown_is_not_found(on: Target) {
    let on = on.serving(["lab"]).await;
    let unknown = on.post("/actors/nope/1/count").send().await;
    let error = unknown.failed(404, "actor.unknown");
    assert_eq!(error["message"], "Unknown actor: nope");
    let unknown = on.post("/actors/lab/1/nope").send().await;
    let error = unknown.failed(404, "method.unknown");
    assert_eq!(error["message"], "Unknown method: nope");
    let unknown = on.get("/actors/nope/1/state").send().await;
    unknown.failed(404, "actor.unknown");
    for path in ["/nothing", "/actors", "/actors/lab", "/actors/lab/1"] {
        on.get(path).send().await.failed(404, "request.not-found");
    }
}

async fn a_body_that_is_not_json_is_refused(on: Target) {
    let on = on.serving(["lab"]).await;
    let deep = [vec![b'['; 1000], vec![b']'; 1000]].concat();
    for body in [&b"{"[..], b"not json", b"\xff", b"{} {}", &deep] {
        let response = on
            .post("/actors/lab/1/echo")
            .body(body.to_vec())
            .send()
            .await;
        assert_eq!(response.status, 400, "{response:?}");
        let code = &response.json()["error"]["code"];
        assert!(
            code == "request.malformed" || code == "input.invalid",
            "{code}"
        );
    }
    // None of them has run.
    assert_eq!(on.post("/actors/lab/1/count").send().await.json(), 1);
}

async fn a_member_twice_is_refused(on: Target) {
    let on = on.serving(["counter"]).await;
    let request = on.post("/actors/counter/a/increment");
    let response = request.body(r#"{"by":1,"by":2}"#).send().await;
    response.failed(400, "input.invalid");
    assert_eq!(state(&on, "counter/a").await, json!({"count": 0}));
}

async fn a_body_of_five_megabytes_is_refused(on: Target) {
    let on = on.serving(["lab"]).await;
    let body = json!("x".repeat(5 << 20));
    let response = call(&on, "lab/1/echo", body).send().await;
    response.failed(413, "request.too-large");
    assert_eq!(on.post("/actors/lab/1/count").send().await.json(), 1);
}

async fn the_wrong_http_method_is_refused(on: Target) {
    let on = on.serving(["lab"]).await;
    let get = on.get("/actors/lab/1/count").send().await;
    get.failed(405, "request.method-not-allowed");
    let post = on.post("/health").send().await;
    post.failed(405, "request.method-not-allowed");
}

/// A request of any method to any path, and the code of its failure, if it fails.
async fn outcome(on: &Served, method: &str, path: &str) -> (u16, String) {
    let method = http::Method::from_bytes(method.as_bytes()).expect("a method");
    let request = Request::new(on.address(), method, path);
    let response = request.json(&json!({"by": 1})).send().await;
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    (response.status.as_u16(), code.to_owned())
}

async fn each_path_leads_to_the_same_place(on: Target) {
    let on = on.serving(["counter"]).await;
    for (method, path, status, code) in [
        (
            "POST",
            "/actors/counter//increment",
            400,
            "actor.invalid-id",
        ),
        ("GET", "/actors/counter//state", 400, "actor.invalid-id"),
        ("POST", "/actors//a/increment", 404, "actor.unknown"),
        ("POST", "/actors/counter/a/", 404, "request.not-found"),
        (
            "POST",
            "/actors/counter/a/increment/",
            404,
            "request.not-found",
        ),
        (
            "POST",
            "/actors/counter/a//increment",
            404,
            "request.not-found",
        ),
        (
            "POST",
            "//actors/counter/a/increment",
            404,
            "request.not-found",
        ),
        ("GET", "/health/", 404, "request.not-found"),
        ("GET", "/health?x=1", 200, ""),
        ("POST", "/actors/counter/a/state", 404, "method.unknown"),
        ("POST", "/actors/counter/a/events", 404, "method.unknown"),
        ("POST", "/actors/counter/a/%FF", 400, "request.malformed"),
        ("POST", "/actors/%FF/a/increment", 400, "request.malformed"),
        ("POST", "/actors/counter/%20/increment", 200, ""),
        ("POST", "/actors/counter/a/incre%6Dent", 200, ""),
        ("POST", "/actors/counter/a/increment?x=1", 200, ""),
    ] {
        let found = outcome(&on, method, path).await;
        assert_eq!(found, (status, code.to_owned()), "{method} {path}");
    }
}

async fn no_other_method_is_taken_for_a_call(on: Target) {
    let on = on.serving(["counter"]).await;
    let refused = (405, "request.method-not-allowed".to_owned());
    for method in ["PUT", "DELETE", "PATCH"] {
        for path in [
            "/health",
            "/actors/counter/a/state",
            "/actors/counter/a/increment",
        ] {
            assert_eq!(outcome(&on, method, path).await, refused, "{method} {path}");
        }
    }
    for path in ["/actors/counter/a/increment", "/actors/counter/a/nothing"] {
        assert_eq!(outcome(&on, "GET", path).await, refused, "{path}");
    }
    let unknown = (404, "actor.unknown".to_owned());
    assert_eq!(outcome(&on, "GET", "/actors/nope/a/x").await, unknown);
    // What `HEAD` says is what `GET` says, without its body.
    for (path, status) in [
        ("/health", 200),
        ("/actors/counter/a/state", 200),
        ("/actors/counter/a/increment", 405),
    ] {
        let head = Request::new(on.address(), http::Method::HEAD, path);
        let head = head.send().await;
        assert_eq!(
            (head.status.as_u16(), head.body.len()),
            (status, 0),
            "{path}"
        );
    }
    assert_eq!(state(&on, "counter/a").await, json!({"count": 0}));
}

/// `hasty` has 300 ms.
async fn a_turn_that_takes_too_long_says_what_it_may(on: Target) {
    let on = on.serving(["puppet"]).await;
    let steps = json!([{"set": {"n": 1}}, {"sleep": 1000}]);
    let late = call(&on, "puppet/1/hasty", steps).send().await;
    assert_eq!(
        late.failed(504, "turn.deadline"),
        json!({
            "code": "turn.deadline",
            "message": "the turn took longer than 300 ms",
            "params": {"limitMs": 300},
        })
    );
    assert_eq!(state(&on, "puppet/1").await["n"], 0);
}

async fn a_failure_has_its_status_message_and_params(on: Target) {
    let on = on.serving(["lab"]).await;
    let response = call(&on, "lab/1/taken", json!({"owner": "Ann"}))
        .send()
        .await;
    assert_eq!(response.headers["content-type"], "application/json");
    let error = response.failed(409, "lab.taken");
    assert_eq!(
        error,
        json!({"code": "lab.taken", "message": "taken by Ann", "params": {"owner": "Ann"}})
    );
}

async fn ids_are_percent_decoded(on: Target) {
    let on = on.serving(["lab"]).await;
    for (path, id) in [
        ("a%2Fb", "a/b"),
        ("%E6%BC%A2%20", "漢 "),
        ("a+b", "a+b"),
        ("%25", "%"),
    ] {
        let who = on
            .post(&format!("/actors/lab/{path}/who"))
            .send()
            .await
            .json();
        assert_eq!(who["id"], id);
        // The other door finds the same actor.
        on.post(&format!("/actors/lab/{path}/count")).send().await;
        assert_eq!(state(&on, &format!("lab/{path}")).await["n"], 1);
    }
    let long = format!("/actors/lab/{}/who", "x".repeat(257));
    on.post(&long).send().await.failed(400, "actor.invalid-id");
    assert_eq!(on.post("/actors/lab/%FF/who").send().await.status, 400);
}

// The state

async fn the_state_can_be_read(on: Target) {
    let on = on.serving(["counter"]).await;
    for _ in 0..2 {
        result(&on, "counter/a/increment", json!({"by": 3})).await;
    }
    let read = on.get("/actors/counter/a/state").send().await;
    assert_eq!(read.headers["content-type"], "application/json");
    let read = read.json();
    assert_eq!(
        (&read["state"], &read["version"]),
        (&json!({"count": 6}), &json!(2))
    );
    assert!(
        read["epoch"]
            .as_str()
            .is_some_and(|epoch| !epoch.is_empty()),
        "{read}"
    );
    assert_eq!(
        read.as_object().map(serde_json::Map::len),
        Some(3),
        "{read}"
    );
}

async fn an_actor_that_nobody_has_called_has_its_initial_state(on: Target) {
    let on = on.serving(["counter"]).await;
    let read = on.get("/actors/counter/new/state").send().await.json();
    assert_eq!(
        (&read["state"], &read["version"]),
        (&json!({"count": 0}), &json!(0))
    );
}

async fn hidden_members_are_never_shown(on: Target) {
    let on = on.serving(["lab"]).await;
    let mut stream = on.get("/actors/lab/1/state").stream().await;
    let snapshot = stream.expect("snapshot").await.data;
    assert_eq!(snapshot["state"].get("secret"), None);
    assert_eq!(
        on.post("/actors/lab/1/whisperToSelf").send().await.json(),
        1
    );
    assert_eq!(on.post("/actors/lab/1/count").send().await.json(), 1);
    let patch = stream.expect("patch").await.data;
    assert_eq!(
        patch["patches"],
        json!([{"op": "replace", "path": "/n", "value": 1}])
    );
    let shown = state(&on, "lab/1").await;
    assert_eq!((shown.get("secret"), &shown["n"]), (None, &json!(1)));
    // It is there all the same.
    assert_eq!(
        on.post("/actors/lab/1/whisperToSelf").send().await.json(),
        2
    );
}

// What goes wrong in a handler

async fn a_failed_call_leaves_nothing(on: Target) {
    let on = on.serving(["lab"]).await;
    let before = on.get("/actors/lab/1/state").send().await.json();
    let mut events = on.get("/actors/lab/1/events").stream().await;
    let failed = on.post("/actors/lab/1/mutThrow").send().await;
    failed.failed(400, "lab.boom");
    let after = on.get("/actors/lab/1/state").send().await.json();
    assert_eq!(before["state"], after["state"]);
    assert_eq!(after["version"], 0);
    // Nor was its event sent.
    on.post("/actors/lab/1/twice").send().await;
    assert_eq!(
        events.expect("event").await.data["payload"],
        json!({"x": 1})
    );
}

async fn what_a_handler_must_not_do_fails_its_turn(on: Target) {
    let on = on.serving(["hostile"]).await;
    for (method, status, code) in [
        ("malformedState", 500, "state.malformed"),
        ("mistypedState", 500, "state.invalid"),
        ("malformedPatch", 500, "state.no-such-place"),
        ("malformedResult", 500, "output.invalid"),
        ("undeclaredEvent", 500, "event.unknown"),
        ("mistypedEvent", 500, "event.invalid"),
        ("malformedCode", 400, "handler.failed"),
    ] {
        let response = on.post(&format!("/actors/hostile/1/{method}")).send().await;
        let error = response.failed(status, code);
        assert!(error["message"].is_string(), "{method}: {error}");
    }
    assert_eq!(state(&on, "hostile/1").await["pings"], 0);
}

async fn a_turn_stages_so_much_and_no_more(on: Target) {
    let on = on.application(["hostile"]);
    // So much takes its time on a slow machine.
    let on = on
        .on_host_set("component.turn-deadline-ms=60000")
        .start()
        .await;
    let response = on.post("/actors/hostile/1/floodEvents").send().await;
    response.failed(500, "turn.effects-limit");
    assert_eq!(state(&on, "hostile/1").await["pings"], 0);
    assert_eq!(on.post("/actors/hostile/1/ping").send().await.status, 200);
}

/// What a trap looks like: on Spin nothing of it can be said.
fn assert_trapped(on: &Served, response: &Response) {
    match on.target() {
        Target::Host => drop(response.failed(500, "handler.trapped")),
        Target::Spin => {
            assert_eq!(
                (response.status.as_u16(), response.body.len()),
                (500, 0),
                "{response:?}"
            );
        }
    }
}

async fn a_handler_that_traps_harms_its_own_call_alone(on: Target) {
    let on = on.serving(["puppet"]).await;
    result(&on, "puppet/1/run", json!([{"set": {"n": 1}}])).await;
    let steps = json!([{"set": {"n": 2}}, {"emit": "never"}, {"trap": null}]);
    let response = call(&on, "puppet/1/run", steps).send().await;
    assert_trapped(&on, &response);
    assert_eq!(state(&on, "puppet/1").await["n"], 1);
    result(&on, "puppet/1/run", json!([{"set": {"n": 3}}])).await;
    assert_eq!(state(&on, "puppet/1").await["n"], 3);
}

async fn a_stream_that_traps_ends_early(on: Target) {
    let on = on.serving(["puppet"]).await;
    let steps = json!([{"set": {"n": 1}}, {"chunk": "first"}, {"trap": null}]);
    let mut stream = call(&on, "puppet/1/run", steps).stream().await;
    assert_eq!(stream.expect("chunk").await.data, "first");
    if on.target() == Target::Host {
        let error = stream.expect("error").await.data;
        assert_eq!(error["error"]["code"], "handler.trapped");
    }
    // A stream without a result has failed; on Spin that is all one learns.
    stream.ends().await;
    assert_eq!(state(&on, "puppet/1").await["n"], 0);
    // Nor does it hold the actor for long.
    let free = async {
        loop {
            let steps = json!([{"set": {"n": 2}}]);
            match call(&on, "puppet/1/run", steps).send().await {
                done if done.status == 200 => return,
                busy if on.target() == Target::Spin => drop(busy.failed(409, "actor.busy")),
                other => panic!("{other:?}"),
            }
        }
    };
    let freed = tokio::time::timeout(PATIENCE * 2, free).await;
    freed.expect("the actor is free again");
}

// Who may

async fn a_host_with_a_key_wants_a_token(on: Target) {
    let on = on.application(["counter"]).with_tokens().start().await;
    let path = "/actors/counter/a/increment";
    let by = json!({"by": 1});
    let refused = on.post(path).json(&by).send().await;
    refused.failed(401, "auth.required");
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    on.get("/actors/counter/a/state")
        .send()
        .await
        .failed(401, "auth.required");
    let forged = token::signed(
        &json!({"sub": "ann"}),
        b"another secret of more than 32 bytes",
    );
    let header = format!("Bearer {forged}");
    let refused = on.post(path).header("authorization", &header).json(&by);
    let error = refused.send().await.failed(401, "auth.invalid");
    assert_eq!(error["params"], json!({"reason": "signature"}));
    let old = json!({"sub": "ann", "exp": token::seconds_from_now(-3600)});
    let header = format!("Bearer {}", token::with_claims(&old));
    let refused = on.post(path).header("authorization", &header).json(&by);
    refused.send().await.failed(401, "auth.expired");
    let allowed = signed_in(on.post(path).json(&by), "ann").send().await;
    assert_eq!(allowed.json(), 1);
    // An event stream may carry it in its address.
    let address = format!("/actors/counter/a/state?token={}", token::of("ann"));
    let mut stream = on.get(&address).stream().await;
    let snapshot = stream.expect("snapshot").await.data;
    assert_eq!(snapshot["state"], json!({"count": 1}));
}

/// A vault that Ann owns, to which Ben is admitted; Eve is not.
async fn vault(on: Target) -> Served {
    let on = on.application(["lab"]).with_tokens();
    let on = on.on_host_set("access.recheck-ms=10").start().await;
    for (method, input) in [
        ("claim", json!({})),
        ("put", json!({"secret": "gold"})),
        ("admitUser", json!({"sub": "ben"})),
    ] {
        let path = format!("vault/1/{method}");
        let response = signed_in(call(&on, &path, input), "ann").send().await;
        assert!(response.status.is_success(), "{method}: {response:?}");
    }
    on
}

async fn a_guard_decides_who_sees(on: Target) {
    let on = vault(on).await;
    for what in ["state", "events"] {
        let path = format!("/actors/vault/1/{what}");
        let eve = signed_in(on.get(&path), "eve").header("accept", "text/event-stream");
        let error = eve.send().await.failed(403, "vault.not-admitted");
        assert_eq!(error["params"], json!({"sub": "eve"}));
        drop(signed_in(on.get(&path), "ben").stream().await);
    }
    let eve = signed_in(on.get("/actors/vault/1/state"), "eve");
    eve.send().await.failed(403, "vault.not-admitted");
    // What she calls is the middleware's to refuse.
    let eve = signed_in(call(&on, "vault/1/secret", json!({})), "eve");
    eve.send().await.failed(403, "vault.not-admitted");
}

async fn a_guard_decides_what_is_seen(on: Target) {
    let on = vault(on).await;
    let seen = async |user: &str| {
        let read = signed_in(on.get("/actors/vault/1/state"), user)
            .send()
            .await;
        read.json()["state"].clone()
    };
    let ann = seen("ann").await;
    assert_eq!(
        (&ann["secret"], ann.get("combination")),
        (&json!("gold"), None)
    );
    let ben = json!({"owner": "ann", "admitted": 1, "secretBytes": 4});
    assert_eq!(seen("ben").await, ben);
}

async fn a_guarded_stream_is_each_clients_own(on: Target) {
    let on = vault(on).await;
    let path = "/actors/vault/1/state";
    let mut ben = signed_in(on.get(path), "ben").stream().await;
    let mut state = ben.expect("snapshot").await.data["state"].clone();
    assert_eq!(state["secretBytes"], 4);
    let put = call(&on, "vault/1/put", json!({"secret": "platinum"}));
    signed_in(put, "ann").send().await;
    // What changed for Ben, as patches or as a whole.
    loop {
        let next = ben.next().await;
        match next.event.as_str() {
            "snapshot" => state = next.data["state"].clone(),
            "patch" => dialect::apply(&mut state, &next.data["patches"]),
            other => panic!("{other}: {next:?}"),
        }
        assert_eq!(state.get("secret"), None, "{next:?}");
        if state["secretBytes"] == 8 {
            break;
        }
    }
    // He is shown the door once he may not look any longer.
    let bar = call(&on, "vault/1/barUser", json!({"sub": "ben"}));
    signed_in(bar, "ann").send().await;
    loop {
        let next = ben.next().await;
        if next.event == "error" {
            assert_eq!(next.data["error"]["code"], "vault.not-admitted");
            break;
        }
    }
    ben.ends().await;
}

// Streams

async fn chunks_come_before_the_result(on: Target) {
    let on = on.serving(["puppet"]).await;
    let steps = json!([{"chunk": "a"}, {"chunk": {"b": [2]}}, {"chunk": null}]);
    let mut stream = call(&on, "puppet/1/run", steps).stream().await;
    for chunk in [json!("a"), json!({"b": [2]}), json!(null)] {
        assert_eq!(stream.expect("chunk").await.data, chunk);
    }
    assert_eq!(
        stream.expect("result").await.data,
        json!([null, null, null])
    );
    stream.ends().await;
    // A method without a result, and without chunks.
    let on = on.target().serving(["lab"]).await;
    let mut stream = on.post("/actors/lab/1/undef").stream().await;
    assert_eq!(stream.expect("result").await.data, Value::Null);
    stream.ends().await;
}

async fn a_stream_of_chunks_may_end_in_an_error(on: Target) {
    let on = on.serving(["puppet"]).await;
    let steps = json!([{"set": {"n": 7}}, {"chunk": 1}, {"fail": "puppet.late"}]);
    let mut stream = call(&on, "puppet/1/run", steps).stream().await;
    stream.expect("chunk").await;
    let error = stream.expect("error").await.data;
    assert_eq!(error["error"]["code"], "puppet.late");
    stream.ends().await;
    assert_eq!(state(&on, "puppet/1").await["n"], 0);
    // Before anything was sent, the failure is an event as well.
    let steps = json!([{"fail": "puppet.early"}]);
    let mut stream = call(&on, "puppet/1/run", steps).stream().await;
    let error = stream.expect("error").await.data;
    assert_eq!(error["error"]["code"], "puppet.early");
}

async fn chunks_come_while_the_method_runs(on: Target) {
    let on = on.serving(["puppet"]).await;
    // The second chunk is sent only after another client has been answered.
    let steps = json!([{"chunk": "first"}, {"sleep": 2000}, {"chunk": "second"}]);
    let begun = std::time::Instant::now();
    let mut stream = call(&on, "puppet/1/run", steps).stream().await;
    stream.expect("chunk").await;
    result(&on, "puppet/2/run", json!([])).await;
    let first = begun.elapsed();
    stream.expect("chunk").await;
    let second = begun.elapsed();
    assert!(second > first, "{first:?}, {second:?}");
    stream.expect("result").await;
}

async fn a_streaming_method_is_seen_while_it_runs(on: Target) {
    let on = on.serving(["puppet"]).await;
    let mut watcher = on.get("/actors/puppet/1/state").stream().await;
    let mut seen = watcher.expect("snapshot").await.data["state"].clone();
    let steps = json!([
        {"set": {"text": "thinking"}},
        {"checkpoint": "now"},
        {"chunk": "go on"},
        {"sleep": 1500},
        {"set": {"text": "done"}},
    ]);
    let mut caller = call(&on, "puppet/1/stream", steps).stream().await;
    caller.expect("chunk").await;
    let patch = watcher.expect("patch").await.data;
    dialect::apply(&mut seen, &patch["patches"]);
    assert_eq!(seen["text"], "thinking");
    let patch = watcher.expect("patch").await.data;
    dialect::apply(&mut seen, &patch["patches"]);
    assert_eq!(seen["text"], "done");
    caller.expect("result").await;
    caller.ends().await;
}

async fn what_was_let_out_stays_when_the_rest_fails(on: Target) {
    let on = on.serving(["puppet"]).await;
    let mut events = on.get("/actors/puppet/1/events").stream().await;
    let steps = json!([
        {"set": {"n": 1}}, {"emit": "kept"}, {"checkpoint": "now"},
        {"set": {"n": 2}}, {"emit": "lost"}, {"fail": "puppet.late"},
    ]);
    let failed = call(&on, "puppet/1/stream", steps).send().await;
    failed.failed(400, "puppet.late");
    assert_eq!(state(&on, "puppet/1").await["n"], 1);
    result(&on, "puppet/1/run", json!([{"emit": "next"}])).await;
    for payload in ["kept", "next"] {
        let event = events.expect("event").await.data;
        assert_eq!(event, json!({"event": "said", "payload": payload}));
    }
}

async fn a_state_stream_is_a_snapshot_and_patches(on: Target) {
    let on = on.serving(["counter"]).await;
    let mut stream = on.get("/actors/counter/a/state").stream().await;
    let snapshot = stream.expect("snapshot").await;
    assert_eq!(
        (&snapshot.data["state"], &snapshot.data["version"]),
        (&json!({"count": 0}), &json!(0))
    );
    let epoch = snapshot.data["epoch"].as_str().unwrap_or_default();
    assert_eq!(snapshot.id, Some(format!("{epoch}:0")));
    for count in 1..=3 {
        result(&on, "counter/a/increment", json!({"by": 1})).await;
        let patch = stream.expect("patch").await;
        assert_eq!(
            patch.data,
            json!({
                "patches": [{"op": "replace", "path": "/count", "value": count}],
                "epoch": epoch, "from": count - 1, "version": count,
            })
        );
        assert_eq!(patch.id, Some(format!("{epoch}:{count}")));
    }
    // The stream and a plain read tell the same.
    let read = on.get("/actors/counter/a/state").send().await.json();
    assert_eq!(
        read,
        json!({"state": {"count": 3}, "epoch": epoch, "version": 3})
    );
}

async fn text_that_grows_is_sent_as_text_to_those_who_ask(on: Target) {
    let on = on.serving(["puppet"]).await;
    let mut plain = on.get("/actors/puppet/1/state").stream().await;
    let mut apt = on
        .get("/actors/puppet/1/state?patch=str_ins")
        .stream()
        .await;
    plain.expect("snapshot").await;
    apt.expect("snapshot").await;
    result(&on, "puppet/1/run", json!([{"append": "Hel"}])).await;
    result(
        &on,
        "puppet/1/run",
        json!([{"append": "l"}, {"append": "o"}]),
    )
    .await;
    for text in ["Hel", "Hello"] {
        let patch = plain.expect("patch").await.data;
        let whole = json!([{"op": "replace", "path": "/text", "value": text}]);
        assert_eq!(patch["patches"], whole);
    }
    for (pos, text) in [(0, "Hel"), (3, "lo")] {
        let patch = apt.expect("patch").await.data;
        let part = json!([{"op": "str_ins", "path": "/text", "pos": pos, "str": text}]);
        assert_eq!(patch["patches"], part);
    }
}

async fn an_event_stream_has_the_actors_events_only(on: Target) {
    let on = on.serving(["lab"]).await;
    let mut stream = on.get("/actors/lab/1/events").stream().await;
    result_or_none(&on, "lab/2/announce", json!({"text": "elsewhere"})).await;
    result_or_none(
        &on,
        "lab/1/announce",
        json!({"text": "one\ntwo\revent: fake"}),
    )
    .await;
    on.post("/actors/lab/1/twice").send().await;
    let event = stream.expect("event").await.data;
    let note = json!({"event": "note", "payload": {"text": "one\ntwo\revent: fake"}});
    assert_eq!(event, note);
    for x in 1..=2 {
        let event = stream.expect("event").await.data;
        assert_eq!(event, json!({"event": "e", "payload": {"x": x}}));
    }
}

/// Calls a method that returns nothing.
async fn result_or_none(on: &Served, path: &str, input: Value) {
    let response = call(on, path, input).send().await;
    assert!(response.status.is_success(), "{path}: {response:?}");
}

async fn a_stream_of_an_unknown_actor_is_refused(on: Target) {
    let on = on.serving(["lab"]).await;
    for path in ["/actors/nope/1/state", "/actors/nope/1/events"] {
        let request = on.get(path).header("accept", "text/event-stream");
        request.send().await.failed(404, "actor.unknown");
    }
}

async fn a_state_stream_goes_on_from_its_last_event(on: Target) {
    let on = on.serving(["counter"]).await;
    result(&on, "counter/a/increment", json!({"by": 1})).await;
    let path = "/actors/counter/a/state";
    let mut stream = on.get(path).stream().await;
    let id = stream.expect("snapshot").await.id.expect("an id");
    drop(stream);
    for by in [10, 100] {
        result(&on, "counter/a/increment", json!({"by": by})).await;
    }
    let mut stream = on.get(path).header("last-event-id", &id).stream().await;
    for count in [11, 111] {
        let patch = stream.expect("patch").await;
        assert_eq!(patch.data["patches"][0]["value"], count);
    }
    // And it goes on.
    result(&on, "counter/a/increment", json!({"by": 1})).await;
    let patch = stream.expect("patch").await;
    assert_eq!(
        (&patch.data["from"], &patch.data["version"]),
        (&json!(3), &json!(4))
    );
    // Who has missed nothing is told so.
    let id = patch.id.expect("an id");
    let mut stream = on.get(path).header("last-event-id", &id).stream().await;
    let nothing = stream.expect("patch").await.data;
    assert_eq!(
        (&nothing["patches"], &nothing["version"]),
        (&json!([]), &json!(4))
    );
}

async fn another_history_is_sent_whole(on: Target) {
    let on = on.serving(["counter"]).await;
    result(&on, "counter/a/increment", json!({"by": 1})).await;
    let read = on.get("/actors/counter/a/state").send().await.json();
    let epoch = read["epoch"].as_str().unwrap_or_default();
    for id in ["another:1", &format!("{epoch}:7"), "nonsense", ""] {
        let stream = on
            .get("/actors/counter/a/state")
            .header("last-event-id", id);
        let snapshot = stream.stream().await.expect("snapshot").await.data;
        assert_eq!(snapshot["state"], json!({"count": 1}), "{id}");
    }
}

// Idempotency keys

async fn a_call_with_a_key_runs_once(on: Target) {
    let on = on.serving(["counter"]).await;
    for key in ["\"once\"", "once", "\"once\""] {
        let request = call(&on, "counter/a/increment", json!({"by": 5}));
        let response = request.header("idempotency-key", key).send().await;
        assert_eq!(response.json(), 5);
    }
    assert_eq!(state(&on, "counter/a").await, json!({"count": 5}));
    let other = call(&on, "counter/a/increment", json!({"by": 5}));
    let other = other.header("idempotency-key", "\"twice\"").send().await;
    assert_eq!(other.json(), 10);
}

async fn a_key_is_of_one_input(on: Target) {
    let on = on.serving(["counter"]).await;
    let keyed = async |method: &str, by: i64| {
        let request = call(&on, &format!("counter/a/{method}"), json!({"by": by}));
        request.header("idempotency-key", "\"k\"").send().await
    };
    assert_eq!(keyed("increment", 1).await.json(), 1);
    keyed("increment", 2).await.failed(422, "call.key-reused");
    // Another method's keys are its own.
    assert_eq!(keyed("value", 1).await.json(), 1);
}

async fn a_key_is_a_short_text(on: Target) {
    let on = on.serving(["counter"]).await;
    for key in ["", "\"\"", &"x".repeat(129)] {
        let request = call(&on, "counter/a/increment", json!({"by": 5}));
        let refused = request.header("idempotency-key", key).send().await;
        refused.failed(400, "request.malformed");
    }
    assert_eq!(state(&on, "counter/a").await, json!({"count": 0}));
}

async fn keys_are_their_users_own(on: Target) {
    let on = on.application(["counter"]).with_tokens().start().await;
    for (user, count) in [("ann", 1), ("ben", 2), ("ann", 1)] {
        let request = call(&on, "counter/a/increment", json!({"by": 1}));
        let request = signed_in(request, user).header("idempotency-key", "\"k\"");
        assert_eq!(request.send().await.json(), count, "{user}");
    }
}

// Timers

async fn a_timer_fires(on: Target) {
    let on = on.serving(["puppet"]).await;
    let steps = json!([{"after": {"ms": 50, "method": "note", "input": "hello"}}]);
    let set = result(&on, "puppet/1/run", steps).await;
    let state = until(&on, "puppet/1", |state| !log_of(state).is_empty()).await;
    let [fired] = log_of(&state) else {
        panic!("once: {state}");
    };
    assert_eq!((&fired["by"], &fired["id"]), (&json!("timer"), &set[0]));
    assert_eq!(fired["input"], "hello");
    assert!(
        fired["now"].as_u64() >= fired["due"].as_u64(),
        "never early: {fired}"
    );
    // On Spin without a clock, too: what is due runs before the next turn.
    let steps = json!([{"after": {"ms": 1, "input": "again"}}, {"after": {"ms": 3_600_000}}]);
    result(&on, "puppet/1/run", steps).await;
    let again = async {
        loop {
            result(&on, "puppet/1/run", json!([])).await;
            let state = state_now(&on).await;
            if log_of(&state).len() > 1 {
                return state;
            }
        }
    };
    let state = tokio::time::timeout(PATIENCE, again)
        .await
        .expect("it fires");
    assert_eq!(log_of(&state)[1]["input"], "again");
    assert_eq!(log_of(&state).len(), 2, "what is not due waits");
}

async fn state_now(on: &Served) -> Value {
    state(on, "puppet/1").await
}

async fn an_interval_goes_on_until_it_is_cancelled(on: Target) {
    let on = on.serving(["puppet"]).await;
    let set = result(&on, "puppet/1/run", json!([{"every": {"ms": 20}}])).await;
    let state = until(&on, "puppet/1", |state| log_of(state).len() >= 3).await;
    let due = |entry: &Value| entry["due"].as_u64().unwrap_or_default();
    for pair in log_of(&state).windows(2) {
        let step = due(&pair[1]) - due(&pair[0]);
        assert!(step > 0 && step.is_multiple_of(20), "on the grid: {state}");
    }
    let cancel = json!([{"cancel": set[0]}, {"cancel": set[0]}]);
    let cancelled = result(&on, "puppet/1/run", cancel).await;
    assert_eq!(cancelled, json!([true, false]));
    let fired = log_of(&state_now(&on).await).len();
    // Long enough for two more.
    result(&on, "puppet/1/run", json!([{"sleep": 50}])).await;
    tick(&on).await;
    assert_eq!(log_of(&state_now(&on).await).len(), fired);
}

async fn a_turn_that_fails_sets_no_timer(on: Target) {
    let on = on.serving(["puppet"]).await;
    let kept = json!([{"after": {"ms": 100, "input": "kept"}}]);
    result(&on, "puppet/1/run", kept).await;
    let failing = json!([{"after": {"ms": 1, "input": "never"}}, {"fail": "puppet.no"}]);
    let failed = call(&on, "puppet/1/run", failing).send().await;
    failed.failed(400, "puppet.no");
    let state = until(&on, "puppet/1", |state| !log_of(state).is_empty()).await;
    assert_eq!(log_of(&state)[0]["input"], "kept");
}

async fn what_cannot_be_set_is_said(on: Target) {
    let on = on.serving(["puppet"]).await;
    let steps = json!([
        {"after": {"ms": 1, "method": "nothing"}},
        {"after": {"ms": 1, "method": "strict"}},
        {"after": {"ms": 1, "method": "strict", "input": "text"}},
        {"after": {"ms": 9_223_372_036_854_775_807_u64}},
        {"every": {"ms": 0}},
    ]);
    let told = result(&on, "puppet/1/run", steps).await;
    let codes = [
        "timer.unknown-method",
        "timer.invalid-input",
        "timer.invalid-input",
        "timer.invalid-delay",
        "timer.invalid-delay",
    ];
    assert_eq!(told, json!(codes.map(|code| json!({"failed": code}))));
}

/// The host keeps the time itself, so its door is the operator's.
async fn the_clocks_door_is_locked(on: Target) {
    let on = on.serving(["puppet"]).await;
    for key in ["", "Bearer wrong"] {
        let door = on.post("/_tidegate/tick").header("authorization", key);
        door.send().await.failed(401, "admin.unauthorized");
    }
}

// Actors among themselves

fn to(id: &str, method: &str, input: Value) -> Value {
    json!({"actor": "puppet", "id": id, "method": method, "input": input})
}

async fn actors_call_each_other(on: Target) {
    let on = on.serving(["puppet", "counter"]).await;
    let other = json!({"actor": "counter", "id": "c", "method": "increment", "input": {"by": 3}});
    let steps = json!([{"call": to("b", "note", json!("hi"))}, {"call": other}]);
    let told = result(&on, "puppet/a/run", steps).await;
    assert_eq!(told, json!(["noted", 3]));
    let entry = json!({"by": "actor", "actor": "puppet", "id": "a", "input": "hi"});
    assert_eq!(state(&on, "puppet/b").await["log"], json!([entry]));
    assert_eq!(state(&on, "counter/c").await, json!({"count": 3}));
}

async fn failures_of_the_called_are_told(on: Target) {
    let on = on.serving(["puppet"]).await;
    let slow = to("d", "run", json!([{"sleep": 3000}]));
    let mut late = slow.clone();
    late["timeout"] = json!(50);
    let steps = json!([
        {"call": to("b", "run", json!([{"fail": "other.no"}]))},
        {"call": to("b", "run", json!([{"trap": 1}]))},
        {"call": to("b", "nothing", json!(null))},
        {"call": to("b", "strict", json!("text"))},
        {"call": {"actor": "nobody", "id": "x", "method": "y"}},
        {"call": {"actor": "puppet", "id": "", "method": "y"}},
        {"call": late},
    ]);
    let told = result(&on, "puppet/a/run", steps).await;
    let told = told.as_array().cloned().unwrap_or_default();
    let codes: Vec<&str> = told
        .iter()
        .map(|told| told["failed"].as_str().unwrap_or("?"))
        .collect();
    let expected = [
        "other.no",
        "handler.trapped",
        "method.unknown",
        "input.invalid",
        "actor.unknown",
        "actor.invalid-id",
        "call.timeout",
    ];
    assert_eq!(codes, expected);
}

async fn a_call_that_would_wait_for_itself_fails(on: Target) {
    let on = on.serving(["puppet"]).await;
    let itself = json!([{"call": to("a", "note", json!(null))}]);
    let told = result(&on, "puppet/a/run", itself.clone()).await;
    assert_eq!(told[0]["failed"], "call.deadlock");
    let circle = json!([{"call": to("b", "run", itself)}]);
    let told = result(&on, "puppet/a/run", circle.clone()).await;
    assert_eq!(told[0][0]["failed"], "call.deadlock");
    let longer = json!([{"call": to("c", "run", circle)}]);
    let told = result(&on, "puppet/a/run", longer).await;
    assert_eq!(told[0][0][0]["failed"], "call.deadlock");
}

async fn several_are_called_at_once(on: Target) {
    let on = on.serving(["puppet"]).await;
    // One by one they would run into the deadline of 5 s before the last.
    let slow = |id: &str| to(id, "run", json!([{"sleep": 1500}, {"set": {"n": 1}}]));
    let steps = json!([{"callAll": [slow("b"), slow("c"), slow("d"), slow("e")]}]);
    let told = result(&on, "puppet/a/run", steps).await;
    assert_eq!(
        told[0],
        json!([[null, null], [null, null], [null, null], [null, null]])
    );
}

async fn a_message_arrives_once_the_turn_has_committed(on: Target) {
    let on = on.serving(["puppet"]).await;
    let failing = json!([{"send": to("b", "note", json!("never"))}, {"fail": "puppet.no"}]);
    let failed = call(&on, "puppet/a/run", failing).send().await;
    failed.failed(400, "puppet.no");
    let steps = json!([{"send": to("b", "note", json!("once"))}]);
    assert_eq!(result(&on, "puppet/a/run", steps).await, json!([null]));
    let state = until(&on, "puppet/b", |state| !log_of(state).is_empty()).await;
    let entry = json!({"by": "actor", "actor": "puppet", "id": "a", "input": "once"});
    assert_eq!(state["log"], json!([entry]));
    // It is not delivered again.
    tick(&on).await;
    result(&on, "puppet/a/run", json!([])).await;
    assert_eq!(log_of(&until(&on, "puppet/b", |_| true).await).len(), 1);
}

// Many at once

/// Increments, again where Spin says that others were in the way.
async fn increment(on: &Served, actor: &str) {
    loop {
        let path = format!("counter/{actor}/increment");
        let response = call(on, &path, json!({"by": 1})).send().await;
        match (response.status.as_u16(), on.target()) {
            (200, _) => return,
            (409, Target::Spin) => drop(response.failed(409, "actor.busy")),
            _ => panic!("{response:?}"),
        }
    }
}

async fn a_hundred_increments_at_once_are_all_counted(on: Target) {
    let on = on.serving(["counter"]).await;
    increment(&on, "a").await;
    join_all((1..100).map(|_| increment(&on, "a"))).await;
    let read = on.get("/actors/counter/a/state").send().await.json();
    assert_eq!(
        (&read["state"]["count"], &read["version"]),
        (&json!(100), &json!(100))
    );
}

async fn first_writes_to_new_actors_at_once_are_all_counted(on: Target) {
    let on = on.serving(["counter"]).await;
    // Nothing exists yet: no actor, and on Spin no table.
    let calls = ["a", "b", "c"].into_iter().flat_map(|id| [id; 8]);
    join_all(calls.map(|id| increment(&on, id))).await;
    for id in ["a", "b", "c"] {
        assert_eq!(
            state(&on, &format!("counter/{id}")).await,
            json!({"count": 8})
        );
    }
}

async fn calls_during_a_stream_are_kept_apart(on: Target) {
    let on = on.serving(["puppet"]).await;
    let steps = json!([{"chunk": "begun"}, {"set": {"n": 1}}, {"sleep": 1000}, {"append": "1"}]);
    let mut stream = call(&on, "puppet/1/run", steps).stream().await;
    stream.expect("chunk").await;
    // The host lets the second wait; on Spin it may be told to come again.
    let second = async {
        loop {
            let steps = json!([{"append": "2"}]);
            let response = call(&on, "puppet/1/run", steps).send().await;
            match (response.status.as_u16(), on.target()) {
                (200, _) => return,
                (409, Target::Spin) => drop(response.failed(409, "actor.busy")),
                _ => panic!("{response:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, second)
        .await
        .expect("its turn comes");
    stream.expect("result").await;
    let state = state(&on, "puppet/1").await;
    assert_eq!((&state["text"], &state["n"]), (&json!("12"), &json!(1)));
}

// Ends

async fn a_kill_in_the_middle_of_a_turn_leaves_nothing(on: Target) {
    let data = Folder::new();
    let application: Application = on.application(["puppet"]).data(data.path());
    let on = application.start().await;
    result(&on, "puppet/1/run", json!([{"set": {"n": 1}}])).await;
    let steps = json!([
        {"set": {"n": 2}}, {"emit": "never"}, {"after": {"ms": 1}}, {"chunk": "in it"},
        {"sleep": 60_000},
    ]);
    let mut stream = call(&on, "puppet/1/run", steps).stream().await;
    stream.expect("chunk").await;
    on.kill().await;
    let on = application.start().await;
    let after = state(&on, "puppet/1").await;
    assert_eq!((&after["n"], log_of(&after).len()), (&json!(1), 0));
}

async fn what_was_acknowledged_is_there_after_a_kill(on: Target) {
    let data = Folder::new();
    let application = on.application(["puppet"]).data(data.path());
    let on = application.start().await;
    let steps = json!([{"set": {"n": 5}}, {"after": {"ms": 1, "input": "later", "outlive": true}}]);
    result(&on, "puppet/1/run", steps).await;
    on.kill().await;
    let on = application.start().await;
    let state = until(&on, "puppet/1", |state| !log_of(state).is_empty()).await;
    assert_eq!(
        (&state["n"], &log_of(&state)[0]["input"]),
        (&json!(5), &json!("later"))
    );
}

async fn a_body_that_is_cut_off_is_no_call(on: Target) {
    let on = on.serving(["lab"]).await;
    let mut stream = TcpStream::connect(on.address()).await.expect("connecting");
    // What has arrived would be a whole input.
    let half = "POST /actors/lab/1/count HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n\
                null";
    stream.write_all(half.as_bytes()).await.expect("sending");
    stream.shutdown().await.expect("closing one side");
    let mut answer = Vec::new();
    // Whether there is one depends on who notices first.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(
        !answer.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(on.post("/actors/lab/1/count").send().await.json(), 1);
}

async fn a_call_that_is_cut_off_leaves_its_whole_turn_or_nothing(on: Target) {
    const CUT_OFF: i64 = 5;
    let on = on.serving(["lab"]).await;
    for _ in 0..CUT_OFF {
        let mut stream = TcpStream::connect(on.address()).await.expect("connecting");
        let whole = "POST /actors/lab/1/slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n\
                     {\"ms\":20}";
        stream.write_all(whole.as_bytes()).await.expect("sending");
        // The turn has begun, or not, when nobody waits for it any longer.
        drop(stream);
    }
    let mut last = 0;
    for _ in 0..3 {
        let counted = on.post("/actors/lab/1/count").send().await.json();
        let counted = counted.as_i64().expect("a number");
        assert!(counted > last, "{counted} after {last}");
        last = counted;
    }
    assert!((3..=3 + CUT_OFF).contains(&last), "{last}");
    let n = state(&on, "lab/1").await["n"].as_i64();
    assert!(
        n.is_some_and(|n| (last..=3 + CUT_OFF).contains(&n)),
        "{n:?}"
    );
}

// Doors

async fn pages_of_other_sites_are_refused(on: Target) {
    let on = on.serving(["lab"]).await;
    for origin in ["https://evil.example", "null"] {
        let request = on.post("/actors/lab/1/count").header("origin", origin);
        request.send().await.failed(403, "request.forbidden-origin");
    }
    let request = on
        .get("/actors/lab/1/state")
        .header("sec-fetch-site", "cross-site");
    request.send().await.failed(403, "request.forbidden-origin");
    // The application's own pages are welcome.
    let own = format!("http://{}", on.address());
    let request = on.post("/actors/lab/1/count").header("origin", &own);
    let response = request.send().await;
    assert_eq!(response.json(), 1);
    assert_eq!(
        response.headers["access-control-allow-origin"],
        own.as_str()
    );
}

async fn a_websocket_is_for_the_host_alone(on: Target) {
    let on = on.serving(["counter"]).await;
    let request = on
        .get("/ws")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    match on.target() {
        Target::Host => {
            // What the body would be is frames.
            let head = tokio::time::timeout(PATIENCE, request.status()).await;
            assert_eq!(head.expect("an answer"), 101);
        }
        Target::Spin => drop(request.send().await.failed(501, "unsupported.on-spin")),
    }
}

async fn the_host_says_that_it_is_well(on: Target) {
    let on = on.serving(["counter"]).await;
    for (path, says) in [
        ("/health", json!({"ok": true})),
        ("/ready", json!({"ready": true})),
    ] {
        let response = on.get(path).send().await;
        assert_eq!((response.status.as_u16(), response.json()), (200, says));
    }
}

//! Zocket's roadmap, paragraph by paragraph, with its own examples as the handler `roadmap`.

use http::Method;
use serde_json::{Value, json};
use tidegate_tests::{Actor, Host, Socket, actor, dialect};

/// A host whose actors leave memory after so many milliseconds, when nothing holds them there.
async fn host_that_forgets(ms: u64) -> Host {
    Host::builder()
        .component("roadmap")
        .set(&format!("actors.idle-timeout-ms={ms}"))
        .start()
        .await
}

async fn about(host: &Host, actor: &Actor) -> Value {
    let path = format!("/actors/{}/{}", actor.kind, actor.id);
    host.admin(Method::GET, &path).send().await.json()
}

async fn state_of(host: &Host, actor: &Actor) -> Value {
    let path = format!("/actors/{}/{}/state", actor.kind, actor.id);
    host.get(&path).send().await.json()["state"].clone()
}

/// The states that the frames show, one after the other, of which the first is known.
fn shown(mut state: Value, frames: &[Value]) -> Vec<Value> {
    let patches = frames.iter().filter(|frame| frame["type"] == "state:patch");
    let states = patches.map(|frame| {
        dialect::apply(&mut state, &frame["patches"]);
        state.clone()
    });
    states.collect()
}

// Targeted events.

#[tokio::test]
async fn each_player_sees_their_own_hand_and_everybody_that_a_round_has_started() {
    let host = Host::serving(["roadmap"]).await;
    let room = actor("gameRoom", "r");
    let mut ann = host.connect().await;
    let mut ben = host.connect().await;
    let mut onlooker = host.connect().await;
    let hands = [json!(["ace", "ten"]), json!(["two"])];
    for (player, hand) in [&mut ann, &mut ben].into_iter().zip(&hands) {
        player.subscribe_events(&room).await;
        let joined = player.call(&room, "join", json!({"hand": hand})).await;
        joined.result();
    }
    onlooker.subscribe_events(&room).await;
    onlooker.call(&room, "list", None).await;

    let dealt = onlooker.call(&room, "dealCards", None).await;
    assert_eq!(dealt.types_before(), ["event"], "no hand for who has none");
    assert_eq!(dealt.before[0]["event"], "roundStarted");
    for (player, hand) in [&mut ann, &mut ben].into_iter().zip(&hands) {
        let started = player.expect_type("event").await;
        assert_eq!(started["event"], "roundStarted");
        assert_eq!(started["payload"], json!({"round": 1}));
        let own = player.expect_type("event").await;
        assert_eq!(own["event"], "yourHand");
        assert_eq!(own["payload"], json!({"cards": hand}));
        let reply = player.call(&room, "list", None).await;
        assert!(reply.before.is_empty(), "a single hand each: {reply:?}");
    }
}

#[tokio::test]
async fn the_list_has_the_ids_of_those_who_are_connected() {
    let host = Host::serving(["roadmap"]).await;
    let room = actor("gameRoom", "r");
    let mut ann = host.connect().await;
    let mut ben = host.connect().await;
    ann.call(&room, "list", None).await;
    let both = ben.call(&room, "list", None).await.result();
    assert_eq!(both, json!([ann.id(), ben.id()]));
}

#[tokio::test]
async fn the_state_stays_broadcast() {
    let host = Host::serving(["roadmap"]).await;
    let room = actor("gameRoom", "r");
    let mut ann = host.connect().await;
    let mut ben = host.connect().await;
    ann.subscribe_state(&room).await;
    ben.subscribe_state(&room).await;
    let hand = json!({"hand": ["ace"]});
    let joined = ann.call(&room, "join", hand).await;
    let seen = ben.expect_type("state:patch").await;
    assert_eq!(joined.before, [seen], "all see the same patches");
}

// Timers.

#[tokio::test]
async fn a_round_begins_after_the_countdown() {
    let host = Host::serving(["roadmap"]).await;
    let room = actor("countdownRoom", "r");
    let mut socket = host.connect().await;
    let snapshot = socket.subscribe_state(&room).await;
    assert_eq!(snapshot["state"], json!({"phase": "lobby"}));
    let started = socket.call(&room, "startCountdown", None).await;
    assert_eq!(started.patches()[0]["value"], "countdown");
    let begun = socket.expect_type("state:patch").await;
    assert_eq!(begun["patches"][0]["value"], "playing");
}

#[tokio::test]
async fn a_timer_brings_its_method_an_input() {
    let host = Host::serving(["roadmap"]).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let later = json!({"value": 10});
    socket.call(&alarm, "setLater", later).await.result();
    let state = socket.watch(&alarm, |state| state["value"] == 10).await;
    assert_eq!(state["ticks"], 0);
}

#[tokio::test]
async fn an_interval_ticks_until_its_id_is_cancelled() {
    let host = Host::serving(["roadmap"]).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let id = socket.call(&alarm, "start", json!({"everyMs": 20})).await;
    let id = json!({"id": id.result()});
    let ticked = |state: &Value| state["ticks"].as_u64() >= Some(3);
    socket.watch(&alarm, ticked).await;
    let stopped = socket.call(&alarm, "stop", id.clone()).await;
    assert_eq!(stopped.result(), true);
    // A tick that came due during the first call would run ahead of the second.
    let long = json!({"ms": 200});
    socket.call(&alarm, "dawdle", long).await.result();
    let again = socket.call(&alarm, "stop", id).await;
    assert_eq!(again.result(), false);
    assert!(again.before.is_empty(), "it still ticks: {again:?}");
}

#[tokio::test]
async fn timers_are_set_in_hooks_too() {
    let host = Host::serving(["roadmap"]).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let heard = |wanted: &'static [&'static str]| {
        move |state: &Value| {
            let log = state["log"].as_array().expect("a log");
            wanted.iter().all(|hook| log.contains(&json!(hook)))
        }
    };
    socket.watch(&alarm, heard(&["activate", "connect"])).await;
    let mut other = host.connect().await;
    other.call(&alarm, "dawdle", json!({"ms": 0})).await;
    other.close().await;
    socket.watch(&alarm, heard(&["disconnect"])).await;
}

#[tokio::test]
async fn a_firing_waits_until_the_running_method_is_over() {
    let host = Host::serving(["roadmap"]).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let rang = |state: &Value| state["rangDue"] != 0;
    let call = json!({"ms": 300});
    socket.call(&alarm, "work", call).await.result();
    let state = socket.watch(&alarm, rang).await;
    let log = state["log"].as_array().expect("a log");
    let log: Vec<&Value> = log
        .iter()
        .filter(|entry| *entry == "worked" || *entry == "rang")
        .collect();
    assert_eq!(log, ["worked", "rang"]);
    assert!(
        state["rangDue"].as_u64() < state["workedUntil"].as_u64(),
        "it was due while the method ran: {state}"
    );
}

#[tokio::test]
async fn a_turn_that_fails_sets_no_timer() {
    let host = Host::serving(["roadmap"]).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let failed = socket.call(&alarm, "setAndFail", None).await;
    assert_eq!(failed.code(), "alarm.no");
    let later = json!({"value": 7});
    socket.call(&alarm, "setLater", later).await.result();
    // The others would be due before.
    let state = socket.watch(&alarm, |state| state["value"] != 0).await;
    assert_eq!((&state["value"], &state["ticks"]), (&json!(7), &json!(0)));
}

#[tokio::test]
async fn timers_are_cleared_when_the_actor_is_deactivated() {
    let host = host_that_forgets(100).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let hourly = json!({"everyMs": 3_600_000});
    let id = socket.call(&alarm, "startIdle", hourly).await.result();
    host.until_asleep(&alarm).await;
    let stopped = socket.call(&alarm, "stop", json!({"id": id})).await;
    assert_eq!(stopped.result(), false, "it was still there");
}

#[tokio::test]
async fn timers_are_cleared_when_the_actor_is_destroyed() {
    let host = Host::serving(["roadmap"]).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let hourly = json!({"everyMs": 3_600_000});
    let id = socket.call(&alarm, "start", hourly).await.result();
    let destroyed = host.admin(Method::DELETE, "/actors/alarm/a").send().await;
    assert_eq!(destroyed.status, 204);
    let stopped = socket.call(&alarm, "stop", json!({"id": id})).await;
    assert_eq!(stopped.result(), false, "it was still there");
}

// Cron.

#[tokio::test]
async fn who_is_silent_is_cleaned_up() {
    let host = Host::serving(["roadmap"]).await;
    let presence = actor("presence", "p");
    let mut watcher = host.connect().await;
    let snapshot = watcher.subscribe_state(&presence).await;
    assert_eq!(snapshot["state"], json!({"users": {}}));
    let mut ann = host.connect().await;
    ann.call(&presence, "heartbeat", None).await.result();
    let mut state = snapshot["state"].clone();
    let here = watcher.expect_type("state:patch").await;
    dialect::apply(&mut state, &here["patches"]);
    assert!(state["users"][ann.id()].is_u64(), "{state}");
    let gone = watcher.expect_type("state:patch").await;
    dialect::apply(&mut state, &gone["patches"]);
    assert_eq!(state, json!({"users": {}}));
}

#[tokio::test]
async fn a_schedule_starts_and_stops_with_the_actor() {
    let host = host_that_forgets(100).await;
    let pulse = actor("pulse", "p");
    let mut socket = host.connect().await;
    let beating = |state: &Value| state["beats"].as_u64() >= Some(3);
    socket.watch(&pulse, beating).await;
    socket.unsubscribe_state(&pulse).await;
    let left = host.until_asleep(&pulse).await;
    // As long as several beats.
    let clock = actor("alarm", "clock");
    let long = json!({"ms": 1_000});
    socket.call(&clock, "dawdle", long).await.result();
    let later = about(&host, &pulse).await;
    assert_eq!(later["inMemory"], false);
    assert_eq!(later["state"], left["state"], "it has gone on");
    let before = left["state"]["beats"].as_u64();
    let more = |state: &Value| state["beats"].as_u64() > before;
    socket.watch(&pulse, more).await;
}

#[tokio::test]
async fn a_schedule_does_not_keep_its_actor_in_memory() {
    // Four beats fit into it.
    let host = host_that_forgets(1_000).await;
    let pulse = actor("pulse", "p");
    let mut socket = host.connect().await;
    socket.call(&pulse, "beat", None).await.result();
    host.until_asleep(&pulse).await;
}

#[tokio::test]
async fn an_idle_interval_does_not_keep_its_actor_in_memory() {
    let host = host_that_forgets(1_000).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let often = json!({"everyMs": 250});
    socket.call(&alarm, "startIdle", often).await.result();
    host.until_asleep(&alarm).await;
}

#[tokio::test]
async fn a_schedule_is_an_interval_that_activation_sets() {
    let host = host_that_forgets(100).await;
    let alarm = actor("alarm", "a");
    let mut socket = host.connect().await;
    let call = socket.call(&alarm, "tickFromActivation", None).await;
    call.result();
    host.until_asleep(&alarm).await;
    let ticked = |state: &Value| state["ticks"].as_u64() >= Some(3);
    socket.watch(&alarm, ticked).await;
}

#[tokio::test]
async fn a_schedule_that_cannot_be_is_refused_at_load() {
    let method = json!({"input": {"type": "object", "required": ["far"]}});
    let refused = async |cron: Value, parts: [&str; 2]| {
        let actor = json!({"methods": {"jump": method, "rest": {}}, "cron": cron});
        let manifest = json!({"tidegate": "0.1", "actors": {"frog": actor}});
        let host = Host::builder()
            .component("hostile")
            .variable("DESCRIBE", &manifest.to_string());
        host.refused().await.says(parts);
    };
    let with_input = json!({"jump": {"everyMs": 30_000}});
    let expected = "expected a method that can do without an input";
    refused(with_input, ["/actors/frog/cron/jump", expected]).await;
    let unknown = json!({"leap": {"everyMs": 30_000}});
    let expected = "expected the name of a method, found leap";
    refused(unknown, ["/actors/frog/cron/leap", expected]).await;
    let no_time = json!({"rest": {"schedule": "now and then"}});
    let expected = "expected a cron expression";
    refused(no_time, ["/actors/frog/cron/rest", expected]).await;
}

// Calls between actors.

#[tokio::test]
async fn a_lobby_starts_a_match_with_its_players() {
    let host = Host::serving(["roadmap"]).await;
    let lobby = actor("lobby", "l");
    let mut socket = host.connect().await;
    for name in ["Ann", "Ben"] {
        let call = socket.call(&lobby, "join", json!({"name": name})).await;
        call.result();
    }
    let started = socket.call(&lobby, "startMatch", None).await.result();
    let id = started["matchId"].as_str().expect("the id of a match");
    let players = json!({"players": ["Ann", "Ben"]});
    assert_eq!(state_of(&host, &actor("match", id)).await, players);
    assert_eq!(state_of(&host, &lobby).await, json!({"players": []}));
}

#[tokio::test]
async fn the_failure_of_the_called_is_that_of_the_caller() {
    let host = Host::serving(["roadmap"]).await;
    let mut socket = host.connect().await;
    let empty = actor("lobby", "empty");
    let failed = socket.call(&empty, "startMatch", None).await;
    assert_eq!(failed.code(), "match.no-players");
    assert_eq!(failed.error(), "a match needs players");
    let manager = actor("manager", "m");
    let failed = socket.call(&manager, "consult", None).await;
    assert_eq!(failed.code(), "actor.unknown");
}

#[tokio::test]
async fn one_is_waited_for_and_another_is_not() {
    let host = Host::serving(["roadmap"]).await;
    let manager = actor("manager", "m");
    let worker = actor("worker", "abc");
    let mut socket = host.connect().await;
    let idle = socket.subscribe_state(&worker).await;
    assert_eq!(idle["state"], json!({"processed": []}));
    let query = json!({"query": "tides"});
    let reply = socket.call(&manager, "research", query).await;
    let found = json!(["tides in general", "tides in particular"]);
    assert_eq!(reply.result(), found);
    assert!(reply.before.is_empty(), "it waited for the worker");
    let done = socket.expect_type("state:patch").await;
    assert_eq!(done["actor"], "worker");
    let processed = |state: &Value| state["processed"] == found;
    socket.watch(&worker, processed).await;
}

#[tokio::test]
async fn five_workers_are_told_to_start_without_blocking() {
    let host = Host::serving(["roadmap"]).await;
    let manager = actor("manager", "m");
    let mut socket = host.connect().await;
    for id in 1..=5 {
        let worker = actor("worker", &id.to_string());
        socket.subscribe_state(&worker).await;
    }
    let data = json!({"data": ["tides"]});
    let reply = socket.call(&manager, "delegate", data).await;
    reply.result();
    assert!(reply.before.is_empty(), "it waited: {reply:?}");
    let mut done = Vec::new();
    for _ in 1..=5 {
        let patch = socket.expect_type("state:patch").await;
        done.push(patch["actorId"].as_str().expect("an id").to_owned());
    }
    done.sort_unstable();
    assert_eq!(done, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn circles_of_messages_turn_where_circles_of_calls_would_lock() {
    let host = Host::serving(["roadmap"]).await;
    let (a, b) = (actor("rally", "a"), actor("rally", "b"));
    let mut socket = host.connect().await;
    let serve = json!({"partner": "b", "left": 9});
    let waited = socket.call(&a, "hitAndWait", serve.clone()).await;
    assert_eq!(waited.code(), "call.deadlock");
    assert_eq!(state_of(&host, &a).await["hits"], 0);
    socket.call(&a, "hit", serve).await.result();
    let five = |state: &Value| state["hits"] == 5;
    socket.watch(&a, five).await;
    socket.watch(&b, five).await;
}

// Streaming state.

#[tokio::test]
async fn the_thinking_is_seen_before_the_output_and_the_output_as_it_grows() {
    let host = Host::serving(["roadmap"]).await;
    let writer = actor("writer", "w");
    let mut socket = host.connect().await;
    let before = socket.subscribe_state(&writer).await["state"].clone();
    let model = json!({"tokens": 10, "tokenMs": 150});
    let reply = socket.call(&writer, "generate", model).await;
    reply.result();
    let states = shown(before, &reply.before);
    assert_eq!(states[0], json!({"status": "thinking", "output": ""}));
    let whole = "0 1 2 3 4 5 6 7 8 9 ";
    let last = json!({"status": "done", "output": whole});
    assert_eq!(states.last(), Some(&last));
    let outputs = states.iter().map(|state| &state["output"]);
    let outputs: Vec<&str> = outputs.filter_map(Value::as_str).collect();
    assert!(
        outputs.iter().all(|output| whole.starts_with(output)),
        "{outputs:?}"
    );
    assert!(outputs.is_sorted_by_key(|output| output.len()));
    assert!(outputs.len() > 3, "it grows while it runs: {outputs:?}");
}

#[tokio::test]
async fn a_regular_method_is_seen_when_it_is_complete() {
    let host = Host::serving(["roadmap"]).await;
    let writer = actor("writer", "w");
    let mut socket = host.connect().await;
    let model = json!({"tokens": 1, "tokenMs": 0});
    socket.call(&writer, "generate", model).await.result();
    let before = socket.subscribe_state(&writer).await["state"].clone();
    let reset = socket.call(&writer, "reset", None).await;
    let blank = json!({"status": "idle", "output": ""});
    assert_eq!(shown(before, &reset.before), [blank]);
}

/// Has the method write on an actor of its own; gives how many patches a subscriber got.
async fn patches_of(host: &Host, method: &str, interval: u64) -> u64 {
    let writer = actor("writer", method);
    let mut socket = host.connect().await;
    socket.subscribe_state(&writer).await;
    let model = json!({"tokens": 200, "tokenMs": 8});
    let reply = socket.call(&writer, method, model).await;
    let took = reply.result().as_u64().expect("milliseconds");
    let patches = reply.before.len() as u64;
    println!("{method}: {patches} patches in {took} ms");
    assert!(
        patches <= took / interval + 3,
        "{method}: {patches} patches in {took} ms are more than one each {interval} ms"
    );
    patches
}

#[tokio::test]
async fn a_longer_interval_makes_fewer_patches() {
    let host = Host::serving(["roadmap"]).await;
    let (often, usually, seldom) = tokio::join!(
        patches_of(&host, "generate16", 16),
        patches_of(&host, "generate", 50),
        patches_of(&host, "generate100", 100),
    );
    assert!(
        often > usually && usually > seldom && seldom > 1,
        "{often}, {usually}, {seldom} patches"
    );
}

// Streaming RPC.

#[tokio::test]
async fn parts_of_the_result_come_before_it_and_to_the_caller_alone() {
    let host = Host::serving(["roadmap"]).await;
    let agent = actor("agent", "run-1");
    let mut other = host.connect().await;
    other.subscribe_state(&agent).await;
    other.subscribe_events(&agent).await;
    let mut caller = host.connect().await;
    caller
        .send(json!({
            "type": "rpc", "id": "rpc_1", "actor": "agent", "actorId": "run-1",
            "method": "generate", "input": {"prompt": "..."},
        }))
        .await;
    let expected = [
        json!({"type": "rpc:stream", "id": "rpc_1", "chunk": "Hello"}),
        json!({"type": "rpc:stream", "id": "rpc_1", "chunk": " world"}),
        json!({"type": "rpc:result", "id": "rpc_1", "result": "Hello world"}),
    ];
    for frame in expected {
        assert_eq!(caller.next().await, frame);
    }
    // All that the other one sees of it is the state.
    let failed = other.call(&agent, "generate", json!({"prompt": ""})).await;
    assert_eq!(failed.code(), "agent.no-prompt");
    assert_eq!(failed.types_before(), ["state:patch"]);
}

#[tokio::test]
async fn over_http_the_parts_are_events() {
    let host = Host::serving(["roadmap"]).await;
    let ask = |prompt: &str| {
        host.post("/actors/agent/run-1/generate")
            .json(&json!({"prompt": prompt}))
    };
    let mut stream = ask("...").stream().await;
    assert_eq!(stream.expect("chunk").await.data, "Hello");
    assert_eq!(stream.expect("chunk").await.data, " world");
    assert_eq!(stream.expect("result").await.data, "Hello world");
    stream.ends().await;
    let whole = ask("...").send().await.json();
    assert_eq!(whole, "Hello world", "without a stream, the result alone");
}

// All of it together.

async fn run_of(socket: &mut Socket, run: &Actor, tools: Value, timeout_ms: u64) -> Vec<Value> {
    let before = socket.subscribe_state(run).await["state"].clone();
    let words = json!(["I ", "will ", "look."]);
    let input = json!({
        "prompt": "Where?", "timeoutMs": timeout_ms,
        "answer": {"words": words, "tools": tools},
    });
    let reply = socket.call(run, "start", input).await;
    shown(before, &reply.before)
}

#[tokio::test]
async fn an_agent_streams_its_answer_and_uses_a_tool() {
    let host = Host::serving(["roadmap"]).await;
    let run = actor("agentRun", "run-1");
    let mut socket = host.connect().await;
    let states = run_of(&mut socket, &run, json!(["search"]), 30_000).await;
    let first = &states[0];
    assert_eq!(first["status"], "running");
    assert_eq!(first["messages"][0]["content"], "Where?");
    let last = states.last().expect("a last state");
    let messages = json!([
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "I will look."},
        {"role": "tool", "content": "search found: Where?"},
    ]);
    assert_eq!(last["messages"], messages);
    assert_eq!(last["status"], "done");
    let partly = states.iter().any(|state| {
        let answer = state["messages"][1]["content"].as_str();
        state["status"] == "running" && answer.is_some_and(|answer| answer != "I will look.")
    });
    assert!(partly, "the answer streams: {states:?}");
    let used = state_of(&host, &actor("tool", "search")).await;
    assert_eq!(used, json!({"uses": 1}));
}

#[tokio::test]
async fn the_time_out_of_an_agent_leaves_a_run_that_is_done_alone() {
    let host = host_that_forgets(100).await;
    let run = actor("agentRun", "run-1");
    let mut socket = host.connect().await;
    run_of(&mut socket, &run, json!([]), 1).await;
    socket.unsubscribe_state(&run).await;
    // Its timer kept it in memory, so that has fired.
    let about = host.until_asleep(&run).await;
    assert_eq!(about["state"]["status"], "done");
    assert_eq!(about["state"]["timedOut"], false);
}

#[tokio::test]
async fn the_time_out_ends_a_run_whose_tool_has_failed() {
    let host = Host::serving(["roadmap"]).await;
    let run = actor("agentRun", "run-1");
    let mut socket = host.connect().await;
    let states = run_of(&mut socket, &run, json!(["broken"]), 1).await;
    let last = states.last().expect("what it had said stays");
    assert_eq!(last["status"], "running");
    let over = |state: &Value| state["status"] == "done";
    let state = socket.watch(&run, over).await;
    assert_eq!(state["timedOut"], true);
    assert_eq!(state["messages"][0]["content"], "Where?");
}

//! The example `game` over real sockets: a lobby, a countdown, a round that ticks while its
//! players steer.

use http::StatusCode;
use serde_json::{Value, json};
use tidegate_tests::{Actor, Host, Socket, actor, dialect};

fn bay() -> Actor {
    actor("game", "bay")
}

async fn player(host: &Host, name: &str) -> Socket {
    let mut socket = host.connect().await;
    let joining = socket.call(&bay(), "join", json!({"name": name})).await;
    joining.result();
    socket
}

async fn start(socket: &mut Socket, countdown: u32, seconds: u32) {
    let length = json!({"countdown": countdown, "seconds": seconds});
    socket.call(&bay(), "start", length).await.result();
}

/// Applies the next frame that is a patch of the bay, and gives its operations.
async fn next_patch(socket: &mut Socket, state: &mut Value) -> Vec<Value> {
    let frame = socket.expect_type("state:patch").await;
    dialect::apply(state, &frame["patches"]);
    frame["patches"].as_array().expect("operations").clone()
}

fn place(of: &Value) -> (i64, i64) {
    let part = |name: &str| of[name].as_i64().expect("a number");
    (part("x"), part("y"))
}

/// Where to steer for the nearest pearl.
fn towards_pearl(state: &Value, name: &str) -> Value {
    let (x, y) = place(&state["players"][name]);
    let pearls = state["pearls"]
        .as_array()
        .expect("pearls")
        .iter()
        .map(place);
    let distances = pearls.map(|pearl| (pearl.0 - x, pearl.1 - y));
    let nearest = distances.min_by_key(|(x, y)| x * x + y * y);
    let (dx, dy) = nearest.expect("a pearl");
    let part = |d: i64| if d.abs() < 24 { 0 } else { d.signum() * 100 };
    json!({"dx": part(dx), "dy": part(dy)})
}

#[tokio::test]
async fn a_round_from_the_lobby_to_its_winner() {
    let host = Host::serving(["game"]).await;
    let mut ann = player(&host, "Ann").await;
    let mut ben = player(&host, "Ben").await;
    ben.subscribe_events(&bay()).await;
    let mut eve = host.connect().await;
    let snapshot = eve.subscribe_state(&bay()).await;
    let mut state = snapshot["state"].clone();
    assert_eq!(state["phase"], "lobby");
    for hidden in ["helms", "timers", "chance"] {
        assert_eq!(state.get(hidden), None, "{hidden} is nobody's business");
    }

    start(&mut ann, 1, 3).await;
    let (mut phases, mut moves, mut seconds) = (vec![json!("lobby")], 0, vec![]);
    let mut steered = Value::Null;
    let moored = place(&state["players"]["Ben"]);
    while phases.len() < 4 {
        let before = state.clone();
        let patch = next_patch(&mut eve, &mut state).await;
        for operation in &patch {
            let path = operation["path"].as_str().expect("a path");
            for hidden in ["/helms", "/timers", "/chance"] {
                assert!(!path.starts_with(hidden), "{operation}");
            }
        }
        if state["phase"] != before["phase"] {
            phases.push(state["phase"].clone());
        }
        if state["phase"] == "playing" {
            if state["secondsLeft"] != before["secondsLeft"] {
                seconds.push(state["secondsLeft"].clone());
            }
            let sailed = place(&state["players"]["Ann"]) != place(&before["players"]["Ann"]);
            moves += usize::from(sailed);
            let course = towards_pearl(&state, "Ann");
            if course != steered {
                // The answer would only hold up whoever steers.
                ann.begin_call(&bay(), "steer", course.clone()).await;
                steered = course;
            }
        }
    }
    assert_eq!(phases, ["lobby", "countdown", "playing", "lobby"]);
    assert_eq!(state["watching"], 3);
    // 187 ticks fit into three seconds, on a machine that has nothing else to do.
    assert!(moves > 50, "Ann was seen in {moves} places");
    assert_eq!(seconds[..3], [3, 2, 1]);
    assert_eq!(place(&state["players"]["Ben"]), moored);

    let score = |name: &str| state["players"][name]["score"].as_u64();
    assert!(score("Ann") > Some(0), "{state}");
    let best = score("Ann").max(score("Ben"));
    let winners: Vec<&str> = ["Ann", "Ben"]
        .into_iter()
        .filter(|name| score(name) == best)
        .collect();
    assert_eq!(state["winners"], json!(winners));
    assert_eq!(state["pearls"], json!([]));

    let mut collected = 0;
    let ended = loop {
        let event = ben.expect_type("event").await;
        match event["event"].as_str() {
            Some("collected") if event["payload"]["name"] == "Ann" => {
                collected += event["payload"]["pearl"]["worth"].as_u64().unwrap_or(0);
            }
            Some("collected") => {}
            _ => break event,
        }
    };
    assert_eq!(ended["event"], "roundEnded");
    assert_eq!(ended["payload"], json!({"round": 1, "winners": winners}));
    assert_eq!(score("Ann"), Some(collected));
}

#[tokio::test]
async fn steering_is_answered_while_the_round_runs() {
    let host = Host::serving(["game"]).await;
    let mut ann = player(&host, "Ann").await;
    start(&mut ann, 1, 120).await;
    ann.watch(&bay(), |state| state["phase"] == "playing").await;
    let right = json!({"dx": 100, "dy": 0});
    ann.call(&bay(), "steer", right).await.result();
    ann.watch(&bay(), |state| place(&state["players"]["Ann"]).0 > 3_000)
        .await;
    let too_fast = json!({"dx": 101, "dy": 0});
    let refused = ann.call(&bay(), "steer", too_fast).await;
    assert_eq!(refused.code(), "game.out-of-range");
}

#[tokio::test]
async fn a_round_without_players_ends_and_the_game_leaves_memory() {
    let host = Host::builder()
        .component("game")
        .set("actors.idle-timeout-ms=100")
        .start()
        .await;
    let mut ann = player(&host, "Ann").await;
    let ann_sees = |state: &Value| state["phase"] == "playing";
    start(&mut ann, 1, 120).await;
    ann.watch(&bay(), ann_sees).await;
    let mut eve = host.connect().await;
    eve.subscribe_state(&bay()).await;
    ann.vanish();
    let state = eve.watch(&bay(), |state| state["phase"] == "lobby").await;
    assert!(state["players"]["Ann"]["absentSince"].is_u64(), "{state}");
    assert_eq!(state["winners"], json!([]));
    eve.close().await;
    // A timer that was left over would keep it there.
    host.until_asleep(&bay()).await;
    let mut ann = player(&host, "Ann").await;
    let state = ann.watch(&bay(), |_| true).await;
    assert_eq!(state["players"]["Ann"].get("absentSince"), None);
}

#[tokio::test]
async fn the_clock_is_not_the_players_to_move() {
    let host = Host::serving(["game"]).await;
    let mut ann = player(&host, "Ann").await;
    for method in ["tick", "endRound", "countDown", "cleanup"] {
        let refused = ann.call(&bay(), method, None).await;
        assert_eq!(refused.code(), "game.by-the-clock", "{method}");
    }
    let begin = json!({"seconds": 5});
    let refused = ann.call(&bay(), "beginRound", begin).await;
    assert_eq!(refused.code(), "game.by-the-clock");
    let over_http = host.post("/actors/game/bay/tick").send().await;
    assert_eq!(over_http.status, StatusCode::FORBIDDEN);
    over_http.failed(403, "game.by-the-clock");
}

//! Rounds of the game as its players see them.

use super::*;
use tidegate_sdk::test::{self, Value, json};

type Bay = test::Actor<Game>;

/// Ann (`c1`) and Ben (`c2`) in the lobby.
fn lobby() -> Bay {
    let mut bay = Bay::new("b");
    for (connection, name) in [("c1", "Ann"), ("c2", "Ben")] {
        join(&mut bay, connection, name).unwrap();
    }
    bay
}

fn join(bay: &mut Bay, connection: &str, name: &str) -> Result<Value> {
    bay.from(connection).invoke("join", json!({"name": name}))
}

fn start(bay: &mut Bay) {
    bay.from("c1").invoke("start", None).unwrap();
}

/// A round that has just begun, with one pearl, on Ann's right. Where others come up after it
/// is known.
fn playing() -> Bay {
    let mut bay = lobby();
    start(&mut bay);
    bay.advance(3_000);
    let mut state = bay.state();
    let ann = &state["players"]["Ann"];
    let x = ann["x"].as_i64().unwrap() + 400;
    state["pearls"] = json!([{"x": x, "y": ann["y"], "worth": 3}]);
    state["chance"] = json!(2026);
    bay.set_state(state);
    bay.emitted();
    bay
}

fn steer(bay: &mut Bay, connection: &str, dx: i32, dy: i32) -> Result<Value> {
    let input = json!({"dx": dx, "dy": dy});
    bay.from(connection).invoke("steer", input)
}

fn code(result: Result<Value>) -> String {
    result.unwrap_err().code().to_owned()
}

fn timers(bay: &Bay) -> Vec<String> {
    let mut methods: Vec<String> = bay
        .timers()
        .iter()
        .map(|timer| timer.method().to_owned())
        .collect();
    methods.sort();
    methods
}

fn is_absent(bay: &Bay, name: &str) -> bool {
    bay.state()["players"][name].get("absentSince").is_some()
}

#[test]
fn players_of_the_lobby_have_names_and_colors() {
    let mut bay = lobby();
    assert_eq!(bay.state()["players"]["Ann"]["color"], 0);
    assert_eq!(bay.state()["players"]["Ben"]["color"], 1);
    assert_eq!(code(join(&mut bay, "c3", "Ann")), "game.name-taken");
    assert_eq!(code(join(&mut bay, "c1", "Eve")), "game.already-joined");
    assert_eq!(code(join(&mut bay, "c3", "  ")), "game.invalid-name");
    let long = "x".repeat(NAME_MAX + 1);
    assert_eq!(code(join(&mut bay, "c3", &long)), "game.invalid-name");
    bay.from("c1").invoke("leave", None).unwrap();
    assert_eq!(join(&mut bay, "c3", " Eve "), Ok(json!(0)));
    assert_eq!(
        code(bay.from("c1").invoke("leave", None)),
        "game.not-joined"
    );
}

#[test]
fn who_looks_on_is_counted_and_does_not_play() {
    let mut bay = lobby();
    bay.connect("c3").unwrap();
    assert_eq!(bay.state()["watching"], 3);
    assert_eq!(
        code(bay.from("c3").invoke("start", None)),
        "game.not-joined"
    );
    assert_eq!(code(steer(&mut bay, "c3", 1, 1)), "game.not-joined");
    let over_http = bay.invoke("join", json!({"name": "Eve"}));
    assert_eq!(code(over_http), "game.no-connection");
    bay.disconnect("c3").unwrap();
    assert_eq!(bay.state()["watching"], 2);
}

#[test]
fn the_lobby_is_full_of_those_who_are_here() {
    let mut bay = lobby();
    for n in 3..=PLAYERS_MAX {
        join(&mut bay, &format!("c{n}"), &format!("Player {n}")).unwrap();
    }
    assert_eq!(code(join(&mut bay, "c9", "Eve")), "game.full");
    bay.disconnect("c2").unwrap();
    assert_eq!(join(&mut bay, "c9", "Eve"), Ok(json!(1)));
    assert_eq!(bay.state()["players"].get("Ben"), None);
}

#[test]
fn a_round_begins_after_the_countdown_and_ends_by_itself() {
    let mut bay = lobby();
    start(&mut bay);
    assert_eq!(bay.state()["phase"], "countdown");
    assert_eq!(bay.state()["secondsLeft"], 3);
    assert_eq!(timers(&bay), ["beginRound", "countDown"]);
    let again = bay.from("c2").invoke("start", None);
    assert_eq!(code(again), "game.already-started");
    bay.advance(2_000);
    assert_eq!(bay.state()["secondsLeft"], 1);
    bay.advance(1_000);
    assert_eq!(bay.state()["phase"], "playing");
    assert_eq!(bay.state()["pearls"].as_array().map(Vec::len), Some(6));
    assert_eq!(timers(&bay), ["countDown", "endRound", "tick"]);
    bay.advance(19_000);
    assert_eq!(bay.state()["secondsLeft"], 1);
    bay.advance(1_000);
    assert_eq!(bay.state()["phase"], "lobby");
    assert_eq!(bay.state()["pearls"], json!([]));
    assert_eq!(timers(&bay), [""; 0], "an idle game costs nothing");
}

#[test]
fn a_round_is_as_long_as_it_is_asked_to_be() {
    let mut bay = lobby();
    for (name, value) in [
        ("countdown", 0),
        ("countdown", 11),
        ("seconds", 0),
        ("seconds", 121),
    ] {
        let failure = bay.from("c1").invoke("start", json!({name: value}));
        let failure = failure.unwrap_err();
        assert_eq!(failure.code(), "game.out-of-range");
        assert_eq!(failure.params()["name"], name);
    }
    let short = json!({"countdown": 1, "seconds": 2});
    bay.from("c1").invoke("start", short).unwrap();
    bay.advance(1_000);
    assert_eq!(bay.state()["phase"], "playing");
    bay.advance(2_000);
    assert_eq!(bay.state()["phase"], "lobby");
}

#[test]
fn boats_go_where_they_are_steered_between_two_ticks() {
    let mut bay = playing();
    let begun = bay.state();
    bay.advance(160);
    assert_eq!(bay.state(), begun, "nobody steers");
    let mut state = begun.clone();
    steer(&mut bay, "c2", 0, 100).unwrap();
    bay.advance(80);
    let y = begun["players"]["Ben"]["y"].as_i64().unwrap();
    state["players"]["Ben"]["y"] = (y + 5 * 24).into();
    state["helms"] = bay.state()["helms"].clone();
    assert_eq!(bay.state(), state, "one number has changed");
    steer(&mut bay, "c2", 0, 0).unwrap();
    bay.advance(160);
    assert_eq!(bay.state()["players"], state["players"]);
    for (dx, dy) in [(101, 0), (0, -101), (i32::MAX, i32::MIN)] {
        assert_eq!(code(steer(&mut bay, "c2", dx, dy)), "game.out-of-range");
    }
}

#[test]
fn who_steers_in_the_countdown_sails_off_at_once() {
    let mut bay = lobby();
    steer(&mut bay, "c2", 100, 0).unwrap();
    start(&mut bay);
    steer(&mut bay, "c1", 100, 0).unwrap();
    bay.advance(3_000);
    let moored = bay.state()["players"].clone();
    bay.advance(16);
    let players = bay.state()["players"].clone();
    let x = moored["Ann"]["x"].as_i64().map(|x| x + 24);
    assert_eq!(players["Ann"]["x"].as_i64(), x);
    assert_eq!(players["Ben"], moored["Ben"], "he steered in the lobby");
}

#[test]
fn who_takes_the_most_pearls_wins() {
    let mut bay = playing();
    let pearl = bay.state()["pearls"][0].clone();
    steer(&mut bay, "c1", 100, 0).unwrap();
    bay.advance(160);
    assert_eq!(bay.state()["players"]["Ann"]["score"], 3);
    assert_ne!(bay.state()["pearls"][0], pearl, "another has come up");
    let collected = json!({"name": "Ann", "pearl": pearl});
    assert_eq!(bay.received("c2"), [("collected".to_owned(), collected)]);
    steer(&mut bay, "c1", 0, 0).unwrap();
    bay.advance(20_000);
    assert_eq!(bay.state()["winners"], json!(["Ann"]));
    let ended = json!({"round": 1, "winners": ["Ann"]});
    assert_eq!(bay.received("c2"), [("roundEnded".to_owned(), ended)]);
    start(&mut bay);
    bay.advance(3_000);
    assert_eq!(bay.state()["players"]["Ann"]["score"], 0);
    assert_eq!(bay.state()["winners"], json!([]));
    bay.advance(20_000);
    assert_eq!(bay.state()["winners"], json!([]), "nobody took a pearl");
}

#[test]
fn a_late_comer_plays_at_once() {
    let mut bay = playing();
    join(&mut bay, "c3", "Cem").unwrap();
    let x = bay.state()["players"]["Cem"]["x"].as_i64();
    steer(&mut bay, "c3", -100, 0).unwrap();
    bay.advance(16);
    assert_eq!(
        bay.state()["players"]["Cem"]["x"].as_i64(),
        x.map(|x| x - 24)
    );
}

#[test]
fn a_countdown_without_players_is_cancelled() {
    let mut bay = lobby();
    start(&mut bay);
    bay.from("c1").invoke("leave", None).unwrap();
    assert_eq!(bay.state()["phase"], "countdown", "Ben is still here");
    bay.disconnect("c2").unwrap();
    assert_eq!(bay.state()["phase"], "lobby");
    assert_eq!(timers(&bay), [""; 0]);
}

#[test]
fn a_round_without_players_ends() {
    let mut bay = playing();
    steer(&mut bay, "c1", 100, 0).unwrap();
    bay.advance(160);
    bay.connect("c3").unwrap();
    bay.disconnect("c1").unwrap();
    assert_eq!(bay.state()["phase"], "playing");
    bay.disconnect("c2").unwrap();
    assert_eq!(bay.state()["phase"], "lobby", "whoever looks on");
    let ended = json!({"round": 1, "winners": ["Ann"]});
    assert_eq!(bay.received("c3"), [("roundEnded".to_owned(), ended)]);
    assert_eq!(timers(&bay), [""; 0]);
}

#[test]
fn who_comes_back_soon_finds_their_boat_and_their_points() {
    let mut bay = playing();
    steer(&mut bay, "c1", 100, 0).unwrap();
    bay.advance(160);
    bay.disconnect("c1").unwrap();
    assert!(is_absent(&bay, "Ann"));
    let boat = bay.state()["players"]["Ann"]["x"].clone();
    bay.advance(160);
    assert_eq!(bay.state()["players"]["Ann"]["x"], boat, "nobody steers it");
    assert_eq!(join(&mut bay, "c9", "Ann"), Ok(json!(0)));
    assert!(!is_absent(&bay, "Ann"));
    assert_eq!(bay.state()["players"]["Ann"]["score"], 3);
}

#[test]
fn who_stays_away_is_removed() {
    let mut bay = lobby();
    bay.disconnect("c2").unwrap();
    bay.advance(29_999);
    assert!(is_absent(&bay, "Ben"));
    let fired = bay.advance(1);
    assert_eq!(fired[0].method, "cleanup");
    assert_eq!(bay.state()["players"].get("Ben"), None);
    assert!(!is_absent(&bay, "Ann"));
    bay.updates();
    bay.advance(600_000);
    assert_eq!(bay.updates(), [], "an idle game says nothing");
}

#[test]
fn only_the_clock_calls_what_is_the_clocks() {
    let mut bay = lobby();
    for method in BY_THE_CLOCK {
        let input = (method == "beginRound").then(|| json!({"seconds": 5}));
        let refused = bay.from("c1").invoke(method, input);
        assert_eq!(code(refused), "game.by-the-clock", "{method}");
    }
    let manifest = bay.manifest();
    let methods = manifest["methods"].to_string();
    for method in BY_THE_CLOCK {
        assert!(methods.contains(method), "{method} is no method: {methods}");
    }
}

#[test]
fn a_game_that_left_memory_waits_in_the_lobby() {
    let mut bay = playing();
    bay.deactivate().unwrap();
    let mut state = bay.state();
    state["helms"] = json!({
        "gone": {"player": "Ben", "course": {"x": 24, "y": 0}},
        "c1": state["helms"]["c1"],
    });
    bay.set_state(state);
    bay.activate().unwrap();
    assert_eq!(bay.state()["phase"], "lobby");
    assert!(is_absent(&bay, "Ben"));
    assert!(!is_absent(&bay, "Ann"));
    start(&mut bay);
    bay.advance(3_000);
    assert_eq!(bay.state()["phase"], "playing");
}

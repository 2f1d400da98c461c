//! What a manifest may say, and how one that may not is refused.

use proptest::prelude::*;

use super::*;

fn parse(manifest: Value) -> Manifest {
    Manifest::parse(&manifest.to_string()).unwrap_or_else(|error| panic!("{manifest}: {error}"))
}

fn refusal(manifest: Value) -> String {
    Manifest::parse(&manifest.to_string())
        .expect_err("the manifest was accepted")
        .to_string()
}

fn with_actor(actor: Value) -> Value {
    json!({"tidegate": "0.1", "actors": {"counter": actor}})
}

/// The example of `wit/manifest.wit`.
fn example() -> Value {
    let wit = include_str!("../../../wit/manifest.wit");
    let lines = wit.lines().map(|line| line.trim_start());
    let lines = lines.skip_while(|line| *line != "/// ```json").skip(1);
    let lines = lines.take_while(|line| *line != "/// ```");
    let text: String = lines.map(|line| line.trim_start_matches("///")).collect();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_contracts_example_is_read_whole() {
    let manifest = parse(example());
    let counter = manifest.actors.get("counter").unwrap();
    assert_eq!(counter.description.as_deref(), Some("A shared counter."));
    assert_eq!(counter.state.initial.to_text(), r#"{"count":0}"#);
    assert!(counter.state.hidden.is_empty());
    let schema = counter.state.schema.as_ref().unwrap();
    assert!(schema.check(&Json::from(json!({"count": "x"}))).is_err());
    let increment = counter.methods.get("increment").unwrap();
    assert_eq!(
        increment.description.as_deref(),
        Some("Adds to the count and returns it.")
    );
    assert!(
        increment
            .input
            .as_ref()
            .unwrap()
            .check(&Json::from(json!({})))
            .is_err()
    );
    assert!(
        increment
            .output
            .as_ref()
            .unwrap()
            .check(&Json::from(json!(1)))
            .is_ok()
    );
    assert!(
        counter.events["milestone"]
            .check(&Json::from(json!({})))
            .is_ok()
    );
    let all = Hooks {
        activate: true,
        deactivate: true,
        connect: true,
        disconnect: true,
    };
    assert_eq!(counter.hooks, all);
    let count_down = &counter.methods["count-down"];
    assert_eq!(count_down.streaming, Some(Streaming { interval_ms: 100 }));
    assert_eq!(count_down.deadline_ms, Some(60_000));
    assert_eq!(counter.cron["tidy"], Cron::Every { ms: 30_000 });
    let nightly = Schedule::parse("0 3 * * *").unwrap();
    assert_eq!(counter.cron["report"], Cron::Schedule(nightly));
}

#[test]
fn the_source_is_kept() {
    assert_eq!(*parse(example()).source(), example());
}

#[test]
fn what_is_absent_has_its_default() {
    let manifest = parse(with_actor(
        json!({"methods": {"m": {}}, "events": {"e": true}}),
    ));
    let counter = &manifest.actors["counter"];
    assert_eq!(counter.description, None);
    assert_eq!(counter.state.schema, None);
    assert_eq!(counter.state.initial.to_text(), "{}");
    assert_eq!(counter.hooks, Hooks::default());
    assert_eq!(counter.methods["m"].input, None);
    assert_eq!(counter.methods["m"].output, None);
    assert_eq!(counter.methods["m"].streaming, None);
    assert_eq!(counter.methods["m"].deadline_ms, None);
    assert!(counter.cron.is_empty());
    assert!(counter.events["e"].check(&Json::from(json!(null))).is_ok());
}

#[test]
fn a_manifest_may_have_no_actors() {
    assert!(
        parse(json!({"tidegate": "0.1", "actors": {}}))
            .actors
            .is_empty()
    );
}

#[test]
fn any_json_may_be_a_state() {
    let manifest = parse(with_actor(json!({"state": {"initial": [1, null]}})));
    assert_eq!(
        manifest.actors["counter"].state.initial.to_text(),
        "[1,null]"
    );
}

#[test]
fn an_unknown_field_is_refused_wherever_it_is() {
    let state = "unknown field, expected schema, initial, version or hidden";
    let method = "unknown field, expected description, input, output, streaming or deadlineMs";
    let actor = "unknown field, expected description, state, methods, events, cron, hooks, \
                 access or recheck";
    for (manifest, expected) in [
        (
            json!({"tidegate": "0.1", "actors": {}, "channels": {}}),
            "/channels: unknown field, expected tidegate or actors".to_owned(),
        ),
        (
            with_actor(json!({"metods": {}})),
            format!("/actors/counter/metods: {actor}"),
        ),
        (
            with_actor(json!({"state": {"inital": {}}})),
            format!("/actors/counter/state/inital: {state}"),
        ),
        (
            with_actor(json!({"methods": {"m": {"in/put": {}}}})),
            format!("/actors/counter/methods/m/in~1put: {method}"),
        ),
    ] {
        assert_eq!(refusal(manifest), expected);
    }
}

#[test]
fn a_wrong_version_is_refused_before_anything_else() {
    assert_eq!(
        refusal(json!({"tidegate": "0.2", "agents": {}})),
        "/tidegate: expected \"0.1\", the version that this host reads, found \"0.2\""
    );
    assert_eq!(
        refusal(json!({"tidegate": 0.1, "actors": {}})),
        "/tidegate: expected \"0.1\", the version that this host reads, found 0.1"
    );
    assert_eq!(
        refusal(json!({"actors": {}})),
        "/tidegate: missing, expected the format's version \"0.1\""
    );
}

#[test]
fn missing_actors_are_refused() {
    assert_eq!(
        refusal(json!({"tidegate": "0.1"})),
        "/actors: missing, expected an object of actor types"
    );
}

#[test]
fn what_is_no_json_object_is_refused() {
    for (text, start) in [
        ("", "/: expected a JSON object, found EOF"),
        ("{", "/: expected a JSON object, found EOF"),
        (
            "{} x",
            "/: expected a JSON object, found trailing characters",
        ),
        ("[]", "/: expected an object, found array"),
        ("null", "/: expected an object, found null"),
        ("\"0.1\"", "/: expected an object, found \"0.1\""),
    ] {
        let message = Manifest::parse(text).unwrap_err().to_string();
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn a_member_that_appears_twice_is_refused() {
    let text = r#"{"tidegate":"0.1","actors":{"a":{"methods":{"m":{},"m":{}}}}}"#;
    assert_eq!(
        Manifest::parse(text).unwrap_err().to_string(),
        "/: expected a JSON object, found the member \"m\" twice at line 1 column 58"
    );
}

#[test]
fn deep_nesting_is_refused() {
    let text = "[".repeat(100_000);
    assert!(Manifest::parse(&text).is_err());
}

#[test]
fn wrong_types_are_named() {
    for (actor, expected) in [
        (json!(1), "/actors/counter: expected an object, found 1"),
        (
            json!({"description": 1}),
            "/actors/counter/description: expected a string, found 1",
        ),
        (
            json!({"state": []}),
            "/actors/counter/state: expected an object, found array",
        ),
        (
            json!({"methods": null}),
            "/actors/counter/methods: expected an object, found null",
        ),
        (
            json!({"methods": {"m": true}}),
            "/actors/counter/methods/m: expected an object, found true",
        ),
        (
            json!({"hooks": {}}),
            "/actors/counter/hooks: expected an array, found object",
        ),
        (
            json!({"hooks": [1]}),
            "/actors/counter/hooks/0: expected a string, found 1",
        ),
        (
            json!({"events": {"e": null}}),
            "/actors/counter/events/e: expected a JSON Schema (an object, true or false), found null",
        ),
    ] {
        assert_eq!(refusal(with_actor(actor)), expected);
    }
    assert_eq!(
        refusal(json!({"tidegate": "0.1", "actors": []})),
        "/actors: expected an object, found array"
    );
}

#[test]
fn bad_names_are_refused() {
    let expected = "expected a name (a letter, then letters, digits, `_` or `-`, 64 bytes at \
                    most), found \"a b\"";
    for (manifest, place) in [
        (json!({"tidegate": "0.1", "actors": {"a b": {}}}), "/actors"),
        (
            with_actor(json!({"methods": {"a b": {}}})),
            "/actors/counter/methods",
        ),
        (
            with_actor(json!({"events": {"a b": true}})),
            "/actors/counter/events",
        ),
    ] {
        assert_eq!(refusal(manifest), format!("{place}: {expected}"));
    }
}

#[test]
fn unknown_and_repeated_hooks_are_refused() {
    assert_eq!(
        refusal(with_actor(json!({"hooks": ["activate", "onConnect"]}))),
        "/actors/counter/hooks/1: expected activate, deactivate, connect or disconnect, found \
         \"onConnect\""
    );
    assert_eq!(
        refusal(with_actor(json!({"hooks": ["connect", "connect"]}))),
        "/actors/counter/hooks/1: expected each hook once, found \"connect\""
    );
}

#[test]
fn a_schema_error_is_named_by_its_place_in_the_manifest() {
    assert_eq!(
        refusal(with_actor(
            json!({"methods": {"m": {"input": {"properties": {"a": {"type": 1}}}}}})
        )),
        "/actors/counter/methods/m/input/properties/a/type: expected the name of a JSON type or \
         an array of them, found 1"
    );
    assert_eq!(
        refusal(with_actor(
            json!({"state": {"schema": {"$ref": "https://x.test"}}})
        )),
        "/actors/counter/state/schema/$ref: expected a reference within the same schema, such \
         as \"#/$defs/name\", found \"https://x.test\""
    );
}

#[test]
fn an_initial_state_that_its_schema_refuses_is_refused() {
    let schema = json!({"type": "object", "required": ["count"]});
    let expected = "/actors/counter/state/initial: expected a state that satisfies the schema, \
                    found /count: missing";
    let given = json!({"state": {"schema": schema, "initial": {"n": 0}}});
    assert_eq!(refusal(with_actor(given)), expected);
    let absent = json!({"state": {"schema": schema}});
    assert_eq!(refusal(with_actor(absent)), expected);
}

#[test]
fn a_state_has_a_version_which_is_0_where_none_is_given() {
    let version = |state: Value| {
        let manifest = parse(with_actor(json!({"state": state})));
        manifest.actors["counter"].state.version
    };
    assert_eq!(version(json!({})), 0);
    assert_eq!(version(json!({"version": 3})), 3);
    assert_eq!(version(json!({"version": u32::MAX})), u32::MAX);
    assert_eq!(
        parse(with_actor(json!({}))).actors["counter"].state.version,
        0
    );
    for wrong in [
        json!(-1),
        json!(1.5),
        json!("1"),
        json!(u64::from(u32::MAX) + 1),
    ] {
        let expected = "/actors/counter/state/version: expected a whole number from 0 to";
        let refused = refusal(with_actor(json!({"state": {"version": wrong}})));
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn hidden_members_are_names_not_pointers() {
    let with = |hidden: Value| with_actor(json!({"state": {"hidden": hidden}}));
    assert_eq!(
        parse(with(json!(["deck", "secret key"]))).actors["counter"]
            .state
            .hidden,
        ["deck", "secret key"]
    );
    assert_eq!(
        refusal(with(json!(["deck", "/deck"]))),
        "/actors/counter/state/hidden/1: expected the name of a top-level member, not a pointer, \
         found \"/deck\""
    );
    assert_eq!(
        refusal(with(json!([""]))),
        "/actors/counter/state/hidden/0: expected the name of a top-level member, not a pointer, \
         found \"\""
    );
    assert_eq!(
        refusal(with(json!(["a", "a"]))),
        "/actors/counter/state/hidden/1: expected each name once, found \"a\""
    );
    assert_eq!(
        refusal(with(json!("deck"))),
        "/actors/counter/state/hidden: expected an array, found \"deck\""
    );
}

#[test]
fn a_state_with_hidden_members_is_an_object() {
    assert_eq!(
        refusal(with_actor(
            json!({"state": {"initial": 1, "hidden": ["a"]}})
        )),
        "/actors/counter/state/initial: expected an object, since some of its members are \
         hidden, found 1"
    );
}

#[test]
fn a_streaming_method_has_an_interval() {
    let with = |streaming: Value| with_actor(json!({"methods": {"m": {"streaming": streaming}}}));
    let interval = |streaming| {
        let manifest = parse(with(streaming));
        manifest.actors["counter"].methods["m"]
            .streaming
            .map(|streaming| streaming.interval_ms)
    };
    assert_eq!(interval(json!({})), Some(50));
    assert_eq!(interval(json!({"intervalMs": 1})), Some(1));
    assert_eq!(interval(json!({"intervalMs": 60_000})), Some(60_000));
    for bad in [json!(0), json!(60_001), json!(16.5), json!("16"), json!(-1)] {
        let message = refusal(with(json!({"intervalMs": bad})));
        let start = "/actors/counter/methods/m/streaming/intervalMs: expected a whole number of \
                     milliseconds from 1 to 60000, found ";
        assert!(message.starts_with(start), "{message}");
    }
    assert_eq!(
        refusal(with(json!(true))),
        "/actors/counter/methods/m/streaming: expected an object, found true"
    );
    assert_eq!(
        refusal(with(json!({"interval": 50}))),
        "/actors/counter/methods/m/streaming/interval: unknown field, expected intervalMs"
    );
}

#[test]
fn a_method_may_have_a_deadline() {
    let with = |ms: Value| with_actor(json!({"methods": {"m": {"deadlineMs": ms}}}));
    for good in [1, 300_000, 86_400_000] {
        let manifest = parse(with(json!(good)));
        assert_eq!(
            manifest.actors["counter"].methods["m"].deadline_ms,
            Some(good)
        );
    }
    for bad in [json!(0), json!(86_400_001), json!("1s"), json!(null)] {
        let message = refusal(with(bad));
        let start = "/actors/counter/methods/m/deadlineMs: expected a whole number of \
                     milliseconds from 1 to 86400000, found ";
        assert!(message.starts_with(start), "{message}");
    }
}

fn with_cron(cron: Value) -> Value {
    with_actor(json!({
        "methods": {
            "tidy": {},
            "either": {"input": {"type": ["object", "null"]}},
            "add": {"input": {"type": "object"}},
        },
        "cron": cron,
    }))
}

#[test]
fn what_runs_by_the_clock_is_an_interval_or_an_expression() {
    let manifest = parse(with_cron(json!({
        "tidy": {"everyMs": 100},
        "either": {"schedule": "*/5 * * * * *"},
    })));
    let cron = &manifest.actors["counter"].cron;
    assert_eq!(cron["tidy"].next_after(7, 7), Some(107));
    assert_eq!(cron["either"].next_after(0, 7), Some(5_000));
    for (entry, expected) in [
        (
            json!({}),
            ": expected either everyMs or schedule, found neither",
        ),
        (
            json!({"everyMs": 100, "schedule": "* * * * *"}),
            ": expected either everyMs or schedule, found both",
        ),
        (
            json!({"every": 100}),
            "/every: unknown field, expected everyMs or schedule",
        ),
        (json!("30 s"), ": expected an object, found \"30 s\""),
        (
            json!({"everyMs": 99}),
            "/everyMs: expected a whole number of milliseconds from 100 to 2678400000, found 99",
        ),
        (
            json!({"everyMs": 2_678_400_001u64}),
            "/everyMs: expected a whole number of milliseconds from 100 to 2678400000, found \
             2678400001",
        ),
        (
            json!({"schedule": 5}),
            "/schedule: expected a string, found 5",
        ),
        (
            json!({"schedule": "0 0 30 2 *"}),
            "/schedule: expected a cron expression that some date satisfies, found \
             \"0 0 30 2 *\"",
        ),
    ] {
        assert_eq!(
            refusal(with_cron(json!({"tidy": entry}))),
            format!("/actors/counter/cron/tidy{expected}")
        );
    }
}

#[test]
fn what_runs_by_the_clock_is_a_method_that_can_do_without_an_input() {
    assert_eq!(
        refusal(with_cron(json!({"tidi": {"everyMs": 100}}))),
        "/actors/counter/cron/tidi: expected the name of a method, found tidi"
    );
    assert_eq!(
        refusal(with_cron(json!({"add": {"everyMs": 100}}))),
        "/actors/counter/cron/add: expected a method that can do without an input (its schema \
         must accept null), found /: expected object, found null"
    );
}

#[test]
fn the_clock_has_limits() {
    let many = |count: usize, value: Value| {
        let members = (0..count).map(|n| (format!("n{n}"), value.clone()));
        Value::Object(members.collect())
    };
    let actor = |count: usize, entry: Value| json!({"methods": many(count, json!({})), "cron": many(count, entry)});
    assert_eq!(
        refusal(with_actor(actor(65, json!({"everyMs": 100})))),
        "/actors/counter/cron: expected 64 members at most, found 65"
    );
    let actors = many(17, actor(64, json!({"schedule": "* * * * *"})));
    assert_eq!(
        refusal(json!({"tidegate": "0.1", "actors": actors})),
        "/: expected 1024 cron expressions at most in all actor types together, found 1088"
    );
    let actors = many(17, actor(64, json!({"everyMs": 100})));
    parse(json!({"tidegate": "0.1", "actors": actors}));
}

#[test]
fn limits_are_named() {
    let long = " ".repeat(MANIFEST_MAX_BYTES + 1);
    assert_eq!(
        Manifest::parse(&long).unwrap_err().to_string(),
        "/: expected a manifest of 1048576 bytes at most, found 1048577 bytes"
    );
    let many = |count: usize, value: Value| {
        Value::Object(
            (0..count)
                .map(|n| (format!("n{n}"), value.clone()))
                .collect(),
        )
    };
    assert_eq!(
        refusal(json!({"tidegate": "0.1", "actors": many(257, json!({}))})),
        "/actors: expected 256 members at most, found 257"
    );
    assert_eq!(
        refusal(with_actor(json!({"methods": many(257, json!({}))}))),
        "/actors/counter/methods: expected 256 members at most, found 257"
    );
    let names: Vec<String> = (0..257).map(|n| n.to_string()).collect();
    assert_eq!(
        refusal(with_actor(json!({"state": {"hidden": names}}))),
        "/actors/counter/state/hidden: expected 256 names at most, found 257"
    );
    let patterns = json!({"allOf": vec![json!({"pattern": "^a"}); 60]});
    assert_eq!(
        refusal(with_actor(json!({"events": many(5, patterns)}))),
        "/: expected 256 patterns at most in all schemas together, found 300"
    );
}

proptest! {
    #[test]
    fn no_text_makes_parse_panic(text in ".*") {
        prop_assert!(Manifest::parse(&text).is_err());
    }

    #[test]
    fn a_stray_value_anywhere_is_refused_at_its_place_or_below(
        place in prop::sample::select(vec![
            "/tidegate", "/actors", "/actors/counter", "/actors/counter/description",
            "/actors/counter/state", "/actors/counter/state/hidden", "/actors/counter/methods",
            "/actors/counter/methods/increment", "/actors/counter/methods/increment/input",
            "/actors/counter/events", "/actors/counter/hooks", "/actors/counter/cron",
            "/actors/counter/cron/tidy", "/actors/counter/methods/count-down/streaming",
        ]),
        stray in prop::sample::select(vec![json!(1), json!(null), json!([[]]), json!({"!": 1})]),
    ) {
        // An object with any members is a schema.
        prop_assume!(!(place.ends_with("/input") && stray.is_object()));
        let mut manifest = example();
        *manifest.pointer_mut(place).unwrap() = stray;
        let error = Manifest::parse(&manifest.to_string()).unwrap_err();
        prop_assert!(error.pointer.starts_with(place), "{}", error);
    }
}

#[test]
fn guards_are_asked_before_each_commit_is_shown_unless_it_says_later() {
    let parsed = |actor| parse(with_actor(actor)).actors["counter"].recheck;
    assert_eq!(parsed(json!({})), Recheck::EachCommit);
    let later = json!({"access": ["authorize"], "recheck": "later"});
    assert_eq!(parsed(later), Recheck::Later);
    let each = json!({"recheck": "each-commit"});
    assert_eq!(parsed(each), Recheck::EachCommit);
    for (actor, refused) in [
        (
            json!({"recheck": "never"}),
            "/actors/counter/recheck: expected each-commit or later, found \"never\"",
        ),
        (
            json!({"access": ["project"], "recheck": "later"}),
            "/actors/counter/recheck: expected `authorize` in access beside it",
        ),
    ] {
        assert_eq!(refusal(with_actor(actor)), refused);
    }
}

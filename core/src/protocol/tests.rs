//! Tests of `protocol`, by behaviour.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::failure::code;

fn rpc(text: &str) -> Rpc<'_> {
    match parse(text) {
        Ok(ClientFrame::Rpc(call)) => call,
        other => panic!("expected a call, found {other:?}"),
    }
}

fn refusal(text: &str) -> FrameError {
    match parse(text) {
        Err(error) => error,
        Ok(frame) => panic!("{text} was taken for {frame:?}"),
    }
}

fn message(text: &str) -> String {
    let error = refusal(text);
    assert_eq!(error.failure.code, code::FRAME_MALFORMED);
    error.failure.text().to_owned()
}

fn call_with_input(input: &str) -> String {
    format!(r#"{{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m","input":{input}}}"#)
}

const CALL: &str = r#"{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m"}"#;

#[test]
fn a_call_is_read_and_borrows_from_the_text() {
    let text = call_with_input(r#" {"by": 2} "#);
    let call = rpc(&text);
    assert!(matches!(call.id, Cow::Borrowed("7")));
    assert!(matches!(call.actor, Cow::Borrowed("a")));
    assert!(matches!(call.actor_id, Cow::Borrowed("1")));
    assert!(matches!(call.method, Cow::Borrowed("m")));
    assert_eq!(call.input.unwrap().get(), r#"{"by": 2}"#);
}

#[test]
fn an_absent_input_is_not_a_null_input() {
    assert!(rpc(CALL).input.is_none());
    assert_eq!(rpc(&call_with_input("null")).input.unwrap().get(), "null");
}

#[test]
fn subscriptions_are_read() {
    let read = |kind: &str| {
        let text = format!(r#"{{"type":"{kind}","actor":"chat","actorId":"räum/1"}}"#);
        let (name, target) = match parse(&text).unwrap() {
            ClientFrame::StateSub(target, None) => ("state:sub", target),
            ClientFrame::StateUnsub(target) => ("state:unsub", target),
            ClientFrame::EventSub(target) => ("event:sub", target),
            ClientFrame::EventUnsub(target) => ("event:unsub", target),
            other => panic!("{kind} was taken for {other:?}"),
        };
        assert_eq!(name, kind);
        assert_eq!((&*target.actor, &*target.actor_id), ("chat", "räum/1"));
    };
    ["state:sub", "state:unsub", "event:sub", "event:unsub"]
        .into_iter()
        .for_each(read);
}

#[test]
fn a_new_token_is_read_and_borrows_from_the_text() {
    for (text, expected) in [
        (r#"{"type":"auth","token":"a.b.c"}"#, "a.b.c"),
        (r#"{"token":"","type":"auth"}"#, ""),
        (r#"{"type":"auth","token":"a","actor":7,"x":[]}"#, "a"),
    ] {
        match parse(text).unwrap() {
            ClientFrame::Auth {
                token: Cow::Borrowed(token),
            } => assert_eq!(token, expected),
            other => panic!("{text} was taken for {other:?}"),
        }
    }
}

#[test]
fn a_malformed_new_token_is_named_by_path_and_not_repeated() {
    for (text, expected) in [
        (r#"{"type":"auth"}"#, "/token: missing"),
        (
            r#"{"type":"auth","token":null}"#,
            "/token: expected string, found null",
        ),
        (
            r#"{"type":"auth","token":["a.b.c"]}"#,
            "/token: expected string, found array",
        ),
        (
            r#"{"type":"auth","token":"a.b.c","token":"a.b.c"}"#,
            "/token: appears twice",
        ),
    ] {
        assert_eq!(message(text), expected);
        assert_eq!(
            refusal(text).failure.params,
            Some(json!({"path": "/token"}))
        );
    }
}

#[test]
fn a_cancel_names_the_call() {
    for text in [
        r#"{"type":"rpc:cancel","id":"7"}"#,
        r#"{"id":"7","type":"rpc:cancel","actor":1,"x":[]}"#,
    ] {
        match parse(text).unwrap() {
            ClientFrame::Cancel { id } => assert_eq!(id, "7"),
            other => panic!("{text} was taken for {other:?}"),
        }
    }
}

#[test]
fn a_cancel_without_a_good_id_is_no_answer_to_a_call() {
    for (id, expected) in [
        ("", "/id: missing".to_owned()),
        (
            r#","id":7"#,
            "/id: expected string, found number".to_owned(),
        ),
        (r#","id":"7","id":"7""#, "/id: appears twice".to_owned()),
        (
            r#","id":"""#,
            "/id: expected a string of 1 to 128 bytes, found an empty string".to_owned(),
        ),
        (
            &format!(r#","id":"{}""#, "x".repeat(129)),
            "/id: expected a string of 1 to 128 bytes, found 129 bytes".to_owned(),
        ),
    ] {
        let text = format!(r#"{{"type":"rpc:cancel"{id}}}"#);
        assert_eq!(message(&text), expected);
        assert_eq!(refusal(&text).to.rpc_id(), None);
    }
}

#[test]
fn a_chunk_is_sent_under_the_calls_id() {
    assert_eq!(
        rpc_stream("r\"1", "{\"a\": 1}"),
        r#"{"type":"rpc:stream","id":"r\"1","chunk":{"a": 1}}"#
    );
}

#[test]
fn a_token_in_another_frame_is_ignored() {
    rpc(r#"{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m","token":1,"token":2}"#);
}

#[test]
fn the_order_of_fields_does_not_matter() {
    let call = rpc(r#"{"input":[1],"method":"m","actorId":"1","actor":"a","id":"7","type":"rpc"}"#);
    assert_eq!((&*call.id, call.input.unwrap().get()), ("7", "[1]"));
}

#[test]
fn escaped_names_and_values_are_unescaped() {
    let call = rpc(
        r#"{"t\u0079pe":"r\u0070c","id":"\"\\\n","actor":"\ud83e\udd80","actorId":"\/","method":"m"}"#,
    );
    assert_eq!(
        (&*call.id, &*call.actor, &*call.actor_id),
        ("\"\\\n", "🦀", "/")
    );
}

#[test]
fn fields_that_the_type_does_not_have_are_ignored() {
    rpc(r#"{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m","x":[{}],"x":null}"#);
    let text =
        r#"{"type":"state:sub","id":7,"method":{},"input":1,"input":2,"actor":"a","actorId":"1"}"#;
    assert!(matches!(parse(text), Ok(ClientFrame::StateSub(_, None))));
}

#[test]
fn junk_is_refused_with_its_position() {
    assert_eq!(
        message("not json"),
        "not JSON: expected ident at line 1 column 2"
    );
    assert_eq!(
        message(r#"{"type":"rpc""#),
        "not JSON: EOF while parsing an object at line 1 column 13"
    );
    assert!(message("").starts_with("not JSON: EOF"));
    assert!(message(" \n ").starts_with("not JSON: EOF"));
    assert!(message("\u{feff}{}").starts_with("not JSON: "));
    assert!(message("{} {}").starts_with("not JSON: trailing characters"));
    assert!(message("[1,]").starts_with("not JSON: "));
    assert!(message("{\"a\":\"\u{0}\"}").starts_with("not JSON: "));
}

#[test]
fn a_frame_that_is_no_object_is_named() {
    for (text, found) in [
        ("null", "null"),
        ("[]", "array"),
        (" [1, {}]", "array"),
        ("\"x\"", "string"),
        ("-1.5", "number"),
        ("0", "number"),
        ("true", "boolean"),
        ("false", "boolean"),
    ] {
        assert_eq!(message(text), format!("expected an object, found {found}"));
    }
}

#[test]
fn a_missing_or_unknown_type_is_named() {
    assert_eq!(message("{}"), "/type: missing");
    assert_eq!(
        message(r#"{"type":1}"#),
        "/type: expected string, found number"
    );
    let error = refusal(r#"{"type":"zzz"}"#);
    assert_eq!(error.failure.code, code::FRAME_UNKNOWN_TYPE);
    assert_eq!(
        error.failure.text(),
        "/type: expected rpc, rpc:cancel, state:sub, state:unsub, event:sub, event:unsub or auth, \
         found \"zzz\""
    );
}

#[test]
fn a_long_unknown_type_is_shown_short() {
    let text = format!(r#"{{"type":"{}"}}"#, "z".repeat(1 << 20));
    assert!(refusal(&text).failure.text().len() < 300);
}

#[test]
fn a_server_frames_type_is_unknown_from_a_client() {
    let error = refusal(r#"{"type":"rpc:result","id":"1"}"#);
    assert_eq!(error.failure.code, code::FRAME_UNKNOWN_TYPE);
    assert_eq!(error.to.rpc_id(), None);
}

#[test]
fn wrong_field_types_are_named_by_path() {
    for (value, found) in [
        ("1", "number"),
        ("-1", "number"),
        ("1.5", "number"),
        ("null", "null"),
        ("true", "boolean"),
        ("[[1]]", "array"),
        ("{\"a\":{}}", "object"),
    ] {
        let text = format!(r#"{{"type":"state:sub","actor":"a","actorId":{value}}}"#);
        assert_eq!(
            message(&text),
            format!("/actorId: expected string, found {found}")
        );
    }
    let error = refusal(r#"{"type":"state:sub","actor":"a","actorId":1}"#);
    assert_eq!(error.failure.params, Some(json!({"path": "/actorId"})));
}

#[test]
fn missing_fields_are_named_by_path() {
    assert_eq!(message(r#"{"type":"state:sub"}"#), "/actor: missing");
    assert_eq!(
        message(r#"{"type":"event:unsub","actor":"a"}"#),
        "/actorId: missing"
    );
    assert_eq!(message(r#"{"type":"rpc"}"#), "/id: missing");
    assert_eq!(
        message(r#"{"type":"rpc","id":"7","actor":"a","actorId":"1"}"#),
        "/method: missing"
    );
}

#[test]
fn a_malformed_call_with_a_good_id_is_answered_under_that_id() {
    for text in [
        r#"{"type":"rpc","id":"7"}"#,
        r#"{"type":"rpc","id":"7","actor":1,"actorId":"1","method":"m"}"#,
        r#"{"type":"rpc","id":"7","actor":"a","actor":"b","actorId":"1","method":"m"}"#,
        r#"{"type":"rpc","id":"7","id":"7","actor":"a","actorId":"1","method":"m"}"#,
        r#"{"type":"rpc","type":"rpc","id":"7","actor":"a","actorId":"1","method":"m"}"#,
        r#"{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m","input":{]}"#,
        r#"{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m","input":"#,
        r#"{"type":"rpc","id":"7","actor":"a","actorId":"1","method":"m"}}"#,
    ] {
        assert_eq!(refusal(text).to.rpc_id(), Some("7"), "{text}");
    }
}

#[test]
fn a_malformed_call_without_a_good_id_is_not_answered_under_an_id() {
    let long = format!(r#"{{"type":"rpc","id":"{}"}}"#, "x".repeat(129));
    for (text, expected) in [
        (
            r#"{"type":"rpc","id":7}"#,
            "/id: expected string, found number",
        ),
        (
            r#"{"type":"rpc","id":""}"#,
            "/id: expected a string of 1 to 128 bytes, found an empty string",
        ),
        (
            &long,
            "/id: expected a string of 1 to 128 bytes, found 129 bytes",
        ),
        (r#"{"type":"rpc","id":"1","id":"2"}"#, "/id: appears twice"),
    ] {
        assert_eq!(message(text), expected);
        assert_eq!(refusal(text).to.rpc_id(), None);
    }
    assert_eq!(refusal(r#"{"type":"zzz","id":"7"}"#).to.rpc_id(), None);
}

#[test]
fn an_id_of_128_bytes_is_accepted() {
    let id = "ä".repeat(64);
    let text = CALL.replace("\"7\"", &format!("\"{id}\""));
    assert_eq!(rpc(&text).id, id);
}

#[test]
fn a_field_that_appears_twice_is_refused() {
    assert_eq!(
        message(r#"{"type":"rpc","type":"rpc"}"#),
        "/type: appears twice"
    );
    assert_eq!(
        message(r#"{"type":"state:sub","actor":"a","actorId":"1","actorId":"1"}"#),
        "/actorId: appears twice"
    );
    let text = call_with_input("1,\"input\":2");
    assert_eq!(message(&text), "/input: appears twice");
}

fn nested(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

#[test]
fn an_input_as_deep_as_json_values_are_parsed_is_accepted() {
    let text = call_with_input(&nested(MAX_NESTING));
    let input = rpc(&text).input.unwrap();
    assert!(serde_json::from_str::<Value>(input.get()).is_ok());
}

#[test]
fn a_deeper_input_is_refused_under_its_id() {
    let objects = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
    for input in [nested(MAX_NESTING + 1), objects(MAX_NESTING + 1)] {
        let text = call_with_input(&input);
        assert_eq!(
            message(&text),
            "/input: arrays and objects nest deeper than 127 levels"
        );
        assert_eq!(refusal(&text).to.rpc_id(), Some("7"));
    }
}

#[test]
fn brackets_in_strings_and_side_by_side_are_not_depth() {
    let brackets = format!("[\"{}\\\"\\\\\"]", "[".repeat(500));
    assert!(rpc(&call_with_input(&brackets)).input.is_some());
    let wide = format!("[{}[]]", "[{}],".repeat(500));
    assert!(rpc(&call_with_input(&wide)).input.is_some());
}

#[test]
fn depth_bombs_are_refused_on_a_small_stack() {
    let bomb = nested(500_000);
    let texts = [
        bomb.clone(),
        bomb[..500_000].to_owned(),
        call_with_input(&bomb),
        call_with_input(&bomb[..500_000]),
        format!(r#"{{"type":{bomb}}}"#),
        format!(r#"{{"type":"rpc","id":{}}}"#, "{\"a\":".repeat(200_000)),
    ];
    let check = move || texts.iter().all(|text| parse(text).is_err());
    let thread = std::thread::Builder::new().stack_size(128 << 10);
    assert!(thread.spawn(check).unwrap().join().unwrap());
}

#[test]
fn a_deep_field_that_nobody_reads_is_ignored() {
    let text = format!(
        r#"{{"type":"state:sub","x":{},"actor":"a","actorId":"1"}}"#,
        nested(100_000)
    );
    assert!(parse(&text).is_ok());
}

#[test]
fn the_welcome_tells_the_client_its_id() {
    assert_eq!(welcome("c1"), r#"{"type":"welcome","clientId":"c1"}"#);
}

#[test]
fn a_result_has_no_result_field_when_there_is_none() {
    assert_eq!(rpc_result("r1", None), r#"{"type":"rpc:result","id":"r1"}"#);
    assert_eq!(
        rpc_result("r1", Some("null")),
        r#"{"type":"rpc:result","id":"r1","result":null}"#
    );
    assert_eq!(
        rpc_result("r1", Some("{\"a\": 1}")),
        r#"{"type":"rpc:result","id":"r1","result":{"a": 1}}"#
    );
}

#[test]
fn a_failed_call_carries_the_text_and_the_data() {
    let failure = Failure::new("a.b").message("No.").param("k", 1);
    assert_eq!(
        rpc_failure("r1", &failure),
        r#"{"type":"rpc:result","id":"r1","error":"No.","failure":{"code":"a.b","message":"No.","params":{"k":1}}}"#
    );
}

#[test]
fn the_error_of_a_failed_call_is_never_empty() {
    for failure in [Failure::new("a.b"), Failure::new("a.b").message("")] {
        assert_eq!(
            rpc_failure("r1", &failure),
            r#"{"type":"rpc:result","id":"r1","error":"a.b","failure":{"code":"a.b"}}"#
        );
    }
}

#[test]
fn an_event_splices_its_payload() {
    assert_eq!(
        event("lab", "1", "e", "{\"x\":1}"),
        r#"{"type":"event","actor":"lab","actorId":"1","event":"e","payload":{"x":1}}"#
    );
}

#[test]
fn a_snapshot_ends_with_its_place_in_history() {
    assert_eq!(
        snapshot("lab", "1", "{\"n\":0}", "e1", 7),
        r#"{"type":"state:snapshot","actor":"lab","actorId":"1","state":{"n":0},"epoch":"e1","version":7}"#
    );
}

#[test]
fn a_patch_names_the_version_that_it_applies_to() {
    assert_eq!(
        patch("lab", "1", "[]", "e1", 7, 9),
        r#"{"type":"state:patch","actor":"lab","actorId":"1","patches":[],"epoch":"e1","from":7,"version":9}"#
    );
}

#[test]
fn an_error_frame_carries_the_failure_flat() {
    assert_eq!(
        error(&Failure::new("a.b"), &Envelope::default()),
        r#"{"type":"error","code":"a.b","message":"a.b"}"#
    );
    assert_eq!(
        error(
            &Failure::new("a.b").message("m").param("k", 1),
            &Envelope::of_call("7")
        ),
        r#"{"type":"error","code":"a.b","message":"m","params":{"k":1},"frame":"rpc","id":"7"}"#
    );
}

#[test]
fn an_accepted_token_is_confirmed_with_its_end() {
    assert_eq!(
        auth_ok(Some(1_790_000_000_000)),
        r#"{"type":"auth:ok","expiresAt":1790000000000}"#
    );
    assert_eq!(auth_ok(None), r#"{"type":"auth:ok"}"#);
}

/// Text made of the pieces of frames, which reaches deeper than random characters do.
fn frame_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\"type\"",
        "\"rpc\"",
        "\"id\"",
        "\"actor\"",
        "\"actorId\"",
        "\"method\"",
        "\"input\"",
        "\"state:sub\"",
        "\"auth\"",
        "\"token\"",
        "1",
        "-",
        "1e999",
        "null",
        "true",
        " ",
        "\\u0000",
        "\\ud800",
        "é",
        "\u{0}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// A valid call with one stretch of it replaced.
fn damaged_call() -> impl Strategy<Value = String> {
    (0..CALL.len(), 0..8usize, ".{0,3}").prop_map(|(at, length, with)| {
        let end = (at + length).min(CALL.len());
        format!("{}{with}{}", &CALL[..at], &CALL[end..])
    })
}

proptest! {
    #[test]
    fn no_text_makes_parse_panic(text in prop_oneof![".*", frame_like(), damaged_call()]) {
        if let Err(error) = parse(&text) {
            prop_assert!(!error.failure.text().is_empty());
            prop_assert!(serde_json::from_str::<Value>(&super::error(&error.failure, &error.to)).is_ok());
        }
    }

    #[test]
    fn a_call_reads_as_it_was_written(
        id in ".{1,32}", actor in ".*", actor_id in ".*", method in ".*",
        input in proptest::option::of(".*"),
    ) {
        let mut frame = json!({
            "type": "rpc", "id": id, "actor": actor, "actorId": actor_id, "method": method,
        });
        if let Some(input) = &input {
            frame["input"] = json!({"a": [input]});
        }
        let text = frame.to_string();
        let call = rpc(&text);
        prop_assert_eq!(
            (&*call.id, &*call.actor, &*call.actor_id, &*call.method),
            (&*id, &*actor, &*actor_id, &*method)
        );
        let read = call.input.map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap());
        prop_assert_eq!(read, input.map(|input| json!({"a": [input]})));
    }

    #[test]
    fn server_frames_are_json_and_hold_what_they_were_given(
        actor in ".*", id in ".*", text in ".*", from in any::<u64>(), version in any::<u64>(),
    ) {
        let read = |frame: String| serde_json::from_str::<Value>(&frame).unwrap();
        let value = json!([text]).to_string();
        let failure = Failure::new("a.b").message(&*text).param("t", &*text);
        prop_assert_eq!(read(welcome(&id)), json!({"type": "welcome", "clientId": id}));
        prop_assert_eq!(
            read(rpc_result(&id, Some(&value))),
            json!({"type": "rpc:result", "id": id, "result": [text]})
        );
        prop_assert_eq!(
            read(rpc_failure(&id, &failure)),
            json!({"type": "rpc:result", "id": id, "error": failure.text(), "failure": failure})
        );
        prop_assert_eq!(
            read(event(&actor, &id, &text, &value)),
            json!({"type": "event", "actor": actor, "actorId": id, "event": text, "payload": [text]})
        );
        prop_assert_eq!(
            read(snapshot(&actor, &id, &value, &text, version)),
            json!({
                "type": "state:snapshot", "actor": actor, "actorId": id, "state": [text],
                "epoch": text, "version": version,
            })
        );
        prop_assert_eq!(
            read(patch(&actor, &id, &value, &text, from, version)),
            json!({
                "type": "state:patch", "actor": actor, "actorId": id, "patches": [text],
                "epoch": text, "from": from, "version": version,
            })
        );
        prop_assert_eq!(
            read(error(&failure, &Envelope { id: Some(id.clone()), ..Envelope::default() })),
            json!({
                "type": "error", "code": "a.b", "message": failure.text(),
                "params": {"t": text}, "id": id,
            })
        );
    }
}

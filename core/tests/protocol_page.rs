//! `docs/protocol.md` is true: its frames are those that the code parses and writes, and
//! its codes are all there are.

use std::collections::BTreeSet;

use serde_json::Value;
use tidegate_core::failure::{Declared, Failure, code};
use tidegate_core::protocol::{self, ClientFrame, Envelope, FrameKind};
use tidegate_core::{PatchOp, patch};

const PAGE: &str = include_str!("../../docs/protocol.md");

/// The lines of code blocks that are marked as JSON of this side.
fn examples(side: &str) -> Vec<&'static str> {
    let fence = format!("json {side}\n");
    let blocks: Vec<&str> = PAGE
        .split("\n```")
        .filter_map(|block| block.strip_prefix(&fence))
        .collect();
    assert!(
        !blocks.is_empty(),
        "the page has no blocks marked `{fence}`"
    );
    blocks
}

fn text<'a>(frame: &'a Value, field: &str) -> &'a str {
    frame[field]
        .as_str()
        .unwrap_or_else(|| panic!("{frame} has no text `{field}`"))
}

fn failure_of(value: &Value) -> Failure {
    let mut failure = Failure::new(text(value, "code").to_owned());
    if let Some(message) = value["message"].as_str() {
        failure = failure.message(message);
    }
    for (name, value) in value["params"].as_object().into_iter().flatten() {
        failure = failure.param(name, value.clone());
    }
    failure
}

/// The frame that the host would write, made from the fields of the example.
fn written(frame: &Value) -> String {
    let (actor, id) = (frame["actor"].as_str(), frame["actorId"].as_str());
    let actor = || actor.expect("the frame names its actor");
    let id = || id.expect("the frame names its actor's id");
    match text(frame, "type") {
        "welcome" => protocol::welcome(text(frame, "clientId")),
        "rpc:result" => match frame.get("failure") {
            Some(failure) => protocol::rpc_failure(text(frame, "id"), &failure_of(failure)),
            None => {
                let result = frame.get("result").map(Value::to_string);
                protocol::rpc_result(text(frame, "id"), result.as_deref())
            }
        },
        "rpc:stream" => protocol::rpc_stream(text(frame, "id"), &frame["chunk"].to_string()),
        "state:snapshot" => {
            let version = frame["version"].as_u64().unwrap();
            let state = frame["state"].to_string();
            protocol::snapshot(actor(), id(), &state, text(frame, "epoch"), version)
        }
        "state:patch" => protocol::patch(
            actor(),
            id(),
            &frame["patches"].to_string(),
            text(frame, "epoch"),
            frame["from"].as_u64().unwrap(),
            frame["version"].as_u64().unwrap(),
        ),
        "event" => {
            let payload = frame["payload"].to_string();
            protocol::event(actor(), id(), text(frame, "event"), &payload)
        }
        "auth:ok" => protocol::auth_ok(frame["expiresAt"].as_u64()),
        "error" => {
            let owned = |name: &str| frame[name].as_str().map(str::to_owned);
            let to = Envelope {
                kind: frame["frame"].as_str().and_then(FrameKind::of),
                id: owned("id"),
                ..Envelope::default()
            };
            protocol::error(&failure_of(frame), &to)
        }
        other => panic!("the page shows a server frame of unknown type {other}"),
    }
}

#[test]
fn the_host_writes_every_server_frame_as_the_page_shows_it() {
    let mut types = BTreeSet::new();
    for example in examples("server") {
        let frame: Value = serde_json::from_str(example).unwrap();
        types.insert(text(&frame, "type").to_owned());
        assert_eq!(written(&frame), example);
    }
    let expected = [
        "auth:ok",
        "error",
        "event",
        "rpc:result",
        "rpc:stream",
        "state:patch",
        "state:snapshot",
        "welcome",
    ];
    assert_eq!(types, expected.map(str::to_owned).into());
}

#[test]
fn every_operation_that_the_page_shows_is_one_of_a_patch() {
    let mut inserts_text = false;
    for example in examples("server") {
        let frame: Value = serde_json::from_str(example).unwrap();
        if let Some(patches) = frame.get("patches") {
            let patch: Vec<PatchOp> = serde_json::from_value(patches.clone()).unwrap();
            assert_eq!(patch::encode(&patch), patches.to_string());
            inserts_text |= patch::has_str_ins(&patch);
        }
    }
    assert!(inserts_text, "the page leaves out str_ins");
}

#[test]
fn the_host_takes_every_client_frame_as_the_page_shows_it() {
    let mut types = BTreeSet::new();
    for example in examples("client") {
        types.insert(match protocol::parse(example).unwrap() {
            ClientFrame::Rpc(_) => "rpc",
            ClientFrame::StateSub(..) => "state:sub",
            ClientFrame::StateUnsub(_) => "state:unsub",
            ClientFrame::EventSub(_) => "event:sub",
            ClientFrame::EventUnsub(_) => "event:unsub",
            ClientFrame::Auth { .. } => "auth",
            ClientFrame::Cancel { .. } => "rpc:cancel",
        });
    }
    assert_eq!(types.len(), 7, "the page leaves out a frame: {types:?}");
}

#[test]
fn the_page_lists_every_code_with_its_status_and_meaning() {
    let (_, codes) = PAGE.split_once("\n## Codes\n").expect("a section of codes");
    let (codes, _) = codes.split_once("\n## ").expect("another one behind it");
    let listed: Vec<&str> = codes.lines().filter(|row| row.starts_with("| `")).collect();
    assert_eq!(listed.len(), code::ALL.len(), "each is listed once");
    for Declared {
        code,
        status,
        meaning,
        params,
    } in code::ALL
    {
        let params: BTreeSet<&&str> = params.iter().collect();
        let params = params.into_iter().map(|name| format!("`{name}`"));
        let params = params.collect::<Vec<_>>().join(", ");
        let row = format!("| `{code}` | {status} | {meaning} | {params} |");
        assert!(
            listed.contains(&&*row),
            "docs/protocol.md lacks the row: {row}"
        );
    }
    for row in listed {
        let code = row.split('`').nth(1).unwrap();
        assert!(
            code::ALL.iter().any(|known| known.code == code),
            "docs/protocol.md lists `{code}`, which the host does not have"
        );
    }
}

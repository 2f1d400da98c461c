//! The frames of `docs/protocol.md`, sent to a real host: what comes back is what the page
//! shows.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate_tests::{Host, Socket, actor};

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// The examples of one side, as the page writes them.
fn examples(side: &str) -> Vec<&'static str> {
    let fence = format!("json {side}\n");
    let blocks = PAGE.split("\n```");
    let blocks: Vec<&str> = blocks
        .filter_map(|block| block.strip_prefix(&fence))
        .collect();
    assert!(!blocks.is_empty(), "the page has no blocks marked {fence}");
    blocks
}

/// The page's client frame of this type.
fn sent(kind: &str) -> &'static str {
    let is_wanted = |example: &&str| parsed(example)["type"] == kind;
    let frame = examples("client").into_iter().find(is_wanted);
    frame.unwrap_or_else(|| panic!("the page shows no {kind} of a client"))
}

/// The page's server frame of this type that `is_wanted`.
fn shown(kind: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let mut frames = examples("server").into_iter().map(parsed);
    let frame = frames.find(|frame| frame["type"] == kind && is_wanted(frame));
    frame.unwrap_or_else(|| panic!("the page shows no such {kind} of the host"))
}

fn parsed(example: &str) -> Value {
    serde_json::from_str(example).unwrap_or_else(|error| panic!("{error}: {example}"))
}

/// The names of all members, those of arrays' and objects' members with their paths.
fn shape(value: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut open = vec![(String::new(), value)];
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    open.push((format!("{path}/{name}"), value));
                }
            }
            Value::Array(items) => {
                open.extend(items.iter().map(|item| (format!("{path}/*"), item)));
            }
            _ => {}
        }
        names.insert(path);
    }
    names
}

#[track_caller]
fn assert_same_shape(found: &Value, shown: &Value) {
    assert_eq!(shape(found), shape(shown), "{found} is not like {shown}");
}

async fn answer(socket: &mut Socket, frame: &Value) -> Value {
    socket.send(frame.clone()).await;
    socket.next().await
}

#[tokio::test]
async fn the_host_answers_the_frames_of_the_page_as_the_page_shows() {
    let host = Host::serving(["counter", "chat"]).await;
    let mut socket = host.connect().await;
    assert_same_shape(socket.welcome(), &shown("welcome", |_| true));

    socket.send_text(sent("rpc")).await;
    let result = socket.expect_type("rpc:result").await;
    assert_same_shape(
        &result,
        &shown("rpc:result", |frame| frame.get("result").is_some()),
    );
    assert_eq!(result["id"], parsed(sent("rpc"))["id"]);

    socket.send_text(sent("state:sub")).await;
    let snapshot = socket.expect_type("state:snapshot").await;
    assert_same_shape(&snapshot, &shown("state:snapshot", |_| true));

    socket.send_text(sent("rpc")).await;
    let patch = socket.expect_type("state:patch").await;
    assert_same_shape(&patch, &shown("state:patch", |_| true));
    assert_eq!(patch["from"], snapshot["version"]);
    socket.expect_type("rpc:result").await;

    socket.send_text(sent("state:unsub")).await;
    socket.send_text(sent("rpc")).await;
    socket.expect_type("rpc:result").await;

    let room = actor("chat", "room-1");
    socket.send_text(sent("event:sub")).await;
    let mut ann = host.connect().await;
    ann.call(&room, "join", json!({"name": "Ann"}))
        .await
        .result();
    ann.call(&room, "typing", None).await.result();
    assert_eq!(socket.next().await, shown("event", |_| true));

    socket.send_text(sent("event:unsub")).await;
    // Frames are taken in order, so once this is answered the subscription has ended.
    socket.call(&room, "history", None).await.result();
    ann.call(&room, "typing", None).await.result();
    let reply = socket.call(&room, "history", None).await;
    assert_eq!(reply.before, [Value::Null; 0]);
}

#[tokio::test]
async fn the_host_explains_itself_as_the_page_shows() {
    let host = Host::serving(["counter", "lab"]).await;
    let mut socket = host.connect().await;

    let failed = shown("rpc:result", |frame| frame.get("failure").is_some());
    let mut rpc = parsed(sent("rpc"));
    rpc["id"] = failed["id"].clone();
    rpc["input"] = json!({"by": "two"});
    assert_eq!(answer(&mut socket, &rpc).await, failed);

    let malformed = shown("error", |frame| frame["code"] == "frame.malformed");
    let mut subscription = parsed(sent("state:sub"));
    subscription["actorId"] = json!(7);
    assert_eq!(answer(&mut socket, &subscription).await, malformed);

    let silent = shown("rpc:result", |frame| {
        frame.get("failure").is_none() && frame.get("result").is_none()
    });
    let call = |id: &Value, method: &str, input: Value| {
        json!({"type": "rpc", "id": id, "actor": "lab", "actorId": "1",
               "method": method, "input": input})
    };
    let nothing = call(&silent["id"], "undef", Value::Null);
    assert_eq!(answer(&mut socket, &nothing).await, silent);

    let duplicate = shown("error", |frame| frame["code"] == "rpc.duplicate-id");
    let slow = call(&duplicate["id"], "slow", json!({"ms": 200}));
    socket.send(slow.clone()).await;
    assert_eq!(answer(&mut socket, &slow).await, duplicate);
}

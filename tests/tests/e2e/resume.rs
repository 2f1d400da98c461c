//! Subscribers that come back: what they have seen is not sent again.

use serde_json::{Value, json};
use tidegate_tests::{Actor, Folder, Host, Socket, actor, guest};

async fn subscribe_since(socket: &mut Socket, actor: &Actor, since: Value) -> Value {
    socket
        .send(json!({
            "type": "state:sub", "actor": actor.kind, "actorId": actor.id, "since": since,
        }))
        .await;
    socket.next().await
}

async fn add(socket: &mut Socket, counter: &Actor, by: i64) {
    socket
        .call(counter, "increment", json!({"by": by}))
        .await
        .result();
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut writer = host.connect().await;
    add(&mut writer, &counter, 1).await;
    let mut reader = host.connect().await;
    let seen = reader.subscribe_state(&counter).await;
    let since = json!({"epoch": seen["epoch"], "version": seen["version"]});
    reader.vanish();
    for by in [10, 100] {
        add(&mut writer, &counter, by).await;
    }
    let mut reader = host.connect().await;
    let first = subscribe_since(&mut reader, &counter, since).await;
    assert_eq!(first["type"], "state:patch");
    assert_eq!(first["patches"][0]["value"], 11);
    let second = reader.expect_type("state:patch").await;
    assert_eq!(second["patches"][0]["value"], 111);
    // And it is a subscriber again.
    add(&mut writer, &counter, 1).await;
    let third = reader.expect_type("state:patch").await;
    assert_eq!(third["from"], second["version"]);
    assert_eq!(third["patches"][0]["value"], 112);
}

#[tokio::test]
async fn who_missed_nothing_is_told_so() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut socket = host.connect().await;
    add(&mut socket, &counter, 1).await;
    let seen = socket.subscribe_state(&counter).await;
    let since = json!({"epoch": seen["epoch"], "version": seen["version"]});
    let mut again = host.connect().await;
    let nothing = subscribe_since(&mut again, &counter, since).await;
    assert_eq!(nothing["type"], "state:patch");
    assert_eq!(nothing["patches"], json!([]));
    assert_eq!(nothing["version"], seen["version"]);
}

#[tokio::test]
async fn another_history_is_sent_whole() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut socket = host.connect().await;
    add(&mut socket, &counter, 1).await;
    let state = host.get("/actors/counter/a/state").send().await.json();
    let epoch = &state["epoch"];
    for since in [
        json!({"epoch": "another", "version": 1}),
        json!({"epoch": epoch, "version": 7}),
        json!(null),
    ] {
        let mut reader = host.connect().await;
        let whole = subscribe_since(&mut reader, &counter, since).await;
        assert_eq!(whole["type"], "state:snapshot");
        assert_eq!(whole["state"], json!({"count": 1}));
    }
    let mut reader = host.connect().await;
    let refused = subscribe_since(&mut reader, &counter, json!("yesterday")).await;
    assert_eq!(refused["code"], "frame.malformed");
}

#[tokio::test]
async fn an_event_stream_goes_on_from_its_last_event() {
    let host = Host::serving(["counter"]).await;
    let counter = actor("counter", "a");
    let mut writer = host.connect().await;
    add(&mut writer, &counter, 1).await;
    let path = "/actors/counter/a/state";
    let mut stream = host
        .get(path)
        .header("accept", "text/event-stream")
        .stream()
        .await;
    let id = stream.expect("snapshot").await.id.expect("an id");
    drop(stream);
    add(&mut writer, &counter, 5).await;
    let mut stream = host
        .get(path)
        .header("accept", "text/event-stream")
        .header("last-event-id", &id)
        .stream()
        .await;
    let patch = stream.expect("patch").await;
    assert_eq!(patch.data["patches"][0]["value"], 6);
}

#[tokio::test]
async fn who_comes_back_after_a_kill_gets_what_was_missed() {
    let folder = Folder::new();
    let on = || Host::builder().component("counter").data(folder.path());
    let counter = actor("counter", "a");
    let host = on().start().await;
    let mut writer = host.connect().await;
    add(&mut writer, &counter, 1).await;
    let seen = writer.subscribe_state(&counter).await;
    let since = json!({"epoch": seen["epoch"], "version": seen["version"]});
    writer.unsubscribe_state(&counter).await;
    for by in [10, 100] {
        add(&mut writer, &counter, by).await;
    }
    host.kill().await;
    let host = on().start().await;
    let mut writer = host.connect().await;
    add(&mut writer, &counter, 1000).await;
    let mut reader = host.connect().await;
    let mut patch = subscribe_since(&mut reader, &counter, since).await;
    // The host goes on in an epoch of its own.
    let epoch = patch["epoch"].clone();
    assert_ne!(epoch, seen["epoch"]);
    for (from, count) in [(1, 11), (2, 111), (3, 1111)] {
        assert_eq!(patch["type"], "state:patch");
        assert_eq!(
            (patch["from"].as_u64(), &patch["epoch"]),
            (Some(from), &epoch)
        );
        assert_eq!(patch["patches"][0]["value"], count);
        if count < 1111 {
            patch = reader.next().await;
        }
    }
    add(&mut writer, &counter, 1).await;
    let next = reader.expect_type("state:patch").await;
    assert_eq!(next["from"], 4);
}

#[tokio::test]
async fn a_data_folder_that_is_put_back_has_another_future() {
    let folder = Folder::new();
    let on = |folder: &Folder| Host::builder().component("counter").data(folder.path());
    let counter = actor("counter", "a");
    // Two see version 5; one of them also what comes of it.
    let mut host = on(&folder).start().await;
    let mut writer = host.connect().await;
    for _ in 0..5 {
        add(&mut writer, &counter, 1).await;
    }
    let place = |seen: &Value| json!({"epoch": seen["epoch"], "version": seen["version"]});
    let fifth = place(&writer.subscribe_state(&counter).await);
    host.terminate().await;
    host.ended().await;
    let copy = folder.copy();
    let host = on(&folder).start().await;
    let mut writer = host.connect().await;
    for _ in 5..8 {
        add(&mut writer, &counter, 1).await;
    }
    let eighth = place(&writer.subscribe_state(&counter).await);
    assert_eq!(
        (&fifth["version"], &eighth["version"]),
        (&json!(5), &json!(8))
    );
    host.kill().await;

    let host = on(&copy).start().await;
    let mut writer = host.connect().await;
    // Without a word of the copy's own, and with as many as there were before.
    for round in 0..2 {
        let mut reader = host.connect().await;
        let whole = subscribe_since(&mut reader, &counter, eighth.clone()).await;
        assert_eq!(whole["type"], "state:snapshot", "{round}");
        let count = if round == 0 { 5 } else { 305 };
        assert_eq!(whole["state"], json!({"count": count}));
        assert_ne!(whole["epoch"], eighth["epoch"]);
        let mut stream = host
            .get("/actors/counter/a/state")
            .header("accept", "text/event-stream")
            .header("last-event-id", &id_of(&eighth))
            .stream()
            .await;
        stream.expect("snapshot").await;
        // What both have in common still holds.
        let mut reader = host.connect().await;
        let missed = subscribe_since(&mut reader, &counter, fifth.clone()).await;
        assert_eq!(missed["type"], "state:patch", "{round}");
        assert_eq!(
            (&missed["from"], &missed["epoch"]),
            (&json!(5), &whole["epoch"])
        );
        if round == 0 {
            assert_eq!(missed["patches"], json!([]));
            for _ in 5..8 {
                add(&mut writer, &counter, 100).await;
            }
        } else {
            assert_eq!(missed["patches"][0]["value"], 105);
        }
    }
}

#[tokio::test]
async fn who_comes_back_after_many_restarts_gets_what_was_missed() {
    let folder = Folder::new();
    let on = || Host::builder().component("counter").data(folder.path());
    let counter = actor("counter", "a");
    let mut since = Value::Null;
    for run in 0..4 {
        let mut host = on().start().await;
        let mut writer = host.connect().await;
        add(&mut writer, &counter, 1).await;
        if run == 0 {
            let seen = writer.subscribe_state(&counter).await;
            since = json!({"epoch": seen["epoch"], "version": seen["version"]});
        }
        if run % 2 == 0 {
            host.terminate().await;
            host.ended().await;
        } else {
            host.kill().await;
        }
    }
    let host = on().start().await;
    let mut reader = host.connect().await;
    let mut patch = subscribe_since(&mut reader, &counter, since).await;
    let epoch = patch["epoch"].clone();
    for count in 2..=4 {
        assert_eq!(patch["type"], "state:patch");
        assert_eq!(patch["patches"][0]["value"], count);
        assert_eq!(patch["epoch"], epoch);
        if count < 4 {
            patch = reader.next().await;
        }
    }
}

fn id_of(place: &Value) -> String {
    let epoch = place["epoch"].as_str().expect("a name");
    format!("{epoch}:{}", place["version"])
}

#[tokio::test]
async fn a_relaxed_actor_goes_on_where_it_was_written_last() {
    let folder = Folder::new();
    let on = || {
        let host = Host::builder().component("counter").durability("relaxed");
        host.data(folder.path())
    };
    let counter = actor("counter", "a");
    let host = on().start().await;
    let mut socket = host.connect().await;
    add(&mut socket, &counter, 1).await;
    let seen = socket.subscribe_state(&counter).await;
    host.kill().await;
    let host = on().start().await;
    let mut socket = host.connect().await;
    let since = json!({"epoch": seen["epoch"], "version": seen["version"]});
    let nothing = subscribe_since(&mut socket, &counter, since).await;
    assert_eq!(nothing["type"], "state:patch");
    assert_eq!(nothing["patches"], json!([]));
    assert_ne!(nothing["epoch"], seen["epoch"]);
    // A version that may have been lost with power is not one of this history.
    let mut socket = host.connect().await;
    let since = json!({"epoch": seen["epoch"], "version": 2});
    let whole = subscribe_since(&mut socket, &counter, since).await;
    assert_eq!(whole["type"], "state:snapshot");
    assert_eq!(whole["state"], json!({"count": 1}));
}

#[tokio::test]
async fn who_has_seen_what_is_hidden_now_is_shown_the_state_anew() {
    let open = json!({"tidegate": "0.1", "actors": {"thing": {
        "state": {"initial": {"secret": 1, "n": 0}}, "methods": {"run": {}},
    }}});
    let mut closed = open.clone();
    closed["actors"]["thing"]["state"]["hidden"] = json!(["secret"]);
    let component = |manifest: &Value| guest::component_saying(&manifest.to_string(), "", "");
    let host = Host::serving(["counter"]).await;
    let put = async |manifest: &Value| {
        let put = host.admin(http::Method::PUT, "/components/thing");
        let put = put.body(component(manifest)).send().await;
        assert_eq!(put.status, 200, "{put:?}");
    };
    put(&open).await;
    let thing = actor("thing", "a");
    let mut socket = host.connect().await;
    let seen = socket.subscribe_state(&thing).await;
    assert_eq!(seen["state"]["secret"], 1);
    socket.unsubscribe_state(&thing).await;
    put(&closed).await;
    let since = json!({"epoch": seen["epoch"], "version": seen["version"]});
    let whole = subscribe_since(&mut socket, &thing, since).await;
    assert_eq!(whole["type"], "state:snapshot");
    assert_eq!(whole["state"], json!({"n": 0}));
    // And the other way round.
    socket.unsubscribe_state(&thing).await;
    put(&open).await;
    let since = json!({"epoch": whole["epoch"], "version": whole["version"]});
    let whole = subscribe_since(&mut socket, &thing, since).await;
    assert_eq!(whole["state"], json!({"secret": 1, "n": 0}));
}

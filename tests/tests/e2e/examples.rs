//! The examples of `spin.toml`, as their users meet them.

use serde_json::{Value, json};
use tidegate_tests::{Host, actor, project};

async fn examples() -> Host {
    let manifest = project().join("spin.toml");
    Host::builder().application(&manifest).start().await
}

#[tokio::test]
async fn a_session_with_the_counter() {
    let host = examples().await;
    // The welcome has come when this returns.
    let mut socket = host.connect().await;
    socket
        .send_text(r#"{"type":"state:sub","actor":"counter","actorId":"a"}"#)
        .await;
    socket
        .send_text(
            r#"{"type":"rpc","id":"1","actor":"counter","actorId":"a","method":"increment","input":{"by":2}}"#,
        )
        .await;
    let snapshot = socket.next().await;
    let epoch = snapshot["epoch"].clone();
    assert_eq!(
        snapshot,
        json!({
            "type": "state:snapshot", "actor": "counter", "actorId": "a",
            "state": {"count": 0}, "epoch": epoch, "version": 0,
        })
    );
    assert_eq!(
        socket.next().await,
        json!({
            "type": "state:patch", "actor": "counter", "actorId": "a",
            "patches": [{"op": "replace", "path": "/count", "value": 2}],
            "epoch": epoch, "from": 0, "version": 1,
        })
    );
    assert_eq!(
        socket.next().await,
        json!({"type": "rpc:result", "id": "1", "result": 2})
    );
}

#[tokio::test]
async fn a_chat_room_shows_who_is_here_and_what_they_say() {
    let host = examples().await;
    let room = actor("chat", "room-1");
    let (mut ann, mut ben) = (host.connect().await, host.connect().await);
    for (socket, name) in [(&mut ann, "Ann"), (&mut ben, "Ben")] {
        socket.subscribe_events(&room).await;
        let reply = socket.call(&room, "join", json!({"name": name})).await;
        assert_eq!(reply.frame.get("error"), None, "{reply:?}");
    }
    let (ann_id, ben_id) = (ann.id().to_owned(), ben.id().to_owned());
    let taken = ben.call(&room, "join", json!({"name": "Ann"})).await;
    assert_eq!(taken.code(), "chat.name-taken");

    let typing = ann.call(&room, "typing", None).await;
    assert_eq!(typing.before, [Value::Null; 0]);
    assert_eq!(
        ben.expect_type("event").await["payload"],
        json!({"name": "Ann"})
    );

    let said = ann.call(&room, "send", json!({"text": "hello"})).await;
    assert_eq!(said.types_before(), ["event"]);
    let heard = ben.expect_type("event").await;
    assert_eq!(
        (&heard["event"], &heard["payload"]),
        (&json!("message"), &said.result())
    );

    let state = ben.watch(&room, |_| true).await;
    assert_eq!(state["messages"], json!([said.result()]));
    assert_eq!(state["online"][&ann_id]["name"], "Ann");
    assert_eq!(state["online"][&ben_id]["name"], "Ben");
    ann.close().await;
    ben.watch(&room, |state| state["online"].get(&ann_id).is_none())
        .await;
}

#[tokio::test]
async fn a_hand_of_cards_is_its_owners_alone() {
    let host = examples().await;
    let table = actor("cards", "table-1");
    let (mut ann, mut ben) = (host.connect().await, host.connect().await);
    for (socket, name) in [(&mut ann, "Ann"), (&mut ben, "Ben")] {
        let reply = socket.call(&table, "join", json!({"name": name})).await;
        assert_eq!(reply.frame.get("error"), None, "{reply:?}");
        socket.subscribe_events(&table).await;
        socket.subscribe_state(&table).await;
    }
    let dealt = ann.call(&table, "deal", None).await;
    assert_eq!(dealt.frame.get("error"), None, "{dealt:?}");
    let told_ben = ben.call(&table, "hand", None).await;
    let mut hands = Vec::new();
    for told in [&dealt.before, &told_ben.before] {
        let mut own = told.iter().filter(|frame| frame["event"] == "yourHand");
        let cards = own.next().expect("a hand")["payload"]["cards"].clone();
        assert_eq!(own.next(), None, "somebody else's hand");
        hands.push(cards);
    }
    assert_eq!(told_ben.result(), hands[1]);
    assert_ne!(hands[0], hands[1]);
    let cards = |hand: &Value| hand.as_array().expect("cards").clone();
    for (told, other) in [(&dealt.before, &hands[1]), (&told_ben.before, &hands[0])] {
        assert_eq!(cards(other).len(), 5);
        for card in cards(other) {
            let text = Value::from(told.clone()).to_string();
            assert!(
                !text.contains(&card.to_string()),
                "{card} was shown: {text}"
            );
        }
    }
    let state = host.get("/actors/cards/table-1/state").send().await.json();
    for hidden in ["deck", "hands", "seats"] {
        assert_eq!(state["state"].get(hidden), None);
    }
    assert_eq!(state["state"]["players"][1]["cards"], 5);
}

//! Who may see what: the guard of an actor, at every door.

use serde_json::json;
use tidegate_tests::{Actor, Host, Request, Socket, actor, token};

struct Scene {
    host: Host,
    vault: Actor,
}

impl Scene {
    /// A vault that Ann owns, to which Ben is admitted; Eve is not.
    async fn new() -> Scene {
        let builder = Host::builder().component("lab").with_tokens();
        let host = builder.set("access.recheck-ms=10").start().await;
        let scene = Scene {
            host,
            vault: actor("vault", "1"),
        };
        let mut ann = scene.user("ann").await;
        for (method, input) in [
            ("claim", json!({})),
            ("put", json!({"secret": "gold"})),
            ("admitUser", json!({"sub": "ben"})),
        ] {
            ann.call(&scene.vault, method, input).await.result();
        }
        scene
    }

    /// Subscribes, and waits until that is over: what changes before may be shown in a further
    /// snapshot.
    async fn subscribe(&self, socket: &mut Socket) -> serde_json::Value {
        let snapshot = socket.subscribe_state(&self.vault).await;
        let behind = socket.call(&self.vault, "secret", json!({})).await;
        behind.result();
        snapshot
    }

    async fn user(&self, user: &str) -> Socket {
        Socket::signed_in(&self.host, &token::of(user)).await
    }

    fn http(&self, user: &str, what: &str) -> Request {
        let request = self.host.get(&format!("/actors/vault/1/{what}"));
        request.header("authorization", &format!("Bearer {}", token::of(user)))
    }

    async fn mood(&self, kind: serde_json::Value) {
        let mut ann = self.user("ann").await;
        let reply = ann
            .call(&self.vault, "setMood", json!({"mood": kind}))
            .await;
        reply.result();
    }
}

#[tokio::test]
async fn a_third_user_is_refused_over_websocket() {
    let scene = Scene::new().await;
    let mut eve = scene.user("eve").await;
    for kind in ["state:sub", "event:sub"] {
        eve.send(json!({"type": kind, "actor": "vault", "actorId": "1"}))
            .await;
        let refusal = eve.expect_type("error").await;
        assert_eq!(refusal["code"], "vault.not-admitted");
        assert_eq!(refusal["params"]["actor"], "vault");
    }
    let reply = eve.call(&scene.vault, "secret", json!({})).await;
    assert_eq!(reply.code(), "vault.not-admitted");
    // Nothing reaches her, whatever happens.
    let mut ben = scene.user("ben").await;
    let put = ben
        .call(&scene.vault, "put", json!({"secret": "ore"}))
        .await;
    put.result();
    ben.call(&scene.vault, "ring", json!({"text": "hi"}))
        .await
        .result();
    let knock = eve.call(&scene.vault, "knock", json!({})).await;
    assert!(knock.types_before().is_empty(), "{knock:?}");
}

#[tokio::test]
async fn a_third_user_is_refused_over_http() {
    let scene = Scene::new().await;
    let state = scene.http("eve", "state");
    state.send().await.failed(403, "vault.not-admitted");
    let stream = scene
        .http("eve", "state")
        .header("accept", "text/event-stream");
    stream.send().await.failed(403, "vault.not-admitted");
    let events = scene.http("eve", "events");
    events.send().await.failed(403, "vault.not-admitted");
    let call = scene
        .host
        .post("/actors/vault/1/secret")
        .header("authorization", &format!("Bearer {}", token::of("eve")));
    call.send().await.failed(403, "vault.not-admitted");
}

#[tokio::test]
async fn everybody_sees_what_the_guard_shows_them() {
    let scene = Scene::new().await;
    let (mut ann, mut ben) = (scene.user("ann").await, scene.user("ben").await);
    let whole = scene.subscribe(&mut ann).await;
    assert_eq!(whole["state"]["secret"], "gold");
    assert_eq!(whole["state"].get("combination"), None, "it is hidden");
    let part = scene.subscribe(&mut ben).await;
    let expected = json!({"owner": "ann", "admitted": 1, "secretBytes": 4});
    assert_eq!(part["state"], expected);
    let over_http = scene.http("ben", "state").send().await;
    assert_eq!(over_http.json()["state"], expected);
    // Each gets the change of what they see.
    let put = ann
        .call(&scene.vault, "put", json!({"secret": "mithril"}))
        .await;
    let patch = json!([{"op": "replace", "path": "/secret", "value": "mithril"}]);
    assert_eq!(put.patches(), &patch);
    let patch = ben.expect_type("state:patch").await;
    let expected = json!([{"op": "replace", "path": "/secretBytes", "value": 7}]);
    assert_eq!(patch["patches"], expected);
    assert_eq!(patch["from"], part["version"]);
    // A change that makes no difference to what Ben sees is not for him.
    let same = ann
        .call(&scene.vault, "put", json!({"secret": "MITHRIL"}))
        .await;
    same.result();
    let reply = ben.call(&scene.vault, "knock", json!({})).await;
    assert!(reply.types_before().is_empty(), "{reply:?}");
}

#[tokio::test]
async fn a_stream_of_events_shows_the_same() {
    let scene = Scene::new().await;
    let request = scene
        .http("ben", "state")
        .header("accept", "text/event-stream");
    let mut stream = request.stream().await;
    let snapshot = stream.expect("snapshot").await;
    assert_eq!(snapshot.data["state"]["secretBytes"], 4);
    let mut ann = scene.user("ann").await;
    let put = ann
        .call(&scene.vault, "put", json!({"secret": "ore"}))
        .await;
    put.result();
    let patch = stream.expect("patch").await;
    assert_eq!(patch.data["patches"][0]["path"], "/secretBytes");
}

#[tokio::test]
async fn who_is_barred_loses_the_subscription() {
    let scene = Scene::new().await;
    let (mut ann, mut ben) = (scene.user("ann").await, scene.user("ben").await);
    scene.subscribe(&mut ben).await;
    ben.subscribe_events(&scene.vault).await;
    let events = scene
        .http("ben", "events")
        .header("accept", "text/event-stream");
    let stream = events.stream().await;
    // One right behind the other.
    for (method, input) in [
        ("barUser", json!({"sub": "ben"})),
        ("ring", json!({"text": "hi"})),
        ("put", json!({"secret": "ore"})),
    ] {
        ann.begin_call(&scene.vault, method, input).await;
    }
    for _ in 0..2 {
        let frame = ben.next().await;
        assert_eq!(frame["type"], "error", "{frame}");
        assert_eq!(frame["code"], "vault.not-admitted");
    }
    ann.call(&scene.vault, "ring", json!({"text": "hi"}))
        .await
        .result();
    let reply = ben.call(&scene.vault, "knock", json!({})).await;
    assert!(reply.types_before().is_empty(), "{reply:?}");
    let told = stream.rest().await;
    let told: Vec<_> = told.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(told, ["error"]);
}

#[tokio::test]
async fn a_guard_that_is_asked_later_shuts_out_later() {
    let builder = Host::builder().component("lab");
    let host = builder.set("access.recheck-ms=10").start().await;
    let lobby = actor("lobby", "1");
    let mut socket = host.connect().await;
    socket.subscribe_events(&lobby).await;
    socket.subscribe_state(&lobby).await;
    socket.call(&lobby, "close", json!({})).await.result();
    for _ in 0..2 {
        let refusal = socket.expect_type("error").await;
        assert_eq!(refusal["code"], "lobby.closed");
    }
    let said = json!({"text": "hi"});
    let reply = socket.call(&lobby, "callOut", said).await;
    assert!(reply.types_before().is_empty(), "{reply:?}");
}

#[tokio::test]
async fn who_comes_back_to_what_is_guarded_is_shown_it_as_it_is() {
    let host = Host::serving(["lab"]).await;
    let gate = actor("gate", "1");
    let mut keeper = host.connect().await;
    let mut set = async |open: bool, reads: u32| {
        let input = json!({"open": open, "reads": reads});
        keeper.call(&gate, "set", input).await.result();
    };
    set(true, 1).await;
    let mut socket = host.connect().await;
    let seen = socket.subscribe_state(&gate).await;
    socket.unsubscribe_state(&gate).await;
    let since = json!({"epoch": seen["epoch"], "version": seen["version"]});
    let subscribe = json!({
        "type": "state:sub", "actor": "gate", "actorId": "1", "since": since,
    });
    socket.send(subscribe.clone()).await;
    let nothing = socket.next().await;
    assert_eq!(
        (&nothing["type"], &nothing["patches"]),
        (&json!("state:patch"), &json!([]))
    );
    socket.unsubscribe_state(&gate).await;
    // What was so while it was closed is nobody's business.
    set(false, 2).await;
    set(true, 3).await;
    socket.send(subscribe).await;
    let whole = socket.next().await;
    assert_eq!(whole["type"], "state:snapshot");
    assert_eq!(whole["state"], json!({"open": true, "reads": 3}));
}

#[tokio::test]
async fn a_guard_that_is_too_slow_has_shut_out_whom_it_did_not_decide_on() {
    let builder = Host::builder().component("lab").with_tokens();
    let host = builder.limit("guard-deadline-ms", 1_000).start().await;
    let vault = actor("vault", "1");
    let mut ann = Socket::signed_in(&host, &token::of("ann")).await;
    ann.call(&vault, "claim", json!({})).await.result();
    let mut listener = Socket::signed_in(&host, &token::of("ann")).await;
    listener.subscribe_events(&vault).await;
    listener.call(&vault, "knock", json!({})).await.result();
    // It was let in.
    let ring = ann.call(&vault, "ring", json!({"text": "ho"})).await;
    ring.result();
    listener.expect_type("event").await;
    let slow = json!({"mood": {"kind": "slowToAuthorize", "ms": 60_000}});
    ann.call(&vault, "setMood", slow).await.result();
    let refusal = listener.expect_type("error").await;
    assert_eq!(refusal["code"], "turn.deadline");
    // It holds nobody up from then on.
    let ring = ann.call(&vault, "ring", json!({"text": "hi"})).await;
    ring.result();
}

#[tokio::test]
async fn who_is_destroyed_under_a_subscriber_is_somebody_else() {
    let host = Host::serving(["lab"]).await;
    let gate = actor("gate", "1");
    let mut socket = host.connect().await;
    let open = json!({"open": true, "reads": 1});
    socket.call(&gate, "set", open).await.result();
    socket.subscribe_state(&gate).await;
    // A new gate is closed.
    let gone = host.admin(http::Method::DELETE, "/actors/gate/1");
    assert_eq!(gone.send().await.status, 204);
    let frame = socket.next().await;
    assert_eq!(
        (&frame["type"], &frame["code"]),
        (&json!("error"), &json!("gate.closed"))
    );
}

#[tokio::test]
async fn a_view_may_show_nothing() {
    let scene = Scene::new().await;
    scene.mood(json!({"kind": "blank"})).await;
    let mut ben = scene.user("ben").await;
    let snapshot = scene.subscribe(&mut ben).await;
    assert_eq!(snapshot["state"], json!(null));
    scene.mood(json!({"kind": "calm"})).await;
    let frame = ben.next().await;
    // Whole again, in place of the patch, if the change came while he was being let in.
    let shown = match frame["type"].as_str() {
        Some("state:snapshot") => &frame["state"],
        _ => {
            assert_eq!(frame["patches"][0]["path"], "");
            &frame["patches"][0]["value"]
        }
    };
    assert_eq!(shown["secretBytes"], 4);
}

#[tokio::test]
async fn a_guard_that_traps_lets_nobody_in() {
    let scene = Scene::new().await;
    let mut ben = scene.user("ben").await;
    scene.subscribe(&mut ben).await;
    scene.mood(json!({"kind": "trapsInAuthorize"})).await;
    let mut late = scene.user("ben").await;
    late.send(json!({"type": "state:sub", "actor": "vault", "actorId": "1"}))
        .await;
    let refusal = late.expect_type("error").await;
    assert_eq!(refusal["code"], "handler.trapped");
    scene
        .http("ben", "state")
        .send()
        .await
        .failed(500, "handler.trapped");
    // Who was let in before stays no longer.
    let refusal = ben.expect_type("error").await;
    assert_eq!(refusal["code"], "handler.trapped");
    let put = ben
        .call(&scene.vault, "put", json!({"secret": "ore"}))
        .await;
    assert!(put.types_before().is_empty(), "{put:?}");
}

#[tokio::test]
async fn what_changes_while_a_guard_decides_is_noticed() {
    let scene = Scene::new().await;
    let slow = json!({"kind": "slowToAuthorize", "ms": 300});
    for kind in ["state:sub", "event:sub"] {
        let (mut ann, mut ben) = (scene.user("ann").await, scene.user("ben").await);
        let admit = ann
            .call(&scene.vault, "admitUser", json!({"sub": "ben"}))
            .await;
        admit.result();
        scene.mood(slow.clone()).await;
        ben.send(json!({"type": kind, "actor": "vault", "actorId": "1"}))
            .await;
        // Whether the guard looks at the state before this or after, Ben is not to stay.
        let bar = ann
            .call(&scene.vault, "barUser", json!({"sub": "ben"}))
            .await;
        bar.result();
        // Until then he may be shown what he was admitted to.
        let refusal = loop {
            let frame = ben.next().await;
            if frame["type"] == "error" {
                break frame;
            }
            assert_eq!(frame["type"], "state:snapshot");
        };
        assert_eq!(refusal["code"], "vault.not-admitted");
        let ring = ann.call(&scene.vault, "ring", json!({"text": "hi"})).await;
        ring.result();
        let reply = ben.call(&scene.vault, "knock", json!({})).await;
        assert!(reply.types_before().is_empty(), "{kind}: {reply:?}");
    }
}

#[tokio::test]
async fn a_projection_that_traps_shows_nothing_new() {
    let scene = Scene::new().await;
    let mut ben = scene.user("ben").await;
    scene.subscribe(&mut ben).await;
    scene.mood(json!({"kind": "trapsInProject"})).await;
    let secret = ben
        .call(&scene.vault, "put", json!({"secret": "lead"}))
        .await;
    assert!(secret.types_before().is_empty(), "{secret:?}");
    scene.mood(json!({"kind": "calm"})).await;
    let put = ben
        .call(&scene.vault, "put", json!({"secret": "tin"}))
        .await;
    put.result();
    let reply = ben.call(&scene.vault, "knock", json!({})).await;
    reply.result();
    let state = scene.http("ben", "state").send().await.json();
    assert_eq!(state["state"]["secretBytes"], 3);
}

#[tokio::test]
async fn a_slow_guard_holds_up_no_turn() {
    let scene = Scene::new().await;
    scene
        .mood(json!({"kind": "slowToAuthorize", "ms": 1000}))
        .await;
    let mut late = scene.user("ben").await;
    late.send(json!({"type": "state:sub", "actor": "vault", "actorId": "1"}))
        .await;
    let mut ben = scene.user("ben").await;
    let reply = ben.call(&scene.vault, "secret", json!({})).await;
    assert_eq!(reply.result(), "gold");
    late.expect_type("state:snapshot").await;
}

#[tokio::test]
async fn a_thousand_subscribers_are_decided_in_batches() {
    let builder = Host::builder().component("lab");
    let host = builder.start().await;
    let gate = actor("gate", "1");
    let mut socket = host.connect().await;
    let open = json!({"open": true, "reads": 2000});
    socket.call(&gate, "set", open).await.result();
    let subscribing = (0..200).map(async |_| {
        let mut socket = host.connect().await;
        socket.subscribe_state(&gate).await;
        socket
    });
    let subscribed = futures_util::future::join_all(subscribing).await;
    assert_eq!(subscribed.len(), 200);
}

#[tokio::test]
async fn closed_by_default_means_that_only_guards_open() {
    let builder = Host::builder().component("lab");
    let host = builder.set("access.default=closed").start().await;
    let mut socket = host.connect().await;
    for kind in ["state:sub", "event:sub"] {
        socket
            .send(json!({"type": kind, "actor": "lab", "actorId": "1"}))
            .await;
        let refusal = socket.expect_type("error").await;
        assert_eq!(refusal["code"], "access.closed");
    }
    let state = host.get("/actors/lab/1/state").send().await;
    state.failed(403, "access.closed");
    let lab = actor("lab", "1");
    assert_eq!(socket.call(&lab, "count", json!({})).await.result(), 1);
    let gate = actor("gate", "1");
    socket
        .call(&gate, "set", json!({"open": true}))
        .await
        .result();
    socket.subscribe_state(&gate).await;
}

#[tokio::test]
async fn a_renewed_token_is_asked_about_again() {
    let builder = Host::builder().component("lab").with_tokens();
    let host = builder.set("access.recheck-ms=3600000").start().await;
    let lobby = actor("lobby", "1");
    let mut ben = Socket::signed_in(&host, &token::of("ben")).await;
    ben.subscribe_events(&lobby).await;
    ben.call(&lobby, "close", json!({})).await.result();
    ben.send(json!({"type": "auth", "token": token::of("ben")}))
        .await;
    ben.expect_type("auth:ok").await;
    let refusal = ben.expect_type("error").await;
    assert_eq!(refusal["code"], "lobby.closed");
}

#[tokio::test]
async fn a_private_room_is_its_members_alone() {
    let builder = Host::builder().component("chat").with_tokens();
    let host = builder.start().await;
    let room = actor("chat", "den");
    let user = async |user| Socket::signed_in(&host, &token::of(user)).await;
    let (mut ann, mut ben, mut eve) = (user("ann").await, user("ben").await, user("eve").await);
    let members = json!({"members": ["ben"]});
    ann.call(&room, "makePrivate", members).await.result();
    let join = json!({"name": "Ben"});
    ben.call(&room, "join", join).await.result();
    let snapshot = ben.subscribe_state(&room).await;
    assert_eq!(snapshot["state"]["private"]["owner"], "ann");
    // Eve has a valid token. Over WebSocket …
    for kind in ["state:sub", "event:sub"] {
        eve.send(json!({"type": kind, "actor": "chat", "actorId": "den"}))
            .await;
        let refusal = eve.expect_type("error").await;
        assert_eq!(refusal["code"], "chat.members-only");
    }
    for (method, input) in [
        ("history", json!({})),
        ("join", json!({"name": "Eve"})),
        ("send", json!({"text": "let me in"})),
        ("makePrivate", json!({"members": []})),
        ("invite", json!({"member": "eve"})),
    ] {
        let reply = eve.call(&room, method, input).await;
        assert_eq!(reply.code(), "chat.members-only", "{method}");
    }
    // … over HTTP, and as a stream of events.
    let bearer = format!("Bearer {}", token::of("eve"));
    let requests = [
        host.get("/actors/chat/den/state"),
        host.get("/actors/chat/den/events"),
        host.get("/actors/chat/den/state")
            .header("accept", "text/event-stream"),
        host.post("/actors/chat/den/history").json(&json!({})),
    ];
    for request in requests {
        let refused = request.header("authorization", &bearer).send().await;
        refused.failed(403, "chat.members-only");
    }
    let path = format!("/actors/chat/den/events?token={}", token::of("eve"));
    let refused = host.get(&path).send().await;
    refused.failed(403, "chat.members-only");
    // And nothing of what happens reaches her.
    ben.subscribe_events(&room).await;
    let text = json!({"text": "Hi"});
    let said = ben.call(&room, "send", text).await;
    assert_eq!(said.types_before(), ["state:patch", "event"]);
    let reply = eve.call(&room, "history", json!({})).await;
    assert!(reply.types_before().is_empty(), "{reply:?}");
}

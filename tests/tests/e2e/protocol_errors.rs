//! What a client must not send: a clear error, nothing lost, and the socket stays open.

use serde_json::{Value, json};
use tidegate_tests::{Host, Socket, actor};

/// Sends a frame that is expected to be refused, and shows that the socket still works.
async fn refused(socket: &mut Socket, frame: &str, code: &str) -> Value {
    socket.send_text(frame).await;
    let error = socket.expect_type("error").await;
    assert_eq!(error["code"], code, "{error}");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{error}"
    );
    still_works(socket).await;
    error
}

async fn still_works(socket: &mut Socket) {
    let reply = socket.call(&actor("lab", "1"), "zero", None).await;
    assert_eq!((reply.result(), reply.before), (json!(0), vec![]));
}

#[tokio::test]
async fn junk_is_refused_and_the_socket_stays_open() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for frame in [
        "",
        " ",
        "not json",
        "{",
        "{}",
        "[]",
        "null",
        "true",
        "7",
        "\"text\"",
        "[{}]",
        "{\"type\":}",
        r#"{"type":7}"#,
        r#"{"type":null}"#,
        r#"{"type":"rpc"} trailing"#,
        "\u{0}",
        "\u{feff}{}",
    ] {
        refused(&mut socket, frame, "frame.malformed").await;
    }
}

#[tokio::test]
async fn an_unknown_type_is_named() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for kind in ["zzz", "welcome", "rpc:result", "state:snapshot", ""] {
        let frame = json!({"type": kind}).to_string();
        let error = refused(&mut socket, &frame, "frame.unknown-type").await;
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("{kind:?}")), "{message}");
    }
}

#[tokio::test]
async fn a_frame_without_its_members_is_refused_by_name() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for (frame, member) in [
        (json!({"type": "rpc"}), "id"),
        (
            json!({"type": "rpc", "id": 7, "actor": "lab", "actorId": "1", "method": "zero"}),
            "id",
        ),
        (
            json!({"type": "rpc", "id": null, "actor": "lab", "actorId": "1", "method": "zero"}),
            "id",
        ),
        (
            json!({"type": "rpc", "id": ["x"], "actor": "lab", "actorId": "1", "method": "zero"}),
            "id",
        ),
        (
            json!({"type": "rpc", "id": "", "actor": "lab", "actorId": "1", "method": "zero"}),
            "id",
        ),
        (
            json!({"type": "rpc", "id": "x".repeat(129), "actor": "lab", "actorId": "1", "method": "zero"}),
            "id",
        ),
        (json!({"type": "state:sub"}), "actor"),
        (json!({"type": "state:sub", "actor": "lab"}), "actorId"),
        (
            json!({"type": "event:sub", "actor": "lab", "actorId": 1}),
            "actorId",
        ),
        (
            json!({"type": "event:unsub", "actor": {}, "actorId": "1"}),
            "actor",
        ),
        (
            json!({"type": "state:unsub", "actor": "lab", "actorId": null}),
            "actorId",
        ),
    ] {
        let error = refused(&mut socket, &frame.to_string(), "frame.malformed").await;
        let message = error["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with(&format!("/{member}: ")),
            "{frame}: {message}"
        );
        assert_eq!(error["params"]["path"], format!("/{member}"));
    }
}

#[tokio::test]
async fn a_member_that_appears_twice_is_refused() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for frame in [
        r#"{"type":"state:sub","type":"state:unsub","actor":"lab","actorId":"1"}"#,
        r#"{"type":"state:sub","actor":"lab","actorId":"1","actorId":"2"}"#,
    ] {
        refused(&mut socket, frame, "frame.malformed").await;
    }
}

#[tokio::test]
async fn a_call_with_an_id_gets_its_error_as_a_result() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for frame in [
        json!({"type": "rpc", "id": "x"}),
        json!({"type": "rpc", "id": "x", "actor": "lab", "actorId": "1"}),
        json!({"type": "rpc", "id": "x", "actor": "lab", "actorId": 1, "method": "zero"}),
        json!({"type": "rpc", "id": "x", "actor": 7, "actorId": "1", "method": "zero"}),
    ] {
        socket.send(frame.clone()).await;
        let result = socket.expect_type("rpc:result").await;
        assert_eq!(
            (&result["id"], &result["failure"]["code"]),
            (&json!("x"), &json!("frame.malformed"))
        );
        still_works(&mut socket).await;
    }
}

#[tokio::test]
async fn subscribing_to_an_unknown_actor_is_refused() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for kind in ["state:sub", "event:sub"] {
        let frame = json!({"type": kind, "actor": "nope", "actorId": "1"});
        let error = refused(&mut socket, &frame.to_string(), "actor.unknown").await;
        assert_eq!(error["message"], "Unknown actor: nope");
        assert_eq!(error["params"], json!({"actor": "nope", "actorId": "1"}));
    }
    let frame = json!({"type": "state:sub", "actor": "lab", "actorId": "x".repeat(257)});
    refused(&mut socket, &frame.to_string(), "actor.invalid-id").await;
}

#[tokio::test]
async fn depth_bombs_are_refused() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    refused(&mut socket, &open, "frame.malformed").await;
    refused(&mut socket, &format!("{open}{close}"), "frame.malformed").await;
    let frame = format!(
        r#"{{"type":"rpc","id":"deep","actor":"lab","actorId":"1","method":"echo","input":{open}{close}}}"#
    );
    socket.send_text(&frame).await;
    let answer = socket.next().await;
    let code = answer["failure"]["code"]
        .as_str()
        .or(answer["code"].as_str());
    assert!(
        matches!(code, Some("frame.malformed" | "input.invalid")),
        "{answer}"
    );
    still_works(&mut socket).await;
}

#[tokio::test]
async fn an_oversized_frame_is_read_over() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let error = refused(&mut socket, &"x".repeat((1 << 20) + 1), "frame.too-large").await;
    assert_eq!(error["params"]["limit"], 1 << 20);
    let largest = format!("{}{}", json!({"type": "zzz"}), " ".repeat((1 << 20) - 14));
    assert_eq!(largest.len(), 1 << 20);
    refused(&mut socket, &largest, "frame.unknown-type").await;
}

#[tokio::test]
async fn the_frame_limit_is_a_setting() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-frame-bytes=200")
        .start()
        .await;
    let mut socket = host.connect().await;
    refused(&mut socket, &" ".repeat(201), "frame.too-large").await;
}

#[tokio::test]
async fn a_frame_that_is_too_long_even_to_skip_closes_the_socket() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-discard-bytes=2000000")
        .start()
        .await;
    let mut socket = host.connect().await;
    // What follows the head of this frame may find the socket closed already.
    let closed = socket.send_until_closed(&"x".repeat(3_000_000)).await;
    assert!(matches!(closed.code, 1009 | 1006), "{closed:?}");
    still_works(&mut host.connect().await).await;
}

#[tokio::test]
async fn a_binary_frame_of_text_is_a_frame() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let call =
        json!({"type": "rpc", "id": "bin", "actor": "lab", "actorId": "1", "method": "zero"});
    socket.send_binary(call.to_string().as_bytes()).await;
    let result = socket.expect_type("rpc:result").await;
    assert_eq!(
        result,
        json!({"type": "rpc:result", "id": "bin", "result": 0})
    );
}

#[tokio::test]
async fn a_binary_frame_of_anything_else_is_refused() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    for bytes in [
        &b"\xff\xfe\x00"[..],
        b"{\"type\":\"rpc\xc3\x28\"}",
        &[0; 1000],
    ] {
        socket.send_binary(bytes).await;
        let error = socket.expect_type("error").await;
        let code = error["code"].as_str();
        assert!(
            matches!(code, Some("frame.not-utf8" | "frame.malformed")),
            "{error}"
        );
        still_works(&mut socket).await;
    }
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_the_socket() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    socket.send_broken_text(b"\"\xff\"").await;
    assert_eq!(socket.closed().await.code, 1007);
    still_works(&mut host.connect().await).await;
}

#[tokio::test]
async fn what_the_protocol_does_not_know_of_is_ignored() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    socket
        .send(json!({"type": "rpc", "id": "x", "actor": "lab", "actorId": "1", "method": "zero", "more": [1]}))
        .await;
    assert_eq!(socket.expect_type("rpc:result").await["result"], 0);
}

#[tokio::test]
async fn a_connection_may_meet_only_so_many_actors() {
    let host = Host::builder()
        .component("lab")
        .set("gateway.max-actors-per-connection=3")
        .start()
        .await;
    let mut socket = host.connect().await;
    for id in ["1", "2", "3"] {
        assert_eq!(
            socket.call(&actor("lab", id), "zero", None).await.result(),
            0
        );
    }
    let fourth = socket.call(&actor("lab", "4"), "zero", None).await;
    assert_eq!(fourth.code(), "connection.actor-limit");
    still_works(&mut socket).await;
}

#[tokio::test]
async fn a_call_is_answered_under_its_id_whatever_is_wrong_with_it() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let long = "x".repeat(1 << 20);
    let deep = "[".repeat(5_000);
    let head = r#"{"type":"rpc","id":"x","actor":"lab","actorId":"1","method":"echo""#;
    for (frame, code) in [
        (format!(r#"{head},"input":"{long}"}}"#), "frame.too-large"),
        (
            format!(r#"{{"input":["{long}",{{"id":"y"}}],"type":"rpc","id":"x"}}"#),
            "frame.too-large",
        ),
        (format!(r#"{head},"input":{{"by":}}}}"#), "frame.malformed"),
        (format!(r#"{head},"input":"#), "frame.malformed"),
        (format!("{head}}}}}"), "frame.malformed"),
        (format!(r#"{head},"input":{deep}"#), "frame.malformed"),
        (
            format!(r#"{head},"input":1,"input":2}}"#),
            "frame.malformed",
        ),
        (format!(r#"{head},"id":"x"}}"#), "frame.malformed"),
        (format!(r#"{head},"type":"auth"}}"#), "frame.malformed"),
        (format!(r#"{head},"key":7}}"#), "frame.malformed"),
        (format!(r#"{head},"input":1e999}}"#), "input.invalid"),
        (
            r#"{"type":"rpc","id":"x","actor":"lab","actorId":"..","method":"zero"}"#.to_owned(),
            "actor.invalid-id",
        ),
    ] {
        socket.send_text(&frame).await;
        let result = socket.expect_type("rpc:result").await;
        let shown = &frame[..frame.len().min(100)];
        assert_eq!(
            (&result["id"], &result["failure"]["code"]),
            (&json!("x"), &json!(code)),
            "{shown}"
        );
        still_works(&mut socket).await;
    }
    let broken = [head.as_bytes(), b",\"input\":\"\xff\"}"].concat();
    socket.send_binary(&broken).await;
    let result = socket.expect_type("rpc:result").await;
    assert_eq!(
        (&result["id"], &result["failure"]["code"]),
        (&json!("x"), &json!("frame.not-utf8"))
    );
    still_works(&mut socket).await;
}

#[tokio::test]
async fn a_call_under_way_is_not_answered_by_the_refusal_of_another_with_its_id() {
    let host = Host::serving(["puppet"]).await;
    let mut socket = host.connect().await;
    let slow = json!({
        "type": "rpc", "id": "x", "actor": "puppet", "actorId": "1", "method": "run",
        "input": [{"chunk": 1}, {"sleep": 500}],
    });
    socket.send(slow.clone()).await;
    socket.expect_type("rpc:stream").await;
    let long = "x".repeat(1 << 20);
    for frame in [
        slow.to_string(),
        r#"{"type":"rpc","id":"x","input":"#.to_owned(),
        format!(r#"{{"type":"rpc","id":"x","input":"{long}"}}"#),
    ] {
        socket.send_text(&frame).await;
        let error = socket.expect_type("error").await;
        assert_eq!(
            (&error["code"], &error["id"], &error["frame"]),
            (&json!("rpc.duplicate-id"), &json!("x"), &json!("rpc"))
        );
    }
    assert_eq!(socket.result_of("x").await.result(), json!([null, null]));
}

#[tokio::test]
async fn an_error_names_the_frame_that_it_answers() {
    let host = Host::serving(["lab"]).await;
    let mut socket = host.connect().await;
    let long = "x".repeat(1 << 20);
    for (frame, code, named) in [
        (
            r#"{"type":"state:sub","actor":"lab","actorId":"1","since":{"#.to_owned(),
            "frame.malformed",
            json!({"actor": "lab", "actorId": "1"}),
        ),
        (
            format!(r#"{{"more":"{long}","type":"event:sub","actor":"lab","actorId":"1"}}"#),
            "frame.too-large",
            json!({"actor": "lab", "actorId": "1", "limit": 1 << 20}),
        ),
        (
            r#"{"type":"event:unsub","actor":"nope","actorId":"1"}"#.to_owned(),
            "actor.unknown",
            json!({"actor": "nope", "actorId": "1"}),
        ),
        (
            r#"{"type":"auth","token":"t"}"#.to_owned(),
            "auth.not-configured",
            Value::Null,
        ),
    ] {
        let kind = frame.split('"').skip_while(|part| *part != "type").nth(2);
        let error = refused(&mut socket, &frame, code).await;
        assert_eq!(error["frame"].as_str(), kind, "{error}");
        assert_eq!(error.get("params").unwrap_or(&Value::Null), &named);
    }
    let cancel = r#"{"type":"rpc:cancel","id":"7","id":"7"}"#;
    let error = refused(&mut socket, cancel, "frame.malformed").await;
    assert_eq!(
        (&error["frame"], &error["id"]),
        (&json!("rpc:cancel"), &json!("7"))
    );
}

//! Clients that do not read: they cost bounded memory and slow nobody.

use serde_json::json;
use tidegate_tests::{Builder, Host, Socket, actor};

/// A host that holds little for a client that does not read.
fn impatient() -> Builder {
    Host::builder()
        .component("lab")
        .set("gateway.outbound-bytes=262144")
}

/// More than what the host, and the system beneath it, hold for one client.
const ROUNDS: u32 = 200;
const BYTES: u32 = 100_000;

#[tokio::test]
async fn a_slow_state_subscriber_falls_back_to_a_fresh_snapshot() {
    let host = impatient().start().await;
    let lab = actor("lab", "1");
    let mut slow = Socket::connect_narrow(&host).await;
    slow.call(&lab, "zero", None).await;
    slow.subscribe_state(&lab).await;
    let mut caller = host.connect().await;
    for n in 1..=ROUNDS {
        let reply = caller.call(&lab, "fill", json!({"bytes": BYTES})).await;
        assert_eq!(reply.result(), n);
    }
    let (mut frames, mut snapshots) = (0, 0);
    let mut version = None;
    loop {
        let frame = slow.next().await;
        frames += 1;
        match frame["type"].as_str() {
            Some("state:snapshot") => snapshots += 1,
            _ if version.is_some() => assert_eq!(Some(frame["from"].clone()), version, "a gap"),
            _ => {}
        }
        version = Some(frame["version"].clone());
        if frame["state"]["n"] == ROUNDS {
            break;
        }
    }
    assert!(snapshots >= 1);
    assert!(frames < ROUNDS, "nothing was left out");
    // It is in step again.
    let reply = slow.call(&lab, "count", None).await;
    assert_eq!(reply.types_before(), ["state:patch"]);
    assert_eq!(Some(reply.before[0]["from"].clone()), version);
}

#[tokio::test]
async fn a_slow_event_subscriber_is_closed_with_a_code() {
    let host = impatient().start().await;
    let lab = actor("lab", "1");
    let mut slow = Socket::connect_narrow(&host).await;
    slow.subscribe_events(&lab).await;
    slow.call(&lab, "zero", None).await;
    let mut caller = host.connect().await;
    for _ in 0..ROUNDS {
        let reply = caller.call(&lab, "blare", json!({"bytes": BYTES})).await;
        assert_eq!(reply.frame.get("error"), None);
    }
    assert_eq!(slow.closed().await.code, 4008);
}

#[tokio::test]
async fn a_caller_that_never_reads_harms_only_itself() {
    let host = impatient()
        .set("gateway.close-timeout-ms=100")
        .start()
        .await;
    let visits = actor("visits", "1");
    let mut witness = host.connect().await;
    let mut deaf = Socket::connect_narrow(&host).await;
    deaf.call(&visits, "call", None).await;
    let id = deaf.id().to_owned();
    let text = "x".repeat(BYTES as usize);
    // Sending fails once the host has had enough.
    while deaf.try_call(&actor("lab", "1"), "echo", json!(text)).await {}
    let left = |state: &serde_json::Value| state["disconnects"] == json!([id]);
    witness.watch(&visits, left).await;
    assert_eq!(
        witness
            .call(&actor("lab", "1"), "zero", None)
            .await
            .result(),
        0
    );
}

#[tokio::test]
async fn a_slow_subscriber_does_not_slow_the_others() {
    let host = impatient().start().await;
    let lab = actor("lab", "1");
    let mut slow = Socket::connect_narrow(&host).await;
    slow.subscribe_state(&lab).await;
    let mut quick = host.connect().await;
    quick.call(&lab, "zero", None).await;
    quick.subscribe_state(&lab).await;
    for _ in 0..ROUNDS {
        let reply = quick.call(&lab, "fill", json!({"bytes": BYTES})).await;
        assert_eq!(reply.types_before(), ["state:patch"]);
    }
}

/// What serving a client that does not read may cost beyond what is set for it.
const SLACK: usize = 32 << 20;

#[tokio::test]
async fn a_subscriber_that_asks_again_and_again_and_never_reads_costs_little() {
    let host = impatient().start().await;
    let (lab, visits) = (actor("lab", "1"), actor("visits", "1"));
    let mut witness = host.connect().await;
    witness.call(&lab, "fill", json!({"bytes": 500_000})).await;
    witness.subscribe_state(&lab).await;
    witness.unsubscribe_state(&lab).await;
    let before = host.resident_bytes();
    let mut deaf = Socket::connect_narrow(&host).await;
    for _ in 0..5_000 {
        assert!(deaf.try_subscribe_state(&lab).await, "it was closed");
    }
    // Frames are taken in order, so all are when this call has run.
    deaf.begin_call(&visits, "call", None).await;
    witness.watch(&visits, |state| state["calls"] == 1).await;
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < SLACK, "the host has grown by {grown} bytes");
    assert_eq!(witness.call(&lab, "count", None).await.result(), 2);
}

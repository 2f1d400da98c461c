//! What a client is owed: coalescing, order, limits.

use std::sync::Arc;

use tidegate_base::budget::{Budget, Budgets};
use tidegate_ws::{Frame, OutboundLimits, Refused, Settings};
use tokio::sync::mpsc;

use crate::client::*;

#[tokio::test]
async fn a_handler_that_waits_does_not_hold_back_what_it_has_pushed() {
    let (allow, allowed) = mpsc::unbounded_channel();
    let slow = |outbound| Slow(outbound, allowed);
    let (mut client, _served) = connect(Settings::default(), slow).await;
    client.say(&frame(FIN | TEXT, b"work")).await;
    assert_eq!(client.hear_text().await, "working");
    allow.send(()).unwrap();
    assert_eq!(client.hear_text().await, "done");
}

#[tokio::test]
async fn what_is_pushed_under_a_cork_leaves_in_one_write() {
    let (mut client, served) = echo().await;
    {
        let _outer = served.outbound.cork();
        let _inner = served.outbound.cork();
        for i in 0..10 {
            served.outbound.push(Frame::text(i.to_string())).unwrap();
        }
        assert_eq!(served.outbound.queued().frames, 10);
        assert_eq!(served.outbound.counters().writes, 0);
    }
    assert_eq!(served.outbound.counters().writes, 1);
    for i in 0..10 {
        assert_eq!(client.hear_text().await, i.to_string());
    }
}

#[tokio::test]
async fn a_cork_refuses_nothing_that_the_socket_would_take() {
    let (mut client, served) = connect(small_queue(), Echo).await;
    {
        let _cork = served.outbound.cork();
        for i in 0..1000 {
            served.outbound.push(Frame::text(i.to_string())).unwrap();
        }
    }
    for i in 0..1000 {
        assert_eq!(client.hear_text().await, i.to_string());
    }
}

#[tokio::test]
async fn what_pipelined_messages_are_answered_leaves_together() {
    let (mut client, served) = echo().await;
    let input: Vec<u8> = (0..50).flat_map(|_| frame(FIN | TEXT, b"x")).collect();
    client.say(&input).await;
    for _ in 0..50 {
        assert_eq!(client.hear_text().await, "x");
    }
    // The input may come in more than one read, yet never in one for each message.
    let writes = served.outbound.counters().writes;
    assert!(writes < 50, "{writes} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn frames_of_many_tasks_arrive_whole_and_each_tasks_in_order() {
    let (mut client, served) = connect(small_queue(), Echo).await;
    for task in 0..8 {
        let outbound = Arc::clone(&served.outbound);
        tokio::spawn(async move {
            for i in 0..2000 {
                let padding = "x".repeat(i % 300);
                let frame = Frame::text(format!("{task} {i} {padding}"));
                while outbound.push(frame.clone()) == Err(Refused::Full) {
                    outbound.drained().await;
                }
            }
        });
    }
    let mut next = [0; 8];
    for _ in 0..8 * 2000 {
        let text = client.hear_text().await;
        let mut words = text.split(' ');
        let mut number = || words.next().unwrap().parse::<usize>().unwrap();
        let (task, i) = (number(), number());
        assert_eq!(next[task], i);
        assert_eq!(words.next().unwrap().len(), i % 300);
        next[task] += 1;
    }
    assert_eq!(next, [2000; 8]);
}

#[tokio::test]
async fn a_client_that_never_reads_is_owed_a_bounded_amount() {
    let (_client, served) = connect(small_queue(), Echo).await;
    fill(&served.outbound, 8 << 10);
    let queued = served.outbound.queued();
    assert!(queued.bytes >= 64 << 10, "{queued:?}");
    assert!(queued.bytes < (64 << 10) + (9 << 10), "{queued:?}");
    assert_eq!(served.outbound.counters().refused, 1);
    let (_client, served) = connect(small_queue(), Echo).await;
    // The kernel's buffers take the large frame, and the queue what it leaves of it.
    served
        .outbound
        .push(Frame::binary(vec![0; 16 << 20]))
        .unwrap();
    assert_eq!(
        served.outbound.push(Frame::text("more")),
        Err(Refused::Full)
    );
}

#[tokio::test]
async fn a_queue_is_bounded_in_frames_too() {
    let settings = Settings {
        outbound: OutboundLimits {
            max_bytes: usize::MAX,
            max_frames: 100,
        },
        ..Settings::default()
    };
    let (_client, served) = connect(settings, Echo).await;
    fill(&served.outbound, 8 << 10);
    assert_eq!(served.outbound.queued().frames, 100);
}

#[tokio::test]
async fn a_client_that_never_reads_slows_nobody_else() {
    let (_silent, full) = connect(small_queue(), Echo).await;
    let (mut client, _served) = echo().await;
    fill(&full.outbound, 8 << 10);
    client.say(&frame(FIN | TEXT, b"still served")).await;
    assert_eq!(client.hear_text().await, "still served");
}

#[tokio::test]
async fn what_was_taken_arrives_once_the_client_reads_again() {
    let (mut client, served) = connect(small_queue(), Echo).await;
    let count = fill(&served.outbound, 8 << 10);
    for i in 0..count {
        assert_eq!(client.hear_text().await.trim_end(), i.to_string());
    }
    assert_eq!(served.outbound.queued().frames, 0);
    served.outbound.push(Frame::text("room again")).unwrap();
    assert_eq!(client.hear_text().await, "room again");
}

#[tokio::test]
async fn a_queue_that_drained_after_a_refusal_tells_so() {
    let (mut client, served) = connect(small_queue(), Echo).await;
    // Nothing was refused, so there is nothing to wait for.
    soon(served.outbound.drained()).await;
    let count = fill(&served.outbound, 8 << 10);
    let outbound = Arc::clone(&served.outbound);
    let waiter = tokio::spawn(async move {
        outbound.drained().await;
        outbound.queued()
    });
    for _ in 0..count {
        client.hear_text().await;
    }
    let queued = soon(waiter).await.unwrap();
    assert!(queued.bytes <= 16 << 10, "{queued:?}");
}

#[tokio::test]
async fn a_pong_overtakes_what_is_queued() {
    let (mut client, served) = connect(small_queue(), Echo).await;
    let count = fill(&served.outbound, 8 << 10);
    let queued = served.outbound.queued().frames;
    client.say(&frame(FIN | PING, b"hurry")).await;
    // The client does not read, so that the queue grows by the pong alone.
    while served.outbound.queued().frames == queued {
        tokio::task::yield_now().await;
    }
    let mut before = 0;
    loop {
        match client.hear().await {
            (first, payload) if first == FIN | PONG => {
                assert_eq!(payload, b"hurry");
                break;
            }
            _ => before += 1,
        }
    }
    assert!(before < count, "the pong came after all {count} frames");
}

/// All connections together may be owed this much.
const TOGETHER: usize = 1 << 20;

fn little_together() -> (Settings, Arc<Budget>) {
    let outbound = Budget::new("outbound", TOGETHER);
    let settings = Settings {
        budgets: Budgets {
            outbound: outbound.clone(),
            ..Budgets::default()
        },
        ..Settings::default()
    };
    (settings, outbound)
}

#[tokio::test]
async fn a_frame_for_many_counts_once() {
    let (settings, budget) = little_together();
    let text = "x".repeat(100 << 10);
    let frame = Frame::shared_text(&text, &budget).unwrap();
    let mut served = Vec::new();
    for _ in 0..50 {
        served.push(connect(settings.clone(), Echo).await);
    }
    let corks: Vec<_> = served
        .iter()
        .map(|(_, served)| served.outbound.cork())
        .collect();
    for (_, served) in &served {
        served.outbound.push(frame.clone()).unwrap();
        assert_eq!(served.outbound.queued().bytes, frame.wire_len());
    }
    assert_eq!(budget.used(), frame.wire_len());
    drop((frame, corks));
    for (client, _) in &mut served {
        assert_eq!(client.hear_text().await, text);
    }
    drop(served);
    soon(async {
        while budget.used() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_connections_are_owed_has_a_limit_together() {
    let (settings, budget) = little_together();
    let (_silent, full) = connect(settings.clone(), Echo).await;
    let count = fill(&full.outbound, 8 << 10);
    let queued = full.outbound.queued();
    assert!(count > 0 && queued.bytes < TOGETHER, "{queued:?}");
    assert!(budget.is_pressed() || budget.refused() > 0);
    // Who reads gets what there is for those who hold little.
    let (mut client, _served) = connect(settings, Echo).await;
    client.say(&frame(FIN | TEXT, &[b'x'; 30 << 10])).await;
    assert_eq!(client.hear_text().await.len(), 30 << 10);
    assert!(budget.used() <= TOGETHER);
    full.outbound
        .close_discarding(tidegate_ws::CloseCode::POLICY, "");
    assert!(budget.used() < 64 << 10, "{}", budget.used());
}

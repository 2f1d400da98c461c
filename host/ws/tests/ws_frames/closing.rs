//! How connections end: by the client, by the host, by silence, by accident.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tidegate_ws::{
    CloseCode, Ended, Frame, Handler, Inbound, KeepAlive, Outbound, Refused, Settings,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::client::*;

#[tokio::test]
async fn a_close_is_echoed_behind_what_is_owed() {
    let (mut client, served) = echo().await;
    let last_words = [
        frame(FIN | TEXT, b"last"),
        frame(FIN | CLOSE, &close_body(3999, "done")),
        frame(FIN | TEXT, b"unheard"),
    ];
    client.say(&last_words.concat()).await;
    assert_eq!(client.hear_text().await, "last");
    assert_eq!(client.hear().await, (FIN | CLOSE, close_body(3999, "")));
    client.hear_end().await;
    drop(client);
    let Ended::ByPeer(Some(close)) = served.ended().await else {
        panic!("closed by the peer");
    };
    assert_eq!((close.code().get(), close.reason()), (3999, "done"));
}

#[tokio::test]
async fn a_close_without_a_code_is_echoed_so() {
    let (mut client, served) = echo().await;
    client.say(&frame(FIN | CLOSE, b"")).await;
    assert_eq!(client.hear().await, (FIN | CLOSE, vec![]));
    client.hear_end().await;
    drop(client);
    assert!(matches!(served.ended().await, Ended::ByPeer(None)));
}

fn impatient() -> Settings {
    Settings {
        close_timeout: Duration::from_millis(50),
        ..small_queue()
    }
}

#[tokio::test]
async fn a_client_that_closes_its_end_is_still_told_what_it_is_owed() {
    let (mut client, served) = connect(small_queue(), Echo).await;
    let count = fill(&served.outbound, 8 << 10);
    client.say(&frame(FIN | CLOSE, b"")).await;
    client.stream.shutdown().await.unwrap();
    let outbound = Arc::clone(&served.outbound);
    while outbound.is_open() {
        tokio::task::yield_now().await;
    }
    for i in 0..count {
        assert_eq!(client.hear_text().await.trim_end(), i.to_string());
    }
    assert_eq!(client.hear().await, (FIN | CLOSE, vec![]));
    client.hear_end().await;
    assert!(matches!(served.ended().await, Ended::ByPeer(None)));
}

#[tokio::test]
async fn the_host_closes_behind_what_is_owed() {
    let (mut client, served) = echo().await;
    served.outbound.push(Frame::text("last")).unwrap();
    served.outbound.close(CloseCode::GOING_AWAY, "restarting");
    assert_eq!(
        served.outbound.push(Frame::text("late")),
        Err(Refused::Closed)
    );
    assert_eq!(client.hear_text().await, "last");
    assert_eq!(
        client.hear().await,
        (FIN | CLOSE, close_body(1001, "restarting"))
    );
    client.say(&frame(FIN | CLOSE, &close_body(1001, ""))).await;
    client.hear_end().await;
    drop(client);
    assert!(matches!(
        served.ended().await,
        Ended::ByHost { confirmed: true }
    ));
}

#[tokio::test]
async fn nothing_is_heard_after_the_host_has_closed() {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let (mut client, served) = connect(Settings::default(), |_| forward(sender)).await;
    served.outbound.close(CloseCode::NORMAL, "");
    assert_eq!(client.hear_close().await, 1000);
    client.say(&frame(FIN | TEXT, b"too late")).await;
    client.say(&frame(FIN | CLOSE, &close_body(1000, ""))).await;
    client.hear_end().await;
    drop(client);
    assert!(matches!(
        served.ended().await,
        Ended::ByHost { confirmed: true }
    ));
    assert_eq!(heard.recv().await, None);
}

#[tokio::test]
async fn a_close_from_within_a_handler_still_hears_the_clients_own() {
    struct Closes(Arc<Outbound>);
    impl Handler for Closes {
        type Skim = tidegate_ws::Unread;

        fn on_message(&mut self, _: Inbound) -> Option<impl Future<Output = ()> + Send> {
            self.0.close(CloseCode::POLICY, "no");
            None::<std::future::Ready<()>>
        }
    }
    let (mut client, served) = connect(Settings::default(), Closes).await;
    let frames = [
        frame(FIN | TEXT, b"x"),
        frame(FIN | TEXT, b"y"),
        frame(FIN | CLOSE, &close_body(1000, "")),
    ];
    client.say(&frames.concat()).await;
    assert_eq!(client.hear_close().await, 1008);
    client.hear_end().await;
    drop(client);
    assert!(matches!(
        served.ended().await,
        Ended::ByHost { confirmed: true }
    ));
}

#[tokio::test]
async fn a_client_that_does_not_confirm_the_close_is_cut_off() {
    let (mut client, served) = connect(impatient(), Echo).await;
    served.outbound.close(CloseCode::NORMAL, "");
    assert_eq!(client.hear_close().await, 1000);
    assert!(matches!(
        served.ended().await,
        Ended::ByHost { confirmed: false }
    ));
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let (mut client, served) = connect(impatient(), Echo).await;
    fill(&served.outbound, 8 << 10);
    served
        .outbound
        .close(CloseCode::TRY_LATER, "reads too slowly");
    let outbound = Arc::clone(&served.outbound);
    assert!(matches!(
        served.ended().await,
        Ended::ByHost { confirmed: false }
    ));
    assert_eq!(outbound.queued().frames, 0);
    // Reset, so that the kernel does not keep what was written for a client that does not read.
    let rest = soon(client.stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(rest.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_slow_client_is_told_the_reason_without_what_was_queued() {
    let (mut client, served) = connect(small_queue(), Echo).await;
    let count = fill(&served.outbound, 8 << 10);
    served
        .outbound
        .close_discarding(CloseCode::TRY_LATER, "reads too slowly");
    let mut heard = 0;
    let code = loop {
        match client.hear().await {
            (first, payload) if first == FIN | CLOSE => {
                break u16::from_be_bytes([payload[0], payload[1]]);
            }
            (_, payload) => {
                let text = String::from_utf8(payload).unwrap();
                assert_eq!(text.trim_end(), heard.to_string());
                heard += 1;
            }
        }
    };
    assert_eq!(code, 1013);
    assert!(heard < count, "{heard} of {count}");
}

#[tokio::test]
async fn an_abrupt_end_closes_the_queue_for_good() {
    let (client, served) = echo().await;
    client.stream.set_zero_linger().unwrap();
    drop(client);
    let outbound = Arc::clone(&served.outbound);
    assert!(matches!(served.ended().await, Ended::Lost(_)));
    assert!(!outbound.is_open());
    assert_eq!(outbound.push(Frame::text("x")), Err(Refused::Closed));
    soon(outbound.drained()).await;
}

#[tokio::test]
async fn the_end_of_the_stream_within_a_frame_is_a_loss() {
    let (mut client, served) = echo().await;
    client.say(&frame(FIN | TEXT, b"unfinished")[..9]).await;
    drop(client);
    assert!(matches!(served.ended().await, Ended::Lost(None)));
}

#[tokio::test]
async fn what_a_vanished_client_said_is_still_handled() {
    let (sender, mut heard) = mpsc::unbounded_channel();
    let (mut client, served) = connect(Settings::default(), |_| forward(sender)).await;
    let input: Vec<u8> = (0..1000)
        .flat_map(|i: u32| frame(FIN | TEXT, i.to_string().as_bytes()))
        .collect();
    client.say(&input).await;
    drop(client);
    let outbound = Arc::clone(&served.outbound);
    assert!(matches!(served.ended().await, Ended::Lost(None)));
    assert_eq!(Arc::strong_count(&outbound), 1, "nobody else keeps it");
    for i in 0..1000 {
        assert_eq!(heard.recv().await, Some(Inbound::Text(i.to_string())));
    }
}

#[tokio::test]
async fn a_handler_that_never_returns_does_not_outlive_the_connection() {
    let (allow, allowed) = mpsc::unbounded_channel();
    drop(allow);
    let slow = |outbound| Slow(outbound, allowed);
    let (mut client, served) = connect(impatient(), slow).await;
    client.say(&frame(FIN | TEXT, b"work")).await;
    assert_eq!(client.hear_text().await, "working");
    served.outbound.close(CloseCode::GOING_AWAY, "");
    assert!(matches!(
        served.ended().await,
        Ended::ByHost { confirmed: false }
    ));
}

#[tokio::test]
async fn a_client_that_vanishes_while_its_message_is_handled_is_lost() {
    let (_allow, allowed) = mpsc::unbounded_channel();
    let slow = |outbound| Slow(outbound, allowed);
    let (mut client, served) = connect(impatient(), slow).await;
    client.say(&frame(FIN | TEXT, b"work")).await;
    assert_eq!(client.hear_text().await, "working");
    client.stream.set_zero_linger().unwrap();
    drop(client);
    while served.outbound.push(Frame::text("progress")) != Err(Refused::Closed) {
        tokio::task::yield_now().await;
    }
    assert!(matches!(served.ended().await, Ended::Lost(Some(_))));
}

#[tokio::test]
async fn a_connection_whose_task_is_dropped_is_closed() {
    let (mut client, served) = echo().await;
    let outbound = Arc::clone(&served.outbound);
    served.run.abort();
    assert!(served.run.await.unwrap_err().is_cancelled());
    assert_eq!(outbound.push(Frame::text("x")), Err(Refused::Closed));
    client.hear_end().await;
}

fn short_keep_alive() -> Settings {
    Settings {
        keep_alive: KeepAlive {
            ping_interval: Duration::from_millis(20),
            pong_timeout: Duration::from_millis(20),
        },
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_then_given_up() {
    let (mut client, served) = connect(short_keep_alive(), Echo).await;
    assert_eq!(client.hear().await, (FIN | PING, vec![]));
    assert!(matches!(served.ended().await, Ended::Silent));
}

#[tokio::test]
async fn a_client_that_answers_is_pinged_again() {
    let settings = Settings {
        keep_alive: KeepAlive {
            ping_interval: Duration::from_millis(5),
            pong_timeout: Duration::from_secs(60),
        },
        ..Settings::default()
    };
    let (mut client, served) = connect(settings, Echo).await;
    for _ in 0..5 {
        assert_eq!(client.hear().await, (FIN | PING, vec![]));
        client.say(&frame(FIN | PONG, b"")).await;
    }
    assert!(served.outbound.is_open());
}

#[tokio::test]
async fn a_client_is_not_silent_while_its_message_is_handled() {
    let (allow, allowed) = mpsc::unbounded_channel();
    let slow = |outbound| Slow(outbound, allowed);
    let work = frame(FIN | TEXT, b"work");
    let (mut client, served) = connect_saying(&work, short_keep_alive(), slow).await;
    while client.hear().await != (FIN | TEXT, b"working".to_vec()) {}
    // A second connection, given up for its silence, shows that the time is over.
    let (_silent, other) = connect(short_keep_alive(), Echo).await;
    assert!(matches!(other.ended().await, Ended::Silent));
    assert!(served.outbound.is_open());
    allow.send(()).unwrap();
    while client.hear().await != (FIN | TEXT, b"done".to_vec()) {}
}

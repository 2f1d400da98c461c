//! What a client may say and how it is heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_ws::{Ended, Frame, Inbound, Limits, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::client::*;

#[tokio::test]
async fn messages_come_back() {
    let (mut client, _served) = echo().await;
    client.say(&frame(FIN | TEXT, "grüße".as_bytes())).await;
    assert_eq!(client.hear_text().await, "grüße");
    client.say(&frame(FIN | BINARY, &[0, 255])).await;
    assert_eq!(client.hear().await, (FIN | BINARY, vec![0, 255]));
    let long = "x".repeat(1 << 20);
    client.say(&frame(FIN | TEXT, long.as_bytes())).await;
    assert_eq!(client.hear_text().await, long);
}

#[tokio::test]
async fn what_comes_with_the_handshake_is_heard() {
    let first = [frame(FIN | TEXT, b"early"), frame(TEXT, b"to")].concat();
    let (mut client, _served) = connect_saying(&first, Settings::default(), Echo).await;
    assert_eq!(client.hear_text().await, "early");
    client.say(&frame(FIN | CONTINUE, b"gether")).await;
    assert_eq!(client.hear_text().await, "together");
}

#[tokio::test]
async fn a_ping_between_fragments_is_answered_first() {
    let (mut client, _served) = echo().await;
    let frames = [
        frame(TEXT, b"one "),
        frame(FIN | PING, b"now"),
        frame(FIN | CONTINUE, b"two"),
    ];
    client.say(&frames.concat()).await;
    assert_eq!(client.hear().await, (FIN | PONG, b"now".to_vec()));
    assert_eq!(client.hear_text().await, "one two");
}

#[tokio::test]
async fn every_ping_is_answered_with_its_payload() {
    let (mut client, _served) = echo().await;
    let payloads = [vec![], b"abc".to_vec(), vec![0xff; 125]];
    for payload in &payloads {
        client.say(&frame(FIN | PING, payload)).await;
    }
    for payload in payloads {
        assert_eq!(client.hear().await, (FIN | PONG, payload));
    }
}

#[tokio::test]
async fn hundreds_of_pings_in_one_packet_are_all_answered() {
    let (mut client, _served) = echo().await;
    let pings: Vec<u8> = (0..500_u16)
        .flat_map(|i| frame(FIN | PING, &i.to_be_bytes()))
        .collect();
    client.say(&pings).await;
    for i in 0..500_u16 {
        let pong = (FIN | PONG, i.to_be_bytes().to_vec());
        assert_eq!(client.hear().await, pong);
    }
}

#[tokio::test]
async fn a_pong_nobody_asked_for_is_ignored() {
    let (mut client, _served) = echo().await;
    client.say(&frame(FIN | PONG, b"x")).await;
    client.say(&frame(FIN | TEXT, b"y")).await;
    assert_eq!(client.hear_text().await, "y");
}

#[tokio::test]
async fn an_unmasked_frame_closes_with_1002() {
    breach(b"\x81\x02hi", 1002).await;
}

#[tokio::test]
async fn reserved_bits_and_opcodes_close_with_1002() {
    breach(&frame(FIN | TEXT | 0x40, b"deflated?"), 1002).await;
    breach(&frame(FIN | 3, b""), 1002).await;
    breach(&frame(FIN | 11, b""), 1002).await;
}

#[tokio::test]
async fn broken_fragmentation_closes_with_1002() {
    breach(&frame(FIN | CONTINUE, b"of what?"), 1002).await;
    breach(&[frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat(), 1002).await;
    breach(&frame(PING, b"half"), 1002).await;
}

#[tokio::test]
async fn an_invalid_close_body_closes_with_its_code() {
    breach(&frame(FIN | CLOSE, b"\x03"), 1002).await;
    breach(&frame(FIN | CLOSE, &close_body(1005, "")), 1002).await;
    breach(&frame(FIN | CLOSE, b"\x03\xe8\xff"), 1007).await;
}

#[tokio::test]
async fn a_character_may_be_cut_between_fragments() {
    let (mut client, _served) = echo().await;
    for (first, byte) in [(TEXT, 0xe2), (CONTINUE, 0x82), (FIN | CONTINUE, 0xac)] {
        client.say(&frame(first, &[byte])).await;
    }
    assert_eq!(client.hear_text().await, "€");
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_with_1007_before_it_ends() {
    breach(&frame(TEXT, b"bad: \xed\xa0"), 1007).await;
    breach(&frame(FIN | TEXT, b"cut: \xe2\x82"), 1007).await;
}

fn small_messages() -> Settings {
    Settings {
        incoming: Limits {
            max_message: 1000,
            max_discard: 1 << 20,
        },
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_message_too_large_is_skipped_and_the_next_is_heard() {
    let (mut client, _served) = connect(small_messages(), Echo).await;
    client.say(&frame(FIN | TEXT, &[b'x'; 1 << 20])).await;
    assert_eq!(client.hear_text().await, "too large: 1048576");
    client.say(&frame(TEXT, &[b'x'; 999])).await;
    client.say(&frame(CONTINUE, b"xx")).await;
    client.say(&frame(FIN | PING, b"still there?")).await;
    assert_eq!(client.hear().await, (FIN | PONG, b"still there?".to_vec()));
    client.say(&frame(FIN | CONTINUE, b"")).await;
    assert_eq!(client.hear_text().await, "too large: 1001");
    client.say(&frame(FIN | TEXT, &[b'x'; 1000])).await;
    assert_eq!(client.hear_text().await, "x".repeat(1000));
}

#[tokio::test]
async fn a_message_not_worth_skipping_closes_with_1009() {
    let (mut client, served) = connect(small_messages(), Echo).await;
    let message = frame(FIN | TEXT, &vec![b'x'; (1 << 20) + 1]);
    client.say(&message[..14]).await;
    assert_eq!(client.hear_close().await, 1009);
    client.hear_end().await;
    drop(client);
    assert!(matches!(served.ended().await, Ended::Violation(_)));
}

#[tokio::test]
async fn thousands_of_pipelined_messages_come_back_in_order() {
    let (client, _served) = echo().await;
    let (read, mut write) = client.stream.into_split();
    let input: Vec<u8> = (0..10_000)
        .flat_map(|i: u32| frame(FIN | TEXT, i.to_string().as_bytes()))
        .collect();
    let writer = tokio::spawn(async move {
        write.write_all(&input).await.unwrap();
        write
    });
    let expected: Vec<u8> = (0..10_000)
        .flat_map(|i: u32| Frame::text(i.to_string()).as_bytes().to_vec())
        .collect();
    let mut read = tokio::io::BufReader::new(read);
    let mut output = vec![0; expected.len()];
    soon(read.read_exact(&mut output)).await.unwrap();
    assert!(output == expected, "each message once, in order");
    soon(writer).await.unwrap();
}

#[tokio::test]
async fn messages_are_handled_one_at_a_time() {
    let (sender, mut handled) = mpsc::unbounded_channel();
    let busy = Arc::new(AtomicUsize::new(0));
    let handler = move |message| {
        let (busy, sender) = (Arc::clone(&busy), sender.clone());
        async move {
            let others = busy.fetch_add(1, Ordering::SeqCst);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            busy.fetch_sub(1, Ordering::SeqCst);
            sender.send((others, message)).unwrap();
        }
    };
    let (mut client, _served) = connect(Settings::default(), |_| handler).await;
    let input: Vec<u8> = (0..100)
        .flat_map(|i: u32| frame(FIN | TEXT, i.to_string().as_bytes()))
        .collect();
    client.say(&input).await;
    for i in 0..100 {
        let expected = (0, Inbound::Text(i.to_string()));
        assert_eq!(soon(handled.recv()).await, Some(expected));
    }
}

#[tokio::test]
async fn a_client_whose_message_is_handled_is_not_read() {
    // More than the kernel keeps for a connection.
    async fn say_much(mut client: Client) {
        let message = frame(FIN | BINARY, &vec![0; 1 << 20]);
        for _ in 0..32 {
            client.stream.write_all(&message).await.unwrap();
        }
        client.say(&frame(FIN | CLOSE, b"")).await;
        client.hear_close_without_code().await;
    }
    let (allow, allowed) = mpsc::unbounded_channel();
    let slow = |outbound| Slow(outbound, allowed);
    let (held, held_served) = connect(Settings::default(), slow).await;
    let (free, free_served) = connect(Settings::default(), |_| {
        forward(mpsc::unbounded_channel().0)
    })
    .await;
    let held = tokio::spawn(say_much(held));
    soon(tokio::spawn(say_much(free))).await.unwrap();
    assert!(matches!(free_served.ended().await, Ended::ByPeer(None)));
    assert!(!held.is_finished());
    for _ in 0..32 {
        allow.send(()).unwrap();
    }
    soon(held).await.unwrap();
    assert!(matches!(held_served.ended().await, Ended::ByPeer(None)));
}

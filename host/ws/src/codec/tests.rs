//! The rules of RFC 6455 frame by frame, and properties over generated conversations.

use proptest::prelude::*;

use super::*;
use crate::CloseCode;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CONTINUE: u8 = 0;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// A client's frame, masked by soketto, so that our unmasking is held against theirs.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload, 0x1234_5678)
}

fn masked(first: u8, payload: &[u8], mask: u32) -> Vec<u8> {
    let mut header = Header::new(OpCode::Binary);
    header
        .set_masked(true)
        .set_mask(mask)
        .set_payload_len(payload.len());
    let mut bytes = Codec::new().encode_header(&header).to_vec();
    bytes[0] = first;
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    Codec::apply_mask(&header, &mut bytes[start..]);
    bytes
}

fn limits(max_message: usize, max_discard: u64) -> Limits {
    Limits {
        max_message,
        max_discard,
    }
}

/// All that `decoder` makes of `input`, up to an error.
fn feed<S: Skim>(
    decoder: &mut Decoder<S>,
    mut input: &[u8],
    into: &mut Vec<Incoming<S>>,
) -> Result<(), ProtocolError> {
    while let Some(item) = decoder.decode(&mut input)? {
        into.push(item);
    }
    assert!(
        input.is_empty(),
        "input is used up before more is asked for"
    );
    Ok(())
}

fn decode_with(limits: Limits, input: &[u8]) -> (Vec<Incoming>, Result<(), ProtocolError>) {
    let mut items = Vec::new();
    let result = feed(&mut Decoder::<Unread>::new(limits), input, &mut items);
    (items, result)
}

/// What is decoded of frames that are all in order.
fn decode(input: &[Vec<u8>]) -> Vec<Incoming> {
    let (items, result) = decode_with(Limits::default(), &input.concat());
    assert_eq!(result, Ok(()));
    items
}

/// How frames break the rules.
fn breach(input: &[Vec<u8>]) -> ProtocolError {
    let (_, result) = decode_with(Limits::default(), &input.concat());
    result.expect_err("a breach of the protocol")
}

fn text(text: &str) -> Incoming {
    Incoming::Text(text.into())
}

#[test]
fn whole_messages_of_each_kind() {
    let items = decode(&[
        frame(FIN | TEXT, "grüße".as_bytes()),
        frame(FIN | BINARY, &[0, 255]),
        frame(FIN | TEXT, b""),
        frame(FIN | PING, b"p"),
        frame(FIN | PONG, b""),
    ]);
    let expected = [
        text("grüße"),
        Incoming::Binary(Bytes::from_static(&[0, 255])),
        text(""),
        Incoming::Ping(Bytes::from_static(b"p")),
        Incoming::Pong(Bytes::new()),
    ];
    assert_eq!(items, expected);
}

#[test]
fn payloads_of_every_length_form() {
    for size in [0, 1, 125, 126, 127, 65_535, 65_536, 70_001] {
        let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let items = decode(&[frame(FIN | BINARY, &payload)]);
        assert_eq!(items, [Incoming::Binary(payload.into())], "{size}");
    }
}

#[test]
fn a_control_frame_between_fragments_comes_before_the_message() {
    let items = decode(&[
        frame(TEXT, b"one "),
        frame(FIN | PING, b"now"),
        frame(CONTINUE, b""),
        frame(FIN | PONG, b""),
        frame(FIN | CONTINUE, b"two"),
    ]);
    let expected = [
        Incoming::Ping(Bytes::from_static(b"now")),
        Incoming::Pong(Bytes::new()),
        text("one two"),
    ];
    assert_eq!(items, expected);
}

#[test]
fn an_unmasked_frame_is_a_breach() {
    let error = breach(&[b"\x81\x02hi".to_vec()]);
    assert_eq!(error, ProtocolError::Unmasked);
    assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
}

#[test]
fn reserved_bits_are_a_breach() {
    for (bit, number) in [(0x40, 1), (0x20, 2), (0x10, 3)] {
        let error = breach(&[frame(FIN | TEXT | bit, b"")]);
        assert_eq!(error, ProtocolError::ReservedBit(number));
        assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
    }
}

#[test]
fn reserved_opcodes_are_a_breach() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        assert_eq!(
            breach(&[frame(FIN | opcode, b"")]),
            ProtocolError::ReservedOpcode
        );
    }
}

#[test]
fn a_control_frame_is_short_and_whole() {
    for opcode in [CLOSE, PING, PONG] {
        assert_eq!(
            breach(&[frame(opcode, b"")]),
            ProtocolError::FragmentedControl
        );
        assert_eq!(
            breach(&[frame(FIN | opcode, &[b'x'; 126])]),
            ProtocolError::ControlTooLong
        );
    }
    assert_eq!(decode(&[frame(FIN | PING, &[b'x'; 125])]).len(), 1);
}

#[test]
fn a_continuation_needs_a_beginning() {
    assert_eq!(
        breach(&[frame(FIN | CONTINUE, b"x")]),
        ProtocolError::NothingToContinue
    );
    let ended = [
        frame(TEXT, b"x"),
        frame(FIN | CONTINUE, b"x"),
        frame(CONTINUE, b"x"),
    ];
    assert_eq!(breach(&ended), ProtocolError::NothingToContinue);
}

#[test]
fn a_message_ends_before_the_next() {
    assert_eq!(
        breach(&[frame(TEXT, b"x"), frame(FIN | TEXT, b"y")]),
        ProtocolError::Interleaved
    );
}

#[test]
fn a_length_takes_its_shortest_form() {
    let mask = [0; 4];
    let two = [&[FIN | BINARY, 0x80 | 126, 0, 125][..], &mask].concat();
    assert_eq!(breach(&[two]), ProtocolError::InvalidLength);
    let eight = [
        &[FIN | BINARY, 0x80 | 127, 0, 0, 0, 0, 0, 0, 255, 255][..],
        &mask,
    ]
    .concat();
    assert_eq!(breach(&[eight]), ProtocolError::InvalidLength);
    let signed = [
        &[FIN | BINARY, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0][..],
        &mask,
    ]
    .concat();
    assert_eq!(breach(&[signed]), ProtocolError::InvalidLength);
}

#[test]
fn a_character_may_be_cut_between_fragments() {
    let bytes = "κόσμε🌍".as_bytes();
    let mut frames: Vec<_> = bytes.iter().map(|byte| frame(CONTINUE, &[*byte])).collect();
    frames[0] = frame(TEXT, &bytes[..1]);
    frames.push(frame(FIN | CONTINUE, b""));
    assert_eq!(decode(&frames), [text("κόσμε🌍")]);
}

#[test]
fn text_that_cannot_become_valid_is_a_breach_at_once() {
    // A surrogate, a code point beyond the last, an overlong form, a lone continuation byte.
    for bad in [&b"\xed\xa0"[..], b"\xf4\x90", b"\xc0", b"ok\x80"] {
        let error = breach(&[
            frame(TEXT, b"fine \xce"),
            frame(CONTINUE, b"\xba"),
            frame(CONTINUE, bad),
        ]);
        assert_eq!(error, ProtocolError::InvalidUtf8);
        assert_eq!(error.close_code(), CloseCode::INVALID_PAYLOAD);
    }
    let mut cut = frame(FIN | TEXT, b"\xffmuch more");
    cut.truncate(7);
    assert_eq!(breach(&[cut]), ProtocolError::InvalidUtf8);
}

#[test]
fn text_that_ends_within_a_character_is_a_breach() {
    assert_eq!(
        breach(&[frame(FIN | TEXT, b"\xce")]),
        ProtocolError::InvalidUtf8
    );
    let fragments = [frame(TEXT, b"\xce"), frame(FIN | CONTINUE, b"")];
    assert_eq!(breach(&fragments), ProtocolError::InvalidUtf8);
}

#[test]
fn binary_need_not_be_text() {
    assert_eq!(decode(&[frame(FIN | BINARY, b"\xff\xc0")]).len(), 1);
}

#[test]
fn a_close_frame_gives_code_and_reason() {
    assert_eq!(decode(&[frame(FIN | CLOSE, b"")]), [Incoming::Close(None)]);
    for code in [1000_u16, 1003, 1007, 1014, 3000, 4999] {
        let body = [&code.to_be_bytes()[..], "tschüß".as_bytes()].concat();
        let close = Close::new(CloseCode::new(code).unwrap(), "tschüß");
        assert_eq!(
            decode(&[frame(FIN | CLOSE, &body)]),
            [Incoming::Close(Some(close))]
        );
    }
}

#[test]
fn an_invalid_close_body_is_a_breach() {
    assert_eq!(
        breach(&[frame(FIN | CLOSE, b"\x03")]),
        ProtocolError::InvalidCloseBody
    );
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        let error = breach(&[frame(FIN | CLOSE, &code.to_be_bytes())]);
        assert_eq!(error, ProtocolError::InvalidCloseCode(code));
        assert_eq!(error.close_code(), CloseCode::PROTOCOL_ERROR);
    }
    let reason = breach(&[frame(FIN | CLOSE, b"\x03\xe8\xff")]);
    assert_eq!(reason, ProtocolError::InvalidUtf8);
}

#[test]
fn nothing_counts_after_a_close_frame() {
    let items = decode(&[frame(FIN | CLOSE, b""), b"\xff\xff\xff".to_vec()]);
    assert_eq!(items, [Incoming::Close(None)]);
}

#[test]
fn nothing_counts_after_a_breach() {
    let mut decoder = Decoder::<Unread>::new(Limits::default());
    let mut items = Vec::new();
    assert!(feed(&mut decoder, &frame(FIN | 3, b""), &mut items).is_err());
    assert_eq!(
        feed(&mut decoder, &frame(FIN | TEXT, b"x"), &mut items),
        Ok(())
    );
    assert_eq!(items, []);
}

#[test]
fn a_message_too_large_is_skipped_and_reported() {
    let input = [
        frame(FIN | TEXT, b"123456789"),
        frame(TEXT, b"12345"),
        frame(FIN | PING, b""),
        frame(CONTINUE, b"6789"),
        // What is skipped is not looked at, so it may be anything.
        frame(FIN | CONTINUE, b"\xff"),
        frame(FIN | TEXT, b"12345678"),
    ];
    let (items, result) = decode_with(limits(8, 100), &input.concat());
    assert_eq!(result, Ok(()));
    let expected = [
        skipped(9),
        Incoming::Ping(Bytes::new()),
        skipped(10),
        text("12345678"),
    ];
    assert_eq!(items, expected);
}

fn skipped(size: u64) -> Incoming {
    Incoming::TooLarge {
        size,
        seen: Box::default(),
    }
}

/// All that was seen, of which there is no end.
#[derive(Debug, Default, PartialEq)]
struct Seen(Vec<u8>);

impl Skim for Seen {
    fn read(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    fn is_done(&self) -> bool {
        self.0.len() >= 4_000
    }
}

#[test]
fn a_skipped_message_is_looked_through_in_order_until_enough_was_seen() {
    for size in [150, 5_000] {
        let text: String = ('a'..='z').cycle().take(size).collect();
        let (one, other) = text.as_bytes().split_at(size / 2 + 1);
        for input in [
            frame(FIN | TEXT, text.as_bytes()),
            [frame(TEXT, one), frame(FIN, other)].concat(),
        ] {
            let mut items = Vec::new();
            let mut decoder = Decoder::<Seen>::new(limits(100, 1 << 20));
            for piece in input.chunks(700) {
                feed(&mut decoder, piece, &mut items).unwrap();
            }
            let [Incoming::TooLarge { size, seen }] = &*items else {
                panic!("{items:?}");
            };
            assert_eq!(*size, text.len() as u64);
            assert!(text.as_bytes().starts_with(&seen.0));
            assert!((text.len().min(4_000)..5_000).contains(&seen.0.len()));
        }
    }
}

#[test]
fn a_message_not_worth_skipping_is_a_breach_at_its_header() {
    let error = |size| ProtocolError::TooLarge { size, limit: 100 };
    let mut header = frame(FIN | TEXT, &[b'x'; 101]);
    header.truncate(2);
    assert_eq!(
        decode_with(limits(8, 100), &header),
        (vec![], Err(error(101)))
    );
    let fragments = [frame(TEXT, &[b'x'; 60]), frame(CONTINUE, &[b'x'; 41])];
    assert_eq!(
        decode_with(limits(8, 100), &fragments.concat()),
        (vec![], Err(error(101)))
    );
    assert_eq!(error(101).close_code(), CloseCode::TOO_LARGE);
}

#[test]
fn memory_follows_what_arrived_and_not_what_is_claimed() {
    let mut decoder = Decoder::<Unread>::new(Limits::default());
    let message = frame(FIN | BINARY, &vec![1; 1 << 20]);
    let mut items = Vec::new();
    let mut arrived = 0;
    for piece in message.chunks(1000) {
        feed(&mut decoder, piece, &mut items).unwrap();
        arrived += piece.len();
        let held = decoder
            .message
            .as_ref()
            .map_or(0, |message| message.payload.capacity());
        assert!(held <= 2 * arrived, "{held} bytes are held for {arrived}");
    }
    assert_eq!(items.len(), 1);
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::<Unread>::new(limits(100, 1000));
    let mut items = Vec::new();
    for input in [
        frame(FIN | TEXT, b"x"),
        frame(FIN | PING, b"x"),
        frame(FIN | TEXT, &[b'x'; 101]),
        [frame(TEXT, b"x"), frame(FIN | CONTINUE, b"y")].concat(),
    ] {
        feed(&mut decoder, &input, &mut items).unwrap();
        assert!(decoder.message.is_none());
        assert!(matches!(decoder.stage, Stage::Header { len: 0, .. }));
    }
}

#[test]
fn what_is_skipped_is_not_held() {
    let mut decoder = Decoder::<Unread>::new(limits(100, 1000));
    let mut items = Vec::new();
    feed(&mut decoder, &frame(BINARY, &[0; 100]), &mut items).unwrap();
    feed(&mut decoder, &frame(CONTINUE, &[0; 500]), &mut items).unwrap();
    assert_eq!(decoder.message.unwrap().payload.capacity(), 0);
}

/// What a client may say, and how it cuts it.
#[derive(Clone, Debug)]
enum Say {
    Text(String, Vec<usize>),
    Binary(Vec<u8>, Vec<usize>),
    Ping(Vec<u8>),
}

impl Say {
    fn any() -> impl Strategy<Value = Self> {
        let cuts = || prop::collection::vec(0..400_usize, 0..4);
        prop_oneof![
            ("\\PC{0,120}", cuts()).prop_map(|(text, cuts)| Self::Text(text, cuts)),
            (prop::collection::vec(any::<u8>(), 0..400), cuts())
                .prop_map(|(bytes, cuts)| Self::Binary(bytes, cuts)),
            prop::collection::vec(any::<u8>(), 0..=125).prop_map(Self::Ping),
        ]
    }

    /// The frames of it, with a ping before each continuation, and what they mean.
    fn frames(&self, mask: u32) -> (Vec<u8>, Vec<Incoming>) {
        let (opcode, payload, cuts, message) = match self {
            Self::Ping(payload) => {
                let ping = Incoming::Ping(payload.clone().into());
                return (masked(FIN | PING, payload, mask), vec![ping]);
            }
            Self::Text(text, cuts) => (TEXT, text.as_bytes(), cuts, Incoming::Text(text.clone())),
            Self::Binary(bytes, cuts) => (
                BINARY,
                &bytes[..],
                cuts,
                Incoming::Binary(bytes.clone().into()),
            ),
        };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(payload.len());
        let (mut bytes, mut items, mut start) = (Vec::new(), Vec::new(), 0);
        for (i, end) in cuts.iter().enumerate() {
            let mut first = if i == 0 { opcode } else { CONTINUE };
            if i + 1 == cuts.len() {
                first |= FIN;
            }
            if i > 0 {
                bytes.extend(masked(FIN | PING, &[i as u8], !mask));
                items.push(Incoming::Ping(vec![i as u8].into()));
            }
            bytes.extend(masked(
                first,
                &payload[start..*end],
                mask.rotate_left(i as u32),
            ));
            start = *end;
        }
        items.push(message);
        (bytes, items)
    }
}

proptest! {
    #[test]
    fn a_conversation_cut_anywhere_says_the_same(
        says in prop::collection::vec((Say::any(), any::<u32>()), 0..8),
        pieces in prop::collection::vec(1..200_usize, 1..20),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (say, mask) in &says {
            let (frames, items) = say.frames(*mask);
            bytes.extend(frames);
            expected.extend(items);
        }
        let mut decoder = Decoder::<Unread>::new(Limits::default());
        let (mut items, mut rest) = (Vec::new(), &bytes[..]);
        for size in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at((*size).min(rest.len()));
            rest = later;
            prop_assert_eq!(feed(&mut decoder, piece, &mut items), Ok(()));
        }
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn two_halves_cut_at_every_byte_say_the_same(say in Say::any(), mask in any::<u32>()) {
        let (bytes, expected) = say.frames(mask);
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::<Unread>::new(Limits::default());
            let mut items = Vec::new();
            prop_assert_eq!(feed(&mut decoder, &bytes[..cut], &mut items), Ok(()));
            prop_assert_eq!(feed(&mut decoder, &bytes[cut..], &mut items), Ok(()));
            prop_assert_eq!(&items, &expected);
        }
    }

    /// Arbitrary bytes behind plausible headers: never a panic, and the same verdict byte by byte.
    #[test]
    fn junk_gets_the_same_verdict_however_it_arrives(
        frames in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..140), any::<bool>()), 0..6),
        tail in prop::collection::vec(any::<u8>(), 0..20),
        max_message in 0..200_usize,
    ) {
        let mut bytes = Vec::new();
        for (first, payload, tame) in &frames {
            // A tame first byte gets past the header more often.
            let first = if *tame { first & 0x83 } else { *first };
            bytes.extend(frame(first, payload));
        }
        bytes.extend(tail);
        let limits = limits(max_message, 300);
        let whole = decode_with(limits, &bytes);
        let mut decoder = Decoder::<Unread>::new(limits);
        let mut items = Vec::new();
        let result = bytes
            .chunks(1)
            .try_for_each(|byte| feed(&mut decoder, byte, &mut items));
        prop_assert_eq!((items, result), whole);
    }
}

#[test]
fn a_message_that_there_is_no_room_for_is_skipped_to_its_end() {
    let budget = Budget::new("test", 64 << 10);
    let mut decoder = Decoder::<Unread>::new(Limits::default());
    let long = vec![b'x'; 100 << 10];
    let input = [
        frame(TEXT, &long[..70 << 10]),
        frame(FIN | CONTINUE, &long[70 << 10..]),
        frame(FIN | TEXT, &long[..30 << 10]),
    ];
    let mut items = Vec::new();
    // As reads bring it.
    for piece in input.concat().chunks(16 << 10) {
        let mut piece = piece;
        while let Some(item) = decoder.decode_within(&mut piece, &budget).unwrap() {
            items.push(item);
        }
        assert!(budget.used() <= budget.limit());
    }
    let size = long.len() as u64;
    let exhausted = budget.exhausted();
    let seen = Box::default();
    assert_eq!(
        items[0],
        Incoming::NoRoom {
            size,
            seen,
            exhausted
        }
    );
    assert!(matches!(&items[1], Incoming::Text(text) if text.len() == 30 << 10));
    assert_eq!((items.len(), budget.used()), (2, 0));
}

#[test]
fn a_message_is_unfinished_from_when_that_was_seen_until_its_end() {
    let mut decoder = Decoder::<Unread>::new(Limits::default());
    let began = Instant::now();
    let later = began + std::time::Duration::from_secs(1);
    let mut take = |bytes: &[u8], now: Instant| {
        feed(&mut decoder, bytes, &mut Vec::new()).unwrap();
        decoder.note_unfinished(now);
        decoder.unfinished_since()
    };
    assert_eq!(take(&frame(FIN | TEXT, b"whole"), began), None);
    assert_eq!(take(&frame(TEXT, b"be"), began), Some(began));
    // Neither a ping nor a further part makes it younger.
    assert_eq!(take(&frame(FIN | PING, b""), later), Some(began));
    assert_eq!(take(&frame(CONTINUE, b"g"), later), Some(began));
    assert_eq!(take(&frame(FIN | CONTINUE, b"un"), later), None);
    // The next begins anew, also where the end of another comes with it.
    assert_eq!(take(&frame(TEXT, b"a"), began), Some(began));
    let both = [frame(FIN | CONTINUE, b"b"), frame(TEXT, b"c")].concat();
    assert_eq!(take(&both, later), Some(later));
}

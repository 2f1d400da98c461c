//! WebSocket framing (RFC 6455), as little as a benchmark needs: whole messages, no
//! extensions, and a head that is written and read in one go.
//!
//! Clients must mask what they send; the key here is zero, which spares the generator the
//! work and not the server, who applies whatever key it finds.

use anyhow::{Result, bail};

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Text,
    Close,
    Ping,
    Pong,
}

/// Where a message lies in a buffer.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// The masking key, if there is one.
    pub(crate) mask: Option<[u8; 4]>,
    /// Where the payload begins.
    pub(crate) payload: usize,
    /// Where the next frame begins.
    pub(crate) end: usize,
}

/// The first frame in `bytes`, unless it is not all there.
pub(crate) fn first(bytes: &[u8]) -> Result<Option<Frame>> {
    let &[head, length, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    let kind = match head {
        0x81 => Kind::Text,
        0x88 => Kind::Close,
        0x89 => Kind::Ping,
        0x8a => Kind::Pong,
        other => bail!("a frame begins with {other:#04x}: expected a whole text or control frame"),
    };
    let (length, mut payload) = match (length & 0x7f, rest) {
        (126, &[a, b, ..]) => (usize::from(u16::from_be_bytes([a, b])), 4),
        (127, &[a, b, c, d, e, f, g, h, ..]) => {
            let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            (usize::try_from(length)?, 10)
        }
        (126 | 127, _) => return Ok(None),
        (short, _) => (usize::from(short), 2),
    };
    let mut mask = None;
    if bytes[1] & 0x80 != 0 {
        let Some(&key) = bytes[payload..].first_chunk() else {
            return Ok(None);
        };
        mask = Some(key);
        payload += 4;
    }
    let end = payload + length;
    Ok((end <= bytes.len()).then_some(Frame {
        kind,
        mask,
        payload,
        end,
    }))
}

/// Undoes, or applies, a masking key.
pub(crate) fn unmask(payload: &mut [u8], key: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

/// Who sends a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Server,
}

/// Appends a frame.
pub(crate) fn append(out: &mut Vec<u8>, from: From, kind: Kind, payload: &[u8]) {
    append_parts(out, from, kind, &[payload]);
}

/// Appends a frame whose payload is in several places.
pub(crate) fn append_parts(out: &mut Vec<u8>, from: From, kind: Kind, parts: &[&[u8]]) {
    out.push(match kind {
        Kind::Text => 0x81,
        Kind::Close => 0x88,
        Kind::Ping => 0x89,
        Kind::Pong => 0x8a,
    });
    let masked = match from {
        From::Client => 0x80,
        From::Server => 0,
    };
    match parts.iter().map(|part| part.len()).sum() {
        short @ 0..126 => out.push(short as u8 | masked),
        medium @ 126..0x1_0000 => {
            out.push(126 | masked);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(127 | masked);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if from == From::Client {
        out.extend_from_slice(&[0; 4]);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_lengths_are_found_again() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for (from, mask) in [(From::Client, Some([0; 4])), (From::Server, None)] {
                let mut bytes = Vec::new();
                append(&mut bytes, from, Kind::Text, &vec![b'x'; length]);
                let whole = bytes.len();
                bytes.extend_from_slice(b"more");
                let frame = first(&bytes).unwrap().unwrap();
                assert_eq!((frame.kind, frame.mask), (Kind::Text, mask));
                assert_eq!((frame.end - frame.payload, frame.end), (length, whole));
                for cut in 0..whole {
                    assert_eq!(first(&bytes[..cut]).unwrap(), None);
                }
            }
        }
    }

    #[test]
    fn fragments_are_refused() {
        assert!(first(&[0x01, 0x00]).is_err());
    }

    #[test]
    fn masking_is_its_own_inverse() {
        let mut text = *b"hello";
        unmask(&mut text, [1, 2, 3, 4]);
        assert_ne!(&text, b"hello");
        unmask(&mut text, [1, 2, 3, 4]);
        assert_eq!(&text, b"hello");
    }
}

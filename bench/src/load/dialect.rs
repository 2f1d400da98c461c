//! What is around a message on the wire, where a server puts anything around it.
//!
//! The messages are the same for all servers. Socket.IO has a protocol of its own inside the
//! WebSocket (Engine.IO 4 and Socket.IO 5): a digit for the kind of each packet, messages as
//! events with arguments, and a heartbeat in texts.

use anyhow::{Result, bail};
use clap::ValueEnum;

/// How a server wants messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// As they are.
    Plain,
    /// As the argument of the event `m`.
    SocketIo,
}

/// What a text that came means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A message of the server's application.
    Message(&'a [u8]),
    /// Something that wants this text as its answer.
    Answer(&'static [u8]),
    /// Something of no interest.
    Nothing,
}

/// Before and behind a message of Socket.IO: Engine.IO's `message` (4), Socket.IO's `EVENT` (2).
const EVENT: (&[u8], &[u8]) = (br#"42["m","#, b"]");

impl Dialect {
    /// What it is called on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Dialect::Plain => "plain",
            Dialect::SocketIo => "socket-io",
        }
    }

    /// Where the WebSocket is.
    pub(super) fn path(self) -> &'static str {
        match self {
            Dialect::Plain => "/ws",
            Dialect::SocketIo => "/socket.io/?EIO=4&transport=websocket",
        }
    }

    /// What a client says first.
    pub(super) fn greeting(self) -> Option<&'static [u8]> {
        match self {
            Dialect::Plain => None,
            // CONNECT, to the default namespace.
            Dialect::SocketIo => Some(b"40"),
        }
    }

    /// What stands before and behind each message of a client.
    pub(super) fn around(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Dialect::Plain => (b"", b""),
            Dialect::SocketIo => EVENT,
        }
    }

    /// Tells a message from what else a server says.
    pub(super) fn hear(self, text: &[u8]) -> Result<Heard<'_>> {
        if self == Dialect::Plain {
            return Ok(Heard::Message(text));
        }
        let (before, behind) = EVENT;
        let message = text.strip_prefix(before);
        if let Some(message) = message.and_then(|text| text.strip_suffix(behind)) {
            return Ok(Heard::Message(message));
        }
        match text {
            // Ping.
            b"2" => Ok(Heard::Answer(b"3")),
            // Engine.IO is open; Socket.IO is connected.
            [b'0', b'{', ..] | [b'4', b'0', ..] => Ok(Heard::Nothing),
            other => bail!("not expected: {}", String::from_utf8_lossy(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_socket_io_are_arguments_of_an_event() {
        let (before, behind) = Dialect::SocketIo.around();
        let sent = [before, br#"{"type":"rpc"}"#, behind].concat();
        assert_eq!(sent, br#"42["m",{"type":"rpc"}]"#);
        let heard = Dialect::SocketIo.hear(&sent).unwrap();
        assert_eq!(heard, Heard::Message(br#"{"type":"rpc"}"#));
    }

    #[test]
    fn the_heartbeat_of_engine_io_is_answered() {
        assert_eq!(Dialect::SocketIo.hear(b"2").unwrap(), Heard::Answer(b"3"));
    }

    #[test]
    fn only_messages_are_messages() {
        for opening in [&b"0{\"sid\":\"a\"}"[..], b"40{\"sid\":\"b\"}"] {
            assert_eq!(Dialect::SocketIo.hear(opening).unwrap(), Heard::Nothing);
        }
        assert!(Dialect::SocketIo.hear(b"44{\"message\":\"no\"}").is_err());
        assert_eq!(Dialect::Plain.hear(b"2").unwrap(), Heard::Message(b"2"));
    }
}

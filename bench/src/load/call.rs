//! Calls as the protocol has them (`docs/protocol.md`): written from a pattern, and
//! recognised by their first bytes, because a generator that parsed JSON would be busier
//! than the server.

use std::io::Write as _;

use anyhow::{Context, Result, bail};

/// A method, and the actors to call it on.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    pub(crate) actor: &'static str,
    pub(crate) name: &'static str,
    /// Its input as JSON text.
    pub(crate) input: String,
}

impl Method {
    /// `increment` of the counter, by one.
    pub(crate) fn increment() -> Method {
        Method {
            actor: "counter",
            name: "increment",
            input: r#"{"by":1}"#.to_owned(),
        }
    }

    /// A method without input.
    pub(crate) fn bare(actor: &'static str, name: &'static str) -> Method {
        Method {
            actor,
            name,
            input: "null".to_owned(),
        }
    }

    /// Writes the call with this id to the actor with this number in the place of what
    /// `text` holds.
    pub(crate) fn write(&self, text: &mut Vec<u8>, id: u64, actor_number: u64) {
        let Method { actor, name, input } = self;
        text.clear();
        // Writing to memory cannot fail.
        let _ = write!(
            text,
            r#"{{"type":"rpc","id":"{id}","actor":"{actor}","actorId":"a{actor_number}","method":"{name}","input":{input}}}"#
        );
    }
}

/// Subscribes, or ends a subscription, to an actor of this type and number.
pub(crate) fn subscription(kind: &str, actor: &str, number: u64) -> String {
    format!(r#"{{"type":"{kind}","actor":"{actor}","actorId":"a{number}"}}"#)
}

/// What came from a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// The call with this id succeeded.
    Result(u64),
    /// Something that nobody called for: a patch, an event, a snapshot.
    Other,
}

/// Recognises a message; one that says that something failed is an error here. An echo of a
/// call counts as its result.
pub(crate) fn recognise(text: &[u8]) -> Result<Incoming> {
    let result = text
        .strip_prefix(br#"{"type":"rpc:result","id":""#)
        .or_else(|| text.strip_prefix(br#"{"type":"rpc","id":""#));
    if let Some(rest) = result {
        let end = rest.iter().position(|byte| *byte == b'"');
        let (id, rest) = rest.split_at(end.context("an id without an end")?);
        if rest.starts_with(br#"","error""#) {
            bail!("a call failed: {}", String::from_utf8_lossy(text));
        }
        return Ok(Incoming::Result(number(id)?));
    }
    if text.starts_with(br#"{"type":"error""#) {
        bail!("refused: {}", String::from_utf8_lossy(text));
    }
    Ok(Incoming::Other)
}

/// A call's id.
fn number(digits: &[u8]) -> Result<u64> {
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => Ok(number * 10 + u64::from(digit - b'0')),
        _ => bail!("not an id: {}", String::from_utf8_lossy(digits)),
    })
}

/// The number behind `before`, the first of its kind in `text`.
pub(crate) fn number_after(text: &[u8], before: &[u8]) -> Option<u64> {
    let at = text.windows(before.len()).position(|part| part == before)?;
    let rest = &text[at + before.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    number(&rest[..digits]).ok().filter(|_| digits > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_recognised() {
        let result = br#"{"type":"rpc:result","id":"12","result":3}"#;
        assert_eq!(recognise(result).unwrap(), Incoming::Result(12));
        let nothing = br#"{"type":"rpc:result","id":"0"}"#;
        assert_eq!(recognise(nothing).unwrap(), Incoming::Result(0));
        let mut echo = Vec::new();
        Method::increment().write(&mut echo, 7, 1);
        assert_eq!(recognise(&echo).unwrap(), Incoming::Result(7));
        let patch = br#"{"type":"state:patch"}"#;
        assert_eq!(recognise(patch).unwrap(), Incoming::Other);
    }

    #[test]
    fn failures_are_errors() {
        let failed = br#"{"type":"rpc:result","id":"3","error":"no","failure":{"code":"a.b"}}"#;
        assert!(recognise(failed).is_err());
        assert!(recognise(br#"{"type":"error","code":"frame.malformed"}"#).is_err());
    }

    #[test]
    fn numbers_are_found_in_texts() {
        let text = br#"{"path":"/beat","value":42}"#;
        assert_eq!(number_after(text, br#""value":"#), Some(42));
        assert_eq!(number_after(text, br#""path":"#), None);
    }
}

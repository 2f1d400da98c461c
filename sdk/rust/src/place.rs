//! Decodes JSON text so that an error names the place, path first: `/players/0/score:
//! invalid type: string "x", expected i64`. The place is found from the error's position
//! after the fact, so that a decode that succeeds pays nothing and no decoder is compiled
//! twice.

use serde::de::DeserializeOwned;

/// Decodes `text`; the error is for people.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| describe(text, &error))
}

fn describe(text: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let (line, column) = (error.line(), error.column());
    let reason = message
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&message);
    let place = offset(text, line, column).map_or_else(String::new, |end| pointer_at(text, end));
    if place.is_empty() {
        reason.to_owned()
    } else {
        format!("{place}: {reason}")
    }
}

/// serde_json counts lines and columns (in bytes) from 1 and gives 0, 0 without a position.
fn offset(text: &str, line: usize, column: usize) -> Option<usize> {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.checked_sub(1)?)
        .map(str::len)
        .sum();
    Some((before + column).min(text.len()))
}

enum Level {
    Array(usize),
    Object(String),
}

/// The JSON pointer of the value that the first `end` bytes of `text` are in, or end with.
fn pointer_at(text: &str, end: usize) -> String {
    let bytes = text.as_bytes();
    let mut levels: Vec<Level> = Vec::new();
    let mut at = 0;
    let mut expects_key = false;
    while at < end {
        match bytes[at] {
            b'{' => {
                levels.push(Level::Object(String::new()));
                expects_key = true;
            }
            b'[' => levels.push(Level::Array(0)),
            b'}' | b']' => {
                levels.pop();
                expects_key = false;
            }
            b',' => match levels.last_mut() {
                Some(Level::Array(index)) => *index += 1,
                Some(Level::Object(_)) => expects_key = true,
                None => {}
            },
            b'"' => {
                let close = string_end(bytes, at);
                if expects_key && let Some(Level::Object(key)) = levels.last_mut() {
                    *key = serde_json::from_str(&text[at..close]).unwrap_or_default();
                    expects_key = false;
                }
                at = close - 1;
            }
            _ => {}
        }
        at += 1;
    }
    let mut pointer = crate::Pointer::root();
    for level in levels {
        pointer = match level {
            Level::Array(index) => pointer.join(index),
            Level::Object(key) => pointer.join(key),
        };
    }
    pointer.to_string()
}

/// The offset behind the string that opens at `start`, or the end of the text.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    struct Player {
        #[expect(dead_code)]
        score: i64,
    }

    #[derive(Debug, Deserialize)]
    struct Game {
        #[expect(dead_code)]
        #[serde(default)]
        round: u8,
        #[expect(dead_code)]
        #[serde(default)]
        players: Vec<Player>,
        #[expect(dead_code)]
        #[serde(default)]
        seats: BTreeMap<String, Player>,
    }

    fn error(text: &str) -> String {
        decode::<Game>(text).unwrap_err()
    }

    #[test]
    fn a_wrong_type_names_its_member() {
        assert_eq!(
            error(r#"{"round": "one"}"#),
            r#"/round: invalid type: string "one", expected u8"#
        );
        assert!(error(r#"{"round": 1, "players": {}}"#).starts_with("/players: invalid type: map"));
    }

    #[test]
    fn a_place_in_an_array_has_its_index() {
        assert_eq!(
            error(r#"{"players": [{"score": 1}, {"score": null}]}"#),
            "/players/1/score: invalid type: null, expected i64"
        );
    }

    #[test]
    fn a_missing_member_names_the_object() {
        assert_eq!(
            error(r#"{"players": [{"score": 1}, {"scare": 2}]}"#),
            "/players/1: missing field `score`"
        );
        assert_eq!(
            error(r#"{"seats": {"a": {"b": ["}"]}}, "round": 1}"#),
            "/seats/a: missing field `score`"
        );
    }

    #[test]
    fn keys_are_escaped_and_strings_skipped() {
        assert_eq!(
            error(r#"{"seats": {"a/\"b~": {"score": true}}}"#),
            "/seats/a~1\"b~0/score: invalid type: boolean `true`, expected i64"
        );
        assert!(
            error("{\"seats\":\n {\"{[\\\\\": \n{\"score\": \"}\"}}}")
                .starts_with("/seats/{[\\/score: ")
        );
    }

    #[test]
    fn the_document_itself_has_no_place() {
        assert_eq!(
            error("7"),
            "invalid type: integer `7`, expected struct Game"
        );
    }
}

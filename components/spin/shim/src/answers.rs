//! What an actor remembers of calls with idempotency keys, by the host's rules
//! (`host/actor/src/turn/answers.rs`), and of messages that it has received.

use sha2::{Digest, Sha256};
use tidegate_core::failure::code;
use tidegate_core::{ActorKey, Failure, canonical};
use tidegate_spin_base::database::{Database, DatabaseError};
use tidegate_spin_base::{clock, commit, settings, tables, values};

/// How many calls an actor remembers, unless `TIDEGATE_MAX_KEYS` says otherwise: the host's
/// `actors.max-keys`.
const MAX_KEYS: u64 = 1_000;
/// How many bytes of results it remembers: the host's `actors.max-keys-bytes`.
const MAX_BYTES: u64 = 1 << 20;

/// A call that is to run once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keyed {
    call: String,
    /// The digest that all equal inputs share.
    input: String,
    /// That of the input as it is spelled: it may be remembered so.
    spelled: String,
}

/// What is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A part of it has committed, and the rest has not yet.
    Begun,
    /// It had no result.
    Nothing,
    /// Its result.
    Result(String),
}

impl Keyed {
    /// The call of this caller, by the name that is theirs alone, to this method.
    pub(crate) fn new(caller: &str, method: &str, key: &str, input: Option<&str>) -> Keyed {
        Keyed {
            // Lengths keep one field from passing for the end of another.
            call: digest(&[caller, method, key]),
            input: input.map_or(String::new(), |input| {
                digest(&[&canonical::spelling(input)])
            }),
            spelled: input.map_or(String::new(), |input| digest(&[input])),
        }
    }

    /// What the call came to that has run before; none if it has not.
    pub(crate) fn known(
        &self,
        database: &Database,
        key: &ActorKey,
        now_ms: u64,
    ) -> Result<Option<Result<Option<String>, Failure>>, DatabaseError> {
        let rows = database.read(
            "SELECT input, outcome, result FROM tidegate_answers
             WHERE actor = ?1 AND id = ?2 AND call = ?3 AND at_ms >= ?4",
            &values![
                key.actor.as_str(),
                key.id.as_str(),
                &self.call,
                now_ms.saturating_sub(tables::answers_age_ms())
            ],
        )?;
        let Some(mut row) = rows.into_iter().next() else {
            return Ok(None);
        };
        let (input, outcome, result) = (row.text()?, row.text()?, row.optional_text()?);
        Ok(Some(match outcome.as_str() {
            _ if input != self.input && input != self.spelled => {
                Err(Failure::host(code::CALL_KEY_REUSED)
                    .message("the idempotency key was used with another input before"))
            }
            "begun" => Err(Failure::host(code::CALL_INTERRUPTED)
                .message("a call with this idempotency key was begun and did not end")),
            _ => Ok(result),
        }))
    }

    /// What a commit remembers of it; the oldest beyond the limits are forgotten.
    pub(crate) fn row<'a>(&'a self, answer: &'a Answer) -> commit::Answer<'a> {
        let (outcome, result) = match answer {
            Answer::Begun => ("begun", None),
            // It ran, and that is all that is remembered.
            Answer::Result(result) if result.len() as u64 > MAX_BYTES => ("begun", None),
            Answer::Result(result) => ("result", Some(result.as_str())),
            Answer::Nothing => ("nothing", None),
        };
        commit::Answer {
            call: &self.call,
            input: &self.input,
            outcome,
            result,
            max_calls: settings::number("TIDEGATE_MAX_KEYS", MAX_KEYS),
            max_bytes: MAX_BYTES,
            since_ms: clock::unix_ms().saturating_sub(tables::answers_age_ms()),
        }
    }
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let hex = digest.iter().take(16);
    hex.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_user_method_key_and_input() {
        let call = Keyed::new("ann", "add", "k", Some("1"));
        assert_eq!(call, Keyed::new("ann", "add", "k", Some("1")));
        assert_ne!(call.call, Keyed::new("an", "nadd", "k", Some("1")).call);
        assert_ne!(call.call, Keyed::new("ann", "add", "l", Some("1")).call);
        assert_ne!(call.input, Keyed::new("ann", "add", "k", Some("2")).input);
        assert_ne!(call.input, Keyed::new("ann", "add", "k", None).input);
    }

    #[test]
    fn an_equal_input_is_the_same_however_it_is_spelled() {
        let input = |text| Keyed::new("ann", "add", "k", Some(text)).input;
        assert_eq!(
            input(r#"{"by":1,"to":2}"#),
            input(r#"{ "to":2.0, "by":1e0 }"#)
        );
    }
}

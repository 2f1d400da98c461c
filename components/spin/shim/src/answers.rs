//! What an actor remembers of calls with idempotency keys, and of messages that it has received:
//! the rows of what `tidegate_core::turn` says.
//!
//! The bounds are kept by the commit's trigger, which forgets the oldest.

use tidegate_core::turn::idempotency::Bounds;
use tidegate_core::turn::{Answer, IdempotencyKey, Outcome};
use tidegate_core::{ActorKey, Failure};
use tidegate_spin_base::database::{Database, DatabaseError};
use tidegate_spin_base::{commit, settings, tables, values};

/// How much an actor remembers.
pub(crate) fn bounds() -> Bounds {
    let Bounds { calls, bytes, .. } = Bounds::DEFAULT;
    let most = settings::number("TIDEGATE_MAX_KEYS", calls as u64);
    Bounds {
        calls: usize::try_from(most).unwrap_or(usize::MAX),
        age_ms: tables::answers_age_ms(),
        bytes,
    }
}

/// What a message is known by: what is sent twice has the same name.
pub(crate) fn of_message(method: &str, message: &str) -> IdempotencyKey {
    IdempotencyKey::new("message", method, message, None)
}

/// What the call came to that has run before; none if it has not.
pub(crate) fn known(
    keyed: &IdempotencyKey,
    database: &Database,
    key: &ActorKey,
    now_ms: u64,
) -> Result<Option<Result<Option<String>, Failure>>, DatabaseError> {
    let rows = database.read(
        "SELECT input, outcome, result, at_ms FROM tidegate_answers
         WHERE actor = ?1 AND id = ?2 AND call = ?3",
        &values![key.actor.as_str(), key.id.as_str(), keyed.call()],
    )?;
    let Some(mut row) = rows.into_iter().next() else {
        return Ok(None);
    };
    let (input, outcome, result) = (row.text()?, row.text()?, row.optional_text()?);
    let answer = Answer {
        call: keyed.call().into(),
        input: input.into(),
        at_ms: row.number()?,
        outcome: match (outcome.as_str(), result) {
            (BEGUN, _) => Outcome::Begun,
            (_, Some(result)) => Outcome::Result(result.into()),
            (_, None) => Outcome::Nothing,
        },
    };
    Ok(keyed.yields(&answer, now_ms, bounds()))
}

/// What is written for what has begun and not ended.
const BEGUN: &str = "begun";

/// The row of an answer; the oldest beyond the bounds are forgotten with it.
pub(crate) fn row(answer: &Answer) -> commit::Answer<'_> {
    let bounds = bounds();
    let (outcome, result) = match &answer.outcome {
        Outcome::Begun => (BEGUN, None),
        Outcome::Result(result) => ("result", Some(&**result)),
        Outcome::Nothing => ("nothing", None),
    };
    commit::Answer {
        call: &answer.call,
        input: &answer.input,
        outcome,
        result,
        max_calls: bounds.calls as u64,
        max_bytes: bounds.bytes as u64,
        since_ms: answer.at_ms.saturating_sub(bounds.age_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_by_its_name_and_no_key_of_a_client_is() {
        let message = of_message("add", "7");
        assert_eq!(message.call(), of_message("add", "7").call());
        assert_ne!(message.call(), of_message("add", "8").call());
        let of_client = IdempotencyKey::new("user message", "add", "7", None);
        assert_ne!(message.call(), of_client.call());
    }

    #[test]
    fn an_answer_is_written_as_it_is_read() {
        let keyed = IdempotencyKey::new("user ann", "add", "k", Some("1"));
        let answer = |outcome| keyed.answer(9, outcome, Bounds::DEFAULT);
        let written = |outcome| {
            let answer = answer(outcome);
            let row = row(&answer);
            (row.outcome, row.result.map(str::to_owned))
        };
        assert_eq!(written(Outcome::Begun), ("begun", None));
        assert_eq!(written(Outcome::Nothing), ("nothing", None));
        let result = Outcome::Result("[1]".into());
        assert_eq!(written(result), ("result", Some("[1]".to_owned())));
    }
}

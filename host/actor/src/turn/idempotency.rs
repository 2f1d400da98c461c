//! What an actor remembers of calls with idempotency keys (draft-ietf-httpapi-idempotency-key-header).
//!
//! The answers of committed calls are kept with the actor's state, so that a caller that
//! lost the connection, or the host, may ask again: the call runs once.
//!
//! Invariant: never more than [`Bounds`] allow; the oldest are forgotten first.

use std::sync::Arc;

use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use tidegate_core::failure::code;
use tidegate_core::{Failure, canonical};
use tidegate_store::{Answer, Outcome};

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many calls.
    pub calls: usize,
    /// How long, in milliseconds.
    pub age_ms: u64,
    /// How many bytes of results.
    pub bytes: usize,
}

/// A call that is to run once.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    call: Arc<str>,
    /// The digest that all equal inputs share.
    input: Arc<str>,
    /// That of the input as it is spelled, where that is another: it may be remembered so.
    spelled: Option<Arc<str>>,
}

impl IdempotencyKey {
    /// The call of this caller, by the name that is theirs alone, to this method.
    pub fn new(caller: &str, method: &str, key: &str, input: Option<&str>) -> IdempotencyKey {
        let spelling = input.map(canonical::spelling);
        let is_spelled_otherwise = spelling.as_deref() != input;
        IdempotencyKey {
            // Lengths keep one field from passing for the end of another.
            call: digest(&[caller, method, key]),
            input: match &spelling {
                Some(spelling) => digest(&[spelling]),
                None => "".into(),
            },
            spelled: input
                .filter(|_| is_spelled_otherwise)
                .map(|input| digest(&[input])),
        }
    }

    fn has_input(&self, digest: &str) -> bool {
        *self.input == *digest || self.spelled.as_deref() == Some(digest)
    }

    pub(crate) fn answer(&self, at_ms: u64, outcome: Outcome, bounds: Bounds) -> Answer {
        let outcome = match outcome {
            // It ran, and that is all that is remembered.
            Outcome::Result(result) if result.len() > bounds.bytes => Outcome::Begun,
            outcome => outcome,
        };
        Answer {
            call: self.call.clone(),
            input: self.input.clone(),
            at_ms,
            outcome,
        }
    }
}

fn digest(parts: &[&str]) -> Arc<str> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let hex = digest.iter().take(16).map(|byte| format!("{byte:02x}"));
    hex.collect::<String>().into()
}

/// The answers of one actor, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    answers: IndexMap<Arc<str>, Answer>,
    bytes: usize,
}

impl Answered {
    pub(crate) fn restored(stored: Vec<Answer>) -> Answered {
        let mut answers = Answered::default();
        for answer in stored {
            answers.add(answer);
        }
        answers
    }

    pub(crate) fn to_stored(&self) -> Vec<Answer> {
        self.answers.values().cloned().collect()
    }

    /// What they weigh in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for a further one.
    pub(crate) fn prune(&mut self, now_ms: u64, bounds: Bounds) {
        let is_over = |answers: &Answered| {
            let Some((_, oldest)) = answers.answers.first() else {
                return false;
            };
            answers.answers.len() >= bounds.calls
                || answers.bytes > bounds.bytes
                || now_ms.saturating_sub(oldest.at_ms) > bounds.age_ms
        };
        let mut forgotten = 0;
        while is_over(self) {
            if let Some((_, answer)) = self.answers.shift_remove_index(0) {
                self.bytes -= weight(&answer);
                forgotten += 1;
            }
            if forgotten == MAX_FORGOTTEN {
                return;
            }
        }
    }

    pub(crate) fn add(&mut self, answer: Answer) {
        self.bytes += weight(&answer);
        if let Some(older) = self.answers.shift_remove(&answer.call) {
            self.bytes -= weight(&older);
        }
        self.answers.insert(answer.call.clone(), answer);
    }

    /// What a call came to that has run before; none if it has not.
    pub(crate) fn of(
        &self,
        keyed: &IdempotencyKey,
        now_ms: u64,
        bounds: Bounds,
    ) -> Option<Result<Option<String>, Failure>> {
        let known = self.answers.get(&keyed.call)?;
        if now_ms.saturating_sub(known.at_ms) > bounds.age_ms {
            return None;
        }
        Some(match &known.outcome {
            _ if !keyed.has_input(&known.input) => Err(Failure::host(code::CALL_KEY_REUSED)
                .message("the idempotency key was used with another input before")),
            Outcome::Begun => Err(Failure::host(code::CALL_INTERRUPTED)
                .message("a call with this idempotency key was begun and did not end")),
            Outcome::Nothing => Ok(None),
            Outcome::Result(result) => Ok(Some(result.as_ref().to_owned())),
        })
    }
}

/// How many are forgotten in one turn, each of which moves the others.
const MAX_FORGOTTEN: usize = 8;

fn weight(answer: &Answer) -> usize {
    const FIXED: usize = 128;
    FIXED
        + match &answer.outcome {
            Outcome::Result(result) => result.len(),
            Outcome::Begun | Outcome::Nothing => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        calls: 3,
        age_ms: 1_000,
        bytes: 10_000,
    };

    fn keyed(key: &str) -> IdempotencyKey {
        IdempotencyKey::new("ann", "add", key, Some("1"))
    }

    fn done(key: &str, at_ms: u64) -> Answer {
        keyed(key).answer(at_ms, Outcome::Result(key.into()), BOUNDS)
    }

    #[test]
    fn a_call_is_known_by_user_method_key_and_input() {
        let mut answers = Answered::default();
        answers.add(done("k", 5));
        let of = |keyed: &IdempotencyKey| answers.of(keyed, 5, BOUNDS);
        assert_eq!(of(&keyed("k")), Some(Ok(Some("k".to_owned()))));
        assert_eq!(of(&IdempotencyKey::new("ben", "add", "k", Some("1"))), None);
        assert_eq!(of(&IdempotencyKey::new("ann", "sub", "k", Some("1"))), None);
        assert_eq!(of(&IdempotencyKey::new("an", "nadd", "k", Some("1"))), None);
        let other = of(&IdempotencyKey::new("ann", "add", "k", Some("2")));
        assert_eq!(other.unwrap().unwrap_err().code, "call.key-reused");
        let other = of(&IdempotencyKey::new("ann", "add", "k", None));
        assert_eq!(other.unwrap().unwrap_err().code, "call.key-reused");
    }

    #[test]
    fn an_equal_input_is_the_same_however_it_is_spelled() {
        let mut answers = Answered::default();
        let call = |input| IdempotencyKey::new("ann", "add", "k", Some(input));
        let done = |keyed: &IdempotencyKey| keyed.answer(5, Outcome::Nothing, BOUNDS);
        let keyed = call(r#"{"by":1,"to":"é"}"#);
        answers.add(done(&keyed));
        for equal in [r#"{ "to":"\u00e9", "by":1.0 }"#, r#"{"by":1e0,"to":"é"}"#] {
            assert_eq!(
                answers.of(&call(equal), 5, BOUNDS),
                Some(Ok(None)),
                "{equal}"
            );
        }
        let other = answers.of(&call(r#"{"by":2,"to":"é"}"#), 5, BOUNDS);
        assert_eq!(other.unwrap().unwrap_err().code, "call.key-reused");
        // As it is spelled.
        let mut remembered = done(&keyed);
        remembered.input = digest(&["[1.0]"]);
        answers.add(remembered);
        assert_eq!(answers.of(&call("[1.0]"), 5, BOUNDS), Some(Ok(None)));
    }

    #[test]
    fn the_oldest_are_forgotten_by_number_age_and_bytes() {
        let mut answers = Answered::default();
        for (key, at_ms) in [("a", 0), ("b", 1), ("c", 2)] {
            answers.prune(at_ms, BOUNDS);
            answers.add(done(key, at_ms));
        }
        answers.prune(3, BOUNDS);
        assert_eq!(answers.of(&keyed("a"), 3, BOUNDS), None);
        assert!(answers.of(&keyed("b"), 3, BOUNDS).is_some());
        assert_eq!(answers.of(&keyed("b"), 1_002, BOUNDS), None);
        answers.prune(1_002, BOUNDS);
        assert_eq!(answers.to_stored(), [done("c", 2)]);
        let long = keyed("long").answer(3, Outcome::Result("x".repeat(10_000).into()), BOUNDS);
        answers.add(long);
        answers.prune(4, BOUNDS);
        assert_eq!(answers.to_stored(), []);
        assert_eq!(answers.bytes, 0);
    }

    #[test]
    fn what_has_begun_and_not_ended_is_not_run_again() {
        let mut answers = Answered::default();
        answers.add(keyed("k").answer(1, Outcome::Begun, BOUNDS));
        let begun = answers.of(&keyed("k"), 1, BOUNDS).unwrap();
        assert_eq!(begun.unwrap_err().code, "call.interrupted");
        answers.add(keyed("k").answer(2, Outcome::Nothing, BOUNDS));
        assert_eq!(answers.of(&keyed("k"), 2, BOUNDS), Some(Ok(None)));
        let long = Outcome::Result("x".repeat(10_001).into());
        let too_long = keyed("long").answer(2, long, BOUNDS);
        assert_eq!(too_long.outcome, Outcome::Begun);
        let answers = Answered::restored(answers.to_stored());
        assert_eq!(answers.of(&keyed("k"), 2, BOUNDS), Some(Ok(None)));
    }
}

//! What an actor remembers of calls with idempotency keys (draft-ietf-httpapi-idempotency-key-header).
//!
//! The answers of committed calls are kept with the actor's state, so that a caller that
//! lost the connection, or the host, may ask again: the call runs once.
//!
//! Invariant: never more than [`Bounds`] allow; the oldest are forgotten first.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::record::{Answer, Outcome};
use crate::call::Origin;
use crate::canonical;
use crate::failure::Failure;

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many calls.
    pub calls: usize,
    /// How long, in milliseconds.
    pub age_ms: u64,
    /// How many bytes of results.
    pub bytes: usize,
}

impl Bounds {
    /// What holds where nobody says otherwise.
    pub const DEFAULT: Bounds = Bounds {
        calls: 1_000,
        age_ms: 24 * 60 * 60 * 1000,
        bytes: 1 << 20,
    };
}

/// The name under which a caller's keys are its own. Clients without a user share one.
pub fn caller_of(origin: &Origin) -> String {
    match origin {
        Origin::Client(client) => {
            let claims = client.user.as_deref();
            let claims = claims.and_then(|claims| serde_json::from_str::<Value>(claims).ok());
            let subject = claims.and_then(|claims| Some(claims.get("sub")?.as_str()?.to_owned()));
            format!("user {}", subject.unwrap_or_default())
        }
        Origin::Actor(key) => format!("actor {key}"),
        Origin::Timer(_) | Origin::Cron(_) | Origin::Host => "host".to_owned(),
    }
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

    /// The digest of caller, method and key: calls that have it are one.
    pub fn call(&self) -> &str {
        &self.call
    }

    fn has_input(&self, digest: &str) -> bool {
        *self.input == *digest || self.spelled.as_deref() == Some(digest)
    }

    /// What is remembered of the call once it has come to this.
    pub fn answer(&self, at_ms: u64, outcome: Outcome, bounds: Bounds) -> Answer {
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

    /// What the call yields that has run before, by what is remembered of its call; none where
    /// that is too old.
    pub fn yields(
        &self,
        known: &Answer,
        now_ms: u64,
        bounds: Bounds,
    ) -> Option<Result<Option<String>, Failure>> {
        if now_ms.saturating_sub(known.at_ms) > bounds.age_ms {
            return None;
        }
        Some(match &known.outcome {
            _ if !self.has_input(&known.input) => Err(Failure::call_key_reused()),
            Outcome::Begun => Err(Failure::call_interrupted()),
            Outcome::Nothing => Ok(None),
            Outcome::Result(result) => Ok(Some(result.as_ref().to_owned())),
        })
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
pub struct Answered {
    answers: IndexMap<Arc<str>, Answer>,
    bytes: usize,
}

impl Answered {
    /// Those of an actor that comes back into memory.
    pub fn restored(stored: Vec<Answer>) -> Answered {
        let mut answers = Answered::default();
        for answer in stored {
            answers.add(answer);
        }
        answers
    }

    /// What to store of them.
    pub fn to_stored(&self) -> Vec<Answer> {
        self.answers.values().cloned().collect()
    }

    /// What they weigh in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes room for a further one.
    pub fn prune(&mut self, now_ms: u64, bounds: Bounds) {
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

    /// Remembers one.
    pub fn add(&mut self, answer: Answer) {
        self.bytes += weight(&answer);
        if let Some(older) = self.answers.shift_remove(&answer.call) {
            self.bytes -= weight(&older);
        }
        self.answers.insert(answer.call.clone(), answer);
    }

    /// What a call came to that has run before; none if it has not.
    pub fn of(
        &self,
        keyed: &IdempotencyKey,
        now_ms: u64,
        bounds: Bounds,
    ) -> Option<Result<Option<String>, Failure>> {
        keyed.yields(self.answers.get(&keyed.call)?, now_ms, bounds)
    }
}

/// How many are forgotten in one turn, each of which moves the others.
const MAX_FORGOTTEN: usize = 8;

/// What an answer weighs beside its result, in bytes.
pub const ANSWER_COST: usize = 128;

fn weight(answer: &Answer) -> usize {
    ANSWER_COST
        + match &answer.outcome {
            Outcome::Result(result) => result.len(),
            Outcome::Begun | Outcome::Nothing => 0,
        }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::client::Client;
    use crate::name::{ActorId, ActorKey, Name};

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
    fn a_caller_is_known_by_the_subject_of_its_token_or_by_the_name_of_its_actor() {
        let client = |user: Option<&str>| {
            caller_of(&Origin::Client(Client {
                connection: Some("c".into()),
                user: user.map(Into::into),
            }))
        };
        assert_eq!(client(Some(r#"{"sub":"ann","role":"x"}"#)), "user ann");
        assert_eq!(client(Some(r#"{"role":"x"}"#)), client(None));
        let name = Name::parse("chat").unwrap();
        let key = ActorKey::new(name, ActorId::parse("ann").unwrap());
        assert_eq!(caller_of(&Origin::Actor(key)), "actor chat/ann");
        assert_eq!(caller_of(&Origin::Host), "host");
    }

    proptest! {
        #[test]
        fn what_is_remembered_stays_within_bounds(
            calls in prop::collection::vec(("[a-f]", 0u64..400, 0usize..4_000), 0..40),
        ) {
            let mut answers = Answered::default();
            let mut now_ms = 0;
            for (key, later_ms, bytes) in calls {
                now_ms += later_ms;
                let result = Outcome::Result("x".repeat(bytes).into());
                answers.prune(now_ms, BOUNDS);
                answers.add(keyed(&key).answer(now_ms, result, BOUNDS));
                let stored = answers.to_stored();
                prop_assert!(stored.len() <= BOUNDS.calls);
                prop_assert!(stored.iter().map(weight).sum::<usize>() == answers.bytes());
                // The last one may pass the bound, and is known.
                prop_assert!(answers.bytes() <= BOUNDS.bytes + weight(&stored[stored.len() - 1]));
                let known = answers.of(&keyed(&key), now_ms, BOUNDS);
                prop_assert_eq!(known.unwrap().unwrap().unwrap().len(), bytes);
                let restored = Answered::restored(stored);
                prop_assert_eq!(restored.bytes(), answers.bytes());
            }
        }
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

//! What a turn has used of its [`Limits`].
//!
//! Invariant: once a limit is passed that a turn may not survive, [`Account::check`] fails, with
//! the failure of the first one.

use super::Limits;
use crate::failure::{Failure, code};

/// What one turn has used so far.
#[derive(Clone, Debug)]
pub struct Account {
    limits: Limits,
    /// Staged since the last commit, in bytes.
    bytes: usize,
    /// Calls and mail to other actors.
    calls: usize,
    exceeded: Option<Failure>,
}

impl Account {
    /// That of a turn which begins.
    pub fn new(limits: Limits) -> Account {
        Account {
            limits,
            bytes: 0,
            calls: 0,
            exceeded: None,
        }
    }

    /// What it is held to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What has been staged since the last commit, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Charges what is staged. Tells what all of it comes to since the last commit.
    ///
    /// # Errors
    ///
    /// `turn.effects-limit`, which fails the turn.
    pub fn charge(&mut self, bytes: usize) -> Result<usize, Failure> {
        self.bytes = self.bytes.saturating_add(bytes);
        let limit = self.limits.effects_bytes;
        if self.bytes <= limit {
            return Ok(self.bytes);
        }
        let failure = Failure::turn_effects_limit(limit);
        Err(self.exceed(failure))
    }

    /// Charges a call or mail to another actor.
    ///
    /// # Errors
    ///
    /// `call.limit`, which the turn may survive.
    pub fn charge_call(&mut self) -> Result<(), Failure> {
        self.calls += 1;
        let limit = self.limits.calls;
        match self.calls > limit {
            true => Err(Failure::call_limit(limit)),
            false => Ok(()),
        }
    }

    /// Notes a failure that the turn does not survive.
    pub fn exceed(&mut self, failure: Failure) -> Failure {
        self.exceeded.get_or_insert_with(|| failure.clone());
        failure
    }

    /// Notes a failure of work on the turn's data, which the turn does not survive where the work
    /// was given up.
    pub fn note_work(&mut self, failure: Failure) -> Failure {
        match &*failure.code {
            code::TURN_WORK_LIMIT | code::TURN_DEADLINE => self.exceed(failure),
            _ => failure,
        }
    }

    /// Notes why a text does not become the state, which the turn does not survive where that would
    /// be too large.
    pub fn note_state(&mut self, failure: Failure) -> Failure {
        match &*failure.code {
            code::STATE_TOO_LARGE => self.exceed(failure),
            _ => failure,
        }
    }

    /// Whether the turn may still commit.
    ///
    /// # Errors
    ///
    /// The first failure that it does not survive.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.exceeded {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    /// What was staged is committed: what comes next is charged anew.
    pub fn is_committed(&mut self) {
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        effects_bytes: 100,
        calls: 3,
        ..Limits::DEFAULT
    };

    #[test]
    fn work_that_was_given_up_fails_the_turn_and_what_is_invalid_does_not() {
        let mut account = Account::new(LIMITS);
        account.note_work(Failure::event_invalid("said", "no"));
        account.note_state(Failure::state_not_json("no"));
        assert_eq!(account.check(), Ok(()));
        account.note_work(Failure::turn_work_limit(7));
        account.note_state(Failure::state_too_large(1));
        assert_eq!(
            account.check(),
            Err(Failure::turn_work_limit(7)),
            "the first one counts"
        );
    }

    proptest! {
        #[test]
        fn a_turn_stages_no_more_than_it_may(staged in prop::collection::vec(0usize..60, 0..9)) {
            let mut account = Account::new(LIMITS);
            let mut all = 0;
            for bytes in staged {
                all += bytes;
                let charged = account.charge(bytes);
                prop_assert_eq!(charged.is_ok(), all <= 100);
            }
            prop_assert_eq!(account.bytes(), all);
            prop_assert_eq!(account.check().is_ok(), all <= 100);
            account.is_committed();
            prop_assert_eq!(account.charge(100), Ok(100));
            prop_assert_eq!(account.check().is_ok(), all <= 100, "a failure stays");
        }

        #[test]
        fn calls_beyond_the_limit_fail_and_the_turn_does_not(calls in 0usize..9) {
            let mut account = Account::new(LIMITS);
            let made = (0..calls).filter(|_| account.charge_call().is_ok()).count();
            prop_assert_eq!(made, calls.min(3));
            prop_assert_eq!(account.check(), Ok(()));
        }
    }
}

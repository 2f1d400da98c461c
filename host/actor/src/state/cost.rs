//! What an actor in memory costs, and that it is taken from what there is for all of them.
//!
//! The parts counts; `stage` asks before a turn commits, so that a turn for whose outcome there
//! is no room leaves no trace, and `actor` when an actor comes into memory.
//!
//! Invariant: what an actor may do without (its state encoded, or pinned for guards) is kept only
//! while there is room.

use std::sync::Arc;

use tidegate_base::budget::{Budget, Exhausted, FREE, Share};
use tidegate_core::Failure;
use tidegate_core::turn::{Change, Outcome, TimerChange};

use super::{ActorState, Parts};

/// An actor with nothing: itself, its queue, its subscribers, its place in the table.
pub(crate) const BASE_COST: usize = 2 << 10;

/// What a value in memory takes for each byte of its JSON text, about.
const VALUE_FACTOR: usize = 4;

/// An answer, a message or a timer, beside its text.
const ENTRY_COST: usize = 256;

/// Whom it has heard of.
const SENDER_COST: usize = 128;

/// A share changes by no less than this, so that most turns leave it alone.
const STEP: usize = 1 << 10;

impl ActorState {
    /// Takes what the actor costs as it was loaded.
    ///
    /// # Errors
    /// `actor.limit`: there is no room for it.
    pub fn charge(&self) -> Result<(), Failure> {
        let mut parts = self.parts();
        let cost = parts.cost();
        parts.take(cost).map_err(no_room)
    }
}

/// What whoever needs an actor is told that there is no room for.
pub(crate) fn no_room(exhausted: Exhausted) -> Failure {
    let failure = Failure::actor_limit_of_memory(exhausted, exhausted.budget());
    match exhausted.retry_after_ms() {
        Some(ms) => failure.param("retryAfterMs", ms),
        None => failure,
    }
}

/// What a document of this JSON text will take beside it, if it is not small.
pub(crate) fn share_of_text(text: &str, budget: &Arc<Budget>) -> Result<Option<Share>, Exhausted> {
    match text.len() {
        ..=FREE => Ok(None),
        long => budget.share((1 + VALUE_FACTOR) * long).map(Some),
    }
}

impl Parts {
    /// What the actor costs as it is, in bytes.
    fn cost(&self) -> usize {
        let documents = 1 + usize::from(self.shown.pinned.is_some());
        let size = self.history.document.size();
        let text = self.shown.encoded.as_ref().map_or(0, |_| size.text);
        BASE_COST
            + documents * size.memory
            + text
            + self.answers.bytes()
            + self.outbox.bytes()
            + self.outbox.len() * ENTRY_COST
            + self.timers.bytes()
            + self.timers.len() * ENTRY_COST
            + self.inbox.len() * SENDER_COST
            + self.shown.replay.bytes()
    }

    fn take(&mut self, cost: usize) -> Result<(), Exhausted> {
        let wanted = cost.next_multiple_of(STEP);
        let taken = self.share.taken();
        match wanted > taken || taken - wanted > STEP {
            true => self.share.set(wanted),
            false => Ok(()),
        }
    }

    /// Takes what the actor will cost with the outcome of a turn, whose document is in place.
    pub(crate) fn take_for(&mut self, change: &Change) -> Result<(), Failure> {
        let answer = change.answer.as_ref();
        let answer = answer.map_or(0, |answer| match &answer.outcome {
            Outcome::Result(result) => ENTRY_COST + result.len(),
            Outcome::Begun | Outcome::Nothing => ENTRY_COST,
        });
        let sends = change.sends.iter();
        let sends: usize = sends.map(|sent| ENTRY_COST + sent.weight()).sum();
        let timers = change.timers.iter().map(|change| match change {
            TimerChange::Set(set) => ENTRY_COST + set.timer.input.as_deref().map_or(0, str::len),
            TimerChange::Cancel(_) => 0,
        });
        let cost = self.cost() + answer + sends + timers.sum::<usize>();
        self.take(cost).map_err(Exhausted::failure)
    }

    /// Takes what has been added for readers; where there is no room it is not kept.
    pub(crate) fn take_for_readers(&mut self) {
        if self.take(self.cost()).is_err() {
            self.shown.encoded = None;
            self.shown.pinned = None;
        }
    }
}

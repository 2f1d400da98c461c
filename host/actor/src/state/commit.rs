//! Commits: how what a turn has staged, and what has happened beside turns, becomes the state of
//! the actor and goes to the store.
//!
//! Invariant: a commit is one operation under the parts' lock. Where the store refuses the change,
//! no part has it.

use std::sync::Arc;

use tidegate_core::turn::idempotency::Bounds;
use tidegate_core::turn::{Change, Outcome, Received, Sent, TimerChange};
use tidegate_core::turn::{IdempotencyKey, Invocation, Remembered};
use tidegate_core::{Failure, Json, PatchOp};
use tidegate_engine::Component;
use tidegate_store::{Commit, Committed, Durability, Keyspace, StoreError};

use super::{ActorState, Parts};
use crate::live::ActorFrame;
use crate::records::ActorRecords;
use crate::turn::migrate::Fit;
use crate::turn::timers::Clock;

/// What a turn commits.
pub(crate) struct TurnCommit<'a> {
    /// What changed of the document, if anything did: it satisfies the component's schema.
    pub(crate) patches: Option<Vec<PatchOp>>,
    /// Timers that are set and cancelled.
    pub(crate) timers: Vec<TimerChange>,
    /// Mail to other actors.
    pub(crate) sends: Vec<Invocation>,
    /// What became of the call.
    pub(crate) outcome: Outcome,
    /// The call, if it is to run once, and how many such calls are remembered.
    pub(crate) keyed: Option<(&'a IdempotencyKey, Bounds)>,
    /// The mail that it is the turn of, and of how many senders it is remembered.
    pub(crate) received: Option<(&'a Received, usize)>,
    /// The code that has run it.
    pub(crate) component: &'a Component,
    /// What its timers are set on.
    pub(crate) clock: &'a Clock,
    /// Where it is stored.
    pub(crate) store: &'a dyn Keyspace<ActorRecords>,
    /// When it is safe.
    pub(crate) durability: Durability,
}

/// What a turn has committed.
pub(crate) struct TurnCommitted {
    /// Whether the state has another version.
    pub(crate) changed: bool,
    /// The change of the state and the version it leads to, if somebody watches.
    pub(crate) patch: Option<(Arc<ActorFrame>, u64)>,
    /// Mail to other actors, with its numbers.
    pub(crate) sends: Vec<Arc<Sent>>,
}

impl ActorState {
    /// Commits what a turn has staged.
    ///
    /// # Errors
    ///
    /// There is no room for it, or the store has refused it.
    pub(crate) fn commit_turn(&self, turn: TurnCommit<'_>) -> Result<TurnCommitted, Failure> {
        let mut parts = self.parts();
        let changed = turn.patches.is_some();
        let answer = turn.keyed.map(|(keyed, bounds)| {
            // Their age is a span of time.
            let now_ms = turn.clock.steady_ms();
            parts.answers.prune(now_ms, bounds);
            keyed.answer(now_ms, turn.outcome, bounds)
        });
        // A turn that commits more than once has heard its message with the first.
        let received = turn.received;
        let received = received.filter(|(received, _)| !parts.inbox.knows(received));
        let mut change = Change::of_turn(
            parts.history.version,
            turn.patches,
            turn.timers.clone(),
            (turn.sends, &parts.outbox, &parts.history.epoch),
            Remembered {
                answer,
                received: received.map(|(received, _)| received.clone()),
            },
        );
        parts.take_for(&change)?;
        parts.add_happenings(&mut change);
        if !change.is_empty() {
            // It shares what the document holds.
            let state = &|parts: &Parts| parts.history.document.value().clone();
            self.commit(&mut parts, &change, turn.store, turn.durability, state)
                .map_err(|error| unavailable(&error))?;
        }
        let parts = &mut *parts;
        if let Some(answer) = change.answer {
            parts.answers.add(answer);
        }
        if let (Some(received), Some((_, senders))) = (change.received, received) {
            parts.inbox.note(received, senders);
        }
        let sends = parts.outbox.add(change.sends);
        parts.timers.change(&self.key, turn.timers, turn.clock);
        let patch = changed.then(|| {
            parts.history.advance(Fit::of(turn.component));
            let version = parts.history.version;
            let state = parts.history.document.value();
            let shown = parts
                .shown
                .advance(&self.key, change.patches, state, version);
            shown.map(|message| (message, version))
        });
        Ok(TurnCommitted {
            changed,
            patch: patch.flatten(),
            sends,
        })
    }

    /// Makes what has happened beside turns safe, if there is any.
    pub fn commit_happenings(&self, store: &dyn Keyspace<ActorRecords>, durability: Durability) {
        let mut parts = self.parts_at_rest();
        let mut change = Change {
            version: parts.history.version,
            ..Change::default()
        };
        parts.add_happenings(&mut change);
        if change.is_empty() {
            return;
        }
        let state = &|parts: &Parts| parts.history.document.committed().into_owned();
        if let Err(error) = self.commit(&mut parts, &change, store, durability, state) {
            tracing::warn!(actor = %self.key, %error, "an actor's connections and timers are not stored");
        }
    }

    /// Commits a change, and has what comes behind it wait at the gate. `state` is the
    /// document with this change.
    fn commit(
        &self,
        parts: &mut Parts,
        change: &Change,
        store: &dyn Keyspace<ActorRecords>,
        durability: Durability,
        state: &dyn Fn(&Parts) -> Json,
    ) -> Result<(), StoreError> {
        let mut weight = parts.weight;
        let whole = || {
            let mut stored = parts.to_stored(state(parts));
            stored.version = change.version;
            stored.apply_happenings(change);
            stored
        };
        let commit = Commit {
            key: &self.key,
            change,
            durability,
            due_ms: match parts.outbox.len_with(change) {
                0 => parts.timers.first_due_ms(&change.timers),
                // It is to come into memory in any case.
                _ => Some(0),
            },
        };
        match store.commit(commit, &mut weight, &whole) {
            Committed::Now => {}
            Committed::Later(safe) => self
                .gate
                .commit(async move { safe.await.map_err(|error| unavailable(&error)) }),
            Committed::Refused(error) => {
                // The next one says everything, also what happened beside this turn.
                parts.weight = parts.weight.outdated();
                return Err(error);
            }
        }
        parts.weight = weight;
        if let Some(lineage) = &mut parts.history.lineage {
            lineage.is_stored();
        }
        Ok(())
    }
}

impl Parts {
    /// Adds to a change what has happened beside the turn: connections that came and went, if
    /// the handler wants to be told of their end, timers that have fired, messages that were
    /// settled.
    pub(crate) fn add_happenings(&mut self, change: &mut Change) {
        change.connections = self.presence.take_changes();
        let mut fired = self.timers.take_fired(!change.is_empty());
        // What the turn itself does to its timers comes later.
        fired.append(&mut change.timers);
        change.timers = fired;
        change.settled = self.outbox.take_settled(!change.is_empty());
        if !change.is_empty() {
            change.begins = self.begins();
        }
    }
}

/// What a caller is told when the store fails.
pub fn unavailable(error: &StoreError) -> Failure {
    if *error == StoreError::Fenced {
        // It left no trace, and may be made again where the actor is at home now.
        return Failure::actor_elsewhere();
    }
    Failure::store_unavailable().detail(error.reason())
}

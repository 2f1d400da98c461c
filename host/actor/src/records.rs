//! Actors as a store keeps them: what of their records a [`Keyspace`](tidegate_store::Keyspace) asks for.
//!
//! What the records are is `tidegate_core::turn`'s. Invariant: what of them does not fit together
//! is reported as damage.

use std::fmt::Display;

use tidegate_core::place::Kind;
use tidegate_core::turn::{Begun, Change, Stored};
use tidegate_core::{ActorId, ActorKey, Name};
use tidegate_store::{Damaged, Records, Run};

/// Actors, as a store keeps them.
#[derive(Debug)]
pub struct ActorRecords;

impl Records for ActorRecords {
    const KIND: Kind = Kind::Actor;
    const NAME: &'static str = "actors";

    type Key = ActorKey;
    type Record = Stored;
    type Change = Change;

    fn parts(key: &ActorKey) -> (&str, &str) {
        (key.actor.as_str(), key.id.as_str())
    }

    fn key(name: &str, id: &str) -> Option<ActorKey> {
        let actor = Name::parse(name).ok()?;
        let id = ActorId::stored(id).ok()?;
        Some(ActorKey { actor, id })
    }

    fn to_text(record: &Stored) -> String {
        record.to_text()
    }

    fn parse(text: &str) -> Result<Stored, Damaged> {
        Stored::parse(text).map_err(damaged)
    }

    fn change_to_text(change: &Change) -> String {
        change.to_text()
    }

    fn parse_change(text: &str) -> Result<Change, Damaged> {
        Change::parse(text).map_err(damaged)
    }

    fn apply(record: &mut Stored, change: Change) -> Result<(), Damaged> {
        record.apply(change).map_err(damaged)
    }

    fn due_ms(record: &Stored) -> Option<u64> {
        record.first_due_ms()
    }

    fn sign(record: &mut Stored, run: &Run) {
        record.run = run.name().clone();
    }

    fn take_over(record: &mut Stored, run: &Run) {
        if record.run != *run.name() {
            record.go_on_as(Begun {
                epoch: run.epoch_after(&record.epoch),
                run: run.name().clone(),
            });
            record.is_begun = true;
        }
    }
}

fn damaged(reason: impl Display) -> Damaged {
    Damaged(reason.to_string())
}

#[cfg(test)]
mod tests;

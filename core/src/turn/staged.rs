//! What a turn has staged, and the change of the stored record that comes of it.
//!
//! Invariant: what is taken for a commit is not there for the next one, and a change counts a
//! version exactly where it has patches.

use std::sync::Arc;

use super::account::Account;
use super::calls::Invocation;
use super::limits::Limits;
use super::mail::Outbox;
use super::record::{Answer, Change, Received, TimerChange};
use crate::patch::PatchOp;

/// What a turn has staged since its last commit, beside the document; `E` is an event as whoever
/// sends it has it.
#[derive(Clone, Debug)]
pub struct Staged<E> {
    /// What the turn has used.
    pub account: Account,
    /// Events, in their order.
    pub events: Vec<E>,
    /// Timers that are set and cancelled.
    pub timers: Vec<TimerChange>,
    /// Mail to other actors.
    pub sends: Vec<Invocation>,
    /// The guest has declared all of it fit to be seen.
    pub is_fit: bool,
}

/// What leaves a turn with a commit.
#[derive(Clone, Debug)]
pub struct Effects<E> {
    /// Events, in their order.
    pub events: Vec<E>,
    /// Timers that are set and cancelled.
    pub timers: Vec<TimerChange>,
    /// Mail to other actors.
    pub sends: Vec<Invocation>,
}

/// What a commit is to remember of what the turn was for.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// What became of the call, if it is to run once.
    pub answer: Option<Answer>,
    /// The mail that it is the turn of.
    pub received: Option<Received>,
}

impl<E> Staged<E> {
    /// Nothing yet, of a turn with these limits.
    pub fn new(limits: Limits) -> Staged<E> {
        Staged {
            account: Account::new(limits),
            events: Vec::new(),
            timers: Vec::new(),
            sends: Vec::new(),
            is_fit: false,
        }
    }

    /// Whether nothing is staged.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.timers.is_empty() && self.sends.is_empty()
    }

    /// Takes all of it for a commit; what comes next is charged anew.
    pub fn take(&mut self) -> Effects<E> {
        self.account.is_committed();
        Effects {
            events: std::mem::take(&mut self.events),
            timers: std::mem::take(&mut self.timers),
            sends: std::mem::take(&mut self.sends),
        }
    }
}

impl Change {
    /// What a turn changes of an actor that was at this version.
    pub fn of_turn(
        version: u64,
        patches: Option<Vec<PatchOp>>,
        timers: Vec<TimerChange>,
        (sends, outbox, epoch): (Vec<Invocation>, &Outbox, &Arc<str>),
        remembered: Remembered,
    ) -> Change {
        Change {
            version: version + u64::from(patches.is_some()),
            patches: patches.unwrap_or_default(),
            timers,
            answer: remembered.answer,
            sends: outbox.number(sends, epoch),
            received: remembered.received,
            ..Change::default()
        }
    }
}

//! One turn: what it stages, whether it may commit, and what leaves afterwards.
//!
//! `actor` runs turns; it makes a [`Stage`] for each, hands it to the engine as the
//! guest's imports, then [`Stage::commit`]s it. Effects are data until `release` sends
//! them, and nothing else sends anything for an actor.
//!
//! Invariant (the output gate): nothing that a turn staged leaves before the store has
//! said that the turn's commit is safe, and nothing at all, failures and snapshots included,
//! before every earlier commit that it builds on is. An actor may run ahead of that.

mod answers;
mod gate;
mod guard;
mod joining;
mod ledger;
mod lineage;
mod messages;
mod migrate;
mod outside;
mod recent;
mod release;
mod stage;
mod timers;

pub use answers::{Bounds, Keyed};
pub use gate::Gate;
pub use guard::{Basis, Read, Undecided};
pub use joining::MAX_DECISIONS;
pub use ledger::{Ledger, Live, unavailable};
pub use messages::{Hearing, Outbox};
pub use migrate::{Fitted, fitted};
pub use outside::{Caller, Outside};
pub use release::{Chunks, Effects, Reply, ReplyTo, answer, let_out};
pub use stage::{Given, MessageBounds, Stage};
pub use timers::{ActorTimers, Clock, TimerKey, Which, next_on_grid};

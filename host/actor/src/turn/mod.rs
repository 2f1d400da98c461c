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
mod cost;
mod gate;
mod guard;
mod input;
mod joining;
mod ledger;
mod lineage;
mod listener;
mod messages;
mod migrate;
mod outside;
mod recent;
mod release;
mod stage;
mod texts;
mod timers;
mod work;

pub use answers::{Bounds, Keyed};
pub use cost::{BASE_COST, no_room};
pub use gate::Gate;
pub use guard::{Basis, Read, Undecided};
pub use input::{check_input, check_input_elsewhere};
pub use joining::MAX_DECISIONS;
pub use ledger::{Ledger, Live, unavailable};
pub use listener::{Chunk, Listener};
pub use messages::{Hearing, Outbox};
pub use migrate::{Fitted, fitted};
pub use outside::{Caller, Outside};
pub use release::{Chunks, Effects, Reply, ReplyTo, answer, let_out};
pub use stage::{Given, MessageBounds, Stage};
pub use timers::{ActorTimers, Clock, TimerKey, Which, next_on_grid};

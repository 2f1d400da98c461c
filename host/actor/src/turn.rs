//! One turn: what it stages, whether it may commit, and what leaves afterwards.
//!
//! `actor` runs turns; it makes a [`Stage`] for each, hands it to the engine as the
//! guest's imports, then [`Stage::commit`]s it. Effects are data until `release` sends
//! them, and nothing else sends anything for an actor.
//!
//! Invariant (the output gate): nothing that a turn staged leaves before the store has
//! said that the turn's commit is safe, and nothing at all, failures and snapshots included,
//! before every earlier commit that it builds on is. An actor may run ahead of that.

mod dispatch;
pub(crate) mod guard;
pub(crate) mod input;
pub(crate) mod joining;
pub(crate) mod listener;
pub(crate) mod migrate;
pub(crate) mod release;
pub(crate) mod stage;
pub(crate) mod timers;
pub(crate) mod work;

pub use dispatch::Dispatch;
pub use guard::{Basis, Read, Undecided};
pub use input::{check_input, check_input_elsewhere};
pub use joining::MAX_DECISIONS;
pub use listener::{Chunk, Listener};
pub use migrate::{Fitted, fitted};
pub use release::{Chunks, Effects, Reply, ReplyTo, answer, let_out};
pub use stage::{Stage, TurnContext};
pub use timers::{ActorTimers, Clock, TimerKey, Which};

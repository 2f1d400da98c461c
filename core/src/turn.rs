//! The rules of a turn: what it may stage, whether it may commit, and what becomes of what it
//! staged. They are written here once, for the host and for the pieces that run handlers on Spin.
//!
//! Nothing here waits, reads a clock or asks a store: who runs turns does, and hands over what the
//! rules need to know. What a turn has [`Staged`] is counted by its [`Account`] and held against the
//! manifest by [`check`], [`state`] makes the change of a document, [`timers`], [`mail`] and [`idempotency`]
//! say what else may be staged and what is remembered of it, [`record`] is what all of it comes to
//! in the store, and [`views`] what of a state somebody is shown.
//!
//! Invariants: whatever breaks a rule ends in a [`Failure`](crate::Failure) that is made here, so
//! that its code, text and parameters are everywhere the same; a limit that a turn has passed
//! fails the turn, also where its handler does not mind.

pub mod account;
pub mod calls;
pub mod check;
pub mod idempotency;
pub mod limits;
pub mod mail;
pub mod record;
pub mod staged;
pub mod state;
pub mod timers;
pub mod views;

pub use account::Account;
pub use calls::Invocation;
pub use check::Checked;
pub use idempotency::{Answered, IdempotencyKey};
pub use limits::Limits;
pub use mail::{Inbox, Outbox};
pub use record::{
    Answer, Begun, Change, Connected, ConnectionChange, DoesNotFollow, Earlier, Outcome, Received,
    Sent, Stored, StoredTimer, Timer, TimerChange,
};
pub use staged::{Effects, Remembered, Staged};
pub use timers::NewTimer;

/// What an effect weighs beside its texts, and each connection that an event is addressed to.
pub const EFFECT_COST: usize = 64;

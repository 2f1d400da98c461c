//! What a turn reaches outside its own actor: other actors.
//!
//! `actor` implements [`Dispatch`]; a [`Stage`](super::Stage) holds it for its turn.

use std::sync::Arc;

use tidegate_core::ActorKey;
use tidegate_core::turn::Sent;
use tidegate_registry::calls::CallActors;

/// The way from one actor to others.
pub trait Dispatch: CallActors {
    /// Delivers what a turn has sent, now that it has committed; nobody waits.
    fn deliver(&self, from: &ActorKey, sent: Arc<Sent>);
}

//! Connections that closed when nobody could tell their actors of it: the host had died, mostly.
//!
//! They leave when the actor comes into memory, ahead of all that waits in its queue. Who looks at
//! the actor first waits for that, so as not to be shown who is gone, but for a slow hook no longer
//! than is set.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Shared;
use super::activation::Activation;
use super::mailbox::Item;
use crate::state::ActorState;

impl Activation {
    /// Whether there may be connections that it has not been told the end of.
    fn may_know_gone(&self, live: &ActorState, shared: &Shared) -> bool {
        if self.has_parted.load(Ordering::Acquire) {
            return false;
        }
        let clients = live.parts().presence.clients();
        let mut ids = clients.iter().map(|client| client.connection.as_deref());
        ids.any(|id| !id.is_some_and(|id| shared.remote.presence.is_open(id)))
    }
}

impl Shared {
    /// Waits until connections that are gone have left an actor that has come into memory.
    pub(super) async fn part_with_gone(&self, actor: &Activation, live: &ActorState) {
        if !actor.may_know_gone(live, self) {
            return;
        }
        let (done, parted) = oneshot::channel();
        // Whatever it does next, they leave before.
        if let Err(undelivered) = self.deliver(&actor.key, Item::Fit(done)) {
            return undelivered.item.refuse(&actor.key, undelivered.failure);
        }
        let patience = Duration::from_millis(self.settings.connect_wait_ms);
        // Either way what there is is shown.
        let _ = tokio::time::timeout(patience, parted).await;
    }
}

//! Who watches an actor: subscriptions and reads, beside the turns.
//!
//! Invariant: joining never waits for a turn, but for that of a connection's own `connect`, for
//! those that part with connections that are gone, and for these only so long; and, where another
//! component has just taken over, for the one that runs the old code.

use std::sync::Arc;
use std::time::Duration;

use tidegate_base::timer::Due;
use tidegate_core::manifest::Hooks;
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, Client, Failure};
use tidegate_delivery::Outlet;
use tidegate_delivery::connections::Connection;
use tidegate_engine::Subject;
use tidegate_registry::placement::Home;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::Shared;
use super::activation::Activation;
use super::mailbox::{Arrival, Item};
use super::remote::{is_elsewhere, moving};
use crate::live::Stream;
use crate::state::ActorState;
use crate::turn::{MAX_DECISIONS, Read, Undecided, Which};

/// A connection whose first contact an actor is being told of.
pub struct Arriving(oneshot::Receiver<()>);

impl Arriving {
    /// Whether there is nothing to wait for any more.
    pub fn is_over(&mut self) -> bool {
        !matches!(self.0.try_recv(), Err(TryRecvError::Empty))
    }
}

/// How far the first contact of a subscriber with the actor is.
pub enum FirstContact<'c> {
    /// The actor has been told, or the subscriber is no connection.
    Past,
    /// So it has; and what the subscriber has seen is what this host has shown it.
    Again,
    /// The actor must be told of this connection.
    Due(&'c Connection),
    /// It is being told.
    UnderWay(Arriving),
}

impl FirstContact<'_> {
    /// Sees to it that the actor is told, and gives what to wait for, if there is anything.
    pub(super) fn take(
        &mut self,
        connect: impl FnOnce(&Connection) -> Result<Option<Arriving>, Failure>,
    ) -> Result<Option<Arriving>, Failure> {
        if let FirstContact::Past | FirstContact::Again = self {
            return Ok(None);
        }
        match std::mem::replace(self, FirstContact::Past) {
            FirstContact::Past | FirstContact::Again => Ok(None),
            FirstContact::UnderWay(arriving) => Ok(Some(arriving)),
            FirstContact::Due(connection) => {
                // An actor that cannot be told has had no contact.
                connect(connection).inspect_err(|_| *self = FirstContact::Due(connection))
            }
        }
    }
}

impl Shared {
    /// First contact of a connection with an actor. What is returned ends once the actor has been
    /// told of it; none where it does not want to be.
    pub(super) fn connect(
        &self,
        key: &ActorKey,
        connection: &Connection,
    ) -> Result<Option<Arriving>, Failure> {
        let client = connection.client();
        let (told, arriving) = match self.hooks(key).is_some_and(|hooks| hooks.connect) {
            true => {
                let (told, arriving) = oneshot::channel();
                (Some(told), Some(Arriving(arriving)))
            }
            false => (None, None),
        };
        let arrival = Box::new(Arrival {
            client,
            _told: told,
        });
        let delivered = self.deliver(key, Item::Connect(arrival));
        delivered.map_err(|undelivered| undelivered.failure)?;
        Ok(arriving)
    }

    /// Which hooks the actor has.
    pub(super) fn hooks(&self, key: &ActorKey) -> Option<Hooks> {
        let component = self.router.resolve(key.actor.as_str())?.component()?;
        let declared = component.manifest.actors.get(key.actor.as_str())?;
        Some(declared.hooks)
    }

    /// Waits until an actor has been told of a connection, but for a busy one, or a slow hook, no
    /// longer than is set.
    async fn arrived(&self, arriving: Arriving) {
        let patience = Duration::from_millis(self.settings.connect_wait_ms);
        // Either way the subscriber is shown what there is.
        let _ = tokio::time::timeout(patience, arriving.0).await;
    }

    /// Subscribes a receiver; for the state it gets the last committed state first, or the
    /// patches that lead there from `since`. Never waits for a turn, but for that of a connection's
    /// own `connect`, and for that only so long.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        key: &ActorKey,
        stream: Stream,
        outlet: Arc<dyn Outlet>,
        since: Option<&Since>,
        contact: &mut FirstContact<'_>,
    ) -> Result<(), Failure> {
        loop {
            match self.remote.home(key) {
                Home::Here(_) => {}
                Home::There(home) => {
                    return self.watch_there(&home, key, stream, outlet, since, contact);
                }
                Home::Moving => {
                    self.until_arrived(key).await?;
                    continue;
                }
            }
            let subscribed = self
                .subscribe_here(key, stream, outlet.clone(), since, contact)
                .await;
            match subscribed {
                // It has left meanwhile.
                Err(failure) if is_elsewhere(&failure) => {}
                done => return done,
            }
        }
    }

    /// Subscribes a receiver to an actor that is at home here.
    ///
    /// # Errors
    /// `actor.moving` where it is not, or is not any more.
    pub(super) async fn subscribe_here(
        self: &Arc<Self>,
        key: &ActorKey,
        stream: Stream,
        outlet: Arc<dyn Outlet>,
        since: Option<&Since>,
        contact: &mut FirstContact<'_>,
    ) -> Result<(), Failure> {
        let is_here = || matches!(self.remote.home(key), Home::Here(_));
        let mut decisions = 0;
        // Taken once a guard could not decide between two commits.
        let mut still = None;
        loop {
            if !is_here() {
                return Err(moving());
            }
            let actor = self.actor(key)?;
            let live = actor.live(self).await?;
            self.check_gate(key, live)?;
            // Whether it fits may be to be looked at.
            live.at_rest().await;
            if !actor.fits(live) {
                still = None;
                self.check_fit(key, &actor, live).await?;
            }
            // A turn, which nothing may hold still meanwhile.
            if stream == Stream::State && still.is_none() {
                self.part_with_gone(&actor, live).await;
            }
            decisions += 1;
            if decisions >= MAX_DECISIONS && still.is_none() {
                still = Some(live.hold_still().await);
            }
            let serving = actor.serving();
            let decided = live
                .authorize(outlet.client(), subject(stream), &self.access)
                .await;
            if decided.is_err() && !actor.fits(live) {
                continue;
            }
            let basis = decided?;
            let joined = match stream {
                Stream::State => {
                    // Who may not look has no contact either. What the hook changes is in the
                    // first state that the newcomer is shown.
                    if let Some(arriving) = contact.take(|new| self.connect(key, new))? {
                        still = None;
                        self.arrived(arriving).await;
                        continue;
                    }
                    if let Some(since) = since.filter(|_| still.is_none()) {
                        live.recall(since, &*self.store).await;
                    }
                    live.subscribe_state(outlet.clone(), &basis, since, &mut still)
                        .await?
                }
                Stream::Events => live.subscribe_events(outlet.clone(), &basis),
            };
            if !joined {
                continue;
            }
            // From here on the actor stays; if it has left meanwhile, its successor is
            // subscribed to.
            if !actor.wake(self) {
                if !is_here() {
                    // It has taken its watchers along, this one among them.
                    return Ok(());
                }
                still = None;
                continue;
            }
            // Another component may have come before there was anybody to ask its guard about.
            if actor.serving() != serving {
                live.authorize_again(Some(outlet.id()), Undecided::Leave)
                    .await;
            }
            return Ok(());
        }
    }

    /// Refuses what the store has lost, and has the actor loaded again as it was last safe.
    fn check_gate(&self, key: &ActorKey, live: &ActorState) -> Result<(), Failure> {
        let Some(failure) = live.gate.broken() else {
            return Ok(());
        };
        // Whatever it does next shows it that.
        if let Err(undelivered) = self.deliver(key, Item::Due(Which::Wake, Due::Moment(0))) {
            undelivered.item.refuse(key, undelivered.failure);
        }
        Err(failure)
    }

    /// Waits, after another component has taken over, until the state is one of that
    /// component's. This alone has a joiner wait for a turn: one that still runs the old code.
    async fn check_fit(
        &self,
        key: &ActorKey,
        actor: &Activation,
        live: &ActorState,
    ) -> Result<(), Failure> {
        // Whether it fits may be to be looked at.
        live.at_rest().await;
        if actor.fits(live) {
            return Ok(());
        }
        let (done, fitted) = oneshot::channel();
        self.deliver(key, Item::Fit(done))
            .map_err(|undelivered| undelivered.failure)?;
        fitted.await.unwrap_or_else(|_| Err(Failure::host_failed()))
    }

    /// The last committed state, as this client may see it. Never waits for a turn, but for those
    /// that part with connections that are gone, and for these only so long.
    pub(super) async fn read(
        self: &Arc<Self>,
        key: &ActorKey,
        who: Client,
    ) -> Result<Read, Failure> {
        loop {
            match self.remote.home(key) {
                Home::Here(_) => {}
                Home::There(home) => return self.read_there(&home, key, who).await,
                Home::Moving => {
                    self.until_arrived(key).await?;
                    continue;
                }
            }
            let actor = self.actor(key)?;
            let live = actor.live(self).await?;
            self.check_gate(key, live)?;
            self.check_fit(key, &actor, live).await?;
            self.part_with_gone(&actor, live).await;
            let decided = live
                .authorize(who.clone(), Subject::State, &self.access)
                .await;
            if decided.is_err() && !actor.fits(live) {
                continue;
            }
            let basis = decided?;
            let read = live.read(who.clone(), basis).await?;
            if actor.wake(self) {
                return Ok(read);
            }
        }
    }
}

fn subject(stream: Stream) -> Subject {
    match stream {
        Stream::State => Subject::State,
        Stream::Events => Subject::Events,
    }
}

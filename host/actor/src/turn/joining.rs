//! How somebody comes to watch an actor, and comes to it again after having lagged.
//!
//! What a newcomer is given and the list of those who are told of the next commit are one
//! moment: both are decided under the audience's lock, with the parts as it is then.
//!
//! Invariants: nobody is shown a state that is not the one that their guard has decided on; of
//! what is committed behind it, nobody misses anything, and nobody is told anything twice.

use std::sync::Arc;

use tidegate_core::Failure;
use tidegate_core::protocol::Since;
use tidegate_delivery::Outlet;
use tidegate_engine::{Component, Subject};
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::guard::Basis;
use crate::live::{Shown, Steps, Stream, View};
use crate::state::{ActorState, Parts, Pinned};

/// Keeps an actor with a guard from showing another commit, and so from making more than one.
pub(crate) type Still = OwnedMutexGuard<()>;

/// How often a guard is asked until the state that it decided on is the one that is shown; from
/// then on the actor is held still meanwhile.
pub const MAX_DECISIONS: u32 = 4;

impl Parts {
    /// Whether this is the state that was committed last.
    pub(crate) fn is_at(&self, pinned: &Pinned) -> bool {
        self.history.version == pinned.version && self.shown.epoch == pinned.epoch
    }

    pub(crate) fn is_as_decided(&self, basis: &Basis) -> bool {
        basis.as_ref().is_none_or(|seen| self.is_at(seen))
    }
}

/// What became of showing a state that a guard has decided on.
enum Showing {
    /// It is shown, or never will be.
    Done,
    /// Another one was committed meanwhile.
    IsAnother,
}

impl Showing {
    async fn of(shows: Option<Shows>, still: &mut Option<Still>) -> Showing {
        let Some(shows) = shows else {
            return Showing::IsAnother;
        };
        match passed(shows, still).await {
            Ok(false) => Showing::IsAnother,
            // A store that has failed shows nothing any more.
            Ok(true) | Err(_) => Showing::Done,
        }
    }
}

impl ActorState {
    /// Holds an actor with a guard still, for somebody who could not be decided on between two
    /// of its commits.
    pub async fn hold_still(&self) -> Still {
        self.guarding().still.clone().lock_owned().await
    }

    /// Subscribes a receiver to the events. False when the state is not the one that this basis
    /// is about.
    pub fn subscribe_events(&self, outlet: Arc<dyn Outlet>, basis: &Basis) -> bool {
        let is_decided = || self.parts().is_as_decided(basis);
        self.subscribers.join_events_if(outlet, is_decided)
    }

    /// Sends the snapshot to a receiver, or the patches since what it has seen, and keeps it
    /// informed from there on. False, and nothing is sent, when the state is not the one that
    /// this basis is about, or the actor has left memory. What holds the actor still is let go
    /// where this has to wait.
    pub async fn subscribe_state(
        self: &Arc<Self>,
        outlet: Arc<dyn Outlet>,
        basis: &Basis,
        since: Option<&Since>,
        still: &mut Option<Still>,
    ) -> Result<bool, Failure> {
        self.at_rest().await;
        let component = self.component()?;
        // What is committed from here on makes patches.
        self.parts().shown.is_watched = true;
        let joined = match component.access(self.key.actor.as_str()).project {
            true => self.join_view(outlet, &component, basis, still).await?,
            false => self.join_state(outlet, basis, since, still).await?,
        };
        if joined {
            let metrics = &self.slot.metrics;
            metrics.published.snapshots.inc();
            metrics.delivered.snapshots.inc();
        }
        Ok(joined)
    }

    /// Subscribes to the whole state, when it is safe.
    async fn join_state(
        self: &Arc<Self>,
        outlet: Arc<dyn Outlet>,
        basis: &Basis,
        since: Option<&Since>,
        still: &mut Option<Still>,
    ) -> Result<bool, Failure> {
        loop {
            // Nobody waits for the document under the audience's lock.
            self.make_snapshot().await;
            let mut is_decided = true;
            let snapshot = || {
                let mut parts = self.parts();
                is_decided = parts.is_as_decided(basis);
                // Commits enter under the parts' lock.
                let is_safe = is_decided && parts.is_at_hand() && self.gate.is_safe();
                is_safe.then(|| self.messages_of(&mut parts, since))
            };
            let joined = self
                .subscribers
                .join_state(outlet.clone(), &self.source(), snapshot);
            if joined || !is_decided || self.subscribers.has_left() {
                return Ok(joined);
            }
            // As of now, once it is safe: the patches behind it wait at the gate as well.
            let (told, joined) = oneshot::channel();
            let waits = {
                let mut parts = self.parts();
                if !parts.is_as_decided(basis) {
                    return Ok(false);
                }
                if !parts.is_at_hand() {
                    // It was lent again; it is as it was, or another one.
                    continue;
                }
                let messages = self.messages_of(&mut parts, since);
                let (live, outlet) = (self.clone(), outlet.clone());
                let departure = async move |outcome: Result<(), Failure>| {
                    let source = live.source();
                    let join = || {
                        live.subscribers
                            .join_state(outlet, &source, || Some(messages))
                    };
                    // Who does not wait any longer is undone by whoever gave up.
                    let _ = told.send(outcome.map(|()| join()));
                };
                self.gate.leave(departure).is_none()
            };
            if waits {
                return passed(joined, still).await;
            }
        }
    }

    /// Subscribes to a view of the state, when it is safe.
    async fn join_view(
        self: &Arc<Self>,
        outlet: Arc<dyn Outlet>,
        component: &Component,
        basis: &Basis,
        still: &mut Option<Still>,
    ) -> Result<bool, Failure> {
        let clients = [outlet.client()];
        let (mut views, pinned) = self.views(component, &clients, basis, None).await;
        let Some(view) = views.pop() else {
            return Ok(false);
        };
        let view = view?;
        let whole = self.whole_for(component, &pinned, [&view]).await?;
        let shows = self.when_safe(&pinned, whole, move |live, shown, is_fit| {
            let source = live.source();
            live.subscribers
                .join_view(outlet, view, shown, &source, is_fit)
        });
        match shows.await {
            Some(shows) => passed(shows, still).await,
            None => Ok(false),
        }
    }

    /// Shows a state when it is safe, and before anything that was committed behind it; it is
    /// told how, and what says whether that is still the one. None where it no longer is. Where
    /// the whole state is long and shown, its text was made before.
    ///
    /// Only for actors with a guard, which commit nothing while something waits at their gate.
    async fn when_safe(
        self: &Arc<Self>,
        pinned: &Arc<Pinned>,
        whole: Option<Arc<str>>,
        show: impl FnOnce(&ActorState, &Shown<'_>, &dyn Fn() -> bool) -> bool + Send + 'static,
    ) -> Option<Shows> {
        let (told, shows) = oneshot::channel();
        let departure = {
            let (live, pinned) = (self.clone(), pinned.clone());
            async move |outcome: Result<(), Failure>| {
                let whole = || whole.clone().unwrap_or_else(|| live.text_of(&pinned));
                let is_fit = || live.parts().is_at(&pinned);
                let show = || show(&live, &live.shown(&pinned, &whole), &is_fit);
                // Who does not wait any longer is undone by whoever gave up.
                let _ = told.send(outcome.map(|()| show()));
            }
        };
        let open = {
            let parts = self.parts();
            // Commits enter under the parts' lock.
            let enters = || self.gate.leave(departure);
            parts.is_at(pinned).then(enters)?
        };
        if let Some(departure) = open {
            departure(Ok(())).await;
        }
        Some(shows)
    }

    /// One version of the state, as it is to be shown to who has nothing of it.
    pub(crate) fn shown<'a>(
        &'a self,
        pinned: &'a Pinned,
        whole: &'a (dyn Fn() -> Arc<str> + Sync),
    ) -> Shown<'a> {
        Shown {
            actor: &self.key,
            epoch: &pinned.epoch,
            version: pinned.version,
            patch: None,
            whole,
            restart: true,
        }
    }

    /// Makes up for what one subscriber of an actor with a guard has missed. It may have lagged
    /// behind the turn that took its right away.
    pub(crate) async fn refresh_guarded(self: Arc<Self>, outlet: Arc<str>) {
        let mut still = None;
        for attempt in 1.. {
            if attempt >= MAX_DECISIONS && still.is_none() {
                still = Some(self.hold_still().await);
            }
            self.at_rest().await;
            let Ok(component) = self.component() else {
                return;
            };
            let Some(receiver) = self.subscribers.viewer(&outlet) else {
                return;
            };
            let decided = self.decide_on(&component, &receiver).await;
            let shown = match decided {
                Ok(basis) if component.access(self.key.actor.as_str()).project => {
                    self.refresh_view(&receiver, &component, &basis).await
                }
                Ok(basis) => self.refresh_decided(&outlet, &component, &basis).await,
                Err(failure) => Err(failure),
            };
            let shown = match shown {
                Ok(shown) => shown,
                // There is nothing that could make up for what it has missed.
                Err(failure) => {
                    self.subscribers.leave_stream(&outlet, Stream::State);
                    return receiver.end(&*self, &failure);
                }
            };
            if matches!(Showing::of(shown, &mut still).await, Showing::Done) {
                return;
            }
        }
    }

    /// What the guard's word about a subscriber is based on, where it is asked at each commit.
    async fn decide_on(
        self: &Arc<Self>,
        component: &Arc<Component>,
        receiver: &Arc<dyn Outlet>,
    ) -> Result<Basis, Failure> {
        if !self.guards().at_each_commit() {
            return Ok(None);
        }
        let who = [(receiver.client(), Subject::State)];
        let (mut decided, basis) = self.decide(Some(component), &who, None).await;
        match decided.pop() {
            Some(decision) => decision.and_then(|decision| decision).map(|()| basis),
            None => Ok(basis),
        }
    }

    async fn refresh_decided(
        self: &Arc<Self>,
        outlet: &Arc<str>,
        component: &Component,
        basis: &Basis,
    ) -> Result<Option<Shows>, Failure> {
        let pinned = match basis {
            Some(decided) => decided.clone(),
            None => self.pin().await,
        };
        self.make_snapshot().await;
        let is_at_hand = self.parts().is_at_hand();
        let whole = match is_at_hand {
            true => None,
            false => self.whole_for(component, &pinned, [&View::Whole]).await?,
        };
        let (outlet, decided) = (outlet.clone(), pinned.clone());
        let shows = self.when_safe(&pinned, whole, move |live, shown, is_fit| {
            let source = live.source();
            if !live.parts().is_at_hand() {
                // What was decided on is told from its copy: nobody waits for the document here.
                return live
                    .subscribers
                    .refresh_view(&outlet, View::Whole, shown, &source, is_fit);
            }
            let snapshot = || {
                let mut parts = live.parts();
                let is_fit = parts.is_at(&decided) && parts.is_at_hand();
                is_fit.then(|| live.snapshot_of(&mut parts))
            };
            live.subscribers.refresh_state(&outlet, &source, snapshot)
        });
        Ok(shows.await)
    }

    async fn refresh_view(
        self: &Arc<Self>,
        receiver: &Arc<dyn Outlet>,
        component: &Component,
        basis: &Basis,
    ) -> Result<Option<Shows>, Failure> {
        let clients = [receiver.client()];
        let (mut views, pinned) = self.views(component, &clients, basis, None).await;
        let Some(view) = views.pop() else {
            return Ok(None);
        };
        let (view, outlet) = (view?, receiver.id().clone());
        let whole = self.whole_for(component, &pinned, [&view]).await?;
        let shows = self.when_safe(&pinned, whole, move |live, shown, is_fit| {
            let source = live.source();
            live.subscribers
                .refresh_view(&outlet, view, shown, &source, is_fit)
        });
        Ok(shows.await)
    }

    /// Shows every state subscriber its view anew.
    pub(crate) async fn show_views_again(self: &Arc<Self>, component: &Component) {
        let mut still = None;
        for attempt in 1.. {
            if attempt >= MAX_DECISIONS && still.is_none() {
                still = Some(self.hold_still().await);
            }
            let viewers = self.subscribers.viewers();
            if viewers.is_empty() {
                return;
            }
            let (views, pinned) = self.views_of(component, viewers).await;
            let seen = views.iter().map(|(_, view)| view);
            // What others held before is not kept for want of time.
            let whole = self.whole_for(component, &pinned, seen).await;
            let shows = self.when_safe(
                &pinned,
                whole.unwrap_or_default(),
                move |live, shown, is_fit| {
                    let _raised = live.subscribers.cork_state(live.gate.batch());
                    let source = live.source();
                    live.subscribers
                        .publish_views(views, shown, Steps::none(), &source, is_fit)
                        .is_some()
                },
            );
            if matches!(Showing::of(shows.await, &mut still).await, Showing::Done) {
                return;
            }
        }
    }
}

/// Whether it was shown, once that is known.
type Shows = oneshot::Receiver<Result<bool, Failure>>;

/// Waits until it has left the gate. Others may need what holds the actor still for that.
async fn passed(mut shows: Shows, still: &mut Option<Still>) -> Result<bool, Failure> {
    if let Ok(shown) = shows.try_recv() {
        return shown;
    }
    *still = None;
    let gone = |_| Err(Failure::host_failed());
    shows.await.unwrap_or_else(gone)
}

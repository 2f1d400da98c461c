//! A receiver at another host, as those see it who publish here.
//!
//! Invariant: once it is forgotten nothing is sent to it.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tidegate_core::place::Incarnation;
use tidegate_core::{ActorKey, Client, Failure};
use tidegate_delivery::{Close, Offer, Outlet, SharedFrame, Source};
use tidegate_registry::placement::Links;

use super::super::Shared;
use super::wire::Tell;
use crate::live::{Stream, Update};

/// A receiver elsewhere of one stream of an actor here.
pub(crate) struct FarOutlet {
    host: Incarnation,
    id: Arc<str>,
    client: Client,
    key: ActorKey,
    stream: Stream,
    links: Arc<dyn Links>,
    is_forgotten: AtomicBool,
}

impl FarOutlet {
    pub(super) fn new(
        host: Incarnation,
        id: Arc<str>,
        client: Client,
        key: ActorKey,
        stream: Stream,
        links: Arc<dyn Links>,
    ) -> Arc<FarOutlet> {
        Arc::new(FarOutlet {
            host,
            id,
            client,
            key,
            stream,
            links,
            is_forgotten: AtomicBool::new(false),
        })
    }

    /// Where it is.
    pub(super) fn host(&self) -> &Incarnation {
        &self.host
    }

    /// Sends it nothing any more.
    pub(super) fn forget(&self) {
        self.is_forgotten.store(true, Ordering::Relaxed);
    }

    fn is_forgotten(&self) -> bool {
        self.is_forgotten.load(Ordering::Relaxed)
    }

    /// Says a last word, as soon as its host takes it.
    fn say_last(&self, tell: Tell) {
        self.forget();
        let (links, host) = (self.links.clone(), self.host.clone());
        if !links.tell(&host, tell.parcel()) {
            tokio::spawn(async move {
                links.room(&host).await;
                let _ = links.tell(&host, tell.parcel());
            });
        }
    }
}

impl Outlet for FarOutlet {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn offer(&self, frame: &SharedFrame) -> Offer {
        if self.is_forgotten() {
            return Offer::Gone;
        }
        let content: &dyn Any = frame.content();
        let Some(update) = content.downcast_ref::<Update>() else {
            // Nothing but actors publishes to it.
            return Offer::Gone;
        };
        let tell = Tell::Update {
            watcher: self.id.clone(),
            update: update.clone(),
        };
        match self.links.tell(&self.host, tell.parcel()) {
            true => Offer::Taken,
            false => Offer::Full,
        }
    }

    fn refresh_later(&self, source: Arc<dyn Source>) {
        let (links, host, id) = (self.links.clone(), self.host.clone(), self.id.clone());
        tokio::spawn(async move {
            links.room(&host).await;
            source.refresh(&id);
        });
    }

    fn close(&self, _: Close) {
        self.say_last(Tell::Closed {
            actor: self.key.clone(),
            stream: self.stream,
            watcher: self.id.clone(),
        });
    }

    fn client(&self) -> Client {
        self.client.clone()
    }

    fn end(&self, _: &dyn Source, failure: &Failure) {
        self.say_last(Tell::Ended {
            actor: self.key.clone(),
            stream: self.stream,
            watcher: self.id.clone(),
            failure: failure.into(),
        });
    }
}

/// An actor elsewhere, as its watchers here know it.
pub(super) struct FarSource {
    pub(super) shared: Weak<Shared>,
    pub(super) key: ActorKey,
}

impl Source for FarSource {
    fn refresh(&self, outlet: &str) {
        if let Some(shared) = self.shared.upgrade() {
            shared.watch_anew(&self.key, outlet);
        }
    }

    fn name_in(&self, failure: Failure) -> Failure {
        failure
            .param("actor", self.key.actor.as_str())
            .param("actorId", self.key.id.as_str())
    }
}

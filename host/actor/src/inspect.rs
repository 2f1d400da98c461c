//! What operators are told of actors: which there are, and how one of them is doing.
//!
//! Nothing here brings an actor into memory or waits for its turn.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tidegate_core::{ActorKey, Failure, Json};
use tidegate_store::Listing;

use super::{Actors, not_found};
use crate::records::ActorRecords;
use crate::state::unavailable;

/// One actor of a listing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// The actor type.
    pub actor: String,
    /// Its id.
    pub id: String,
    /// Whether it is in memory, and not only stored.
    pub in_memory: bool,
}

/// A part of a listing, in the order of types and ids.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// The actors.
    pub actors: Vec<Listed>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// How one actor is doing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The actor type.
    pub actor: String,
    /// Its id.
    pub id: String,
    /// Whether it is in memory, and not only stored.
    pub in_memory: bool,
    /// The last committed state, hidden members included.
    pub state: Json,
    /// Which history the state is of.
    pub epoch: String,
    /// Where in it.
    pub version: u64,
    /// Which version of the state it is, as the manifest counts them.
    pub state_version: u32,
    /// Items that wait in its queue.
    pub queue_depth: usize,
    /// Subscribers to the state.
    pub state_subscribers: usize,
    /// Subscribers to the events.
    pub event_subscribers: usize,
    /// Connections that have had contact with it and are open.
    pub connections: Vec<String>,
    /// Whether a component instance waits for its next turn.
    pub has_instance: bool,
    /// Milliseconds since it last had something to do; absent when it is not in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

impl Actors {
    /// Actors in memory and in the store, a page at a time.
    pub async fn list(&self, listing: &Listing<ActorRecords>) -> Result<Page, Failure> {
        // One more than asked for tells whether there are more.
        let wanted = Listing {
            limit: listing.limit + 1,
            name: listing.name.clone(),
            prefix: listing.prefix.clone(),
            after: listing.after.clone(),
        };
        let stored = self.shared.store.list(&wanted).await;
        let stored = stored.map_err(|error| unavailable(&error))?;
        let shared = self.shared.clone();
        let in_memory = aside(move || {
            let keys: Vec<ActorKey> = shared.table.all().map(|a| a.key.clone()).collect();
            wanted.select(keys.iter()).into_iter().collect()
        });
        let in_memory: BTreeSet<ActorKey> = in_memory.await;
        let all: BTreeSet<ActorKey> = stored.into_iter().chain(in_memory.clone()).collect();
        let more = all.len() > listing.limit;
        let listed = |key: ActorKey| Listed {
            in_memory: in_memory.contains(&key),
            actor: key.actor.to_string(),
            id: key.id.as_str().to_owned(),
        };
        Ok(Page {
            actors: all.into_iter().take(listing.limit).map(listed).collect(),
            more,
        })
    }

    /// How an actor is doing.
    pub async fn about(&self, key: &ActorKey) -> Result<About, Failure> {
        let actor = self.shared.table.get(key);
        let loaded = actor
            .as_ref()
            .and_then(|actor| Some((actor, actor.loaded()?)));
        let (stored, in_memory) = match loaded {
            Some((_, live)) => {
                // As safe as it will be; operators are shown what was lost, too.
                let _ = live.gate.passed().await;
                live.at_rest().await;
                (live.to_stored(), true)
            }
            None => {
                let stored = self.shared.store.load(key).await;
                let stored = stored.map_err(|error| unavailable(&error))?;
                let (stored, _) = stored.ok_or_else(|| not_found(key))?;
                (stored, false)
            }
        };
        let (state_subscribers, event_subscribers) =
            loaded.map_or((0, 0), |(_, live)| live.subscribers.len());
        let connections = stored.connections.iter();
        Ok(About {
            actor: key.actor.to_string(),
            id: key.id.as_str().to_owned(),
            in_memory,
            state: stored.state,
            epoch: stored.epoch.to_string(),
            version: stored.version,
            state_version: stored.state_version,
            queue_depth: loaded.map_or(0, |(actor, _)| actor.queue_depth()),
            state_subscribers,
            event_subscribers,
            connections: connections
                .map(|connected| connected.id.to_string())
                .collect(),
            has_instance: loaded.is_some_and(|(actor, _)| actor.has_instance()),
            idle_ms: loaded.map(|(actor, _)| actor.idle_ms(&self.shared)),
        })
    }

    /// Actors in memory, and instances that wait for their next turn, by actor type.
    pub async fn counts(&self) -> BTreeMap<String, (usize, usize)> {
        let shared = self.shared.clone();
        aside(move || {
            let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
            for actor in shared.table.all() {
                let name = actor.key.actor.as_str();
                if !counts.contains_key(name) {
                    counts.insert(name.to_owned(), (0, 0));
                }
                if let Some(count) = counts.get_mut(name) {
                    count.0 += 1;
                    count.1 += usize::from(actor.has_instance());
                }
            }
            counts
        })
        .await
    }
}

/// Looks at all actors, of which there may be a million, off the threads that serve.
async fn aside<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    let looked = tokio::task::spawn_blocking(look).await;
    looked.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

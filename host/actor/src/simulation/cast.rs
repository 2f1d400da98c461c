//! Who plays with the actors: the handlers, the store under observation, subscribers, and dice.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidegate_base::config::Durability;
use tidegate_base::sync::Mutex;
use tidegate_core::place::{Shard, Term};
use tidegate_core::turn::{Change, Stored};
use tidegate_core::{ActorId, ActorKey, Client, Failure, Json, Name, PatchOp, patch};
use tidegate_delivery::{Close, Offer, Outlet, SharedFrame, Source};
use tidegate_engine::{Compiling, Component, Engine, Grants};
use tidegate_store::{
    Commit, Committed, Durable, Keyspace, Later, Listing, Store, StoreError, StoreFigures, Weight,
};
use tidegate_testkit::dice::Rng;
use tokio::sync::Notify;

use super::books::Book;
use crate::live::{Body, Update};
use crate::records::ActorRecords;

/// The key of an actor.
pub(super) fn key(actor: &str, id: &str) -> ActorKey {
    let name = Name::parse(actor).expect("a name");
    ActorKey::new(name, ActorId::parse(id).expect("an id"))
}

/// `lab`, twice for each level, so that one can take the other's place.
pub(super) struct Components {
    pub(super) strict: [Arc<Component>; 2],
    pub(super) relaxed: [Arc<Component>; 2],
}

/// Compiled once for all schedules.
pub(super) fn components() -> &'static Components {
    static COMPONENTS: OnceLock<Components> = OnceLock::new();
    COMPONENTS.get_or_init(|| {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
        let folder = Path::new(&package).join("../../target");
        let file = folder.join("handlers/lab.wasm");
        let bytes = std::fs::read(&file).unwrap_or_else(|error| {
            panic!("{}: {error}; run `cargo xtask handlers`", file.display())
        });
        let settings = tidegate_engine::config::Engine {
            cache_dir: folder.join("compiled"),
            // Guests that yield by the system's clock would differ from run to run.
            epoch_tick_ms: 60 * 60 * 1000,
            ..tidegate_engine::config::Engine::default()
        };
        let engine =
            Engine::new(&settings, Compiling::InThisProcess, Arc::default()).expect("an engine");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let load = |durability: Durability| {
            let grants = || Grants {
                durability,
                ..Grants::default()
            };
            [(), ()].map(|()| {
                let loaded = runtime.block_on(engine.load("lab", bytes.clone(), grants()));
                Arc::new(loaded.expect("lab is sound"))
            })
        };
        Components {
            strict: load(Durability::Strict),
            relaxed: load(Durability::Relaxed),
        }
    })
}

/// Numbers for all who take part.
#[derive(Clone)]
pub(super) struct Dice(Arc<Mutex<Rng>>);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(Arc::new(Mutex::new(Rng::new(seed))))
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        let mut rng = self.0.lock();
        rng.below(bound)
    }

    pub(super) fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn one_of<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Waits for less than this, often not at all.
    pub(super) async fn pause(&self, below_ms: usize) {
        match self.below(below_ms.max(1)) {
            0 => {}
            ms => tokio::time::sleep(Duration::from_millis(ms as u64)).await,
        }
    }
}

/// The store, which notes what it has called safe.
pub(super) struct Watched {
    pub(super) durable: Durable<ActorRecords>,
    pub(super) book: Book,
    /// Something was appended.
    pub(super) appended: Arc<Notify>,
    pub(super) dice: Dice,
    pub(super) slowness_ms: usize,
    /// How many in a hundred loads and commits find it busy.
    pub(super) busy_percent: usize,
}

impl Watched {
    fn is_busy(&self) -> Result<(), StoreError> {
        match self.dice.percent(self.busy_percent) {
            true => Err(StoreError::Unavailable("it is busy".to_owned())),
            false => Ok(()),
        }
    }
}

impl Store for Watched {
    fn shards(&self) -> u16 {
        self.durable.shards()
    }

    fn open(&self, shard: Shard) -> Later<'_, Term> {
        self.durable.open(shard)
    }

    fn release(&self, shard: Shard) {
        self.durable.release(shard);
    }

    fn failed(&self) -> Option<String> {
        self.durable.failed()
    }

    fn figures(&self) -> StoreFigures {
        self.durable.figures()
    }

    fn close(&self) {
        self.durable.close();
        self.appended.notify_one();
    }
}

impl Keyspace<ActorRecords> for Watched {
    fn load<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<(Stored, Weight)>> {
        Box::pin(async move {
            self.dice.pause(self.slowness_ms).await;
            self.is_busy()?;
            let found = self.durable.load(actor).await?;
            if let Some((stored, _)) = &found {
                let mut book = self.book.lock();
                book.is_safe(actor, stored.version);
                book.counts.loads += 1;
            }
            Ok(found)
        })
    }

    fn history<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, Option<(Stored, Vec<Change>)>> {
        Box::pin(async move {
            self.dice.pause(self.slowness_ms).await;
            self.durable.history(actor).await
        })
    }

    fn commit(
        &self,
        commit: Commit<'_, ActorRecords>,
        weight: &mut Weight,
        whole: &dyn Fn() -> Stored,
    ) -> Committed {
        if let Err(busy) = self.is_busy() {
            return Committed::Refused(busy);
        }
        let (actor, version) = (commit.key.clone(), commit.change.version);
        let committed = self.durable.commit(commit, weight, whole);
        self.appended.notify_one();
        let book = self.book.clone();
        match committed {
            Committed::Later(safe) => Committed::Later(Box::pin(async move {
                safe.await?;
                book.lock().is_safe(&actor, version);
                Ok(())
            })),
            other => other,
        }
    }

    fn retire<'a>(
        &'a self,
        actor: &'a ActorKey,
        stored: Stored,
        changed: bool,
        durability: Durability,
    ) -> Later<'a, ()> {
        let retired = self.durable.retire(actor, stored, changed, durability);
        self.appended.notify_one();
        retired
    }

    fn remove<'a>(&'a self, actor: &'a ActorKey) -> Later<'a, bool> {
        Box::pin(async move {
            let mut removed = self.durable.remove(actor);
            // It is appended with the first look.
            let first = futures_util::poll!(removed.as_mut());
            self.appended.notify_one();
            let removed = match first {
                std::task::Poll::Ready(removed) => removed?,
                std::task::Poll::Pending => removed.await?,
            };
            self.book.lock().is_removed(actor);
            Ok(removed)
        })
    }

    fn list<'a>(&'a self, listing: &'a Listing<ActorRecords>) -> Later<'a, Vec<ActorKey>> {
        self.durable.list(listing)
    }

    fn sleeping(&self, shard: Shard) -> Vec<(ActorKey, u64)> {
        self.durable.sleeping(shard)
    }
}

/// What a subscriber has in hand.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) epoch: String,
    pub(super) version: u64,
    state: Json,
}

/// A subscriber to a state, who applies what it is sent.
pub(super) struct Watcher {
    pub(super) actor: ActorKey,
    pub(super) seen: Mutex<Option<Seen>>,
    pub(super) is_closed: AtomicBool,
    /// It has said what it has seen, and waits for what it has missed.
    pub(super) comes_back: AtomicBool,
    id: Arc<str>,
    book: Book,
    dice: Dice,
}

impl Watcher {
    pub(super) fn new(
        id: &str,
        actor: ActorKey,
        seen: Option<Seen>,
        book: Book,
        dice: Dice,
    ) -> Arc<Watcher> {
        Arc::new(Watcher {
            actor,
            seen: Mutex::new(seen),
            is_closed: AtomicBool::new(false),
            comes_back: AtomicBool::new(false),
            id: id.into(),
            book,
            dice,
        })
    }

    pub(super) fn seen(&self) -> Option<Seen> {
        self.seen.lock().clone()
    }

    pub(super) fn id_text(&self) -> &str {
        &self.id
    }

    fn take(&self, message: &SharedFrame) -> Result<(), String> {
        let comes_back = self.comes_back.swap(false, Ordering::Relaxed);
        let mut seen = self.seen.lock();
        match &Update::of(message).body {
            Body::Snapshot {
                state,
                epoch,
                version,
            } => {
                let before = seen.as_ref();
                let before = before.filter(|seen| seen.epoch == **epoch);
                if let Some(later) = before.filter(|seen| seen.version > *version) {
                    return Err(format!("a snapshot of {version} after {}", later.version));
                }
                let state = serde_json::from_str(state).map_err(|error| error.to_string())?;
                *seen = Some(Seen {
                    epoch: epoch.to_string(),
                    version: *version,
                    state,
                });
            }
            Body::Patch {
                patches,
                epoch,
                from,
                version,
                ..
            } => {
                let ops: Vec<PatchOp> =
                    serde_json::from_str(patches).map_err(|error| error.to_string())?;
                let Some(seen) = seen.as_mut() else {
                    return Err("a patch of nothing".to_owned());
                };
                // The answer to who comes back may go on in another epoch.
                if comes_back {
                    seen.epoch = epoch.to_string();
                }
                if seen.epoch != **epoch {
                    return Err(format!("a patch of the epoch {epoch}"));
                }
                let is_nothing = ops.is_empty() && seen.version == *version;
                if *from != seen.version || (*from >= *version && !is_nothing) {
                    return Err(format!("{from} to {version} after {}", seen.version));
                }
                patch::apply(&mut seen.state, &ops).map_err(|error| error.to_string())?;
                seen.version = *version;
                let has_missed = comes_back && !ops.is_empty();
                self.book.lock().counts.resumed += u64::from(has_missed);
            }
            Body::Event { .. } => return Err("an event".to_owned()),
        }
        if let Some(seen) = &*seen {
            let mut book = self.book.lock();
            match &Update::of(message).body {
                // Those of who comes back lead through what was before.
                Body::Patch { .. } => {
                    book.told(&self.actor, &seen.epoch, seen.version, &seen.state);
                }
                _ => book.shown(&self.actor, &seen.epoch, seen.version, &seen.state),
            }
        }
        Ok(())
    }
}

impl Outlet for Watcher {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn offer(&self, message: &SharedFrame) -> Offer {
        if self.is_closed.load(Ordering::Relaxed) {
            return Offer::Gone;
        }
        if self.dice.percent(5) {
            return Offer::Full;
        }
        if let Err(wrong) = self.take(message) {
            let mut book = self.book.lock();
            if !book.is_over {
                book.wrong(format!("{} at {}: {wrong}", self.id, self.actor));
            }
        }
        Offer::Taken
    }

    fn refresh_later(&self, source: Arc<dyn Source>) {
        let (id, dice) = (self.id.clone(), self.dice.clone());
        tokio::spawn(async move {
            dice.pause(20).await;
            source.refresh(&id);
        });
    }

    fn close(&self, _: Close) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn client(&self) -> Client {
        Client::default()
    }

    fn end(&self, _: &dyn Source, failure: &Failure) {
        let actor = &self.actor;
        let what = format!("{} of {actor} was ended: {failure}", self.id);
        self.book.lock().wrong(what);
    }
}

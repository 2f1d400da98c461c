//! Actors: they come into memory with the first contact, run one turn at a time, and
//! leave when nobody needs them.
//!
//! The gateway calls [`Actors`]. Nothing here knows of sockets or HTTP.
//!
//! Invariants: an actor is in memory at most once; joining (a subscription, a read) never
//! waits for a turn.

mod census;
mod instances;
mod mailbox;
mod resident;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate_core::failure::code;
use tidegate_core::{ActorId, ActorKey, Failure, Name};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use self::instances::Instances;
use self::mailbox::{Delivered, Item, Retire};
use self::resident::Actor;
use self::table::{Admission, Table};
use crate::config;
use crate::engine::{Component, Subject};
use crate::fanout::Outlet;
use crate::metrics::Metrics;
use crate::rooms::{Client, Connection, Connections};
use crate::router::{Conflict, Router};
use crate::store::Store;
use crate::turn::Undecided;

pub use self::census::{About, Listed, Page};
pub use self::mailbox::Call;
pub use crate::fanout::Stream;
pub use crate::turn::Read;

/// How often a host that stops tries to send all actors out of memory.
const RETIRE_ROUNDS: usize = 3;

/// The actors of a host.
pub struct Actors {
    shared: Arc<Shared>,
    router: Arc<Router>,
    /// Looks for idle actors; ends with this.
    sweeper: JoinHandle<()>,
}

/// What all actors of a host share.
struct Shared {
    settings: config::Actors,
    access: config::Access,
    store: Arc<dyn Store>,
    connections: Arc<Connections>,
    table: Table,
    instances: Instances,
    /// Set when the host stops: nothing new is let in.
    closing: AtomicBool,
    drains: AtomicUsize,
    drain_ended: Notify,
    next_serial: AtomicU64,
    next_turn: AtomicU64,
    /// Tells the turns of this run of the host from those of other runs.
    run_id: String,
    began: Instant,
}

impl Shared {
    fn next_serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    fn next_turn_id(&self) -> String {
        format!(
            "{}-{:x}",
            self.run_id,
            self.next_turn.fetch_add(1, Ordering::Relaxed)
        )
    }

    fn recheck(&self) -> Duration {
        Duration::from_millis(self.access.recheck_ms)
    }

    fn uptime_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn drain_started(&self) {
        self.drains.fetch_add(1, Ordering::Relaxed);
    }

    fn drain_ended(&self) {
        if self.drains.fetch_sub(1, Ordering::Release) == 1 {
            self.drain_ended.notify_waiters();
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

/// An item that nobody will run, and why.
struct Undelivered {
    failure: Failure,
    item: Item,
}

fn new_epoch() -> Arc<str> {
    random_id(6).into()
}

/// This many random bytes in hexadecimal.
pub fn random_id(bytes: usize) -> String {
    let mut random = [0; 16];
    let random = &mut random[..bytes.min(16)];
    getrandom::fill(random).expect("the system has random numbers");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shutting_down() -> Failure {
    Failure::host(code::HOST_SHUTTING_DOWN).message("the host is shutting down")
}

impl Actors {
    /// No actors yet. Must be called within a tokio runtime.
    pub fn new(
        settings: config::Actors,
        access: config::Access,
        router: Arc<Router>,
        store: Arc<dyn Store>,
        connections: Arc<Connections>,
        metrics: &Metrics,
    ) -> Actors {
        let evicted = metrics.instances_evicted.clone();
        let shared = Arc::new(Shared {
            instances: Instances::new(settings.resident_instances, evicted),
            table: Table::new(settings.max_in_memory),
            settings,
            access,
            store,
            connections,
            closing: AtomicBool::new(false),
            drains: AtomicUsize::new(0),
            drain_ended: Notify::new(),
            next_serial: AtomicU64::new(1),
            next_turn: AtomicU64::new(1),
            run_id: random_id(4),
            began: Instant::now(),
        });
        let sweeper = tokio::spawn(sweep(shared.clone()));
        Actors {
            shared,
            router,
            sweeper,
        }
    }

    /// The key of an actor, if its type exists and its id is valid.
    pub fn key(&self, actor: &str, id: &str) -> Result<ActorKey, Failure> {
        let slot = self
            .router
            .resolve(actor)
            .ok_or_else(|| Failure::unknown_actor(actor))?;
        let id = ActorId::parse(id)
            .map_err(|error| Failure::host(code::ACTOR_INVALID_ID).message(error.to_string()))?;
        Ok(ActorKey {
            actor: slot.actor.clone(),
            id,
        })
    }

    /// The actor in memory, made if need be, unless the host stops.
    fn actor(&self, key: &ActorKey) -> Result<Arc<Actor>, Failure> {
        match self.shared.is_closing() {
            true => Err(shutting_down()),
            false => self.resident(key, Admission::IfRoom),
        }
    }

    fn resident(&self, key: &ActorKey, admission: Admission) -> Result<Arc<Actor>, Failure> {
        if let Some(actor) = self.shared.table.get(key) {
            return Ok(actor);
        }
        let slot = self
            .router
            .resolve(key.actor.as_str())
            .ok_or_else(|| Failure::unknown_actor(key.actor.as_str()))?;
        let make = || Actor::new(key.clone(), slot, &self.shared);
        self.shared
            .table
            .get_or_insert(key, admission, make)
            .ok_or_else(|| {
                Failure::host(code::ACTOR_LIMIT).message("the host has too many actors in memory")
            })
    }

    /// Delivers to the actor or, when it has just left memory, to its successor.
    fn deliver(&self, key: &ActorKey, mut item: Item) -> Result<(), Box<Undelivered>> {
        loop {
            // Who leaves is still let out when nobody is let in.
            let actor = match &item {
                Item::Disconnect(_) => self.resident(key, Admission::Always),
                _ => self.actor(key),
            };
            let actor = match actor {
                Ok(actor) => actor,
                Err(failure) => return Err(Box::new(Undelivered { failure, item })),
            };
            match actor.deliver(item, &self.shared) {
                Delivered::Queued | Delivered::Idle => return Ok(()),
                Delivered::Full(item) => {
                    let failure = mailbox_full();
                    return Err(Box::new(Undelivered { failure, item }));
                }
                Delivered::Gone(gone) => item = gone,
            }
        }
    }

    /// Queues a call. Whatever happens, its reply is sent, once.
    pub fn call(&self, key: &ActorKey, call: Call) {
        if let Err(undelivered) = self.deliver(key, Item::Call(call)) {
            undelivered.item.refuse(key, undelivered.failure);
        }
    }

    /// First contact of a connection with an actor.
    pub fn connect(&self, key: &ActorKey, connection: &Connection) -> Result<(), Failure> {
        self.deliver(key, Item::Connect(connection.client()))
            .map_err(|undelivered| undelivered.failure)
    }

    /// A connection has closed: ends its subscriptions and queues `disconnect` for every
    /// actor it had contact with, behind the calls that it made.
    pub fn disconnect(&self, connection: &Connection) {
        for key in connection.take_contacts() {
            match self.shared.table.get(&key) {
                Some(actor) => self.leave(&actor, |live| live.audience.leave(connection.id())),
                // Nobody would notice: what is stored of connections is checked when the
                // actor comes back.
                None if !self.has_disconnect_hook(&key) => continue,
                None => {}
            }
            let item = Item::Disconnect(connection.client());
            if let Err(undelivered) = self.deliver(&key, item) {
                undelivered.item.refuse(&key, undelivered.failure);
            }
        }
    }

    fn has_disconnect_hook(&self, key: &ActorKey) -> bool {
        let slot = self.router.resolve(key.actor.as_str());
        let component = slot.and_then(|slot| slot.component());
        component.is_some_and(|component| {
            let actors = &component.manifest.actors;
            let declared = actors.get(key.actor.as_str());
            declared.is_some_and(|declared| declared.hooks.disconnect)
        })
    }

    /// Subscribes a receiver; for the state it gets the last committed state first. Never
    /// waits for a turn.
    pub async fn subscribe(
        &self,
        key: &ActorKey,
        stream: Stream,
        outlet: Arc<dyn Outlet>,
    ) -> Result<(), Failure> {
        loop {
            let actor = self.actor(key)?;
            let live = actor.live(&self.shared).await?;
            live.authorize(outlet.client(), subject(stream), &self.shared.access)
                .await?;
            match stream {
                Stream::State => live.subscribe_state(outlet.clone()).await?,
                Stream::Events => live.audience.join_events(outlet.clone()),
            }
            // From here on the actor stays; if it has left meanwhile, its successor is
            // subscribed to.
            if actor.wake(&self.shared) {
                return Ok(());
            }
        }
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, key: &ActorKey, stream: Stream, outlet: &str) {
        if let Some(actor) = self.shared.table.get(key) {
            self.leave(&actor, |live| live.audience.leave_stream(outlet, stream));
        }
    }

    fn leave(&self, actor: &Actor, leave: impl FnOnce(&crate::turn::Live)) {
        if let Some(live) = actor.loaded() {
            leave(live);
            // Idleness counts from the last subscriber's leaving.
            actor.touch(&self.shared);
        }
    }

    /// The last committed state, as this client may see it. Never waits for a turn.
    pub async fn read(&self, key: &ActorKey, who: Client) -> Result<Read, Failure> {
        loop {
            let actor = self.actor(key)?;
            let live = actor.live(&self.shared).await?;
            live.authorize(who.clone(), Subject::State, &self.shared.access)
                .await?;
            let read = live.read(who.clone()).await?;
            if actor.wake(&self.shared) {
                return Ok(read);
            }
        }
    }

    /// Asks the guards again about everything that a connection subscribes to: it is
    /// somebody else now, or has other claims.
    pub async fn authorize_again(&self, connection: &Connection) {
        for key in connection.contacts() {
            let actor = self.shared.table.get(&key);
            if let Some(live) = actor.as_ref().and_then(|actor| actor.loaded()) {
                live.authorize_again(Some(connection.id()), Undecided::Leave)
                    .await;
            }
        }
    }

    /// All components, by name.
    pub fn components(&self) -> Vec<(Name, Arc<Component>)> {
        self.router.components()
    }

    /// The component of this name.
    pub fn component(&self, name: &str) -> Option<Arc<Component>> {
        self.router.component(name)
    }

    /// Takes a component in, in place of the one that had its name. Running turns finish on
    /// the old code, every later turn runs the new. Refused, and then nothing changes, when
    /// another component has one of its actor types, or, unless that is forced, when actors
    /// of a type that it no longer has are in memory.
    pub fn install(
        &self,
        name: Name,
        component: Component,
        in_use: InUse,
    ) -> Result<Option<Arc<Component>>, Failure> {
        let component = Arc::new(component);
        let conflict = |conflict: Conflict| {
            Failure::host(code::COMPONENT_CONFLICT)
                .param("actor", conflict.actor.as_str())
                .param("component", conflict.first.as_str())
                .message(conflict.to_string())
        };
        self.router.check(&name, &component).map_err(conflict)?;
        let dropped = self.router.dropped_by(&name, &component);
        self.check_unused(&dropped, in_use)?;
        let replaced = self
            .router
            .install(name, component.clone())
            .map_err(conflict)?;
        self.withdraw(&dropped);
        if replaced.is_some() {
            tokio::spawn(follow(self.shared.clone(), component));
        }
        Ok(replaced)
    }

    /// Takes a component away; refused, unless that is forced, when actors that it serves
    /// are in memory.
    pub fn remove(&self, name: &str, in_use: InUse) -> Result<Arc<Component>, Failure> {
        let unknown = || {
            Failure::host(code::COMPONENT_UNKNOWN).message("no component of this name is loaded")
        };
        let component = self.router.component(name).ok_or_else(unknown)?;
        let actors: Vec<Name> = component.manifest.actors.keys().cloned().collect();
        self.check_unused(&actors, in_use)?;
        let removed = self.router.remove(name).ok_or_else(unknown)?;
        self.withdraw(&actors);
        Ok(removed)
    }

    fn check_unused(&self, actors: &[Name], in_use: InUse) -> Result<(), Failure> {
        if in_use == InUse::Evict || actors.is_empty() {
            return Ok(());
        }
        let served = |actor: &Arc<Actor>| actors.contains(&actor.key.actor);
        let used = self.shared.table.all().filter(served).count();
        match used {
            0 => Ok(()),
            used => Err(Failure::host(code::COMPONENT_IN_USE)
                .message(format!(
                    "{used} actors that only this component serves are in memory"
                ))
                .param("actors", used)),
        }
    }

    /// Sends the actors of types that have no component out of memory.
    fn withdraw(&self, actors: &[Name]) {
        for actor in self.shared.table.all() {
            if actors.contains(&actor.key.actor) {
                let _ = actor.deliver(Item::Retire(Retire::Withdrawn), &self.shared);
            }
        }
    }

    /// Forgets an actor's state, behind the work that it has queued. Whoever subscribes to
    /// it goes on with the state of a new actor.
    pub async fn destroy(&self, key: &ActorKey) -> Result<(), Failure> {
        let is_resident = self.shared.table.get(key).is_some();
        if !is_resident {
            let stored = self.shared.store.load(key).await;
            match stored {
                Ok(Some(_)) => {}
                Ok(None) => return Err(not_found(key)),
                Err(error) => {
                    return Err(Failure::host(code::STORE_UNAVAILABLE).message(error.to_string()));
                }
            }
        }
        let (done, destroyed) = oneshot::channel();
        if let Err(undelivered) = self.deliver(key, Item::Destroy(done)) {
            return Err(undelivered.failure);
        }
        destroyed
            .await
            .unwrap_or_else(|_| Err(Failure::host(code::INTERNAL).message("the host failed")))
    }

    /// Lets nothing new in and waits until every queue is empty.
    pub async fn finish_turns(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.drained().await;
    }

    async fn drained(&self) {
        loop {
            let ended = self.shared.drain_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.shared.drains.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Runs `deactivate` everywhere and empties the memory.
    pub async fn retire_all(&self) {
        // Again for those that came in to be told of a connection's end meanwhile.
        for _ in 0..RETIRE_ROUNDS {
            if self.shared.table.is_empty() {
                return;
            }
            for actor in self.shared.table.all() {
                let _ = actor.deliver(Item::Retire(Retire::Always), &self.shared);
            }
            self.drained().await;
        }
    }
}

impl Drop for Actors {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

/// Sends idle actors out of memory.
async fn sweep(shared: Arc<Shared>) {
    let idle = Duration::from_millis(shared.settings.idle_timeout_ms);
    let pace = (idle / 4).clamp(Duration::from_millis(20), Duration::from_secs(10));
    loop {
        tokio::time::sleep(pace).await;
        let Some(before) = shared
            .uptime_ms()
            .checked_sub(shared.settings.idle_timeout_ms)
        else {
            continue;
        };
        for actor in shared.table.all() {
            if actor.is_idle_since(before) {
                let _ = actor.deliver(Item::Retire(Retire::WhenIdle), &shared);
            }
        }
    }
}

/// What to do about actors in memory that nobody would serve any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Refuse.
    Refuse,
    /// Send them out of memory; their states stay stored.
    Evict,
}

/// Shows the subscribers of a replaced component what its successor lets them see.
async fn follow(shared: Arc<Shared>, component: Arc<Component>) {
    for actor in shared.table.all() {
        let served = component
            .manifest
            .actors
            .contains_key(actor.key.actor.as_str());
        let Some(live) = actor.loaded().filter(|_| served) else {
            continue;
        };
        live.authorize_again(None, Undecided::Leave).await;
        if live.adopt(&component) {
            live.show_again().await;
        }
    }
}

fn subject(stream: Stream) -> Subject {
    match stream {
        Stream::State => Subject::State,
        Stream::Events => Subject::Events,
    }
}

fn not_found(key: &ActorKey) -> Failure {
    Failure::host(code::ACTOR_NOT_FOUND).message(format!("there is no actor {key}"))
}

fn mailbox_full() -> Failure {
    Failure::host(code::MAILBOX_FULL).message("the actor has too many calls waiting")
}

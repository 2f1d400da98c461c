//! Actors: they come into memory with the first contact, run one turn at a time, and
//! leave when nobody needs them.
//!
//! The gateway calls [`Actors`]. Nothing here knows of sockets or HTTP.
//!
//! Invariants: an actor is in memory at most once; joining (a subscription, a read) never
//! waits for a turn.

mod activation;
mod backup;
mod claim;
pub mod config;
mod dispatch;
mod gone;
mod inline;
mod inspect;
mod instances;
mod lanes;
pub mod live;
mod mail;
mod mail_queue;
mod mailbox;
pub mod metrics;
mod records;
mod remote;
#[cfg(test)]
mod simulation;
mod sleeping;
pub mod state;
mod sweep;
mod table;
pub mod turn;
mod wait_graph;
mod watching;

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tidegate_base::budget::Budgets;
use tidegate_base::clock::{WallClock, instant};
use tidegate_base::rate::RetryAfter;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_base::timer::{Due, Timers};
use tidegate_core::failure::code;
use tidegate_core::place::{Incarnation, Shard};
use tidegate_core::protocol::Since;
use tidegate_core::turn::Connected;
use tidegate_core::turn::idempotency::Bounds as KeyBounds;
use tidegate_core::turn::mail::Bounds as MailBounds;
use tidegate_core::{ActorId, ActorKey, Client, Failure, Name, Origin};
use tidegate_delivery::Outlet;
use tidegate_delivery::connections::{Connection, Connections, Presence};
use tidegate_engine::{Component, GivesWay};
use tidegate_registry::claims::ClaimKind;
use tidegate_registry::placement::{Home, Placement};
use tidegate_registry::router::Conflict;
use tidegate_store::Keyspace;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use self::activation::Activation;
pub use self::backup::Existing;
pub use self::claim::{Router, Slot, router};
use self::dispatch::Ways;
pub use self::inline::InlineRun;
pub use self::inspect::{About, Listed, Page};
use self::instances::Instances;
use self::lanes::Lanes;
use self::mail_queue::MailQueue;
pub use self::mailbox::Call;
use self::mailbox::{Delivered, Ending, Item, Retire};
use self::metrics::Metrics;
pub use self::records::ActorRecords;
use self::remote::Remote;
pub use self::remote::new_incarnation;
use self::sleeping::{Sleeping, Wake};
use self::table::{Admission, Table};
use self::wait_graph::WaitGraph;
pub use self::watching::{Arriving, FirstContact};
pub use crate::live::Stream;
use crate::state::unavailable;
pub use crate::turn::Read;
use crate::turn::{Clock, Dispatch, TimerKey, Undecided, Which};

/// What is left of the idle timeout when few more actors fit into memory, so that one who
/// names many keeps others out for no longer.
const SCARCE_IDLE: Duration = Duration::from_secs(1);

/// What a call takes beside its input, in bytes.
const CALL_COST: usize = 512;

/// When an actor that there was no room for may find some: idle ones are being sent away.
const ROOM_AFTER: Duration = SCARCE_IDLE;

/// How often a host that stops tries to send all actors out of memory.
const RETIRE_ROUNDS: usize = 3;

/// The actors of a host.
pub struct Actors {
    shared: Arc<Shared>,
    /// Looks for idle actors; ends with this.
    sweeper: JoinHandle<()>,
}

/// What all actors of a host share.
struct Shared {
    router: Arc<Router>,
    clock: Clock,
    wait_graph: WaitGraph,
    mail_queue: MailQueue,
    remote: Remote,
    /// What wakes actors that are not in memory.
    sleeping: Sleeping,
    itself: Weak<Shared>,
    /// The open connections of actors that are not in memory, where the handler does not
    /// want to be told of their end and the store need not know them.
    detached_connections: Mutex<HashMap<ActorKey, Vec<Connected>>>,
    settings: config::Actors,
    access: config::Access,
    store: Arc<dyn Keyspace<ActorRecords>>,
    /// Commits of one actor that may be under way while it goes on.
    run_ahead: usize,
    /// What all actors and clients together may make the host hold.
    budgets: Budgets,
    connections: Arc<Connections>,
    table: Table,
    instances: Instances,
    /// Where turns run that do not run where their call arrives.
    lanes: Arc<Lanes>,
    /// Set when the host stops: nothing new is let in.
    closing: AtomicBool,
    drains: AtomicUsize,
    drain_ended: Notify,
    next_serial: AtomicU64,
    next_turn: AtomicU64,
    /// Tells the turns of this run of the host from those of other runs.
    incarnation: Incarnation,
    began: Instant,
}

impl GivesWay for Shared {
    fn give_way(&self) -> bool {
        self.instances.evict_some(instances::A_FEW)
    }
}

impl Shared {
    fn next_serial(&self) -> u64 {
        self.next_serial.fetch_add(1, Ordering::Relaxed)
    }

    fn next_turn_id(&self) -> String {
        turn_id(
            self.incarnation.as_str(),
            self.next_turn.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// How long an actor may have nothing to do before it leaves memory.
    fn idle_timeout_ms(&self) -> u64 {
        let timeout = self.settings.idle_timeout_ms;
        match self.table.is_scarce() {
            true => timeout.min(SCARCE_IDLE.as_millis() as u64),
            false => timeout,
        }
    }

    fn key_bounds(&self) -> KeyBounds {
        KeyBounds {
            calls: self.settings.max_keys,
            age_ms: self.settings.key_ttl_ms,
            bytes: self.settings.max_keys_bytes,
        }
    }

    fn mail_bounds(&self) -> MailBounds {
        MailBounds {
            unsettled: self.settings.max_unsettled,
            bytes: self.settings.max_unsettled_bytes,
            senders: self.settings.max_senders,
        }
    }

    fn recheck(&self) -> Duration {
        Duration::from_millis(self.access.recheck_ms)
    }

    fn uptime_ms(&self) -> u64 {
        (instant() - self.began).as_millis() as u64
    }

    /// How long turns may take that stand between an actor and its end.
    fn end_grace(&self) -> Duration {
        Duration::from_millis(self.settings.end_grace_ms)
    }

    /// For how long what turns let out may gather.
    fn gather(&self) -> Duration {
        Duration::from_millis(self.settings.gather_ms)
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

    fn itself(&self) -> Arc<Shared> {
        let itself = self.itself.upgrade();
        itself.expect("a reference to it exists while one of its methods runs")
    }

    fn dispatch(&self) -> Arc<dyn Dispatch> {
        Arc::new(Ways(self.itself.clone()))
    }

    /// A timer is due: tells its actor.
    fn due(&self, key: &TimerKey, due: Due) {
        if self.is_closing() {
            return;
        }
        if let Err(undelivered) = self.deliver(&key.actor, Item::Due(key.which, due)) {
            warn!(actor = %key.actor, failure = %undelivered.failure, "a timer is delayed");
            // The host is full; the timer waits. Where no component serves the actor, one
            // that comes to do so wakes it.
            let is_served = undelivered.failure.code != code::ACTOR_UNKNOWN;
            if key.which == Which::Wake && is_served {
                self.wake_again(&key.actor);
            }
        }
    }

    /// Brings an actor for which there was no room into memory a little later.
    fn wake_again(&self, actor: &ActorKey) {
        let again_ms = self.clock.steady_ms() + WAKE_RETRY_MS;
        self.sleeping.set_again(actor, again_ms, &self.clock);
    }

    fn detached_connections(&self) -> MutexGuard<'_, HashMap<ActorKey, Vec<Connected>>> {
        self.detached_connections.lock()
    }

    /// Forgets a connection of an actor that is not in memory.
    fn forget_detached(&self, actor: &ActorKey, connection: &str) {
        let mut detached = self.detached_connections();
        if let Some(connections) = detached.get_mut(actor) {
            connections.retain(|connected| *connected.id != *connection);
            if connections.is_empty() {
                detached.remove(actor);
            }
        }
    }

    /// Sets what wakes the actors of these types that have timers and are not in memory.
    fn wake_sleeping(&self, is_served: impl Fn(&Name) -> bool) {
        for shard in 0..self.store.shards() {
            self.wake_shard(Shard(shard), &is_served);
        }
    }

    fn wake_shard(&self, shard: Shard, is_served: impl Fn(&Name) -> bool) {
        for (actor, due_ms) in self.store.sleeping(shard) {
            if is_served(&actor.actor) && self.table.get(&actor).is_none() {
                self.wake_later(&actor, Some(Wake::at(due_ms)));
            }
        }
    }

    /// Brings an actor that leaves memory back at this time, if there is one.
    fn wake_later(&self, actor: &ActorKey, wake: Option<Wake>) {
        match wake {
            Some(wake) => self.sleeping.set(actor, wake, &self.clock),
            None => self.sleeping.remove(actor),
        }
    }

    /// The key of an actor, if its type exists and its id is valid.
    fn key(&self, actor: &str, id: &str) -> Result<ActorKey, Failure> {
        let slot = self
            .router
            .resolve(actor)
            .ok_or_else(|| Failure::unknown_actor(actor))?;
        let id = ActorId::parse(id)?;
        Ok(ActorKey {
            actor: slot.name.clone(),
            id,
        })
    }

    /// The actor in memory, made if need be, unless the host stops.
    fn actor(&self, key: &ActorKey) -> Result<Arc<Activation>, Failure> {
        match self.is_closing() {
            true => Err(Failure::host_shutting_down()),
            false => self.resident(key, Admission::IfRoom),
        }
    }

    fn resident(&self, key: &ActorKey, admission: Admission) -> Result<Arc<Activation>, Failure> {
        if let Some(actor) = self.table.get(key) {
            return Ok(actor);
        }
        let slot = self
            .router
            .resolve(key.actor.as_str())
            .ok_or_else(|| Failure::unknown_actor(key.actor.as_str()))?;
        if admission == Admission::IfRoom
            && let Some(component) = slot.component()
        {
            component.new_actors.check().map_err(RetryAfter::actors)?;
        }
        let itself = self.itself();
        let make = || Activation::new(key.clone(), slot, &itself);
        self.table
            .get_or_insert(key, admission, make)
            .ok_or_else(too_many_actors)
    }

    /// Delivers to the actor or, when it has just left memory, to its successor.
    fn deliver(&self, key: &ActorKey, item: Item) -> Result<(), Box<Undelivered>> {
        self.deliver_inline(key, item).map(drop)
    }

    fn deliver_inline(
        &self,
        key: &ActorKey,
        item: Item,
    ) -> Result<Option<InlineRun>, Box<Undelivered>> {
        match self.remote.is_parked(key) {
            true => self.itself().park(key, item).map(|()| None),
            false => self.route(key, item),
        }
    }

    /// Delivers to wherever the actor is at home.
    fn route(&self, key: &ActorKey, mut item: Item) -> Result<Option<InlineRun>, Box<Undelivered>> {
        let itself = self.itself();
        loop {
            match self.remote.home(key) {
                Home::Here(_) => {}
                Home::There(home) => return itself.hand_to(&home, key, item).map(|()| None),
                Home::Moving => return itself.park(key, item).map(|()| None),
            }
            // Who leaves is still let out when nobody is let in.
            let actor = match &item {
                Item::Disconnect(_) => self.resident(key, Admission::Always),
                // A turn that runs while the host stops may still call others.
                Item::Call(call) if matches!(call.envelope.origin, Origin::Actor(_)) => {
                    self.resident(key, Admission::IfRoom)
                }
                _ => self.actor(key),
            };
            let actor = match actor {
                Ok(actor) => actor,
                Err(failure) => return Err(Box::new(Undelivered { failure, item })),
            };
            let (delivered, ready) = actor.deliver_inline(item, &itself);
            match delivered {
                Delivered::Queued | Delivered::Idle => return Ok(ready),
                Delivered::Full(item) => {
                    let failure = mailbox_full();
                    return Err(Box::new(Undelivered { failure, item }));
                }
                Delivered::Gone(gone) => item = gone,
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.lanes.close();
    }
}

/// An item that nobody will run, and why.
struct Undelivered {
    failure: Failure,
    item: Item,
}

/// Names one turn of a run of the host.
fn turn_id(run: &str, turn: u64) -> String {
    // Made in one piece: each turn makes one.
    let mut id = String::with_capacity(run.len() + 1 + 16);
    id.push_str(run);
    id.push('-');
    write!(id, "{turn:x}").expect("writing to a string cannot fail");
    id
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

/// What actors stand on.
pub struct Setup {
    /// Their settings.
    pub settings: config::Actors,
    /// Those of what guards decide.
    pub access: config::Access,
    /// Which component serves whom.
    pub router: Arc<Router>,
    /// Where they are kept.
    pub store: Arc<dyn Keyspace<ActorRecords>>,
    /// Commits of one actor that may be under way while it goes on.
    pub run_ahead: usize,
    /// The open connections of this host.
    pub connections: Arc<Connections>,
    /// Where actors are at home.
    pub placement: Placement,
    /// Who is connected, to whichever host.
    pub presence: Arc<dyn Presence>,
    /// Which run of a host this is.
    pub incarnation: Incarnation,
    /// What the wall clock shows.
    pub wall: WallClock,
}

impl Setup {
    /// That of a host that is alone, with the settings as they are by default.
    pub fn alone(
        router: Arc<Router>,
        store: Arc<dyn Keyspace<ActorRecords>>,
        connections: Arc<Connections>,
    ) -> Setup {
        Setup {
            settings: config::Actors::default(),
            access: config::Access::default(),
            router,
            store,
            run_ahead: tidegate_store::config::Store::default().run_ahead,
            presence: connections.clone(),
            connections,
            placement: Placement::alone(),
            incarnation: new_incarnation(),
            wall: WallClock::default(),
        }
    }
}

impl Actors {
    /// No actors yet. Must be called within a tokio runtime.
    pub fn new(setup: Setup, metrics: &Metrics) -> Actors {
        let Setup {
            settings,
            access,
            router,
            store,
            run_ahead,
            connections,
            placement,
            presence,
            incarnation,
            wall,
        } = setup;
        let evicted = metrics.instances_evicted.clone();
        let shared = Arc::new_cyclic(|itself: &Weak<Shared>| Shared {
            router,
            clock: {
                let shared = itself.clone();
                Arc::new(Timers::start_on(wall, move |key: TimerKey, due| {
                    if let Some(shared) = shared.upgrade() {
                        shared.due(&key, due);
                    }
                }))
            },
            wait_graph: WaitGraph::default(),
            mail_queue: MailQueue::default(),
            remote: Remote::new(placement, presence),
            sleeping: Sleeping::default(),
            detached_connections: Mutex::default(),
            itself: itself.clone(),
            instances: Instances::new(settings.resident_instances, evicted),
            table: Table::new(settings.max_in_memory, metrics.budgets.actors.clone()),
            budgets: metrics.budgets.clone(),
            lanes: Lanes::new(),
            settings,
            access,
            store,
            run_ahead,
            connections,
            closing: AtomicBool::new(false),
            drains: AtomicUsize::new(0),
            drain_ended: Notify::new(),
            next_serial: AtomicU64::new(1),
            next_turn: AtomicU64::new(1),
            incarnation,
            began: instant(),
        });
        let sweeper = tokio::spawn(sweep::sweep(shared.clone()));
        shared.wake_sleeping(|_| true);
        Actors { shared, sweeper }
    }

    /// Gives up instances that wait for their next turn when guests find no memory.
    pub fn keeper(&self) -> Weak<dyn GivesWay> {
        Arc::<Shared>::downgrade(&self.shared)
    }

    /// The key of an actor, if its type exists and its id is valid.
    pub fn key(&self, actor: &str, id: &str) -> Result<ActorKey, Failure> {
        self.shared.key(actor, id)
    }

    fn deliver(&self, key: &ActorKey, item: Item) -> Result<(), Box<Undelivered>> {
        self.shared.deliver(key, item)
    }

    /// Has something looked at that comes for an actor and is long, off the threads that serve.
    pub async fn aside<T: Send + 'static>(
        &self,
        key: &ActorKey,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let slot = self.shared.router.resolve(key.actor.as_str());
        match slot.and_then(|slot| slot.component()) {
            Some(component) => component.aside(look).await,
            None => Ok(look()),
        }
    }

    /// Queues a call. Whatever happens, its reply is sent, once.
    pub fn call(&self, key: &ActorKey, call: Call) {
        if let Err(undelivered) = self.deliver(key, Item::Call(Box::new(call))) {
            undelivered.item.refuse(key, undelivered.failure);
        }
    }

    /// Queues a call whose caller runs the turn itself, if the actor is at rest: what is
    /// returned is to be run before the caller waits for anything.
    pub fn call_inline(&self, key: &ActorKey, call: Call) -> Option<InlineRun> {
        match self.shared.deliver_inline(key, Item::Call(Box::new(call))) {
            Ok(ready) => ready,
            Err(undelivered) => {
                undelivered.item.refuse(key, undelivered.failure);
                None
            }
        }
    }

    /// Runs what calls have found at rest.
    pub fn run_inline(&self, all: Vec<InlineRun>) {
        let patience = Duration::from_micros(self.shared.settings.run_here_us);
        // Dropped, they are tasks.
        if !patience.is_zero() {
            InlineRun::run_all(all, patience);
        }
    }

    /// Takes a call back that was just cancelled, if it is queued.
    pub fn drop_newest_cancelled(&self, key: &ActorKey) {
        if let Some(actor) = self.shared.table.get(key) {
            actor.drop_newest_cancelled();
        }
    }

    /// Takes back what is queued at an actor and cancelled.
    pub fn drop_cancelled(&self, key: &ActorKey) {
        if let Some(actor) = self.shared.table.get(key) {
            actor.drop_cancelled();
        }
    }

    /// First contact of a connection with an actor. What is returned ends once the actor has been
    /// told of it; none where it does not want to be.
    pub fn connect(
        &self,
        key: &ActorKey,
        connection: &Connection,
    ) -> Result<Option<Arriving>, Failure> {
        self.shared.connect(key, connection)
    }

    /// A connection has closed: ends its subscriptions and queues `disconnect` for every
    /// actor it had contact with, behind the calls that it made.
    pub fn disconnect(&self, connection: &Connection) {
        for key in connection.take_contacts() {
            for stream in [Stream::State, Stream::Events] {
                self.shared.unwatch_there(&key, stream, connection.id());
            }
            match self.shared.table.get(&key) {
                Some(actor) => self.leave(&actor, |live| live.subscribers.leave(connection.id())),
                // Nobody would notice: what is stored of connections is checked when the
                // actor comes back.
                None if !self
                    .shared
                    .hooks(&key)
                    .is_some_and(|hooks| hooks.disconnect) =>
                {
                    self.shared.forget_detached(&key, connection.id());
                    continue;
                }
                None => {}
            }
            let item = Item::Disconnect(connection.client());
            if let Err(undelivered) = self.deliver(&key, item) {
                undelivered.item.refuse(&key, undelivered.failure);
            }
        }
    }

    /// Subscribes a receiver; for the state it gets the last committed state first, or the
    /// patches that lead there from `since`. Never waits for a turn, but for that of a connection's
    /// own `connect`, and for that only so long.
    pub async fn subscribe(
        &self,
        key: &ActorKey,
        stream: Stream,
        outlet: Arc<dyn Outlet>,
        since: Option<&Since>,
        contact: &mut FirstContact<'_>,
    ) -> Result<(), Failure> {
        self.shared
            .subscribe(key, stream, outlet, since, contact)
            .await
    }

    /// Ends a subscription.
    pub fn unsubscribe(&self, key: &ActorKey, stream: Stream, outlet: &str) {
        self.shared.unwatch_there(key, stream, outlet);
        if let Some(actor) = self.shared.table.get(key) {
            self.leave(&actor, |live| live.subscribers.leave_stream(outlet, stream));
        }
    }

    fn leave(&self, actor: &Activation, leave: impl FnOnce(&crate::state::ActorState)) {
        if let Some(live) = actor.loaded() {
            leave(live);
            // Idleness counts from the last subscriber's leaving.
            actor.touch(&self.shared);
        }
    }

    /// The last committed state, as this client may see it. Never waits for a turn, but for those
    /// that part with connections that are gone, and for these only so long.
    pub async fn read(&self, key: &ActorKey, who: Client) -> Result<Read, Failure> {
        self.shared.read(key, who).await
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
        self.shared.router.components()
    }

    /// The component of this name.
    pub fn component(&self, name: &str) -> Option<Arc<Component>> {
        self.shared.router.component(name)
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
        let conflict = |conflict: Conflict| match conflict.kind {
            ClaimKind::Actor => {
                let (actor, component) = (conflict.name.as_str(), conflict.first.as_str());
                Failure::component_conflict(&conflict, actor, component)
            }
        };
        self.shared
            .router
            .check(&name, &component)
            .map_err(conflict)?;
        let router = &self.shared.router;
        let dropped = router.dropped_by(ClaimKind::Actor, &name, &component);
        self.check_unused(&dropped, in_use)?;
        let replaced = self
            .shared
            .router
            .install(name, component.clone())
            .map_err(conflict)?;
        self.withdraw(&dropped);
        let actors = &component.manifest.actors;
        self.shared
            .wake_sleeping(|actor| actors.contains_key(actor.as_str()));
        if replaced.is_some() {
            tokio::spawn(follow(self.shared.clone(), component));
        }
        Ok(replaced)
    }

    /// Takes a component away; refused, unless that is forced, when actors that it serves
    /// are in memory.
    pub fn remove(&self, name: &str, in_use: InUse) -> Result<Arc<Component>, Failure> {
        let unknown = || Failure::component_unknown();
        let component = self.shared.router.component(name).ok_or_else(unknown)?;
        let actors: Vec<Name> = component.manifest.actors.keys().cloned().collect();
        self.check_unused(&actors, in_use)?;
        let removed = self.shared.router.remove(name).ok_or_else(unknown)?;
        self.withdraw(&actors);
        Ok(removed)
    }

    fn check_unused(&self, actors: &[Name], in_use: InUse) -> Result<(), Failure> {
        if in_use == InUse::Evict || actors.is_empty() {
            return Ok(());
        }
        let served = |actor: &Arc<Activation>| actors.contains(&actor.key.actor);
        let used = self.shared.table.all().filter(served).count();
        match used {
            0 => Ok(()),
            used => Err(Failure::component_in_use(used)),
        }
    }

    /// Sends the actors of types that have no component out of memory.
    fn withdraw(&self, actors: &[Name]) {
        let mut withdrawn = Vec::new();
        for actor in self.shared.table.all() {
            if actors.contains(&actor.key.actor) {
                let _ = actor.deliver(Item::Retire(Retire::Withdrawn), &self.shared);
                withdrawn.push(Arc::downgrade(&actor));
            }
        }
        if !withdrawn.is_empty() {
            tokio::spawn(end_turns(
                withdrawn,
                Ending::Withdrawn,
                self.shared.end_grace(),
            ));
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
                Err(error) => return Err(unavailable(&error)),
            }
        }
        let (done, destroyed) = oneshot::channel();
        if let Err(undelivered) = self.deliver(key, Item::Destroy(done)) {
            return Err(undelivered.failure);
        }
        // Also when nobody waits for it any longer.
        let actor = self.shared.table.get(key);
        let actors = actor.iter().map(Arc::downgrade).collect();
        let grace = self.shared.end_grace();
        tokio::spawn(end_turns(actors, Ending::Destroyed, grace));
        destroyed
            .await
            .unwrap_or_else(|_| Err(Failure::host_failed()))
    }

    /// Lets nothing new in and waits until every queue is empty. Turns that are not finished
    /// after this grace are cancelled, and those behind them do not begin.
    pub async fn finish_turns(&self, grace: Duration) {
        self.shared.closing.store(true, Ordering::Relaxed);
        if timeout(grace, self.drained()).await.is_err() {
            for actor in self.shared.table.all() {
                actor.end_turns(Ending::Stopping);
            }
            self.drained().await;
        }
        for actor in self.shared.table.all() {
            if let Some(live) = actor.loaded() {
                // What fails is told to whom it concerns.
                let _ = live.gate.passed().await;
            }
        }
    }

    /// Makes everything that is stored safe; nothing can be stored from then on.
    pub async fn close_store(&self) {
        let store = self.shared.store.clone();
        // A panic there has been reported.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }

    /// Why the store takes nothing any more, if so.
    pub fn store_failed(&self) -> Option<String> {
        self.shared.store.failed()
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

/// When an actor that found no room in memory is tried again.
const WAKE_RETRY_MS: u64 = 1_000;

/// What to do about actors in memory that nobody would serve any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// They are a reason to refuse.
    Refuse,
    /// Send them out of memory; their states stay stored.
    Evict,
}

/// Ends the turns of these that are not finished after this grace, where they stand between their
/// actor and its end.
async fn end_turns(actors: Vec<Weak<Activation>>, ending: Ending, grace: Duration) {
    tokio::time::sleep(grace).await;
    for actor in actors.iter().filter_map(Weak::upgrade) {
        actor.end_turns(ending);
    }
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
        // Many states may have to be looked at.
        tokio::task::consume_budget().await;
        live.at_rest().await;
        if !live.fits(&component) {
            // Its next turn sees to it; those who watch are not to wait for one.
            if !live.subscribers.is_empty() {
                let (done, _) = oneshot::channel();
                let _ = actor.deliver(Item::Fit(done), &shared);
            }
            continue;
        }
        live.adopt_and_show(&component).await;
    }
}

fn not_found(key: &ActorKey) -> Failure {
    Failure::actor_not_found(key)
}

fn too_many_actors() -> Failure {
    Failure::actor_limit(ROOM_AFTER.as_millis() as u64)
}

fn mailbox_full() -> Failure {
    Failure::mailbox_full()
}

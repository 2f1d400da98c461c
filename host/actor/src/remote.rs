//! Actors that are at home on other hosts: what comes for them is handed over, and who watches
//! them from here is sent what they show.
//!
//! Everything that comes for an actor asks here once where the actor is. An actor that is on its
//! way is run by nobody: what comes for it waits, in its order, until it has arrived.
//!
//! Invariants: an item is run by one host, or by none, and then its caller is told so; a watcher is
//! shown each version once and in order, whichever host shows it.

mod carry;
mod outlet;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_base::clock::instant;
use tidegate_base::sync::Mutex;
use tidegate_core::failure::code;
use tidegate_core::place::{EntityKey, Incarnation, Shard};
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, CallEnvelope, Failure};
use tidegate_delivery::connections::Presence;
use tidegate_delivery::{Close, Outlet, Source, Told, show};
use tidegate_engine::Pending;
use tidegate_registry::placement::{Home, Links, Parcel, Placement};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, warn};

use self::carry::Carried;
use self::outlet::{FarOutlet, FarSource};
pub(crate) use self::wire::text;
use self::wire::{Answer, Ask, Tell};
use super::mailbox::{Arrival, Call, Item, Retire};
use super::watching::FirstContact;
use super::{Actors, Shared, Undelivered, mailbox_full, random_id};
use crate::live::{Body, Stream, Update, frame};
use crate::turn::{Read, ReplyTo};

/// When it is looked again where an actor is whose host did not know it.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Names a subscription among all of a host: the receiver's id, the actor and the stream.
type Watched = (Arc<str>, ActorKey, Stream);

/// What waits for each host, in its order.
type Waiting = HashMap<Incarnation, VecDeque<Parcel>>;

/// What a host knows of those elsewhere.
pub(super) struct Remote {
    placement: Placement,
    /// Who is connected, to whichever host.
    pub(super) presence: Arc<dyn Presence>,
    /// Items whose actors are on their way, in the order in which they came.
    parked: Mutex<HashMap<ActorKey, VecDeque<Item>>>,
    /// How many actors have such; mostly none.
    parked_actors: AtomicUsize,
    /// Mail on its way to other hosts.
    carried: Carried,
    /// Receivers here that watch actors elsewhere.
    watches: Mutex<HashMap<Watched, Watch>>,
    /// What other hosts are to be told once they take it.
    waiting: Arc<Mutex<Waiting>>,
    /// Receivers elsewhere that watch actors here.
    far: Mutex<HashMap<Watched, Arc<FarOutlet>>>,
}

/// A receiver here that watches an actor elsewhere.
struct Watch {
    outlet: Arc<dyn Outlet>,
    /// Where the actor is at home.
    home: Incarnation,
    /// What of the state it has been told, as it says, or as this host knows.
    seen: Option<Since>,
    is_known: bool,
    /// It missed something, and waits for the whole state.
    is_stale: bool,
}

impl Remote {
    pub(super) fn new(placement: Placement, presence: Arc<dyn Presence>) -> Remote {
        Remote {
            placement,
            presence,
            parked: Mutex::default(),
            parked_actors: AtomicUsize::new(0),
            carried: Carried::default(),
            watches: Mutex::default(),
            waiting: Arc::default(),
            far: Mutex::default(),
        }
    }

    /// Where an actor is at home.
    #[inline]
    pub(super) fn home(&self, key: &ActorKey) -> Home {
        self.placement.homes.of(EntityKey::of_actor(key))
    }

    /// Whether items wait until this actor has arrived.
    #[inline]
    pub(super) fn is_parked(&self, key: &ActorKey) -> bool {
        self.parked_actors.load(Ordering::Acquire) > 0 && self.parked.lock().contains_key(key)
    }

    /// Tells a host something, in the order in which it is told; later, if it takes no more now.
    fn tell(&self, to: &Incarnation, tell: &Tell) {
        let parcel = tell.parcel();
        let mut waiting = self.waiting.lock();
        if let Some(queue) = waiting.get_mut(to) {
            return queue.push_back(parcel);
        }
        if !self.placement.links.tell(to, parcel.clone()) {
            waiting.insert(to.clone(), VecDeque::from([parcel]));
            let (waiting, links) = (self.waiting.clone(), self.placement.links.clone());
            tokio::spawn(tell_waiting(waiting, links, to.clone()));
        }
    }
}

/// Tells a host what waits for it, until nothing does.
async fn tell_waiting(waiting: Arc<Mutex<Waiting>>, links: Arc<dyn Links>, to: Incarnation) {
    loop {
        links.room(&to).await;
        let mut waiting = waiting.lock();
        let Some(queue) = waiting.get_mut(&to) else {
            return;
        };
        while let Some(parcel) = queue.front() {
            if !links.tell(&to, parcel.clone()) {
                break;
            }
            queue.pop_front();
        }
        if queue.is_empty() {
            waiting.remove(&to);
            return;
        }
    }
}

pub(super) fn moving() -> Failure {
    Failure::actor_moving()
}

/// Whether the actor's host has certainly not run it, and another will.
pub(super) fn is_elsewhere(failure: &Failure) -> bool {
    failure.code == code::ACTOR_MOVING
}

impl Shared {
    /// Keeps an item until its actor has arrived somewhere.
    pub(super) fn park(
        self: &Arc<Self>,
        key: &ActorKey,
        item: Item,
    ) -> Result<(), Box<Undelivered>> {
        match &item {
            // Its new home sets what is due.
            Item::Due(..) | Item::Retire(_) => return Ok(()),
            // Mail waits with its sender.
            Item::Call(call) if call.envelope.mail.is_some() => {
                let failure = moving();
                return Err(Box::new(Undelivered { failure, item }));
            }
            Item::Fit(_) | Item::Destroy(_) => {
                let failure = moving();
                return Err(Box::new(Undelivered { failure, item }));
            }
            Item::Call(_) | Item::Connect(_) | Item::Disconnect(_) => {}
        }
        let mut parked = self.remote.parked.lock();
        let is_first = parked.is_empty();
        let queue = parked.entry(key.clone()).or_default();
        if queue.len() >= self.settings.mailbox_items {
            let failure = mailbox_full();
            return Err(Box::new(Undelivered { failure, item }));
        }
        queue.push_back(item);
        self.remote
            .parked_actors
            .store(parked.len(), Ordering::Release);
        drop(parked);
        if is_first {
            tokio::spawn(unpark(self.clone()));
        }
        Ok(())
    }

    /// Delivers what has waited for this actor, which has arrived. What comes meanwhile waits
    /// behind it.
    fn deliver_parked(self: &Arc<Self>, key: &ActorKey) {
        loop {
            let items = {
                let mut parked = self.remote.parked.lock();
                let Some(queue) = parked.get_mut(key) else {
                    return;
                };
                if queue.is_empty() {
                    parked.remove(key);
                    self.remote
                        .parked_actors
                        .store(parked.len(), Ordering::Release);
                    return;
                }
                std::mem::take(queue)
            };
            for item in items {
                if let Err(undelivered) = self.route(key, item) {
                    undelivered.item.refuse(key, undelivered.failure);
                }
            }
        }
    }

    /// Hands an item to the host where its actor is at home.
    pub(super) fn hand_to(
        self: &Arc<Self>,
        home: &Incarnation,
        key: &ActorKey,
        item: Item,
    ) -> Result<(), Box<Undelivered>> {
        match item {
            Item::Call(call) => self.call_there(home, key, call),
            Item::Connect(arrival) => {
                let (actor, client) = (key.clone(), arrival.client.clone());
                self.remote.tell(home, &Tell::Connect { actor, client });
            }
            Item::Disconnect(client) => {
                let actor = key.clone();
                self.remote.tell(home, &Tell::Disconnect { actor, client });
            }
            Item::Destroy(done) => {
                let asked = self.ask(home, &Ask::Destroy { actor: key.clone() });
                tokio::spawn(async move {
                    // Who does not wait any longer wants no answer.
                    let _ = done.send(asked.await.map(drop));
                });
            }
            Item::Fit(_) => {
                let failure = moving();
                return Err(Box::new(Undelivered { failure, item }));
            }
            // Its home sees to these.
            Item::Due(..) | Item::Retire(_) => {}
        }
        Ok(())
    }

    /// Asks a host something of an actor.
    fn ask(&self, home: &Incarnation, ask: &Ask) -> Pending<Result<Option<String>, Failure>> {
        let answered = self.remote.placement.links.ask(home, ask.parcel());
        Box::pin(async move { Answer::read(&answered.await?) })
    }

    fn call_there(self: &Arc<Self>, home: &Incarnation, key: &ActorKey, call: Box<Call>) {
        let patience = call
            .deadline
            .map(|end| end.saturating_duration_since(instant()));
        let asked = self.ask(
            home,
            &Ask::Call {
                actor: key.clone(),
                call: Box::new(call.envelope.clone()),
                patience_ms: patience.map(|patience| patience.as_millis() as u64),
            },
        );
        let (shared, key) = (self.clone(), key.clone());
        tokio::spawn(async move {
            let answer = tokio::select! {
                biased;
                answer = asked => answer,
                () = call.cancel.cancelled() => {
                    Err(Failure::call_cancelled())
                }
            };
            let again = match &answer {
                Err(failure) if is_elsewhere(failure) => true,
                // Made again, it is the same call.
                Err(failure) => failure.code == code::CALL_LOST && call.envelope.key.is_some(),
                Ok(_) => false,
            };
            let is_in_time = call.deadline.is_none_or(|end| instant() < end);
            if !again || !is_in_time || call.envelope.mail.is_some() {
                return call.reply.send(answer);
            }
            let changed = shared.remote.placement.homes.changed();
            let _ = timeout(LOOK_AGAIN, changed).await;
            if let Err(undelivered) = shared.deliver(&key, Item::Call(call)) {
                undelivered.item.refuse(&key, undelivered.failure);
            }
        });
    }

    /// Subscribes a receiver to an actor elsewhere.
    pub(super) fn watch_there(
        self: &Arc<Self>,
        home: &Incarnation,
        key: &ActorKey,
        stream: Stream,
        outlet: Arc<dyn Outlet>,
        since: Option<&Since>,
        contact: &mut FirstContact<'_>,
    ) -> Result<(), Failure> {
        // Its host tells it; nobody here waits for that.
        drop(contact.take(|new| self.connect(key, new))?);
        let (id, client) = (outlet.id().clone(), outlet.client());
        let watched = (id.clone(), key.clone(), stream);
        let watch = Watch {
            outlet,
            home: home.clone(),
            seen: since.cloned(),
            is_known: matches!(contact, FirstContact::Again),
            is_stale: false,
        };
        self.remote.watches.lock().insert(watched, watch);
        let tell = Tell::Watch {
            actor: key.clone(),
            stream,
            watcher: id,
            client,
            since: since.cloned(),
        };
        self.remote.tell(home, &tell);
        Ok(())
    }

    /// Ends a subscription to an actor elsewhere, if there is one.
    pub(super) fn unwatch_there(&self, key: &ActorKey, stream: Stream, outlet: &str) {
        let watched = (outlet.into(), key.clone(), stream);
        let watch = self.remote.watches.lock().remove(&watched);
        if let Some(watch) = watch {
            let (watcher, actor, stream) = watched;
            let tell = Tell::Unwatch {
                actor,
                stream,
                watcher,
            };
            self.remote.tell(&watch.home, &tell);
        }
    }

    /// Asks for the whole state anew, for a watcher that missed something.
    fn watch_anew(&self, key: &ActorKey, watcher: &str) {
        let watched = (watcher.into(), key.clone(), Stream::State);
        let known = {
            let mut watches = self.remote.watches.lock();
            watches.get_mut(&watched).map(|watch| {
                watch.is_stale = true;
                (watch.home.clone(), watch.outlet.client())
            })
        };
        if let Some((home, client)) = known {
            let tell = Tell::Watch {
                actor: key.clone(),
                stream: Stream::State,
                watcher: watcher.into(),
                client,
                since: None,
            };
            self.remote.tell(&home, &tell);
        }
    }

    /// Passes on to a receiver here what an actor elsewhere shows.
    fn shown_there(self: &Arc<Self>, watcher: &Arc<str>, update: Update) {
        let key = update.actor.clone();
        let (next, from) = match &update.body {
            Body::Snapshot { epoch, version, .. } => (Some((epoch, *version)), None),
            Body::Patch {
                epoch,
                version,
                from,
                ..
            } => (Some((epoch, *version)), Some(*from)),
            Body::Event { .. } => (None, None),
        };
        let next = next.map(|(epoch, version)| Since {
            epoch: epoch.to_string(),
            version,
        });
        let stream = match &next {
            Some(_) => Stream::State,
            None => Stream::Events,
        };
        let watched = (watcher.clone(), key.clone(), stream);
        let mut watches = self.remote.watches.lock();
        let Some(watch) = watches.get_mut(&watched) else {
            return;
        };
        let shared_frame = frame(&key, update.body);
        let Some(next) = next else {
            // An event cannot be made up for.
            let outlet = watch.outlet.clone();
            drop(watches);
            if outlet.offer(&shared_frame) != tidegate_delivery::Offer::Taken {
                outlet.close(Close::Slow);
            }
            return;
        };
        let seen = watch.seen.as_ref().filter(|_| watch.is_known);
        if seen.is_some_and(|seen| seen.epoch == next.epoch && seen.version > next.version) {
            // A host that the actor has left was slow to say so.
            return;
        }
        if let Some(from) = from {
            // What comes behind something that was missed is part of what makes up for it.
            if watch.is_stale {
                return;
            }
            let fits = watch.seen.as_ref().is_some_and(|seen| {
                seen.epoch == next.epoch && (from..=next.version).contains(&seen.version)
                    || seen.version == next.version
            });
            if !fits {
                drop(watches);
                return self.watch_anew(&key, watcher);
            }
        }
        let source: Arc<dyn Source> = Arc::new(FarSource {
            shared: self.itself.clone(),
            key: key.clone(),
        });
        // Under the lock, so that what is shown stays in order.
        match show(&watch.outlet, &shared_frame, &source, from.is_none()) {
            Told::Now => {
                watch.seen = Some(next);
                watch.is_known = true;
                watch.is_stale = false;
            }
            Told::Later => watch.is_stale = true,
            Told::Never => {
                drop(watches);
                self.unwatch_there(&key, stream, watcher);
            }
        }
    }

    /// Watches again, wherever the actor is now, for those here who watched it at a host that it
    /// has left.
    fn watch_after(self: &Arc<Self>, key: &ActorKey) {
        let moved: Vec<(Watched, Watch)> = {
            let mut watches = self.remote.watches.lock();
            let of_it = |watched: &Watched, _: &mut Watch| watched.1 == *key;
            watches.extract_if(of_it).collect()
        };
        for ((_, key, stream), watch) in moved {
            let since = watch.seen.filter(|_| !watch.is_stale);
            self.subscribe_again(key, stream, watch.outlet, since);
        }
    }

    /// Subscribes a receiver again, where the actor is now.
    pub(super) fn subscribe_again(
        self: &Arc<Self>,
        key: ActorKey,
        stream: Stream,
        outlet: Arc<dyn Outlet>,
        since: Option<Since>,
    ) {
        let shared = self.clone();
        tokio::spawn(async move {
            let mut no_contact = FirstContact::Again;
            let (receiver, since) = (outlet.clone(), since.as_ref());
            let subscribed = shared.subscribe(&key, stream, receiver, since, &mut no_contact);
            if let Err(failure) = Box::pin(subscribed).await {
                debug!(actor = %key, %failure, "a watcher is lost on the way");
                let shared = shared.itself.clone();
                outlet.end(&FarSource { shared, key }, &failure);
            }
        });
    }

    /// Has those who watched an actor that has left for another host watch it there.
    pub(super) fn send_after(
        self: &Arc<Self>,
        key: &ActorKey,
        watchers: Vec<(Arc<dyn Outlet>, Stream, Option<Since>)>,
    ) {
        let mut hosts = Vec::new();
        for (outlet, stream, since) in watchers {
            let watched = (outlet.id().clone(), key.clone(), stream);
            let far = self.remote.far.lock().remove(&watched);
            match far {
                Some(far) => {
                    far.forget();
                    if !hosts.contains(far.host()) {
                        hosts.push(far.host().clone());
                    }
                }
                None => self.subscribe_again(key.clone(), stream, outlet, since),
            }
        }
        for host in hosts {
            let actor = key.clone();
            self.remote.tell(&host, &Tell::Moved { actor });
        }
    }

    /// Lets a receiver elsewhere watch an actor here.
    fn watched_from(
        self: &Arc<Self>,
        from: &Incarnation,
        watched: Watched,
        far: Arc<FarOutlet>,
        since: Option<Since>,
    ) {
        let before = self.remote.far.lock().insert(watched.clone(), far.clone());
        if let Some(before) = before {
            before.forget();
        }
        let (shared, from) = (self.clone(), from.clone());
        tokio::spawn(async move {
            let (watcher, key, stream) = watched;
            let mut no_contact = FirstContact::Past;
            // Never there and back again: whoever watches asks the next host itself.
            let subscribed =
                shared.subscribe_here(&key, stream, far.clone(), since.as_ref(), &mut no_contact);
            if let Err(failure) = Box::pin(subscribed).await {
                far.forget();
                let tell = match is_elsewhere(&failure) {
                    true => Tell::Moved { actor: key.clone() },
                    false => Tell::Ended {
                        actor: key.clone(),
                        stream,
                        watcher,
                        failure: (&failure).into(),
                    },
                };
                shared.remote.tell(&from, &tell);
            }
        });
    }

    fn unwatched_from(&self, watched: &Watched) {
        let far = self.remote.far.lock().remove(watched);
        if let Some(far) = far {
            far.forget();
        }
        let (watcher, key, stream) = watched;
        if let Some(actor) = self.table.get(key)
            && let Some(live) = actor.loaded()
        {
            live.subscribers.leave_stream(watcher, *stream);
        }
    }

    /// Waits a while for an actor to arrive; fails when it does not.
    pub(super) async fn until_arrived(&self, key: &ActorKey) -> Result<Home, Failure> {
        let arrived = async {
            loop {
                let changed = self.remote.placement.homes.changed();
                match self.remote.home(key) {
                    Home::Moving => changed.await,
                    home => return home,
                }
            }
        };
        let patience = Duration::from_millis(self.settings.move_wait_ms);
        timeout(patience, arrived).await.map_err(|_| moving())
    }

    /// Reads an actor elsewhere.
    pub(super) async fn read_there(
        &self,
        home: &Incarnation,
        key: &ActorKey,
        who: tidegate_core::Client,
    ) -> Result<Read, Failure> {
        let (actor, client) = (key.clone(), who);
        let read = self.ask(home, &Ask::Read { actor, client }).await?;
        wire::read_of(read.as_deref().unwrap_or_default())
    }
}

/// Delivers what is parked as its actors arrive, until nothing is.
async fn unpark(shared: Arc<Shared>) {
    loop {
        let changed = shared.remote.placement.homes.changed();
        let keys: Vec<ActorKey> = shared.remote.parked.lock().keys().cloned().collect();
        if keys.is_empty() {
            return;
        }
        for key in keys {
            if shared.remote.home(&key) != Home::Moving {
                shared.deliver_parked(&key);
            }
        }
        if shared.remote.parked_actors.load(Ordering::Acquire) > 0 {
            changed.await;
        }
    }
}

impl Actors {
    /// What another host asks of actors here.
    pub fn asked(&self, text: &str) -> Pending<Result<String, Failure>> {
        let shared = self.shared.clone();
        let ask = match Ask::read(text) {
            Ok(ask) => ask,
            Err(failure) => return Box::pin(std::future::ready(Ok(Answer::text(Err(failure))))),
        };
        let is_here = matches!(shared.remote.home(ask.actor()), Home::Here(_));
        if !is_here {
            // It has not been run, and whoever asked finds out where it is.
            return Box::pin(std::future::ready(Ok(Answer::text(Err(moving())))));
        }
        match ask {
            Ask::Call {
                actor,
                call,
                patience_ms,
            } => {
                let patience = patience_ms.map(Duration::from_millis);
                let answered = begin_for_another(&shared, &actor, *call, patience);
                Box::pin(async move {
                    Ok(Answer::text(
                        answered.await.unwrap_or_else(|_| Err(Failure::call_lost())),
                    ))
                })
            }
            Ask::Read { actor, client } => Box::pin(async move {
                let read = shared.read(&actor, client).await;
                Ok(Answer::text(read.map(|read| Some(wire::text_of(&read)))))
            }),
            Ask::Destroy { actor } => Box::pin(async move {
                let (done, destroyed) = oneshot::channel();
                let delivered = shared.deliver(&actor, Item::Destroy(done));
                let gone = match delivered {
                    Ok(()) => destroyed
                        .await
                        .unwrap_or_else(|_| Err(Failure::call_lost())),
                    Err(undelivered) => Err(undelivered.failure),
                };
                Ok(Answer::text(gone.map(|()| None)))
            }),
        }
    }

    /// What another host says to actors, or to watchers, here.
    pub fn told(&self, from: &Incarnation, text: &str) {
        let shared = &self.shared;
        let tell = match Tell::read(text) {
            Ok(tell) => tell,
            Err(failure) => return warn!(%from, %failure, "another host is not understood"),
        };
        let deliver = |actor: ActorKey, item: Item| {
            if let Err(undelivered) = shared.deliver(&actor, item) {
                undelivered.item.refuse(&actor, undelivered.failure);
            }
        };
        match tell {
            Tell::Connect { actor, client } => {
                let arrival = Arrival {
                    client,
                    _told: None,
                };
                deliver(actor, Item::Connect(Box::new(arrival)));
            }
            Tell::Disconnect { actor, client } => {
                if let Some(id) = &client.connection {
                    for stream in [Stream::State, Stream::Events] {
                        shared.unwatched_from(&(id.clone(), actor.clone(), stream));
                    }
                }
                deliver(actor, Item::Disconnect(client));
            }
            Tell::Watch {
                actor,
                stream,
                watcher,
                client,
                since,
            } => {
                let links = shared.remote.placement.links.clone();
                let far = FarOutlet::new(
                    from.clone(),
                    watcher.clone(),
                    client,
                    actor.clone(),
                    stream,
                    links,
                );
                shared.watched_from(from, (watcher, actor, stream), far, since);
            }
            Tell::Unwatch {
                actor,
                stream,
                watcher,
            } => shared.unwatched_from(&(watcher, actor, stream)),
            Tell::Update { watcher, update } => shared.shown_there(&watcher, update),
            Tell::Ended {
                actor,
                stream,
                watcher,
                failure,
            } => {
                let watched = (watcher, actor, stream);
                let watch = shared.remote.watches.lock().remove(&watched);
                if let Some(watch) = watch {
                    let (shared, key) = (shared.itself.clone(), watched.1);
                    watch
                        .outlet
                        .end(&FarSource { shared, key }, &failure.into());
                }
            }
            Tell::Closed {
                actor,
                stream,
                watcher,
            } => {
                let watch = shared
                    .remote
                    .watches
                    .lock()
                    .remove(&(watcher, actor, stream));
                if let Some(watch) = watch {
                    watch.outlet.close(Close::Slow);
                }
            }
            Tell::Moved { actor } => shared.watch_after(&actor),
        }
    }

    /// Sends the actors of a shard that are in memory out of it, stored as they are: they go on at
    /// another host. They are on their way already, so that nothing comes for them meanwhile.
    pub async fn move_out(&self, shard: Shard) {
        let shared = &self.shared;
        let shards = shared.store.shards();
        let leaves = |key: &ActorKey| Shard::of(EntityKey::of_actor(key), shards) == shard;
        loop {
            let leaving: Vec<_> = shared
                .table
                .all()
                .filter(|actor| leaves(&actor.key))
                .collect();
            if leaving.is_empty() {
                break;
            }
            for actor in leaving {
                let _ = actor.deliver(Item::Retire(Retire::Moved), shared);
            }
            tokio::time::sleep(LOOK_AGAIN / 4).await;
        }
        shared.sleeping.remove_all(leaves);
        shared.detached_connections().retain(|key, _| !leaves(key));
    }

    /// Sets what wakes the actors of a shard that has come here, and that the store has opened.
    pub fn move_in(&self, shard: Shard) {
        self.shared.wake_shard(shard, |_| true);
    }
}

/// Queues a call that came from another host.
fn begin_for_another(
    shared: &Arc<Shared>,
    actor: &ActorKey,
    envelope: CallEnvelope,
    patience: Option<Duration>,
) -> oneshot::Receiver<Result<Option<String>, Failure>> {
    let (reply, answered) = oneshot::channel();
    let deadline = patience.and_then(|patience| instant().checked_add(patience));
    let call = Call {
        deadline,
        ..Call::new(envelope, ReplyTo::waiter(reply))
    };
    if let Err(undelivered) = shared.deliver(actor, Item::Call(Box::new(call))) {
        undelivered.item.refuse(actor, undelivered.failure);
    }
    answered
}

/// A name for this run of a host.
pub fn new_incarnation() -> Incarnation {
    Incarnation::new(random_id(4))
}

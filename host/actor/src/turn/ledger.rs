//! An actor's state in memory, its place in history, and who watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use indexmap::IndexMap;
use tidegate_base::budget::Share;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::failure::code;
use tidegate_core::manifest::StateSpec;
use tidegate_core::meter::Exhausted;
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, Client, Document, Failure, Json, PatchOp, Pointer, patch};
use tidegate_delivery::Source;
use tidegate_delivery::write_batch::WriteBatch;
use tidegate_engine::Component;
use tidegate_registry::router::Slot;
use tidegate_store::{
    ActorRecords, Change, Commit, Committed, Connected, ConnectionChange, Durability, Gate,
    Keyspace, Received, StoreError, Stored, Weight,
};
use tokio_util::sync::CancellationToken;

use super::guard::{Basis, Guarding, Guards};
use super::idempotency::{Answered, Bounds, IdempotencyKey};
use super::lineage::Lineage;
use super::mail::{Inbox, Outbox};
use super::migrate::Fit;
use super::replay_buffer::{LookedUp, ReplayBuffer};
use super::timers::{ActorTimers, Clock, Which};
use super::work::{TurnMeter, at_once_or_elsewhere, is_short};
use crate::live::{ActorFrame, Body, Subscribers, Update, frame};

/// Tokens name contents of state documents; none is ever used twice by a host.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(1);

pub(super) fn next_token() -> u64 {
    NEXT_TOKEN.fetch_add(1, Ordering::Relaxed)
}

/// What the queue of an actor and those who subscribe to it share.
pub struct Live {
    /// Whose it is.
    pub key: ActorKey,
    /// Who subscribes.
    pub subscribers: Subscribers,
    /// Which component serves it.
    pub slot: Arc<Slot>,
    /// What its turns let out passes here.
    pub gate: Arc<Gate<WriteBatch>>,
    /// What its guard has to do, if it has one.
    pub(super) guarding: OnceLock<Box<Guarding>>,
    ledger: Mutex<Ledger>,
    /// Itself, as what subscribers are told to ask for a snapshot.
    source: OnceLock<Weak<Live>>,
}

/// The state document and its place in history.
pub struct Ledger {
    /// Nothing while it is lent.
    pub(super) document: Document,
    /// Set while long work is done on the document elsewhere; cancelled when it is back.
    pub(super) lent: Option<CancellationToken>,
    /// Names what the turn sees now.
    pub(super) token: u64,
    /// Names what was committed last.
    pub(super) committed_token: u64,
    pub(super) epoch: Arc<str>,
    /// What the epoch goes on from.
    pub(super) lineage: Option<Box<Lineage>>,
    /// Names it to subscribers, together with what they are not shown of it.
    pub(super) shown_epoch: Arc<str>,
    pub(super) version: u64,
    /// Which version of the state the document is, as the manifest counts them.
    pub(super) state_version: u32,
    /// Whether the committed state fits the component that was asked about last.
    pub(super) fit: Fit,
    /// The version of the last patch that subscribers could see.
    pub(super) shown_version: u64,
    pub(super) connections: IndexMap<Arc<str>, Option<Arc<str>>>,
    /// What has changed of them since the last commit.
    connection_changes: Vec<ConnectionChange>,
    /// What the store has of the actor.
    pub(super) weight: Weight,
    /// What the actor's turns have set for later.
    pub timers: ActorTimers,
    /// The last committed state as subscribers see it, once somebody has asked for it: one
    /// message for all of them.
    pub(super) encoded: Option<Arc<ActorFrame>>,
    /// The last committed state as guards read it, once one has asked for it.
    pub(super) pinned: Option<Arc<Pinned>>,
    /// What became of calls with idempotency keys.
    pub(super) answers: Answered,
    /// What it has sent to others.
    pub outbox: Outbox,
    /// What it has heard of others.
    pub(super) inbox: Inbox,
    /// The last patches that subscribers were shown.
    pub(super) recent: ReplayBuffer,
    /// Somebody has subscribed to the state since the actor is in memory: patches have readers.
    pub(super) is_watched: bool,
    /// The component that the rules below are of.
    rules_of: u64,
    /// The handler is told of connections that have closed.
    announces_ends: bool,
    /// Top-level members of the state that nobody is shown.
    pub(super) hidden: Arc<[String]>,
    /// What its guard decides.
    pub(super) guards: Guards,
    /// What the actor has taken of the memory that there is for all of them.
    pub(super) share: Share,
}

/// A committed state, to be read beside the turns that come after it.
#[derive(Debug)]
pub struct Pinned {
    pub(super) value: Json,
    pub(super) token: u64,
    pub(super) epoch: Arc<str>,
    pub(super) version: u64,
    /// Its length as text, in bytes.
    length: usize,
}

impl Pinned {
    /// As JSON text, without what is hidden.
    pub(super) fn text(&self, hidden: &[String]) -> Arc<str> {
        patch::strip_hidden(&self.value, hidden).to_text().into()
    }

    /// How long it is as text, in bytes.
    pub(super) fn size(&self) -> usize {
        self.length
    }
}

impl Live {
    /// An actor that was never stored, in a history of its own.
    pub fn initial(
        key: ActorKey,
        slot: Arc<Slot>,
        declared: &StateSpec,
        epoch: Arc<str>,
        gather: Duration,
    ) -> Arc<Live> {
        let stored = Stored {
            epoch,
            version: 0,
            run: "".into(),
            earlier: Vec::new(),
            is_begun: false,
            state: declared.initial.clone(),
            state_version: declared.version,
            connections: Vec::new(),
            timers: Vec::new(),
            last_timer: 0,
            answers: Vec::new(),
            outbox: Vec::new(),
            last_sent: 0,
            received: Vec::new(),
        };
        let timers = ActorTimers::default();
        Live::new(key, slot, stored, timers, Weight::default(), gather)
    }

    /// An actor as it was stored.
    pub fn restored(
        key: ActorKey,
        slot: Arc<Slot>,
        mut stored: Stored,
        weight: Weight,
        clock: &Clock,
        gather: Duration,
    ) -> Arc<Live> {
        let timers = std::mem::take(&mut stored.timers);
        let timers = ActorTimers::restored(&key, timers, stored.last_timer, clock);
        Live::new(key, slot, stored, timers, weight, gather)
    }

    fn new(
        key: ActorKey,
        slot: Arc<Slot>,
        mut stored: Stored,
        timers: ActorTimers,
        weight: Weight,
        gather: Duration,
    ) -> Arc<Live> {
        let lineage = Lineage::of(&mut stored);
        let connections = stored.connections.into_iter();
        let token = next_token();
        let share = slot.metrics.budgets().actors.empty_share();
        let live = Arc::new(Live {
            key,
            subscribers: Subscribers::default(),
            slot,
            gate: Arc::new(Gate::new(WriteBatch::new(gather))),
            guarding: OnceLock::new(),
            ledger: Mutex::new(Ledger {
                document: Document::new(stored.state),
                lent: None,
                token,
                committed_token: token,
                lineage,
                shown_epoch: stored.epoch.clone(),
                epoch: stored.epoch,
                version: stored.version,
                state_version: stored.state_version,
                fit: Fit::default(),
                shown_version: stored.version,
                connections: connections
                    .map(|connected| (connected.id, connected.user))
                    .collect(),
                connection_changes: Vec::new(),
                weight,
                timers,
                encoded: None,
                pinned: None,
                answers: Answered::restored(stored.answers),
                outbox: Outbox::restored(stored.outbox, stored.last_sent),
                inbox: Inbox::restored(stored.received),
                recent: ReplayBuffer::default(),
                is_watched: false,
                rules_of: 0,
                announces_ends: false,
                hidden: Arc::default(),
                guards: Guards::default(),
                share,
            }),
            source: OnceLock::new(),
        });
        let _ = live.source.set(Arc::downgrade(&live));
        if let Some(component) = live.slot.component() {
            live.adopt(&component);
        }
        live
    }

    /// Goes by the rules of this component from here on. True when others held before for
    /// what subscribers are shown: they must be shown anew.
    fn adopt(&self, component: &Component) -> bool {
        self.adopt_in(&mut self.ledger_at_rest(), component)
    }

    /// Whether the state fits this component and its rules are followed.
    pub fn goes_by(&self, component: &Component) -> bool {
        let mut ledger = self.ledger_to_fit(component);
        ledger.rules_of == component.serial && ledger.fits(&self.key, component)
    }

    pub(super) fn adopt_in(&self, ledger: &mut Ledger, component: &Component) -> bool {
        // What it hides, and what its guard decides, is said of states that fit it.
        if ledger.rules_of == component.serial || !ledger.fits(&self.key, component) {
            return false;
        }
        let Some(declared) = component.manifest.actors.get(self.key.actor.as_str()) else {
            return false;
        };
        let guards = Guards::of(component, self.key.actor.as_str());
        let same =
            *ledger.hidden == *declared.state.hidden && ledger.guards.project == guards.project;
        ledger.rules_of = component.serial;
        ledger.announces_ends = declared.hooks.disconnect;
        ledger.guards = guards;
        if same {
            // What a guard shows may follow other rules all the same.
            return guards.project;
        }
        ledger.hidden = declared.state.hidden.clone().into();
        ledger.name_epoch();
        // Commits that changed nothing for the others may have changed something for these.
        ledger.shown_version = ledger.version;
        ledger.encoded = None;
        ledger.recent = ReplayBuffer::default();
        true
    }

    /// What a call came to that has run before; none if it has not.
    pub fn answered(
        &self,
        keyed: &IdempotencyKey,
        now_ms: u64,
        bounds: Bounds,
    ) -> Option<Result<Option<String>, Failure>> {
        self.ledger().answers.of(keyed, now_ms, bounds)
    }

    /// Whether a message has been heard before.
    pub fn has_received(&self, received: &Received) -> bool {
        self.ledger().inbox.knows(received)
    }

    /// Whether the handler is told of connections that have closed.
    pub fn announces_ends(&self) -> bool {
        self.ledger().announces_ends
    }

    /// Whether the store has anything of it.
    pub fn is_kept(&self) -> bool {
        self.ledger().weight.whole > 0
    }

    /// Whether what is due by itself does not keep the actor in memory.
    pub fn is_idle_timer(&self, which: Which) -> bool {
        match which {
            Which::Timer(id) => self.ledger().timers.is_idle(id),
            Which::Schedule(_) => true,
            Which::Wake => false,
        }
    }

    /// The ledger, locked. Held for single operations only, never across a wait.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// The last committed state as JSON text, its history and its version; none where it is not
    /// the one that this basis is about.
    pub(super) async fn committed(
        self: &Arc<Self>,
        basis: &Basis,
    ) -> Option<(Arc<str>, Arc<str>, u64)> {
        let (message, version) = loop {
            if self.ledger().is_as_decided(basis) {
                self.make_snapshot().await;
            }
            let mut ledger = self.ledger();
            if !ledger.is_as_decided(basis) {
                return None;
            }
            if ledger.is_at_hand() {
                break self.snapshot_of(&mut ledger);
            }
            // It was lent again.
        };
        match &message.content().body {
            Body::Snapshot { state, epoch, .. } => Some((state.clone(), epoch.clone(), version)),
            _ => unreachable!("a snapshot is one"),
        }
    }

    /// The last committed state, to be read while turns go on.
    pub(super) async fn pin(self: &Arc<Self>) -> Arc<Pinned> {
        loop {
            self.make_pin().await;
            let mut ledger = self.ledger();
            if ledger.pinned.is_some() || ledger.lent.is_none() {
                return self.pin_of(&mut ledger);
            }
            // It was lent again.
        }
    }

    /// The same, where it may not be at hand when a guard looks at it, which cannot wait.
    pub(super) async fn pin_ahead(self: &Arc<Self>) -> Option<Arc<Pinned>> {
        let may_be_long = {
            let ledger = self.ledger();
            ledger.lent.is_some() || !is_short(ledger.document.committed_size().text)
        };
        match may_be_long {
            true => Some(self.pin().await),
            false => None,
        }
    }

    /// The same as of now, or where it is not at hand as it was before.
    pub(super) fn pin_here(&self, before: Option<&Arc<Pinned>>) -> Arc<Pinned> {
        let mut ledger = self.ledger();
        let is_at_hand = ledger.pinned.is_some() || ledger.lent.is_none();
        match before {
            Some(before) if !is_at_hand => before.clone(),
            None if !is_at_hand => {
                drop(ledger);
                self.pin_of(&mut self.ledger_at_rest())
            }
            _ => self.pin_of(&mut ledger),
        }
    }

    pub(super) fn pin_of(&self, ledger: &mut Ledger) -> Arc<Pinned> {
        if let Some(pinned) = &ledger.pinned {
            return pinned.clone();
        }
        let value = ledger.document.committed().into_owned();
        let length = match ledger.document.is_dirty() {
            true => value.size().text,
            false => ledger.document.size().text,
        };
        let pinned = Arc::new(Pinned {
            value,
            length,
            token: ledger.committed_token,
            epoch: ledger.shown_epoch.clone(),
            version: ledger.version,
        });
        ledger.pinned = Some(pinned.clone());
        ledger.take_for_readers();
        pinned
    }

    /// Begins a new history, with the state of a new actor. Who subscribes and who is
    /// connected stays.
    pub fn begin_again(&self, declared: &StateSpec, epoch: Arc<str>) {
        let mut ledger = self.ledger_at_rest();
        ledger.go_on_with(declared.initial.clone(), declared.version, epoch, 0);
        ledger.timers.clear();
        ledger.weight = Weight::default();
        ledger.answers = Answered::default();
        ledger.outbox = ledger.outbox.emptied();
        ledger.inbox = Inbox::default();
    }

    /// The committed state as a message, and its version; none where it is not at hand.
    pub(super) fn snapshot_at_hand(&self) -> Option<(Arc<ActorFrame>, u64)> {
        let mut ledger = self.ledger();
        ledger.is_at_hand().then(|| self.snapshot_of(&mut ledger))
    }

    pub(super) fn snapshot_of(&self, ledger: &mut Ledger) -> (Arc<ActorFrame>, u64) {
        let version = ledger.version;
        if let Some(encoded) = &ledger.encoded {
            return (Arc::new(encoded.again()), version);
        }
        let state = match ledger.hidden.is_empty() {
            true => ledger.document.committed_text(),
            false => patch::strip_hidden(&ledger.document.committed(), &ledger.hidden).to_text(),
        };
        (self.keep_snapshot(ledger, state.into()), version)
    }

    /// Keeps the committed state as this text, as far as there is room for that.
    pub(super) fn keep_snapshot(&self, ledger: &mut Ledger, state: Arc<str>) -> Arc<ActorFrame> {
        let body = Body::Snapshot {
            state,
            epoch: ledger.shown_epoch.clone(),
            version: ledger.version,
        };
        let encoded = ActorFrame::lasting(Update {
            actor: self.key.clone(),
            body,
        });
        let told = Arc::new(encoded.again());
        ledger.encoded = Some(Arc::new(encoded));
        ledger.take_for_readers();
        told
    }

    /// Waits until no more commits are under way than may be; fails when the store has.
    pub async fn keep_pace(&self, run_ahead: usize) -> Result<(), Failure> {
        // What a guard decides and shows is worked out from the state as it is, until that has
        // been shown.
        let guards = self.guards();
        match guards.project || guards.authorize || self.gate.commits() > run_ahead {
            true => self.gate.passed().await,
            false => Ok(()),
        }
    }

    /// What brings a subscriber up to date that has seen `since`: the patches since then
    /// where they are at hand, else the whole state.
    pub(super) fn messages_of(
        &self,
        ledger: &mut Ledger,
        since: Option<&Since>,
    ) -> (Vec<Arc<ActorFrame>>, u64) {
        let version = ledger.version;
        let seen = since.and_then(|since| ledger.version_of(since));
        if let Some(seen) = seen
            && (ledger.shown_version..=version).contains(&seen)
        {
            let body = Body::Patch {
                patches: "[]".to_owned(),
                extended: None,
                epoch: ledger.shown_epoch.clone(),
                from: seen,
                version,
            };
            return (vec![Arc::new(frame(&self.key, body))], version);
        }
        // What lies in between is not for one who may have been shut out then.
        let seen = seen.filter(|_| !ledger.guards.at_each_commit());
        let shown_version = ledger.shown_version;
        if let Some(patches) = seen.and_then(|seen| ledger.recent.since(seen, shown_version)) {
            return (patches, version);
        }
        let (whole, version) = self.snapshot_of(ledger);
        (vec![whole], version)
    }

    /// Looks up what the store has of the history, for a subscriber who comes back and has seen
    /// less than the memory knows.
    pub async fn recall(&self, since: &Since, store: &dyn Keyspace<ActorRecords>) {
        let wants = |ledger: &Ledger| {
            let seen = ledger.version_of(since);
            let seen = seen.filter(|_| !ledger.guards.at_each_commit());
            seen.is_some_and(|seen| ledger.recent.wants(seen, ledger.shown_version))
        };
        {
            let mut ledger = self.ledger();
            // Before the store is looked at: what is committed from here on is a patch in memory,
            // so that nothing lies between those and what the store has.
            ledger.is_watched = true;
            if !wants(&ledger) {
                return;
            }
        }
        // The store has what was committed until then, once that is safe.
        if self.gate.passed().await.is_err() {
            return;
        }
        let history = match store.history(&self.key).await {
            Ok(history) => history,
            Err(error) => {
                tracing::debug!(actor = %self.key, %error, "no history for who comes back");
                return;
            }
        };
        let (epoch, hidden, end, history) = {
            let mut ledger = self.ledger();
            if !wants(&ledger) {
                return;
            }
            // One that begins anew meanwhile has nothing to do with this one.
            let history = history.filter(|(base, changes)| ledger.goes_on_from(base, changes));
            let Some(history) = history else {
                return ledger.recent.is_all();
            };
            let end = ledger.recent.begin(ledger.shown_version);
            let epoch = ledger.shown_epoch.clone();
            (epoch, ledger.hidden.clone(), end, history)
        };
        let Some(component) = self.slot.component() else {
            return;
        };
        let (key, of, without) = (self.key.clone(), epoch.clone(), hidden.clone());
        let make = move |meter: &mut TurnMeter| {
            let earlier = LookedUp::of(&key, &of, &without, end, &history, meter);
            earlier.map_err(|Exhausted| meter.failure())
        };
        let deadline = component.guard_deadline();
        let earlier = at_once_or_elsewhere(&component, deadline, make).await;
        let ledger = &mut *self.ledger();
        let goes_on = ledger.shown_epoch == epoch && ledger.hidden == hidden;
        match earlier {
            Ok(earlier) if goes_on && wants(ledger) => {
                ledger.recent.complete(earlier, ledger.shown_version);
            }
            // Who comes back gets the whole state.
            _ => {}
        }
    }

    /// The whole state as a message, if all of it is safe and it is at hand.
    pub(super) fn safe_snapshot(&self) -> Option<(Arc<ActorFrame>, u64)> {
        let mut ledger = self.ledger();
        // Commits enter under the ledger's lock.
        let is_safe = ledger.is_at_hand() && self.gate.is_safe();
        is_safe.then(|| self.snapshot_of(&mut ledger))
    }

    /// Makes what has happened beside turns safe, if there is any.
    pub fn commit_happenings(&self, store: &dyn Keyspace<ActorRecords>, durability: Durability) {
        let mut ledger = self.ledger_at_rest();
        let mut change = Change {
            version: ledger.version,
            ..Change::default()
        };
        ledger.add_happenings(&mut change);
        if change.is_empty() {
            return;
        }
        let state = &|ledger: &Ledger| ledger.document.committed().into_owned();
        if let Err(error) = self.commit(&mut ledger, &change, store, durability, state) {
            tracing::warn!(actor = %self.key, %error, "an actor's connections and timers are not stored");
        }
    }

    /// Commits a change, and has what comes behind it wait at the gate. `state` is the
    /// document with this change.
    pub(super) fn commit(
        &self,
        ledger: &mut Ledger,
        change: &Change,
        store: &dyn Keyspace<ActorRecords>,
        durability: Durability,
        state: &dyn Fn(&Ledger) -> Json,
    ) -> Result<(), StoreError> {
        let mut weight = ledger.weight;
        let whole = || {
            let mut stored = ledger.to_stored(state(ledger));
            stored.version = change.version;
            stored.apply_happenings(change);
            stored
        };
        let commit = Commit {
            key: &self.key,
            change,
            durability,
            due_ms: match ledger.outbox.len_with(change) {
                0 => ledger.timers.first_due_ms(&change.timers),
                // It is to come into memory in any case.
                _ => Some(0),
            },
        };
        match store.commit(commit, &mut weight, &whole) {
            Committed::Now => {}
            Committed::Later(safe) => self
                .gate
                .commit(async move { safe.await.map_err(|error| unavailable(&error)) }),
            Committed::Refused(error) => {
                // The next one says everything, also what happened beside this turn.
                ledger.weight = ledger.weight.outdated();
                return Err(error);
            }
        }
        ledger.weight = weight;
        if let Some(lineage) = &mut ledger.lineage {
            lineage.is_stored();
        }
        Ok(())
    }

    pub(super) fn itself(&self) -> Arc<Live> {
        let live = self.source.get().and_then(Weak::upgrade);
        live.expect("a reference to it exists while one of its methods runs")
    }

    pub(super) fn source(&self) -> Arc<dyn Source> {
        self.itself()
    }

    /// What to store when the actor leaves memory.
    pub fn to_stored(&self) -> Stored {
        let ledger = self.ledger_at_rest();
        let state = ledger.document.committed().into_owned();
        ledger.to_stored(state)
    }
}

/// What a caller is told when the store fails.
pub fn unavailable(error: &StoreError) -> Failure {
    Failure::host(code::STORE_UNAVAILABLE)
        .message("the store is not available")
        .detail(error.0.as_str())
}

impl Source for Live {
    fn refresh(&self, outlet: &str) {
        let guards = self.guards();
        if guards.project || guards.at_each_commit() {
            tokio::spawn(self.itself().refresh_guarded(outlet.into()));
            return;
        }
        loop {
            let snapshot = || self.safe_snapshot();
            if self
                .subscribers
                .refresh_state(outlet, &self.source(), snapshot)
            {
                return;
            }
            // As of now, once it is safe.
            let live = self.itself();
            let outlet: Arc<str> = outlet.into();
            let mut ledger = self.ledger();
            if !ledger.is_at_hand() {
                tokio::spawn(async move {
                    live.at_rest().await;
                    live.refresh(&outlet);
                });
                return;
            }
            let snapshot = self.snapshot_of(&mut ledger);
            let departure = async move |outcome: Result<(), Failure>| {
                if outcome.is_ok() {
                    let source = live.source();
                    live.subscribers
                        .refresh_state(&outlet, &source, || Some(snapshot));
                }
            };
            if self.gate.leave(departure).is_none() {
                return;
            }
        }
    }

    fn name_in(&self, failure: Failure) -> Failure {
        failure
            .param("actor", self.key.actor.as_str())
            .param("actorId", self.key.id.as_str())
    }
}

impl Ledger {
    /// How many bytes of texts those are shown whole who know no operation that adds to one, where
    /// these patches lead to the document.
    pub(super) fn shown_bytes(&self, patches: &[PatchOp]) -> usize {
        let added_to = patches.iter().filter_map(|op| match op {
            PatchOp::StrIns { path, .. } => Pointer::parse(path).ok(),
            _ => None,
        });
        let texts = added_to.filter_map(|place| place.resolve(self.document.value())?.as_str());
        match self.is_watched {
            true => texts.map(str::len).sum(),
            false => 0,
        }
    }

    /// Notes a connection that has contact.
    pub fn connected(&mut self, id: Arc<str>, user: Option<Arc<str>>) {
        self.connections.insert(id.clone(), user.clone());
        let opened = ConnectionChange::Opened(Connected { id, user });
        self.connection_changes.push(opened);
    }

    /// Forgets a connection. False if it had no contact.
    pub fn disconnected(&mut self, id: &Arc<str>) -> bool {
        let had_contact = self.connections.shift_remove(id).is_some();
        if had_contact {
            let closed = ConnectionChange::Closed(id.clone());
            self.connection_changes.push(closed);
        }
        had_contact
    }

    /// Those that have contact, as they were at their first.
    pub fn connected_clients(&self) -> Vec<Client> {
        let client = |(id, user): (&Arc<str>, &Option<Arc<str>>)| Client {
            connection: Some(id.clone()),
            user: user.clone(),
        };
        self.connections.iter().map(client).collect()
    }

    /// What to store, with this state.
    pub(super) fn to_stored(&self, state: Json) -> Stored {
        let connected = |(id, user): (&Arc<str>, &Option<Arc<str>>)| Connected {
            id: id.clone(),
            user: user.clone(),
        };
        let lineage = self.lineage.as_deref();
        Stored {
            epoch: self.epoch.clone(),
            version: self.version,
            run: "".into(),
            earlier: lineage.map_or(Vec::new(), |lineage| lineage.earlier().to_vec()),
            is_begun: lineage.is_some_and(Lineage::is_begun),
            state,
            state_version: self.state_version,
            connections: self.connections.iter().map(connected).collect(),
            timers: self.timers.to_stored(),
            last_timer: self.timers.last_id(),
            answers: self.answers.to_stored(),
            outbox: self.outbox.to_stored(),
            last_sent: self.outbox.last(),
            received: self.inbox.to_stored(),
        }
    }

    /// Puts another state in the place of this one, as the beginning of a new history.
    pub(super) fn go_on_with(
        &mut self,
        state: Json,
        state_version: u32,
        epoch: Arc<str>,
        version: u64,
    ) {
        let token = next_token();
        self.document = Document::new(state);
        self.state_version = state_version;
        self.fit = Fit::default();
        self.token = token;
        self.committed_token = token;
        self.epoch = epoch;
        self.lineage = None;
        self.name_epoch();
        self.version = version;
        self.shown_version = version;
        self.encoded = None;
        self.pinned = None;
        self.recent = ReplayBuffer::default();
    }

    /// What is hidden becomes part of the epoch's name: who has seen more or less of a version
    /// has not seen the same.
    fn name_epoch(&mut self) {
        self.shown_epoch = self.shown_name(&self.epoch);
    }

    /// What subscribers are told an epoch is called.
    pub(super) fn shown_name(&self, epoch: &Arc<str>) -> Arc<str> {
        match self.hidden.is_empty() {
            true => epoch.clone(),
            false => {
                let hidden = serde_json::to_string(&*self.hidden).unwrap_or_default();
                format!("{epoch}-{:08x}", crc32fast::hash(hidden.as_bytes())).into()
            }
        }
    }

    /// Notes connections that had contact before.
    pub fn hold(&mut self, connected: impl Iterator<Item = Connected>) {
        let connected = connected.map(|connected| (connected.id, connected.user));
        self.connections.extend(connected);
    }

    /// Whether timers of it are stored, or were.
    pub fn had_timers(&self) -> bool {
        self.timers.last_id() > 0
    }

    /// Whether it must stay in memory by itself.
    pub fn keeps_awake(&self) -> bool {
        self.timers.keep_awake() || self.outbox.is_under_way()
    }

    /// Adds to a change what has happened beside the turn: connections that came and went, if
    /// the handler wants to be told of their end, timers that have fired, messages that were
    /// settled.
    pub(super) fn add_happenings(&mut self, change: &mut Change) {
        change.connections = std::mem::take(&mut self.connection_changes);
        if !self.announces_ends {
            change.connections.clear();
        }
        let mut fired = self.timers.take_fired(!change.is_empty());
        // What the turn itself does to its timers comes later.
        fired.append(&mut change.timers);
        change.timers = fired;
        change.settled = self.outbox.take_settled(!change.is_empty());
        if !change.is_empty() {
            change.begins = self.begins();
        }
    }

    /// The ids of those that have contact.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<str>> {
        self.connections.keys()
    }

    /// Makes what is staged the committed content.
    pub(super) fn accept(&mut self) {
        self.document.accept();
        self.committed_token = self.token;
        self.pinned = None;
    }

    /// Brings the document back to its last committed content.
    pub fn rollback(&mut self) {
        self.document.rollback();
        self.token = self.committed_token;
    }
}

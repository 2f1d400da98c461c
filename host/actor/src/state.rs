//! An actor in memory: its parts, under one lock, and who watches it.
//!
//! `turn` reads and changes it, one turn at a time; joining and reading happen beside turns.
//!
//! Invariant: the lock is held for single operations only, never across a wait.

mod commit;
pub(crate) mod cost;
mod history;
mod lineage;
mod presence;
mod replay_buffer;
mod shown;
mod texts;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tidegate_base::budget::Share;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::manifest::StateSpec;
use tidegate_core::meter::Exhausted;
use tidegate_core::protocol::Since;
use tidegate_core::turn::idempotency::Bounds;
use tidegate_core::turn::{Answered, IdempotencyKey, Inbox, Outbox};
use tidegate_core::turn::{Received, Stored};
use tidegate_core::{ActorKey, Failure, Json, PatchOp, Pointer, patch};
use tidegate_delivery::Source;
use tidegate_delivery::write_batch::WriteBatch;
use tidegate_engine::Component;
use tidegate_store::{Gate, Keyspace, Weight};

pub(crate) use self::commit::TurnCommit;
pub use self::commit::unavailable;
pub(crate) use self::cost::BASE_COST;
pub(crate) use self::history::{History, next_token};
use self::lineage::Lineage;
use self::presence::Presence;
use self::replay_buffer::{LookedUp, ReplayBuffer};
pub use self::shown::Pinned;
pub(crate) use self::shown::Shown;
use crate::claim::Slot;
use crate::live::{ActorFrame, Body, Subscribers, Update, frame};
use crate::records::ActorRecords;
use crate::turn::guard::{Basis, Guarding, Guards};
use crate::turn::timers::{ActorTimers, Clock, Which};
use crate::turn::work::{TurnMeter, at_once_or_elsewhere, is_short};

/// What the queue of an actor and those who subscribe to it share.
pub struct ActorState {
    /// Whose it is.
    pub key: ActorKey,
    /// Who subscribes.
    pub subscribers: Subscribers,
    /// Which component serves it.
    pub slot: Arc<Slot>,
    /// What its turns let out passes here.
    pub gate: Arc<Gate<WriteBatch>>,
    /// What its guard has to do, if it has one.
    pub(crate) guarding: OnceLock<Box<Guarding>>,
    parts: Mutex<Parts>,
    /// Itself, as what subscribers are told to ask for a snapshot.
    source: OnceLock<Weak<ActorState>>,
}

/// What an actor has in memory, by what it is about. Held locked for single operations only.
pub struct Parts {
    /// The state document and its place in history.
    pub(crate) history: History,
    /// Which connections have contact.
    pub(crate) presence: Presence,
    /// What its turns have set for later.
    pub timers: ActorTimers,
    /// What it has sent to others.
    pub outbox: Outbox,
    /// What it has received of others.
    pub(crate) inbox: Inbox,
    /// What became of calls with idempotency keys.
    pub(crate) answers: Answered,
    /// What of it subscribers and guards are shown.
    pub(crate) shown: Shown,
    /// What its guard decides.
    pub(crate) guards: Guards,
    /// The component that the rules of what is shown, and of presence, are of.
    rules_of: u64,
    /// What the store has of it.
    pub(crate) weight: Weight,
    /// What it has taken of the memory that there is for all of them.
    pub(crate) share: Share,
}

impl ActorState {
    /// An actor that was never stored, in a history of its own.
    pub fn initial(
        key: ActorKey,
        slot: Arc<Slot>,
        declared: &StateSpec,
        epoch: Arc<str>,
        gather: Duration,
    ) -> Arc<ActorState> {
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
        ActorState::new(key, slot, stored, timers, Weight::default(), gather)
    }

    /// An actor as it was stored.
    pub fn restored(
        key: ActorKey,
        slot: Arc<Slot>,
        mut stored: Stored,
        weight: Weight,
        clock: &Clock,
        gather: Duration,
    ) -> Arc<ActorState> {
        let timers = std::mem::take(&mut stored.timers);
        let timers = ActorTimers::restored(&key, timers, stored.last_timer, clock);
        ActorState::new(key, slot, stored, timers, weight, gather)
    }

    fn new(
        key: ActorKey,
        slot: Arc<Slot>,
        mut stored: Stored,
        timers: ActorTimers,
        weight: Weight,
        gather: Duration,
    ) -> Arc<ActorState> {
        let share = slot.metrics.budgets().actors.empty_share();
        let live = Arc::new(ActorState {
            key,
            subscribers: Subscribers::default(),
            slot,
            gate: Arc::new(Gate::new(WriteBatch::new(gather))),
            guarding: OnceLock::new(),
            parts: Mutex::new(Parts {
                history: History::restored(&mut stored),
                presence: Presence::restored(stored.connections),
                timers,
                outbox: Outbox::restored(stored.outbox, stored.last_sent),
                inbox: Inbox::restored(stored.received),
                answers: Answered::restored(stored.answers),
                shown: Shown::of(stored.epoch, stored.version),
                guards: Guards::default(),
                rules_of: 0,
                weight,
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
        self.adopt_in(&mut self.parts_at_rest(), component)
    }

    /// Whether the state fits this component and its rules are followed.
    pub fn goes_by(&self, component: &Component) -> bool {
        let mut parts = self.parts_to_fit(component);
        parts.rules_of == component.serial && parts.fits(&self.key, component)
    }

    pub(crate) fn adopt_in(&self, parts: &mut Parts, component: &Component) -> bool {
        // What it hides, and what its guard decides, is said of states that fit it.
        if parts.rules_of == component.serial || !parts.fits(&self.key, component) {
            return false;
        }
        let Some(declared) = component.manifest.actors.get(self.key.actor.as_str()) else {
            return false;
        };
        let guards = Guards::of(component, self.key.actor.as_str());
        let same =
            *parts.shown.hidden == *declared.state.hidden && parts.guards.project == guards.project;
        parts.rules_of = component.serial;
        parts.presence.announces_ends = declared.hooks.disconnect;
        parts.guards = guards;
        if same {
            // What a guard shows may follow other rules all the same.
            return guards.project;
        }
        parts.shown.hidden = declared.state.hidden.clone().into();
        parts.shown.epoch = parts.shown.name_of(&parts.history.epoch);
        // Commits that changed nothing for the others may have changed something for these.
        parts.shown.version = parts.history.version;
        parts.shown.encoded = None;
        parts.shown.replay = ReplayBuffer::default();
        true
    }

    /// What a call came to that has run before; none if it has not.
    pub fn answered(
        &self,
        keyed: &IdempotencyKey,
        now_ms: u64,
        bounds: Bounds,
    ) -> Option<Result<Option<String>, Failure>> {
        self.parts().answers.of(keyed, now_ms, bounds)
    }

    /// Whether a message has been heard before.
    pub fn has_received(&self, received: &Received) -> bool {
        self.parts().inbox.knows(received)
    }

    /// Whether the handler is told of connections that have closed.
    pub fn announces_ends(&self) -> bool {
        self.parts().presence.announces_ends
    }

    /// Whether the store has anything of it.
    pub fn is_kept(&self) -> bool {
        self.parts().weight.whole > 0
    }

    /// Whether what is due by itself does not keep the actor in memory.
    pub fn is_idle_timer(&self, which: Which) -> bool {
        match which {
            Which::Timer(id) => self.parts().timers.is_idle(id),
            Which::Schedule(_) => true,
            Which::Wake => false,
        }
    }

    /// The parts, locked. Held for single operations only, never across a wait.
    pub fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock()
    }

    /// The last committed state as JSON text, its history and its version; none where it is not
    /// the one that this basis is about.
    pub(crate) async fn committed(
        self: &Arc<Self>,
        basis: &Basis,
    ) -> Option<(Arc<str>, Arc<str>, u64)> {
        let (message, version) = loop {
            if self.parts().is_as_decided(basis) {
                self.make_snapshot().await;
            }
            let mut parts = self.parts();
            if !parts.is_as_decided(basis) {
                return None;
            }
            if parts.is_at_hand() {
                break self.snapshot_of(&mut parts);
            }
            // It was lent again.
        };
        match &message.content().body {
            Body::Snapshot { state, epoch, .. } => Some((state.clone(), epoch.clone(), version)),
            _ => unreachable!("a snapshot is one"),
        }
    }

    /// The last committed state, to be read while turns go on.
    pub(crate) async fn pin(self: &Arc<Self>) -> Arc<Pinned> {
        loop {
            self.make_pin().await;
            let mut parts = self.parts();
            if parts.shown.pinned.is_some() || parts.history.lent.is_none() {
                return self.pin_of(&mut parts);
            }
            // It was lent again.
        }
    }

    /// The last committed state, where it may not be at hand when a guard looks at it, which cannot
    /// wait.
    pub(crate) async fn pin_ahead(self: &Arc<Self>) -> Option<Arc<Pinned>> {
        let may_be_long = {
            let parts = self.parts();
            parts.history.lent.is_some() || !is_short(parts.history.document.committed_size().text)
        };
        match may_be_long {
            true => Some(self.pin().await),
            false => None,
        }
    }

    /// The last committed state as of now, or where it is not at hand as it was before.
    pub(crate) fn pin_here(&self, before: Option<&Arc<Pinned>>) -> Arc<Pinned> {
        let mut parts = self.parts();
        let is_at_hand = parts.shown.pinned.is_some() || parts.history.lent.is_none();
        match before {
            Some(before) if !is_at_hand => before.clone(),
            None if !is_at_hand => {
                drop(parts);
                self.pin_of(&mut self.parts_at_rest())
            }
            _ => self.pin_of(&mut parts),
        }
    }

    pub(crate) fn pin_of(&self, parts: &mut Parts) -> Arc<Pinned> {
        if let Some(pinned) = &parts.shown.pinned {
            return pinned.clone();
        }
        let value = parts.history.document.committed().into_owned();
        let length = match parts.history.document.is_dirty() {
            true => value.size().text,
            false => parts.history.document.size().text,
        };
        let pinned = Arc::new(Pinned {
            value,
            length,
            token: parts.history.committed_token,
            epoch: parts.shown.epoch.clone(),
            version: parts.history.version,
        });
        parts.shown.pinned = Some(pinned.clone());
        parts.take_for_readers();
        pinned
    }

    /// Begins a new history, with the state of a new actor. Who subscribes and who is
    /// connected stays.
    pub fn begin_again(&self, declared: &StateSpec, epoch: Arc<str>) {
        let mut parts = self.parts_at_rest();
        parts.go_on_with(declared.initial.clone(), declared.version, epoch, 0);
        parts.timers.clear();
        parts.weight = Weight::default();
        parts.answers = Answered::default();
        parts.outbox = parts.outbox.emptied();
        parts.inbox = Inbox::default();
    }

    /// The committed state as a message, and its version; none where it is not at hand.
    pub(crate) fn snapshot_at_hand(&self) -> Option<(Arc<ActorFrame>, u64)> {
        let mut parts = self.parts();
        parts.is_at_hand().then(|| self.snapshot_of(&mut parts))
    }

    pub(crate) fn snapshot_of(&self, parts: &mut Parts) -> (Arc<ActorFrame>, u64) {
        let version = parts.history.version;
        if let Some(encoded) = &parts.shown.encoded {
            return (Arc::new(encoded.again()), version);
        }
        let state = match parts.shown.hidden.is_empty() {
            true => parts.history.document.committed_text(),
            false => patch::strip_hidden(&parts.history.document.committed(), &parts.shown.hidden)
                .to_text(),
        };
        (self.keep_snapshot(parts, state.into()), version)
    }

    /// Keeps the committed state as this text, as far as there is room for that.
    pub(crate) fn keep_snapshot(&self, parts: &mut Parts, state: Arc<str>) -> Arc<ActorFrame> {
        let body = Body::Snapshot {
            state,
            epoch: parts.shown.epoch.clone(),
            version: parts.history.version,
        };
        let encoded = ActorFrame::lasting(Update {
            actor: self.key.clone(),
            body,
        });
        let told = Arc::new(encoded.again());
        parts.shown.encoded = Some(Arc::new(encoded));
        parts.take_for_readers();
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
    pub(crate) fn messages_of(
        &self,
        parts: &mut Parts,
        since: Option<&Since>,
    ) -> (Vec<Arc<ActorFrame>>, u64) {
        let version = parts.history.version;
        let seen = since.and_then(|since| parts.version_of(since));
        if let Some(seen) = seen
            && (parts.shown.version..=version).contains(&seen)
        {
            let body = Body::Patch {
                patches: "[]".to_owned(),
                extended: None,
                epoch: parts.shown.epoch.clone(),
                from: seen,
                version,
            };
            return (vec![Arc::new(frame(&self.key, body))], version);
        }
        // What lies in between is not for one who may have been shut out then.
        let seen = seen.filter(|_| !parts.guards.at_each_commit());
        let shown_version = parts.shown.version;
        if let Some(patches) = seen.and_then(|seen| parts.shown.replay.since(seen, shown_version)) {
            return (patches, version);
        }
        let (whole, version) = self.snapshot_of(parts);
        (vec![whole], version)
    }

    /// Looks up what the store has of the history, for a subscriber who comes back and has seen
    /// less than the memory knows.
    pub async fn recall(&self, since: &Since, store: &dyn Keyspace<ActorRecords>) {
        let wants = |parts: &Parts| {
            let seen = parts.version_of(since);
            let seen = seen.filter(|_| !parts.guards.at_each_commit());
            seen.is_some_and(|seen| parts.shown.replay.wants(seen, parts.shown.version))
        };
        {
            let mut parts = self.parts();
            // Before the store is looked at: what is committed from here on is a patch in memory,
            // so that nothing lies between those and what the store has.
            parts.shown.is_watched = true;
            if !wants(&parts) {
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
            let mut parts = self.parts();
            if !wants(&parts) {
                return;
            }
            // One that begins anew meanwhile has nothing to do with this one.
            let history = history.filter(|(base, changes)| parts.goes_on_from(base, changes));
            let Some(history) = history else {
                return parts.shown.replay.is_all();
            };
            let end = parts.shown.replay.begin(parts.shown.version);
            let epoch = parts.shown.epoch.clone();
            (epoch, parts.shown.hidden.clone(), end, history)
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
        let parts = &mut *self.parts();
        let goes_on = parts.shown.epoch == epoch && parts.shown.hidden == hidden;
        match earlier {
            Ok(earlier) if goes_on && wants(parts) => {
                parts.shown.replay.complete(earlier, parts.shown.version);
            }
            // Who comes back gets the whole state.
            _ => {}
        }
    }

    /// The whole state as a message, if all of it is safe and it is at hand.
    pub(crate) fn safe_snapshot(&self) -> Option<(Arc<ActorFrame>, u64)> {
        let mut parts = self.parts();
        // Commits enter under the parts' lock.
        let is_safe = parts.is_at_hand() && self.gate.is_safe();
        is_safe.then(|| self.snapshot_of(&mut parts))
    }

    pub(crate) fn itself(&self) -> Arc<ActorState> {
        let live = self.source.get().and_then(Weak::upgrade);
        live.expect("a reference to it exists while one of its methods runs")
    }

    pub(crate) fn source(&self) -> Arc<dyn Source> {
        self.itself()
    }

    /// What to store when the actor leaves memory.
    pub fn to_stored(&self) -> Stored {
        let parts = self.parts_at_rest();
        let state = parts.history.document.committed().into_owned();
        parts.to_stored(state)
    }
}

impl Source for ActorState {
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
            let mut parts = self.parts();
            if !parts.is_at_hand() {
                tokio::spawn(async move {
                    live.at_rest().await;
                    live.refresh(&outlet);
                });
                return;
            }
            let snapshot = self.snapshot_of(&mut parts);
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

impl Parts {
    /// How many bytes of texts those are shown whole who know no operation that adds to one, where
    /// these patches lead to the document.
    pub(crate) fn shown_bytes(&self, patches: &[PatchOp]) -> usize {
        let added_to = patches.iter().filter_map(|op| match op {
            PatchOp::StrIns { path, .. } => Pointer::parse(path).ok(),
            _ => None,
        });
        let texts =
            added_to.filter_map(|place| place.resolve(self.history.document.value())?.as_str());
        match self.shown.is_watched {
            true => texts.map(str::len).sum(),
            false => 0,
        }
    }

    /// What to store, with this state.
    pub(crate) fn to_stored(&self, state: Json) -> Stored {
        let lineage = self.history.lineage.as_deref();
        Stored {
            epoch: self.history.epoch.clone(),
            version: self.history.version,
            run: "".into(),
            earlier: lineage.map_or(Vec::new(), |lineage| lineage.earlier().to_vec()),
            is_begun: lineage.is_some_and(Lineage::is_begun),
            state,
            state_version: self.history.state_version,
            connections: self.presence.to_stored(),
            timers: self.timers.to_stored(),
            last_timer: self.timers.last_id(),
            answers: self.answers.to_stored(),
            outbox: self.outbox.to_stored(),
            last_sent: self.outbox.last(),
            received: self.inbox.to_stored(),
        }
    }

    /// Puts another state in the place of this one, as the beginning of a new history.
    pub(crate) fn go_on_with(
        &mut self,
        state: Json,
        state_version: u32,
        epoch: Arc<str>,
        version: u64,
    ) {
        self.history.begin(state, state_version, epoch, version);
        self.shown.begin(&self.history.epoch, version);
    }

    /// Whether timers of it are stored, or were.
    pub fn had_timers(&self) -> bool {
        self.timers.last_id() > 0
    }

    /// Whether it must stay in memory by itself.
    pub fn keeps_awake(&self) -> bool {
        self.timers.keep_awake() || self.outbox.is_under_way()
    }

    /// Makes what is staged the committed content.
    pub(crate) fn accept(&mut self) {
        self.history.accept();
        self.shown.pinned = None;
    }
}

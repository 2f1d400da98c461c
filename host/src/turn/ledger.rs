//! An actor's state in memory, its place in history, and who watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use indexmap::IndexMap;
use serde_json::Value;
use tidegate_core::manifest::Access;
use tidegate_core::{ActorKey, Document, patch};

use super::guard::Waiting;
use super::timers::{ActorTimers, Clock, Which};
use crate::engine::Component;
use crate::fanout::{Audience, Body, Message, Refresh};
use crate::router::Slot;
use crate::store::Stored;

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
    pub audience: Audience,
    /// Which component serves it.
    pub slot: Arc<Slot>,
    /// Who waits for the guard's word.
    pub(super) waiting: Mutex<Waiting>,
    ledger: Mutex<Ledger>,
    /// Itself, as what subscribers are told to ask for a snapshot.
    source: OnceLock<Weak<Live>>,
}

/// The state document and its place in history.
pub struct Ledger {
    pub(super) document: Document,
    /// Length of the document as JSON, exact after a whole-document write, else an upper
    /// estimate.
    pub(super) state_bytes: usize,
    /// The same of what was committed last.
    pub(super) committed_bytes: usize,
    /// Names what the turn sees now.
    pub(super) token: u64,
    /// Names what was committed last.
    pub(super) committed_token: u64,
    pub(super) epoch: Arc<str>,
    pub(super) version: u64,
    /// The version of the last patch that subscribers could see.
    pub(super) shown_version: u64,
    pub(super) connections: IndexMap<Arc<str>, Option<Arc<str>>>,
    /// What the actor's turns have set for later.
    pub timers: ActorTimers,
    /// The last committed state as subscribers see it, once somebody has asked for it: one
    /// message for all of them.
    pub(super) encoded: Option<Arc<Message>>,
    /// The last committed state as guards read it, once one has asked for it.
    pub(super) pinned: Option<Arc<Pinned>>,
    /// The component that the rules below are of.
    rules_of: u64,
    /// Top-level members of the state that nobody is shown.
    pub(super) hidden: Arc<[String]>,
    /// Which functions of `access` decide.
    pub(super) access: Access,
}

/// A committed state, to be read beside the turns that come after it.
#[derive(Debug)]
pub struct Pinned {
    pub(super) value: Value,
    pub(super) token: u64,
    pub(super) epoch: Arc<str>,
    pub(super) version: u64,
}

impl Live {
    /// An actor that was never stored, in a history of its own.
    pub fn initial(key: ActorKey, slot: Arc<Slot>, state: Value, epoch: Arc<str>) -> Arc<Live> {
        let bytes = state.to_string().len();
        let timers = ActorTimers::default();
        Live::new(key, slot, state, bytes, epoch, 0, IndexMap::new(), timers)
    }

    /// An actor as it was stored.
    pub fn restored(
        key: ActorKey,
        slot: Arc<Slot>,
        stored: Stored,
        clock: &Clock,
    ) -> Result<Arc<Live>, serde_json::Error> {
        let state = serde_json::from_str(&stored.state)?;
        let timers = ActorTimers::restored(&key, stored.timers, clock);
        Ok(Live::new(
            key,
            slot,
            state,
            stored.state.len(),
            stored.epoch,
            stored.version,
            stored.connections.into_iter().collect(),
            timers,
        ))
    }

    #[expect(clippy::too_many_arguments, reason = "what an actor consists of")]
    fn new(
        key: ActorKey,
        slot: Arc<Slot>,
        state: Value,
        state_bytes: usize,
        epoch: Arc<str>,
        version: u64,
        connections: IndexMap<Arc<str>, Option<Arc<str>>>,
        timers: ActorTimers,
    ) -> Arc<Live> {
        let token = next_token();
        let live = Arc::new(Live {
            key,
            audience: Audience::default(),
            slot,
            waiting: Mutex::default(),
            ledger: Mutex::new(Ledger {
                document: Document::new(state),
                state_bytes,
                committed_bytes: state_bytes,
                token,
                committed_token: token,
                epoch,
                version,
                shown_version: version,
                connections,
                timers,
                encoded: None,
                pinned: None,
                rules_of: 0,
                hidden: Arc::default(),
                access: Access::default(),
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
    pub fn adopt(&self, component: &Component) -> bool {
        let mut ledger = self.ledger();
        if ledger.rules_of == component.serial {
            return false;
        }
        let Some(declared) = component.manifest.actors.get(self.key.actor.as_str()) else {
            return false;
        };
        let access = component.access(self.key.actor.as_str());
        let same =
            *ledger.hidden == *declared.state.hidden && ledger.access.project == access.project;
        ledger.rules_of = component.serial;
        ledger.access = access;
        if same {
            // What a guard shows may follow other rules all the same.
            return access.project;
        }
        ledger.hidden = declared.state.hidden.clone().into();
        ledger.encoded = None;
        true
    }

    /// Whether a guard says what each subscriber sees.
    pub(super) fn is_projected(&self) -> bool {
        self.ledger().access.project
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
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last committed state as subscribers see it, its epoch and its version.
    pub fn committed(&self) -> (Arc<str>, Arc<str>, u64) {
        let (message, version) = self.snapshot();
        match message.body() {
            Body::Snapshot { state, epoch, .. } => (state.clone(), epoch.clone(), version),
            _ => unreachable!("a snapshot is one"),
        }
    }

    /// The last committed state, to be read while turns go on.
    pub(super) fn pin(&self) -> Arc<Pinned> {
        let mut ledger = self.ledger();
        if let Some(pinned) = &ledger.pinned {
            return pinned.clone();
        }
        let pinned = Arc::new(Pinned {
            value: ledger.document.committed().into_owned(),
            token: ledger.committed_token,
            epoch: ledger.epoch.clone(),
            version: ledger.version,
        });
        ledger.pinned = Some(pinned.clone());
        pinned
    }

    /// Begins a new history, with the state of a new actor. Who subscribes and who is
    /// connected stays.
    pub fn begin_again(&self, state: Value, epoch: Arc<str>) {
        let mut ledger = self.ledger();
        let token = next_token();
        ledger.state_bytes = state.to_string().len();
        ledger.committed_bytes = ledger.state_bytes;
        ledger.document = Document::new(state);
        ledger.token = token;
        ledger.committed_token = token;
        ledger.epoch = epoch;
        ledger.version = 0;
        ledger.shown_version = 0;
        ledger.encoded = None;
        ledger.pinned = None;
        ledger.timers.clear();
    }

    /// The same as a message, and its version.
    pub(super) fn snapshot(&self) -> (Arc<Message>, u64) {
        let mut ledger = self.ledger();
        let version = ledger.version;
        if let Some(encoded) = &ledger.encoded {
            return (encoded.clone(), version);
        }
        let state = ledger.document.committed();
        let body = Body::Snapshot {
            state: patch::strip_hidden(&state, &ledger.hidden)
                .to_string()
                .into(),
            epoch: ledger.epoch.clone(),
            version,
        };
        let encoded = Arc::new(Message::new(self.key.clone(), body));
        ledger.encoded = Some(encoded.clone());
        (encoded, version)
    }

    pub(super) fn itself(&self) -> Arc<Live> {
        let live = self.source.get().and_then(Weak::upgrade);
        live.expect("a reference to it exists while one of its methods runs")
    }

    pub(super) fn source(&self) -> Arc<dyn Refresh> {
        self.itself()
    }

    /// What to store when the actor leaves memory.
    pub fn to_stored(&self) -> Stored {
        let ledger = self.ledger();
        Stored {
            state: ledger.document.committed().to_string(),
            epoch: ledger.epoch.clone(),
            version: ledger.version,
            connections: ledger
                .connections
                .iter()
                .map(|(id, user)| (id.clone(), user.clone()))
                .collect(),
            timers: ledger.timers.to_stored(),
        }
    }
}

impl Refresh for Live {
    fn refresh(&self, outlet: &str) {
        if self.is_projected() {
            tokio::spawn(self.itself().refresh_view(outlet.into()));
            return;
        }
        self.audience
            .refresh_state(outlet, &self.source(), || self.snapshot());
    }

    fn actor(&self) -> &ActorKey {
        &self.key
    }
}

impl Ledger {
    /// Notes a connection that has contact.
    pub fn connected(&mut self, id: Arc<str>, user: Option<Arc<str>>) {
        self.connections.insert(id, user);
    }

    /// Forgets a connection.
    pub fn disconnected(&mut self, id: &str) {
        self.connections.shift_remove(id);
    }

    /// The ids of those that have contact.
    pub fn connections(&self) -> impl Iterator<Item = &Arc<str>> {
        self.connections.keys()
    }

    /// Makes what is staged the committed content.
    pub(super) fn accept(&mut self) {
        self.document.accept();
        self.committed_token = self.token;
        self.committed_bytes = self.state_bytes;
        self.pinned = None;
    }

    /// Brings the document back to its last committed content.
    pub fn rollback(&mut self) {
        self.document.rollback();
        self.token = self.committed_token;
        self.state_bytes = self.committed_bytes;
    }
}

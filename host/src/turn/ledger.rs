//! An actor's state in memory, its place in history, and who watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use indexmap::IndexMap;
use serde_json::Value;
use tidegate_core::{ActorKey, Document, patch};

use crate::fanout::{Audience, Body, Message, Outlet, Refresh};
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
    /// Top-level members of the state that nobody is shown.
    pub(super) hidden: Vec<String>,
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
    /// The last committed state as subscribers see it, once somebody has asked for it.
    pub(super) encoded: Option<Arc<str>>,
}

impl Live {
    /// An actor that was never stored, in a history of its own.
    pub fn initial(key: ActorKey, state: Value, hidden: Vec<String>, epoch: Arc<str>) -> Arc<Live> {
        let bytes = state.to_string().len();
        Live::new(key, state, bytes, hidden, epoch, 0, IndexMap::new())
    }

    /// An actor as it was stored.
    pub fn restored(
        key: ActorKey,
        stored: Stored,
        hidden: Vec<String>,
    ) -> Result<Arc<Live>, serde_json::Error> {
        let state = serde_json::from_str(&stored.state)?;
        Ok(Live::new(
            key,
            state,
            stored.state.len(),
            hidden,
            stored.epoch,
            stored.version,
            stored.connections.into_iter().collect(),
        ))
    }

    fn new(
        key: ActorKey,
        state: Value,
        state_bytes: usize,
        hidden: Vec<String>,
        epoch: Arc<str>,
        version: u64,
        connections: IndexMap<Arc<str>, Option<Arc<str>>>,
    ) -> Arc<Live> {
        let token = next_token();
        let live = Arc::new(Live {
            key,
            audience: Audience::default(),
            hidden,
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
                encoded: None,
            }),
            source: OnceLock::new(),
        });
        let _ = live.source.set(Arc::downgrade(&live));
        live
    }

    /// The ledger, locked. Held for single operations only, never across a wait.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last committed state as subscribers see it, its epoch and its version.
    pub fn committed(&self) -> (Arc<str>, Arc<str>, u64) {
        let mut ledger = self.ledger();
        let version = ledger.version;
        let encoded = match &ledger.encoded {
            Some(encoded) => encoded.clone(),
            None => {
                let state = ledger.document.committed();
                let encoded: Arc<str> =
                    patch::strip_hidden(&state, &self.hidden).to_string().into();
                ledger.encoded = Some(encoded.clone());
                encoded
            }
        };
        (encoded, ledger.epoch.clone(), version)
    }

    fn snapshot(&self) -> (Message, u64) {
        let (state, epoch, version) = self.committed();
        let body = Body::Snapshot {
            state,
            epoch,
            version,
        };
        (Message::new(self.key.clone(), body), version)
    }

    /// Sends the snapshot to a receiver and keeps it informed from there on.
    pub fn subscribe_state(&self, outlet: Arc<dyn Outlet>) {
        self.audience
            .join_state(outlet, &self.source(), || self.snapshot());
    }

    pub(super) fn source(&self) -> Arc<dyn Refresh> {
        let live = self.source.get().and_then(Weak::upgrade);
        live.expect("a reference to it exists while one of its methods runs")
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
        }
    }
}

impl Refresh for Live {
    fn refresh(&self, outlet: &str) {
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

    /// Makes what is staged the committed content.
    pub(super) fn accept(&mut self) {
        self.document.accept();
        self.committed_token = self.token;
        self.committed_bytes = self.state_bytes;
    }

    /// Brings the document back to its last committed content.
    pub fn rollback(&mut self) {
        self.document.rollback();
        self.token = self.committed_token;
        self.state_bytes = self.committed_bytes;
    }
}

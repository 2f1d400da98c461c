//! Connections: who is connected, and which actors each has had contact with.
//!
//! The gateway registers a connection when its socket opens and removes it when it
//! closes; `actor` asks whether a connection is still there.
//!
//! Invariant: the id of a connection is never used twice by a host.

mod contacts;

use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use indexmap::IndexMap;
use tidegate_base::budget::{Chunks, Exhausted};
use tidegate_base::hash::{KeyedHash, KeyedMap, KeyedSet};
use tidegate_base::sync::{Mutex, MutexGuard, RwLock};
use tidegate_core::protocol::Envelope;
use tidegate_core::{ActorKey, Client, Failure, protocol};
use tidegate_ws::{CloseCode, Counters, Frame, Outbound, Refused};
use tokio_util::sync::CancellationToken;

use self::contacts::Contacts;
use super::metrics::Metrics;
use crate::frame::{Dialect, SharedFrame};
use crate::outlet::{Close, Offer, Outlet, Source};

/// Verified claims as a JSON object.
type Claims = Arc<str>;

/// What a call that has no answer yet takes beside its input, in bytes.
const CALL_COST: usize = 512;
/// What contact with an actor takes, in bytes, here and at the actor: to be known, and perhaps to
/// subscribe.
const CONTACT_COST: usize = 512;
/// What a connection may be owed while parts of results are still added to it.
const CHUNKS_AHEAD_BYTES: usize = 256 << 10;
/// How often it is looked whether there is room again where all connections together are owed too
/// much.
const PRESSED_PAUSE: Duration = Duration::from_millis(100);

/// One open WebSocket.
pub struct Connection {
    id: Arc<str>,
    /// Who it is; a new token changes it.
    user: ArcSwapOption<Claims>,
    outbound: Arc<Outbound>,
    /// What it understands in patches.
    dialect: Dialect,
    /// What of its traffic is counted already.
    counted: Mutex<Counters>,
    metrics: Arc<Metrics>,
    state: Mutex<ConnectionState>,
    itself: Weak<Connection>,
}

#[derive(Default)]
struct ConnectionState {
    /// Actors that it has had contact with.
    contacts: Contacts,
    /// Calls that have no answer yet, by their ids.
    calls: KeyedMap<Box<str>, OpenCall>,
    /// These bytes, all together.
    calls_bytes: usize,
    /// What has been taken of the host's budget for calls.
    calls_taken: Chunks,
    /// What has been taken of the host's budget for contacts.
    contacts_taken: Chunks,
    /// Sources that owe it their content, each once, by where they are. Few connections ever miss anything.
    missed: Option<Box<KeyedMap<usize, Arc<dyn Source>>>>,
    /// A task waits to send them.
    catching_up: bool,
    /// Something found no room among what all connections are owed since that was last looked
    /// after.
    found_no_room: bool,
}

/// A call that has no answer yet.
struct OpenCall {
    /// Bytes of its input.
    bytes: usize,
    /// Tells it that nobody wants the answer any longer.
    cancel: CancellationToken,
    /// Whose queue it is in, once that is known.
    actor: Option<ActorKey>,
}

/// What contact with an actor is to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The first with this actor.
    First,
    /// One more.
    Known,
    /// It is refused: the connection knows too many actors.
    TooMany,
    /// It is refused: all connections together do.
    NoRoom(Exhausted),
}

/// What the calls of one connection may be that have no answer yet.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// How many.
    pub calls: usize,
    /// Bytes of their inputs, unless it is a single call.
    pub bytes: usize,
}

/// Why a call is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallRefused {
    /// A call with this id has no answer yet.
    DuplicateId,
    /// Too many calls have no answer yet.
    TooMany,
    /// All clients together have sent too much.
    NoRoom(Exhausted),
}

impl Connection {
    /// A connection whose socket has just opened.
    pub fn new(
        id: Arc<str>,
        user: Option<Arc<str>>,
        dialect: Dialect,
        outbound: Arc<Outbound>,
        metrics: Arc<Metrics>,
    ) -> Arc<Connection> {
        Arc::new_cyclic(|itself| Connection {
            id,
            user: ArcSwapOption::from(user.map(Arc::new)),
            outbound,
            dialect,
            counted: Mutex::default(),
            metrics,
            state: Mutex::default(),
            itself: itself.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock()
    }

    /// Its id, as `welcome` tells the client.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Who it is, as handlers see it.
    pub fn client(&self) -> Client {
        Client {
            connection: Some(self.id.clone()),
            user: self.user.load().as_deref().cloned(),
        }
    }

    /// Who it is from here on.
    pub fn identify(&self, user: Option<Arc<str>>) {
        self.user.store(user.map(Arc::new));
    }

    /// Adds what was sent since the last time to the host's counters.
    pub fn count_traffic(&self) {
        let mut counted = self.counted.lock();
        let now = self.outbound.counters();
        self.metrics.frames_sent.inc_by(now.frames - counted.frames);
        self.metrics.bytes_sent.inc_by(now.bytes - counted.bytes);
        *counted = now;
    }

    /// The sending side of its socket.
    pub fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    /// Notes contact with an actor, unless there are `limit` others.
    pub fn contact(&self, actor: &ActorKey, limit: usize) -> Contact {
        let mut state = self.state();
        if state.contacts.contains(actor) {
            return Contact::Known;
        }
        if state.contacts.len() >= limit {
            return Contact::TooMany;
        }
        let cost = (state.contacts.len() + 1) * CONTACT_COST;
        let budget = &self.outbound.budgets().actors;
        if let Err(exhausted) = state.contacts_taken.fit(cost, budget) {
            return Contact::NoRoom(exhausted);
        }
        state.contacts.insert(actor.clone());
        Contact::First
    }

    /// Takes back a contact that came to nothing.
    pub fn forget(&self, actor: &ActorKey) {
        let mut state = self.state();
        state.contacts.remove(actor);
        self.fit_contacts(&mut state);
    }

    /// Gives back what contacts do not need any more.
    fn fit_contacts(&self, state: &mut ConnectionState) {
        let cost = state.contacts.len() * CONTACT_COST;
        // It only gives back.
        let _ = state
            .contacts_taken
            .fit(cost, &self.outbound.budgets().actors);
    }

    /// The actors it has had contact with.
    pub fn contacts(&self) -> Vec<ActorKey> {
        self.state().contacts.clone().into_vec()
    }

    /// The actors it has had contact with; there will be no further ones.
    pub fn take_contacts(&self) -> Vec<ActorKey> {
        let mut state = self.state();
        let contacts = std::mem::take(&mut state.contacts);
        self.fit_contacts(&mut state);
        contacts.into_vec()
    }

    /// Lets a call in, unless its id is taken or the others are too many.
    pub fn begin_call(
        &self,
        id: &str,
        bytes: usize,
        limits: CallLimits,
    ) -> Result<CancellationToken, CallRefused> {
        let mut state = self.state();
        if state.calls.contains_key(id) {
            return Err(CallRefused::DuplicateId);
        }
        let fits = state.calls_bytes.saturating_add(bytes) <= limits.bytes;
        if state.calls.len() >= limits.calls || !(fits || state.calls.is_empty()) {
            return Err(CallRefused::TooMany);
        }
        let cost = state.calls_bytes + bytes + (state.calls.len() + 1) * CALL_COST;
        let taken = state.calls_taken.fit(cost, &self.outbound.budgets().inputs);
        taken.map_err(CallRefused::NoRoom)?;
        let cancel = CancellationToken::new();
        let call = OpenCall {
            bytes,
            cancel: cancel.clone(),
            actor: None,
        };
        state.calls.insert(id.into(), call);
        state.calls_bytes += bytes;
        Ok(cancel)
    }

    /// Whether a call with this id has no answer yet.
    pub fn awaits(&self, id: &str) -> bool {
        self.state().calls.contains_key(id)
    }

    /// Whether it waits for the answers of several calls.
    pub fn awaits_several(&self) -> bool {
        self.state().calls.len() > 1
    }

    /// Notes whose queue a call is in.
    pub fn queued(&self, id: &str, actor: &ActorKey) {
        if let Some(call) = self.state().calls.get_mut(id) {
            call.actor = Some(actor.clone());
        }
    }

    /// Tells a call that its answer is not wanted any longer. Returns whose queue it may
    /// still be in; none if there is no such call, or it was told before.
    pub fn cancel(&self, id: &str) -> Option<ActorKey> {
        let state = self.state();
        let call = state.calls.get(id)?;
        if call.cancel.is_cancelled() {
            return None;
        }
        call.cancel.cancel();
        call.actor.clone()
    }

    /// Tells all calls that nobody wants their answers. Returns whose queues they are in.
    pub fn cancel_all(&self) -> KeyedSet<ActorKey> {
        let state = self.state();
        let calls = state.calls.values();
        calls
            .filter_map(|call| {
                call.cancel.cancel();
                call.actor.clone()
            })
            .collect()
    }

    /// Completes when the client has read so much that parts of results may follow. They
    /// leave room for what cannot wait.
    pub async fn room(&self) {
        self.outbound.fallen_to(CHUNKS_AHEAD_BYTES).await;
    }

    /// Answers a call that was let in.
    pub fn end_call(&self, id: &str, result: &Result<Option<String>, Failure>) {
        {
            let mut state = self.state();
            let call = state.calls.remove(id);
            state.calls_bytes -= call.map_or(0, |call| call.bytes);
            let cost = state.calls_bytes + state.calls.len() * CALL_COST;
            // It only gives back.
            let _ = state.calls_taken.fit(cost, &self.outbound.budgets().inputs);
        }
        self.send(Frame::text(match result {
            Ok(result) => protocol::rpc_result(id, result.as_deref()),
            Err(failure) => protocol::rpc_failure(id, failure),
        }));
    }

    /// Sends a frame that cannot be made up for: a connection that is owed too much
    /// already is closed. Where it is the others who are, they make room first.
    pub fn send(&self, frame: Frame) {
        let mut pushed = self.outbound.push(frame.clone());
        if let Err(Refused::NoRoom(_)) = pushed {
            self.make_room();
            pushed = self.outbound.push(frame);
        }
        if let Err(Refused::Full | Refused::NoRoom(_)) = pushed {
            self.close(Close::Slow);
        }
    }

    fn no_room(&self, exhausted: Exhausted) -> Offer {
        self.state().found_no_room = true;
        Offer::NoRoom(exhausted)
    }

    /// Waits until the client has read what it is owed, then makes up for what it missed.
    /// Ends with the connection.
    async fn catch_up(self: Arc<Self>) {
        loop {
            self.outbound.drained().await;
            while self.outbound.is_open() && self.outbound.budgets().outbound.is_pressed() {
                // Not its own queue, but all together hold too much.
                tokio::time::sleep(PRESSED_PAUSE).await;
            }
            let found_no_room = std::mem::take(&mut self.state().found_no_room);
            if found_no_room {
                // What is large finds none earlier, and with an empty queue nothing else would
                // hold this up.
                tokio::time::sleep(PRESSED_PAUSE).await;
            }
            let missed = {
                let mut state = self.state();
                let missed = state.missed.take().filter(|_| self.outbound.is_open());
                let Some(missed) = missed else {
                    state.catching_up = false;
                    return;
                };
                missed
            };
            for source in missed.into_values() {
                self.metrics.resyncs.inc();
                source.refresh(&self.id);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let budgets = self.outbound.budgets();
        // They only give back.
        let _ = state.calls_taken.fit(0, &budgets.inputs);
        let _ = state.contacts_taken.fit(0, &budgets.actors);
    }
}

impl Outlet for Connection {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn client(&self) -> Client {
        Connection::client(self)
    }

    fn offer(&self, shared: &SharedFrame) -> Offer {
        let budget = &self.outbound.budgets().outbound;
        let frame = match shared.frame(self.dialect, budget) {
            Ok(frame) => frame.clone(),
            Err(exhausted) => return self.no_room(exhausted),
        };
        match self.outbound.push(frame) {
            Ok(()) => Offer::Taken,
            Err(Refused::Full) => Offer::Full,
            Err(Refused::NoRoom(exhausted)) => self.no_room(exhausted),
            Err(Refused::Closed) => Offer::Gone,
        }
    }

    fn make_room(&self) {
        self.outbound.budgets().outbound.make_room();
    }

    fn refresh_later(&self, source: Arc<dyn Source>) {
        let mut state = self.state();
        let missed = state.missed.get_or_insert_default();
        missed.insert(Arc::as_ptr(&source).addr(), source);
        if !state.catching_up
            && let Some(itself) = self.itself.upgrade()
        {
            state.catching_up = true;
            tokio::spawn(itself.catch_up());
        }
    }

    fn close(&self, why: Close) {
        match why {
            Close::Slow => {
                if self.outbound.is_open() {
                    self.metrics.slow_consumers.inc();
                }
                self.outbound
                    .close_discarding(SLOW_CONSUMER, "reads too slowly");
            }
            Close::Lost => self
                .outbound
                .close(CloseCode::INTERNAL, "the actor has to be loaded again"),
        }
    }

    fn end(&self, source: &dyn Source, failure: &Failure) {
        let failure = source.name_in(failure.clone());
        self.send(Frame::text(protocol::error(&failure, &Envelope::default())));
    }

    fn cork(&self) {
        self.outbound.begin_cork();
    }

    fn uncork(&self) {
        self.outbound.end_cork();
    }
}

/// The close code (RFC 6455, section 7.4.2, private use) of a client that does not read
/// what it is sent.
pub const SLOW_CONSUMER: CloseCode = CloseCode::new(4008).expect("private codes are valid");

/// The close code of a client whose token has expired and who sent no new one.
pub const TOKEN_EXPIRED: CloseCode = CloseCode::new(4401).expect("private codes are valid");

/// All open connections of a host.
#[derive(Default)]
pub struct Connections {
    open: RwLock<IndexMap<Arc<str>, Arc<Connection>, KeyedHash>>,
}

impl Connections {
    /// Adds a connection.
    pub fn insert(&self, connection: Arc<Connection>) {
        let mut open = self.open.write();
        open.insert(connection.id.clone(), connection);
    }

    /// Removes a connection.
    pub fn remove(&self, id: &str) {
        let mut open = self.open.write();
        open.swap_remove(id);
    }

    /// Whether a connection is open.
    pub fn is_open(&self, id: &str) -> bool {
        let open = self.open.read();
        open.contains_key(id)
    }

    /// Has a connection, if it is open, come to an actor for the first time when it comes next.
    pub fn forget_contact(&self, id: &str, actor: &ActorKey) {
        let open = self.open.read();
        let connection = open.get(id).cloned();
        drop(open);
        if let Some(connection) = connection {
            connection.forget(actor);
        }
    }

    /// Who a connection is now, while it is open.
    pub fn client(&self, id: &str) -> Option<Client> {
        let open = self.open.read();
        open.get(id).map(|connection| connection.client())
    }

    /// All of them, as of now.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        let open = self.open.read();
        open.values().cloned().collect()
    }
}

/// Who is connected, to this host or another one.
pub trait Presence: Send + Sync + 'static {
    /// Whether a connection is open.
    fn is_open(&self, id: &str) -> bool;
    /// Who a connection is now, while it is open.
    fn client(&self, id: &str) -> Option<Client>;
}

impl Presence for Connections {
    fn is_open(&self, id: &str) -> bool {
        Connections::is_open(self, id)
    }

    fn client(&self, id: &str) -> Option<Client> {
        Connections::client(self, id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidegate_base::budget::{Budget, Budgets};
    use tidegate_ws::{Settings, Socket};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::frame::Content;

    /// A text that is as long as it is told to be, and how often it was sent anew.
    struct Text {
        bytes: usize,
        refreshed: AtomicUsize,
        to: Arc<Connection>,
        itself: Weak<Text>,
    }

    #[derive(Debug)]
    struct Long(usize);

    impl Content for Long {
        fn text(&self, _: Dialect) -> String {
            "x".repeat(self.0)
        }

        fn server_sent_event(&self, dialect: Dialect) -> String {
            self.text(dialect)
        }
    }

    impl Source for Text {
        fn refresh(&self, _: &str) {
            self.refreshed.fetch_add(1, Ordering::Relaxed);
            let offered = self.to.offer(&SharedFrame::new(Long(self.bytes)));
            if let Offer::NoRoom(_) = offered {
                self.to.refresh_later(self.itself.upgrade().unwrap());
            }
        }

        fn name_in(&self, failure: Failure) -> Failure {
            failure
        }
    }

    #[tokio::test]
    async fn who_finds_no_room_with_an_empty_queue_tries_again_after_a_pause() {
        let budget = Budget::new("test", 1 << 20);
        let settings = Settings {
            budgets: Budgets {
                outbound: budget.clone(),
                ..Budgets::default()
            },
            ..Settings::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let stream = accepted.unwrap().0;
        let socket =
            Socket::<tidegate_ws::Unread>::new(stream, bytes::Bytes::new(), settings).unwrap();
        let outbound = socket.outbound().clone();
        let (id, metrics) = ("c".into(), Arc::new(Metrics::default()));
        let to = Connection::new(id, None, Dialect::Plain, outbound, metrics);
        let source = Arc::new_cyclic(|itself| Text {
            bytes: 600_000,
            refreshed: AtomicUsize::new(0),
            to: to.clone(),
            itself: itself.clone(),
        });
        // Too much for the state, and too little to be pressed.
        let others = budget.share(300_000).unwrap();
        tokio::time::pause();
        to.refresh_later(source.clone());
        tokio::time::sleep(PRESSED_PAUSE * 7 / 2).await;
        assert_eq!(source.refreshed.load(Ordering::Relaxed), 4);
        assert!(to.outbound().is_open());
        drop(others);
        tokio::time::sleep(PRESSED_PAUSE).await;
        assert_eq!(source.refreshed.load(Ordering::Relaxed), 5);
        tokio::time::sleep(PRESSED_PAUSE * 5).await;
        assert_eq!(source.refreshed.load(Ordering::Relaxed), 5);
    }
}

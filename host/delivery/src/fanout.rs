//! Who gets what an actor sends, and the frames it is sent in.
//!
//! `turn` publishes to an [`Audience`]; the doors implement [`Outlet`]. A [`SharedFrame`] is
//! encoded at most once per form and its bytes are shared by all receivers.
//!
//! Invariants: a subscriber gets its snapshot before any patch, each patch at most once
//! and in order; offering never waits, so a receiver that does not read slows nobody.

mod views;
mod write_batch;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use indexmap::IndexMap;
use tidegate_base::budget::{Budget, Exhausted, Lasting};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::{ActorKey, Client, Failure, protocol};
use tidegate_ws::Frame;

pub use self::views::{OwnView, Shown, Steps, View};
pub use self::write_batch::{Corked, WriteBatch, while_ready};

/// Something an actor tells its subscribers.
#[derive(Debug)]
pub struct SharedFrame {
    actor: ActorKey,
    body: Body,
    frames: Forms<Frame>,
    events: Forms<Bytes>,
    /// Where these are found while others are still to be sent them.
    lasting: Option<Arc<LastingForms>>,
}

/// The forms of a message that comes again: held by those who are sent them alone.
#[derive(Debug, Default)]
struct LastingForms {
    frame: Lasting,
    event: Lasting,
}

/// One thing in each dialect, made once somebody wants it.
#[derive(Debug)]
struct Forms<T> {
    plain: OnceLock<T>,
    extended: OnceLock<T>,
}

impl<T> Default for Forms<T> {
    fn default() -> Forms<T> {
        Forms {
            plain: OnceLock::new(),
            extended: OnceLock::new(),
        }
    }
}

/// Which operations a receiver understands in patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Those of JSON Patch.
    #[default]
    Plain,
    /// `str_ins` as well, which appends to a text without sending it anew.
    StrIns,
}

/// What it is. JSON is text that is spliced into frames as it stands.
#[derive(Clone, Debug)]
pub enum Body {
    /// The whole state.
    Snapshot {
        /// The document.
        state: Arc<str>,
        /// Which history.
        epoch: Arc<str>,
        /// Where in it.
        version: u64,
    },
    /// A change of the state.
    Patch {
        /// A JSON array of operations, in plain JSON Patch.
        patches: String,
        /// The same with `str_ins`, where that makes a difference.
        extended: Option<String>,
        /// Which history.
        epoch: Arc<str>,
        /// The last version that the patch applies to.
        from: u64,
        /// The version that it leads to.
        version: u64,
    },
    /// An event.
    Event {
        /// Its name.
        name: String,
        /// Its payload.
        payload: String,
    },
}

impl SharedFrame {
    /// A message that nobody has asked for in any form yet.
    pub fn new(actor: ActorKey, body: Body) -> SharedFrame {
        SharedFrame {
            actor,
            body,
            frames: Forms::default(),
            events: Forms::default(),
            lasting: None,
        }
    }

    /// A message that is kept and comes [`again`](SharedFrame::again), the same in each dialect.
    pub fn lasting(actor: ActorKey, body: Body) -> SharedFrame {
        SharedFrame {
            lasting: Some(Arc::default()),
            ..SharedFrame::new(actor, body)
        }
    }

    /// A message that is kept, to be sent: whoever is sent it while another still has it shares
    /// that one's form.
    pub fn again(&self) -> SharedFrame {
        SharedFrame {
            lasting: self.lasting.clone(),
            ..self.bare()
        }
    }

    /// The same, in no form yet: for who keeps it. Forms belong to those that they are sent to,
    /// and are taken from the memory that there is for these.
    pub fn bare(&self) -> SharedFrame {
        SharedFrame::new(self.actor.clone(), self.body.clone())
    }

    /// What it takes to keep it, in bytes, about.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 256;
        FIXED
            + match &self.body {
                Body::Snapshot { state, .. } => state.len(),
                Body::Patch {
                    patches, extended, ..
                } => patches.len() + extended.as_ref().map_or(0, String::len),
                Body::Event { name, payload } => name.len() + payload.len(),
            }
    }

    /// What it is.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The place of a form that is the same for all who speak alike.
    fn form<'m, T>(&'m self, forms: &'m Forms<T>, dialect: Dialect) -> &'m OnceLock<T> {
        let is_extended = matches!(
            (&self.body, dialect),
            (
                Body::Patch {
                    extended: Some(_),
                    ..
                },
                Dialect::StrIns
            )
        );
        match is_extended {
            true => &forms.extended,
            false => &forms.plain,
        }
    }

    /// The operations of a patch.
    fn patches(&self, dialect: Dialect) -> &str {
        match (&self.body, dialect) {
            (
                Body::Patch {
                    extended: Some(extended),
                    ..
                },
                Dialect::StrIns,
            ) => extended,
            (Body::Patch { patches, .. }, _) => patches,
            _ => "[]",
        }
    }

    /// As a WebSocket frame of the protocol, taken from the budget when it is made.
    pub fn frame(&self, dialect: Dialect, budget: &Arc<Budget>) -> Result<&Frame, Exhausted> {
        let text = || {
            let (actor, id) = (self.actor.actor.as_str(), self.actor.id.as_str());
            match &self.body {
                Body::Snapshot {
                    state,
                    epoch,
                    version,
                } => protocol::snapshot(actor, id, state, epoch, *version),
                Body::Patch {
                    epoch,
                    from,
                    version,
                    ..
                } => protocol::patch(actor, id, self.patches(dialect), epoch, *from, *version),
                Body::Event { name, payload } => protocol::event(actor, id, name, payload),
            }
        };
        made(self.form(&self.frames, dialect), || match &self.lasting {
            None => Frame::shared_text(text(), budget),
            Some(lasting) => {
                let make = || budget.shared(Frame::encoded_text(text()));
                lasting
                    .frame
                    .or_make(make)
                    .map(|shared| Frame::of_shared(&shared))
            }
        })
    }

    /// As a server-sent event (WHATWG HTML, section 9.2), taken from the budget when it is made.
    pub fn server_sent_event(
        &self,
        dialect: Dialect,
        budget: &Arc<Budget>,
    ) -> Result<&Bytes, Exhausted> {
        let text = || {
            let text = match &self.body {
                Body::Snapshot {
                    state,
                    epoch,
                    version,
                } => sse(
                    "snapshot",
                    Some((epoch, *version)),
                    &format!(r#"{{"state":{state},"epoch":"{epoch}","version":{version}}}"#),
                ),
                Body::Patch {
                    epoch,
                    from,
                    version,
                    ..
                } => sse(
                    "patch",
                    Some((epoch, *version)),
                    &format!(
                        r#"{{"patches":{},"epoch":"{epoch}","from":{from},"version":{version}}}"#,
                        self.patches(dialect)
                    ),
                ),
                Body::Event { name, payload } => sse(
                    "event",
                    None,
                    &format!(r#"{{"event":"{name}","payload":{payload}}}"#),
                ),
            };
            text.into_bytes()
        };
        made(self.form(&self.events, dialect), || match &self.lasting {
            None => budget.bytes(text()),
            Some(lasting) => {
                let shared = lasting.event.or_make(|| budget.shared(text()));
                shared.map(|shared| shared.bytes())
            }
        })
    }
}

/// What is in its place, made if need be.
fn made<T>(
    place: &OnceLock<T>,
    make: impl FnOnce() -> Result<T, Exhausted>,
) -> Result<&T, Exhausted> {
    if let Some(made) = place.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(place.get_or_init(|| made))
}

/// One server-sent event. Line breaks in JSON text are white space between tokens, never
/// part of a string, so they may become spaces.
pub fn sse(event: &str, id: Option<(&str, u64)>, json: &str) -> String {
    let id = id.map_or(String::new(), |(epoch, version)| {
        format!("id: {epoch}:{version}\n")
    });
    let json = if json.contains(['\n', '\r']) {
        std::borrow::Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        std::borrow::Cow::Borrowed(json)
    };
    format!("event: {event}\n{id}data: {json}\n\n")
}

/// Which of an actor's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The state and its patches.
    State,
    /// The events.
    Events,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It will be sent.
    Taken,
    /// The receiver is owed too much already; nothing was taken.
    Full,
    /// All receivers together are owed too much, which need not be this one's fault; nothing was
    /// taken.
    NoRoom(Exhausted),
    /// The receiver is gone.
    Gone,
}

/// Why a receiver is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// It does not read what cannot be made up for.
    Slow,
    /// What it watches is lost, by a fault of the host.
    Lost,
}

/// A receiver: a WebSocket connection or a stream of server-sent events.
pub trait Outlet: Send + Sync + 'static {
    /// Unique among the receivers of a host. For a connection, its id.
    fn id(&self) -> &Arc<str>;
    /// Takes a message, or not; never waits.
    fn offer(&self, message: &SharedFrame) -> Offer;
    /// Promises a [`Refresh::refresh`] of this source, once, as soon as the receiver has
    /// read enough; to promise it twice is the same. Between one that found no room and the next
    /// there is a pause.
    fn refresh_later(&self, source: Arc<dyn Refresh>);
    /// Has those closed who are owed most, where there is no room for all; never waits.
    fn make_room(&self) {}
    /// Ends the receiver.
    fn close(&self, why: Close);
    /// Who receives.
    fn client(&self) -> Client;
    /// Tells the receiver that it is subscribed to this actor no longer, and why.
    fn end(&self, actor: &ActorKey, failure: &Failure);
    /// Gathers what it takes until as many [`Outlet::uncork`].
    fn cork(&self) {}
    /// Ends one [`Outlet::cork`].
    fn uncork(&self) {}
}

/// Something whose whole content can be sent anew, in place of changes that were missed.
pub trait Refresh: Send + Sync {
    /// Sends it to the subscriber with this id.
    fn refresh(&self, outlet: &str);
    /// Whose content it is.
    fn actor(&self) -> &ActorKey;
}

struct StateSubscriber {
    outlet: Arc<dyn Outlet>,
    /// The version up to which nothing is left to tell it.
    version: u64,
    /// The version of the last message that it was sent.
    told: u64,
    /// It missed something and waits for a snapshot.
    stale: bool,
    /// What it was shown last.
    view: View,
}

#[derive(Default)]
struct Subscribers {
    state: IndexMap<Arc<str>, StateSubscriber>,
    events: IndexMap<Arc<str>, Arc<dyn Outlet>>,
    /// The actor leaves memory: who comes from here on is one for its successor.
    has_left: bool,
}

/// The subscribers of one actor.
///
/// Its lock is held while a message is offered to all of them, which orders snapshots of
/// newcomers and patches. Offering does not wait for anybody.
#[derive(Default)]
pub struct Audience {
    subscribers: Mutex<Subscribers>,
}

impl Audience {
    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock()
    }

    /// Whether nobody subscribes to anything.
    pub fn is_empty(&self) -> bool {
        let subscribers = self.lock();
        subscribers.state.is_empty() && subscribers.events.is_empty()
    }

    /// Lets nobody join from here on, because the actor leaves memory. False, and nothing is
    /// done, where somebody subscribes and that is a reason to stay.
    pub fn leave_memory(&self, if_empty: bool) -> bool {
        let mut subscribers = self.lock();
        let is_empty = subscribers.state.is_empty() && subscribers.events.is_empty();
        subscribers.has_left = is_empty || !if_empty;
        subscribers.has_left
    }

    /// The actor stays in memory after all.
    pub fn stay(&self) {
        self.lock().has_left = false;
    }

    /// Whether nobody can join any more.
    pub fn has_left(&self) -> bool {
        self.lock().has_left
    }

    /// Adds or renews a subscription to the state. `snapshot` gives the committed state, or
    /// the patches that lead to it, and its version; or it refuses, and then this is false. It
    /// is called under the audience's lock.
    pub fn join_state(
        &self,
        outlet: Arc<dyn Outlet>,
        source: &Arc<dyn Refresh>,
        snapshot: impl FnOnce() -> Option<(Vec<Arc<SharedFrame>>, u64)>,
    ) -> bool {
        let mut subscribers = self.lock();
        if subscribers.has_left {
            return false;
        }
        let known = subscribers.state.get(&**outlet.id());
        if known.is_some_and(|subscriber| subscriber.stale) {
            // It gets a snapshot anyway, as soon as it has room for one.
            return true;
        }
        let Some((messages, version)) = snapshot() else {
            return false;
        };
        let mut stale = false;
        for message in messages {
            match show(&outlet, &message, source) {
                Told::Now => {}
                Told::Later => {
                    stale = true;
                    break;
                }
                Told::Never => return true,
            }
        }
        let subscriber = StateSubscriber {
            version,
            told: version,
            stale,
            view: View::Whole,
            outlet: outlet.clone(),
        };
        subscribers.state.insert(outlet.id().clone(), subscriber);
        true
    }

    /// Sends a fresh snapshot to a subscriber that missed something. `snapshot` may refuse,
    /// and then this is false.
    pub fn refresh_state(
        &self,
        outlet: &str,
        source: &Arc<dyn Refresh>,
        snapshot: impl FnOnce() -> Option<(Arc<SharedFrame>, u64)>,
    ) -> bool {
        let mut subscribers = self.lock();
        let Some(subscriber) = subscribers.state.get_mut(outlet).filter(|s| s.stale) else {
            return true;
        };
        let Some((message, version)) = snapshot() else {
            return false;
        };
        if !subscriber.send(&message, version, source) {
            subscribers.state.swap_remove(outlet);
        }
        true
    }

    /// Ends a subscription to the state.
    pub fn leave_state(&self, outlet: &str) {
        self.lock().state.swap_remove(outlet);
    }

    /// Adds a subscription to the events.
    pub fn join_events(&self, outlet: Arc<dyn Outlet>) {
        self.lock().events.insert(outlet.id().clone(), outlet);
    }

    /// The same, if this is fit to be, which is asked under the audience's lock.
    pub fn join_events_if(&self, outlet: Arc<dyn Outlet>, is_fit: impl FnOnce() -> bool) -> bool {
        let mut subscribers = self.lock();
        let joins = !subscribers.has_left && is_fit();
        if joins {
            subscribers.events.insert(outlet.id().clone(), outlet);
        }
        joins
    }

    /// Ends a subscription to the events.
    pub fn leave_events(&self, outlet: &str) {
        self.lock().events.swap_remove(outlet);
    }

    /// Ends one of the two subscriptions.
    pub fn leave_stream(&self, outlet: &str, stream: Stream) {
        match stream {
            Stream::State => self.leave_state(outlet),
            Stream::Events => self.leave_events(outlet),
        }
    }

    /// All subscriptions.
    pub fn subscribers(&self) -> Vec<(Arc<dyn Outlet>, Stream)> {
        let subscribers = self.lock();
        let state = subscribers.state.values();
        let state = state.map(|subscriber| (subscriber.outlet.clone(), Stream::State));
        let events = subscribers.events.values();
        let events = events.map(|outlet| (outlet.clone(), Stream::Events));
        state.chain(events).collect()
    }

    /// Ends both subscriptions.
    pub fn leave(&self, outlet: &str) {
        let mut subscribers = self.lock();
        subscribers.state.swap_remove(outlet);
        subscribers.events.swap_remove(outlet);
    }

    fn take_all(&self) -> Subscribers {
        let mut subscribers = self.lock();
        let has_left = subscribers.has_left;
        let next = Subscribers {
            has_left,
            ..Subscribers::default()
        };
        std::mem::replace(&mut subscribers, next)
    }

    /// Ends all subscriptions; the receivers go on.
    pub fn end(&self, actor: &ActorKey, failure: &Failure) {
        let Subscribers { state, events, .. } = self.take_all();
        let mut outlets: IndexMap<Arc<str>, Arc<dyn Outlet>> = events;
        outlets.extend(
            state
                .into_iter()
                .map(|(id, subscriber)| (id, subscriber.outlet)),
        );
        for outlet in outlets.values() {
            outlet.end(actor, failure);
        }
    }

    /// Holds back all who subscribe to the state, and adds them to `held`.
    fn cork_state(&self, held: &mut Vec<Arc<dyn Outlet>>) {
        let subscribers = self.lock();
        let outlets = subscribers.state.values();
        held.extend(
            outlets
                .map(|subscriber| subscriber.outlet.clone())
                .inspect(|outlet| outlet.cork()),
        );
    }

    /// Holds back all who subscribe to the events, and adds them to `held`.
    fn cork_events(&self, held: &mut Vec<Arc<dyn Outlet>>) {
        let subscribers = self.lock();
        let outlets = subscribers.events.values();
        held.extend(outlets.cloned().inspect(|outlet| outlet.cork()));
    }

    /// Holds those of them back who subscribe to the events, and adds them to `held`.
    fn cork_some(&self, ids: &HashSet<String>, held: &mut Vec<Arc<dyn Outlet>>) {
        let subscribers = self.lock();
        let outlets = ids
            .iter()
            .filter_map(|id| subscribers.events.get(id.as_str()));
        held.extend(outlets.cloned().inspect(|outlet| outlet.cork()));
    }

    /// How many subscribe to the state, and how many to the events.
    pub fn len(&self) -> (usize, usize) {
        let subscribers = self.lock();
        (subscribers.state.len(), subscribers.events.len())
    }

    /// Sends everybody a fresh snapshot: what they have is of another history. `snapshot` may
    /// refuse, and then this is false.
    pub fn restart(
        &self,
        source: &Arc<dyn Refresh>,
        snapshot: impl FnOnce() -> Option<(Arc<SharedFrame>, u64)>,
    ) -> bool {
        let mut subscribers = self.lock();
        if subscribers.state.is_empty() {
            return true;
        }
        let Some((message, version)) = snapshot() else {
            return false;
        };
        subscribers.state.retain(|_, subscriber| {
            subscriber.view = View::Whole;
            subscriber.send(&message, version, source)
        });
        true
    }

    /// Ends all subscribers.
    pub fn close(&self, why: Close) {
        let subscribers = self.take_all();
        for subscriber in subscribers.state.values() {
            subscriber.outlet.close(why);
        }
        for outlet in subscribers.events.values() {
            outlet.close(why);
        }
    }

    /// Offers a patch to everybody who has not seen its version yet. Who is owed too much
    /// already gets a snapshot later, in place of this and all further patches.
    /// Returns how many took it.
    pub fn publish_patch(
        &self,
        patch: &SharedFrame,
        version: u64,
        source: &Arc<dyn Refresh>,
    ) -> u64 {
        let mut subscribers = self.lock();
        let mut taken = 0;
        subscribers.state.retain(|_, subscriber| {
            if subscriber.stale || subscriber.version >= version {
                return true;
            }
            let stays = subscriber.send(patch, version, source);
            taken += u64::from(stays && !subscriber.stale);
            stays
        });
        taken
    }

    /// Offers an event to those it is for. Events cannot be made up for: who is owed too
    /// much already is closed. Returns how many took it.
    ///
    /// Where it is the others who are owed too much, they make room first, and a receiver is
    /// closed only if that was not enough: it must learn that it has missed something.
    pub fn publish_event(&self, event: &SharedFrame, to: &Recipients) -> u64 {
        let mut gone = Vec::new();
        let mut taken = 0;
        {
            let subscribers = self.lock();
            let mut has_room = true;
            let mut offer = |outlet: &Arc<dyn Outlet>| {
                let mut offered = outlet.offer(event);
                if let Offer::NoRoom(_) = offered {
                    // Once for all of them, who may be many.
                    if std::mem::take(&mut has_room) {
                        outlet.make_room();
                    }
                    offered = outlet.offer(event);
                }
                match offered {
                    Offer::Taken => taken += 1,
                    Offer::Full | Offer::NoRoom(_) => outlet.close(Close::Slow),
                    Offer::Gone => gone.push(outlet.id().clone()),
                }
            };
            match to {
                Recipients::Everyone => subscribers.events.values().for_each(offer),
                Recipients::Only(ids) => ids
                    .iter()
                    .filter_map(|id| subscribers.events.get(id.as_str()))
                    .for_each(offer),
                Recipients::Except(ids) => {
                    for (id, outlet) in &subscribers.events {
                        if !ids.contains(&**id) {
                            offer(outlet);
                        }
                    }
                }
            }
        }
        for id in gone {
            self.leave_events(&id);
        }
        taken
    }
}

impl StateSubscriber {
    /// Sends a message that leads to a version, or sees to a snapshot later; false when the
    /// receiver is gone.
    fn send(&mut self, message: &SharedFrame, version: u64, source: &Arc<dyn Refresh>) -> bool {
        match show(&self.outlet, message, source) {
            Told::Now => {
                self.stale = false;
                self.version = version;
                self.told = version;
            }
            Told::Later => self.stale = true,
            Told::Never => return false,
        }
        true
    }
}

/// When a subscriber to the state is told something.
enum Told {
    Now,
    /// It will get a snapshot in its place.
    Later,
    /// It is gone, or it is told that its subscription has ended.
    Never,
}

/// Offers a subscriber what leads to a version of the state, and sees to it that it is made up for
/// if it is not taken.
fn show(outlet: &Arc<dyn Outlet>, message: &SharedFrame, source: &Arc<dyn Refresh>) -> Told {
    let is_snapshot = matches!(message.body, Body::Snapshot { .. });
    match outlet.offer(message) {
        Offer::Taken => Told::Now,
        // Nothing could make up for it, however long the subscriber waits.
        Offer::NoRoom(exhausted) if is_snapshot && exhausted.is_for_good() => {
            outlet.end(&message.actor, &exhausted.failure());
            Told::Never
        }
        Offer::Full | Offer::NoRoom(_) => {
            outlet.refresh_later(source.clone());
            Told::Later
        }
        Offer::Gone => Told::Never,
    }
}

/// Which subscribers an event is for, by connection id.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipients {
    /// All.
    Everyone,
    /// These, each once.
    Only(HashSet<String>),
    /// All but these.
    Except(HashSet<String>),
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tidegate_core::{ActorId, Name};

    use super::*;

    /// A receiver that notes what it is offered, and may be full.
    struct Noted {
        id: Arc<str>,
        full: AtomicBool,
        /// Why there is no room, if there is none.
        crowded: Mutex<Option<Exhausted>>,
        /// Others make room when they are asked to.
        others_give_way: AtomicBool,
        closed: AtomicBool,
        ended: Mutex<Option<Failure>>,
        seen: Mutex<Vec<String>>,
        owed: Mutex<Vec<Arc<dyn Refresh>>>,
    }

    impl Noted {
        fn new(id: &str) -> Arc<Noted> {
            Arc::new(Noted {
                id: id.into(),
                full: AtomicBool::new(false),
                crowded: Mutex::default(),
                others_give_way: AtomicBool::new(false),
                closed: AtomicBool::new(false),
                ended: Mutex::default(),
                seen: Mutex::default(),
                owed: Mutex::default(),
            })
        }

        fn seen(&self) -> Vec<String> {
            self.seen.lock().clone()
        }
    }

    impl Outlet for Noted {
        fn id(&self) -> &Arc<str> {
            &self.id
        }

        fn offer(&self, message: &SharedFrame) -> Offer {
            if self.full.load(Ordering::Relaxed) {
                return Offer::Full;
            }
            if let Some(exhausted) = *self.crowded.lock() {
                return Offer::NoRoom(exhausted);
            }
            self.seen.lock().push(match &message.body {
                Body::Snapshot { version, .. } => format!("snapshot {version}"),
                Body::Patch { version, .. } => format!("patch {version}"),
                Body::Event { name, .. } => format!("event {name}"),
            });
            Offer::Taken
        }

        fn refresh_later(&self, source: Arc<dyn Refresh>) {
            self.owed.lock().push(source);
        }

        fn make_room(&self) {
            if self.others_give_way.load(Ordering::Relaxed) {
                *self.crowded.lock() = None;
            }
        }

        fn close(&self, why: Close) {
            assert_eq!(why, Close::Slow);
            self.closed.store(true, Ordering::Relaxed);
        }

        fn client(&self) -> Client {
            Client::default()
        }

        fn end(&self, _: &ActorKey, failure: &Failure) {
            *self.ended.lock() = Some(failure.clone());
        }
    }

    /// A source at version 5.
    struct Source(Audience);

    impl Refresh for Source {
        fn refresh(&self, outlet: &str) {
            let source: Arc<dyn Refresh> = Arc::new(Source(Audience::default()));
            self.0.refresh_state(outlet, &source, || Some(snapshot(5)));
        }

        fn actor(&self) -> &ActorKey {
            unreachable!("the receivers of these tests do not ask")
        }
    }

    fn message(body: Body) -> SharedFrame {
        let actor = Name::parse("chat").unwrap();
        let id = ActorId::parse("room-1").unwrap();
        SharedFrame::new(ActorKey { actor, id }, body)
    }

    fn snapshot(version: u64) -> (Arc<SharedFrame>, u64) {
        let body = Body::Snapshot {
            state: "{}".into(),
            epoch: "e".into(),
            version,
        };
        (Arc::new(message(body)), version)
    }

    fn whole(version: u64) -> (Vec<Arc<SharedFrame>>, u64) {
        (vec![snapshot(version).0], version)
    }

    fn patch(version: u64) -> SharedFrame {
        message(Body::Patch {
            patches: "[]".to_owned(),
            extended: None,
            epoch: "e".into(),
            from: version - 1,
            version,
        })
    }

    fn event(name: &str) -> SharedFrame {
        message(Body::Event {
            name: name.to_owned(),
            payload: "null".to_owned(),
        })
    }

    fn source() -> (Arc<Source>, Arc<dyn Refresh>) {
        let source = Arc::new(Source(Audience::default()));
        (source.clone(), source)
    }

    #[test]
    fn a_newcomer_gets_the_snapshot_and_only_later_patches() {
        let (actor, source) = source();
        let late = Noted::new("late");
        actor.0.join_state(late.clone(), &source, || Some(whole(2)));
        actor.0.publish_patch(&patch(2), 2, &source);
        actor.0.publish_patch(&patch(3), 3, &source);
        assert_eq!(late.seen(), ["snapshot 2", "patch 3"]);
    }

    #[test]
    fn a_slow_subscriber_skips_to_a_fresh_snapshot() {
        let (actor, source) = source();
        let slow = Noted::new("slow");
        let quick = Noted::new("quick");
        for outlet in [&slow, &quick] {
            actor
                .0
                .join_state(outlet.clone(), &source, || Some(whole(1)));
        }
        slow.full.store(true, Ordering::Relaxed);
        actor.0.publish_patch(&patch(2), 2, &source);
        slow.full.store(false, Ordering::Relaxed);
        actor.0.publish_patch(&patch(3), 3, &source);
        let owed = std::mem::take(&mut *slow.owed.lock());
        assert_eq!(
            owed.len(),
            1,
            "one snapshot makes up for any number of patches"
        );
        owed[0].refresh("slow");
        actor.0.publish_patch(&patch(5), 5, &source);
        actor.0.publish_patch(&patch(6), 6, &source);
        assert_eq!(slow.seen(), ["snapshot 1", "snapshot 5", "patch 6"]);
        assert_eq!(
            quick.seen(),
            ["snapshot 1", "patch 2", "patch 3", "patch 5", "patch 6"]
        );
    }

    #[test]
    fn a_subscriber_that_misses_an_event_is_closed() {
        let (actor, _) = source();
        let slow = Noted::new("slow");
        actor.0.join_events(slow.clone());
        slow.full.store(true, Ordering::Relaxed);
        actor.0.publish_event(&event("said"), &Recipients::Everyone);
        assert!(slow.closed.load(Ordering::Relaxed));
    }

    #[test]
    fn a_subscriber_that_others_leave_no_room_for_is_closed_only_if_they_do_not_give_way() {
        let (actor, _) = source();
        let [lucky, unlucky] = ["lucky", "unlucky"].map(Noted::new);
        for outlet in [&lucky, &unlucky] {
            actor.0.join_events(outlet.clone());
            *outlet.crowded.lock() = Some(Budget::unlimited().exhausted());
        }
        lucky.others_give_way.store(true, Ordering::Relaxed);
        let taken = actor.0.publish_event(&event("said"), &Recipients::Everyone);
        assert_eq!((taken, lucky.seen()), (1, vec!["event said".to_owned()]));
        assert!(!lucky.closed.load(Ordering::Relaxed));
        assert!(unlucky.closed.load(Ordering::Relaxed));
    }

    #[test]
    fn who_finds_no_room_for_a_snapshot_waits_unless_there_will_never_be_any() {
        let (actor, source) = source();
        let [now, ever] = ["now", "ever"].map(Noted::new);
        *now.crowded.lock() = Some(Budget::unlimited().exhausted());
        *ever.crowded.lock() = Budget::new("test", 1).share(2).err();
        for outlet in [&now, &ever] {
            actor
                .0
                .join_state(outlet.clone(), &source, || Some(whole(1)));
        }
        assert_eq!(now.owed.lock().len(), 1);
        assert_eq!(ever.owed.lock().len(), 0);
        let ended = ever.ended.lock().take();
        assert_eq!(
            ended.map(|failure| failure.code),
            Some("host.memory".into())
        );
        assert_eq!(actor.0.len(), (1, 0));
    }

    #[test]
    fn targeted_events_reach_their_targets_among_the_subscribers_only() {
        let (actor, _) = source();
        let outlets = ["a", "b", "c"].map(Noted::new);
        for outlet in &outlets[..2] {
            actor.0.join_events(outlet.clone());
        }
        let ids = |ids: &[&str]| ids.iter().map(|id| id.to_string()).collect();
        actor
            .0
            .publish_event(&event("only"), &Recipients::Only(ids(&["b", "c", "b"])));
        actor
            .0
            .publish_event(&event("except"), &Recipients::Except(ids(&["b"])));
        assert_eq!(outlets[0].seen(), ["event except"]);
        assert_eq!(outlets[1].seen(), ["event only"]);
        assert!(outlets[2].seen().is_empty());
    }

    #[test]
    fn line_breaks_of_json_do_not_break_a_server_sent_event() {
        let text = sse("event", None, "{\n\"a\":\r\n1}");
        assert_eq!(text, "event: event\ndata: { \"a\":  1}\n\n");
    }
}

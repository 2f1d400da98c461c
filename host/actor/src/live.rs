//! Who watches an actor, and the frames that they are sent.
//!
//! `turn` publishes to [`Subscribers`]; `delivery` encodes, and has the receivers.
//!
//! Invariants: a subscriber gets its snapshot before any patch, each patch at most once
//! and in order.

mod views;

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::protocol::Since;
use tidegate_core::{ActorKey, Failure, protocol};
use tidegate_delivery::write_batch::{Corked, Group, SEVERAL, WriteBatch};
use tidegate_delivery::{
    Close, Content, Dialect, Outlet, Recipients, SharedFrame, Source, Told, show, sse,
};

pub use self::views::{OwnView, Shown, Steps, View};
use crate::remote::text;

/// A frame of an actor.
pub type ActorFrame = SharedFrame<Update>;

/// Something an actor tells its subscribers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Update {
    /// Whose it is.
    pub actor: ActorKey,
    /// What it is.
    pub body: Body,
}

/// What it is. JSON is text that is spliced into frames as it stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Body {
    /// The whole state.
    Snapshot {
        /// The document.
        #[serde(with = "text")]
        state: Arc<str>,
        /// Which history.
        #[serde(with = "text")]
        epoch: Arc<str>,
        /// Where in it.
        version: u64,
    },
    /// A change of the state.
    Patch {
        /// A JSON array of operations, in plain JSON Patch.
        patches: String,
        /// These operations with `str_ins` among them, where that makes a difference.
        extended: Option<String>,
        /// Which history.
        #[serde(with = "text")]
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

impl Update {
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

    fn is_snapshot(&self) -> bool {
        matches!(self.body, Body::Snapshot { .. })
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
}

#[cfg(test)]
impl Update {
    /// What a receiver is offered.
    pub(crate) fn of(frame: &SharedFrame) -> &Update {
        let content: &dyn std::any::Any = frame.content();
        content.downcast_ref().expect("a frame of an actor")
    }
}

impl Content for Update {
    fn is_extended(&self) -> bool {
        matches!(
            &self.body,
            Body::Patch {
                extended: Some(_),
                ..
            }
        )
    }

    fn text(&self, dialect: Dialect) -> String {
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
    }

    fn server_sent_event(&self, dialect: Dialect) -> String {
        match &self.body {
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
        }
    }
}

/// A frame of this actor.
pub fn frame(actor: &ActorKey, body: Body) -> ActorFrame {
    SharedFrame::new(Update {
        actor: actor.clone(),
        body,
    })
}

/// Which of an actor's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stream {
    /// The state and its patches.
    State,
    /// The events.
    Events,
}

/// Who subscribes to the state, in a batch.
const STATE: Group = Group::new(0);
/// Who subscribes to the events.
const EVENTS: Group = Group::new(1);

/// Corks receivers, and adds them to those that are held.
fn cork<'o>(outlets: impl Iterator<Item = &'o Arc<dyn Outlet>>, held: &mut Vec<Arc<dyn Outlet>>) {
    held.extend(outlets.cloned().inspect(|outlet| outlet.cork()));
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
struct Lists {
    state: IndexMap<Arc<str>, StateSubscriber>,
    events: tidegate_delivery::Subscribers,
    /// The actor leaves memory: who comes from here on is one for its successor.
    has_left: bool,
}

impl Lists {
    /// Whether a receiver that subscribes again gets a snapshot anyway, as soon as it has room for
    /// one; it may go by another outlet from now on.
    fn will_be_shown(&mut self, outlet: &Arc<dyn Outlet>, source: &Arc<dyn Source>) -> bool {
        let known = self.state.get_mut(&**outlet.id());
        let Some(known) = known.filter(|subscriber| subscriber.stale) else {
            return false;
        };
        if !Arc::ptr_eq(&known.outlet, outlet) {
            known.outlet = outlet.clone();
            outlet.refresh_later(source.clone());
        }
        true
    }
}

/// The subscribers of one actor.
///
/// Their lock is held while a frame is offered to all of them, which orders snapshots of
/// newcomers and patches. Offering does not wait for anybody.
#[derive(Default)]
pub struct Subscribers {
    lists: Mutex<Lists>,
}

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock()
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
    /// is called under the subscribers' lock.
    pub fn join_state(
        &self,
        outlet: Arc<dyn Outlet>,
        source: &Arc<dyn Source>,
        snapshot: impl FnOnce() -> Option<(Vec<Arc<ActorFrame>>, u64)>,
    ) -> bool {
        let mut subscribers = self.lock();
        if subscribers.has_left {
            return false;
        }
        if subscribers.will_be_shown(&outlet, source) {
            return true;
        }
        let Some((messages, version)) = snapshot() else {
            return false;
        };
        let mut stale = false;
        for message in messages {
            match show(&outlet, &*message, source, message.content().is_snapshot()) {
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
        source: &Arc<dyn Source>,
        snapshot: impl FnOnce() -> Option<(Arc<ActorFrame>, u64)>,
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
        self.lock().events.insert(outlet);
    }

    /// Adds a subscription to the events if it is fit to be, which is asked under the subscribers'
    /// lock.
    pub fn join_events_if(&self, outlet: Arc<dyn Outlet>, is_fit: impl FnOnce() -> bool) -> bool {
        let mut subscribers = self.lock();
        let joins = !subscribers.has_left && is_fit();
        if joins {
            subscribers.events.insert(outlet);
        }
        joins
    }

    /// Ends a subscription to the events.
    pub fn leave_events(&self, outlet: &str) {
        self.lock().events.remove(outlet);
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
        let events = subscribers.events.iter();
        let events = events.map(|outlet| (outlet.clone(), Stream::Events));
        state.chain(events).collect()
    }

    /// Ends both subscriptions.
    pub fn leave(&self, outlet: &str) {
        let mut subscribers = self.lock();
        subscribers.state.swap_remove(outlet);
        subscribers.events.remove(outlet);
    }

    fn take_all(&self) -> Lists {
        let mut subscribers = self.lock();
        let has_left = subscribers.has_left;
        let next = Lists {
            has_left,
            ..Lists::default()
        };
        std::mem::replace(&mut subscribers, next)
    }

    /// Ends all subscriptions; the receivers go on.
    pub fn end(&self, source: &dyn Source, failure: &Failure) {
        let Lists {
            state, mut events, ..
        } = self.take_all();
        for subscriber in state.into_values() {
            events.insert(subscriber.outlet);
        }
        for outlet in events.iter() {
            outlet.end(source, failure);
        }
    }

    /// Takes all subscriptions, with what each has been told of the state in this epoch.
    pub fn take_watchers(&self, epoch: &str) -> Vec<(Arc<dyn Outlet>, Stream, Option<Since>)> {
        let Lists { state, events, .. } = self.take_all();
        let state = state.into_values().map(|subscriber| {
            let told = Since {
                epoch: epoch.to_owned(),
                version: subscriber.version,
            };
            let told = Some(told).filter(|_| !subscriber.stale);
            (subscriber.outlet, Stream::State, told)
        });
        let events = events.iter();
        let events = events.map(|outlet| (outlet.clone(), Stream::Events, None));
        state.chain(events).collect()
    }

    /// Has a batch hold those back who are about to be told of a change of the state.
    pub fn gather_for_patch(&self, batch: &WriteBatch) {
        batch.add_group(STATE, |held| {
            let subscribers = self.lock();
            let outlets = subscribers.state.values();
            cork(outlets.map(|subscriber| &subscriber.outlet), held);
        });
    }

    /// Has a batch hold those back who are about to be told of an event.
    pub fn gather_for_event(&self, batch: &WriteBatch, to: &Recipients) {
        match to {
            // To hold all back for the sake of a few is not worth it.
            Recipients::Only(ids) if ids.len() < SEVERAL => {}
            Recipients::Only(ids) => batch.add_some_of(EVENTS, |held| {
                cork(self.lock().events.those(ids), held);
            }),
            Recipients::Everyone | Recipients::Except(_) => batch.add_group(EVENTS, |held| {
                cork(self.lock().events.iter(), held);
            }),
        }
    }

    /// Gathers what one turn lets out where several are told, until what is returned is dropped.
    pub fn cork<'b>(&self, batch: &'b WriteBatch) -> Option<Corked<'b>> {
        let (state, events) = self.len();
        batch.cork_for(state.max(events))
    }

    /// Gathers what all who subscribe to the state are told until what is returned is dropped.
    pub fn cork_state<'b>(&self, batch: &'b WriteBatch) -> Option<Corked<'b>> {
        let corked = self.cork(batch);
        self.gather_for_patch(batch);
        corked
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
        source: &Arc<dyn Source>,
        snapshot: impl FnOnce() -> Option<(Arc<ActorFrame>, u64)>,
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
        for outlet in subscribers.events.iter() {
            outlet.close(why);
        }
    }

    /// Offers a patch to everybody who has not seen its version yet. Who is owed too much
    /// already gets a snapshot later, in place of this and all further patches.
    /// Returns how many took it.
    pub fn publish_patch(&self, patch: &ActorFrame, version: u64, source: &Arc<dyn Source>) -> u64 {
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

    /// Offers an event to those it is for; who is owed too much already is closed. Returns how
    /// many took it.
    pub fn publish_event(&self, event: &ActorFrame, to: &Recipients) -> u64 {
        self.lock().events.publish(event, to)
    }
}

impl StateSubscriber {
    /// Sends a message that leads to a version, or sees to a snapshot later; false when the
    /// receiver is gone.
    fn send(&mut self, message: &ActorFrame, version: u64, source: &Arc<dyn Source>) -> bool {
        match show(
            &self.outlet,
            message,
            source,
            message.content().is_snapshot(),
        ) {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tidegate_base::budget::{Budget, Exhausted};
    use tidegate_core::{ActorId, Client, Name};
    use tidegate_delivery::Offer;
    use tidegate_testkit::receiver::{self, Receiver};

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
        owed: Mutex<Vec<Arc<dyn Source>>>,
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
            self.seen.lock().push(match &Update::of(message).body {
                Body::Snapshot { version, .. } => format!("snapshot {version}"),
                Body::Patch { version, .. } => format!("patch {version}"),
                Body::Event { name, .. } => format!("event {name}"),
            });
            Offer::Taken
        }

        fn refresh_later(&self, source: Arc<dyn Source>) {
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

        fn end(&self, _: &dyn Source, failure: &Failure) {
            *self.ended.lock() = Some(failure.clone());
        }
    }

    /// A source at version 5.
    struct Actor(Subscribers);

    impl Source for Actor {
        fn refresh(&self, outlet: &str) {
            let source: Arc<dyn Source> = Arc::new(Actor(Subscribers::default()));
            self.0.refresh_state(outlet, &source, || Some(snapshot(5)));
        }

        fn name_in(&self, failure: Failure) -> Failure {
            failure
        }
    }

    fn message(body: Body) -> ActorFrame {
        let actor = Name::parse("chat").unwrap();
        let id = ActorId::parse("room-1").unwrap();
        frame(&ActorKey { actor, id }, body)
    }

    fn snapshot(version: u64) -> (Arc<ActorFrame>, u64) {
        let body = Body::Snapshot {
            state: "{}".into(),
            epoch: "e".into(),
            version,
        };
        (Arc::new(message(body)), version)
    }

    fn whole(version: u64) -> (Vec<Arc<ActorFrame>>, u64) {
        (vec![snapshot(version).0], version)
    }

    fn patch(version: u64) -> ActorFrame {
        message(Body::Patch {
            patches: "[]".to_owned(),
            extended: None,
            epoch: "e".into(),
            from: version - 1,
            version,
        })
    }

    fn event(name: &str) -> ActorFrame {
        message(Body::Event {
            name: name.to_owned(),
            payload: "null".to_owned(),
        })
    }

    fn source() -> (Arc<Actor>, Arc<dyn Source>) {
        let source = Arc::new(Actor(Subscribers::default()));
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

    #[test]
    fn an_event_for_some_holds_only_them_back() {
        let held = Arc::new(Mutex::new(Vec::new()));
        let subscribers = Subscribers::default();
        for id in ["a", "b", "c"] {
            let held = held.clone();
            let receiver = Receiver::new(id, move |told| match told {
                receiver::Told::Hold => held.lock().push(id),
                receiver::Told::Release => held.lock().retain(|other| *other != id),
            });
            subscribers.join_events(receiver);
        }
        let batch = WriteBatch::new(Duration::from_secs(600));
        let only = |ids: &[&str]| Recipients::Only(ids.iter().map(|&id| id.to_owned()).collect());
        let corked = batch.cork();
        subscribers.gather_for_event(&batch, &only(&["a"]));
        assert!(held.lock().is_empty());
        subscribers.gather_for_event(&batch, &only(&["a", "b", "gone"]));
        held.lock().sort_unstable();
        assert_eq!(*held.lock(), ["a", "b"]);
        drop(corked);
        assert!(held.lock().is_empty());
    }
}

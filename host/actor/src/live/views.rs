//! Fan-out of a state that not everybody sees alike.
//!
//! `turn` asks the actor's guard what each subscriber may see and hands the answers over
//! here. Subscribers that see the same share the work: a difference is computed and encoded
//! once for all that go from one view to another.
//!
//! Invariant: nobody is sent anything of a version before their view of it is known.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tidegate_base::budget::Share;
use tidegate_core::{ActorKey, Client, Json, Meter, PatchOp, patch};

use super::{ActorFrame, Body, Outlet, Source, StateSubscriber, Subscribers, Told, frame, show};

/// What one subscriber sees of the state.
#[derive(Clone, Debug)]
pub enum View {
    /// All of it, but for what the manifest hides.
    Whole,
    /// A document of its own, perhaps shared with others.
    Own(Arc<OwnView>),
}

/// A document that the guard made for some.
#[derive(Debug)]
pub struct OwnView {
    document: Json,
    /// Its length as text, about, in bytes.
    length: usize,
    text: OnceLock<Arc<str>>,
    /// What it has taken of the memory that there is for actors, if it is not small.
    _share: Option<Share>,
}

/// What an operation of a patch takes at least, in bytes.
const LEAST_CHANGE: usize = 24;

/// The longest view of which a difference is worked out while it is sent, in bytes.
const LARGE: usize = 64 << 10;

impl OwnView {
    /// A view that shows this document, which is about so long as text, and for which this share
    /// was taken.
    pub fn new(document: Json, length: usize, share: Option<Share>) -> Arc<OwnView> {
        Arc::new(OwnView {
            document,
            length,
            text: OnceLock::new(),
            _share: share,
        })
    }

    /// The document as JSON text.
    pub fn text(&self) -> Arc<str> {
        let text = || self.document.to_text().into();
        self.text.get_or_init(text).clone()
    }
}

impl View {
    /// Whether it is too large to be compared while it is sent.
    pub fn is_large(&self) -> bool {
        matches!(self, View::Own(own) if own.length > LARGE)
    }
}

/// One version of the state, as it is to be shown.
pub struct Shown<'a> {
    /// Whose state it is.
    pub actor: &'a ActorKey,
    /// Which history.
    pub epoch: &'a Arc<str>,
    /// Where in it.
    pub version: u64,
    /// What leads here from the version before, for those who see the whole.
    pub patch: Option<&'a ActorFrame>,
    /// The whole as JSON text.
    pub whole: &'a (dyn Fn() -> Arc<str> + Sync),
    /// What subscribers have is of another history: they get snapshots.
    pub restart: bool,
}

impl Shown<'_> {
    /// Whether the patch is not for one who was told this version last.
    fn skips(&self, told: u64) -> bool {
        match self.patch.map(|patch| &patch.content().body) {
            Some(Body::Patch { from, .. }) => told < *from,
            _ => false,
        }
    }

    fn snapshot(&self, view: &View) -> ActorFrame {
        let state = match view {
            View::Whole => (self.whole)(),
            View::Own(own) => own.text(),
        };
        let body = Body::Snapshot {
            state,
            epoch: self.epoch.clone(),
            version: self.version,
        };
        frame(self.actor, body)
    }
}

/// Messages that are made once for all who go the same way.
#[derive(Default)]
pub struct Steps {
    snapshot_of_whole: Option<Arc<ActorFrame>>,
    snapshots: HashMap<usize, Arc<ActorFrame>>,
    patches: HashMap<(usize, usize), Way>,
    messages: HashMap<(usize, usize, u64), Arc<ActorFrame>>,
    /// Keeps the places of views, which name them, from being used anew.
    _views: Vec<Arc<OwnView>>,
    /// Differences that are not known are not worked out any more.
    is_complete: bool,
}

/// What leads from one view to another.
#[derive(Clone)]
enum Way {
    /// They are equal.
    Nothing,
    /// These operations.
    Patch(String),
    /// The other one itself: the difference takes too long to find out.
    Snapshot,
}

/// Names a view among those that are alive.
fn place(view: &Arc<OwnView>) -> usize {
    Arc::as_ptr(view) as usize
}

impl Steps {
    fn snapshot(&mut self, shown: &Shown<'_>, view: &View) -> Arc<ActorFrame> {
        let make = || Arc::new(shown.snapshot(view));
        match view {
            View::Whole => self.snapshot_of_whole.get_or_insert_with(make).clone(),
            View::Own(own) => self
                .snapshots
                .entry(place(own))
                .or_insert_with(make)
                .clone(),
        }
    }

    /// None that are worked out: who sees another view is sent all of it.
    pub fn none() -> Steps {
        Steps {
            is_complete: true,
            ..Steps::default()
        }
    }

    /// What leads from the first of these to the second, as far as the meter allows.
    pub fn of(ways: &[[Arc<OwnView>; 2]], meter: &mut dyn Meter) -> Steps {
        let mut steps = Steps::none();
        for [from, to] in ways {
            let way = (place(from), place(to));
            if steps.patches.contains_key(&way) {
                continue;
            }
            let step = match patch::diff_metered(&from.document, &to.document, meter) {
                // The document is shorter than what leads to it.
                Ok(changes) if changes.len() * LEAST_CHANGE > to.length => Way::Snapshot,
                Ok(changes) => Way::of(&changes),
                Err(_) => Way::Snapshot,
            };
            steps.patches.insert(way, step);
            steps._views.extend([from.clone(), to.clone()]);
        }
        steps
    }

    /// What leads from one document to another; none when they are equal.
    fn step(
        &mut self,
        shown: &Shown<'_>,
        [from, to]: [&Arc<OwnView>; 2],
        view: &View,
        told: u64,
    ) -> Option<Arc<ActorFrame>> {
        let way = (place(from), place(to));
        if let Some(message) = self.messages.get(&(way.0, way.1, told)) {
            return Some(message.clone());
        }
        let known = self.patches.get(&way).cloned();
        let step = known.unwrap_or_else(|| {
            let step = match self.is_complete {
                true => Way::Snapshot,
                false => Way::of(&patch::diff(&from.document, &to.document)),
            };
            self.patches.insert(way, step.clone());
            step
        });
        let patches = match step {
            Way::Nothing => return None,
            Way::Snapshot => return Some(self.snapshot(shown, view)),
            Way::Patch(patches) => patches,
        };
        let body = Body::Patch {
            patches,
            extended: None,
            epoch: shown.epoch.clone(),
            from: told,
            version: shown.version,
        };
        let message = Arc::new(frame(shown.actor, body));
        let place = (way.0, way.1, told);
        self.messages.insert(place, message.clone());
        Some(message)
    }
}

impl Way {
    fn of(changes: &[PatchOp]) -> Way {
        match changes {
            [] => Way::Nothing,
            changes => Way::Patch(patch::encode(changes)),
        }
    }
}

impl Subscribers {
    /// The subscribers to the state, for their views to be worked out.
    pub fn viewers(&self) -> Vec<(Arc<str>, Client)> {
        let subscribers = self.lock();
        let viewer = |(id, subscriber): (&Arc<str>, &StateSubscriber)| {
            (id.clone(), subscriber.outlet.client())
        };
        subscribers.state.iter().map(viewer).collect()
    }

    /// One of them.
    pub fn viewer(&self, outlet: &str) -> Option<Arc<dyn Outlet>> {
        let subscribers = self.lock();
        Some(subscribers.state.get(outlet)?.outlet.clone())
    }

    /// The steps that lead these subscribers to their new views, for a version that they have not
    /// seen.
    pub fn ways(&self, views: &[(Arc<str>, View)], version: u64) -> Vec<[Arc<OwnView>; 2]> {
        let subscribers = self.lock();
        let ways = views.iter().filter_map(|(outlet, view)| {
            let subscriber = subscribers.state.get(&**outlet)?;
            match (&subscriber.view, view) {
                _ if subscriber.stale || subscriber.version >= version => None,
                (View::Own(from), View::Own(to)) => Some([from.clone(), to.clone()]),
                _ => None,
            }
        });
        ways.collect()
    }

    /// Adds or renews a subscription to the state, with a snapshot of its view. False, and
    /// nothing is done, where that is not fit to be shown, which is asked under the subscribers'
    /// lock.
    pub fn join_view(
        &self,
        outlet: Arc<dyn Outlet>,
        view: View,
        shown: &Shown<'_>,
        source: &Arc<dyn Source>,
        is_fit: &dyn Fn() -> bool,
    ) -> bool {
        let mut subscribers = self.lock();
        if subscribers.has_left {
            return false;
        }
        if subscribers.will_be_shown(&outlet, source) {
            return true;
        }
        if !is_fit() {
            return false;
        }
        let stale = match show(&outlet, &shown.snapshot(&view), source, true) {
            Told::Now => false,
            Told::Later => true,
            Told::Never => return true,
        };
        let subscriber = StateSubscriber {
            version: shown.version,
            told: shown.version,
            stale,
            view,
            outlet: outlet.clone(),
        };
        subscribers.state.insert(outlet.id().clone(), subscriber);
        true
    }

    /// Has these subscribers sent fresh snapshots of their views, because they were shown less
    /// than was committed.
    pub fn make_up_later(&self, outlets: &[Arc<str>], source: &Arc<dyn Source>) {
        let mut subscribers = self.lock();
        for outlet in outlets {
            if let Some(subscriber) = subscribers.state.get_mut(&**outlet) {
                subscriber.stale = true;
                subscriber.outlet.refresh_later(source.clone());
            }
        }
    }

    /// Sends a fresh snapshot of its view to a subscriber that missed something. False, and
    /// nothing is sent, where that is not fit to be shown.
    pub fn refresh_view(
        &self,
        outlet: &str,
        view: View,
        shown: &Shown<'_>,
        source: &Arc<dyn Source>,
        is_fit: &dyn Fn() -> bool,
    ) -> bool {
        let mut subscribers = self.lock();
        let known = subscribers.state.get_mut(outlet);
        let Some(subscriber) = known.filter(|subscriber| subscriber.stale) else {
            return true;
        };
        if !is_fit() {
            return false;
        }
        let message = shown.snapshot(&view);
        subscriber.view = view;
        if !subscriber.send(&message, shown.version, source) {
            subscribers.state.swap_remove(outlet);
        }
        true
    }

    /// Shows these subscribers their views of a version that they have not seen. Returns
    /// how many messages were taken; none, and nothing is sent, where that is not fit to be.
    pub fn publish_views(
        &self,
        views: Vec<(Arc<str>, View)>,
        shown: &Shown<'_>,
        mut steps: Steps,
        source: &Arc<dyn Source>,
        is_fit: &dyn Fn() -> bool,
    ) -> Option<u64> {
        let mut taken = 0;
        // Those that are replaced stay alive as long as their places name them.
        let mut replaced = Vec::with_capacity(views.len());
        let mut subscribers = self.lock();
        if !is_fit() {
            return None;
        }
        for (outlet, view) in views {
            let Some(subscriber) = subscribers.state.get_mut(&*outlet) else {
                continue;
            };
            if !shown.restart && (subscriber.stale || subscriber.version >= shown.version) {
                continue;
            }
            let before = std::mem::replace(&mut subscriber.view, view);
            let message = match (&before, &subscriber.view) {
                _ if shown.restart => Some(steps.snapshot(shown, &subscriber.view)),
                (View::Own(from), View::Own(to)) => {
                    steps.step(shown, [from, to], &subscriber.view, subscriber.told)
                }
                // The guard did not answer for a version in between.
                (View::Whole, View::Whole) if shown.skips(subscriber.told) => {
                    Some(steps.snapshot(shown, &subscriber.view))
                }
                (View::Whole, View::Whole) => {
                    subscriber.version = shown.version;
                    let patch = shown
                        .patch
                        .map(|patch| subscriber.send(patch, shown.version, source));
                    match patch {
                        Some(true) => taken += u64::from(!subscriber.stale),
                        Some(false) => drop(subscribers.state.swap_remove(&*outlet)),
                        None => {}
                    }
                    continue;
                }
                // The one is no change of the other.
                _ => Some(steps.snapshot(shown, &subscriber.view)),
            };
            replaced.push(before);
            subscriber.version = shown.version;
            if let Some(message) = message {
                if subscriber.send(&message, shown.version, source) {
                    taken += u64::from(!subscriber.stale);
                } else {
                    subscribers.state.swap_remove(&*outlet);
                }
            }
        }
        drop(subscribers);
        Some(taken)
    }
}

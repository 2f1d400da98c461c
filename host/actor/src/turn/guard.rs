//! Who may see an actor, and what of it: asks the component's guard, beside the queue.
//!
//! `actor` asks before it subscribes anybody, and the release of a turn before it lets out what
//! the turn changed; nothing here waits for a turn. Requests to subscribe that come while the
//! guard is busy are decided together.
//!
//! Invariants: where a guard decides, nobody is sent anything that it did not allow, and nothing
//! that was committed after the turn for which it would refuse it, unless its author has said
//! that it is asked later. A guard that fails has allowed nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tidegate_base::clock::instant;
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::manifest::Recheck;
use tidegate_core::{Client, Failure, Json, Pointer};
use tidegate_engine::{Component, Connections, Crash, StateRead, Step, Subject};
use tokio::sync::oneshot;
use tracing::warn;

use crate::config::{self, AccessDefault};
use crate::live::{ActorFrame, OwnView, Shown, Steps, Stream, View};
use crate::state::{ActorState, Pinned};

/// What the guard of one actor has to do, and whether it depends on the state.
#[derive(Default)]
pub(crate) struct Guarding {
    waiting: Mutex<Waiting>,
    /// Held by whoever decides about those to whom a commit is to be shown, so that nothing is
    /// committed behind it meanwhile; and by one who comes in between.
    pub(crate) still: Arc<tokio::sync::Mutex<()>>,
    /// It has looked at what turns change. Until then no commit makes a difference to it.
    has_looked: AtomicBool,
}

/// What an actor's guard decides, and when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Guards {
    /// Who may subscribe and read.
    pub(crate) authorize: bool,
    /// What each of them sees.
    pub(crate) project: bool,
    /// When it is asked again about those who subscribe.
    pub(crate) recheck: Recheck,
}

impl Guards {
    /// Those that a component declares.
    pub(crate) fn of(component: &Component, actor: &str) -> Guards {
        let access = component.access(actor);
        let declared = component.manifest.actors.get(actor);
        Guards {
            authorize: access.authorize,
            project: access.project,
            recheck: declared.map_or(Recheck::default(), |declared| declared.recheck),
        }
    }

    /// Whether a commit is shown only to those who are decided on anew.
    pub(crate) fn at_each_commit(self) -> bool {
        self.authorize && self.recheck == Recheck::EachCommit
    }
}

/// Requests to subscribe that the guard has not decided yet.
#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    /// Somebody asks the guard.
    busy: bool,
    /// Those who subscribe will be asked about again.
    recheck_is_due: bool,
    /// How often the guard has failed in a row when it was asked again.
    failures: u32,
}

struct Request {
    who: Client,
    to: Subject,
    answer: oneshot::Sender<Result<Basis, Failure>>,
}

/// What a guard has looked at to allow something; none if it has not looked at the state.
pub type Basis = Option<Arc<Pinned>>;

/// What becomes of subscribers about whom a guard was asked again and failed to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// They stay: it allowed them once.
    Stay,
    /// They go: it never decided about them as they are now.
    Leave,
}

/// What is read at once.
pub struct Read {
    /// The document as JSON text.
    pub state: Arc<str>,
    /// Which history.
    pub epoch: Arc<str>,
    /// Where in it.
    pub version: u64,
}

/// The actor's last committed state, as its guard reads it: one version of it for the whole
/// call.
struct Committed {
    live: Arc<ActorState>,
    pinned: Arc<OnceLock<Arc<Pinned>>>,
    /// What it is at least as new as.
    ahead: Option<Arc<Pinned>>,
}

impl Guarding {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    fn looks(&self) {
        self.has_looked.store(true, Ordering::Relaxed);
    }
}

impl ActorState {
    /// What the guard of the component decides whose rules are followed.
    pub(crate) fn guards(&self) -> Guards {
        self.parts().guards
    }

    /// Most actors have no guard, and none of the room that this takes.
    pub(crate) fn guarding(&self) -> &Guarding {
        self.guarding.get_or_init(Box::default)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.guarding().waiting()
    }

    pub(crate) fn component(&self) -> Result<Arc<Component>, Failure> {
        let component = self.slot.component();
        let component = component.ok_or_else(|| Failure::unknown_actor(self.key.actor.as_str()))?;
        match self.fits(&component) {
            true => Ok(component),
            // Its guard would decide about a state that it misreads.
            false => Err(Failure::state_not_yet_fit()),
        }
    }

    /// Whether this client may see this much, by the guard's word or the host's settings.
    pub async fn authorize(
        self: &Arc<Self>,
        who: Client,
        to: Subject,
        settings: &config::Access,
    ) -> Result<Basis, Failure> {
        self.at_rest().await;
        let component = self.component()?;
        if !component.access(self.key.actor.as_str()).authorize {
            return match settings.default {
                AccessDefault::Open => Ok(None),
                AccessDefault::Closed => Err(Failure::access_closed()),
            };
        }
        let (answer, decided) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            if waiting.requests.len() >= settings.max_waiting {
                return Err(Failure::access_limit());
            }
            waiting.requests.push_back(Request { who, to, answer });
            !std::mem::replace(&mut waiting.busy, true)
        };
        if begins {
            let deciding = Deciding {
                live: self.clone(),
                finished: false,
            };
            tokio::spawn(decide(deciding, settings.max_batch));
        }
        decided
            .await
            .unwrap_or_else(|_| Err(Failure::internal("the guard is gone")))
    }

    /// Asks a guard about all of these, as of one version of the state: that of this component,
    /// else of the one that serves the actor. Those whom it has not decided on by the `end` get
    /// a failure.
    pub(crate) async fn decide(
        self: &Arc<Self>,
        by: Option<&Arc<Component>>,
        who: &[(Client, Subject)],
        end: Option<Instant>,
    ) -> (Vec<Result<Result<(), Failure>, Failure>>, Basis) {
        let pinned = Arc::new(OnceLock::new());
        let mut questions = Questions::about(who, end);
        let ahead = self.pin_ahead().await;
        while let Some(part) = questions.next() {
            let decided = match by.cloned().map_or_else(|| self.component(), Ok) {
                Ok(component) => {
                    let state = Committed {
                        live: self.clone(),
                        pinned: pinned.clone(),
                        ahead: ahead.clone(),
                    };
                    let asked = component.authorize(&self.key, part.who, state);
                    let decided = questions.in_time(asked).await;
                    decided.map_err(|crash| self.report(crash, "authorize"))
                }
                Err(failure) => Err(failure),
            };
            questions.note(part, decided);
        }
        (questions.answers(), pinned.get().cloned())
    }

    /// Asks the guard again in a while, because what it goes by may have changed. Commits
    /// that come until then make no difference.
    pub(crate) fn authorize_later(self: &Arc<Self>, recheck: Duration) {
        if self.subscribers.is_empty() || self.waiting().recheck_is_due {
            return;
        }
        self.waiting().recheck_is_due = true;
        let live = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(recheck).await;
            let Some(live) = live.upgrade() else {
                return;
            };
            let undecided = {
                let mut waiting = live.waiting();
                waiting.recheck_is_due = false;
                match waiting.failures < MAX_UNDECIDED {
                    true => Undecided::Stay,
                    false => Undecided::Leave,
                }
            };
            let decided = live.authorize_again(None, undecided).await;
            live.waiting().failures += 1;
            match decided {
                true => live.waiting().failures = 0,
                false => live.authorize_later(recheck),
            }
        });
    }

    /// Decides anew on those who subscribe, ahead of what a turn of this component has changed:
    /// who may look no longer is told so, and nothing of that turn or a later one. A guard that
    /// fails, or takes longer than it may, has shut out those whom it did not decide on.
    pub(crate) async fn authorize_ahead(self: &Arc<Self>, ran: &Arc<Component>) {
        if !self.guarding().has_looked.load(Ordering::Relaxed) || self.subscribers.is_empty() {
            return;
        }
        // Another component may have taken over meanwhile, if the state fits it.
        let serving = self.component().ok();
        let by = serving.as_ref().unwrap_or(ran);
        if by.access(self.key.actor.as_str()).authorize {
            let end = answers_end(by);
            self.decide_anew(by, None, Undecided::Leave, Some(end))
                .await;
        }
    }

    /// Asks the guard again about those who subscribe already, all of them or one, and ends
    /// the subscriptions that it refuses. False if it has failed and some stay undecided.
    pub async fn authorize_again(
        self: &Arc<Self>,
        outlet: Option<&str>,
        undecided: Undecided,
    ) -> bool {
        self.at_rest().await;
        let Ok(component) = self.component() else {
            return true;
        };
        if !component.access(self.key.actor.as_str()).authorize {
            return true;
        }
        self.decide_anew(&component, outlet, undecided, None).await
    }

    async fn decide_anew(
        self: &Arc<Self>,
        by: &Arc<Component>,
        outlet: Option<&str>,
        undecided: Undecided,
        end: Option<Instant>,
    ) -> bool {
        let mut subscribers = self.subscribers.subscribers();
        subscribers.retain(|(receiver, _)| outlet.is_none_or(|outlet| **receiver.id() == *outlet));
        if subscribers.is_empty() {
            return true;
        }
        let mut all_decided = true;
        let subject = |stream| match stream {
            Stream::State => Subject::State,
            Stream::Events => Subject::Events,
        };
        let who: Vec<_> = subscribers
            .iter()
            .map(|(receiver, stream)| (receiver.client(), subject(*stream)))
            .collect();
        let (decided, _) = self.decide(Some(by), &who, end).await;
        for ((receiver, stream), decision) in subscribers.into_iter().zip(decided) {
            let refused = match decision {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure,
                Err(_) if undecided == Undecided::Stay => {
                    all_decided = false;
                    continue;
                }
                Err(failure) => failure,
            };
            self.subscribers.leave_stream(receiver.id(), stream);
            receiver.end(&**self, &refused);
        }
        all_decided
    }

    /// The last committed state as this client sees it, or the one that it was allowed to
    /// see.
    pub async fn read(self: &Arc<Self>, who: Client, basis: Basis) -> Result<Read, Failure> {
        self.at_rest().await;
        let component = self.component()?;
        if !component.access(self.key.actor.as_str()).project {
            let (state, epoch, version) = match (self.committed(&basis).await, &basis) {
                (Some(committed), _) => committed,
                (None, Some(seen)) => {
                    let state = self.text_elsewhere(&component, seen).await?;
                    (state, seen.epoch.clone(), seen.version)
                }
                (None, None) => unreachable!("the last state is the one that is not decided on"),
            };
            self.gate.passed().await?;
            return Ok(Read {
                state,
                epoch,
                version,
            });
        }
        let (mut views, pinned) = self.views(&component, &[who], &basis, None).await;
        self.gate.passed().await?;
        Ok(Read {
            state: match views.pop().unwrap_or_else(|| Ok(nothing()))? {
                View::Whole => self.text_elsewhere(&component, &pinned).await?,
                View::Own(own) => own.text(),
            },
            epoch: pinned.epoch.clone(),
            version: pinned.version,
        })
    }

    /// Goes by the rules of this component from here on, and shows everybody who still may look
    /// the state anew if others held before.
    pub async fn adopt_and_show(self: &Arc<Self>, component: &Component) {
        self.at_rest().await;
        if self.goes_by(component) {
            return;
        }
        self.authorize_again(None, Undecided::Leave).await;
        let waits = {
            let mut parts = self.parts_at_rest();
            if !self.adopt_in(&mut parts, component) {
                return;
            }
            // Under one lock: what was committed by the old rules leaves before, what will be
            // by the new ones behind it.
            !parts.guards.project && {
                let snapshot = self.snapshot_of(&mut parts);
                let live = self.clone();
                let departure = async move |outcome: Result<(), Failure>| {
                    if outcome.is_ok() {
                        let _raised = live.subscribers.cork_state(live.gate.batch());
                        live.subscribers.restart(&live.source(), || Some(snapshot));
                    }
                };
                self.gate.leave(departure).is_none()
            }
        };
        if !waits {
            self.show_again().await;
        }
    }

    /// Shows everybody the state anew, because what they have was made by other rules or
    /// is of another history.
    pub async fn show_again(self: &Arc<Self>) {
        self.at_rest().await;
        let Ok(component) = self.component() else {
            return;
        };
        // Nothing is shown by a store that has failed.
        if self.gate.passed().await.is_err() {
            return;
        }
        if self.guards().project {
            self.show_views_again(&component).await;
        } else {
            loop {
                // Nobody waits for the document under the audience's lock.
                self.make_snapshot().await;
                let _raised = self.subscribers.cork_state(self.gate.batch());
                let snapshot = || self.snapshot_at_hand();
                if self.subscribers.restart(&self.source(), snapshot) {
                    return;
                }
            }
        }
    }

    /// Shows every state subscriber its view of what a turn has committed, which this patch leads
    /// to. Returns how many messages were taken.
    pub(crate) async fn show(
        self: &Arc<Self>,
        component: &Component,
        patch: Option<&ActorFrame>,
    ) -> u64 {
        let viewers = self.subscribers.viewers();
        let (mut views, pinned) = self.views_of(component, viewers).await;
        let seen = views.iter().map(|(_, view)| view);
        let whole = self.whole_for(component, &pinned, seen).await;
        // Where it is too long to be encoded in time, who sees it is made up for behind this.
        let is_late = |view: &View| whole.is_err() && matches!(view, View::Whole);
        let late: Vec<Arc<str>> = views
            .extract_if(.., |(_, view)| is_late(view))
            .map(|(outlet, _)| outlet)
            .collect();
        let whole = whole.unwrap_or_default();
        let steps = match views.iter().any(|(_, view)| view.is_large()) {
            true => self.steps_elsewhere(component, &views, &pinned).await,
            false => Steps::default(),
        };
        let whole = || whole.clone().unwrap_or_else(|| self.text_of(&pinned));
        let shown = Shown {
            patch,
            restart: false,
            ..self.shown(&pinned, &whole)
        };
        let _raised = self.subscribers.cork_state(self.gate.batch());
        // What is committed behind it shows itself.
        let is_current = || self.parts().is_at(&pinned);
        let subscribers = &self.subscribers;
        let taken = subscribers.publish_views(views, &shown, steps, &self.source(), &is_current);
        subscribers.make_up_later(&late, &self.source());
        taken.unwrap_or_default()
    }

    /// What these see, without those about whom the guard failed: they keep what they saw, and
    /// after the next commit it is asked again.
    pub(crate) async fn views_of(
        self: &Arc<Self>,
        component: &Component,
        viewers: Vec<(Arc<str>, Client)>,
    ) -> (Vec<(Arc<str>, View)>, Arc<Pinned>) {
        let (outlets, clients): (Vec<_>, Vec<_>) = viewers.into_iter().unzip();
        let end = answers_end(component);
        let (views, pinned) = self.views(component, &clients, &None, Some(end)).await;
        let views = outlets.into_iter().zip(views);
        let views = views.filter_map(|(outlet, view)| Some((outlet, view.ok()?)));
        (views.collect(), pinned)
    }

    /// Asks the guard what each of these sees: of the version that it has let them in on, else
    /// of the last one.
    pub(crate) async fn views(
        self: &Arc<Self>,
        component: &Component,
        who: &[Client],
        basis: &Basis,
        end: Option<Instant>,
    ) -> (Vec<Result<View, Failure>>, Arc<Pinned>) {
        let pinned = Arc::new(basis.clone().map_or_else(OnceLock::new, OnceLock::from));
        let mut questions = Questions::about(who, end);
        let ahead = match basis {
            Some(_) => None,
            None => self.pin_ahead().await,
        };
        while let Some(part) = questions.next() {
            let state = Committed {
                live: self.clone(),
                pinned: pinned.clone(),
                ahead: ahead.clone(),
            };
            let asked = async {
                let answers = component.project(&self.key, part.who, state).await?;
                self.read_views(component, answers).await
            };
            let views = questions.in_time(asked).await;
            questions.note(part, views.map_err(|crash| self.report(crash, "project")));
        }
        let views = questions.answers();
        // A guard that has not looked at the state speaks of any version of it.
        let seen = pinned.get().cloned();
        let pinned = match seen {
            Some(seen) => seen,
            None => self.pin().await,
        };
        (views, pinned)
    }

    fn report(&self, crash: Crash, what: &str) -> Failure {
        self.slot.metrics.crashes.inc();
        warn!(
            actor = %self.key,
            access = what,
            code = %crash.failure.code,
            "a guard crashed: {}",
            crash.detail
        );
        crash.failure
    }
}

/// What a client sees that may see nothing.
pub(crate) fn nothing() -> View {
    View::Own(OwnView::new(Json::Null, 0, None))
}

/// Asks the guard as long as somebody waits for it. Those that wait get an answer also when
/// this is dropped.
struct Deciding {
    live: Arc<ActorState>,
    finished: bool,
}

impl Drop for Deciding {
    fn drop(&mut self) {
        if !self.finished {
            let mut waiting = self.live.waiting();
            waiting.busy = false;
            waiting.requests.clear();
        }
    }
}

async fn decide(mut deciding: Deciding, max_batch: usize) {
    let live = deciding.live.clone();
    loop {
        let batch: Vec<Request> = {
            let mut waiting = live.waiting();
            let size = waiting.requests.len().min(max_batch.max(1));
            if size == 0 {
                // Under the lock, so that whoever comes next begins anew.
                waiting.busy = false;
                deciding.finished = true;
                return;
            }
            waiting.requests.drain(..size).collect()
        };
        let (who, answers): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|request| ((request.who, request.to), request.answer))
            .unzip();
        let (decided, basis) = live.decide(None, &who, None).await;
        for (answer, decision) in answers.into_iter().zip(decided) {
            let decision = decision.and_then(|decision| decision);
            // Who has gone meanwhile wants no answer.
            let _ = answer.send(decision.map(|()| basis.clone()));
        }
    }
}

/// How often in a row a guard may fail when it is asked again, before those whom it has
/// allowed go.
const MAX_UNDECIDED: u32 = 3;

/// Guard calls of one round that may fail before the rest is given up.
const MAX_FAILURES: usize = 16;

/// When a guard must have answered about all who subscribe: it has its deadline for the question
/// about all of them, and as long again to find those whom it cannot cope with.
fn answers_end(component: &Component) -> Instant {
    instant() + 2 * Duration::from_millis(component.limits().guard_deadline_ms)
}

/// Some of those whom a guard is asked about.
struct Part<'a, W> {
    /// Where they are among all.
    first: usize,
    who: &'a [W],
}

/// Asks about all, and where that fails about each half, so that one client whom the guard
/// cannot cope with does not stand in for the others.
struct Questions<'a, W, T> {
    /// What is left to ask.
    parts: VecDeque<Part<'a, W>>,
    answers: Vec<Option<Result<T, Failure>>>,
    failures: usize,
    /// When all must be answered.
    end: Option<Instant>,
}

impl<'a, W, T> Questions<'a, W, T> {
    fn about(who: &'a [W], end: Option<Instant>) -> Questions<'a, W, T> {
        Questions {
            parts: VecDeque::from([Part { first: 0, who }]),
            answers: who.iter().map(|_| None).collect(),
            failures: 0,
            end,
        }
    }

    /// Whom to ask about now.
    fn next(&mut self) -> Option<Part<'a, W>> {
        self.parts.pop_front().filter(|part| !part.who.is_empty())
    }

    /// The guard's word, if it comes within half of the time that is left: who makes it slow is
    /// found, and the others are decided on in the other half.
    async fn in_time<A>(&self, asked: impl Future<Output = Result<A, Crash>>) -> Result<A, Crash> {
        let Some(end) = self.end else {
            return asked.await;
        };
        let left = end.saturating_duration_since(instant());
        let asked = tokio::time::timeout(left / 2, asked);
        asked.await.unwrap_or_else(|_| {
            Err(Crash {
                failure: Failure::guard_deadline(),
                detail: "it did not answer in time".to_owned(),
            })
        })
    }

    /// Takes the guard's word about a part.
    fn note(&mut self, part: Part<'a, W>, answers: Result<Vec<T>, Failure>) {
        match answers {
            Ok(answers) => {
                let places = self.answers[part.first..].iter_mut();
                for (place, answer) in places.zip(answers) {
                    *place = Some(Ok(answer));
                }
            }
            Err(failure) => {
                self.failures += 1;
                let is_over = self.end.is_some_and(|end| instant() >= end);
                if self.failures >= MAX_FAILURES || is_over {
                    self.parts.push_back(part);
                    for part in std::mem::take(&mut self.parts) {
                        self.refuse(&part, &failure);
                    }
                } else if part.who.len() == 1 {
                    self.refuse(&part, &failure);
                } else {
                    let (first, second) = part.who.split_at(part.who.len() / 2);
                    let place = part.first + first.len();
                    let halves = [(part.first, first), (place, second)];
                    self.parts
                        .extend(halves.map(|(first, who)| Part { first, who }));
                }
            }
        }
    }

    fn refuse(&mut self, part: &Part<'a, W>, failure: &Failure) {
        for place in &mut self.answers[part.first..][..part.who.len()] {
            *place = Some(Err(failure.clone()));
        }
    }

    /// One answer for each.
    fn answers(self) -> Vec<Result<T, Failure>> {
        let undecided = || Err(Failure::internal("the guard was not asked"));
        let answers = self.answers.into_iter();
        answers
            .map(|answer| answer.unwrap_or_else(undecided))
            .collect()
    }
}

impl Committed {
    fn pinned(&self) -> &Arc<Pinned> {
        self.live.guarding().looks();
        let pin = || self.live.pin_here(self.ahead.as_ref());
        self.pinned.get_or_init(pin)
    }
}

impl StateRead for Committed {
    fn token(&mut self) -> u64 {
        self.pinned().token
    }

    fn read(&mut self) -> Step<Result<String, Failure>> {
        let pinned = self.pinned().clone();
        self.live
            .text_at(pinned, Pointer::root(), |text| text.unwrap_or_default())
    }

    fn get(&mut self, pointer: Pointer) -> Step<Result<Option<String>, Failure>> {
        let pinned = self.pinned().clone();
        self.live.text_at(pinned, pointer, |text| text)
    }
}

impl Connections for Committed {
    fn connections(&mut self) -> Vec<String> {
        self.live.guarding().looks();
        let parts = self.live.parts();
        parts.presence.ids().map(|id| id.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a guard that fails whenever it is asked about one of these.
    fn ask(count: u32, poison: &[u32]) -> (Vec<bool>, usize) {
        let who: Vec<u32> = (0..count).collect();
        let mut questions = Questions::about(&who, None);
        let mut calls = 0;
        while let Some(part) = questions.next() {
            calls += 1;
            let is_poisoned = part.who.iter().any(|client| poison.contains(client));
            let answers = match is_poisoned {
                true => Err(Failure::handler_trapped()),
                false => Ok(part.who.to_vec()),
            };
            questions.note(part, answers);
        }
        let answers = questions.answers();
        let allowed = answers.iter().zip(&who);
        let allowed = allowed.map(|(answer, client)| match answer {
            Ok(answered) => {
                assert_eq!(answered, client, "each gets their own answer");
                true
            }
            Err(_) => false,
        });
        (allowed.collect(), calls)
    }

    #[test]
    fn a_guard_that_copes_is_asked_once() {
        assert_eq!(ask(1000, &[]), (vec![true; 1000], 1));
    }

    #[test]
    fn one_client_that_a_guard_cannot_cope_with_is_found() {
        for poison in [0, 1, 511, 512, 1022, 1023] {
            let (allowed, _) = ask(1024, &[poison]);
            let refused: Vec<_> = (0..1024).filter(|n| !allowed[*n as usize]).collect();
            assert_eq!(refused, [poison]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_who_makes_a_guard_slow_shuts_nobody_else_out() {
        let who: Vec<u32> = (0..1000).collect();
        let end = instant() + Duration::from_secs(20);
        let mut questions = Questions::about(&who, Some(end));
        while let Some(part) = questions.next() {
            let asked = async {
                let is_slow = part.who.contains(&321);
                if is_slow {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
                Ok(part.who.to_vec())
            };
            let answers = questions.in_time(asked).await;
            questions.note(part, answers.map_err(|crash| crash.failure));
        }
        assert!(instant() <= end);
        let answers = questions.answers();
        let refused: Vec<_> = (0..1000).filter(|n| answers[*n].is_err()).collect();
        assert_eq!(refused, [321]);
    }

    #[test]
    fn a_guard_that_copes_with_nobody_is_given_up() {
        let all: Vec<u32> = (0..1000).collect();
        let (allowed, calls) = ask(1000, &all);
        assert_eq!(allowed, vec![false; 1000]);
        assert_eq!(calls, MAX_FAILURES);
    }
}

//! Who may see an actor, and what of it: asks the component's guard, beside the queue.
//!
//! `actor` asks before it subscribes anybody and after each commit; nothing here waits for
//! a turn. Requests to subscribe that come while the guard is busy are decided together.
//!
//! Invariant: where a guard decides, nobody is sent anything that it did not allow. A guard
//! that fails has allowed nothing.

use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tidegate_core::document::Op;
use tidegate_core::failure::code;
use tidegate_core::protocol::Since;
use tidegate_core::{Failure, Json, Pointer, patch};
use tokio::sync::oneshot;
use tracing::warn;

use super::ledger::{Live, Pinned};
use crate::config::{self, AccessDefault};
use crate::engine::{
    CallResult, Component, Crash, Flush, Imports, Invocation, NewTimer, Pending, Subject,
    View as Answer, WayOut,
};
use crate::fanout::{Message, Outlet, OwnView, Shown, Stream, View};
use crate::rooms::Client;

/// Requests to subscribe that the guard has not decided yet.
#[derive(Default)]
pub(super) struct Waiting {
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
    live: Arc<Live>,
    pinned: Arc<OnceLock<Arc<Pinned>>>,
}

impl Live {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn component(&self) -> Result<Arc<Component>, Failure> {
        let component = self.slot.component();
        let component = component.ok_or_else(|| Failure::unknown_actor(self.key.actor.as_str()))?;
        match self.ledger().fits(&self.key, &component) {
            true => Ok(component),
            // Its guard would decide about a state that it misreads.
            false => Err(Failure::host(code::STATE_UNFIT)
                .message("the state is not yet that of the handler that serves the actor now")),
        }
    }

    /// Whether this client may see this much, by the guard's word or the host's settings.
    pub async fn authorize(
        self: &Arc<Self>,
        who: Client,
        to: Subject,
        settings: &config::Access,
    ) -> Result<Basis, Failure> {
        let component = self.component()?;
        if !component.access(self.key.actor.as_str()).authorize {
            return match settings.default {
                AccessDefault::Open => Ok(None),
                AccessDefault::Closed => Err(Failure::host(code::ACCESS_CLOSED)
                    .message("nobody may subscribe to actors of this type or read them")),
            };
        }
        let (answer, decided) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            if waiting.requests.len() >= settings.max_waiting {
                return Err(Failure::host(code::ACCESS_LIMIT)
                    .message("too many subscriptions wait for the actor's guard"));
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
            .unwrap_or_else(|_| Err(Failure::host(code::INTERNAL).message("the guard is gone")))
    }

    /// Asks the guard about all of these, as of one version of the state.
    async fn decide(
        self: &Arc<Self>,
        who: &[(Client, Subject)],
    ) -> (Vec<Result<Result<(), Failure>, Failure>>, Basis) {
        let pinned = Arc::new(OnceLock::new());
        let mut questions = Questions::about(who);
        while let Some(part) = questions.next() {
            let decided = match self.component() {
                Ok(component) => {
                    let state = Committed {
                        live: self.clone(),
                        pinned: pinned.clone(),
                    };
                    let decided = component.authorize(&self.key, part, state).await;
                    decided.map_err(|crash| self.report(crash, "authorize"))
                }
                Err(failure) => Err(failure),
            };
            questions.note(part, decided);
        }
        (questions.answers, pinned.get().cloned())
    }

    /// Whether nothing was committed since the guard looked at the state.
    pub fn is_as_decided(&self, basis: &Basis) -> bool {
        let ledger = self.ledger();
        basis
            .as_ref()
            .is_none_or(|seen| ledger.version == seen.version && ledger.shown_epoch == seen.epoch)
    }

    /// Sends the snapshot to a receiver, or the patches since what it has seen, and keeps it
    /// informed from there on. False, and
    /// nothing is sent, when the state is not the one that this basis is about.
    pub async fn subscribe_state(
        self: &Arc<Self>,
        outlet: Arc<dyn Outlet>,
        basis: &Basis,
        since: Option<&Since>,
    ) -> Result<bool, Failure> {
        let component = self.component()?;
        let metrics = &self.slot.metrics;
        // What is committed from here on makes patches.
        self.ledger().is_watched = true;
        if !component.access(self.key.actor.as_str()).project {
            metrics.published.snapshots.inc();
            metrics.delivered.snapshots.inc();
            return self.join_state(outlet, basis, since).await;
        }
        self.gate.passed().await?;
        metrics.published.snapshots.inc();
        metrics.delivered.snapshots.inc();
        let id = outlet.id().clone();
        let (mut views, pinned) = self.views(&component, &[outlet.client()]).await;
        let view = views.pop().unwrap_or_else(|| Ok(nothing()))?;
        self.gate.passed().await?;
        let whole = || self.text_of(&pinned);
        let shown = Shown {
            actor: &self.key,
            epoch: &pinned.epoch,
            version: pinned.version,
            patch: None,
            whole: &whole,
            restart: false,
        };
        self.audience
            .join_view(outlet, view, &shown, &self.source());
        // What was committed since then was shown to those who were here already.
        let is_behind = {
            let ledger = self.ledger();
            ledger.version != pinned.version || ledger.shown_epoch != pinned.epoch
        };
        if is_behind {
            self.show_to(&id).await;
        }
        Ok(true)
    }

    /// Subscribes to the whole state, when it is safe.
    async fn join_state(
        self: &Arc<Self>,
        outlet: Arc<dyn Outlet>,
        basis: &Basis,
        since: Option<&Since>,
    ) -> Result<bool, Failure> {
        loop {
            let mut is_decided = true;
            let snapshot = || {
                is_decided = self.is_as_decided(basis);
                self.safe_messages(since).filter(|_| is_decided)
            };
            let joined = self
                .audience
                .join_state(outlet.clone(), &self.source(), snapshot);
            if joined || !is_decided {
                return Ok(joined);
            }
            // As of now, once it is safe: the patches behind it wait at the gate as well.
            let (told, joined) = oneshot::channel();
            let waits = {
                let mut ledger = self.ledger();
                let messages = self.messages_of(&mut ledger, since);
                let (live, outlet) = (self.clone(), outlet.clone());
                let departure = async move |outcome: Result<(), Failure>| {
                    let source = live.source();
                    let join = || live.audience.join_state(outlet, &source, || Some(messages));
                    // Who does not wait any longer is undone by whoever gave up.
                    let _ = told.send(outcome.map(|()| join()));
                };
                self.gate.leave(departure).is_none()
            };
            if waits {
                let gone = |_| Err(Failure::host(code::INTERNAL).message("the host failed"));
                return joined.await.unwrap_or_else(gone);
            }
        }
    }

    /// Asks the guard again in a while, because what it goes by may have changed. Commits
    /// that come until then make no difference.
    pub(super) fn authorize_later(self: &Arc<Self>, recheck: Duration) {
        if !self.ledger().access.authorize
            || self.audience.is_empty()
            || self.waiting().recheck_is_due
        {
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

    /// Asks the guard again about those who subscribe already, all of them or one, and ends
    /// the subscriptions that it refuses. False if it has failed and some stay undecided.
    pub async fn authorize_again(
        self: &Arc<Self>,
        outlet: Option<&str>,
        undecided: Undecided,
    ) -> bool {
        let Ok(component) = self.component() else {
            return true;
        };
        if !component.access(self.key.actor.as_str()).authorize {
            return true;
        }
        let mut subscribers = self.audience.subscribers();
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
        let (decided, _) = self.decide(&who).await;
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
            self.audience.leave_stream(receiver.id(), stream);
            receiver.end(&self.key, &refused);
        }
        all_decided
    }

    /// The last committed state as this client sees it, or the one that it was allowed to
    /// see.
    pub async fn read(self: &Arc<Self>, who: Client, basis: Basis) -> Result<Read, Failure> {
        let component = self.component()?;
        if !component.access(self.key.actor.as_str()).project {
            let is_current = self.is_as_decided(&basis);
            if let Some(seen) = basis.filter(|_| !is_current) {
                return Ok(Read {
                    state: self.text_of(&seen),
                    epoch: seen.epoch.clone(),
                    version: seen.version,
                });
            }
            let (state, epoch, version) = self.committed();
            self.gate.passed().await?;
            return Ok(Read {
                state,
                epoch,
                version,
            });
        }
        let (mut views, pinned) = self.views(&component, &[who]).await;
        self.gate.passed().await?;
        Ok(Read {
            state: match views.pop().unwrap_or_else(|| Ok(nothing()))? {
                View::Whole => self.text_of(&pinned),
                View::Own(own) => own.text(),
            },
            epoch: pinned.epoch.clone(),
            version: pinned.version,
        })
    }

    /// Shows every state subscriber its view of what was just committed. Returns how many
    /// messages were taken.
    pub(super) async fn show(
        self: &Arc<Self>,
        component: &Component,
        patch: Option<&Message>,
        restart: bool,
    ) -> u64 {
        let viewers = self.audience.viewers();
        self.show_views(component, viewers, patch, restart).await
    }

    /// Goes by the rules of this component from here on, and shows everybody the state anew if
    /// others held before.
    pub async fn adopt_and_show(self: &Arc<Self>, component: &Component) {
        let waits = {
            let mut ledger = self.ledger();
            if !self.adopt_in(&mut ledger, component) {
                return;
            }
            // Under one lock: what was committed by the old rules leaves before, what will be
            // by the new ones behind it.
            !ledger.access.project && {
                let snapshot = self.snapshot_of(&mut ledger);
                let live = self.clone();
                let departure = async move |outcome: Result<(), Failure>| {
                    if outcome.is_ok() {
                        let _raised = live.gate.wave().gather_for_patch(&live.audience);
                        live.audience.restart(&live.source(), || snapshot);
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
        let Ok(component) = self.component() else {
            return;
        };
        // Nothing is shown by a store that has failed.
        if self.gate.passed().await.is_err() {
            return;
        }
        if self.is_projected() {
            for _ in 0..MAX_REPEATS {
                self.show(&component, None, true).await;
                if self.is_shown(None) {
                    return;
                }
            }
        } else {
            let snapshot = || self.snapshot();
            let _raised = self.gate.wave().gather_for_patch(&self.audience);
            self.audience.restart(&self.source(), snapshot);
        }
    }

    /// Makes up for what one subscriber missed.
    pub(super) async fn refresh_view(self: Arc<Self>, outlet: Arc<str>) {
        self.show_to(&outlet).await;
    }

    async fn show_to(self: &Arc<Self>, outlet: &Arc<str>) {
        for _ in 0..MAX_REPEATS {
            let viewer = self.audience.viewer(outlet);
            let (Ok(component), Some(client)) = (self.component(), viewer) else {
                return;
            };
            let viewers = vec![(outlet.clone(), client)];
            self.show_views(&component, viewers, None, true).await;
            if self.is_shown(Some(outlet)) {
                return;
            }
        }
    }

    /// Whether nothing was committed while a guard was asked beside the queue: what it
    /// answered may have been shown in place of what came of that commit.
    fn is_shown(&self, outlet: Option<&str>) -> bool {
        let version = self.ledger().version;
        self.audience.have_seen(outlet, version)
    }

    async fn show_views(
        self: &Arc<Self>,
        component: &Component,
        viewers: Vec<(Arc<str>, Client)>,
        patch: Option<&Message>,
        restart: bool,
    ) -> u64 {
        if viewers.is_empty() {
            return 0;
        }
        let (outlets, clients): (Vec<_>, Vec<_>) = viewers.into_iter().unzip();
        let (views, pinned) = self.views(component, &clients).await;
        let whole = || self.text_of(&pinned);
        let shown = Shown {
            actor: &self.key,
            epoch: &pinned.epoch,
            version: pinned.version,
            patch,
            whole: &whole,
            restart,
        };
        // Where the guard failed they keep what they saw; after the next commit it is asked
        // again.
        let views = outlets.into_iter().zip(views);
        let views = views.filter_map(|(outlet, view)| Some((outlet, view.ok()?)));
        let views: Vec<_> = views.collect();
        let wave = self.gate.wave();
        let _raised = (views.len() > 1).then(|| wave.gather_for_patch(&self.audience));
        self.audience.publish_views(views, &shown, &self.source())
    }

    /// Asks the guard what each of these sees, and of which version.
    async fn views(
        self: &Arc<Self>,
        component: &Component,
        who: &[Client],
    ) -> (Vec<Result<View, Failure>>, Arc<Pinned>) {
        let pinned = Arc::new(OnceLock::new());
        let mut questions = Questions::about(who);
        while let Some(part) = questions.next() {
            let state = Committed {
                live: self.clone(),
                pinned: pinned.clone(),
            };
            let answers = component.project(&self.key, part, state).await;
            let views = answers.and_then(|answers| self.view_of(component, answers));
            questions.note(part, views.map_err(|crash| self.report(crash, "project")));
        }
        let views = questions.answers;
        // A guard that has not looked at the state speaks of any version of it.
        let pinned = pinned.get_or_init(|| self.pin()).clone();
        (views, pinned)
    }

    fn view_of(&self, component: &Component, answers: Vec<Answer>) -> Result<Vec<View>, Crash> {
        let most = component.limits().state_memory_bytes;
        let hidden = self.ledger().hidden.clone();
        let mut views: Vec<View> = Vec::with_capacity(answers.len());
        for answer in answers {
            views.push(match answer {
                Answer::Whole => View::Whole,
                Answer::SameAs(other) => views[other].clone(),
                Answer::Nothing => nothing(),
                Answer::Document(document) => {
                    let document = Json::parse_within(&document, most).map_err(|error| Crash {
                        failure: Failure::host(code::HANDLER_FAILED)
                            .message("the actor's guard did not decide"),
                        detail: format!("a view is not JSON that is taken: {error}"),
                    })?;
                    let document = patch::strip_hidden(&document, &hidden).into_owned();
                    View::Own(OwnView::new(document))
                }
            });
        }
        Ok(views)
    }

    /// A pinned state as JSON text, without what is hidden.
    fn text_of(&self, pinned: &Pinned) -> Arc<str> {
        let hidden = self.ledger().hidden.clone();
        patch::strip_hidden(&pinned.value, &hidden).to_text().into()
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
fn nothing() -> View {
    View::Own(OwnView::new(Json::Null))
}

/// Asks the guard as long as somebody waits for it. Those that wait get an answer also when
/// this is dropped.
struct Deciding {
    live: Arc<Live>,
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
        let (decided, basis) = live.decide(&who).await;
        for (answer, decision) in answers.into_iter().zip(decided) {
            let decision = decision.and_then(|decision| decision);
            // Who has gone meanwhile wants no answer.
            let _ = answer.send(decision.map(|()| basis.clone()));
        }
    }
}

/// How often a view is worked out again because of commits meanwhile. Each later commit
/// shows it as well.
const MAX_REPEATS: usize = 8;

/// How often in a row a guard may fail when it is asked again, before those whom it has
/// allowed go.
const MAX_UNDECIDED: u32 = 3;

/// Guard calls of one round that may fail before the rest is given up.
const MAX_FAILURES: usize = 16;

/// Asks about all, and where that fails about each half, so that one client whom the guard
/// cannot cope with does not stand in for the others.
struct Questions<'a, W, T> {
    /// What is left to ask, in order from the back.
    parts: Vec<&'a [W]>,
    answers: Vec<Result<T, Failure>>,
    failures: usize,
}

impl<'a, W, T> Questions<'a, W, T> {
    fn about(who: &'a [W]) -> Questions<'a, W, T> {
        Questions {
            parts: vec![who],
            answers: Vec::with_capacity(who.len()),
            failures: 0,
        }
    }

    /// Whom to ask about now.
    fn next(&mut self) -> Option<&'a [W]> {
        self.parts.pop()
    }

    /// Takes the guard's word about a part.
    fn note(&mut self, part: &'a [W], answers: Result<Vec<T>, Failure>) {
        match answers {
            Ok(answers) => self.answers.extend(answers.into_iter().map(Ok)),
            Err(failure) => {
                self.failures += 1;
                if self.failures >= MAX_FAILURES {
                    self.parts.push(part);
                    let left: usize = self.parts.drain(..).map(<[W]>::len).sum();
                    let refused = (0..left).map(|_| Err(failure.clone()));
                    self.answers.extend(refused);
                } else if part.len() == 1 {
                    self.answers.push(Err(failure));
                } else {
                    let (first, second) = part.split_at(part.len() / 2);
                    self.parts.extend([second, first]);
                }
            }
        }
    }
}

impl Committed {
    fn pinned(&self) -> &Arc<Pinned> {
        self.pinned.get_or_init(|| self.live.pin())
    }
}

fn read_only() -> Failure {
    Failure::host(code::STATE_READ_ONLY).message("a guard may only read")
}

impl Imports for Committed {
    fn token(&mut self) -> u64 {
        self.pinned().token
    }

    fn read(&mut self) -> String {
        self.pinned().value.to_text()
    }

    fn replace(&mut self, _: String) -> Result<u64, Failure> {
        Err(read_only())
    }

    fn get(&mut self, pointer: &Pointer) -> Option<String> {
        pointer.resolve(&self.pinned().value).map(Json::to_text)
    }

    fn charge(&mut self, _: usize) -> Result<(), Failure> {
        Err(read_only())
    }

    fn patch(&mut self, _: Vec<Op>) -> Result<u64, Failure> {
        Err(read_only())
    }

    fn checkpoint(&mut self, _: Flush) -> Pending<Result<(), Failure>> {
        Box::pin(std::future::ready(Err(read_only())))
    }

    fn has_ticked(&mut self) -> bool {
        false
    }

    fn way_out(&mut self) -> WayOut {
        Arc::new(|| Box::pin(std::future::ready(Ok(()))))
    }

    fn is_cancelled(&mut self) -> bool {
        false
    }

    fn chunk(&mut self, _: String) -> Pending<Result<(), Failure>> {
        Box::pin(std::future::ready(Err(read_only())))
    }

    fn set_timer(&mut self, _: NewTimer) -> Result<u64, Failure> {
        Err(read_only())
    }

    fn cancel_timer(&mut self, _: u64) -> bool {
        false
    }

    fn call(&mut self, calls: Vec<Invocation>) -> Pending<Vec<CallResult>> {
        let refused = calls.iter().map(|_| Err(read_only())).collect();
        Box::pin(std::future::ready(refused))
    }

    fn send(&mut self, _: Invocation) -> Result<(), Failure> {
        Err(read_only())
    }

    fn emit(&mut self, _: String, _: String, _: crate::engine::Audience) -> Result<(), Failure> {
        Err(read_only())
    }

    fn connections(&mut self) -> Vec<String> {
        let ledger = self.live.ledger();
        ledger.connections.keys().map(|id| id.to_string()).collect()
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any + Send> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a guard that fails whenever it is asked about one of these.
    fn ask(count: u32, poison: &[u32]) -> (Vec<bool>, usize) {
        let who: Vec<u32> = (0..count).collect();
        let mut questions = Questions::about(&who);
        let mut calls = 0;
        while let Some(part) = questions.next() {
            calls += 1;
            let is_poisoned = part.iter().any(|client| poison.contains(client));
            let answers = match is_poisoned {
                true => Err(Failure::host(code::HANDLER_TRAPPED)),
                false => Ok(part.to_vec()),
            };
            questions.note(part, answers);
        }
        let allowed = questions.answers.iter().zip(&who);
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

    #[test]
    fn a_guard_that_copes_with_nobody_is_given_up() {
        let all: Vec<u32> = (0..1000).collect();
        let (allowed, calls) = ask(1000, &all);
        assert_eq!(allowed, vec![false; 1000]);
        assert_eq!(calls, MAX_FAILURES);
    }
}

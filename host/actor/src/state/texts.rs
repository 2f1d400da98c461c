//! Committed states and views as text: what is long is read and encoded on a worker's thread, so
//! that whoever joins, reads or shows a large state keeps no thread that serves others.

use std::sync::Arc;

use tidegate_base::budget;
use tidegate_core::failure::code;
use tidegate_core::turn::views;
use tidegate_core::{Failure, Json, Pointer, patch};
use tidegate_engine::{Component, Crash, Step, View as Answer};
use tokio::runtime::Handle;

use super::cost;
use super::{ActorState, Parts, Pinned};
use crate::live::{OwnView, Steps, View};
use crate::turn::guard::nothing;
use crate::turn::stage::short_text;
use crate::turn::work::{Budget, TurnMeter, elsewhere, is_short};

impl ActorState {
    /// Works out elsewhere what leads these subscribers to their new views. Where that takes too
    /// long they are sent the views.
    pub(crate) async fn steps_elsewhere(
        self: &Arc<Self>,
        component: &Component,
        views: &[(Arc<str>, View)],
        pinned: &Pinned,
    ) -> Steps {
        let ways = self.subscribers.ways(views, pinned.version);
        let work = move |meter: &mut TurnMeter| Ok(Steps::of(&ways, meter));
        let mut budget = Budget::new(component.limits().work_steps);
        let deadline = component.guard_deadline();
        let steps = elsewhere(component, &mut budget, deadline, work).await;
        steps.unwrap_or_else(|_| Steps::none())
    }

    /// What a guard's answers say, read elsewhere where they are long.
    pub(crate) async fn read_views(
        &self,
        component: &Component,
        answers: Vec<Answer>,
    ) -> Result<Vec<View>, Crash> {
        let room = self.slot.metrics.budgets().actors.clone();
        let hidden = self.parts().shown.hidden.clone();
        let most = component.limits().state_memory_bytes;
        let length = |answer: &Answer| match answer {
            Answer::Document(document) => document.len(),
            _ => 0,
        };
        let length: usize = answers.iter().map(length).sum();
        let views = if is_short(length) {
            views_of(answers, &hidden, most, &room)
        } else {
            let work = move |meter: &mut TurnMeter| {
                meter.charge_text(length)?;
                let views = views_of(answers, &hidden, most, &room)?;
                // Encoded here, too, for those who will be sent all of it.
                for view in &views {
                    if let View::Own(own) = view {
                        meter.charge_text(own.text().len())?;
                    }
                }
                Ok(views)
            };
            let mut budget = Budget::new(component.limits().work_steps);
            elsewhere(component, &mut budget, component.guard_deadline(), work).await
        };
        views.map_err(|failure| Crash {
            detail: failure.to_string(),
            failure: match &*failure.code {
                code::HOST_MEMORY => failure,
                _ => Failure::guard_undecided(),
            },
        })
    }

    /// A pinned state as JSON text, without what is hidden.
    pub(crate) fn text_of(&self, pinned: &Pinned) -> Arc<str> {
        let hidden = self.parts().shown.hidden.clone();
        pinned.text(&hidden)
    }

    /// The committed state as text, encoded elsewhere where it is long.
    pub(crate) async fn text_elsewhere(
        &self,
        component: &Component,
        pinned: &Arc<Pinned>,
    ) -> Result<Arc<str>, Failure> {
        let hidden = self.parts().shown.hidden.clone();
        if is_short(pinned.size()) {
            return Ok(pinned.text(&hidden));
        }
        let pinned = pinned.clone();
        let work = move |meter: &mut TurnMeter| {
            let text = pinned.text(&hidden);
            meter.charge_text(text.len()).map(|()| text)
        };
        let mut budget = Budget::new(component.limits().work_steps);
        elsewhere(component, &mut budget, component.guard_deadline(), work).await
    }

    /// The whole state as text, if one of these shows it and it is long; it is encoded elsewhere.
    pub(crate) async fn whole_for<'v>(
        &self,
        component: &Component,
        pinned: &Arc<Pinned>,
        views: impl IntoIterator<Item = &'v View>,
    ) -> Result<Option<Arc<str>>, Failure> {
        let is_shown = views.into_iter().any(|view| matches!(view, View::Whole));
        if !is_shown || is_short(pinned.size()) {
            return Ok(None);
        }
        self.text_elsewhere(component, pinned).await.map(Some)
    }

    /// Encodes the snapshot of a long state elsewhere, before somebody wants it here.
    pub(crate) async fn make_snapshot(self: &Arc<Self>) {
        self.make(
            |parts| parts.shown.encoded.is_some(),
            |live| {
                // Whoever needs the parts does not wait for the encoding.
                let (state, hidden, epoch, version) = {
                    let parts = live.parts();
                    if parts.history.lent.is_some() || parts.shown.encoded.is_some() {
                        return;
                    }
                    let state = parts.history.document.committed().into_owned();
                    let epoch = parts.shown.epoch.clone();
                    (
                        state,
                        parts.shown.hidden.clone(),
                        epoch,
                        parts.history.version,
                    )
                };
                let text = patch::strip_hidden(&state, &hidden).to_text();
                let mut parts = live.parts();
                let is_the_same = parts.history.version == version
                    && parts.shown.epoch == epoch
                    && parts.shown.hidden == hidden;
                if is_the_same && parts.shown.encoded.is_none() {
                    live.keep_snapshot(&mut parts, text.into());
                }
            },
        )
        .await;
    }

    /// Copies a long state elsewhere, before a guard reads it here.
    pub(crate) async fn make_pin(self: &Arc<Self>) {
        self.make(
            |parts| parts.shown.pinned.is_some(),
            |live| {
                let mut parts = live.parts();
                // Lent again by now, perhaps to work behind this one, for which no thread of the
                // component's may wait.
                if parts.history.lent.is_none() {
                    live.pin_of(&mut parts);
                }
            },
        )
        .await;
    }

    /// Waits for the document, and makes something of it elsewhere where it is long and that is
    /// not there.
    async fn make(self: &Arc<Self>, is_there: fn(&Parts) -> bool, make: fn(&ActorState)) {
        self.at_rest().await;
        let is_made = {
            let parts = self.parts();
            is_short(parts.history.document.committed_size().text) || is_there(&parts)
        };
        if let Some(component) = self.slot.component().filter(|_| !is_made) {
            let (live, runtime) = (self.clone(), Handle::current());
            let make = move || {
                let _runtime = runtime.enter();
                make(&live);
            };
            // Where that has failed it is made, and fails, where it is wanted.
            let _ = component.aside(make).await;
        }
    }

    /// A part of a pinned state as text, encoded elsewhere where it is long.
    pub(crate) fn text_at<T: Send + 'static>(
        self: &Arc<Self>,
        pinned: Arc<Pinned>,
        pointer: Pointer,
        told: impl FnOnce(Option<String>) -> T + Send + 'static,
    ) -> Step<Result<T, Failure>> {
        let length = pinned.size();
        let Some(value) = pointer.resolve(&pinned.value) else {
            return Step::Done(Ok(told(None)));
        };
        if let Some(text) = short_text(value, length) {
            return Step::Done(Ok(told(Some(text))));
        }
        let live = self.clone();
        Step::Later(Box::pin(async move {
            let component = live.component()?;
            let mut budget = Budget::new(component.limits().work_steps);
            let work = move |meter: &mut TurnMeter| {
                let text = pointer.resolve(&pinned.value).map(Json::to_text);
                meter.charge_text(text.as_ref().map_or(0, String::len))?;
                Ok(told(text))
            };
            elsewhere(&component, &mut budget, component.guard_deadline(), work).await
        }))
    }
}

/// What a guard's answers say.
fn views_of(
    answers: Vec<Answer>,
    hidden: &[String],
    most: usize,
    room: &Arc<budget::Budget>,
) -> Result<Vec<View>, Failure> {
    let mut views: Vec<View> = Vec::with_capacity(answers.len());
    for answer in answers {
        views.push(match answer {
            Answer::Whole => View::Whole,
            Answer::SameAs(other) => views[other].clone(),
            Answer::Nothing => nothing(),
            Answer::Document(text) => {
                let share = cost::share_of_text(&text, room);
                let share = share.map_err(budget::Exhausted::failure)?;
                let document = views::own(&text, hidden, most)?;
                View::Own(OwnView::new(document, text.len(), share))
            }
        });
    }
    Ok(views)
}

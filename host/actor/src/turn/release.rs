//! Lets a committed turn's effects out: the patch, then the events, then the result.

use std::sync::Arc;
use std::time::Duration;

use tidegate_base::budget::Share;
use tidegate_core::turn::Sent;
use tidegate_core::{Failure, protocol};
use tidegate_delivery::Recipients;
use tidegate_delivery::connections::Connection;
use tidegate_engine::Component;
use tidegate_ws::Frame;
use tokio::sync::oneshot;

use super::dispatch::Dispatch;
use super::guard::Guards;
use super::listener::Listener;
use crate::live::ActorFrame;
use crate::metrics::Stopwatch;
use crate::state::ActorState;

/// What a committed turn lets out.
pub struct Effects {
    pub(super) live: Arc<ActorState>,
    pub(super) component: Arc<Component>,
    pub(super) dispatch: Arc<dyn Dispatch>,
    /// Whether the state has another version.
    pub(super) changed: bool,
    /// The change of the state and the version it leads to.
    pub(super) patch: Option<(Arc<ActorFrame>, u64)>,
    pub(super) events: Vec<StagedEvent>,
    /// Messages to other actors.
    pub(super) sends: Vec<Arc<Sent>>,
    /// What all of it, and the result, has taken of the host's budget until it has left.
    pub(super) _share: Option<Share>,
}

/// An event that waits for its turn's commit.
pub(super) struct StagedEvent {
    pub(super) message: ActorFrame,
    pub(super) to: Recipients,
}

/// The result of a call that is to be answered.
pub struct Reply {
    /// Who gets it.
    pub to: ReplyTo,
    /// The result.
    pub result: Option<String>,
    /// Notes when it is answered.
    pub watch: Stopwatch,
}

/// Who gets the result. Every call is answered exactly once: one that is dropped
/// unanswered answers `internal`.
pub struct ReplyTo(Option<Address>);

enum Address {
    Connection {
        connection: Arc<Connection>,
        id: Arc<str>,
    },
    Waiter(oneshot::Sender<Result<Option<String>, Failure>>),
    Listener {
        result: oneshot::Sender<Result<Option<String>, Failure>>,
        chunks: Listener,
    },
    Then(Box<dyn FnOnce(Result<Option<String>, Failure>) + Send + Sync>),
}

/// Who hears parts of a result ahead of it.
#[derive(Clone)]
pub struct Chunks(Ear);

#[derive(Clone)]
enum Ear {
    Connection {
        connection: Arc<Connection>,
        id: Arc<str>,
    },
    Channel(Listener),
}

impl Chunks {
    /// Sends a part, as JSON text, once the listener has read enough of what is before it.
    /// A listener that is gone hears nothing.
    pub async fn send(self, payload: String) {
        match self.0 {
            Ear::Connection { connection, id } => {
                connection.room().await;
                let frame = protocol::rpc_stream(&id, &payload);
                connection.send(Frame::text(frame));
            }
            Ear::Channel(listener) => listener.send(payload).await,
        }
    }

    /// Whether the listener is gone.
    pub fn is_gone(&self) -> bool {
        match &self.0 {
            Ear::Connection { connection, .. } => !connection.outbound().is_open(),
            Ear::Channel(listener) => listener.is_gone(),
        }
    }
}

impl ReplyTo {
    /// A call with this id on a connection.
    pub fn connection(connection: Arc<Connection>, id: Arc<str>) -> ReplyTo {
        ReplyTo(Some(Address::Connection { connection, id }))
    }

    /// Somebody in this process who waits.
    pub fn waiter(waiter: oneshot::Sender<Result<Option<String>, Failure>>) -> ReplyTo {
        ReplyTo(Some(Address::Waiter(waiter)))
    }

    /// What to do with the answer.
    pub fn then(
        answered: impl FnOnce(Result<Option<String>, Failure>) + Send + Sync + 'static,
    ) -> ReplyTo {
        ReplyTo(Some(Address::Then(Box::new(answered))))
    }

    /// Nobody is told of a call that was not delivered.
    pub fn forget(mut self) {
        self.0 = None;
    }

    /// Somebody in this process who waits and hears parts of the result meanwhile.
    pub fn listener(
        result: oneshot::Sender<Result<Option<String>, Failure>>,
        chunks: Listener,
    ) -> ReplyTo {
        ReplyTo(Some(Address::Listener { result, chunks }))
    }

    /// Who hears parts of the result, if anybody does.
    pub fn chunks(&self) -> Option<Chunks> {
        match self.0.as_ref()? {
            Address::Connection { connection, id } => Some(Chunks(Ear::Connection {
                connection: connection.clone(),
                id: id.clone(),
            })),
            Address::Listener { chunks, .. } => Some(Chunks(Ear::Channel(chunks.clone()))),
            Address::Waiter(_) | Address::Then(_) => None,
        }
    }

    /// Tells whoever waits what became of the call.
    pub fn send(mut self, result: Result<Option<String>, Failure>) {
        self.answer(result);
    }

    fn answer(&mut self, result: Result<Option<String>, Failure>) {
        match self.0.take() {
            Some(Address::Connection { connection, id }) => connection.end_call(&id, &result),
            // A waiter that is gone wants no answer.
            Some(Address::Waiter(waiter) | Address::Listener { result: waiter, .. }) => {
                drop(waiter.send(result));
            }
            Some(Address::Then(answered)) => answered(result),
            None => {}
        }
    }

    fn connection_of(&self) -> Option<&Arc<Connection>> {
        match &self.0 {
            Some(Address::Connection { connection, .. }) => Some(connection),
            _ => None,
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.answer(Err(Failure::internal("the host dropped the call")));
        }
    }
}

/// Lets out what a turn had to say, once everything that it builds on is safe. `reply` is
/// none for hooks. Where that fails, the caller is told and nothing leaves.
pub async fn let_out(effects: Effects, reply: Option<Reply>, recheck: Duration) {
    let gate = effects.live.gate.clone();
    let departure = async move |outcome: Result<(), Failure>| match outcome {
        Ok(()) => release(effects, reply, recheck).await,
        Err(failure) => {
            if let Some(reply) = reply {
                reply.to.send(Err(failure));
            }
        }
    };
    if let Some(departure) = gate.leave(departure) {
        departure(Ok(())).await;
    }
}

/// Answers a call that lets out nothing else, once everything that it builds on is safe.
pub async fn answer(live: &ActorState, reply: ReplyTo, result: Result<Option<String>, Failure>) {
    let departure = async move |outcome: Result<(), Failure>| {
        reply.send(outcome.and(result));
    };
    if let Some(departure) = live.gate.leave(departure) {
        departure(Ok(())).await;
    }
}

/// Shuts out those who may look no longer, and shows the others their views.
async fn guard(effects: &Effects, guards: Guards) {
    let live = &effects.live;
    let _still = live.hold_still().await;
    if guards.at_each_commit() {
        live.authorize_ahead(&effects.component).await;
    }
    if guards.project {
        let metrics = &live.slot.metrics;
        let patch = effects.patch.as_ref().map(|(patch, _)| &**patch);
        let taken = live.show(&effects.component, patch).await;
        metrics.published.patches.inc();
        metrics.delivered.patches.inc_by(taken);
    }
}

/// Sends what a turn had to say. `reply` is none for hooks. Waits only where a guard decides
/// who is told, or what each subscriber sees. One whose author says so is asked again about
/// those who subscribe `recheck` later.
async fn release(effects: Effects, reply: Option<Reply>, recheck: Duration) {
    let live = &effects.live;
    let subscribers = &live.subscribers;
    let metrics = &live.slot.metrics;
    let guards = match effects.changed {
        true => live.guards(),
        false => Guards::default(),
    };
    let is_projected = guards.project;
    if (is_projected || guards.at_each_commit()) && !subscribers.is_empty() {
        Box::pin(guard(&effects, guards)).await;
    }
    let batch = live.gate.batch();
    // Several are written to behind the last of it, and outside of the list's lock.
    let _raised = subscribers.cork(batch);
    // What the caller is owed leaves in one write.
    let _cork = reply
        .as_ref()
        .and_then(|reply| reply.to.connection_of())
        .map(|connection| connection.outbound().clone().cork());
    if let Some((patch, version)) = effects.patch.as_ref().filter(|_| !is_projected) {
        subscribers.gather_for_patch(batch);
        let taken = subscribers.publish_patch(patch, *version, &live.source());
        metrics.published.patches.inc();
        metrics.delivered.patches.inc_by(taken);
    }
    for event in &effects.events {
        subscribers.gather_for_event(batch, &event.to);
        let taken = subscribers.publish_event(&event.message, &event.to);
        metrics.published.events.inc();
        metrics.delivered.events.inc_by(taken);
    }
    if guards.authorize && !guards.at_each_commit() {
        live.authorize_later(recheck);
    }
    for sent in effects.sends {
        effects.dispatch.deliver(&live.key, sent);
    }
    if let Some(Reply { to, result, watch }) = reply {
        if let Some(connection) = to.connection_of().filter(|c| c.awaits_several()) {
            batch.add(connection);
        }
        to.send(Ok(result));
        watch.finish();
    }
}

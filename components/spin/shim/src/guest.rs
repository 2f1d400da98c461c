//! The handler, as the shim asks it. The shim cannot call it: it says to the gateway what
//! the handler is to do next, and the gateway comes back with what came of it. So that
//! [`serve`](crate::serve) reads as one line of thought all the same, it is a future that
//! pends wherever it asks; nothing else in it ever does.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tidegate_core::Failure;

use crate::bindings::exports::tidegate::spin::control::{
    Invocation, Job, Looking, Outcome, Question, View,
};
use crate::bindings::tidegate::realtime::types as wit;

thread_local! {
    static SERVING: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>> = const { RefCell::new(None) };
    static ASKED: RefCell<Option<Job>> = const { RefCell::new(None) };
    static TOLD: RefCell<Option<Outcome>> = const { RefCell::new(None) };
}

/// Begins to serve; returns what the handler is to do.
pub(crate) fn begin(serving: impl Future<Output = ()> + 'static) -> Option<Job> {
    SERVING.set(Some(Box::pin(serving)));
    go_on()
}

/// Goes on with what came of it.
pub(crate) fn finish(outcome: Outcome) -> Option<Job> {
    TOLD.set(Some(outcome));
    go_on()
}

fn go_on() -> Option<Job> {
    let mut serving = SERVING.take()?;
    match serving
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(()) => None,
        Poll::Pending => {
            SERVING.set(Some(serving));
            ASKED.take()
        }
    }
}

async fn ask(job: Job) -> Outcome {
    let mut job = Some(job);
    poll_fn(move |_| match job.take() {
        Some(job) => {
            ASKED.set(Some(job));
            Poll::Pending
        }
        None => TOLD.take().map_or(Poll::Pending, Poll::Ready),
    })
    .await
}

const MISMATCH: &str = "the gateway answers what it was asked";

/// `manifest.describe`
pub(crate) async fn describe() -> String {
    match ask(Job::Describe).await {
        Outcome::Described(manifest) => manifest,
        _ => unreachable!("{MISMATCH}"),
    }
}

/// `actor.invoke`
pub(crate) async fn invoke(
    turn: wit::Turn,
    method: &str,
    input: Option<String>,
) -> Result<Option<String>, Failure> {
    let method = method.to_owned();
    match ask(Job::Invoke(Invocation {
        turn,
        method,
        input,
    }))
    .await
    {
        Outcome::Invoked(result) => result.map_err(Into::into),
        _ => unreachable!("{MISMATCH}"),
    }
}

/// `actor.activate`
pub(crate) async fn activate(turn: wit::Turn) -> Result<(), Failure> {
    match ask(Job::Activate(turn)).await {
        Outcome::Activated(result) => result.map_err(Into::into),
        _ => unreachable!("{MISMATCH}"),
    }
}

/// `access.authorize`, about one.
pub(crate) async fn authorize(question: Question) -> Result<(), Failure> {
    match ask(Job::Authorize(question)).await {
        Outcome::Authorized(decision) => decision.map_err(Into::into),
        _ => unreachable!("{MISMATCH}"),
    }
}

/// `access.project`, for one.
pub(crate) async fn project(looking: Looking) -> Result<View, Failure> {
    match ask(Job::Project(looking)).await {
        Outcome::Projected(view) => view.map_err(Into::into),
        _ => unreachable!("{MISMATCH}"),
    }
}

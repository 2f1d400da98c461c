//! The way from one actor to others: calls that are waited for, and mail.
//!
//! Invariant: no actor waits for itself, directly or through others.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tidegate_base::budget::Exhausted;
use tidegate_base::clock::instant;
use tidegate_core::failure::code;
use tidegate_core::turn::Sent;
use tidegate_core::{ActorKey, CallEnvelope, Failure, Origin};
use tidegate_engine::{CallResult, Invocation, Pending};
use tidegate_registry::calls::{CallActors, Caller};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::mailbox::{Call, Item};
use super::{CALL_COST, Shared, Undelivered};
use crate::metrics::Stopwatch;
use crate::turn::{Dispatch, ReplyTo};

/// The way from one actor to others.
pub(super) struct Ways(pub(super) Weak<Shared>);

impl Ways {
    fn deliver(
        shared: &Shared,
        from: &ActorKey,
        key: &ActorKey,
        call: Invocation,
        rest: Rest,
    ) -> Result<(), Failure> {
        let input = call.input.as_ref().map_or(0, String::len);
        let share = shared.budgets.inputs.share(CALL_COST + input);
        let share = share.map_err(Exhausted::failure)?;
        let call = Call {
            envelope: CallEnvelope {
                depth: rest.depth,
                key: call.key,
                traceparent: rest.traceparent.as_deref().map(str::to_owned),
                ..CallEnvelope::new(call.method, call.input, Origin::Actor(from.clone()))
            },
            deadline: rest.deadline,
            share: Some(share),
            cancel: rest.cancel,
            arrived: instant(),
            watch: Stopwatch::default(),
            reply: rest.reply,
        };
        let delivered = shared.deliver(key, Item::Call(Box::new(call)));
        delivered.map_err(|undelivered| {
            let Undelivered { failure, item } = *undelivered;
            item.refuse(key, failure.clone());
            failure
        })
    }
}

/// What a call of an actor carries beside its words.
struct Rest {
    depth: u32,
    deadline: Option<Instant>,
    traceparent: Option<Arc<str>>,
    cancel: CancellationToken,
    reply: ReplyTo,
}

impl CallActors for Ways {
    fn call(&self, from: Caller, call: Invocation) -> Pending<CallResult> {
        let begun = || {
            let shared = self.0.upgrade().ok_or_else(Failure::host_shutting_down)?;
            let key = shared.key(&call.actor, &call.id)?;
            let limit = shared.settings.max_call_depth;
            if from.depth >= limit {
                return Err(Failure::call_depth_limit(limit));
            }
            let wait = shared.wait_graph.begin(&from.actor, &key);
            let wait = wait.ok_or_else(|| Failure::call_deadlock(&key, &from.actor))?;
            let timeout = call.timeout_ms.map(Duration::from_millis);
            let timeout = timeout.and_then(|timeout| instant().checked_add(timeout));
            let deadline = timeout.map_or(from.deadline, |end| end.min(from.deadline));
            let (reply, result) = oneshot::channel();
            let cancel = CancellationToken::new();
            let rest = Rest {
                depth: from.depth + 1,
                deadline: Some(deadline),
                traceparent: from.traceparent.clone(),
                cancel: cancel.clone(),
                reply: ReplyTo::waiter(reply),
            };
            Ways::deliver(&shared, &from.actor, &key, call, rest)?;
            Ok((wait, deadline, cancel, result))
        };
        let begun = begun();
        Box::pin(async move {
            let (_wait, deadline, cancel, result) = begun?;
            let _cancel = cancel.drop_guard();
            match tokio::time::timeout_at(deadline.into(), result).await {
                // The called one ran into the caller's deadline, which is its own as well.
                Ok(Ok(Err(failure)))
                    if failure.code == code::TURN_DEADLINE && instant() >= deadline =>
                {
                    Err(Failure::call_timeout())
                }
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(Failure::unanswered()),
                Err(_) => Err(Failure::call_timeout()),
            }
        })
    }
}

impl Dispatch for Ways {
    fn deliver(&self, from: &ActorKey, sent: Arc<Sent>) {
        if let Some(shared) = self.0.upgrade() {
            shared.post(from, sent);
        }
    }
}

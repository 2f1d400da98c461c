//! `tidegate:realtime/actors`: calls to other actors.

use tidegate_core::Failure;
use tidegate_core::turn::Invocation;

use super::bindings::tidegate::realtime::{actors as wit, types};
use super::imports::{Pending, Trappable};
use super::instance::GuestContext;

/// What became of a call.
pub type CallResult = Result<Option<String>, Failure>;

/// Calls other actors.
pub trait ActorCalls: Send {
    /// `actors.call` and `actors.call-all`: one result for each, in their order.
    fn call(&mut self, calls: Vec<Invocation>) -> Pending<Vec<CallResult>>;
    /// `actors.send`
    fn send(&mut self, call: Invocation) -> Result<(), Failure>;
}

impl From<wit::Invocation> for Invocation {
    fn from(call: wit::Invocation) -> Self {
        Invocation {
            actor: call.to.actor,
            id: call.to.id,
            method: call.method,
            input: call.input,
            key: call.key,
            timeout_ms: call.timeout_ms,
        }
    }
}

impl GuestContext {
    async fn call_actors(&mut self, calls: Vec<Invocation>) -> Trappable<Vec<CallResult>> {
        let called = match self.imports()?.actor_calls() {
            Ok(actors) => actors.call(calls),
            Err(refused) => return Ok(calls.iter().map(|_| Err(refused.clone())).collect()),
        };
        Ok(called.await)
    }
}

impl wit::Host for GuestContext {
    async fn call(
        &mut self,
        call: wit::Invocation,
    ) -> Trappable<Result<Option<String>, types::Failure>> {
        let mut results = self.call_actors(vec![call.into()]).await?;
        let result = results.pop().unwrap_or_else(|| Err(Failure::unanswered()));
        Ok(result.map_err(Into::into))
    }

    async fn call_all(
        &mut self,
        calls: Vec<wit::Invocation>,
    ) -> Trappable<Vec<Result<Option<String>, types::Failure>>> {
        let calls = calls.into_iter().map(Into::into).collect();
        let results = self.call_actors(calls).await?.into_iter();
        Ok(results.map(|result| result.map_err(Into::into)).collect())
    }

    fn send(&mut self, call: wit::Invocation) -> Trappable<Result<(), types::Failure>> {
        let actors = self.imports()?.actor_calls();
        let sent = actors.and_then(|actors| actors.send(call.into()));
        Ok(sent.map_err(Into::into))
    }
}

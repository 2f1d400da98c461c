//! `tidegate:realtime/turns`: control over the running turn.

use tidegate_core::Failure;

use super::bindings::tidegate::realtime::{turns as wit, types};
use super::imports::{Pending, Trappable};
use super::instance::GuestContext;

/// When what is staged becomes visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// At the next tick of a streaming method.
    Due,
    /// Before the call returns.
    Now,
}

/// Controls the running turn.
pub trait TurnControl: Send {
    /// `turns.checkpoint`
    fn checkpoint(&mut self, when: Flush) -> Pending<Result<(), Failure>>;
    /// Whether a tick has committed since this was last asked.
    fn has_ticked(&mut self) -> bool;
    /// `turns.cancelled`
    fn is_cancelled(&mut self) -> bool;
}

impl wit::Host for GuestContext {
    async fn checkpoint(&mut self, when: wit::Flush) -> Trappable<Result<(), types::Failure>> {
        let when = match when {
            wit::Flush::Due => Flush::Due,
            wit::Flush::Now => Flush::Now,
        };
        let flushed = match self.imports()?.turn_control() {
            Ok(turn) => turn.checkpoint(when),
            Err(refused) => return Ok(Err(refused.into())),
        };
        Ok(flushed.await.map_err(Into::into))
    }

    fn cancelled(&mut self) -> Trappable<bool> {
        let turn = self.imports()?.turn_control();
        Ok(turn.is_ok_and(|turn| turn.is_cancelled()))
    }
}

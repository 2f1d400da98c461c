//! `tidegate:realtime/timers`: calls of an actor to itself, later.

use tidegate_core::Failure;
use tidegate_core::turn::NewTimer;

use super::bindings::tidegate::realtime::{timers as wit, types};
use super::imports::{Step, Trappable};
use super::instance::GuestContext;

/// Stages timers of the actor.
pub trait Timers: Send {
    /// `timers.after` and `timers.every`
    fn set_timer(&mut self, timer: NewTimer) -> Step<Result<u64, Failure>>;
    /// `timers.cancel`
    fn cancel_timer(&mut self, id: u64) -> bool;
}

impl GuestContext {
    async fn set_timer(
        &mut self,
        delay_ms: u64,
        every_ms: Option<u64>,
        method: String,
        input: Option<String>,
        life: wit::Life,
    ) -> Trappable<Result<u64, types::Failure>> {
        let timer = NewTimer {
            delay_ms,
            every_ms,
            method,
            input,
            idle: life.contains(wit::Life::IDLE),
            outlive: life.contains(wit::Life::OUTLIVE),
        };
        let set = match self.imports()?.timers() {
            Ok(timers) => timers.set_timer(timer),
            Err(refused) => return Ok(Err(refused.into())),
        };
        Ok(set.done().await.map_err(Into::into))
    }
}

impl wit::Host for GuestContext {
    async fn after(
        &mut self,
        ms: u64,
        method: String,
        input: Option<String>,
        life: wit::Life,
    ) -> Trappable<Result<u64, types::Failure>> {
        self.set_timer(ms, None, method, input, life).await
    }

    async fn every(
        &mut self,
        ms: u64,
        method: String,
        input: Option<String>,
        life: wit::Life,
    ) -> Trappable<Result<u64, types::Failure>> {
        self.set_timer(ms, Some(ms), method, input, life).await
    }

    fn cancel(&mut self, id: u64) -> Trappable<bool> {
        let timers = self.imports()?.timers();
        Ok(timers.is_ok_and(|timers| timers.cancel_timer(id)))
    }
}

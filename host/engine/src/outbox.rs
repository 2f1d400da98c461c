//! `tidegate:realtime/outbox`: what leaves an actor for its clients, and who these are.

use tidegate_core::Failure;

use super::bindings::tidegate::realtime::{outbox as wit, types};
use super::imports::{Pending, Step, Trappable};
use super::instance::GuestContext;

/// Who gets an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Audience {
    /// Every subscriber.
    Everyone,
    /// These connections only.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

/// Sends to the actor's clients.
pub trait Outbox: Send {
    /// `outbox.emit`
    fn emit(&mut self, event: String, payload: String, to: Audience) -> Step<Result<(), Failure>>;
    /// `outbox.chunk`
    fn chunk(&mut self, payload: String) -> Pending<Result<(), Failure>>;
}

/// Tells which connections the actor knows.
pub trait Connections: Send {
    /// `outbox.connections`
    fn connections(&mut self) -> Vec<String>;
}

impl wit::Host for GuestContext {
    async fn emit(
        &mut self,
        event: String,
        payload: String,
        to: wit::Audience,
    ) -> Trappable<Result<(), types::Failure>> {
        let to = match to {
            wit::Audience::Everyone => Audience::Everyone,
            wit::Audience::Only(ids) => Audience::Only(ids),
            wit::Audience::Except(ids) => Audience::Except(ids),
        };
        let emitted = match self.imports()?.outbox() {
            Ok(outbox) => outbox.emit(event, payload, to),
            Err(refused) => return Ok(Err(refused.into())),
        };
        Ok(emitted.done().await.map_err(Into::into))
    }

    async fn chunk(&mut self, payload: String) -> Trappable<Result<(), types::Failure>> {
        let sent = match self.imports()?.outbox() {
            Ok(outbox) => outbox.chunk(payload),
            Err(refused) => return Ok(Err(refused.into())),
        };
        Ok(sent.await.map_err(Into::into))
    }

    fn connections(&mut self) -> Trappable<Vec<String>> {
        Ok(self.imports()?.connections().connections())
    }
}

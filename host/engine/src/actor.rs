//! `tidegate:realtime/actor`: the turns of a component's actors.
//!
//! `actor` calls this with what a turn is given, and gets that back with what the turn has left in
//! it, however the call ends.

use std::any::Any;

use tidegate_core::Failure;

use super::bindings::types as wit;
use super::imports::{Imports, TurnImports};
use super::instance::{Crash, Instance, Stop, within};
use super::types::Turn;

/// The hooks of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The actor enters memory.
    Activate,
    /// The actor leaves memory.
    Deactivate,
    /// First contact of a connection.
    Connect,
    /// A connection has closed.
    Disconnect,
}

impl Hook {
    /// The hook's name in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Activate => "activate",
            Hook::Deactivate => "deactivate",
            Hook::Connect => "connect",
            Hook::Disconnect => "disconnect",
        }
    }
}

impl Instance {
    /// Runs `actor.invoke`. Returns the imports with what the call has left in them.
    pub async fn invoke<I: TurnImports>(
        &mut self,
        turn: &Turn,
        method: &str,
        input: Option<&String>,
        imports: I,
    ) -> (I, Result<Result<Option<String>, Failure>, Crash>) {
        self.begin(turn, imports);
        let told = wit::Turn::from(turn);
        let result = match &self.guests.actor {
            Some(guest) => {
                let call = guest.call_invoke(&mut self.store, &told, method, input);
                within(&self.ticker, turn.deadline, call).await
            }
            None => Err(Stop::NotExported("actor").into()),
        };
        self.end(result)
    }

    /// Runs one of the hooks.
    pub async fn run_hook<I: TurnImports>(
        &mut self,
        turn: &Turn,
        hook: Hook,
        imports: I,
    ) -> (I, Result<Result<(), Failure>, Crash>) {
        self.begin(turn, imports);
        let guest = &self.guests.actor;
        let store = &mut self.store;
        let arg = wit::Turn::from(turn);
        let call = async {
            let Some(guest) = guest else {
                return Err(Stop::NotExported("actor").into());
            };
            match hook {
                Hook::Activate => guest.call_activate(store, &arg).await,
                Hook::Deactivate => guest.call_deactivate(store, &arg).await,
                Hook::Connect => guest.call_connect(store, &arg).await,
                Hook::Disconnect => guest.call_disconnect(store, &arg).await,
            }
        };
        let result = within(&self.ticker, turn.deadline, call).await;
        self.end(result)
    }

    fn begin(&mut self, turn: &Turn, imports: impl TurnImports) {
        self.open(
            turn.deadline,
            turn.allowed,
            Imports::Turn(Box::new(imports)),
        );
        let log = &self.store.data().log;
        log.begin_turn(
            &turn.this,
            &turn.id,
            turn.request.as_ref(),
            self.limits.log_bytes,
        );
    }

    fn end<I: TurnImports, T>(
        &mut self,
        result: wasmtime::Result<Result<T, wit::Failure>>,
    ) -> (I, Result<Result<T, Failure>, Crash>) {
        let (imports, result) = self.close(result);
        let imports: Option<Box<dyn Any>> = match imports {
            Some(Imports::Turn(imports)) => Some(imports),
            _ => None,
        };
        let imports = imports
            .and_then(|imports| imports.downcast::<I>().ok())
            .expect("begin has put them there, and only end takes them");
        (*imports, result.map(|result| result.map_err(Failure::from)))
    }
}

//! Which of the contract's interfaces a call into a guest may use: the capabilities that it is
//! given, one trait for each interface, in the file of that interface.
//!
//! Whoever calls into a guest implements the traits of that kind of call; `actor` does so for turns
//! and for guards. Invariants: what a call is not given refuses by itself, and every use is counted
//! before it does anything, so that a flood of them ends the call.

use std::any::Any;
use std::pin::Pin;

use tidegate_core::Failure;

use super::actors::ActorCalls;
use super::instance::{GuestContext, Stop};
use super::outbound::{Outgoing, WayOut};
use super::outbox::{Connections, Outbox};
use super::state::{StateRead, StateWrite};
use super::timers::Timers;
use super::turns::TurnControl;

pub(super) type Trappable<T> = wasmtime::Result<T>;

/// What a guest waits for. It owns what it needs, because the guest's imports are elsewhere
/// meanwhile.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is done at once, or has to be waited for: most of what a guest asks of its host is little.
pub enum Step<T> {
    /// It is done.
    Done(T),
    /// It is done elsewhere.
    Later(Pending<T>),
}

impl<T> Step<T> {
    /// What comes of it.
    pub async fn done(self) -> T {
        match self {
            Step::Done(done) => done,
            Step::Later(pending) => pending.await,
        }
    }
}

/// What a turn is given.
pub trait TurnImports:
    StateRead + StateWrite + TurnControl + Outbox + Connections + Timers + ActorCalls + Outgoing + Any
{
}

impl<T> TurnImports for T where
    T: StateRead
        + StateWrite
        + TurnControl
        + Outbox
        + Connections
        + Timers
        + ActorCalls
        + Outgoing
        + Any
{
}

/// What a guard is given: it only reads.
pub trait GuardImports: StateRead + Connections + 'static {}

impl<T: StateRead + Connections + 'static> GuardImports for T {}

/// What the running call was given. Each kind of call has one trait object, so that a use costs one
/// dynamic call.
pub(super) enum Imports {
    Turn(Box<dyn TurnImports>),
    Guard(Box<dyn GuardImports>),
}

impl Imports {
    pub(super) fn state(&mut self) -> &mut dyn StateRead {
        match self {
            Imports::Turn(turn) => &mut **turn,
            Imports::Guard(guard) => &mut **guard,
        }
    }

    pub(super) fn state_write(&mut self) -> Result<&mut dyn StateWrite, Failure> {
        Ok(self.turn()?)
    }

    pub(super) fn turn_control(&mut self) -> Result<&mut dyn TurnControl, Failure> {
        Ok(self.turn()?)
    }

    pub(super) fn outbox(&mut self) -> Result<&mut dyn Outbox, Failure> {
        Ok(self.turn()?)
    }

    pub(super) fn connections(&mut self) -> &mut dyn Connections {
        match self {
            Imports::Turn(turn) => &mut **turn,
            Imports::Guard(guard) => &mut **guard,
        }
    }

    pub(super) fn timers(&mut self) -> Result<&mut dyn Timers, Failure> {
        Ok(self.turn()?)
    }

    pub(super) fn actor_calls(&mut self) -> Result<&mut dyn ActorCalls, Failure> {
        Ok(self.turn()?)
    }

    /// What HTTP requests wait for; none where they need not wait.
    pub(super) fn way_out(&mut self) -> Option<WayOut> {
        match self {
            Imports::Turn(turn) => Some(turn.way_out()),
            Imports::Guard(_) => None,
        }
    }

    /// Whether a tick has committed since this was last asked.
    pub(super) fn has_ticked(&mut self) -> bool {
        self.turn().is_ok_and(|turn| turn.has_ticked())
    }

    /// What a turn alone is given.
    fn turn(&mut self) -> Result<&mut dyn TurnImports, Failure> {
        match self {
            Imports::Turn(turn) => Ok(&mut **turn),
            Imports::Guard(_) => Err(Failure::state_read_only()),
        }
    }
}

impl GuestContext {
    /// What the running call was given, after counting this use of it.
    pub(super) fn imports(&mut self) -> Trappable<&mut Imports> {
        self.count_host_call()?;
        match &mut self.imports {
            Some(imports) => Ok(imports),
            None => Err(Stop::OutsideTurn.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Pointer;
    use tidegate_core::failure::code;

    use super::*;

    /// A guard's view of a document that is not there.
    struct Nothing;

    impl StateRead for Nothing {
        fn token(&mut self) -> u64 {
            7
        }

        fn read(&mut self) -> Step<Result<String, Failure>> {
            Step::Done(Ok("null".to_owned()))
        }

        fn get(&mut self, _: Pointer) -> Step<Result<Option<String>, Failure>> {
            Step::Done(Ok(None))
        }
    }

    impl Connections for Nothing {
        fn connections(&mut self) -> Vec<String> {
            vec!["c1".to_owned()]
        }
    }

    #[test]
    fn a_guard_reads_and_is_refused_all_else() {
        let mut imports = Imports::Guard(Box::new(Nothing));
        assert_eq!(imports.state().token(), 7);
        assert_eq!(imports.connections().connections(), ["c1"]);
        let refused = [
            imports.state_write().map(drop),
            imports.turn_control().map(drop),
            imports.outbox().map(drop),
            imports.timers().map(drop),
            imports.actor_calls().map(drop),
        ];
        for refused in refused {
            let failure = refused.expect_err("a guard may not");
            assert_eq!(failure.code, code::STATE_READ_ONLY);
            assert_eq!(failure.message.as_deref(), Some("a guard may only read"));
        }
        assert!(!imports.has_ticked());
        assert!(
            imports.way_out().is_none(),
            "it builds on what is committed"
        );
    }
}

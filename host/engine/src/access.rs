//! `tidegate:realtime/access`: the guard of a component, on instances that belong to no actor.
//!
//! `actor` asks here before it lets anybody see an actor. A call takes one of the
//! component's few guard instances and waits while all of them are busy; it never waits
//! for an actor's turn.
//!
//! Invariant: an answer is complete, or there is none. A guard that answers for too few,
//! or refers to an answer that does not precede, has decided nothing.

use std::time::{Duration, Instant};

use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::{ActorKey, Client, Failure};
use tokio::sync::Semaphore;

use super::bindings::exported::access;
use super::bindings::types as wit;
use super::budget::GivesWay;
use super::imports::{GuardImports, Imports};
use super::instance::{Crash, Instance, Stop, within};
use super::load::{Component, permits};

/// What somebody wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The state and its patches.
    State,
    /// The events.
    Events,
}

/// What somebody may see of the state.
#[derive(Clone, Debug, PartialEq)]
pub enum View {
    /// All of it.
    Whole,
    /// This document instead, as JSON text.
    Document(String),
    /// What the client at this earlier index sees.
    SameAs(usize),
    /// They may see nothing.
    Nothing,
}

/// The guard instances of one component.
pub(super) struct Guards {
    parked: Mutex<Vec<Instance>>,
    permits: Semaphore,
}

impl Guards {
    pub(super) fn new(instances: usize) -> Guards {
        Guards {
            parked: Mutex::default(),
            permits: Semaphore::new(permits(instances)),
        }
    }

    fn parked(&self) -> MutexGuard<'_, Vec<Instance>> {
        self.parked.lock()
    }
}

impl GivesWay for Guards {
    fn give_way(&self) -> bool {
        let parked = std::mem::take(&mut *self.parked());
        !parked.is_empty()
    }
}

impl Component {
    /// Asks `access.authorize`: one answer for each, in their order.
    pub async fn authorize(
        &self,
        this: &ActorKey,
        who: &[(Client, Subject)],
        state: impl GuardImports,
    ) -> Result<Vec<Result<(), Failure>>, Crash> {
        let asked: Vec<_> = who
            .iter()
            .map(|(client, to)| access::Subscription {
                who: client.into(),
                to: match to {
                    Subject::State => access::Subject::State,
                    Subject::Events => access::Subject::Events,
                },
            })
            .collect();
        let answers = self
            .guard(this, who.len(), state, async |guest, store| {
                guest.call_authorize(store, &this.into(), &asked).await
            })
            .await?;
        complete(answers.len(), who.len())?;
        let answers = answers.into_iter();
        Ok(answers
            .map(|answer| answer.map_err(Failure::from))
            .collect())
    }

    /// Asks `access.project`: one view for each, in their order.
    pub async fn project(
        &self,
        this: &ActorKey,
        who: &[Client],
        state: impl GuardImports,
    ) -> Result<Vec<View>, Crash> {
        let asked: Vec<wit::Client> = who.iter().map(Into::into).collect();
        let answers = self
            .guard(this, who.len(), state, async |guest, store| {
                guest.call_project(store, &this.into(), &asked).await
            })
            .await?;
        complete(answers.len(), who.len())?;
        let view = |(index, view)| {
            Ok(match view {
                access::View::Whole => View::Whole,
                access::View::Document(document) => View::Document(document),
                access::View::SameAs(other) if (other as usize) < index => {
                    View::SameAs(other as usize)
                }
                access::View::SameAs(other) => {
                    return Err(undecided(format!(
                        "view {index} is the same as {other}, expected an earlier one"
                    )));
                }
                access::View::Nothing => View::Nothing,
            })
        };
        answers.into_iter().enumerate().map(view).collect()
    }

    async fn guard<T>(
        &self,
        this: &ActorKey,
        questions: usize,
        state: impl GuardImports,
        call: impl AsyncFnOnce(
            &access::Guest,
            &mut wasmtime::Store<super::instance::GuestContext>,
        ) -> wasmtime::Result<T>,
    ) -> Result<T, Crash> {
        let allowed = Duration::from_millis(self.limits().guard_deadline_ms);
        let deadline = Instant::now() + allowed;
        let permit = async { Ok(self.guards.permits.acquire().await?) };
        let _permit = within(&self.template.ticker, deadline, permit)
            .await
            .map_err(|_: wasmtime::Error| Crash {
                failure: Failure::guard_busy(),
                detail: "no guard instance became free".to_owned(),
            })?;
        let parked = self.guards.parked().pop();
        let mut instance = match parked {
            Some(instance) => instance,
            None => self.instantiate().await?,
        };
        instance.open(deadline, allowed, Imports::Guard(Box::new(state)));
        // The limit is for one decision.
        instance.multiply_host_calls(questions);
        let log = &instance.store.data().log;
        log.begin_turn(this, "access", None, self.limits().log_bytes);
        let result = match &instance.guests.access {
            Some(guest) => {
                let call = call(guest, &mut instance.store);
                within(&instance.ticker, deadline, call).await
            }
            None => Err(Stop::NotExported("access").into()),
        };
        let (_, result) = instance.close(result);
        if result.is_ok() {
            self.guards.parked().push(instance);
        }
        result
    }
}

fn complete(found: usize, expected: usize) -> Result<(), Crash> {
    match found == expected {
        true => Ok(()),
        false => Err(undecided(format!(
            "expected {expected} answers, found {found}"
        ))),
    }
}

fn undecided(detail: String) -> Crash {
    Crash {
        failure: Failure::guard_undecided(),
        detail,
    }
}

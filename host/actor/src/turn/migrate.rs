//! Whether a state fits the component that serves its actor, and what is done where it does
//! not: the component's `migrate` makes another of it, or the actor is refused.
//!
//! `actor` asks when it loads an actor, before each of its turns, and before it takes in one
//! from elsewhere.
//!
//! Invariant: no turn and no guard of a component sees a state that does not fit it, and what
//! a migration makes is safe before anybody sees it.

use std::sync::Arc;
use std::time::Instant;

use tidegate_base::clock::instant;
use tidegate_base::sync::MutexGuard;
use tidegate_core::manifest::StateSpec;
use tidegate_core::meter::{Allowance, Exhausted, Meter};
use tidegate_core::turn::state::{misfit, unfit};
use tidegate_core::turn::{Change, Stored};
use tidegate_core::{ActorKey, Document, Failure, Json, Pointer};
use tidegate_engine::Component;
use tidegate_store::{Commit, Committed, Durability, Keyspace, Weight};
use tracing::{info, warn};

use super::work::{Budget, TurnMeter, at_once_or_elsewhere, elsewhere};
use crate::records::ActorRecords;
use crate::state::{ActorState, Parts, unavailable};

/// Whether a state fits a component; about no component at first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fit {
    /// The component's serial number.
    of: u64,
    fits: bool,
}

impl Fit {
    /// It fits this one.
    pub(crate) fn of(component: &Component) -> Fit {
        Fit {
            of: component.serial,
            fits: true,
        }
    }

    /// Whether it is known to fit this one.
    pub(crate) fn is_of(self, component: &Component) -> bool {
        self.fits && self.of == component.serial
    }
}

/// What was done so that a state fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitted {
    /// Nothing: it did.
    AsItIs,
    /// It is another one now, in a new epoch.
    Anew,
}

fn declared<'c>(key: &ActorKey, component: &'c Component) -> Option<&'c StateSpec> {
    let declared = component.manifest.actors.get(key.actor.as_str());
    declared.map(|declared| &declared.state)
}

/// What of a state is not as the component declares it; of one that fits, where numbers stand that
/// are to be written as integers.
fn check(
    declared: &StateSpec,
    state: &Json,
    version: u32,
    meter: &mut dyn Meter,
) -> Result<Result<Vec<Pointer>, String>, Exhausted> {
    let expected = (declared.version, declared.schema.as_ref());
    misfit(expected, (state, version), meter)
}

/// What is little is done at once.
fn little(component: &Component) -> Allowance {
    Budget::new(component.limits().work_steps).at_once()
}

/// When work for an actor that is loaded or taken in ends at the latest.
fn deadline(component: &Component) -> Instant {
    instant() + component.limits().turn_deadline()
}

/// An actor as this component may go on with it: as it is, or with the state that its
/// `migrate` makes, in a new epoch.
///
/// # Errors
///
/// `state.unfit`, or why the migration did not come to its end.
pub async fn fitted(
    component: &Component,
    key: &ActorKey,
    mut stored: Stored,
    new_epoch: impl FnOnce() -> Arc<str>,
) -> Result<Stored, Failure> {
    let Some(declared) = declared(key, component) else {
        return Ok(stored);
    };
    let looked = check(
        declared,
        &stored.state,
        stored.state_version,
        &mut little(component),
    );
    let found = match looked {
        Ok(found) => found,
        Err(Exhausted) => {
            let declared = declared.clone();
            let look = move |meter: &mut TurnMeter| {
                let (state, version) = (&stored.state, stored.state_version);
                let found = check(&declared, state, version, meter);
                let found = found.map_err(|Exhausted| meter.failure())?;
                Ok((stored, found))
            };
            let mut budget = Budget::new(component.limits().work_steps);
            let (same, found) =
                elsewhere(component, &mut budget, deadline(component), look).await?;
            stored = same;
            found
        }
    };
    let misfit = match found {
        Ok(loose) => {
            stored.state.spell_integers(&loose);
            return Ok(stored);
        }
        Err(misfit) => misfit,
    };
    if !component.migrates() {
        return Err(unfit(misfit));
    }
    let from = stored.state_version;
    let state = stored.state.to_text();
    let migrated = component.migrate(key, state, from).await;
    let state = match migrated {
        Ok(Ok(state)) => checked(component, declared, state).await?,
        Ok(Err(refusal)) => {
            let detail = format!("{misfit}; it is not migrated: {refusal}");
            return Err(Failure::state_not_migrated(&refusal.code).detail(detail));
        }
        Err(crash) => {
            warn!(
                actor = %key,
                from,
                code = %crash.failure.code,
                "a migration crashed: {}",
                crash.detail
            );
            let message = format!("migrating the stored state: {}", crash.failure.text());
            return Err(crash.failure.message(message));
        }
    };
    info!(actor = %key, from, to = declared.version, "migrated a state");
    stored.state = state;
    stored.state_version = declared.version;
    stored.begin_as(new_epoch());
    // Also where no turn ever changed the state: it is no longer that of a new actor.
    stored.version += 1;
    Ok(stored)
}

/// What a migration made, if it is a state of this actor type.
async fn checked(
    component: &Component,
    declared: &StateSpec,
    state: String,
) -> Result<Json, Failure> {
    let limit = component.limits().state_bytes;
    if state.len() > limit {
        return Err(wrong(format!("it is longer than {limit} bytes")));
    }
    let (declared, most) = (declared.clone(), component.limits().state_memory_bytes);
    let look = move |meter: &mut TurnMeter| {
        let mut state = meter.parse(&state, most, |error| wrong(error.to_string()))?;
        let found = check(&declared, &state, declared.version, meter);
        let found = found.map_err(|Exhausted| meter.failure())?;
        state.spell_integers(&found.map_err(wrong)?);
        Ok(state)
    };
    at_once_or_elsewhere(component, deadline(component), look).await
}

fn wrong(detail: String) -> Failure {
    unfit(format!("what `migrate` made of it does not: {detail}"))
}

impl Parts {
    /// Whether the committed state is known to be one of this component's, or is found to be.
    /// Looked at once for each that comes to serve the actor, if that takes little.
    pub(crate) fn fits(&mut self, key: &ActorKey, component: &Component) -> bool {
        if self.history.fit.of != component.serial {
            let found = declared(key, component).map_or(Ok(Ok(Vec::new())), |declared| {
                let state = self.history.document.committed();
                check(
                    declared,
                    &state,
                    self.history.state_version,
                    &mut little(component),
                )
            });
            let Ok(found) = found else {
                return false;
            };
            self.note_fit(component, found);
        }
        self.history.fit.fits
    }

    /// Notes what was found of the committed state.
    fn note_fit(&mut self, component: &Component, found: Result<Vec<Pointer>, String>) {
        let loose = found.as_deref().unwrap_or_default();
        // Those who have the state have the same numbers, written otherwise.
        if !loose.is_empty() && !self.history.document.is_dirty() {
            self.history.document.spell_integers(loose);
            self.history.document.accept();
        }
        self.history.fit = Fit {
            of: component.serial,
            fits: found.is_ok(),
        };
    }
}

impl ActorState {
    /// Whether the committed state is one of this component's.
    pub fn fits(&self, component: &Component) -> bool {
        self.parts_to_fit(component).fits(&self.key, component)
    }

    /// The parts, locked, with what says whether the state is one of this component's: most often
    /// that is known, also while the document is lent.
    pub(crate) fn parts_to_fit(&self, component: &Component) -> MutexGuard<'_, Parts> {
        let parts = self.parts();
        if parts.history.fit.of == component.serial {
            return parts;
        }
        drop(parts);
        self.parts_at_rest()
    }

    /// Finds out whether the state is one of this component's, where that takes long. Only between
    /// turns.
    async fn look_at_fit(&self, component: &Component) -> Result<bool, Failure> {
        {
            let parts = self.parts();
            if parts.history.fit.of == component.serial {
                return Ok(parts.history.fit.fits);
            }
        }
        let Some(declared) = declared(&self.key, component).cloned() else {
            return Ok(true);
        };
        let version = self.parts().history.state_version;
        let look = move |document: &mut Document, meter: &mut TurnMeter| {
            let state = document.committed();
            let found = check(&declared, &state, version, meter);
            found.map_err(|Exhausted| meter.failure())
        };
        let mut budget = Budget::new(component.limits().work_steps);
        let found = self
            .itself()
            .on_document(component, &mut budget, deadline(component), look)
            .await?;
        let fits = found.is_ok();
        self.parts().note_fit(component, found);
        Ok(fits)
    }

    /// Sees to it that the state is one of this component's. What is made for that is safe
    /// when this returns, and nobody has seen it. Only between turns.
    ///
    /// # Errors
    ///
    /// Those of [`fitted`], and those of the store; the state is as it was then.
    pub async fn fit(
        &self,
        component: &Component,
        store: &dyn Keyspace<ActorRecords>,
        durability: Durability,
        new_epoch: impl FnOnce() -> Arc<str>,
    ) -> Result<Fitted, Failure> {
        if self.fits(component) || self.look_at_fit(component).await? {
            return Ok(Fitted::AsItIs);
        }
        self.gate.passed().await?;
        let stored = self.to_stored();
        if let Some(declared) = declared(&self.key, component)
            && stored.is_new()
            && !self.is_kept()
        {
            // As it would be, had it left memory in between.
            let mut parts = self.parts();
            parts.go_on_with(declared.initial.clone(), declared.version, new_epoch(), 0);
            self.adopt_in(&mut parts, component);
            return Ok(Fitted::Anew);
        }
        let stored = fitted(component, &self.key, stored, new_epoch).await?;
        let change = Change {
            version: stored.version,
            ..Change::default()
        };
        let commit = Commit {
            key: &self.key,
            change: &change,
            durability,
            due_ms: stored.first_due_ms(),
        };
        // It is another history, so it is written whole.
        let mut weight = Weight::default();
        let committed = store.commit(commit, &mut weight, &|| stored.clone());
        match committed {
            Committed::Now => {}
            Committed::Later(safe) => safe.await.map_err(|error| unavailable(&error))?,
            Committed::Refused(error) => return Err(unavailable(&error)),
        }
        let mut parts = self.parts();
        parts.go_on_with(
            stored.state,
            stored.state_version,
            stored.epoch,
            stored.version,
        );
        parts.weight = weight;
        self.adopt_in(&mut parts, component);
        Ok(Fitted::Anew)
    }
}

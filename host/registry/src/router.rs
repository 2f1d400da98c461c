//! Which component serves what it claims.
//!
//! `actor` asks before it makes an actor; loading a component fills the table. Every actor
//! holds the [`Slot`] of its type and asks it for the component at each turn, so that a
//! component can be replaced under running actors.
//!
//! Invariant: a claim has one holder at a time, and a component takes over all that it claims or
//! nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tidegate_base::config::Durability;
use tidegate_base::fair::Share;
use tidegate_base::sync::{RwLock, RwLockReadGuard};
use tidegate_core::Name;
use tidegate_engine::Component;

use super::claims::{ClaimKind, Claimant};
use super::metrics::Metrics;

/// The place of one claim: the component that serves it now.
#[derive(Debug)]
pub struct Slot<M, C = Component> {
    /// What is claimed: an actor type.
    pub name: Name,
    /// What is counted for it.
    pub metrics: M,
    component: ArcSwapOption<C>,
    /// Whose time it takes what is left to do while no component serves it.
    unserved: Arc<Share>,
}

impl<M, C> Slot<M, C> {
    /// The component that serves it now; none when that was removed.
    pub fn component(&self) -> Option<Arc<C>> {
        self.component.load_full()
    }
}

impl<M> Slot<M> {
    /// The serial number of that component.
    pub fn serving(&self) -> Option<u64> {
        let component = self.component.load();
        component.as_ref().map(|component| component.serial)
    }

    /// How safe the commits are that are made for it.
    pub fn durability(&self) -> Durability {
        let component = self.component.load();
        let durability = component
            .as_ref()
            .map(|component| component.grants.durability);
        durability.unwrap_or_default()
    }

    /// Whose time the work takes that is done for it.
    pub fn share(&self) -> Arc<Share> {
        let component = self.component.load();
        let share = component.as_ref().map(|component| &component.share);
        share.unwrap_or(&self.unserved).clone()
    }
}

/// The slots of one kind, by what is claimed. A claim that was served once keeps its slot: others
/// may still hold it.
struct Slots<M, C>(BTreeMap<Name, Arc<Slot<M, C>>>);

impl<M, C> Default for Slots<M, C> {
    fn default() -> Self {
        Slots(BTreeMap::new())
    }
}

impl<M, C> Slots<M, C> {
    /// The slot of a claim that somebody holds.
    fn held(&self, name: &str) -> Option<Arc<Slot<M, C>>> {
        let slot = self.0.get(name)?;
        slot.component.load().is_some().then(|| slot.clone())
    }

    fn give(&mut self, name: &Name, to: Arc<C>, metrics: impl FnOnce() -> M) {
        let slot = self.0.entry(name.clone()).or_insert_with(|| {
            Arc::new(Slot {
                name: name.clone(),
                metrics: metrics(),
                component: ArcSwapOption::empty(),
                unserved: Arc::default(),
            })
        });
        slot.component.store(Some(to));
    }

    fn vacate(&self, name: &Name) {
        if let Some(slot) = self.0.get(name) {
            slot.component.store(None);
        }
    }
}

/// The components of a host, by name and by what they claim. `M` is what is counted of an actor
/// type.
pub struct Router<M, C = Component> {
    table: RwLock<Table<M, C>>,
    metrics: Arc<Metrics>,
    of_actors: Box<OfActors<M>>,
}

/// Makes what is counted of an actor type.
type OfActors<M> = dyn Fn(&str) -> M + Send + Sync;

struct Table<M, C> {
    components: BTreeMap<Name, Arc<C>>,
    actors: Slots<M, C>,
}

/// Two components claim the same.
#[derive(Debug, thiserror::Error)]
#[error("the components `{first}` and `{second}` both serve the {kind} `{name}`")]
pub struct Conflict {
    /// The kind of claim.
    pub kind: ClaimKind,
    /// What both claim.
    pub name: Name,
    /// The component that has it.
    pub first: String,
    /// The component that is refused.
    pub second: String,
}

impl<M: 'static, C: Claimant> Router<M, C> {
    /// No components. `of_actors` makes what is counted of an actor type, when it is claimed first.
    pub fn new(
        metrics: Arc<Metrics>,
        of_actors: impl Fn(&str) -> M + Send + Sync + 'static,
    ) -> Router<M, C> {
        let table = Table {
            components: BTreeMap::new(),
            actors: Slots::default(),
        };
        Router {
            table: RwLock::new(table),
            metrics,
            of_actors: Box::new(of_actors),
        }
    }

    fn table(&self) -> RwLockReadGuard<'_, Table<M, C>> {
        self.table.read()
    }

    /// Which claims of a kind nobody would hold if this component took its name's place.
    pub fn dropped_by(&self, kind: ClaimKind, name: &Name, component: &C) -> Vec<Name> {
        let table = self.table();
        let old = table.components.get(name);
        let old = old.into_iter().flat_map(|old| old.claims());
        old.filter(|(of, claimed)| *of == kind && !component.has_claim(kind, claimed))
            .map(|(_, claimed)| claimed.clone())
            .collect()
    }

    /// Whether another component holds one of this one's claims.
    pub fn check(&self, name: &Name, component: &C) -> Result<(), Conflict> {
        self.table().check(name, component)
    }

    /// Gives the component all that it claims, in place of the component that had its name;
    /// returns that one.
    pub fn install(&self, name: Name, component: Arc<C>) -> Result<Option<Arc<C>>, Conflict> {
        let mut table = self.table.write();
        table.check(&name, &component)?;
        for (kind, claimed) in component.claims() {
            table.give(kind, claimed, &component, &self.of_actors);
        }
        let replaced = table.components.insert(name, component.clone());
        for (kind, claimed) in replaced.iter().flat_map(|old| old.claims()) {
            if !component.has_claim(kind, claimed) {
                table.vacate(kind, claimed);
            }
        }
        match replaced {
            Some(_) => self.metrics.swaps.inc(),
            None => self.metrics.components.inc() as u64,
        };
        Ok(replaced)
    }

    /// Takes a component away, with all that it claims; none when there is none of this name.
    pub fn remove(&self, name: &str) -> Option<Arc<C>> {
        let mut table = self.table.write();
        let removed = table.components.remove(name)?;
        for (kind, claimed) in removed.claims() {
            table.vacate(kind, claimed);
        }
        self.metrics.components.dec();
        Some(removed)
    }

    /// The slot of an actor type that has a component.
    pub fn resolve(&self, actor: &str) -> Option<Arc<Slot<M, C>>> {
        self.table().actors.held(actor)
    }

    /// The component of this name.
    pub fn component(&self, name: &str) -> Option<Arc<C>> {
        self.table().components.get(name).cloned()
    }

    /// All components, by name.
    pub fn components(&self) -> Vec<(Name, Arc<C>)> {
        let table = self.table();
        let all = table.components.iter();
        all.map(|(name, component)| (name.clone(), component.clone()))
            .collect()
    }
}

impl<M: 'static, C: Claimant> Table<M, C> {
    fn check(&self, name: &Name, component: &C) -> Result<(), Conflict> {
        for (other, loaded) in self.components.iter().filter(|(other, _)| *other != name) {
            let mut claims = component.claims();
            if let Some((kind, claimed)) = claims.find(|(kind, it)| loaded.has_claim(*kind, it)) {
                return Err(Conflict {
                    kind,
                    name: claimed.clone(),
                    first: other.to_string(),
                    second: name.to_string(),
                });
            }
        }
        Ok(())
    }

    fn give(&mut self, kind: ClaimKind, name: &Name, to: &Arc<C>, of_actors: &OfActors<M>) {
        match kind {
            ClaimKind::Actor => {
                let metrics = || of_actors(name.as_str());
                self.actors.give(name, to.clone(), metrics);
            }
        }
    }

    fn vacate(&mut self, kind: ClaimKind, name: &Name) {
        match kind {
            ClaimKind::Actor => self.actors.vacate(name),
        }
    }
}

#[cfg(test)]
mod tests;

//! Which component serves which actor type.
//!
//! `actor` asks before it makes an actor; loading a component fills the table. Every actor
//! holds the [`Slot`] of its type and asks it for the component at each turn, so that a
//! component can be replaced under running actors.
//!
//! Invariant: an actor type has one component at a time, and a change of the table happens
//! as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tidegate_base::config::Durability;
use tidegate_base::fair::Share;
use tidegate_base::metrics::{ActorMetrics, Metrics};
use tidegate_base::sync::{RwLock, RwLockReadGuard};
use tidegate_core::Name;
use tidegate_engine::Component;

/// The place of one actor type: the component that serves it now.
#[derive(Debug)]
pub struct Slot {
    /// The actor type.
    pub actor: Name,
    /// What is counted for it.
    pub metrics: ActorMetrics,
    component: ArcSwapOption<Component>,
    /// Whose time it takes what is left to do while no component serves the type.
    unserved: Arc<Share>,
}

impl Slot {
    /// The component that serves the type now; none when it was removed.
    pub fn component(&self) -> Option<Arc<Component>> {
        self.component.load_full()
    }

    /// The serial number of that component.
    pub fn serving(&self) -> Option<u64> {
        let component = self.component.load();
        component.as_ref().map(|component| component.serial)
    }

    /// How safe commits of the type's actors are.
    pub fn durability(&self) -> Durability {
        let component = self.component.load();
        let durability = component
            .as_ref()
            .map(|component| component.grants.durability);
        durability.unwrap_or_default()
    }

    /// Whose time the turns of the type's actors take.
    pub fn share(&self) -> Arc<Share> {
        let component = self.component.load();
        let share = component.as_ref().map(|component| &component.share);
        share.unwrap_or(&self.unserved).clone()
    }
}

/// The components of a host, by name and by the actor types they serve.
pub struct Router {
    table: RwLock<Table>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Table {
    components: BTreeMap<Name, Arc<Component>>,
    /// Types that were served once keep their slot: actors may still hold it.
    slots: BTreeMap<Name, Arc<Slot>>,
}

/// Two components claim one actor type.
#[derive(Debug, thiserror::Error)]
#[error("the components `{first}` and `{second}` both serve the actor type `{actor}`")]
pub struct Conflict {
    /// The actor type.
    pub actor: Name,
    /// The component that has it.
    pub first: String,
    /// The component that is refused.
    pub second: String,
}

impl Router {
    /// No components.
    pub fn new(metrics: Arc<Metrics>) -> Router {
        Router {
            table: RwLock::default(),
            metrics,
        }
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read()
    }

    /// Which actor types would have no component if this one took its name's place.
    pub fn dropped_by(&self, name: &Name, component: &Component) -> Vec<Name> {
        let table = self.table();
        let Some(old) = table.components.get(name) else {
            return Vec::new();
        };
        let old = old.manifest.actors.keys();
        let kept = &component.manifest.actors;
        old.filter(|actor| !kept.contains_key(actor.as_str()))
            .cloned()
            .collect()
    }

    /// Whether another component has one of this one's actor types.
    pub fn check(&self, name: &Name, component: &Component) -> Result<(), Conflict> {
        self.table().check(name, component)
    }

    /// Routes the component's actor types to it, in place of the component that had its
    /// name; returns that one.
    pub fn install(
        &self,
        name: Name,
        component: Arc<Component>,
    ) -> Result<Option<Arc<Component>>, Conflict> {
        let mut table = self.table.write();
        table.check(&name, &component)?;
        for actor in component.manifest.actors.keys() {
            let slot = table.slots.entry(actor.clone()).or_insert_with(|| {
                Arc::new(Slot {
                    actor: actor.clone(),
                    metrics: self.metrics.actor(actor.as_str()),
                    component: ArcSwapOption::empty(),
                    unserved: Arc::default(),
                })
            });
            slot.component.store(Some(component.clone()));
        }
        let replaced = table.components.insert(name, component.clone());
        for actor in replaced.iter().flat_map(|old| old.manifest.actors.keys()) {
            if !component.manifest.actors.contains_key(actor.as_str()) {
                table.empty(actor);
            }
        }
        match replaced {
            Some(_) => self.metrics.swaps.inc(),
            None => self.metrics.components.inc() as u64,
        };
        Ok(replaced)
    }

    /// Takes a component away; none when there is none of this name.
    pub fn remove(&self, name: &str) -> Option<Arc<Component>> {
        let mut table = self.table.write();
        let removed = table.components.remove(name)?;
        for actor in removed.manifest.actors.keys() {
            table.empty(actor);
        }
        self.metrics.components.dec();
        Some(removed)
    }

    /// The slot of an actor type that has a component.
    pub fn resolve(&self, actor: &str) -> Option<Arc<Slot>> {
        let table = self.table();
        let slot = table.slots.get(actor)?;
        slot.component.load().is_some().then(|| slot.clone())
    }

    /// The component of this name.
    pub fn component(&self, name: &str) -> Option<Arc<Component>> {
        self.table().components.get(name).cloned()
    }

    /// All components, by name.
    pub fn components(&self) -> Vec<(Name, Arc<Component>)> {
        let table = self.table();
        let all = table.components.iter();
        all.map(|(name, component)| (name.clone(), component.clone()))
            .collect()
    }
}

impl Table {
    fn check(&self, name: &Name, component: &Component) -> Result<(), Conflict> {
        for (other, loaded) in self.components.iter().filter(|(other, _)| *other != name) {
            let mut actors = component.manifest.actors.keys();
            let taken = |actor: &&Name| loaded.manifest.actors.contains_key(actor.as_str());
            if let Some(actor) = actors.find(taken) {
                return Err(Conflict {
                    actor: actor.clone(),
                    first: other.to_string(),
                    second: name.to_string(),
                });
            }
        }
        Ok(())
    }

    fn empty(&self, actor: &Name) {
        if let Some(slot) = self.slots.get(actor) {
            slot.component.store(None);
        }
    }
}

//! Which component serves which actor type.
//!
//! `actor` asks before it makes an actor; loading a component fills the table. An actor
//! type has one component at a time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, PoisonError, RwLock};

use tidegate_core::Name;

use crate::engine::Component;

/// The components of a host, by the actor types they serve.
#[derive(Default)]
pub struct Router {
    routes: RwLock<BTreeMap<Name, Arc<Component>>>,
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
    /// Routes the component's actor types to it: all of them or, on conflict, none.
    pub fn add(&self, component: &Arc<Component>) -> Result<(), Conflict> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let mut added = routes.clone();
        for actor in component.manifest.actors.keys() {
            match added.entry(actor.clone()) {
                Entry::Vacant(free) => drop(free.insert(component.clone())),
                Entry::Occupied(taken) => {
                    return Err(Conflict {
                        actor: actor.clone(),
                        first: taken.get().name().to_owned(),
                        second: component.name().to_owned(),
                    });
                }
            }
        }
        *routes = added;
        Ok(())
    }

    /// The component of an actor type, and the type's name to share.
    pub fn resolve(&self, actor: &str) -> Option<(Name, Arc<Component>)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let (name, component) = routes.get_key_value(actor)?;
        Some((name.clone(), component.clone()))
    }
}

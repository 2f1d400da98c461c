//! Which actor waits for which: the graph that calls between actors make.
//!
//! Every call of an actor goes through here before it is delivered. A call that would close
//! a circle fails at once instead of waiting for itself.
//!
//! Invariant: the graph has no circle.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::ActorKey;

/// Which actors wait for which others, for all actors of a host.
#[derive(Clone, Default)]
pub(super) struct WaitGraph {
    /// An actor that calls several at once waits for each; one that calls the same twice,
    /// twice.
    edges: Arc<Mutex<HashMap<ActorKey, Vec<ActorKey>>>>,
}

/// One actor's waiting for another, until this is dropped.
pub(super) struct Wait {
    wait_graph: WaitGraph,
    from: ActorKey,
    to: ActorKey,
}

impl WaitGraph {
    fn edges(&self) -> MutexGuard<'_, HashMap<ActorKey, Vec<ActorKey>>> {
        self.edges.lock()
    }

    /// Notes that one actor waits for another; none if that one waits for the first, directly
    /// or through others.
    pub(super) fn begin(&self, from: &ActorKey, to: &ActorKey) -> Option<Wait> {
        let mut edges = self.edges();
        let mut reached = vec![to];
        let mut next = 0;
        while let Some(actor) = reached.get(next).copied() {
            if actor == from {
                return None;
            }
            for further in edges.get(actor).into_iter().flatten() {
                if !reached.contains(&further) {
                    reached.push(further);
                }
            }
            next += 1;
        }
        edges.entry(from.clone()).or_default().push(to.clone());
        Some(Wait {
            wait_graph: self.clone(),
            from: from.clone(),
            to: to.clone(),
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut edges = self.wait_graph.edges();
        if let Some(targets) = edges.get_mut(&self.from) {
            if let Some(place) = targets.iter().position(|target| *target == self.to) {
                targets.swap_remove(place);
            }
            if targets.is_empty() {
                edges.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_core::{ActorId, Name};

    use super::*;

    fn actor(id: &str) -> ActorKey {
        ActorKey {
            actor: Name::parse("a").unwrap(),
            id: ActorId::parse(id).unwrap(),
        }
    }

    #[test]
    fn a_circle_is_refused_however_long() {
        let waits = WaitGraph::default();
        let [a, b, c] = ["a", "b", "c"].map(actor);
        assert!(waits.begin(&a, &a).is_none());
        let ab = waits.begin(&a, &b).unwrap();
        assert!(waits.begin(&b, &a).is_none());
        let bc = waits.begin(&b, &c).unwrap();
        assert!(waits.begin(&c, &a).is_none());
        drop(ab);
        let ca = waits.begin(&c, &a).unwrap();
        assert!(waits.begin(&a, &b).is_none());
        drop((bc, ca));
        assert!(waits.edges().is_empty());
    }

    #[test]
    fn an_actor_may_wait_for_several_and_twice_for_one() {
        let waits = WaitGraph::default();
        let [a, b, c] = ["a", "b", "c"].map(actor);
        let first = waits.begin(&a, &b).unwrap();
        let second = waits.begin(&a, &b).unwrap();
        let _third = waits.begin(&a, &c).unwrap();
        drop(first);
        assert!(waits.begin(&b, &a).is_none(), "one of the two still waits");
        drop(second);
        assert!(waits.begin(&b, &a).is_some());
    }

    proptest! {
        #[test]
        fn whatever_begins_and_ends_there_is_no_circle(
            steps in prop::collection::vec((0usize..6, 0usize..6, any::<bool>()), 0..60),
        ) {
            let waits = WaitGraph::default();
            let actors: Vec<ActorKey> = (0..6).map(|n| actor(&n.to_string())).collect();
            let mut held: Vec<Wait> = Vec::new();
            for (from, to, end) in steps {
                if end && !held.is_empty() {
                    held.remove(from % held.len());
                } else {
                    held.extend(waits.begin(&actors[from], &actors[to]));
                }
                // Kahn: without a circle, somebody waits for nobody, again and again.
                let mut left: Vec<(ActorKey, ActorKey)> =
                    held.iter().map(|w| (w.from.clone(), w.to.clone())).collect();
                while !left.is_empty() {
                    let before = left.len();
                    let waiting: Vec<ActorKey> = left.iter().map(|(f, _)| f.clone()).collect();
                    left.retain(|(_, to)| waiting.contains(to));
                    prop_assert!(left.len() < before, "a circle: {left:?}");
                }
            }
            drop(held);
            prop_assert!(waits.edges().is_empty());
        }
    }
}

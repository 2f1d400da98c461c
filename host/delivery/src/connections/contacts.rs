//! Which actors a connection has had contact with: a list while they are few, as they are with
//! most, because a table has room for four at least.

use tidegate_base::hash::KeyedSet;
use tidegate_core::ActorKey;

/// How many are looked through one by one.
const FEW: usize = 8;

/// A set of actors.
#[derive(Clone)]
pub(super) enum Contacts {
    Few(Vec<ActorKey>),
    Many(KeyedSet<ActorKey>),
}

impl Default for Contacts {
    fn default() -> Self {
        Contacts::Few(Vec::new())
    }
}

impl Contacts {
    pub(super) fn len(&self) -> usize {
        match self {
            Contacts::Few(few) => few.len(),
            Contacts::Many(many) => many.len(),
        }
    }

    pub(super) fn contains(&self, actor: &ActorKey) -> bool {
        match self {
            Contacts::Few(few) => few.contains(actor),
            Contacts::Many(many) => many.contains(actor),
        }
    }

    /// Adds one that is not among them.
    pub(super) fn insert(&mut self, actor: ActorKey) {
        match self {
            Contacts::Few(few) if few.len() == FEW => {
                let mut many: KeyedSet<_> = few.drain(..).collect();
                many.insert(actor);
                *self = Contacts::Many(many);
            }
            Contacts::Few(few) => {
                if few.is_empty() {
                    // Pushed into, it would make room for four.
                    few.reserve_exact(1);
                }
                few.push(actor);
            }
            Contacts::Many(many) => drop(many.insert(actor)),
        }
    }

    pub(super) fn remove(&mut self, actor: &ActorKey) {
        match self {
            Contacts::Few(few) => few.retain(|known| known != actor),
            Contacts::Many(many) => drop(many.remove(actor)),
        }
    }

    pub(super) fn into_vec(self) -> Vec<ActorKey> {
        match self {
            Contacts::Few(few) => few,
            Contacts::Many(many) => many.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::{ActorId, Name};

    use super::*;

    fn actor(number: usize) -> ActorKey {
        ActorKey {
            actor: Name::parse("counter").unwrap(),
            id: ActorId::parse(&number.to_string()).unwrap(),
        }
    }

    #[test]
    fn few_and_many_are_a_set() {
        let mut contacts = Contacts::default();
        for number in 0..20 {
            assert!(!contacts.contains(&actor(number)));
            contacts.insert(actor(number));
            assert_eq!(contacts.len(), number + 1);
            assert!((0..=number).all(|known| contacts.contains(&actor(known))));
            contacts.remove(&actor(number + 1));
            assert_eq!(contacts.len(), number + 1);
        }
        let known: KeyedSet<_> = contacts.clone().into_vec().into_iter().collect();
        assert_eq!(known, (0..20).map(actor).collect());
        for number in 0..20 {
            contacts.remove(&actor(number));
            assert!(!contacts.contains(&actor(number)));
        }
        assert_eq!(contacts.len(), 0);

        contacts = Contacts::default();
        contacts.insert(actor(1));
        contacts.insert(actor(2));
        contacts.remove(&actor(1));
        assert_eq!(contacts.into_vec(), [actor(2)]);
    }
}

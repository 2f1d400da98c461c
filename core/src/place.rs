//! Where things are at home among several hosts: what is hashed to a shard, who owns it, which run
//! of a program somebody is.
//!
//! Invariant: the shard of an entity never changes, whatever runs and however it was built.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::call::text;
use crate::name::ActorKey;

/// Which kind of entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An actor.
    Actor,
    /// A channel.
    Channel,
    /// A run of a function.
    Run,
    /// A room of sync routes.
    Room,
}

impl Kind {
    /// What is hashed of it.
    fn tag(self) -> u8 {
        match self {
            Kind::Actor => b'a',
            Kind::Channel => b'c',
            Kind::Run => b'r',
            Kind::Room => b's',
        }
    }
}

/// Names an entity among all of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityKey<'k> {
    /// What it is.
    pub kind: Kind,
    /// The name that a manifest declares.
    pub name: &'k str,
    /// The id under that name.
    pub id: &'k str,
}

impl<'k> EntityKey<'k> {
    /// That of an actor.
    pub fn of_actor(key: &'k ActorKey) -> EntityKey<'k> {
        EntityKey {
            kind: Kind::Actor,
            name: key.actor.as_str(),
            id: key.id.as_str(),
        }
    }
}

/// A part of all entities that moves as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of an entity, of so many.
    ///
    /// ```
    /// use tidegate_core::place::{EntityKey, Kind, Shard};
    /// let key = EntityKey { kind: Kind::Actor, name: "chat", id: "room-1" };
    /// assert_eq!(Shard::of(key, 128), Shard(2));
    /// ```
    ///
    /// # Panics
    /// There are no shards.
    pub fn of(key: EntityKey<'_>, shards: u16) -> Shard {
        // FNV-1a, 64 bits, folded once.
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let name = key.name.bytes().chain([0]);
        let bytes = [key.kind.tag()].into_iter().chain(name);
        let hash = bytes.chain(key.id.bytes()).fold(OFFSET, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        });
        let mixed = (hash ^ (hash >> 32)) % u64::from(shards);
        Shard(u16::try_from(mixed).expect("less than their number"))
    }
}

/// Counts the owners that a shard has had.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

/// Names a run of a host among all that are, were and will be. The ids of its connections and of
/// its turns carry it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(#[serde(with = "text")] Arc<str>);

impl Incarnation {
    /// One with this name, which nobody else has or will have.
    pub fn new(name: impl Into<Arc<str>>) -> Incarnation {
        Incarnation(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key<'k>(kind: Kind, name: &'k str, id: &'k str) -> EntityKey<'k> {
        EntityKey { kind, name, id }
    }

    #[test]
    fn names_and_ids_do_not_run_into_each_other() {
        let of = |kind, name, id| Shard::of(key(kind, name, id), u16::MAX);
        assert_ne!(of(Kind::Actor, "chat", "1"), of(Kind::Actor, "chat1", ""));
        assert_ne!(of(Kind::Actor, "chat", "1"), of(Kind::Room, "chat", "1"));
    }

    #[test]
    fn shards_are_of_one_size_about() {
        let mut sizes = [0_u32; 32];
        for id in 0..32_000 {
            let id = format!("room-{id}");
            let Shard(shard) = Shard::of(key(Kind::Actor, "chat", &id), 32);
            sizes[usize::from(shard)] += 1;
        }
        let (least, most) = (sizes.iter().min(), sizes.iter().max());
        assert!(least > Some(&800) && most < Some(&1_200), "{sizes:?}");
    }

    #[test]
    fn shards_are_what_they_were() {
        let of = |name, id, shards| Shard::of(key(Kind::Actor, name, id), shards).0;
        let shards = [
            of("chat", "room-1", 32),
            of("chat", "room-1", 128),
            of("é", "ü/1", 256),
        ];
        assert_eq!(shards, [2, 2, 175]);
    }
}

//! How the tables on the way of each call hash their keys, which clients choose.
//!
//! Invariant: the hash has a key of this process, so nobody outside can choose names that
//! collide.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::LazyLock;

use ahash::{AHasher, RandomState};

static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash. It takes no room in a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyedHash;

impl BuildHasher for KeyedHash {
    type Hasher = AHasher;

    fn build_hasher(&self) -> AHasher {
        KEY.build_hasher()
    }
}

/// A map by such a hash.
pub type KeyedMap<K, V> = HashMap<K, V, KeyedHash>;

/// A set by such a hash.
pub type KeyedSet<K> = HashSet<K, KeyedHash>;

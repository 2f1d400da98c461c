//! What must last: records, as those who change them have committed them.
//!
//! A concern says what its [`Records`] are, and keeps them in a [`Keyspace`]: it commits changes
//! there, and lets nothing that builds on one leave the host before it is safe, which is what a
//! [`Gate`] is for. [`Durable`] keeps records in a [`ShardLog`], which for a host that is alone is a
//! [journal](tidegate_journal) on its [`Disk`]; [`Memory`] keeps them in this process, with which
//! it forgets them.
//!
//! Invariants: what is loaded is the effect of a prefix of a record's commits, which holds
//! all that were told to be safe; an epoch and a version name one content, also where folders
//! are copied or put back.

pub mod config;
mod disk;
mod durable;
mod gate;
mod memory;
pub mod metrics;
mod runs;
mod shard_log;

use std::collections::BinaryHeap;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::pin::Pin;

pub use tidegate_base::config::Durability;
use tidegate_core::place::{Kind, Shard, Term};
pub use tidegate_journal::Space;

pub use self::disk::{Disk, DiskError, Reading};
pub use self::durable::{CHANGES, Durable};
pub use self::gate::Gate;
pub use self::memory::Memory;
pub use self::metrics::StoreFigures;
pub use self::runs::Run;
pub use self::shard_log::ShardLog;

/// What a concern keeps: records of one kind under keys, and how they are written.
pub trait Records: Sized + Send + Sync + 'static {
    /// What they are records of. No two concerns have the same.
    const KIND: Kind;
    /// Where they are in a log.
    const SPACE: Space = space_of(Self::KIND);
    /// What they are called to operators.
    const NAME: &'static str;

    /// Names a record.
    type Key: Clone + Ord + Hash + Display + Send + Sync;
    /// A whole record.
    type Record: Clone + Send + Sync;
    /// What one commit changes of it.
    type Change: Debug + Send + Sync;

    /// A key as the name that is declared and the id that it is one of.
    fn parts(key: &Self::Key) -> (&str, &str);
    /// The key with these parts; none where they are no key.
    fn key(name: &str, id: &str) -> Option<Self::Key>;

    /// A whole record as text.
    fn to_text(record: &Self::Record) -> String;
    /// Reads it.
    fn parse(text: &str) -> Result<Self::Record, Damaged>;
    /// A change as text.
    fn change_to_text(change: &Self::Change) -> String;
    /// Reads it.
    fn parse_change(text: &str) -> Result<Self::Change, Damaged>;
    /// Makes one change.
    fn apply(record: &mut Self::Record, change: Self::Change) -> Result<(), Damaged>;

    /// When something is to be done about it, in milliseconds since the Unix epoch.
    fn due_ms(record: &Self::Record) -> Option<u64>;
    /// Notes the run of the store that writes it.
    fn sign(record: &mut Self::Record, run: &Run);
    /// Goes on from what may be of another run, in an epoch of this one's own.
    fn take_over(record: &mut Self::Record, run: &Run);
}

/// Why what is kept of a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored state is damaged: {0}")]
pub struct Damaged(pub String);

/// What one commit changes.
#[derive(Debug)]
pub struct Commit<'a, R: Records> {
    /// Of which record.
    pub key: &'a R::Key,
    /// What changed.
    pub change: &'a R::Change,
    /// When it is safe.
    pub durability: Durability,
    /// When something is to be done about the record, with this change.
    pub due_ms: Option<u64>,
}

/// What of a record is stored already; a store keeps it up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of the last whole record; 0 if there is none.
    pub whole: usize,
    /// Bytes of the changes since.
    pub changes: usize,
    /// How many they are.
    pub count: usize,
}

impl Weight {
    /// The weight of a record that the next commit writes anew, because it says too little.
    pub fn outdated(self) -> Weight {
        Weight {
            count: usize::MAX,
            ..self
        }
    }
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot, now or until it is opened again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Another host owns what was to be written: nothing was, and nothing will be from here.
    #[error("the store is not available: another host owns the record")]
    Fenced,
    /// What is stored cannot be read.
    #[error("the store is not available: {0}")]
    Damaged(String),
    /// It is longer than what can be stored at once.
    #[error("the store is not available: {0}")]
    TooLarge(String),
}

impl StoreError {
    /// What is wrong, for operators.
    pub fn reason(&self) -> &str {
        match self {
            StoreError::Fenced => "another host owns the record",
            StoreError::Unavailable(reason)
            | StoreError::Damaged(reason)
            | StoreError::TooLarge(reason) => reason,
        }
    }
}

/// A result that is there later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A record as it once was, and what has changed since.
pub type History<R> = (<R as Records>::Record, Vec<<R as Records>::Change>);

/// The answer to a commit.
pub enum Committed {
    /// It is safe already.
    Now,
    /// It is safe when this completes.
    Later(Later<'static, ()>),
    /// It was not taken, and nothing has changed.
    Refused(StoreError),
}

/// The part of a log in which records of a kind are. It never changes.
const fn space_of(kind: Kind) -> Space {
    Space(match kind {
        Kind::Actor => 1,
        Kind::Channel => 2,
        Kind::Run => 3,
        Kind::Room => 4,
    })
}

/// What keyspaces stand on.
pub trait Store: Send + Sync {
    /// How many shards its records are in. It never changes.
    fn shards(&self) -> u16;
    /// Takes a shard: from here on this host alone changes what is in it, until another one opens
    /// it. A host that is alone owns all of them from the start.
    fn open(&self, shard: Shard) -> Later<'_, Term>;
    /// Gives a shard back: from here on nothing in it is changed. What was committed before
    /// becomes safe, or fails, all the same.
    fn release(&self, shard: Shard);
    /// Why it takes nothing any more, if so.
    fn failed(&self) -> Option<String>;
    /// How it is doing, for operators.
    fn figures(&self) -> StoreFigures;
    /// Makes everything safe and takes nothing any more. Blocks.
    fn close(&self);
}

/// Where records of one kind are kept.
pub trait Keyspace<R: Records>: Store + 'static {
    /// A record as it was last committed or retired, and what is stored of it; none if it
    /// never was. One that another run of the store has written goes on in another epoch.
    fn load<'a>(&'a self, key: &'a R::Key) -> Later<'a, Option<(R::Record, Weight)>>;
    /// What is stored of a record as it is stored: as it once was, and what has changed since.
    /// None where only the latest is.
    fn history<'a>(&'a self, key: &'a R::Key) -> Later<'a, Option<History<R>>>;
    /// Makes one change safe. Commits of a record take effect in the order of the calls,
    /// before any is awaited. `whole` is the record with this change, for a store that
    /// writes it anew now and then. After a failure neither this change is kept nor any that
    /// was committed behind it, until the record is loaded again.
    fn commit(
        &self,
        commit: Commit<'_, R>,
        weight: &mut Weight,
        whole: &dyn Fn() -> R::Record,
    ) -> Committed;
    /// Takes a record that leaves memory. `changed` says that it differs from what was
    /// committed.
    fn retire<'a>(
        &'a self,
        key: &'a R::Key,
        record: R::Record,
        changed: bool,
        durability: Durability,
    ) -> Later<'a, ()>;
    /// Forgets a record. True if it was there.
    fn remove<'a>(&'a self, key: &'a R::Key) -> Later<'a, bool>;
    /// The keys of stored records, of one name or of all, behind `after`, in the order of
    /// keys and at most so many.
    fn list<'a>(&'a self, listing: &'a Listing<R>) -> Later<'a, Vec<R::Key>>;
    /// The records of a shard about which something is to be done, and when, in milliseconds since
    /// the Unix epoch.
    fn sleeping(&self, shard: Shard) -> Vec<(R::Key, u64)>;
}

/// Which records to list.
pub struct Listing<R: Records> {
    /// Of this name only.
    pub name: Option<String>,
    /// Those whose id begins so.
    pub prefix: String,
    /// Those behind this key, which need not exist.
    pub after: Option<R::Key>,
    /// At most so many.
    pub limit: usize,
}

impl<R: Records> Default for Listing<R> {
    fn default() -> Listing<R> {
        Listing {
            name: None,
            prefix: String::new(),
            after: None,
            limit: 0,
        }
    }
}

impl<R: Records> Listing<R> {
    /// Whether a key is among those that are asked for, but for the number.
    pub fn takes(&self, key: &R::Key) -> bool {
        let (name, id) = R::parts(key);
        self.name.as_deref().is_none_or(|wanted| wanted == name)
            && id.starts_with(&self.prefix)
            && self.after.as_ref().is_none_or(|after| key > after)
    }

    /// The first ones of these keys, in order. Holds no more than the limit at a time.
    pub fn select<'k>(&self, keys: impl Iterator<Item = &'k R::Key>) -> Vec<R::Key> {
        let mut first = BinaryHeap::new();
        for key in keys.filter(|key| self.takes(key)) {
            if first.len() < self.limit {
                first.push(key);
            } else if first.peek().is_some_and(|last| *last > key) {
                first.pop();
                first.push(key);
            }
        }
        first.into_sorted_vec().into_iter().cloned().collect()
    }
}

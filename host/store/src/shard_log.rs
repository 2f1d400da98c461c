//! What keyspaces stand on: a log for each shard, which one host at a time appends to.
//!
//! A [`Disk`](super::Disk) is one for a host that is alone, to which all of it belongs from the
//! start. A log that several hosts share says who owns which shard: whoever took it last.
//!
//! Invariant: what is appended for a shard by a host that does not own it any more is refused with
//! [`StoreError::Fenced`], whatever that host believes.

use tidegate_core::place::{Shard, Term};
use tidegate_journal::{Entry, Safety, Space, Value};

use super::{Later, Run, StoreError, StoreFigures};

/// The logs of all shards. Keys are those of a [journal](tidegate_journal).
pub trait ShardLog: Send + Sync + 'static {
    /// How many shards there are. It never changes.
    fn shards(&self) -> u16;
    /// Who writes, as records note it. Hosts that share a log are one run.
    fn run(&self) -> &Run;

    /// Takes a shard: from here on this host alone appends to it, until another one takes it. What
    /// former owners appended is there.
    fn take(&self, shard: Shard) -> Later<'_, Term>;
    /// Gives a shard back. What was appended to it before becomes safe, or fails, all the same.
    fn release(&self, shard: Shard);

    /// Appends entries of a shard, which become safe together, in the order of the calls.
    ///
    /// # Errors
    ///
    /// Nothing was appended, and nothing of it ever will be.
    fn append(
        &self,
        shard: Shard,
        entries: Vec<Entry>,
        safety: Safety,
    ) -> Result<Later<'static, ()>, StoreError>;
    /// What is kept under a key.
    fn load<'a>(&'a self, shard: Shard, space: Space, key: &'a str) -> Later<'a, Option<Value>>;
    /// Whether anything is kept under a key.
    fn has<'a>(&'a self, shard: Shard, space: Space, key: &'a str) -> Later<'a, bool>;
    /// At most so many keys of all shards that begin so, behind a key, in their order.
    fn keys<'a>(
        &'a self,
        space: Space,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Later<'a, Vec<Box<str>>>;
    /// The keys of a shard that have a tag, and these; none where this host does not own it. Of
    /// shards that are kept together, all are told.
    fn tagged(&self, shard: Shard, space: Space) -> Vec<(Box<str>, u64)>;

    /// Why it takes nothing any more, if so.
    fn failed(&self) -> Option<String>;
    /// How it is doing, for operators.
    fn figures(&self) -> StoreFigures;
    /// Makes everything safe and takes nothing any more. Blocks.
    fn close(&self);
}

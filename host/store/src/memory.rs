//! The store that forgets: records that nobody has in memory, kept in this process.
//!
//! Invariant: a record that leaves memory for this store finds room here. What it is kept as is
//! smaller than what it gives back next.

use std::collections::HashMap;
use std::sync::Arc;

use tidegate_base::budget::{Budget, Share};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::place::{Shard, Term};

use super::{
    Commit, Committed, Durability, History, Keyspace, Later, Listing, Records, Store, StoreError,
    StoreFigures, Weight,
};

/// Keeps records in this process. While somebody has a record that copy is the only one, so a
/// commit has nothing to do.
pub struct Memory<R: Records> {
    limit: usize,
    /// What they are taken from.
    budget: Arc<Budget>,
    records: Mutex<HashMap<R::Key, Kept>>,
}

/// A record as text.
struct Kept {
    text: Box<str>,
    _share: Share,
}

/// What a record takes beside its text, in bytes.
const ENTRY_COST: usize = 256;

impl<R: Records> Store for Memory<R> {
    fn shards(&self) -> u16 {
        1
    }

    fn open(&self, _: Shard) -> Later<'_, Term> {
        Box::pin(std::future::ready(Ok(Term::default())))
    }

    fn release(&self, _: Shard) {}

    fn failed(&self) -> Option<String> {
        None
    }

    fn figures(&self) -> StoreFigures {
        StoreFigures {
            is_up: true,
            in_memory: self.lock().len() as u64,
            disk: None,
        }
    }

    fn close(&self) {}
}

impl<R: Records> Keyspace<R> for Memory<R> {
    fn load<'a>(&'a self, key: &'a R::Key) -> Later<'a, Option<(R::Record, Weight)>> {
        let kept = self.lock().get(key).map(|kept| kept.text.clone());
        Box::pin(std::future::ready(match kept {
            Some(kept) => match R::parse(&kept) {
                Ok(record) => Ok(Some((record, Weight::default()))),
                Err(damaged) => Err(StoreError::Damaged(damaged.to_string())),
            },
            None => Ok(None),
        }))
    }

    fn history<'a>(&'a self, _: &'a R::Key) -> Later<'a, Option<History<R>>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn commit(&self, _: Commit<'_, R>, _: &mut Weight, _: &dyn Fn() -> R::Record) -> Committed {
        Committed::Now
    }

    fn retire<'a>(
        &'a self,
        key: &'a R::Key,
        record: R::Record,
        _: bool,
        _: Durability,
    ) -> Later<'a, ()> {
        let mut records = self.lock();
        let full = records.len() >= self.limit && !records.contains_key(key);
        let result = match full {
            true => Err(StoreError::Unavailable(format!(
                "it holds {} {} already",
                self.limit,
                R::NAME
            ))),
            false => {
                let text = R::to_text(&record).into_boxed_str();
                let _share = self.budget.owe(ENTRY_COST + text.len());
                records.insert(key.clone(), Kept { text, _share });
                Ok(())
            }
        };
        Box::pin(std::future::ready(result))
    }

    fn remove<'a>(&'a self, key: &'a R::Key) -> Later<'a, bool> {
        let removed = self.lock().remove(key).is_some();
        Box::pin(std::future::ready(Ok(removed)))
    }

    fn list<'a>(&'a self, listing: &'a Listing<R>) -> Later<'a, Vec<R::Key>> {
        let first = listing.select(self.lock().keys());
        Box::pin(std::future::ready(Ok(first)))
    }

    fn sleeping(&self, _: Shard) -> Vec<(R::Key, u64)> {
        // It begins empty; later on the concern knows who sleeps.
        Vec::new()
    }
}

impl<R: Records> Memory<R> {
    /// A store that holds at most so many records.
    pub fn new(limit: usize) -> Memory<R> {
        Memory {
            limit,
            budget: Budget::unlimited(),
            records: Mutex::default(),
        }
    }

    /// Keeps a record no longer.
    pub(super) fn forget(&self, key: &R::Key) {
        self.lock().remove(key);
    }

    /// This one, empty, which takes what it holds from a budget.
    pub fn within(self, budget: Arc<Budget>) -> Memory<R> {
        Memory { budget, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<R::Key, Kept>> {
        self.records.lock()
    }
}

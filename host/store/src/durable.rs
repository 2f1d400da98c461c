//! Records in a log of their shard.
//!
//! One key for each record, in the space of its kind: its base is the whole record, its deltas are
//! the changes since. A record is written whole when it is stored for the first time, and when
//! its changes have become longer than it is, so that a small change of a large one costs
//! a small write. The key's tag is when something is to be done about it.
//!
//! Records without durability are kept in memory beside it.
//!
//! Invariant: of a record that is in memory and in the log, what is in memory is newer.

use std::sync::Arc;

use tidegate_base::budget::Budget;
use tidegate_core::place::{EntityKey, Shard, Term};
use tidegate_journal::{Entry, Safety, Value};

use super::{
    Commit, Committed, Durability, History, Keyspace, Later, Listing, Memory, Records, ShardLog,
    Store, StoreError, StoreFigures, Weight,
};

/// Ends the name in keys: below all that names may have, so that keys are in order.
const SEPARATOR: char = '\0';
/// Changes that are read again before it is worth writing a record whole, in bytes.
const CHANGES_BYTES: usize = 64 << 10;
/// How many of them.
pub const CHANGES: usize = 1_000;

/// Keeps records of one kind in a log.
pub struct Durable<R: Records> {
    log: Arc<dyn ShardLog>,
    shards: u16,
    /// Those that need not outlast the process.
    memory: Memory<R>,
}

impl<R: Records> Durable<R> {
    /// Keeps them in this log, and at most so many without durability.
    pub fn on(log: Arc<dyn ShardLog>, max_stored: usize) -> Durable<R> {
        Durable {
            shards: log.shards(),
            log,
            memory: Memory::new(max_stored),
        }
    }

    /// This one, where what is kept in memory beside it is taken from a budget.
    pub fn within(self, budget: Arc<Budget>) -> Durable<R> {
        Durable {
            memory: self.memory.within(budget),
            ..self
        }
    }

    fn shard_of(&self, key: &R::Key) -> Shard {
        if self.shards == 1 {
            return Shard(0);
        }
        let (name, id) = R::parts(key);
        let kind = R::KIND;
        Shard::of(EntityKey { kind, name, id }, self.shards)
    }

    fn put(&self, key: &R::Key, mut record: R::Record, weight: &mut Weight) -> Entry {
        R::sign(&mut record, self.log.run());
        let value = R::to_text(&record);
        *weight = Weight {
            whole: value.len(),
            changes: 0,
            count: 0,
        };
        Entry::Put {
            space: R::SPACE,
            key: path_of::<R>(key),
            tag: tag_of(R::due_ms(&record)),
            value: value.into(),
        }
    }

    /// Reads what is stored of a record. What is long is parsed in a thread of its own.
    async fn look_up<T: Send + 'static>(
        &self,
        key: &R::Key,
        read: fn(&Value, &str) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let path = path_of::<R>(key);
        let loaded = self.log.load(self.shard_of(key), R::SPACE, &path);
        let Some(value) = loaded.await? else {
            return Ok(None);
        };
        let name = key.to_string();
        let bytes: usize = value.deltas.iter().map(|delta| delta.len()).sum();
        if value.base.len() + bytes <= PARSED_AT_ONCE {
            return read(&value, &name).map(Some);
        }
        tokio::task::spawn_blocking(move || read(&value, &name).map(Some))
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }
}

fn damaged(name: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Damaged(format!("what is stored of {name} cannot be read: {error}"))
}

fn path_of<R: Records>(key: &R::Key) -> Box<str> {
    let (name, id) = R::parts(key);
    format!("{name}{SEPARATOR}{id}").into()
}

fn key_at<R: Records>(path: &str) -> Option<R::Key> {
    let (name, id) = path.split_once(SEPARATOR)?;
    R::key(name, id)
}

/// 0 is no tag.
fn tag_of(due_ms: Option<u64>) -> u64 {
    due_ms.map_or(0, |due_ms| due_ms.max(1))
}

/// What is stored of one record: as it once was, and what has changed since.
fn read_history<R: Records>(value: &Value, name: &str) -> Result<(History<R>, Weight), StoreError> {
    let mut weight = Weight {
        whole: value.base.len(),
        changes: 0,
        count: value.deltas.len(),
    };
    let text = |bytes| std::str::from_utf8(bytes).map_err(|error| damaged(name, &error));
    let record = R::parse(text(&value.base)?).map_err(|error| damaged(name, &error))?;
    let mut changes = Vec::with_capacity(value.deltas.len());
    for delta in &value.deltas {
        weight.changes += delta.len();
        changes.push(R::parse_change(text(delta)?).map_err(|error| damaged(name, &error))?);
    }
    Ok(((record, changes), weight))
}

/// What is stored of one record, as it is now.
fn read<R: Records>(value: &Value, name: &str) -> Result<(R::Record, Weight), StoreError> {
    let ((mut record, changes), weight) = read_history::<R>(value, name)?;
    for change in changes {
        R::apply(&mut record, change).map_err(|error| damaged(name, &error))?;
    }
    Ok((record, weight))
}

impl<R: Records> Store for Durable<R> {
    fn shards(&self) -> u16 {
        self.shards
    }

    fn open(&self, shard: Shard) -> Later<'_, Term> {
        self.log.take(shard)
    }

    fn release(&self, shard: Shard) {
        self.log.release(shard);
    }

    fn failed(&self) -> Option<String> {
        self.log.failed()
    }

    fn figures(&self) -> StoreFigures {
        StoreFigures {
            in_memory: self.memory.figures().in_memory,
            ..self.log.figures()
        }
    }

    fn close(&self) {
        self.log.close();
    }
}

impl<R: Records> Keyspace<R> for Durable<R> {
    fn load<'a>(&'a self, key: &'a R::Key) -> Later<'a, Option<(R::Record, Weight)>> {
        Box::pin(async move {
            if let Some(kept) = self.memory.load(key).await? {
                return Ok(Some(kept));
            }
            let mut found = self.look_up(key, read::<R>).await?;
            if let Some((record, _)) = &mut found {
                R::take_over(record, self.log.run());
            }
            Ok(found)
        })
    }

    fn history<'a>(&'a self, key: &'a R::Key) -> Later<'a, Option<History<R>>> {
        Box::pin(async move {
            let found = self.look_up(key, read_history::<R>).await?;
            Ok(found.map(|(history, _)| history))
        })
    }

    fn commit(
        &self,
        commit: Commit<'_, R>,
        weight: &mut Weight,
        whole: &dyn Fn() -> R::Record,
    ) -> Committed {
        let safety = match commit.durability {
            Durability::Strict => Safety::Synced,
            Durability::Relaxed => Safety::Written,
            Durability::None => {
                // What is on disk falls behind, and a change of what is here does not fit it.
                *weight = weight.outdated();
                return Committed::Now;
            }
        };
        let before = *weight;
        let is_heavy = weight.changes > weight.whole.max(CHANGES_BYTES) || weight.count >= CHANGES;
        let is_whole = weight.whole == 0 || is_heavy;
        let entry = if is_whole {
            self.put(commit.key, whole(), weight)
        } else {
            let value = R::change_to_text(commit.change);
            weight.changes += value.len();
            weight.count += 1;
            Entry::Delta {
                space: R::SPACE,
                key: path_of::<R>(commit.key),
                tag: tag_of(commit.due_ms),
                value: value.into(),
            }
        };
        let shard = self.shard_of(commit.key);
        match self.log.append(shard, vec![entry], safety) {
            Ok(appended) => {
                if is_whole {
                    // It may be from when it had no durability.
                    self.memory.forget(commit.key);
                }
                Committed::Later(appended)
            }
            Err(error) => {
                *weight = before;
                Committed::Refused(error)
            }
        }
    }

    fn retire<'a>(
        &'a self,
        key: &'a R::Key,
        record: R::Record,
        changed: bool,
        durability: Durability,
    ) -> Later<'a, ()> {
        match durability {
            Durability::None => self.memory.retire(key, record, changed, durability),
            _ if changed => {
                let entry = self.put(key, record, &mut Weight::default());
                let shard = self.shard_of(key);
                let appended = self.log.append(shard, vec![entry], Safety::Written);
                self.memory.forget(key);
                appended.unwrap_or_else(|error| Box::pin(std::future::ready(Err(error))))
            }
            _ => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn remove<'a>(&'a self, key: &'a R::Key) -> Later<'a, bool> {
        Box::pin(async move {
            let was_in_memory = self.memory.remove(key).await?;
            let (shard, space) = (self.shard_of(key), R::SPACE);
            let key = path_of::<R>(key);
            let was_in_log = self.log.has(shard, space, &key).await?;
            let deleted = vec![Entry::Delete { space, key }];
            self.log.append(shard, deleted, Safety::Synced)?.await?;
            Ok(was_in_memory || was_in_log)
        })
    }

    fn list<'a>(&'a self, listing: &'a Listing<R>) -> Later<'a, Vec<R::Key>> {
        Box::pin(async move {
            let in_memory = self.memory.list(listing).await?;
            let prefix = match &listing.name {
                Some(name) => format!("{name}{SEPARATOR}{}", listing.prefix),
                None => String::new(),
            };
            let mut after = listing.after.as_ref().map(path_of::<R>);
            let mut found = in_memory;
            let mut missing = listing.limit;
            while missing > 0 {
                let limit = PAGE.max(missing);
                let keys = self.log.keys(R::SPACE, &prefix, after.as_deref(), limit);
                let keys = keys.await?;
                let Some(last) = keys.last() else {
                    break;
                };
                after = Some(last.clone());
                let keys = keys.iter().filter_map(|path| key_at::<R>(path));
                let fit: Vec<R::Key> = keys.filter(|key| listing.takes(key)).collect();
                missing = missing.saturating_sub(fit.len());
                found.extend(fit);
            }
            Ok(listing.select(found.iter()))
        })
    }

    fn sleeping(&self, shard: Shard) -> Vec<(R::Key, u64)> {
        let tagged = self.log.tagged(shard, R::SPACE).into_iter();
        tagged
            .filter_map(|(key, due_ms)| Some((key_at::<R>(&key)?, due_ms)))
            .filter(|(key, _)| self.shard_of(key) == shard)
            .collect()
    }
}

/// What is parsed where it is asked for, in bytes; longer values elsewhere.
const PARSED_AT_ONCE: usize = 64 << 10;

/// How many keys are looked at in one go.
const PAGE: usize = 256;

//! The store on disk: records in a [`Journal`].
//!
//! One key for each record, in the space of its kind: its base is the whole record, its deltas are
//! the changes since. A record is written whole when it is stored for the first time, and when
//! its changes have become longer than it is, so that a small change of a large one costs
//! a small write. The key's tag is when something is to be done about it.
//!
//! Records without durability are kept in memory beside it.
//!
//! Invariant: of a record that is in memory and on disk, what is in memory is newer.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_base::budget::Budget;
use tidegate_base::disk::FolderDisk;
use tidegate_journal::{Entry, Health, Journal, JournalError, OpenError, Safety, Settings};
use tokio::sync::Semaphore;
use tracing::info;

use super::config;
use super::metrics::DiskFigures;
use super::runs::Run;
use super::{
    Commit, Committed, Durability, History, Keyspace, Later, Listing, Memory, Records, Store,
    StoreError, StoreFigures, Weight,
};

/// Ends the name in keys: below all that names may have, so that keys are in order.
const SEPARATOR: char = '\0';
/// Changes that are read again before it is worth writing a record whole, in bytes.
const CHANGES_BYTES: usize = 64 << 10;
/// How many of them.
pub const CHANGES: usize = 1_000;

/// Why the store on disk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The folder cannot be used.
    #[error("cannot use {path} as the store: {error}", path = path.display())]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why it cannot be used.
        error: std::io::Error,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] OpenError),
}

/// A journal that is open, which keyspaces share.
pub struct Disk {
    journal: Journal,
    run: Run,
    reading: Reading,
    /// One for each read that may be under way.
    reads: Semaphore,
}

/// Keeps records of one kind on disk.
pub struct Durable<R: Records> {
    disk: Arc<Disk>,
    /// Those that need not outlast the process.
    memory: Memory<R>,
}

/// Where it waits for the disk when a record is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// In threads of their own.
    InThreads,
    /// In place, for a disk in memory, so that a simulation takes the same course each time.
    InPlace,
}

impl Disk {
    /// Opens the store in this folder, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// Another process has it open, it is damaged or of a newer format, or the disk does
    /// not let it be used. Nothing is changed then.
    pub fn open(folder: &Path, settings: &config::Store) -> Result<Arc<Disk>, DurableError> {
        let failed = |error| DurableError::Folder {
            path: folder.to_owned(),
            error,
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let disk = FolderDisk::new(folder).map_err(failed)?;
        let journal = Journal::open(
            disk,
            Settings {
                segment_bytes: settings.segment_bytes,
                queue_bytes: settings.queue_bytes,
                max_append_bytes: settings.max_record_bytes,
                sync_interval: Duration::from_millis(settings.sync_interval_ms),
                accept_loss: settings.accept_loss,
                ..Settings::default()
            },
        )?;
        let found = journal.stats().recovery;
        info!(
            folder = %folder.display(),
            actors = found.keys,
            ending = ?found.ending,
            cut_bytes = found.cut_bytes,
            took_ms = found.took.as_millis() as u64,
            "opened the store"
        );
        Ok(Disk::on(journal, Reading::InThreads))
    }

    /// The store on a journal that is open.
    pub fn on(journal: Journal, reading: Reading) -> Arc<Disk> {
        Arc::new(Disk {
            journal,
            run: Run::new(),
            reading,
            reads: Semaphore::new(READS),
        })
    }

    /// The journal that it stands on.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn append(&self, entry: Entry, safety: Safety) -> Later<'static, ()> {
        let appended = self.journal.append(vec![entry], safety);
        Box::pin(async move { appended.await.map_err(unavailable) })
    }
}

impl<R: Records> Durable<R> {
    /// Keeps them on this disk, and at most so many without durability.
    pub fn on(disk: Arc<Disk>, max_stored: usize) -> Durable<R> {
        Durable {
            disk,
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

    /// What it stands on.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    fn put(&self, key: &R::Key, mut record: R::Record, weight: &mut Weight) -> Entry {
        R::sign(&mut record, &self.disk.run);
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

    /// Reads something of a record that there is. Reading waits for the disk, in a thread, of
    /// which there are to be few.
    async fn look_up<T: Send + 'static>(
        &self,
        key: &R::Key,
        read: fn(&Journal, &Place<R>) -> Result<Option<T>, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let place = Place::of(key);
        if !self.disk.journal.has(R::SPACE, &place.path) {
            return Ok(None);
        }
        let gone = |_| StoreError::Unavailable("the store is closed".to_owned());
        let _permit = self.disk.reads.acquire().await.map_err(gone)?;
        if self.disk.reading == Reading::InPlace {
            return read(&self.disk.journal, &place);
        }
        let disk = self.disk.clone();
        tokio::task::spawn_blocking(move || read(&disk.journal, &place))
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }
}

/// Where a record is in the journal, and what it is called in errors.
struct Place<R> {
    path: Box<str>,
    name: String,
    kind: PhantomData<fn() -> R>,
}

impl<R: Records> Place<R> {
    fn of(key: &R::Key) -> Place<R> {
        Place {
            path: path_of::<R>(key),
            name: key.to_string(),
            kind: PhantomData,
        }
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> StoreError {
        StoreError::Damaged(format!(
            "what is stored of {} cannot be read: {error}",
            self.name
        ))
    }
}

fn unavailable(error: JournalError) -> StoreError {
    let reason = error.to_string();
    match error {
        JournalError::TooLarge { .. } | JournalError::KeyTooLong { .. } => {
            StoreError::TooLarge(reason)
        }
        _ => StoreError::Unavailable(reason),
    }
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
fn read_history<R: Records>(
    journal: &Journal,
    place: &Place<R>,
) -> Result<Option<(History<R>, Weight)>, StoreError> {
    let Some(value) = journal.read(R::SPACE, &place.path).map_err(unavailable)? else {
        return Ok(None);
    };
    let mut weight = Weight {
        whole: value.base.len(),
        changes: 0,
        count: value.deltas.len(),
    };
    let text = |bytes| std::str::from_utf8(bytes).map_err(|error| place.damaged(&error));
    let record = R::parse(text(&value.base)?).map_err(|error| place.damaged(&error))?;
    let mut changes = Vec::with_capacity(value.deltas.len());
    for delta in &value.deltas {
        weight.changes += delta.len();
        changes.push(R::parse_change(text(delta)?).map_err(|error| place.damaged(&error))?);
    }
    Ok(Some(((record, changes), weight)))
}

/// What is stored of one record, as it is now.
fn read<R: Records>(
    journal: &Journal,
    place: &Place<R>,
) -> Result<Option<(R::Record, Weight)>, StoreError> {
    let Some(((mut record, changes), weight)) = read_history(journal, place)? else {
        return Ok(None);
    };
    for change in changes {
        R::apply(&mut record, change).map_err(|error| place.damaged(&error))?;
    }
    Ok(Some((record, weight)))
}

impl<R: Records> Store for Durable<R> {
    fn failed(&self) -> Option<String> {
        match self.disk.journal.health() {
            Health::Running => None,
            Health::Stopped { reason } => Some(reason.to_string()),
            Health::Closed => Some("the store is closed".to_owned()),
        }
    }

    fn figures(&self) -> StoreFigures {
        let stats = self.disk.journal.stats();
        let recovery = stats.recovery;
        StoreFigures {
            is_up: stats.health == Health::Running,
            in_memory: self.memory.figures().in_memory,
            disk: Some(DiskFigures {
                keys: stats.keys as u64,
                appends: stats.appends,
                appended_bytes: stats.appended_bytes,
                writes: stats.writes,
                sync_buckets: stats.sync_times.buckets,
                sync_sum: stats.sync_times.sum,
                waiting_appends: stats.waiting_appends as u64,
                waiting_bytes: stats.waiting_bytes as u64,
                segments: stats.segments as u64,
                live_bytes: stats.live_bytes,
                dead_bytes: stats.dead_bytes,
                index_bytes: stats.index_bytes as u64,
                compactions: stats.compactions,
                copied_bytes: stats.copied_bytes,
                damaged_segments: stats.damaged_segments,
                recovery: recovery.took,
                recovery_bytes: recovery.scanned_bytes,
                recovery_cut_bytes: recovery.cut_bytes,
            }),
        }
    }

    fn close(&self) {
        if let Err(error) = self.disk.journal.close() {
            tracing::error!(%error, "the store was not closed well");
        }
    }
}

impl<R: Records> Keyspace<R> for Durable<R> {
    fn load<'a>(&'a self, key: &'a R::Key) -> Later<'a, Option<(R::Record, Weight)>> {
        Box::pin(async move {
            if let Some(kept) = self.memory.load(key).await? {
                return Ok(Some(kept));
            }
            let mut found = self.look_up(key, read).await?;
            if let Some((record, _)) = &mut found {
                R::take_over(record, &self.disk.run);
            }
            Ok(found)
        })
    }

    fn history<'a>(&'a self, key: &'a R::Key) -> Later<'a, Option<History<R>>> {
        Box::pin(async move {
            let found = self.look_up(key, read_history).await?;
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
        let appended = self.disk.journal.append(vec![entry], safety);
        if let Some(error) = appended.refused() {
            *weight = before;
            return Committed::Refused(unavailable(error.clone()));
        }
        if is_whole {
            // It may be from when it had no durability.
            self.memory.forget(commit.key);
        }
        Committed::Later(Box::pin(async move { appended.await.map_err(unavailable) }))
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
                let appended = self.disk.append(entry, Safety::Written);
                self.memory.forget(key);
                appended
            }
            _ => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn remove<'a>(&'a self, key: &'a R::Key) -> Later<'a, bool> {
        Box::pin(async move {
            let was_in_memory = self.memory.remove(key).await?;
            let key = path_of::<R>(key);
            let was_on_disk = self.disk.journal.has(R::SPACE, &key);
            let space = R::SPACE;
            let deleted = Entry::Delete { space, key };
            self.disk.append(deleted, Safety::Synced).await?;
            Ok(was_in_memory || was_on_disk)
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
                let keys =
                    self.disk
                        .journal
                        .keys(R::SPACE, &prefix, after.as_deref(), PAGE.max(missing));
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

    fn sleeping(&self) -> Vec<(R::Key, u64)> {
        let tagged = self.disk.journal.tagged(R::SPACE).into_iter();
        tagged
            .filter_map(|(key, due_ms)| Some((key_at::<R>(&key)?, due_ms)))
            .collect()
    }
}

/// How many records are read at once.
const READS: usize = 16;

/// How many keys are looked at in one go.
const PAGE: usize = 256;

//! The logs of a host that is alone: all shards in one [`Journal`] on its disk.
//!
//! Invariant: reading waits for the disk in threads, of which there are few.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_base::disk::FolderDisk;
use tidegate_core::place::{Shard, Term};
use tidegate_journal::{
    Entry, Health, Journal, JournalError, OpenError, Safety, Settings, Space, Value,
};
use tokio::sync::Semaphore;
use tracing::info;

use super::metrics::DiskFigures;
use super::runs::Run;
use super::{Later, ShardLog, StoreError, StoreFigures, config};

/// How many records are read at once.
const READS: usize = 16;

/// Why the store on disk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
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
    journal: Arc<Journal>,
    run: Run,
    reading: Reading,
    /// One for each read that may be under way.
    reads: Semaphore,
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
    pub fn open(folder: &Path, settings: &config::Store) -> Result<Arc<Disk>, DiskError> {
        let failed = |error| DiskError::Folder {
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
            journal: Arc::new(journal),
            run: Run::new(),
            reading,
            reads: Semaphore::new(READS),
        })
    }

    /// The journal that it stands on.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Reads something of what is kept under a key, if anything is. Reading waits for the disk, in
    /// a thread, of which there are to be few.
    async fn look_up(&self, space: Space, key: &str) -> Result<Option<Value>, StoreError> {
        if !self.journal.has(space, key) {
            return Ok(None);
        }
        let gone = |_| StoreError::Unavailable("the store is closed".to_owned());
        let _permit = self.reads.acquire().await.map_err(gone)?;
        if self.reading == Reading::InPlace {
            return self.journal.read(space, key).map_err(unavailable);
        }
        let (journal, key) = (self.journal.clone(), Box::<str>::from(key));
        tokio::task::spawn_blocking(move || journal.read(space, &key).map_err(unavailable))
            .await
            .unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }
}

impl ShardLog for Disk {
    fn shards(&self) -> u16 {
        1
    }

    fn run(&self) -> &Run {
        &self.run
    }

    fn take(&self, _: Shard) -> Later<'_, Term> {
        Box::pin(std::future::ready(Ok(Term::default())))
    }

    fn release(&self, _: Shard) {}

    fn append(
        &self,
        _: Shard,
        entries: Vec<Entry>,
        safety: Safety,
    ) -> Result<Later<'static, ()>, StoreError> {
        let appended = self.journal.append(entries, safety);
        match appended.refused() {
            Some(error) => Err(unavailable(error.clone())),
            None => Ok(Box::pin(async move { appended.await.map_err(unavailable) })),
        }
    }

    fn load<'a>(&'a self, _: Shard, space: Space, key: &'a str) -> Later<'a, Option<Value>> {
        Box::pin(self.look_up(space, key))
    }

    fn has<'a>(&'a self, _: Shard, space: Space, key: &'a str) -> Later<'a, bool> {
        Box::pin(std::future::ready(Ok(self.journal.has(space, key))))
    }

    fn keys<'a>(
        &'a self,
        space: Space,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Later<'a, Vec<Box<str>>> {
        let keys = self.journal.keys(space, prefix, after, limit);
        Box::pin(std::future::ready(Ok(keys)))
    }

    fn tagged(&self, _: Shard, space: Space) -> Vec<(Box<str>, u64)> {
        self.journal.tagged(space)
    }

    fn failed(&self) -> Option<String> {
        match self.journal.health() {
            Health::Running => None,
            Health::Stopped { reason } => Some(reason.to_string()),
            Health::Closed => Some("the store is closed".to_owned()),
        }
    }

    fn figures(&self) -> StoreFigures {
        let stats = self.journal.stats();
        let recovery = stats.recovery;
        StoreFigures {
            is_up: stats.health == Health::Running,
            in_memory: 0,
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
        if let Err(error) = self.journal.close() {
            tracing::error!(%error, "the store was not closed well");
        }
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

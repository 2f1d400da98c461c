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
const CHANGES: usize = 1_000;

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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_core::{ActorId, ActorKey, Name, PatchOp};

    use super::*;
    use crate::{ActorRecords, Begun, Change, Earlier, Stored, StoredTimer, Timer, TimerChange};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("tidegate-store-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = std::fs::remove_dir_all(&path);
            Folder(path)
        }

        fn open(&self) -> Durable<ActorRecords> {
            Durable::on(Disk::open(&self.0, &config::Store::default()).unwrap(), 100)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn key(actor: &str, id: &str) -> ActorKey {
        ActorKey::new(Name::parse(actor).unwrap(), ActorId::parse(id).unwrap())
    }

    fn counted(count: u64) -> Stored {
        Stored {
            epoch: "e".into(),
            version: count,
            run: "".into(),
            earlier: Vec::new(),
            is_begun: false,
            state: json!({"count": count, "filler": "x".repeat(1000)}).into(),
            state_version: 0,
            connections: Vec::new(),
            timers: Vec::new(),
            last_timer: 0,
            answers: Vec::new(),
            outbox: Vec::new(),
            last_sent: 0,
            received: Vec::new(),
        }
    }

    /// Without the run that has written it.
    fn unsigned(stored: Stored) -> Stored {
        Stored {
            run: "".into(),
            ..stored
        }
    }

    fn earlier(epoch: &str, version: u64) -> Earlier {
        Earlier {
            epoch: epoch.into(),
            version,
        }
    }

    fn counts(version: u64) -> Change {
        Change {
            version,
            patches: vec![PatchOp::Replace {
                path: "/count".to_owned(),
                value: version.into(),
            }],
            ..Change::default()
        }
    }

    fn commit(
        store: &Durable<ActorRecords>,
        actor: &ActorKey,
        change: &Change,
        durability: Durability,
        weight: &mut Weight,
    ) -> Committed {
        let commit = Commit {
            key: actor,
            change,
            durability,
            due_ms: None,
        };
        store.commit(commit, weight, &|| counted(change.version))
    }

    async fn safe(committed: Committed) {
        match committed {
            Committed::Later(safe) => safe.await.unwrap(),
            Committed::Now => panic!("it was not written"),
            Committed::Refused(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn an_actor_is_the_same_after_a_restart() {
        let folder = Folder::new("restart");
        let actor = key("counter", "a\0/ü");
        let mut weight = Weight::default();
        {
            let store = folder.open();
            assert_eq!(store.load(&actor).await.unwrap(), None);
            let mut under_way = Vec::new();
            for version in 1..=50 {
                let change = counts(version);
                under_way.push(commit(
                    &store,
                    &actor,
                    &change,
                    Durability::Strict,
                    &mut weight,
                ));
            }
            for committed in under_way {
                safe(committed).await;
            }
            let (loaded, weighed) = store.load(&actor).await.unwrap().unwrap();
            assert_eq!((unsigned(loaded), weighed), (counted(50), weight));
            store.close();
        }
        assert_eq!(weight.count, 49, "one was written whole");
        let store = folder.open();
        let (loaded, weighed) = store.load(&actor).await.unwrap().unwrap();
        let expected = Stored {
            epoch: loaded.epoch.clone(),
            earlier: vec![earlier("e", 50)],
            is_begun: true,
            ..counted(50)
        };
        assert_ne!(&*loaded.epoch, "e");
        assert_eq!((unsigned(loaded), weighed), (expected, weight));
        assert_eq!(
            store.list(&all()).await.unwrap(),
            std::slice::from_ref(&actor)
        );
        assert!(store.remove(&actor).await.unwrap());
        assert!(!store.remove(&actor).await.unwrap());
        assert_eq!(store.load(&actor).await.unwrap(), None);
    }

    #[tokio::test]
    async fn changes_that_outgrow_their_actor_are_written_as_one() {
        let folder = Folder::new("heavy");
        let store = folder.open();
        let actor = key("counter", "a");
        let mut weight = Weight::default();
        let mut most = 0;
        for version in 1..=2_500 {
            let change = counts(version);
            safe(commit(
                &store,
                &actor,
                &change,
                Durability::Relaxed,
                &mut weight,
            ))
            .await;
            most = most.max(weight.count);
        }
        assert!((500..=CHANGES).contains(&most), "{most}");
        let (loaded, weighed) = store.load(&actor).await.unwrap().unwrap();
        assert_eq!((unsigned(loaded), weighed), (counted(2_500), weight));
    }

    #[tokio::test]
    async fn each_run_goes_on_in_an_epoch_of_its_own() {
        let folder = Folder::new("runs");
        let actor = key("counter", "a");
        let mut weight = Weight::default();
        {
            let store = folder.open();
            safe(commit(
                &store,
                &actor,
                &counts(1),
                Durability::Strict,
                &mut weight,
            ))
            .await;
            store.close();
        }
        let mut epochs = vec!["e".to_owned()];
        for version in 2..5 {
            let store = folder.open();
            let (loaded, mut weight) = store.load(&actor).await.unwrap().unwrap();
            let (again, _) = store.load(&actor).await.unwrap().unwrap();
            assert_eq!(loaded, again, "as long as nothing is written, too");
            assert!(loaded.is_begun && !epochs.contains(&loaded.epoch.to_string()));
            let known: Vec<_> = loaded.earlier.iter().map(|e| e.epoch.to_string()).collect();
            assert_eq!(known, epochs);
            assert_eq!(loaded.earlier.last().map(|e| e.version), Some(version - 1));
            epochs.push(loaded.epoch.to_string());
            let change = Change {
                begins: Some(Box::new(Begun {
                    epoch: loaded.epoch.clone(),
                    run: loaded.run.clone(),
                })),
                ..counts(version)
            };
            safe(commit(
                &store,
                &actor,
                &change,
                Durability::Strict,
                &mut weight,
            ))
            .await;
            let (written, _) = store.load(&actor).await.unwrap().unwrap();
            assert_eq!(written.epoch, loaded.epoch);
            assert!(!written.is_begun);
            store.close();
        }
    }

    #[tokio::test]
    async fn what_is_written_takes_the_place_of_what_had_no_durability() {
        let folder = Folder::new("levels");
        let store = folder.open();
        let actor = key("counter", "a");
        let mut weight = Weight::default();
        safe(commit(
            &store,
            &actor,
            &counts(1),
            Durability::Strict,
            &mut weight,
        ))
        .await;
        // Its component has no durability for a while.
        let change = counts(2);
        let committed = commit(&store, &actor, &change, Durability::None, &mut weight);
        assert!(matches!(committed, Committed::Now));
        let retired = store.retire(&actor, counted(2), true, Durability::None);
        retired.await.unwrap();
        safe(commit(
            &store,
            &actor,
            &counts(3),
            Durability::Strict,
            &mut weight,
        ))
        .await;
        let (loaded, _) = store.load(&actor).await.unwrap().unwrap();
        assert_eq!(unsigned(loaded), counted(3));
    }

    #[tokio::test]
    async fn what_need_not_last_is_not_written() {
        let folder = Folder::new("none");
        let actor = key("counter", "a");
        {
            let store = folder.open();
            let mut weight = Weight::default();
            let change = counts(1);
            let committed = commit(&store, &actor, &change, Durability::None, &mut weight);
            assert!(matches!(committed, Committed::Now));
            let retired = store.retire(&actor, counted(1), true, Durability::None);
            retired.await.unwrap();
            let loaded = store.load(&actor).await.unwrap();
            assert_eq!(loaded.map(|(stored, _)| stored), Some(counted(1)));
            assert_eq!(
                store.list(&all()).await.unwrap(),
                std::slice::from_ref(&actor)
            );
            assert_eq!(store.disk.journal().stats().appends, 0);
            store.close();
        }
        assert_eq!(folder.open().load(&actor).await.unwrap(), None);
    }

    #[tokio::test]
    async fn actors_are_listed_in_the_order_of_their_keys() {
        let folder = Folder::new("list");
        let store = folder.open();
        let mut actors = Vec::new();
        for (actor, id) in [
            ("a", "2"),
            ("a-b", "1"),
            ("a", "1"),
            ("b", "x"),
            ("a", "10"),
        ] {
            let actor = key(actor, id);
            let retired = store.retire(&actor, counted(1), true, Durability::Strict);
            retired.await.unwrap();
            actors.push(actor);
        }
        actors.sort();
        assert_eq!(store.list(&all()).await.unwrap(), actors);
        let one = Listing {
            name: Some("a".to_owned()),
            prefix: "1".to_owned(),
            limit: 1,
            ..Listing::default()
        };
        assert_eq!(store.list(&one).await.unwrap(), [key("a", "1")]);
        let next = Listing {
            after: Some(key("a", "1")),
            ..one
        };
        assert_eq!(store.list(&next).await.unwrap(), [key("a", "10")]);
    }

    #[tokio::test]
    async fn the_first_timer_of_an_actor_is_known_without_reading_it() {
        let folder = Folder::new("sleeping");
        let (early, late) = (key("clock", "early"), key("clock", "late"));
        {
            let store = folder.open();
            for (actor, due_ms) in [(&early, 100), (&late, 200)] {
                let timer = StoredTimer {
                    id: 1,
                    timer: Timer {
                        method: Name::parse("tick").unwrap(),
                        input: None,
                        due_ms,
                        every_ms: None,
                        idle: false,
                        outlive: true,
                        steady_ms: None,
                    },
                };
                let mut stored = counted(1);
                stored.timers.push(timer);
                let retired = store.retire(actor, stored, true, Durability::Strict);
                retired.await.unwrap();
            }
            store.close();
        }
        let store = folder.open();
        let sleeping = store.sleeping();
        assert_eq!(sleeping, [(early.clone(), 100), (late.clone(), 200)]);
        // It fires, and the actor's next turn is committed.
        let (_, mut weight) = store.load(&early).await.unwrap().unwrap();
        let fired = Change {
            version: 1,
            timers: vec![TimerChange::Cancel(1)],
            ..Change::default()
        };
        safe(commit(
            &store,
            &early,
            &fired,
            Durability::Strict,
            &mut weight,
        ))
        .await;
        assert_eq!(store.sleeping(), [(late, 200)]);
    }

    fn all() -> Listing<ActorRecords> {
        Listing {
            limit: 100,
            ..Listing::default()
        }
    }
}

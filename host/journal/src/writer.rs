//! The one writer: takes what waits, writes it at once, syncs it at once, and says so.
//!
//! It does one step at a time, so that a thread or a simulation can drive it.
//!
//! Invariant: what is told to be safe is; after an error of the disk nothing is told to be
//! safe any more, and nothing is tried again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tidegate_base::disk::{Disk, Lock, write_all};
use tidegate_base::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::oneshot;

use super::compact::Cursor;
use super::error::{JournalError, OpenError};
use super::files::{Segments, hint_name, segment_name};
use super::format::{ENTRY_HEADER, Kind, RECORD_HEADER, Record, SegmentHeader};
use super::index::{Index, SegmentUse};
use super::recover::{Head, Recovered, create_segment, recover, refuse_foreign};
use super::watermark::{Notes, WATERMARK};
use super::{Health, Recovery, Safety, Settings, Space, SyncTimes, hint};

/// The record that seals a segment.
const SEAL: usize = RECORD_HEADER + ENTRY_HEADER;
/// The largest value of the settings that are lengths within a segment.
const GIB: usize = 1 << 30;

/// An append that waits.
#[derive(Debug)]
pub(super) struct Pending {
    record: Record,
    safety: Safety,
    /// None for what the journal writes for itself.
    done: Option<Done>,
}

type Done = oneshot::Sender<Result<(), JournalError>>;

impl Pending {
    pub(super) fn of(record: Record, safety: Safety, done: Done) -> Pending {
        Pending {
            record,
            safety,
            done: Some(done),
        }
    }

    fn own(record: Record) -> Pending {
        Pending {
            record,
            safety: Safety::Written,
            done: None,
        }
    }

    fn finish(self, result: Result<(), JournalError>) {
        if let Some(done) = self.done {
            // Whoever does not wait for it does not need it.
            let _ = done.send(result);
        }
    }
}

#[derive(Clone, Debug)]
enum Phase {
    Open,
    Closing,
    Closed,
    Stopped(Arc<str>),
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Pending>,
    bytes: usize,
    phase: Phase,
}

/// Counts for [`super::Stats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) appends: AtomicU64,
    pub(super) appended_bytes: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) syncs: AtomicU64,
    /// How many of them took how long.
    pub(super) sync_times: [AtomicU64; SYNC_BUCKETS],
    pub(super) sync_nanos: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) copied_bytes: AtomicU64,
    pub(super) damaged_segments: AtomicU64,
}

/// How many spans of time syncs are counted by.
const SYNC_BUCKETS: usize = 20;
/// The end of the first of them; each further one is twice as long. The last has no end.
const SYNC_BUCKET: Duration = Duration::from_micros(16);

impl Counters {
    fn synced(&self, took: Duration) {
        count(&self.syncs, 1);
        count(&self.sync_nanos, took.as_nanos() as u64);
        let place = self.sync_ends().position(|end| took <= end);
        count(&self.sync_times[place.unwrap_or(SYNC_BUCKETS - 1)], 1);
    }

    fn sync_ends(&self) -> impl Iterator<Item = Duration> {
        (0..SYNC_BUCKETS as u32 - 1).map(|place| SYNC_BUCKET * (1 << place))
    }

    pub(super) fn sync_times(&self) -> SyncTimes {
        let ends = self.sync_ends().map(Some).chain([None]);
        let counts = self.sync_times.iter();
        SyncTimes {
            buckets: ends
                .zip(counts.map(|count| count.load(Ordering::Relaxed)))
                .collect(),
            sum: Duration::from_nanos(self.sync_nanos.load(Ordering::Relaxed)),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// What the journal's handles and its writer share.
pub(super) struct Shared {
    folder: PathBuf,
    salt: u32,
    max_append_bytes: usize,
    queue_bytes: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    index: RwLock<Index>,
    segments: Segments,
    counters: Counters,
    recovery: Recovery,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    pub(super) fn salt(&self) -> u32 {
        self.salt
    }

    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn recovery(&self) -> Recovery {
        self.recovery
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    pub(super) fn health(&self) -> Health {
        match &self.queue().phase {
            Phase::Open | Phase::Closing => Health::Running,
            Phase::Closed => Health::Closed,
            Phase::Stopped(reason) => Health::Stopped {
                reason: reason.clone(),
            },
        }
    }

    /// With how many appends and bytes wait.
    pub(super) fn waiting(&self) -> (Health, usize, usize) {
        let health = self.health();
        let queue = self.queue();
        (health, queue.waiting.len(), queue.bytes)
    }

    pub(super) fn running(&self) -> Result<(), JournalError> {
        match self.health() {
            Health::Running => Ok(()),
            Health::Closed => Err(JournalError::Closed),
            Health::Stopped { reason } => Err(JournalError::Stopped { reason }),
        }
    }

    pub(super) fn enqueue(&self, pending: Pending) -> Result<(), JournalError> {
        let bytes = pending.record.len();
        if bytes > self.max_append_bytes {
            return Err(JournalError::TooLarge {
                bytes,
                limit: self.max_append_bytes,
            });
        }
        let mut queue = self.queue();
        match &queue.phase {
            Phase::Open => {}
            Phase::Closing | Phase::Closed => return Err(JournalError::Closed),
            Phase::Stopped(reason) => {
                return Err(JournalError::Stopped {
                    reason: reason.clone(),
                });
            }
        }
        if queue.bytes + bytes > self.queue_bytes {
            return Err(JournalError::Busy {
                waiting: queue.bytes,
                limit: self.queue_bytes,
            });
        }
        queue.bytes += bytes;
        queue.waiting.push_back(pending);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn begin_close(&self) {
        let mut queue = self.queue();
        if matches!(queue.phase, Phase::Open) {
            queue.phase = Phase::Closing;
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Ends the journal in this phase and gives back what waited.
    fn end(&self, phase: Phase) -> VecDeque<Pending> {
        let mut queue = self.queue();
        queue.phase = phase;
        queue.bytes = 0;
        std::mem::take(&mut queue.waiting)
    }
}

/// When the writer has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once.
    Now,
    /// At this time, or when something is appended.
    At(Instant),
    /// When something is appended.
    Idle,
    /// Never again.
    Ended,
}

/// Makes hints of sealed segments.
pub(super) struct HintMaker {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    /// The folder is in use while hints are made.
    _lock: Arc<Lock>,
}

impl HintMaker {
    pub(super) fn make(&self, number: u32) {
        let is_there = || self.shared.index().segments.contains_key(&number);
        if !is_there() {
            return;
        }
        let made = hint::make(&self.disk, self.shared.salt, number);
        if !is_there() {
            // Removed in the meantime; what is left would be removed at the next opening.
            let _ = self.disk.remove(&hint_name(number));
        } else if let Err(error) = made {
            tracing::warn!(
                file = %self.shared.segments.path(number).display(),
                %error,
                "no hint was made of a segment; opening the journal takes longer"
            );
        }
    }
}

/// Where wishes for hints go.
enum Hints {
    /// To a thread.
    Sent(mpsc::Sender<u32>),
    /// They are fulfilled with the next step.
    Kept(VecDeque<u32>),
}

/// The writer.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: Settings,
    journal: u64,
    pub(super) head: Head,
    notes: Notes,
    lock: Arc<Lock>,
    hints: Hints,
    /// What was taken and is not in the buffer yet.
    batch: VecDeque<Pending>,
    buffer: Vec<u8>,
    /// What is in the buffer, and where.
    buffered: Vec<(u32, Pending)>,
    /// What completes with the next sync.
    unsynced: Vec<Pending>,
    /// When the first write after the last sync was.
    unsynced_since: Option<Instant>,
    /// When the last sync was, if no record tells of it.
    untold_since: Option<Instant>,
    pub(super) cursor: Option<Cursor>,
    /// Segments that cannot be compacted.
    pub(super) excluded: BTreeSet<u32>,
    /// How much may be appended until it is worth while to look for something to compact.
    pub(super) until_look: u64,
    ended: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("segment", &self.head.number)
            .field("offset", &self.head.offset)
            .finish_non_exhaustive()
    }
}

/// A call to the disk that failed, and what it was for.
pub(super) struct DiskFailure {
    action: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl Writer {
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        settings: Settings,
        hints: Option<mpsc::Sender<u32>>,
    ) -> Result<Writer, OpenError> {
        if settings.segment_bytes as usize > GIB || settings.max_append_bytes > GIB {
            return Err(OpenError::Settings(
                "a segment and an append have at most 1 GiB",
            ));
        }
        if settings.queue_bytes < settings.max_append_bytes {
            return Err(OpenError::Settings(
                "an append that may be made must have room in the queue",
            ));
        }
        // A folder of something else does not even get a lock.
        refuse_foreign(&disk)?;
        let lock = disk.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked {
                path: disk.folder().to_owned(),
            },
            _ => OpenError::io(disk.folder().to_owned(), "locked", error),
        })?;
        let Recovered {
            salt,
            journal,
            index,
            head,
            notes,
            unhinted,
            report,
        } = recover(&disk, &settings)?;
        let shared = Shared {
            folder: disk.folder().to_owned(),
            salt,
            max_append_bytes: settings.max_append_bytes,
            queue_bytes: settings.queue_bytes,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                bytes: 0,
                phase: Phase::Open,
            }),
            wake: Condvar::new(),
            index: RwLock::new(index),
            segments: Segments::new(disk.clone(), salt, settings.open_segments.max(1)),
            counters: Counters::default(),
            recovery: report,
        };
        let mut writer = Writer {
            shared: Arc::new(shared),
            disk,
            settings,
            journal,
            head,
            notes,
            lock: Arc::new(lock),
            hints: hints.map_or_else(|| Hints::Kept(VecDeque::new()), Hints::Sent),
            batch: VecDeque::new(),
            buffer: Vec::new(),
            buffered: Vec::new(),
            unsynced: Vec::new(),
            unsynced_since: None,
            untold_since: None,
            cursor: None,
            excluded: BTreeSet::new(),
            until_look: 0,
            ended: false,
        };
        for number in unhinted {
            writer.want_hint(number);
        }
        Ok(writer)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    pub(super) fn hint_maker(&self) -> HintMaker {
        HintMaker {
            disk: self.disk.clone(),
            shared: self.shared.clone(),
            _lock: self.lock.clone(),
        }
    }

    fn want_hint(&mut self, number: u32) {
        match &mut self.hints {
            // Without the thread there are no hints, and all else goes on.
            Hints::Sent(hints) => _ = hints.send(number),
            Hints::Kept(wanted) => wanted.push_back(number),
        }
    }

    /// Waits until this time, or until something is appended.
    pub(super) fn wait(&self, until: Option<Instant>) {
        let mut queue = self.shared.queue();
        while queue.waiting.is_empty() && matches!(queue.phase, Phase::Open) {
            let wake = &self.shared.wake;
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => queue = wake.wait(queue),
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    let waited = wake.wait_timeout(queue, left);
                    queue = waited;
                }
            }
        }
    }

    /// Does what there is to do, and says when to come again.
    pub(super) fn step(&mut self, now: Instant) -> Next {
        if self.ended {
            return Next::Ended;
        }
        let failure = match self.work(now) {
            Ok(next) => return next,
            Err(failure) => failure,
        };
        let DiskFailure {
            action,
            path,
            error,
        } = failure;
        let reason = format!("{} could not be {action}: {error}", path.display());
        tracing::error!(reason, "the journal stops");
        self.stop(reason.into());
        Next::Ended
    }

    fn work(&mut self, now: Instant) -> Result<Next, DiskFailure> {
        let (more, closing) = self.take();
        let must_sync = self.batch.iter().any(|one| one.safety == Safety::Synced);
        self.write(now)?;
        let due = self
            .unsynced_since
            .map(|since| since + self.settings.sync_interval);
        if must_sync || due.is_some_and(|due| due <= now) {
            self.sync(now)?;
        }
        if let Hints::Kept(wanted) = &mut self.hints
            && let Some(number) = wanted.pop_front()
        {
            self.hint_maker().make(number);
        }
        if closing && !more {
            self.seal_off(now)?;
            return Ok(Next::Ended);
        }
        if self.compact(now)? || more {
            return Ok(Next::Now);
        }
        if let Some(since) = self.unsynced_since {
            return Ok(Next::At(since + self.settings.sync_interval));
        }
        if let Some(since) = self.untold_since {
            let time = since + self.settings.sync_interval;
            if time > now {
                return Ok(Next::At(time));
            }
            self.tell_of_sync()?;
        }
        Ok(Next::Idle)
    }

    /// Takes what waits, up to the length of a group. Says whether more waits, and whether
    /// the journal is being closed.
    fn take(&mut self) -> (bool, bool) {
        let mut queue = self.shared.queue();
        let mut bytes = 0;
        while let Some(next) = queue.waiting.front() {
            let length = next.record.len();
            if bytes > 0 && bytes + length > self.settings.group_bytes {
                break;
            }
            bytes += length;
            self.batch.extend(queue.waiting.pop_front());
        }
        queue.bytes -= bytes;
        let closing = matches!(queue.phase, Phase::Closing);
        (!queue.waiting.is_empty(), closing)
    }

    /// Writes a record of the journal's own.
    pub(super) fn write_own(&mut self, record: Record, now: Instant) -> Result<(), DiskFailure> {
        self.batch.push_back(Pending::own(record));
        self.write(now)
    }

    /// Writes the batch.
    fn write(&mut self, now: Instant) -> Result<(), DiskFailure> {
        self.refuse_baseless();
        while let Some(mut pending) = self.batch.pop_front() {
            let length = pending.record.len();
            if !self.fits(length) {
                self.batch.push_front(pending);
                self.flush(now)?;
                self.roll(now)?;
                continue;
            }
            let head = &mut self.head;
            let offset = head.offset + self.buffer.len() as u32;
            let bytes = pending
                .record
                .finish(self.shared.salt, head.next_sequence, head.synced);
            self.buffer.extend_from_slice(bytes);
            head.next_sequence += 1;
            self.buffered.push((offset, pending));
        }
        self.flush(now)
    }

    /// Whether the head takes so many bytes more. A new one takes a record of any length.
    fn fits(&self, length: usize) -> bool {
        let offset = self.head.offset as usize + self.buffer.len();
        offset == self.head.start as usize
            || offset + length + SEAL <= self.settings.segment_bytes as usize
    }

    /// Refuses the appends of the batch that have deltas for keys without a base.
    fn refuse_baseless(&mut self) {
        let index = self.shared.index();
        // What the batch itself changes, ahead of the index.
        let mut ahead: HashMap<(Space, &str), bool> = HashMap::new();
        let mut own: HashMap<(Space, &str), bool> = HashMap::new();
        let mut refused = Vec::new();
        for (number, pending) in self.batch.iter().enumerate() {
            if pending.done.is_none() {
                continue;
            }
            own.clear();
            let missing = pending.record.entries(0).find(|entry| {
                let id = (entry.space, entry.key);
                match entry.kind {
                    Kind::Put | Kind::Delete => {
                        own.insert(id, entry.kind == Kind::Put);
                        false
                    }
                    Kind::Delta | Kind::Seal | Kind::Drop => {
                        let known = own.get(&id).or_else(|| ahead.get(&id)).copied();
                        !known.unwrap_or_else(|| index.contains(entry.space, entry.key))
                    }
                }
            });
            match missing {
                Some(entry) => refused.push((number, entry.space, Box::from(entry.key))),
                None => ahead.extend(own.drain()),
            }
        }
        drop(index);
        for (number, space, key) in refused.into_iter().rev() {
            if let Some(pending) = self.batch.remove(number) {
                pending.finish(Err(JournalError::NoBase { space, key }));
            }
        }
    }

    /// Writes the buffer, and lets the index know.
    fn flush(&mut self, now: Instant) -> Result<(), DiskFailure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = write_all(&*self.head.file, &self.buffer, u64::from(self.head.offset));
        if let Err(error) = written {
            // What is not there after the next opening was certainly not kept.
            let _ = self.head.file.resize(u64::from(self.head.offset));
            return Err(self.failure("written", error));
        }
        let bytes = self.buffer.len() as u64;
        self.head.offset += self.buffer.len() as u32;
        self.buffer.clear();
        self.buffer.shrink_to(2 * self.settings.group_bytes);
        self.unsynced_since.get_or_insert(now);
        self.untold_since = None;
        self.until_look = self.until_look.saturating_sub(bytes);
        let counters = &self.shared.counters;
        count(&counters.writes, 1);
        count(&counters.appended_bytes, bytes);

        let mut index = self.shared.index_mut();
        for (offset, pending) in &self.buffered {
            for entry in pending.record.entries(*offset) {
                index.apply(self.head.number, &entry);
            }
        }
        let usage = index.segments.entry(self.head.number).or_default();
        usage.bytes = u64::from(self.head.offset);
        drop(index);
        for (_, pending) in self.buffered.drain(..) {
            count(&counters.appends, u64::from(pending.done.is_some()));
            match pending.safety {
                Safety::Written => pending.finish(Ok(())),
                Safety::Synced => self.unsynced.push(pending),
            }
        }
        Ok(())
    }

    /// Syncs the head, and completes what waited for it.
    pub(super) fn sync(&mut self, now: Instant) -> Result<(), DiskFailure> {
        if self.unsynced_since.is_some() {
            let began = Instant::now();
            let synced = self.head.file.sync();
            synced.map_err(|error| self.failure("synced", error))?;
            self.shared.counters.synced(began.elapsed());
            self.head.synced = self.head.offset;
            self.note(false)?;
            self.unsynced_since = None;
            self.untold_since = Some(now);
        }
        // Not before it is noted: of what anybody was told the loss can be proven.
        for pending in self.unsynced.drain(..) {
            pending.finish(Ok(()));
        }
        Ok(())
    }

    /// Notes up to where the journal is synced, and whether it ends there.
    fn note(&mut self, closed: bool) -> Result<(), DiskFailure> {
        let head = &self.head;
        let place = (head.number, head.synced);
        let noted = self.notes.note(place, head.next_sequence, closed);
        noted.map_err(|error| self.failure_of_notes("written", error))
    }

    fn failure_of_notes(&self, action: &'static str, error: io::Error) -> DiskFailure {
        DiskFailure {
            action,
            path: self.disk.folder().join(WATERMARK),
            error,
        }
    }

    /// Begins a new segment. The old one is sealed once the new one is sure to be there.
    fn roll(&mut self, now: Instant) -> Result<(), DiskFailure> {
        let number = self.head.number + 1;
        let live = self.shared.index().segments.keys().copied().collect();
        let header = SegmentHeader {
            journal: self.journal,
            number,
            first_sequence: self.head.next_sequence + 1,
            live,
        };
        let created = create_segment(&self.disk, &header);
        let file = created.map_err(|error| DiskFailure {
            action: "created",
            path: self.disk.folder().join(segment_name(number)),
            error,
        })?;
        let mut seal = Record::new();
        let fields = (Kind::Seal, Space(0), "", u64::from(number));
        seal.push(self.shared.salt, fields, &[]);
        let head = &mut self.head;
        let bytes = seal.finish(self.shared.salt, head.next_sequence, head.synced);
        let written = write_all(&*head.file, bytes, u64::from(head.offset));
        written.map_err(|error| self.failure("written", error))?;
        self.head.offset += SEAL as u32;
        self.head.next_sequence += 1;
        self.unsynced_since.get_or_insert(now);
        self.sync(now)?;
        count(&self.shared.counters.appended_bytes, SEAL as u64);

        let sealed = self.head.number;
        let start = header.length() as u32;
        let mut index = self.shared.index_mut();
        index.segments.entry(sealed).or_default().bytes = u64::from(self.head.offset);
        let usage = SegmentUse {
            bytes: u64::from(start),
            ..SegmentUse::default()
        };
        index.segments.insert(number, usage);
        drop(index);
        self.head = Head {
            number,
            file,
            start,
            offset: start,
            synced: start,
            next_sequence: header.first_sequence,
        };
        // That the old one was synced is told by the new one's being there.
        self.untold_since = None;
        self.want_hint(sealed);
        Ok(())
    }

    /// Writes a record without entries, whose header says up to where the segment is synced:
    /// if something before it is found broken later, it was not a write cut short.
    fn tell_of_sync(&mut self) -> Result<(), DiskFailure> {
        self.untold_since = None;
        let mut mark = Record::new();
        if !self.fits(mark.len()) {
            return Ok(());
        }
        let head = &mut self.head;
        let bytes = mark.finish(self.shared.salt, head.next_sequence, head.synced);
        match write_all(&*head.file, bytes, u64::from(head.offset)) {
            Ok(()) => {
                head.next_sequence += 1;
                head.offset += bytes.len() as u32;
                count(&self.shared.counters.appended_bytes, bytes.len() as u64);
                let mut index = self.shared.index_mut();
                index.segments.entry(head.number).or_default().bytes = u64::from(head.offset);
                Ok(())
            }
            // Nobody has asked for it, and what is written next covers what there is of it.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            Err(error) => Err(self.failure("written", error)),
        }
    }

    /// Makes everything safe and ends.
    fn seal_off(&mut self, now: Instant) -> Result<(), DiskFailure> {
        self.sync(now)?;
        if self.untold_since.is_some() {
            self.tell_of_sync()?;
        }
        if self.head.synced < self.head.offset {
            self.unsynced_since = Some(now);
            self.sync(now)?;
        }
        self.note(true)?;
        let synced = self.notes.sync();
        synced.map_err(|error| self.failure_of_notes("synced", error))?;
        self.ended = true;
        drop(self.shared.end(Phase::Closed));
        Ok(())
    }

    pub(super) fn failure(&self, action: &'static str, error: io::Error) -> DiskFailure {
        DiskFailure {
            action,
            path: self.shared.segments.path(self.head.number),
            error,
        }
    }

    /// Fails everything that waits and all that will come.
    fn stop(&mut self, reason: Arc<str>) {
        self.ended = true;
        let waiting = self.shared.end(Phase::Stopped(reason.clone()));
        let buffered = self.buffered.drain(..).map(|(_, pending)| pending);
        for pending in self
            .unsynced
            .drain(..)
            .chain(buffered)
            .chain(self.batch.drain(..))
            .chain(waiting)
        {
            pending.finish(Err(JournalError::Stopped {
                reason: reason.clone(),
            }));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.ended {
            self.stop("its writer has ended".into());
        }
    }
}

//! A journal on disk: an append-only log of values and deltas by key, which tells when
//! each append is safe.
//!
//! `store` keeps actors in it. It knows nothing of them: keys are strings, values are
//! bytes. `docs/durability.md` describes its files, its guarantees and its limits.
//!
//! Invariant: what is read after any crash is the effect of a prefix of the appends, in the
//! order of the calls; the prefix holds every append of [`Safety::Synced`] that completed,
//! and every one of [`Safety::Written`] that completed unless power was lost.
//!
//! ```no_run
//! use tidegate_base::disk::FolderDisk;
//! use tidegate_journal::{Entry, Journal, Safety, Settings, Space};
//!
//! # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
//! let journal = Journal::open(FolderDisk::new("/var/lib/app")?, Settings::default())?;
//! let put = Entry::Put {
//!     space: Space(1),
//!     key: "greeting".into(),
//!     tag: 0,
//!     value: "hello".into(),
//! };
//! journal.append(vec![put], Safety::Synced).await?;
//! assert!(journal.read(Space(1), "greeting")?.is_some());
//! journal.close()?;
//! # Ok(())
//! # }
//! ```

mod compact;
mod error;
mod files;
mod format;
mod hint;
mod index;
mod recover;
#[cfg(test)]
mod tests;
mod watermark;
mod writer;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_base::disk::Disk;
use tidegate_base::sync::Mutex;
use tokio::sync::oneshot;

pub use self::error::{JournalError, OpenError};
use self::files::ReadFailure;
use self::format::{Kind, Record};
use self::index::Place;
pub use self::writer::Next;
use self::writer::{Pending, Shared, Writer};

/// A part of the journal with keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space(pub u8);

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A new base value, in the place of the base and the deltas that were there.
    Put {
        /// Where the key is.
        space: Space,
        /// The key, of at most 65 535 bytes.
        key: Box<str>,
        /// The key's tag from now on; 0 is none.
        tag: u64,
        /// The value.
        value: Bytes,
    },
    /// A value behind what is there. The key must have a base by then.
    Delta {
        /// Where the key is.
        space: Space,
        /// The key.
        key: Box<str>,
        /// The key's tag from now on; 0 is none.
        tag: u64,
        /// The value.
        value: Bytes,
    },
    /// Nothing in the place of what was there, if there was anything.
    Delete {
        /// Where the key is.
        space: Space,
        /// The key.
        key: Box<str>,
    },
}

/// When an append completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// When it outlasts a loss of power.
    Synced,
    /// When it outlasts the process. It outlasts a loss of power [`Settings::sync_interval`]
    /// later, or with the next sync.
    Written,
}

/// The value of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What was put last.
    pub base: Bytes,
    /// What was appended since, in order.
    pub deltas: Vec<Bytes>,
}

/// How a journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a segment may become before the next one begins. At most 1 GiB.
    pub segment_bytes: u32,
    /// How long one append may be. At most 1 GiB.
    pub max_append_bytes: usize,
    /// How much may wait to be written; at least [`Self::max_append_bytes`].
    pub queue_bytes: usize,
    /// How much is written at once, unless a single append is longer.
    pub group_bytes: usize,
    /// How long what is written may stay without a sync.
    pub sync_interval: Duration,
    /// A sealed segment is compacted when so many hundredths of its entries are dead. None
    /// is above 100.
    pub dead_percent: u8,
    /// About how much a compaction copies before appends have their turn.
    pub compaction_bytes: usize,
    /// How many segments are open for reading at most.
    pub open_segments: usize,
    /// What is read when the journal is opened.
    pub check: Check,
    /// Opens a journal also when the end of what was safe is gone, without it.
    pub accept_loss: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            segment_bytes: 64 << 20,
            max_append_bytes: 32 << 20,
            queue_bytes: 128 << 20,
            group_bytes: 4 << 20,
            sync_interval: Duration::from_millis(100),
            dead_percent: 50,
            compaction_bytes: 256 << 10,
            open_segments: 128,
            check: Check::Index,
            accept_loss: false,
        }
    }
}

/// What is read when a journal is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The newest segment, and of the others their hints. Damage to a value in those is
    /// found when it is read.
    Index,
    /// Every byte.
    Everything,
}

/// What was found when the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many keys have a value.
    pub keys: usize,
    /// How it had ended before.
    pub ending: Ending,
    /// How many bytes behind the last whole record were cut off.
    pub cut_bytes: u64,
    /// How many records were read.
    pub records: u64,
    /// How many bytes of segments were read.
    pub scanned_bytes: u64,
    /// How many segments had hints.
    pub hinted: usize,
    /// How long it took.
    pub took: Duration,
}

/// How a journal had ended when it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It begins with this opening.
    #[default]
    New,
    /// It was closed, and is whole.
    Closed,
    /// Its process or its machine ended. All that is known to have been synced is there.
    Open,
    /// Nothing tells how it ended, and up to where it was synced.
    Unknown,
    /// What was safe is gone, and [`Settings::accept_loss`] has it go on without.
    Lost {
        /// How many records that was, about.
        records: u64,
    },
}

/// Whether the journal works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Running,
    /// The disk failed it; every append and read fails until it is opened again.
    Stopped {
        /// What failed.
        reason: Arc<str>,
    },
    /// It was closed.
    Closed,
}

/// Counts, since the journal was opened, and sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Whether it works.
    pub health: Health,
    /// Appends that were written.
    pub appends: u64,
    /// Bytes that were written to segments, copies of compactions among them.
    pub appended_bytes: u64,
    /// Writes; each holds one append or more.
    pub writes: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// How long they took.
    pub sync_times: SyncTimes,
    /// Segments that a compaction has emptied and removed.
    pub compactions: u64,
    /// Bytes that compactions have copied.
    pub copied_bytes: u64,
    /// Sealed segments that cannot be compacted because they are damaged.
    pub damaged_segments: u64,
    /// How many segments there are.
    pub segments: usize,
    /// Bytes of values that can be read, with their keys and headers.
    pub live_bytes: u64,
    /// The other bytes of all segments.
    pub dead_bytes: u64,
    /// Keys that have a value.
    pub keys: usize,
    /// About how much memory the index takes.
    pub index_bytes: usize,
    /// Bytes that wait to be written.
    pub waiting_bytes: usize,
    /// Appends that wait to be written.
    pub waiting_appends: usize,
    /// What was found when the journal was opened.
    pub recovery: Recovery,
}

/// How long syncs took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// How many took up to so long, and longer than the one before; the last one has no end.
    pub buckets: Vec<(Option<Duration>, u64)>,
    /// All of them together.
    pub sum: Duration,
}

/// An open journal. Dropping it closes it; [`Journal::close`] also tells how that went.
pub struct Journal {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal of a folder, or begins one in an empty folder. Blocks.
    pub fn open(disk: impl Disk, settings: Settings) -> Result<Journal, OpenError> {
        let (hints, wanted) = mpsc::channel();
        let mut writer = Writer::open(Arc::new(disk), settings, Some(hints))?;
        let shared = writer.shared();
        let maker = writer.hint_maker();
        let hints = move || {
            while let Ok(number) = wanted.recv() {
                maker.make(number);
            }
        };
        let write = move || {
            loop {
                match writer.step(Instant::now()) {
                    writer::Next::Now => {}
                    writer::Next::At(time) => writer.wait(Some(time)),
                    writer::Next::Idle => writer.wait(None),
                    writer::Next::Ended => break,
                }
            }
        };
        let failed = |error| OpenError::Io {
            path: shared.folder(),
            action: "given a thread",
            error,
        };
        let mut threads = Vec::new();
        for (name, work) in [
            ("journal-hints", Box::new(hints) as Box<dyn FnOnce() + Send>),
            ("journal", Box::new(write)),
        ] {
            let thread = thread::Builder::new().name(name.into()).spawn(work);
            threads.push(thread.map_err(failed)?);
        }
        Ok(Journal {
            shared,
            threads: Mutex::new(threads),
        })
    }

    /// Opens a journal whose writer does one step whenever it is asked to, so that a
    /// simulation decides what happens when.
    pub fn open_stepped(
        disk: impl Disk,
        settings: Settings,
    ) -> Result<(Journal, Stepper), OpenError> {
        let writer = Writer::open(Arc::new(disk), settings, None)?;
        let journal = Journal {
            shared: writer.shared(),
            threads: Mutex::default(),
        };
        Ok((journal, Stepper(writer)))
    }

    /// Appends these entries: all of them or, after a crash or an error, perhaps none.
    ///
    /// The order of appends is that of the calls. The journal keeps its word whether or not
    /// the answer is awaited. An append without entries completes when all before it are
    /// as safe as it asks.
    pub fn append(&self, entries: Vec<Entry>, safety: Safety) -> Appending {
        let (done, answer) = oneshot::channel();
        let pending = encode(&entries, self.shared.salt(), safety, done);
        let answer = match pending.and_then(|pending| self.shared.enqueue(pending)) {
            Ok(()) => Answer::Waits(answer),
            Err(error) => Answer::Refused(error),
        };
        Appending {
            shared: self.shared.clone(),
            answer,
        }
    }

    /// Reads what has been written of a key. Blocks.
    pub fn read(&self, space: Space, key: &str) -> Result<Option<Value>, JournalError> {
        self.shared.running()?;
        let places = || self.shared.index().places(space, key);
        let mut known = places();
        while let Some(found) = known {
            match self.read_places(&found, space, key) {
                Ok(value) => return Ok(Some(value)),
                Err(ReadFailure::Other(error)) => return Err(error),
                // A compaction has moved them in the meantime, or somebody else the file.
                Err(ReadFailure::Gone) => {
                    known = places();
                    if known.as_ref() == Some(&found) {
                        return Err(JournalError::Read {
                            path: self.shared.folder(),
                            reason: "a segment is missing".into(),
                        });
                    }
                }
            }
        }
        Ok(None)
    }

    fn read_places(&self, places: &[Place], space: Space, key: &str) -> Result<Value, ReadFailure> {
        let mut values = places.iter().map(|place| {
            let (bytes, value) = self.shared.segments().entry(*place, space, key)?;
            Ok(Bytes::from(bytes).slice(value..))
        });
        Ok(Value {
            base: values.next().transpose()?.unwrap_or_default(),
            deltas: values.collect::<Result<_, _>>()?,
        })
    }

    /// Whether anything that has been written of a key is there.
    pub fn has(&self, space: Space, key: &str) -> bool {
        self.shared.index().places(space, key).is_some()
    }

    /// The keys that begin so, behind `after`, in order and at most so many.
    pub fn keys(
        &self,
        space: Space,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Box<str>> {
        self.shared.index().keys(space, prefix, after, limit)
    }

    /// The keys whose latest tag is not 0, with it.
    pub fn tagged(&self, space: Space) -> Vec<(Box<str>, u64)> {
        self.shared.index().tagged(space)
    }

    /// Whether it works.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Counts and sizes.
    pub fn stats(&self) -> Stats {
        let (health, waiting_appends, waiting_bytes) = self.shared.waiting();
        let counters = self.shared.counters();
        let index = self.shared.index();
        let bytes: u64 = index.segments.values().map(|segment| segment.bytes).sum();
        let live: u64 = index.segments.values().map(|segment| segment.live).sum();
        Stats {
            health,
            appends: counters.appends.load(Ordering::Relaxed),
            appended_bytes: counters.appended_bytes.load(Ordering::Relaxed),
            writes: counters.writes.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            sync_times: counters.sync_times(),
            compactions: counters.compactions.load(Ordering::Relaxed),
            copied_bytes: counters.copied_bytes.load(Ordering::Relaxed),
            damaged_segments: counters.damaged_segments.load(Ordering::Relaxed),
            segments: index.segments.len(),
            live_bytes: live,
            dead_bytes: bytes.saturating_sub(live),
            keys: index.len(),
            index_bytes: index.bytes(),
            waiting_bytes,
            waiting_appends,
            recovery: self.shared.recovery(),
        }
    }

    /// Takes no more appends, writes and syncs those it has taken, and lets go of the
    /// folder. Blocks. An error if not all of it is safe.
    pub fn close(&self) -> Result<(), JournalError> {
        self.shared.begin_close();
        let mut threads = self.threads.lock();
        for thread in threads.drain(..) {
            // A writer that panicked has stopped the journal.
            let _ = thread.join();
        }
        match self.shared.health() {
            Health::Stopped { reason } => Err(JournalError::Stopped { reason }),
            Health::Running | Health::Closed => Ok(()),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let threads = self.threads.get_mut();
        let open = !threads.is_empty();
        if open && let Err(error) = self.close() {
            tracing::error!(%error, "the journal did not close well");
        }
    }
}

/// The writer of a journal that was opened with [`Journal::open_stepped`].
#[derive(Debug)]
pub struct Stepper(Writer);

impl Stepper {
    /// Writes what waits, syncs what must be, and does a piece of other work; says when to
    /// come again.
    pub fn step(&mut self, now: Instant) -> Next {
        self.0.step(now)
    }
}

/// An append under way.
#[derive(Debug)]
#[must_use = "only its result tells whether the append is safe"]
pub struct Appending {
    shared: Arc<Shared>,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Refused(JournalError),
    Waits(oneshot::Receiver<Result<(), JournalError>>),
}

impl Appending {
    /// Why it was not taken, if that is known already: it has had no effect, and those that
    /// come later may.
    pub fn refused(&self) -> Option<&JournalError> {
        match &self.answer {
            Answer::Refused(error) => Some(error),
            Answer::Waits(_) => None,
        }
    }
}

impl Future for Appending {
    type Output = Result<(), JournalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.answer {
            Answer::Refused(error) => Poll::Ready(Err(error.clone())),
            Answer::Waits(answer) => match Pin::new(answer).poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(result)) => Poll::Ready(result),
                // The writer lets go of what it cannot do once it has said why.
                Poll::Ready(Err(_)) => Poll::Ready(Err(match self.shared.running() {
                    Err(error) => error,
                    Ok(()) => JournalError::Closed,
                })),
            },
        }
    }
}

fn encode(
    entries: &[Entry],
    salt: u32,
    safety: Safety,
    done: oneshot::Sender<Result<(), JournalError>>,
) -> Result<Pending, JournalError> {
    let length = |entry: &Entry| match entry {
        Entry::Put { key, value, .. } | Entry::Delta { key, value, .. } => key.len() + value.len(),
        Entry::Delete { key, .. } => key.len(),
    };
    let body = entries
        .iter()
        .map(|entry| format::ENTRY_HEADER + length(entry))
        .sum();
    let mut record = Record::with_capacity(body);
    for entry in entries {
        let (kind, space, key, tag, value) = match entry {
            Entry::Put {
                space,
                key,
                tag,
                value,
            } => (Kind::Put, space, key, *tag, &value[..]),
            Entry::Delta {
                space,
                key,
                tag,
                value,
            } => (Kind::Delta, space, key, *tag, &value[..]),
            Entry::Delete { space, key } => (Kind::Delete, space, key, 0, &[][..]),
        };
        if key.len() > format::MAX_KEY {
            return Err(JournalError::KeyTooLong { bytes: key.len() });
        }
        record.push(salt, (kind, *space, key, tag), value);
    }
    Ok(Pending::of(record, safety, done))
}

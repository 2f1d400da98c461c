//! What can go wrong, in words for whoever runs the host.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Space;

/// Why a journal was not opened. Nothing on the disk has changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "{path} is in use by another process; stop that process, or choose another data folder"
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// It was written by a newer version.
    #[error(
        "{path} has format {found}, and this version reads formats up to {known}; \
         run the version that wrote it, or a newer one"
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that can be read.
        known: u32,
    },
    /// What is there belongs to something else.
    #[error(
        "{path} is not part of a journal, so its folder is not used as one; \
         choose an empty folder, or move the file away"
    )]
    NotAJournal {
        /// The first file that does not belong there.
        path: PathBuf,
    },
    /// Nothing can be written there.
    #[error(
        "{path} cannot be written ({error}); give this user the right to write to the \
         folder, or choose another data folder"
    )]
    ReadOnly {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no room.
    #[error("the disk of {path} is full ({error}); free some space, or choose another data folder")]
    Full {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is not there.
    #[error(
        "{path} is missing; if the folder is a copy, make the copy again while the host is \
         stopped, else restore a back-up"
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file of another journal is there.
    #[error(
        "{path} belongs to another journal than {other}; if the folder is a copy, make the \
         copy again into an empty folder"
    )]
    Mixed {
        /// The file.
        path: PathBuf,
        /// The newest file.
        other: PathBuf,
    },
    /// What was safe once is there no longer.
    #[error("{path} is damaged at byte {offset}; restore a back-up, and check the disk")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes from its beginning.
        offset: u64,
    },
    /// The end of what was safe is there no longer.
    #[error(
        "{path} is damaged or cut at byte {offset}, and what it held was safe up to byte {safe}: \
         about {records} acknowledged changes are gone; restore a back-up and check the disk, or \
         start without them with `store.accept-loss`"
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// Up to where it is whole.
        offset: u64,
        /// Up to where it was safe.
        safe: u64,
        /// How many records were between, about.
        records: u64,
    },
    /// The end of what was safe is there no longer, and with it what a segment held that had been
    /// copied there and removed. What is left is of no moment that ever was, so that
    /// [`Settings::accept_loss`](super::Settings::accept_loss) does not help.
    #[error(
        "{path} is damaged or cut at byte {offset}, and what it held was safe up to byte {safe}: \
         with it is gone what {copied} had held before it was compacted, so that what is left is \
         not whole; restore a back-up, and check the disk"
    )]
    LostCopies {
        /// The file.
        path: PathBuf,
        /// Up to where it is whole.
        offset: u64,
        /// Up to where it was safe.
        safe: u64,
        /// The segment that is not there any more.
        copied: PathBuf,
    },
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(&'static str),
    /// The disk does not do what it is asked.
    #[error("{path} could not be {action} ({error}); check the disk")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

impl OpenError {
    /// The error that an answer of the system stands for.
    pub(super) fn io(path: PathBuf, action: &'static str, error: io::Error) -> OpenError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                OpenError::Full { path, error }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::ReadOnly { path, error }
            }
            _ => OpenError::Io {
                path,
                action,
                error,
            },
        }
    }
}

/// Why the journal did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A write or a sync failed, now or before. Whether the last appends before that are
    /// kept shows when the journal is opened again.
    #[error("the journal has stopped: {reason}; check the disk, then restart the host")]
    Stopped {
        /// What failed.
        reason: Arc<str>,
    },
    /// It was closed.
    #[error("the journal is closed")]
    Closed,
    /// The entries of one append are too long. Nothing of them is kept.
    #[error("an append has {bytes} bytes, and the limit is {limit}")]
    TooLarge {
        /// The length of the append.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A key is longer than 65 535 bytes. Nothing of the append is kept.
    #[error("a key has {bytes} bytes, and the limit is 65535")]
    KeyTooLong {
        /// The length of the key.
        bytes: usize,
    },
    /// Too much waits to be written. Nothing of the append is kept.
    #[error("{waiting} bytes wait to be written, and the limit is {limit}")]
    Busy {
        /// What waits.
        waiting: usize,
        /// The limit.
        limit: usize,
    },
    /// A delta is for a key that has no value. Nothing of the append is kept.
    #[error("there is no value for `{key}` in space {} that a delta could follow", space.0)]
    NoBase {
        /// The space.
        space: Space,
        /// The key.
        key: Box<str>,
    },
    /// What was written is there no longer.
    #[error("{path} is damaged at byte {offset}; restore a back-up, and check the disk")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes from its beginning.
        offset: u64,
    },
    /// The disk does not give what it holds.
    #[error("{path} could not be read: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: Arc<str>,
    },
}

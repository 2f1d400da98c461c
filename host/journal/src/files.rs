//! The names of a journal's files, and those of its segments that are open for reading.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_base::disk::{Disk, DiskFile, read};
use tidegate_base::sync::Mutex;

use super::Space;
use super::error::JournalError;
use super::format;
use super::index::Place;

/// Files that are being made end so; they are removed when the journal is opened.
pub(super) const UNFINISHED: &str = ".new";

pub(super) fn segment_name(number: u32) -> String {
    format!("{number:010}.log")
}

pub(super) fn hint_name(number: u32) -> String {
    format!("{number:010}.hint")
}

/// What a file in the folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment(u32),
    Hint(u32),
    /// One of the journal's that was never finished.
    Unfinished,
    /// What was noted of its syncs.
    Watermark,
    /// One that may lie beside any journal.
    Ignored,
    Foreign,
}

/// Tells from its name what a file is.
pub(super) fn file_kind(name: &str) -> FileKind {
    if let Some(finished) = name.strip_suffix(UNFINISHED) {
        return match file_kind(finished) {
            FileKind::Segment(_) | FileKind::Hint(_) => FileKind::Unfinished,
            _ => FileKind::Foreign,
        };
    }
    let number = |stem: &str| {
        let digits = stem.len() == 10 && stem.bytes().all(|byte| byte.is_ascii_digit());
        stem.parse().ok().filter(|number| digits && *number > 0)
    };
    let segment = name.strip_suffix(".log").and_then(number);
    let hint = name.strip_suffix(".hint").and_then(number);
    match (segment, hint) {
        (Some(number), _) => FileKind::Segment(number),
        (_, Some(number)) => FileKind::Hint(number),
        _ if name == super::watermark::WATERMARK => FileKind::Watermark,
        _ if name == tidegate_base::disk::LOCK || name == "lost+found" || name.starts_with('.') => {
            FileKind::Ignored
        }
        _ => FileKind::Foreign,
    }
}

/// The segments, for reading.
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    salt: u32,
    limit: usize,
    open: Mutex<HashMap<u32, Arc<dyn DiskFile>>>,
}

/// Why an entry could not be read.
pub(super) enum ReadFailure {
    /// Its segment is gone.
    Gone,
    /// Something worse.
    Other(JournalError),
}

impl Segments {
    pub(super) fn new(disk: Arc<dyn Disk>, salt: u32, limit: usize) -> Segments {
        Segments {
            disk,
            salt,
            limit,
            open: Mutex::default(),
        }
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.disk.folder().join(segment_name(number))
    }

    pub(super) fn file(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        if let Some(file) = open.get(&number) {
            return Ok(file.clone());
        }
        let file = self.disk.open(&segment_name(number))?;
        if open.len() >= self.limit
            && let Some(other) = open.keys().next().copied()
        {
            open.remove(&other);
        }
        open.insert(number, file.clone());
        Ok(file)
    }

    /// Closes a segment that is no longer part of the journal.
    pub(super) fn forget(&self, number: u32) {
        let mut open = self.open.lock();
        open.remove(&number);
    }

    /// Reads an entry of this key and checks it. Gives its bytes and where its value begins.
    pub(super) fn entry(
        &self,
        place: Place,
        space: Space,
        key: &str,
    ) -> Result<(Vec<u8>, usize), ReadFailure> {
        let refused = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ReadFailure::Gone,
            _ => ReadFailure::Other(JournalError::Read {
                path: self.path(place.segment),
                reason: error.to_string().into(),
            }),
        };
        let file = self.file(place.segment).map_err(refused)?;
        let offset = u64::from(place.offset);
        let bytes = read(&*file, offset, place.length as usize).map_err(refused)?;
        match format::check_entry(self.salt, &bytes, space, key) {
            Some(value) if bytes.len() == place.length as usize => Ok((bytes, value)),
            _ => Err(ReadFailure::Other(JournalError::Damaged {
                path: self.path(place.segment),
                offset,
            })),
        }
    }
}

//! Opening: checks what is there, then reads it, then makes it safe. `docs/durability.md`
//! has the rules.
//!
//! Invariant: nothing on the disk changes before everything was checked, and what is cut
//! off was never known to be synced, unless the settings accept that.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tidegate_base::disk::{Disk, DiskFile, read, read_all, write_all};

use super::error::OpenError;
use super::files::{FileKind, UNFINISHED, file_kind, segment_name};
use super::format::{
    self, BadHeader, Kind, Record, SegmentHeader, header_length, parse_record, synced_once,
};
use super::hint::{self, Subject};
use super::index::{Index, SegmentUse};
use super::watermark::{self, Noted, Notes, WATERMARK, Watermark};
use super::{Check, Ending, Recovery, Settings};

/// The segment that is written to.
pub(super) struct Head {
    pub(super) number: u32,
    pub(super) file: Arc<dyn DiskFile>,
    /// The length of its header, so that one without records is known.
    pub(super) start: u32,
    pub(super) offset: u32,
    /// Up to where it is known to be synced.
    pub(super) synced: u32,
    pub(super) next_sequence: u64,
}

/// A journal as it was found.
pub(super) struct Recovered {
    pub(super) salt: u32,
    pub(super) journal: u64,
    pub(super) index: Index,
    pub(super) head: Head,
    pub(super) notes: Notes,
    /// Sealed segments that have no sound hint.
    pub(super) unhinted: Vec<u32>,
    pub(super) report: Recovery,
}

/// A segment whose records were read.
struct Scanned {
    bytes: Vec<u8>,
    /// The offset behind the last sound record.
    end: usize,
    /// Up to where some sound record says that it was synced.
    synced: u32,
    next_sequence: u64,
    /// The segment that the last record says comes next.
    sealed: Option<u32>,
    dropped: Vec<u32>,
}

struct Folder<'a> {
    disk: &'a Arc<dyn Disk>,
    headers: BTreeMap<u32, (SegmentHeader, u64)>,
    salt: u32,
}

/// The files of the folder by what their names say.
fn list(disk: &Arc<dyn Disk>) -> Result<Vec<(FileKind, String)>, OpenError> {
    let names = disk
        .list()
        .map_err(|error| OpenError::io(disk.folder().to_owned(), "listed", error))?;
    let kinds = names.into_iter().map(|name| (file_kind(&name), name));
    Ok(kinds.collect())
}

fn segments_of(files: &[(FileKind, String)]) -> BTreeSet<u32> {
    let numbers = files.iter().filter_map(|(kind, _)| match kind {
        FileKind::Segment(number) => Some(*number),
        _ => None,
    });
    numbers.collect()
}

/// Refuses a folder that holds something else than a journal, or the rest of one.
pub(super) fn refuse_foreign(disk: &Arc<dyn Disk>) -> Result<(), OpenError> {
    let files = list(disk)?;
    if !segments_of(&files).is_empty() {
        return Ok(());
    }
    for (kind, name) in files {
        match kind {
            FileKind::Foreign => {
                let path = disk.folder().join(name);
                return Err(OpenError::NotAJournal { path });
            }
            FileKind::Hint(number) => {
                let path = path(disk, number);
                return Err(OpenError::Missing { path });
            }
            // Without a segment there is nothing that it could be of; `recover` says so.
            FileKind::Segment(_)
            | FileKind::Unfinished
            | FileKind::Watermark
            | FileKind::Ignored => {}
        }
    }
    Ok(())
}

/// Reads a journal that is locked already, or begins one.
pub(super) fn recover(disk: &Arc<dyn Disk>, settings: &Settings) -> Result<Recovered, OpenError> {
    let began = Instant::now();
    let files = list(disk)?;
    let segments = segments_of(&files);
    let noted = noted(disk)?;
    if segments.is_empty() {
        if let Some(Watermark { segment, .. }) = noted {
            let path = path(disk, segment);
            return Err(OpenError::Missing { path });
        }
        for (kind, name) in &files {
            if *kind == FileKind::Unfinished {
                remove(disk, name)?;
            }
        }
        return create(disk, began);
    }

    let folder = read_headers(disk, &segments)?;
    let plan = plan(&folder, settings, noted)?;

    // From here on the disk changes. What is left over goes last: the word that it is not
    // needed must be safe by then.
    let recovered = finish(&folder, plan, began)?;
    let segments = &recovered.index.segments;
    let head = recovered.head.number;
    let mut removed = false;
    for (kind, name) in &files {
        let leftover = match kind {
            FileKind::Segment(number) => !segments.contains_key(number),
            FileKind::Hint(number) => *number == head || !segments.contains_key(number),
            FileKind::Unfinished => true,
            FileKind::Watermark | FileKind::Ignored | FileKind::Foreign => false,
        };
        if leftover {
            remove(disk, name)?;
            removed = true;
        }
    }
    if removed {
        let synced = disk.sync_folder();
        synced.map_err(|error| OpenError::io(disk.folder().to_owned(), "synced", error))?;
    }
    Ok(recovered)
}

/// The newest watermark, if there is one.
fn noted(disk: &Arc<dyn Disk>) -> Result<Option<Watermark>, OpenError> {
    let path = disk.folder().join(WATERMARK);
    match watermark::load(disk) {
        Ok(Noted::Nothing) => Ok(None),
        Ok(Noted::Known(watermark)) => Ok(Some(watermark)),
        Ok(Noted::Newer(found)) => Err(OpenError::NewerFormat {
            path,
            found,
            known: watermark::VERSION,
        }),
        Err(error) => Err(OpenError::io(path, "read", error)),
    }
}

fn path(disk: &Arc<dyn Disk>, number: u32) -> PathBuf {
    disk.folder().join(segment_name(number))
}

fn remove(disk: &Arc<dyn Disk>, name: &str) -> Result<(), OpenError> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(OpenError::io(disk.folder().join(name), "removed", error))
        }
        _ => Ok(()),
    }
}

/// Makes a segment that has a header and nothing else, and that outlasts a loss of power.
pub(super) fn create_segment(
    disk: &Arc<dyn Disk>,
    header: &SegmentHeader,
) -> io::Result<Arc<dyn DiskFile>> {
    let name = segment_name(header.number);
    let unfinished = format!("{name}{UNFINISHED}");
    let file = disk.create(&unfinished)?;
    write_all(&*file, &header.encode(), 0)?;
    file.sync()?;
    disk.rename(&unfinished, &name)?;
    disk.sync_folder()?;
    Ok(file)
}

/// Begins a new journal.
fn create(disk: &Arc<dyn Disk>, began: Instant) -> Result<Recovered, OpenError> {
    let refused = |error| OpenError::io(path(disk, 1), "created", error);
    let header = SegmentHeader {
        journal: disk.fresh_id().map_err(refused)?,
        number: 1,
        first_sequence: 1,
        live: Vec::new(),
    };
    let file = create_segment(disk, &header).map_err(refused)?;
    let start = header.length() as u32;
    let notes = begin_notes(disk, header.journal, None, (1, start), 1)?;
    let mut index = Index::default();
    let usage = SegmentUse {
        bytes: u64::from(start),
        ..SegmentUse::default()
    };
    index.segments.insert(1, usage);
    Ok(Recovered {
        salt: format::salt(header.journal),
        journal: header.journal,
        index,
        head: Head {
            number: 1,
            file,
            start,
            offset: start,
            synced: start,
            next_sequence: 1,
        },
        notes,
        unhinted: Vec::new(),
        report: Recovery {
            took: began.elapsed(),
            ..Recovery::default()
        },
    })
}

/// Notes that what was found is synced, and that the journal is open.
fn begin_notes(
    disk: &Arc<dyn Disk>,
    journal: u64,
    last: Option<&Watermark>,
    place: (u32, u32),
    next_sequence: u64,
) -> Result<Notes, OpenError> {
    Notes::open(disk, journal, last, place, next_sequence)
        .map_err(|error| OpenError::io(disk.folder().join(WATERMARK), "written", error))
}

/// Reads the headers of all segments and finds them to be of one journal.
fn read_headers<'a>(
    disk: &'a Arc<dyn Disk>,
    segments: &BTreeSet<u32>,
) -> Result<Folder<'a>, OpenError> {
    let mut headers = BTreeMap::new();
    let mut damaged = None;
    for number in segments {
        let read_header = || {
            let file = disk.open(&segment_name(*number))?;
            let size = file.size()?;
            let first = read(&*file, 0, 16)?;
            let length = header_length(&first).unwrap_or(0) as u64;
            let bytes = read(&*file, 0, length.clamp(16, size.max(16)) as usize)?;
            Ok((SegmentHeader::parse(&bytes), size))
        };
        let (header, size) =
            read_header().map_err(|error| OpenError::io(path(disk, *number), "read", error))?;
        match header {
            Ok(header) if header.number == *number && size <= format::MAX_SEGMENT => {
                headers.insert(*number, (header, size));
            }
            Err(BadHeader::Newer(found)) => {
                return Err(OpenError::NewerFormat {
                    path: path(disk, *number),
                    found,
                    known: format::VERSION,
                });
            }
            Err(BadHeader::Foreign) => {
                let path = path(disk, *number);
                return Err(OpenError::NotAJournal { path });
            }
            Ok(_) | Err(BadHeader::Damaged) => damaged = damaged.or(Some(*number)),
        }
    }
    // A newer format or a foreign file says more than damage does.
    if let Some(number) = damaged {
        return Err(OpenError::Damaged {
            path: path(disk, number),
            offset: 0,
        });
    }
    let newest = headers.last_key_value().map(|(_, (header, _))| header);
    let journal = newest.map_or(0, |header| header.journal);
    let newest = newest.map_or(0, |header| header.number);
    for (number, (header, _)) in &headers {
        if header.journal != journal {
            return Err(OpenError::Mixed {
                path: path(disk, *number),
                other: path(disk, newest),
            });
        }
    }
    Ok(Folder {
        disk,
        headers,
        salt: format::salt(journal),
    })
}

impl Folder<'_> {
    fn damaged(&self, number: u32, offset: usize) -> OpenError {
        OpenError::Damaged {
            path: path(self.disk, number),
            offset: offset as u64,
        }
    }

    fn header(&self, number: u32) -> Result<&(SegmentHeader, u64), OpenError> {
        self.headers.get(&number).ok_or_else(|| OpenError::Missing {
            path: path(self.disk, number),
        })
    }

    /// Reads the records of a segment up to the first that is not sound.
    fn scan(&self, number: u32) -> Result<Scanned, OpenError> {
        let (header, _) = self.header(number)?;
        let bytes = self
            .disk
            .open(&segment_name(number))
            .and_then(|file| read_all(&*file))
            .map_err(|error| OpenError::io(path(self.disk, number), "read", error))?;
        let start = header.length();
        let mut scanned = Scanned {
            end: start,
            synced: start as u32,
            next_sequence: header.first_sequence,
            sealed: None,
            dropped: Vec::new(),
            bytes: Vec::new(),
        };
        while scanned.sealed.is_none() {
            let sequence = scanned.next_sequence;
            let Some(record) = parse_record(self.salt, &bytes, 0, scanned.end, sequence) else {
                break;
            };
            for entry in &record.entries {
                match entry.kind {
                    Kind::Seal => scanned.sealed = u32::try_from(entry.tag).ok(),
                    Kind::Drop => scanned.dropped.extend(u32::try_from(entry.tag)),
                    _ => {}
                }
            }
            scanned.synced = scanned.synced.max(record.header.synced);
            scanned.end = record.end;
            scanned.next_sequence += 1;
        }
        scanned.bytes = bytes;
        Ok(scanned)
    }

    /// Takes in a segment that must be whole and sealed.
    fn take_sealed(&self, number: u32, check: Check, found: &mut Found) -> Result<(), OpenError> {
        let (header, bytes) = self.header(number)?;
        if check == Check::Index {
            let subject = Subject {
                journal: header.journal,
                number,
                bytes: *bytes,
                first_sequence: header.first_sequence,
            };
            if let Some(hint) = hint::load(self.disk, self.salt, subject) {
                found.begin(number, *bytes);
                hint.visit(|entry| found.index.apply(number, &entry));
                found.report.hinted += 1;
                return Ok(());
            }
        }
        let scanned = self.scan(number)?;
        if scanned.sealed.is_none() || scanned.end != scanned.bytes.len() {
            return Err(self.damaged(number, scanned.end));
        }
        self.take(number, &scanned, found)?;
        found.unhinted.push(number);
        Ok(())
    }

    /// Takes in the sound records of a segment.
    fn take(&self, number: u32, scanned: &Scanned, found: &mut Found) -> Result<(), OpenError> {
        let (header, _) = self.header(number)?;
        found.begin(number, scanned.end as u64);
        let (mut at, mut sequence) = (header.length(), header.first_sequence);
        while at < scanned.end {
            let Some(record) = parse_record(self.salt, &scanned.bytes, 0, at, sequence) else {
                return Err(self.damaged(number, at));
            };
            for entry in &record.entries {
                found.index.apply(number, entry);
            }
            (at, sequence) = (record.end, sequence + 1);
        }
        found.report.records += sequence - header.first_sequence;
        found.report.scanned_bytes += scanned.end as u64;
        Ok(())
    }
}

/// What was read so far, in the order of the log.
#[derive(Default)]
struct Found {
    index: Index,
    unhinted: Vec<u32>,
    report: Recovery,
}

impl Found {
    fn begin(&mut self, number: u32, bytes: u64) {
        let usage = SegmentUse {
            bytes,
            ..SegmentUse::default()
        };
        self.index.segments.insert(number, usage);
    }
}

/// A sound journal, and what is left to do to it.
struct Plan {
    found: Found,
    head: u32,
    tail: Scanned,
    /// The sealed segment before a head without records. Its seal may not have been synced,
    /// and an opening that was cut short may have left bytes behind it.
    sealed_last: Option<(u32, Scanned)>,
    noted: Option<Watermark>,
}

/// What was safe behind the end of what is there, if anything is known to have been.
fn lost(
    folder: &Folder<'_>,
    head: u32,
    tail: &Scanned,
    noted: Option<&Watermark>,
) -> Result<Option<OpenError>, OpenError> {
    let (end, sequence) = (tail.end, tail.next_sequence);
    let torn = end < tail.bytes.len();
    let claim = match torn {
        true => synced_once(folder.salt, &tail.bytes, end, sequence),
        false => None,
    };
    let mut lost = claim.map(|claim| OpenError::Lost {
        path: path(folder.disk, head),
        offset: end as u64,
        safe: u64::from(claim.synced),
        records: claim.sequence.saturating_sub(sequence),
    });
    let Some(noted) = noted else {
        return Ok(lost);
    };
    if noted.segment > head && !folder.headers.contains_key(&noted.segment) {
        let path = path(folder.disk, noted.segment);
        return Err(OpenError::Missing { path });
    }
    let offset = match noted.segment > head {
        // Nothing is left of what it held.
        true => folder.header(noted.segment)?.1,
        false => end as u64,
    };
    let behind = noted.segment > head || noted.segment == head && noted.offset as usize > end;
    if behind {
        lost = Some(OpenError::Lost {
            path: path(folder.disk, noted.segment),
            offset,
            safe: u64::from(noted.offset),
            records: noted.next_sequence.saturating_sub(sequence),
        });
    }
    Ok(lost)
}

/// Reads and checks everything, without a change.
fn plan(
    folder: &Folder<'_>,
    settings: &Settings,
    noted: Option<Watermark>,
) -> Result<Plan, OpenError> {
    let Some((newest, (header, bytes))) = folder.headers.last_key_value() else {
        return Err(OpenError::Missing {
            path: path(folder.disk, 1),
        });
    };
    if noted.is_some_and(|noted| noted.journal != header.journal) {
        return Err(OpenError::Mixed {
            path: folder.disk.folder().join(WATERMARK),
            other: path(folder.disk, *newest),
        });
    }
    let mut live: BTreeSet<u32> = header.live.iter().copied().collect();
    let mut head = *newest;
    let mut sealed_last = None;
    // One whose records were safe has had its turn, whatever is left of them.
    let was_used =
        noted.is_some_and(|noted| noted.segment == head && noted.offset as usize > header.length());
    let empty = *bytes == header.length() as u64 && !was_used;
    let tail = match live.last().copied() {
        Some(previous) if empty => {
            let scanned = folder.scan(previous)?;
            if scanned.sealed.is_none() {
                // The newest one was made, but its turn has not come: it is left over.
                head = previous;
                live = folder.header(head)?.0.live.iter().copied().collect();
                scanned
            } else {
                live.remove(&previous);
                sealed_last = Some((previous, scanned));
                folder.scan(head)?
            }
        }
        _ => folder.scan(head)?,
    };
    if let Some(next) = tail.sealed {
        return Err(OpenError::Missing {
            path: path(folder.disk, next),
        });
    }
    for number in &tail.dropped {
        live.remove(number);
    }
    let mut found = Found::default();
    let ends_there = |noted: &Watermark| {
        (noted.segment, noted.offset as usize) == (head, tail.end) && noted.closed
    };
    let lost = lost(folder, head, &tail, noted.as_ref())?;
    // Older values and deletions would come to light again, and deltas meet another base.
    let copied = live
        .iter()
        .find(|number| !folder.headers.contains_key(number));
    let lost = match (lost, copied) {
        (
            Some(OpenError::Lost {
                path: file,
                offset,
                safe,
                ..
            }),
            Some(copied),
        ) => Some(OpenError::LostCopies {
            path: file,
            offset,
            safe,
            copied: path(folder.disk, *copied),
        }),
        (lost, _) => lost,
    };
    found.report.ending = match lost {
        None if noted.as_ref().is_some_and(ends_there) => Ending::Closed,
        None if noted.is_some() => Ending::Open,
        None => Ending::Unknown,
        Some(OpenError::Lost { records, .. }) if settings.accept_loss => Ending::Lost { records },
        Some(lost) => return Err(lost),
    };
    for number in live {
        folder.take_sealed(number, settings.check, &mut found)?;
    }
    if let Some((number, scanned)) = &sealed_last {
        folder.take(*number, scanned, &mut found)?;
        found.unhinted.push(*number);
    }
    folder.take(head, &tail, &mut found)?;
    // Deltas without a base, which a removed segment held, are followed by a newer one.
    if found.index.baseless() > 0 {
        return Err(folder.damaged(head, tail.end));
    }
    Ok(Plan {
        found,
        head,
        tail,
        sealed_last,
        noted,
    })
}

/// Makes safe what was found.
fn finish(folder: &Folder<'_>, plan: Plan, began: Instant) -> Result<Recovered, OpenError> {
    let disk = folder.disk;
    let Plan {
        found, head, tail, ..
    } = plan;
    let Found {
        mut index,
        unhinted,
        mut report,
    } = found;
    let head_path = path(disk, head);
    let refused = |error| OpenError::io(head_path.clone(), "written", error);
    if let Some((number, scanned)) = plan.sealed_last {
        make_safe(disk, number, &scanned)?;
    }
    report.cut_bytes = (tail.bytes.len() - tail.end) as u64;
    say_ending(&head_path, &tail, &report);
    let file = make_safe(disk, head, &tail)?;
    disk.sync_folder().map_err(refused)?;
    let header = &folder.header(head)?.0;
    let mut head = Head {
        number: head,
        file,
        start: header.length() as u32,
        offset: tail.end as u32,
        synced: tail.end as u32,
        next_sequence: tail.next_sequence,
    };
    // From now on what was found is known to have been synced, and the disk takes writes.
    let mut mark = Record::new();
    let mark = mark.finish(folder.salt, head.next_sequence, head.synced);
    write_all(&*head.file, mark, u64::from(head.offset)).map_err(refused)?;
    head.file.sync().map_err(refused)?;
    head.offset += mark.len() as u32;
    head.synced = head.offset;
    head.next_sequence += 1;
    index.segments.entry(head.number).or_default().bytes = u64::from(head.offset);
    let (noted, place) = (plan.noted.as_ref(), (head.number, head.offset));
    let notes = begin_notes(disk, header.journal, noted, place, head.next_sequence)?;
    report.keys = index.len();
    report.took = began.elapsed();
    Ok(Recovered {
        salt: folder.salt,
        journal: header.journal,
        index,
        head,
        notes,
        unhinted,
        report,
    })
}

/// Tells operators how the journal had ended, unless that is as it should be.
fn say_ending(head: &Path, tail: &Scanned, report: &Recovery) {
    let (file, offset, bytes) = (head.display(), tail.end, report.cut_bytes);
    match report.ending {
        Ending::New => {}
        Ending::Closed if bytes == 0 => {}
        Ending::Closed => tracing::warn!(
            %file,
            offset,
            bytes,
            "what follows the place at which the journal was closed is cut off"
        ),
        Ending::Open if bytes == 0 => tracing::warn!(
            %file,
            "the journal was not closed; all that is known to have been synced is there"
        ),
        Ending::Open => tracing::warn!(
            %file,
            offset,
            bytes,
            "the journal was not closed, and its last write was cut short; what is left of that \
             is not known to have been synced, and is cut off"
        ),
        Ending::Unknown => tracing::warn!(
            %file,
            offset,
            bytes,
            "nothing tells up to where the journal was synced: an older version wrote it, or its \
             watermark is gone; what is not whole at its end is cut off"
        ),
        Ending::Lost { records } => tracing::error!(
            %file,
            offset,
            bytes,
            records,
            "what was safe behind this place is gone, and is given up as `store.accept-loss` says"
        ),
    }
}

/// Cuts off what is not sound, and syncs the rest. What was never known to be synced is
/// written again, and the length set again: after a sync that failed, the system may hold
/// them in memory only and yet take them for synced.
fn make_safe(
    disk: &Arc<dyn Disk>,
    number: u32,
    scanned: &Scanned,
) -> Result<Arc<dyn DiskFile>, OpenError> {
    let write = || {
        let file = disk.open(&segment_name(number))?;
        let from = (scanned.synced as usize).min(scanned.end);
        write_all(&*file, &scanned.bytes[from..scanned.end], from as u64)?;
        // Setting the length that the file seems to have could change nothing.
        file.resize(scanned.bytes.len() as u64 + 1)?;
        file.resize(scanned.end as u64)?;
        file.sync()?;
        Ok(file)
    };
    write().map_err(|error| OpenError::io(path(disk, number), "written", error))
}

//! Compaction: what is still needed of a segment is appended again, then the segment goes.
//!
//! Invariant: a copy is the whole value of its key at the moment in which it is appended,
//! so it changes nothing for whoever reads the log from its beginning; and a segment is
//! dropped only when no key lies in it and its deletions have nothing left to hide.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tidegate_base::disk::read;

use super::Space;
use super::error::JournalError;
use super::files::{ReadFailure, hint_name, segment_name};
use super::format::{
    ENTRY_HEADER, Kind, MAX_SEGMENT, RECORD_HEADER, Record, RecordHeader, SegmentHeader,
    header_length, parse_record,
};
use super::writer::{DiskFailure, Writer, count};

/// How far the compaction of a segment has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    segment: u32,
    /// Of the next record; 0 before the first.
    offset: u32,
    sequence: u64,
    /// How many entries of that record are done.
    entries: usize,
}

/// A piece of the work.
struct Piece {
    copies: Record,
    next: Cursor,
    at_end: bool,
}

impl Writer {
    /// Does a piece of compaction. True if there is more to do.
    pub(super) fn compact(&mut self, now: Instant) -> Result<bool, DiskFailure> {
        let cursor = match self.cursor {
            Some(cursor) => cursor,
            None if self.until_look > 0 => return Ok(false),
            None => {
                self.until_look = u64::from(self.settings.segment_bytes) / 16;
                match self.worthwhile() {
                    None => return Ok(false),
                    Some(segment) => Cursor {
                        segment,
                        offset: 0,
                        sequence: 0,
                        entries: 0,
                    },
                }
            }
        };
        let piece = match self.piece(cursor) {
            Ok(piece) => piece,
            Err(error) => {
                // Whoever reads the damaged value learns of it; the rest can be used.
                tracing::error!(%error, "a segment of the journal cannot be compacted");
                count(&self.shared.counters().damaged_segments, 1);
                self.excluded.insert(cursor.segment);
                self.cursor = None;
                return Ok(false);
            }
        };
        self.cursor = Some(piece.next);
        if !piece.copies.is_empty() {
            let copied = piece.copies.len() as u64;
            self.write_own(piece.copies, now)?;
            count(&self.shared.counters().copied_bytes, copied);
        }
        if piece.at_end {
            self.cursor = None;
            self.until_look = 0;
            self.drop_segment(cursor.segment, now)?;
        }
        Ok(true)
    }

    /// The sealed segment that holds most that is dead, if it is enough.
    fn worthwhile(&self) -> Option<u32> {
        let index = self.shared.index();
        let percent = u64::from(self.settings.dead_percent);
        let is_enough = |dead: u64, of: u64| percent <= 100 && dead * 100 >= of * percent;
        let oldest = index.segments.keys().next().copied()?;
        let (mut deletes, mut entries) = (0, 0);
        let mut best: Option<(u64, u32)> = None;
        for (number, usage) in &index.segments {
            if *number == self.head.number || self.excluded.contains(number) {
                continue;
            }
            deletes += usage.deletes;
            entries += usage.entries;
            // In the oldest one deletions hide nothing.
            let kept = if *number == oldest { 0 } else { usage.deletes };
            let dead = usage.entries - usage.live - kept;
            let share = (dead * 1000).checked_div(usage.entries).unwrap_or(1000);
            let is_better = best.is_none_or(|(other, _)| share > other);
            if is_better && is_enough(dead, usage.entries) && (dead > 0 || usage.entries == 0) {
                best = Some((share, *number));
            }
        }
        let best = best.map(|(_, number)| number);
        // Deletions can go only when everything older has gone.
        let too_many = deletes > 0 && is_enough(deletes, entries);
        let oldest = Some(oldest)
            .filter(|oldest| *oldest != self.head.number && !self.excluded.contains(oldest));
        best.or(oldest.filter(|_| too_many))
    }

    /// Reads on in a segment and gathers what has to be copied.
    fn piece(&self, mut cursor: Cursor) -> Result<Piece, JournalError> {
        let segments = self.shared.segments();
        let segment = cursor.segment;
        let unreadable = |error: std::io::Error| JournalError::Read {
            path: segments.path(segment),
            reason: error.to_string().into(),
        };
        let damaged = |offset: u32| JournalError::Damaged {
            path: segments.path(segment),
            offset: u64::from(offset),
        };
        let file = segments.file(segment).map_err(unreadable)?;
        if cursor.offset == 0 {
            let first = read(&*file, 0, 16).map_err(unreadable)?;
            let length = header_length(&first).ok_or_else(|| damaged(0))?;
            let size = file.size().map_err(unreadable)?;
            let bytes = read(&*file, 0, length.min(size as usize)).map_err(unreadable)?;
            let header = SegmentHeader::parse(&bytes).map_err(|_| damaged(0))?;
            cursor.offset = header.length() as u32;
            cursor.sequence = header.first_sequence;
        }
        let limit = self.settings.compaction_bytes.max(1);
        let offset = u64::from(cursor.offset);
        let mut bytes = read(&*file, offset, limit + RECORD_HEADER).map_err(unreadable)?;
        let salt = self.shared.salt();
        if let Some(header) = RecordHeader::parse(salt, &bytes) {
            let whole = RECORD_HEADER + header.length as usize;
            if whole > bytes.len() {
                let size = file.size().map_err(unreadable)?;
                let left = size.saturating_sub(offset) as usize;
                bytes = read(&*file, offset, whole.min(left)).map_err(unreadable)?;
            }
        }
        let index = self.shared.index();
        let oldest = index.segments.keys().next() == Some(&segment);
        let start = cursor.offset;
        let mut at = 0;
        let mut copies = Record::new();
        let mut copied: HashSet<(Space, &str)> = HashSet::new();
        let mut at_end = false;
        'records: while copies.len() < limit {
            let Some(record) = parse_record(salt, &bytes, start, at, cursor.sequence) else {
                if at == 0 {
                    return Err(damaged(cursor.offset));
                }
                // The rest of the record lies behind what was read, or it is damaged; the
                // next piece tells.
                break;
            };
            for entry in record.entries.iter().skip(cursor.entries) {
                if copies.len() >= limit {
                    break 'records;
                }
                cursor.entries += 1;
                match entry.kind {
                    Kind::Seal => at_end = true,
                    Kind::Drop => {}
                    Kind::Delete if oldest || index.contains(entry.space, entry.key) => {}
                    Kind::Delete => {
                        let from = (entry.offset - start) as usize;
                        copies.push_entry(&bytes[from..from + entry.length as usize]);
                    }
                    Kind::Put | Kind::Delta => {
                        if index.is_live(segment, entry) && copied.insert((entry.space, entry.key))
                        {
                            self.copy(&mut copies, entry.space, entry.key, &index)?;
                        }
                    }
                }
            }
            if at_end {
                break;
            }
            at = record.end;
            cursor.offset = start + at as u32;
            cursor.sequence += 1;
            cursor.entries = 0;
        }
        Ok(Piece {
            copies,
            next: cursor,
            at_end,
        })
    }

    /// Adds the whole value of a key as it stands.
    fn copy(
        &self,
        copies: &mut Record,
        space: Space,
        key: &str,
        index: &super::index::Index,
    ) -> Result<(), JournalError> {
        let places = index.places(space, key).unwrap_or_default();
        let length: u64 = places.iter().map(|place| u64::from(place.length)).sum();
        let bound = MAX_SEGMENT / 2;
        if copies.len() as u64 + length > bound {
            return Err(JournalError::TooLarge {
                bytes: length as usize,
                limit: bound as usize,
            });
        }
        for place in places {
            match self.shared.segments().entry(place, space, key) {
                Ok((bytes, _)) => copies.push_entry(&bytes),
                Err(ReadFailure::Other(error)) => return Err(error),
                Err(ReadFailure::Gone) => {
                    return Err(JournalError::Read {
                        path: self.shared.segments().path(place.segment),
                        reason: "it is missing".into(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Lets go of a segment in which nothing is needed any more.
    fn drop_segment(&mut self, number: u32, now: Instant) -> Result<(), DiskFailure> {
        let usage = self.shared.index().segments.get(&number).copied();
        if usage.is_none_or(|usage| usage.live > 0) {
            tracing::error!(number, "a compacted segment is still in use, so it stays");
            self.excluded.insert(number);
            return Ok(());
        }
        let mut record = Record::with_capacity(ENTRY_HEADER);
        let fields = (Kind::Drop, Space(0), "", u64::from(number));
        record.push(self.shared.salt(), fields, &[]);
        self.write_own(record, now)?;
        // The copies and the word that the segment is gone must be safe before it goes.
        self.sync(now)?;
        self.shared.index_mut().segments.remove(&number);
        for name in [segment_name(number), hint_name(number)] {
            match self.disk.remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(file = name, %error, "a file is left over until the next start");
                }
                _ => {}
            }
        }
        self.shared.segments().forget(number);
        let synced = self.disk.sync_folder();
        synced.map_err(|error| self.failure("synced", error))?;
        let counters = self.shared.counters();
        counters.compactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

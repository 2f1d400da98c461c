//! Hints: what a sealed segment says, without its values, so that opening need not read
//! them. A hint can be lost at any time; it is then made again from its segment.

use std::io;
use std::sync::Arc;

use tidegate_base::disk::{Disk, read_all, write_all};

use super::Space;
use super::files::{UNFINISHED, hint_name, segment_name};
use super::format::{
    self, EntryRef, Kind, SegmentHeader, checksum, parse_record, u16_at, u32_at, u64_at,
};

const MAGIC: [u8; 8] = *b"TGHINT\r\n";
const HEADER: usize = 40;
const ENTRY: usize = 20;

/// Which segment a hint must speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) journal: u64,
    pub(super) number: u32,
    /// The length of its file.
    pub(super) bytes: u64,
    pub(super) first_sequence: u64,
}

impl Subject {
    fn header(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&format::VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.number.to_le_bytes());
        header[16..24].copy_from_slice(&self.journal.to_le_bytes());
        header[24..32].copy_from_slice(&self.bytes.to_le_bytes());
        header[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        header
    }
}

/// Makes the hint of a sealed segment.
pub(super) fn make(disk: &Arc<dyn Disk>, salt: u32, number: u32) -> io::Result<()> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let bytes = read_all(&*disk.open(&segment_name(number))?)?;
    let header = SegmentHeader::parse(&bytes).map_err(|_| damaged())?;
    let subject = Subject {
        journal: header.journal,
        number,
        bytes: bytes.len() as u64,
        first_sequence: header.first_sequence,
    };
    let mut entries = Vec::new();
    let (mut at, mut sequence) = (header.length(), header.first_sequence);
    while at < bytes.len() {
        let record = parse_record(salt, &bytes, 0, at, sequence).ok_or_else(damaged)?;
        let keyed = |entry: &EntryRef<'_>| !matches!(entry.kind, Kind::Seal | Kind::Drop);
        entries.extend(record.entries.into_iter().filter(keyed));
        (at, sequence) = (record.end, sequence + 1);
    }
    // The index is built faster so, and the entries of one key keep their order.
    entries.sort_by_key(|entry| (entry.space, entry.key));
    let mut hint = subject.header().to_vec();
    for entry in entries {
        hint.push(entry.kind.byte());
        hint.push(entry.space.0);
        hint.extend_from_slice(&(entry.key.len() as u16).to_le_bytes());
        hint.extend_from_slice(&entry.offset.to_le_bytes());
        hint.extend_from_slice(&entry.length.to_le_bytes());
        hint.extend_from_slice(&entry.tag.to_le_bytes());
        hint.extend_from_slice(entry.key.as_bytes());
    }
    let crc = checksum(salt, &hint);
    hint.extend_from_slice(&crc.to_le_bytes());

    let name = hint_name(number);
    let unfinished = format!("{name}{UNFINISHED}");
    let write = || {
        let file = disk.create(&unfinished)?;
        write_all(&*file, &hint, 0)?;
        file.sync()?;
        disk.rename(&unfinished, &name)
    };
    write().inspect_err(|_| {
        // What is left of it would be removed at the next opening, too.
        let _ = disk.remove(&unfinished);
    })
}

/// A hint that was read and checked.
pub(super) struct Hint {
    bytes: Vec<u8>,
}

/// Reads the hint of a segment; none if it is missing, damaged or speaks of another one.
pub(super) fn load(disk: &Arc<dyn Disk>, salt: u32, subject: Subject) -> Option<Hint> {
    let mut bytes = read_all(&*disk.open(&hint_name(subject.number)).ok()?).ok()?;
    let body = bytes.len().checked_sub(4).filter(|body| *body >= HEADER)?;
    if u32_at(&bytes, body)? != checksum(salt, &bytes[..body])
        || bytes[..HEADER] != subject.header()
    {
        return None;
    }
    bytes.truncate(body);
    let hint = Hint { bytes };
    hint.visit(|_| ()).then_some(hint)
}

impl Hint {
    /// Hands out the entries by key, those of one key in the order of the segment. False if
    /// it is none after all.
    pub(super) fn visit(&self, mut visit: impl FnMut(EntryRef<'_>)) -> bool {
        let mut rest = &self.bytes[HEADER..];
        while !rest.is_empty() {
            let read = || {
                let end = ENTRY + usize::from(u16_at(rest, 2)?);
                let kind = [Kind::Put, Kind::Delta, Kind::Delete]
                    .into_iter()
                    .find(|kind| Some(&kind.byte()) == rest.first())?;
                let entry = EntryRef {
                    kind,
                    space: Space(*rest.get(1)?),
                    offset: u32_at(rest, 4)?,
                    length: u32_at(rest, 8)?,
                    tag: u64_at(rest, 12)?,
                    key: std::str::from_utf8(rest.get(ENTRY..end)?).ok()?,
                };
                Some((entry, end))
            };
            let Some((entry, end)) = read() else {
                return false;
            };
            visit(entry);
            rest = &rest[end..];
        }
        true
    }
}

//! The bytes of segments: headers, records, entries. `docs/durability.md` has the tables.
//!
//! Invariant: whatever the bytes are, reading them neither panics nor allocates more than
//! they take themselves, and what is read as an entry was written as that entry.

use super::Space;

/// What a segment begins with.
pub(super) const MAGIC: [u8; 8] = *b"TGJRNL\r\n";
/// The version of the format that this code writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;
/// The header of a record.
pub(super) const RECORD_HEADER: usize = 24;
/// The header of an entry.
pub(super) const ENTRY_HEADER: usize = 20;
/// The fields of a segment's header without its list and its checksum.
const SEGMENT_HEADER: usize = 40;
/// The longest key in bytes.
pub(super) const MAX_KEY: usize = u16::MAX as usize;
/// How far a segment can be addressed.
pub(super) const MAX_SEGMENT: u64 = u32::MAX as u64;

/// The initial value of the checksums of one journal, so that bytes of another one, or of
/// a value that looks like a record, do not pass for its own.
pub(super) fn salt(journal: u64) -> u32 {
    (journal as u32) ^ ((journal >> 32) as u32)
}

pub(super) fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Which journal it belongs to.
    pub(super) journal: u64,
    /// Its number, also in its name.
    pub(super) number: u32,
    /// The sequence number of its first record.
    pub(super) first_sequence: u64,
    /// The segments that the journal had when this one was made, in order, without it.
    pub(super) live: Vec<u32>,
}

/// Why bytes are no header of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// They do not begin like one.
    Foreign,
    /// They are one, of a newer format.
    Newer(u32),
    /// They were one.
    Damaged,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let length = self.length();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&self.journal.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&(self.live.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.first_sequence.to_le_bytes());
        for number in &self.live {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let crc = checksum(0, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> usize {
        SEGMENT_HEADER + 4 * self.live.len() + 4
    }

    /// Reads the header that a segment begins with.
    pub(super) fn parse(bytes: &[u8]) -> Result<SegmentHeader, BadHeader> {
        match bytes.get(..MAGIC.len()) {
            Some(magic) if *magic == MAGIC => {}
            // A file that holds nothing of another program was cut or wiped.
            None if MAGIC.starts_with(bytes) => return Err(BadHeader::Damaged),
            _ if bytes.iter().all(|byte| *byte == 0) => return Err(BadHeader::Damaged),
            _ => return Err(BadHeader::Foreign),
        }
        // Every version keeps the first 16 bytes and the place of the checksum.
        let version = u32_at(bytes, 8).ok_or(BadHeader::Damaged)?;
        let length = u32_at(bytes, 12).ok_or(BadHeader::Damaged)? as usize;
        let header = length
            .checked_sub(4)
            .filter(|fields| *fields >= 16)
            .and_then(|fields| Some((bytes.get(..fields)?, u32_at(bytes, fields)?)));
        match header {
            Some((fields, crc)) if checksum(0, fields) == crc => {}
            _ => return Err(BadHeader::Damaged),
        }
        if version > VERSION {
            return Err(BadHeader::Newer(version));
        }
        let read = || {
            let count = u32_at(bytes, 28)? as usize;
            if length != SEGMENT_HEADER + 4 * count + 4 {
                return None;
            }
            Some(SegmentHeader {
                journal: u64_at(bytes, 16)?,
                number: u32_at(bytes, 24)?,
                first_sequence: u64_at(bytes, 32)?,
                live: (0..count)
                    .map(|index| u32_at(bytes, SEGMENT_HEADER + 4 * index))
                    .collect::<Option<_>>()?,
            })
        };
        read().ok_or(BadHeader::Damaged)
    }
}

/// How many bytes a segment's header has, from its first 16.
pub(super) fn header_length(bytes: &[u8]) -> Option<usize> {
    (bytes.get(..MAGIC.len())? == MAGIC).then_some(u32_at(bytes, 12)? as usize)
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A value that replaces what was there.
    Put,
    /// A value behind what is there.
    Delta,
    /// Nothing is there any more.
    Delete,
    /// The segment ends here; the tag is the number of the next one.
    Seal,
    /// The segment whose number is the tag is no longer needed.
    Drop,
}

impl Kind {
    fn parse(byte: u8) -> Option<Kind> {
        [Kind::Put, Kind::Delta, Kind::Delete, Kind::Seal, Kind::Drop]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }

    pub(super) fn byte(self) -> u8 {
        match self {
            Kind::Put => 1,
            Kind::Delta => 2,
            Kind::Delete => 3,
            Kind::Seal => 4,
            Kind::Drop => 5,
        }
    }
}

/// One entry within a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryRef<'a> {
    pub(super) kind: Kind,
    pub(super) space: Space,
    pub(super) key: &'a str,
    pub(super) tag: u64,
    /// Where it begins in its segment.
    pub(super) offset: u32,
    /// Its length with header, key and value.
    pub(super) length: u32,
}

/// A record being made: room for its header, then its entries.
#[derive(Debug)]
pub(super) struct Record {
    bytes: Vec<u8>,
    entries: u32,
}

impl Record {
    pub(super) fn new() -> Record {
        Record::with_capacity(0)
    }

    pub(super) fn with_capacity(body: usize) -> Record {
        let mut bytes = Vec::with_capacity(RECORD_HEADER + body);
        bytes.resize(RECORD_HEADER, 0);
        Record { bytes, entries: 0 }
    }

    /// Adds an entry. The key must not be longer than [`MAX_KEY`].
    pub(super) fn push(
        &mut self,
        salt: u32,
        (kind, space, key, tag): (Kind, Space, &str, u64),
        value: &[u8],
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.push(kind.byte());
        self.bytes.push(space.0);
        self.bytes
            .extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&tag.to_le_bytes());
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(value);
        let crc = checksum(salt, &self.bytes[start + 4..]);
        self.bytes[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        self.entries += 1;
    }

    /// Adds an entry that was read, with its header.
    pub(super) fn push_entry(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.entries += 1;
    }

    /// The length of the whole record.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Fills in the header and gives the bytes.
    pub(super) fn finish(&mut self, salt: u32, sequence: u64, synced: u32) -> &[u8] {
        let length = (self.bytes.len() - RECORD_HEADER) as u32;
        self.bytes[4..8].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.bytes[16..20].copy_from_slice(&synced.to_le_bytes());
        self.bytes[20..24].copy_from_slice(&self.entries.to_le_bytes());
        let crc = checksum(salt, &self.bytes[4..RECORD_HEADER]);
        self.bytes[..4].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }

    /// Its entries, as they stand in a segment where the record begins at `offset`.
    pub(super) fn entries(&self, offset: u32) -> impl Iterator<Item = EntryRef<'_>> {
        Entries {
            rest: &self.bytes[RECORD_HEADER..],
            offset: offset + RECORD_HEADER as u32,
            salt: None,
        }
        .map_while(Result::ok)
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHeader {
    /// The length of its entries.
    pub(super) length: u32,
    /// Its place in the order of all records.
    pub(super) sequence: u64,
    /// Up to where its segment was known to be synced when it was written.
    pub(super) synced: u32,
    /// How many entries it has.
    pub(super) entries: u32,
}

impl RecordHeader {
    pub(super) fn parse(salt: u32, bytes: &[u8]) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        if checksum(salt, &bytes[4..]) != u32_at(bytes, 0)? {
            return None;
        }
        Some(RecordHeader {
            length: u32_at(bytes, 4)?,
            sequence: u64_at(bytes, 8)?,
            synced: u32_at(bytes, 16)?,
            entries: u32_at(bytes, 20)?,
        })
    }
}

/// The length of an entry whose header this is, and the lengths of its key and value.
fn entry_lengths(header: &[u8]) -> Option<(usize, usize, usize)> {
    let key = usize::from(u16_at(header, 6)?);
    let value = u32_at(header, 8)? as usize;
    Some((ENTRY_HEADER + key + value, key, value))
}

/// Reads the entry that the bytes begin with.
fn parse_entry(salt: Option<u32>, bytes: &[u8], offset: u32) -> Option<EntryRef<'_>> {
    let (length, key, _) = entry_lengths(bytes)?;
    let bytes = bytes.get(..length)?;
    if salt.is_some_and(|salt| Some(checksum(salt, &bytes[4..])) != u32_at(bytes, 0)) {
        return None;
    }
    Some(EntryRef {
        kind: Kind::parse(bytes[4])?,
        space: Space(bytes[5]),
        key: std::str::from_utf8(&bytes[ENTRY_HEADER..ENTRY_HEADER + key]).ok()?,
        tag: u64_at(bytes, 12)?,
        offset,
        length: u32::try_from(length).ok()?,
    })
}

/// Checks the bytes of one entry as they were read for this key, and says where its value
/// begins.
pub(super) fn check_entry(salt: u32, bytes: &[u8], space: Space, key: &str) -> Option<usize> {
    let entry = parse_entry(Some(salt), bytes, 0)?;
    let same = entry.space == space
        && entry.key == key
        && entry.length as usize == bytes.len()
        && matches!(entry.kind, Kind::Put | Kind::Delta);
    same.then_some(ENTRY_HEADER + key.len())
}

/// The entries of a record's body; an error for what is none, and then no more.
struct Entries<'a> {
    rest: &'a [u8],
    offset: u32,
    /// Checksums are compared only when there is one.
    salt: Option<u32>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<EntryRef<'a>, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(entry) = parse_entry(self.salt, self.rest, self.offset) else {
            self.rest = &[];
            return Some(Err(()));
        };
        self.rest = &self.rest[entry.length as usize..];
        self.offset = self.offset.saturating_add(entry.length);
        Some(Ok(entry))
    }
}

/// A whole record as it was read.
#[derive(Debug)]
pub(super) struct RecordRef<'a> {
    pub(super) header: RecordHeader,
    /// The offset behind it.
    pub(super) end: usize,
    pub(super) entries: Vec<EntryRef<'a>>,
}

/// Reads the record at `at` of these bytes, which begin at `start` of their segment. None
/// if there is no whole and sound one with this sequence number.
pub(super) fn parse_record(
    salt: u32,
    bytes: &[u8],
    start: u32,
    at: usize,
    sequence: u64,
) -> Option<RecordRef<'_>> {
    let header = RecordHeader::parse(salt, bytes.get(at..)?)?;
    if header.sequence != sequence {
        return None;
    }
    let body = at + RECORD_HEADER;
    let end = body.checked_add(header.length as usize)?;
    let entries = Entries {
        rest: bytes.get(body..end)?,
        offset: start.checked_add(u32::try_from(body).ok()?)?,
        salt: Some(salt),
    }
    .collect::<Result<Vec<_>, ()>>()
    .ok()?;
    (entries.len() == header.entries as usize).then_some(RecordRef {
        header,
        end,
        entries,
    })
}

/// A record behind `at`, where no sound one begins, that was written when what is at `at` was
/// known to be synced: then it was there once, whole.
pub(super) fn synced_once(
    salt: u32,
    bytes: &[u8],
    at: usize,
    sequence: u64,
) -> Option<RecordHeader> {
    (at..bytes.len().saturating_sub(RECORD_HEADER - 1)).find_map(|place| {
        // Cheap tests first: most places are within values.
        let claims = |header: &[u8]| {
            let synced = u32_at(header, 16)? as usize;
            let ahead = u64_at(header, 8)?.checked_sub(sequence)?;
            Some(synced > at && synced <= place && ahead <= bytes.len() as u64)
        };
        claims(&bytes[place..])
            .unwrap_or(false)
            .then(|| RecordHeader::parse(salt, &bytes[place..]))?
    })
}

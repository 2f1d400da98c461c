//! The watermark: up to where the journal was synced, in a file of its own.
//!
//! A segment that was cut does not tell what it held. So each sync is noted here once it has
//! completed, and before anybody hears of it; an orderly end is noted, too.
//!
//! Invariant: what it says was synced when it was written. It may lag behind the segments,
//! never run ahead of them; so a segment that ends before it has lost what was safe.

use std::io;
use std::sync::Arc;

use tidegate_base::disk::{Disk, DiskFile, read, write_all};

use super::format::{checksum, u32_at, u64_at};

/// The name of its file.
pub(super) const WATERMARK: &str = "watermark";
/// The version of the format that this code writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"TGMARK\r\n";
const LENGTH: usize = 56;
/// Where watermarks are, each in a sector of its own. Openings use two places in turn and sync
/// what they write; the notes between use the other two. So whatever is lost of those, and
/// whichever was cut short, the one before is there, at the least that of the last opening.
const PLACES: [u64; 4] = [0, 512, 1024, 1536];

/// How far a journal was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watermark {
    /// Which journal it is of.
    pub(super) journal: u64,
    /// Counts the watermarks of a journal.
    pub(super) generation: u64,
    /// How often the journal had been opened.
    pub(super) openings: u32,
    /// Whether the journal was closed there.
    pub(super) closed: bool,
    /// The segment.
    pub(super) segment: u32,
    /// The offset in it behind what was synced.
    pub(super) offset: u32,
    /// The sequence number of the record that comes there.
    pub(super) next_sequence: u64,
}

/// What the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// There is no file, or nothing sound in it.
    Nothing,
    /// The newest sound watermark.
    Known(Watermark),
    /// One of this newer version.
    Newer(u32),
}

impl Watermark {
    fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.closed).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.journal.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.segment.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.next_sequence.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.openings.to_le_bytes());
        let crc = checksum(0, &bytes[..52]);
        bytes[52..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Noted {
        let parse = || {
            let sound =
                bytes.get(..8)? == MAGIC && checksum(0, bytes.get(..52)?) == u32_at(bytes, 52)?;
            if !sound {
                return None;
            }
            let version = u32_at(bytes, 8)?;
            if version > VERSION {
                return Some(Noted::Newer(version));
            }
            Some(Noted::Known(Watermark {
                closed: u32_at(bytes, 12)? == 1,
                journal: u64_at(bytes, 16)?,
                generation: u64_at(bytes, 24)?,
                segment: u32_at(bytes, 32)?,
                offset: u32_at(bytes, 36)?,
                next_sequence: u64_at(bytes, 40)?,
                openings: u32_at(bytes, 48)?,
            }))
        };
        parse().unwrap_or(Noted::Nothing)
    }
}

/// Reads what is noted, without a change.
pub(super) fn load(disk: &Arc<dyn Disk>) -> io::Result<Noted> {
    let file = match disk.open(WATERMARK) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Noted::Nothing),
        Err(error) => return Err(error),
    };
    let mut newest = Noted::Nothing;
    for place in PLACES {
        let found = Watermark::parse(&read(&*file, place, LENGTH)?);
        newest = match (newest, found) {
            (Noted::Newer(version), _) | (_, Noted::Newer(version)) => Noted::Newer(version),
            (Noted::Known(one), Noted::Known(other)) if one.generation > other.generation => newest,
            (known, Noted::Nothing) => known,
            (_, known) => known,
        };
    }
    Ok(newest)
}

/// Where syncs are noted.
pub(super) struct Notes {
    file: Arc<dyn DiskFile>,
    /// The last one that was noted.
    last: Watermark,
}

impl Notes {
    /// Notes safely that a journal is open, and up to where it is synced: behind the watermark
    /// that was found, or in a new file if there is none.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        journal: u64,
        found: Option<&Watermark>,
        (segment, offset): (u32, u32),
        next_sequence: u64,
    ) -> io::Result<Notes> {
        let file = match found {
            Some(_) => disk.open(WATERMARK)?,
            None => {
                let file = disk.create(WATERMARK)?;
                // All of its room is there from the beginning, so that noting needs none.
                let length = PLACES[3] as usize + LENGTH;
                write_all(&*file, &vec![0; length], 0)?;
                file.sync()?;
                disk.sync_folder()?;
                file
            }
        };
        let watermark = Watermark {
            journal,
            generation: found.map_or(0, |found| found.generation.wrapping_add(1)),
            openings: found.map_or(0, |found| found.openings.wrapping_add(1)),
            closed: false,
            segment,
            offset,
            next_sequence,
        };
        let place = PLACES[(watermark.openings % 2) as usize];
        write_all(&*file, &watermark.encode(), place)?;
        file.sync()?;
        Ok(Notes {
            file,
            last: watermark,
        })
    }

    /// Notes that all before this place is synced, and whether the journal ends there. The
    /// note outlasts the process; [`sync`](Self::sync) makes it outlast a loss of power.
    pub(super) fn note(
        &mut self,
        (segment, offset): (u32, u32),
        next_sequence: u64,
        closed: bool,
    ) -> io::Result<()> {
        let watermark = Watermark {
            generation: self.last.generation.wrapping_add(1),
            closed,
            segment,
            offset,
            next_sequence,
            ..self.last
        };
        let place = PLACES[2 + (watermark.generation % 2) as usize];
        write_all(&*self.file, &watermark.encode(), place)?;
        self.last = watermark;
        Ok(())
    }

    /// Makes what was noted outlast a loss of power.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use tidegate_testkit::disk::SimDisk;

    use super::*;

    #[test]
    fn the_newest_sound_one_counts() {
        let sim = SimDisk::new(0);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        assert_eq!(load(&disk).unwrap(), Noted::Nothing);
        let mut notes = Notes::open(&disk, 7, None, (1, 5), 1).unwrap();
        for offset in [10, 20, 30] {
            notes.note((1, offset), u64::from(offset), false).unwrap();
        }
        let offset = |disk| match load(disk).unwrap() {
            Noted::Known(watermark) => watermark.offset,
            other => panic!("{other:?}"),
        };
        assert_eq!(offset(&disk), 30);
        let mut bytes = sim.content(WATERMARK).unwrap();
        // The third note is in the place of the first.
        bytes[1536 + 36] ^= 1;
        sim.set_content(WATERMARK, &bytes);
        assert_eq!(offset(&disk), 20, "the one before");
        bytes[1024] ^= 1;
        sim.set_content(WATERMARK, &bytes);
        assert_eq!(offset(&disk), 5, "that of the opening");
        bytes.truncate(20);
        sim.set_content(WATERMARK, &bytes);
        assert_eq!(load(&disk).unwrap(), Noted::Nothing);
    }

    #[test]
    fn one_of_a_newer_version_is_named() {
        let sim = SimDisk::new(0);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        Notes::open(&disk, 7, None, (1, 10), 1).unwrap();
        let mut bytes = sim.content(WATERMARK).unwrap();
        bytes[8] = 9;
        let crc = checksum(0, &bytes[..52]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
        sim.set_content(WATERMARK, &bytes);
        assert_eq!(load(&disk).unwrap(), Noted::Newer(9));
    }
}

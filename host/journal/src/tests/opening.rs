//! Openings that are refused: each says why and what to do, and changes nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use tidegate_base::disk::FolderDisk;
use tidegate_testkit::disk::{Fault, SimDisk};

use super::super::{
    Check, Disk, Ending, Entry, Health, Journal, JournalError, Next, OpenError, Safety, Settings,
    Space,
};
use super::model::{poll, state_of};

fn put(key: &str, value: &[u8]) -> Entry {
    Entry::Put {
        space: Space(0),
        key: key.into(),
        tag: 0,
        value: value.to_vec().into(),
    }
}

fn small() -> Settings {
    Settings {
        segment_bytes: 1000,
        dead_percent: 101,
        check: Check::Everything,
        ..Settings::default()
    }
}

/// A closed journal of several segments.
fn filled(disk: &SimDisk) {
    let (journal, mut stepper) = Journal::open_stepped(disk.clone(), small()).unwrap();
    for number in 0..30 {
        let mut appending =
            journal.append(vec![put(&number.to_string(), &[7; 100])], Safety::Synced);
        stepper.step(Instant::now());
        assert_eq!(poll(&mut appending), Some(Ok(())));
    }
    journal.close().unwrap();
    while stepper.step(Instant::now()) != Next::Ended {}
}

/// Opens it and finds that nothing has changed on the disk.
fn refusal(disk: &SimDisk) -> OpenError {
    let before = disk.contents();
    let error = Journal::open_stepped(disk.clone(), small()).unwrap_err();
    assert_eq!(disk.contents(), before);
    error
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = folder("in-use");
    let disk = || FolderDisk::new(&folder).unwrap();
    let journal = Journal::open(disk(), small()).unwrap();
    let error = Journal::open(disk(), small()).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { path } if *path == folder));
    assert!(error.to_string().contains("another process"), "{error}");
    journal.close().unwrap();
    Journal::open(disk(), small()).unwrap();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_in_use_is_refused_although_the_file_of_its_lock_was_removed() {
    let folder = folder("removed-lock");
    let disk = || FolderDisk::new(&folder).unwrap();
    let journal = Journal::open(disk(), small()).unwrap();
    fs::remove_file(folder.join("lock")).unwrap();
    let error = Journal::open(disk(), small()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    fs::write(folder.join("lock"), "").unwrap();
    let error = Journal::open(disk(), small()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    journal.close().unwrap();
    Journal::open(disk(), small()).unwrap();
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_without_its_segments_is_refused() {
    let disk = SimDisk::new(0);
    filled(&disk);
    for name in disk.contents().into_keys() {
        if name != "watermark" {
            disk.take(&name);
        }
    }
    assert!(matches!(refusal(&disk), OpenError::Missing { .. }));
}

#[test]
fn the_watermark_of_another_journal_is_refused() {
    let (one, other) = (SimDisk::new(0), SimDisk::new(1));
    filled(&one);
    filled(&other);
    one.set_content("watermark", &other.content("watermark").unwrap());
    let error = refusal(&one);
    assert!(matches!(&error, OpenError::Mixed { path, .. } if path.ends_with("watermark")));
}

#[test]
fn how_a_journal_ended_is_told() {
    let disk = SimDisk::new(0);
    let ending = |disk: &SimDisk| {
        let opened = Journal::open_stepped(disk.clone(), small());
        let (journal, _killed) = opened.unwrap();
        disk.restart(tidegate_testkit::disk::Loss::Process);
        journal.stats().recovery.ending
    };
    assert_eq!(ending(&disk), Ending::New);
    assert_eq!(ending(&disk), Ending::Open);
    filled(&disk);
    assert_eq!(ending(&disk), Ending::Closed);
    assert_eq!(ending(&disk), Ending::Open);
    disk.take("watermark");
    assert_eq!(ending(&disk), Ending::Unknown);
    assert_eq!(ending(&disk), Ending::Open);
}

#[test]
fn a_newer_format_is_refused() {
    let disk = SimDisk::new(0);
    filled(&disk);
    let mut bytes = disk.content("0000000002.log").unwrap();
    bytes[8..12].copy_from_slice(&7_u32.to_le_bytes());
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let crc = super::super::format::checksum(0, &bytes[..length - 4]);
    bytes[length - 4..length].copy_from_slice(&crc.to_le_bytes());
    disk.set_content("0000000002.log", &bytes);
    let error = refusal(&disk);
    assert!(matches!(
        error,
        OpenError::NewerFormat {
            found: 7,
            known: 1,
            ..
        }
    ));
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let disk = SimDisk::new(0);
    disk.set_content("holiday.jpg", b"jpg");
    let error = refusal(&disk);
    assert!(matches!(&error, OpenError::NotAJournal { path } if path.ends_with("holiday.jpg")));

    let disk = SimDisk::new(0);
    disk.set_content("0000000001.log", b"somebody else's log, from 1999");
    assert!(matches!(refusal(&disk), OpenError::NotAJournal { .. }));
}

#[test]
fn files_beside_a_journal_are_left_alone() {
    let disk = SimDisk::new(0);
    filled(&disk);
    disk.set_content("notes.txt", b"mine");
    disk.set_content("0000000001.log.backup", b"mine");
    let (journal, _stepper) = Journal::open_stepped(disk.clone(), small()).unwrap();
    assert_eq!(state_of(&journal).unwrap().len(), 30);
    assert_eq!(disk.content("notes.txt").unwrap(), b"mine");
    assert_eq!(disk.content("0000000001.log.backup").unwrap(), b"mine");
}

#[test]
fn a_copy_that_lacks_any_segment_is_refused() {
    let disk = SimDisk::new(0);
    filled(&disk);
    let segments: Vec<_> = disk
        .contents()
        .into_keys()
        .filter(|name| name.ends_with(".log"))
        .collect();
    assert!(segments.len() > 3);
    for name in &segments {
        let copy = disk.copy();
        copy.take(name);
        let error = refusal(&copy);
        assert!(
            matches!(&error, OpenError::Missing { path } if path.ends_with(name)),
            "{error}"
        );
    }
}

#[test]
fn a_copy_with_a_shortened_segment_is_refused() {
    for check in [Check::Index, Check::Everything] {
        let disk = SimDisk::new(0);
        filled(&disk);
        let whole = disk.content("0000000002.log").unwrap();
        disk.set_content("0000000002.log", &whole[..whole.len() - 10]);
        let settings = Settings { check, ..small() };
        let error = Journal::open_stepped(disk.clone(), settings).unwrap_err();
        assert!(
            matches!(&error, OpenError::Damaged { path, .. } if path.ends_with("0000000002.log")),
            "{error}"
        );
    }
}

#[test]
fn segments_of_two_journals_are_refused() {
    let (one, other) = (SimDisk::new(0), SimDisk::new(1));
    filled(&one);
    filled(&other);
    one.set_content("0000000002.log", &other.content("0000000002.log").unwrap());
    let error = refusal(&one);
    assert!(matches!(&error, OpenError::Mixed { path, .. } if path.ends_with("0000000002.log")));
}

#[test]
fn damage_before_what_was_safe_names_its_place() {
    let disk = SimDisk::new(0);
    filled(&disk);
    let name = "0000000002.log";
    let mut bytes = disk.content(name).unwrap();
    // Within the first value behind the header.
    bytes[150] ^= 1;
    disk.set_content(name, &bytes);
    let error = refusal(&disk);
    assert!(
        matches!(&error, OpenError::Damaged { path, offset: 48 } if path.ends_with(name)),
        "{error}"
    );
}

#[test]
fn a_torn_tail_is_cut_off_and_counted() {
    let disk = SimDisk::new(0);
    filled(&disk);
    let name = disk
        .contents()
        .into_keys()
        .filter(|name| name.ends_with(".log"))
        .max()
        .unwrap();
    let mut bytes = disk.content(&name).unwrap();
    let whole = bytes.len();
    bytes.extend_from_slice(&[0x55; 77]);
    disk.set_content(&name, &bytes);
    let (journal, _stepper) = Journal::open_stepped(disk.clone(), small()).unwrap();
    assert_eq!(journal.stats().recovery.cut_bytes, 77);
    assert_eq!(state_of(&journal).unwrap().len(), 30);
    // The record that every opening writes.
    assert_eq!(disk.content(&name).unwrap().len(), whole + 24);
}

#[test]
fn a_full_disk_is_refused_and_can_be_opened_when_there_is_room() {
    let disk = SimDisk::new(0);
    filled(&disk);
    disk.plan(Fault::Full, 0);
    let error = Journal::open_stepped(disk.clone(), small()).unwrap_err();
    assert!(matches!(error, OpenError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    disk.restart(tidegate_testkit::disk::Loss::Process);
    let (journal, _stepper) = Journal::open_stepped(disk, small()).unwrap();
    assert_eq!(state_of(&journal).unwrap().len(), 30);
}

/// A disk that says that nothing can be written to it.
struct ReadOnly(SimDisk);

impl Disk for ReadOnly {
    fn folder(&self) -> &std::path::Path {
        self.0.folder()
    }
    fn lock(&self) -> std::io::Result<tidegate_base::disk::Lock> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn list(&self) -> std::io::Result<Vec<String>> {
        self.0.list()
    }
    fn open(
        &self,
        name: &str,
    ) -> std::io::Result<std::sync::Arc<dyn tidegate_base::disk::DiskFile>> {
        self.0.open(name)
    }
    fn create(
        &self,
        _: &str,
    ) -> std::io::Result<std::sync::Arc<dyn tidegate_base::disk::DiskFile>> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn rename(&self, _: &str, _: &str) -> std::io::Result<()> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn remove(&self, _: &str) -> std::io::Result<()> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn sync_folder(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_read_only_folder_is_refused() {
    let disk = SimDisk::new(0);
    filled(&disk);
    let error = Journal::open(ReadOnly(disk), small()).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
}

#[test]
fn damage_in_a_value_that_a_hint_skips_is_found_when_it_is_read() {
    let disk = SimDisk::new(0);
    filled(&disk);
    let mut bytes = disk.content("0000000001.log").unwrap();
    bytes[150] ^= 1;
    disk.set_content("0000000001.log", &bytes);
    let settings = Settings {
        check: Check::Index,
        ..small()
    };
    let (journal, _stepper) = Journal::open_stepped(disk, settings).unwrap();
    assert!(matches!(
        journal.read(Space(0), "0"),
        Err(JournalError::Damaged { .. })
    ));
    assert!(journal.read(Space(0), "29").is_ok());
    assert_eq!(journal.health(), Health::Running);
}

/// A folder of this test's own that is not there yet.
pub(super) fn folder(name: &str) -> PathBuf {
    let name = format!("tidegate-journal-{name}-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&folder);
    folder
}

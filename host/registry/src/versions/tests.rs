//! Over a disk that loses and refuses what a real one may.

use tidegate_testkit::disk::{Fault, Loss, SimDisk};

use super::*;

fn name() -> Name {
    Name::parse("counter").unwrap()
}

fn open(disk: &SimDisk) -> Versions {
    Versions::open(disk.clone(), 3).unwrap()
}

fn add(versions: &Versions, content: &[u8]) -> Result<u64, VersionsError> {
    let (version, change) = versions.add(&name(), content, Source::Upload, None)?;
    versions.settle(change);
    Ok(version.version)
}

/// The current version, and that all versions have their files.
fn current(versions: &Versions) -> Option<Vec<u8>> {
    let history = versions.history(&name()).unwrap()?;
    for version in history.versions() {
        versions.read(version).unwrap();
    }
    Some(versions.read(history.current()).unwrap())
}

fn components(disk: &SimDisk) -> usize {
    let names = disk.list().unwrap();
    names
        .iter()
        .filter(|name| digest_of(name).is_some())
        .count()
}

#[test]
fn what_was_added_is_there_after_a_restart() {
    let disk = SimDisk::new(1);
    let versions = open(&disk);
    assert_eq!(current(&versions), None);
    add(&versions, b"one").unwrap();
    add(&versions, b"two").unwrap();
    drop(versions);
    disk.restart(Loss::Power);
    let versions = open(&disk);
    assert_eq!(current(&versions), Some(b"two".to_vec()));
    let change = versions.switch(&name(), 1, None).unwrap();
    versions.settle(change);
    drop(versions);
    disk.restart(Loss::Power);
    assert_eq!(current(&open(&disk)), Some(b"one".to_vec()));
}

#[test]
fn files_go_when_no_version_refers_to_them() {
    let disk = SimDisk::new(1);
    let versions = open(&disk);
    let other = Name::parse("other").unwrap();
    let (_, change) = versions.add(&other, b"a", Source::Upload, None).unwrap();
    versions.settle(change);
    for content in [b"a", b"b", b"c", b"d", b"e"] {
        add(&versions, content).unwrap();
    }
    // c, d, e, and a for the other name.
    assert_eq!(components(&disk), 4);
    let change = versions.forget(&other).unwrap().unwrap();
    assert_eq!(components(&disk), 4, "it can be taken back");
    versions.settle(change);
    assert_eq!(components(&disk), 3);
    assert!(versions.forget(&other).unwrap().is_none());
}

#[test]
fn a_change_that_is_taken_back_leaves_all_as_it_was() {
    let disk = SimDisk::new(1);
    let versions = open(&disk);
    for content in [b"a", b"b", b"c"] {
        add(&versions, content).unwrap();
    }
    let before = versions.history(&name()).unwrap();
    let (_, change) = versions.add(&name(), b"d", Source::Upload, None).unwrap();
    // Another name's sweep must leave what the first may need again.
    let other = Name::parse("other").unwrap();
    let (_, settled) = versions.add(&other, b"x", Source::Upload, None).unwrap();
    versions.settle(settled);
    versions.undo(change).unwrap();
    assert_eq!(versions.history(&name()).unwrap(), before);
    assert_eq!(current(&versions), Some(b"c".to_vec()));
    let change = versions.forget(&name()).unwrap().unwrap();
    versions.undo(change).unwrap();
    drop(versions);
    disk.restart(Loss::Power);
    let versions = open(&disk);
    assert_eq!(versions.history(&name()).unwrap(), before);
    assert_eq!(current(&versions), Some(b"c".to_vec()));
}

#[test]
fn an_unknown_version_is_refused() {
    let disk = SimDisk::new(1);
    let versions = open(&disk);
    add(&versions, b"a").unwrap();
    let refused = versions.switch(&name(), 2, None).unwrap_err();
    assert_eq!(refused.to_string(), "there is no version 2 of `counter`");
}

/// Writes a file as somebody else would.
fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let file = disk.create(name).unwrap();
    write_all(&*file, bytes, 0).unwrap();
}

#[test]
fn a_damaged_file_is_never_handed_out_and_mended_by_an_upload() {
    let disk = SimDisk::new(1);
    let versions = open(&disk);
    add(&versions, b"good").unwrap();
    let version = versions
        .history(&name())
        .unwrap()
        .unwrap()
        .current()
        .clone();
    let file = file_of(&version.digest);
    for bytes in [&b"baad"[..], b"goo", b"good!", b""] {
        put(&disk, &file, bytes);
        let error = versions.read(&version).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }
    disk.remove(&file).unwrap();
    let error = versions.read(&version).unwrap_err().to_string();
    assert!(
        error.contains(&file) && error.contains("missing"),
        "{error}"
    );
    add(&versions, b"good").unwrap();
    assert_eq!(versions.read(&version).unwrap(), b"good");
}

fn refusal(disk: &SimDisk) -> String {
    let before = disk.list().unwrap();
    let Err(error) = Versions::open(disk.clone(), 3) else {
        panic!("the folder is used");
    };
    assert_eq!(disk.list().unwrap(), before, "nothing is changed");
    error.to_string()
}

#[test]
fn an_index_that_is_not_sound_is_refused_and_left_alone() {
    let disk = SimDisk::new(1);
    add(&open(&disk), b"a").unwrap();
    put(&disk, INDEX, b"tidegate components 1 ");
    assert!(refusal(&disk).contains("damaged"));
    put(&disk, INDEX, b"tidegate components 2 x\n");
    assert!(refusal(&disk).contains("format 2"));
    disk.remove(INDEX).unwrap();
    assert!(refusal(&disk).contains("missing"));
}

#[test]
fn a_folder_has_one_user() {
    let disk = SimDisk::new(1);
    let first = open(&disk);
    assert!(refusal(&disk).contains("in use by another process"));
    drop(first);
    open(&disk);
}

#[test]
fn other_files_are_left_alone() {
    let disk = SimDisk::new(1);
    drop(open(&disk));
    for name in ["notes.txt", "old.wasm", "notes.new"] {
        put(&disk, name, b"mine");
    }
    put(&disk, "index.new", b"half");
    let versions = open(&disk);
    add(&versions, b"a").unwrap();
    let names = disk.list().unwrap();
    for name in ["notes.txt", "old.wasm", "notes.new"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    assert!(!names.iter().any(|found| found == "index.new"), "{names:?}");
}

/// What happens to a name, one after the other; each step says what is current after it.
fn steps() -> Vec<(&'static str, Option<&'static [u8]>)> {
    vec![
        ("add one", Some(b"one")),
        ("add two", Some(b"two")),
        ("back to 1", Some(b"one")),
        ("add three", Some(b"three")),
        ("add four", Some(b"four")),
        ("refused", Some(b"four")),
        ("add five", Some(b"five")),
        ("forget", None),
        ("add one", Some(b"one")),
    ]
}

fn step(versions: &Versions, step: &str) -> Result<(), VersionsError> {
    match step.split_once(' ') {
        Some(("add", content)) => add(versions, content.as_bytes()).map(drop),
        Some(("back", _)) => {
            versions.settle(versions.switch(&name(), 1, None)?);
            Ok(())
        }
        _ if step == "forget" => {
            if let Some(change) = versions.forget(&name())? {
                versions.settle(change);
            }
            Ok(())
        }
        _ => {
            let (_, change) = versions.add(&name(), b"bad", Source::Upload, None)?;
            versions.undo(change)
        }
    }
}

/// Runs the steps until one fails, with what may be current after that.
fn run(disk: impl Disk) -> Vec<Option<&'static [u8]>> {
    let mut may_be = vec![None];
    let Ok(versions) = Versions::open(disk, 3) else {
        return may_be;
    };
    let mut told: Option<&[u8]> = None;
    for (what, then) in steps() {
        if step(&versions, what).is_ok() {
            told = then;
            may_be = vec![then];
            continue;
        }
        may_be.push(then);
        if what == "refused" {
            may_be.push(Some(b"bad"));
        } else {
            // Whoever is told of a failure sees what was before.
            let now = versions.history(&name()).unwrap();
            let now = now.map(|history| history.current().digest.clone());
            assert_eq!(now, told.map(Digest::of));
        }
        break;
    }
    may_be
}

#[test]
fn what_was_told_outlasts_any_fault_at_any_place() {
    let whole = SimDisk::new(0);
    run(whole.clone());
    let mut hit = 0;
    for fault in Fault::ALL {
        for after in 0..whole.calls() {
            for loss in [Loss::Process, Loss::Power] {
                let disk = SimDisk::new(after);
                disk.plan(fault, after);
                let may_be = run(disk.clone());
                hit += usize::from(disk.has_failed());
                disk.restart(loss);
                let found = current(&open(&disk));
                assert!(
                    may_be.contains(&found.as_deref()),
                    "{fault:?} after {after}, {loss:?}: expected one of {may_be:?}, found {found:?}"
                );
            }
        }
    }
    assert!(hit > 200, "the faults happened: {hit}");
}

/// A disk that says it has synced and has not.
struct Careless(SimDisk);

impl Disk for Careless {
    fn folder(&self) -> &std::path::Path {
        self.0.folder()
    }

    fn lock(&self) -> io::Result<Lock> {
        self.0.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.0.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn without_syncs_something_is_lost() {
    // That the test above could see it.
    let lost = (0..50).any(|seed| {
        let disk = SimDisk::new(seed);
        let may_be = run(Careless(disk.clone()));
        disk.restart(Loss::Power);
        let found = Versions::open(disk, 3).ok();
        let found = found.and_then(|versions| {
            let history = versions.history(&name()).unwrap()?;
            versions.read(history.current()).ok()
        });
        !may_be.contains(&found.as_deref())
    });
    assert!(lost);
}

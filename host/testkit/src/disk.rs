//! A disk in memory that loses what a real one may lose, for tests.
//!
//! What is written is seen by readers at once and is safe after a sync of the file; names
//! are safe after a sync of the folder. [`SimDisk::restart`] decides what is left of the
//! rest: after the end of a process all of it, after a loss of power any part of it, by
//! sectors of 512 bytes and by single changes of names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tidegate_base::disk::{Disk, DiskFile, Lock};
use tidegate_base::sync::{Mutex, MutexGuard};

use crate::dice::Rng;

const SECTOR: usize = 512;

/// What a disk does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine or the process stops within the next change.
    Crash,
    /// The next write writes less than it is given, and says so.
    ShortWrite,
    /// The next write finds no room for all of it, and no later one finds any.
    Full,
    /// The next write fails after a part of it.
    WriteError,
    /// The next sync of a file fails. What was written is lost, though readers see it until
    /// power is lost, and a later sync says that all is well.
    SyncError,
    /// The next sync of the folder fails.
    FolderSyncError,
    /// The next read fails.
    ReadError,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 7] = [
        Fault::Crash,
        Fault::ShortWrite,
        Fault::Full,
        Fault::WriteError,
        Fault::SyncError,
        Fault::FolderSyncError,
        Fault::ReadError,
    ];
}

/// What ends a life of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The process ends; the system lives on.
    Process,
    /// The machine loses power.
    Power,
}

#[derive(Clone, Debug, Default)]
struct Content {
    /// What readers see.
    seen: Vec<u8>,
    /// What outlasts a loss of power.
    safe: Vec<u8>,
    /// Sectors that a sync would make safe.
    dirty: BTreeSet<usize>,
    resized: bool,
}

fn sector(bytes: &[u8], number: usize) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let from = (number * SECTOR).min(bytes.len());
    let to = (from + SECTOR).min(bytes.len());
    sector[..to - from].copy_from_slice(&bytes[from..to]);
    sector
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.seen.len() {
            self.seen.resize(end, 0);
            self.resized = true;
        }
        self.seen[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR..=(end - 1) / SECTOR);
    }

    fn resize(&mut self, size: usize) {
        self.dirty
            .extend(size / SECTOR..self.seen.len().max(size).div_ceil(SECTOR));
        self.seen.resize(size, 0);
        self.resized = true;
    }

    /// Makes those dirty sectors safe that are chosen.
    fn settle(&mut self, mut chosen: impl FnMut() -> bool) {
        let longest = self.safe.len().max(self.seen.len());
        let mut safe = self.safe.clone();
        safe.resize(longest.next_multiple_of(SECTOR), 0);
        for number in &self.dirty {
            let from = number * SECTOR;
            if from < safe.len() && chosen() {
                safe[from..from + SECTOR].copy_from_slice(&sector(&self.seen, *number));
            }
        }
        let mut size = self.safe.len();
        if self.resized && chosen() {
            size = self.seen.len();
        }
        safe.truncate(size);
        self.safe = safe;
    }

    fn sync(&mut self) {
        self.settle(|| true);
        self.dirty.clear();
        self.resized = false;
    }

    fn lose_power(&mut self, rng: &mut Rng) {
        let share = [0, 20, 50, 90, 100][rng.below(5)];
        self.settle(|| rng.percent(share));
        // A length that grew may be anything in between.
        if self.resized && self.seen.len() > self.safe.len() && rng.percent(30) {
            let size = self.safe.len() + rng.below(self.seen.len() - self.safe.len());
            let garbage = rng.percent(20);
            self.safe
                .resize_with(size, || if garbage { rng.next_u64() as u8 } else { 0 });
        }
        self.seen = self.safe.clone();
        self.dirty.clear();
        self.resized = false;
    }
}

#[derive(Clone, Debug)]
enum Change {
    Named(String, u64),
    Renamed(String, String, u64),
    Removed(String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Named(name, file) => {
                names.insert(name.clone(), *file);
            }
            Change::Renamed(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Change::Removed(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct State {
    files: HashMap<u64, Content>,
    names: BTreeMap<String, u64>,
    safe_names: BTreeMap<String, u64>,
    changes: Vec<Change>,
    rng: Rng,
    calls: u64,
    fault: Option<(u64, Fault)>,
    full: bool,
    dead: bool,
    /// Counts restarts, so that locks and files of an earlier life have no effect.
    life: u64,
    locked: bool,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

fn failed(what: &'static str) -> io::Error {
    io::Error::other(what)
}

impl State {
    /// Begins a change. True if the machine stops within it.
    fn begin(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(failed("the machine is off"));
        }
        self.calls += 1;
        Ok(self.takes(&[Fault::Crash]).is_some_and(|_| {
            self.dead = true;
            true
        }))
    }

    /// The fault that is due, if it is one of these.
    fn takes(&mut self, faults: &[Fault]) -> Option<Fault> {
        match self.fault {
            Some((call, fault)) if self.calls >= call && faults.contains(&fault) => {
                self.fault = None;
                Some(fault)
            }
            _ => None,
        }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let crashes = self.begin()?;
        if crashes && self.rng.percent(50) {
            return Err(failed("the machine stops"));
        }
        change.apply(&mut self.names);
        self.changes.push(change);
        match crashes {
            true => Err(failed("the machine stops")),
            false => Ok(()),
        }
    }

    fn file(&self, name: &str) -> io::Result<u64> {
        if self.dead {
            return Err(failed("the machine is off"));
        }
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SimDisk {
    /// An empty disk whose accidents follow from the seed.
    pub fn new(seed: u64) -> SimDisk {
        let state = State {
            files: HashMap::new(),
            names: BTreeMap::new(),
            safe_names: BTreeMap::new(),
            changes: Vec::new(),
            rng: Rng::new(seed),
            calls: 0,
            fault: None,
            full: false,
            dead: false,
            life: 0,
            locked: false,
        };
        SimDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Another disk with the same content.
    pub fn copy(&self) -> SimDisk {
        let mut state = self.state().clone();
        state.locked = false;
        SimDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// How many changes it was asked for.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Plans a fault for the first change after so many that it fits.
    pub fn plan(&self, fault: Fault, after: u64) {
        let mut state = self.state();
        state.fault = Some((state.calls + after + 1, fault));
    }

    /// Whether the fault that was planned has happened.
    pub fn has_failed(&self) -> bool {
        self.state().fault.is_none()
    }

    /// Whether the machine has stopped.
    pub fn is_off(&self) -> bool {
        self.state().dead
    }

    /// Ends this life and begins the next, in which nothing is planned and there is room.
    pub fn restart(&self, loss: Loss) {
        let mut guard = self.state();
        let state = &mut *guard;
        if loss == Loss::Power {
            let share = [0, 30, 70, 100][state.rng.below(4)];
            for change in std::mem::take(&mut state.changes) {
                if state.rng.percent(share) {
                    change.apply(&mut state.safe_names);
                }
            }
            state.names = state.safe_names.clone();
            let mut numbers: Vec<u64> = state.files.keys().copied().collect();
            numbers.sort_unstable();
            for number in numbers {
                if let Some(content) = state.files.get_mut(&number) {
                    content.lose_power(&mut state.rng);
                }
            }
            let named: BTreeSet<u64> = state.names.values().copied().collect();
            state.files.retain(|number, _| named.contains(number));
        }
        state.fault = None;
        state.full = false;
        state.dead = false;
        state.locked = false;
        state.life += 1;
    }

    /// What a file holds.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files.get(state.names.get(name)?)?.seen.clone())
    }

    /// Puts a file there, safely.
    pub fn set_content(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let content = Content {
            seen: bytes.to_vec(),
            safe: bytes.to_vec(),
            ..Content::default()
        };
        let file = state.rng.next_u64();
        state.files.insert(file, content);
        state.names.insert(name.to_owned(), file);
        state.safe_names.insert(name.to_owned(), file);
    }

    /// Takes a file away, safely.
    pub fn take(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.safe_names.remove(name);
    }

    /// All files with their content.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let content = |file| state.files.get(file).map(|content| content.seen.clone());
        state
            .names
            .iter()
            .map(|(name, file)| (name.clone(), content(file).unwrap_or_default()))
            .collect()
    }
}

struct Held {
    disk: SimDisk,
    life: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locked = false;
        }
    }
}

impl Disk for SimDisk {
    fn folder(&self) -> &Path {
        Path::new("/simulated")
    }

    fn lock(&self) -> io::Result<Lock> {
        let mut state = self.state();
        if state.locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.locked = true;
        let life = state.life;
        drop(state);
        Ok(Lock::new(Held {
            disk: self.clone(),
            life,
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        if state.dead || state.takes(&[Fault::ReadError]).is_some() {
            return Err(failed("unreadable"));
        }
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let file = state.file(name)?;
        let life = state.life;
        drop(state);
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            file,
            life,
        }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = state.rng.next_u64();
        state.files.insert(file, Content::default());
        state.change(Change::Named(name.to_owned(), file))?;
        drop(state);
        self.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file(from)?;
        state.change(Change::Renamed(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(name)?;
        state.change(Change::Removed(name.to_owned()))
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut guard = self.state();
        let state = &mut *guard;
        let crashes = state.begin()?;
        let refuses = state.takes(&[Fault::FolderSyncError]).is_some();
        if !crashes && !refuses {
            state.changes.clear();
            state.safe_names = state.names.clone();
            return Ok(());
        }
        Err(failed("the folder was not synced"))
    }

    fn fresh_id(&self) -> io::Result<u64> {
        Ok(self.state().rng.next_u64())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: u64,
    life: u64,
}

impl SimFile {
    fn content<'s>(&self, state: &'s mut State) -> io::Result<&'s mut Content> {
        if state.life != self.life {
            return Err(failed("the file was opened in an earlier life"));
        }
        state
            .files
            .get_mut(&self.file)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        if state.dead || state.takes(&[Fault::ReadError]).is_some() {
            return Err(failed("unreadable"));
        }
        let content = self.content(&mut state)?;
        let rest = content.seen.get(offset as usize..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        let crashes = state.begin()?;
        let fault = state.takes(&[Fault::ShortWrite, Fault::Full, Fault::WriteError]);
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let part = match bytes.len() {
            0 => 0,
            length => state.rng.below(length),
        };
        let (written, result) = match fault {
            _ if crashes => (part, Err(failed("the machine stops"))),
            None => (bytes.len(), Ok(bytes.len())),
            Some(Fault::Full) => {
                state.full = true;
                match part {
                    0 => (0, Err(io::ErrorKind::StorageFull.into())),
                    part => (part, Ok(part)),
                }
            }
            Some(Fault::ShortWrite) => (part.max(1), Ok(part.max(1))),
            Some(_) => (part, Err(failed("the write failed"))),
        };
        let content = self.content(state)?;
        content.write(&bytes[..written.min(bytes.len())], offset as usize);
        result
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        if state.dead {
            return Err(failed("the machine is off"));
        }
        Ok(self.content(&mut state)?.seen.len() as u64)
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        let crashes = state.begin()?;
        let happens = !crashes || state.rng.percent(50);
        if happens {
            self.content(state)?.resize(size as usize);
        }
        match crashes {
            true => Err(failed("the machine stops")),
            false => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.disk.state();
        let state = &mut *guard;
        let crashes = state.begin()?;
        let refuses = state.takes(&[Fault::SyncError]).is_some();
        let mut rng = state.rng.clone();
        let _ = state.rng.next_u64();
        let content = self.content(state)?;
        if crashes {
            return Err(failed("the machine stops"));
        }
        if refuses {
            let share = [0, 50, 100][rng.below(3)];
            content.settle(|| rng.percent(share));
            content.dirty.clear();
            content.resized = false;
            return Err(failed("the sync failed"));
        }
        content.sync();
        Ok(())
    }
}

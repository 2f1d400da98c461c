//! Compiled components on disk, by the digest of their source.
//!
//! A cached file is machine code that this process would run, so it is taken only when
//! its own digest, written in front of it, still matches; anything else counts as absent.
//! The folder is private to its owner. Failures to read or write are logged and cost a
//! compilation, nothing more.
//!
//! A file's time of access is when it was loaded last. Beyond what may be kept the oldest go,
//! but never those of components that this process has loaded.

use std::collections::HashMap;
use std::fs;
use std::fs::FileTimes;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tidegate_base::sync::{Mutex, MutexGuard};
use tracing::{debug, warn};
use wasmtime::component::Component;

const DIGEST_BYTES: usize = 32;
/// What kept components end with.
const ENDING: &str = "cwasm";
/// What files end with that are being written.
const PART_ENDING: &str = "part";
/// When one of those was left by a process that has died.
const PART_AGE: Duration = Duration::from_secs(60 * 60);

pub(super) struct Cache {
    /// None when nothing is kept.
    folder: Option<PathBuf>,
    /// Names the engine's version and settings, which compiled code depends on.
    compatibility: u64,
    /// What the files may take together.
    max_bytes: u64,
    /// The files of components that are loaded.
    loaded: Mutex<HashMap<PathBuf, Weak<InUse>>>,
}

/// Keeps a component's file from being pruned.
#[derive(Debug)]
pub(super) struct InUse;

/// A file of the folder.
struct Kept {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    pub(super) fn open(folder: &Path, max_bytes: u64, engine: &wasmtime::Engine) -> Cache {
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let folder = (!folder.as_os_str().is_empty()).then(|| folder.to_owned());
        let folder = folder.filter(|folder| match make_private(folder) {
            Ok(()) => true,
            Err(error) => {
                warn!(folder = %folder.display(), %error, "compiled components are not kept");
                false
            }
        });
        Cache {
            folder,
            compatibility: hasher.finish(),
            max_bytes,
            loaded: Mutex::default(),
        }
    }

    fn loaded(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<InUse>>> {
        self.loaded.lock()
    }

    /// Keeps the file of the component with this digest, as long as this is held.
    pub(super) fn hold(&self, digest: &str) -> Arc<InUse> {
        let Some(path) = self.path(digest) else {
            return Arc::new(InUse);
        };
        let mut loaded = self.loaded();
        loaded.retain(|_, held| held.strong_count() > 0);
        if let Some(held) = loaded.get(&path).and_then(Weak::upgrade) {
            return held;
        }
        let held = Arc::new(InUse);
        loaded.insert(path, Arc::downgrade(&held));
        held
    }

    /// Removes what was not loaded for the longest time, until the rest is no more than may
    /// be kept.
    pub(super) fn prune(&self) {
        let Some(folder) = &self.folder else {
            return;
        };
        let mut kept = match look(folder) {
            Ok(kept) => kept,
            Err(error) => {
                warn!(folder = %folder.display(), %error, "compiled components are not pruned");
                return;
            }
        };
        let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        kept.sort_by_key(|kept| kept.used);
        for Kept {
            path, bytes: of_it, ..
        } in kept
        {
            if bytes <= self.max_bytes {
                return;
            }
            // Under the lock, so that it is not loaded in this very moment.
            let loaded = self.loaded();
            if loaded
                .get(&path)
                .is_some_and(|held| held.strong_count() > 0)
            {
                continue;
            }
            let removed = fs::remove_file(&path);
            drop(loaded);
            match removed {
                Ok(()) => {
                    debug!(path = %path.display(), "removed a compiled component");
                    bytes -= of_it;
                }
                // Another host that shares the folder was faster.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => bytes -= of_it,
                Err(error) => {
                    warn!(path = %path.display(), %error, "a compiled component is not removed");
                }
            }
        }
    }

    fn path(&self, digest: &str) -> Option<PathBuf> {
        let name = format!("{digest}-{:016x}.{ENDING}", self.compatibility);
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    /// The compiled form of the component with this digest, if it is kept and sound.
    pub(super) fn get(&self, engine: &wasmtime::Engine, digest: &str) -> Option<Component> {
        let mut bytes = Vec::new();
        let mut file = fs::File::open(self.path(digest)?).ok()?;
        file.read_to_end(&mut bytes).ok()?;
        // Only the order in which files are pruned depends on it.
        let _ = file.set_times(FileTimes::new().set_accessed(SystemTime::now()));
        let (sum, code) = bytes.split_at_checked(DIGEST_BYTES)?;
        if Sha256::digest(code).as_slice() != sum {
            warn!(
                digest,
                "a kept compiled component is damaged; compiling it again"
            );
            return None;
        }
        match load(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                warn!(digest, %error, "a kept compiled component does not load; compiling it again");
                None
            }
        }
    }

    /// Loads what was compiled just now, and keeps it.
    pub(super) fn put(
        &self,
        engine: &wasmtime::Engine,
        digest: &str,
        code: &[u8],
    ) -> wasmtime::Result<Component> {
        let component = load(engine, code)?;
        if let Some(path) = self.path(digest)
            && let Err(error) = write(&path, code)
        {
            warn!(path = %path.display(), %error, "a compiled component is not kept");
        }
        Ok(component)
    }
}

fn load(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are those that this program's compiler has written: they come from it
    // directly, or lie in a folder that only this user can write, under a name that fixes the
    // engine's version and settings, and their digest shows that they are as they were written.
    unsafe { Component::deserialize(engine, code) }
}

/// The kept components of a folder. Removes what was left half written.
fn look(folder: &Path) -> std::io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // It may be gone by now.
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let ending = path.extension().and_then(|ending| ending.to_str());
        match ending {
            Some(ENDING) => kept.push(Kept {
                bytes: metadata.len(),
                used: metadata.accessed()?,
                path,
            }),
            Some(PART_ENDING) => {
                let age = metadata.modified()?.elapsed().unwrap_or_default();
                if age > PART_AGE {
                    let _ = fs::remove_file(&path);
                }
            }
            _ => {}
        }
    }
    Ok(kept)
}

/// Makes the folder for this user alone, or checks that nobody else could have put a file
/// into one that is there.
fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let metadata = fs::metadata(folder)?;
    let own = fs::metadata("/proc/self")?.uid();
    if metadata.uid() != own || metadata.mode() & 0o022 != 0 {
        return Err(std::io::Error::other(
            "other users can write to the folder: expected one that is this user's alone",
        ));
    }
    Ok(())
}

fn write(path: &Path, code: &[u8]) -> std::io::Result<()> {
    static NEXT_PART: AtomicU64 = AtomicU64::new(0);
    // Two may be compiling the same component.
    let number = NEXT_PART.fetch_add(1, Ordering::Relaxed);
    let part = path.with_extension(format!("{}-{number}.{PART_ENDING}", std::process::id()));
    let written = fs::File::create(&part).and_then(|mut file| {
        file.write_all(&Sha256::digest(code))?;
        file.write_all(code)
    });
    let placed = written.and_then(|()| fs::rename(&part, path));
    if placed.is_err() {
        // It takes room that is perhaps what was missing.
        let _ = fs::remove_file(&part);
    }
    placed
}

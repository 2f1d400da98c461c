//! Components that outlast the process: the files of uploads, by digest, and which version
//! of each name serves.
//!
//! `host` asks a [`Catalog`] what to serve when it starts, `gateway` keeps there what operators
//! upload and switches between versions. [`Versions`] is one in a folder, which holds one file
//! `DIGEST.wasm` for each component and one file `index`, which is replaced as a whole: it stays
//! readable when the store is not, and is copied together with the files that it speaks of.
//!
//! Invariants: what the index refers to was safe on disk before the index was, and is
//! removed only after no index refers to it. A file that does not have its digest is never
//! handed out.

mod index;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_base::clock::system_ms;
use tidegate_base::disk::{Disk, DiskFile, Lock, read_all, write_all};
use tidegate_base::sync::{Mutex, MutexGuard};
use tidegate_core::Name;
use tracing::{error, warn};

pub use self::index::{Choice, Digest, History, Source, Version};
use self::index::{FORMAT, Index, Unreadable};
use crate::placement::Pending;

/// The file that says what there is.
const INDEX: &str = "index";
/// Ends the names of components.
const COMPONENT: &str = ".wasm";
/// Ends the names of files that are not finished.
const DRAFT: &str = ".new";

/// Why components cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum VersionsError {
    /// Another process has the folder.
    #[error(
        "{path} is in use by another process; stop that process, or choose another data folder",
        path = path.display()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A later version of the host wrote the index.
    #[error(
        "{path} has format {found}, and this version reads formats up to {FORMAT}; run the \
         version that wrote it, or a newer one",
        path = path.display()
    )]
    NewerFormat {
        /// The index.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The index is not as it was written, or not there while components are.
    #[error(
        "{path} cannot be used: {problem}; restore a back-up, or move the folder away to start \
         with what the application manifest names",
        path = path.display()
    )]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A component is not as it was written, or not there.
    #[error(
        "{path} {problem}; restore the file, deploy the component again, or choose another version",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No version of a name has this number.
    #[error("there is no version {version} of `{name}`")]
    Unknown {
        /// The component.
        name: Name,
        /// The number.
        version: u64,
    },
    /// The disk does not do what it is asked.
    #[error("cannot {doing} {path}: {error}", path = path.display())]
    Disk {
        /// What failed.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Where components and their versions are kept. What may wait for a disk or for others blocks the
/// thread: it is not called where tasks run.
pub trait Catalog: Send + Sync + 'static {
    /// All names with their versions, in order.
    fn all(&self) -> Result<Vec<(Name, History)>, VersionsError>;
    /// The versions of a name.
    fn history(&self, name: &Name) -> Result<Option<History>, VersionsError>;
    /// The file of a version.
    fn read(&self, version: &Version) -> Result<Vec<u8>, VersionsError>;
    /// Keeps a component as the newest and current version of the name. `manifest` is the
    /// file that the application manifest names now.
    fn add(
        &self,
        name: &Name,
        bytes: &[u8],
        source: Source,
        manifest: Option<Digest>,
    ) -> Result<(Version, Change), VersionsError>;
    /// Makes another version of the name the current one.
    fn switch(
        &self,
        name: &Name,
        version: u64,
        manifest: Option<Digest>,
    ) -> Result<Change, VersionsError>;
    /// Forgets a name with all its versions; none when it has none.
    fn forget(&self, name: &Name) -> Result<Option<Change>, VersionsError>;
    /// Ends a change that holds, and removes what nothing refers to any more.
    fn settle(&self, change: Change);
    /// Takes a change back.
    fn undo(&self, change: Change) -> Result<(), VersionsError>;
    /// Completes once another host has changed what serves, after this call.
    fn changed(&self) -> Pending<()>;
}

/// The versions of components on one disk, which no other host changes.
pub struct Versions {
    disk: Arc<dyn Disk>,
    limit: usize,
    state: Mutex<State>,
    _lock: Lock,
}

/// The versions, and what the application manifest names beside them.
pub struct Kept {
    /// The versions.
    pub versions: Box<dyn Catalog>,
    /// The files of the application manifest, by component.
    pub manifest: BTreeMap<Name, PathBuf>,
}

impl Kept {
    /// What the file that the application manifest names for a component holds now; none
    /// when there is no such file. Reads it, so it waits for the disk.
    pub fn manifest_digest(&self, name: &Name) -> Option<Digest> {
        let content = std::fs::read(self.manifest.get(name)?).ok()?;
        Some(Digest::of(&content))
    }
}

struct State {
    index: Index,
    /// What names with a [`Change`] under way had before it.
    before: BTreeMap<Name, Option<History>>,
}

/// A change that is safe on disk and can be taken back still: [`Versions::settle`] or
/// [`Versions::undo`] ends it. A name has one at a time.
#[must_use]
#[derive(Debug)]
pub struct Change {
    name: Name,
}

impl Versions {
    /// Opens the folder, and removes what was not finished in it. Keeps at most `limit`
    /// versions of a name.
    ///
    /// # Errors
    ///
    /// Another process has the folder, the index is damaged or of a newer format, or the
    /// disk does not let it be used. Nothing is changed then.
    pub fn open(disk: impl Disk, limit: usize) -> Result<Versions, VersionsError> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let folder = || disk.folder().to_owned();
        let lock = disk.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => VersionsError::Locked { path: folder() },
            _ => VersionsError::Disk {
                doing: "lock",
                path: folder(),
                error,
            },
        })?;
        let names = disk.list().map_err(|error| VersionsError::Disk {
            doing: "read",
            path: folder(),
            error,
        })?;
        let mut versions = Versions {
            disk,
            limit,
            state: Mutex::new(State {
                index: Index::default(),
                before: BTreeMap::new(),
            }),
            _lock: lock,
        };
        let index = match names.iter().any(|name| name == INDEX) {
            true => versions.read_index()?,
            false if names.iter().any(|name| digest_of(name).is_some()) => {
                return Err(VersionsError::Index {
                    path: versions.path(INDEX),
                    problem: "it is missing, while there are components".to_owned(),
                });
            }
            // Written before the first component, so that one that is missing is noticed.
            false => {
                versions.write_index(&Index::default())?;
                Index::default()
            }
        };
        let state = versions.state.get_mut();
        state.index = index;
        versions.sweep(&versions.state());
        Ok(versions)
    }

    fn begin(&self, state: &mut State, name: &Name, index: Index) -> Result<Change, VersionsError> {
        if let Err(error) = self.write_index(&index) {
            // The new one may be there all the same, under a name that is not safe yet.
            match self.write_index(&state.index) {
                Ok(()) => self.sweep(state),
                Err(error) => {
                    error!(%error, "which components the next start serves is uncertain");
                }
            }
            return Err(error);
        }
        let before = state.index.history(name).cloned();
        state.index = index;
        state.before.insert(name.clone(), before);
        Ok(Change { name: name.clone() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.folder().join(name)
    }

    fn read_index(&self) -> Result<Index, VersionsError> {
        let path = || self.path(INDEX);
        let text = self.disk.open(INDEX).and_then(|file| read_all(&*file));
        let text = text.map_err(|error| VersionsError::Disk {
            doing: "read",
            path: path(),
            error,
        })?;
        Index::parse(&text).map_err(|unreadable| match unreadable {
            Unreadable::Newer(found) => VersionsError::NewerFormat {
                path: path(),
                found,
            },
            Unreadable::Damaged(problem) => VersionsError::Index {
                path: path(),
                problem: format!("it is damaged ({problem})"),
            },
        })
    }

    fn write_index(&self, index: &Index) -> Result<(), VersionsError> {
        self.write(INDEX, index.to_text().as_bytes())
    }

    fn read_component(&self, digest: &Digest, bytes: u64) -> Result<Vec<u8>, VersionsError> {
        let name = file_of(digest);
        let damaged = |problem: &str| VersionsError::Damaged {
            path: self.path(&name),
            problem: problem.to_owned(),
        };
        let read = || {
            let file = self.disk.open(&name)?;
            // Not to read a large file that cannot be the one.
            match file.size()? == bytes {
                true => read_all(&*file).map(Some),
                false => Ok(None),
            }
        };
        match read() {
            Ok(Some(content)) if Digest::of(&content) == *digest => Ok(content),
            Ok(_) => Err(damaged("is damaged: it does not have its digest")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(damaged("is missing")),
            Err(error) => Err(damaged(&format!("cannot be read ({error})"))),
        }
    }

    /// Puts a whole file in the place of what may have had its name; safe when it returns.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), VersionsError> {
        let draft = format!("{name}{DRAFT}");
        let drafted = || {
            let file: Arc<dyn DiskFile> = self.disk.create(&draft)?;
            write_all(&*file, bytes, 0)?;
            file.sync()?;
            self.disk.rename(&draft, name)
        };
        if let Err(error) = drafted() {
            // It may take the room that is missing.
            let _ = self.disk.remove(&draft);
            return Err(self.failed("write", name, error));
        }
        let synced = self.disk.sync_folder();
        synced.map_err(|error| self.failed("sync the folder of", name, error))
    }

    fn failed(&self, doing: &'static str, name: &str, error: io::Error) -> VersionsError {
        let path = self.path(name);
        VersionsError::Disk { doing, path, error }
    }

    /// Removes components that neither the index nor a change under way refers to, and
    /// drafts. What cannot be removed is tried again by the next opening.
    fn sweep(&self, state: &State) {
        let before = state.before.values().flatten();
        let before = before.flat_map(|history| history.versions());
        let before = before.map(|version| &version.digest);
        let needed: BTreeSet<&Digest> = state.index.digests().chain(before).collect();
        let names = match self.disk.list() {
            Ok(names) => names,
            Err(error) => return warn!(%error, "components that are not needed stay on disk"),
        };
        let is_surplus = |name: &&String| match name.strip_suffix(DRAFT) {
            Some(name) => name == INDEX || digest_of(name).is_some(),
            None => digest_of(name).is_some_and(|digest| !needed.contains(&digest)),
        };
        for name in names.iter().filter(is_surplus) {
            if let Err(error) = self.disk.remove(name) {
                let path = self.path(name);
                warn!(path = %path.display(), %error, "a file that is not needed stays on disk");
            }
        }
    }
}

impl Catalog for Versions {
    fn all(&self) -> Result<Vec<(Name, History)>, VersionsError> {
        let state = self.state();
        let all = state.index.all();
        Ok(all
            .map(|(name, history)| (name.clone(), history.clone()))
            .collect())
    }

    fn history(&self, name: &Name) -> Result<Option<History>, VersionsError> {
        Ok(self.state().index.history(name).cloned())
    }

    fn read(&self, version: &Version) -> Result<Vec<u8>, VersionsError> {
        self.read_component(&version.digest, version.bytes)
    }

    fn add(
        &self,
        name: &Name,
        bytes: &[u8],
        source: Source,
        manifest: Option<Digest>,
    ) -> Result<(Version, Change), VersionsError> {
        let version = Version {
            version: 0,
            digest: Digest::of(bytes),
            bytes: bytes.len() as u64,
            deployed_ms: system_ms(),
            source,
            withdrawn: false,
        };
        let mut state = self.state();
        if self.read_component(&version.digest, version.bytes).is_err() {
            self.write(&file_of(&version.digest), bytes)?;
        }
        let mut index = state.index.clone();
        let version = index.add(name, version, manifest, self.limit);
        Ok((version, self.begin(&mut state, name, index)?))
    }

    fn switch(
        &self,
        name: &Name,
        version: u64,
        manifest: Option<Digest>,
    ) -> Result<Change, VersionsError> {
        let mut state = self.state();
        let mut index = state.index.clone();
        if !index.switch(name, version, manifest) {
            let name = name.clone();
            return Err(VersionsError::Unknown { name, version });
        }
        self.begin(&mut state, name, index)
    }

    fn forget(&self, name: &Name) -> Result<Option<Change>, VersionsError> {
        let mut state = self.state();
        let mut index = state.index.clone();
        if index.history(name).is_none() {
            return Ok(None);
        }
        index.restore(name, None);
        self.begin(&mut state, name, index).map(Some)
    }

    fn settle(&self, change: Change) {
        let mut state = self.state();
        state.before.remove(&change.name);
        self.sweep(&state);
    }

    fn undo(&self, change: Change) -> Result<(), VersionsError> {
        let mut state = self.state();
        let Some(before) = state.before.remove(&change.name) else {
            return Ok(());
        };
        let mut index = state.index.clone();
        index.restore(&change.name, before);
        self.write_index(&index)?;
        state.index = index;
        self.sweep(&state);
        Ok(())
    }

    fn changed(&self) -> Pending<()> {
        Box::pin(std::future::pending())
    }
}

fn file_of(digest: &Digest) -> String {
    format!("{}{COMPONENT}", digest.as_str())
}

fn digest_of(name: &str) -> Option<Digest> {
    Digest::parse(name.strip_suffix(COMPONENT)?)
}

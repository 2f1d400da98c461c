//! A data folder that a start has made: gone again when the start fails, because nobody was
//! served from it, and nothing in it is worth anything.
//!
//! Invariant: a folder that was there before, and what another process has put into one, stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_registry::versions::Kept;
use tidegate_store::Store;
use tracing::warn;

/// Removes what it names when it is dropped, unless it is told to keep it.
pub(super) struct Fresh {
    /// None when the folder was there.
    folder: Option<PathBuf>,
    /// The key file, if this start has made it.
    key: Option<PathBuf>,
    /// The folders that this process has a lock on, and what holds the lock: so that nobody
    /// else uses them while they are removed.
    locked: Vec<(PathBuf, Holder)>,
}

#[expect(dead_code, reason = "what is in it is held, not used")]
enum Holder {
    Store(Arc<dyn Store>),
    Versions(Arc<Kept>),
}

impl Fresh {
    /// Looks whether the data folder is there; before anything is made in it.
    pub(super) fn note(data_dir: &Path) -> Fresh {
        Fresh {
            folder: (fs::symlink_metadata(data_dir).is_err()).then(|| data_dir.to_owned()),
            key: None,
            locked: Vec::new(),
        }
    }

    /// This start has made the key file.
    pub(super) fn made_key(&mut self, path: &Path) {
        self.key = Some(path.to_owned());
    }

    /// This start has opened the store, and has it to itself.
    pub(super) fn opened_store(&mut self, path: PathBuf, store: Arc<dyn Store>) {
        self.locked.push((path, Holder::Store(store)));
    }

    /// This start has opened the folder of components, and has it to itself.
    pub(super) fn opened_versions(&mut self, path: PathBuf, kept: &Arc<Kept>) {
        self.locked.push((path, Holder::Versions(kept.clone())));
    }

    /// The start has succeeded.
    pub(super) fn keep(mut self) {
        self.folder = None;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else {
            return;
        };
        let removed = || -> std::io::Result<()> {
            for (path, _) in &self.locked {
                fs::remove_dir_all(path)?;
            }
            if let Some(key) = self.key.as_ref().filter(|key| key.starts_with(&folder)) {
                fs::remove_file(key)?;
            }
            match fs::remove_dir(&folder) {
                // It was never made, or is somebody else's by now.
                Err(error) if is_no_matter(&error) => Ok(()),
                removed => removed,
            }
        };
        if let Err(error) = removed() {
            let folder = folder.display();
            warn!(%folder, %error, "what was made for a start that has failed is left behind");
        }
    }
}

fn is_no_matter(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    matches!(error.kind(), DirectoryNotEmpty | NotFound)
}

//! What all jobs of a run share: the program under test, where things are, and how long and
//! how often to measure.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::disk::{Folder, Then};
use crate::jobs::Attack;
use crate::load::closed::Window;

/// A run.
pub(crate) struct Bench {
    /// The `tidegate` binary.
    pub(crate) server: PathBuf,
    /// Where the handlers' `.wasm` files are.
    pub(crate) handlers: PathBuf,
    /// Where the peers are, and what npm has installed for them.
    pub(crate) peers: PathBuf,
    pub(crate) scale: Scale,
    /// Of the job `hostile`, these alone, if any are named.
    pub(crate) attacks: Vec<Attack>,
    folder: Folder,
    folders: AtomicU32,
    then: Then,
}

/// How much to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// What is published.
    Full,
    /// Whether everything works, and about how fast.
    Quick,
}

impl Scale {
    /// One of two, by the scale.
    pub(crate) fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Scale::Full => full,
            Scale::Quick => quick,
        }
    }

    /// How often each contestant has its turn.
    pub(crate) fn rounds(self) -> usize {
        self.pick(3, 1)
    }

    /// How long one of its turns is.
    pub(crate) fn window(self) -> Window {
        let (warm_up, measured) = self.pick((400, 1_600), (200, 500));
        Window {
            warm_up: Duration::from_millis(warm_up),
            measured: Duration::from_millis(measured),
        }
    }
}

impl Bench {
    /// A run whose files are in a folder of their own in `parent`, of which `then` is done.
    pub(crate) fn new(
        server: PathBuf,
        handlers: PathBuf,
        peers: PathBuf,
        parent: &Path,
        scale: Scale,
        then: Then,
    ) -> Result<Bench> {
        let name = format!("tidegate-bench-{}", std::process::id());
        Ok(Bench {
            server,
            handlers,
            peers,
            scale,
            attacks: Vec::new(),
            folder: Folder::new(parent.join(name), then)?,
            folders: AtomicU32::new(0),
            then,
        })
    }

    /// A new folder on the disk under test.
    pub(crate) fn folder(&self, name: &str) -> Result<Folder> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("{name}-{number}"));
        Folder::new(path, self.then)
    }

    /// Where all hosts of the run keep compiled components.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.folder.path().join("compiled")
    }
}

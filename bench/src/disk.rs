//! The disk: folders for the servers, their sizes, and what it does without any server.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::load::recorder::Latencies;

/// A folder that is removed with its owner, unless it is to be kept.
pub(crate) struct Folder {
    path: PathBuf,
    then: Then,
}

/// What becomes of folders that are no longer used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Remove,
    /// To look at what servers have logged.
    Keep,
}

impl Folder {
    /// Makes one with this name.
    pub(crate) fn new(path: PathBuf, then: Then) -> Result<Folder> {
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Folder { path, then })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.then == Then::Remove {
            // What stays behind in a folder of temporary files harms nobody.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The lengths of all files of a folder whose names end so, together.
pub(crate) fn bytes_in(folder: &Path, ending: &str) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Removes the files of a folder whose names end so; gives how many.
pub(crate) fn remove_in(folder: &Path, ending: &str) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            fs::remove_file(entry.path())?;
            count += 1;
        }
    }
    Ok(count)
}

/// What appending and syncing in a loop does.
pub(crate) struct Syncs {
    /// A second.
    pub(crate) rate: f64,
    pub(crate) latencies: Latencies,
}

/// Appends records of this length to a file in `folder`, and syncs each.
pub(crate) fn raw_syncs(folder: &Path, record: usize, time: Duration) -> Result<Syncs> {
    let path = folder.join("raw");
    let mut file = File::create(&path)?;
    let bytes = vec![7; record];
    let mut latencies = Latencies::new();
    let began = Instant::now();
    while began.elapsed() < time {
        let one = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        latencies.record(one.elapsed());
    }
    let rate = latencies.count() as f64 / began.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(Syncs { rate, latencies })
}

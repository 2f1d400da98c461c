//! The file that the keys of tokens come from, read again when it changes.
//!
//! Invariant: there are always usable keys. A changed file that is not usable leaves the
//! old ones in force.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, Guard};
use sha2::{Digest, Sha256};
use tidegate_base::sync::Mutex;
use tracing::{info, warn};

use super::AuthError;
use super::keys::{Format, Keys};

/// Longest key file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// An unknown key may have the file looked at this often, if the interval is longer.
const FORCED_INTERVAL_MS: u64 = 1_000;

/// A file that changed this short a time before it was read may change again without its
/// metadata showing it.
const SETTLING_NS: i128 = 2_000_000_000;

/// One key file and what it last held.
pub(super) struct KeyFile {
    path: PathBuf,
    format: Format,
    keys: ArcSwap<Keys>,
    opened: Instant,
    interval_ms: u64,
    /// When the file was last looked at, in milliseconds since `opened`.
    looked_ms: AtomicU64,
    seen: Mutex<Seen>,
}

/// What was last found, usable or not, so that each change is told once.
struct Seen {
    /// The metadata, if the file cannot have changed without them.
    stamp: Option<Stamp>,
    content: Result<[u8; 32], io::ErrorKind>,
}

#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    inode: (u64, u64),
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Stamp {
        Stamp {
            inode: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_nanos() as i128);
        let (seconds, nanoseconds) = self.changed;
        now - (i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)) > SETTLING_NS
    }
}

impl KeyFile {
    /// Reads the file for the first time.
    pub(super) fn open(
        setting: &'static str,
        path: &Path,
        format: Format,
        interval_ms: u64,
    ) -> Result<KeyFile, AuthError> {
        let (stamp, bytes) = read(path).map_err(|error| AuthError::File {
            setting,
            action: "read",
            path: path.to_owned(),
            error,
        })?;
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.mode());
        if format.is_secret() && mode & 0o077 != 0 {
            let path = path.display();
            warn!(%path, "others on this machine may read the secret that tokens are signed with");
        }
        let keys = Keys::parse(&format, &bytes).map_err(|problem| AuthError::Key {
            setting,
            path: path.to_owned(),
            problem,
        })?;
        Ok(KeyFile {
            path: path.to_owned(),
            format,
            keys: ArcSwap::from_pointee(keys),
            opened: Instant::now(),
            interval_ms,
            looked_ms: AtomicU64::new(0),
            seen: Mutex::new(Seen {
                stamp: stamp.is_settled().then_some(stamp),
                content: Ok(Sha256::digest(&bytes).into()),
            }),
        })
    }

    /// Time since the file was opened, for the functions below.
    pub(super) fn uptime_ms(&self) -> u64 {
        self.opened.elapsed().as_millis() as u64
    }

    /// The keys in force; looks at the file first when it is time to. That is one look at
    /// the file's metadata, and reading a small file when it has changed.
    pub(super) fn keys(&self, now_ms: u64) -> Guard<Arc<Keys>> {
        self.look_after(self.interval_ms, now_ms);
        self.keys.load()
    }

    /// The keys in force, looked at again sooner, for a token whose key is not among them.
    pub(super) fn newest_keys(&self, now_ms: u64) -> Guard<Arc<Keys>> {
        self.look_after(self.interval_ms.min(FORCED_INTERVAL_MS), now_ms);
        self.keys.load()
    }

    fn look_after(&self, interval_ms: u64, now_ms: u64) {
        let looked = self.looked_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(looked) < interval_ms {
            return;
        }
        let mine =
            self.looked_ms
                .compare_exchange(looked, now_ms, Ordering::Relaxed, Ordering::Relaxed);
        if mine.is_ok() {
            self.look();
        }
    }

    fn look(&self) {
        let mut seen = self.seen.lock();
        let stamp = fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata));
        if seen.stamp.is_some() && stamp.ok() == seen.stamp {
            return;
        }
        let path = self.path.display();
        let found = read(&self.path);
        let content = match &found {
            Ok((_, bytes)) => Ok(Sha256::digest(bytes).into()),
            Err(error) => Err(error.kind()),
        };
        let is_news = content != seen.content;
        *seen = Seen {
            stamp: match &found {
                Ok((stamp, _)) => stamp.is_settled().then_some(*stamp),
                Err(_) => None,
            },
            content,
        };
        if !is_news {
            return;
        }
        let keys = found
            .map_err(|error| error.to_string())
            .and_then(|(_, bytes)| Keys::parse(&self.format, &bytes));
        match keys {
            Ok(keys) => {
                self.keys.store(Arc::new(keys));
                info!(%path, "the keys of tokens have changed");
            }
            Err(problem) => {
                warn!(%path, %problem, "the keys of tokens have changed and are not usable: the old ones stay in force");
            }
        }
    }
}

/// Reads a key file whole, with the metadata that it then had.
fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    // Before it is opened, which waits for ever if it is a pipe.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("expected a file"));
    }
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("expected at most {MAX_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok((stamp, bytes))
}

//! What is asked of a folder of files, and the real one.
//!
//! Everything that the journal and the versions of components do to a disk goes through [`Disk`] and [`DiskFile`], so
//! that a simulated disk can fail at each of these calls.

use std::any::Any;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder that holds the files of one owner.
pub trait Disk: Send + Sync + 'static {
    /// What messages call it.
    fn folder(&self) -> &Path;
    /// Keeps others out until the answer is dropped. [`io::ErrorKind::WouldBlock`] when
    /// somebody else does so already.
    fn lock(&self) -> io::Result<Lock>;
    /// The names of its files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// A new, empty file in the place of what may have had this name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, at once and in the place of what may have had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all that was created, renamed and removed outlast a loss of power.
    fn sync_folder(&self) -> io::Result<()>;
    /// A number that no other journal has.
    fn fresh_id(&self) -> io::Result<u64> {
        getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
    }
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Reads what is at an offset, perhaps less than is asked for; nothing at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at an offset, perhaps less than is given.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Cuts or extends it.
    fn resize(&self, size: u64) -> io::Result<()>;
    /// Makes its content, and the length that is needed to read it, outlast a loss of power.
    fn sync(&self) -> io::Result<()>;
}

/// Keeps others out of a folder while it lives.
pub struct Lock {
    _held: Box<dyn Any + Send + Sync>,
}

impl Lock {
    /// A lock that ends with this value.
    pub fn new(held: impl Any + Send + Sync) -> Lock {
        Lock {
            _held: Box::new(held),
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

/// The name of the file that is locked beside the folder itself.
pub const LOCK: &str = "lock";

/// How often the lock's file is made anew when somebody removes it while it is being locked.
const LOCK_TRIES: usize = 16;

/// A real folder.
#[derive(Debug)]
pub struct FolderDisk {
    folder: PathBuf,
}

impl FolderDisk {
    /// A folder at this path, made with its parents if it is not there.
    pub fn new(folder: impl Into<PathBuf>) -> io::Result<FolderDisk> {
        let folder = folder.into();
        if !folder.is_dir() {
            let parents: Vec<_> = folder.ancestors().collect();
            let there = parents.iter().position(|parent| parent.is_dir());
            fs::create_dir_all(&folder)?;
            // Each new folder is named in the one above it.
            for parent in &parents[1..=there.unwrap_or(0)] {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(FolderDisk { folder })
    }
}

impl FolderDisk {
    /// Locks the file for this: where a folder cannot be locked it is all there is, and earlier
    /// versions lock nothing else.
    fn lock_file(&self) -> io::Result<File> {
        let path = self.folder.join(LOCK);
        for _ in 0..LOCK_TRIES {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            // Whoever comes next locks what has the name then.
            let held = file.metadata()?;
            let is_held =
                |named: fs::Metadata| (named.dev(), named.ino()) == (held.dev(), held.ino());
            if fs::metadata(&path).is_ok_and(is_held) {
                return Ok(file);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Disk for FolderDisk {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn lock(&self) -> io::Result<Lock> {
        // A lock on the folder holds whatever becomes of the file.
        let folder = File::open(&self.folder)?;
        let folder = match folder.try_lock() {
            Ok(()) => Some(folder),
            Err(fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            // Some file systems (NFS) only lock what is open for writing, which a folder never is.
            Err(fs::TryLockError::Error(_)) => None,
        };
        Ok(Lock::new((folder, self.lock_file()?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.folder.join(name);
        Ok(Arc::new(
            OpenOptions::new().read(true).write(true).open(path)?,
        ))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.folder.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Writes all of the bytes at an offset.
pub fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads up to so many bytes at an offset; fewer only at the end of the file.
pub fn read(file: &dyn DiskFile, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Reads a whole file.
pub fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
    read(file, 0, size)
}

//! Compiled components on disk, by the digest of their source.
//!
//! A cached file is machine code that this process would run, so it is taken only when
//! its own digest, written in front of it, still matches; anything else counts as absent.
//! The folder is private to its owner. Failures to read or write are logged and cost a
//! compilation, nothing more.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tracing::warn;
use wasmtime::component::Component;

const DIGEST_BYTES: usize = 32;

pub(super) struct Cache {
    /// None when nothing is kept.
    folder: Option<PathBuf>,
    /// Names the engine's version and settings, which compiled code depends on.
    compatibility: u64,
}

impl Cache {
    pub(super) fn open(folder: &Path, engine: &wasmtime::Engine) -> Cache {
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
        }
    }

    fn path(&self, digest: &str) -> Option<PathBuf> {
        let name = format!("{digest}-{:016x}.cwasm", self.compatibility);
        self.folder.as_ref().map(|folder| folder.join(name))
    }

    /// The compiled form of the component with this digest, if it is kept and sound.
    pub(super) fn get(&self, engine: &wasmtime::Engine, digest: &str) -> Option<Component> {
        let bytes = fs::read(self.path(digest)?).ok()?;
        let (sum, code) = bytes.split_at_checked(DIGEST_BYTES)?;
        if Sha256::digest(code).as_slice() != sum {
            warn!(
                digest,
                "a kept compiled component is damaged; compiling it again"
            );
            return None;
        }
        // SAFETY: the bytes come from `put` below: they lie in a folder that only this
        // user can write, under a name that fixes the engine's version and settings, and
        // their digest shows that they are as they were written.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => Some(component),
            Err(error) => {
                warn!(digest, %error, "a kept compiled component does not load; compiling it again");
                None
            }
        }
    }

    /// Keeps a compiled component.
    pub(super) fn put(&self, digest: &str, component: &Component) {
        let Some(path) = self.path(digest) else {
            return;
        };
        if let Err(error) = write(&path, component) {
            warn!(path = %path.display(), %error, "a compiled component is not kept");
        }
    }
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

fn write(
    path: &Path,
    component: &Component,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let code = component
        .serialize()
        .map_err(wasmtime::Error::into_boxed_dyn_error)?;
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let mut file = fs::File::create(&part)?;
    file.write_all(&Sha256::digest(&code))?;
    file.write_all(&code)?;
    drop(file);
    fs::rename(&part, path)?;
    Ok(())
}

//! Compiled components, kept in a folder between runs, since every test starts a host of
//! its own.
//!
//! Invariant: what is loaded was written by this program under this name, which fixes the
//! component, the engine's version and its settings.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::{Config, Engine};

use crate::server::as_anyhow;

/// An engine and what it has compiled before.
pub(crate) struct Compiled {
    engine: Engine,
    folder: Option<PathBuf>,
}

impl Compiled {
    /// Keeps what is compiled in the folder, if there is one.
    pub(crate) fn new(folder: Option<PathBuf>) -> anyhow::Result<Compiled> {
        let engine = Engine::new(&Config::new()).map_err(as_anyhow)?;
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Compiled { engine, folder })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Loads a component, compiling it unless that was done before.
    pub(crate) fn load(&self, file: &Path) -> anyhow::Result<Component> {
        let bytes =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let kept = self.folder.as_ref().map(|folder| {
            let mut engine = DefaultHasher::new();
            self.engine
                .precompile_compatibility_hash()
                .hash(&mut engine);
            let digest: String = Sha256::digest(&bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            folder.join(format!("{digest}-{:016x}.cwasm", engine.finish()))
        });
        if let Some(kept) = kept.as_ref().filter(|kept| kept.exists()) {
            // SAFETY: the file was put there below, by a rename of what was wholly written,
            // from what an engine of this version and these settings had compiled.
            let component = unsafe { Component::deserialize_file(&self.engine, kept) };
            return component.map_err(as_anyhow);
        }
        let component = Component::new(&self.engine, &bytes).map_err(as_anyhow)?;
        if let Some(kept) = kept {
            let part = kept.with_extension(format!("{}.part", std::process::id()));
            std::fs::write(&part, component.serialize().map_err(as_anyhow)?)?;
            std::fs::rename(part, kept)?;
        }
        Ok(component)
    }
}

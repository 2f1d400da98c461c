//! Components that are compiled for the processor that valgrind plays, which has fewer instructions
//! than the machine's. A host under valgrind cannot have them compiled: it begins another process
//! of the program that it is, and that is valgrind. So this program compiles them with the host's
//! own engine, under valgrind too, into the folder where that host looks for them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tidegate_engine::config;
use tidegate_engine::{Compiling, Engine, Grants};

use crate::bench::Bench;
use crate::server::{HANDLERS, uncounted};

/// Has all that a run calls compiled into the folder that its hosts share.
pub(crate) async fn for_valgrind(bench: &Bench) -> Result<()> {
    let program = std::env::current_exe().context("this program's path")?;
    let mut command = uncounted(&program);
    command
        .arg("--compile-into")
        .arg(bench.compiled())
        .arg("--handlers")
        .arg(&bench.handlers);
    let output = command.kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "compiling under valgrind: {said}");
    Ok(())
}

/// Compiles it, as the process that was begun for that.
pub(crate) async fn all_into(folder: &Path, handlers: &Path) -> Result<()> {
    let settings = config::Engine {
        cache_dir: folder.to_owned(),
        ..config::Engine::default()
    };
    let engine = Engine::new(&settings, Compiling::InThisProcess, Arc::default());
    let engine = engine.map_err(|error| anyhow::anyhow!("{error:#}"))?;
    for name in HANDLERS {
        let file = handlers.join(name).with_extension("wasm");
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        engine.load(name, bytes, Grants::default()).await?;
    }
    Ok(())
}

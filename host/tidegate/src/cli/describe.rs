//! `tidegate describe`: loads a component as a host would and prints its manifest.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tidegate_core::printable;
use tidegate_engine::{Compiling, Engine, Grants};

use super::{Settings, print};

#[derive(clap::Args)]
pub(crate) struct Describe {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

impl Describe {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = self.settings.effective()?.config;
        let file = self.file.display();
        let bytes = std::fs::read(&self.file).with_context(|| format!("cannot read {file}"))?;
        let engine = Engine::new(&config.engine, Compiling::InOthers, Arc::default())
            .map_err(|error| anyhow::anyhow!("the WebAssembly engine does not start: {error:#}"))?;
        let grants = Grants {
            limits: config.component,
            ..Grants::default()
        };
        let name = self.file.file_stem().unwrap_or_default().to_string_lossy();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let component = runtime
            .block_on(engine.load(&name, bytes, grants))
            .with_context(|| format!("{file} is refused"))?;
        let manifest = serde_json::to_string_pretty(component.manifest.source())?;
        Ok(print(&(printable::json(&manifest) + "\n"))?)
    }
}

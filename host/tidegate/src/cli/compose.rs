//! `tidegate compose`: a handler as a Spin HTTP application, or the component that serves
//! event streams beside it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tidegate::compose::{Pieces, compose, unheeded};

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(crate) struct Compose {
    /// The handler, a WASI component.
    #[arg(value_name = "HANDLER", group = "what")]
    handler: Option<PathBuf>,
    /// Writes the component that serves event streams instead; it needs no handler.
    #[arg(long, group = "what")]
    events: bool,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

impl Compose {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let composite = match &self.handler {
            Some(handler) => composite(handler)?,
            None => tidegate_spin_pieces::EVENTS.to_owned(),
        };
        write(&self.output, &composite)
            .with_context(|| format!("cannot write {}", self.output.display()))
    }
}

fn composite(handler: &Path) -> anyhow::Result<Vec<u8>> {
    let file = handler.display();
    let bytes = std::fs::read(handler).with_context(|| format!("cannot read {file}"))?;
    let pieces = Pieces {
        shim: tidegate_spin_pieces::SHIM,
        gateway: tidegate_spin_pieces::GATEWAY,
    };
    let composite = compose(&bytes, pieces).with_context(|| format!("{file} is refused"))?;
    for note in unheeded(&bytes)? {
        eprintln!("note: {file}: {note}");
    }
    Ok(composite)
}

/// In one step, so that whoever reads the file meanwhile sees all of the old one or of the
/// new one.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder)?;
    }
    let part = path.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, path)
}

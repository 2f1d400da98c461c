//! `tidegate import`: brings the actors of an export to a running host.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::Deserialize;
use ureq::SendBody;
use ureq::http::Method;

use super::print;
use super::progress::Upload;
use super::remote::Remote;

#[derive(clap::Args)]
pub(crate) struct Import {
    /// What `tidegate export` has written.
    file: PathBuf,
    #[command(flatten)]
    remote: Remote,
    /// Replaces actors that are there already.
    #[arg(long)]
    replace: bool,
}

#[derive(Deserialize)]
struct Imported {
    imported: u64,
}

impl Import {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let shown = self.file.display();
        let cannot_read = || format!("cannot read {shown}");
        let file = File::open(&self.file).with_context(cannot_read)?;
        let about = file.metadata().with_context(cannot_read)?;
        if !about.is_file() {
            bail!("cannot read {shown}: not a file");
        }
        let client = self.remote.client()?;
        let query = if self.replace { "?replace=true" } else { "" };
        let mut body = Upload::new(file, about.len());
        let request = client
            .request(Method::POST, &format!("/_tidegate/import{query}"))
            .header("content-type", "application/x-ndjson")
            .header("content-length", about.len())
            .body(SendBody::from_reader(&mut body))?;
        let answer = client.send(request);
        body.end();
        let Imported { imported } = answer?.json()?;
        Ok(print(&format!("imported {imported} actors\n"))?)
    }
}

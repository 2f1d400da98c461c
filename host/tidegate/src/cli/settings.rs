//! `tidegate settings`: the page `docs/settings.md`, on standard output.

use tidegate::config::page;

use super::print;

#[derive(clap::Args)]
pub(crate) struct Settings;

impl Settings {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        Ok(print(&page::markdown())?)
    }
}

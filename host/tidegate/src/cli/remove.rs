//! `tidegate remove`: takes a component off a running host.

use ureq::http::Method;

use super::print;
use super::remote::{Remote, component_path, forced};

#[derive(clap::Args)]
pub(crate) struct Remove {
    /// What the host calls the component.
    name: String,
    #[command(flatten)]
    remote: Remote,
    /// Removes it even while its actors are live.
    #[arg(long)]
    force: bool,
}

impl Remove {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.remote.client()?;
        let path = component_path(&self.name) + forced(self.force);
        client.send(client.request(Method::DELETE, &path).body(())?)?;
        Ok(print(&format!("removed {}\n", self.name))?)
    }
}

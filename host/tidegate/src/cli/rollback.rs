//! `tidegate rollback`: lets an earlier version of a component serve.

use serde::Deserialize;
use serde_json::json;
use ureq::http::Method;

use super::print;
use super::remote::{Remote, component_path, forced, short};

#[derive(clap::Args)]
pub(crate) struct Rollback {
    /// What the host calls the component.
    name: String,
    /// The version that is to serve [default: the one before that which serves].
    version: Option<u64>,
    #[command(flatten)]
    remote: Remote,
    /// Goes back also when actors are live that the other version has no type for.
    #[arg(long)]
    force: bool,
}

/// What the host serves now.
#[derive(Deserialize)]
struct RolledBack {
    name: String,
    version: u64,
    digest: String,
    replaced: Option<String>,
}

impl Rollback {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.remote.client()?;
        let path = component_path(&self.name) + "/rollback" + forced(self.force);
        let body = match self.version {
            Some(version) => json!({"version": version}),
            None => json!({}),
        };
        let request = client
            .request(Method::POST, &path)
            .header("content-type", "application/json")
            .body(body.to_string())?;
        let now: RolledBack = client.send(request)?.json()?;
        let fate = match &now.replaced {
            Some(old) => format!("replaced {}", short(old)),
            None => "unchanged".to_owned(),
        };
        let (name, version, digest) = (&now.name, now.version, short(&now.digest));
        Ok(print(&format!(
            "{name} is at version {version} {digest} ({fate})\n"
        ))?)
    }
}

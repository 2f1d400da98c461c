//! `cargo xtask up`: the examples, served by a release build of the host.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::handlers;
use crate::project::{self, Project};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: String,
    /// More arguments for `tidegate up`, after `--`.
    #[arg(last = true, value_name = "ARGUMENTS")]
    more: Vec<String>,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    handlers::build(project, handlers::Which::Examples)?;
    project::run(&mut project.cargo(["build", "--release", "--package", "tidegate"]))?;
    let host = project.artefacts().join("release/tidegate");
    let failed = project
        .program(&host, ["up", "--manifest", "spin.toml"])
        .args(["--listen", &arguments.listen])
        .args(&arguments.more)
        // The host takes this process's place, so that signals reach it.
        .exec();
    Err(failed).with_context(|| format!("starting {}", host.display()))
}

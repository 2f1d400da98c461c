//! `cargo xtask torture`: kills hosts that work, and counts what is lost. The work is done
//! by an example of the end-to-end tests.

use anyhow::Result;

use crate::handlers;
use crate::project::{self, Project};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often the host is killed while it works.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Chooses the moments of the kills; another one each time when absent.
    #[arg(long)]
    seed: Option<u64>,
    /// How safe commits are; with `none` much is lost, and this fails.
    #[arg(long, default_value = "strict", value_parser = ["strict", "relaxed", "none"])]
    durability: String,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    handlers::build(project, handlers::Which::All)?;
    project::run(&mut project.cargo(["build", "--workspace", "--all-targets"]))?;
    let seed = arguments.seed.unwrap_or_else(seed_of_now);
    run_built(project, arguments.rounds, seed, &arguments.durability)
}

/// Runs what was built before.
pub(crate) fn run_built(project: &Project, rounds: u64, seed: u64, level: &str) -> Result<()> {
    let program = project.artefacts().join("debug/examples/torture");
    let arguments = [&rounds.to_string(), &seed.to_string(), level];
    project::run(&mut project.program(program, arguments))
}

/// A seed that is hardly ever the same.
pub(crate) fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_micros() as u64 % 1_000_000)
}

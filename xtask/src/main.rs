//! The project's chores, run as `cargo xtask CHORE`.
//!
//! Each chore is a module: it says which programs to run, and `project` runs them at the
//! workspace root and names the one that failed.

mod bench;
mod compose;
mod handlers;
mod npm;
mod project;
mod test;
mod tidy;
mod torture;
mod up;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The project's chores.")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Builds every handler component into target/handlers/NAME.wasm.
    Handlers,
    /// Composes the examples into components for Spin, target/spin/NAME.wasm.
    Compose,
    /// Builds the examples and the host in release, and serves spin.toml.
    Up(up::Arguments),
    /// Measures the release build of the host beside floors.
    Bench(bench::Arguments),
    /// Kills hosts at random moments of their work and counts what is lost: nothing.
    Torture(torture::Arguments),
    /// Checks rules that no compiler knows: openings, module style, imports, the map.
    Tidy,
    /// Checks everything: format, lints, docs, unit, doc and end-to-end tests.
    Test(test::Arguments),
}

fn main() -> anyhow::Result<()> {
    let project = project::Project::find()?;
    match Arguments::parse().chore {
        Chore::Handlers => handlers::build(&project, handlers::Which::All),
        Chore::Compose => compose::run(&project),
        Chore::Up(arguments) => up::run(&project, &arguments),
        Chore::Bench(arguments) => bench::run(&project, &arguments),
        Chore::Torture(arguments) => torture::run(&project, &arguments),
        Chore::Tidy => tidy::run(&project),
        Chore::Test(arguments) => test::run(&project, &arguments),
    }
}

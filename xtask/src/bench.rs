//! `cargo xtask bench`: builds the host, the handlers and the load generator, and runs the
//! jobs. What they measure is in `docs/performance.md`.

use anyhow::Result;

use crate::handlers;
use crate::project::{self, Project};

/// Where the results of a full run are kept, and those of any other.
const PUBLISHED: &str = "bench/results/latest.json";
const PROVISIONAL: &str = "bench/results/provisional.json";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure, such as `rpc` or `durable`; everything when absent.
    jobs: Vec<String>,
    /// Measures little, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Measures the dev build, to see that everything works.
    #[arg(long)]
    dev: bool,
    /// A folder on the disk to measure on; the system's for temporary files when absent.
    #[arg(long, value_name = "DIR")]
    folder: Option<std::path::PathBuf>,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    handlers::build(project, handlers::Which::Benchmarks)?;
    let mut build = project.cargo(["build", "--workspace", "--bins"]);
    let profile = match arguments.dev {
        true => "debug",
        false => {
            build.arg("--release");
            "release"
        }
    };
    project::run(&mut build)?;
    let whole = arguments.jobs.is_empty() && !arguments.quick && !arguments.dev;
    let output = if whole { PUBLISHED } else { PROVISIONAL };
    let program = project.artefacts().join(profile).join("tidegate-bench");
    let mut bench = project.program(program, &arguments.jobs);
    bench.args(["--output", output]);
    if arguments.quick {
        bench.arg("--quick");
    }
    if let Some(folder) = &arguments.folder {
        bench.arg("--folder").arg(folder);
    }
    project::run(&mut bench)
}

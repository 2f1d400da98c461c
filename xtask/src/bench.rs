//! `cargo xtask bench`: builds the host, the handlers and the load generator, installs the
//! peers, and runs the jobs. What they measure is in `docs/performance.md`.

use anyhow::{Context, Result};

use crate::handlers;
use crate::npm;
use crate::project::{self, Project};

/// The servers of others, and the jobs that measure them.
const PEERS: &str = "bench/peers";
const JOBS_WITH_PEERS: [&str; 6] = ["actors", "durable", "fanout", "idle", "limit", "rpc"];
/// The job that counts with valgrind, which is not part of a run of everything.
const JOB_WITH_VALGRIND: &str = "instructions";
/// The pages that show the results of a full run: a short table, and everything.
const SUMMARY: &str = "README.md";
const TABLES: &str = "docs/performance.md";
/// Where the results of a full run are kept, and those of any other.
const PUBLISHED: &str = "bench/results/latest.json";
const PROVISIONAL: &str = "bench/results/provisional.json";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure, such as `rpc` or `durable`; everything but `instructions` when absent.
    jobs: Vec<String>,
    /// Measures little, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Measures the dev build, to see that everything works.
    #[arg(long)]
    dev: bool,
    /// Leaves the servers' files in the folder, with what they have logged.
    #[arg(long)]
    keep: bool,
    /// A folder on the disk to measure on; the system's for temporary files when absent.
    #[arg(long, value_name = "DIR")]
    folder: Option<std::path::PathBuf>,
}

pub(crate) fn run(project: &Project, arguments: &Arguments) -> Result<()> {
    find_valgrind(project, &arguments.jobs)?;
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
    install_peers(project, &arguments.jobs);
    let whole = arguments.jobs.is_empty() && !arguments.quick && !arguments.dev;
    let output = if whole { PUBLISHED } else { PROVISIONAL };
    let program = project.artefacts().join(profile).join("tidegate-bench");
    let mut bench = project.program(program, &arguments.jobs);
    bench.args(["--output", output, "--peers", PEERS]);
    if whole {
        bench.args(["--summary", SUMMARY, "--tables", TABLES]);
    }
    if arguments.quick {
        bench.arg("--quick");
    }
    if arguments.keep {
        bench.arg("--keep");
    }
    if let Some(folder) = &arguments.folder {
        bench.arg("--folder").arg(folder);
    }
    project::run(&mut bench)
}

/// Looks for valgrind, where a job wants it, before anything is built.
fn find_valgrind(project: &Project, jobs: &[String]) -> Result<()> {
    if jobs.iter().any(|job| job == JOB_WITH_VALGRIND) {
        let version = project::text_of(&mut project.program("valgrind", ["--version"]));
        version.context(
            "`instructions` counts with valgrind: install the system's package `valgrind`, as with \
             `apt install valgrind` or `dnf install valgrind`",
        )?;
    }
    Ok(())
}

/// Installs the peers, where a job wants them. Without npm, or a registry, the host is measured
/// beside its floors alone, and the generator says who is missing.
fn install_peers(project: &Project, jobs: &[String]) {
    let wanted = |job: &String| JOBS_WITH_PEERS.contains(&job.as_str());
    if !jobs.is_empty() && !jobs.iter().any(wanted) {
        return;
    }
    if let Err(error) = npm::install(project, &project.root().join(PEERS)) {
        eprintln!("the peers could not be installed: {error:#}");
    }
}

//! What the host costs: jobs that start servers, load them, and print each figure beside
//! floors and peers that were measured in the same run. `docs/performance.md` says what each measures.
//!
//! `cargo xtask bench` builds all that this needs and runs it.

mod bench;
mod compile;
mod disk;
mod floor;
mod jobs;
mod load;
mod profile;
mod report;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;

use bench::{Bench, Scale};
use disk::Then;
use jobs::{Attack, Job};
use load::crowd;
use load::dialect::Dialect;
use report::{Machine, Report, Table};
use server::{Allocator, Floor};

#[derive(Parser)]
#[command(about = "Measures the host beside floors and peers.")]
struct Arguments {
    /// What to measure; everything but `instructions` when absent.
    #[arg(value_enum)]
    jobs: Vec<Job>,
    /// Of the job `hostile`, these attacks; all when absent.
    #[arg(long, value_enum, value_name = "NAME")]
    attack: Vec<Attack>,
    /// Measures little, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// The host; the one that was built with this program when absent.
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// The folder of the handlers' .wasm files.
    #[arg(long, value_name = "DIR", default_value = "target/handlers")]
    handlers: PathBuf,
    /// The folder of the peers. Those that are not installed there are not measured.
    #[arg(long, value_name = "DIR", default_value = "bench/peers")]
    peers: PathBuf,
    /// A folder on the disk to measure on; the system's for temporary files when absent.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Leaves the servers' files there, with what they have logged.
    #[arg(long)]
    keep: bool,
    /// Where the results go as JSON; the plot goes beside it, as SVG.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A page whose region `bench` gets a short table of the results and the plot.
    #[arg(long, value_name = "FILE", requires = "output")]
    summary: Option<PathBuf>,
    /// A page whose region `bench` gets all tables.
    #[arg(long, value_name = "FILE")]
    tables: Option<PathBuf>,
    /// Serves as a floor, until killed.
    #[arg(long, hide = true, value_enum)]
    serve: Option<Floor>,
    /// Measures bare wasmtime, without a server.
    #[arg(long, hide = true, value_enum, requires = "number")]
    bare: Option<Allocator>,
    /// Compiles the handlers into this folder.
    #[arg(long, hide = true, value_name = "DIR")]
    compile_into: Option<PathBuf>,
    /// Opens connections to this server and holds them, until its input ends.
    #[arg(long, hide = true, value_name = "ADDRESS", requires_all = ["dialect", "first", "number"])]
    crowd: Option<SocketAddr>,
    /// How that server wants messages.
    #[arg(long, hide = true, value_enum)]
    dialect: Option<Dialect>,
    /// The number of the first connection.
    #[arg(long, hide = true)]
    first: Option<usize>,
    /// How many instances to measure bare wasmtime with, or how many connections to hold.
    #[arg(long, hide = true)]
    number: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(floor) = arguments.serve {
        return floor::serve(floor);
    }
    if let (Some(allocator), Some(number)) = (arguments.bare, arguments.number) {
        return floor::measure_bare(&arguments.handlers, allocator, number);
    }
    // One thread, so that the server has the other core.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let numbers = (arguments.first, arguments.number);
    if let (Some(server), Some(dialect)) = (arguments.crowd, arguments.dialect)
        && let (Some(first), Some(number)) = numbers
    {
        let number = usize::try_from(number)?;
        return runtime.block_on(crowd::hold(server, dialect, first..first + number));
    }
    if let Some(folder) = &arguments.compile_into {
        return runtime.block_on(compile::all_into(folder, &arguments.handlers));
    }
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> Result<()> {
    let scale = match arguments.quick {
        true => Scale::Quick,
        false => Scale::Full,
    };
    let server = match arguments.server {
        Some(server) => server,
        None => std::env::current_exe()?.with_file_name("tidegate"),
    };
    anyhow::ensure!(server.exists(), "{} is missing", server.display());
    let folder = arguments.folder.unwrap_or_else(std::env::temp_dir);
    let profile = match cfg!(debug_assertions) {
        true => "dev",
        false => "release",
    };
    let publishes = arguments.summary.is_some() || arguments.tables.is_some();
    anyhow::ensure!(
        !publishes
            || (arguments.jobs.is_empty()
                && arguments.attack.is_empty()
                && scale == Scale::Full
                && profile == "release"),
        "pages show nothing but a full run of the release build"
    );
    let then = match arguments.keep {
        true => Then::Keep,
        false => Then::Remove,
    };
    let (handlers, peers) = (arguments.handlers, arguments.peers);
    let mut bench = Bench::new(server, handlers, peers, &folder, scale, then)?;
    bench.attacks = arguments.attack;
    let jobs = match arguments.jobs.as_slice() {
        [] => Job::all().collect(),
        jobs => jobs.to_vec(),
    };
    let machine = Machine::this();
    println!("{}; {profile} build", machine.line());
    let began = Instant::now();
    let mut tables = Vec::new();
    for job in jobs {
        let began = Instant::now();
        let name = job.name();
        let made = job.run(&bench).await.with_context(|| name.clone())?;
        for table in &made {
            println!("\n{}", table.markdown());
        }
        println!("({name} took {} s)", began.elapsed().as_secs());
        tables.extend(made);
    }
    println!("\nall took {} s", began.elapsed().as_secs());
    let peers = server::versions(&bench.peers);
    let report = Report {
        machine: &machine,
        peers: &peers,
        tables: &tables,
    };
    if let Some(output) = &arguments.output {
        let results = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "profile": profile,
            "scale": scale.pick("full", "quick"),
            "finishedMs": now_ms(),
            "machine": machine.json(),
            "peers": peers,
            "jobs": tables.iter().map(job_json).collect::<serde_json::Map<_, _>>(),
        });
        let plot = output.with_extension("svg");
        write(output, &(serde_json::to_string_pretty(&results)? + "\n"))?;
        write(&plot, &report.plot())?;
        println!("results are in {} and {}", output.display(), plot.display());
        if let Some(page) = &arguments.summary {
            replace_region(page, &report.summary(&plot)?)?;
        }
    }
    if let Some(page) = &arguments.tables {
        replace_region(page, &report.tables())?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// Puts a text into the region `bench` of a page.
fn replace_region(page: &Path, text: &str) -> Result<()> {
    let old =
        std::fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let new = report::with_region(&old, text).with_context(|| page.display().to_string())?;
    write(page, &new)
}

fn job_json(table: &Table) -> (String, serde_json::Value) {
    (table.job().to_owned(), table.json())
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

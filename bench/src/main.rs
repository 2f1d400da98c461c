//! What the host costs: jobs that start servers, load them, and print each figure beside a
//! floor that was measured in the same run. `docs/performance.md` says what each measures.
//!
//! `cargo xtask bench` builds all that this needs and runs it.

mod bench;
mod disk;
mod floor;
mod jobs;
mod load;
mod report;
mod server;

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;

use bench::{Bench, Scale};
use jobs::Job;
use report::{Machine, Table};
use server::Floor;

#[derive(Parser)]
#[command(about = "Measures the host beside floors.")]
struct Arguments {
    /// What to measure; everything when absent.
    #[arg(value_enum)]
    jobs: Vec<Job>,
    /// Measures little, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// The host; the one that was built with this program when absent.
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,
    /// The folder of the handlers' .wasm files.
    #[arg(long, value_name = "DIR", default_value = "target/handlers")]
    handlers: PathBuf,
    /// A folder on the disk to measure on; the system's for temporary files when absent.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Where the results go as JSON.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Serves as a floor, until killed.
    #[arg(long, hide = true, value_enum)]
    serve: Option<Floor>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(floor) = arguments.serve {
        return floor::serve(floor);
    }
    // One thread, so that the server has the other core.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
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
    let bench = Bench::new(server, arguments.handlers, &folder, scale)?;
    let jobs = match arguments.jobs.as_slice() {
        [] => Job::all().to_vec(),
        jobs => jobs.to_vec(),
    };
    let machine = Machine::this();
    let profile = match cfg!(debug_assertions) {
        true => "dev",
        false => "release",
    };
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
    if let Some(output) = arguments.output {
        let results = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "profile": profile,
            "scale": scale.pick("full", "quick"),
            "finishedMs": now_ms(),
            "machine": machine.json(),
            "jobs": tables.iter().map(job_json).collect::<serde_json::Map<_, _>>(),
        });
        let text = serde_json::to_string_pretty(&results)? + "\n";
        std::fs::write(&output, text).with_context(|| format!("writing {}", output.display()))?;
        println!("results are in {}", output.display());
    }
    Ok(())
}

fn job_json(table: &Table) -> (String, serde_json::Value) {
    (table.job().to_owned(), table.json())
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as u64)
}

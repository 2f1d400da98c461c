//! `spin-host`: serves a Spin application manifest as `spin up` does, as far as the tests of
//! this project need it, where no Spin is to be had.
//!
//! It offers WASI 0.2 with `wasi:http`, `fermyon:spin/sqlite` over real SQLite,
//! `fermyon:spin/variables`, routes, and requests between components of the application. It
//! reads nothing else of a manifest: Spin's other stores, triggers, files and limits are not
//! here.

mod bindings;
mod compiled;
mod guest;
mod manifest;
mod outbound;
mod server;
mod sqlite;
mod variables;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;

use crate::compiled::Compiled;
use crate::server::Server;

#[derive(Parser)]
#[command(about = "Serves a Spin application manifest, as far as tests need it.")]
struct Arguments {
    /// The application manifest.
    #[arg(long, value_name = "FILE", default_value = "spin.toml")]
    manifest: PathBuf,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Where databases are kept [default: .spin beside the manifest].
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where compiled components are kept; nowhere when absent.
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let beside = arguments.manifest.parent().unwrap_or(Path::new(""));
    let state = arguments.state_dir.unwrap_or_else(|| beside.join(".spin"));
    // As Spin does, which looks for it where it is started.
    let file = std::fs::read_to_string(".env").unwrap_or_default();
    let given = |name: &str| std::env::var(name).ok().or_else(|| in_file(&file, name));
    let application = manifest::read(&arguments.manifest, given)?;
    let server = Server::new(application, &state, &Compiled::new(arguments.cache_dir)?)?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    // The one line on standard output that scripts wait for.
    println!("listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    Ok(server.serve(listener).await?)
}

/// The value of `NAME=value` in a file of such lines.
fn in_file(text: &str, name: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let found = lines.find(|(found, _)| found.trim() == name);
    found.map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

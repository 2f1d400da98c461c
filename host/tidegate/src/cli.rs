//! The commands of the binary, one file each: its arguments and what it does with them.
//!
//! `main` picks the command. Invariants: what a script reads goes to standard output, all
//! else to standard error; a command that fails says why in one sentence and ends with 1.

mod compile;
mod components;
mod compose;
mod config;
mod deploy;
mod describe;
mod export;
mod import;
mod log;
mod new;
mod progress;
mod remote;
mod remove;
mod rollback;
mod settings;
mod token;
mod up;
mod versions;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tidegate::config::{Effective, Layers};
use tidegate_base::config::ConfigError;
pub(crate) use up::Up;

#[derive(Parser)]
#[command(
    name = "tidegate",
    version,
    about = "A realtime application server for WASI components"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serves the handlers of an application manifest.
    Up(Up),
    /// Shows the settings that hold, and where each comes from.
    Config(config::Config),
    /// Shows what a component says of itself: its manifest, as JSON.
    Describe(describe::Describe),
    /// Uploads a component to a running host, or lists the versions that it keeps.
    Deploy(deploy::Deploy),
    /// Lists the components of a running host.
    Components(components::Components),
    /// Removes a component from a running host.
    Remove(remove::Remove),
    /// Lets an earlier version of a component serve.
    Rollback(rollback::Rollback),
    /// Writes all actors of a running host to standard output, as a back-up.
    Export(export::Export),
    /// Brings the actors of a back-up to a running host.
    Import(import::Import),
    /// Makes a handler a component that Spin serves over HTTP.
    Compose(compose::Compose),
    /// Makes a folder with a new handler.
    New(new::New),
    /// Mints a token for development.
    Token(token::Token),
    /// Writes the page of all settings, as Markdown.
    #[command(hide = true)]
    Settings(settings::Settings),
    /// Compiles a component for the process that has begun this one.
    #[command(name = tidegate_engine::COMPILE_COMMAND, hide = true)]
    Compile(compile::Compile),
}

/// The arguments that settings come from.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// One setting, such as actors.idle-timeout-ms=60000; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    words: Vec<String>,
}

impl Settings {
    fn layers(&self) -> Result<Layers, ConfigError> {
        let mut layers = Layers::new();
        if let Some(file) = &self.config {
            layers = layers.file(file)?;
        }
        layers.variables(std::env::vars_os())?.words(&self.words)
    }

    /// What holds; what is odd goes to standard error.
    fn effective(&self) -> Result<Effective, ConfigError> {
        let effective = self.layers()?.resolve()?;
        for warning in &effective.warnings {
            eprintln!("tidegate: warning: {warning}");
        }
        Ok(effective)
    }
}

/// An error and what it comes from, in one sentence. A cause that is in what was said already
/// is not said again.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut said, cause| {
        let cause = cause.to_string();
        if said.is_empty() {
            return cause;
        }
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
        said
    })
}

/// Writes to standard output. A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

//! The command line of the host.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tidegate::application;
use tidegate::config::Config;
use tidegate::host::Host;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(
    name = "tidegate",
    version,
    about = "A realtime application server for WASI components"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the handlers of an application manifest.
    Up(Up),
}

#[derive(clap::Args)]
struct Up {
    /// The application manifest.
    #[arg(long, value_name = "FILE", default_value = "spin.toml")]
    manifest: PathBuf,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:3000].
    #[arg(long, value_name = "ADDRESS", env = "TIDEGATE_LISTEN")]
    listen: Option<SocketAddr>,
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// One setting, such as actors.idle-timeout-ms=60000; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// The form of the log on standard error; RUST_LOG says how much of it.
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    log: LogForm,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

fn main() -> ExitCode {
    let Command::Up(up) = Arguments::parse().command;
    start_log(up.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(serve(up));
            // A guest that is still computing does not keep the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(form: LogForm) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match form {
        LogForm::Text => log.init(),
        LogForm::Json => log.json().init(),
    }
}

async fn serve(up: Up) -> anyhow::Result<()> {
    let mut config = Config::load(up.config.as_deref(), &up.settings)?;
    if let Some(listen) = up.listen {
        config.gateway.listen = listen;
    }
    let handlers = application::read(&up.manifest, &config.component)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let host = tokio::select! {
        host = Host::start(config, handlers) => host?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    // The one line on standard output: scripts wait for it.
    println!("listening on http://{}", host.address());
    std::io::stdout().flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping; interrupt again to stop at once");
    tokio::select! {
        () = host.stop() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

//! The `tidegate` binary: reads the command line and runs what it asks for.

mod cli;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use cli::{Arguments, Command, Up};
use tidegate::application;
use tidegate::host::Host;
use tidegate_core::printable;
use tidegate_engine::Compiling;
use tokio::signal::unix::{SignalKind, signal};

/// Of the allocators at hand the one that costs a call least.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ignore_file_size_signal();
    let result = match Arguments::parse().command {
        Command::Compile(compile) => return compile.run(),
        Command::Up(up) => up.run(serve),
        Command::Config(config) => config.run(),
        Command::Describe(describe) => describe.run(),
        Command::Deploy(deploy) => deploy.run(),
        Command::Components(components) => components.run(),
        Command::Remove(remove) => remove.run(),
        Command::Rollback(rollback) => rollback.run(),
        Command::Export(export) => export.run(),
        Command::Import(import) => import.run(),
        Command::Compose(compose) => compose.run(),
        Command::New(new) => new.run(),
        Command::Token(token) => token.run(),
        Command::Settings(settings) => settings.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Some of it may be what another host, or a component, says.
            eprintln!(
                "{}",
                printable::lines(&format!("tidegate: {}", cli::sentence(&error)))
            );
            ExitCode::FAILURE
        }
    }
}

/// Has a file that may not grow (`RLIMIT_FSIZE`) fail the write, as a full disk does, rather than
/// end the process: the store stops, and says so.
fn ignore_file_size_signal() {
    // SAFETY: to ignore a signal needs no handler, and nothing else runs yet.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

async fn serve(up: Up) -> anyhow::Result<()> {
    let config = up.config()?;
    let handlers = application::read(&up.manifest, &config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let host = tokio::select! {
        host = Host::start(config, handlers, Compiling::InOthers) => host?,
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

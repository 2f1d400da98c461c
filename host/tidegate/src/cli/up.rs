//! `tidegate up`: its arguments, its log and its runtime; `main` has what it serves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tidegate::config::Config;
use tidegate_base::memory;

use super::Settings;
use super::log::{self, LogForm};

/// The host's own folder beside the application manifest.
const DATA_FOLDER: &str = ".tidegate";

#[derive(clap::Args)]
pub(crate) struct Up {
    /// The application manifest.
    #[arg(long, value_name = "FILE", default_value = "spin.toml")]
    pub(crate) manifest: PathBuf,
    /// Where to listen; port 0 takes a free one. The same as gateway.listen [env:
    /// TIDEGATE_LISTEN] [default: 127.0.0.1:3000].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// What the host keeps on disk. The same as data-dir [env: TIDEGATE_DATA_DIR]
    /// [default: .tidegate beside the manifest].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keeps states in memory only. The same as store.memory=true.
    #[arg(long)]
    memory: bool,
    /// Starts although the end of what was safe is gone from the store, and goes on without it.
    /// The same as store.accept-loss=true.
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    settings: Settings,
    /// The form of the log on standard error; RUST_LOG says how much of it.
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    log: LogForm,
}

/// Gives back to the system what the allocator keeps for this thread.
fn give_back() {
    // SAFETY: it may be called at any time; the allocator is the one that `main` names.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

impl Up {
    /// Starts the log and a runtime, and serves in it.
    pub(crate) fn run<F>(self, serve: impl FnOnce(Up) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        log::start(self.log);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .on_thread_park(|| memory::let_go(give_back))
            .build()?;
        let result = runtime.block_on(serve(self));
        // A guest that is still computing does not keep the process.
        runtime.shutdown_background();
        result
    }

    /// What the host is run with; `data_dir` is always there.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let mut layers = self.settings.layers()?;
        if let Some(address) = self.listen {
            layers = layers.argument("--listen", "gateway.listen", &address.to_string())?;
        }
        if let Some(folder) = &self.data {
            let folder = folder.to_str().context("--data: expected UTF-8")?;
            layers = layers.argument("--data", "data-dir", folder)?;
        }
        if self.memory {
            layers = layers.argument("--memory", "store.memory", "true")?;
        }
        if self.accept_loss {
            layers = layers.argument("--accept-loss", "store.accept-loss", "true")?;
        }
        let effective = layers.resolve()?;
        for warning in &effective.warnings {
            tracing::warn!("{warning}");
        }
        let mut config = effective.config;
        config.data_dir.get_or_insert_with(|| {
            let beside = self.manifest.parent().unwrap_or(Path::new(""));
            beside.join(DATA_FOLDER)
        });
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Arguments, Command};

    fn config(arguments: &[&str]) -> Config {
        let arguments = ["tidegate", "up"].iter().chain(arguments);
        match Arguments::try_parse_from(arguments).unwrap().command {
            Command::Up(up) => up.config().unwrap(),
            _ => panic!("another command"),
        }
    }

    fn data_dir(arguments: &[&str]) -> PathBuf {
        config(arguments).data_dir.unwrap()
    }

    #[test]
    fn data_is_kept_beside_the_manifest_unless_told_otherwise() {
        let manifest = ["--manifest", "/app/spin.toml"];
        assert_eq!(data_dir(&manifest), Path::new("/app/.tidegate"));
        assert_eq!(data_dir(&[]), Path::new(".tidegate"));
        let set = ["--set", "data-dir=/set"];
        assert_eq!(data_dir(&[&manifest[..], &set].concat()), Path::new("/set"));
        let data = ["--data", "/data"];
        assert_eq!(data_dir(&[&set[..], &data].concat()), Path::new("/data"));
    }

    #[test]
    fn an_address_of_its_own_goes_before_the_settings() {
        let set = ["--set", "gateway.listen=127.0.0.1:1"];
        let listen = ["--listen", "127.0.0.1:2"];
        assert_eq!(config(&set).gateway.listen.port(), 1);
        let both = [&listen[..], &set].concat();
        assert_eq!(config(&both).gateway.listen.port(), 2);
    }
}

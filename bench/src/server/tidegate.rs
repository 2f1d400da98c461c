//! The host, as users run it: the release binary, an application manifest and settings. Only
//! what a job names differs from the defaults.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::callgrind::{self, Counter};
use super::{Descriptors, Server, get};
use crate::bench::Bench;

/// The key of the operator, for the metrics and for uploads.
pub(crate) const ADMIN_KEY: &str = "the-key-of-the-benchmarks";
/// What the jobs call.
pub(crate) const HANDLERS: [&str; 2] = ["counter", "workload"];

/// How safe commits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Strict,
    Relaxed,
    None,
    /// No disk at all.
    Memory,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Strict => "strict",
            Level::Relaxed => "relaxed",
            Level::None => "none",
            Level::Memory => "memory",
        }
    }
}

/// How to start a host.
#[derive(Clone)]
pub(crate) struct Tidegate {
    level: Level,
    /// Handlers beside those that all jobs call.
    handlers: Vec<&'static str>,
    settings: Vec<String>,
    data: Option<PathBuf>,
    runs: Runs,
}

/// How its process runs.
#[derive(Clone, Copy)]
enum Runs {
    Freely(Descriptors),
    /// Under callgrind.
    Counted,
}

impl Tidegate {
    /// One on which as many actors may come into memory as it can make, and an address may have
    /// all connections.
    pub(crate) fn new(level: Level) -> Tidegate {
        Tidegate::guarded(level)
            .set("component.new-actors-per-second=0")
            // All clients of the benchmarks have one address.
            .set("gateway.max-connections-per-address=20000")
    }

    /// One that guards itself as its defaults say.
    pub(crate) fn guarded(level: Level) -> Tidegate {
        Tidegate {
            level,
            handlers: Vec::new(),
            settings: Vec::new(),
            data: None,
            runs: Runs::Freely(Descriptors::Inherited),
        }
    }

    /// Serves this handler as well.
    pub(crate) fn handler(mut self, name: &'static str) -> Tidegate {
        self.handlers.push(name);
        self
    }

    /// Sets a setting, such as `actors.idle-timeout-ms=50`.
    pub(crate) fn set(mut self, setting: impl Into<String>) -> Tidegate {
        self.settings.push(setting.into());
        self
    }

    /// Keeps what lasts in this folder, which outlives the host; otherwise in a new one.
    pub(crate) fn data(mut self, folder: &Path) -> Tidegate {
        self.data = Some(folder.to_owned());
        self
    }

    /// Gives it so many descriptors.
    pub(crate) fn descriptors(mut self, descriptors: Descriptors) -> Tidegate {
        self.runs = Runs::Freely(descriptors);
        self
    }

    /// Lets its instructions be counted, by [`Host::counter`]. It has one worker thread then, so
    /// that they do not depend on which thread is the first.
    pub(crate) fn counted(mut self) -> Tidegate {
        self.runs = Runs::Counted;
        self
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(&self, bench: &Bench) -> Result<Host> {
        let folder = bench.folder("host")?;
        let manifest = folder.path().join("spin.toml");
        let handlers = HANDLERS.iter().chain(&self.handlers);
        std::fs::write(&manifest, manifest_of(&bench.handlers, handlers)?)?;
        let data = match &self.data {
            Some(data) => data.clone(),
            None => folder.path().join("data"),
        };
        let mut command = match self.runs {
            Runs::Freely(descriptors) => descriptors.command(&bench.server),
            Runs::Counted => {
                let mut command = callgrind::command(&bench.server, folder.path());
                command.env("TOKIO_WORKER_THREADS", "1");
                command
            }
        };
        command
            .args(["up", "--listen", "127.0.0.1:0", "--manifest"])
            .arg(&manifest)
            .arg("--data")
            .arg(&data)
            .env("TIDEGATE_ADMIN_KEY", ADMIN_KEY);
        let cache = format!("engine.cache-dir={}", bench.compiled().display());
        command.args(["--set", &cache]);
        match self.level {
            Level::Memory => command.arg("--memory"),
            level => command.args(["--set", &format!("store.durability={}", level.name())]),
        };
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let server = Server::start(command, &folder.path().join("log")).await?;
        Ok(Host {
            server,
            data,
            program: bench.server.clone(),
            folder,
        })
    }
}

fn manifest_of<'a>(folder: &Path, handlers: impl Iterator<Item = &'a &'a str>) -> Result<String> {
    let mut text = String::from(
        "spin_manifest_version = 2\n[application]\nname = \"bench\"\nversion = \"0.0.0\"\n",
    );
    for name in handlers {
        let file = folder.join(name).with_extension("wasm");
        ensure!(
            file.exists(),
            "{} is missing: build it with `cargo xtask handlers`",
            file.display()
        );
        let file = std::path::absolute(&file)?;
        // JSON escapes are TOML escapes too.
        let file = serde_json::Value::from(file.to_string_lossy());
        text.push_str(&format!(
            "[component.{name}]\nsource = {file}\n[component.{name}.tool.tidegate]\nhandler = {file}\n"
        ));
    }
    Ok(text)
}

/// A running host.
pub(crate) struct Host {
    pub(crate) server: Server,
    data: PathBuf,
    program: PathBuf,
    /// Removed with the host.
    folder: crate::disk::Folder,
}

impl Host {
    /// Where its store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// Begins to count the instructions of one that was started for it.
    pub(crate) async fn counter(&self) -> Result<Counter> {
        Counter::begin(&self.program, self.server.pid(), self.folder.path()).await
    }

    /// The sum of all series of this metric.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let headers = format!("Authorization: Bearer {ADMIN_KEY}\r\n");
        let answer = get(self.server.address(), "/_tidegate/metrics", &headers).await?;
        ensure!(answer.status == 200, "the metrics: {}", answer.status);
        let of_series = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labelled) => labelled.split_once("} ")?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.trim().parse().ok()
        };
        let series: Vec<f64> = answer.body.lines().filter_map(of_series).collect();
        series
            .iter()
            .copied()
            .reduce(|a, b| a + b)
            .with_context(|| format!("no metric {name}"))
    }
}

//! Callgrind, valgrind's tool that counts instructions, around a server, and how it is told to
//! begin and to say what it has counted.
//!
//! It counts what the threads of the process run, not what the kernel does for them. Until it
//! begins to count, a server under it is some ten times as slow as without; from then on, sixty.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::Usage;
use crate::profile::Profile;

const VALGRIND: &str = "valgrind";
/// The program of the same package that talks to what runs under it.
const CONTROL: &str = "vgdb";
/// The files with what was counted, of which each has a number behind this.
const FILE: &str = "profile";
/// How long it may take to do as it is told.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server that is at rest uses no processor: longer than the kernel's unit.
const REST: Duration = Duration::from_millis(100);

/// The version of valgrind, or what is missing of it.
pub(crate) async fn version() -> Result<String> {
    for program in [VALGRIND, CONTROL] {
        let help = run(Command::new(program).arg("--help")).await;
        help.with_context(|| {
            format!("`{program}` could not be started: is the package `valgrind` installed?")
        })?;
    }
    let version = run(Command::new(VALGRIND).arg("--version")).await?;
    Ok(String::from_utf8_lossy(&version.stdout).trim().to_owned())
}

/// Runs a program as a server under callgrind does, but counts nothing.
pub(crate) fn uncounted(program: &Path) -> Command {
    let mut command = Command::new(VALGRIND);
    command.args(["--quiet", "--tool=none"]).arg(program);
    command
}

/// What starts this program, to be counted by a [`Counter`] with this folder.
pub(super) fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(VALGRIND);
    let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    command
        .args(["--quiet", "--tool=callgrind", "--instr-atstart=no"])
        // Names and places in full, on each line.
        .args(["--compress-strings=no", "--compress-pos=no"])
        .arg(option("--callgrind-out-file", folder.join(FILE)))
        .arg(option("--vgdb-prefix", pipes(folder)))
        .arg(program);
    command
}

/// What the names of its pipes begin with.
fn pipes(folder: &Path) -> PathBuf {
    folder.join("vgdb")
}

/// Counts the instructions of a server.
pub(crate) struct Counter {
    program: PathBuf,
    pid: u32,
    folder: PathBuf,
    /// How many files it has written.
    files: u32,
}

impl Counter {
    /// Begins to count a server that was started for it.
    pub(super) async fn begin(program: &Path, pid: u32, folder: &Path) -> Result<Counter> {
        let counter = Counter {
            program: program.to_owned(),
            pid,
            folder: folder.to_owned(),
            files: 0,
        };
        counter.tell(&["instrumentation", "on"]).await?;
        Ok(counter)
    }

    /// Forgets what has run up to now, once the server is at rest.
    pub(crate) async fn reset(&self) -> Result<()> {
        self.rest().await?;
        self.tell(&["zero"]).await
    }

    /// What has run up to now, once the server is at rest, since this was last asked or it was [`reset`](Self::reset).
    pub(crate) async fn take(&mut self) -> Result<Profile> {
        self.rest().await?;
        self.tell(&["dump"]).await?;
        self.files += 1;
        let file = self.folder.join(format!("{FILE}.{}", self.files));
        Profile::read(&file, &self.program)
    }

    /// Waits until the server does nothing.
    async fn rest(&self) -> Result<()> {
        let rests = async {
            let mut before = Usage::of(self.pid)?.cpu;
            loop {
                tokio::time::sleep(REST).await;
                let now = Usage::of(self.pid)?.cpu;
                if now == before {
                    return Ok(());
                }
                before = now;
            }
        };
        tokio::time::timeout(PATIENCE, rests)
            .await
            .context("waiting for the server to rest")?
    }

    async fn tell(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(CONTROL);
        command
            .arg(format!("--pid={}", self.pid))
            .arg(format!("--vgdb-prefix={}", pipes(&self.folder).display()))
            .args(words);
        tokio::time::timeout(PATIENCE, run(&mut command))
            .await
            .with_context(|| format!("waiting for callgrind to obey: {}", words.join(" ")))??;
        Ok(())
    }
}

async fn run(command: &mut Command) -> Result<Output> {
    let output = command.kill_on_drop(true).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(output)
}

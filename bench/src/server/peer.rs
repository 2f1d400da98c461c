//! The peers: servers of others that do the same work (`bench/peers/`), each as a process of its
//! own. What npm installs as `bun` and `workerd` may be a script that starts the program; here
//! the program itself is started, so that what the kernel says of the process is the server's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Result;
use serde_json::Value;
use tokio::process::Command;

use super::{Descriptors, Server};
use crate::bench::Bench;
use crate::disk::Folder;
use crate::load::dialect::Dialect;

/// Somebody else's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Node.js with the package `ws`.
    Ws,
    /// Node.js with Socket.IO.
    SocketIo,
    /// Bun, with its own publish and subscribe.
    Bun,
    /// A Durable Object that holds the sockets and the actors in memory.
    Workerd,
    /// [`Peer::Workerd`] with the counts in its storage on disk.
    WorkerdDisk,
    /// A Durable Object for each actor, in memory; a worker holds the sockets.
    WorkerdEach,
}

/// The peers of a job.
pub(crate) struct Peers {
    /// Those that can be started.
    pub(crate) present: Vec<Peer>,
    /// Why others cannot.
    absent: Vec<String>,
}

impl Peers {
    /// Looks which of these are installed.
    pub(crate) fn among(wanted: &[Peer], bench: &Bench) -> Peers {
        let mut peers = Peers {
            present: Vec::new(),
            absent: Vec::new(),
        };
        for peer in wanted {
            match peer.program(&bench.peers) {
                Ok(_) => peers.present.push(*peer),
                Err(reason) => {
                    let line = format!("Not measured: {}, because {reason}.", peer.name());
                    eprintln!("{line}");
                    peers.absent.push(line);
                }
            }
        }
        peers
    }

    /// What is to be said below a table.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &str> {
        self.absent.iter().map(String::as_str)
    }
}

impl Peer {
    /// The peers that do everything in memory.
    pub(crate) const IN_MEMORY: [Peer; 4] = [Peer::Bun, Peer::Ws, Peer::SocketIo, Peer::Workerd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Ws => "ws on Node",
            Peer::SocketIo => "Socket.IO on Node",
            Peer::Bun => "Bun",
            Peer::Workerd => "workerd",
            Peer::WorkerdDisk => "workerd on disk",
            Peer::WorkerdEach => "workerd, an object each",
        }
    }

    /// The npm package that it comes in.
    fn package(self) -> &'static str {
        match self {
            Peer::Ws => "ws",
            Peer::SocketIo => "socket.io",
            Peer::Bun => "bun",
            Peer::Workerd | Peer::WorkerdDisk | Peer::WorkerdEach => "workerd",
        }
    }

    /// What to run, or why that cannot be.
    fn program(self, peers: &Path) -> Result<PathBuf, String> {
        let modules = peers.join("node_modules");
        if !modules.join(self.package()).exists() {
            let (package, peers) = (self.package(), peers.display());
            return Err(format!("the package {package} is not installed in {peers}"));
        }
        match self {
            Peer::Ws | Peer::SocketIo => match node_version() {
                Some(_) => Ok("node".into()),
                None => Err("there is no Node.js on the PATH".to_owned()),
            },
            Peer::Bun => match modules.join("bun/bin/bun.exe") {
                // Installing may have moved the program here, under this name on any system.
                moved if is_program(&moved) => absolute(&moved),
                _ => binary(&modules.join("@oven"), "bin/bun"),
            },
            Peer::Workerd | Peer::WorkerdDisk | Peer::WorkerdEach => {
                binary(&modules.join("@cloudflare"), "bin/workerd")
            }
        }
    }

    /// Starts it and waits until it listens.
    pub(crate) async fn start(self, bench: &Bench) -> Result<(Server, Folder)> {
        self.start_within(bench, Descriptors::Inherited).await
    }

    /// Starts it with so many descriptors.
    pub(crate) async fn start_within(
        self,
        bench: &Bench,
        descriptors: Descriptors,
    ) -> Result<(Server, Folder)> {
        let folder = bench.folder("peer")?;
        let program = self.program(&bench.peers).map_err(anyhow::Error::msg)?;
        let mut command = descriptors.command(program);
        command
            .current_dir(&bench.peers)
            .env("NODE_ENV", "production");
        let workerd = |command: &mut Command, config: &str| {
            // It tells its port through this descriptor, standard output.
            let arguments = ["serve", "--control-fd=1"];
            command.args(arguments).arg(format!("workerd/{config}"));
        };
        match self {
            Peer::Ws => drop(command.arg("ws/server.js")),
            Peer::SocketIo => drop(command.arg("socketio/server.js")),
            Peer::Bun => drop(command.arg("bun/server.js")),
            Peer::Workerd => workerd(&mut command, "memory.capnp"),
            Peer::WorkerdEach => workerd(&mut command, "each.capnp"),
            Peer::WorkerdDisk => {
                workerd(&mut command, "disk.capnp");
                let state = folder.path().join("state");
                std::fs::create_dir(&state)?;
                command.arg(format!("--directory-path=state={}", state.display()));
            }
        }
        let mut server = Server::start(command, &folder.path().join("log")).await?;
        if self == Peer::SocketIo {
            server.dialect = Dialect::SocketIo;
        }
        Ok((server, folder))
    }
}

/// The program of this machine: npm installs it in a package named after the platform.
fn binary(scope: &Path, path: &str) -> Result<PathBuf, String> {
    let packages = std::fs::read_dir(scope).into_iter().flatten().flatten();
    let mut programs: Vec<PathBuf> = packages
        .map(|package| package.path().join(path))
        .filter(|program| is_program(program))
        .collect();
    // The shortest name is the build without special restrictions, such as `-baseline`.
    programs.sort_by_key(|program| program.as_os_str().len());
    match programs.first() {
        Some(program) => absolute(program),
        None => Err(format!(
            "{} has no program for this machine",
            scope.display()
        )),
    }
}

/// Whether a file is a program and no script: these programs are large.
fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.len() > 1 << 20)
}

fn absolute(file: &Path) -> Result<PathBuf, String> {
    std::path::absolute(file).map_err(|error| error.to_string())
}

/// What `node` on the PATH says its version is.
fn node_version() -> Option<String> {
    let mut node = std::process::Command::new("node");
    let output = node.arg("--version").stderr(Stdio::null()).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| version.trim().to_owned())
}

/// The versions of all peers that are installed, and of Node.js.
pub(crate) fn versions(peers: &Path) -> serde_json::Map<String, Value> {
    let version = |package: &str| -> Option<Value> {
        let file = peers.join("node_modules").join(package);
        let text = std::fs::read_to_string(file.join("package.json")).ok()?;
        let mut package: Value = serde_json::from_str(&text).ok()?;
        Some(package.get_mut("version")?.take())
    };
    let mut versions: serde_json::Map<_, _> = ["ws", "socket.io", "bun", "workerd"]
        .into_iter()
        .filter_map(|package| Some((package.to_owned(), version(package)?)))
        .collect();
    if let Some(node) = node_version() {
        versions.insert("node".to_owned(), node.into());
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_has_a_reason() {
        let nowhere = Path::new("/nonexistent/peers");
        for peer in [Peer::Ws, Peer::Bun, Peer::WorkerdDisk] {
            let reason = peer.program(nowhere).unwrap_err();
            assert!(reason.contains("is not installed in /nonexistent/peers"));
        }
        assert!(!versions(nowhere).contains_key("ws"));
    }
}

//! A Spin application: handlers composed by the `tidegate` binary, served by the test host
//! `tidegate-spin-host`, or, with `TIDEGATE_SPIN=1`, by the `spin` program on the PATH.
//!
//! Invariant: as with a host, the process never outlives its owner, and its log is shown
//! when the test fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::Request;
use crate::cli::tidegate;
use crate::host::{Folder, Log, build_folder, handlers_folder, toml_string};
use crate::token;
use crate::watch::{self, Watched};

/// The key of the clock's door.
pub const TICK_KEY: &str = "the-key-of-the-clock";
/// The key by which the components of an application trust each other.
const INTERNAL_KEY: &str = "the-key-of-the-application-has-32-bytes-or-more";
/// The component that serves event streams.
const EVENTS: &str = "events";

/// How long an application may take to start: its components are compiled first.
const START: Duration = Duration::from_secs(180);

/// A running application.
pub struct Spin {
    process: Child,
    address: String,
    log: Log,
    _folder: Folder,
    _watched: Watched,
}

/// How to start an application.
#[derive(Clone, Default)]
pub struct SpinBuilder {
    handlers: Vec<PathBuf>,
    with_tokens: bool,
    without_database: bool,
    state: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    grants: Vec<String>,
    origins: Option<String>,
    application: Option<PathBuf>,
    in_folder: Option<PathBuf>,
}

/// Whether the real Spin serves.
pub fn is_real() -> bool {
    std::env::var_os("TIDEGATE_SPIN").is_some_and(|value| value == "1")
}

impl Spin {
    /// Starts from no handlers.
    pub fn builder() -> SpinBuilder {
        SpinBuilder::default()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A request without a body.
    pub fn get(&self, path: &str) -> Request {
        Request::new(&self.address, http::Method::GET, path)
    }

    /// A request that may carry a body.
    pub fn post(&self, path: &str) -> Request {
        Request::new(&self.address, http::Method::POST, path)
    }

    /// Everything that has been printed.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Ends the process as `kill -9` does, and waits until it is gone.
    pub async fn kill(mut self) {
        self.kill_group();
        self.process.wait().await.expect("waiting for Spin");
    }

    /// `spin up` serves from a process of its own, which would live on by itself.
    fn kill_group(&self) {
        if let Some(leader) = self.process.id() {
            let group = format!("-{leader}");
            let killed = std::process::Command::new("kill")
                .args(["-KILL", "--", &group])
                .status();
            assert!(killed.is_ok_and(|status| status.success()), "kill failed");
        }
    }
}

impl Drop for Spin {
    fn drop(&mut self) {
        self.kill_group();
        if std::thread::panicking() {
            eprintln!("--- the log of Spin\n{}---", self.log.text());
        }
    }
}

impl SpinBuilder {
    /// Serves a handler of `target/handlers`.
    pub fn component(self, handler: &str) -> SpinBuilder {
        self.file(&handlers_folder().join(handler).with_extension("wasm"))
    }

    /// Serves a handler from any file; the component has the file's name.
    pub fn file(mut self, handler: &Path) -> SpinBuilder {
        self.handlers.push(handler.to_owned());
        self
    }

    /// Wants tokens of [`crate::token`].
    pub fn with_tokens(mut self) -> SpinBuilder {
        self.with_tokens = true;
        self
    }

    /// Grants no component the database.
    pub fn without_database(mut self) -> SpinBuilder {
        self.without_database = true;
        self
    }

    /// Keeps the databases in this folder, which outlives the application.
    pub fn data(mut self, folder: &Path) -> SpinBuilder {
        self.state = Some(folder.to_owned());
        self
    }

    /// Grants every handler a variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> SpinBuilder {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Lets every handler send requests to this host.
    pub fn allow(mut self, host: &str) -> SpinBuilder {
        self.grants.push(host.to_owned());
        self
    }

    /// Lets pages of these origins connect.
    pub fn origins(mut self, origins: &str) -> SpinBuilder {
        self.origins = Some(origins.to_owned());
        self
    }

    /// Serves this application manifest of examples, in place of one made of handlers. What it
    /// names in `target/spin` is composed from the handlers of the same names.
    pub fn application(mut self, manifest: &Path) -> SpinBuilder {
        let text = std::fs::read_to_string(manifest).expect("reading the manifest");
        let sources = text.split("source = \"target/spin/").skip(1);
        let names = sources.filter_map(|rest| rest.split_once(".wasm"));
        for (name, _) in names.filter(|(name, _)| *name != EVENTS) {
            self = self.component(name);
        }
        self.application = Some(manifest.to_owned());
        self
    }

    /// Serves the application in this folder, which is built, as it is.
    pub fn in_folder(mut self, folder: &Path) -> SpinBuilder {
        self.in_folder = Some(folder.to_owned());
        self
    }

    /// Composes the handlers, starts the application and waits until it listens.
    pub async fn start(self) -> Spin {
        let folder = Folder::new();
        let here = self.in_folder.clone();
        let here = here.unwrap_or_else(|| folder.path().to_owned());
        let manifest = match self.in_folder {
            Some(_) => here.join("spin.toml"),
            None => self.write(&here).await,
        };
        let state = self.state.unwrap_or_else(|| folder.path().join("state"));
        if self.application.is_some() {
            let keys = format!(
                "SPIN_VARIABLE_TIDEGATE_INTERNAL_KEY={INTERNAL_KEY}\n\
                 SPIN_VARIABLE_TIDEGATE_TICK_KEY={TICK_KEY}\n"
            );
            std::fs::write(here.join(".env"), keys).expect("writing the keys");
        }
        let (mut command, ready) = match is_real() {
            true => (real(&manifest, &state), "Serving http://"),
            false => (test_host(&manifest, &state), "listening on http://"),
        };
        let mut process = command
            .current_dir(&here)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let log = Log::default();
        log.follow(process.stdout.take().expect("stdout is piped"));
        log.follow(process.stderr.take().expect("stderr is piped"));
        let watched = watch::host(process.id(), {
            let log = log.clone();
            move || log.text()
        });
        let begun = async {
            tokio::select! {
                line = log.line_with(ready) => line,
                status = process.wait() => panic!("Spin ended: {status:?}\n{}", log.text()),
            }
        };
        let line = tokio::time::timeout(START, begun).await;
        let line = line.unwrap_or_else(|_| panic!("Spin does not start\n{}", log.text()));
        let (_, address) = line
            .split_once("http://")
            .expect("the line was searched for it");
        Spin {
            address: address.trim().trim_end_matches('/').to_owned(),
            _watched: watched,
            process,
            log,
            _folder: folder,
        }
    }

    /// Composes the handlers into the folder, with a manifest beside them.
    async fn write(&self, folder: &Path) -> PathBuf {
        compose(["--events"], &folder.join("events.wasm")).await;
        let mut components = Vec::new();
        for handler in &self.handlers {
            let name = handler.file_stem().expect("a handler has a name");
            let name = name.to_string_lossy().into_owned();
            let file = handler.to_string_lossy();
            compose([&*file], &folder.join(&name).with_extension("wasm")).await;
            if self.application.is_none() {
                components.push((name, actors_of(handler).await));
            }
        }
        let text = match &self.application {
            Some(file) => std::fs::read_to_string(file)
                .expect("reading the manifest")
                .replace("\"target/spin/", "\""),
            None => self.manifest(&components),
        };
        let manifest = folder.join("spin.toml");
        std::fs::write(&manifest, text).expect("writing the manifest");
        manifest
    }

    fn manifest(&self, components: &[(String, Vec<String>)]) -> String {
        let mut text = String::from(
            "spin_manifest_version = 2\n[application]\nname = \"tests\"\nversion = \"0.0.0\"\n",
        );
        let secret = match self.with_tokens {
            true => std::str::from_utf8(token::SECRET).expect("the secret is a text"),
            false => "",
        };
        let variables = [
            ("tidegate_internal_key", INTERNAL_KEY),
            ("tidegate_tick_key", TICK_KEY),
            ("tidegate_auth_secret", secret),
        ];
        let mut line = |line: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{line}");
        };
        line("[variables]".to_owned());
        for (name, value) in variables {
            line(format!("{name} = {{ default = {} }}", toml_string(value)));
        }
        let mut route = |pattern: String, component: &str| {
            line("[[trigger.http]]".to_owned());
            line(format!(
                "route = \"{pattern}\"\ncomponent = \"{component}\""
            ));
        };
        route("/...".to_owned(), EVENTS);
        for (name, actors) in components {
            for actor in actors {
                route(format!("/actors/{actor}/..."), name);
                for what in ["state", "events"] {
                    route(format!("/actors/{actor}/:id/{what}"), EVENTS);
                }
            }
        }
        let served: Vec<String> = components
            .iter()
            .flat_map(|(name, actors)| actors.iter().map(move |actor| format!("{actor}={name}")))
            .collect();
        let names = components.iter().map(|(name, _)| name.as_str());
        for name in names.chain([EVENTS]) {
            line(format!("[component.{name}]\nsource = \"{name}.wasm\""));
            if !self.without_database {
                line("sqlite_databases = [\"default\"]".to_owned());
            }
            // Each by its name: to Spin, a request to a component that is not there is a crash.
            let hosts = components
                .iter()
                .map(|(name, _)| format!("http://{name}.spin.internal"));
            let hosts = hosts.chain(self.grants.iter().cloned());
            let hosts: Vec<String> = hosts.map(|host| toml_string(&host)).collect();
            line(format!("allowed_outbound_hosts = [{}]", hosts.join(", ")));
            line(format!("[component.{name}.environment]"));
            if !self.environment.contains_key("TIDEGATE_ACTORS") {
                let served = toml_string(&served.join(","));
                line(format!("TIDEGATE_ACTORS = {served}"));
            }
            if let Some(origins) = &self.origins {
                line(format!("TIDEGATE_ORIGINS = {}", toml_string(origins)));
            }
            for (name, value) in &self.environment {
                line(format!("{name} = {}", toml_string(value)));
            }
            line(format!("[component.{name}.variables]"));
            for (name, _) in variables {
                line(format!("{name} = \"{{{{ {name} }}}}\""));
            }
        }
        text
    }
}

fn test_host(manifest: &Path, state: &Path) -> Command {
    let binary = build_folder().join("tidegate-spin-host");
    assert!(
        binary.exists(),
        "{} is missing; build it with `cargo build --workspace`",
        binary.display()
    );
    let mut command = Command::new(binary);
    command.args(["--listen", "127.0.0.1:0", "--manifest"]);
    command.arg(manifest).arg("--state-dir").arg(state);
    command
        .arg("--cache-dir")
        .arg(build_folder().join("compiled-for-spin"));
    command
}

fn real(manifest: &Path, state: &Path) -> Command {
    let mut command = Command::new("spin");
    command.args(["up", "--listen", "127.0.0.1:0", "--from"]);
    command.arg(manifest).arg("--state-dir").arg(state);
    command
}

async fn compose<const N: usize>(what: [&str; N], output: &Path) {
    let mut command = tidegate(["compose"]);
    for word in what {
        command = command.arg(word);
    }
    command.arg("--output").arg(output).run().await.printed();
}

/// The actor types of a handler, as it describes itself.
async fn actors_of(handler: &Path) -> Vec<String> {
    static KNOWN: Mutex<BTreeMap<PathBuf, Vec<String>>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(actors) = known().get(handler) {
        return actors.clone();
    }
    let described = tidegate(["describe"]).arg(handler).run().await.printed();
    let manifest: Value = serde_json::from_str(&described).expect("a manifest is JSON");
    let actors = manifest["actors"].as_object();
    let actors: Vec<String> = actors
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    known().insert(handler.to_owned(), actors.clone());
    actors
}

//! A host process: the `tidegate` binary that this workspace built, serving the handlers
//! that a test names on a free port.
//!
//! Invariant: a process never outlives its [`Host`], and its log is shown when the test
//! fails. It keeps compiled components in a folder of this build, never in the user's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use crate::request::Request;
use crate::watch::{self, Watched};
use crate::{Actor, Socket, WallClock, patiently};

/// What the host prints before the address that it listens on.
const LISTENING: &str = "listening on http://";

/// The key of every host's operator.
pub const ADMIN_KEY: &str = "the-key-of-the-operator";

/// A running host.
pub struct Host {
    process: Child,
    address: String,
    log: Log,
    /// Holds the application manifest; removed with the host.
    _folder: Folder,
    _watched: Watched,
}

/// How to start a host.
#[derive(Default)]
pub struct Builder {
    components: Vec<Component>,
    settings: Vec<String>,
    arguments: Vec<String>,
    application: Option<PathBuf>,
    /// What a shell does before it becomes the host.
    prelude: Vec<String>,
    clock: Option<PathBuf>,
}

struct Component {
    name: String,
    handler: PathBuf,
    environment: Vec<(String, String)>,
    outbound: Vec<String>,
    limits: Vec<(String, u64)>,
    durability: Option<String>,
}

impl Host {
    /// Serves these handlers of `target/handlers` with default settings.
    pub async fn serving<const N: usize>(handlers: [&str; N]) -> Host {
        let mut builder = Host::builder();
        for handler in handlers {
            builder = builder.component(handler);
        }
        builder.start().await
    }

    /// Starts from no handlers and default settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A WebSocket connection that has been welcomed.
    pub async fn connect(&self) -> Socket {
        Socket::connect(self, "/ws").await
    }

    /// A request without a body.
    pub fn get(&self, path: &str) -> Request {
        Request::new(&self.address, http::Method::GET, path)
    }

    /// A request that may carry a body.
    pub fn post(&self, path: &str) -> Request {
        Request::new(&self.address, http::Method::POST, path)
    }

    /// A request to the operators' doors, with their key.
    pub fn admin(&self, method: http::Method, path: &str) -> Request {
        let path = format!("/_tidegate{path}");
        Request::new(&self.address, method, &path)
            .header("authorization", &format!("Bearer {ADMIN_KEY}"))
    }

    /// Any other request.
    pub fn request(&self, method: http::Method, path: &str) -> Request {
        Request::new(&self.address, method, path)
    }

    /// What a browser asks before a request to another origin.
    pub fn options(&self, path: &str) -> Request {
        Request::new(&self.address, http::Method::OPTIONS, path)
    }

    /// Everything that the host has printed, to standard output and error.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until an actor is not in memory, and gives what operators see of it then.
    pub async fn until_asleep(&self, actor: &Actor) -> Value {
        let path = format!("/actors/{}/{}", actor.kind, actor.id);
        let asleep = async {
            loop {
                let about = self.admin(http::Method::GET, &path).send().await.json();
                if about["inMemory"] == false {
                    return about;
                }
            }
        };
        patiently(&format!("the end of {actor}"), || self.log.text(), asleep).await
    }

    /// Waits until the host has printed a line that contains `text`, and returns the line.
    pub async fn logged(&self, text: &str) -> String {
        let line = self.log.line_with(text);
        patiently(
            &format!("a log line with `{text}`"),
            || self.log.text(),
            line,
        )
        .await
    }

    /// What the process holds in memory, in bytes.
    pub fn resident_bytes(&self) -> usize {
        self.memory("VmRSS:")
    }

    /// The most that the process has ever held in memory, in bytes.
    pub fn peak_resident_bytes(&self) -> usize {
        self.memory("VmHWM:")
    }

    /// The processes that the host has begun and that have not ended, by their ids.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.process.id().expect("the host runs");
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
        let threads = threads.expect("the kernel tells of a process that runs");
        let children = threads.flatten().map(|thread| {
            // A thread may have ended by now.
            std::fs::read_to_string(thread.path().join("children")).unwrap_or_default()
        });
        children
            .flat_map(|line| {
                line.split_whitespace()
                    .flat_map(str::parse)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn memory(&self, figure: &str) -> usize {
        let pid = self.process.id().expect("the host runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.expect("the kernel tells of a process that runs");
        let kibibytes: Option<usize> = status
            .lines()
            .find_map(|line| line.strip_prefix(figure))
            .and_then(|size| size.trim().strip_suffix(" kB"))
            .and_then(|size| size.parse().ok());
        kibibytes.expect("a size in KiB") << 10
    }

    /// The CPU time that the process has used so far, in whole hundredths of a second.
    pub fn cpu_time(&self) -> Duration {
        let pid = self.process.id().expect("the host runs");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let stat = stat.expect("the kernel tells of a process that runs");
        // The name before it, in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let times = fields.split(' ').skip(11).take(2);
        let ticks: u64 = times.flat_map(str::parse::<u64>).sum();
        // USER_HZ, which is 100 on every Linux.
        Duration::from_millis(ticks * 10)
    }

    /// How many threads the process has.
    pub fn threads(&self) -> usize {
        let pid = self.process.id().expect("the host runs");
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
        threads
            .expect("the kernel tells of a process that runs")
            .count()
    }

    /// Asks the host to stop, as a service manager does.
    pub async fn terminate(&self) {
        let pid = self.process.id().expect("the host runs");
        // The shell's own `kill`, because a bare machine has no other.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -TERM {pid}")])
            .status()
            .await;
        assert!(status.is_ok_and(|status| status.success()), "kill failed");
    }

    /// Ends the host as `kill -9` does, and waits until it is gone.
    pub async fn kill(mut self) {
        let log = self.log.clone();
        patiently("the host's death", || log.text(), self.process.kill())
            .await
            .expect("killing the host");
    }

    /// Waits until the host has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let log = self.log.clone();
        patiently("the host's end", || log.text(), self.process.wait())
            .await
            .expect("waiting for the host")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the host's log\n{}---", self.log.text());
        }
    }
}

impl Builder {
    /// Serves a handler of `target/handlers`.
    pub fn component(self, handler: &str) -> Builder {
        let file = handlers_folder().join(handler).with_extension("wasm");
        assert!(
            file.exists(),
            "{} is missing; build it with `cargo xtask handlers`",
            file.display()
        );
        self.file(handler, &file)
    }

    /// Serves a component from any file.
    pub fn file(mut self, name: &str, handler: &Path) -> Builder {
        self.components.push(Component {
            name: name.to_owned(),
            handler: handler.to_owned(),
            environment: Vec::new(),
            outbound: Vec::new(),
            limits: Vec::new(),
            durability: None,
        });
        self
    }

    /// Grants a variable to the component named last.
    pub fn variable(mut self, name: &str, value: &str) -> Builder {
        let variable = (name.to_owned(), value.to_owned());
        self.last().environment.push(variable);
        self
    }

    /// Lets the component named last send requests to this host.
    pub fn allow(mut self, host: &str) -> Builder {
        self.last().outbound.push(host.to_owned());
        self
    }

    /// Sets a limit of the component named last.
    pub fn limit(mut self, name: &str, value: u64) -> Builder {
        self.last().limits.push((name.to_owned(), value));
        self
    }

    /// Says how safe commits of the component named last are: `strict`, `relaxed`, `none`.
    pub fn durability(mut self, level: &str) -> Builder {
        self.last().durability = Some(level.to_owned());
        self
    }

    /// Keeps what lasts in this folder, which outlives the host.
    pub fn data(self, folder: &Path) -> Builder {
        let folder = folder.to_str().expect("a folder's name in UTF-8");
        self.argument("--data").argument(folder)
    }

    /// Sets a setting of the host, such as `actors.idle-timeout-ms=50`.
    pub fn set(mut self, setting: &str) -> Builder {
        self.settings.push(setting.to_owned());
        self
    }

    /// Adds a word to the command line.
    pub fn argument(mut self, argument: &str) -> Builder {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Wants tokens of [`token`](crate::token).
    pub fn with_tokens(self) -> Builder {
        let file = crate::token::key_file();
        self.set("auth.algorithms=[\"HS256\"]")
            .set(&format!("auth.key-file={}", file.display()))
    }

    /// Serves this application manifest, in place of one made of components.
    pub fn application(mut self, manifest: &Path) -> Builder {
        self.application = Some(manifest.to_owned());
        self
    }

    /// Gives the host only so many file descriptors.
    pub fn descriptors(self, count: u32) -> Builder {
        self.prelude(format!("ulimit -n {count}"))
    }

    /// Lets no file of the host grow beyond so many KiB, as a full disk does: writes come
    /// back short, then fail.
    pub fn largest_file(self, kibibytes: u64) -> Builder {
        // Blocks of 512 bytes, by POSIX. The shell has the signal end what it runs.
        self.prelude(format!("trap - XFSZ; ulimit -f {}", kibibytes * 2))
    }

    /// Takes the superuser's right to write where permissions forbid it from the host.
    pub fn bound_by_permissions(self) -> Builder {
        self.prelude(
            "test \"$(id -u)\" != 0 || set -- setpriv --bounding-set=-dac_override \
             --inh-caps=-dac_override -- \"$@\""
                .to_owned(),
        )
    }

    /// Goes by this wall clock.
    pub fn clock(mut self, clock: &WallClock) -> Builder {
        self.clock = Some(clock.file());
        self
    }

    fn prelude(mut self, command: String) -> Builder {
        self.prelude.push(command);
        self
    }

    /// Starts the host and waits until it listens.
    pub async fn start(self) -> Host {
        let (mut process, log, folder, watched) = self.spawn();
        let ready = async {
            tokio::select! {
                line = log.line_with(LISTENING) => line,
                status = process.wait() => panic!("the host ended: {status:?}\n{}", log.text()),
            }
        };
        let line = patiently("the host's start", || log.text(), ready).await;
        let (_, address) = line
            .split_once(LISTENING)
            .expect("the line was searched for it");
        Host {
            address: address.trim().trim_end_matches('/').to_owned(),
            _watched: watched,
            process,
            log,
            _folder: folder,
        }
    }

    /// Starts the host and ends it as `kill -9` does after so long, wherever it is then.
    pub async fn start_and_kill(self, after: Duration) {
        let (mut process, log, _folder, _watched) = self.spawn();
        tokio::time::sleep(after).await;
        patiently("the host's death", || log.text(), process.kill())
            .await
            .expect("killing the host");
    }

    /// Starts a host that is expected to refuse what it is given, and returns what it says.
    pub async fn refused(self) -> Refusal {
        let (mut process, log, _folder, _watched) = self.spawn();
        let ended = async {
            tokio::select! {
                line = log.line_with(LISTENING) => panic!("the host serves: {line}\n{}", log.text()),
                status = process.wait() => status.expect("waiting for the host"),
            }
        };
        let status = patiently("the host's refusal", || log.text(), ended).await;
        let all_read = log.closed();
        patiently("the end of the log", || log.text(), all_read).await;
        assert!(
            !status.success(),
            "the host refused with success\n{}",
            log.text()
        );
        Refusal { text: log.text() }
    }

    fn last(&mut self) -> &mut Component {
        self.components.last_mut().expect("name a component first")
    }

    fn spawn(self) -> (Child, Log, Folder, Watched) {
        let folder = Folder::new();
        let manifest = self.application.clone().unwrap_or_else(|| {
            let manifest = folder.path().join("spin.toml");
            std::fs::write(&manifest, self.manifest()).expect("writing the manifest");
            manifest
        });
        let mut command = match self.prelude.as_slice() {
            [] => Command::new(binary()),
            prelude => {
                let script = format!("set -e; {}; exec \"$@\"", prelude.join("; "));
                let mut shell = Command::new("sh");
                shell.args(["-c", &script, "sh"]).arg(binary());
                shell
            }
        };
        if let Some(clock) = &self.clock {
            command.env("TEST_CLOCK_AHEAD", clock);
        }
        command.arg("up").arg("--manifest").arg(&manifest);
        command.args(["--listen", "127.0.0.1:0"]);
        if self.application.is_some() && !self.arguments.iter().any(|word| word == "--data") {
            // Not beside a manifest that other hosts serve too.
            command.arg("--data").arg(folder.path().join("data"));
        }
        command.args(&self.arguments);
        // Before the test's own settings, which may name another folder.
        let cache = format!("engine.cache-dir={}", compiled_folder().display());
        command.args(["--set", &cache]);
        command.args(["--set", &format!("admin.key={ADMIN_KEY}")]);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starting the host");
        let log = Log::default();
        log.follow(process.stdout.take().expect("stdout is piped"));
        log.follow(process.stderr.take().expect("stderr is piped"));
        let watched = watch::host(process.id(), {
            let log = log.clone();
            move || log.text()
        });
        (process, log, folder, watched)
    }

    fn manifest(&self) -> String {
        let mut text = String::from(
            "spin_manifest_version = 2\n[application]\nname = \"tests\"\nversion = \"0.0.0\"\n",
        );
        for component in &self.components {
            let name = &component.name;
            let handler = toml_string(&component.handler.to_string_lossy());
            let mut table = |line: String| {
                text.push_str(&line);
                text.push('\n');
            };
            table(format!("[component.{name}]"));
            table(format!("source = {handler}"));
            let outbound = component.outbound.iter().map(|host| toml_string(host));
            let outbound = outbound.collect::<Vec<_>>().join(", ");
            table(format!("allowed_outbound_hosts = [{outbound}]"));
            table(format!("[component.{name}.environment]"));
            for (variable, value) in &component.environment {
                table(format!("{variable} = {}", toml_string(value)));
            }
            table(format!("[component.{name}.tool.tidegate]"));
            table(format!("handler = {handler}"));
            if let Some(level) = &component.durability {
                table(format!("durability = {}", toml_string(level)));
            }
            table(format!("[component.{name}.tool.tidegate.limits]"));
            for (limit, value) in &component.limits {
                table(format!("{limit} = {value}"));
            }
        }
        text
    }
}

/// Why a host did not start.
#[derive(Debug)]
pub struct Refusal {
    text: String,
}

impl Refusal {
    /// All that it printed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Asserts that the message says all of this.
    pub fn says<const N: usize>(&self, parts: [&str; N]) {
        for part in parts {
            assert!(
                self.text.contains(part),
                "expected `{part}` in:\n{}",
                self.text
            );
        }
    }
}

/// What a process has printed so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<LogState>);

#[derive(Default)]
struct LogState {
    lines: Mutex<Lines>,
    grown: Notify,
}

#[derive(Default)]
struct Lines {
    printed: Vec<String>,
    /// Streams that are not at their end yet.
    open: usize,
}

impl Log {
    pub(crate) fn follow(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let log = self.clone();
        log.with_lines(|lines| lines.open += 1);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.with_lines(|lines| lines.printed.push(line));
                log.0.grown.notify_waiters();
            }
            log.with_lines(|lines| lines.open -= 1);
            log.0.grown.notify_waiters();
        });
    }

    fn with_lines<T>(&self, visit: impl FnOnce(&mut Lines) -> T) -> T {
        visit(&mut self.0.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) async fn line_with(&self, text: &str) -> String {
        let find = |lines: &mut Lines| {
            lines
                .printed
                .iter()
                .find(|line| line.contains(text))
                .cloned()
        };
        self.until(find).await
    }

    async fn closed(&self) {
        self.until(|lines| (lines.open == 0).then_some(())).await
    }

    async fn until<T>(&self, find: impl Fn(&mut Lines) -> Option<T>) -> T {
        loop {
            let grown = self.0.grown.notified();
            tokio::pin!(grown);
            // Registered before looking, so that what is printed in between wakes it.
            grown.as_mut().enable();
            if let Some(found) = self.with_lines(&find) {
                return found;
            }
            grown.await;
        }
    }

    pub(crate) fn text(&self) -> String {
        self.with_lines(|lines| {
            let mut text = String::new();
            for line in &lines.printed {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{line}");
            }
            text
        })
    }
}

/// An empty folder that is removed with its owner.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidegate-tests-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("creating a temporary folder");
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Another one with the same content.
    pub fn copy(&self) -> Folder {
        let copy = Folder::new();
        copy_files(&self.0, &copy.0).expect("copying a folder");
        copy
    }
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_files(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind in the system's temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where this build puts programs: one folder above the test programs.
pub(crate) fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    let folder = test.parent().and_then(Path::parent);
    folder.expect("a target folder").to_owned()
}

/// Where the hosts of all tests keep compiled components, so that each is compiled once.
pub(crate) fn compiled_folder() -> PathBuf {
    build_folder().join("compiled-for-tests")
}

pub(crate) fn binary() -> PathBuf {
    let binary = build_folder().join("tidegate");
    assert!(
        binary.exists(),
        "{} is missing; build it with `cargo build -p tidegate`",
        binary.display()
    );
    binary
}

/// The root of the project. Asked for when the test runs: checkouts may share what is built.
pub fn project() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&package).join("..")
}

/// Where handlers are built.
pub fn handlers_folder() -> PathBuf {
    project().join("target/handlers")
}

/// A TOML basic string.
pub(crate) fn toml_string(text: &str) -> String {
    // JSON escapes are TOML escapes too.
    serde_json::Value::from(text).to_string()
}

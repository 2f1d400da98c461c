//! Compiling, which costs time and memory that only the component decides: in a process of
//! its own, under limits, so that it can be ended.
//!
//! The process is this very program. It is handed the component through its standard input
//! and hands the compiled code back through its standard output; only this side writes to the
//! cache. Invariants: no compiler outlives the wait for it, nor the process that began it,
//! and whatever becomes of one is a sentence about its component.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::config;
use super::load::permits;
use super::process::Job;
use super::{LoadError, process};

/// The file of the program that runs, also when another one has its place by now.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// What is read of what a compiler says when it fails, in bytes.
const MAX_SAID: usize = 16 << 10;

/// Where components are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiling {
    /// On threads of this process, without a bound in time and memory: for programs that are
    /// not `tidegate` itself, and trust their components.
    InThisProcess,
    /// In processes of this program, which understands [`COMPILE_COMMAND`](super::COMPILE_COMMAND).
    InOthers,
}

/// Compiles what is not in the cache.
pub(super) struct Compiler {
    settings: config::Engine,
    /// The threads that compile in this process; none when others do.
    threads: Option<Arc<rayon::ThreadPool>>,
    /// Processes that may compile at the same time, and those of them for large components.
    running: Semaphore,
    large: Semaphore,
    /// Whether these processes yield to what this one serves.
    is_polite: AtomicBool,
}

impl Compiler {
    pub(super) fn new(
        compiling: Compiling,
        settings: &config::Engine,
    ) -> wasmtime::Result<Compiler> {
        let running = settings.compile_processes;
        Ok(Compiler {
            threads: match compiling {
                Compiling::InThisProcess => Some(Arc::new(process::threads(
                    settings.compile_threads,
                    process::NICENESS,
                )?)),
                Compiling::InOthers => None,
            },
            settings: settings.clone(),
            running: Semaphore::new(permits(running)),
            large: Semaphore::new(permits(running.saturating_sub(1))),
            is_polite: AtomicBool::new(false),
        })
    }

    /// The compiled code of a component.
    pub(super) async fn compile(
        &self,
        engine: &wasmtime::Engine,
        component: Bytes,
    ) -> Result<Vec<u8>, LoadError> {
        match self.threads.clone() {
            Some(threads) => {
                let engine = engine.clone();
                let compiled = tokio::task::spawn_blocking(move || {
                    threads.install(|| engine.precompile_component(&component))
                });
                let compiled = compiled
                    .await
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
                compiled.map_err(|error| LoadError::Invalid {
                    detail: format!("{error:#}"),
                })
            }
            None => self.compile_in_process(component).await,
        }
    }

    async fn compile_in_process(&self, component: Bytes) -> Result<Vec<u8>, LoadError> {
        let is_large = component.len() as u64 > self.settings.small_component_bytes;
        let limit = self.settings.compile_timeout_ms;
        let patience = Duration::from_millis(limit);
        let place = tokio::time::timeout(patience, self.place_for(is_large)).await;
        let _place = place.map_err(|_| LoadError::NoPlace)?;
        let job = self.job(is_large);
        match tokio::time::timeout(patience, self.run(&component, &job)).await {
            Ok(done) => done,
            // What has begun is killed with what waited for it.
            Err(_) => Err(LoadError::CompileTimeout {
                limit,
                key: "compile-timeout-ms",
            }),
        }
    }

    /// Waits for a place. Large components leave one to the small.
    async fn place_for(
        &self,
        is_large: bool,
    ) -> (Option<SemaphorePermit<'_>>, Option<SemaphorePermit<'_>>) {
        // The semaphores are never closed.
        let large = match is_large {
            true => self.large.acquire().await.ok(),
            false => None,
        };
        (large, self.running.acquire().await.ok())
    }

    fn job(&self, is_large: bool) -> Job {
        let settings = &self.settings;
        Job {
            settings: settings.clone(),
            niceness: match self.is_polite.load(Ordering::Relaxed) {
                true => process::NICENESS,
                false => 0,
            },
            cpu_ms: match is_large {
                // In case that nobody is there any more to end it in time.
                true => settings.compile_timeout_ms * settings.compile_threads as u64,
                false => settings.small_compile_cpu_ms,
            },
        }
    }

    /// From now on there is somebody whom compiling must not hold up.
    pub(super) fn be_polite(&self) {
        self.is_polite.store(true, Ordering::Relaxed);
    }

    async fn run(&self, component: &Bytes, job: &Job) -> Result<Vec<u8>, LoadError> {
        let failed = |error: std::io::Error| LoadError::Compiler {
            detail: error.to_string(),
        };
        let mut process = spawn(job).map_err(failed)?;
        let pipes = (
            process.stdin.take(),
            process.stdout.take(),
            process.stderr.take(),
        );
        let (Some(mut asked), Some(code), Some(said)) = pipes else {
            return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
        };
        let limit = self.settings.max_compiled_bytes;
        let (_, code, said) = tokio::join!(
            hand_over(&mut asked, component),
            read_up_to(code, limit),
            read_up_to(said, MAX_SAID),
        );
        if code.len() > limit {
            return Err(LoadError::TooMuchCode { limit });
        }
        let ended = wait(&mut process).await.map_err(failed)?;
        // It ends itself when this is closed.
        drop(asked);
        let said = String::from_utf8_lossy(&said);
        match ended {
            Ended::Well => Ok(code),
            Ended::Refused => Err(LoadError::Invalid {
                detail: said.trim().to_owned(),
            }),
            Ended::OutOfMemory => Err(self.out_of_memory()),
            Ended::OutOfTime => Err(LoadError::CompileTimeout {
                limit: job.cpu_ms,
                key: "small-compile-cpu-ms",
            }),
            Ended::Otherwise if process::is_out_of_memory(&said) => Err(self.out_of_memory()),
            Ended::Otherwise => Err(LoadError::Compiler {
                detail: said.lines().next().unwrap_or_default().to_owned(),
            }),
        }
    }

    fn out_of_memory(&self) -> LoadError {
        LoadError::CompileMemory {
            limit: self.settings.compile_memory_bytes,
        }
    }
}

fn spawn(job: &Job) -> std::io::Result<Child> {
    let job = serde_json::to_string(job)?;
    Command::new(THIS_PROGRAM)
        .arg0("tidegate")
        .args([process::COMMAND, &job])
        // Nothing of what this process was told concerns it, keys least of all.
        .env_clear()
        .envs(process::VARIABLES)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Hands the component over, its length first. What a compiler that has ended does not take
/// is of no use to anybody; how it has ended says the rest.
async fn hand_over(asked: &mut ChildStdin, component: &Bytes) {
    let length = (component.len() as u64).to_le_bytes();
    if asked.write_all(&length).await.is_ok() {
        let _ = asked.write_all(component).await;
    }
}

/// Reads to the end, or to a byte more than the limit.
async fn read_up_to(pipe: impl AsyncRead + Unpin, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut pipe = pipe.take((limit as u64).saturating_add(1));
    // What was read before an error is judged by how the process has ended.
    let _ = pipe.read_to_end(&mut bytes).await;
    bytes
}

/// How a compiler has ended.
enum Ended {
    Well,
    /// With the validator's words.
    Refused,
    OutOfMemory,
    OutOfTime,
    Otherwise,
}

async fn wait(process: &mut Child) -> std::io::Result<Ended> {
    use std::os::unix::process::ExitStatusExt;
    let status = process.wait().await?;
    Ok(match (status.code(), status.signal()) {
        (Some(0), _) => Ended::Well,
        (Some(code), _) if code == i32::from(process::REFUSED) => Ended::Refused,
        (_, Some(signal)) if signal == rustix::process::Signal::XCPU.as_raw() => Ended::OutOfTime,
        // Nobody else ends it so but the system, when memory is short.
        (_, Some(signal)) if signal == rustix::process::Signal::KILL.as_raw() => Ended::OutOfMemory,
        _ => Ended::Otherwise,
    })
}

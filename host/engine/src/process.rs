//! The process that compiles one component: what it is started with, what it may use, what it
//! does.
//!
//! It reads settings from its argument and a component from its standard input, and writes
//! compiled code to its standard output. Its standard input stays open for as long as somebody
//! waits; when it is closed the process ends.

use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use serde::{Deserialize, Serialize};

use super::config;
use super::wasmtime_config;

/// What a process is begun for, as its argument has it: JSON.
#[derive(Deserialize, Serialize)]
pub(super) struct Job {
    pub(super) settings: config::Engine,
    /// How much it yields to other processes (nice(2)).
    pub(super) niceness: i32,
    /// How long it may compute, in milliseconds; rounded up to whole seconds.
    pub(super) cpu_ms: u64,
}

/// The hidden command of the program, which a job follows.
pub const COMMAND: &str = "compile";
/// The exit code of a process that says what is wrong with the component.
pub(super) const REFUSED: u8 = 3;
/// What its allocator is told: to take memory as it is needed, because what is set aside
/// counts towards the limit.
pub(super) const VARIABLES: [(&str, &str); 2] = [
    ("MIMALLOC_ARENA_EAGER_COMMIT", "0"),
    ("MIMALLOC_DISALLOW_ARENA_ALLOC", "1"),
];

/// How much the threads that compile yield to those that serve (nice(2)).
pub(super) const NICENESS: i32 = 10;
/// The file in which a process says how gladly it is ended when the system has no memory
/// (proc(5)), and the most that it can say.
const OOM_SCORE: (&str, &str) = ("/proc/self/oom_score_adj", "1000");

/// Threads of their own, so that compiling takes no more of the machine than it may.
pub(super) fn threads(count: usize, niceness: i32) -> wasmtime::Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(count.max(1))
        .thread_name(|number| format!("compile-{number}"))
        .start_handler(move |_| {
            // On Linux this concerns the calling thread alone, and is handed down to those that
            // it starts. Without it compiling works as well, only less politely.
            let _ = nice(niceness);
        });
    pool.build().map_err(wasmtime::Error::new)
}

/// Whether a process that was refused memory has said this.
pub(super) fn is_out_of_memory(said: &str) -> bool {
    // The standard library's words when an allocation fails, and the system's.
    said.contains("memory allocation of") || said.contains("(os error 12)")
}

/// What the process does from its start to its end.
pub fn run(job: &str) -> ExitCode {
    let (said, code) = match compile(job) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failed::Refused(said)) => (said, ExitCode::from(REFUSED)),
        Err(Failed::Otherwise(said)) => (said, ExitCode::FAILURE),
    };
    // Whoever began it reads this.
    let _ = writeln!(std::io::stderr(), "{said}");
    code
}

enum Failed {
    /// The component is at fault.
    Refused(String),
    Otherwise(String),
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Failed {
        Failed::Otherwise(error.to_string())
    }
}

impl From<wasmtime::Error> for Failed {
    fn from(error: wasmtime::Error) -> Failed {
        Failed::Otherwise(format!("{error:#}"))
    }
}

fn compile(job: &str) -> Result<(), Failed> {
    let job: Job =
        serde_json::from_str(job).map_err(|error| Failed::Otherwise(error.to_string()))?;
    limit(&job)?;
    let settings = job.settings;
    let component = read()?;
    std::thread::Builder::new().spawn(|| {
        // Nothing more comes: this waits until nobody waits any more.
        let _ = std::io::stdin().lock().read(&mut [0]);
        std::process::exit(0);
    })?;
    let engine = wasmtime::Engine::new(&wasmtime_config(&settings))?;
    let threads = threads(settings.compile_threads, 0)?;
    let code = threads.install(|| engine.precompile_component(&component));
    let code = code.map_err(|error| {
        let said = format!("{error:#}");
        match is_out_of_memory(&said) {
            true => Failed::Otherwise(said),
            false => Failed::Refused(said),
        }
    })?;
    let mut output = std::io::stdout().lock();
    output.write_all(&code)?;
    Ok(output.flush()?)
}

/// Reads the component, which its length goes before.
fn read() -> std::io::Result<Vec<u8>> {
    let mut input = std::io::stdin().lock();
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut component = Vec::new();
    let read = input.take(length).read_to_end(&mut component)?;
    match read as u64 == length {
        true => Ok(component),
        false => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Takes from this process what it may not use.
fn limit(job: &Job) -> std::io::Result<()> {
    let most = |resource, most: u64, beyond: u64| {
        // What is less already stays so: only a privileged process may have more again.
        let held = getrlimit(resource).maximum;
        let within = |most: u64| Some(held.map_or(most, |held| held.min(most)));
        let limit = Rlimit {
            current: within(most),
            maximum: within(most.saturating_add(beyond)),
        };
        setrlimit(resource, limit)
    };
    most(Resource::Core, 0, 0)?;
    // What it holds in memory that is its own, its threads' stacks included.
    most(Resource::Data, job.settings.compile_memory_bytes as u64, 0)?;
    // At the first limit it is ended with a signal that says so (SIGXCPU).
    most(Resource::Cpu, job.cpu_ms.div_ceil(1_000).max(1), 1)?;
    let _ = nice(job.niceness);
    let (file, score) = OOM_SCORE;
    let _ = std::fs::write(file, score);
    Ok(())
}

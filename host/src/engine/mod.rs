//! The WebAssembly engine: compiles components, keeps the compiled code, makes instances
//! and calls into them under limits.
//!
//! `router` loads components here, `actor` makes instances and runs turns in them. The
//! engine knows nothing of actors' queues, stores or sockets: what a guest asks of the
//! host goes to the [`Imports`] that came with the call.
//!
//! Invariant: whatever a guest does, the call ends by its deadline with a result, a
//! failure or a [`Crash`], and no other instance notices.

mod allowed_hosts;
mod bindings;
mod cache;
mod clocks;
mod guards;
mod guest;
mod guest_log;
mod imports;
mod instance;
mod load;
mod outbound;
mod outside;

pub use allowed_hosts::{AllowedHosts, InvalidEntry};
pub use guards::{Subject, View};
pub use guest::{Firing, Origin, Turn};
pub use imports::{Audience, CallResult, Flush, Imports, Invocation, NewTimer, Pending, WayOut};
pub use instance::{Crash, Hook, Instance};
pub use load::{Component, Grants, LoadError};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Sleeps;
use crate::config;
use crate::metrics::Metrics;

/// A cheap handle to the one engine of a host.
#[derive(Clone)]
pub struct Engine {
    wasmtime: wasmtime::Engine,
    linker: Arc<wasmtime::component::Linker<instance::GuestContext>>,
    cache: Arc<cache::Cache>,
    max_component_bytes: u64,
    ticker: Arc<Ticker>,
    budget: Arc<Budget>,
    sleeps: Sleeps,
    /// Where components are compiled.
    compilers: Arc<rayon::ThreadPool>,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// Sets up the engine and its ticking thread.
    pub fn new(settings: &config::Engine, metrics: Arc<Metrics>) -> wasmtime::Result<Engine> {
        let wasmtime = wasmtime::Engine::new(&wasmtime_config(settings))?;
        let mut linker = wasmtime::component::Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        clocks::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        bindings::ActorsHandler::add_to_linker::<_, wasmtime::component::HasSelf<_>>(
            &mut linker,
            |context| context,
        )?;
        let ticker = Ticker::start(&wasmtime, Duration::from_millis(settings.epoch_tick_ms));
        Ok(Engine {
            cache: Arc::new(cache::Cache::open(
                &settings.cache_dir,
                settings.cache_max_bytes,
                &wasmtime,
            )),
            linker: Arc::new(linker),
            wasmtime,
            max_component_bytes: settings.max_component_bytes,
            ticker: Arc::new(ticker),
            budget: Arc::new(Budget::new(settings.grown_memory_bytes)),
            sleeps: Sleeps::default(),
            compilers: Arc::new(compilers(settings.compile_threads)?),
            metrics,
        })
    }

    /// Removes compiled components that were not loaded for long, where there are more than
    /// may be kept. Off the async threads; its failures are logged.
    pub async fn prune_cache(&self) {
        let cache = self.cache.clone();
        // What it had left to remove goes the next time.
        let _ = tokio::task::spawn_blocking(move || cache.prune()).await;
    }

    /// Longest component file, in bytes.
    pub fn max_component_bytes(&self) -> u64 {
        self.max_component_bytes
    }
}

/// How much the threads that compile yield to those that serve (nice(2)).
const COMPILE_NICENESS: i32 = 10;

/// Threads of their own, so that compiling takes no more of the machine than it may.
fn compilers(threads: usize) -> wasmtime::Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|number| format!("compile-{number}"))
        .start_handler(|_| {
            // On Linux this concerns the calling thread alone. Without it compiling works
            // as well, only less politely.
            let _ = rustix::process::nice(COMPILE_NICENESS);
        });
    pool.build().map_err(wasmtime::Error::new)
}

fn wasmtime_config(settings: &config::Engine) -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        .epoch_interruption(true)
        // The contract is synchronous WIT; without this each call costs a microsecond less.
        .concurrency_support(false)
        .max_wasm_stack(settings.stack_bytes)
        // The guest's stack plus what host functions need on top of it.
        .async_stack_size(settings.stack_bytes + (512 << 10))
        .memory_init_cow(true)
        // Instances come and go one by one and differ in shape (QuickJS has a dozen core
        // instances), so they are mapped on demand: less memory for each resident one than
        // from a pool, no ceiling on their number, and no slower to make. Measured by
        // `host/examples/instance_cost.rs`, reported in docs/architecture.md.
        .allocation_strategy(wasmtime::InstanceAllocationStrategy::OnDemand)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    config
}

/// What all guests together may grow their memories by.
struct Budget {
    limit: usize,
    taken: AtomicUsize,
}

impl Budget {
    fn new(limit: usize) -> Budget {
        Budget {
            limit,
            taken: AtomicUsize::new(0),
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.limit;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn is_scarce(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > self.limit / 2
    }
}

/// Raises the engine's epoch at a steady pace, so that running guests look up. Every
/// instance holds it: it ticks as long as there is a guest that might run.
struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine, pace: Duration) -> Ticker {
        let stop = Arc::new(AtomicBool::new(false));
        let engine = engine.weak();
        let seen = stop.clone();
        let thread = std::thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(move || {
                while !seen.load(Ordering::Relaxed) {
                    std::thread::park_timeout(pace);
                    match engine.upgrade() {
                        Some(engine) => engine.increment_epoch(),
                        None => return,
                    }
                }
            })
            .expect("the system starts one thread");
        Ticker {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

//! The WebAssembly engine: compiles components, keeps the compiled code, makes instances
//! and calls into them under limits.
//!
//! Whoever deploys loads components here, `actor` makes instances and runs turns in them. The
//! engine knows nothing of actors' queues, stores or sockets: what a guest asks of the host goes to
//! the imports that came with the call, one trait for each interface of `wit/` ([`TurnImports`],
//! [`GuardImports`]). What a component exports is looked up by itself, so that any combination
//! loads. One file holds all about one interface of the contract.
//!
//! Invariant: whatever a guest does, the call ends by its deadline with a result, a
//! failure or a [`Crash`], and no other instance notices.

mod access;
mod actor;
mod actors;
mod allowed_hosts;
mod bindings;
mod budget;
mod cache;
mod clocks;
mod compile;
pub mod config;
mod exports;
mod guest_log;
mod imports;
mod instance;
mod load;
mod manifest;
pub mod metrics;
mod migrate;
mod outbound;
mod outbox;
mod process;
mod self_test;
mod shape;
mod state;
mod ticker;
mod timers;
mod turns;
mod types;

use std::sync::{Arc, Weak};
use std::time::Duration;

pub use access::{Subject, View};
pub use actor::Hook;
pub use actors::{ActorCalls, CallResult};
pub use allowed_hosts::{AllowedHosts, InvalidEntry};
pub use budget::GivesWay;
pub use compile::Compiling;
pub use imports::{GuardImports, Pending, Step, TurnImports};
pub use instance::{Crash, Instance};
pub use load::{Component, Grants, LoadError};
pub use outbound::{Outgoing, WayOut};
pub use outbox::{Audience, Connections, Outbox};
pub use process::{COMMAND as COMPILE_COMMAND, run as compile_for_another};
pub use state::{StateRead, StateWrite, Unparsed};
use tidegate_base::clock::Sleeps;
use tidegate_base::workers::Workers;
pub use tidegate_core::turn::{Invocation, NewTimer};
pub use timers::Timers;
pub use turns::{Flush, TurnControl};
pub use types::Turn;

use self::budget::Budget;
use self::compile::Compiler;
use self::metrics::Metrics;
use self::ticker::Ticker;

/// A cheap handle to the one engine of a host.
#[derive(Clone)]
pub struct Engine {
    wasmtime: wasmtime::Engine,
    linker: Arc<wasmtime::component::Linker<instance::GuestContext>>,
    cache: Arc<cache::Cache>,
    settings: Arc<config::Engine>,
    ticker: Arc<Ticker>,
    budget: Arc<Budget>,
    sleeps: Sleeps,
    compiler: Arc<Compiler>,
    workers: Arc<Workers>,
    metrics: Arc<Metrics>,
}

impl Engine {
    /// Sets up the engine and its ticking thread.
    pub fn new(
        settings: &config::Engine,
        compiling: Compiling,
        metrics: Arc<Metrics>,
    ) -> wasmtime::Result<Engine> {
        let wasmtime = wasmtime::Engine::new(&wasmtime_config(settings))?;
        let mut linker = wasmtime::component::Linker::new(&wasmtime);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        clocks::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        bindings::Handler::add_to_linker::<_, wasmtime::component::HasSelf<_>>(
            &mut linker,
            |context| context,
        )?;
        let ticked = wasmtime.weak();
        let ticker = Ticker::start(Duration::from_millis(settings.epoch_tick_ms), move || {
            let engine = ticked.upgrade();
            engine.inspect(wasmtime::Engine::increment_epoch).is_some()
        });
        Ok(Engine {
            cache: Arc::new(cache::Cache::open(
                &settings.cache_dir,
                settings.cache_max_bytes,
                &wasmtime,
            )),
            linker: Arc::new(linker),
            wasmtime,
            settings: Arc::new(settings.clone()),
            ticker: Arc::new(ticker),
            budget: Arc::new(Budget::new(settings.guest_memory_bytes)),
            sleeps: Sleeps::default(),
            compiler: Arc::new(Compiler::new(compiling, settings)?),
            workers: Arc::new(Workers::new(settings.work_threads)),
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

    /// Has compiling yield to what this process serves from now on.
    pub fn be_polite(&self) {
        self.compiler.be_polite();
    }

    /// Lets somebody give way when guests find no more memory.
    pub fn add_keeper(&self, keeper: Weak<dyn GivesWay>) {
        self.budget.add_keeper(keeper);
    }

    /// Longest component file, in bytes.
    pub fn max_component_bytes(&self) -> u64 {
        self.settings.max_component_bytes
    }

    /// Longest component file that counts as small, in bytes.
    pub fn small_component_bytes(&self) -> u64 {
        self.settings.small_component_bytes
    }
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
        // `host/engine/examples/instance_cost.rs`, reported in docs/architecture.md.
        .allocation_strategy(wasmtime::InstanceAllocationStrategy::OnDemand)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    config
}

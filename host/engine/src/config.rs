//! The settings of the WebAssembly engine, and what one component may use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_base::config::MAX_MS;
use tidegate_base::settings;

/// Longest turn that can be asked for.
const MAX_TURN_DEADLINE_MS: u64 = 24 * 60 * 60 * 1000;
/// Most outbound requests of one turn that can be asked for.
const MAX_OUTBOUND_REQUESTS: u64 = 10_000;
/// Least memory with which anything can be compiled.
const MIN_COMPILE_MEMORY: u64 = 64 << 20;

settings! {
    /// Settings of the WebAssembly engine.
    pub struct Engine {
        /// Where compiled components are kept; by default `tidegate/compiled` in the user's
        /// cache folder. An empty path keeps none.
        cache_dir: PathBuf = default_cache_dir() => "`tidegate/compiled` in the user's cache folder", "path";
        /// What they may take there, in bytes; beyond it those go that were not loaded for the
        /// longest time. Those of components that are loaded stay.
        cache_max_bytes: u64 = 1 << 30, "bytes";
        /// How often a running guest is looked at: whether it is past its deadline, and to
        /// let its neighbours run.
        epoch_tick_ms: u64 = 1, "ms", 1..=MAX_MS;
        /// Stack of a guest, in bytes; recursion beyond it fails the turn.
        stack_bytes: usize = 512 << 10, "bytes", 1..;
        /// What all guests together may hold, in bytes: of each instance its memories, from the
        /// size they begin with on, whether it has touched all of that or not, its tables and its
        /// stack. For more, instances that wait for their next turn are dropped.
        #[alias = "grown-memory-bytes"]
        guest_memory_bytes: usize = 8 << 30, "bytes", 1..;
        /// Longest component file, in bytes.
        max_component_bytes: u64 = 64 << 20, "bytes", 1..;
        /// Longest component file that counts as small, in bytes: which does not wait for large ones.
        small_component_bytes: u64 = 2 << 20, "bytes";
        /// Components within each other.
        max_nesting: usize = 32, "components", 1..;
        /// Modules and components that one component consists of.
        max_modules: usize = 1_000, "modules and components", 1..;
        /// Types, imports, exports, instances and aliases of one component; those of a nested one
        /// count as often as it is instantiated.
        max_items: usize = 200_000, "items", 1..;
        /// Functions of one component.
        max_functions: usize = 100_000, "functions", 1..;
        /// Longest function, in bytes of WebAssembly.
        max_function_bytes: usize = 1 << 20, "bytes", 1..;
        /// Longest compiled code of one component, in bytes.
        max_compiled_bytes: usize = 512 << 20, "bytes", 1..;
        /// Components that are compiled at the same time, each in a process of its own; large ones
        /// leave one of these places to the small.
        compile_processes: usize = 2, "processes", 1..;
        /// Threads of each of these processes; while the host serves, at a lower priority than its own.
        compile_threads: usize = 1, "threads", 1..=1_024;
        /// What compiling one component may take, in bytes of memory.
        compile_memory_bytes: usize = 2 << 30, "bytes", MIN_COMPILE_MEMORY..;
        /// Time to compile one component, once its turn has come; so long it also waits for that.
        compile_timeout_ms: u64 = 120_000, "ms", 1..=MAX_MS;
        /// Time of a processor that compiling a small component may take, rounded up to seconds.
        small_compile_cpu_ms: u64 = 20_000, "ms", 1..=MAX_MS;
        /// Threads for long work of the host on large documents, at a lower priority than those that
        /// serve; one component has all but one of them at most.
        work_threads: usize = 2, "threads", 2..=1_024;
    }
}

fn default_cache_dir() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .map(|cache| cache.join("tidegate").join("compiled"))
        .unwrap_or_default()
}

settings! {
    /// What one component may use. Every instance, and every turn, has its own account.
    pub struct Limits {
        /// Linear memory of one instance, all its memories together, in bytes.
        memory_bytes: usize = 128 << 20, "bytes", 1..;
        /// Elements of one instance's tables, all together.
        table_elements: usize = 100_000, "elements";
        /// Core instances that one instance may consist of.
        core_instances: usize = 64, "instances", 1..;
        /// Memories that one instance may have.
        memories: usize = 16, "memories";
        /// Tables that one instance may have.
        tables: usize = 64, "tables";
        /// Time for one turn, waiting included.
        turn_deadline_ms: u64 = 5_000, "ms", 1..=MAX_TURN_DEADLINE_MS;
        /// Time for one turn of a streaming method, unless its manifest says otherwise.
        streaming_deadline_ms: u64 = 300_000, "ms", 1..=MAX_TURN_DEADLINE_MS;
        /// The longest deadline that a manifest may give a method; one that asks for more gets this.
        max_deadline_ms: u64 = 3_600_000, "ms", 1..=MAX_TURN_DEADLINE_MS;
        /// Actors of the component that may come into memory per second, on average; calls and
        /// subscriptions that would bring in further ones fail with `rate.actors`, messages wait. 0
        /// sets no limit.
        new_actors_per_second: u32 = 10_000, "actors/s";
        /// Actors that may come at once, ahead of that average.
        new_actors_burst: u32 = 50_000, "actors", 1..;
        /// Time for a caller to read a part of a result before the turn fails.
        chunk_timeout_ms: u64 = 30_000, "ms", 1..=MAX_TURN_DEADLINE_MS;
        /// Timers that one actor may have.
        timers: usize = 10_000, "timers";
        /// Calls and messages of one turn to other actors.
        calls: usize = 1_000, "calls and messages";
        /// Calls of one turn to the interfaces of `tidegate:realtime`; a stream has them anew
        /// after each tick.
        host_calls: u64 = 10_000, "calls";
        /// Outbound HTTP requests of one turn that are under way.
        outbound_requests: usize = 16, "requests", 0..=MAX_OUTBOUND_REQUESTS;
        /// Time to connect to the server of an outbound request.
        outbound_connect_timeout_ms: u64 = 10_000, "ms", 1..=MAX_TURN_DEADLINE_MS;
        /// Time from then until its response begins.
        outbound_first_byte_timeout_ms: u64 = 60_000, "ms", 1..=MAX_TURN_DEADLINE_MS;
        /// Steps of the host's work for one turn or guard call on its documents: a JSON value that is
        /// made, moved, compared or checked, or 64 bytes of text. A stream has them anew after each
        /// tick.
        work_steps: u64 = 200_000_000, "steps", 1..;
        /// What one turn may stage (documents, patches, events, its result), in bytes.
        effects_bytes: usize = 64 << 20, "bytes", 1..;
        /// Length of an actor's state as JSON, in bytes.
        state_bytes: usize = 32 << 20, "bytes", 1..;
        /// What it takes in memory, in bytes: `docs/handlers.md` says how that is counted. Patches,
        /// views and values that are checked are bound by it as well.
        state_memory_bytes: usize = 128 << 20, "bytes", 1..;
        /// What one turn may write to standard output and error; the rest is dropped.
        log_bytes: usize = 64 << 10, "bytes";
        /// Instances that answer `access` at the same time, for all actors together.
        guard_instances: usize = 8, "instances", 1..;
        /// Time for one call of a guard, waiting for an instance included.
        guard_deadline_ms: u64 = 2_000, "ms", 1..=MAX_TURN_DEADLINE_MS;
    }
}

impl Limits {
    /// Time for one turn.
    pub fn turn_deadline(&self) -> Duration {
        Duration::from_millis(self.turn_deadline_ms)
    }
}

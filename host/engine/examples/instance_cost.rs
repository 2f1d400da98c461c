//! What one resident instance costs, in time and memory, by allocation strategy.
//!
//! ```text
//! cargo xtask handlers
//! cargo run --release -p tidegate-engine --example instance_cost -- target/handlers/counter.wasm [COUNT]
//! ```
//!
//! Bare wasmtime: no actor, no WASI context, every import a trap. Each strategy runs in a
//! process of its own, because a pool that was once touched stays with the process.

use std::time::Instant;

use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

fn main() -> wasmtime::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let usage = "usage: instance_cost FILE.wasm [COUNT] [on-demand|pooling]";
    let file = arguments.get(1).expect(usage);
    let count: usize = arguments
        .get(2)
        .map_or(1000, |count| count.parse().expect(usage));
    match arguments.get(3).map(String::as_str) {
        None => {
            println!("{count} instances of {file}");
            println!(
                "{:<10} {:>14} {:>16} {:>12} {:>16}",
                "strategy", "µs to make", "RSS bytes each", "µs to drop", "µs again + drop"
            );
            for strategy in ["on-demand", "pooling"] {
                let status = std::process::Command::new(&arguments[0])
                    .args([file, &count.to_string(), strategy])
                    .status()?;
                assert!(status.success(), "{strategy} failed");
            }
            Ok(())
        }
        Some(strategy) => measure(file, count, strategy),
    }
}

fn measure(file: &str, count: usize, strategy: &str) -> wasmtime::Result<()> {
    let mut config = Config::new();
    config.epoch_interruption(true).concurrency_support(false);
    config.allocation_strategy(match strategy {
        "pooling" => InstanceAllocationStrategy::Pooling(pool(count)),
        _ => InstanceAllocationStrategy::OnDemand,
    });
    let engine = Engine::new(&config)?;
    let component = Component::from_file(&engine, file)?;
    let mut linker = Linker::<()>::new(&engine);
    linker.define_unknown_imports_as_traps(&component)?;
    let pre = linker.instantiate_pre(&component)?;
    let make = || {
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1_000_000);
        pre.instantiate(&mut store)
            .map(|instance| (store, instance))
    };
    drop(make()?);
    let before = resident_bytes();
    let began = Instant::now();
    let instances = (0..count)
        .map(|_| make())
        .collect::<wasmtime::Result<Vec<_>>>()?;
    let made = began.elapsed();
    let bytes = resident_bytes().saturating_sub(before);
    let began = Instant::now();
    drop(instances);
    let dropped = began.elapsed();
    // What an actor pays that comes back: the pool is warm by now.
    let began = Instant::now();
    for _ in 0..count {
        drop(make()?);
    }
    let again = began.elapsed();
    let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{strategy:<10} {:>14.1} {:>16} {:>12.1} {:>16.1}",
        each(made),
        bytes / count,
        each(dropped),
        each(again),
    );
    Ok(())
}

fn pool(count: usize) -> PoolingAllocationConfig {
    let count = u32::try_from(count + 1).expect("a count of instances");
    let mut pool = PoolingAllocationConfig::new();
    // A QuickJS component has a dozen core instances and several memories.
    pool.total_component_instances(count)
        .total_core_instances(count * 32)
        .total_memories(count * 4)
        .total_tables(count * 16)
        .max_memory_size(16 << 20)
        .table_elements(100_000)
        .max_memories_per_component(4);
    pool
}

/// Resident set size (`/proc/self/statm`, second field, in pages).
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("statm has seven numbers");
    pages * 4096
}

//! The floor under an actor: wasmtime with the host's own counter in it, on one thread, with a
//! state that is a string in memory. What else the component imports does nothing or is a trap.
//!
//! It runs in a process of its own, because a pool that was once touched stays with the
//! process, and prints what it measured as JSON.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

use self::contract::exports::tidegate::realtime::actor::Turn;
use self::contract::tidegate::realtime::types::{ActorRef, Client, Failure, Origin};
use self::contract::tidegate::realtime::{outbox, state};
use self::contract::{ActorsHandler, ActorsHandlerPre};
use crate::server::{Allocator, resident_bytes};

#[allow(missing_docs, unreachable_pub, dead_code)]
mod contract {
    wasmtime::component::bindgen!({ path: "../wit", world: "actors-handler" });
}

/// Ticks until a call is interrupted: never, but the check costs what it costs the host.
const NEVER: u64 = 1 << 40;
/// Calls of one instance, to find out what one costs that is warm.
const HOT_CALLS: u32 = 100_000;

/// An actor's state.
struct State {
    document: String,
    token: u64,
}

impl state::Host for State {
    fn token(&mut self) -> u64 {
        self.token
    }

    fn read(&mut self) -> String {
        self.document.clone()
    }

    fn replace(&mut self, document: String) -> Result<u64, Failure> {
        self.document = document;
        self.token += 1;
        Ok(self.token)
    }

    fn get(&mut self, _pointer: String) -> Option<String> {
        unreachable!("the counter reads its whole state")
    }

    fn patch(&mut self, _ops: Vec<state::Op>) -> Result<u64, Failure> {
        unreachable!("the counter replaces its whole state")
    }
}

impl outbox::Host for State {
    /// Of every hundredth count, for nobody.
    fn emit(
        &mut self,
        _event: String,
        _payload: String,
        _to: outbox::Audience,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn chunk(&mut self, _payload: String) -> Result<(), Failure> {
        unreachable!("the counter does not stream")
    }

    fn connections(&mut self) -> Vec<String> {
        unreachable!("the counter does not ask who is connected")
    }
}

/// A counter and its instance.
struct Counter {
    store: Store<State>,
    instance: ActorsHandler,
}

impl Counter {
    fn new(engine: &Engine, component: &ActorsHandlerPre<State>) -> wasmtime::Result<Counter> {
        let state = State {
            document: r#"{"count":0}"#.to_owned(),
            token: 1,
        };
        let mut store = Store::new(engine, state);
        store.set_epoch_deadline(NEVER);
        let instance = component.instantiate(&mut store)?;
        Ok(Counter { store, instance })
    }

    fn increment(&mut self, turn: &Turn) -> wasmtime::Result<()> {
        let actor = self.instance.tidegate_realtime_actor();
        let by = r#"{"by":1}"#.to_owned();
        let result = actor.call_invoke(&mut self.store, turn, "increment", Some(&by))?;
        result.map_err(|failure| wasmtime::Error::msg(failure.code))?;
        Ok(())
    }
}

/// Makes so many counters and prints what that cost.
pub(crate) fn measure(handlers: &Path, allocator: Allocator, number: u64) -> anyhow::Result<()> {
    let figures = figures(&handlers.join("counter.wasm"), allocator, number);
    let figures = figures.map_err(|error| anyhow::anyhow!("{error:#}"))?;
    println!("{figures}");
    Ok(())
}

fn figures(file: &Path, allocator: Allocator, number: u64) -> wasmtime::Result<Value> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .allocation_strategy(match allocator {
            Allocator::OnDemand => InstanceAllocationStrategy::OnDemand,
            Allocator::Pooling => InstanceAllocationStrategy::Pooling(pool(number)),
        });
    let engine = Engine::new(&config)?;
    let component = Component::from_file(&engine, file)?;
    let mut linker = Linker::new(&engine);
    state::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    outbox::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    linker.define_unknown_imports_as_traps(&component)?;
    let component = ActorsHandlerPre::new(linker.instantiate_pre(&component)?)?;
    let turn = turn();
    Counter::new(&engine, &component)?.increment(&turn)?;

    let before = memory()?;
    let mut counters = Vec::with_capacity(number as usize);
    let began = cpu();
    for _ in 0..number {
        counters.push(Counter::new(&engine, &component)?);
    }
    let uncalled = memory()?;
    for counter in &mut counters {
        counter.increment(&turn)?;
    }
    let cold = cpu() - began;
    let called = memory()?;
    let began = cpu();
    for counter in &mut counters {
        counter.increment(&turn)?;
    }
    let again = cpu() - began;
    let mut hot = Duration::ZERO;
    if let Some(counter) = counters.first_mut() {
        let began = cpu();
        for _ in 0..HOT_CALLS {
            counter.increment(&turn)?;
        }
        hot = cpu() - began;
    }
    let grown = |bytes: u64| bytes.saturating_sub(before) as f64 / number as f64;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / number as f64;
    Ok(json!({
        "rss": grown(called),
        "rssUncalled": grown(uncalled),
        "cold": each(cold),
        "again": each(again),
        "hot": hot.as_secs_f64() * 1e6 / f64::from(HOT_CALLS),
    }))
}

/// A turn like those of the host, by a client.
fn turn() -> Turn {
    Turn {
        this: ActorRef {
            actor: "counter".to_owned(),
            id: "a0".to_owned(),
        },
        turn_id: "0000000000000000".to_owned(),
        origin: Origin::Client(Client {
            connection: Some("0000000000000000".to_owned()),
            user: None,
        }),
        now_ms: 1_700_000_000_000,
        deadline_ms: 1_700_000_005_000,
        attempt: 1,
        key: None,
        traceparent: None,
    }
}

fn pool(number: u64) -> PoolingAllocationConfig {
    let count = u32::try_from(number + 2).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count)
        .total_core_instances(count * 4)
        .total_memories(count)
        .total_tables(count * 4)
        .max_memory_size(16 << 20)
        .table_elements(100_000)
        .max_memories_per_component(1);
    pool
}

/// Memory of this process, in bytes.
fn memory() -> wasmtime::Result<u64> {
    let bytes = resident_bytes(std::process::id());
    bytes.map_err(|error| wasmtime::Error::msg(format!("{error:#}")))
}

/// Processor time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // It counts from 0 upwards.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

//! One instance of a component: its store, its account of resources, and calls into it.
//!
//! An instance belongs to one actor at a time and runs one call at a time. After a crash
//! it must not be called again; `actor` drops it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_base::clock::Sleeps;
use tidegate_core::Failure;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::clocks::WasiClocksCtxView;
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::budget::Budget;
use super::clocks::Clock;
use super::config::Limits;
use super::exports::Guests;
use super::guest_log::GuestLog;
use super::imports::Imports;
use super::load::{Component, Template};
use super::metrics::Metrics;
use super::outbound::{self, Outbound};
use super::ticker::Ticker;

/// What belongs to one instance on the host's side.
pub(super) struct GuestContext {
    wasi: WasiCtx,
    outbound: Outbound,
    table: ResourceTable,
    sleeps: Sleeps,
    account: Account,
    pub(super) log: GuestLog,
    /// When the running call is interrupted.
    deadline: Instant,
    /// How long it may take.
    allowed: Duration,
    host_calls_left: u64,
    /// Present while a call runs that is given any.
    pub(super) imports: Option<Imports>,
}

impl GuestContext {
    pub(super) fn count_host_call(&mut self) -> Result<(), Stop> {
        match self.host_calls_left.checked_sub(1) {
            Some(left) => {
                self.host_calls_left = left;
                Ok(())
            }
            // A turn that lives for long may go on at the pace of its ticks.
            None if self.imports.as_mut().is_some_and(Imports::has_ticked) => {
                self.host_calls_left = self.account.limits.host_calls;
                Ok(())
            }
            None => Err(Stop::HostCalls),
        }
    }

    pub(super) fn clock(&mut self) -> Clock<'_> {
        let wasi = WasiClocksCtxView {
            ctx: self.wasi.clocks(),
            table: &mut self.table,
        };
        let sleeps = &self.sleeps;
        Clock { wasi, sleeps }
    }

    /// What a call that did not return comes to.
    fn crash(&self, error: &wasmtime::Error) -> Crash {
        let account = &self.account;
        let limits = &account.limits;
        let allowed_ms = self.allowed.as_millis() as u64;
        let failure = match (
            error.downcast_ref::<Stop>(),
            error.downcast_ref::<wasmtime::Trap>(),
        ) {
            (Some(Stop::Deadline), _) | (_, Some(wasmtime::Trap::Interrupt)) => {
                Failure::turn_deadline(allowed_ms)
            }
            (Some(Stop::HostCalls), _) => Failure::turn_host_call_limit(limits.host_calls),
            (Some(Stop::Failed(failure)), _) => failure.clone(),
            (Some(Stop::NotExported(_)), _) => Failure::host_failed(),
            (_, Some(wasmtime::Trap::StackOverflow)) => Failure::turn_stack_limit(),
            // A guest that is refused memory ends itself, with a trap that does not say why.
            _ if account.refused.is_some() => {
                Failure::turn_memory_limit(account.refused.unwrap_or_default())
            }
            _ => Failure::handler_trapped(),
        };
        Crash {
            failure,
            detail: format!("{error:#}"),
        }
    }
}

impl WasiView for GuestContext {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for GuestContext {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.outbound.view(&mut self.table)
    }
}

/// Why the host ends a call from inside.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error("the turn is past its deadline")]
    Deadline,
    #[error("the turn called the host too often")]
    HostCalls,
    #[error("a function of tidegate:realtime was called outside a turn")]
    OutsideTurn,
    #[error("the component does not export `{0}`")]
    NotExported(&'static str),
    #[error("{0}")]
    Failed(Failure),
}

/// The setting that limits all guests together.
const GUEST_MEMORY: &str = "engine.guest-memory-bytes";
/// What an element of a table takes: a pointer.
const ELEMENT_BYTES: usize = size_of::<usize>();

/// Memory and tables that an instance has, and whether it was refused more.
struct Account {
    memory_bytes: usize,
    table_elements: usize,
    /// What all guests' budget was charged with.
    charged_bytes: usize,
    limits: Arc<Limits>,
    budget: Arc<Budget>,
    /// The limit that the running call has met.
    refused: Option<&'static str>,
}

impl Account {
    fn charge(&mut self, bytes: usize) -> bool {
        let fits = self.budget.take(bytes);
        match fits {
            true => self.charged_bytes += bytes,
            false => self.refused = Some(GUEST_MEMORY),
        }
        fits
    }
}

impl wasmtime::ResourceLimiter for Account {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        let total = self.memory_bytes + growth;
        if total > self.limits.memory_bytes {
            self.refused = Some("memory-bytes");
            return Ok(false);
        }
        // From the first page on: the guest may write to each without growing anything.
        if !self.charge(growth) {
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        let total = self.table_elements.saturating_add(growth);
        if total > self.limits.table_elements {
            self.refused = Some("table-elements");
            return Ok(false);
        }
        if !self.charge(growth * ELEMENT_BYTES) {
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.core_instances
    }

    fn memories(&self) -> usize {
        self.limits.memories
    }

    fn tables(&self) -> usize {
        self.limits.tables
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.budget.give_back(self.charged_bytes);
    }
}

/// The end of an instance: its call did not return. The instance is not usable again.
#[derive(Debug)]
pub struct Crash {
    /// What the caller is told.
    pub failure: Failure,
    /// What the host's log is told: the trap and the guest's stack.
    pub detail: String,
}

/// A component in memory, ready to be called.
pub struct Instance {
    pub(super) store: Store<GuestContext>,
    /// What interrupts it.
    pub(super) ticker: Arc<Ticker>,
    /// What it exports.
    pub(super) guests: Guests,
    pub(super) limits: Arc<Limits>,
    serial: u64,
    metrics: Arc<Metrics>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.metrics.instances.dec();
    }
}

impl Template {
    pub(super) async fn instantiate(&self) -> Result<Instance, Crash> {
        let allowed = self.limits.turn_deadline();
        let deadline = Instant::now() + allowed;
        let (stdout, stderr) = GuestLog::pair(self.name.clone());
        let log = stdout.clone();
        let wasi = WasiCtxBuilder::new()
            .envs(&self.environment)
            .stdout(stdout)
            .stderr(stderr)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        let mut account = Account {
            memory_bytes: 0,
            table_elements: 0,
            charged_bytes: 0,
            limits: self.limits.clone(),
            budget: self.budget.clone(),
            refused: None,
        };
        if !account.charge(self.fixed_bytes) {
            return Err(no_memory("the instance itself does not fit".to_owned()));
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(outbound::MAX_RESOURCES);
        let context = GuestContext {
            wasi,
            outbound: Outbound::new(self.outbound.clone()),
            table,
            sleeps: self.sleeps.clone(),
            account,
            log,
            deadline,
            allowed,
            host_calls_left: self.limits.host_calls,
            imports: None,
        };
        let mut store = Store::new(self.pre.engine(), context);
        store.limiter(|context| &mut context.account);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            if Instant::now() >= context.data().deadline {
                return Err(Stop::Deadline.into());
            }
            // A guest that computes for long takes turns with everybody else's tasks.
            Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(tokio::task::yield_now()),
            ))
        });
        // Start functions are guest code, which may wait or loop like any other.
        let made = within(
            &self.ticker,
            deadline,
            self.pre.instantiate_async(&mut store),
        )
        .await;
        let loaded = made.and_then(|instance| self.exports.load(&mut store, &instance));
        match loaded {
            Ok(guests) => {
                self.metrics.instances.inc();
                self.metrics.instances_made.inc();
                Ok(Instance {
                    store,
                    ticker: self.ticker.clone(),
                    guests,
                    limits: self.limits.clone(),
                    serial: self.serial,
                    metrics: self.metrics.clone(),
                })
            }
            Err(error)
                if is_out_of_memory(&error)
                    || store.data().account.refused == Some(GUEST_MEMORY) =>
            {
                Err(no_memory(format!("{error:#}")))
            }
            Err(error) => Err(store.data().crash(&error)),
        }
    }
}

impl Instance {
    /// Lets the guest run for so long, outside any turn: with no imports of the contract.
    pub(super) fn open_without_imports(&mut self, allowed: Duration) -> Instant {
        let deadline = Instant::now() + allowed;
        let context = self.store.data_mut();
        context.deadline = deadline;
        context.allowed = allowed;
        context.host_calls_left = 1;
        context.account.refused = None;
        self.store.set_epoch_deadline(1);
        deadline
    }

    /// The serial number of the component that it was made from.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether it was made from this component, and not from another version of it.
    pub fn is_of(&self, component: &Component) -> bool {
        self.serial == component.serial
    }

    /// Lets the guest run until the deadline, which is so long from now, with these imports.
    pub(super) fn open(&mut self, deadline: Instant, allowed: Duration, mut imports: Imports) {
        let way_out = imports.way_out();
        let context = self.store.data_mut();
        context.deadline = deadline;
        context.allowed = allowed;
        context.host_calls_left = self.limits.host_calls;
        context.imports = Some(imports);
        context.outbound.begin_call(way_out);
        context.account.refused = None;
        self.store.set_epoch_deadline(1);
    }

    /// Allows the running call so many times what one turn may.
    pub(super) fn multiply_host_calls(&mut self, times: usize) {
        let context = self.store.data_mut();
        context.host_calls_left = context.host_calls_left.saturating_mul(times as u64);
    }

    /// Ends what `open` began.
    pub(super) fn close<T>(
        &mut self,
        result: wasmtime::Result<T>,
    ) -> (Option<Imports>, Result<T, Crash>) {
        let context = self.store.data_mut();
        context.log.end_turn();
        context.outbound.end_call();
        let imports = context.imports.take();
        (imports, result.map_err(|error| context.crash(&error)))
    }
}

fn no_memory(detail: String) -> Crash {
    Crash {
        failure: Failure::guest_memory(),
        detail,
    }
}

/// Whether the system has refused memory, or another mapping of it (`vm.max_map_count`).
/// Wasmtime passes the system's error on in types of its own, of which the text is public.
fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    const ENOMEM: &str = "(os error 12)";
    error
        .chain()
        .any(|cause| cause.to_string().ends_with(ENOMEM))
}

/// Waits for a call, but not past its deadline: the epoch stops a guest that computes,
/// this stops one that waits.
pub(super) async fn within<T>(
    ticker: &Ticker,
    deadline: Instant,
    call: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    let mut call = pin!(call);
    let call = poll_fn(|context| {
        ticker.runs();
        call.as_mut().poll(context)
    });
    match tokio::time::timeout_at(deadline.into(), call).await {
        Ok(result) => result,
        Err(_) => Err(Stop::Deadline.into()),
    }
}

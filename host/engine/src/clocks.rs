//! `wasi:clocks/monotonic-clock` for guests, whose timers ring on time.
//!
//! The clock is wasmtime's; what waits for it goes by [`Sleeps`], because a handler that streams
//! sleeps from beat to beat.

use std::pin::Pin;
use std::time;

use tidegate_base::clock::Sleeps;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksCtxView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::{self, Duration, Host, Instant};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::instance::GuestContext;

/// Takes the place of the interface that is linked already.
pub(super) fn add_to_linker(linker: &mut Linker<GuestContext>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<_, Clocks>(linker, GuestContext::clock)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// A guest's clock.
pub(super) struct Clock<'a> {
    pub(super) wasi: WasiClocksCtxView<'a>,
    pub(super) sleeps: &'a Sleeps,
}

struct Clocks;

impl HasData for Clocks {
    type Data<'a> = Clock<'a>;
}

impl Host for Clock<'_> {
    fn now(&mut self) -> wasmtime::Result<Instant> {
        self.wasi.now()
    }

    fn resolution(&mut self) -> wasmtime::Result<Duration> {
        self.wasi.resolution()
    }

    fn subscribe_instant(&mut self, when: Instant) -> wasmtime::Result<Resource<DynPollable>> {
        let left = when.saturating_sub(self.wasi.now()?);
        self.subscribe_duration(left)
    }

    fn subscribe_duration(&mut self, when: Duration) -> wasmtime::Result<Resource<DynPollable>> {
        let due = time::Instant::now().checked_add(time::Duration::from_nanos(when));
        let Some(due) = due.filter(|_| when > 0) else {
            // What is due already yields to other tasks, and what never is waits for ever.
            return self.wasi.subscribe_duration(when);
        };
        let sleeps = self.sleeps.clone();
        let ring = self.wasi.table.push(Ring { due, sleeps })?;
        subscribe(self.wasi.table, ring)
    }
}

/// Ready when a moment has come.
struct Ring {
    due: time::Instant,
    sleeps: Sleeps,
}

impl Pollable for Ring {
    fn ready<'life, 'ring>(&'life mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'ring>>
    where
        'life: 'ring,
        Self: 'ring,
    {
        Box::pin(self.sleeps.until(self.due))
    }
}

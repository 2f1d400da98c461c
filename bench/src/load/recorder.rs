//! What a run measures: how long each call took, and what the processes used meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::report::Sample;
use crate::server::Usage;

/// The longest latency that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(60);

/// Latencies, in nanoseconds.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Latencies {
        let longest = LONGEST.as_nanos() as u64;
        let histogram = Histogram::new_with_bounds(1, longest, 3);
        Latencies(histogram.expect("the bounds are in order"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The longest, in µs.
    pub(crate) fn longest_micros(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }

    /// The latency that this share of calls did not exceed, in µs.
    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Shared by the connections of a run. All run on one thread, so its lock is always free.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Mutex<State>>);

struct State {
    phase: Phase,
    latencies: Latencies,
    /// In any phase.
    answers: u64,
}

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    WarmUp,
    Measuring,
    /// Nothing more is sent; what comes is measured.
    Ending,
    /// Nothing more is sent.
    Over,
}

impl Phase {
    /// Whether more is to be asked.
    pub(super) fn goes_on(self) -> bool {
        matches!(self, Phase::WarmUp | Phase::Measuring)
    }
}

impl Recorder {
    pub(crate) fn new(phase: Phase) -> Recorder {
        Recorder(Arc::new(Mutex::new(State {
            phase,
            latencies: Latencies::new(),
            answers: 0,
        })))
    }

    fn with<T>(&self, visit: impl FnOnce(&mut State) -> T) -> T {
        visit(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes an answer; tells whether more is to be asked.
    pub(crate) fn answered(&self, latency: Duration) -> Phase {
        self.with(|state| {
            state.answers += 1;
            if matches!(state.phase, Phase::Measuring | Phase::Ending) {
                state.latencies.record(latency);
            }
            state.phase
        })
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.with(|state| state.phase = phase);
    }

    /// What was recorded, of which nothing is left, and how many answers came in all.
    pub(super) fn take(&self) -> (Latencies, u64) {
        self.with(|state| {
            let latencies = std::mem::replace(&mut state.latencies, Latencies::new());
            (latencies, state.answers)
        })
    }
}

/// What processes use from one moment on.
pub(crate) struct Meter {
    began: Instant,
    server: Usage,
    generator: Usage,
    pid: u32,
}

/// What they have used.
pub(crate) struct Spent {
    pub(crate) time: Duration,
    /// Of the server's processors.
    pub(crate) server: Duration,
    /// Of the generator's.
    pub(crate) generator: Duration,
}

impl Meter {
    /// Begins with the server that has this process id.
    pub(crate) fn start(pid: u32) -> Result<Meter> {
        Ok(Meter {
            server: Usage::of(pid)?,
            generator: Usage::of(std::process::id())?,
            began: Instant::now(),
            pid,
        })
    }

    pub(crate) fn stop(self) -> Result<Spent> {
        Ok(Spent {
            time: self.began.elapsed(),
            server: Usage::of(self.pid)?.cpu - self.server.cpu,
            generator: Usage::of(std::process::id())?.cpu - self.generator.cpu,
        })
    }
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    /// Answers that came while `spent` was measured.
    pub(crate) answers: u64,
    /// Those and the ones before and after.
    pub(crate) all_answers: u64,
    pub(crate) spent: Spent,
}

impl Outcome {
    /// Of a run in which each answer of the window was recorded when it came.
    pub(crate) fn new(recorder: &Recorder, spent: Spent) -> Outcome {
        let (latencies, all_answers) = recorder.take();
        Outcome {
            answers: latencies.count(),
            all_answers,
            latencies,
            spent,
        }
    }

    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.answers as f64 / self.spent.time.as_secs_f64()
    }

    /// The figures that every table of calls has.
    pub(crate) fn sample(&self) -> Sample {
        let calls = self.answers.max(1) as f64;
        Sample::new()
            .with("calls/s", self.rate())
            .with("p50 µs", self.latencies.micros(0.5))
            .with("p99 µs", self.latencies.micros(0.99))
            .with("p99.9 µs", self.latencies.micros(0.999))
            .with("CPU µs/call", self.spent.server.as_secs_f64() * 1e6 / calls)
            .with("generator cores", self.generator_cores())
    }

    /// How many cores the generator was busy on. Near 1, it was the bottleneck.
    pub(crate) fn generator_cores(&self) -> f64 {
        self.spent.generator.as_secs_f64() / self.spent.time.as_secs_f64()
    }
}

//! Where the time of a call goes: one of many carries a [`Stopwatch`] through the host.
//!
//! `gateway` starts it when a frame is there, whoever takes the call a stage further notes that,
//! and it ends with the answer. What is counted are whole calls that committed: one that is
//! refused or fails on its way leaves nothing.

use std::array;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tidegate_base::label_values;

/// A part of a call's way through the host.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stage {
    /// The frame is parsed.
    Parse,
    /// The call is let in and finds its actor.
    Admit,
    /// It waits in the actor's queue.
    Queue,
    /// Its input is checked, and the actor's instance and turn are made ready.
    Prepare,
    /// The handler runs, with what it asks of the host meanwhile.
    Handler,
    /// The change is worked out, checked and handed to the store.
    Commit,
    /// What the turn lets out waits for the store, and goes to subscribers and the caller.
    Release,
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::Parse,
        Stage::Admit,
        Stage::Queue,
        Stage::Prepare,
        Stage::Handler,
        Stage::Commit,
        Stage::Release,
    ];
}

label_values! {
    Stage {
        Parse => "parse",
        Admit => "admit",
        Queue => "queue",
        Prepare => "prepare",
        Handler => "handler",
        Commit => "commit",
        Release => "release",
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct StageLabel {
    stage: Stage,
}

/// How long stages took.
#[derive(Debug)]
pub struct Stages {
    family: Family<StageLabel, Histogram>,
    /// By place in [`Stage::ALL`].
    seconds: [Histogram; Stage::ALL.len()],
}

impl Stages {
    pub(super) fn new() -> Stages {
        // 250 ns to some 2 s.
        let buckets = || Histogram::new(exponential_buckets(0.000_000_25, 2.0, 24));
        let family = Family::new_with_constructor(buckets as fn() -> Histogram);
        let label = |place: usize| StageLabel {
            stage: Stage::ALL[place],
        };
        Stages {
            seconds: array::from_fn(|place| family.get_or_create_owned(&label(place))),
            family,
        }
    }

    pub(super) fn family(&self) -> Family<StageLabel, Histogram> {
        self.family.clone()
    }

    /// Begins with the first stage of a call.
    pub fn start(self: &Arc<Self>) -> Stopwatch {
        Stopwatch(Some(Box::new(Running {
            stages: self.clone(),
            since: Instant::now(),
            took: [Duration::ZERO; Stage::ALL.len()],
        })))
    }
}

/// Goes with a call. Most are none: they show nothing, and cost nothing.
#[derive(Debug, Default)]
pub struct Stopwatch(Option<Box<Running>>);

#[derive(Debug)]
struct Running {
    stages: Arc<Stages>,
    /// When the stage began that is under way.
    since: Instant,
    took: [Duration; Stage::ALL.len()],
}

impl Stopwatch {
    /// Notes that a stage has ended. The next one begins.
    pub fn passed(&mut self, stage: Stage) {
        if let Some(running) = &mut self.0 {
            let now = Instant::now();
            running.took[stage as usize] += now - running.since;
            running.since = now;
        }
    }

    /// Counts the call, whose last stage ends.
    pub fn finish(mut self) {
        self.passed(Stage::Release);
        if let Some(running) = self.0 {
            for (seconds, took) in running.stages.seconds.iter().zip(running.took) {
                seconds.observe(took.as_secs_f64());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_base::metrics::Registry;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn places_are_those_of_the_stages() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place);
        }
    }

    #[test]
    fn only_whole_calls_are_counted() {
        let metrics = Metrics::new();
        let mut lost = metrics.stages.start();
        lost.passed(Stage::Parse);
        drop(lost);
        let mut answered = metrics.stages.start();
        answered.passed(Stage::Parse);
        answered.finish();
        Stopwatch::default().finish();
        let mut registry = Registry::in_order(&[]);
        metrics.register(&mut registry);
        let page = registry.page();
        for stage in ["parse", "handler", "release"] {
            let count = format!("tidegate_call_stage_seconds_count{{stage=\"{stage}\"}} 1\n");
            assert!(page.contains(&count), "{page}");
        }
    }
}

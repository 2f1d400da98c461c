//! What is counted of actors, of each type for itself.
//!
//! Invariant: the number of series is bounded by the actor types that are loaded; handlers cannot
//! make it grow by what they answer.

mod stages;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Unit;
use tidegate_base::budget::Budgets;
use tidegate_base::label_values;
use tidegate_base::metrics::{Count, Level, Registry};
use tidegate_base::sync::Mutex;

pub use self::stages::{Stage, Stages, Stopwatch};

/// Failure codes of handlers that are told apart for each actor type; further ones count
/// as [`OTHER_CODES`].
const MAX_CODES: usize = 64;
/// What further codes are counted as.
const OTHER_CODES: &str = "other";

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ActorLabel {
    actor: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FailureLabel {
    actor: String,
    entry: Entry,
    code: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EntryLabel {
    actor: String,
    entry: Entry,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FormLabel {
    actor: String,
    form: Form,
}

/// What a turn runs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Entry {
    /// A method.
    Call,
    /// A hook.
    Hook,
    /// A method that a timer or schedule calls.
    Timer,
}

/// What is sent to subscribers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Form {
    Snapshot,
    Patch,
    Event,
}

label_values! {
    Entry { Call => "call", Hook => "hook", Timer => "timer" }
    Form { Snapshot => "snapshot", Patch => "patch", Event => "event" }
}

/// Everything that is counted of the actors of a host.
pub struct Metrics {
    turns: Family<EntryLabel, Count>,
    failures: Family<FailureLabel, Count>,
    seconds: Family<ActorLabel, Histogram>,
    waits: Family<ActorLabel, Histogram>,
    queued: Family<ActorLabel, Level>,
    in_memory: Family<ActorLabel, Level>,
    retired: Family<ActorLabel, Count>,
    crashes: Family<ActorLabel, Count>,
    published: Family<FormLabel, Count>,
    delivered: Family<FormLabel, Count>,
    /// Instances that were dropped to make room for others.
    pub instances_evicted: Count,
    /// Where the time of calls goes.
    pub stages: Arc<Stages>,
    /// What the host may hold for clients and actors, and what it does.
    pub budgets: Budgets,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn seconds() -> Histogram {
    // 10 µs to some 10 s.
    Histogram::new(exponential_buckets(0.000_01, 2.0, 21))
}

impl Metrics {
    /// All zero, with budgets that have no limits.
    pub fn new() -> Metrics {
        Metrics::with_budgets(Budgets::default())
    }

    /// All zero, with these budgets.
    pub fn with_budgets(budgets: Budgets) -> Metrics {
        Metrics {
            turns: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            waits: Family::new_with_constructor(seconds),
            queued: Family::default(),
            in_memory: Family::default(),
            retired: Family::default(),
            crashes: Family::default(),
            published: Family::default(),
            delivered: Family::default(),
            instances_evicted: Count::default(),
            stages: Arc::new(Stages::new()),
            budgets,
        }
    }

    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        macro_rules! register {
            ($($name:literal, $help:literal, $metric:expr;)*) => {
                $(registry.register($name, $help, $metric.clone());)*
            };
        }
        register! {
            "turns", "Turns that committed", self.turns;
            "turn_failures", "Turns that left no trace, by the code of the failure", self.failures;
            "queued_items", "Calls and hooks that wait in the queues of actors", self.queued;
            "actors_in_memory", "Actors in memory", self.in_memory;
            "actors_retired", "Actors that left memory", self.retired;
            "crashes", "Instances that crashed or were stopped by a limit", self.crashes;
            "messages_published", "Snapshots, patches and events that actors sent", self.published;
            "messages_delivered", "The same, counted once for each receiver", self.delivered;
            "instances_evicted", "Instances that were dropped to make room for others", self.instances_evicted;
        }
        let help = "Time from the beginning of a turn to its commit";
        registry.register_in(Unit::Seconds, "turn", help, self.seconds.clone());
        let help = "Time that a call waited in its actor's queue";
        registry.register_in(Unit::Seconds, "queue_wait", help, self.waits.clone());
        let help =
            "Time that calls over WebSocket spent on parts of their way, of one call in many";
        registry.register_in(Unit::Seconds, "call_stage", help, self.stages.family());
    }

    /// The handles of one actor type.
    pub fn actor(&self, actor: &str) -> ActorMetrics {
        let label = ActorLabel {
            actor: actor.to_owned(),
        };
        let turns = |entry| {
            let actor = actor.to_owned();
            self.turns.get_or_create_owned(&EntryLabel { actor, entry })
        };
        let form = |family: &Family<FormLabel, Count>, form| {
            let actor = actor.to_owned();
            family.get_or_create_owned(&FormLabel { actor, form })
        };
        let forms = |family| Forms {
            snapshots: form(family, Form::Snapshot),
            patches: form(family, Form::Patch),
            events: form(family, Form::Event),
        };
        ActorMetrics {
            calls: turns(Entry::Call),
            hooks: turns(Entry::Hook),
            timers: turns(Entry::Timer),
            seconds: self.seconds.get_or_create_owned(&label),
            waits: self.waits.get_or_create_owned(&label),
            queued: self.queued.get_or_create_owned(&label),
            in_memory: self.in_memory.get_or_create_owned(&label),
            retired: self.retired.get_or_create_owned(&label),
            crashes: self.crashes.get_or_create_owned(&label),
            published: forms(&self.published),
            delivered: forms(&self.delivered),
            codes: Mutex::default(),
            failures: self.failures.clone(),
            actor: label.actor,
            budgets: self.budgets.clone(),
        }
    }
}

/// Counters of snapshots, patches and events.
#[derive(Debug)]
pub struct Forms {
    /// Whole states.
    pub snapshots: Count,
    /// Changes of states.
    pub patches: Count,
    /// Events that handlers emit.
    pub events: Count,
}

/// What is counted for one actor type.
#[derive(Debug)]
pub struct ActorMetrics {
    calls: Count,
    hooks: Count,
    timers: Count,
    /// Time from the beginning of a turn to its commit.
    pub seconds: Histogram,
    /// Time that a call waited in its actor's queue.
    pub waits: Histogram,
    /// What waits in the queues.
    pub queued: Level,
    /// Actors in memory.
    pub in_memory: Level,
    /// Actors that left memory.
    pub retired: Count,
    /// Instances that crashed or were stopped by a limit.
    pub crashes: Count,
    /// What the actors sent.
    pub published: Forms,
    /// What they sent, counted once for each receiver.
    pub delivered: Forms,
    /// Codes that have a series of their own.
    codes: Mutex<Vec<(Entry, String, Count)>>,
    failures: Family<FailureLabel, Count>,
    actor: String,
    budgets: Budgets,
}

impl ActorMetrics {
    /// What the host may hold.
    pub fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Counts a turn that committed.
    pub fn committed(&self, entry: Entry) {
        match entry {
            Entry::Call => self.calls.inc(),
            Entry::Hook => self.hooks.inc(),
            Entry::Timer => self.timers.inc(),
        };
    }

    /// Counts a turn that failed.
    pub fn failed(&self, entry: Entry, code: &str) {
        let mut codes = self.codes.lock();
        let known = |codes: &[(Entry, String, Count)], code: &str| {
            let found = codes.iter().find(|(e, c, _)| *e == entry && c == code);
            found.map(|(.., count)| count.clone())
        };
        let count = known(&codes, code).unwrap_or_else(|| {
            let code = match codes.len() < MAX_CODES {
                true => code,
                false => OTHER_CODES,
            };
            known(&codes, code).unwrap_or_else(|| {
                let count = self.failures.get_or_create_owned(&FailureLabel {
                    actor: self.actor.clone(),
                    entry,
                    code: code.to_owned(),
                });
                codes.push((entry, code.to_owned(), count.clone()));
                count
            })
        });
        count.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics) -> String {
        let mut registry = Registry::in_order(&[]);
        metrics.register(&mut registry);
        registry.page()
    }

    fn value(page: &str, series: &str) -> String {
        let line = page.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("no {series} in\n{page}"));
        line[series.len()..].trim().to_owned()
    }

    #[test]
    fn what_is_counted_is_on_the_page() {
        let metrics = Metrics::new();
        let chat = metrics.actor("chat");
        chat.committed(Entry::Call);
        chat.failed(Entry::Call, "chat.too-long");
        chat.failed(Entry::Call, "chat.too-long");
        let page = page(&metrics);
        let turns = r#"tidegate_turns_total{actor="chat",entry="call"}"#;
        assert_eq!(value(&page, turns), "1");
        let failures =
            r#"tidegate_turn_failures_total{actor="chat",entry="call",code="chat.too-long"}"#;
        assert_eq!(value(&page, failures), "2");
    }

    #[test]
    fn a_handler_that_invents_codes_does_not_grow_the_page() {
        let metrics = Metrics::new();
        let lab = metrics.actor("lab");
        for n in 0..1_000 {
            lab.failed(Entry::Call, &format!("lab.code-{n}"));
        }
        let page = page(&metrics);
        let series = page.matches("tidegate_turn_failures_total{").count();
        assert_eq!(series, MAX_CODES + 1);
        let other = r#"tidegate_turn_failures_total{actor="lab",entry="call",code="other"}"#;
        assert_eq!(value(&page, other), (1_000 - MAX_CODES).to_string());
    }
}

//! What the host counts, and the page that operators' Prometheus reads.
//!
//! Every module counts into the handles it is given; `gateway` prints the page. A handle is
//! found once, when its owner is made: counting is an atomic addition.
//!
//! Invariant: the number of series is bounded by what is loaded, never by what clients
//! send or handlers answer.

mod budgets;
mod stages;
mod store;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::budgets::BudgetPage;
pub use self::stages::{Stage, Stages, Stopwatch};
use self::store::StorePage;
pub use self::store::{DiskFigures, StoreFigures};
use crate::budget::Budgets;
use crate::sync::Mutex;

/// A number that only grows.
pub type Count = Counter<u64, AtomicU64>;
/// A number that grows and shrinks.
pub type Level = Gauge<i64, AtomicI64>;

/// The media type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CodeLabel {
    code: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabel {
    kind: Kind,
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

/// What holds a socket.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A WebSocket.
    WebSocket,
    /// A stream of server-sent events.
    Sse,
}

/// Values of labels are written in lower case.
macro_rules! label_values {
    ($($label:ident { $($value:ident => $text:literal),* })*) => {
        $(impl EncodeLabelValue for $label {
            fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
                encoder.write_str(match self {
                    $($label::$value => $text),*
                })
            }
        })*
    };
}

label_values! {
    Entry { Call => "call", Hook => "hook", Timer => "timer" }
    Form { Snapshot => "snapshot", Patch => "patch", Event => "event" }
    Kind { WebSocket => "websocket", Sse => "sse" }
    Stage {
        Parse => "parse",
        Admit => "admit",
        Queue => "queue",
        Prepare => "prepare",
        Handler => "handler",
        Commit => "commit",
        Release => "release"
    }
}

/// Everything that is counted for a host.
pub struct Metrics {
    registry: Registry,
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
    refused: Family<CodeLabel, Count>,
    connections: Family<KindLabel, Level>,
    opened: Family<KindLabel, Count>,
    /// Open TCP sockets.
    pub sockets: Level,
    /// HTTP requests that were answered, upgrades included.
    pub requests: Count,
    /// WebSocket messages that clients sent.
    pub frames_received: Count,
    /// WebSocket frames that clients were sent, control frames included.
    pub frames_sent: Count,
    /// What was read from sockets, in bytes.
    pub bytes_received: Count,
    /// What was written to sockets, in bytes.
    pub bytes_sent: Count,
    /// Connections that were closed because they did not read.
    pub slow_consumers: Count,
    /// Snapshots in place of patches that a slow reader missed.
    pub resyncs: Count,
    /// Component instances in memory.
    pub instances: Level,
    /// Component instances that were made.
    pub instances_made: Count,
    /// Instances that were dropped to make room for others.
    pub instances_evicted: Count,
    /// Components that are loaded.
    pub components: Level,
    /// Components that replaced another version of themselves.
    pub swaps: Count,
    /// Where the time of calls goes.
    pub stages: Arc<Stages>,
    /// How the store is asked how it is doing.
    store: StorePage,
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
        let mut registry = Registry::with_prefix("tidegate");
        let build = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The running host", Info::new(build));
        let mut metrics = Metrics {
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
            refused: Family::default(),
            connections: Family::default(),
            opened: Family::default(),
            sockets: Level::default(),
            requests: Count::default(),
            frames_received: Count::default(),
            frames_sent: Count::default(),
            bytes_received: Count::default(),
            bytes_sent: Count::default(),
            slow_consumers: Count::default(),
            resyncs: Count::default(),
            instances: Level::default(),
            instances_made: Count::default(),
            instances_evicted: Count::default(),
            components: Level::default(),
            swaps: Count::default(),
            stages: Arc::new(Stages::new()),
            store: StorePage::default(),
            budgets,
            registry,
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
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
            "refusals", "Requests and frames that the host itself refused, by code", self.refused;
            "connections", "Open WebSockets and event streams", self.connections;
            "connections_opened", "WebSockets and event streams that were opened", self.opened;
            "sockets", "Open TCP sockets", self.sockets;
            "http_requests", "HTTP requests that were answered, upgrades included", self.requests;
            "frames_received", "WebSocket messages that clients sent", self.frames_received;
            "frames_sent", "WebSocket frames that clients were sent, control frames included", self.frames_sent;
            "slow_consumers", "Connections that were closed because they did not read", self.slow_consumers;
            "resyncs", "Snapshots in place of patches that a slow reader missed", self.resyncs;
            "instances", "Component instances in memory", self.instances;
            "instances_made", "Component instances that were made", self.instances_made;
            "instances_evicted", "Instances that were dropped to make room for others", self.instances_evicted;
            "components", "Components that are loaded", self.components;
            "component_swaps", "Components that replaced another version of themselves", self.swaps;
        }
        let unit = |registry: &mut Registry, name, help, unit, metric: &Count| {
            registry.register_with_unit(name, help, unit, metric.clone());
        };
        unit(
            registry,
            "received",
            "What was read from WebSockets",
            Unit::Bytes,
            &self.bytes_received,
        );
        unit(
            registry,
            "sent",
            "What was written to WebSockets",
            Unit::Bytes,
            &self.bytes_sent,
        );
        let help = "Time from the beginning of a turn to its commit";
        registry.register_with_unit("turn", help, Unit::Seconds, self.seconds.clone());
        let help = "Time that a call waited in its actor's queue";
        registry.register_with_unit("queue_wait", help, Unit::Seconds, self.waits.clone());
        let help =
            "Time that calls over WebSocket spent on parts of their way, of one call in many";
        registry.register_with_unit("call_stage", help, Unit::Seconds, self.stages.family());
        registry.register_collector(Box::new(self.store.clone()));
        registry.register_collector(Box::new(BudgetPage(self.budgets.clone())));
    }

    /// The handles of one actor type.
    pub fn actor(self: &Arc<Self>, actor: &str) -> ActorMetrics {
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
            actor: label.actor,
            all: self.clone(),
        }
    }

    /// Puts the store's figures on the page, as they are when it is asked for. Once.
    pub fn watch_store(&self, figures: impl Fn() -> StoreFigures + Send + Sync + 'static) {
        self.store.watch(figures);
    }

    /// Counts what the host refused. `code` is one of the host's own.
    pub fn refuse(&self, code: &'static str) {
        let code = code.to_owned();
        self.refused.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts an open connection until the guard is dropped.
    pub fn connected(self: &Arc<Self>, kind: Kind) -> Connected {
        let label = KindLabel { kind };
        self.opened.get_or_create(&label).inc();
        let level = self.connections.get_or_create_owned(&label);
        level.inc();
        Connected(level)
    }

    /// The page, in the OpenMetrics text format.
    pub fn page(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("writing to a string cannot fail");
        page
    }
}

/// One open connection.
#[derive(Debug)]
pub struct Connected(Level);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
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
    actor: String,
    all: Arc<Metrics>,
}

impl ActorMetrics {
    /// What the host may hold.
    pub fn budgets(&self) -> &Budgets {
        &self.all.budgets
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
                let count = self.all.failures.get_or_create_owned(&FailureLabel {
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

    fn value(page: &str, series: &str) -> String {
        let line = page.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("no {series} in\n{page}"));
        line[series.len()..].trim().to_owned()
    }

    #[test]
    fn what_is_counted_is_on_the_page() {
        let metrics = Arc::new(Metrics::new());
        let chat = metrics.actor("chat");
        chat.committed(Entry::Call);
        chat.failed(Entry::Call, "chat.too-long");
        chat.failed(Entry::Call, "chat.too-long");
        metrics.bytes_sent.inc_by(7);
        let _open = metrics.connected(Kind::WebSocket);
        drop(metrics.connected(Kind::WebSocket));
        let page = metrics.page();
        let turns = r#"tidegate_turns_total{actor="chat",entry="call"}"#;
        assert_eq!(value(&page, turns), "1");
        let failures =
            r#"tidegate_turn_failures_total{actor="chat",entry="call",code="chat.too-long"}"#;
        assert_eq!(value(&page, failures), "2");
        assert_eq!(value(&page, "tidegate_sent_bytes_total"), "7");
        let open = r#"tidegate_connections{kind="websocket"}"#;
        assert_eq!(value(&page, open), "1");
        let opened = r#"tidegate_connections_opened_total{kind="websocket"}"#;
        assert_eq!(value(&page, opened), "2");
    }

    #[test]
    fn a_handler_that_invents_codes_does_not_grow_the_page() {
        let metrics = Arc::new(Metrics::new());
        let lab = metrics.actor("lab");
        for n in 0..1_000 {
            lab.failed(Entry::Call, &format!("lab.code-{n}"));
        }
        let page = metrics.page();
        let series = page.matches("tidegate_turn_failures_total{").count();
        assert_eq!(series, MAX_CODES + 1);
        let other = r#"tidegate_turn_failures_total{actor="lab",entry="call",code="other"}"#;
        assert_eq!(value(&page, other), (1_000 - MAX_CODES).to_string());
    }
}

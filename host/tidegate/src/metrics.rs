//! What the whole host counts, put together from what each crate counts, and the order of its page.

use std::sync::Arc;

use prometheus_client::metrics::info::Info;
use tidegate_base::budget::Budgets;
use tidegate_base::metrics::Registry;

/// The names of the metrics, in the order of the page. `store` and `memory` are several.
const ORDER: [&str; 30] = [
    "build",
    "turns",
    "turn_failures",
    "queued_items",
    "actors_in_memory",
    "actors_retired",
    "crashes",
    "messages_published",
    "messages_delivered",
    "refusals",
    "connections",
    "connections_opened",
    "sockets",
    "http_requests",
    "frames_received",
    "frames_sent",
    "slow_consumers",
    "resyncs",
    "instances",
    "instances_made",
    "instances_evicted",
    "components",
    "component_swaps",
    "received",
    "sent",
    "turn",
    "queue_wait",
    "call_stage",
    "store",
    "memory",
];

/// Everything that is counted for a host.
pub(crate) struct Metrics {
    pub(crate) actors: Arc<tidegate_actor::metrics::Metrics>,
    /// Of what is loaded.
    pub(crate) components: Arc<tidegate_registry::metrics::Metrics>,
    pub(crate) doors: Arc<tidegate_gateway::metrics::Metrics>,
    pub(crate) engine: Arc<tidegate_engine::metrics::Metrics>,
    /// Of what is sent to clients.
    pub(crate) sent: Arc<tidegate_delivery::metrics::Metrics>,
    pub(crate) store: tidegate_store::metrics::Metrics,
    /// What operators see of all of them.
    pub(crate) page: Arc<Registry>,
}

impl Metrics {
    /// All zero, with these budgets.
    pub(crate) fn new(budgets: Budgets) -> Metrics {
        let mut page = Registry::in_order(&ORDER);
        let build = vec![("version", env!("CARGO_PKG_VERSION"))];
        page.register("build", "The running host", Info::new(build));
        budgets.register(&mut page);
        let actors = tidegate_actor::metrics::Metrics::with_budgets(budgets);
        actors.register(&mut page);
        let components = tidegate_registry::metrics::Metrics::default();
        components.register(&mut page);
        let doors = tidegate_gateway::metrics::Metrics::default();
        doors.register(&mut page);
        let engine = tidegate_engine::metrics::Metrics::default();
        engine.register(&mut page);
        let sent = tidegate_delivery::metrics::Metrics::default();
        sent.register(&mut page);
        let store = tidegate_store::metrics::Metrics::default();
        store.register(&mut page);
        Metrics {
            actors: Arc::new(actors),
            components: Arc::new(components),
            doors: Arc::new(doors),
            engine: Arc::new(engine),
            sent: Arc::new(sent),
            store,
            page: Arc::new(page),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_actor::metrics::Entry;
    use tidegate_base::budget::Budget;
    use tidegate_gateway::metrics::Kind;
    use tidegate_store::metrics::{DiskFigures, StoreFigures};

    use super::*;

    /// The page of metrics that are filled in as below.
    const PAGE: &str = include_str!("metrics/page.txt");

    fn value(page: &str, series: &str) -> String {
        let line = page.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("no {series} in\n{page}"));
        line[series.len()..].trim().to_owned()
    }

    #[test]
    fn what_is_counted_is_on_the_page() {
        let metrics = Metrics::new(Budgets::default());
        let chat = metrics.actors.actor("chat");
        chat.committed(Entry::Call);
        chat.failed(Entry::Call, "chat.too-long");
        chat.failed(Entry::Call, "chat.too-long");
        metrics.sent.bytes_sent.inc_by(7);
        let _open = metrics.doors.connected(Kind::WebSocket);
        drop(metrics.doors.connected(Kind::WebSocket));
        let page = metrics.page.page();
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

    /// Families of several series have no order of their own.
    fn sorted(page: &str) -> Vec<Vec<&str>> {
        let families = page.split("# HELP ");
        let sorted = families.map(|family| {
            let mut lines: Vec<&str> = family.lines().collect();
            if family.contains("kind=") || family.contains("stage=") || family.contains("actor=") {
                lines.sort_unstable();
            }
            lines
        });
        sorted.collect()
    }

    #[test]
    fn operators_find_everything_under_its_name_and_in_its_place() {
        let budgets = Budgets {
            inputs: Budget::new("inputs", 100),
            outbound: Budget::new("outbound", 200),
            actors: Budget::new("actors", 300),
        };
        let metrics = Metrics::new(budgets);
        let chat = metrics.actors.actor("chat");
        chat.committed(Entry::Call);
        chat.committed(Entry::Hook);
        chat.committed(Entry::Timer);
        chat.failed(Entry::Call, "chat.too-long");
        chat.seconds.observe(0.001);
        chat.waits.observe(0.002);
        chat.queued.set(2);
        chat.in_memory.set(3);
        chat.retired.inc_by(4);
        chat.crashes.inc_by(5);
        chat.published.snapshots.inc_by(6);
        chat.published.patches.inc_by(7);
        chat.published.events.inc_by(8);
        chat.delivered.snapshots.inc_by(9);
        chat.delivered.patches.inc_by(10);
        chat.delivered.events.inc_by(11);
        metrics.doors.refuse("rate.calls");
        let _socket = metrics.doors.connected(Kind::WebSocket);
        drop(metrics.doors.connected(Kind::Sse));
        metrics.doors.sockets.set(12);
        metrics.doors.requests.inc_by(13);
        metrics.doors.frames_received.inc_by(14);
        metrics.sent.frames_sent.inc_by(15);
        metrics.doors.bytes_received.inc_by(16);
        metrics.sent.bytes_sent.inc_by(17);
        metrics.sent.slow_consumers.inc_by(18);
        metrics.sent.resyncs.inc_by(19);
        metrics.engine.instances.set(20);
        metrics.engine.instances_made.inc_by(21);
        metrics.actors.instances_evicted.inc_by(22);
        metrics.components.components.set(23);
        metrics.components.swaps.inc_by(24);
        metrics.store.watch(|| StoreFigures {
            is_up: true,
            in_memory: 40,
            disk: Some(DiskFigures {
                keys: 41,
                appends: 42,
                appended_bytes: 43,
                writes: 44,
                sync_buckets: vec![(Some(Duration::from_millis(1)), 2), (None, 4)],
                sync_sum: Duration::from_millis(1_500),
                waiting_appends: 45,
                waiting_bytes: 46,
                segments: 47,
                live_bytes: 48,
                dead_bytes: 49,
                index_bytes: 50,
                compactions: 51,
                copied_bytes: 52,
                damaged_segments: 53,
                recovery: Duration::from_millis(250),
                recovery_bytes: 54,
                recovery_cut_bytes: 55,
            }),
        });
        let page = metrics.page.page();
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            sorted(&page.replace(&version, "version=\"\"")),
            sorted(PAGE)
        );
    }
}

//! What is counted at the doors.
//!
//! Invariant: the number of series is bounded; codes are the host's own.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Unit;
use tidegate_base::label_values;
use tidegate_base::metrics::{Count, Level, Registry};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CodeLabel {
    code: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabel {
    kind: Kind,
}

/// What holds a socket.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A WebSocket.
    WebSocket,
    /// A stream of server-sent events.
    Sse,
}

label_values! {
    Kind { WebSocket => "websocket", Sse => "sse" }
}

/// Everything that is counted at the doors of a host.
#[derive(Default)]
pub struct Metrics {
    refused: Family<CodeLabel, Count>,
    connections: Family<KindLabel, Level>,
    opened: Family<KindLabel, Count>,
    /// Open TCP sockets.
    pub sockets: Level,
    /// HTTP requests that were answered, upgrades included.
    pub requests: Count,
    /// WebSocket messages that clients sent.
    pub frames_received: Count,
    /// What was read from sockets, in bytes.
    pub bytes_received: Count,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        macro_rules! register {
            ($($name:literal, $help:literal, $metric:expr;)*) => {
                $(registry.register($name, $help, $metric.clone());)*
            };
        }
        register! {
            "refusals", "Requests and frames that the host itself refused, by code", self.refused;
            "connections", "Open WebSockets and event streams", self.connections;
            "connections_opened", "WebSockets and event streams that were opened", self.opened;
            "sockets", "Open TCP sockets", self.sockets;
            "http_requests", "HTTP requests that were answered, upgrades included", self.requests;
            "frames_received", "WebSocket messages that clients sent", self.frames_received;
        }
        let help = "What was read from WebSockets";
        registry.register_in(Unit::Bytes, "received", help, self.bytes_received.clone());
    }

    /// Counts what the host refused. `code` is one of the host's own.
    pub fn refuse(&self, code: &'static str) {
        let code = code.to_owned();
        self.refused.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts an open connection until the guard is dropped.
    pub fn connected(&self, kind: Kind) -> Connected {
        let label = KindLabel { kind };
        self.opened.get_or_create(&label).inc();
        let level = self.connections.get_or_create_owned(&label);
        level.inc();
        Connected(level)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_while_they_are_open() {
        let metrics = Metrics::default();
        metrics.bytes_received.inc_by(7);
        let _open = metrics.connected(Kind::WebSocket);
        drop(metrics.connected(Kind::WebSocket));
        let mut registry = Registry::in_order(&[]);
        metrics.register(&mut registry);
        let page = registry.page();
        for line in [
            "tidegate_received_bytes_total 7",
            r#"tidegate_connections{kind="websocket"} 1"#,
            r#"tidegate_connections_opened_total{kind="websocket"} 2"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }
}

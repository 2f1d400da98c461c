//! What is counted of what is sent to clients.

use prometheus_client::registry::Unit;
use tidegate_base::metrics::{Count, Registry};

/// Everything that is counted of sending.
#[derive(Debug, Default)]
pub struct Metrics {
    /// WebSocket frames that clients were sent, control frames included.
    pub frames_sent: Count,
    /// What was written to sockets, in bytes.
    pub bytes_sent: Count,
    /// Connections that were closed because they did not read.
    pub slow_consumers: Count,
    /// Snapshots in place of patches that a slow reader missed.
    pub resyncs: Count,
}

impl Metrics {
    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        let help = "WebSocket frames that clients were sent, control frames included";
        registry.register("frames_sent", help, self.frames_sent.clone());
        registry.register_in(
            Unit::Bytes,
            "sent",
            "What was written to WebSockets",
            self.bytes_sent.clone(),
        );
        let help = "Connections that were closed because they did not read";
        registry.register("slow_consumers", help, self.slow_consumers.clone());
        let help = "Snapshots in place of patches that a slow reader missed";
        registry.register("resyncs", help, self.resyncs.clone());
    }
}

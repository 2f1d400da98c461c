//! What is counted of instances.

use tidegate_base::metrics::{Count, Level, Registry};

/// Everything that is counted of the engine.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Component instances in memory.
    pub instances: Level,
    /// Component instances that were made.
    pub instances_made: Count,
}

impl Metrics {
    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Component instances in memory";
        registry.register("instances", help, self.instances.clone());
        let help = "Component instances that were made";
        registry.register("instances_made", help, self.instances_made.clone());
    }
}

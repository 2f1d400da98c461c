//! What is counted of components.

use tidegate_base::metrics::{Count, Level, Registry};

/// Everything that is counted of what is loaded.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Components that are loaded.
    pub components: Level,
    /// Components that replaced another version of themselves.
    pub swaps: Count,
}

impl Metrics {
    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Components that are loaded";
        registry.register("components", help, self.components.clone());
        let help = "Components that replaced another version of themselves";
        registry.register("component_swaps", help, self.swaps.clone());
    }
}

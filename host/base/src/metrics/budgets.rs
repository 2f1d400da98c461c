//! The budgets' part of the page: what all clients and actors together make the host hold.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::Registry;
use crate::budget::{Budget, Budgets};

impl Budgets {
    /// Puts them on the page.
    pub fn register(&self, registry: &mut Registry) {
        registry.collect("memory", BudgetPage(self.clone()));
    }
}

/// Asks the budgets when the page is asked for.
#[derive(Debug)]
struct BudgetPage(Budgets);

impl BudgetPage {
    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit, kind): (&str, &str, Option<&Unit>, MetricType),
        value: impl Fn(&Budget) -> u64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
        self.0.all().into_iter().try_for_each(|budget| {
            let labels = [("budget", budget.name())];
            let encoder = family.encode_family(&labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value(budget)).encode(encoder),
                _ => ConstGauge::new(value(budget)).encode(encoder),
            }
        })
    }
}

impl Collector for BudgetPage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let (bytes, gauge) = (Some(&Unit::Bytes), MetricType::Gauge);
        let help = "What is held for clients and actors, by the part of the memory that it is of";
        self.family(encoder, ("memory_used", help, bytes, gauge), |budget| {
            budget.used() as u64
        })?;
        let help = "What may be held of it";
        self.family(encoder, ("memory_limit", help, bytes, gauge), |budget| {
            budget.limit() as u64
        })?;
        let help = "How often there was no room for more of it";
        let refusals = ("memory_refusals", help, None, MetricType::Counter);
        self.family(encoder, refusals, Budget::refused)
    }
}

#[cfg(test)]
mod tests {
    use crate::budget::{Budget, Budgets};
    use crate::metrics::Registry;

    #[test]
    fn each_budget_shows_what_is_held_and_what_may_be() {
        let budgets = Budgets {
            inputs: Budget::new("inputs", 100),
            outbound: Budget::new("outbound", 200),
            actors: Budget::new("actors", 300),
        };
        let _share = budgets.outbound.share(7).unwrap();
        assert!(budgets.inputs.share(101).is_err());
        let mut registry = Registry::in_order(&[]);
        budgets.register(&mut registry);
        let page = registry.page();
        for line in [
            r#"tidegate_memory_used_bytes{budget="inputs"} 0"#,
            r#"tidegate_memory_used_bytes{budget="outbound"} 7"#,
            r#"tidegate_memory_limit_bytes{budget="actors"} 300"#,
            r#"tidegate_memory_refusals_total{budget="inputs"} 1"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }
}

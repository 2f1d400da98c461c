//! What metrics are made of: the kinds of numbers, and the page that operators' Prometheus reads.
//!
//! Each crate has its metrics in its `metrics.rs` and registers them with the one [`Registry`] of the
//! host. A handle is found once, when its owner is made: counting is an atomic addition. Of the
//! metrics, only those of the budgets are here.
//!
//! Invariant: the number of series is bounded by what is loaded, never by what clients send or
//! handlers answer.

mod budgets;

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Unit};

/// A number that only grows.
pub type Count = Counter<u64, AtomicU64>;
/// A number that grows and shrinks.
pub type Level = Gauge<i64, AtomicI64>;

/// The media type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted for a host.
pub struct Registry {
    order: &'static [&'static str],
    /// Each metric with its place on the page.
    parts: Vec<(usize, prometheus_client::registry::Registry)>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Nothing yet. The page has the metrics of these names first, in this order, whoever registers
    /// them and when; then all others as they were registered.
    pub fn in_order(order: &'static [&'static str]) -> Registry {
        Registry {
            order,
            parts: Vec::new(),
        }
    }

    /// Registers a metric without a unit.
    pub fn register(&mut self, name: &'static str, help: &str, metric: impl Metric) {
        self.part(name).register(name, help, metric);
    }

    /// Registers a metric that is in a unit, which becomes part of its name.
    pub fn register_in(&mut self, unit: Unit, name: &'static str, help: &str, metric: impl Metric) {
        self.part(name).register_with_unit(name, help, unit, metric);
    }

    /// Registers what is asked when the page is, and may have several metrics. The name is that of
    /// its place alone.
    pub fn collect(&mut self, name: &'static str, collector: impl Collector) {
        self.part(name).register_collector(Box::new(collector));
    }

    fn part(&mut self, name: &str) -> &mut prometheus_client::registry::Registry {
        let place = self.order.iter().position(|known| *known == name);
        let place = place.unwrap_or(self.order.len());
        let at = self.parts.partition_point(|(other, _)| *other <= place);
        let part = prometheus_client::registry::Registry::with_prefix("tidegate");
        self.parts.insert(at, (place, part));
        &mut self.parts[at].1
    }

    /// The page, in the OpenMetrics text format.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let mut parts = self.parts.iter();
        parts
            .try_for_each(|(_, part)| text::encode_registry(&mut page, part))
            .and_then(|()| text::encode_eof(&mut page))
            .expect("writing to a string cannot fail");
        page
    }
}

/// Says how the values of a label are written. The crate needs `prometheus-client`.
#[macro_export]
macro_rules! label_values {
    ($($label:ident { $($value:ident => $text:literal),* $(,)? })*) => {
        $(impl ::prometheus_client::encoding::EncodeLabelValue for $label {
            fn encode(
                &self,
                encoder: &mut ::prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> ::std::fmt::Result {
                ::std::fmt::Write::write_str(encoder, match self {
                    $($label::$value => $text),*
                })
            }
        })*
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_in_its_own_order() {
        let mut registry = Registry::in_order(&["first", "second"]);
        registry.register("other", "Has no place", Count::default());
        registry.register_in(Unit::Bytes, "second", "Comes second", Count::default());
        registry.register("further", "Has none either", Level::default());
        registry.register("first", "Comes first", Level::default());
        let page = registry.page();
        let series: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                "tidegate_first 0",
                "tidegate_second_bytes_total 0",
                "tidegate_other_total 0",
                "tidegate_further 0",
            ]
        );
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}

//! What is counted of the store.
//!
//! The store counts for itself; it is asked when the page is.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tidegate_base::metrics::Registry;

/// How a store is doing.
#[derive(Clone, Debug, Default)]
pub struct StoreFigures {
    /// It takes commits.
    pub is_up: bool,
    /// Actors that it keeps in this process: none of them outlasts it.
    pub in_memory: u64,
    /// What is on disk, if anything can be.
    pub disk: Option<DiskFigures>,
}

/// How a store on disk is doing.
#[derive(Clone, Debug, Default)]
pub struct DiskFigures {
    /// Actors that it keeps.
    pub keys: u64,
    /// Commits and other changes that were written.
    pub appends: u64,
    /// What was written for them, and by compactions.
    pub appended_bytes: u64,
    /// Writes, each of them of one change or more.
    pub writes: u64,
    /// How many syncs took up to so long, and longer than those before; the last has no end.
    pub sync_buckets: Vec<(Option<Duration>, u64)>,
    /// What they took together.
    pub sync_sum: Duration,
    /// Changes that wait to be written.
    pub waiting_appends: u64,
    /// What these weigh, in bytes.
    pub waiting_bytes: u64,
    /// How many files there are.
    pub segments: u64,
    /// What of them is still part of an actor.
    pub live_bytes: u64,
    /// The rest of them.
    pub dead_bytes: u64,
    /// About what the index takes of the memory.
    pub index_bytes: u64,
    /// Files that were emptied and removed.
    pub compactions: u64,
    /// What was copied for that.
    pub copied_bytes: u64,
    /// Files that cannot be emptied because they are damaged.
    pub damaged_segments: u64,
    /// How long opening took.
    pub recovery: Duration,
    /// What was read then.
    pub recovery_bytes: u64,
    /// What was cut off then of a write that had not come to its end.
    pub recovery_cut_bytes: u64,
}

type Figures = dyn Fn() -> StoreFigures + Send + Sync;

/// Asks the store, once there is one.
#[derive(Clone, Default)]
pub struct Metrics(Arc<OnceLock<Box<Figures>>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Puts the store on the page, once it is there.
    pub fn register(&self, registry: &mut Registry) {
        registry.collect("store", self.clone());
    }

    /// Puts the store's figures on the page, as they are when it is asked for. Once.
    pub fn watch(&self, figures: impl Fn() -> StoreFigures + Send + Sync + 'static) {
        // A host has one store.
        let _ = self.0.set(Box::new(figures));
    }
}

/// One line, or several.
struct Lines<'a>(DescriptorEncoder<'a>);

impl Lines<'_> {
    fn one(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        metric: &impl EncodeMetric,
    ) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, unit, metric.metric_type())?;
        metric.encode(encoder)
    }

    fn level(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, None, &ConstGauge::new(value))
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, Some(&Unit::Bytes), &ConstGauge::new(value))
    }

    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, None, &ConstCounter::new(value))
    }

    fn byte_count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.one(name, help, Some(&Unit::Bytes), &ConstCounter::new(value))
    }

    /// A level for each value of a label.
    fn levels(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &'static str,
        values: &[(&'static str, u64)],
    ) -> fmt::Result {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?;
        values.iter().try_for_each(|(of, value)| {
            let labels = [(label, *of)];
            ConstGauge::new(*value).encode(encoder.encode_family(&labels)?)
        })
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(figures) = self.0.get() else {
            return Ok(());
        };
        let StoreFigures {
            is_up,
            in_memory,
            disk,
        } = figures();
        let mut page = Lines(encoder);
        page.level(
            "store_up",
            "1 while the store takes commits, else 0",
            is_up.into(),
        )?;
        let mut actors = vec![("memory", in_memory)];
        actors.extend(disk.as_ref().map(|disk| ("disk", disk.keys)));
        let help = "Actors that are stored, by where";
        page.levels("store_keys", help, None, "kind", &actors)?;
        match disk {
            Some(disk) => on_disk(&mut page, &disk),
            None => Ok(()),
        }
    }
}

fn on_disk(page: &mut Lines<'_>, disk: &DiskFigures) -> fmt::Result {
    page.count(
        "store_appends",
        "Commits and other changes that were written",
        disk.appends,
    )?;
    page.byte_count(
        "store_appended",
        "What was written for them, and by compactions",
        disk.appended_bytes,
    )?;
    page.count(
        "store_writes",
        "Writes, each of them of one change or more",
        disk.writes,
    )?;
    sync_seconds(page, disk)?;
    page.level(
        "store_waiting_commits",
        "Changes that wait to be written",
        disk.waiting_appends,
    )?;
    page.bytes(
        "store_waiting",
        "What waits to be written",
        disk.waiting_bytes,
    )?;
    page.level("store_segments", "Files of the store", disk.segments)?;
    let help = "What the files hold: what is still part of an actor, and the rest";
    let bytes = [("live", disk.live_bytes), ("dead", disk.dead_bytes)];
    page.levels("store_disk", help, Some(&Unit::Bytes), "state", &bytes)?;
    page.bytes(
        "store_index",
        "About what the index takes of the memory",
        disk.index_bytes,
    )?;
    page.count(
        "store_compactions",
        "Files that were emptied and removed",
        disk.compactions,
    )?;
    page.byte_count(
        "store_copied",
        "What compactions have copied",
        disk.copied_bytes,
    )?;
    page.level(
        "store_damaged_segments",
        "Files that cannot be emptied because they are damaged",
        disk.damaged_segments,
    )?;
    page.one(
        "store_recovery",
        "How long it took to open the store",
        Some(&Unit::Seconds),
        &ConstGauge::new(disk.recovery.as_secs_f64()),
    )?;
    page.bytes(
        "store_recovery",
        "What was read to open the store",
        disk.recovery_bytes,
    )?;
    page.bytes(
        "store_recovery_cut",
        "What was cut off then, of a write that had not come to its end",
        disk.recovery_cut_bytes,
    )
}

fn sync_seconds(page: &mut Lines<'_>, disk: &DiskFigures) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = disk
        .sync_buckets
        .iter()
        .map(|(end, count)| (end.map_or(f64::MAX, |end| end.as_secs_f64()), *count))
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let mut encoder = page.0.encode_descriptor(
        "store_sync",
        "How long it took to sync what was written",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    let sum = disk.sync_sum.as_secs_f64();
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics) -> String {
        let mut registry = Registry::in_order(&[]);
        metrics.register(&mut registry);
        registry.page()
    }

    #[test]
    fn a_host_without_a_store_has_no_lines_for_it() {
        assert!(!page(&Metrics::default()).contains("store_"));
    }

    #[test]
    fn a_store_in_memory_has_but_two() {
        let metrics = Metrics::default();
        metrics.watch(|| StoreFigures {
            is_up: true,
            in_memory: 3,
            disk: None,
        });
        let page = page(&metrics);
        let lines: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("tidegate_store"))
            .collect();
        assert_eq!(
            lines,
            [
                "tidegate_store_up 1",
                "tidegate_store_keys{kind=\"memory\"} 3"
            ]
        );
    }

    #[test]
    fn syncs_are_a_histogram_in_seconds() {
        let metrics = Metrics::default();
        metrics.watch(|| StoreFigures {
            disk: Some(DiskFigures {
                sync_buckets: vec![
                    (Some(Duration::from_millis(1)), 2),
                    (Some(Duration::from_millis(2)), 1),
                    (None, 4),
                ],
                sync_sum: Duration::from_millis(1500),
                recovery: Duration::from_millis(250),
                ..DiskFigures::default()
            }),
            ..StoreFigures::default()
        });
        let page = page(&metrics);
        for line in [
            "tidegate_store_sync_seconds_sum 1.5",
            "tidegate_store_sync_seconds_count 7",
            "tidegate_store_sync_seconds_bucket{le=\"0.001\"} 2",
            "tidegate_store_sync_seconds_bucket{le=\"0.002\"} 3",
            "tidegate_store_sync_seconds_bucket{le=\"+Inf\"} 7",
            "tidegate_store_recovery_seconds 0.25",
            "tidegate_store_disk_bytes{state=\"live\"} 0",
            "tidegate_store_up 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }
}

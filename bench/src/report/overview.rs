//! A whole run for people: what of it the plot shows, the short table of the summary, and all
//! tables below each other.
//!
//! Who is who goes by name: the host's contestants begin with `tidegate`, floors end with
//! `(floor)`, everybody else is a peer.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::figure::{Spread, shown};
use super::plot::{self, Bar, Panel, Side};
use super::{Best, Machine, Row, Table, aligned};

/// The results of a run.
pub(crate) struct Report<'a> {
    pub(crate) machine: &'a Machine,
    /// Versions by package.
    pub(crate) peers: &'a Map<String, Value>,
    pub(crate) tables: &'a [Table],
}

/// Rows of one job that differ in the contestant alone.
struct Pick {
    job: &'static str,
    /// The labels behind the contestant's name.
    setting: &'static [&'static str],
    figure: &'static str,
}

const CALL: Pick = Pick {
    job: "rpc",
    setting: &["50", "1 deep", "0"],
    figure: "CPU µs/call",
};
const DELIVERY: Pick = Pick {
    job: "fanout",
    setting: &["1000", "1"],
    figure: "CPU µs/delivery",
};
const DELIVERY_OF_8: Pick = Pick {
    setting: &["1000", "8"],
    ..DELIVERY
};
/// Not all have as many connections.
const IDLE: Pick = Pick {
    job: "idle",
    setting: &[],
    figure: "RSS bytes each",
};
const DURABLE: Pick = Pick {
    job: "durable",
    setting: &["1", "50"],
    figure: "calls/s",
};
const CALLS: Pick = Pick {
    figure: "calls/s",
    ..CALL
};

/// What a panel of the plot shows.
struct Shape {
    title: &'static str,
    unit: &'static str,
    pick: Pick,
    best: Best,
    /// Contestants that are left out.
    without: &'static [&'static str],
}

const PANELS: [Shape; 6] = [
    Shape {
        title: "A call, 50 connections",
        unit: "CPU µs of the server, less is better",
        pick: CALL,
        best: Best::Least,
        without: &[],
    },
    Shape {
        title: "Calls, 50 connections",
        unit: "a second, more is better",
        pick: CALLS,
        best: Best::Most,
        without: &[],
    },
    Shape {
        title: "Fan-out to 1 000, one frame at a time",
        unit: "CPU µs per delivery, less is better",
        pick: DELIVERY,
        best: Best::Least,
        without: &[],
    },
    Shape {
        title: "Fan-out to 1 000, 8 frames in flight",
        unit: "CPU µs per delivery, less is better",
        pick: DELIVERY_OF_8,
        best: Best::Least,
        without: &[],
    },
    Shape {
        title: "An idle subscribed connection",
        unit: "bytes of RSS, less is better",
        pick: IDLE,
        best: Best::Least,
        without: &[],
    },
    Shape {
        title: "Durable calls, 50 connections",
        unit: "a second, more is better",
        pick: DURABLE,
        best: Best::Most,
        // They promise less.
        without: &["tidegate relaxed", "tidegate none", "tidegate memory"],
    },
];
const LEGEND: &str = "Green: tidegate. Grey: peers. Outlined: floors. \
    Lines reach from the least to the greatest of all rounds.";

/// The contestant that the others are compared with.
const RPC_HOST: &str = "tidegate none";
const DURABLE_HOST: &str = "tidegate strict";

/// A line of the summary.
struct Line {
    what: &'static str,
    unit: &'static str,
    ours: f64,
    rival: String,
    theirs: f64,
    ratio: Spread,
}

impl Report<'_> {
    /// The plot, as SVG.
    pub(crate) fn plot(&self) -> String {
        let panels: Vec<Panel> = PANELS
            .iter()
            .filter_map(|shape| self.panel(shape))
            .collect();
        let footer = [LEGEND.to_owned(), self.machine.short()];
        plot::svg(&panels, &footer)
    }

    /// The short table, the plot, and where they come from. `plot` is the plot's path from the
    /// page.
    pub(crate) fn summary(&self, plot: &Path) -> Result<String> {
        let head = ["", "Tidegate", "beside it", "", "ratio"].map(str::to_owned);
        let mut lines = vec![head.to_vec()];
        for line in self.lines()? {
            let with_unit = |figure: f64| {
                format!("{} {}", shown(figure), line.unit)
                    .trim_end()
                    .to_owned()
            };
            lines.push(vec![
                line.what.to_owned(),
                with_unit(line.ours),
                line.rival.clone(),
                with_unit(line.theirs),
                line.ratio.to_string(),
            ]);
        }
        let versions = self.versions();
        Ok(format!(
            "{}\n![Bars for the host, its peers and its floors]({})\n\nMedians of one run on {}; {versions}.\n",
            aligned(&lines),
            plot.display(),
            self.machine.short(),
        ))
    }

    /// All tables.
    pub(crate) fn tables(&self) -> String {
        let mut text = format!("On {}; {}.\n", self.machine.line(), self.versions());
        for table in self.tables {
            // One level below the page's own headings.
            let _ = write!(text, "\n#{}", table.markdown());
        }
        text
    }

    fn versions(&self) -> String {
        let versions = self.peers.iter();
        let versions = versions.map(|(name, version)| {
            format!(
                "{name} {}",
                version.as_str().unwrap_or_default().trim_start_matches('v')
            )
        });
        versions.collect::<Vec<_>>().join(", ")
    }

    fn table(&self, job: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.job == job)
    }

    /// A panel, of a job that has run.
    fn panel(&self, shape: &Shape) -> Option<Panel> {
        let rows = self.table(shape.pick.job)?.rows.iter();
        let rows = rows.filter(|row| {
            shape.pick.takes(row) && !shape.without.contains(&row.labels[0].as_str())
        });
        let mut bars: Vec<Bar> = rows
            .filter_map(|row| {
                Some(Bar {
                    name: row.labels[0].trim_end_matches(" (floor)").to_owned(),
                    side: side(&row.labels[0]),
                    spread: Spread::of(row.runs(shape.pick.figure)?)?,
                })
            })
            .collect();
        bars.sort_by(|a, b| {
            let order = a.spread.median.total_cmp(&b.spread.median);
            match shape.best {
                Best::Least => order,
                Best::Most => order.reverse(),
            }
        });
        let (title, unit) = (shape.title, shape.unit);
        Some(Panel { title, unit, bars })
    }

    /// The lines of the summary, of all jobs that have run.
    fn lines(&self) -> Result<Vec<Line>> {
        let rpc = |setting, figure| Pick {
            job: "rpc",
            setting,
            figure,
        };
        let durable = |setting, figure| Pick {
            job: "durable",
            setting,
            figure,
        };
        let peer = |name: &str| side(name) == Side::Peer;
        let floor = |name: &str| side(name) == Side::Floor;
        let on_demand = |name: &str| name.starts_with("bare wasmtime, on demand");
        let mut lines = Vec::new();
        let mut add = |line: Result<Option<Line>>| {
            lines.extend(line?);
            anyhow::Ok(())
        };
        let deep = &["50", "1 deep", "0"][..];
        add(self.line(
            "a call, 50 connections: CPU",
            "µs",
            RPC_HOST,
            CALL,
            Best::Least,
            &peer,
        ))?;
        add(self.line(
            "the same: calls a second",
            "",
            RPC_HOST,
            rpc(deep, "calls/s"),
            Best::Most,
            &peer,
        ))?;
        add(self.line(
            "5 000 calls a second: p99",
            "µs",
            RPC_HOST,
            rpc(&["50", "5000/s", "0"], "p99 µs"),
            Best::Least,
            &peer,
        ))?;
        add(self.line(
            "fan-out to 1 000: CPU a delivery",
            "µs",
            "tidegate",
            DELIVERY,
            Best::Least,
            &floor,
        ))?;
        add(self.line(
            "the same, 8 in flight",
            "µs",
            "tidegate",
            DELIVERY_OF_8,
            Best::Least,
            &peer,
        ))?;
        add(self.line(
            "idle subscribed connection: RSS",
            "bytes",
            "tidegate",
            IDLE,
            Best::Least,
            &peer,
        ))?;
        add(self.line(
            "durable calls a second, 50 connections",
            "",
            DURABLE_HOST,
            DURABLE,
            Best::Most,
            &peer,
        ))?;
        add(self.line(
            "a durable call, 1 connection: p50",
            "µs",
            DURABLE_HOST,
            durable(&["1", "1"], "p50 µs"),
            Best::Least,
            &peer,
        ))?;
        for (what, unit, figure) in [
            ("a new actor and its first call: CPU", "µs", "cold CPU µs"),
            ("an actor with its instance: RSS", "bytes", "RSS bytes each"),
        ] {
            let pick = Pick {
                job: "actors",
                setting: &[],
                figure,
            };
            add(self.line(
                what,
                unit,
                "tidegate, with instance",
                pick,
                Best::Least,
                &on_demand,
            ))?;
        }
        Ok(lines)
    }

    /// The host beside the best of its rivals; none when the job has not run, or has none.
    fn line(
        &self,
        what: &'static str,
        unit: &'static str,
        host: &str,
        pick: Pick,
        best: Best,
        rivals: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Line>> {
        let Some(table) = self.table(pick.job) else {
            return Ok(None);
        };
        let rows = || table.rows.iter().filter(|row| pick.takes(row));
        let missing = || {
            format!(
                "{what}: no figure `{}` of {host} in {}",
                pick.figure, pick.job
            )
        };
        let ours = rows()
            .find(|row| row.labels[0] == host)
            .with_context(missing)?;
        let runs = ours.runs(pick.figure).with_context(missing)?;
        let rivals: Vec<Vec<String>> = rows()
            .filter(|row| rivals(&row.labels[0]))
            .map(|row| row.labels.clone())
            .collect();
        let Some((labels, theirs)) = table.best(&rivals, pick.figure, best) else {
            return Ok(None);
        };
        let rival = rows().find(|row| row.labels == labels);
        let rival_runs = rival
            .and_then(|row| row.runs(pick.figure))
            .with_context(missing)?;
        let ratios: Vec<f64> = runs.iter().zip(rival_runs).map(|(a, b)| a / b).collect();
        Ok(Some(Line {
            what,
            unit,
            ours: Spread::of(runs).with_context(missing)?.median,
            rival: labels[0].clone(),
            theirs,
            ratio: Spread::of(&ratios).with_context(missing)?,
        }))
    }
}

impl Pick {
    fn takes(&self, row: &Row) -> bool {
        self.setting.is_empty() || row.labels[1..].iter().eq(self.setting)
    }
}

fn side(name: &str) -> Side {
    if name.starts_with("tidegate") {
        Side::Ours
    } else if name.ends_with("(floor)") {
        Side::Floor
    } else {
        Side::Peer
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;

    fn rpc() -> Table {
        let mut table = Table::new("rpc", &["server", "connections", "load", "attached"]);
        let contestants = [
            ("echo (floor)", 4.0),
            ("tidegate none", 12.0),
            ("Bun", 6.0),
            ("ws on Node", 10.0),
        ];
        for (name, cpu) in contestants {
            for connections in ["1", "50"] {
                let labels = [name, connections, "1 deep", "0"].map(str::to_owned);
                let sample = Sample::new().with("CPU µs/call", cpu);
                table.add(
                    &labels,
                    sample.with("calls/s", 1e5 / cpu).with("p99 µs", 100.0),
                );
            }
        }
        let paced = ["tidegate none", "50", "5000/s", "0"].map(str::to_owned);
        table.add(&paced, Sample::new().with("p99 µs", 100.0));
        table
    }

    fn report(tables: &[Table], look: impl FnOnce(Report<'_>)) {
        let machine = Machine::this();
        let mut peers = Map::new();
        peers.insert("bun".to_owned(), "1.2.3".into());
        look(Report {
            machine: &machine,
            peers: &peers,
            tables,
        });
    }

    #[test]
    fn the_summary_names_the_best_peer() {
        report(&[rpc()], |report| {
            let summary = report.summary(Path::new("plot.svg")).unwrap();
            let line = summary
                .lines()
                .find(|line| line.contains("50 connections: CPU"));
            let cells: Vec<_> = line.unwrap().split('|').map(str::trim).collect();
            assert_eq!(cells[2..6], ["12.0 µs", "Bun", "6.00 µs", "2.00"]);
            assert!(summary.contains("](plot.svg)") && summary.contains("bun 1.2.3"));
        });
    }

    #[test]
    fn a_summary_without_its_host_is_refused() {
        let mut table = Table::new("rpc", &["server", "connections", "load", "attached"]);
        let labels = ["Bun", "50", "1 deep", "0"].map(str::to_owned);
        table.add(&labels, Sample::new().with("CPU µs/call", 1.0));
        report(&[table], |report| {
            let error = report.summary(Path::new("plot.svg")).unwrap_err();
            assert!(error.to_string().contains("tidegate none"), "{error}");
        });
    }

    #[test]
    fn the_plot_shows_jobs_that_have_run() {
        report(&[rpc()], |report| {
            let plot = report.plot();
            assert!(plot.contains("A call, 50 connections"));
            assert!(!plot.contains("Fan-out"));
            // Floors go without the word, by their colour.
            assert!(plot.contains(">echo<") && plot.contains("class=\"floor\""));
        });
    }

    #[test]
    fn all_tables_are_one_level_down() {
        report(&[rpc()], |report| {
            assert!(report.tables().contains("\n### rpc\n"));
        });
    }
}

//! Results: each run of a contestant is a [`Sample`]; a [`Table`] holds the samples of all
//! contestants of a job and shows their medians and spread; a [`Report`] makes pages and a plot
//! of all tables of a run.

mod figure;
mod machine;
mod overview;
mod plot;
mod region;

use serde_json::{Value, json};

use figure::{Spread, shown};
pub(crate) use machine::Machine;
pub(crate) use overview::Report;
pub(crate) use region::with_region;

/// The end of the names of figures that are yes or no.
const QUESTION: char = '?';

/// The figures of one run, in the order in which they are shown. Names hold the unit.
#[derive(Default)]
pub(crate) struct Sample(Vec<(&'static str, f64)>);

impl Sample {
    pub(crate) fn new() -> Sample {
        Sample::default()
    }

    pub(crate) fn with(mut self, name: &'static str, figure: f64) -> Sample {
        self.0.push((name, figure));
        self
    }

    /// Whether something is so: a figure of 1 or 0, whose name ends with a question mark.
    pub(crate) fn with_truth(self, name: &'static str, truth: bool) -> Sample {
        debug_assert!(name.ends_with(QUESTION), "{name}");
        self.with(name, f64::from(u8::from(truth)))
    }
}

/// What a job found out.
pub(crate) struct Table {
    job: &'static str,
    /// What tells contestants apart.
    keys: &'static [&'static str],
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// Which of several figures is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Best {
    /// The greatest: a rate.
    Most,
    /// The least: a cost.
    Least,
}

struct Row {
    labels: Vec<String>,
    figures: Vec<(&'static str, Vec<f64>)>,
}

impl Table {
    pub(crate) fn new(job: &'static str, keys: &'static [&'static str]) -> Table {
        Table {
            job,
            keys,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a run of the contestant with these labels.
    pub(crate) fn add(&mut self, labels: &[String], sample: Sample) {
        assert_eq!(labels.len(), self.keys.len(), "{labels:?}");
        let place = self.rows.iter().position(|row| row.labels == labels);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row {
                labels: labels.to_vec(),
                figures: Vec::new(),
            });
            self.rows.len() - 1
        });
        for (name, figure) in sample.0 {
            self.rows[place].push(name, figure);
        }
    }

    /// Says something about the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds to each row the ratio of a figure to one of its floor, round by round. `floor`
    /// gives the floor's labels for a row's, or none for those that are floors themselves.
    pub(crate) fn ratio(
        &mut self,
        name: &'static str,
        figure: &'static str,
        floor: impl Fn(&[String]) -> Option<Vec<String>>,
        floor_figure: &'static str,
    ) {
        let ratios: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let labels = floor(&row.labels)?;
                let floor = self.rows.iter().find(|row| row.labels == labels)?;
                let pairs = row.runs(figure)?.iter().zip(floor.runs(floor_figure)?);
                let ratios = pairs.map(|(figure, floor)| figure / floor);
                Some(ratios.collect::<Vec<_>>())
            })
            .collect();
        for (row, ratios) in self.rows.iter_mut().zip(ratios) {
            for ratio in ratios.into_iter().flatten() {
                row.push(name, ratio);
            }
        }
    }

    /// The ratio to the best of several rows: `rivals` gives their labels.
    pub(crate) fn ratio_to_best(
        &mut self,
        name: &'static str,
        figure: &'static str,
        best: Best,
        rivals: impl Fn(&[String]) -> Option<Vec<Vec<String>>>,
    ) {
        let chosen: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let rivals = rivals(&row.labels)?;
                let (winner, _) = self.best(&rivals, figure, best)?;
                Some((row.labels.clone(), winner.to_vec()))
            })
            .collect();
        let winner = |labels: &[String]| {
            let found = chosen.iter().flatten().find(|(row, _)| row == labels);
            found.map(|(_, winner)| winner.clone())
        };
        self.ratio(name, figure, winner, figure);
    }

    /// Which of these rows has the best median of a figure, and what that is.
    pub(crate) fn best<'a>(
        &self,
        rivals: &'a [Vec<String>],
        figure: &str,
        best: Best,
    ) -> Option<(&'a [String], f64)> {
        let medians = rivals
            .iter()
            .filter_map(|labels| Some((labels.as_slice(), self.median(labels, figure)?)));
        match best {
            Best::Most => medians.max_by(|(_, a), (_, b)| a.total_cmp(b)),
            Best::Least => medians.min_by(|(_, a), (_, b)| a.total_cmp(b)),
        }
    }

    /// The median of a figure of the row with these labels.
    pub(crate) fn median<L: AsRef<str>>(&self, labels: &[L], figure: &str) -> Option<f64> {
        let labels = labels.iter().map(AsRef::as_ref);
        let row = self
            .rows
            .iter()
            .find(|row| labels.clone().eq(row.labels.iter()));
        Some(Spread::of(row?.runs(figure)?)?.median)
    }

    /// The table in Markdown, as printed.
    pub(crate) fn markdown(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|row| &row.figures) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let head = self
            .keys
            .iter()
            .chain(&names)
            .map(|name| (*name).to_owned());
        let mut lines = vec![head.collect::<Vec<_>>()];
        for row in &self.rows {
            let figures = names.iter().map(|name| {
                let spread = row.runs(name).and_then(Spread::of);
                spread.map_or_else(String::new, |spread| match name.ends_with(QUESTION) {
                    true => spread.truth().to_owned(),
                    false => spread.to_string(),
                })
            });
            lines.push(row.labels.iter().cloned().chain(figures).collect());
        }
        let mut text = format!("## {}\n\n{}", self.job, aligned(&lines));
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        text
    }

    /// The table for programs, with every run.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let labels = self.keys.iter().zip(&row.labels);
            let labels: serde_json::Map<_, _> = labels
                .map(|(key, label)| ((*key).to_owned(), Value::from(label.as_str())))
                .collect();
            let figures: serde_json::Map<_, _> = row
                .figures
                .iter()
                .filter_map(|(name, runs)| {
                    let spread = Spread::of(runs)?;
                    let value = json!({
                        "median": spread.median, "min": spread.min, "max": spread.max,
                        "runs": runs,
                    });
                    Some(((*name).to_owned(), value))
                })
                .collect();
            json!({"contestant": labels, "figures": figures})
        });
        json!({"rows": rows.collect::<Vec<_>>(), "notes": self.notes})
    }

    pub(crate) fn job(&self) -> &'static str {
        self.job
    }
}

impl Row {
    fn push(&mut self, name: &'static str, figure: f64) {
        match self.figures.iter_mut().find(|(known, _)| *known == name) {
            Some((_, runs)) => runs.push(figure),
            None => self.figures.push((name, vec![figure])),
        }
    }

    fn runs(&self, name: &str) -> Option<&[f64]> {
        let figure = self.figures.iter().find(|(known, _)| *known == name);
        figure.map(|(_, runs)| runs.as_slice())
    }
}

/// A Markdown table whose source can be read as well.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("| {cell:<width$} "));
        }
        text.push_str("|\n");
        if number == 0 {
            for width in &widths {
                text.push_str(&format!("|{}", "-".repeat(width + 2)));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// A figure without its spread, for notes.
pub(crate) fn number(figure: f64) -> String {
    shown(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(label: &str) -> Vec<String> {
        vec![label.to_owned()]
    }

    fn table() -> Table {
        let mut table = Table::new("job", &["who"]);
        for (floor, host) in [(100.0, 150.0), (200.0, 500.0), (100.0, 200.0)] {
            table.add(&labels("floor"), Sample::new().with("µs", floor));
            table.add(&labels("host"), Sample::new().with("µs", host));
        }
        table
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let mut table = table();
        let floor = |row: &[String]| (row[0] == "host").then(|| labels("floor"));
        table.ratio("ratio", "µs", floor, "µs");
        assert_eq!(table.rows[1].runs("ratio"), Some(&[1.5, 2.5, 2.0][..]));
        assert_eq!(table.rows[0].runs("ratio"), None);
    }

    #[test]
    fn a_row_shows_median_and_spread() {
        let text = table().markdown();
        assert!(text.contains("| host  | 200 (150…500) |"), "{text}");
    }

    #[test]
    fn questions_are_answered_in_words() {
        let mut table = Table::new("job", &["who"]);
        for (who, alive) in [("one", true), ("other", false)] {
            table.add(&labels(who), Sample::new().with_truth("alive?", alive));
        }
        let text = table.markdown();
        assert!(text.contains("| one   | yes    |"), "{text}");
        assert!(text.contains("| other | no     |"), "{text}");
    }

    #[test]
    fn json_has_every_run() {
        let json = table().json();
        let figure = &json["rows"][0]["figures"]["µs"];
        assert_eq!(figure["runs"], json!([100.0, 200.0, 100.0]));
        assert_eq!(figure["median"], 100.0);
    }
}

//! `tidegate components`: what a running host serves, as a table.

use serde::Deserialize;
use ureq::http::Method;

use super::print;
use super::remote::{Remote, short};

#[derive(clap::Args)]
pub(crate) struct Components {
    #[command(flatten)]
    remote: Remote,
}

#[derive(Deserialize)]
struct Listing {
    components: Vec<Component>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: String,
    digest: String,
    bytes: u64,
    actors: Vec<String>,
    actors_in_memory: usize,
    instances: usize,
}

impl Components {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let client = self.remote.client()?;
        let request = client
            .request(Method::GET, "/_tidegate/components")
            .body(())?;
        let listing: Listing = client.send(request)?.json()?;
        let rows = listing.components.iter().map(|component| {
            [
                component.name.clone(),
                short(&component.digest).to_owned(),
                component.bytes.to_string(),
                component.actors_in_memory.to_string(),
                component.instances.to_string(),
                component.actors.join(", "),
            ]
        });
        let head = [
            "NAME",
            "DIGEST",
            "BYTES",
            "IN MEMORY",
            "INSTANCES",
            "ACTOR TYPES",
        ];
        let head = head.map(str::to_owned);
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        Ok(print(&table(&rows))?)
    }
}

/// Columns as wide as their widest cell.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

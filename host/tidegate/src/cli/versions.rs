//! `tidegate deploy --list`: the versions that a running host keeps, as a table.

use serde::Deserialize;
use ureq::http::Method;

use super::components::table;
use super::print;
use super::remote::{Client, component_path, short};

#[derive(Deserialize)]
struct All {
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    serving: Option<u64>,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: u64,
    digest: String,
    bytes: u64,
    deployed_ms: u64,
    source: String,
    #[serde(default)]
    withdrawn: bool,
}

/// Prints the versions of one component, or of all, the newest of each first.
pub(super) fn list(client: &Client, name: Option<&str>) -> anyhow::Result<()> {
    let get = |path: &str| client.send(client.request(Method::GET, path).body(())?);
    let components = match name {
        Some(name) => vec![get(&(component_path(name) + "/versions"))?.json()?],
        None => get("/_tidegate/versions")?.json::<All>()?.components,
    };
    let head = [
        "NAME", "VERSION", "DIGEST", "BYTES", "DEPLOYED", "FROM", "STATE",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for component in &components {
        let newest_first = component.versions.iter().rev();
        rows.extend(newest_first.map(|version| component.row(version)));
    }
    Ok(print(&table(&rows))?)
}

impl Component {
    fn row(&self, version: &Version) -> [String; 7] {
        let state = match version.withdrawn {
            _ if self.serving == Some(version.version) => "serving",
            true => "withdrawn",
            false => "",
        };
        [
            self.name.clone(),
            version.version.to_string(),
            short(&version.digest).to_owned(),
            version.bytes.to_string(),
            utc(version.deployed_ms),
            version.source.clone(),
            state.to_owned(),
        ]
    }
}

/// A time in the form of RFC 3339, to the second.
fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's `civil_from_days`: years that begin in March, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix_ms, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_800_000, "2000-03-01T00:00:00Z"),
            (1_709_251_199_000, "2024-02-29T23:59:59Z"),
            (1_767_225_599_000, "2025-12-31T23:59:59Z"),
            (1_767_225_600_000, "2026-01-01T00:00:00Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(unix_ms), shown);
        }
    }
}

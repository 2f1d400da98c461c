//! `tidegate config`: the settings that hold, as a configuration file or as JSON, each
//! with where it comes from.
//!
//! Invariant: what is printed without `--json` is a configuration file that, on its own,
//! makes the same settings hold, but for secrets, which are not shown.

use serde_json::json;
use tidegate::config::Effective;
use tidegate_base::config::Shown;

use super::{Settings, print};

/// Stands for a secret.
const HIDDEN: &str = "…";

#[derive(clap::Args)]
pub(crate) struct Config {
    #[command(flatten)]
    settings: Settings,
    /// Prints one JSON object: {"KEY": {"value": …, "source": …}, …}.
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let effective = self.settings.effective()?;
        let text = match self.json {
            true => as_json(&effective)?,
            false => as_toml(&effective),
        };
        Ok(print(&text)?)
    }
}

fn as_toml(effective: &Effective) -> String {
    let mut text = String::new();
    for setting in &effective.settings {
        let key = &setting.key;
        let source = one_line(&setting.source.to_string());
        let line = match &setting.value {
            Shown::Value(value) => format!("{key} = {value}  # {source}\n"),
            Shown::Hidden => format!("# {key} = \"{HIDDEN}\"  # {source}\n"),
            Shown::Absent => format!("# {key} is not set\n"),
        };
        text.push_str(&line);
    }
    text
}

fn as_json(effective: &Effective) -> serde_json::Result<String> {
    let mut settings = serde_json::Map::new();
    for setting in &effective.settings {
        let value = match &setting.value {
            Shown::Value(value) => serde_json::to_value(value)?,
            Shown::Hidden => HIDDEN.into(),
            Shown::Absent => serde_json::Value::Null,
        };
        let source = setting.source.to_string();
        settings.insert(
            setting.key.clone(),
            json!({"value": value, "source": source}),
        );
    }
    Ok(serde_json::to_string_pretty(&settings)? + "\n")
}

/// The path of a file may hold anything, a comment no line break.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|c| match c.is_control() {
            true => c.escape_default().collect::<Vec<_>>(),
            false => vec![c],
        })
        .collect()
}

//! The application manifest: `spin.toml`, which Spin and this host both read.
//!
//! Of a component's table the host takes what Spin calls the same, and its own settings
//! from `[component.NAME.tool.tidegate]`. A component without that table is none of its
//! business.
//!
//! ```toml
//! [component.chat]
//! source = "target/spin/chat.wasm"                  # what Spin runs; not read here
//! environment = { GREETING = "hello" }
//! allowed_outbound_hosts = ["https://api.example.com", "http://*.spin.internal"]
//! [component.chat.tool.tidegate]
//! handler = "target/handlers/chat.wasm"      # relative to this file
//! durability = "relaxed"                     # what differs from store.durability
//! limits = { turn-deadline-ms = 2000 }       # what differs from [component] of the configuration
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidegate_base::config::{self, Durability};
use tidegate_engine::AllowedHosts;
use tidegate_engine::config::Limits;

use crate::config::Config;

/// A handler to load.
#[derive(Clone, Debug)]
pub struct Handler {
    /// The component's name in the manifest.
    pub name: String,
    /// Its `.wasm` file.
    pub path: PathBuf,
    /// What it may use.
    pub limits: Limits,
    /// Variables that it may read.
    pub environment: Vec<(String, String)>,
    /// Where it may send requests.
    pub outbound: AllowedHosts,
    /// How safe its actors' commits are.
    pub durability: Durability,
}

/// Why an application manifest is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// The file cannot be read.
    #[error("cannot read the application manifest {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// It is not what is expected.
    #[error("invalid application manifest {path}: {detail}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Nothing in it is for this host.
    #[error(
        "the application manifest {path} has no component with a [component.NAME.tool.tidegate] table"
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The parts of `spin.toml` that concern the host; Spin checks the others.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    component: BTreeMap<String, Component>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
    #[serde(default)]
    tool: Tools,
}

#[derive(Default, Deserialize)]
struct Tools {
    tidegate: Option<Settings>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Settings {
    handler: PathBuf,
    durability: Option<Durability>,
    #[serde(default)]
    limits: toml::Table,
}

/// Reads the handlers of an application manifest.
pub fn read(path: &Path, config: &Config) -> Result<Vec<Handler>, ApplicationError> {
    let text = std::fs::read_to_string(path).map_err(|source| ApplicationError::Read {
        path: path.to_owned(),
        source,
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let handlers = parse(&text, folder, config).map_err(|detail| ApplicationError::Invalid {
        path: path.to_owned(),
        detail,
    })?;
    match handlers.is_empty() {
        true => Err(ApplicationError::Empty {
            path: path.to_owned(),
        }),
        false => Ok(handlers),
    }
}

fn parse(text: &str, folder: &Path, config: &Config) -> Result<Vec<Handler>, String> {
    let manifest: Manifest = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut handlers = Vec::new();
    for (name, component) in manifest.component {
        let Some(settings) = component.tool.tidegate else {
            continue;
        };
        let limits = override_limits(&config.component, settings.limits)
            .map_err(|error| format!("[component.{name}.tool.tidegate] limits: {error}"))?;
        // What the pieces around the handler need on Spin; here actors call each other
        // without it.
        let hosts = component.allowed_outbound_hosts.iter();
        let hosts: Vec<&String> = hosts.filter(|host| !is_within_spin(host)).collect();
        let outbound = AllowedHosts::parse(&hosts)
            .map_err(|error| format!("[component.{name}] allowed_outbound_hosts: {error}"))?;
        handlers.push(Handler {
            path: folder.join(settings.handler),
            limits,
            environment: component.environment.into_iter().collect(),
            outbound,
            durability: settings.durability.unwrap_or(config.store.durability),
            name,
        });
    }
    Ok(handlers)
}

/// Whether an entry of `allowed_outbound_hosts` names components of the same application.
fn is_within_spin(entry: &str) -> bool {
    let host = entry.trim().trim_end_matches('/').rsplit("://").next();
    host.is_some_and(|host| host.ends_with(".spin.internal"))
}

fn override_limits(defaults: &Limits, overrides: toml::Table) -> Result<Limits, String> {
    let mut table = toml::Table::try_from(defaults).map_err(|error| error.to_string())?;
    table.extend(overrides);
    let limits: Limits = toml::Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| error.to_string())?;
    config::Settings::check(&limits).map_err(|wrong| wrong.to_string())?;
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        spin_manifest_version = 2
        [application]
        name = "example"
        [component.chat]
        source = "chat-on-spin.wasm"
        environment = { GREETING = "hello" }
        [component.chat.tool.tidegate]
        handler = "out/chat.wasm"
        limits = { turn-deadline-ms = 7 }
        [component.elsewhere]
        source = "other.wasm"
    "#;

    #[test]
    fn takes_components_with_a_table_of_its_own() {
        let handlers = parse(MANIFEST, Path::new("/app"), &Config::default()).unwrap();
        let [chat] = handlers.as_slice() else {
            panic!("expected one handler, found {handlers:?}");
        };
        assert_eq!(chat.name, "chat");
        assert_eq!(chat.path, Path::new("/app/out/chat.wasm"));
        assert_eq!(
            chat.environment,
            [("GREETING".to_owned(), "hello".to_owned())]
        );
        assert_eq!(chat.limits.turn_deadline_ms, 7);
        assert_eq!(chat.limits.memory_bytes, Limits::default().memory_bytes);
    }

    #[test]
    fn hosts_for_outbound_requests_are_read_as_spin_writes_them() {
        let text = MANIFEST.replace(
            "[component.chat.tool",
            "allowed_outbound_hosts = [\"https://api.example.com\", \"http://127.0.0.1:*\"]\n\
             [component.chat.tool",
        );
        let handlers = parse(&text, Path::new(""), &Config::default()).unwrap();
        let expected = AllowedHosts::parse(&["https://api.example.com", "http://127.0.0.1:*"]);
        assert_eq!(handlers[0].outbound, expected.unwrap());
        let without = parse(MANIFEST, Path::new(""), &Config::default()).unwrap();
        assert!(without[0].outbound.is_empty());
    }

    #[test]
    fn hosts_within_a_spin_application_are_none_here() {
        let text = MANIFEST.replace(
            "[component.chat.tool",
            "allowed_outbound_hosts = [\"http://*.spin.internal\", \"http://a.spin.internal/\"]\n\
             [component.chat.tool",
        );
        let handlers = parse(&text, Path::new(""), &Config::default()).unwrap();
        assert!(handlers[0].outbound.is_empty());
    }

    #[test]
    fn a_host_of_another_form_is_named_with_its_component() {
        let text = MANIFEST.replace(
            "[component.chat.tool",
            "allowed_outbound_hosts = [\"http://self\"]\n[component.chat.tool",
        );
        let error = parse(&text, Path::new(""), &Config::default()).unwrap_err();
        assert!(
            error.contains("component.chat") && error.contains("`http://self`"),
            "{error}"
        );
    }

    #[test]
    fn a_misspelt_limit_is_named() {
        let text = MANIFEST.replace("turn-deadline-ms", "deadline");
        let error = parse(&text, Path::new(""), &Config::default()).unwrap_err();
        assert!(
            error.contains("component.chat") && error.contains("deadline"),
            "{error}"
        );
    }
}

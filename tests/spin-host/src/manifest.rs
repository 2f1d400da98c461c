//! The application manifest, as far as an application of the tests uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::outbound::Allowed;
use crate::variables::Values;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
    trigger: Triggers,
    #[serde(default)]
    component: BTreeMap<String, Table>,
}

/// A variable of the application.
#[derive(Deserialize)]
pub(crate) struct Variable {
    pub(crate) default: Option<String>,
}

#[derive(Deserialize)]
struct Triggers {
    #[serde(default)]
    http: Vec<Trigger>,
}

#[derive(Deserialize)]
struct Trigger {
    route: Route,
    component: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Route {
    Pattern(String),
    Private { private: bool },
}

#[derive(Deserialize)]
struct Table {
    source: PathBuf,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    sqlite_databases: BTreeSet<String>,
    #[serde(default)]
    variables: BTreeMap<String, String>,
    #[serde(default)]
    allowed_outbound_hosts: Vec<String>,
}

/// An application.
pub(crate) struct Application {
    /// Which component serves which paths.
    pub(crate) routes: routefinder::Router<String>,
    /// The components that some trigger names.
    pub(crate) components: BTreeMap<String, Component>,
}

/// What a component is and may use.
pub(crate) struct Component {
    pub(crate) source: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) databases: BTreeSet<String>,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) allowed: Allowed,
}

/// Reads an application manifest.
pub(crate) fn read(
    path: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Application> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the manifest {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&text, folder, environment).with_context(|| format!("in {}", path.display()))
}

fn parse(
    text: &str,
    folder: &Path,
    environment: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Application> {
    let mut manifest: Manifest = toml::from_str(text)?;
    let values = Values::resolve(&manifest.variables, environment)?;
    let mut application = Application {
        routes: routefinder::Router::new(),
        components: BTreeMap::new(),
    };
    for trigger in manifest.trigger.http {
        match trigger.route {
            Route::Pattern(pattern) => {
                let rest = pattern.strip_suffix("/...");
                let pattern = rest.map_or(pattern.clone(), |prefix| format!("{prefix}/*"));
                let added = application.routes.add(pattern, trigger.component.clone());
                added.map_err(anyhow::Error::msg)?;
            }
            Route::Private { private } => anyhow::ensure!(private, "`private` is never false"),
        }
        // Several triggers may name one component.
        if let Some(table) = manifest.component.remove(&trigger.component) {
            let component = table
                .component(folder, &values)
                .with_context(|| format!("[component.{}]", trigger.component))?;
            application.components.insert(trigger.component, component);
        } else if !application.components.contains_key(&trigger.component) {
            anyhow::bail!("there is no [component.{}]", trigger.component);
        }
    }
    Ok(application)
}

impl Table {
    fn component(self, folder: &Path, values: &Values) -> anyhow::Result<Component> {
        let fill = |(name, template): (String, String)| Ok((name, values.fill(&template)?));
        let hosts: Vec<String> = self
            .allowed_outbound_hosts
            .iter()
            .map(|host| values.fill(host))
            .collect::<anyhow::Result<_>>()?;
        Ok(Component {
            source: folder.join(self.source),
            environment: self.environment.into_iter().collect(),
            databases: self.sqlite_databases,
            variables: self
                .variables
                .into_iter()
                .map(fill)
                .collect::<anyhow::Result<_>>()?,
            allowed: Allowed::parse(&hosts)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        spin_manifest_version = 2
        [application]
        name = "example"
        [variables]
        a_key = { default = "secret" }
        [[trigger.http]]
        route = "/actors/counter/..."
        component = "counter"
        [[trigger.http]]
        route = "/actors/counter/:id/state"
        component = "events"
        [[trigger.http]]
        route = { private = true }
        component = "hidden"
        [component.counter]
        source = "counter.wasm"
        variables = { key = "{{ a_key }}" }
        sqlite_databases = ["default"]
        [component.events]
        source = "events.wasm"
        [component.hidden]
        source = "hidden.wasm"
        [component.unused]
        source = "unused.wasm"
    "#;

    fn application() -> Application {
        parse(MANIFEST, Path::new("/app"), |_| None).unwrap()
    }

    #[test]
    fn the_most_exact_route_serves() {
        let application = application();
        let served = |path: &str| {
            let found = application.routes.best_match(path);
            found.map(|found| found.handler().clone())
        };
        assert_eq!(
            served("/actors/counter/a/increment").as_deref(),
            Some("counter")
        );
        assert_eq!(served("/actors/counter/a/state").as_deref(), Some("events"));
        assert_eq!(
            served("/actors/counter/a%2Fb/state").as_deref(),
            Some("events")
        );
        assert_eq!(
            served("/actors/counter/a/b/state").as_deref(),
            Some("counter")
        );
        assert_eq!(served("/actors/chat/a/state"), None);
    }

    #[test]
    fn components_are_those_with_a_trigger() {
        let application = application();
        let names: Vec<&str> = application.components.keys().map(String::as_str).collect();
        assert_eq!(names, ["counter", "events", "hidden"]);
        let counter = &application.components["counter"];
        assert_eq!(counter.source, Path::new("/app/counter.wasm"));
        assert_eq!(counter.variables["key"], "secret");
        assert!(counter.databases.contains("default"));
    }

    #[test]
    fn a_trigger_of_no_component_is_an_error() {
        let text = MANIFEST.replace("[component.events]", "[component.other]");
        let error = parse(&text, Path::new(""), |_| None).err().unwrap();
        assert!(error.to_string().contains("events"), "{error}");
    }
}

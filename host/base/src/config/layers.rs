//! The settings in layers: defaults, a TOML file, environment variables, the command line.
//!
//! The command line adds the layers in that order and resolves them; `tidegate config`
//! shows what came out. Invariants: of two layers that name a setting the later one wins,
//! whatever is wrong is reported with the place it stands in, and a secret leaves this
//! module only inside the [`Config`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::{Config, ConfigError};

/// What the names of all variables begin with.
const PREFIX: &str = "TIDEGATE_";
/// Short names of variables, and the settings they stand for. The long name wins.
const ALIASES: [(&str, &str); 2] = [
    ("TIDEGATE_LISTEN", "gateway.listen"),
    (
        "TIDEGATE_ENGINE_GROWN_MEMORY_BYTES",
        "engine.guest-memory-bytes",
    ),
];
/// Other names of settings, and those that they stand for.
const OTHER_NAMES: [(&str, &str); 1] = [("engine.grown-memory-bytes", "engine.guest-memory-bytes")];
/// Variables that arguments of the command line are read from.
const ARGUMENTS: [&str; 2] = ["TIDEGATE_CONFIG", "TIDEGATE_URL"];
/// Settings that are never shown.
const SECRETS: [&str; 1] = ["admin.key"];

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing names it.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// An argument of the command line, such as `--set`.
    Argument(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => path.display().fmt(f),
            Source::Variable(name) => f.write_str(name),
            Source::Argument(name) => f.write_str(name),
        }
    }
}

impl Source {
    fn place(&self) -> String {
        match self {
            Source::Variable(name) => format!("environment variable {name}"),
            other => other.to_string(),
        }
    }
}

/// The settings that hold, and where each comes from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// What the host is run with.
    pub config: Config,
    /// Every setting there is, in alphabetical order.
    pub settings: Vec<Setting>,
    /// What is odd but no error: variables that look like settings and are none.
    pub warnings: Vec<String>,
}

/// One setting.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its dotted name.
    pub key: String,
    /// What it is set to.
    pub value: Shown,
    /// Where that comes from.
    pub source: Source,
}

/// A value, as far as it may be seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// In the open.
    Value(toml::Value),
    /// A secret that is set.
    Hidden,
    /// An optional setting that is not set.
    Absent,
}

/// What kind of text a setting is read from, as its default tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Boolean,
    Number,
    Text,
    /// A text that has no default.
    OptionalText,
    List,
}

/// Every setting by its dotted name. JSON, other than TOML, also has what is absent.
static KNOWN: LazyLock<BTreeMap<String, Kind>> = LazyLock::new(|| {
    let mut known = BTreeMap::new();
    let defaults = serde_json::to_value(Config::default());
    collect_kinds("", &defaults.unwrap_or_default(), &mut known);
    known
});

fn collect_kinds(key: &str, value: &serde_json::Value, known: &mut BTreeMap<String, Kind>) {
    let kind = match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                collect_kinds(&joined(key, name), value, known);
            }
            return;
        }
        serde_json::Value::Null => Kind::OptionalText,
        serde_json::Value::Bool(_) => Kind::Boolean,
        serde_json::Value::Number(_) => Kind::Number,
        serde_json::Value::String(_) => Kind::Text,
        serde_json::Value::Array(_) => Kind::List,
    };
    known.insert(key.to_owned(), kind);
}

fn joined(key: &str, name: &str) -> String {
    match key {
        "" => name.to_owned(),
        _ => format!("{key}.{name}"),
    }
}

/// The variable of a setting: `TIDEGATE_ACTORS_IDLE_TIMEOUT_MS` for
/// `actors.idle-timeout-ms`.
pub fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace(['.', '-'], "_").to_uppercase())
}

impl Kind {
    /// Reads what somebody wrote without minding TOML's quotes.
    fn read(self, text: &str) -> Result<toml::Value, String> {
        let parsed = || text.trim().parse::<toml::Value>().ok();
        match self {
            Kind::Boolean => parsed()
                .filter(toml::Value::is_bool)
                .ok_or_else(|| format!("expected true or false, found `{text}`")),
            Kind::Number => parsed()
                .filter(toml::Value::is_integer)
                .ok_or_else(|| format!("expected a whole number, found `{text}`")),
            Kind::Text | Kind::OptionalText => Ok(parsed()
                .filter(toml::Value::is_str)
                .unwrap_or_else(|| text.into())),
            Kind::List if text.trim_start().starts_with('[') => parsed()
                .filter(toml::Value::is_array)
                .ok_or_else(|| format!("expected a list in TOML's syntax, found `{text}`")),
            Kind::List => {
                let words = text.split(',').map(str::trim);
                let words = words.filter(|word| !word.is_empty());
                Ok(words.collect::<Vec<_>>().into())
            }
        }
    }
}

/// Layers that are being laid; each one covers those before it.
#[derive(Default)]
pub struct Layers {
    table: toml::Table,
    sources: BTreeMap<String, Source>,
    warnings: Vec<String>,
}

impl Layers {
    /// The defaults alone.
    pub fn new() -> Layers {
        Layers::default()
    }

    /// Lays a TOML file on top.
    pub fn file(mut self, path: &Path) -> Result<Layers, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let refused = |place: String, detail: String| ConfigError::Invalid { place, detail };
        let located = |error: toml::de::Error| {
            // Not the error's own display, which shows the line, and with it perhaps a secret.
            let place = match error.span() {
                Some(span) => format!("{}:{}", path.display(), line_of(&text, span.start)),
                None => path.display().to_string(),
            };
            refused(place, error.message().to_owned())
        };
        let table: toml::Table = text.parse().map_err(located)?;
        let leaves = leaves_of(table);
        for (key, value) in &leaves {
            if SECRETS.contains(&key.as_str()) && !value.is_str() {
                let detail = format!("{key}: expected a string");
                return Err(refused(path.display().to_string(), detail));
            }
        }
        toml::from_str::<Config>(&text).map_err(located)?;
        for (key, value) in leaves {
            self.put(key, value, Source::File(path.to_owned()));
        }
        Ok(self)
    }

    /// Lays environment variables on top. Those that have nothing to do with settings are
    /// passed over; the value of a variable is a TOML value or bare text, and that of a
    /// list may be words with commas between. An optional setting's variable may be empty,
    /// which is as if it were not there.
    pub fn variables(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Layers, ConfigError> {
        let mut ours: BTreeMap<String, OsString> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        for (alias, key) in ALIASES {
            if let Some(value) = ours.remove(alias) {
                self.put_variable(alias, key, &value)?;
            }
        }
        for key in KNOWN.keys() {
            let name = variable_of(key);
            if let Some(value) = ours.remove(&name) {
                self.put_variable(&name, key, &value)?;
            }
        }
        for name in ours.into_keys() {
            if ARGUMENTS.contains(&name.as_str()) {
                continue;
            }
            let mut warning = format!("the environment variable {name} is no setting");
            if let Some(near) = nearest_variable(&name) {
                warning.push_str(&format!("; did you mean {near}?"));
            }
            self.warnings.push(warning);
        }
        Ok(self)
    }

    /// Lays `key=value` words on top; a value is read as that of a variable is.
    pub fn words(mut self, words: &[String]) -> Result<Layers, ConfigError> {
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| ConfigError::Word { word: word.clone() })?;
            self.put_text(key.trim(), value, Source::Argument("--set"))?;
        }
        Ok(self)
    }

    /// Lays one setting on top that an argument of its own was given for.
    pub fn argument(
        mut self,
        argument: &'static str,
        key: &str,
        value: &str,
    ) -> Result<Layers, ConfigError> {
        self.put_text(key, value, Source::Argument(argument))?;
        Ok(self)
    }

    /// What holds under all layers.
    pub fn resolve(self) -> Result<Effective, ConfigError> {
        let config = parse(self.table).map_err(|detail| ConfigError::Invalid {
            place: "configuration".to_owned(),
            detail,
        })?;
        let source_of = |key: &str| self.sources.get(key).cloned().unwrap_or(Source::Default);
        if let Err(wrong) = config.check() {
            return Err(ConfigError::Invalid {
                place: source_of(&wrong.key).place(),
                detail: wrong.to_string(),
            });
        }
        let effective = toml::Table::try_from(&config).map_err(|error| ConfigError::Invalid {
            place: "configuration".to_owned(),
            detail: error.to_string(),
        })?;
        let mut values: BTreeMap<String, toml::Value> = leaves_of(effective).into_iter().collect();
        let settings = KNOWN.keys().map(|key| Setting {
            key: key.clone(),
            value: match values.remove(key) {
                Some(_) if SECRETS.contains(&key.as_str()) => Shown::Hidden,
                Some(value) => Shown::Value(value),
                None => Shown::Absent,
            },
            source: source_of(key),
        });
        Ok(Effective {
            settings: settings.collect(),
            config,
            warnings: self.warnings,
        })
    }

    fn put_variable(&mut self, name: &str, key: &str, value: &OsStr) -> Result<(), ConfigError> {
        let source = Source::Variable(name.to_owned());
        let Some(value) = value.to_str() else {
            return Err(ConfigError::Invalid {
                place: source.place(),
                detail: "expected UTF-8".to_owned(),
            });
        };
        if value.is_empty() && KNOWN.get(key) == Some(&Kind::OptionalText) {
            return Ok(());
        }
        self.put_text(key, value, source)
    }

    fn put_text(&mut self, key: &str, text: &str, source: Source) -> Result<(), ConfigError> {
        let value = match KNOWN.get(key) {
            Some(kind) => kind.read(text),
            // A whole section, or a name that is refused below with a list of the right ones.
            None => Ok(text.parse().unwrap_or_else(|_| text.into())),
        };
        let refused = |detail: String| ConfigError::Invalid {
            place: source.place(),
            detail: format!("{key}: {detail}"),
        };
        let mut alone = toml::Table::new();
        insert(&mut alone, key, value.map_err(refused)?);
        parse(alone.clone()).map_err(refused)?;
        for (key, value) in leaves_of(alone) {
            self.put(key, value, source.clone());
        }
        Ok(())
    }

    fn put(&mut self, key: String, value: toml::Value, source: Source) {
        let known = OTHER_NAMES.iter().find(|(other, _)| *other == key);
        let key = known.map_or(key, |(_, name)| (*name).to_owned());
        insert(&mut self.table, &key, value);
        self.sources.insert(key, source);
    }
}

fn parse(table: toml::Table) -> Result<Config, String> {
    let parsed: Result<Config, toml::de::Error> = toml::Value::Table(table).try_into();
    parsed.map_err(|error| error.message().to_owned())
}

/// The values within a table under their dotted names.
fn leaves_of(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut leaves = Vec::new();
    for (name, value) in table {
        match value {
            toml::Value::Table(members) => leaves.extend(
                leaves_of(members)
                    .into_iter()
                    .map(|(inner, value)| (joined(&name, &inner), value)),
            ),
            value => leaves.push((name, value)),
        }
    }
    leaves
}

fn insert(table: &mut toml::Table, key: &str, value: toml::Value) {
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let section = table
        .entry(section)
        .or_insert_with(|| toml::Table::new().into());
    if let toml::Value::Table(members) = section {
        insert(members, rest, value);
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// The variable whose name is like this one, unless it is as good as any other.
fn nearest_variable(name: &str) -> Option<String> {
    let variables = KNOWN.keys().map(|key| variable_of(key));
    let (distance, nearest) = variables
        .map(|variable| (edits_between(name, &variable), variable))
        .min()?;
    (distance * 3 <= name.len()).then_some(nearest)
}

/// Letters to insert, remove or replace (Levenshtein's distance).
fn edits_between(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

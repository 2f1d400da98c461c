//! The settings in layers: defaults, a TOML file, environment variables, the command line.
//!
//! The command line adds the layers in that order and resolves them; `tidegate config`
//! shows what came out. Invariants: of two layers that name a setting the later one wins,
//! whatever is wrong is reported with the place it stands in, and a secret leaves this
//! module only inside the settings themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use super::declare::dotted;
use super::{ConfigError, Settings};

/// What the names of all variables begin with.
const PREFIX: &str = "TIDEGATE_";

/// The settings of a whole program.
pub trait Program: Settings {
    /// Variables that arguments of the command line are read from.
    const ARGUMENTS: &'static [&'static str];
    /// What a word of the command line looks like.
    const EXAMPLE: &'static str;
}

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
pub struct Effective<C> {
    /// What the host is run with.
    pub config: C,
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

/// What is known of all settings, by dotted names.
struct Known {
    kinds: BTreeMap<String, Kind>,
    /// Settings that are never shown.
    secrets: BTreeSet<String>,
    /// Other names of settings, and those that they stand for.
    other_names: BTreeMap<String, String>,
    /// Further names of variables, and the settings that they stand for. The usual name wins.
    variables: BTreeMap<String, String>,
}

impl Known {
    fn of<C: Settings>() -> Known {
        let mut known = Known {
            kinds: BTreeMap::new(),
            secrets: BTreeSet::new(),
            other_names: BTreeMap::new(),
            variables: BTreeMap::new(),
        };
        // JSON, other than TOML, also has what is absent.
        let defaults = serde_json::to_value(C::default()).unwrap_or_default();
        for (key, declared) in C::declared().all() {
            if let Some(kind) = Kind::of(&defaults, &key) {
                known.kinds.insert(key.clone(), kind);
            }
            if declared.is_secret {
                known.secrets.insert(key.clone());
            }
            if let Some(name) = declared.variable {
                known.variables.insert(name.to_owned(), key.clone());
            }
            if let Some(alias) = declared.alias {
                let section = key.rsplit_once('.').map_or("", |(section, _)| section);
                let alias = dotted(section, alias);
                known.variables.insert(variable_of(&alias), key.clone());
                known.other_names.insert(alias, key);
            }
        }
        known
    }

    /// The variable whose name is like this one, unless it is as good as any other.
    fn nearest_variable(&self, name: &str) -> Option<String> {
        let variables = self.kinds.keys().map(|key| variable_of(key));
        let (distance, nearest) = variables
            .map(|variable| (edits_between(name, &variable), variable))
            .min()?;
        (distance * 3 <= name.len()).then_some(nearest)
    }
}

/// The variable of a setting: `TIDEGATE_ACTORS_IDLE_TIMEOUT_MS` for
/// `actors.idle-timeout-ms`.
pub fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace(['.', '-'], "_").to_uppercase())
}

impl Kind {
    /// That of a setting, among these defaults.
    fn of(defaults: &serde_json::Value, key: &str) -> Option<Kind> {
        let default = key
            .split('.')
            .try_fold(defaults, |section, name| section.get(name))?;
        Some(match default {
            serde_json::Value::Null => Kind::OptionalText,
            serde_json::Value::Bool(_) => Kind::Boolean,
            serde_json::Value::Number(_) => Kind::Number,
            serde_json::Value::String(_) => Kind::Text,
            serde_json::Value::Array(_) => Kind::List,
            serde_json::Value::Object(_) => return None,
        })
    }

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
pub struct Layers<C> {
    known: Known,
    table: toml::Table,
    sources: BTreeMap<String, Source>,
    warnings: Vec<String>,
    of: PhantomData<C>,
}

impl<C: Program> Default for Layers<C> {
    fn default() -> Self {
        Layers::new()
    }
}

impl<C: Program> Layers<C> {
    /// The defaults alone.
    pub fn new() -> Layers<C> {
        Layers {
            known: Known::of::<C>(),
            table: toml::Table::new(),
            sources: BTreeMap::new(),
            warnings: Vec::new(),
            of: PhantomData,
        }
    }

    /// Lays a TOML file on top.
    pub fn file(mut self, path: &Path) -> Result<Layers<C>, ConfigError> {
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
            if self.known.secrets.contains(key) && !value.is_str() {
                let detail = format!("{key}: expected a string");
                return Err(refused(path.display().to_string(), detail));
            }
        }
        toml::from_str::<C>(&text).map_err(located)?;
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
    ) -> Result<Layers<C>, ConfigError> {
        let mut ours: BTreeMap<String, OsString> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        let usual = self.known.kinds.keys();
        let usual = usual.map(|key| (variable_of(key), key.clone()));
        let further = self.known.variables.clone().into_iter();
        for (name, key) in further.chain(usual.collect::<Vec<_>>()) {
            if let Some(value) = ours.remove(&name) {
                self.put_variable(&name, &key, &value)?;
            }
        }
        for name in ours.into_keys() {
            if C::ARGUMENTS.contains(&name.as_str()) {
                continue;
            }
            let mut warning = format!("the environment variable {name} is no setting");
            if let Some(near) = self.known.nearest_variable(&name) {
                warning.push_str(&format!("; did you mean {near}?"));
            }
            self.warnings.push(warning);
        }
        Ok(self)
    }

    /// Lays `key=value` words on top; a value is read as that of a variable is.
    pub fn words(mut self, words: &[String]) -> Result<Layers<C>, ConfigError> {
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| ConfigError::Word {
                word: word.clone(),
                example: C::EXAMPLE,
            })?;
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
    ) -> Result<Layers<C>, ConfigError> {
        self.put_text(key, value, Source::Argument(argument))?;
        Ok(self)
    }

    /// What holds under all layers.
    pub fn resolve(self) -> Result<Effective<C>, ConfigError> {
        let config: C = parse(self.table).map_err(|detail| ConfigError::Invalid {
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
        let settings = self.known.kinds.keys().map(|key| Setting {
            key: key.clone(),
            value: match values.remove(key) {
                Some(_) if self.known.secrets.contains(key) => Shown::Hidden,
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
        if value.is_empty() && self.known.kinds.get(key) == Some(&Kind::OptionalText) {
            return Ok(());
        }
        self.put_text(key, value, source)
    }

    fn put_text(&mut self, key: &str, text: &str, source: Source) -> Result<(), ConfigError> {
        let value = match self.known.kinds.get(key) {
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
        parse::<C>(alone.clone()).map_err(refused)?;
        for (key, value) in leaves_of(alone) {
            self.put(key, value, source.clone());
        }
        Ok(())
    }

    fn put(&mut self, key: String, value: toml::Value, source: Source) {
        let key = self.known.other_names.get(&key).cloned().unwrap_or(key);
        insert(&mut self.table, &key, value);
        self.sources.insert(key, source);
    }
}

fn parse<C: Settings>(table: toml::Table) -> Result<C, String> {
    let parsed: Result<C, toml::de::Error> = toml::Value::Table(table).try_into();
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
                    .map(|(inner, value)| (dotted(&name, &inner), value)),
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

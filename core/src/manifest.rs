//! The manifest: what a component says of itself, as `wit/manifest.wit` defines it.
//!
//! The engine parses it once when it loads a component. Parsing is strict: a field that
//! the format does not have is an error, as is a state that its own schema refuses, so
//! that a mistake shows when the component is loaded and not when somebody calls it.
//!
//! Invariant: names are valid, schemas are compiled, the initial state satisfies its
//! schema, and what runs by the clock can do so without an input. Everything is found by `&str`, since [`Name`] borrows as one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::cron::{Cron, EVERY_MAX_MS, EVERY_MIN_MS, Schedule};
use crate::failure::cut;
use crate::json::{Json, Object};
use crate::meter::{Allowance, Unmetered};
use crate::name::Name;
use crate::schema::{Refused, Schema, push_token, shown_path, shown_value};
use crate::unambiguous;

/// The version of the format, the value of the field `tidegate`.
pub const VERSION: &str = "0.1";
/// The most bytes of a manifest's text.
pub const MANIFEST_MAX_BYTES: usize = 1 << 20;
/// The most steps that checking a manifest's initial state may take.
const INITIAL_MAX_STEPS: u64 = 1 << 24;
/// The most actor types of one manifest.
pub const MAX_ACTOR_TYPES: usize = 256;
/// The most methods of one actor type.
pub const MAX_METHODS: usize = 256;
/// The most events of one actor type.
pub const MAX_EVENTS: usize = 256;
/// The most hidden members of one actor type's state.
pub const MAX_HIDDEN: usize = 256;
/// The most methods of one actor type that run by the clock.
pub const MAX_CRON: usize = 64;
/// The most cron expressions of one manifest; each takes some kilobytes of memory.
pub const MAX_SCHEDULES: usize = 1024;
/// The interval of a streaming method that names none, in milliseconds.
pub const STREAMING_INTERVAL_MS: u64 = 50;
/// The longest interval of a streaming method, in milliseconds.
pub const STREAMING_INTERVAL_MAX_MS: u64 = 60_000;
/// The longest deadline of a method: a day, in milliseconds.
pub const DEADLINE_MAX_MS: u64 = 86_400_000;
/// The most patterns that all schemas of one manifest may have together.
pub const MAX_PATTERNS: usize = 256;

/// What a component says of itself.
///
/// ```
/// use tidegate_core::Manifest;
/// let manifest = Manifest::parse(
///     r#"{"tidegate": "0.1", "actors": {"counter": {"methods": {"increment": {}}}}}"#,
/// )
/// .unwrap();
/// assert!(manifest.actors["counter"].methods.contains_key("increment"));
///
/// let error = Manifest::parse(
///     r#"{"tidegate": "0.1", "actors": {"counter": {"method": {}}}}"#,
/// )
/// .unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "/actors/counter/method: unknown field, expected description, state, methods, events, \
///      cron, hooks, access or recheck"
/// );
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The actor types, by name.
    pub actors: BTreeMap<Name, ActorType>,
    source: Value,
}

/// One kind of actor.
#[derive(Clone, Debug, PartialEq)]
pub struct ActorType {
    /// For people.
    pub description: Option<String>,
    /// The state of its actors.
    pub state: StateSpec,
    /// What callers may invoke, by name.
    pub methods: BTreeMap<Name, Method>,
    /// The schema of each event's payload, by name.
    pub events: BTreeMap<Name, Schema>,
    /// The methods that run by the clock; each is one of `methods` and takes an absent
    /// input.
    pub cron: BTreeMap<Name, Cron>,
    /// Which hooks do anything.
    pub hooks: Hooks,
    /// Which functions of the export `access` do anything; all of them when absent.
    pub access: Option<Access>,
    /// When `authorize` is asked again about those who subscribe.
    pub recheck: Recheck,
}

/// The state of an actor type's actors.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSpec {
    /// What every committed state satisfies; any JSON without it.
    pub schema: Option<Schema>,
    /// The state of a new actor, which satisfies the schema.
    pub initial: Json,
    /// Which version of the state this is; states that were stored under another one are
    /// migrated or refused.
    pub version: u32,
    /// The top-level members that no subscriber and no HTTP reader is ever shown.
    pub hidden: Vec<String>,
}

/// What callers may invoke.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// For people.
    pub description: Option<String>,
    /// What the input satisfies, an absent one being checked as `null`; without it any
    /// input passes.
    pub input: Option<Schema>,
    /// What the result satisfies.
    pub output: Option<Schema>,
    /// Whether subscribers see what it stages while it runs.
    pub streaming: Option<Streaming>,
    /// How long a turn of it may take, in milliseconds, in place of the host's default.
    pub deadline_ms: Option<u64>,
}

/// How a method shows what it stages while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streaming {
    /// What is staged is committed at most once in so many milliseconds.
    pub interval_ms: u64,
}

/// Which of an actor's hooks do anything; the host skips the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// The actor entered memory.
    pub activate: bool,
    /// The actor is about to leave memory.
    pub deactivate: bool,
    /// First contact of a connection with the actor.
    pub connect: bool,
    /// Such a connection has closed.
    pub disconnect: bool,
}

/// Which functions of `access` decide about an actor type; the host skips the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Who may subscribe and read.
    pub authorize: bool,
    /// What each of them sees of the state.
    pub project: bool,
}

/// When `authorize` is asked again about those who subscribe, after a commit that changed the
/// state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recheck {
    /// Before anything of that commit, or of a later one, is let out to them.
    #[default]
    EachCommit,
    /// A while later: until then one who may look no longer is still told.
    Later,
}

/// Why a text is no manifest: the item, what was expected there, what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", shown_path(pointer))]
pub struct ManifestError {
    /// The item, a JSON pointer; empty for the manifest as a whole.
    pub pointer: String,
    /// What was expected, and what was found.
    pub message: String,
}

impl Manifest {
    /// Reads a manifest, or names the first item that is wrong with it.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        if text.len() > MANIFEST_MAX_BYTES {
            return Err(whole(format!(
                "expected a manifest of {MANIFEST_MAX_BYTES} bytes at most, found {} bytes",
                text.len()
            )));
        }
        let source = unambiguous::parse(text)
            .map_err(|error| whole(format!("expected a JSON object, found {error}")))?;
        let mut actors = Item::root(&source).manifest()?;
        order_initial_states(&mut actors, text);
        check_patterns(&actors)?;
        check_schedules(&actors)?;
        Ok(Manifest { actors, source })
    }

    /// The manifest as the component gave it.
    pub fn source(&self) -> &Value {
        &self.source
    }
}

fn whole(message: String) -> ManifestError {
    ManifestError {
        pointer: String::new(),
        message,
    }
}

/// Gives the initial states the order of members that they have in the text, and writes their
/// integers as such.
fn order_initial_states(actors: &mut BTreeMap<Name, ActorType>, text: &str) {
    let Ok(manifest) = Json::parse(text) else {
        return;
    };
    for (name, actor) in actors {
        let declared = manifest
            .get("actors")
            .and_then(|actors| actors.get(name.as_str()));
        let state = declared.and_then(|actor| actor.get("state"));
        if let Some(initial) = state.and_then(|state| state.get("initial")) {
            actor.state.initial = initial.clone();
        }
        if let Some(schema) = &actor.state.schema
            && let Ok(loose) = schema.check_metered(&actor.state.initial, &mut Unmetered)
        {
            actor.state.initial.spell_integers(&loose);
        }
    }
}

fn check_patterns(actors: &BTreeMap<Name, ActorType>) -> Result<(), ManifestError> {
    let schemas = actors.values().flat_map(|actor| {
        let methods = actor.methods.values();
        let methods = methods.flat_map(|method| method.input.iter().chain(&method.output));
        let state = actor.state.schema.iter();
        state.chain(methods).chain(actor.events.values())
    });
    match schemas.map(Schema::patterns).sum::<usize>() {
        0..=MAX_PATTERNS => Ok(()),
        found => Err(whole(format!(
            "expected {MAX_PATTERNS} patterns at most in all schemas together, found {found}"
        ))),
    }
}

fn check_schedules(actors: &BTreeMap<Name, ActorType>) -> Result<(), ManifestError> {
    let cron = actors.values().flat_map(|actor| actor.cron.values());
    match cron
        .filter(|cron| matches!(cron, Cron::Schedule(_)))
        .count()
    {
        0..=MAX_SCHEDULES => Ok(()),
        found => Err(whole(format!(
            "expected {MAX_SCHEDULES} cron expressions at most in all actor types together, found \
             {found}"
        ))),
    }
}

/// A value of the manifest, and where it stands.
struct Item<'a> {
    pointer: String,
    value: &'a Value,
}

impl<'a> Item<'a> {
    fn root(value: &'a Value) -> Item<'a> {
        Item {
            pointer: String::new(),
            value,
        }
    }

    fn child(&self, token: &str, value: &'a Value) -> Item<'a> {
        let mut pointer = self.pointer.clone();
        push_token(&mut pointer, token);
        Item { pointer, value }
    }

    fn refuse<T>(&self, message: String) -> Result<T, ManifestError> {
        Err(ManifestError {
            pointer: self.pointer.clone(),
            message,
        })
    }

    fn expected<T>(&self, what: &str) -> Result<T, ManifestError> {
        self.refuse(format!(
            "expected {what}, found {}",
            shown_value(self.value)
        ))
    }

    fn object(&self) -> Result<&'a Map<String, Value>, ManifestError> {
        match self.value {
            Value::Object(members) => Ok(members),
            _ => self.expected("an object"),
        }
    }

    fn array(&self) -> Result<&'a [Value], ManifestError> {
        match self.value {
            Value::Array(elements) => Ok(elements),
            _ => self.expected("an array"),
        }
    }

    fn string(&self) -> Result<&'a str, ManifestError> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => self.expected("a string"),
        }
    }

    /// A whole number within a range, both ends included.
    fn number(&self, unit: &str, low: u64, high: u64) -> Result<u64, ManifestError> {
        match self.value.as_u64() {
            Some(number) if (low..=high).contains(&number) => Ok(number),
            _ => self.expected(&format!("a whole number of {unit} from {low} to {high}")),
        }
    }

    /// The members of an object that has these fields and no others.
    fn fields<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<Item<'a>>; N], ManifestError> {
        let members = self.object()?;
        if let Some(unknown) = members.keys().find(|name| !names.contains(&name.as_str())) {
            let (last, others) = names.split_last().expect("every object has fields");
            let expected = match others {
                [] => (*last).to_owned(),
                others => format!("{} or {last}", others.join(", ")),
            };
            return self
                .child(&cut(unknown), self.value)
                .refuse(format!("unknown field, expected {expected}"));
        }
        Ok(names.map(|name| members.get(name).map(|value| self.child(name, value))))
    }

    /// The members of an object whose member names are names.
    fn named<T>(
        &self,
        limit: usize,
        read: impl Fn(&Item<'a>) -> Result<T, ManifestError>,
    ) -> Result<BTreeMap<Name, T>, ManifestError> {
        let members = self.object()?;
        if members.len() > limit {
            return self.refuse(format!(
                "expected {limit} members at most, found {}",
                members.len()
            ));
        }
        let each = |(name, value): (&'a String, &'a Value)| {
            let item = self.child(name, value);
            match Name::parse(name) {
                Ok(name) => Ok((name, read(&item)?)),
                Err(error) => self.refuse(error.to_string()),
            }
        };
        members.iter().map(each).collect()
    }

    fn schema(&self) -> Result<Schema, ManifestError> {
        Schema::compile(self.value).map_err(|error| ManifestError {
            pointer: format!("{}{}", self.pointer, error.pointer),
            message: error.message,
        })
    }

    fn manifest(&self) -> Result<BTreeMap<Name, ActorType>, ManifestError> {
        // The version comes first: a later format may well have other fields.
        if let Value::Object(members) = self.value {
            match members.get("tidegate") {
                None => {
                    return self.child("tidegate", self.value).refuse(format!(
                        "missing, expected the format's version {VERSION:?}"
                    ));
                }
                Some(Value::String(version)) if version == VERSION => {}
                Some(other) => {
                    let what = format!("{VERSION:?}, the version that this host reads");
                    return self.child("tidegate", other).expected(&what);
                }
            }
        }
        let [_, actors] = self.fields(["tidegate", "actors"])?;
        match actors {
            Some(actors) => actors.named(MAX_ACTOR_TYPES, Item::actor_type),
            None => self
                .child("actors", self.value)
                .refuse("missing, expected an object of actor types".to_owned()),
        }
    }

    fn actor_type(&self) -> Result<ActorType, ManifestError> {
        let [
            description,
            state,
            methods,
            events,
            cron,
            hooks,
            access,
            recheck,
        ] = self.fields([
            "description",
            "state",
            "methods",
            "events",
            "cron",
            "hooks",
            "access",
            "recheck",
        ])?;
        let access = access.map(|item| item.access()).transpose()?;
        let recheck = match recheck {
            Some(item) if access.is_some_and(|access| !access.authorize) => {
                return item.refuse("expected `authorize` in access beside it".to_owned());
            }
            Some(item) => item.recheck()?,
            None => Recheck::default(),
        };
        let state = match state {
            Some(state) => state.state()?,
            None => StateSpec {
                schema: None,
                initial: Json::Object(Object::new()),
                version: 0,
                hidden: Vec::new(),
            },
        };
        let methods = match methods {
            Some(methods) => methods.named(MAX_METHODS, Item::method)?,
            None => BTreeMap::new(),
        };
        Ok(ActorType {
            description: description.map(|item| item.description()).transpose()?,
            state,
            cron: match cron {
                Some(cron) => cron.cron(&methods)?,
                None => BTreeMap::new(),
            },
            methods,
            events: match events {
                Some(events) => events.named(MAX_EVENTS, Item::schema)?,
                None => BTreeMap::new(),
            },
            hooks: hooks
                .map(|item| item.hooks())
                .transpose()?
                .unwrap_or_default(),
            access,
            recheck,
        })
    }

    fn description(&self) -> Result<String, ManifestError> {
        self.string().map(str::to_owned)
    }

    fn state(&self) -> Result<StateSpec, ManifestError> {
        let [schema, initial, version, hidden] =
            self.fields(["schema", "initial", "version", "hidden"])?;
        let schema = schema.map(|item| item.schema()).transpose()?;
        let empty = json!({});
        let initial = initial.unwrap_or_else(|| Item {
            pointer: format!("{}/initial", self.pointer),
            value: &empty,
        });
        let state = Json::from(initial.value);
        let mut allowance = Allowance::new(INITIAL_MAX_STEPS);
        let checked = schema
            .as_ref()
            .map(|schema| schema.check_metered(&state, &mut allowance));
        match checked {
            Some(Err(Refused::Violations(violations))) => {
                return initial.refuse(format!(
                    "expected a state that satisfies the schema, found {violations}"
                ));
            }
            Some(Err(Refused::Exhausted(_))) => {
                return initial.refuse(format!(
                    "expected a state that can be checked in {INITIAL_MAX_STEPS} steps, found one \
                     to which the schema applies more subschemas"
                ));
            }
            Some(Ok(_)) | None => {}
        }
        let hidden = hidden
            .map(|item| item.hidden())
            .transpose()?
            .unwrap_or_default();
        let version = match version {
            Some(item) => item.version()?,
            None => 0,
        };
        if !hidden.is_empty() && !initial.value.is_object() {
            return initial.expected("an object, since some of its members are hidden");
        }
        Ok(StateSpec {
            schema,
            initial: state,
            version,
            hidden,
        })
    }

    fn version(&self) -> Result<u32, ManifestError> {
        let version = self.value.as_u64().map(u32::try_from);
        match version {
            Some(Ok(version)) => Ok(version),
            _ => self.expected(&format!("a whole number from 0 to {}", u32::MAX)),
        }
    }

    fn hidden(&self) -> Result<Vec<String>, ManifestError> {
        let names = self.array()?;
        if names.len() > MAX_HIDDEN {
            return self.refuse(format!(
                "expected {MAX_HIDDEN} names at most, found {}",
                names.len()
            ));
        }
        let mut hidden: Vec<String> = Vec::new();
        for (index, value) in names.iter().enumerate() {
            let item = self.child(&index.to_string(), value);
            let name = item.string()?;
            // A pointer here would hide nothing, and nobody would notice.
            if name.is_empty() || name.starts_with('/') {
                return item.expected("the name of a top-level member, not a pointer");
            }
            if hidden.iter().any(|other| other == name) {
                return item.expected("each name once");
            }
            hidden.push(name.to_owned());
        }
        Ok(hidden)
    }

    fn method(&self) -> Result<Method, ManifestError> {
        let [description, input, output, streaming, deadline_ms] =
            self.fields(["description", "input", "output", "streaming", "deadlineMs"])?;
        Ok(Method {
            description: description.map(|item| item.description()).transpose()?,
            input: input.map(|item| item.schema()).transpose()?,
            output: output.map(|item| item.schema()).transpose()?,
            streaming: streaming.map(|item| item.streaming()).transpose()?,
            deadline_ms: deadline_ms
                .map(|item| item.number("milliseconds", 1, DEADLINE_MAX_MS))
                .transpose()?,
        })
    }

    fn streaming(&self) -> Result<Streaming, ManifestError> {
        let [interval_ms] = self.fields(["intervalMs"])?;
        let interval_ms = match interval_ms {
            Some(item) => item.number("milliseconds", 1, STREAMING_INTERVAL_MAX_MS)?,
            None => STREAMING_INTERVAL_MS,
        };
        Ok(Streaming { interval_ms })
    }

    fn cron(
        &self,
        methods: &BTreeMap<Name, Method>,
    ) -> Result<BTreeMap<Name, Cron>, ManifestError> {
        let cron = self.named(MAX_CRON, Item::cron_entry)?;
        for name in cron.keys() {
            let entry = self.child(name.as_str(), self.value);
            let Some(method) = methods.get(name) else {
                return entry.refuse(format!("expected the name of a method, found {name}"));
            };
            // The clock sends no input, and an absent input is checked as null.
            if let Some(Err(violations)) =
                method.input.as_ref().map(|input| input.check(&Json::Null))
            {
                return entry.refuse(format!(
                    "expected a method that can do without an input (its schema must accept \
                     null), found {violations}"
                ));
            }
        }
        Ok(cron)
    }

    fn cron_entry(&self) -> Result<Cron, ManifestError> {
        let [every_ms, schedule] = self.fields(["everyMs", "schedule"])?;
        match (every_ms, schedule) {
            (Some(every), None) => Ok(Cron::Every {
                ms: every.number("milliseconds", EVERY_MIN_MS, EVERY_MAX_MS)?,
            }),
            (None, Some(item)) => match Schedule::parse(item.string()?) {
                Ok(schedule) => Ok(Cron::Schedule(schedule)),
                Err(error) => item.refuse(error.to_string()),
            },
            (found, _) => {
                let found = if found.is_some() { "both" } else { "neither" };
                self.refuse(format!(
                    "expected either everyMs or schedule, found {found}"
                ))
            }
        }
    }

    fn hooks(&self) -> Result<Hooks, ManifestError> {
        let mut hooks = Hooks::default();
        for (index, value) in self.array()?.iter().enumerate() {
            let item = self.child(&index.to_string(), value);
            let hook = match item.string()? {
                "activate" => &mut hooks.activate,
                "deactivate" => &mut hooks.deactivate,
                "connect" => &mut hooks.connect,
                "disconnect" => &mut hooks.disconnect,
                _ => return item.expected("activate, deactivate, connect or disconnect"),
            };
            if std::mem::replace(hook, true) {
                return item.expected("each hook once");
            }
        }
        Ok(hooks)
    }

    fn recheck(&self) -> Result<Recheck, ManifestError> {
        match self.string()? {
            "each-commit" => Ok(Recheck::EachCommit),
            "later" => Ok(Recheck::Later),
            _ => self.expected("each-commit or later"),
        }
    }

    fn access(&self) -> Result<Access, ManifestError> {
        let mut access = Access::default();
        for (index, value) in self.array()?.iter().enumerate() {
            let item = self.child(&index.to_string(), value);
            let function = match item.string()? {
                "authorize" => &mut access.authorize,
                "project" => &mut access.project,
                _ => return item.expected("authorize or project"),
            };
            if std::mem::replace(function, true) {
                return item.expected("each function once");
            }
        }
        Ok(access)
    }
}

#[cfg(test)]
mod tests;

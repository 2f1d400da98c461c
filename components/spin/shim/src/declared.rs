//! What the manifest says of one actor type, as far as a request needs it. Every request has
//! an instance of its own, and compiling a schema costs more than all else that a small turn
//! does: so a schema is read when something is checked against it, and not before, and whether it
//! is one is asked only when it refuses something.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Deref;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_core::failure::code;
use tidegate_core::manifest::ActorType;
use tidegate_core::meter::Allowance;
use tidegate_core::schema::{Refused, SchemaError, Violations};
use tidegate_core::{Failure, Json, Manifest, Name, Pointer, Schema};

use crate::stage::STATE_MEMORY_BYTES;

/// How much work the data of a turn may take, as [`Allowance`] counts it, and as much the check
/// of one value: the host's `work-steps`.
pub(crate) const WORK_STEPS: u64 = 200_000_000;

/// An actor type. The schemas in the [`ActorType`] that this derefs to are left out: they
/// are asked by [`Declared::check`].
pub(crate) struct Declared {
    /// Its name.
    pub(crate) name: Name,
    actor: ActorType,
    /// As the manifest has it.
    source: Value,
    compiled: RefCell<BTreeMap<String, Schema>>,
}

/// What a value is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Against<'a> {
    /// The state's schema.
    State,
    /// The input of a method.
    Input(&'a str),
    /// The result of a method.
    Output(&'a str),
    /// The payload of an event.
    Event(&'a str),
}

impl Against<'_> {
    fn of<'v>(&self, source: &'v Value) -> Option<&'v Value> {
        match self {
            Against::State => source.get("state")?.get("schema"),
            Against::Input(method) => source.get("methods")?.get(method)?.get("input"),
            Against::Output(method) => source.get("methods")?.get(method)?.get("output"),
            Against::Event(event) => source.get("events")?.get(event),
        }
    }
}

impl Deref for Declared {
    type Target = ActorType;

    fn deref(&self) -> &ActorType {
        &self.actor
    }
}

impl Declared {
    /// Reads what a manifest says of an actor type; none when it has no such type.
    pub(crate) fn parse(manifest: &str, actor: &str) -> Result<Option<Declared>, String> {
        // Its members in the order of the text.
        let initial = Json::parse(manifest).map_err(|error| error.to_string())?;
        let initial = initial
            .get("actors")
            .and_then(|all| all.get(actor)?.get("state")?.get("initial"))
            .cloned();
        let mut manifest: Value =
            serde_json::from_str(manifest).map_err(|error| error.to_string())?;
        let source = manifest
            .get_mut("actors")
            .and_then(|all| all.get_mut(actor));
        let Some(source) = source.map(Value::take) else {
            return Ok(None);
        };
        let mut bare = source.clone();
        leave_schemas_out(&mut bare);
        manifest["actors"] = json!({ actor: bare });
        let parsed = Manifest::parse(&manifest.to_string()).map_err(|error| error.to_string())?;
        let found = parsed.actors.into_iter().next();
        let Some((name, mut actor)) = found else {
            return Ok(None);
        };
        if let Some(initial) = initial {
            actor.state.initial = initial;
        }
        Ok(Some(Declared {
            name,
            actor,
            source,
            compiled: RefCell::default(),
        }))
    }

    /// Checks a value. Tells which of its numbers are to be written as integers. Fails when the
    /// schema itself is none, or when the check takes too much.
    pub(crate) fn check(
        &self,
        against: Against<'_>,
        value: &Json,
    ) -> Result<Result<Vec<Pointer>, Violations>, Failure> {
        let Some(source) = against.of(&self.source).filter(|source| !is_open(source)) else {
            return Ok(Ok(Vec::new()));
        };
        let name = format!("{against:?}");
        if let Some(schema) = self.compiled.borrow().get(&name) {
            return check(schema, value);
        }
        let no_schema = |error: SchemaError| {
            tidegate_spin_base::log!("the handler's manifest: {name}: {error}");
            Failure::host(code::INTERNAL).message("the handler does not say what it is")
        };
        let schema = Schema::trusted(source).map_err(no_schema)?;
        let checked = check(&schema, value)?;
        if checked.is_err() {
            // What is refused may be so because the schema is none.
            Schema::compile(source).map_err(no_schema)?;
        }
        self.compiled.borrow_mut().insert(name, schema);
        Ok(checked)
    }

    /// Checks a JSON text. Returns it with its integers written as such, none where they are.
    pub(crate) fn check_text(
        &self,
        against: Against<'_>,
        text: &str,
    ) -> Result<Result<Option<String>, String>, Failure> {
        let mut value = match Json::parse_within(text, STATE_MEMORY_BYTES) {
            Ok(value) => value,
            Err(error) => return Ok(Err(error.to_string())),
        };
        Ok(match self.check(against, &value)? {
            Ok(loose) if loose.is_empty() => Ok(None),
            Ok(loose) => {
                value.spell_integers(&loose);
                Ok(Some(value.to_text()))
            }
            Err(violations) => Err(violations.to_string()),
        })
    }

    /// Whether any payload of an event will do, if it is JSON.
    pub(crate) fn takes_any(&self, event: &str) -> bool {
        Against::Event(event).of(&self.source).is_none_or(is_open)
    }

    /// Names the state's schema: a state that was committed under it satisfies it.
    pub(crate) fn fit(&self) -> String {
        let Some(source) = Against::State.of(&self.source) else {
            return String::new();
        };
        let digest = Sha256::digest(source.to_string());
        let hex = digest.iter().take(8);
        hex.map(|byte| format!("{byte:02x}")).collect()
    }
}

fn check(schema: &Schema, value: &Json) -> Result<Result<Vec<Pointer>, Violations>, Failure> {
    match schema.check_metered(value, &mut Allowance::new(WORK_STEPS)) {
        Ok(loose) => Ok(Ok(loose)),
        Err(Refused::Violations(violations)) => Ok(Err(violations)),
        Err(Refused::Exhausted(_)) => Err(work_limit()),
    }
}

/// `turn.work-limit`
pub(crate) fn work_limit() -> Failure {
    Failure::host(code::TURN_WORK_LIMIT)
        .message(format!("the turn's data took more than {WORK_STEPS} steps"))
        .param("limit", WORK_STEPS)
}

/// Whether a schema accepts everything.
fn is_open(schema: &Value) -> bool {
    match schema {
        Value::Bool(all) => *all,
        Value::Object(keywords) => keywords.is_empty(),
        _ => false,
    }
}

fn leave_schemas_out(actor: &mut Value) {
    let member = |of: &mut Value, name: &str| {
        if let Some(members) = of.as_object_mut() {
            members.remove(name);
        }
    };
    if let Some(state) = actor.get_mut("state") {
        member(state, "schema");
    }
    let methods = actor.get_mut("methods").and_then(Value::as_object_mut);
    for method in methods.into_iter().flat_map(|methods| methods.values_mut()) {
        member(method, "input");
        member(method, "output");
    }
    let events = actor.get_mut("events").and_then(Value::as_object_mut);
    for event in events.into_iter().flat_map(|events| events.values_mut()) {
        *event = Value::Bool(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"{"tidegate": "0.1", "actors": {
        "a": {
            "state": {"schema": {"type": "object", "required": ["n"]}, "initial": {"n": 0}},
            "methods": {"add": {"input": {"type": "integer"}, "output": {"type": "integer"}}},
            "events": {"said": {"type": "string"}, "any": true}
        },
        "b": {"methods": {"other": {}}}
    }}"#;

    fn declared() -> Declared {
        Declared::parse(MANIFEST, "a").unwrap().unwrap()
    }

    fn is_valid(against: Against<'_>, value: Value) -> bool {
        declared().check(against, &value.into()).unwrap().is_ok()
    }

    #[test]
    fn it_is_about_one_actor_type() {
        assert_eq!(declared().name.as_str(), "a");
        assert!(declared().methods.contains_key("add"));
        assert!(Declared::parse(MANIFEST, "c").unwrap().is_none());
        assert!(Declared::parse("{", "a").is_err());
    }

    #[test]
    fn what_is_declared_is_checked() {
        assert!(is_valid(Against::State, json!({"n": 1})));
        assert!(!is_valid(Against::State, json!({})));
        assert!(is_valid(Against::Input("add"), json!(1)));
        assert!(!is_valid(Against::Input("add"), json!("1")));
        assert!(!is_valid(Against::Output("add"), json!("1")));
        assert!(!is_valid(Against::Event("said"), json!(1)));
    }

    #[test]
    fn what_is_not_declared_passes() {
        assert!(is_valid(Against::Input("nope"), json!(1)));
        assert!(is_valid(Against::Event("any"), json!(1)));
        assert!(declared().takes_any("any") && !declared().takes_any("said"));
    }

    #[test]
    fn another_schema_is_another_fit() {
        let other = MANIFEST.replace(r#""required": ["n"]"#, r#""required": []"#);
        let other = Declared::parse(&other, "a").unwrap().unwrap();
        assert_ne!(declared().fit(), other.fit());
        assert_eq!(declared().fit(), declared().fit());
        let none = Declared::parse(MANIFEST, "b").unwrap().unwrap();
        assert_eq!(none.fit(), "");
    }
}

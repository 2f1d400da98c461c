//! What the manifest says of one actor type, as far as a request needs it. Every request has
//! an instance of its own, and compiling a schema costs more than all else that a small turn
//! does: so a schema is read when something is checked against it, and not before, and whether it
//! is one is asked only when it refuses something.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Deref;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tidegate_core::manifest::ActorType;
use tidegate_core::schema::SchemaError;
use tidegate_core::{Failure, Json, Manifest, Name, Schema};

/// An actor type. The schemas in the [`ActorType`] that this derefs to are left out: they
/// are read by [`Declared::schema`].
pub(crate) struct Declared {
    /// Its name.
    pub(crate) name: Name,
    actor: ActorType,
    /// As the manifest has it.
    source: Value,
    read: RefCell<BTreeMap<String, Schema>>,
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
            read: RefCell::default(),
        }))
    }

    /// A schema; none where any JSON will do.
    pub(crate) fn schema(&self, against: Against<'_>) -> Result<Option<Schema>, Failure> {
        let Some(source) = against.of(&self.source).filter(|source| !is_open(source)) else {
            return Ok(None);
        };
        let name = format!("{against:?}");
        if let Some(schema) = self.read.borrow().get(&name) {
            return Ok(Some(schema.clone()));
        }
        let schema = Schema::trusted(source).map_err(|error| no_schema(against, &error))?;
        self.read.borrow_mut().insert(name, schema.clone());
        Ok(Some(schema))
    }

    /// Sees to it that a schema which has refused something is one: that may be why.
    pub(crate) fn confirm(&self, against: Against<'_>) -> Result<(), Failure> {
        match against.of(&self.source).map(Schema::compile) {
            Some(Err(error)) => Err(no_schema(against, &error)),
            Some(Ok(_)) | None => Ok(()),
        }
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

fn no_schema(against: Against<'_>, error: &SchemaError) -> Failure {
    tidegate_spin_base::log!("the handler's manifest: {against:?}: {error}");
    Failure::handler_undescribed()
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
    use tidegate_core::failure::code;

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
        let schema = declared().schema(against).unwrap();
        schema.is_none_or(|schema| schema.check(&value.into()).is_ok())
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
        let takes_any = |event| declared().schema(Against::Event(event)).unwrap().is_none();
        assert!(takes_any("any") && !takes_any("said"));
    }

    #[test]
    fn what_is_no_schema_is_found_once_it_has_refused_something() {
        let manifest = MANIFEST.replace(r#"{"type": "string"}"#, r#"{"type": "strange"}"#);
        let declared = Declared::parse(&manifest, "a").unwrap().unwrap();
        let failure = declared.confirm(Against::Event("said")).unwrap_err();
        assert_eq!(failure.code, code::INTERNAL);
        assert!(declared.confirm(Against::Input("add")).is_ok());
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

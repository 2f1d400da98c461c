//! What a component says of itself: the JSON of `wit/manifest.wit`, made from the tables of
//! its [actors](crate::actor). Panics where an actor contradicts itself, which refuses the
//! component when it is loaded and fails its native tests before.

use serde_json::{Map, Value, json};

use crate::actor::Actor;
use crate::dispatch::Handler;
use crate::schema::{self, Document};

/// The manifest of a component.
pub(crate) fn manifest<H: Handler>() -> String {
    let actors: Map<String, Value> = H::ACTORS
        .iter()
        .map(|actor| (actor.name.to_owned(), (actor.describe)()))
        .collect();
    json!({"tidegate": "0.1", "actors": actors}).to_string()
}

/// The manifest's entry for one actor type.
pub(crate) fn describe<A: Actor>() -> Document {
    let mut state = schema::of::<A>();
    let initial = serde_json::to_value(A::default()).unwrap_or_else(|error| {
        panic!(
            "the initial state of the actor {} is not JSON: {error}",
            A::NAME
        )
    });
    check_hidden::<A>(&state, &initial);
    let about_state = state
        .as_object_mut()
        .and_then(|schema| schema.remove("description"));
    let description = A::DESCRIPTION.map(Value::from).or(about_state);

    let methods: Map<String, Value> = A::METHODS
        .iter()
        .map(|method| {
            let mut entry = Map::new();
            set(
                &mut entry,
                "description",
                method.description.map(Value::from),
            );
            set(&mut entry, "input", method.input.map(|schema| schema()));
            set(&mut entry, "output", (method.output)());
            (method.name.to_owned(), Value::Object(entry))
        })
        .collect();
    let events: Map<String, Value> = A::events()
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    let hooks: Vec<&str> = A::HOOKS.iter().map(|(hook, _)| hook.name()).collect();

    let mut entry = Map::new();
    set(&mut entry, "description", description);
    set(
        &mut entry,
        "state",
        Some(json!({"schema": state, "initial": initial, "hidden": A::HIDDEN})),
    );
    set(&mut entry, "methods", Some(Value::Object(methods)));
    set(&mut entry, "events", Some(Value::Object(events)));
    set(&mut entry, "hooks", Some(hooks.into()));
    Value::Object(entry)
}

fn set(entry: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        entry.insert(field.to_owned(), value);
    }
}

/// A hidden member that does not exist is a misspelt one, and what it meant is shown to all.
fn check_hidden<A: Actor>(schema: &Value, initial: &Value) {
    for hidden in A::HIDDEN {
        let declared = schema.get("properties").and_then(|all| all.get(hidden));
        assert!(
            declared.or_else(|| initial.get(hidden)).is_some(),
            "the actor {} hides `{hidden}`, but its state has no such member: {}",
            A::NAME,
            initial,
        );
    }
}

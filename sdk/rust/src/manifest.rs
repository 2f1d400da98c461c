//! What a component says of itself: the JSON of `wit/manifest.wit`, made from the tables of
//! its [actors](crate::actor). Panics where an actor contradicts itself, which refuses the
//! component when it is loaded and fails its native tests before.

use serde_json::{Map, Value, json};

use crate::actor::{Actor, Cron};
use crate::dispatch::{ActorType, Handler};
use crate::schema::{self, Document};

/// The manifest of a component.
pub(crate) fn manifest<H: Handler>() -> String {
    let is_guarded = H::ACTORS.iter().any(ActorType::is_guarded);
    let actors: Map<String, Value> = H::ACTORS
        .iter()
        .map(|actor| {
            let mut entry = (actor.describe)();
            // Where the component exports `access`, an actor type that is silent about it
            // would have the host ask for everything.
            if is_guarded && entry.get("access").is_none() {
                entry["access"] = json!([]);
            }
            (actor.name.to_owned(), entry)
        })
        .collect();
    json!({"tidegate": "0.1", "actors": actors}).to_string()
}

/// The manifest's entry for one actor type.
pub(crate) fn describe<A: Actor>() -> Document {
    // What it can read: a state from before a member with a default was added is one as well.
    let mut state = schema::of_input::<A>();
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
            let streaming = method.stream_ms.map(|ms| json!({"intervalMs": ms}));
            set(&mut entry, "streaming", streaming);
            set(
                &mut entry,
                "deadlineMs",
                method.deadline_ms.map(Value::from),
            );
            (method.name.to_owned(), Value::Object(entry))
        })
        .collect();
    let events: Map<String, Value> = A::events()
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    let cron: Map<String, Value> = A::METHODS
        .iter()
        .filter_map(|method| {
            let cron = match method.cron? {
                Cron::Every(ms) => json!({"everyMs": ms}),
                Cron::Schedule(expression) => json!({"schedule": expression}),
            };
            Some((method.name.to_owned(), cron))
        })
        .collect();
    let hooks: Vec<&str> = A::HOOKS.iter().map(|(hook, _)| hook.name()).collect();

    let access: Vec<&str> = [
        A::AUTHORIZE.map(|_| "authorize"),
        A::PROJECT.map(|_| "project"),
    ]
    .into_iter()
    .flatten()
    .collect();

    let mut entry = Map::new();
    set(&mut entry, "description", description);
    let mut state = json!({"schema": state, "initial": initial, "hidden": A::HIDDEN});
    if A::VERSION != 0 {
        state["version"] = A::VERSION.into();
    }
    set(&mut entry, "state", Some(state));
    set(&mut entry, "methods", Some(Value::Object(methods)));
    set(&mut entry, "events", Some(Value::Object(events)));
    let cron = (!cron.is_empty()).then_some(Value::Object(cron));
    set(&mut entry, "cron", cron);
    set(&mut entry, "hooks", Some(hooks.into()));
    let access = (!access.is_empty()).then(|| access.into());
    set(&mut entry, "access", access);
    set(&mut entry, "recheck", A::RECHECK.map(Value::from));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use tidegate_core::Manifest;

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Open {}

    #[actor]
    impl Open {}

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Safe {}

    #[actor]
    impl Safe {
        #[project]
        fn view(&self) -> View {
            View::Nothing
        }

        #[authorize]
        fn may_see(&self) -> Result<()> {
            Ok(())
        }
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Gate {}

    #[actor]
    impl Gate {
        #[authorize]
        fn may_pass(&self) -> Result<()> {
            Ok(())
        }
    }

    struct Guarded;
    impl Handler for Guarded {
        const ACTORS: &'static [ActorType] = &[
            ActorType::of::<Open>(),
            ActorType::of::<Safe>(),
            ActorType::of::<Gate>(),
        ];
    }

    struct Plain;
    impl Handler for Plain {
        const ACTORS: &'static [ActorType] = &[ActorType::of::<Open>()];
    }

    #[test]
    fn a_guarded_component_says_of_each_actor_type_what_decides() {
        let manifest = Manifest::parse(&manifest::<Guarded>()).unwrap();
        let access = |actor: &str| {
            let access = manifest.actors[actor].access.unwrap();
            (access.authorize, access.project)
        };
        assert_eq!(access("open"), (false, false));
        assert_eq!(access("safe"), (true, true));
        assert_eq!(access("gate"), (true, false));
    }

    #[derive(Default, Serialize, Deserialize, JsonSchema)]
    struct Aged {
        years: u32,
        #[serde(default)]
        months: u32,
    }

    #[actor(version = 3)]
    impl Aged {}

    #[test]
    fn a_state_may_lack_what_has_a_default() {
        let described = describe::<Aged>();
        assert_eq!(described["state"]["version"], 3);
        let schema = tidegate_core::Schema::compile(&described["state"]["schema"]).unwrap();
        assert!(schema.check(&json!({"years": 1}).into()).is_ok());
        assert!(schema.check(&json!({"months": 1}).into()).is_err());
    }

    #[test]
    fn a_plain_component_says_nothing_of_access() {
        let manifest = Manifest::parse(&manifest::<Plain>()).unwrap();
        assert_eq!(manifest.actors["open"].access, None);
    }
}

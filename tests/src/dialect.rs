//! What Zocket's published client does with a snapshot and the patches that follow it. It
//! applies `add` to an array index as an assignment, and knows neither `move` nor `copy`
//! nor `test`: a host must only send what comes out right under these rules.

use serde_json::{Map, Value};

/// Applies the operations of one `state:patch` as Zocket's client does, and panics on one
/// that it would misapply.
#[track_caller]
pub fn apply(state: &mut Value, patches: &Value) {
    let patches = patches.as_array().expect("patches are an array");
    assert!(!patches.is_empty(), "an empty patch was sent");
    for patch in patches {
        let pointer = patch["path"].as_str().expect("a patch has a path");
        let value = patch.get("value");
        match patch["op"].as_str() {
            Some("add" | "replace") if pointer.is_empty() => {
                *state = value.expect("a value").clone();
            }
            Some("add") => set(state, pointer, value.expect("a value"), Place::New),
            Some("replace") => set(state, pointer, value.expect("a value"), Place::Taken),
            Some("remove") => remove(state, pointer),
            _ => panic!("Zocket's client does not know {patch}"),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    New,
    Taken,
}

fn set(state: &mut Value, pointer: &str, value: &Value, place: Place) {
    let (parent, member) = parent_of(state, pointer);
    match parent {
        Value::Object(members) => {
            assert_eq!(
                members.contains_key(&member),
                place == Place::Taken,
                "{pointer}"
            );
            members.insert(member, value.clone());
        }
        Value::Array(items) => {
            let index: usize = member.parse().expect("an array index");
            match place {
                Place::New => {
                    assert_eq!(index, items.len(), "an add within an array: {pointer}");
                    items.push(value.clone());
                }
                Place::Taken => items[index] = value.clone(),
            }
        }
        other => panic!("{pointer} is in {other}"),
    }
}

fn remove(state: &mut Value, pointer: &str) {
    let (parent, member) = parent_of(state, pointer);
    match parent {
        Value::Object(members) => {
            let removed: Option<Value> = Map::remove(members, &member);
            assert!(removed.is_some(), "{pointer} is not there");
        }
        Value::Array(items) => {
            let index: usize = member.parse().expect("an array index");
            assert_eq!(
                index + 1,
                items.len(),
                "a removal within an array: {pointer}"
            );
            items.pop();
        }
        other => panic!("{pointer} is in {other}"),
    }
}

fn parent_of<'a>(state: &'a mut Value, pointer: &str) -> (&'a mut Value, String) {
    let (parent, member) = pointer.rsplit_once('/').expect("a JSON pointer");
    let parent = state.pointer_mut(parent);
    let parent = parent.unwrap_or_else(|| panic!("nothing holds {pointer}"));
    (parent, member.replace("~1", "/").replace("~0", "~"))
}
